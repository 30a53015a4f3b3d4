/* See host.h. */
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE 65536

static int read_all(int fd, void *buffer, uint64_t len, uint64_t offset)
{
    char *at = buffer;

    while (len > 0) {
        ssize_t got = pread(fd, at, len, (off_t)offset);
        if (got < 0) {
            return -errno;
        }
        if (got == 0) {
            /* Past the end there are zeros. */
            memset(at, 0, len);
            return 0;
        }
        at += got;
        offset += (uint64_t)got;
        len -= (uint64_t)got;
    }
    return 0;
}

static int write_all(int fd, const void *buffer, uint64_t len, uint64_t offset)
{
    const char *at = buffer;

    while (len > 0) {
        ssize_t done = pwrite(fd, at, len, (off_t)offset);
        if (done <= 0) {
            return done < 0 ? -errno : -EIO;
        }
        at += done;
        offset += (uint64_t)done;
        len -= (uint64_t)done;
    }
    return 0;
}

static int zero(int fd, uint64_t len, uint64_t offset)
{
    static const char zeros[PIECE];
    int result = 0;

    while (len > 0 && result == 0) {
        uint64_t now = len < PIECE ? len : PIECE;
        result = write_all(fd, zeros, now, offset);
        offset += now;
        len -= now;
    }
    return result;
}

static int copy(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t len)
{
    char piece[PIECE];
    int result = 0;

    while (len > 0 && result == 0) {
        uint64_t now = len < PIECE ? len : PIECE;
        result = read_all(from, piece, now, from_offset);
        if (result == 0) {
            result = write_all(to, piece, now, to_offset);
        }
        from_offset += now;
        to_offset += now;
        len -= now;
    }
    return result;
}

/* Reads of even numbers go straight into the plan, as a host would do it; the others are copied. */
static int supply(int fd, dmsnap_plan *plan, size_t index, const dmsnap_step *step)
{
    void *buffer = NULL;
    int result;

    if (index % 2 == 0) {
        result = dmsnap_plan_buffer(plan, index, &buffer);
        return result == 0 ? read_all(fd, buffer, step->len, step->offset) : result;
    }
    buffer = malloc(step->len);
    result = buffer == NULL ? -ENOMEM : read_all(fd, buffer, step->len, step->offset);
    if (result == 0) {
        result = dmsnap_plan_supply(plan, index, buffer, step->len);
    }
    free(buffer);
    return result;
}

static int run_step(int cow, int origin, dmsnap_plan *plan, size_t index, uint64_t *flushes)
{
    dmsnap_step step = {.struct_size = sizeof(step)};
    int result = dmsnap_plan_step(plan, index, &step);
    int fd, to;

    if (result != 0) {
        return result;
    }
    fd = step.device == DMSNAP_DEVICE_COW ? cow : origin;
    to = step.to_device == DMSNAP_DEVICE_COW ? cow : origin;
    switch (step.type) {
    case DMSNAP_STEP_TYPE_READ:
        return supply(fd, plan, index, &step);
    case DMSNAP_STEP_TYPE_WRITE:
        return write_all(fd, step.data, step.len, step.offset);
    case DMSNAP_STEP_TYPE_WRITE_ZEROES:
        return zero(fd, step.len, step.offset);
    case DMSNAP_STEP_TYPE_COPY:
        return copy(fd, step.offset, to, step.to_offset, step.len);
    case DMSNAP_STEP_TYPE_DISCARD:
        return 0;
    case DMSNAP_STEP_TYPE_SET_SIZE:
        return ftruncate(fd, (off_t)step.len) == 0 ? 0 : -errno;
    case DMSNAP_STEP_TYPE_FLUSH:
        ++*flushes;
        return fdatasync(fd) == 0 ? 0 : -errno;
    default:
        return -ENOTSUP;
    }
}

static int run_steps(int cow, int origin, dmsnap_plan *plan, uint64_t *flushes)
{
    size_t count = dmsnap_plan_step_count(plan);
    size_t index;
    int result = 0;

    for (index = 0; index < count && result == 0; index++) {
        result = run_step(cow, origin, plan, index, flushes);
    }
    return result;
}

