import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/** A broker in a process of the case's own, which can be stopped or killed and comes back at the same addresses. */
final class OwnBroker implements AutoCloseable {
    private static final Pattern ADDRESS = Pattern.compile("(broker|name server) +(127\\.0\\.0\\.1:\\d+)");

    private final String program;
    private final Path data;
    private String broker = "127.0.0.1:0";
    private String nameServer = "127.0.0.1:0";
    private Process process;

    /** MEZZO names the program; without it the case is skipped. */
    static OwnBroker start(Stage stage) throws Exception {
        String program = Play.setting("MEZZO", "");
        if (program.isEmpty()) {
            throw new Play.Skipped("MEZZO names no program");
        }
        OwnBroker broker = new OwnBroker(program);
        stage.atEnd(broker::close);
        broker.start();
        return broker;
    }

    private OwnBroker(String program) throws IOException {
        this.program = program;
        this.data = Files.createTempDirectory("mezzo-java");
    }

    String nameServer() {
        return nameServer;
    }

    void start() throws Exception {
        List<String> command = new ArrayList<>(List.of(program, "serve", "--data-dir", data.resolve("data").toString(),
            "--listen", broker, "--name-server-listen", nameServer, "--set", "transaction.timeout=3s",
            "--set", "transaction.check_interval=2s"));
        process = new ProcessBuilder(command).redirectError(data.resolve("log").toFile()).start();
        BufferedReader banner = new BufferedReader(new InputStreamReader(process.getInputStream()));
        int known = 0;
        while (known < 2) {
            String line = banner.readLine();
            Check.that(line != null, "the broker does not start: " + Files.readString(data.resolve("log")));
            for (Matcher found = ADDRESS.matcher(line); found.find(); known++) {
                if (found.group(1).equals("broker")) {
                    broker = found.group(2);
                } else {
                    nameServer = found.group(2);
                }
            }
        }
    }

    /** Stops it in order, as an operator does. */
    void stop() throws Exception {
        process.destroy();
        Check.that(process.waitFor(Stage.PATIENCE_S, TimeUnit.SECONDS), "the broker does not stop");
        Check.equal(process.exitValue(), 0, "exit code of the broker");
    }

    /** Ends it at once. */
    void kill() throws Exception {
        process.destroyForcibly().waitFor();
    }

    @Override
    public void close() {
        if (process != null) {
            process.destroyForcibly();
        }
        try (Stream<Path> files = Files.walk(data)) {
            files.sorted(Comparator.reverseOrder()).forEach(file -> file.toFile().delete());
        } catch (IOException e) {
            // left to whoever cleans the folder of temporary files
        }
    }
}
