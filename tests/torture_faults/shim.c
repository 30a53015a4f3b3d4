/*
 * Stands between a program and its system calls on files, by LD_PRELOAD, and fails them as told.
 *
 * SHIM_DIR    only calls on what lies in this directory count
 * SHIM_LOG    each call that counts is a line here: '!' if it was tampered with, ' ' if not, its name, the file
 * SHIM_CALLS  which calls count: any of the letters below
 * SHIM_FAULT  an errno; "short", which halves a transfer
 * SHIM_NTH    the call that the fault hits, counted from 1; 0: none
 * SHIM_EVERY  from then on every so many calls; 0: that one only
 *
 * A program that hangs is ended by SIGALRM.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define SECONDS 120
#define SLICES 1024

enum {
    READ = 'r',   /* transfers from a file */
    WRITE = 'w',  /* transfers to a file */
    COPY = 'c',   /* copies between files */
    SYNC = 's',   /* fsync, fdatasync */
    SPACE = 'a',  /* fallocate */
    SIZE = 't',   /* ftruncate */
    SEEK = 'k',   /* lseek: searching for holes */
    OPEN = 'o',   /* opening for reading */
    MAKE = 'm',   /* creating, linking, renaming */
    REMOVE = 'd', /* unlink */
    CONTROL = 'f', /* fcntl: locks, duplicates */
};

static const char *directory, *calls, *fault;
static long nth, every;
static int log_fd = -1;
static atomic_long counted;

