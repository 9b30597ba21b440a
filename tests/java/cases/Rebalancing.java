import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragelyByCircle;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueConsistentHash;
import org.apache.rocketmq.client.producer.DefaultMQProducer;

/** Members of a group share its queues, and hear at once when one comes or goes. */
final class Rebalancing {
    private Rebalancing() {
    }

    private static Set<Integer> queues(Inbox inbox) {
        Set<Integer> queues = new HashSet<>();
        inbox.all().forEach(letter -> queues.add(letter.queue()));
        return queues;
    }

    /** Queues that the member holds now. */
    private static Set<Integer> held(DefaultMQPushConsumer consumer, String topic) {
        Set<Integer> queues = new HashSet<>();
        consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet().stream()
            .filter(queue -> queue.getTopic().equals(topic)).forEach(queue -> queues.add(queue.getQueueId()));
        return queues;
    }

    @Case
    static void membersShareTheQueuesAndInheritThem(Stage stage) throws Exception {
        String topic = stage.topic(4);
        String group = Stage.fresh("CG");
        DefaultMQProducer producer = stage.producer();
        List<DefaultMQPushConsumer> members = new ArrayList<>();
        List<Inbox> inboxes = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            Inbox inbox = new Inbox();
            DefaultMQPushConsumer member = stage.consumer(group, topic, "*");
            members.add(stage.start(member, message -> inbox.add(message) != null));
            inboxes.add(inbox);
        }
        // the client looks by itself only every 20 s: half of that shows that it was told
        Check.within(10, "two queues each", () -> held(members.get(0), topic).size() == 2 && held(members.get(1), topic).size() == 2);
        Check.equal(stage.requests().getConsumerIdListByGroup(stage.broker(), group, 3_000).size(), 2, "members that the broker knows");
        for (int i = 0; i < 40; i++) {
            producer.send(Stage.message(topic, "" + i));
        }
        Check.within(Stage.PATIENCE_S, "all messages", () -> inboxes.get(0).all().size() + inboxes.get(1).all().size() >= 40);
        Set<Integer> both = queues(inboxes.get(0));
        Check.that(both.removeAll(queues(inboxes.get(1))) == false, "one queue at two members");
        members.get(1).shutdown();
        Check.within(10, "all queues at the one left", () -> held(members.get(0), topic).size() == 4);
        int had = inboxes.get(0).all().size();
        for (int i = 0; i < 40; i++) {
            producer.send(Stage.message(topic, "again " + i));
        }
        inboxes.get(0).await(had + 40, Stage.PATIENCE_S);
    }

    @Case
    static void otherWaysToShareWork(Stage stage) throws Exception {
        String topic = stage.topic(4);
        for (var strategy : List.of(new AllocateMessageQueueAveragelyByCircle(), new AllocateMessageQueueConsistentHash())) {
            Inbox inbox = new Inbox();
            DefaultMQPushConsumer consumer = stage.consumer(Stage.fresh("CG"), topic, "*");
            consumer.setAllocateMessageQueueStrategy(strategy);
            stage.start(consumer, message -> inbox.add(message) != null);
            stage.producer().send(Stage.message(topic, strategy.getName()));
            inbox.await(strategy.getName(), Stage.PATIENCE_S);
        }
    }
}
