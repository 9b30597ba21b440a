import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.UtilAll;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;

/** Push consumers: filters, where they start, where they go on, who gets what. */
final class Consuming {
    private Consuming() {
    }

    private static Set<Integer> numbers(int from, int to) {
        return IntStream.range(from, to).boxed().collect(Collectors.toCollection(TreeSet::new));
    }

    private static Set<Integer> received(Inbox inbox) {
        Set<Integer> seen = new TreeSet<>();
        for (String body : inbox.bodies()) {
            Check.that(seen.add(Integer.valueOf(body)), "received twice: " + body);
        }
        return seen;
    }

    private static void send(DefaultMQProducer producer, String topic, int from, int to) throws Exception {
        for (int i = from; i < to; i++) {
            producer.send(Stage.message(topic, "" + i));
        }
    }

    @Case
    static void aBatchListenerGetsEverythingOnce(Stage stage) throws Exception {
        String topic = stage.topic(4);
        send(stage.producer(), topic, 0, 500);
        Inbox inbox = new Inbox();
        Set<Integer> sizes = new HashSet<>();
        DefaultMQPushConsumer consumer = stage.consumer(Stage.fresh("CG"), topic, "*");
        consumer.setConsumeMessageBatchMaxSize(16);
        consumer.setPullBatchSize(32);
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            synchronized (sizes) {
                sizes.add(messages.size());
            }
            messages.forEach(inbox::add);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        stage.start(consumer);
        inbox.await(500, Stage.PATIENCE_S);
        Check.equal(received(inbox), numbers(0, 500), "messages");
        Check.that(sizes.contains(16), "sizes of batches: " + sizes);
    }

    @Case
    static void tagsAreFiltered(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Inbox inbox = stage.inbox(topic, "Aa || TagC");
        DefaultMQProducer producer = stage.producer();
        // Aa and BB have the same hash: what the broker lets through the client must sort out
        for (String tag : List.of("Aa", "BB", "TagC", "TagD", "Aa", "TagC")) {
            Message message = Stage.message(topic, tag);
            message.setTags(tag);
            producer.send(message);
        }
        producer.send(Stage.message(topic, "without a tag"));
        Message last = Stage.message(topic, "last");
        last.setTags("Aa");
        producer.send(last);
        inbox.await("last", Stage.PATIENCE_S);
        Check.equal(inbox.bodies(), List.of("Aa", "TagC", "Aa", "TagC", "last"), "messages");
    }

