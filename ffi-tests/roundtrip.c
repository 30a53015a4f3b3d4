/* The blocking image from its creation to its merge: every byte is compared with a copy in
 * memory, at every step and after reopening. */
#include "util.h"

#include <fcntl.h>

#define SIZE (1 << 20)
#define BASE "roundtrip.raw"
#define LAYER "roundtrip.cow"
#define SECOND "roundtrip-2.cow"

static unsigned char model[SIZE];
static unsigned char buffer[SIZE];

static dmsnap_image *open_image(const char *path, bool writable)
{
    dmsnap_open_options *options = dmsnap_open_options_new();
    dmsnap_image *image = NULL;

    OK(dmsnap_open_options_set_writable(options, writable));
    OK(dmsnap_open_options_set_origin(options, DMSNAP_ORIGIN_CHOICE_FROM_IMAGE));
    OK(dmsnap_image_open(path, options, &image));
    dmsnap_open_options_free(options);
    return image;
}

static void compare(dmsnap_image *image, size_t size, const char *when)
{
    uint64_t told = 0;

    OK(dmsnap_image_size(image, &told));
    CHECK(told == size);
    memset(buffer, 0xee, size);
    OK(dmsnap_image_read(image, buffer, size, 0));
    if (memcmp(buffer, model, size) != 0) {
        failed(__FILE__, __LINE__, when);
    }
}

static void create(void)
{
    dmsnap_create_options *options = dmsnap_create_options_new();

    remove_file(BASE);
    remove_file(LAYER);
    remove_file(SECOND);
    fill(model, SIZE, 1);
    write_file(BASE, model, SIZE);
    OK(dmsnap_create_options_set_chunk_size(options, 4096));
    OK(dmsnap_create_options_set_origin(options, BASE, DMSNAP_FORMAT_RAW));
    OK(dmsnap_image_create(LAYER, options));
    dmsnap_create_options_free(options);
}

/* Writes of every kind and size, at odd offsets, in the model too. */
static void change(dmsnap_image *image, uint32_t seed)
{
    uint32_t state = seed;
    int i;

    for (i = 0; i < 60; i++) {
        size_t len = next_random(&state) % 20000 + 1;
        size_t offset = next_random(&state) % (SIZE - len);
        size_t half = len / 2;
        struct iovec iov[3];

        switch (i % 4) {
        case 0:
            memset(model + offset, 0, len);
            OK(dmsnap_image_write_zeroes(image, offset, len, i % 8 == 0));
            break;
        case 1:
            fill(model + offset, len, seed + (uint32_t)i);
            iov[0].iov_base = model + offset;
            iov[0].iov_len = half;
            iov[1].iov_base = NULL;
            iov[1].iov_len = 0;
            iov[2].iov_base = model + offset + half;
            iov[2].iov_len = len - half;
            OK(dmsnap_image_writev(image, iov, 3, offset));
            break;
        default:
            fill(model + offset, len, seed + (uint32_t)i);
            OK(dmsnap_image_write(image, model + offset, len, offset));
        }
    }
    OK(dmsnap_image_flush(image));
}

static void read_in_pieces(dmsnap_image *image)
{
    struct iovec iov[2];

    memset(buffer, 0xee, 10000);
    iov[0].iov_base = buffer;
    iov[0].iov_len = 7;
    iov[1].iov_base = buffer + 7;
    iov[1].iov_len = 9993;
    OK(dmsnap_image_readv(image, iov, 2, 12345));
    CHECK(memcmp(buffer, model + 12345, 10000) == 0);
    OK(dmsnap_image_readv(image, NULL, 0, 0));
    OK(dmsnap_image_read(image, NULL, 0, 0));
    OK(dmsnap_image_write(image, NULL, 0, SIZE));
}

/* Whole chunks that were written become zeros, the rest stays. */
static void discard(dmsnap_image *image)
{
    fill(model + 8192, 8192, 77);
    OK(dmsnap_image_write(image, model + 8192, 8192, 8192));
    OK(dmsnap_image_discard(image, 8192 + 1, 8192 - 1));
    memset(model + 12288, 0, 4096);
    compare(image, SIZE, "after a discard");
}