static void notify(struct host *host)
{
    pthread_mutex_lock(&host->mutex);
    host->changes++;
    pthread_cond_broadcast(&host->changed);
    pthread_mutex_unlock(&host->mutex);
}

static uint64_t changes(struct host *host)
{
    uint64_t seen;

    pthread_mutex_lock(&host->mutex);
    seen = host->changes;
    pthread_mutex_unlock(&host->mutex);
    return seen;
}

/* `seen` was taken before the call that said "wait". */
static void wait_for_change(struct host *host, uint64_t seen)
{
    pthread_mutex_lock(&host->mutex);
    while (host->changes == seen) {
        pthread_cond_wait(&host->changed, &host->mutex);
    }
    pthread_mutex_unlock(&host->mutex);
}

int host_run_plan(struct host *host, dmsnap_plan *plan)
{
    uint64_t flushes = 0;
    int result;

    if (plan == NULL) {
        return 0;
    }
    result = host->fail_next_write;
    host->fail_next_write = 0;
    if (result == 0) {
        result = run_steps(host->cow, host->origin, plan, &flushes);
    }
    pthread_rwlock_wrlock(&host->lock);
    host->plans++;
    host->flushes += flushes;
    result = dmsnap_store_finish_plan(host->store, plan, result);
    pthread_rwlock_unlock(&host->lock);
    notify(host);
    return result;
}

int host_format(const char *path, uint64_t chunk_size, const dmsnap_descriptor *descriptor)
{
    dmsnap_plan *plan;
    uint64_t flushes = 0;
    int result = dmsnap_store_format(chunk_size, descriptor, false, &plan);
    int fd;

    if (result != 0) {
        return result;
    }
    fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    result = fd < 0 ? -errno : run_steps(fd, -1, plan, &flushes);
    dmsnap_plan_free(plan);
    if (fd >= 0) {
        close(fd);
    }
    return result;
}

int host_load_with(struct host *host, dmsnap_loader *loader)
{
    dmsnap_plan *plan = NULL;
    uint64_t flushes = 0;
    int result;

    while ((result = dmsnap_loader_next_plan(loader, &plan)) == 0 && plan != NULL) {
        result = run_steps(host->cow, -1, plan, &flushes);
        if (result != 0) {
            dmsnap_plan_free(plan);
            break;
        }
        result = dmsnap_loader_finish_plan(loader, plan);
        if (result != 0) {
            break;
        }
    }
    if (result != 0) {
        dmsnap_loader_free(loader);
        return result;
    }
    return dmsnap_loader_finish(loader, &host->store);
}

static int load(struct host *host, const dmsnap_load_options *options)
{
    dmsnap_loader *loader;
    int result = dmsnap_loader_new(options, &loader);

    return result != 0 ? result : host_load_with(host, loader);
}

static int size_of_fd(int fd, uint64_t *size)
{
    struct stat stat;

    if (fstat(fd, &stat) != 0) {
        return -errno;
    }
    *size = (uint64_t)stat.st_size;
    return 0;
}

static int open_files(struct host *host, const char *cow, const char *origin, bool writable)
{
    host->origin = -1;
    host->cow = open(cow, writable ? O_RDWR : O_RDONLY);
    if (host->cow < 0) {
        return -errno;
    }
    if (origin == NULL) {
        return 0;
    }
    host->origin = open(origin, O_RDWR);
    return host->origin < 0 ? -errno : size_of_fd(host->origin, &host->origin_size);
}

