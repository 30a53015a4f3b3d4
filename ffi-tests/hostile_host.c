/* A host whose callbacks answer with anything: too little, too much, numbers that are no errno,
 * sizes that change and extents that lie; and that calls back into the image it works for. Nothing
 * crashes, each call ends with 0 or an errno and a message, and `free` runs once, when all that
 * used the storage is gone.
 *
 * `DMSNAP_SEED` is the first case, `DMSNAP_CASES` their number. */
#include "util.h"

#include <stdint.h>

#define DISK (256 << 10)
#define MOST (4 << 20)
#define STEPS 60

struct host {
    dmsnap_storage_ops ops;
    unsigned char *bytes;
    uint64_t size;
    /* One answer in so many is a lie, 0: none. */
    uint32_t lies;
    uint32_t state;
    unsigned frees;
    unsigned late_calls;
    /* What it works for. */
    dmsnap_image *image;
};

static unsigned long calls, told_off, checked;
static uint32_t seed;

static void wrong(int line, const char *what)
{
    fprintf(stderr, "DMSNAP_SEED=%u: ", (unsigned)seed);
    failed(__FILE__, line, what);
}

#define WANT(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            wrong(__LINE__, "not so: " #condition);                                                \
        }                                                                                          \
    } while (0)

static uint32_t draw(struct host *host, uint32_t below)
{
    return next_random(&host->state) % below;
}

/* Uses the very image that waits for this callback. */
static void reenter(struct host *host)
{
    unsigned char byte = 0;
    int result;

    if (host->image == NULL) {
        return;
    }
    switch (draw(host, 5)) {
    case 0:
        result = dmsnap_image_read(host->image, &byte, 1, 0);
        break;
    case 1:
        result = dmsnap_image_write(host->image, &byte, 1, 0);
        break;
    case 2:
        result = dmsnap_image_flush(host->image);
        break;
    case 3:
        result = dmsnap_image_resize(host->image, DISK, true);
        break;
    default:
        result = dmsnap_image_close(host->image);
    }
    WANT(result == -EDEADLK);
    told_off++;
}

/* Whether to lie; `*answer` is what to say then. `whole` is what was asked for. */
static bool lie(struct host *host, uint64_t whole, int64_t *answer)
{
    int64_t answers[] = {
        0,         1,          -1,        -EIO,      -ENOSPC,           -EDQUOT,
        -EINTR,    -ENOTSUP,   -EDEADLK,  5,         511,               -4095,
        -4096,     -1000000,   INT32_MIN, INT32_MAX, INT64_MIN,         INT64_MAX,
        (int64_t)whole - 1,    (int64_t)whole + 1,   (int64_t)whole / 2, -(int64_t)whole,
    };

    if (host->frees > 0) {
        host->late_calls++;
    }
    if (host->lies == 0 || draw(host, host->lies) != 0) {
        return false;
    }
    if (draw(host, 4) == 0) {
        reenter(host);
    }
    *answer = answers[draw(host, sizeof(answers) / sizeof(answers[0]))];
    return true;
}

static int64_t transfer(struct host *host, const struct iovec *iov, int count, uint64_t offset,
                        bool writing)
{
    uint64_t whole = 0, moved = 0, limit = writing ? MOST : host->size;
    int64_t answer;
    int i;

    for (i = 0; i < count; i++) {
        whole += iov[i].iov_len;
    }
    if (lie(host, whole, &answer)) {
        return answer;
    }
    for (i = 0; i < count && offset + moved < limit; i++) {
        size_t len = iov[i].iov_len;

        if (len > limit - offset - moved) {
            len = (size_t)(limit - offset - moved);
        }
        if (writing) {
            memcpy(host->bytes + offset + moved, iov[i].iov_base, len);
        } else {
            memcpy(iov[i].iov_base, host->bytes + offset + moved, len);
        }
        moved += len;
    }
    if (writing && moved > 0 && offset + moved > host->size) {
        host->size = offset + moved;
    }
    return moved == 0 && writing ? -ENOSPC : (int64_t)moved;
}

static int64_t host_preadv(void *opaque, const struct iovec *iov, int count, uint64_t offset)
{
    return transfer(opaque, iov, count, offset, false);
}

static int64_t host_pwritev(void *opaque, const struct iovec *iov, int count, uint64_t offset)
{
    return transfer(opaque, iov, count, offset, true);
}

/* For what gives no number: a lie as far as an int holds it. */
static bool lies_to(struct host *host, uint64_t whole, int *answer)
{
    int64_t wide;

    if (!lie(host, whole, &wide)) {
        return false;
    }
    *answer = (int)wide;
    return true;
}

static int host_flush_it(void *opaque)
{
    int answer;

    return lies_to(opaque, 0, &answer) ? answer : 0;
}

