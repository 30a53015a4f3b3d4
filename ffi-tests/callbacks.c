/* Storages made of callbacks: that `free` runs once and last, that short and interrupted
 * transfers go on, that nonsense becomes an error, that alignment is kept, and that a callback
 * cannot use the handle it works for. */
#include "util.h"

#include <pthread.h>
#include <stdint.h>

#define DISK (1 << 20)
/* The library extends a file well ahead of need. */
#define MOST (80 << 20)
#define SCAN 65536

enum mood {
    WELL,
    SHORT,       /* moves a few bytes at a time */
    INTERRUPTED, /* every other call */
    NOTHING,     /* moves 0 bytes */
    HUGE_COUNT,  /* says that more was moved than was asked for */
    NO_ERRNO,    /* a negative number that is none */
    DEVICE_GONE,
    FULL,
    REENTER
};

struct disk {
    dmsnap_storage_ops ops;
    unsigned char *bytes;
    uint64_t size;
    enum mood mood;
    unsigned calls;
    unsigned transfers;
    unsigned zeroed;
    unsigned discarded;
    unsigned extents;
    unsigned frees;
    unsigned called_after_free;
    unsigned misaligned;
    pthread_t thread;
    bool foreign_thread;
    /* For REENTER. */
    dmsnap_image *image;
    dmsnap_merge *merge;
    int reentered;
};

static void enter(struct disk *disk)
{
    disk->calls++;
    if (disk->frees > 0) {
        disk->called_after_free++;
    }
    if (!pthread_equal(disk->thread, pthread_self())) {
        disk->foreign_thread = true;
    }
}

/* 0, or what to return instead of working. */
static int64_t moody(struct disk *disk, uint64_t wanted)
{
    char data[1];

    switch (disk->mood) {
    case INTERRUPTED:
        return disk->calls % 2 == 0 ? -EINTR : 0;
    case HUGE_COUNT:
        return (int64_t)wanted + 1;
    case NO_ERRNO:
        return INT64_MIN;
    case DEVICE_GONE:
        return -ENODEV;
    case FULL:
        return -ENOSPC;
    case REENTER:
        /* The calls are refused, and the work goes on. */
        disk->mood = WELL;
        disk->reentered = dmsnap_image_read(disk->image, data, 1, 0);
        FAIL(dmsnap_image_flush(disk->image), EDEADLK, DEADLOCK, "callbacks");
        FAIL(dmsnap_image_close(disk->image), EDEADLK, DEADLOCK, "callbacks");
        if (disk->merge != NULL) {
            bool more;
            FAIL(dmsnap_merge_step(disk->merge, &more), EDEADLK, DEADLOCK, "callbacks");
        }
        return 0;
    default:
        return 0;
    }
}

static void check_alignment(struct disk *disk, const struct iovec *iov, int count, uint64_t offset)
{
    uint32_t request = disk->ops.request_alignment;
    uint32_t memory = disk->ops.memory_alignment;
    int i;

    if (request > 1 && offset % request != 0) {
        disk->misaligned++;
    }
    for (i = 0; i < count; i++) {
        if ((request > 1 && iov[i].iov_len % request != 0) ||
            (memory > 1 && (uintptr_t)iov[i].iov_base % memory != 0)) {
            disk->misaligned++;
        }
    }
}

static int64_t transfer(struct disk *disk, const struct iovec *iov, int count, uint64_t offset,
                        bool writing)
{
    uint64_t wanted = 0, limit, moved = 0;
    int64_t instead;
    int i;

    enter(disk);
    disk->transfers++;
    check_alignment(disk, iov, count, offset);
    for (i = 0; i < count; i++) {
        wanted += iov[i].iov_len;
    }
    instead = moody(disk, wanted);
    if (instead != 0 || disk->mood == NOTHING) {
        return instead;
    }
    limit = disk->mood == SHORT ? 1 + disk->calls % 3000 : wanted;
    if (writing && offset + wanted > disk->size) {
        if (disk->ops.set_size == NULL || offset + wanted > MOST) {
            return -ENOSPC;
        }
        disk->size = offset + wanted;
    }
    for (i = 0; i < count && moved < limit && offset < disk->size; i++) {
        uint64_t len = iov[i].iov_len;
        len = len < limit - moved ? len : limit - moved;
        len = len < disk->size - offset ? len : disk->size - offset;
        if (writing) {
            memcpy(disk->bytes + offset, iov[i].iov_base, len);
        } else {
            memcpy(iov[i].iov_base, disk->bytes + offset, len);
        }
        offset += len;
        moved += len;
    }
    return (int64_t)moved;
}

