import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.client.producer.TransactionSendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** Half messages, decisions, check-backs. The broker has to ask after a few seconds (transaction.timeout). */
final class Transactions {
    private static final int CHECK_BACK_S = 25;

    private Transactions() {
    }

    /** Answers with what stands behind the message's body, and remembers what it was asked about. */
    static class Decider implements TransactionListener {
        final Map<String, MessageExt> asked = new ConcurrentHashMap<>();
        private final LocalTransactionState first;
        private final LocalTransactionState later;

        Decider(LocalTransactionState first, LocalTransactionState later) {
            this.first = first;
            this.later = later;
        }

        @Override
        public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
            return first;
        }

        @Override
        public LocalTransactionState checkLocalTransaction(MessageExt message) {
            asked.put(new String(message.getBody(), StandardCharsets.UTF_8), message);
            return later;
        }
    }

    private static final LocalTransactionState COMMIT = LocalTransactionState.COMMIT_MESSAGE;
    private static final LocalTransactionState ROLLBACK = LocalTransactionState.ROLLBACK_MESSAGE;
    private static final LocalTransactionState UNKNOWN = LocalTransactionState.UNKNOW;

    private static Message order(String topic) {
        Message message = Stage.message(topic, "订单");
        message.setTags("T");
        message.setKeys("k");
        message.putUserProperty("p", "v");
        return message;
    }

    private static void assertDelivered(Inbox inbox, TransactionSendResult result) throws Exception {
        Inbox.Letter letter = inbox.await("订单", Stage.PATIENCE_S);
        MessageExt message = letter.message();
        Check.equal(message.getMsgId(), result.getMsgId(), "id");
        Check.equal(message.getTags() + message.getKeys() + message.getUserProperty("p"), "Tkv", "properties");
        Check.equal(message.getTransactionId(), result.getTransactionId(), "transaction id");
        Check.equal(letter.queue(), result.getMessageQueue().getQueueId(), "queue");
    }

    @Case
    static void aHalfMessageIsInvisibleUntilItIsCommitted(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Inbox inbox = stage.inbox(topic);
        CountDownLatch mayCommit = new CountDownLatch(1);
        CountDownLatch prepared = new CountDownLatch(1);
        TransactionMQProducer producer = stage.transactions(new Decider(COMMIT, UNKNOWN) {
            @Override
            public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
                Check.equal(argument, "argument", "argument");
                prepared.countDown();
                try {
                    return mayCommit.await(Stage.PATIENCE_S, TimeUnit.SECONDS) ? COMMIT : ROLLBACK;
                } catch (InterruptedException e) {
                    return ROLLBACK;
                }
            }
        });
        TransactionSendResult[] result = new TransactionSendResult[1];
        Thread sender = new Thread(() -> {
            try {
                result[0] = producer.sendMessageInTransaction(order(topic), "argument");
            } catch (Exception e) {
                // result stays null
            }
        });
        sender.start();
        Check.that(prepared.await(Stage.PATIENCE_S, TimeUnit.SECONDS), "no half message was stored");
        // of one queue, read by one thread: what was sent later and is here shows that the half message is not
        stage.operator().send(Stage.message(topic, "plain"));
        inbox.await("plain", Stage.PATIENCE_S);
        Check.equal(inbox.all().size(), 1, "messages before the commit");
        mayCommit.countDown();
        sender.join();
        Check.equal(result[0].getSendStatus(), SendStatus.SEND_OK, "status");
        Check.equal(result[0].getLocalTransactionState(), COMMIT, "state");
        assertDelivered(inbox, result[0]);
        stage.operator().send(Stage.message(topic, "last"));
        inbox.await("last", Stage.PATIENCE_S);
        Check.equal(inbox.all().size(), 3, "messages in all");
    }

    @Case
    static void aRolledBackMessageNeverComes(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Inbox inbox = stage.inbox(topic);
        Decider decider = new Decider(ROLLBACK, COMMIT);
        TransactionMQProducer producer = stage.transactions(decider);
        Check.equal(producer.sendMessageInTransaction(order(topic), null).getLocalTransactionState(), ROLLBACK, "state");
        // an unknown one after it is asked about; the rolled back one would have been, before
        TransactionMQProducer other = stage.own(new TransactionMQProducer(producer.getProducerGroup()));
        Decider unknown = new Decider(UNKNOWN, COMMIT);
        other.setTransactionListener(unknown);
        stage.start(other);
        other.sendMessageInTransaction(Stage.message(topic, "later"), null);
        inbox.await("later", CHECK_BACK_S);
        Check.equal(inbox.all().size(), 1, "messages");
        Check.that(!decider.asked.containsKey("订单") && !unknown.asked.containsKey("订单"), "a rolled back one was asked about");
    }

    @Case
    static void anUndecidedOneIsAskedAboutAndCommitted(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Inbox inbox = stage.inbox(topic);
        Decider decider = new Decider(UNKNOWN, COMMIT);
        TransactionMQProducer producer = stage.transactions(decider);
        TransactionSendResult result = producer.sendMessageInTransaction(order(topic), null);
        Check.within(CHECK_BACK_S, "a check-back", () -> decider.asked.containsKey("订单"));
        MessageExt asked = decider.asked.get("订单");
        Check.equal(asked.getTopic(), topic, "topic asked about");
        Check.equal(asked.getTransactionId(), result.getTransactionId(), "transaction id asked about");
        Check.equal(asked.getProperty("UNIQ_KEY"), result.getMsgId(), "unique key asked about");
        Check.equal(asked.getTags() + asked.getKeys() + asked.getUserProperty("p"), "Tkv", "properties asked about");
        assertDelivered(inbox, result);
    }

    @Case
    static void anUndecidedOneIsAskedAboutAndRolledBack(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Inbox inbox = stage.inbox(topic);
        Decider decider = new Decider(UNKNOWN, ROLLBACK);
        TransactionMQProducer producer = stage.transactions(decider);
        producer.sendMessageInTransaction(order(topic), null);
        Check.within(CHECK_BACK_S, "a check-back", () -> decider.asked.containsKey("订单"));
        stage.operator().send(Stage.message(topic, "plain"));
        inbox.await("plain", Stage.PATIENCE_S);
        Check.equal(inbox.all().size(), 1, "messages");
    }

    @Case
    static void aLocalTransactionThatThrowsIsAskedAbout(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Inbox inbox = stage.inbox(topic);
        TransactionMQProducer producer = stage.transactions(new Decider(UNKNOWN, COMMIT) {
            @Override
            public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
                throw new IllegalStateException("on purpose");
            }
        });
        TransactionSendResult result = producer.sendMessageInTransaction(order(topic), null);
        Check.equal(result.getLocalTransactionState(), UNKNOWN, "state");
        assertDelivered(inbox, result);
    }

    @Case
    static void anAnswerUnknownIsAskedAgain(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Inbox inbox = stage.inbox(topic);
        int[] asks = new int[1];
        TransactionMQProducer producer = stage.transactions(new Decider(UNKNOWN, UNKNOWN) {
            @Override
            public synchronized LocalTransactionState checkLocalTransaction(MessageExt message) {
                return ++asks[0] < 2 ? UNKNOWN : COMMIT;
            }
        });
        assertDelivered(inbox, producer.sendMessageInTransaction(order(topic), null));
        Check.equal(asks[0], 2, "asks");
    }

    @Case
    static void anotherProducerOfTheGroupAnswersForOneThatIsGone(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Inbox inbox = stage.inbox(topic);
        TransactionMQProducer gone = stage.own(new TransactionMQProducer(Stage.fresh("PG")));
        gone.setTransactionListener(new Decider(UNKNOWN, UNKNOWN));
        gone.start();
        TransactionSendResult result = gone.sendMessageInTransaction(order(topic), null);
        gone.shutdown();
        TransactionMQProducer other = stage.own(new TransactionMQProducer(gone.getProducerGroup()));
        other.setTransactionListener(new Decider(UNKNOWN, COMMIT));
        stage.start(other);
        // a producer says that it lives when it knows a broker, which it does after its first send
        other.send(Stage.message(stage.topic(1), "plain"));
        assertDelivered(inbox, result);
    }

    @Case
    static void theFirstAskCanBePutOffByTheMessage(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Inbox inbox = stage.inbox(topic);
        TransactionMQProducer producer = stage.transactions(new Decider(UNKNOWN, COMMIT));
        Message message = order(topic);
        message.putUserProperty("CHECK_IMMUNITY_TIME_IN_SECONDS", "8");
        long sent = System.currentTimeMillis();
        assertDelivered(inbox, producer.sendMessageInTransaction(message, null));
        long took = inbox.all().get(0).atMs() - sent;
        Check.that(took >= 7_500, "was asked about after " + took + " ms at most");
    }
}
