/* One wrong use of the blocking half after the other: errno, kind, message, and outputs that
 * stay as they were. */
#include "util.h"

#define BASE "errors.raw"
#define LAYER "errors.cow"
#define NOWHERE "errors-nowhere/x"
#define SIZE 65536

static char byte;
static dmsnap_image *const untouched = (dmsnap_image *)&byte;

static void create(void)
{
    static const char zeros[SIZE];
    dmsnap_create_options *options = dmsnap_create_options_new();

    remove_file(BASE);
    remove_file(LAYER);
    write_file(BASE, zeros, SIZE);
    OK(dmsnap_create_options_set_origin(options, BASE, DMSNAP_FORMAT_RAW));
    OK(dmsnap_image_create(LAYER, options));
    FAIL(dmsnap_image_create(LAYER, options), EEXIST, EXISTS, LAYER);
    FAIL(dmsnap_image_create(NOWHERE, options), ENOENT, NOT_FOUND, "errors-nowhere");
    dmsnap_create_options_free(options);
}

static dmsnap_image *open_layer(bool writable)
{
    dmsnap_open_options *options = dmsnap_open_options_new();
    dmsnap_image *image = NULL;

    OK(dmsnap_open_options_set_writable(options, writable));
    OK(dmsnap_open_options_set_origin(options, DMSNAP_ORIGIN_CHOICE_FROM_IMAGE));
    OK(dmsnap_image_open(LAYER, options, &image));
    dmsnap_open_options_free(options);
    return image;
}

