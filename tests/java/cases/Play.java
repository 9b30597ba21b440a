import java.io.FileOutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Plays the cases named on the command line, or all, against the broker behind NAMESRV: {@code PASS case} or
 * {@code FAIL case: why} for each and a closing line; exit code 0 only when all passed. JOBS (8) are played at once:
 * most of a case is waiting.
 */
public final class Play {
    private static final List<Class<?>> GROUPS = List.of(
        Sending.class, Consuming.class, Rebalancing.class, Retrying.class, Ordering.class, Pulling.class,
        Transactions.class, Tracing.class, Administration.class, NotServed.class, Deduplication.class,
        Restarting.class, OfThisRelease.class);

    /** Thrown by a case that cannot be played here. */
    static final class Skipped extends Exception {
        private static final long serialVersionUID = 1L;

        Skipped(String why) {
            super(why);
        }
    }

    /** Where verdicts go; what clients print goes to their log. */
    private static final PrintStream VERDICTS = System.out;

    private final AtomicInteger passed = new AtomicInteger();
    private final AtomicInteger failed = new AtomicInteger();

    public static void main(String[] names) throws Exception {
        System.setOut(new PrintStream(new FileOutputStream(setting("LOGDIR", ".") + "/clients.out"), true, StandardCharsets.UTF_8));
        Play play = new Play();
        List<Method> cases = cases(Arrays.asList(names));
        ExecutorService players = Executors.newFixedThreadPool(Integer.parseInt(setting("JOBS", "8")), Play::daemon);
        List<Future<?>> played = new ArrayList<>();
        for (Method method : cases) {
            played.add(players.submit(() -> play.play(method)));
        }
        for (Future<?> one : played) {
            one.get();
        }
        VERDICTS.println(play.passed + " passed, " + play.failed + " failed");
        VERDICTS.flush();
        // at once: threads of clients that a failed case left behind must not hold the program
        Runtime.getRuntime().halt(play.failed.get() == 0 && play.passed.get() > 0 ? 0 : 1);
    }

    static String setting(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null || value.isEmpty() ? otherwise : value;
    }

    /** The case's name: the method's, in words joined by hyphens. */
    private static String name(Method method) {
        return method.getName().replaceAll("([A-Z])", "-$1").toLowerCase();
    }

    /** All cases or those asked for, the longest first, so that none is left to run alone at the end. */
    private static List<Method> cases(List<String> names) {
        List<Method> cases = new ArrayList<>();
        for (Class<?> group : GROUPS) {
            for (Method method : group.getDeclaredMethods()) {
                if (method.isAnnotationPresent(Case.class) && (names.isEmpty() || names.contains(name(method)))) {
                    if (!Modifier.isStatic(method.getModifiers())) {
                        throw new IllegalStateException(method + " is not static");
                    }
                    cases.add(method);
                }
            }
        }
        cases.sort(Comparator.comparingInt((Method method) -> -method.getAnnotation(Case.class).seconds())
            .thenComparing(Play::name));
        return cases;
    }

    private void play(Method method) {
        String why = null;
        Stage stage = new Stage(Stage.NAME_SERVER);
        Thread[] player = new Thread[1];
        ExecutorService alone = Executors.newSingleThreadExecutor(task -> player[0] = daemon(task));
        int seconds = method.getAnnotation(Case.class).seconds();
        try {
            alone.submit(() -> method.invoke(null, stage)).get(seconds, TimeUnit.SECONDS);
        } catch (TimeoutException e) {
            why = "took more than " + seconds + " s: " + where(player[0]);
        } catch (Exception e) {
            Throwable cause = e;
            while (cause.getCause() != null
                && (cause instanceof ExecutionException || cause instanceof InvocationTargetException)) {
                cause = cause.getCause();
            }
            if (cause instanceof Skipped) {
                VERDICTS.println("SKIP " + name(method) + ": " + cause.getMessage());
                return;
            }
            why = cause instanceof AssertionError ? cause.getMessage() : cause + " at " + where(cause.getStackTrace());
        }
        alone.shutdownNow();
        stage.close();
        if (why == null) {
            passed.incrementAndGet();
            VERDICTS.println("PASS " + name(method));
        } else {
            failed.incrementAndGet();
            VERDICTS.println("FAIL " + name(method) + ": " + why.replaceAll("\\s+", " "));
        }
    }

    private static String where(Thread thread) {
        return thread == null ? "it did not begin" : "waits in " + where(thread.getStackTrace());
    }

    /** The places in our own files, which are in no package. */
    private static String where(StackTraceElement[] trace) {
        StringBuilder places = new StringBuilder();
        for (StackTraceElement element : trace) {
            if (!element.getClassName().contains(".")) {
                places.append(places.length() == 0 ? "" : " < ").append(element.getFileName()).append(':')
                    .append(element.getLineNumber());
            }
        }
        return places.toString();
    }

    private static Thread daemon(Runnable task) {
        Thread thread = new Thread(task);
        thread.setDaemon(true);
        return thread;
    }
}