static void walk_extents(dmsnap_image *image)
{
    uint64_t at = 0;
    uint64_t mapped = 0;
    uint64_t chunks = 0;
    SIZED(dmsnap_run, run);

    while (at < SIZE) {
        SIZED(dmsnap_extent, extent);
        OK(dmsnap_image_next_extent(image, at, SIZE - at, &extent));
        CHECK(extent.start == at);
        CHECK(extent.len > 0 && extent.len <= SIZE - at);
        CHECK(extent.depth <= 1);
        CHECK(extent.present);
        if (extent.depth == 0) {
            mapped += extent.len;
        } else {
            CHECK(extent.offset == at);
        }
        if (extent.len == 0) {
            break;
        }
        at += extent.len;
    }
    for (at = 0;; at = run.old_chunk + run.count) {
        OK(dmsnap_image_next_run(image, at, &run));
        if (run.count == 0) {
            break;
        }
        CHECK(run.new_chunk >= 2);
        chunks += run.count;
    }
    CHECK(chunks > 0);
    CHECK(chunks * 4096 == mapped);
}

static void facts(dmsnap_image *image)
{
    SIZED(dmsnap_facts, facts);
    SIZED(dmsnap_layer, layer);
    SIZED(dmsnap_usage, usage);
    SIZED(dmsnap_usage, again);
    SIZED(dmsnap_status, status);
    SIZED(dmsnap_status, status_again);
    SIZED(dmsnap_descriptor_info, numbers);
    dmsnap_descriptor *descriptor = NULL;
    dmsnap_info *info = NULL;
    char text[64];
    uint64_t chunk_size = 0;

    OK(dmsnap_image_chunk_size(image, &chunk_size));
    CHECK(chunk_size == 4096);
    OK(dmsnap_image_info(image, &info));
    OK(dmsnap_info_facts(info, &facts));
    CHECK(facts.virtual_size == SIZE);
    CHECK(facts.chunk_size == 4096);
    CHECK(facts.exceptions > 0);
    CHECK(facts.file_size > facts.exceptions * 4096);
    CHECK(facts.allocated_bytes <= facts.file_size + 65536);
    CHECK(facts.layers == 2);
    CHECK(facts.warnings == 0);
    CHECK(facts.state == DMSNAP_STATE_ACTIVE);
    CHECK(!facts.bare);
    CHECK(dmsnap_info_warning(info, 0) == NULL);
    OK(dmsnap_info_layer(info, 0, &layer));
    CHECK(strcmp(layer.origin_name, BASE) == 0);
    CHECK(layer.format == DMSNAP_FORMAT_DMSNAP);
    OK(dmsnap_info_layer(info, 1, &layer));
    CHECK(strstr(layer.path, BASE) != NULL);
    CHECK(strstr(layer.name, BASE) != NULL);
    CHECK(layer.format == DMSNAP_FORMAT_RAW);
    CHECK(layer.origin_name == NULL);
    CHECK(layer.virtual_size == SIZE);
    FAIL(dmsnap_info_layer(info, 2, &layer), EINVAL, INVALID_ARGUMENT, "no layer 2");

    OK(dmsnap_image_usage(image, &usage));
    OK(dmsnap_info_usage(info, &again));
    CHECK(memcmp(&usage, &again, sizeof(usage)) == 0);
    CHECK(usage.sectors_allocated <= usage.total_sectors);
    OK(dmsnap_image_status(image, &status));
    OK(dmsnap_info_status(info, &status_again));
    CHECK(status.kind == DMSNAP_STATUS_KIND_ACTIVE);
    snprintf(text, sizeof(text), "%lu/%lu %lu", (unsigned long)usage.sectors_allocated,
             (unsigned long)usage.total_sectors, (unsigned long)usage.metadata_sectors);
    CHECK(strcmp(status.text, text) == 0);
    CHECK(strcmp(status.text, status_again.text) == 0);

    OK(dmsnap_info_descriptor(info, &descriptor));
    OK(dmsnap_descriptor_read(descriptor, &numbers));
    CHECK(numbers.virtual_size == SIZE);
    CHECK(numbers.origin_size == SIZE);
    CHECK(strcmp(dmsnap_descriptor_origin_name(descriptor), BASE) == 0);
    CHECK(strcmp(dmsnap_descriptor_origin_format(descriptor), "raw") == 0);
    dmsnap_descriptor_free(descriptor);
    dmsnap_info_free(info);

    OK(dmsnap_info_open(LAYER, &info));
    OK(dmsnap_info_facts(info, &facts));
    CHECK(facts.layers == 1);
    dmsnap_info_free(info);
}

