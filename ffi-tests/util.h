/* What the test programs share. Each program ends with `return finish();`. */
#ifndef UTIL_H
#define UTIL_H

#include <dmsnap.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int failures;

static inline void failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s\n", file, line, what);
    __atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
}

static inline int finish(void)
{
    if (failures > 0) {
        fprintf(stderr, "%d checks failed\n", failures);
    }
    return failures > 0;
}

/* A condition. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            failed(__FILE__, __LINE__, "not so: " #condition);                                     \
        }                                                                                          \
    } while (0)

/* A call that must succeed; the rest of the program makes no sense without it. */
#define OK(call)                                                                                   \
    do {                                                                                           \
        int result_ = (call);                                                                      \
        if (result_ != 0) {                                                                        \
            fprintf(stderr, "%s:%d: %s: %s (%s)\n", __FILE__, __LINE__, #call,                      \
                    dmsnap_last_error_message(), strerror(-result_));                              \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static inline void check_failure(const char *file, int line, const char *call, int result,
                                 int wanted_errno, dmsnap_error_kind wanted_kind,
                                 const char *words)
{
    dmsnap_error_kind kind = dmsnap_last_error_kind();
    const char *message = dmsnap_last_error_message();

    if (result != -wanted_errno || kind != wanted_kind || strstr(message, words) == NULL) {
        fprintf(stderr, "%s:%d: %s gave %d, kind %u, \"%s\"; wanted %d, kind %u, \"...%s...\"\n",
                file, line, call, result, (unsigned)kind, message, -wanted_errno,
                (unsigned)wanted_kind, words);
        failed(file, line, "another failure was expected");
    }
}

/* A call that must fail, with errno, kind (without its prefix) and some words of the message. */
#define FAIL(call, wanted_errno, kind, words)                                                      \
    check_failure(__FILE__, __LINE__, #call, (call), wanted_errno, DMSNAP_ERROR_KIND_##kind, words)

/* A structure with its size set. */
#define SIZED(type, name) type name = {.struct_size = sizeof(type)}

/* A file of this test, in the directory it was started in. */
static inline void remove_file(const char *path)
{
    if (unlink(path) != 0 && errno != ENOENT) {
        perror(path);
        exit(1);
    }
}

static inline void write_file(const char *path, const void *data, size_t len)
{
    FILE *file = fopen(path, "wb");

    if (file == NULL || fwrite(data, 1, len, file) != len || fclose(file) != 0) {
        perror(path);
        exit(1);
    }
}

/* `len` bytes that depend on `seed`. */
static inline void fill(unsigned char *buffer, size_t len, uint32_t seed)
{
    uint32_t state = seed * 2654435761u + 1;
    size_t i;

    for (i = 0; i < len; i++) {
        state = state * 1664525u + 1013904223u;
        buffer[i] = (unsigned char)(state >> 24);
    }
}

/* Adds to what `make torture` prints for its part "memory"; where no run collects that, nothing. */
static inline void add_to_counts(const char *counter, unsigned long number)
{
    const char *path = getenv("DMSNAP_COUNTS");
    FILE *file = path == NULL ? NULL : fopen(path, "a");

    if (file != NULL) {
        fprintf(file, "memory %s %lu\n", counter, number);
        fclose(file);
    }
}

static inline uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

#endif
