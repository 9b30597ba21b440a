import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.selector.SelectMessageQueueByHash;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageBatch;
import org.apache.rocketmq.common.message.MessageQueue;

/** Every way to send, and what a receiver then holds in its hands. */
final class Sending {
    private static final int MESSAGE_ILLEGAL = 13;

    private Sending() {
    }

    @Case
    static void aSyncSendArrivesWhole(Stage stage) throws Exception {
        String topic = stage.topic(4);
        Inbox inbox = stage.inbox(topic);
        DefaultMQProducer producer = stage.producer();
        Map<String, SendResult> results = new HashMap<>();
        long before = System.currentTimeMillis();
        for (String body : List.of("hello", "你好 — ünïcödé 🚀", "")) {
            Message message = Stage.message(topic, body.isEmpty() ? "x" : body);
            message.setTags("标签");
            message.setKeys(List.of("key-a", "订单-b"));
            message.putUserProperty("a", "属性=值:;,\"{}\\");
            message.setFlag(-7);
            SendResult result = producer.send(message);
            Check.equal(result.getSendStatus(), SendStatus.SEND_OK, "status");
            Check.equal(result.getMessageQueue().getTopic(), topic, "topic of the result");
            results.put(result.getMsgId(), result);
        }
        for (Inbox.Letter letter : inbox.await(3, Stage.PATIENCE_S)) {
            SendResult result = results.remove(letter.message().getMsgId());
            Check.that(result != null, "an id that nobody sent: " + letter.message());
            Check.equal(letter.queue(), result.getMessageQueue().getQueueId(), "queue");
            Check.equal(letter.queueOffset(), result.getQueueOffset(), "queue offset");
            Check.equal(letter.message().getTags(), "标签", "tags");
            Check.equal(letter.message().getKeys(), "key-a 订单-b", "keys");
            Check.equal(letter.message().getUserProperty("a"), "属性=值:;,\"{}\\", "property");
            Check.equal(letter.message().getFlag(), -7, "flag");
            Check.equal(letter.times(), 0, "times");
            Check.equal(letter.message().getBrokerName(), result.getMessageQueue().getBrokerName(), "broker's name");
            Check.that(letter.message().getStoreTimestamp() >= before - 1_000, "stored at " + letter.message().getStoreTimestamp());
            Check.that(letter.message().getBornTimestamp() >= before, "born at " + letter.message().getBornTimestamp());
            Check.equal(letter.message().getBornHostString(), "127.0.0.1", "born host");
            Check.that(stage.broker().endsWith(":" + ((java.net.InetSocketAddress) letter.message().getStoreHost()).getPort()),
                "store host " + letter.message().getStoreHost());
        }
    }

