import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.ThreadLocalRandom;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.impl.MQClientAPIImpl;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.compression.CompressionType;
import org.apache.rocketmq.common.constant.PermName;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.remoting.protocol.heartbeat.MessageModel;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;

/** What the clients of RocketMQ 5 call otherwise than those of 4.9, and cases that only they have. */
final class OfThisRelease {
    private OfThisRelease() {
    }

    /** As administrators' tools do: what the producer has for it leaves the attributes out. */
    static void createTopic(DefaultMQProducer producer, String broker, String like, String topic, int queues,
        Map<String, String> attributes) throws Exception {
        TopicConfig config = new TopicConfig(topic, queues, queues, PermName.PERM_READ | PermName.PERM_WRITE);
        config.setAttributes(new HashMap<>(attributes));
        producer.getDefaultMQProducerImpl().getMqClientFactory().getMQClientAPIImpl().createTopic(broker, like, config, 5_000);
    }

    static void deleteTopicInNameServer(MQClientAPIImpl requests, String nameServer, String topic) throws Exception {
        requests.deleteTopicInNameServer(nameServer, topic, 3_000);
    }

    static void createGroup(MQClientAPIImpl requests, String broker, String group, int tries) throws Exception {
        SubscriptionGroupConfig config = new SubscriptionGroupConfig();
        config.setGroupName(group);
        config.setRetryMaxTimes(tries);
        requests.createSubscriptionGroup(broker, config, 3_000);
    }

    static void broadcast(DefaultMQPushConsumer consumer) {
        consumer.setMessageModel(MessageModel.BROADCASTING);
    }

    @Case
    static void otherCompressionsArriveWhole(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Inbox inbox = stage.inbox(topic);
        String body = ThreadLocalRandom.current().ints(20_000, 97, 103).mapToObj(Character::toString)
            .collect(Collectors.joining());
        for (CompressionType type : CompressionType.values()) {
            DefaultMQProducer producer = stage.own(new DefaultMQProducer(Stage.fresh("PG")));
            producer.setCompressType(type);
            stage.start(producer);
            producer.send(Stage.message(topic, type + body));
            Inbox.Letter letter = inbox.await(type + body, Stage.PATIENCE_S);
            Check.that(letter.message().getStoreSize() < body.length(), type + " takes " + letter.message().getStoreSize());
        }
    }

    @Case
    static void aDelayOfAnyLengthComesInItsTime(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Inbox inbox = stage.inbox(topic);
        DefaultMQProducer producer = stage.producer();
        long sent = System.currentTimeMillis();
        Message inSeconds = Stage.message(topic, "seconds");
        inSeconds.setDelayTimeSec(3);
        Message inMillis = Stage.message(topic, "millis");
        inMillis.setDelayTimeMs(2_000);
        Message atTime = Stage.message(topic, "time");
        atTime.setDeliverTimeMs(sent + 4_000);
        for (Message message : new Message[] {inSeconds, inMillis, atTime}) {
            producer.send(message);
        }
        Map<String, Integer> due = Map.of("millis", 2_000, "seconds", 3_000, "time", 4_000);
        for (Inbox.Letter letter : inbox.await(3, Stage.PATIENCE_S)) {
            long took = letter.atMs() - sent;
            int wanted = due.get(letter.body());
            // the broker of RocketMQ 5 counts in full seconds, ours in milliseconds
            Check.that(took >= wanted - 1_000 && took < wanted + 4_000, letter.body() + " came after " + took + " ms");
        }
    }

    @Case
    static void smallMessagesArePackedByTheClientItself(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Inbox inbox = stage.inbox(topic);
        DefaultMQProducer producer = stage.own(new DefaultMQProducer(Stage.fresh("PG")));
        producer.setAutoBatch(true);
        stage.start(producer);
        Thread[] threads = new Thread[4];
        for (int number = 0; number < threads.length; number++) {
            String prefix = number + "/";
            threads[number] = new Thread(() -> {
                for (int i = 0; i < 25; i++) {
                    try {
                        producer.send(Stage.message(topic, prefix + i));
                    } catch (Exception e) {
                        return; // then one is missing below
                    }
                }
            });
            threads[number].start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        inbox.await(100, Stage.PATIENCE_S);
        Check.equal(inbox.bodies().stream().distinct().count(), 100L, "different messages");
    }

    @Case
    static void heartbeatsOfTheSecondKindKeepAGroup(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer consumer = stage.consumer(Stage.fresh("CG"), topic, "*");
        consumer.setUseHeartbeatV2(true);
        stage.start(consumer, message -> inbox.add(message) != null);
        DefaultMQProducer producer = stage.producer();
        for (int i = 0; i < 5; i++) {
            producer.send(Stage.message(topic, "" + i));
            inbox.await("" + i, Stage.PATIENCE_S);
            consumer.getDefaultMQPushConsumerImpl().getmQClientFactory().sendHeartbeatToAllBrokerWithLock();
        }
        Check.equal(stage.requests().getConsumerIdListByGroup(stage.broker(), consumer.getConsumerGroup(), 3_000).size(), 1, "members");
    }

    /** With a bound of each attempt this client tries again without having lost its connection before. */
    @Case
    static void aRetryAfterSilenceIsStoredOnce(Stage stage) throws Exception {
        for (Map.Entry<Map<String, String>, Long> wanted : Map.of(Map.<String, String>of(), 2L, Deduplication.RETRIES, 1L).entrySet()) {
            DefaultMQProducer producer = new DefaultMQProducer(Stage.fresh("PG"));
            producer.setSendMsgMaxTimeoutPerRequest(1_000);
            long stored = Deduplication.stored(stage, LossyBroker.Loss.SILENCE, wanted.getKey(), producer,
                (sender, topic) -> sender.send(Stage.message(topic, "once"), 10_000));
            Check.equal(stored, wanted.getValue(), "messages with " + wanted.getKey());
        }
    }
}
