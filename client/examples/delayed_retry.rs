//! Later: a message that is delivered at its time, one that is tried again after a while, and one that is given up.
//!
//! Start a broker (`cargo run --release`), then: `cargo run -p mezzo-client --example delayed_retry`.
//! Another name server than the local one: give its address as the first argument.
//!
//! Ends with an error if anything comes too early, too often, or not at all.

use std::error::Error;
use std::time::{Duration, Instant, SystemTime};

use mezzo_client::{Client, Message, PushConsumer, ReceivedMessage, Verdict};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Between the order and the reminder.
const DELAY: Duration = Duration::from_secs(3);
/// Between the first try and the second: the first step of RocketMQ's ladder.
const PAUSE: Duration = Duration::from_secs(1);

/// What came, which try it was, and when.
type Arrivals = mpsc::Receiver<(String, u32, Instant)>;

/// Joins `group` and tells of every delivery; `decide` says what becomes of it.
async fn watch(
    client: &Client,
    group: &str,
    topic: &str,
    decide: fn(&str, u32) -> Verdict,
) -> Result<(PushConsumer, Arrivals), mezzo_client::Error> {
    let (seen, arrivals) = mpsc::channel(16);
    let handler = move |message: ReceivedMessage| {
        let seen = seen.clone();
        async move {
            let (body, attempt) =
                (String::from_utf8_lossy(message.body()).into_owned(), message.delivery_attempt());
            let verdict = decide(&body, attempt);
            println!("{body}: try {attempt}, {verdict:?}");
            // nobody waits for it any more at the end
            let _ = seen.send((body, attempt, Instant::now())).await;
            verdict
        }
    };
    let consumer = client.push_consumer(group).subscribe(topic, "*").handler(handler).start().await?;
    Ok((consumer, arrivals))
}

async fn next(arrivals: &mut Arrivals, body: &str, attempt: u32) -> Result<Instant, Box<dyn Error>> {
    let came = timeout(Duration::from_secs(90), arrivals.recv()).await;
    let (got, tries, at) = came.map_err(|_| format!("{body} did not come within 90 s"))?.ok_or("ended")?;
    if (got.as_str(), tries) != (body, attempt) {
        return Err(format!("try {attempt} of {body} was expected, try {tries} of {got} came").into());
    }
    Ok(at)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let name_server = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9876".to_owned());
    let client = Client::connect(name_server).await?;
    // A name of its own for each run, so that none sees the messages of another.
    let topic = format!("mail-{}", SystemTime::UNIX_EPOCH.elapsed()?.as_millis());
    let group = format!("mailer-of-{topic}");
    let producer = client.producer("shop").start().await?;
    let send = |message: Message| producer.send(message);

    // What the mail server refuses for now is tried again after a pause; what has no address is given up at once.
    let decide = |body: &str, attempt: u32| match (body, attempt) {
        ("invoice", 1) => Verdict::RetryAfter(PAUSE),
        ("mail without address", _) => Verdict::DeadLetter,
        _ => Verdict::Done,
    };
    send(Message::new(&topic, "invoice")?).await?;
    let (mailer, mut arrivals) = watch(&client, &group, &topic, decide).await?;
    let first = next(&mut arrivals, "invoice", 1).await?;
    let second = next(&mut arrivals, "invoice", 2).await?;
    println!("the invoice was tried again after {:.1} s", (second - first).as_secs_f32());
    if second - first < PAUSE {
        return Err("the second try came too early".into());
    }

    let begin = Instant::now();
    send(Message::builder(&topic).body("reminder").delay(DELAY).build()?).await?;
    let reminded = next(&mut arrivals, "reminder", 1).await?;
    println!("the reminder came after {:.1} s", (reminded - begin).as_secs_f32());
    if reminded - begin < DELAY {
        return Err("the reminder came too early".into());
    }

    // A dead letter is kept in a topic of the group, where somebody can look at it.
    send(Message::new(&topic, "mail without address")?).await?;
    next(&mut arrivals, "mail without address", 1).await?;
    let undertaker = format!("undertaker-of-{topic}");
    let dead_letters = format!("%DLQ%{group}");
    let (keeper, mut dead) = watch(&client, &undertaker, &dead_letters, |_, _| Verdict::Done).await?;
    let came = timeout(Duration::from_secs(90), dead.recv()).await?.ok_or("the consumer ended")?;
    if came.0 != "mail without address" {
        return Err(format!("{} is a dead letter", came.0).into());
    }
    println!("the mail without address is kept in {dead_letters}");

    keeper.shutdown().await;
    mailer.shutdown().await;
    producer.shutdown().await;
    client.shutdown().await;
    Ok(())
}
