import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Consumers that fetch by themselves: the old pull consumer and the lite one, offsets, seeks. */
final class Pulling {
    private Pulling() {
    }

    /** Up to 32 messages of one queue from an offset on. */
    static List<MessageExt> pull(Stage stage, String topic, int queue, long offset) throws Exception {
        DefaultMQPullConsumer consumer = old(stage);
        PullResult result = consumer.pull(queue(consumer, topic, queue), "*", offset, 32);
        return result.getMsgFoundList() == null ? List.of() : result.getMsgFoundList();
    }

    private static DefaultMQPullConsumer old(Stage stage) throws Exception {
        DefaultMQPullConsumer consumer = stage.own(new DefaultMQPullConsumer(Stage.fresh("CG")));
        consumer.start();
        stage.atEnd(consumer::shutdown);
        return consumer;
    }

    private static MessageQueue queue(DefaultMQPullConsumer consumer, String topic, int id) throws Exception {
        return consumer.fetchSubscribeMessageQueues(topic).stream().filter(queue -> queue.getQueueId() == id).findFirst()
            .orElseThrow();
    }

    /** What the broker holds as the group's offset. */
    private static long committed(Stage stage, String group, MessageQueue queue) throws Exception {
        DefaultMQPullConsumer consumer = stage.own(new DefaultMQPullConsumer(group));
        consumer.start();
        try {
            return consumer.fetchConsumeOffset(queue, true);
        } finally {
            consumer.shutdown();
        }
    }

    private static DefaultLitePullConsumer lite(Stage stage, String group) {
        DefaultLitePullConsumer consumer = stage.own(new DefaultLitePullConsumer(group));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setAutoCommit(false);
        return consumer;
    }

    /** Polls until so many messages came. */
    private static List<String> poll(DefaultLitePullConsumer consumer, int count) {
        List<String> bodies = new ArrayList<>();
        long end = System.nanoTime() + Stage.PATIENCE_S * 1_000_000_000L;
        while (bodies.size() < count) {
            Check.that(System.nanoTime() < end, "polled " + bodies + " of " + count);
            consumer.poll(500).forEach(message -> bodies.add(new String(message.getBody(), StandardCharsets.UTF_8)));
        }
        return bodies;
    }

    private static void send(Stage stage, String topic, int count) throws Exception {
        DefaultMQProducer producer = stage.operator();
        for (int i = 0; i < count; i++) {
            producer.send(Stage.message(topic, "" + i));
        }
    }

    @Case
    static void theOldPullConsumerReadsQueuesToTheirEnds(Stage stage) throws Exception {
        String topic = stage.topic(2);
        send(stage, topic, 20);
        DefaultMQPullConsumer consumer = old(stage);
        Set<Integer> bodies = new TreeSet<>();
        for (MessageQueue queue : consumer.fetchSubscribeMessageQueues(topic)) {
            long offset = consumer.minOffset(queue);
            Check.equal(offset, 0L, "least offset");
            PullResult result = consumer.pull(queue, "*", offset, 3);
            while (result.getPullStatus() == PullStatus.FOUND) {
                Check.that(result.getMsgFoundList().size() <= 3, "pulled " + result.getMsgFoundList().size());
                Check.equal(result.getNextBeginOffset(), offset + result.getMsgFoundList().size(), "next offset");
                Check.equal(result.getMaxOffset(), consumer.maxOffset(queue), "greatest offset");
                Check.equal(result.getMinOffset(), 0L, "least offset");
                result.getMsgFoundList().forEach(message -> bodies.add(Integer.valueOf(new String(message.getBody()))));
                offset = result.getNextBeginOffset();
                result = consumer.pull(queue, "*", offset, 3);
            }
            Check.equal(result.getPullStatus(), PullStatus.NO_NEW_MSG, "status at the end");
            Check.equal(result.getNextBeginOffset(), offset, "next offset at the end");
            Check.equal(consumer.pull(queue, "*", offset + 1_000, 3).getPullStatus(), PullStatus.OFFSET_ILLEGAL, "status beyond the end");
            Check.equal(consumer.pull(queue, "no such tag", 0, 3).getPullStatus(), PullStatus.NO_MATCHED_MSG, "status without a match");
        }
        Check.equal(bodies.size(), 20, "messages");
    }

