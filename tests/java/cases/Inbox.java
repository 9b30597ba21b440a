import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Predicate;
import java.util.stream.Collectors;
import org.apache.rocketmq.common.message.MessageExt;

/** What one consumer has been given, in order of arrival, copied when it came: clients change delivered objects later. */
final class Inbox {
    /** A message as it was when it arrived. */
    record Letter(MessageExt message, String body, String topic, int queue, long queueOffset, int times, long atMs) {
        Letter(MessageExt message) {
            this(message, new String(message.getBody(), StandardCharsets.UTF_8), message.getTopic(), message.getQueueId(),
                message.getQueueOffset(), message.getReconsumeTimes(), System.currentTimeMillis());
        }
    }

    private final List<Letter> letters = new ArrayList<>();

    synchronized Letter add(MessageExt message) {
        Letter letter = new Letter(message);
        letters.add(letter);
        notifyAll();
        return letter;
    }

    synchronized List<Letter> all() {
        return new ArrayList<>(letters);
    }

    List<String> bodies() {
        return all().stream().map(Letter::body).collect(Collectors.toList());
    }

    /** Waits until {@code count} messages are here, and returns them. */
    List<Letter> await(int count, int seconds) throws InterruptedException {
        awaitThat(here -> here.size() >= count, seconds, count + " messages");
        return all();
    }

    /** Waits for the first message with this body. */
    Letter await(String body, int seconds) throws InterruptedException {
        awaitThat(here -> here.stream().anyMatch(letter -> letter.body().equals(body)), seconds, "'" + body + "'");
        return all().stream().filter(letter -> letter.body().equals(body)).findFirst().orElseThrow();
    }

    synchronized void awaitThat(Predicate<List<Letter>> condition, int seconds, String what) throws InterruptedException {
        long end = System.nanoTime() + seconds * 1_000_000_000L;
        while (!condition.test(letters)) {
            long left = (end - System.nanoTime()) / 1_000_000;
            if (left <= 0) {
                List<String> some = letters.stream().map(Letter::body).limit(20).collect(Collectors.toList());
                throw new AssertionError("within " + seconds + " s no " + what + "; " + letters.size() + " here: " + some);
            }
            wait(left);
        }
    }
}
