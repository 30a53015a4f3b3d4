/* One store, many threads, each doing its own I/O under the read-write lock of host.c, with
 * pins, while another one flushes and merges. */
#include "util.h"
#include "host.h"

#include <pthread.h>

#define THREADS 4
#define ROUNDS 300
#define SIZE (THREADS * 65536)
#define BASE "threads-store.raw"
#define LAYER "threads-store.cow"

static struct host host;
static unsigned char contents[THREADS][SIZE / THREADS];

/* Thread `n` owns every fourth block of 1 KiB, so that all write to every chunk. */
static uint64_t place(unsigned thread, uint64_t at)
{
    return at / 1024 * 1024 * THREADS + thread * 1024 + at % 1024;
}

static void *write_and_read(void *argument)
{
    unsigned thread = (unsigned)(uintptr_t)argument;
    unsigned char *mine = contents[thread];
    uint32_t state = thread;
    unsigned char buffer[1024];
    int round;

    for (round = 0; round < ROUNDS; round++) {
        uint64_t block = next_random(&state) % (SIZE / THREADS / 1024);
        uint64_t at = block * 1024 + next_random(&state) % 512;
        size_t len = next_random(&state) % 512 + 1;

        fill(mine + at, len, next_random(&state));
        OK(host_write(&host, mine + at, len, place(thread, at)));
        OK(host_read(&host, buffer, 1024, place(thread, block * 1024)));
        CHECK(memcmp(buffer, mine + block * 1024, 1024) == 0);
        if (round % 50 == 49) {
            OK(host_flush(&host));
        }
        FAIL(host_read(&host, buffer, 1, SIZE + thread), EINVAL, OUT_OF_BOUNDS, "");
    }
    return NULL;
}

static void *merge(void *unused)
{
    int i;

    for (i = 0; i < 5; i++) {
        OK(host_merge(&host));
    }
    return unused;
}

static void run(bool merging)
{
    pthread_t threads[THREADS + 1];
    unsigned i;
    unsigned count = THREADS + (merging ? 1 : 0);

    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, write_and_read, (void *)(uintptr_t)i) == 0);
    }
    if (merging) {
        CHECK(pthread_create(&threads[THREADS], NULL, merge, NULL) == 0);
    }
    for (i = 0; i < count; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
}

static void open_store(void)
{
    OK(host_open(&host, LAYER, BASE, true));
}

static void compare(void)
{
    unsigned char buffer[1024];
    unsigned thread;
    uint64_t at;

    for (thread = 0; thread < THREADS; thread++) {
        for (at = 0; at < SIZE / THREADS; at += 1024) {
            OK(host_read(&host, buffer, 1024, place(thread, at)));
            CHECK(memcmp(buffer, contents[thread] + at, 1024) == 0);
        }
    }
}

int main(void)
{
    static const uint8_t id[16] = {7};
    static unsigned char zeros[SIZE];
    dmsnap_descriptor *descriptor = NULL;

    remove_file(BASE);
    remove_file(LAYER);
    write_file(BASE, zeros, SIZE);
    OK(dmsnap_descriptor_new(SIZE, id, &descriptor));
    OK(host_format(LAYER, 8192, descriptor));
    dmsnap_descriptor_free(descriptor);
    open_store();
    run(false);
    compare();
    run(true);
    compare();
    host_close(&host);
    open_store();
    compare();
    host_close(&host);
    return finish();
}