int host_open(struct host *host, const char *cow, const char *origin, bool writable)
{
    dmsnap_store_facts facts = {.struct_size = sizeof(facts)};
    dmsnap_load_options *options = NULL;
    uint64_t size;
    int result;

    memset(host, 0, sizeof(*host));
    pthread_rwlock_init(&host->lock, NULL);
    pthread_mutex_init(&host->mutex, NULL);
    pthread_cond_init(&host->changed, NULL);
    result = open_files(host, cow, origin, writable);
    if (result == 0) {
        result = size_of_fd(host->cow, &size);
    }
    if (result == 0) {
        options = dmsnap_load_options_new(size);
        dmsnap_load_options_set_growable(options, true);
        dmsnap_load_options_set_writable(options, writable);
        dmsnap_load_options_set_overflow_mode(options, DMSNAP_OVERFLOW_MODE_NO_SPACE);
        if (origin != NULL) {
            dmsnap_load_options_set_origin_size(options, host->origin_size);
        }
        result = load(host, options);
        dmsnap_load_options_free(options);
    }
    if (result == 0) {
        result = dmsnap_store_info(host->store, &facts);
        host->chunk_size = facts.chunk_size;
        host->size = facts.virtual_size;
    }
    if (result == 0 && writable && facts.wants_repair) {
        result = dmsnap_store_prepare_repair(host->store);
        if (result == 0) {
            result = host_run_job(host);
        }
    }
    if (result != 0) {
        host_abandon(host);
    }
    return result;
}

void host_abandon(struct host *host)
{
    dmsnap_store_free(host->store);
    host->store = NULL;
    if (host->cow >= 0) {
        close(host->cow);
    }
    if (host->origin >= 0) {
        close(host->origin);
    }
    pthread_cond_destroy(&host->changed);
    pthread_mutex_destroy(&host->mutex);
    pthread_rwlock_destroy(&host->lock);
}

void host_close(struct host *host)
{
    dmsnap_plan *plan;

    if (host_flush(host) == 0) {
        while (dmsnap_store_reclaim(host->store, &plan) == 0 && plan != NULL) {
            if (host_run_plan(host, plan) != 0) {
                break;
            }
        }
        if (dmsnap_store_trim(host->store, &plan) == 0) {
            host_run_plan(host, plan);
        }
    }
    host_abandon(host);
}

/* Looks up where bytes are and pins what was found. */
static int look_up(struct host *host, bool writing, uint64_t offset, uint64_t len,
                   dmsnap_mapping *mapping, uint64_t *pin)
{
    int result;

    mapping->struct_size = sizeof(*mapping);
    pthread_rwlock_rdlock(&host->lock);
    result = writing ? dmsnap_store_map_write(host->store, offset, len, mapping)
                     : dmsnap_store_map(host->store, offset, len, mapping);
    *pin = dmsnap_store_pin(host->store);
    pthread_rwlock_unlock(&host->lock);
    return result;
}

static void unpin(struct host *host, uint64_t pin)
{
    if (dmsnap_store_unpin(host->store, pin)) {
        notify(host);
    }
}

static int read_origin(struct host *host, void *buffer, uint64_t len, uint64_t offset)
{
    if (host->origin < 0) {
        memset(buffer, 0, len);
        return 0;
    }
    return read_all(host->origin, buffer, len, offset);
}

int host_read(struct host *host, void *buffer, uint64_t len, uint64_t offset)
{
    char *at = buffer;

    while (len > 0) {
        dmsnap_mapping mapping;
        uint64_t pin;
        int result = look_up(host, false, offset, len, &mapping, &pin);

        if (result == 0) {
            result = mapping.target == DMSNAP_TARGET_COW
                         ? read_all(host->cow, at, mapping.len, mapping.offset)
                         : read_origin(host, at, mapping.len, mapping.offset);
        }
        unpin(host, pin);
        if (result != 0) {
            return result;
        }
        at += mapping.len;
        offset += mapping.len;
        len -= mapping.len;
    }
    return 0;
}

static int write_or_zero(int fd, const char *buffer, uint64_t len, uint64_t offset)
{
    return buffer == NULL ? zero(fd, len, offset) : write_all(fd, buffer, len, offset);
}

/* Fills `len` bytes of new chunks that nobody writes with what the disk reads there. */
static int fill_from_origin(struct host *host, uint64_t from, uint64_t to, uint64_t len)
{
    char piece[PIECE];
    int result = 0;

    while (len > 0 && result == 0) {
        uint64_t now = len < PIECE ? len : PIECE;
        uint64_t inside = from >= host->size ? 0 : host->size - from;
        memset(piece, 0, now);
        result = read_origin(host, piece, now < inside ? now : inside, from);
        if (result == 0) {
            result = write_all(host->cow, piece, now, to);
        }
        from += now;
        to += now;
        len -= now;
    }
    return result;
}

