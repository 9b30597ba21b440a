import java.util.Objects;
import java.util.concurrent.Callable;

/** What cases say of what they see. */
final class Check {
    private Check() {
    }

    static void equal(Object got, Object wanted, String what) {
        if (!Objects.equals(got, wanted)) {
            throw new AssertionError(what + ": got " + got + ", wanted " + wanted);
        }
    }

    static void that(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    /** Looks until it holds, at most so many seconds. */
    static void within(int seconds, String what, Callable<Boolean> condition) throws Exception {
        long end = System.nanoTime() + seconds * 1_000_000_000L;
        while (!condition.call()) {
            that(System.nanoTime() < end, "not within " + seconds + " s: " + what);
            Thread.sleep(20);
        }
    }

    /** Something that may throw. */
    interface Attempt {
        void run() throws Exception;
    }

    /** The exception of this class with which the attempt has to end. */
    static <E extends Exception> E refused(Class<E> kind, Attempt attempt) throws Exception {
        try {
            attempt.run();
        } catch (Exception e) {
            for (Throwable cause = e; cause != null; cause = cause.getCause()) {
                if (kind.isInstance(cause)) {
                    return kind.cast(cause);
                }
            }
            throw e;
        }
        throw new AssertionError("was not refused with " + kind.getSimpleName());
    }
}
