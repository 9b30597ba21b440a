import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.function.Predicate;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.impl.MQClientAPIImpl;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.MixAll;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** What a case plays with: clients of its own, under fresh names, which are shut down with it. */
final class Stage implements AutoCloseable {
    static final String NAME_SERVER = Play.setting("NAMESRV", "127.0.0.1:9876");
    /** The topic whose route stands in for topics that are not there yet. */
    private static final String STAND_IN = "TBW102";
    /** Longer than any wait on an idle machine by far. */
    static final int PATIENCE_S = 30;

    private final String nameServer;
    private final List<Runnable> ends = new ArrayList<>();
    private DefaultMQProducer operator;

    Stage(String nameServer) {
        this.nameServer = nameServer;
    }

    static String fresh(String prefix) {
        return prefix + "_" + UUID.randomUUID().toString().replace("-", "").substring(0, 12);
    }

    static Message message(String topic, String body) {
        return new Message(topic, body.getBytes(StandardCharsets.UTF_8));
    }

    /** Runs at the end, the last first. */
    synchronized void atEnd(Runnable end) {
        ends.add(end);
    }

    /** Gives a client its name server and a connection of its own; clients of one instance name share theirs. */
    <C extends ClientConfig> C own(C client) {
        client.setNamesrvAddr(nameServer);
        client.setInstanceName(fresh("i"));
        client.setPersistConsumerOffsetInterval(500);
        client.setPollNameServerInterval(1_000);
        client.setHeartbeatBrokerInterval(1_000);
        return client;
    }

    DefaultMQProducer producer() throws Exception {
        return start(own(new DefaultMQProducer(fresh("PG"))));
    }

    DefaultMQProducer start(DefaultMQProducer producer) throws Exception {
        producer.start();
        atEnd(producer::shutdown);
        return producer;
    }

    TransactionMQProducer transactions(TransactionListener listener) throws Exception {
        TransactionMQProducer producer = own(new TransactionMQProducer(fresh("PG")));
        producer.setTransactionListener(listener);
        start(producer);
        return producer;
    }

    /** One producer of the case for what is not sending: making topics, asking the broker. */
    synchronized DefaultMQProducer operator() throws Exception {
        if (operator == null) {
            operator = producer();
        }
        return operator;
    }

    MQClientAPIImpl requests() throws Exception {
        return operator().getDefaultMQProducerImpl().getMqClientFactory().getMQClientAPIImpl();
    }

    /** The address of the only broker. */
    String broker() throws Exception {
        return requests().getBrokerClusterInfo(5_000).getBrokerAddrTable().values().iterator().next().getBrokerAddrs()
            .values().iterator().next();
    }

    /** Whether the broker has heard of members of the group. */
    boolean isKnown(String group) throws Exception {
        try {
            return !requests().getConsumerIdListByGroup(broker(), group, 3_000).isEmpty();
        } catch (MQBrokerException e) {
            Check.equal(e.getResponseCode(), 1, "code for a group without members");
            return false;
        }
    }

    String topic(int queues) throws Exception {
        return topic(queues, Map.of());
    }

    /** A new topic with attributes as administrators write them: {@code +name} = value. */
    String topic(int queues, Map<String, String> attributes) throws Exception {
        String topic = fresh("T");
        OfThisRelease.createTopic(operator(), broker(), STAND_IN, topic, queues, attributes);
        return topic;
    }

    /** A consumer that reads from the first message, not started. */
    DefaultMQPushConsumer consumer(String group, String topic, String expression) throws Exception {
        DefaultMQPushConsumer consumer = own(new DefaultMQPushConsumer(group));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        // what was taken counts as consumed, also when the client is shut down at this moment
        consumer.setAwaitTerminationMillisWhenShutdown(5_000);
        consumer.setConsumeThreadMin(4);
        consumer.setConsumeThreadMax(4);
        consumer.subscribe(topic, expression);
        return consumer;
    }

    /**
     * Waits until the consumer reads what its group gave back: the broker makes that topic when it first sees the group, and
     * a client that shared out its queues a moment before looks again only after 20 s.
     */
    void awaitRetries(DefaultMQPushConsumer consumer) throws Exception {
        Check.within(PATIENCE_S, "the queue of retries", () -> {
            consumer.getDefaultMQPushConsumerImpl().doRebalance();
            return consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet().stream()
                .anyMatch(queue -> queue.getTopic().startsWith(MixAll.RETRY_GROUP_TOPIC_PREFIX));
        });
    }

    /** One thread only: messages of a queue then arrive in its order. */
    DefaultMQPushConsumer singleFile(DefaultMQPushConsumer consumer) {
        consumer.setConsumeThreadMin(1);
        consumer.setConsumeThreadMax(1);
        return consumer;
    }

    DefaultMQPushConsumer start(DefaultMQPushConsumer consumer) throws Exception {
        consumer.start();
        atEnd(consumer::shutdown);
        return consumer;
    }

    DefaultLitePullConsumer start(DefaultLitePullConsumer consumer) throws Exception {
        consumer.start();
        atEnd(consumer::shutdown);
        return consumer;
    }

    /** Starts it with a listener that takes each message, and says whether that went well. */
    DefaultMQPushConsumer start(DefaultMQPushConsumer consumer, Predicate<MessageExt> took) throws Exception {
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            boolean all = true;
            for (MessageExt message : messages) {
                all &= took.test(message);
            }
            return all ? ConsumeConcurrentlyStatus.CONSUME_SUCCESS : ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        return start(consumer);
    }

    /** A started consumer of a group of its own, one thread, and what it gets. */
    Inbox inbox(String topic) throws Exception {
        return inbox(topic, "*");
    }

    Inbox inbox(String topic, String expression) throws Exception {
        Inbox inbox = new Inbox();
        start(singleFile(consumer(fresh("CG"), topic, expression)), message -> inbox.add(message) != null);
        return inbox;
    }

    @Override
    public void close() {
        List<Runnable> last;
        synchronized (this) {
            last = new ArrayList<>(ends);
        }
        for (int i = last.size() - 1; i >= 0; i--) {
            try {
                last.get(i).run();
            } catch (RuntimeException e) {
                // a client that does not shut down is its own business: the case has been judged
            }
        }
    }
}