static int64_t disk_preadv(void *opaque, const struct iovec *iov, int count, uint64_t offset)
{
    return transfer(opaque, iov, count, offset, false);
}

static int64_t disk_pwritev(void *opaque, const struct iovec *iov, int count, uint64_t offset)
{
    return transfer(opaque, iov, count, offset, true);
}

static int disk_flush(void *opaque)
{
    struct disk *disk = opaque;

    enter(disk);
    return disk->mood == DEVICE_GONE ? -ENODEV : 0;
}

static int disk_size(void *opaque, uint64_t *size)
{
    struct disk *disk = opaque;

    enter(disk);
    *size = disk->size;
    return 0;
}

static int disk_set_size(void *opaque, uint64_t size)
{
    struct disk *disk = opaque;

    enter(disk);
    if (size > MOST) {
        return -ENOSPC;
    }
    if (size < disk->size) {
        memset(disk->bytes + size, 0, disk->size - size);
    }
    disk->size = size;
    return 0;
}

static int disk_write_zeroes(void *opaque, uint64_t offset, uint64_t len, bool unmap)
{
    struct disk *disk = opaque;

    enter(disk);
    (void)unmap;
    if (disk->zeroed++ % 2 == 1) {
        return -ENOTSUP;
    }
    if (offset + len > MOST) {
        return -ENOSPC;
    }
    memset(disk->bytes + offset, 0, len);
    disk->size = offset + len > disk->size ? offset + len : disk->size;
    return 0;
}

static int disk_discard(void *opaque, uint64_t offset, uint64_t len)
{
    struct disk *disk = opaque;

    enter(disk);
    disk->discarded++;
    CHECK(offset + len <= disk->size);
    return 0;
}

static int disk_extents(void *opaque, uint64_t offset, uint64_t *len, bool *allocated)
{
    struct disk *disk = opaque;
    uint64_t at = offset;

    enter(disk);
    disk->extents++;
    *allocated = disk->bytes[offset] != 0;
    while (at < disk->size && at - offset < SCAN && (disk->bytes[at] != 0) == *allocated) {
        at++;
    }
    *len = at - offset;
    return 0;
}

static void disk_free(void *opaque)
{
    struct disk *disk = opaque;

    disk->frees++;
}

static struct disk *new_disk(uint64_t size)
{
    struct disk *disk = calloc(1, sizeof(*disk));

    CHECK(disk != NULL);
    disk->bytes = calloc(1, MOST);
    CHECK(disk->bytes != NULL);
    disk->size = size;
    disk->thread = pthread_self();
    disk->ops.struct_size = sizeof(disk->ops);
    disk->ops.opaque = disk;
    disk->ops.preadv = disk_preadv;
    disk->ops.pwritev = disk_pwritev;
    disk->ops.flush = disk_flush;
    disk->ops.size = disk_size;
    disk->ops.free = disk_free;
    return disk;
}

/* Ends a disk, of which the library must have ended its own use once. */
static void end_disk(struct disk *disk)
{
    CHECK(disk->frees == 1);
    CHECK(disk->called_after_free == 0);
    CHECK(!disk->foreign_thread);
    CHECK(disk->misaligned == 0);
    free(disk->bytes);
    free(disk);
}

static dmsnap_storage *storage_of(struct disk *disk)
{
    dmsnap_storage *storage = NULL;

    OK(dmsnap_storage_open_ops(&disk->ops, "disk", &storage));
    return storage;
}

