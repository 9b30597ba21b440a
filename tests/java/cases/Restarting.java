import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.remoting.exception.RemotingException;

/** The broker ends and comes back while clients run: they go on, and nothing that was acknowledged is gone. */
final class Restarting {
    private Restarting() {
    }

    /** Sends until it is acknowledged. */
    private static void insist(DefaultMQProducer producer, String topic, String body) throws Exception {
        long end = System.nanoTime() + 40 * 1_000_000_000L;
        while (true) {
            try {
                producer.send(Stage.message(topic, body));
                return;
            } catch (MQClientException | RemotingException | MQBrokerException e) {
                Check.that(System.nanoTime() < end, "no send got through: " + e);
                Thread.sleep(50);
            }
        }
    }

    private static Set<String> numbers(int count) {
        return IntStream.range(0, count).mapToObj(Integer::toString).collect(Collectors.toCollection(TreeSet::new));
    }

    @Case(seconds = 100)
    static void clientsGoOnAfterStopsAndKills(Stage outer) throws Exception {
        OwnBroker broker = OwnBroker.start(outer);
        Stage stage = new Stage(broker.nameServer());
        outer.atEnd(stage::close);
        String topic = stage.topic(4);
        String group = Stage.fresh("CG");
        Inbox inbox = new Inbox();
        stage.start(stage.consumer(group, topic, "*"), message -> inbox.add(message) != null);
        Inbox ordered = new Inbox();
        DefaultMQPushConsumer orderly = stage.consumer(Stage.fresh("CG"), topic, "*");
        orderly.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            messages.forEach(ordered::add);
            return ConsumeOrderlyStatus.SUCCESS;
        });
        stage.start(orderly);
        DefaultMQProducer producer = stage.producer();
        for (int i = 0; i < 400; i++) {
            if (i == 100) {
                broker.stop();
                broker.start();
            } else if (i == 250) {
                broker.kill();
                broker.start();
            }
            insist(producer, topic, "" + i);
        }
        for (Inbox one : new Inbox[] {inbox, ordered}) {
            one.awaitThat(letters -> letters.stream().map(Inbox.Letter::body).collect(Collectors.toSet()).containsAll(numbers(400)),
                45, "all messages");
        }
    }

    @Case(seconds = 60)
    static void anOpenTransactionOutlivesTheBroker(Stage outer) throws Exception {
        OwnBroker broker = OwnBroker.start(outer);
        Stage stage = new Stage(broker.nameServer());
        outer.atEnd(stage::close);
        String topic = stage.topic(1);
        TransactionMQProducer producer = stage.transactions(
            new Transactions.Decider(LocalTransactionState.UNKNOW, LocalTransactionState.COMMIT_MESSAGE));
        producer.sendMessageInTransaction(Stage.message(topic, "open"), null);
        broker.kill();
        broker.start();
        Inbox inbox = stage.inbox(topic);
        inbox.await("open", 40);
        Check.equal(inbox.all().size(), 1, "deliveries");
    }

    @Case(seconds = 60)
    static void aCommittedOneStaysCommittedAndARolledBackOneRolledBack(Stage outer) throws Exception {
        OwnBroker broker = OwnBroker.start(outer);
        Stage stage = new Stage(broker.nameServer());
        outer.atEnd(stage::close);
        String topic = stage.topic(1);
        for (LocalTransactionState state : new LocalTransactionState[] {LocalTransactionState.ROLLBACK_MESSAGE, LocalTransactionState.COMMIT_MESSAGE}) {
            TransactionMQProducer producer = stage.transactions(new Transactions.Decider(state, LocalTransactionState.UNKNOW));
            producer.sendMessageInTransaction(Stage.message(topic, state.name()), null);
        }
        Inbox before = stage.inbox(topic);
        before.await(LocalTransactionState.COMMIT_MESSAGE.name(), Stage.PATIENCE_S);
        broker.kill();
        broker.start();
        insist(stage.producer(), topic, "last");
        Inbox inbox = stage.inbox(topic);
        inbox.await("last", 40);
        Check.equal(inbox.bodies(), java.util.List.of(LocalTransactionState.COMMIT_MESSAGE.name(), "last"), "messages");
    }
}
