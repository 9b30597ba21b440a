import java.util.ArrayList;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.selector.SelectMessageQueueByHash;
import org.apache.rocketmq.common.message.MessageExt;

/** Orderly consumers: one holder of each queue, one message at a time, a failed one before its successors. */
final class Ordering {
    private Ordering() {
    }

    private interface Listener {
        ConsumeOrderlyStatus take(MessageExt message);
    }

    private static DefaultMQPushConsumer start(Stage stage, DefaultMQPushConsumer consumer, Listener listener) throws Exception {
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            context.setSuspendCurrentQueueTimeMillis(200);
            return listener.take(messages.get(0));
        });
        return stage.start(consumer);
    }

    private static void assertInOrder(Inbox inbox, String key, int count) {
        List<Integer> numbers = inbox.bodies().stream().filter(body -> body.startsWith(key + ":"))
            .map(body -> Integer.valueOf(body.substring(key.length() + 1))).distinct().collect(Collectors.toList());
        Check.equal(numbers, IntStream.range(0, count).boxed().collect(Collectors.toList()), "order of " + key);
    }

    @Case
    static void eachKeyArrivesInItsOrder(Stage stage) throws Exception {
        String topic = stage.topic(4);
        DefaultMQProducer producer = stage.producer();
        Inbox inbox = new Inbox();
        start(stage, stage.consumer(Stage.fresh("CG"), topic, "*"), message -> {
            inbox.add(message);
            return ConsumeOrderlyStatus.SUCCESS;
        });
        List<String> keys = List.of("red", "green", "blue", "grey");
        for (int i = 0; i < 100; i++) {
            for (String key : keys) {
                producer.send(Stage.message(topic, key + ":" + i), new SelectMessageQueueByHash(), key);
            }
        }
        inbox.await(400, Stage.PATIENCE_S);
        for (String key : keys) {
            assertInOrder(inbox, key, 100);
        }
        Check.equal(inbox.all().size(), 400, "messages");
    }

    @Case
    static void aFailedMessageHoldsItsQueue(Stage stage) throws Exception {
        String topic = stage.topic(1);
        DefaultMQProducer producer = stage.producer();
        Inbox inbox = new Inbox();
        start(stage, stage.consumer(Stage.fresh("CG"), topic, "*"), message -> {
            Inbox.Letter letter = inbox.add(message);
            return letter.body().equals("2") && letter.times() < 2 ? ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT
                : ConsumeOrderlyStatus.SUCCESS;
        });
        for (int i = 0; i < 5; i++) {
            producer.send(Stage.message(topic, "" + i));
        }
        inbox.await("4", Stage.PATIENCE_S);
        Check.equal(inbox.bodies(), List.of("0", "1", "2", "2", "2", "3", "4"), "deliveries");
    }

    @Case
    static void afterItsLastTryItLeavesTheQueueForTheDeadLetters(Stage stage) throws Exception {
        String topic = stage.topic(1);
        String group = Stage.fresh("CG");
        DefaultMQProducer producer = stage.producer();
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer consumer = stage.consumer(group, topic, "*");
        consumer.setMaxReconsumeTimes(2);
        start(stage, consumer, message -> inbox.add(message).body().equals("bad")
            ? ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT : ConsumeOrderlyStatus.SUCCESS);
        producer.send(Stage.message(topic, "bad"));
        producer.send(Stage.message(topic, "good"));
        inbox.await("good", Stage.PATIENCE_S);
        Check.equal(inbox.bodies(), List.of("bad", "bad", "bad", "good"), "deliveries");
        Check.equal(new String(Retrying.deadLetter(stage, group).getBody()), "bad", "dead letter");
    }

    @Case(seconds = 60)
    static void orderHoldsWhileMembersComeAndGo(Stage stage) throws Exception {
        String topic = stage.topic(4);
        String group = Stage.fresh("CG");
        DefaultMQProducer producer = stage.producer();
        Inbox inbox = new Inbox();
        Listener listener = message -> {
            inbox.add(message);
            return ConsumeOrderlyStatus.SUCCESS;
        };
        start(stage, stage.consumer(group, topic, "*"), listener);
        DefaultMQPushConsumer second = null;
        List<String> keys = List.of("a", "b", "c", "d", "e", "f");
        for (int i = 0; i < 300; i++) {
            if (i == 100) {
                second = start(stage, stage.consumer(group, topic, "*"), listener);
            } else if (i == 200) {
                second.shutdown();
            }
            for (String key : keys) {
                producer.send(Stage.message(topic, key + ":" + i), new SelectMessageQueueByHash(), key);
            }
        }
        // a queue that changed hands may bring messages twice, so look for the last of each
        List<String> last = new ArrayList<>();
        keys.forEach(key -> last.add(key + ":299"));
        inbox.awaitThat(letters -> letters.stream().map(Inbox.Letter::body).collect(Collectors.toSet()).containsAll(last),
            40, "last messages of all keys");
        for (String key : keys) {
            assertInOrder(inbox, key, 300);
        }
    }
}
