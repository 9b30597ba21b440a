import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;

/** A client whose answer is lost sends again by itself. Then there are two messages, or one where the topic asks for it. */
final class Deduplication {
    static final Map<String, String> RETRIES = Map.of("+dedup", "retries");
    private static final Map<String, String> OFF = Map.of();

    private Deduplication() {
    }

    /** How a send is made. */
    interface Way {
        SendResult send(DefaultMQProducer producer, String topic) throws Exception;
    }

    private static SendResult plain(DefaultMQProducer producer, String topic) throws Exception {
        return producer.send(Stage.message(topic, "once"), 10_000);
    }

    private static SendResult batch(DefaultMQProducer producer, String topic) throws Exception {
        return producer.send(List.of(Stage.message(topic, "once"), Stage.message(topic, "only")), 10_000);
    }

    private static SendResult async(DefaultMQProducer producer, String topic) throws Exception {
        CompletableFuture<SendResult> result = new CompletableFuture<>();
        producer.send(Stage.message(topic, "once"), new SendCallback() {
            @Override
            public void onSuccess(SendResult sent) {
                result.complete(sent);
            }

            @Override
            public void onException(Throwable e) {
                result.completeExceptionally(e);
            }
        }, 10_000);
        return result.get(Stage.PATIENCE_S, TimeUnit.SECONDS);
    }

    /** Sends once with the first answer lost, and returns how many messages there are then. */
    static long stored(Stage stage, LossyBroker.Loss loss, Map<String, String> attributes, DefaultMQProducer producer, Way way)
        throws Exception {
        String topic = stage.topic(2, attributes);
        LossyBroker lossy = new LossyBroker(Stage.NAME_SERVER, stage.broker(), loss);
        stage.atEnd(lossy::close);
        stage.own(producer).setNamesrvAddr(lossy.nameServer());
        producer.setHeartbeatBrokerInterval(30_000);
        long startMs = System.currentTimeMillis();
        stage.start(producer);
        // connected, so that only answers to what follows can be lost
        producer.send(Stage.message(stage.topic(1), "first"));
        // what a client writes after an answer looks as if it had read it: let the heartbeat a second after its start be
        // past; the next comes after the 30 s that it waits by default
        Check.within(Stage.PATIENCE_S, "the first heartbeat", () -> lossy.lastHeartbeatMs() >= startMs + 1_000);
        int before = lossy.sends();
        lossy.loseNext(1);
        SendResult result = way.send(producer, topic);
        Check.equal(result.getSendStatus(), SendStatus.SEND_OK, "status");
        Check.equal(lossy.lost(), 1, "answers lost");
        Check.equal(lossy.sends() - before, 2, "sends that reached the broker");
        long stored = 0;
        for (MessageQueue queue : stage.operator().fetchPublishMessageQueues(topic)) {
            stored += stage.operator().maxOffset(queue);
        }
        // what the producer was told is where the message is
        Message there = Pulling.pull(stage, topic, result.getMessageQueue().getQueueId(), result.getQueueOffset()).get(0);
        Check.equal(new String(there.getBody()), "once", "message at the place of the answer");
        return stored;
    }

    private static DefaultMQProducer producer() {
        return new DefaultMQProducer(Stage.fresh("PG"));
    }

    @Case
    static void withoutItALostAnswerMakesTwoMessages(Stage stage) throws Exception {
        Check.equal(stored(stage, LossyBroker.Loss.CONNECTION, OFF, producer(), Deduplication::plain), 2L, "messages");
    }

    @Case
    static void aRetryOfASyncSendIsStoredOnce(Stage stage) throws Exception {
        Check.equal(stored(stage, LossyBroker.Loss.CONNECTION, RETRIES, producer(), Deduplication::plain), 1L, "messages");
    }

    @Case
    static void aRetryOfAnAsyncSendIsStoredOnce(Stage stage) throws Exception {
        Check.equal(stored(stage, LossyBroker.Loss.CONNECTION, OFF, producer(), Deduplication::async), 2L, "messages without it");
        Check.equal(stored(stage, LossyBroker.Loss.CONNECTION, RETRIES, producer(), Deduplication::async), 1L, "messages with it");
    }

    @Case
    static void aRetryOfABatchIsStoredOnce(Stage stage) throws Exception {
        Check.equal(stored(stage, LossyBroker.Loss.CONNECTION, OFF, producer(), Deduplication::batch), 4L, "messages without it");
        Check.equal(stored(stage, LossyBroker.Loss.CONNECTION, RETRIES, producer(), Deduplication::batch), 2L, "messages with it");
    }

    @Case
    static void oneObjectThatIsSentTwiceOnPurposeIsTwoMessages(Stage stage) throws Exception {
        String topic = stage.topic(1, RETRIES);
        DefaultMQProducer producer = stage.producer();
        Message message = Stage.message(topic, "again");
        Check.equal(producer.send(message).getQueueOffset(), 0L, "first");
        Check.equal(producer.send(message).getQueueOffset(), 1L, "second");
    }
}