    @Case
    static void anAsyncSendCallsBack(Stage stage) throws Exception {
        String topic = stage.topic(4);
        Inbox inbox = stage.inbox(topic);
        DefaultMQProducer producer = stage.producer();
        CountDownLatch answered = new CountDownLatch(200);
        AtomicReference<Object> odd = new AtomicReference<>();
        for (int i = 0; i < 200; i++) {
            producer.send(Stage.message(topic, "" + i), new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    if (result.getSendStatus() != SendStatus.SEND_OK) {
                        odd.set(result);
                    }
                    answered.countDown();
                }

                @Override
                public void onException(Throwable e) {
                    odd.set(e);
                    answered.countDown();
                }
            });
        }
        Check.that(answered.await(Stage.PATIENCE_S, TimeUnit.SECONDS), answered.getCount() + " callbacks are missing");
        Check.equal(odd.get(), null, "a callback");
        inbox.await(200, Stage.PATIENCE_S);
        Check.equal(inbox.bodies().stream().map(Integer::valueOf).sorted().collect(Collectors.toList()),
            IntStream.range(0, 200).boxed().collect(Collectors.toList()), "bodies");
    }

    @Case
    static void oneWaySendsArrive(Stage stage) throws Exception {
        String topic = stage.topic(4);
        Inbox inbox = stage.inbox(topic);
        DefaultMQProducer producer = stage.producer();
        for (int i = 0; i < 50; i++) {
            producer.sendOneway(Stage.message(topic, "" + i));
        }
        inbox.await(50, Stage.PATIENCE_S);
    }

    @Case
    static void aBatchIsOneMessageEach(Stage stage) throws Exception {
        String topic = stage.topic(4);
        Inbox inbox = stage.inbox(topic);
        List<Message> messages = new ArrayList<>();
        for (int i = 0; i < 10; i++) {
            Message message = Stage.message(topic, "" + i);
            message.setTags("tag" + i);
            message.setKeys("key" + i);
            message.putUserProperty("number", "" + i);
            messages.add(message);
        }
        SendResult result = stage.producer().send(messages);
        Check.equal(result.getSendStatus(), SendStatus.SEND_OK, "status");
        String[] ids = result.getMsgId().split(",");
        String[] places = result.getOffsetMsgId().split(",");
        Check.equal(ids.length, 10, "unique ids");
        Check.equal(places.length, 10, "offset ids");
        List<Inbox.Letter> letters = inbox.await(10, Stage.PATIENCE_S);
        for (int i = 0; i < 10; i++) {
            Inbox.Letter letter = letters.get(i);
            Check.equal(letter.body(), "" + i, "body in its place");
            Check.equal(letter.message().getMsgId(), ids[i], "id");
            Check.equal(letter.message().getTags(), "tag" + i, "tag");
            Check.equal(letter.message().getKeys(), "key" + i, "key");
            Check.equal(letter.message().getUserProperty("number"), "" + i, "property");
            Check.equal(letter.queue(), result.getMessageQueue().getQueueId(), "queue");
            Check.equal(letter.queueOffset(), result.getQueueOffset() + i, "queue offset");
            Check.equal(stage.operator().viewMessage(topic, places[i]).getKeys(), "key" + i, "the message of an offset id");
        }
    }

    @Case
    static void aBatchGoesToTheQueueThatIsAsked(Stage stage) throws Exception {
        String topic = stage.topic(4);
        DefaultMQProducer producer = stage.producer();
        MessageQueue queue = producer.fetchPublishMessageQueues(topic).stream().filter(one -> one.getQueueId() == 3)
            .findFirst().orElseThrow();
        SendResult result = producer.send(List.of(Stage.message(topic, "a"), Stage.message(topic, "b")), queue);
        Check.equal(result.getMessageQueue(), queue, "queue");
        Check.equal(producer.maxOffset(queue), 2L, "messages in the queue");
    }

    @Case
    static void aSelectorChoosesTheQueue(Stage stage) throws Exception {
        String topic = stage.topic(4);
        DefaultMQProducer producer = stage.producer();
        SendResult last = null;
        for (int i = 0; i < 20; i++) {
            SendResult result = producer.send(Stage.message(topic, "" + i), new SelectMessageQueueByHash(), "order-7");
            if (last != null) {
                Check.equal(result.getMessageQueue(), last.getMessageQueue(), "queue");
                Check.equal(result.getQueueOffset(), last.getQueueOffset() + 1, "queue offset");
            }
            last = result;
        }
    }

    @Case
    static void anUnknownTopicIsMadeByASend(Stage stage) throws Exception {
        String topic = Stage.fresh("unknown");
        DefaultMQProducer producer = stage.producer();
        Check.equal(producer.send(Stage.message(topic, "first")).getSendStatus(), SendStatus.SEND_OK, "status");
        Check.equal(producer.fetchPublishMessageQueues(topic).size(), 4, "queues");
        stage.inbox(topic).await("first", Stage.PATIENCE_S);
    }

    @Case
    static void longBodiesAreCompressedByTheClient(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Inbox inbox = stage.inbox(topic);
        DefaultMQProducer producer = stage.producer();
        String noise = ThreadLocalRandom.current().ints(60_000, 33, 127).mapToObj(Character::toString)
            .collect(Collectors.joining());
        for (String body : List.of("a".repeat(100_000), noise, "b".repeat(4_096))) {
            producer.send(Stage.message(topic, body));
            Inbox.Letter letter = inbox.await(body, Stage.PATIENCE_S);
            Check.that(letter.message().getStoreSize() < body.length() + 400, "is stored in " + letter.message().getStoreSize() + " bytes");
        }
        Check.that(inbox.all().get(0).message().getStoreSize() < 2_000, "100,000 letters a are stored compressed");
    }

    @Case
    static void aMessageThatIsTooLongIsRefusedAsIllegal(Stage stage) throws Exception {
        String topic = stage.topic(1);
        DefaultMQProducer producer = stage.own(new DefaultMQProducer(Stage.fresh("PG")));
        producer.setMaxMessageSize(64 << 20);
        producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        stage.start(producer);
        Message message = new Message(topic, new byte[(4 << 20) + 1]);
        MQBrokerException refusal = Check.refused(MQBrokerException.class, () -> producer.send(message, 10_000));
        Check.equal(refusal.getResponseCode(), MESSAGE_ILLEGAL, "code");
        Check.equal(producer.send(new Message(topic, new byte[4 << 20]), 10_000).getSendStatus(), SendStatus.SEND_OK,
            "the longest that is allowed");
    }

    @Case
    static void manyThreadsSendEachMessageOnce(Stage stage) throws Exception {
        String topic = stage.topic(8);
        Inbox inbox = stage.inbox(topic);
        DefaultMQProducer producer = stage.producer();
        List<Thread> threads = IntStream.range(0, 8).mapToObj(number -> new Thread(() -> {
            for (int i = 0; i < 250; i++) {
                try {
                    producer.send(Stage.message(topic, number + "/" + i));
                } catch (Exception e) {
                    return; // then one is missing below
                }
            }
        })).collect(Collectors.toList());
        threads.forEach(Thread::start);
        for (Thread thread : threads) {
            thread.join();
        }
        inbox.await(2_000, Stage.PATIENCE_S);
        Check.equal(inbox.bodies().stream().distinct().count(), 2_000L, "different messages");
    }

    @Case
    static void delayLevelsComeInTheirTime(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Inbox inbox = stage.inbox(topic);
        DefaultMQProducer producer = stage.producer();
        Message message = Stage.message(topic, "later");
        message.setTags("T");
        message.setKeys("k");
        message.setDelayTimeLevel(2);
        long sent = System.currentTimeMillis();
        SendResult result = producer.send(message);
        Check.equal(result.getSendStatus(), SendStatus.SEND_OK, "status");
        producer.send(Stage.message(topic, "at once"));
        Check.equal(inbox.await(1, Stage.PATIENCE_S).get(0).body(), "at once", "the first to come");
        Inbox.Letter letter = inbox.await("later", Stage.PATIENCE_S);
        long took = letter.atMs() - sent;
        Check.that(took >= 4_900 && took < 9_000, "level 2 came after " + took + " ms");
        Check.equal(letter.topic(), topic, "topic");
        Check.equal(letter.message().getMsgId(), result.getMsgId(), "id");
        Check.equal(letter.message().getTags() + letter.message().getKeys(), "Tk", "tag and key");
    }

    @Case
    static void messagesOfOneObjectAreMessagesEach(Stage stage) throws Exception {
        String topic = stage.topic(1);
        Inbox inbox = stage.inbox(topic);
        DefaultMQProducer producer = stage.producer();
        Message message = Stage.message(topic, "again");
        Stream<SendResult> results = Stream.of(producer.send(message), producer.send(message));
        Check.equal(results.map(SendResult::getQueueOffset).collect(Collectors.toList()), List.of(0L, 1L), "queue offsets");
        inbox.await(2, Stage.PATIENCE_S);
    }

    @Case
    static void aBatchOfDelayedMessagesIsRefusedByTheClientItself(Stage stage) {
        Message message = Stage.message("any", "x");
        message.setDelayTimeLevel(1);
        try {
            MessageBatch.generateFromList(List.of(message));
        } catch (UnsupportedOperationException expected) {
            return;
        }
        throw new AssertionError("this client lets delayed batches out: the broker's answer has to be looked at");
    }
}