/* NULL where an object, a string or an output has to be. */
static void nulls(void)
{
    dmsnap_image *image = open_layer(true);
    dmsnap_image *out = untouched;
    dmsnap_create_options *create = dmsnap_create_options_new();
    SIZED(dmsnap_extent, extent);
    SIZED(dmsnap_run, run);
    SIZED(dmsnap_status, status);
    SIZED(dmsnap_usage, usage);
    uint64_t number = 7;
    char data[8] = "";

    FAIL(dmsnap_image_create(NULL, create), EINVAL, INVALID_ARGUMENT, "path is NULL");
    FAIL(dmsnap_image_create("x", NULL), EINVAL, INVALID_ARGUMENT, "options is NULL");
    FAIL(dmsnap_image_create_on(NULL, create), EINVAL, INVALID_ARGUMENT, "storage is NULL");
    FAIL(dmsnap_image_open(NULL, NULL, &out), EINVAL, INVALID_ARGUMENT, "path is NULL");
    FAIL(dmsnap_image_open(LAYER, NULL, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_image_open_storage(NULL, NULL, &out), EINVAL, INVALID_ARGUMENT, "storage is NULL");
    FAIL(dmsnap_image_close(NULL), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_size(NULL, &number), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_size(image, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_image_chunk_size(NULL, &number), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_chunk_size(image, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_image_read(NULL, data, 1, 0), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_read(image, NULL, 1, 0), EINVAL, INVALID_ARGUMENT, "buffer is NULL");
    FAIL(dmsnap_image_readv(NULL, NULL, 0, 0), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_readv(image, NULL, 1, 0), EINVAL, INVALID_ARGUMENT, "iov is NULL");
    FAIL(dmsnap_image_write(NULL, data, 1, 0), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_write(image, NULL, 1, 0), EINVAL, INVALID_ARGUMENT, "buffer is NULL");
    FAIL(dmsnap_image_writev(NULL, NULL, 0, 0), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_writev(image, NULL, 1, 0), EINVAL, INVALID_ARGUMENT, "iov is NULL");
    FAIL(dmsnap_image_flush(NULL), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_discard(NULL, 0, 1), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_write_zeroes(NULL, 0, 1, true), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_resize(NULL, 512, true), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_snapshot(NULL, "x", 0), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_snapshot(image, NULL, 0), EINVAL, INVALID_ARGUMENT, "path is NULL");
    FAIL(dmsnap_image_snapshot_to(image, NULL, NULL, 0), EINVAL, INVALID_ARGUMENT,
         "storage is NULL");
    FAIL(dmsnap_image_make_empty(NULL), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_drop_snapshot(NULL), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_merge(NULL, NULL, NULL), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_status(NULL, &status), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_status(image, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_image_usage(NULL, &usage), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_usage(image, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_image_next_extent(NULL, 0, 1, &extent), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_next_extent(image, 0, 1, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_image_next_run(NULL, 0, &run), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_image_next_run(image, 0, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_image_amend(image, NULL), EINVAL, INVALID_ARGUMENT, "options is NULL");
    FAIL(dmsnap_image_info(NULL, NULL), EINVAL, INVALID_ARGUMENT, "NULL");
    FAIL(dmsnap_image_info(image, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    CHECK(out == untouched);
    CHECK(number == 7);
    dmsnap_create_options_free(create);
    OK(dmsnap_image_close(image));
}

static void more_nulls(void)
{
    dmsnap_image *image = open_layer(true);
    dmsnap_info *info = NULL;
    dmsnap_merge *merge = NULL;
    dmsnap_amend_options *amend = dmsnap_amend_options_new();
    SIZED(dmsnap_facts, facts);
    SIZED(dmsnap_layer, layer);
    SIZED(dmsnap_status, status);
    SIZED(dmsnap_usage, usage);
    SIZED(dmsnap_progress, progress);
    dmsnap_descriptor *descriptor = NULL;
    bool more = true;

    FAIL(dmsnap_image_amend(NULL, amend), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_info_open(NULL, &info), EINVAL, INVALID_ARGUMENT, "path is NULL");
    FAIL(dmsnap_info_open(LAYER, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_info_open_storage(NULL, &info), EINVAL, INVALID_ARGUMENT, "storage is NULL");
    FAIL(dmsnap_info_facts(NULL, &facts), EINVAL, INVALID_ARGUMENT, "info is NULL");
    FAIL(dmsnap_info_status(NULL, &status), EINVAL, INVALID_ARGUMENT, "info is NULL");
    FAIL(dmsnap_info_usage(NULL, &usage), EINVAL, INVALID_ARGUMENT, "info is NULL");
    FAIL(dmsnap_info_layer(NULL, 0, &layer), EINVAL, INVALID_ARGUMENT, "info is NULL");
    FAIL(dmsnap_info_descriptor(NULL, &descriptor), EINVAL, INVALID_ARGUMENT, "info is NULL");
    OK(dmsnap_image_info(image, &info));
    FAIL(dmsnap_info_facts(info, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_info_status(info, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_info_usage(info, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_info_layer(info, 0, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_info_descriptor(info, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    CHECK(dmsnap_info_warning(NULL, 0) == NULL);
    CHECK(dmsnap_info_warning(info, UINT64_MAX) == NULL);
    FAIL(dmsnap_merge_open(NULL, &merge), EINVAL, INVALID_ARGUMENT, "image is NULL");
    FAIL(dmsnap_merge_open(image, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_merge_step(NULL, &more), EINVAL, INVALID_ARGUMENT, "merge is NULL");
    FAIL(dmsnap_merge_progress(NULL, &progress), EINVAL, INVALID_ARGUMENT, "merge is NULL");
    OK(dmsnap_merge_open(image, &merge));
    FAIL(dmsnap_merge_step(merge, NULL), EINVAL, INVALID_ARGUMENT, "more is NULL");
    FAIL(dmsnap_merge_progress(merge, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    CHECK(more);
    dmsnap_merge_free(merge);
    dmsnap_amend_options_free(amend);
    dmsnap_info_free(info);
    OK(dmsnap_image_close(image));
    dmsnap_info_free(NULL);
    dmsnap_merge_free(NULL);
    dmsnap_storage_free(NULL);
    dmsnap_open_options_free(NULL);
    dmsnap_create_options_free(NULL);
    dmsnap_amend_options_free(NULL);
    dmsnap_check_options_free(NULL);
    dmsnap_file_options_free(NULL);
    dmsnap_check_report_free(NULL);
}

/* Ranges, sizes and counts that cannot be. */
static void bounds(void)
{
    dmsnap_image *image = open_layer(true);
    SIZED(dmsnap_extent, extent);
    struct iovec iov[2];
    char data[600] = "";

    FAIL(dmsnap_image_read(image, data, 1, SIZE), EINVAL, OUT_OF_BOUNDS, "65536");
    FAIL(dmsnap_image_read(image, data, 2, SIZE - 1), EINVAL, OUT_OF_BOUNDS, "65536");
    FAIL(dmsnap_image_read(image, data, 1, UINT64_MAX), EINVAL, OUT_OF_BOUNDS, "");
    FAIL(dmsnap_image_read(image, data, SIZE_MAX, 0), EINVAL, INVALID_ARGUMENT, "no buffer");
    FAIL(dmsnap_image_write(image, data, 2, SIZE - 1), EINVAL, OUT_OF_BOUNDS, "65536");
    FAIL(dmsnap_image_write(image, data, SIZE_MAX, 0), EINVAL, INVALID_ARGUMENT, "no buffer");
    FAIL(dmsnap_image_discard(image, SIZE - 1, 2), EINVAL, OUT_OF_BOUNDS, "65536");
    FAIL(dmsnap_image_discard(image, UINT64_MAX, 2), EINVAL, OUT_OF_BOUNDS, "any file");
    FAIL(dmsnap_image_write_zeroes(image, SIZE, 1, true), EINVAL, OUT_OF_BOUNDS, "65536");
    FAIL(dmsnap_image_write_zeroes(image, 1, UINT64_MAX, true), EINVAL, OUT_OF_BOUNDS, "any file");
    FAIL(dmsnap_image_next_extent(image, SIZE, 1, &extent), EINVAL, OUT_OF_BOUNDS, "65536");
    FAIL(dmsnap_image_next_extent(image, UINT64_MAX, 1, &extent), EINVAL, OUT_OF_BOUNDS, "");
    iov[0].iov_base = data;
    iov[0].iov_len = SIZE_MAX;
    iov[1].iov_base = data;
    iov[1].iov_len = SIZE_MAX;
    FAIL(dmsnap_image_readv(image, iov, 2, 0), EINVAL, INVALID_ARGUMENT, "more bytes together");
    FAIL(dmsnap_image_readv(image, iov, -1, 0), EINVAL, INVALID_ARGUMENT, "-1 buffers");
    FAIL(dmsnap_image_writev(image, iov, 1025, 0), EINVAL, INVALID_ARGUMENT, "1025 buffers");
    iov[0].iov_base = NULL;
    iov[0].iov_len = 1;
    FAIL(dmsnap_image_writev(image, iov, 1, 0), EINVAL, INVALID_ARGUMENT, "buffer is NULL");
    FAIL(dmsnap_image_resize(image, 1000, true), EINVAL, INVALID_ARGUMENT, "1000");
    FAIL(dmsnap_image_resize(image, 512, false), EINVAL, INVALID_ARGUMENT, "");
    FAIL(dmsnap_image_snapshot(image, "x", 1000), EINVAL, INVALID_ARGUMENT, "1000");
    FAIL(dmsnap_image_snapshot(image, BASE, 0), EEXIST, EXISTS, BASE);
    extent.struct_size = 8;
    FAIL(dmsnap_image_next_extent(image, 0, 1, &extent), EINVAL, INVALID_ARGUMENT, "struct_size 8");
    extent.struct_size = SIZE_MAX;
    FAIL(dmsnap_image_next_extent(image, 0, 1, &extent), EINVAL, INVALID_ARGUMENT, "struct_size");
    OK(dmsnap_image_read(image, data, 600, SIZE - 600));
    OK(dmsnap_image_close(image));
}

static void access_denied(void)
{
    dmsnap_image *image = NULL;
    dmsnap_image *second = untouched;
    dmsnap_open_options *options = dmsnap_open_options_new();

    FAIL(dmsnap_image_open(LAYER, NULL, &second), EACCES, ORIGIN_REFUSED, BASE);
    FAIL(dmsnap_image_open(BASE, NULL, &second), EINVAL, INVALID_FORMAT, BASE);
    FAIL(dmsnap_image_open(NOWHERE, NULL, &second), ENOENT, NOT_FOUND, "errors-nowhere");
    image = open_layer(false);
    FAIL(dmsnap_image_write(image, "x", 1, 0), EROFS, READ_ONLY, LAYER);
    FAIL(dmsnap_image_discard(image, 0, 1), EROFS, READ_ONLY, LAYER);
    FAIL(dmsnap_image_write_zeroes(image, 0, 1, false), EROFS, READ_ONLY, LAYER);
    FAIL(dmsnap_image_resize(image, 512, true), EROFS, READ_ONLY, LAYER);
    FAIL(dmsnap_image_snapshot(image, "x", 0), EROFS, READ_ONLY, LAYER);
    FAIL(dmsnap_image_make_empty(image), EROFS, READ_ONLY, LAYER);
    FAIL(dmsnap_image_drop_snapshot(image), EROFS, READ_ONLY, LAYER);
    FAIL(dmsnap_image_merge(image, NULL, NULL), EROFS, READ_ONLY, LAYER);
    OK(dmsnap_image_flush(image));
    OK(dmsnap_open_options_set_writable(options, true));
    OK(dmsnap_open_options_set_origin(options, DMSNAP_ORIGIN_CHOICE_ZEROS));
    FAIL(dmsnap_image_open(LAYER, options, &second), EBUSY, BUSY, LAYER);
    OK(dmsnap_image_close(image));
    CHECK(second == untouched);
    OK(dmsnap_open_options_set_origin_path(options, LAYER, DMSNAP_FORMAT_DMSNAP,
                                           DMSNAP_ORIGIN_CHOICE_ZEROS));
    FAIL(dmsnap_image_open(LAYER, options, &second), ELOOP, CHAIN_TOO_DEEP, LAYER);
    OK(dmsnap_open_options_set_lock(options, false));
    OK(dmsnap_open_options_set_writable(options, false));
    OK(dmsnap_open_options_set_direct(options, false));
    OK(dmsnap_open_options_set_overflow_mode(options, DMSNAP_OVERFLOW_MODE_PERSISTENT_OVERFLOW));
    OK(dmsnap_open_options_set_origin(options, DMSNAP_ORIGIN_CHOICE_ZEROS));
    OK(dmsnap_image_open(LAYER, options, &second));
    OK(dmsnap_image_close(second));
    dmsnap_open_options_free(options);
}

/* Options. */
static void options(void)
{
    dmsnap_open_options *open = dmsnap_open_options_new();
    dmsnap_create_options *create = dmsnap_create_options_new();
    dmsnap_amend_options *amend = dmsnap_amend_options_new();
    dmsnap_check_options *check = dmsnap_check_options_new();
    dmsnap_file_options *file = dmsnap_file_options_new();
    uint8_t id[16] = {9};

    FAIL(dmsnap_open_options_set_writable(NULL, true), EINVAL, INVALID_ARGUMENT, "options is NULL");
    FAIL(dmsnap_open_options_set_direct(NULL, true), EINVAL, INVALID_ARGUMENT, "options is NULL");
    FAIL(dmsnap_open_options_set_lock(NULL, true), EINVAL, INVALID_ARGUMENT, "options is NULL");
    FAIL(dmsnap_open_options_set_overflow_mode(open, 3), EINVAL, INVALID_ARGUMENT,
         "3 is no dmsnap_overflow_mode");
    FAIL(dmsnap_open_options_set_origin(open, 4), EINVAL, INVALID_ARGUMENT,
         "4 is no dmsnap_origin_choice");
    FAIL(dmsnap_open_options_set_origin_path(open, NULL, DMSNAP_FORMAT_RAW, 0), EINVAL,
         INVALID_ARGUMENT, "path is NULL");
    FAIL(dmsnap_open_options_set_origin_path(open, "x", 0, 0), EINVAL, INVALID_ARGUMENT,
         "0 is no dmsnap_format");
    FAIL(dmsnap_open_options_set_origin_path(open, "x", DMSNAP_FORMAT_RAW, 9), EINVAL,
         INVALID_ARGUMENT, "9 is no dmsnap_origin_choice");
    FAIL(dmsnap_open_options_set_origin_storage(open, NULL), EINVAL, INVALID_ARGUMENT,
         "storage is NULL");
    FAIL(dmsnap_open_options_set_origin_image(open, NULL), EINVAL, INVALID_ARGUMENT,
         "image is NULL");
    FAIL(dmsnap_open_options_set_ignore_origin_uuid(NULL, true), EINVAL, INVALID_ARGUMENT,
         "options is NULL");
    FAIL(dmsnap_open_options_set_ignore_descriptor_damage(NULL, true), EINVAL, INVALID_ARGUMENT,
         "options is NULL");
    FAIL(dmsnap_open_options_set_bare_size(NULL, 1), EINVAL, INVALID_ARGUMENT, "options is NULL");
    FAIL(dmsnap_create_options_set_chunk_size(create, 1000), EINVAL, INVALID_ARGUMENT,
         "chunk size 1000");
    FAIL(dmsnap_create_options_set_size(NULL, 1), EINVAL, INVALID_ARGUMENT, "options is NULL");
    FAIL(dmsnap_create_options_set_origin(create, "\xff", DMSNAP_FORMAT_RAW), EINVAL,
         INVALID_ARGUMENT, "name is not UTF-8");
    FAIL(dmsnap_create_options_set_origin(create, NULL, DMSNAP_FORMAT_RAW), EINVAL,
         INVALID_ARGUMENT, "name is NULL");
    FAIL(dmsnap_create_options_set_origin(create, "x", 3), EINVAL, INVALID_ARGUMENT,
         "3 is no dmsnap_format");
    FAIL(dmsnap_create_options_set_origin_identity(NULL, NULL, 0), EINVAL, INVALID_ARGUMENT,
         "options is NULL");
    FAIL(dmsnap_create_options_set_bare(NULL, true), EINVAL, INVALID_ARGUMENT, "options is NULL");
    FAIL(dmsnap_create_options_set_uuid(create, NULL), EINVAL, INVALID_ARGUMENT, "uuid is NULL");
    FAIL(dmsnap_create_options_set_on_existing(NULL, true), EINVAL, INVALID_ARGUMENT,
         "options is NULL");
    FAIL(dmsnap_amend_options_set_origin(amend, "x", 3), EINVAL, INVALID_ARGUMENT,
         "3 is no dmsnap_format");
    FAIL(dmsnap_amend_options_add_descriptor(NULL, 1), EINVAL, INVALID_ARGUMENT,
         "options is NULL");
    FAIL(dmsnap_amend_options_set_uuid(amend, NULL), EINVAL, INVALID_ARGUMENT, "uuid is NULL");
    FAIL(dmsnap_amend_options_remove_descriptor(NULL), EINVAL, INVALID_ARGUMENT,
         "options is NULL");
    FAIL(dmsnap_check_options_set_repair(check, 3), EINVAL, INVALID_ARGUMENT,
         "3 is no dmsnap_repair");
    FAIL(dmsnap_check_options_set_lock(NULL, true), EINVAL, INVALID_ARGUMENT, "options is NULL");
    FAIL(dmsnap_check_options_set_origin_size(NULL, 1), EINVAL, INVALID_ARGUMENT,
         "options is NULL");
    FAIL(dmsnap_file_options_set_writable(NULL, true), EINVAL, INVALID_ARGUMENT,
         "options is NULL");
    FAIL(dmsnap_file_options_set_direct(NULL, true), EINVAL, INVALID_ARGUMENT, "options is NULL");
    FAIL(dmsnap_file_options_set_create(NULL, true), EINVAL, INVALID_ARGUMENT, "options is NULL");
    FAIL(dmsnap_file_options_set_lock(file, 3), EINVAL, INVALID_ARGUMENT,
         "3 is no dmsnap_lock_mode");

    /* Contradictions are found when an image is created, before anything is touched. */
    OK(dmsnap_create_options_set_chunk_size(create, 512));
    OK(dmsnap_create_options_set_size(create, SIZE));
    OK(dmsnap_create_options_set_uuid(create, id));
    FAIL(dmsnap_image_create("errors-new.cow", create), EINVAL, INVALID_ARGUMENT, "512");
    CHECK(access("errors-new.cow", F_OK) != 0);
    OK(dmsnap_create_options_set_bare(create, false));
    OK(dmsnap_create_options_set_chunk_size(create, 4096));
    OK(dmsnap_create_options_set_size(create, 1000));
    FAIL(dmsnap_image_create("errors-new.cow", create), EINVAL, INVALID_ARGUMENT, "1000");
    CHECK(access("errors-new.cow", F_OK) != 0);
    OK(dmsnap_create_options_set_size(create, SIZE));
    OK(dmsnap_create_options_set_on_existing(create, true));
    OK(dmsnap_create_options_set_origin(create, "errors-missing", DMSNAP_FORMAT_RAW));
    FAIL(dmsnap_image_create(LAYER, create), ENOENT, NOT_FOUND, "errors-missing");
    OK(dmsnap_image_close(open_layer(true)));
    dmsnap_open_options_free(open);
    dmsnap_create_options_free(create);
    dmsnap_amend_options_free(amend);
    dmsnap_check_options_free(check);
    dmsnap_file_options_free(file);
}

static void recoveries(void)
{
    dmsnap_recover_options *options = dmsnap_recover_options_new();
    dmsnap_recover_report *report = NULL;
    SIZED(dmsnap_recover_summary, summary);
    SIZED(dmsnap_left_out, left);

    FAIL(dmsnap_recover_options_set_size(NULL, 512), EINVAL, INVALID_ARGUMENT, "options is NULL");
    FAIL(dmsnap_recover_options_set_lock(NULL, true), EINVAL, INVALID_ARGUMENT, "options is NULL");
    FAIL(dmsnap_recover_options_set_bare(NULL, true), EINVAL, INVALID_ARGUMENT, "options is NULL");
    FAIL(dmsnap_recover_options_set_chunk_size(NULL, 512), EINVAL, INVALID_ARGUMENT,
         "options is NULL");
    FAIL(dmsnap_recover_options_set_chunk_size(options, 513), EINVAL, INVALID_ARGUMENT, "513");
    FAIL(dmsnap_recover_options_set_origin(options, NULL, DMSNAP_FORMAT_RAW), EINVAL,
         INVALID_ARGUMENT, "name is NULL");
    FAIL(dmsnap_recover_options_set_origin(options, BASE, 99), EINVAL, INVALID_ARGUMENT, "99");
    FAIL(dmsnap_recover_report_open(NULL, NULL, NULL, NULL, NULL, &report), EINVAL,
         INVALID_ARGUMENT, "path is NULL");
    FAIL(dmsnap_recover_report_open(LAYER, NULL, NULL, NULL, NULL, NULL), EINVAL, INVALID_ARGUMENT,
         "out is NULL");
    FAIL(dmsnap_recover_report_open(NOWHERE, NULL, NULL, NULL, NULL, &report), ENOENT, NOT_FOUND,
         "errors-nowhere");
    FAIL(dmsnap_recover_report_open(LAYER, BASE, NULL, NULL, NULL, &report), EEXIST, EXISTS, BASE);
    OK(dmsnap_recover_options_set_size(options, 513));
    FAIL(dmsnap_recover_report_open(LAYER, NULL, options, NULL, NULL, &report), EINVAL,
         INVALID_ARGUMENT, "513");
    CHECK(report == NULL);
    FAIL(dmsnap_recover_report_summary(NULL, &summary), EINVAL, INVALID_ARGUMENT, "report is NULL");
    FAIL(dmsnap_recover_report_left_out(NULL, 0, &left), EINVAL, INVALID_ARGUMENT,
         "report is NULL");
    OK(dmsnap_recover_report_open(LAYER, NULL, NULL, NULL, NULL, &report));
    FAIL(dmsnap_recover_report_summary(report, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_recover_report_left_out(report, 0, &left), EINVAL, INVALID_ARGUMENT,
         "no left out record 0");
    dmsnap_recover_report_free(report);
    dmsnap_recover_report_free(NULL);
    dmsnap_recover_options_free(options);
    dmsnap_recover_options_free(NULL);
}

static void storages(void)
{
    dmsnap_storage *storage = NULL;
    dmsnap_file_options *options = dmsnap_file_options_new();
    dmsnap_check_report *report = NULL;
    SIZED(dmsnap_check_summary, summary);
    SIZED(dmsnap_finding, finding);
    dmsnap_descriptor *descriptor = NULL;
    uint64_t number;

    FAIL(dmsnap_storage_open(NULL, NULL, &storage), EINVAL, INVALID_ARGUMENT, "path is NULL");
    FAIL(dmsnap_storage_open(BASE, NULL, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_storage_open("/", NULL, &storage), EINVAL, INVALID_ARGUMENT, "/");
    FAIL(dmsnap_storage_open(NOWHERE, NULL, &storage), ENOENT, NOT_FOUND, "errors-nowhere");
    OK(dmsnap_file_options_set_create(options, true));
    FAIL(dmsnap_storage_open(BASE, options, &storage), EEXIST, EXISTS, BASE);
    FAIL(dmsnap_storage_open_fd(-1, NULL, NULL, &storage), EINVAL, INVALID_ARGUMENT,
         "-1 is no file descriptor");
    FAIL(dmsnap_storage_open_fd(12345, "mine", NULL, &storage), EBADF, IO, "mine");
    FAIL(dmsnap_storage_open_fd(0, NULL, NULL, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_storage_open_ops(NULL, NULL, &storage), EINVAL, INVALID_ARGUMENT, "ops is NULL");
    FAIL(dmsnap_storage_open_memory(1, true, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    CHECK(storage == NULL);
    FAIL(dmsnap_check_report_open(NULL, NULL, &report), EINVAL, INVALID_ARGUMENT, "path is NULL");
    FAIL(dmsnap_check_report_open(BASE, NULL, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_check_report_open(BASE, NULL, &report), EINVAL, INVALID_FORMAT, BASE);
    FAIL(dmsnap_check_report_open_storage(NULL, NULL, &report), EINVAL, INVALID_ARGUMENT,
         "storage is NULL");
    FAIL(dmsnap_check_report_summary(NULL, &summary), EINVAL, INVALID_ARGUMENT, "report is NULL");
    FAIL(dmsnap_check_report_finding(NULL, 0, &finding), EINVAL, INVALID_ARGUMENT,
         "report is NULL");
    FAIL(dmsnap_check_report_hole(NULL, 0, &number, &number), EINVAL, INVALID_ARGUMENT,
         "report is NULL");
    FAIL(dmsnap_check_report_data(NULL, 0, 0, &number, &number), EINVAL, INVALID_ARGUMENT,
         "report is NULL");
    FAIL(dmsnap_check_report_descriptor(NULL, &descriptor), EINVAL, INVALID_ARGUMENT,
         "report is NULL");
    OK(dmsnap_storage_open(LAYER, NULL, &storage));
    OK(dmsnap_check_report_open_storage(storage, NULL, &report));
    FAIL(dmsnap_check_report_finding(report, 0, &finding), EINVAL, INVALID_ARGUMENT,
         "no finding 0");
    FAIL(dmsnap_check_report_hole(report, 0, &number, &number), EINVAL, INVALID_ARGUMENT,
         "no hole 0");
    FAIL(dmsnap_check_report_hole(report, 0, NULL, &number), EINVAL, INVALID_ARGUMENT,
         "offset is NULL");
    FAIL(dmsnap_check_report_data(report, 0, 1, &number, NULL), EINVAL, INVALID_ARGUMENT,
         "data_len is NULL");
    FAIL(dmsnap_check_report_descriptor(report, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    dmsnap_check_report_free(report);
    dmsnap_storage_free(storage);
    dmsnap_file_options_free(options);
}

static bool stop(void *opaque, const dmsnap_progress *progress)
{
    (void)progress;
    ++*(int *)opaque;
    return false;
}

/* A merge that is stopped by its callback, and a later one that ends it. */
static void cancelled(void)
{
    dmsnap_image *image = open_layer(true);
    dmsnap_merge *merge = NULL;
    char data[4096];
    int calls = 0;
    int i;

    memset(data, 1, sizeof(data));
    for (i = 0; i < SIZE / 16384; i++) {
        OK(dmsnap_image_write(image, data, sizeof(data), (uint64_t)i * 16384));
    }
    FAIL(dmsnap_image_merge(image, stop, &calls), ECANCELED, CANCELLED, "stopped");
    CHECK(calls == 1);
    OK(dmsnap_image_merge(image, NULL, NULL));

    /* A merge that outlives the image: closing says so, and nothing leaks. */
    OK(dmsnap_image_write(image, "left", 4, 0));
    OK(dmsnap_merge_open(image, &merge));
    FAIL(dmsnap_image_close(image), EBUSY, BUSY, "under way");
    dmsnap_merge_free(merge);
    image = open_layer(true);
    OK(dmsnap_image_read(image, data, 4, 0));
    CHECK(memcmp(data, "left", 4) == 0);
    OK(dmsnap_image_close(image));
}

int main(void)
{
    CHECK(dmsnap_last_error_kind() == DMSNAP_ERROR_KIND_NONE);
    CHECK(strcmp(dmsnap_last_error_message(), "") == 0);
    create();
    nulls();
    more_nulls();
    bounds();
    access_denied();
    options();
    storages();
    recoveries();
    cancelled();
    return finish();
}
