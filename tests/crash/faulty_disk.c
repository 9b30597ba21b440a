/*
 * A disk that fails when it is told to, between a program and the C library (LD_PRELOAD).
 *
 *   MEZZO_FAULT_FILE   the file that says what to do; looked at on each call
 *   MEZZO_FAULT_PATH   only files and folders whose path holds this text are touched; a folder's path ends in a slash
 *   MEZZO_CLOCK_FILE   eight bytes, a signed number of seconds that the wall clock is off
 *
 * What the fault file may say:
 *   sync EIO           the next fsync or fdatasync fails, once, and what was written since the last good one is lost:
 *                      kernels mark such pages clean, and a second sync "succeeds" without them
 *   sync lies          the same, but it says that all went well: for a test of the tests
 *   folder EIO         the next fsync of a folder fails, once
 *   write EIO          the next small write fails, once; also ENOSPC, EDQUOT
 *   short              every third write takes half of its bytes only, every fifth is interrupted, until the file is gone
 *
 * A fault that happens once renames the file to *.taken before it strikes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Writes that are remembered between two syncs; far more than one group holds. */
#define WRITES_MAX 65536
/* Longer writes are the zeros of segments to come. */
#define SMALL_WRITE_BYTES_MAX (256 * 1024)

struct written {
    dev_t dev;
    ino_t ino;
    off_t at;
    size_t len;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct written writes[WRITES_MAX];
static size_t write_count;
static atomic_ulong calls;

static int is_watched(int fd) {
    const char *part = getenv("MEZZO_FAULT_PATH");
    char link[64], path[4096];
    if (part == NULL) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 2);
    if (len < 0) return 0;
    struct stat status;
    if (fstat(fd, &status) == 0 && S_ISDIR(status.st_mode)) path[len++] = '/';
    path[len] = 0;
    return strstr(path, part) != NULL;
}

/* What `fault` gives for a lie. */
#define LIES (-1)

/* The error that `kind` ("sync", "folder", "write") is to fail with now, LIES, or 0. */
static int fault(const char *kind, int take) {
    const char *file = getenv("MEZZO_FAULT_FILE");
    char said[64], taken[4096];
    if (file == NULL) return 0;
    int saved = errno;
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    errno = saved;
    if (fd < 0) return 0;
    ssize_t len = read(fd, said, sizeof said - 1);
    close(fd);
    if (len <= 0) return 0;
    said[len] = 0;
    if (strncmp(said, kind, strlen(kind)) != 0) return 0;
    if (take) {
        snprintf(taken, sizeof taken, "%s.taken", file);
        if (rename(file, taken) != 0) return 0;
    }
    if (strstr(said, "lies") != NULL) return LIES;
    if (strstr(said, "EDQUOT") != NULL) return EDQUOT;
    return strstr(said, "ENOSPC") != NULL ? ENOSPC : EIO;
}

static ssize_t real_pwrite(int fd, const void *bytes, size_t len, off64_t at) {
    static ssize_t (*next)(int, const void *, size_t, off64_t);
    if (next == NULL) next = dlsym(RTLD_NEXT, "pwrite64");
    return next(fd, bytes, len, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at) {
    if (!is_watched(fd)) return real_pwrite(fd, bytes, len, at);
    unsigned long call = atomic_fetch_add(&calls, 1);
    if (fault("short", 0)) {
        if (call % 5 == 4) {
            errno = EINTR;
            return -1;
        }
        if (call % 3 == 2 && len > 1) len /= 2;
    }
    int error = len <= SMALL_WRITE_BYTES_MAX ? fault("write", 1) : 0;
    if (error != 0) {
        errno = error;
        return -1;
    }
    pthread_mutex_lock(&lock);
    ssize_t done = real_pwrite(fd, bytes, len, at);
    struct stat status;
    if (done > 0 && write_count < WRITES_MAX && fstat(fd, &status) == 0) {
        writes[write_count++] = (struct written){ status.st_dev, status.st_ino, at, (size_t)done };
    }
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at) {
    return pwrite64(fd, bytes, len, at);
}

static int is_of(const struct written *one, const struct stat *status) {
    return one->dev == status->st_dev && one->ino == status->st_ino;
}

/* Overwrites what was written to this file since its last good sync. */
static void lose(int fd, const struct stat *status) {
    static const char zeros[4096];
    for (size_t i = 0; i < write_count; i++) {
        if (!is_of(&writes[i], status)) continue;
        for (size_t gone = 0; gone < writes[i].len;) {
            size_t piece = writes[i].len - gone < sizeof zeros ? writes[i].len - gone : sizeof zeros;
            if (real_pwrite(fd, zeros, piece, writes[i].at + (off_t)gone) <= 0) return;
            gone += piece;
        }
    }
}

static int synced(int fd, int (*next)(int)) {
    struct stat status;
    if (!is_watched(fd) || fstat(fd, &status) != 0) return next(fd);
    pthread_mutex_lock(&lock);
    int error = fault(S_ISDIR(status.st_mode) ? "folder" : "sync", 1);
    if (error != 0) {
        lose(fd, &status);
        pthread_mutex_unlock(&lock);
        errno = EIO;
        return error == LIES ? 0 : -1;
    }
    size_t before = write_count;
    pthread_mutex_unlock(&lock);
    int result = next(fd);
    pthread_mutex_lock(&lock);
    if (result == 0 && before <= write_count) {
        size_t kept = 0;
        for (size_t i = 0; i < write_count; i++) {
            if (i >= before || !is_of(&writes[i], &status)) writes[kept++] = writes[i];
        }
        write_count = kept;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int fdatasync(int fd) {
    static int (*next)(int);
    if (next == NULL) next = dlsym(RTLD_NEXT, "fdatasync");
    return synced(fd, next);
}

int fsync(int fd) {
    static int (*next)(int);
    if (next == NULL) next = dlsym(RTLD_NEXT, "fsync");
    return synced(fd, next);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*next)(clockid_t, struct timespec *);
    static _Atomic int64_t *offset;
    static atomic_int looked;
    if (next == NULL) next = dlsym(RTLD_NEXT, "clock_gettime");
    int result = next(clock, now);
    if (result != 0 || clock != CLOCK_REALTIME) return result;
    if (atomic_exchange(&looked, 1) == 0) {
        const char *file = getenv("MEZZO_CLOCK_FILE");
        int fd = file == NULL ? -1 : open(file, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            void *map = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, fd, 0);
            close(fd);
            if (map != MAP_FAILED) offset = map;
        }
    }
    if (offset != NULL) now->tv_sec += atomic_load(offset);
    return result;
}
