/* Every exported function, with NULL for each pointer in turn, with numbers that no caller means,
 * and with structures that do not say their size: no crash, an error that is documented, and
 * outputs that stay as they were. Half of the calls are made by another thread than the one that
 * made the handles.
 *
 * The calls are made from dmsnap.h by calls.awk, so none is left out: an argument of a kind that
 * hostile_arguments.h does not know does not compile. */
#include "hostile_arguments.h"

#include <fcntl.h>
#include <pthread.h>

#include "calls.inc"

/* Where NULL has a meaning, by function and argument. */
static const char *const meant[] = {
    "dmsnap_storage_open options",
    "dmsnap_storage_open_fd name",
    "dmsnap_storage_open_fd options",
    "dmsnap_storage_open_ops name",
    "dmsnap_create_options_set_origin_identity uuid",
    "dmsnap_create_options_set_uuid uuid",
    "dmsnap_image_open options",
    "dmsnap_image_open_storage options",
    "dmsnap_image_snapshot_to origin_name",
    "dmsnap_image_merge callback",
    "dmsnap_image_merge opaque",
    "dmsnap_amend_options_set_origin name",
    "dmsnap_amend_options_set_uuid uuid",
    "dmsnap_check_report_open options",
    "dmsnap_check_report_open_storage options",
    "dmsnap_recover_options_set_origin name",
    "dmsnap_recover_report_open new_path",
    "dmsnap_recover_report_open options",
    "dmsnap_recover_report_open callback",
    "dmsnap_recover_report_open opaque",
    "dmsnap_descriptor_new uuid",
    "dmsnap_descriptor_set_origin name",
    "dmsnap_descriptor_set_origin format",
    "dmsnap_descriptor_set_origin uuid",
    "dmsnap_header_probe out",
    "dmsnap_store_format descriptor",
    "dmsnap_store_prepare_descriptor descriptor",
};

/* What does not succeed with the arguments of the fixture, and why. */
static const struct {
    const char *function, *reason;
} refused[] = {
    {"dmsnap_image_create", "the file is there"},
    {"dmsnap_image_snapshot", "a layer that is no file has no name to record"},
    {"dmsnap_check_report_finding", "a good store has none"},
    {"dmsnap_check_report_hole", "a good store has none"},
    {"dmsnap_recover_report_left_out", "a good store has none"},
    {"dmsnap_check_reader_finish_plan", "the reader has given out no plan"},
    {"dmsnap_check_reader_finish", "the reader has read nothing"},
    {"dmsnap_loader_finish_plan", "the loader has given out no plan"},
    {"dmsnap_loader_finish", "the loader has read nothing"},
    {"dmsnap_plan_buffer", "the plan's first step reads nothing"},
    {"dmsnap_plan_supply", "the plan's first step reads nothing"},
    {"dmsnap_store_complete_exception", "no exception is being made"},
    {"dmsnap_store_abort_exception", "no exception is being made"},
    {"dmsnap_store_finish_plan", "the store has given out no plan"},
};

static bool is_refused(const struct function *function)
{
    size_t i;

    for (i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        if (strcmp(refused[i].function, function->name) == 0) {
            return true;
        }
    }
    return false;
}

static unsigned long calls;

/* The name of an argument. */
static void argument_name(const struct function *function, int index, char *name, size_t room)
{
    const char *at = function->names;

    for (; index > 0; index--) {
        at = strchr(at, ' ') + 1;
    }
    snprintf(name, room, "%.*s", (int)strcspn(at, " "), at);
}

static bool is_meant(const struct function *function, int index)
{
    char wanted[128], name[64];
    size_t i;

    argument_name(function, index, name, sizeof(name));
    snprintf(wanted, sizeof(wanted), "%s %s", function->name, name);
    for (i = 0; i < sizeof(meant) / sizeof(meant[0]); i++) {
        if (strcmp(meant[i], wanted) == 0) {
            return true;
        }
    }
    return false;
}

static int64_t no_io(void *opaque, const struct iovec *iov, int iovcnt, uint64_t offset)
{
    (void)opaque, (void)iov, (void)iovcnt, (void)offset;
    return -EIO;
}

