/* One wrong use of the half without I/O after the other. */
#include "util.h"
#include "host.h"

#define COW "errors-store.cow"
#define SIZE (1 << 20)

static const uint8_t id[16] = {1};

static void descriptors(void)
{
    dmsnap_descriptor *descriptor = NULL;
    SIZED(dmsnap_descriptor_info, info);
    char name[1100];

    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    FAIL(dmsnap_descriptor_new(1000, id, &descriptor), EINVAL, INVALID_ARGUMENT, "1000");
    FAIL(dmsnap_descriptor_new(512, NULL, &descriptor), EINVAL, INVALID_ARGUMENT, "uuid is NULL");
    FAIL(dmsnap_descriptor_new(512, id, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    CHECK(descriptor == NULL);
    OK(dmsnap_descriptor_new(512, id, &descriptor));
    CHECK(dmsnap_descriptor_origin_name(descriptor) == NULL);
    CHECK(dmsnap_descriptor_origin_name(NULL) == NULL);
    CHECK(dmsnap_descriptor_origin_format(NULL) == NULL);
    FAIL(dmsnap_descriptor_read(NULL, &info), EINVAL, INVALID_ARGUMENT, "descriptor is NULL");
    FAIL(dmsnap_descriptor_read(descriptor, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_descriptor_set_virtual_size(descriptor, 1), EINVAL, INVALID_ARGUMENT, "512");
    FAIL(dmsnap_descriptor_set_virtual_size(NULL, 512), EINVAL, INVALID_ARGUMENT, "is NULL");
    FAIL(dmsnap_descriptor_set_origin(NULL, "x", "raw", NULL, 0), EINVAL, INVALID_ARGUMENT,
         "is NULL");
    FAIL(dmsnap_descriptor_set_origin(descriptor, name, "raw", NULL, 0), EINVAL, INVALID_ARGUMENT,
         "1023");
    FAIL(dmsnap_descriptor_set_origin(descriptor, NULL, "raw", NULL, 0), EINVAL, INVALID_ARGUMENT,
         "no name");
    FAIL(dmsnap_descriptor_set_origin(descriptor, "\xc0", "raw", NULL, 0), EINVAL,
         INVALID_ARGUMENT, "UTF-8");
    OK(dmsnap_descriptor_set_origin(descriptor, "x", "raw", id, 77));
    OK(dmsnap_descriptor_set_virtual_size(descriptor, 1024));
    OK(dmsnap_descriptor_read(descriptor, &info));
    CHECK(info.virtual_size == 1024 && info.origin_size == 77 && info.origin_uuid[0] == 1);
    CHECK(strcmp(dmsnap_descriptor_origin_name(descriptor), "x") == 0);
    OK(dmsnap_descriptor_set_origin(descriptor, NULL, NULL, NULL, 0));
    CHECK(dmsnap_descriptor_origin_name(descriptor) == NULL);
    dmsnap_descriptor_free(descriptor);
    dmsnap_descriptor_free(NULL);
}

static void headers(void)
{
    SIZED(dmsnap_header, header);
    unsigned char bytes[16] = {'S', 'n', 'A', 'p', 1, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0};

    OK(dmsnap_header_probe(bytes, 16, &header));
    CHECK(header.valid == 1 && header.version == 1 && header.chunk_size == 4096);
    OK(dmsnap_header_probe(bytes, 16, NULL));
    FAIL(dmsnap_header_probe(bytes, 15, NULL), EINVAL, INVALID_FORMAT, "15 bytes");
    FAIL(dmsnap_header_probe(NULL, 16, NULL), EINVAL, INVALID_ARGUMENT, "NULL");
    bytes[12] = 3;
    FAIL(dmsnap_header_probe(bytes, 16, &header), EUCLEAN, CORRUPT, "3 sectors");
    bytes[12] = 8;
    bytes[8] = 2;
    FAIL(dmsnap_header_probe(bytes, 16, &header), ENOTSUP, UNSUPPORTED, "version 2");
    memset(bytes, 0, 4);
    FAIL(dmsnap_header_probe(bytes, 16, &header), EINVAL, INVALID_FORMAT, "blank");
    bytes[0] = 1;
    FAIL(dmsnap_header_probe(bytes, 16, &header), EINVAL, INVALID_FORMAT, "01 00 00 00");
}

static void plans(void)
{
    void *place = NULL;
    SIZED(dmsnap_measure, measure);
    SIZED(dmsnap_step, step);
    dmsnap_purpose purpose;
    dmsnap_plan *plan = NULL;
    dmsnap_descriptor *descriptor = NULL;

    OK(dmsnap_descriptor_new(SIZE, id, &descriptor));
    FAIL(dmsnap_store_format(1000, NULL, false, &plan), EINVAL, INVALID_ARGUMENT, "1000");
    FAIL(dmsnap_store_format(512, descriptor, false, &plan), EINVAL, INVALID_ARGUMENT, "512");
    FAIL(dmsnap_store_format(4096, NULL, false, NULL), EINVAL, INVALID_ARGUMENT, "plan is NULL");
    CHECK(plan == NULL);
    OK(dmsnap_store_format(4096, descriptor, true, &plan));
    dmsnap_descriptor_free(descriptor);
    OK(dmsnap_plan_purpose(plan, &purpose));
    CHECK(purpose == DMSNAP_PURPOSE_FORMAT);
    CHECK(dmsnap_plan_step_count(plan) > 2);
    CHECK(dmsnap_plan_step_count(NULL) == 0);
    OK(dmsnap_plan_step(plan, 0, &step));
    CHECK(step.type == DMSNAP_STEP_TYPE_WRITE && step.data != NULL && !step.barrier);
    OK(dmsnap_plan_step(plan, dmsnap_plan_step_count(plan) - 1, &step));
    CHECK(step.type == DMSNAP_STEP_TYPE_FLUSH && step.barrier && step.data == NULL);
    CHECK(step.device == DMSNAP_DEVICE_COW);
    FAIL(dmsnap_plan_step(plan, dmsnap_plan_step_count(plan), &step), EINVAL, INVALID_ARGUMENT,
         "no step");
    FAIL(dmsnap_plan_step(NULL, 0, &step), EINVAL, INVALID_ARGUMENT, "plan is NULL");
    FAIL(dmsnap_plan_step(plan, 0, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_plan_purpose(NULL, &purpose), EINVAL, INVALID_ARGUMENT, "plan is NULL");
    FAIL(dmsnap_plan_purpose(plan, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_plan_supply(plan, 0, "x", 1), EINVAL, INVALID_ARGUMENT, "not a read");
    FAIL(dmsnap_plan_supply(NULL, 0, "x", 1), EINVAL, INVALID_ARGUMENT, "plan is NULL");
    FAIL(dmsnap_plan_buffer(plan, 0, &place), EINVAL, INVALID_ARGUMENT, "not a read");
    FAIL(dmsnap_plan_buffer(plan, SIZE_MAX, &place), EINVAL, INVALID_ARGUMENT, "not a read");
    FAIL(dmsnap_plan_buffer(NULL, 0, &place), EINVAL, INVALID_ARGUMENT, "plan is NULL");
    CHECK(place == NULL);
    dmsnap_plan_free(plan);
    dmsnap_plan_free(NULL);
    FAIL(dmsnap_store_measure(5, 0, 0, &measure), EINVAL, INVALID_ARGUMENT, "chunk size 5");
    FAIL(dmsnap_store_measure(512, UINT64_MAX, 0, &measure), EINVAL, OUT_OF_BOUNDS, "no file");
    FAIL(dmsnap_store_measure(512, 512, 0, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
}

static void loading(void)
{
    dmsnap_load_options *options = dmsnap_load_options_new(100);
    dmsnap_loader *loader = NULL;
    dmsnap_check_reader *reader = NULL;
    dmsnap_check_report *report = NULL;
    dmsnap_store *store = NULL;
    dmsnap_plan *plan = NULL;
    char garbage[4096];
    static const char zeros[sizeof(garbage)];
    void *place = NULL, *again = NULL;

    memset(garbage, 'g', sizeof(garbage));
    FAIL(dmsnap_loader_new(options, &loader), EINVAL, INVALID_FORMAT, "100 bytes");
    FAIL(dmsnap_loader_new(NULL, &loader), EINVAL, INVALID_ARGUMENT, "options is NULL");
    FAIL(dmsnap_check_reader_new(options, &reader), EINVAL, INVALID_FORMAT, "100 bytes");
    FAIL(dmsnap_check_reader_new(NULL, &reader), EINVAL, INVALID_ARGUMENT, "options is NULL");
    dmsnap_load_options_free(options);
    dmsnap_load_options_free(NULL);
    FAIL(dmsnap_load_options_set_growable(NULL, true), EINVAL, INVALID_ARGUMENT, "is NULL");
    FAIL(dmsnap_load_options_set_writable(NULL, true), EINVAL, INVALID_ARGUMENT, "is NULL");
    FAIL(dmsnap_load_options_set_origin_size(NULL, 1), EINVAL, INVALID_ARGUMENT, "is NULL");
    options = dmsnap_load_options_new(SIZE);
    FAIL(dmsnap_load_options_set_overflow_mode(options, 9), EINVAL, INVALID_ARGUMENT,
         "9 is no dmsnap_overflow_mode");
    FAIL(dmsnap_loader_new(options, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_check_reader_new(options, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_loader_next_plan(NULL, &plan), EINVAL, INVALID_ARGUMENT, "loader is NULL");
    FAIL(dmsnap_loader_finish_plan(NULL, NULL), EINVAL, INVALID_ARGUMENT, "loader is NULL");
    FAIL(dmsnap_loader_finish(NULL, &store), EINVAL, INVALID_ARGUMENT, "loader is NULL");
    FAIL(dmsnap_check_reader_next_plan(NULL, &plan), EINVAL, INVALID_ARGUMENT, "reader is NULL");
    FAIL(dmsnap_check_reader_finish_plan(NULL, NULL), EINVAL, INVALID_ARGUMENT, "reader is NULL");
    FAIL(dmsnap_check_reader_finish(NULL, &report), EINVAL, INVALID_ARGUMENT, "reader is NULL");

    /* A store that was not read. */
    OK(dmsnap_loader_new(options, &loader));
    FAIL(dmsnap_loader_finish(loader, &store), EINVAL, INVALID_ARGUMENT, "not read");
    OK(dmsnap_check_reader_new(options, &reader));
    FAIL(dmsnap_check_reader_finish(reader, &report), EINVAL, INVALID_ARGUMENT, "not read");

    /* A plan without its bytes, with too few, with garbage, and somebody else's. */
    OK(dmsnap_loader_new(options, &loader));
    FAIL(dmsnap_loader_next_plan(loader, NULL), EINVAL, INVALID_ARGUMENT, "plan is NULL");
    FAIL(dmsnap_loader_finish_plan(loader, NULL), EINVAL, INVALID_ARGUMENT, "plan is NULL");
    OK(dmsnap_loader_next_plan(loader, &plan));
    FAIL(dmsnap_loader_finish_plan(loader, plan), EINVAL, INVALID_ARGUMENT, "not supplied");
    OK(dmsnap_loader_next_plan(loader, &plan));
    FAIL(dmsnap_plan_supply(plan, 0, garbage, 5), EINVAL, INVALID_ARGUMENT, "5 supplied");
    FAIL(dmsnap_plan_supply(plan, 7, garbage, 5), EINVAL, INVALID_ARGUMENT, "step 7");
    /* Refused before a byte is looked at: there are not that many. */
    FAIL(dmsnap_plan_supply(plan, 0, garbage, (size_t)1 << 46), EINVAL, INVALID_ARGUMENT, "supplied");
    OK(dmsnap_plan_supply(plan, 0, garbage, sizeof(garbage)));
    FAIL(dmsnap_loader_finish_plan(loader, plan), EINVAL, INVALID_FORMAT, "67 67 67 67");
    /* The same, read straight into the plan. */
    OK(dmsnap_loader_next_plan(loader, &plan));
    FAIL(dmsnap_plan_buffer(plan, 0, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    OK(dmsnap_plan_buffer(plan, 0, &place));
    OK(dmsnap_plan_buffer(plan, 0, &again));
    CHECK(place != NULL && place == again);
    CHECK(memcmp(place, zeros, sizeof(zeros)) == 0);
    memset(place, 'h', sizeof(garbage));
    FAIL(dmsnap_loader_finish_plan(loader, plan), EINVAL, INVALID_FORMAT, "68 68 68 68");
    OK(dmsnap_loader_next_plan(loader, &plan));
    OK(dmsnap_check_reader_new(options, &reader));
    FAIL(dmsnap_check_reader_finish_plan(reader, plan), EINVAL, INVALID_ARGUMENT,
         "another object");
    FAIL(dmsnap_check_reader_next_plan(reader, NULL), EINVAL, INVALID_ARGUMENT, "plan is NULL");
    FAIL(dmsnap_check_reader_finish_plan(reader, NULL), EINVAL, INVALID_ARGUMENT, "plan is NULL");
    FAIL(dmsnap_check_reader_finish(reader, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_loader_finish(loader, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    dmsnap_check_reader_free(NULL);
    dmsnap_loader_free(NULL);
    dmsnap_load_options_free(options);
    CHECK(store == NULL && report == NULL);
}

/* Every call on a store, without one. */
static void no_store(void)
{
    SIZED(dmsnap_store_facts, facts);
    SIZED(dmsnap_usage, usage);
    SIZED(dmsnap_status, status);
    SIZED(dmsnap_run, run);
    SIZED(dmsnap_mapping, mapping);
    SIZED(dmsnap_exception, exception);
    SIZED(dmsnap_progress, progress);
    dmsnap_descriptor *descriptor = NULL;
    dmsnap_plan *plan = NULL;
    dmsnap_answer answer;

    FAIL(dmsnap_store_info(NULL, &facts), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_descriptor(NULL, &descriptor), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_usage(NULL, &usage), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_status(NULL, &status), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_next_run(NULL, 0, &run), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_map(NULL, 0, 1, &mapping), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_map_write(NULL, 0, 1, &mapping), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_prepare_exception(NULL, 0, 1, &answer, &exception, &plan), EINVAL,
         INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_complete_exception(NULL, 0), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_abort_exception(NULL, 0), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_commit_exceptions(NULL, &answer, &plan), EINVAL, INVALID_ARGUMENT,
         "store is NULL");
    FAIL(dmsnap_store_finish_plan(NULL, NULL, 0), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_fail(NULL, -EIO), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_prepare_merge(NULL, 0), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_prepare_resize(NULL, 0, 0), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_prepare_descriptor(NULL, NULL), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_prepare_repair(NULL), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_make_empty(NULL), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_drop_snapshot(NULL), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_next_plan(NULL, &answer, &plan), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_cancel(NULL), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_progress(NULL, &progress), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_reclaim(NULL, &plan), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_trim(NULL, &plan), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_take_invalidation(NULL, &plan), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_set_writable(NULL, true), EINVAL, INVALID_ARGUMENT, "store is NULL");
    FAIL(dmsnap_store_set_cow_size(NULL, 0), EINVAL, INVALID_ARGUMENT, "store is NULL");
    CHECK(!dmsnap_store_should_commit(NULL));
    CHECK(!dmsnap_store_is_cancelling(NULL));
    CHECK(dmsnap_store_pin(NULL) == 0);
    CHECK(!dmsnap_store_unpin(NULL, 0));
    CHECK(plan == NULL && descriptor == NULL);
    dmsnap_store_free(NULL);
}

/* Outputs that are missing are found before anything happens. */
static void no_outputs(struct host *host)
{
    SIZED(dmsnap_exception, exception);
    SIZED(dmsnap_store_facts, facts);
    dmsnap_plan *plan = NULL;
    dmsnap_answer answer;

    FAIL(dmsnap_store_info(host->store, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_store_descriptor(host->store, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_store_usage(host->store, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_store_status(host->store, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_store_next_run(host->store, 0, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_store_map(host->store, 0, 1, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_store_map_write(host->store, 0, 1, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_store_progress(host->store, NULL), EINVAL, INVALID_ARGUMENT, "out is NULL");
    FAIL(dmsnap_store_prepare_exception(host->store, 0, 1, NULL, &exception, &plan), EINVAL,
         INVALID_ARGUMENT, "answer is NULL");
    FAIL(dmsnap_store_prepare_exception(host->store, 0, 1, &answer, NULL, &plan), EINVAL,
         INVALID_ARGUMENT, "exception is NULL");
    FAIL(dmsnap_store_prepare_exception(host->store, 0, 1, &answer, &exception, NULL), EINVAL,
         INVALID_ARGUMENT, "plan is NULL");
    exception.struct_size = 0;
    FAIL(dmsnap_store_prepare_exception(host->store, 0, 1, &answer, &exception, &plan), EINVAL,
         INVALID_ARGUMENT, "struct_size 0");
    FAIL(dmsnap_store_commit_exceptions(host->store, NULL, &plan), EINVAL, INVALID_ARGUMENT,
         "answer is NULL");
    FAIL(dmsnap_store_commit_exceptions(host->store, &answer, NULL), EINVAL, INVALID_ARGUMENT,
         "plan is NULL");
    FAIL(dmsnap_store_next_plan(host->store, NULL, &plan), EINVAL, INVALID_ARGUMENT,
         "answer is NULL");
    FAIL(dmsnap_store_next_plan(host->store, &answer, NULL), EINVAL, INVALID_ARGUMENT,
         "plan is NULL");
    FAIL(dmsnap_store_reclaim(host->store, NULL), EINVAL, INVALID_ARGUMENT, "plan is NULL");
    FAIL(dmsnap_store_trim(host->store, NULL), EINVAL, INVALID_ARGUMENT, "plan is NULL");
    FAIL(dmsnap_store_take_invalidation(host->store, NULL), EINVAL, INVALID_ARGUMENT,
         "plan is NULL");
    FAIL(dmsnap_store_finish_plan(host->store, NULL, 0), EINVAL, INVALID_ARGUMENT, "plan is NULL");
    OK(dmsnap_store_info(host->store, &facts));
    CHECK(facts.exceptions == 0 && facts.pending == 0);
}

static void wrong_numbers(struct host *host)
{
    SIZED(dmsnap_mapping, mapping);
    SIZED(dmsnap_exception, exception);
    SIZED(dmsnap_run, run);
    dmsnap_plan *plan = NULL;
    dmsnap_answer answer;

    FAIL(dmsnap_store_map(host->store, SIZE, 1, &mapping), EINVAL, OUT_OF_BOUNDS, "1048576");
    FAIL(dmsnap_store_map(host->store, 0, 0, &mapping), EINVAL, OUT_OF_BOUNDS, "0 bytes");
    FAIL(dmsnap_store_map(host->store, 1, UINT64_MAX, &mapping), EINVAL, OUT_OF_BOUNDS, "");
    FAIL(dmsnap_store_map_write(host->store, SIZE - 1, 2, &mapping), EINVAL, OUT_OF_BOUNDS, "");
    FAIL(dmsnap_store_prepare_exception(host->store, SIZE, 1, &answer, &exception, &plan), EINVAL,
         OUT_OF_BOUNDS, "");
    FAIL(dmsnap_store_prepare_exception(host->store, UINT64_MAX, 1, &answer, &exception, &plan),
         EINVAL, OUT_OF_BOUNDS, "");
    FAIL(dmsnap_store_complete_exception(host->store, 5), EINVAL, INVALID_ARGUMENT, "in flight");
    FAIL(dmsnap_store_abort_exception(host->store, UINT64_MAX), EINVAL, INVALID_ARGUMENT,
         "in flight");
    FAIL(dmsnap_store_prepare_merge(host->store, SIZE / 2), EINVAL, INVALID_ARGUMENT, "origin");
    FAIL(dmsnap_store_prepare_resize(host->store, 1000, 0), EINVAL, INVALID_ARGUMENT, "1000");
    OK(dmsnap_store_next_run(host->store, UINT64_MAX, &run));
    CHECK(run.count == 0);
    OK(dmsnap_store_cancel(host->store));
    OK(dmsnap_store_next_plan(host->store, &answer, &plan));
    CHECK(answer == DMSNAP_ANSWER_DONE && plan == NULL);
    OK(dmsnap_store_commit_exceptions(host->store, &answer, &plan));
    CHECK(answer == DMSNAP_ANSWER_CLEAN && plan == NULL);
    OK(dmsnap_store_fail(host->store, 0));
}

/* Plans that go to the wrong store, or while one is out. */
static void wrong_plans(struct host *host)
{
    struct host other;
    SIZED(dmsnap_store_facts, facts);
    SIZED(dmsnap_exception, exception);
    dmsnap_plan *plan = NULL;
    dmsnap_plan *second = NULL;
    dmsnap_answer answer;
    dmsnap_purpose purpose;

    OK(host_open(&other, COW, NULL, true));
    OK(dmsnap_store_prepare_exception(host->store, 0, 1, &answer, &exception, &plan));
    CHECK(answer == DMSNAP_ANSWER_PLAN);
    OK(dmsnap_plan_purpose(plan, &purpose));
    CHECK(purpose == DMSNAP_PURPOSE_RESERVE);
    OK(dmsnap_store_prepare_exception(other.store, 0, 1, &answer, &exception, &second));
    FAIL(dmsnap_store_finish_plan(host->store, second, 0), EINVAL, INVALID_ARGUMENT,
         "another object");
    /* Without room for what was to be reserved ahead, the store asks for one chunk. */
    OK(dmsnap_store_finish_plan(host->store, plan, -ENOSPC));
    OK(dmsnap_store_prepare_exception(host->store, 0, 1, &answer, &exception, &plan));
    CHECK(answer == DMSNAP_ANSWER_PLAN);
    FAIL(dmsnap_store_finish_plan(host->store, plan, -ENOSPC), ENOSPC, NO_SPACE, "");
    host_abandon(&other);

    OK(dmsnap_store_drop_snapshot(host->store));
    OK(dmsnap_store_next_plan(host->store, &answer, &plan));
    CHECK(answer == DMSNAP_ANSWER_PLAN);
    OK(dmsnap_store_next_plan(host->store, &answer, &second));
    CHECK(answer == DMSNAP_ANSWER_WAIT && second == NULL);
    FAIL(dmsnap_store_cancel(host->store), EBUSY, BUSY, "outstanding");
    FAIL(dmsnap_store_finish_plan(host->store, plan, -EDQUOT), EDQUOT, NO_SPACE, "");
    /* Nobody knows whether the header was written: that has to be settled first. */
    OK(dmsnap_store_cancel(host->store));
    CHECK(dmsnap_store_is_cancelling(host->store));
    FAIL(dmsnap_store_prepare_repair(host->store), EBUSY, BUSY, "commit");
    OK(dmsnap_store_commit_exceptions(host->store, &answer, &plan));
    CHECK(answer == DMSNAP_ANSWER_PLAN);
    OK(dmsnap_plan_purpose(plan, &purpose));
    CHECK(purpose == DMSNAP_PURPOSE_INVALIDATE);
    OK(dmsnap_store_finish_plan(host->store, plan, 0));
    CHECK(!dmsnap_store_is_cancelling(host->store));
    OK(dmsnap_store_info(host->store, &facts));
    CHECK(facts.state == DMSNAP_STATE_ACTIVE && facts.valid == 1);
}

int main(void)
{
    dmsnap_descriptor *descriptor = NULL;
    struct host host;

    descriptors();
    headers();
    plans();
    loading();
    no_store();
    remove_file(COW);
    OK(dmsnap_descriptor_new(SIZE, id, &descriptor));
    OK(host_format(COW, 4096, descriptor));
    dmsnap_descriptor_free(descriptor);
    CHECK(host_open(&host, "errors-nowhere", NULL, true) == -ENOENT);
    OK(host_open(&host, COW, NULL, false));
    FAIL(host_write(&host, "x", 1, 0), EROFS, READ_ONLY, "read-only");
    FAIL(dmsnap_store_make_empty(host.store), EROFS, READ_ONLY, "read-only");
    host_abandon(&host);
    OK(host_open(&host, COW, NULL, true));
    no_outputs(&host);
    wrong_numbers(&host);
    wrong_plans(&host);
    host_abandon(&host);
    return finish();
}
