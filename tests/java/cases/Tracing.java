import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;

/** Message traces: the clients send what they did to a topic of its own. */
final class Tracing {
    private Tracing() {
    }

    @Case
    static void tracesOfSendsAndDeliveriesAreStored(Stage stage) throws Exception {
        String topic = stage.topic(1);
        String traceTopic = stage.topic(1);
        Inbox traces = stage.inbox(traceTopic);
        DefaultMQProducer producer = stage.own(new DefaultMQProducer(Stage.fresh("PG"), true, traceTopic));
        stage.start(producer);
        AtomicBoolean delivered = new AtomicBoolean();
        DefaultMQPushConsumer consumer = stage.own(new DefaultMQPushConsumer(Stage.fresh("CG"), true, traceTopic));
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            delivered.set(true);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        stage.start(consumer);
        SendResult result = producer.send(Stage.message(topic, "traced"));
        for (String kind : new String[] {"Pub", "SubBefore", "SubAfter"}) {
            traces.awaitThat(letters -> letters.stream().anyMatch(letter -> letter.body().contains(kind)
                && letter.body().contains(result.getMsgId())), Stage.PATIENCE_S, kind + " of the message");
        }
        Check.that(delivered.get(), "the message was not delivered");
    }

    @Case
    static void theTopicOfTracesIsMadeWhenItIsNeeded(Stage stage) throws Exception {
        DefaultMQProducer producer = stage.own(new DefaultMQProducer(Stage.fresh("PG"), true, null));
        stage.start(producer);
        SendResult result = producer.send(Stage.message(stage.topic(1), "traced"));
        // the client sends traces every few seconds, and loses them if their topic cannot be made
        Check.within(Stage.PATIENCE_S, "the topic of traces", () -> stage.requests().getTopicListFromNameServer(3_000)
            .getTopicList().contains("RMQ_SYS_TRACE_TOPIC"));
        stage.inbox("RMQ_SYS_TRACE_TOPIC").awaitThat(letters -> letters.stream()
            .anyMatch(letter -> letter.body().contains(result.getMsgId())), Stage.PATIENCE_S, "trace of the message");
    }
}
