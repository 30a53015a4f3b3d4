/* The store without I/O, driven by the host of host.c over plain files: against a copy in
 * memory, and against the blocking image, which opens the same files. */
#include "util.h"
#include "host.h"
#include <fcntl.h>
#include <unistd.h>

#define SIZE (2 << 20)
#define BASE "store.raw"
#define COW "store.cow"

static unsigned char model[SIZE];
static unsigned char buffer[SIZE];
static const uint8_t id[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

static void compare(struct host *host, uint64_t size, const char *when)
{
    CHECK(host->size == size);
    memset(buffer, 0xee, size);
    OK(host_read(host, buffer, size, 0));
    if (memcmp(buffer, model, size) != 0) {
        failed(__FILE__, __LINE__, when);
    }
}

/* What the blocking image shows of the same files. */
static void compare_image(uint64_t size, const char *when)
{
    dmsnap_open_options *options = dmsnap_open_options_new();
    dmsnap_image *image = NULL;
    uint64_t told = 0;

    OK(dmsnap_open_options_set_origin(options, DMSNAP_ORIGIN_CHOICE_FROM_IMAGE));
    OK(dmsnap_image_open(COW, options, &image));
    dmsnap_open_options_free(options);
    OK(dmsnap_image_size(image, &told));
    CHECK(told == size);
    memset(buffer, 0xee, size);
    OK(dmsnap_image_read(image, buffer, size, 0));
    if (memcmp(buffer, model, size) != 0) {
        failed(__FILE__, __LINE__, when);
    }
    OK(dmsnap_image_close(image));
}

static void compare_check(const char *when)
{
    SIZED(dmsnap_check_summary, ours);
    SIZED(dmsnap_check_summary, image);
    dmsnap_check_report *report = NULL;

    OK(host_check(COW, &report));
    OK(dmsnap_check_report_summary(report, &ours));
    dmsnap_check_report_free(report);
    OK(dmsnap_check_report_open(COW, NULL, &report));
    OK(dmsnap_check_report_summary(report, &image));
    dmsnap_check_report_free(report);
    if (ours.corruptions != 0 || ours.repairable != 0 || ours.exceptions != image.exceptions ||
        ours.areas != image.areas || ours.next_free != image.next_free ||
        ours.holes != image.holes) {
        failed(__FILE__, __LINE__, when);
    }
}

static void create(uint64_t chunk_size)
{
    dmsnap_descriptor *descriptor = NULL;

    remove_file(BASE);
    remove_file(COW);
    fill(model, SIZE, 3);
    /* The origin ends before the disk does, and inside a chunk. */
    memset(model + SIZE - 99 * 512, 0, 99 * 512);
    write_file(BASE, model, SIZE - 99 * 512);
    OK(dmsnap_descriptor_new(SIZE, id, &descriptor));
    OK(dmsnap_descriptor_set_origin(descriptor, BASE, "raw", NULL, SIZE - 99 * 512));
    OK(host_format(COW, chunk_size, descriptor));
    dmsnap_descriptor_free(descriptor);
}

static void change(struct host *host, uint64_t size, uint32_t seed)
{
    uint32_t state = seed;
    int i;

    for (i = 0; i < 120; i++) {
        uint64_t len = next_random(&state) % 30000 + 1;
        uint64_t offset = next_random(&state) % (size - len);

        if (i % 5 == 0) {
            memset(model + offset, 0, len);
            OK(host_write_zeroes(host, len, offset));
        } else {
            fill(model + offset, len, seed + (uint32_t)i);
            OK(host_write(host, model + offset, len, offset));
        }
        if (i % 40 == 39) {
            OK(host_flush(host));
        }
    }
}

static void walk_runs(struct host *host)
{
    SIZED(dmsnap_store_facts, facts);
    SIZED(dmsnap_run, run);
    SIZED(dmsnap_mapping, mapping);
    uint64_t at, sum = 0;

    for (at = 0;; at = run.old_chunk + run.count) {
        OK(dmsnap_store_next_run(host->store, at, &run));
        if (run.count == 0) {
            break;
        }
        CHECK(run.old_chunk >= at);
        sum += run.count;
        OK(dmsnap_store_map(host->store, run.old_chunk * host->chunk_size, 1, &mapping));
        CHECK(mapping.target == DMSNAP_TARGET_COW);
        CHECK(mapping.offset == run.new_chunk * host->chunk_size);
    }
    OK(dmsnap_store_info(host->store, &facts));
    CHECK(sum == facts.exceptions);
    CHECK(facts.virtual_size == SIZE && facts.chunk_size == host->chunk_size);
    CHECK(facts.cow_size > sum * host->chunk_size);
    CHECK(facts.heap_bytes > 0);
    CHECK(facts.state == DMSNAP_STATE_ACTIVE && facts.valid == 1);
    CHECK(facts.writable && !facts.bare && !facts.wants_repair);
}

static void figures(struct host *host)
{
    SIZED(dmsnap_usage, usage);
    SIZED(dmsnap_status, status);
    SIZED(dmsnap_descriptor_info, numbers);
    SIZED(dmsnap_measure, measure);
    SIZED(dmsnap_store_facts, facts);
    dmsnap_descriptor *descriptor = NULL;

    OK(dmsnap_store_usage(host->store, &usage));
    OK(dmsnap_store_status(host->store, &status));
    OK(dmsnap_store_info(host->store, &facts));
    CHECK(status.kind == DMSNAP_STATUS_KIND_ACTIVE);
    CHECK(strtoull(status.text, NULL, 10) == usage.sectors_allocated);
    CHECK(usage.total_sectors == facts.cow_size / 512);
    CHECK(usage.metadata_sectors >= 2 * host->chunk_size / 512);
    OK(dmsnap_store_measure(host->chunk_size, SIZE, facts.exceptions, &measure));
    CHECK(measure.required >= usage.sectors_allocated * 512);
    CHECK(measure.fully_allocated > SIZE);
    OK(dmsnap_store_descriptor(host->store, &descriptor));
    OK(dmsnap_descriptor_read(descriptor, &numbers));
    CHECK(memcmp(numbers.uuid, id, sizeof(id)) == 0);
    CHECK(strcmp(dmsnap_descriptor_origin_name(descriptor), BASE) == 0);
    dmsnap_descriptor_free(descriptor);
}

/* Nothing that was not committed is there afterwards; all that was is. */
static void lose_what_was_not_flushed(struct host *host)
{
    SIZED(dmsnap_store_facts, facts);
    struct host again;

    OK(host_flush(host));
    OK(dmsnap_store_info(host->store, &facts));
    CHECK(facts.pending == 0);
    memcpy(buffer, "not flushed", 11);
    /* The last chunk has not been written yet: its record is what gets lost. */
    OK(host_resize(host, SIZE + host->chunk_size));
    OK(host_write(host, buffer, 11, SIZE));
    OK(dmsnap_store_info(host->store, &facts));
    CHECK(facts.pending == 1);
    host_abandon(host);
    OK(host_open(&again, COW, BASE, true));
    OK(host_read(&again, buffer, 11, SIZE));
    CHECK(memcmp(buffer, "\0\0\0\0\0\0\0\0\0\0\0", 11) == 0);
    OK(host_resize(&again, SIZE));
    compare(&again, SIZE, "after losing what was not flushed");
    *host = again;
}

/* No space: the commit waits, is tried again, and nothing is lost. Anything else: writing ends. */
static void failing_commits(void)
{
    SIZED(dmsnap_store_facts, facts);
    dmsnap_progress progress = {.struct_size = sizeof(progress)};
    struct host host;

    OK(host_open(&host, COW, BASE, true));
    OK(dmsnap_store_make_empty(host.store));
    OK(host_run_job(&host));
    OK(dmsnap_store_progress(host.store, &progress));
    CHECK(progress.total == 0);
    OK(host_write(&host, "space", 5, 0));
    host.fail_next_write = -ENOSPC;
    FAIL(host_flush(&host), ENOSPC, NO_SPACE, "no space left");
    OK(dmsnap_store_info(host.store, &facts));
    CHECK(facts.pending == 1 && facts.state == DMSNAP_STATE_ACTIVE);
    OK(host_flush(&host));
    OK(host_write(&host, "input", 5, SIZE / 2));
    host.fail_next_write = -EIO;
    FAIL(host_flush(&host), EIO, IO, "I/O error");
    FAIL(host_write(&host, "x", 1, 0), EIO, PREVIOUS_IO, "open");
    OK(host_read(&host, buffer, 5, 0));
    CHECK(memcmp(buffer, "space", 5) == 0);
    OK(dmsnap_store_info(host.store, &facts));
    CHECK(facts.state == DMSNAP_STATE_FAILED);
    host_abandon(&host);

    OK(host_open(&host, COW, BASE, true));
    OK(host_write(&host, "again", 5, SIZE / 2));
    OK(dmsnap_store_fail(host.store, -ENOSPC));
    OK(host_write(&host, "again", 5, 0));
    OK(dmsnap_store_fail(host.store, -EIO));
    FAIL(host_write(&host, "again", 5, 0), EIO, PREVIOUS_IO, "open");
    host_abandon(&host);
}

static void abort_exception(void)
{
    SIZED(dmsnap_exception, exception);
    SIZED(dmsnap_mapping, mapping);
    dmsnap_answer answer;
    dmsnap_plan *plan = NULL;
    struct host host;

    OK(host_open(&host, COW, BASE, true));
    OK(dmsnap_store_make_empty(host.store));
    OK(host_run_job(&host));
    for (;;) {
        OK(dmsnap_store_prepare_exception(host.store, 3, 2, &answer, &exception, &plan));
        if (answer != DMSNAP_ANSWER_PLAN) {
            break;
        }
        OK(host_run_plan(&host, plan));
    }
    CHECK(answer == DMSNAP_ANSWER_READY && plan == NULL);
    CHECK(exception.old_chunk == 3 && exception.count >= 1);
    CHECK(exception.cow_offset == exception.new_chunk * host.chunk_size);
    OK(dmsnap_store_map(host.store, 3 * host.chunk_size, 1, &mapping));
    CHECK(mapping.target == DMSNAP_TARGET_ORIGIN);
    OK(dmsnap_store_map_write(host.store, 3 * host.chunk_size, 1, &mapping));
    CHECK(mapping.target == DMSNAP_TARGET_WAIT);
    OK(dmsnap_store_prepare_exception(host.store, 3, 1, &answer, &exception, &plan));
    CHECK(answer == DMSNAP_ANSWER_WAIT);
    OK(dmsnap_store_abort_exception(host.store, exception.id));
    OK(dmsnap_store_map_write(host.store, 3 * host.chunk_size, 1, &mapping));
    CHECK(mapping.target == DMSNAP_TARGET_UNMAPPED);
    FAIL(dmsnap_store_abort_exception(host.store, exception.id), EINVAL, INVALID_ARGUMENT,
         "in flight");
    OK(host_write(&host, "x", 1, 3 * host.chunk_size));
    OK(dmsnap_store_prepare_exception(host.store, 3, 1, &answer, &exception, &plan));
    CHECK(answer == DMSNAP_ANSWER_RETRY);
    host_close(&host);
}

/* As a block device is reopened: the store stays, only the file is another descriptor. */
static void reopen_for_writing(void)
{
    struct host host;
    int fd;

    create(4096);
    OK(host_open(&host, COW, BASE, false));
    FAIL(host_write(&host, "x", 1, 0), EROFS, READ_ONLY, "read-only");
    fd = open(COW, O_RDWR);
    CHECK(fd >= 0);
    close(host.cow);
    host.cow = fd;
    OK(dmsnap_store_set_writable(host.store, true));
    OK(host_write(&host, "x", 1, 0));
    model[0] = 'x';
    FAIL(dmsnap_store_set_writable(host.store, false), EBUSY, BUSY, "not committed");
    change(&host, SIZE, 500);
    OK(host_flush(&host));
    OK(dmsnap_store_set_writable(host.store, false));
    FAIL(host_write(&host, "x", 1, 0), EROFS, READ_ONLY, "read-only");
    compare(&host, SIZE, "read-only again");
    OK(dmsnap_store_set_writable(host.store, true));
    change(&host, SIZE, 600);
    host_close(&host);
    compare_image(SIZE, "after a reopen");
    compare_check("after a reopen");
}

/* Another origin, no descriptor at all, and invalid for ever. */
static void descriptors(void)
{
    SIZED(dmsnap_store_facts, facts);
    dmsnap_descriptor *descriptor = NULL;
    struct host host;

    OK(host_open(&host, COW, BASE, true));
    OK(dmsnap_store_descriptor(host.store, &descriptor));
    OK(dmsnap_descriptor_set_origin(descriptor, "other", "raw", id, 1 << 20));
    OK(dmsnap_store_prepare_descriptor(host.store, descriptor));
    FAIL(dmsnap_store_prepare_repair(host.store), EBUSY, BUSY, "under way");
    OK(host_run_job(&host));
    dmsnap_descriptor_free(descriptor);
    host_close(&host);

    OK(host_open(&host, COW, BASE, true));
    OK(dmsnap_store_descriptor(host.store, &descriptor));
    CHECK(strcmp(dmsnap_descriptor_origin_name(descriptor), "other") == 0);
    dmsnap_descriptor_free(descriptor);
    OK(dmsnap_store_prepare_descriptor(host.store, NULL));
    OK(host_run_job(&host));
    host_close(&host);

    OK(host_open(&host, COW, BASE, true));
    OK(dmsnap_store_info(host.store, &facts));
    CHECK(facts.bare);
    OK(dmsnap_store_descriptor(host.store, &descriptor));
    CHECK(descriptor == NULL);
    OK(dmsnap_store_prepare_repair(host.store));
    OK(host_run_job(&host));
    OK(dmsnap_store_drop_snapshot(host.store));
    OK(dmsnap_store_cancel(host.store));
    OK(dmsnap_store_drop_snapshot(host.store));
    OK(host_run_job(&host));
    host_abandon(&host);

    OK(host_open(&host, COW, BASE, false));
    OK(dmsnap_store_info(host.store, &facts));
    CHECK(facts.state == DMSNAP_STATE_INVALID && facts.valid == 0);
    FAIL(host_read(&host, buffer, 1, 0), EIO, SNAPSHOT_INVALID, "invalid");
    host_abandon(&host);
}

/* A device of fixed size in the kernel's mode P: full, it is invalidated. */
static void overflow(void)
{
    dmsnap_load_options *options;
    dmsnap_loader *loader = NULL;
    dmsnap_plan *plan = NULL;
    SIZED(dmsnap_status, status);
    struct host host;
    uint64_t chunk;
    int result = 0;

    remove_file(COW);
    OK(host_format(COW, 4096, NULL));
    OK(truncate(COW, 8 * 4096));
    OK(host_open(&host, COW, BASE, true));
    dmsnap_store_free(host.store);
    options = dmsnap_load_options_new(8 * 4096);
    OK(dmsnap_load_options_set_writable(options, true));
    OK(dmsnap_load_options_set_growable(options, false));
    OK(dmsnap_load_options_set_origin_size(options, SIZE));
    OK(dmsnap_load_options_set_overflow_mode(options, DMSNAP_OVERFLOW_MODE_PERSISTENT));
    OK(dmsnap_loader_new(options, &loader));
    dmsnap_load_options_free(options);
    OK(host_load_with(&host, loader));
    for (chunk = 0; result == 0 && chunk < 20; chunk++) {
        result = host_write(&host, "x", 1, chunk * 4096);
    }
    CHECK(result == -ENOSPC && dmsnap_last_error_kind() == DMSNAP_ERROR_KIND_OVERFLOW);
    OK(dmsnap_store_status(host.store, &status));
    CHECK(status.kind == DMSNAP_STATUS_KIND_INVALID && strcmp(status.text, "Invalid") == 0);
    OK(dmsnap_store_take_invalidation(host.store, &plan));
    CHECK(plan != NULL);
    OK(host_run_plan(&host, plan));
    OK(dmsnap_store_take_invalidation(host.store, &plan));
    CHECK(plan == NULL);
    host_abandon(&host);
}

/* Full without a mode: no space for new chunks, until the device grew. */
static void full_and_grown(void)
{
    dmsnap_load_options *options;
    dmsnap_loader *loader = NULL;
    struct host host;
    uint64_t chunk;
    int result = 0;

    remove_file(COW);
    OK(host_format(COW, 4096, NULL));
    OK(truncate(COW, 8 * 4096));
    OK(host_open(&host, COW, BASE, true));
    dmsnap_store_free(host.store);
    options = dmsnap_load_options_new(8 * 4096);
    OK(dmsnap_load_options_set_writable(options, true));
    OK(dmsnap_load_options_set_origin_size(options, SIZE));
    OK(dmsnap_loader_new(options, &loader));
    dmsnap_load_options_free(options);
    OK(host_load_with(&host, loader));
    for (chunk = 0; result == 0 && chunk < 20; chunk++) {
        result = host_write(&host, "x", 1, chunk * 4096);
    }
    CHECK(result == -ENOSPC && dmsnap_last_error_kind() == DMSNAP_ERROR_KIND_NO_SPACE);
    CHECK(chunk == 7);
    OK(host_write(&host, "y", 1, 0));
    OK(truncate(COW, 64 * 4096));
    OK(dmsnap_store_set_cow_size(host.store, 64 * 4096));
    OK(host_write(&host, "x", 1, chunk * 4096));
    OK(host_flush(&host));
    host_abandon(&host);
}

static void run(uint64_t chunk_size)
{
    struct host host;

    create(chunk_size);
    OK(host_open(&host, COW, BASE, true));
    compare(&host, SIZE, "a new layer shows its origin");
    change(&host, SIZE, 100);
    compare(&host, SIZE, "after writes");
    walk_runs(&host);
    figures(&host);
    lose_what_was_not_flushed(&host);
    change(&host, SIZE, 200);
    host_close(&host);
    compare_image(SIZE, "the image reads what the store wrote");
    compare_check("after writes");

    OK(host_open(&host, COW, BASE, true));
    compare(&host, SIZE, "reopened");
    OK(host_resize(&host, SIZE / 2));
    compare(&host, SIZE / 2, "after shrinking");
    OK(host_resize(&host, SIZE));
    memset(model + SIZE / 2, 0, SIZE / 2);
    compare(&host, SIZE, "after growing");
    change(&host, SIZE, 300);
    OK(host_merge(&host));
    compare(&host, SIZE, "after a merge");
    change(&host, SIZE, 400);
    compare(&host, SIZE, "after writes behind a merge");
    host_close(&host);
    compare_image(SIZE, "the image reads what the store merged");
    compare_check("after a merge");
}

int main(void)
{
    run(4096);
    run(16384);
    failing_commits();
    abort_exception();
    reopen_for_writing();
    descriptors();
    overflow();
    full_and_grown();
    return finish();
}