static int no_flush(void *opaque)
{
    (void)opaque;
    return -EIO;
}

static int no_size(void *opaque, uint64_t *size)
{
    (void)opaque, (void)size;
    return -EIO;
}

static void set_up(struct fixture *f)
{
    /* For chunks of 4096 bytes. */
    static const unsigned char header[] = {'S', 'n', 'A', 'p', 1, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0};

    memset(f, 0, sizeof(*f));
    memset(&f->out, 0xa5, sizeof(f->out));
    f->turn = -1;
    f->fd = open(COW, O_RDONLY);
    CHECK(f->fd >= 0);
    memset(f->uuid, 7, sizeof(f->uuid));
    memcpy(f->buffer, header, sizeof(header));
    f->iov[0].iov_base = f->buffer;
    f->iov[0].iov_len = 512;
    f->iov[1].iov_base = f->buffer + 512;
    f->iov[1].iov_len = 512;
    f->ops.ops.preadv = no_io;
    f->ops.ops.pwritev = no_io;
    f->ops.ops.flush = no_flush;
    f->ops.ops.size = no_size;
    f->file_options = dmsnap_file_options_new();
    f->open_options = dmsnap_open_options_new();
    f->create_options = dmsnap_create_options_new();
    f->amend_options = dmsnap_amend_options_new();
    f->check_options = dmsnap_check_options_new();
    f->recover_options = dmsnap_recover_options_new();
    f->load_options = dmsnap_load_options_new(DISK);
    OK(dmsnap_storage_open_memory(DISK, true, &f->storage));
    OK(dmsnap_storage_open_memory(0, true, &f->cow));
    OK(dmsnap_storage_open_memory(DISK, true, &f->origin));
    OK(dmsnap_create_options_set_size(f->create_options, DISK));
    OK(dmsnap_create_options_set_chunk_size(f->create_options, 4096));
    OK(dmsnap_image_create_on(f->cow, f->create_options));
    OK(dmsnap_image_create_on(f->storage, f->create_options));
    OK(dmsnap_open_options_set_writable(f->open_options, true));
    OK(dmsnap_open_options_set_origin_storage(f->open_options, f->origin));
    OK(dmsnap_image_open_storage(f->cow, f->open_options, &f->image));
    OK(dmsnap_image_write(f->image, f->buffer, 512, 0));
    OK(dmsnap_image_info(f->image, &f->info));
    OK(dmsnap_check_report_open(COW, f->check_options, &f->report));
    OK(dmsnap_recover_report_open(COW, NULL, f->recover_options, NULL, NULL, &f->recovery));
    OK(dmsnap_check_reader_new(f->load_options, &f->reader));
    OK(dmsnap_descriptor_new(DISK, f->uuid, &f->descriptor));
    OK(dmsnap_store_format(4096, f->descriptor, false, &f->plan));
    OK(dmsnap_loader_new(f->load_options, &f->loader));
    OK(host_open(&f->host, STORE, NULL, true));
}

static void tear_down(struct fixture *f)
{
    dmsnap_merge_free(f->merge);
    if (f->image != NULL) {
        dmsnap_image_close(f->image);
    }
    dmsnap_storage_free(f->storage);
    dmsnap_storage_free(f->cow);
    dmsnap_storage_free(f->origin);
    dmsnap_info_free(f->info);
    dmsnap_check_report_free(f->report);
    dmsnap_recover_report_free(f->recovery);
    remove(NEW);
    dmsnap_check_reader_free(f->reader);
    dmsnap_descriptor_free(f->descriptor);
    dmsnap_plan_free(f->plan);
    dmsnap_loader_free(f->loader);
    dmsnap_file_options_free(f->file_options);
    dmsnap_open_options_free(f->open_options);
    dmsnap_create_options_free(f->create_options);
    dmsnap_amend_options_free(f->amend_options);
    dmsnap_check_options_free(f->check_options);
    dmsnap_recover_options_free(f->recover_options);
    dmsnap_load_options_free(f->load_options);
    host_abandon(&f->host);
    close(f->fd);
}

