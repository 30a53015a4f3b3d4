/* A small host of the store without I/O, as a block driver would be: it does all I/O itself,
 * with pread and pwrite on two files, under a read-write lock, from any number of threads. */
#ifndef HOST_H
#define HOST_H

#include <dmsnap.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct host {
    dmsnap_store *store;
    int cow;
    /* -1: no origin, zeros. */
    int origin;
    uint64_t origin_size;
    uint64_t chunk_size;
    uint64_t size;
    /* Look-ups hold it shared, everything else exclusively; nobody holds it during I/O. */
    pthread_rwlock_t lock;
    /* Wakes those who were told to wait. */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint64_t changes;
    /* What ran. */
    uint64_t plans;
    uint64_t flushes;
    /* The next write to the COW file fails with this negative errno, if it is not 0. */
    int fail_next_write;
};

/* All return 0 or a negative errno. */
int host_format(const char *path, uint64_t chunk_size, const dmsnap_descriptor *descriptor);
int host_open(struct host *host, const char *cow, const char *origin, bool writable);
/* Takes the loader over and gives the store. */
int host_load_with(struct host *host, dmsnap_loader *loader);
int host_read(struct host *host, void *buffer, uint64_t len, uint64_t offset);
int host_write(struct host *host, const void *buffer, uint64_t len, uint64_t offset);
/* NULL as the buffer of a write: zeros. */
int host_write_zeroes(struct host *host, uint64_t len, uint64_t offset);
int host_flush(struct host *host);
/* Runs the job that was begun to its end. */
int host_run_job(struct host *host);
int host_merge(struct host *host);
int host_resize(struct host *host, uint64_t size);
/* Runs a plan and gives it back; NULL is allowed. */
int host_run_plan(struct host *host, dmsnap_plan *plan);
void host_close(struct host *host);
/* Frees everything, commits nothing. */
void host_abandon(struct host *host);
/* What is read for a check. */
int host_check(const char *path, dmsnap_check_report **report);

#endif