    @Case
    static void aBlockingPullWaitsForTheNextMessage(Stage stage) throws Exception {
        String topic = stage.topic(1);
        DefaultMQPullConsumer consumer = old(stage);
        MessageQueue queue = queue(consumer, topic, 0);
        DefaultMQProducer producer = stage.producer();
        producer.send(Stage.message(topic, "first"));
        Thread sender = new Thread(() -> {
            try {
                Thread.sleep(1_500); // the pull has to be there first; if it is not, the case still holds
                producer.send(Stage.message(topic, "second"));
            } catch (Exception e) {
                // then the pull below finds nothing
            }
        });
        sender.start();
        PullResult result = consumer.pullBlockIfNotFound(queue, "*", 1, 32);
        Check.equal(result.getPullStatus(), PullStatus.FOUND, "status");
        Check.equal(new String(result.getMsgFoundList().get(0).getBody()), "second", "message");
        sender.join();
    }

    @Case
    static void offsetsOfTheOldPullConsumerAreKept(Stage stage) throws Exception {
        String topic = stage.topic(1);
        send(stage, topic, 10);
        String group = Stage.fresh("CG");
        DefaultMQPullConsumer consumer = stage.own(new DefaultMQPullConsumer(group));
        consumer.start();
        MessageQueue queue = queue(consumer, topic, 0);
        // the broker keeps offsets of groups that it knows, and hears of one after this client's first pull
        consumer.pull(queue, "*", 0, 32);
        Check.within(Stage.PATIENCE_S, "the group", () -> stage.isKnown(group));
        consumer.updateConsumeOffset(queue, 7);
        consumer.getDefaultMQPullConsumerImpl().getOffsetStore().updateConsumeOffsetToBroker(queue, 7, false);
        consumer.shutdown();
        Check.equal(committed(stage, group, queue), 7L, "offset");
    }

    @Case
    static void theLiteConsumerSubscribesAndCommits(Stage stage) throws Exception {
        String topic = stage.topic(2);
        String group = Stage.fresh("CG");
        send(stage, topic, 20);
        DefaultLitePullConsumer first = lite(stage, group);
        first.subscribe(topic, "*");
        first.start();
        Check.equal(new TreeSet<>(poll(first, 20)).size(), 20, "messages");
        first.commitSync();
        // a commit reaches the broker when the client next writes its offsets
        for (MessageQueue queue : first.fetchMessageQueues(topic)) {
            Check.within(Stage.PATIENCE_S, "the committed offset of " + queue,
                () -> stage.operator().maxOffset(queue) == committed(stage, group, queue));
        }
        first.shutdown();
        DefaultLitePullConsumer second = lite(stage, group);
        second.subscribe(topic, "*");
        stage.start(second);
        stage.operator().send(Stage.message(topic, "new"));
        Check.equal(poll(second, 1), List.of("new"), "messages after the restart");
    }

    @Case
    static void theLiteConsumerSeeks(Stage stage) throws Exception {
        String topic = stage.topic(1);
        send(stage, topic, 10);
        DefaultLitePullConsumer consumer = stage.start(lite(stage, Stage.fresh("CG")));
        MessageQueue queue = consumer.fetchMessageQueues(topic).iterator().next();
        consumer.assign(List.of(queue));
        // clients of 4.9 let a pull that is under way bring its messages after a seek: have it done with
        Check.equal(poll(consumer, 10).size(), 10, "messages");
        consumer.seek(queue, 7);
        Check.equal(poll(consumer, 3), List.of("7", "8", "9"), "from 7");
        consumer.seekToBegin(queue);
        Check.equal(poll(consumer, 10).get(0), "0", "from the beginning");
        consumer.seekToEnd(queue);
        send(stage, topic, 1);
        Check.equal(poll(consumer, 1), List.of("0"), "from the end");
        Check.equal(consumer.offsetForTimestamp(queue, 0L), 0L, "offset of the beginning of time");
        Check.equal(consumer.offsetForTimestamp(queue, System.currentTimeMillis() + 3_600_000), 11L, "offset of the future");
        Check.refused(Exception.class, () -> consumer.seek(queue, 1_000));
    }

    @Case
    static void aPausedQueueGoesOnWhenItIsResumed(Stage stage) throws Exception {
        String topic = stage.topic(2);
        DefaultLitePullConsumer consumer = stage.start(lite(stage, Stage.fresh("CG")));
        List<MessageQueue> queues = new ArrayList<>(consumer.fetchMessageQueues(topic));
        consumer.assign(queues);
        consumer.pause(List.of(queues.get(0)));
        // a pull that was under way may still bring one message of the paused queue
        for (int i = 0; i < 5; i++) {
            stage.operator().send(Stage.message(topic, "paused " + i), queues.get(0));
        }
        stage.operator().send(Stage.message(topic, "running"), queues.get(1));
        Set<String> bodies = new TreeSet<>();
        while (!bodies.contains("running")) {
            bodies.addAll(poll(consumer, 1));
        }
        consumer.resume(List.of(queues.get(0)));
        while (bodies.size() < 6) {
            bodies.addAll(poll(consumer, 1));
        }
    }
}
