import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;

/** What Mezzo does not do yet is refused with words that a person understands, not by silence. */
final class NotServed {
    private static final int MESSAGE_ILLEGAL = 13;

    private NotServed() {
    }

    @Case
    static void aRequestThatWantsAReplyIsRefusedAtOnce(Stage stage) throws Exception {
        String topic = stage.topic(1);
        DefaultMQProducer asker = stage.producer();
        MQBrokerException refusal = Check.refused(MQBrokerException.class, () -> asker.request(Stage.message(topic, "question"), 20_000));
        Check.equal(refusal.getResponseCode(), MESSAGE_ILLEGAL, "code");
        Check.that(refusal.getErrorMessage().contains("request-reply is not served"), "words: " + refusal.getErrorMessage());
    }

    @Case
    static void aFilterInSqlIsRefusedAtStart(Stage stage) throws Exception {
        String topic = stage.topic(1);
        DefaultMQPushConsumer consumer = stage.consumer(Stage.fresh("CG"), topic, "*");
        consumer.subscribe(topic, MessageSelector.bySql("a > 5"));
        MQClientException refusal = Check.refused(MQClientException.class,
            () -> stage.start(consumer, message -> true));
        Check.that(refusal.getMessage().toUpperCase().contains("SQL"), "words: " + refusal.getMessage());
    }

    @Case
    static void aQueryByKeyIsRefused(Stage stage) throws Exception {
        String topic = stage.topic(1);
        stage.operator().send(Stage.message(topic, "x"));
        Check.refused(MQClientException.class, () -> stage.operator().queryMessage(topic, "k", 32, 0, Long.MAX_VALUE));
    }
}