static int host_size(void *opaque, uint64_t *size)
{
    struct host *host = opaque;
    const uint64_t sizes[] = {0, 1, 511, host->size / 2, MOST, (uint64_t)1 << 62, UINT64_MAX};
    int answer;

    if (lies_to(host, host->size, &answer)) {
        *size = sizes[draw(host, sizeof(sizes) / sizeof(sizes[0]))];
        return draw(host, 2) == 0 ? 0 : answer;
    }
    *size = host->size;
    return 0;
}

static int host_set_size(void *opaque, uint64_t size)
{
    struct host *host = opaque;
    int answer;

    if (lies_to(host, size, &answer)) {
        return answer;
    }
    if (size > MOST) {
        return -ENOSPC;
    }
    if (size > host->size) {
        memset(host->bytes + host->size, 0, (size_t)(size - host->size));
    }
    host->size = size;
    return 0;
}

static int host_write_zeroes(void *opaque, uint64_t offset, uint64_t len, bool unmap)
{
    struct host *host = opaque;
    int answer;

    (void)unmap;
    if (lies_to(host, len, &answer)) {
        return answer;
    }
    if (offset > MOST || len > MOST - offset) {
        return -ENOSPC;
    }
    memset(host->bytes + offset, 0, (size_t)len);
    if (offset + len > host->size) {
        host->size = offset + len;
    }
    return 0;
}

static int host_discard(void *opaque, uint64_t offset, uint64_t len)
{
    int answer;

    (void)offset;
    return lies_to(opaque, len, &answer) ? answer : 0;
}

static int host_extents(void *opaque, uint64_t offset, uint64_t *len, bool *allocated)
{
    struct host *host = opaque;
    const uint64_t lens[] = {0, 1, 511, UINT64_MAX, (uint64_t)1 << 63, UINT64_MAX - offset};
    int answer;

    if (lies_to(host, host->size, &answer)) {
        *len = lens[draw(host, sizeof(lens) / sizeof(lens[0]))];
        /* Any byte, also one that is no bool. */
        *(unsigned char *)allocated = (unsigned char)draw(host, 256);
        return draw(host, 2) == 0 ? 0 : answer;
    }
    *len = offset < host->size ? host->size - offset : 0;
    *allocated = true;
    return 0;
}

static void host_free(void *opaque)
{
    ((struct host *)opaque)->frees++;
}

/* A call has to end like this, whatever the host answered. */
static int ended(int result)
{
    calls++;
    WANT(result <= 0 && result >= -4095);
    if (result != 0) {
        WANT(dmsnap_last_error_message()[0] != '\0');
        WANT(dmsnap_last_error_kind() != DMSNAP_ERROR_KIND_INTERNAL);
        WANT(dmsnap_last_error_kind() != DMSNAP_ERROR_KIND_NONE);
    }
    return result;
}

static struct host *new_host(uint32_t state, uint64_t size)
{
    struct host *host = calloc(1, sizeof(*host));
    uint32_t kind = state % 4;

    host->bytes = calloc(1, MOST);
    host->size = size;
    host->state = state;
    host->ops.struct_size = sizeof(host->ops);
    host->ops.opaque = host;
    host->ops.preadv = host_preadv;
    host->ops.pwritev = host_pwritev;
    host->ops.flush = host_flush_it;
    host->ops.size = host_size;
    host->ops.free = host_free;
    host->ops.set_size = host_set_size;
    if (kind > 0) {
        host->ops.write_zeroes = host_write_zeroes;
        host->ops.discard = host_discard;
        host->ops.extents = host_extents;
    }
    if (kind == 3) {
        host->ops.request_alignment = 512;
        host->ops.memory_alignment = 64;
    }
    return host;
}

static dmsnap_storage *storage_of(struct host *host)
{
    dmsnap_storage *storage = NULL;

    OK(dmsnap_storage_open_ops(&host->ops, "a liar", &storage));
    return storage;
}

static void end_host(struct host *host)
{
    WANT(host->frees == 1);
    WANT(host->late_calls == 0);
    free(host->bytes);
    free(host);
}

static void look(dmsnap_image *image)
{
    dmsnap_info *info = NULL;
    SIZED(dmsnap_extent, extent);
    uint64_t at = 0;

    if (ended(dmsnap_image_info(image, &info)) == 0) {
        dmsnap_info_free(info);
    }
    while (at < DISK && ended(dmsnap_image_next_extent(image, at, DISK - at, &extent)) == 0) {
        WANT(extent.len > 0 && extent.len <= DISK - at);
        at += extent.len;
    }
}

/* Gives false if the storage was in use: then nothing was looked at. */
static bool check(dmsnap_storage *storage)
{
    dmsnap_check_options *options = dmsnap_check_options_new();
    dmsnap_check_report *report = NULL;
    int result;

    OK(dmsnap_check_options_set_repair(options, DMSNAP_REPAIR_ALL));
    result = ended(dmsnap_check_report_open_storage(storage, options, &report));
    if (result == 0) {
        dmsnap_check_report_free(report);
    }
    dmsnap_check_options_free(options);
    return result != -EBUSY;
}