/* Gives new chunks their whole content: head, what is written, tail. */
static int fill_exception(struct host *host, const dmsnap_exception *exception, const char *buffer,
                          uint64_t len, uint64_t offset)
{
    uint64_t start = exception->old_chunk * host->chunk_size;
    uint64_t end = start + exception->count * host->chunk_size;
    uint64_t head = offset - start;
    uint64_t to = exception->cow_offset;
    int result = fill_from_origin(host, start, to, head);

    if (result == 0) {
        result = write_or_zero(host->cow, buffer, len, to + head);
    }
    if (result == 0) {
        result = fill_from_origin(host, offset + len, to + head + len, end - (offset + len));
    }
    return result;
}

/* A first write. Gives back how much of it was done: nothing if the caller has to look again. */
static int first_write(struct host *host, const char *buffer, uint64_t len, uint64_t offset,
                       uint64_t *done)
{
    uint64_t first = offset / host->chunk_size;
    uint64_t count = (offset + len - 1) / host->chunk_size - first + 1;
    dmsnap_exception exception = {.struct_size = sizeof(exception)};
    dmsnap_plan *plan = NULL;
    dmsnap_answer answer;
    uint64_t seen = changes(host);
    uint64_t covered;
    int result;

    *done = 0;
    pthread_rwlock_wrlock(&host->lock);
    result = dmsnap_store_prepare_exception(host->store, first, count, &answer, &exception, &plan);
    pthread_rwlock_unlock(&host->lock);
    if (result != 0 || answer == DMSNAP_ANSWER_RETRY) {
        return result;
    }
    if (answer == DMSNAP_ANSWER_PLAN) {
        return host_run_plan(host, plan);
    }
    if (answer == DMSNAP_ANSWER_WAIT) {
        wait_for_change(host, seen);
        return 0;
    }
    covered = (exception.old_chunk + exception.count) * host->chunk_size - offset;
    covered = covered < len ? covered : len;
    result = fill_exception(host, &exception, buffer, covered, offset);
    pthread_rwlock_wrlock(&host->lock);
    if (result == 0) {
        result = dmsnap_store_complete_exception(host->store, exception.id);
    } else {
        dmsnap_store_abort_exception(host->store, exception.id);
    }
    pthread_rwlock_unlock(&host->lock);
    notify(host);
    *done = covered;
    return result;
}

static int write_piece(struct host *host, const char *buffer, uint64_t len, uint64_t offset,
                       uint64_t *done)
{
    dmsnap_mapping mapping;
    uint64_t seen = changes(host);
    uint64_t pin;
    int result = look_up(host, true, offset, len, &mapping, &pin);

    *done = 0;
    if (result == 0 && mapping.target == DMSNAP_TARGET_COW) {
        result = write_or_zero(host->cow, buffer, mapping.len, mapping.offset);
        *done = mapping.len;
    } else if (result == 0 && mapping.target == DMSNAP_TARGET_ORIGIN) {
        result = write_or_zero(host->origin, buffer, mapping.len, mapping.offset);
        *done = mapping.len;
    }
    unpin(host, pin);
    if (result != 0 || *done > 0) {
        return result;
    }
    if (mapping.target == DMSNAP_TARGET_WAIT) {
        wait_for_change(host, seen);
        return 0;
    }
    return first_write(host, buffer, mapping.len, offset, done);
}

static int write_or_zero_range(struct host *host, const char *buffer, uint64_t len,
                               uint64_t offset)
{
    bool commit;

    while (len > 0) {
        uint64_t done;
        int result = write_piece(host, buffer, len, offset, &done);

        if (result != 0) {
            return result;
        }
        if (buffer != NULL) {
            buffer += done;
        }
        offset += done;
        len -= done;
    }
    pthread_rwlock_rdlock(&host->lock);
    commit = dmsnap_store_should_commit(host->store);
    pthread_rwlock_unlock(&host->lock);
    return commit ? host_flush(host) : 0;
}

