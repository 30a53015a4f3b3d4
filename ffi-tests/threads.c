/* One image, many threads: neighbouring parts of chunks are written at the same time, while
 * others read, flush and merge. Each thread's error is its own. */
#include "util.h"

#include <pthread.h>

#define THREADS 4
#define ROUNDS 300
#define SIZE (THREADS * 65536)
#define BASE "threads.raw"
#define LAYER "threads.cow"

static dmsnap_image *image;
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
        OK(dmsnap_image_write(image, mine + at, len, place(thread, at)));
        OK(dmsnap_image_read(image, buffer, 1024, place(thread, block * 1024)));
        CHECK(memcmp(buffer, mine + block * 1024, 1024) == 0);
        if (round % 50 == 49) {
            OK(dmsnap_image_flush(image));
        }
        FAIL(dmsnap_image_read(image, buffer, 1, SIZE + thread), EINVAL, OUT_OF_BOUNDS, "");
    }
    return NULL;
}

static void *merge(void *unused)
{
    int i;

    for (i = 0; i < 5; i++) {
        OK(dmsnap_image_merge(image, NULL, NULL));
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

static void open_image(void)
{
    dmsnap_open_options *options = dmsnap_open_options_new();

    OK(dmsnap_open_options_set_writable(options, true));
    OK(dmsnap_open_options_set_origin(options, DMSNAP_ORIGIN_CHOICE_FROM_IMAGE));
    OK(dmsnap_image_open(LAYER, options, &image));
    dmsnap_open_options_free(options);
}

static void compare(void)
{
    unsigned char buffer[1024];
    unsigned thread;
    uint64_t at;

    for (thread = 0; thread < THREADS; thread++) {
        for (at = 0; at < SIZE / THREADS; at += 1024) {
            OK(dmsnap_image_read(image, buffer, 1024, place(thread, at)));
            CHECK(memcmp(buffer, contents[thread] + at, 1024) == 0);
        }
    }
}

int main(void)
{
    dmsnap_create_options *options = dmsnap_create_options_new();
    static unsigned char zeros[SIZE];

    remove_file(BASE);
    remove_file(LAYER);
    write_file(BASE, zeros, SIZE);
    OK(dmsnap_create_options_set_chunk_size(options, 8192));
    OK(dmsnap_create_options_set_origin(options, BASE, DMSNAP_FORMAT_RAW));
    OK(dmsnap_image_create(LAYER, options));
    dmsnap_create_options_free(options);
    open_image();
    run(false);
    compare();
    run(true);
    compare();
    OK(dmsnap_image_close(image));
    open_image();
    compare();
    OK(dmsnap_image_close(image));
    CHECK(dmsnap_last_error_kind() == DMSNAP_ERROR_KIND_NONE);
    return finish();
}
