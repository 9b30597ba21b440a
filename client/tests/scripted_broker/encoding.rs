//! Headers: JSON for everybody, and the binary form for brokers that have shown that they read it.

use mezzo_client::config::{ClientConfig, HeaderEncoding as Setting};
use mezzo_client::{Client, Message, Producer};
use mezzo_protocol::remoting::header::client::{HEADER_ENCODINGS_BOTH, HeartbeatReplyHeader};
use mezzo_protocol::remoting::{HeaderEncoding, LanguageCode, RequestCode, ResponseCode};

use crate::fake::{Action, FakeBroker, Seen, settings};

const SEND: RequestCode = RequestCode::SEND_MESSAGE_V2;
const HEART_BEAT: RequestCode = RequestCode::HEART_BEAT;
/// `MQVersion` of RocketMQ 4.9.4 and of a release before Apache.
const APACHE: (LanguageCode, i32) = (LanguageCode::JAVA, 401);
const BEFORE_APACHE: (LanguageCode, i32) = (LanguageCode::JAVA, 137);

async fn broker() -> FakeBroker {
    let broker = FakeBroker::start().await;
    broker.shared.lock().queues.add_topic("orders", 4);
    broker
}

async fn producer(broker: &FakeBroker, header_encoding: Setting) -> (Client, Producer) {
    let mut config = settings();
    config.header_encoding = header_encoding;
    let client = Client::builder(broker.address()).config(config).build().await.unwrap();
    let producer = client.producer("sellers").start().await.unwrap();
    (client, producer)
}

async fn send(broker: &FakeBroker, producer: &Producer) -> Seen {
    let before = broker.all(SEND).len();
    producer.send(Message::new("orders", "x").unwrap()).await.unwrap();
    broker.wait_nth(SEND, before + 1).await
}

fn says_binary() -> Action {
    let header = HeartbeatReplyHeader { header_encodings: Some(HEADER_ENCODINGS_BOTH.into()) };
    let fields = header.encode().into_iter().map(|(_, value)| ("mezzoHeaderEncodings", value)).collect();
    Action::Fields(ResponseCode::SUCCESS, fields)
}

#[tokio::test]
async fn a_broker_that_says_that_it_reads_binary_headers_gets_them_from_the_first_send_on() {
    let broker = broker().await;
    broker.always(HEART_BEAT, Some(says_binary()));
    let (_client, producer) = producer(&broker, Setting::Auto).await;
    assert_eq!(send(&broker, &producer).await.encoding, HeaderEncoding::Binary);
    assert_eq!(broker.all(HEART_BEAT)[0].encoding, HeaderEncoding::Json, "it must be asked in JSON first");
    let run = (0..10).map(|number| Message::new("orders", number.to_string()).unwrap());
    assert!(producer.send_all(run).await.iter().all(Result::is_ok));
    assert!(broker.all(SEND).iter().all(|seen| seen.encoding == HeaderEncoding::Binary));
    let asked = broker.all(RequestCode::GET_ROUTEINFO_BY_TOPIC);
    assert!(asked.iter().all(|seen| seen.encoding == HeaderEncoding::Json), "name servers get JSON");
}

#[tokio::test]
async fn a_broker_that_writes_binary_headers_gets_them() {
    let broker = broker().await;
    broker.shared.lock().writes_binary = true;
    let (_client, producer) = producer(&broker, Setting::Auto).await;
    assert_eq!(send(&broker, &producer).await.encoding, HeaderEncoding::Binary);
}

#[tokio::test]
async fn a_peer_that_shows_nothing_gets_json() {
    for claims in [None, Some(BEFORE_APACHE), Some((LanguageCode::CPP, 401))] {
        let broker = broker().await;
        broker.shared.lock().claims = claims;
        broker.shared.lock().json_only = true;
        let (_client, producer) = producer(&broker, Setting::Auto).await;
        assert_eq!(send(&broker, &producer).await.encoding, HeaderEncoding::Json, "{claims:?}");
        broker.wait_nth(HEART_BEAT, 3).await;
        let all_in_json = broker.all(HEART_BEAT).iter().all(|seen| seen.encoding == HeaderEncoding::Json);
        assert!(all_in_json, "{claims:?}");
    }
}

#[tokio::test]
async fn an_apache_broker_answers_one_heartbeat_in_each_form_before_the_first_send() {
    let broker = broker().await;
    broker.shared.lock().claims = Some(APACHE);
    let (_client, producer) = producer(&broker, Setting::Auto).await;
    let sent = send(&broker, &producer).await;
    assert_eq!(sent.encoding, HeaderEncoding::Binary);
    let greetings: Vec<_> = broker.all(HEART_BEAT).iter().take(2).map(|seen| seen.encoding).collect();
    assert_eq!(greetings, [HeaderEncoding::Json, HeaderEncoding::Binary]);
}

#[tokio::test]
async fn a_json_only_peer_under_apaches_name_loses_no_message_and_is_tried_once() {
    let mut broker = broker().await;
    {
        let mut memory = broker.shared.lock();
        (memory.claims, memory.json_only) = (Some(APACHE), true);
    }
    let (_client, producer) = producer(&broker, Setting::Auto).await;
    let sent = send(&broker, &producer).await;
    assert_eq!(sent.encoding, HeaderEncoding::Json);
    assert_eq!(broker.all(SEND).len(), 1, "the trial is over before anything is sent");
    let tried = |broker: &FakeBroker| {
        let greetings = broker.all(HEART_BEAT);
        greetings.iter().map(|seen| seen.connection).collect::<std::collections::BTreeSet<_>>().len()
    };
    let before = tried(&broker);
    broker.go_down().await;
    broker.come_back().await;
    let again = send(&broker, &producer).await;
    assert_eq!(again.encoding, HeaderEncoding::Json);
    assert_eq!(tried(&broker), before + 1, "the second time it is not tried");
}

#[tokio::test]
async fn the_setting_decides_whatever_the_broker_shows() {
    let broker = broker().await;
    broker.always(HEART_BEAT, Some(says_binary()));
    let (client, json) = producer(&broker, Setting::Json).await;
    assert_eq!(send(&broker, &json).await.encoding, HeaderEncoding::Json);
    client.shutdown().await;
    broker.always(HEART_BEAT, None);
    let (_client, binary) = producer(&broker, Setting::Binary).await;
    assert_eq!(send(&broker, &binary).await.encoding, HeaderEncoding::Binary);
}

#[test]
fn a_client_chooses_by_itself_unless_told_otherwise() {
    assert_eq!(ClientConfig::default().header_encoding, Setting::Auto);
}