int host_write(struct host *host, const void *buffer, uint64_t len, uint64_t offset)
{
    return write_or_zero_range(host, buffer, len, offset);
}

int host_write_zeroes(struct host *host, uint64_t len, uint64_t offset)
{
    return write_or_zero_range(host, NULL, len, offset);
}

int host_flush(struct host *host)
{
    for (;;) {
        dmsnap_answer answer;
        dmsnap_plan *plan;
        uint64_t seen = changes(host);
        int result;

        pthread_rwlock_wrlock(&host->lock);
        result = dmsnap_store_commit_exceptions(host->store, &answer, &plan);
        pthread_rwlock_unlock(&host->lock);
        if (result != 0) {
            return result;
        }
        if (answer == DMSNAP_ANSWER_WAIT) {
            wait_for_change(host, seen);
            continue;
        }
        if (answer == DMSNAP_ANSWER_PLAN) {
            result = host_run_plan(host, plan);
            if (result != 0) {
                return result;
            }
            continue;
        }
        if (fdatasync(host->cow) == 0) {
            return 0;
        }
        result = -errno;
        pthread_rwlock_wrlock(&host->lock);
        dmsnap_store_fail(host->store, result);
        pthread_rwlock_unlock(&host->lock);
        return result;
    }
}

int host_run_job(struct host *host)
{
    for (;;) {
        dmsnap_answer answer;
        dmsnap_plan *plan;
        uint64_t seen = changes(host);
        int result;

        pthread_rwlock_wrlock(&host->lock);
        result = dmsnap_store_next_plan(host->store, &answer, &plan);
        pthread_rwlock_unlock(&host->lock);
        if (result != 0 || answer == DMSNAP_ANSWER_DONE) {
            notify(host);
            return result;
        }
        if (answer == DMSNAP_ANSWER_WAIT) {
            wait_for_change(host, seen);
            continue;
        }
        result = host_run_plan(host, plan);
        if (result != 0) {
            return result;
        }
    }
}

int host_merge(struct host *host)
{
    int result;

    if (host->origin_size < host->size) {
        if (ftruncate(host->origin, (off_t)host->size) != 0) {
            return -errno;
        }
        host->origin_size = host->size;
    }
    pthread_rwlock_wrlock(&host->lock);
    result = dmsnap_store_prepare_merge(host->store, host->origin_size);
    pthread_rwlock_unlock(&host->lock);
    return result != 0 ? result : host_run_job(host);
}

int host_resize(struct host *host, uint64_t size)
{
    dmsnap_store_facts facts = {.struct_size = sizeof(facts)};
    int result;

    pthread_rwlock_wrlock(&host->lock);
    result = dmsnap_store_prepare_resize(host->store, size, host->origin_size);
    pthread_rwlock_unlock(&host->lock);
    if (result == 0) {
        result = host_run_job(host);
    }
    if (result == 0) {
        result = dmsnap_store_info(host->store, &facts);
        host->size = facts.virtual_size;
    }
    return result;
}

int host_check(const char *path, dmsnap_check_report **report)
{
    dmsnap_load_options *options;
    dmsnap_check_reader *reader;
    dmsnap_plan *plan = NULL;
    uint64_t flushes = 0;
    uint64_t size;
    int fd = open(path, O_RDONLY);
    int result;

    if (fd < 0) {
        return -errno;
    }
    result = size_of_fd(fd, &size);
    options = dmsnap_load_options_new(size);
    if (result == 0) {
        result = dmsnap_check_reader_new(options, &reader);
    }
    dmsnap_load_options_free(options);
    if (result != 0) {
        close(fd);
        return result;
    }
    while ((result = dmsnap_check_reader_next_plan(reader, &plan)) == 0 && plan != NULL) {
        result = run_steps(fd, -1, plan, &flushes);
        if (result != 0) {
            dmsnap_plan_free(plan);
            break;
        }
        result = dmsnap_check_reader_finish_plan(reader, plan);
        if (result != 0) {
            break;
        }
    }
    close(fd);
    if (result != 0) {
        dmsnap_check_reader_free(reader);
        return result;
    }
    return dmsnap_check_reader_finish(reader, report);
}