static void check_clean(const char *path)
{
    dmsnap_check_options *options = dmsnap_check_options_new();
    SIZED(dmsnap_check_summary, summary);
    dmsnap_check_report *report = NULL;

    OK(dmsnap_check_options_set_repair(options, DMSNAP_REPAIR_ALL));
    OK(dmsnap_check_options_set_lock(options, true));
    OK(dmsnap_check_options_set_origin_size(options, SIZE));
    OK(dmsnap_check_report_open(path, options, &report));
    OK(dmsnap_check_report_summary(report, &summary));
    CHECK(summary.remaining_corruptions == 0);
    CHECK(summary.remaining_leaks == 0);
    CHECK(summary.remaining_repairable == 0);
    CHECK(summary.chunk_size == 4096);
    dmsnap_check_report_free(report);
    OK(dmsnap_check_report_open(path, NULL, &report));
    OK(dmsnap_check_report_summary(report, &summary));
    CHECK(summary.corruptions == 0 && summary.repairable == 0 && summary.leaks == 0);
    CHECK(summary.leaked_bytes == 0 && summary.repaired == 0 && summary.repaired_leaks == 0);
    dmsnap_check_report_free(report);
    dmsnap_check_options_free(options);
}

static bool go_on(void *opaque, const dmsnap_progress *progress)
{
    CHECK(progress->struct_size == sizeof(*progress) && progress->done <= progress->total);
    ++*(unsigned *)opaque;
    return true;
}

/* A whole layer loses nothing. */
static void recover_whole(const char *path, const char *new_path)
{
    dmsnap_recover_options *options = dmsnap_recover_options_new();
    dmsnap_recover_report *report = NULL;
    SIZED(dmsnap_recover_summary, summary);
    unsigned calls = 0;

    unlink(new_path);
    OK(dmsnap_recover_options_set_size(options, SIZE));
    OK(dmsnap_recover_options_set_chunk_size(options, 4096));
    OK(dmsnap_recover_options_set_lock(options, true));
    OK(dmsnap_recover_options_set_bare(options, false));
    OK(dmsnap_recover_options_set_origin(options, BASE, DMSNAP_FORMAT_RAW));
    OK(dmsnap_recover_report_open(path, new_path, options, go_on, &calls, &report));
    OK(dmsnap_recover_report_summary(report, &summary));
    CHECK(calls > 0);
    CHECK(summary.header == DMSNAP_HEADER_STATE_VALID && summary.complete && !summary.changed);
    CHECK(summary.chunk_size == 4096 && summary.virtual_size == SIZE);
    CHECK(summary.lost == 0 && summary.left_out == 0 && summary.missing_area == UINT64_MAX);
    dmsnap_recover_report_free(report);
    check_clean(new_path);
    dmsnap_recover_options_free(options);
    unlink(new_path);
}

struct calls {
    unsigned count;
    uint64_t done;
    unsigned stop_at;
};

static bool progress(void *opaque, const dmsnap_progress *progress)
{
    struct calls *calls = opaque;

    CHECK(progress->struct_size == sizeof(*progress));
    CHECK(progress->done >= calls->done && progress->done <= progress->total);
    calls->done = progress->done;
    return ++calls->count != calls->stop_at;
}

static void merge(dmsnap_image *image)
{
    struct calls calls = {0, 0, 0};
    SIZED(dmsnap_run, run);

    OK(dmsnap_image_merge(image, progress, &calls));
    CHECK(calls.count > 0);
    CHECK(calls.done > 0);
    compare(image, SIZE, "after a merge");
    OK(dmsnap_image_next_run(image, 0, &run));
    CHECK(run.count == 0);
}

static void merge_in_steps(dmsnap_image *image)
{
    SIZED(dmsnap_progress, far);
    dmsnap_merge *merge = NULL;
    bool more = true;
    unsigned steps = 0;

    OK(dmsnap_merge_open(image, &merge));
    FAIL(dmsnap_image_merge(image, NULL, NULL), EBUSY, BUSY, "under way");
    while (more) {
        OK(dmsnap_merge_step(merge, &more));
        OK(dmsnap_merge_progress(merge, &far));
        compare(image, SIZE, "between the steps of a merge");
        CHECK(++steps < 1000);
    }
    CHECK(far.done == far.total);
    CHECK(far.bytes_copied > 0);
    dmsnap_merge_free(merge);
    compare(image, SIZE, "after a merge in steps");
}