/* Frees what a call gave out. `untouched` is how the places were before. */
static void free_outputs(struct outputs *out, const struct outputs *untouched)
{
#define GIVEN(field, end)                                                                          \
    if (out->field != untouched->field && out->field != NULL) {                                    \
        end(out->field);                                                                           \
    }
    GIVEN(merge, dmsnap_merge_free)
    GIVEN(image, dmsnap_image_close)
    GIVEN(storage, dmsnap_storage_free)
    GIVEN(info, dmsnap_info_free)
    GIVEN(report, dmsnap_check_report_free)
    GIVEN(recovery, dmsnap_recover_report_free)
    GIVEN(reader, dmsnap_check_reader_free)
    GIVEN(descriptor, dmsnap_descriptor_free)
    GIVEN(plan, dmsnap_plan_free)
    GIVEN(loader, dmsnap_loader_free)
    GIVEN(store, dmsnap_store_free)
#undef GIVEN
}

static bool ends_with(const char *name, const char *end)
{
    size_t length = strlen(name), most = strlen(end);

    return length >= most && strcmp(name + length - most, end) == 0;
}

/* Forgets what the call has taken over, whether it succeeded or not. */
static void forget_taken(struct fixture *f, const char *name, int64_t result)
{
#define TAKEN(function, index, field)                                                              \
    if (strcmp(name, #function) == 0 && f->turn != (index)) {                                      \
        f->field = NULL;                                                                           \
    }
    TAKEN(dmsnap_file_options_free, 0, file_options)
    TAKEN(dmsnap_open_options_free, 0, open_options)
    TAKEN(dmsnap_create_options_free, 0, create_options)
    TAKEN(dmsnap_amend_options_free, 0, amend_options)
    TAKEN(dmsnap_check_options_free, 0, check_options)
    TAKEN(dmsnap_recover_options_free, 0, recover_options)
    TAKEN(dmsnap_load_options_free, 0, load_options)
    TAKEN(dmsnap_storage_free, 0, storage)
    TAKEN(dmsnap_merge_free, 0, merge)
    TAKEN(dmsnap_info_free, 0, info)
    TAKEN(dmsnap_check_report_free, 0, report)
    TAKEN(dmsnap_recover_report_free, 0, recovery)
    TAKEN(dmsnap_check_reader_free, 0, reader)
    TAKEN(dmsnap_check_reader_finish, 0, reader)
    TAKEN(dmsnap_descriptor_free, 0, descriptor)
    TAKEN(dmsnap_plan_free, 0, plan)
    TAKEN(dmsnap_loader_free, 0, loader)
    TAKEN(dmsnap_loader_finish, 0, loader)
    TAKEN(dmsnap_store_free, 0, host.store)
#undef TAKEN
    if (strcmp(name, "dmsnap_image_close") == 0 && result != -EINVAL && result != -EDEADLK) {
        f->image = NULL;
    }
    if (ends_with(name, "_finish_plan") && f->turn != 1) {
        f->plan = NULL;
    }
}

struct job {
    const struct function *function;
    struct fixture *f;
    int64_t result;
    dmsnap_error_kind kind;
    bool told, says_null;
};

static void *run(void *argument)
{
    struct job *job = argument;

    job->result = job->function->call(job->f);
    job->kind = dmsnap_last_error_kind();
    job->told = dmsnap_last_error_message()[0] != '\0';
    job->says_null = strstr(dmsnap_last_error_message(), "NULL") != NULL;
    return NULL;
}

/* Makes the call, every other time in a thread that has made none of the handles. */
static struct job perform(const struct function *function, struct fixture *f)
{
    struct job job = {function, f, 0, DMSNAP_ERROR_KIND_NONE, false, false};
    dmsnap_error_kind mine = dmsnap_last_error_kind();
    pthread_t thread;

    if (++calls % 2 == 0) {
        run(&job);
        return job;
    }
    CHECK(pthread_create(&thread, NULL, run, &job) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(dmsnap_last_error_kind() == mine);
    return job;
}

static void complain(const struct job *job, const char *what)
{
    fprintf(stderr, "%s, argument %d, number %llu, size %zu: gives %lld: ", job->function->name,
            job->f->turn, (unsigned long long)job->f->number, job->f->struct_size,
            (long long)job->result);
    failed(__FILE__, __LINE__, what);
}

/* How a call has to end. */
enum wanted { ANY, SUCCESS, REFUSAL, WRONG_SIZE, WRONG_NULL };

/* One call. */
static void try(const struct function *function, int turn, uint64_t number, bool lies,
                enum wanted wanted)
{
    static struct fixture f;
    static struct outputs before;
    struct job job;

    set_up(&f);
    f.turn = turn;
    f.number = number;
    f.lies = lies;
    f.struct_size = (size_t)number;
    if (strstr(function->names, "merge") != NULL) {
        merge(&f);
    }
    before = f.out;
    job = perform(function, &f);
    if (function->fails && (job.result > 0 || job.result < -4095)) {
        complain(&job, "neither 0 nor an errno");
    }
    if (function->fails && job.result < 0) {
        /* Its size is the caller's own, set for this call. */
        memcpy(&before.sized, &f.out.sized, sizeof(size_t));
        if (memcmp(&before, &f.out, sizeof(before)) != 0) {
            complain(&job, "an output was written");
        }
        if (job.kind == DMSNAP_ERROR_KIND_NONE || !job.told) {
            complain(&job, "there is no message");
        }
    }
    if (job.kind == DMSNAP_ERROR_KIND_INTERNAL) {
        complain(&job, "it panicked");
    }
    if ((wanted == WRONG_SIZE || wanted == WRONG_NULL) && job.result != -EINVAL) {
        complain(&job, "wanted -EINVAL");
    }
    if (wanted == WRONG_NULL && !job.says_null) {
        complain(&job, "refused, but not for its NULL");
    }
    if (wanted == SUCCESS && job.result != 0) {
        complain(&job, "wanted success with arguments that are meant");
    }
    if (wanted == REFUSAL && job.result >= 0) {
        complain(&job, "succeeds, but is among those that are refused");
    }
    forget_taken(&f, function->name, job.result);
    if (!function->fails || job.result == 0) {
        free_outputs(&f.out, &before);
    }
    tear_down(&f);
}

static const uint64_t numbers[] = {
    0,
    1,
    513,
    INT32_MAX,
    UINT32_MAX,
    (uint64_t)UINT32_MAX + 1,
    INT64_MAX,
    (uint64_t)INT64_MAX + 1,
    UINT64_MAX - 511,
    UINT64_MAX - 1,
    UINT64_MAX,
};

/* All but the last two are too small or too large; those are another release's. */
static const uint64_t sizes[] = {0, 1, 7, 9, 4097, UINT32_MAX, SIZE_MAX, 2048, 4096};
#define WRONG_SIZES (sizeof(sizes) / sizeof(sizes[0]) - 2)

static void try_all(const struct function *function)
{
    int index;
    size_t i;

    /* Or else a fixture that is wrong would be why the others fail. */
    if (function->fails) {
        try(function, -1, 0, false, is_refused(function) ? REFUSAL : SUCCESS);
    }
    for (index = 0; function->kinds[index] != '\0'; index++) {
        if (function->kinds[index] == 'p') {
            try(function, index, 0, false,
                function->fails && !is_meant(function, index) ? WRONG_NULL : ANY);
            continue;
        }
        for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
            try(function, index, numbers[i], false, ANY);
        }
    }
    if (!function->takes_size) {
        return;
    }
    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        try(function, -1, sizes[i], true, i < WRONG_SIZES ? WRONG_SIZE : ANY);
    }
}

int main(void)
{
    dmsnap_create_options *options = dmsnap_create_options_new();
    dmsnap_descriptor *descriptor;
    static const uint8_t uuid[16] = {1};
    size_t i;

    remove_file(COW);
    remove_file(STORE);
    OK(dmsnap_create_options_set_size(options, DISK));
    OK(dmsnap_image_create(COW, options));
    dmsnap_create_options_free(options);
    OK(dmsnap_descriptor_new(DISK, uuid, &descriptor));
    OK(host_format(STORE, 4096, descriptor));
    dmsnap_descriptor_free(descriptor);
    for (i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        try_all(&functions[i]);
    }
    add_to_counts("calls", calls);
    return finish();
}
