import java.util.Map;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** What clients ask a broker besides messages: topics, offsets, single messages, groups. */
final class Administration {
    private Administration() {
    }

    @Case
    static void aTopicIsMadeChangedAndDeleted(Stage stage) throws Exception {
        String topic = stage.topic(3);
        DefaultMQProducer producer = stage.producer();
        Check.equal(producer.fetchPublishMessageQueues(topic).size(), 3, "queues");
        OfThisRelease.createTopic(stage.operator(), stage.broker(), "TBW102", topic, 6, Map.of());
        Check.within(Stage.PATIENCE_S, "six queues", () -> producer.fetchPublishMessageQueues(topic).size() == 6);
        Check.that(stage.requests().getTopicListFromNameServer(3_000).getTopicList().contains(topic), "not listed");
        stage.requests().deleteTopicInBroker(stage.broker(), topic, 3_000);
        String nameServer = stage.operator().getNamesrvAddr();
        OfThisRelease.deleteTopicInNameServer(stage.requests(), nameServer, topic);
        Check.refused(MQClientException.class, () -> stage.requests().getTopicRouteInfoFromNameServer(topic, 3_000));
    }

    @Case
    static void offsetsOfAQueueAreTold(Stage stage) throws Exception {
        String topic = stage.topic(1);
        DefaultMQProducer producer = stage.producer();
        MessageQueue queue = producer.fetchPublishMessageQueues(topic).get(0);
        Check.equal(producer.minOffset(queue), 0L, "least offset of an empty queue");
        Check.equal(producer.maxOffset(queue), 0L, "greatest offset of an empty queue");
        Check.equal(producer.earliestMsgStoreTime(queue), -1L, "earliest time of an empty queue");
        long before = System.currentTimeMillis();
        for (int i = 0; i < 3; i++) {
            producer.send(Stage.message(topic, "" + i));
        }
        Check.equal(producer.maxOffset(queue), 3L, "greatest offset");
        long earliest = producer.earliestMsgStoreTime(queue);
        Check.that(earliest >= before - 1_000 && earliest <= System.currentTimeMillis() + 1_000, "earliest time " + earliest);
        Check.equal(producer.searchOffset(queue, 0), 0L, "offset of the beginning of time");
        Check.equal(producer.searchOffset(queue, System.currentTimeMillis() + 3_600_000), 3L, "offset of the future");
    }

    @Case
    static void aMessageIsViewedByItsPlace(Stage stage) throws Exception {
        String topic = stage.topic(1);
        DefaultMQProducer producer = stage.producer();
        Message message = Stage.message(topic, "seen");
        message.setKeys("k");
        SendResult result = producer.send(message);
        MessageExt seen = producer.viewMessage(topic, result.getOffsetMsgId());
        Check.equal(new String(seen.getBody()), "seen", "body");
        Check.equal(seen.getMsgId(), result.getMsgId(), "id");
        Check.equal(seen.getKeys(), "k", "key");
        Check.equal(seen.getQueueOffset(), result.getQueueOffset(), "queue offset");
    }

    @Case
    static void theLagOfAGroupIsTold(Stage stage) throws Exception {
        String topic = stage.topic(1);
        String group = Stage.fresh("CG");
        Inbox inbox = new Inbox();
        DefaultMQProducer producer = stage.producer();
        producer.send(Stage.message(topic, "1"));
        DefaultMQPushConsumer consumer = stage.consumer(group, topic, "*");
        stage.start(consumer, message -> inbox.add(message) != null);
        inbox.await("1", Stage.PATIENCE_S);
        consumer.shutdown();
        producer.send(Stage.message(topic, "2"));
        producer.send(Stage.message(topic, "3"));
        Check.within(Stage.PATIENCE_S, "a lag of two", () -> {
            var table = stage.requests().getConsumeStats(stage.broker(), group, 3_000).getOffsetTable();
            var queue = table.entrySet().stream().filter(entry -> entry.getKey().getTopic().equals(topic)).findFirst().orElseThrow();
            return queue.getValue().getBrokerOffset() == 3 && queue.getValue().getConsumerOffset() == 1;
        });
    }

    @Case
    static void aGroupIsMadeWithItsOwnLimitOfTriesAndDeleted(Stage stage) throws Exception {
        String group = Stage.fresh("CG");
        String topic = stage.topic(1);
        OfThisRelease.createGroup(stage.requests(), stage.broker(), group, 1);
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer consumer = stage.consumer(group, topic, "*");
        stage.start(consumer, message -> inbox.add(message) == null);
        stage.producer().send(Stage.message(topic, "bad"));
        inbox.await(1, Stage.PATIENCE_S);
        consumer.shutdown();
        stage.requests().deleteSubscriptionGroup(stage.broker(), group, true, 3_000);
    }

    @Case
    static void whatIsNotThereIsSaidSo(Stage stage) throws Exception {
        Check.that(Check.refused(MQClientException.class, () -> stage.operator().fetchPublishMessageQueues(Stage.fresh("none")))
            .getMessage() != null, "no words");
        Check.that(!stage.isKnown(Stage.fresh("CG")), "a group of nobody has members");
    }
}