/* Calls that fail free what they were to take, and only once. */
static void taken_even_on_failure(void)
{
    struct disk *disk = new_disk(0);
    dmsnap_storage *storage = NULL;

    disk->ops.preadv = NULL;
    FAIL(dmsnap_storage_open_ops(&disk->ops, NULL, &storage), EINVAL, INVALID_ARGUMENT, "preadv");
    CHECK(disk->frees == 1);
    disk->frees = 0;
    disk->ops.preadv = disk_preadv;
    disk->ops.size = NULL;
    FAIL(dmsnap_storage_open_ops(&disk->ops, NULL, &storage), EINVAL, INVALID_ARGUMENT, "size");
    CHECK(disk->frees == 1);
    disk->frees = 0;
    disk->ops.size = disk_size;
    disk->ops.request_alignment = 3;
    FAIL(dmsnap_storage_open_ops(&disk->ops, NULL, &storage), ENOTSUP, UNSUPPORTED, "3");
    CHECK(disk->frees == 1);
    disk->frees = 0;
    disk->ops.request_alignment = 0;
    FAIL(dmsnap_storage_open_ops(&disk->ops, NULL, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    CHECK(disk->frees == 1);
    disk->frees = 0;
    FAIL(dmsnap_storage_open_ops(&disk->ops, "\xff", &storage), EINVAL, INVALID_ARGUMENT, "UTF-8");
    CHECK(disk->frees == 1);
    /* A structure whose size was not set cannot be read, so nothing is taken. */
    disk->frees = 0;
    disk->ops.struct_size = 0;
    FAIL(dmsnap_storage_open_ops(&disk->ops, NULL, &storage), EINVAL, INVALID_ARGUMENT,
         "struct_size 0");
    CHECK(disk->frees == 0);
    disk->ops.struct_size = sizeof(disk->ops);
    CHECK(storage == NULL && disk->calls == 0);

    /* An image that cannot be opened lets its storage go. */
    storage = storage_of(disk);
    disk->size = 4096;
    FAIL(dmsnap_image_open_storage(storage, NULL, &disk->image), EINVAL, INVALID_FORMAT, "disk");
    CHECK(disk->frees == 0);
    dmsnap_storage_free(storage);
    end_disk(disk);
}

/* A table that grew, and one that grew by fields this library does not know. */
static void other_sizes(void)
{
    struct {
        dmsnap_storage_ops ops;
        void *unknown;
    } newer;
    struct disk *disk = new_disk(0);
    dmsnap_storage *storage = NULL;

    newer.ops = disk->ops;
    newer.unknown = NULL;
    newer.ops.struct_size = sizeof(newer);
    OK(dmsnap_storage_open_ops(&newer.ops, NULL, &storage));
    dmsnap_storage_free(storage);
    CHECK(disk->frees == 1);
    newer.unknown = disk;
    /* What is known of it is, so it was taken. */
    disk->frees = 0;
    FAIL(dmsnap_storage_open_ops(&newer.ops, NULL, &storage), ENOTSUP, UNSUPPORTED, "fields");
    CHECK(disk->frees == 1 && disk->calls == 0);
    end_disk(disk);
}

struct pair {
    struct disk *cow;
    struct disk *origin;
    dmsnap_image *image;
};

static void set_all(struct disk *disk)
{
    disk->ops.set_size = disk_set_size;
    disk->ops.write_zeroes = disk_write_zeroes;
    disk->ops.discard = disk_discard;
    disk->ops.extents = disk_extents;
}

/* A layer over an origin, both on callbacks; the storages' own handles are freed at once. */
static struct pair open_pair(uint32_t request_alignment, uint32_t memory_alignment, bool all)
{
    struct pair pair = {new_disk(0), new_disk(DISK), NULL};
    dmsnap_create_options *create = dmsnap_create_options_new();
    dmsnap_open_options *open = dmsnap_open_options_new();
    dmsnap_storage *cow, *origin;

    if (all) {
        set_all(pair.cow);
        set_all(pair.origin);
    } else {
        pair.cow->size = 2 << 20;
    }
    pair.cow->ops.request_alignment = request_alignment;
    pair.cow->ops.memory_alignment = memory_alignment;
    fill(pair.origin->bytes, DISK, 8);
    cow = storage_of(pair.cow);
    origin = storage_of(pair.origin);
    OK(dmsnap_create_options_set_chunk_size(create, 4096));
    OK(dmsnap_create_options_set_origin_identity(create, NULL, DISK));
    OK(dmsnap_create_options_set_size(create, DISK));
    OK(dmsnap_image_create_on(cow, create));
    OK(dmsnap_open_options_set_writable(open, true));
    OK(dmsnap_open_options_set_origin_storage(open, origin));
    OK(dmsnap_image_open_storage(cow, open, &pair.image));
    dmsnap_storage_free(cow);
    dmsnap_storage_free(origin);
    dmsnap_create_options_free(create);
    dmsnap_open_options_free(open);
    CHECK(pair.cow->frees == 0 && pair.origin->frees == 0);
    return pair;
}

static void close_pair(struct pair *pair)
{
    OK(dmsnap_image_close(pair->image));
    end_disk(pair->cow);
    end_disk(pair->origin);
}

static void set_mood(struct pair *pair, enum mood mood)
{
    pair->cow->mood = mood;
    pair->origin->mood = mood;
}

/* Random writes and reads while every transfer is cut or interrupted, then a merge. */
static void continued(enum mood mood, uint32_t request, uint32_t memory, bool all)
{
    static unsigned char model[DISK], buffer[DISK];
    struct pair pair = open_pair(request, memory, all);
    uint32_t state = 5;
    int i;

    memcpy(model, pair.origin->bytes, DISK);
    set_mood(&pair, mood);
    for (i = 0; i < 50; i++) {
        size_t len = next_random(&state) % 9000 + 1;
        size_t offset = next_random(&state) % (DISK - len);
        if (i % 10 == 3) {
            memset(model + offset, 0, len);
            OK(dmsnap_image_write_zeroes(pair.image, offset, len, true));
            continue;
        }
        fill(model + offset, len, (uint32_t)i);
        OK(dmsnap_image_write(pair.image, model + offset, len, offset));
    }
    OK(dmsnap_image_discard(pair.image, 0, 12288));
    OK(dmsnap_image_flush(pair.image));
    OK(dmsnap_image_read(pair.image, buffer, DISK, 0));
    CHECK(memcmp(buffer + 12288, model + 12288, DISK - 12288) == 0);
    memcpy(model, buffer, 12288);
    OK(dmsnap_image_merge(pair.image, NULL, NULL));
    CHECK(memcmp(pair.origin->bytes, model, DISK) == 0);
    if (all) {
        SIZED(dmsnap_extent, extent);
        OK(dmsnap_image_next_extent(pair.image, 0, DISK, &extent));
        CHECK(pair.cow->zeroed > 0);
        CHECK(pair.origin->extents > 0 || pair.cow->extents > 0);
    }
    set_mood(&pair, WELL);
    close_pair(&pair);
}

/* Nonsense and errors reach the caller, and the image goes on afterwards. */
static void failing(enum mood mood, int wanted_errno, dmsnap_error_kind kind, const char *words)
{
    struct pair pair = open_pair(0, 0, true);
    unsigned char data[64];

    set_mood(&pair, mood);
    check_failure(__FILE__, __LINE__, "read", dmsnap_image_read(pair.image, data, 64, 100),
                  wanted_errno, kind, words);
    check_failure(__FILE__, __LINE__, "write", dmsnap_image_write(pair.image, data, 64, 100),
                  wanted_errno, kind, words);
    set_mood(&pair, WELL);
    OK(dmsnap_image_read(pair.image, data, 64, 100));
    CHECK(memcmp(data, pair.origin->bytes + 100, 64) == 0);
    OK(dmsnap_image_write(pair.image, data, 64, 200));
    close_pair(&pair);
}

static void failing_flush(void)
{
    struct pair pair = open_pair(0, 0, true);
    char byte;

    OK(dmsnap_image_write(pair.image, "x", 1, 0));
    pair.cow->mood = DEVICE_GONE;
    FAIL(dmsnap_image_flush(pair.image), ENODEV, IO, "disk");
    pair.cow->mood = WELL;
    FAIL(dmsnap_image_flush(pair.image), EIO, PREVIOUS_IO, "");
    FAIL(dmsnap_image_write(pair.image, "x", 1, 0), EIO, PREVIOUS_IO, "");
    OK(dmsnap_image_read(pair.image, &byte, 1, 0));
    FAIL(dmsnap_image_close(pair.image), EIO, PREVIOUS_IO, "");
    end_disk(pair.cow);
    end_disk(pair.origin);
}

static bool reenter_merge(void *opaque, const dmsnap_progress *progress)
{
    struct pair *pair = opaque;
    char data[1];

    (void)progress;
    pair->cow->reentered = dmsnap_image_read(pair->image, data, 1, 0);
    return true;
}

/* Calls into the handle that a callback works for are refused; others are not. */
static void reentry(void)
{
    struct pair pair = open_pair(0, 0, true);
    struct pair other = open_pair(0, 0, true);
    char data[1];

    pair.cow->image = pair.image;
    pair.origin->image = pair.image;
    pair.origin->mood = REENTER;
    OK(dmsnap_image_read(pair.image, data, 1, 0));
    CHECK(pair.origin->reentered == -EDEADLK);
    CHECK(dmsnap_last_error_kind() == DMSNAP_ERROR_KIND_DEADLOCK);
    pair.cow->mood = REENTER;
    OK(dmsnap_image_write(pair.image, "x", 1, 0));
    CHECK(pair.cow->reentered == -EDEADLK);
    pair.cow->reentered = 0;
    pair.cow->mood = REENTER;
    OK(dmsnap_image_flush(pair.image));
    CHECK(pair.cow->reentered == -EDEADLK);

    pair.cow->reentered = 0;
    OK(dmsnap_merge_open(pair.image, &pair.cow->merge));
    pair.cow->mood = REENTER;
    OK(dmsnap_merge_step(pair.cow->merge, &(bool){false}));
    CHECK(pair.cow->reentered == -EDEADLK);
    dmsnap_merge_free(pair.cow->merge);
    pair.cow->merge = NULL;
    pair.cow->reentered = 0;
    OK(dmsnap_image_write(pair.image, "y", 1, 8192));
    OK(dmsnap_image_merge(pair.image, reenter_merge, &pair));
    CHECK(pair.cow->reentered == -EDEADLK);

    /* Another image is fine. */
    pair.origin->image = other.image;
    pair.cow->image = other.image;
    OK(dmsnap_image_write(other.image, "z", 1, 0));
    other.cow->mood = WELL;
    OK(dmsnap_image_merge(other.image, reenter_merge, &pair));
    close_pair(&pair);
    close_pair(&other);
}

int main(void)
{
    taken_even_on_failure();
    other_sizes();
    continued(WELL, 0, 0, true);
    continued(WELL, 0, 0, false);
    continued(WELL, 512, 512, true);
    continued(WELL, 4096, 4096, true);
    continued(SHORT, 0, 0, true);
    continued(INTERRUPTED, 0, 0, true);
    continued(INTERRUPTED, 512, 64, true);
    failing(NOTHING, EIO, DMSNAP_ERROR_KIND_IO, "disk");
    failing(HUGE_COUNT, EIO, DMSNAP_ERROR_KIND_IO, "asked for");
    failing(NO_ERRNO, EIO, DMSNAP_ERROR_KIND_IO, "no errno");
    failing(DEVICE_GONE, ENODEV, DMSNAP_ERROR_KIND_IO, "disk");
    failing(FULL, ENOSPC, DMSNAP_ERROR_KIND_NO_SPACE, "disk");
    failing_flush();
    reentry();
    return finish();
}