    @Case
    static void aNewGroupStartsAtTheFirstTheLastOrATime(Stage stage) throws Exception {
        String topic = stage.topic(1);
        DefaultMQProducer producer = stage.producer();
        send(producer, topic, 0, 5);
        MessageQueue queue = producer.fetchPublishMessageQueues(topic).get(0);
        // a start time has full seconds: leave the one of the first five
        long second = System.currentTimeMillis() / 1_000;
        Check.within(3, "the next second", () -> System.currentTimeMillis() / 1_000 > second);
        long between = System.currentTimeMillis() / 1_000 * 1_000;
        send(producer, topic, 5, 8);
        Inbox first = stage.inbox(topic);
        Inbox sinceThen = new Inbox();
        DefaultMQPushConsumer consumer = stage.singleFile(stage.consumer(Stage.fresh("CG"), topic, "*"));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_TIMESTAMP);
        consumer.setConsumeTimestamp(UtilAll.timeMillisToHumanString3(between));
        stage.start(consumer, message -> sinceThen.add(message) != null);
        Check.equal(producer.searchOffset(queue, between), 5L, "the offset of that time");
        first.await("7", Stage.PATIENCE_S);
        sinceThen.await("7", Stage.PATIENCE_S);
        Check.equal(received(first), numbers(0, 8), "from the first");
        // a young queue is read from its first message by new groups, as with Apache's broker
        Check.that(received(sinceThen).containsAll(numbers(5, 8)), "from a time: " + received(sinceThen));
    }

    @Case
    static void aGroupGoesOnWhereItStopped(Stage stage) throws Exception {
        String topic = stage.topic(2);
        String group = Stage.fresh("CG");
        DefaultMQProducer producer = stage.producer();
        send(producer, topic, 0, 20);
        Inbox before = new Inbox();
        DefaultMQPushConsumer consumer = stage.consumer(group, topic, "*");
        stage.start(consumer, message -> before.add(message) != null);
        before.await(20, Stage.PATIENCE_S);
        consumer.shutdown();
        send(producer, topic, 20, 40);
        Inbox after = new Inbox();
        stage.start(stage.consumer(group, topic, "*"), message -> after.add(message) != null);
        after.await(20, Stage.PATIENCE_S);
        Check.equal(received(after), numbers(20, 40), "messages after the restart");
    }

    @Case
    static void broadcastReachesEveryMember(Stage stage) throws Exception {
        String topic = stage.topic(2);
        String group = Stage.fresh("CG");
        Inbox[] inboxes = {new Inbox(), new Inbox()};
        for (Inbox inbox : inboxes) {
            DefaultMQPushConsumer consumer = stage.consumer(group, topic, "*");
            OfThisRelease.broadcast(consumer);
            stage.start(consumer, message -> inbox.add(message) != null);
        }
        send(stage.producer(), topic, 0, 30);
        for (Inbox inbox : inboxes) {
            inbox.await(30, Stage.PATIENCE_S);
            Check.equal(received(inbox), numbers(0, 30), "messages of one member");
        }
    }

    @Case
    static void aSuspendedConsumerGetsNothingUntilItResumes(Stage stage) throws Exception {
        String topic = stage.topic(1);
        DefaultMQProducer producer = stage.producer();
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer consumer = stage.consumer(Stage.fresh("CG"), topic, "*");
        stage.start(consumer, message -> inbox.add(message) != null);
        send(producer, topic, 0, 5);
        inbox.await(5, Stage.PATIENCE_S);
        consumer.suspend();
        send(producer, topic, 5, 10);
        consumer.resume();
        inbox.await(10, Stage.PATIENCE_S);
        Check.equal(received(inbox), numbers(0, 10), "messages");
    }

    @Case
    static void aRunningConsumerTakesUpAnotherTopic(Stage stage) throws Exception {
        String first = stage.topic(1);
        String second = stage.topic(1);
        DefaultMQProducer producer = stage.producer();
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer consumer = stage.consumer(Stage.fresh("CG"), first, "*");
        stage.start(consumer, message -> inbox.add(message) != null);
        producer.send(Stage.message(first, "1"));
        inbox.await("1", Stage.PATIENCE_S);
        consumer.subscribe(second, "red");
        consumer.getDefaultMQPushConsumerImpl().doRebalance();
        Message red = Stage.message(second, "2");
        red.setTags("red");
        producer.send(Stage.message(second, "of no colour"));
        producer.send(red);
        inbox.await("2", Stage.PATIENCE_S);
        Check.equal(inbox.bodies(), List.of("1", "2"), "messages");
    }

    @Case
    static void anotherFilterAppliesWhileTheConsumerRuns(Stage stage) throws Exception {
        String topic = stage.topic(1);
        DefaultMQProducer producer = stage.producer();
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer consumer = stage.singleFile(stage.consumer(Stage.fresh("CG"), topic, "red"));
        stage.start(consumer, message -> inbox.add(message) != null);
        Message red = Stage.message(topic, "red");
        red.setTags("red");
        Message blue = Stage.message(topic, "blue");
        blue.setTags("blue");
        producer.send(red);
        inbox.await("red", Stage.PATIENCE_S);
        consumer.subscribe(topic, "blue");
        producer.send(blue);
        inbox.await("blue", Stage.PATIENCE_S);
    }

    @Case
    static void aGroupCanBeSetBackToATime(Stage stage) throws Exception {
        String topic = stage.topic(1);
        DefaultMQProducer producer = stage.producer();
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer consumer = stage.consumer(Stage.fresh("CG"), topic, "*");
        stage.start(consumer, message -> inbox.add(message) != null);
        send(producer, topic, 0, 10);
        long fifth = inbox.await(10, Stage.PATIENCE_S).stream().filter(letter -> letter.queueOffset() == 5).findFirst()
            .orElseThrow().message().getStoreTimestamp();
        consumer.getDefaultMQPushConsumerImpl().resetOffsetByTimeStamp(fifth);
        inbox.awaitThat(letters -> letters.stream().filter(letter -> letter.body().equals("9")).count() >= 2,
            Stage.PATIENCE_S, "second delivery of the last");
        Check.that(inbox.bodies().stream().filter("0"::equals).count() <= 2, "the first came more than twice");
    }
}