static void resize(dmsnap_image *image)
{
    OK(dmsnap_image_resize(image, SIZE / 2, true));
    compare(image, SIZE / 2, "after shrinking");
    OK(dmsnap_image_resize(image, SIZE, false));
    memset(model + SIZE / 2, 0, SIZE / 2);
    compare(image, SIZE, "after growing");
}

static void amend(void)
{
    dmsnap_amend_options *options = dmsnap_amend_options_new();
    dmsnap_open_options *open = dmsnap_open_options_new();
    SIZED(dmsnap_facts, facts);
    dmsnap_info *info = NULL;
    dmsnap_image *image = open_image(LAYER, true);

    OK(dmsnap_amend_options_set_origin(options, "elsewhere/" BASE, DMSNAP_FORMAT_RAW));
    FAIL(dmsnap_image_amend(image, options), ENOENT, NOT_FOUND, "elsewhere");
    OK(dmsnap_amend_options_set_origin(options, NULL, 0));
    OK(dmsnap_image_amend(image, options));
    compare(image, SIZE, "an open image shows what it showed");
    OK(dmsnap_image_close(image));
    dmsnap_amend_options_free(options);

    /* Without an origin, then with it again, then bare, then not. */
    OK(dmsnap_open_options_set_writable(open, true));
    OK(dmsnap_open_options_set_origin_path(open, BASE, DMSNAP_FORMAT_RAW,
                                           DMSNAP_ORIGIN_CHOICE_REFUSE));
    OK(dmsnap_open_options_set_ignore_origin_uuid(open, true));
    OK(dmsnap_image_open(LAYER, open, &image));
    compare(image, SIZE, "with the origin given");
    options = dmsnap_amend_options_new();
    OK(dmsnap_amend_options_remove_descriptor(options));
    OK(dmsnap_image_amend(image, options));
    OK(dmsnap_image_close(image));
    dmsnap_amend_options_free(options);
    OK(dmsnap_info_open(LAYER, &info));
    OK(dmsnap_info_facts(info, &facts));
    CHECK(facts.bare);
    dmsnap_info_free(info);

    OK(dmsnap_open_options_set_bare_size(open, SIZE));
    OK(dmsnap_open_options_set_ignore_descriptor_damage(open, true));
    OK(dmsnap_image_open(LAYER, open, &image));
    compare(image, SIZE, "a bare store");
    options = dmsnap_amend_options_new();
    OK(dmsnap_amend_options_add_descriptor(options, SIZE));
    OK(dmsnap_amend_options_set_uuid(options, (const uint8_t *)"a UUID in ASCII."));
    OK(dmsnap_amend_options_set_origin(options, BASE, DMSNAP_FORMAT_RAW));
    OK(dmsnap_image_amend(image, options));
    OK(dmsnap_image_close(image));
    dmsnap_amend_options_free(options);
    dmsnap_open_options_free(open);
    image = open_image(LAYER, false);
    compare(image, SIZE, "with a descriptor again");
    OK(dmsnap_image_close(image));
}

static int open_fd_of_layer(void)
{
    int fd = open(LAYER, O_RDWR);

    CHECK(fd >= 0);
    return fd;
}

