import java.util.Map;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.impl.MQClientAPIImpl;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.protocol.header.CreateTopicRequestHeader;
import org.apache.rocketmq.common.protocol.heartbeat.MessageModel;
import org.apache.rocketmq.common.subscription.SubscriptionGroupConfig;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;

/** What the clients of RocketMQ 4.9 call otherwise than those of 5, and cases that only they have. */
final class OfThisRelease {
    private static final int UPDATE_AND_CREATE_TOPIC = 17;

    private OfThisRelease() {
    }

    /** These clients know no attributes of topics: the field is added to their request, as newer tools would send it. */
    static void createTopic(DefaultMQProducer producer, String broker, String like, String topic, int queues,
        Map<String, String> attributes) throws Exception {
        if (attributes.isEmpty()) {
            producer.createTopic(like, topic, queues);
            return;
        }
        CreateTopicRequestHeader header = new CreateTopicRequestHeader();
        header.setTopic(topic);
        header.setDefaultTopic(like);
        header.setReadQueueNums(queues);
        header.setWriteQueueNums(queues);
        header.setPerm(6);
        header.setTopicFilterType("SINGLE_TAG");
        header.setTopicSysFlag(0);
        RemotingCommand request = RemotingCommand.createRequestCommand(UPDATE_AND_CREATE_TOPIC, header);
        request.addExtField("attributes", attributes.entrySet().stream().map(one -> one.getKey() + "=" + one.getValue())
            .collect(Collectors.joining(",")));
        RemotingCommand answer = producer.getDefaultMQProducerImpl().getMqClientFactory().getMQClientAPIImpl()
            .getRemotingClient().invokeSync(broker, request, 5_000);
        if (answer.getCode() != 0) {
            throw new MQBrokerException(answer.getCode(), answer.getRemark());
        }
    }

    static void deleteTopicInNameServer(MQClientAPIImpl requests, String nameServer, String topic) throws Exception {
        requests.deleteTopicInNameServer(nameServer, topic, null, 3_000);
    }

    static void createGroup(MQClientAPIImpl requests, String broker, String group, int tries) throws Exception {
        SubscriptionGroupConfig config = new SubscriptionGroupConfig();
        config.setGroupName(group);
        config.setRetryMaxTimes(tries);
        requests.createSubscriptionGroup(broker, config, 3_000);
    }

    static void broadcast(DefaultMQPushConsumer consumer) {
        consumer.setMessageModel(MessageModel.BROADCASTING);
    }
}