static long number(const char *name)
{
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

__attribute__((constructor)) static void begin(void)
{
    const char *log = getenv("SHIM_LOG");

    directory = getenv("SHIM_DIR");
    calls = getenv("SHIM_CALLS");
    fault = getenv("SHIM_FAULT");
    nth = number("SHIM_NTH");
    every = number("SHIM_EVERY");
    if (log)
        log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    alarm(SECONDS);
}

/* What becomes of a call. */
enum verdict { PASS, FAIL, SHORTEN };

static enum verdict judge(char kind, const char *name, const char *path, size_t len)
{
    char line[PATH_MAX + 32];
    enum verdict verdict = PASS;
    size_t prefix;
    long n;
    int size;

    if (!directory || !calls || !fault || !strchr(calls, kind))
        return PASS;
    prefix = strlen(directory);
    if (strncmp(path, directory, prefix) || path[prefix] != '/')
        return PASS;
    /* A transfer of one byte cannot be any shorter. */
    if (!strcmp(fault, "short") && len < 2)
        return PASS;
    n = atomic_fetch_add(&counted, 1) + 1;
    if (n == nth || (every && n > nth && (n - nth) % every == 0))
        verdict = strcmp(fault, "short") ? FAIL : SHORTEN;
    size = snprintf(line, sizeof line, "%c%s %s\n", verdict == PASS ? ' ' : '!', name, path + prefix + 1);
    if (log_fd >= 0 && size > 0 && (size_t)size < sizeof line)
        (void)!write(log_fd, line, (size_t)size);
    if (verdict == FAIL)
        errno = atoi(fault);
    return verdict;
}

static enum verdict judge_fd(char kind, const char *name, int fd, size_t len)
{
    char link[64], path[PATH_MAX];
    ssize_t size;

    if (fd == log_fd)
        return PASS;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = readlink(link, path, sizeof path - 1);
    if (size < 0)
        return PASS;
    path[size] = 0;
    return judge(kind, name, path, len);
}

static enum verdict judge_path(char kind, const char *name, int at, const char *given)
{
    char path[PATH_MAX * 2], cwd[PATH_MAX];

    if (given[0] == '/')
        return judge(kind, name, given, 0);
    if (at != AT_FDCWD || !getcwd(cwd, sizeof cwd))
        return PASS;
    snprintf(path, sizeof path, "%s/%s", cwd, given);
    return judge(kind, name, path, 0);
}

/* The function that the program would have called without us. */
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int control(int fd, int command)
{
    return NEXT(fcntl)(fd, command);
}

/* Half of a transfer; of direct I/O whole blocks. */
static size_t half(int fd, size_t len)
{
    size_t block = control(fd, F_GETFL) & O_DIRECT ? 4096 : 1;
    size_t shorter = len / 2 / block * block;

    return shorter ? shorter : len;
}

static size_t total(const struct iovec *vector, int count)
{
    size_t sum = 0;

    for (int i = 0; i < count; i++)
        sum += vector[i].iov_len;
    return sum;
}

/* The slices that hold the first bytes. Returns their number. */
static int cut(struct iovec *to, const struct iovec *from, int count, size_t len)
{
    int i;

    for (i = 0; i < count && len > 0; i++) {
        to[i] = from[i];
        if (to[i].iov_len > len)
            to[i].iov_len = len;
        len -= to[i].iov_len;
    }
    return i;
}

#define PLAIN(name, kind, buffer, offset_type) \
    ssize_t name(int fd, buffer data, size_t len, offset_type offset) \
    { \
        enum verdict verdict = judge_fd(kind, #name, fd, len); \
        if (verdict == FAIL) \
            return -1; \
        return NEXT(name)(fd, data, verdict == SHORTEN ? half(fd, len) : len, offset); \
    }

PLAIN(pread, READ, void *, off_t)
PLAIN(pread64, READ, void *, off64_t)
PLAIN(pwrite, WRITE, const void *, off_t)
PLAIN(pwrite64, WRITE, const void *, off64_t)

#define VECTORED(name, kind, offset_type) \
    ssize_t name(int fd, const struct iovec *vector, int count, offset_type offset) \
    { \
        struct iovec shorter[SLICES]; \
        size_t len = total(vector, count); \
        enum verdict verdict = judge_fd(kind, #name, fd, len); \
        if (verdict == FAIL) \
            return -1; \
        if (verdict == SHORTEN && count <= SLICES) { \
            count = cut(shorter, vector, count, half(fd, len)); \
            vector = shorter; \
        } \
        return NEXT(name)(fd, vector, count, offset); \
    }

VECTORED(preadv, READ, off_t)
VECTORED(preadv64, READ, off64_t)
VECTORED(pwritev, WRITE, off_t)
VECTORED(pwritev64, WRITE, off64_t)

ssize_t read(int fd, void *data, size_t len)
{
    enum verdict verdict = judge_fd(READ, "read", fd, len);
    if (verdict == FAIL)
        return -1;
    return NEXT(read)(fd, data, verdict == SHORTEN ? half(fd, len) : len);
}

ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t len, unsigned flags)
{
    enum verdict verdict = judge_fd(COPY, "copy_file_range", to, len);
    if (verdict == FAIL)
        return -1;
    return NEXT(copy_file_range)(from, from_at, to, to_at, verdict == SHORTEN ? half(to, len) : len, flags);
}

#define ON_DESCRIPTOR(name, kind, parameters, ...) \
    int name parameters \
    { \
        if (judge_fd(kind, #name, fd, 0) == FAIL) \
            return -1; \
        return NEXT(name)(__VA_ARGS__); \
    }

ON_DESCRIPTOR(fsync, SYNC, (int fd), fd)
ON_DESCRIPTOR(fdatasync, SYNC, (int fd), fd)
ON_DESCRIPTOR(fallocate, SPACE, (int fd, int mode, off_t start, off_t len), fd, mode, start, len)
ON_DESCRIPTOR(fallocate64, SPACE, (int fd, int mode, off64_t start, off64_t len), fd, mode, start, len)
ON_DESCRIPTOR(ftruncate, SIZE, (int fd, off_t len), fd, len)
ON_DESCRIPTOR(ftruncate64, SIZE, (int fd, off64_t len), fd, len)

#define SEEKING(name, type) \
    type name(int fd, type offset, int whence) \
    { \
        if (judge_fd(SEEK, #name, fd, 0) == FAIL) \
            return -1; \
        return NEXT(name)(fd, offset, whence); \
    }

SEEKING(lseek, off_t)
SEEKING(lseek64, off64_t)

/* Opening with flags and, where a file may be made, its mode. */
#define OPENING(name, at, ...) \
    { \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        if (judge_path(flags & O_CREAT ? MAKE : OPEN, #name, at, path) == FAIL) \
            return -1; \
        return NEXT(name)(__VA_ARGS__, flags, mode); \
    }

int open(const char *path, int flags, ...) OPENING(open, AT_FDCWD, path)
int open64(const char *path, int flags, ...) OPENING(open64, AT_FDCWD, path)
int openat(int at, const char *path, int flags, ...) OPENING(openat, at, at, path)
int openat64(int at, const char *path, int flags, ...) OPENING(openat64, at, at, path)

/* Its argument is a number or a pointer; either comes through as a word. */
#define CONTROLLING(name) \
    int name(int fd, int command, ...) \
    { \
        va_list rest; \
        void *argument; \
        va_start(rest, command); \
        argument = va_arg(rest, void *); \
        va_end(rest); \
        if (judge_fd(CONTROL, #name, fd, 0) == FAIL) \
            return -1; \
        return NEXT(name)(fd, command, argument); \
    }

CONTROLLING(fcntl)
CONTROLLING(fcntl64)

int unlink(const char *path)
{
    if (judge_path(REMOVE, "unlink", AT_FDCWD, path) == FAIL)
        return -1;
    return NEXT(unlink)(path);
}

int rename(const char *from, const char *to)
{
    if (judge_path(MAKE, "rename", AT_FDCWD, to) == FAIL)
        return -1;
    return NEXT(rename)(from, to);
}

int link(const char *from, const char *to)
{
    if (judge_path(MAKE, "link", AT_FDCWD, to) == FAIL)
        return -1;
    return NEXT(link)(from, to);
}

int linkat(int from_at, const char *from, int to_at, const char *to, int flags)
{
    if (judge_path(MAKE, "linkat", to_at, to) == FAIL)
        return -1;
    return NEXT(linkat)(from_at, from, to_at, to, flags);
}