/* The same layer over images and storages that are open already. */
static void other_origins(void)
{
    dmsnap_file_options *file = dmsnap_file_options_new();
    dmsnap_open_options *open = dmsnap_open_options_new();
    dmsnap_storage *storage = NULL;
    dmsnap_image *image = NULL;
    dmsnap_image *upper = NULL;
    dmsnap_create_options *create = dmsnap_create_options_new();
    int fd;

    OK(dmsnap_storage_open(BASE, file, &storage));
    OK(dmsnap_open_options_set_origin_storage(open, storage));
    dmsnap_storage_free(storage);
    OK(dmsnap_image_open(LAYER, open, &image));
    compare(image, SIZE, "over a storage");

    /* A second layer, in memory, over the open image; the first handle closes before the second. */
    OK(dmsnap_storage_open_memory(0, true, &storage));
    OK(dmsnap_create_options_set_size(create, SIZE));
    OK(dmsnap_create_options_set_origin_identity(create, NULL, SIZE));
    OK(dmsnap_image_create_on(storage, create));
    OK(dmsnap_open_options_set_origin_image(open, image));
    OK(dmsnap_open_options_set_writable(open, true));
    OK(dmsnap_image_open_storage(storage, open, &upper));
    dmsnap_open_options_free(open);
    dmsnap_storage_free(storage);
    compare(upper, SIZE, "over an image");
    OK(dmsnap_image_write(upper, "upper", 5, 100));
    FAIL(dmsnap_image_write(image, "lower", 5, 100), EROFS, READ_ONLY, "");
    compare(image, SIZE, "the origin is as it was");
    OK(dmsnap_image_close(image));
    OK(dmsnap_image_read(upper, buffer, 6, 100));
    CHECK(memcmp(buffer, "upper", 5) == 0 && buffer[5] == model[105]);
    OK(dmsnap_image_close(upper));
    dmsnap_create_options_free(create);

    /* By descriptor, which is closed at once. */
    fd = open_fd_of_layer();
    OK(dmsnap_file_options_set_writable(file, true));
    OK(dmsnap_file_options_set_lock(file, DMSNAP_LOCK_MODE_WRITER));
    OK(dmsnap_storage_open_fd(fd, NULL, file, &storage));
    close(fd);
    dmsnap_file_options_free(file);
    open = dmsnap_open_options_new();
    OK(dmsnap_open_options_set_writable(open, true));
    OK(dmsnap_open_options_set_origin(open, DMSNAP_ORIGIN_CHOICE_FROM_IMAGE));
    OK(dmsnap_image_open_storage(storage, open, &image));
    dmsnap_storage_free(storage);
    dmsnap_open_options_free(open);
    fill(model + 5000, 5000, 5);
    OK(dmsnap_image_write(image, model + 5000, 5000, 5000));
    compare(image, SIZE, "by descriptor");
    OK(dmsnap_image_close(image));
}

static void empty_and_drop(void)
{
    SIZED(dmsnap_status, status);
    dmsnap_image *image = open_image(LAYER, true);

    OK(dmsnap_image_write(image, "gone", 4, 0));
    OK(dmsnap_image_make_empty(image));
    OK(dmsnap_image_read(image, buffer, SIZE, 0));
    CHECK(memcmp(buffer, "gone", 4) != 0);
    OK(dmsnap_image_drop_snapshot(image));
    OK(dmsnap_image_status(image, &status));
    CHECK(status.kind == DMSNAP_STATUS_KIND_INVALID);
    CHECK(strcmp(status.text, "Invalid") == 0);
    FAIL(dmsnap_image_read(image, buffer, 1, 0), EIO, SNAPSHOT_INVALID, "invalid");
    dmsnap_image_close(image);
    FAIL(dmsnap_image_open(LAYER, NULL, &image), EIO, SNAPSHOT_INVALID, "invalid");
}

int main(void)
{
    dmsnap_image *image;
    dmsnap_storage *storage = NULL;
    dmsnap_info *info = NULL;
    SIZED(dmsnap_facts, info_facts);

    create();
    image = open_image(LAYER, true);
    compare(image, SIZE, "a new layer shows its origin");
    change(image, 10);
    read_in_pieces(image);
    compare(image, SIZE, "after writes");
    discard(image);
    walk_extents(image);
    facts(image);
    OK(dmsnap_image_close(image));
    check_clean(LAYER);
    recover_whole(LAYER, "roundtrip-new.cow");

    image = open_image(LAYER, true);
    compare(image, SIZE, "reopened");
    OK(dmsnap_image_snapshot(image, SECOND, 8192));
    change(image, 20);
    compare(image, SIZE, "after a snapshot");
    merge(image);
    OK(dmsnap_image_close(image));
    image = open_image(LAYER, true);
    compare(image, SIZE, "the first layer has what was merged");
    change(image, 30);
    merge_in_steps(image);
    change(image, 40);
    resize(image);
    OK(dmsnap_storage_open_memory(0, true, &storage));
    OK(dmsnap_image_snapshot_to(image, storage, NULL, 0));
    change(image, 50);
    compare(image, SIZE, "after a snapshot into memory");
    OK(dmsnap_info_open_storage(storage, &info));
    OK(dmsnap_info_facts(info, &info_facts));
    CHECK(info_facts.chunk_size == 4096);
    dmsnap_info_free(info);
    merge(image);
    OK(dmsnap_image_close(image));
    dmsnap_storage_free(storage);
    amend();
    other_origins();
    empty_and_drop();
    return finish();
}