static void step(struct host *host, dmsnap_image *image)
{
    static unsigned char buffer[64 << 10];
    uint64_t offset = draw(host, DISK);
    size_t len = 1 + draw(host, sizeof(buffer) - 1);

    if (len > DISK - offset) {
        len = (size_t)(DISK - offset);
    }
    switch (draw(host, 12)) {
    case 0:
        ended(dmsnap_image_flush(image));
        break;
    case 1:
        ended(dmsnap_image_discard(image, offset, len));
        break;
    case 2:
        ended(dmsnap_image_write_zeroes(image, offset, len, draw(host, 2) == 0));
        break;
    case 3:
        ended(dmsnap_image_merge(image, NULL, NULL));
        break;
    case 4:
        ended(dmsnap_image_resize(image, DISK + 512 * (uint64_t)draw(host, 100), true));
        ended(dmsnap_image_resize(image, DISK, true));
        break;
    case 5:
        look(image);
        break;
    case 6:
    case 7:
        ended(dmsnap_image_read(image, buffer, len, offset));
        break;
    default:
        ended(dmsnap_image_write(image, buffer, len, offset));
    }
}

static dmsnap_image *open_pair(dmsnap_storage *cow, dmsnap_storage *origin)
{
    dmsnap_open_options *options = dmsnap_open_options_new();
    dmsnap_image *image = NULL;

    OK(dmsnap_open_options_set_writable(options, true));
    OK(dmsnap_open_options_set_origin_storage(options, origin));
    ended(dmsnap_image_open_storage(cow, options, &image));
    dmsnap_open_options_free(options);
    return image;
}

/* An image over two hosts that lie. The origin is given away at once, so the image is its last user,
 * and so is every other layer; the others are checked after it. */
static void lied_to(void)
{
    struct host *below = new_host(seed * 2, DISK), *above = new_host(seed * 2 + 1, 0);
    dmsnap_storage *origin = storage_of(below), *cow = storage_of(above);
    dmsnap_create_options *create = dmsnap_create_options_new();
    dmsnap_image *image = NULL;
    uint32_t lies = 2 + seed % 40;
    bool keeps = seed % 2 == 0, was_open;
    int i;

    OK(dmsnap_create_options_set_chunk_size(create, 4096));
    OK(dmsnap_create_options_set_size(create, DISK));
    /* Every third case lies from the beginning on. */
    if (seed % 3 == 0) {
        above->lies = below->lies = lies;
    }
    if (ended(dmsnap_image_create_on(cow, create)) == 0) {
        image = open_pair(cow, origin);
    }
    dmsnap_create_options_free(create);
    was_open = image != NULL;
    if (was_open) {
        above->lies = below->lies = lies;
        above->image = below->image = image;
        for (i = 0; i < STEPS; i++) {
            step(above, image);
        }
    }
    dmsnap_storage_free(origin);
    if (!keeps) {
        dmsnap_storage_free(cow);
    }
    if (image != NULL) {
        WANT(above->frees == 0 && below->frees == 0);
        above->image = below->image = NULL;
        ended(dmsnap_image_close(image));
    }
    if (keeps) {
        /* Not before: the image holds it for writing. */
        bool looked = check(cow);

        checked += looked && was_open;
        dmsnap_storage_free(cow);
    }
    end_host(below);
    end_host(above);
}

/* Success is 0, for all that gives no number. A host that returns a positive errno has not flushed,
 * and must not be taken for one that has. */
static int positive(void *opaque)
{
    (void)opaque;
    return EIO;
}

static void a_positive_answer_is_no_success(void)
{
    struct host *below = new_host(8, DISK), *above = new_host(8, 0);
    dmsnap_storage *origin, *cow;
    dmsnap_create_options *create = dmsnap_create_options_new();

    above->ops.flush = positive;
    origin = storage_of(below);
    cow = storage_of(above);
    OK(dmsnap_create_options_set_size(create, DISK));
    FAIL(dmsnap_image_create_on(cow, create), EIO, IO, "returned 5");
    dmsnap_create_options_free(create);
    dmsnap_storage_free(origin);
    dmsnap_storage_free(cow);
    end_host(below);
    end_host(above);
}

static unsigned long from_environment(const char *name, unsigned long otherwise)
{
    const char *text = getenv(name);

    return text == NULL ? otherwise : strtoul(text, NULL, 10);
}

int main(void)
{
    uint32_t first = (uint32_t)from_environment("DMSNAP_SEED", 1);
    uint32_t count = (uint32_t)from_environment("DMSNAP_CASES", 200);

    a_positive_answer_is_no_success();
    for (seed = first; seed - first < count; seed++) {
        lied_to();
    }
    CHECK(told_off > 0);
    CHECK(checked > 0);
    add_to_counts("calls", calls);
    return finish();
}
