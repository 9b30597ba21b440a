import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Stands between clients and a broker, and loses answers to sends as networks do. Clients find it through a name server
 * of its own, which says of the broker that it is here.
 */
final class LossyBroker implements AutoCloseable {
    /** What becomes of an answer. */
    enum Loss {
        /** Its connection is reset in its place. */
        CONNECTION,
        /** It does not come, and nothing else tells. */
        SILENCE
    }

    private static final int FRAME_MAX = 32 << 20;
    private static final int HEART_BEAT = 34;
    private static final Set<Integer> SENDS = Set.of(10, 310, 320);
    private static final Pattern CODE = Pattern.compile("\"code\"\\s*:\\s*(\\d+)");
    private static final Pattern OPAQUE = Pattern.compile("\"opaque\"\\s*:\\s*(-?\\d+)");

    private final ServerSocket nameServerDoor = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
    private final ServerSocket brokerDoor = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
    private final String broker;
    private final Loss loss;
    /** Answers still to lose. */
    private final AtomicInteger toLose = new AtomicInteger();
    private final AtomicInteger lost = new AtomicInteger();
    private final AtomicInteger sends = new AtomicInteger();
    private final AtomicLong lastHeartbeatMs = new AtomicLong();

    LossyBroker(String nameServer, String broker, Loss loss) throws IOException {
        this.broker = broker;
        this.loss = loss;
        serve(nameServerDoor, nameServer, true);
        serve(brokerDoor, broker, false);
    }

    String nameServer() {
        return "127.0.0.1:" + nameServerDoor.getLocalPort();
    }

    void loseNext(int answers) {
        toLose.set(answers);
    }

    int lost() {
        return lost.get();
    }

    /** When the newest heartbeat came; 0 if none has. */
    long lastHeartbeatMs() {
        return lastHeartbeatMs.get();
    }

    /** Sends that have reached the broker. */
    int sends() {
        return sends.get();
    }

    private void serve(ServerSocket door, String upstream, boolean names) {
        daemon(() -> {
            while (true) {
                Socket client = door.accept();
                Socket server = new Socket(upstream.substring(0, upstream.lastIndexOf(':')),
                    Integer.parseInt(upstream.substring(upstream.lastIndexOf(':') + 1)));
                Set<Integer> unanswered = ConcurrentHashMap.newKeySet();
                daemon(() -> carry(client, server, frame -> noteSend(frame, unanswered)));
                daemon(() -> carry(server, client, frame -> names ? redirect(frame) : maybeLose(frame, unanswered, client)));
            }
        });
    }

    /** Carries frames until one side ends; then both end. A change gives null for a frame that goes no further. */
    private static void carry(Socket from, Socket to, Change change) throws IOException {
        try (from; to) {
            DataInputStream in = new DataInputStream(from.getInputStream());
            DataOutputStream out = new DataOutputStream(to.getOutputStream());
            while (true) {
                int length = in.readInt();
                if (length < 4 || length > FRAME_MAX) {
                    throw new IOException("a frame of " + length + " bytes");
                }
                byte[] frame = in.readNBytes(length);
                byte[] changed = change.of(frame);
                if (changed != null) {
                    ByteBuffer whole = ByteBuffer.allocate(4 + changed.length).putInt(changed.length).put(changed);
                    out.write(whole.array());
                    out.flush();
                }
            }
        }
    }

    private byte[] noteSend(byte[] frame, Set<Integer> unanswered) {
        int code = code(frame);
        if (code == HEART_BEAT) {
            lastHeartbeatMs.set(System.currentTimeMillis());
        } else if (SENDS.contains(code)) {
            sends.incrementAndGet();
            unanswered.add(opaque(frame));
        }
        return frame;
    }

    private byte[] maybeLose(byte[] frame, Set<Integer> unanswered, Socket client) throws IOException {
        // requests of the broker's own have numbers of their own; none of them is a send's by chance for long
        if (!unanswered.remove(opaque(frame)) || toLose.getAndUpdate(left -> Math.max(0, left - 1)) == 0) {
            return frame;
        }
        lost.incrementAndGet();
        if (loss == Loss.CONNECTION) {
            // without it clients of 4.9 see an end in order, which they do not take for the end of what they wait for
            client.setSoLinger(true, 0);
            throw new IOException("lost on purpose");
        }
        return null;
    }

    private byte[] redirect(byte[] frame) {
        int head = 4 + (ByteBuffer.wrap(frame).getInt() & 0xffffff);
        String body = new String(frame, head, frame.length - head, StandardCharsets.UTF_8);
        byte[] changed = body.replace(broker, "127.0.0.1:" + brokerDoor.getLocalPort()).getBytes(StandardCharsets.UTF_8);
        return ByteBuffer.allocate(head + changed.length).put(frame, 0, head).put(changed).array();
    }

    /** Headers are JSON (type 0), or begin with code (2 bytes), language (1), version (2), number (4). */
    private static int code(byte[] frame) {
        return frame[0] == 0 ? number(CODE, frame) : ByteBuffer.wrap(frame).getShort(4);
    }

    private static int opaque(byte[] frame) {
        return frame[0] == 0 ? number(OPAQUE, frame) : ByteBuffer.wrap(frame).getInt(9);
    }

    private static int number(Pattern pattern, byte[] frame) {
        int length = ByteBuffer.wrap(frame).getInt() & 0xffffff;
        Matcher found = pattern.matcher(new String(frame, 4, length, StandardCharsets.UTF_8));
        return found.find() ? Integer.parseInt(found.group(1)) : -1;
    }

    @Override
    public void close() {
        try {
            nameServerDoor.close();
            brokerDoor.close();
        } catch (IOException e) {
            // it is gone either way
        }
    }

    private interface Change {
        byte[] of(byte[] frame) throws IOException;
    }

    private interface Task {
        void run() throws IOException;
    }

    private static void daemon(Task task) {
        Thread thread = new Thread(() -> {
            try {
                task.run();
            } catch (IOException e) {
                // a connection or a door was closed
            }
        });
        thread.setDaemon(true);
        thread.start();
    }
}
