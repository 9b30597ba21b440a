import java.nio.charset.StandardCharsets;
import java.util.List;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.MixAll;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** What a listener could not handle comes again, later, and in the end becomes a dead letter. */
final class Retrying {
    private Retrying() {
    }

    @Case
    static void whatWasNotConsumedComesAgain(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer consumer = stage.consumer(Stage.fresh("CG"), topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            context.setDelayLevelWhenNextConsume(1);
            Inbox.Letter letter = inbox.add(messages.get(0));
            if (letter.times() == 0) {
                return ConsumeConcurrentlyStatus.RECONSUME_LATER;
            }
            if (letter.times() == 1) {
                throw new IllegalStateException("on purpose: counts as not consumed");
            }
            return letter.times() == 2 ? null : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        stage.start(consumer);
        stage.awaitRetries(consumer);
        Message message = Stage.message(topic, "again");
        message.setTags("T");
        message.setKeys("k");
        message.putUserProperty("p", "v");
        SendResult result = stage.producer().send(message);
        List<Inbox.Letter> letters = inbox.await(4, Stage.PATIENCE_S);
        for (int i = 0; i < 4; i++) {
            MessageExt came = letters.get(i).message();
            Check.equal(letters.get(i).times(), i, "times");
            Check.equal(letters.get(i).topic(), topic, "topic of delivery " + i);
            Check.equal(came.getMsgId(), result.getMsgId(), "id of delivery " + i);
            Check.equal(came.getTags() + came.getKeys() + came.getUserProperty("p"), "Tkv", "properties of delivery " + i);
        }
        Check.that(letters.get(1).atMs() - letters.get(0).atMs() >= 900, "level 1 is a second");
    }

    @Case
    static void afterItsLastTryItIsADeadLetter(Stage stage) throws Exception {
        String topic = stage.topic(1);
        String group = Stage.fresh("CG");
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer consumer = stage.consumer(group, topic, "*");
        consumer.setMaxReconsumeTimes(1);
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            context.setDelayLevelWhenNextConsume(1);
            inbox.add(messages.get(0));
            return ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        stage.start(consumer);
        stage.awaitRetries(consumer);
        SendResult result = stage.producer().send(Stage.message(topic, "bad"));
        inbox.await(2, Stage.PATIENCE_S);
        MessageExt dead = deadLetter(stage, group);
        Check.equal(new String(dead.getBody(), StandardCharsets.UTF_8), "bad", "body");
        Check.equal(dead.getMsgId(), result.getMsgId(), "id");
        Check.equal(dead.getProperty("RETRY_TOPIC"), topic, "the topic that it had");
        Check.equal(inbox.all().size(), 2, "deliveries");
    }

    @Case
    static void aDelayBelowZeroMakesADeadLetterAtOnce(Stage stage) throws Exception {
        String topic = stage.topic(1);
        String group = Stage.fresh("CG");
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer consumer = stage.consumer(group, topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            context.setDelayLevelWhenNextConsume(-1);
            inbox.add(messages.get(0));
            return ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        stage.start(consumer);
        stage.awaitRetries(consumer);
        stage.producer().send(Stage.message(topic, "bad"));
        Check.equal(new String(deadLetter(stage, group).getBody(), StandardCharsets.UTF_8), "bad", "body");
        Check.equal(inbox.all().size(), 1, "deliveries");
    }

    @Case
    static void aMessageCanBeGivenBackByHand(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer consumer = stage.consumer(Stage.fresh("CG"), topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            if (inbox.add(messages.get(0)).times() == 0) {
                try {
                    consumer.sendMessageBack(messages.get(0), 1);
                } catch (Exception e) {
                    return ConsumeConcurrentlyStatus.CONSUME_SUCCESS; // then it does not come again
                }
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        stage.start(consumer);
        stage.awaitRetries(consumer);
        stage.producer().send(Stage.message(topic, "back"));
        Check.equal(inbox.await(2, Stage.PATIENCE_S).get(1).times(), 1, "times");
    }

    /** The first dead letter of a group, read by its place, as administrators' tools read it. */
    static MessageExt deadLetter(Stage stage, String group) throws Exception {
        String topic = MixAll.DLQ_GROUP_TOPIC_PREFIX + group;
        MessageQueue queue = new MessageQueue(topic, "broker-a", 0);
        Check.within(Stage.PATIENCE_S, "a dead letter of " + group, () -> {
            try {
                return stage.requests().getMaxOffset(stage.broker(), queue, 3_000) > 0;
            } catch (org.apache.rocketmq.client.exception.MQBrokerException notYet) {
                return false;
            }
        });
        return Pulling.pull(stage, topic, 0, 0).get(0);
    }
}
