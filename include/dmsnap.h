/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/**
 * dmsnap: VM disk layers in the Linux device-mapper snapshot format.
 *
 * The contract in short; docs/c-api.md has it at length.
 *
 * Results. Functions that can fail return 0 or a negative errno, and leave what was wrong in
 * dmsnap_last_error_message() and dmsnap_last_error_kind(), which belong to the calling thread.
 * Outputs are written only on success. NULL is -EINVAL, but every ..._free() takes it. No panic of
 * the library reaches the caller: it becomes -EIO.
 *
 * Ownership. What a function gives out through a `T **` belongs to the caller, who ends it by one
 * call of the type's ..._free() (dmsnap_image_close() for an image). Strings and buffers that are
 * passed in are borrowed for the call; a `const char *` that is given out belongs to the object it
 * came from. Options are copied, storages are counted: both can be freed right after they were used.
 *
 * Threads. A `const` object can be used by several calls at the same time, all others by one at a
 * time. Freeing is the last call. The library starts no threads.
 *
 * Growth. Structures begin with `struct_size`, which the caller sets to the structure's size
 * before the call. A newer library fills what an older program knows, an older one zeroes what it
 * does not know.
 * Enums come in as uint32_t. Their numbers do not change; there may be more of them some day.
 *
 * Units. Offsets, lengths and sizes are in bytes, unless the name says sectors (of 512 bytes) or
 * chunks.
 *
 * Two halves. dmsnap_image is blocking and does its own I/O on files or through a host's callbacks.
 * dmsnap_store does no I/O at all: it is for a host with an I/O engine of its own, which asks where
 * bytes live, fills new chunks itself, and runs plans of reads, writes and flushes.
 */


#ifndef DMSNAP_H
#define DMSNAP_H

/* Generated from src/ffi by cbindgen: do not edit. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/**
 * Major version of the header.
 */
#define DMSNAP_VERSION_MAJOR 0

/**
 * Minor version of the header.
 */
#define DMSNAP_VERSION_MINOR 1

/**
 * Patch level of the header.
 */
#define DMSNAP_VERSION_PATCH 0

/**
 * The three in one number that can be compared.
 */
#define DMSNAP_VERSION_NUMBER (((DMSNAP_VERSION_MAJOR << 16) | (DMSNAP_VERSION_MINOR << 8)) | DMSNAP_VERSION_PATCH)

/**
 * What an error is, for programs. It tells apart what shares an errno.
 */
enum dmsnap_error_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * No call has failed on this thread.
   */
  DMSNAP_ERROR_KIND_NONE = 0,
  /**
   * The operating system or a host callback reported an I/O error.
   */
  DMSNAP_ERROR_KIND_IO = 1,
  /**
   * No space left for a new chunk. Nothing is lost; it goes on after space was added.
   */
  DMSNAP_ERROR_KIND_NO_SPACE = 2,
  /**
   * The file is not in a format this library reads.
   */
  DMSNAP_ERROR_KIND_INVALID_FORMAT = 3,
  /**
   * A version or a feature that this library does not know.
   */
  DMSNAP_ERROR_KIND_UNSUPPORTED = 4,
  /**
   * The file contradicts itself.
   */
  DMSNAP_ERROR_KIND_CORRUPT = 5,
  /**
   * The snapshot was invalidated: its header says that its data is no longer good.
   */
  DMSNAP_ERROR_KIND_SNAPSHOT_INVALID = 6,
  /**
   * The snapshot overflowed in the kernel's PO mode; it can be read, not written, until it is
   * reopened.
   */
  DMSNAP_ERROR_KIND_OVERFLOW = 7,
  /**
   * A merge stopped on an error; the pair of origin and COW still holds all data.
   */
  DMSNAP_ERROR_KIND_MERGE_FAILED = 8,
  /**
   * An offset or length is outside the image.
   */
  DMSNAP_ERROR_KIND_OUT_OF_BOUNDS = 9,
  /**
   * An argument is wrong in itself.
   */
  DMSNAP_ERROR_KIND_INVALID_ARGUMENT = 10,
  /**
   * A write to something opened read-only.
   */
  DMSNAP_ERROR_KIND_READ_ONLY = 11,
  /**
   * Somebody else holds the file, or an operation that excludes this one is under way.
   */
  DMSNAP_ERROR_KIND_BUSY = 12,
  /**
   * An earlier failed flush or metadata write: the handle writes no more until reopened.
   */
  DMSNAP_ERROR_KIND_PREVIOUS_IO = 13,
  /**
   * A file does not exist.
   */
  DMSNAP_ERROR_KIND_NOT_FOUND = 14,
  /**
   * A file exists already.
   */
  DMSNAP_ERROR_KIND_EXISTS = 15,
  /**
   * The operating system denied access.
   */
  DMSNAP_ERROR_KIND_PERMISSION = 16,
  /**
   * The image names a file that the caller did not allow to open.
   */
  DMSNAP_ERROR_KIND_ORIGIN_REFUSED = 17,
  /**
   * The origin is not the one the image was made over.
   */
  DMSNAP_ERROR_KIND_ORIGIN_MISMATCH = 18,
  /**
   * The chain of origins is too long or contains itself.
   */
  DMSNAP_ERROR_KIND_CHAIN_TOO_DEEP = 19,
  /**
   * A host callback called into the handle it was called from.
   */
  DMSNAP_ERROR_KIND_DEADLOCK = 20,
  /**
   * The caller cancelled the operation.
   */
  DMSNAP_ERROR_KIND_CANCELLED = 21,
  /**
   * Memory for a size that a file or a caller asked for could not be had.
   */
  DMSNAP_ERROR_KIND_NO_MEMORY = 22,
  /**
   * A defect in this library was caught at its border.
   */
  DMSNAP_ERROR_KIND_INTERNAL = 23,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum dmsnap_error_kind dmsnap_error_kind;
#else
typedef uint32_t dmsnap_error_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The kernel's status of a snapshot.
 */
enum dmsnap_status_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * In use; the figures count.
   */
  DMSNAP_STATUS_KIND_ACTIVE = 1,
  /**
   * "Invalid".
   */
  DMSNAP_STATUS_KIND_INVALID = 2,
  /**
   * "Merge failed".
   */
  DMSNAP_STATUS_KIND_MERGE_FAILED = 3,
  /**
   * "Overflow".
   */
  DMSNAP_STATUS_KIND_OVERFLOW = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum dmsnap_status_kind dmsnap_status_kind;
#else
typedef uint32_t dmsnap_status_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a range of an image holds.
 */
enum dmsnap_extent_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Bytes that have to be read.
   */
  DMSNAP_EXTENT_KIND_DATA = 1,
  /**
   * Known to read as zeros.
   */
  DMSNAP_EXTENT_KIND_ZERO = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum dmsnap_extent_kind dmsnap_extent_kind;
#else
typedef uint32_t dmsnap_extent_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a store can do at the moment.
 */
enum dmsnap_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Reads and writes.
   */
  DMSNAP_STATE_ACTIVE = 1,
  /**
   * A merge is under way: no new exceptions, first writes go to the origin.
   */
  DMSNAP_STATE_MERGING = 2,
  /**
   * A merge stopped on an error. COW and origin together are whole and are used as during a
   * merge.
   */
  DMSNAP_STATE_MERGE_FAILED = 3,
  /**
   * Full in mode PO: reads only.
   */
  DMSNAP_STATE_OVERFLOW = 4,
  /**
   * Invalidated: neither reads nor writes.
   */
  DMSNAP_STATE_INVALID = 5,
  /**
   * A metadata write or a flush failed: reads only, until opened again.
   */
  DMSNAP_STATE_FAILED = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum dmsnap_state dmsnap_state;
#else
typedef uint32_t dmsnap_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Format of a file in a chain.
 */
enum dmsnap_format
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The bytes of the disk.
   */
  DMSNAP_FORMAT_RAW = 1,
  /**
   * A COW layer in the snapshot format.
   */
  DMSNAP_FORMAT_DMSNAP = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum dmsnap_format dmsnap_format;
#else
typedef uint32_t dmsnap_format;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How bad a finding is.
 */
enum dmsnap_severity
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Worth knowing, harmless.
   */
  DMSNAP_SEVERITY_NOTE = 1,
  /**
   * Space that nothing uses.
   */
  DMSNAP_SEVERITY_LEAK = 2,
  /**
   * The trace of an interrupted operation; a repair finishes it.
   */
  DMSNAP_SEVERITY_REPAIRABLE = 3,
  /**
   * Data is lost or may be wrong.
   */
  DMSNAP_SEVERITY_CORRUPTION = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum dmsnap_severity dmsnap_severity;
#else
typedef uint32_t dmsnap_severity;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What was found.
 */
enum dmsnap_finding_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The header says that the snapshot is invalid.
   */
  DMSNAP_FINDING_KIND_INVALID = 1,
  /**
   * The image descriptor is damaged.
   */
  DMSNAP_FINDING_KIND_DESCRIPTOR = 2,
  /**
   * A record names a COW chunk outside the file, one that holds metadata, or one that no file
   * can have.
   */
  DMSNAP_FINDING_KIND_ILLEGAL_NEW_CHUNK = 3,
  /**
   * Two records for one chunk.
   */
  DMSNAP_FINDING_KIND_DUPLICATE_OLD_CHUNK = 4,
  /**
   * One COW chunk in two records.
   */
  DMSNAP_FINDING_KIND_SHARED_NEW_CHUNK = 5,
  /**
   * A record stands twice.
   */
  DMSNAP_FINDING_KIND_REPEATED_RECORD = 6,
  /**
   * An exception for a chunk past the end of the disk.
   */
  DMSNAP_FINDING_KIND_PAST_END = 7,
  /**
   * Something other than zeros behind the last record.
   */
  DMSNAP_FINDING_KIND_STALE_SLOTS = 8,
  /**
   * A full area without the next one.
   */
  DMSNAP_FINDING_KIND_MISSING_AREA = 9,
  /**
   * Space that no record uses.
   */
  DMSNAP_FINDING_KIND_LEAK = 10,
  /**
   * The file ends inside the COW chunk of a record.
   */
  DMSNAP_FINDING_KIND_TRUNCATED_DATA = 11,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum dmsnap_finding_kind dmsnap_finding_kind;
#else
typedef uint32_t dmsnap_finding_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What the header of a damaged store says.
 */
enum dmsnap_header_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * It is good, and so is the store, as far as the header goes.
   */
  DMSNAP_HEADER_STATE_VALID = 1,
  /**
   * The store was invalidated.
   */
  DMSNAP_HEADER_STATE_INVALIDATED = 2,
  /**
   * It is no header.
   */
  DMSNAP_HEADER_STATE_DAMAGED = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum dmsnap_header_state dmsnap_header_state;
#else
typedef uint32_t dmsnap_header_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Why a record is left out of a recovery.
 */
enum dmsnap_doubt
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Its COW chunk lies outside the file, or no file can have it.
   */
  DMSNAP_DOUBT_OUT_OF_RANGE = 1,
  /**
   * The file ends inside its COW chunk.
   */
  DMSNAP_DOUBT_TRUNCATED = 2,
  /**
   * Its COW chunk holds metadata.
   */
  DMSNAP_DOUBT_METADATA = 3,
  /**
   * Its chunk has another exception too, with other data.
   */
  DMSNAP_DOUBT_DUPLICATE_OLD_CHUNK = 4,
  /**
   * Another record has its COW chunk too.
   */
  DMSNAP_DOUBT_SHARED_NEW_CHUNK = 5,
  /**
   * Its chunk lies past the end of the disk, so it shows nothing.
   */
  DMSNAP_DOUBT_PAST_END = 6,
  /**
   * Its COW chunk cannot be read.
   */
  DMSNAP_DOUBT_UNREADABLE = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum dmsnap_doubt dmsnap_doubt;
#else
typedef uint32_t dmsnap_doubt;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a plan is for; of interest to traces.
 */
enum dmsnap_purpose
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Create a store.
   */
  DMSNAP_PURPOSE_FORMAT = 1,
  /**
   * Read header, descriptor and metadata areas.
   */
  DMSNAP_PURPOSE_READ_METADATA = 2,
  /**
   * Make room for further exceptions: extend the file, zero the next metadata areas.
   */
  DMSNAP_PURPOSE_RESERVE = 3,
  /**
   * Make completed exceptions durable.
   */
  DMSNAP_PURPOSE_COMMIT = 4,
  /**
   * Copy exceptions into the origin and clear their records.
   */
  DMSNAP_PURPOSE_MERGE = 5,
  /**
   * Remove records from the log, or empty it.
   */
  DMSNAP_PURPOSE_DROP = 6,
  /**
   * Zero what growing uncovers.
   */
  DMSNAP_PURPOSE_GROW = 7,
  /**
   * Write the image descriptor.
   */
  DMSNAP_PURPOSE_DESCRIPTOR = 8,
  /**
   * Invalidate the store.
   */
  DMSNAP_PURPOSE_INVALIDATE = 9,
  /**
   * Give back the space of chunks that nothing refers to.
   */
  DMSNAP_PURPOSE_RECLAIM = 10,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum dmsnap_purpose dmsnap_purpose;
#else
typedef uint32_t dmsnap_purpose;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a step asks for.
 */
enum dmsnap_step_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Read `len` bytes at `offset`, into what `dmsnap_plan_buffer` gives, or hand them to
   * `dmsnap_plan_supply`.
   */
  DMSNAP_STEP_TYPE_READ = 1,
  /**
   * Write the `len` bytes at `data` to `offset`.
   */
  DMSNAP_STEP_TYPE_WRITE = 2,
  /**
   * Make `len` bytes at `offset` read as zeros. With `unmap` space may be given back, else the
   * range shall end up with space.
   */
  DMSNAP_STEP_TYPE_WRITE_ZEROES = 3,
  /**
   * Copy `len` bytes from `offset` of `device` to `to_offset` of `to_device`.
   */
  DMSNAP_STEP_TYPE_COPY = 4,
  /**
   * Give space back; nothing depends on whether that happens.
   */
  DMSNAP_STEP_TYPE_DISCARD = 5,
  /**
   * Make the device `len` bytes long. A barrier. New bytes read as zeros, as those of a file
   * do: a host whose device keeps old content there zeroes them.
   */
  DMSNAP_STEP_TYPE_SET_SIZE = 6,
  /**
   * Wait until everything written to the device before is durable. A barrier.
   */
  DMSNAP_STEP_TYPE_FLUSH = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum dmsnap_step_type dmsnap_step_type;
#else
typedef uint32_t dmsnap_step_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which device a step is about.
 */
enum dmsnap_device
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The COW file.
   */
  DMSNAP_DEVICE_COW = 1,
  /**
   * What lies below: a raw file or another layer.
   */
  DMSNAP_DEVICE_ORIGIN = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum dmsnap_device dmsnap_device;
#else
typedef uint32_t dmsnap_device;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Where bytes are read from or written to.
 */
enum dmsnap_target
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The COW file, at the offset that is told.
   */
  DMSNAP_TARGET_COW = 1,
  /**
   * The origin, at the offset that was asked for. Reads past the origin's end give zeros.
   */
  DMSNAP_TARGET_ORIGIN = 2,
  /**
   * Writes only: a new exception is needed, see `dmsnap_store_prepare_exception`.
   */
  DMSNAP_TARGET_UNMAPPED = 3,
  /**
   * Writes only: nowhere yet; another write prepares the first chunk, or a merge copies it. Wait
   * and ask again.
   */
  DMSNAP_TARGET_WAIT = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum dmsnap_target dmsnap_target;
#else
typedef uint32_t dmsnap_target;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Answer of a call that may have something for the host to do first.
 */
enum dmsnap_answer
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Chunks were allocated: fill them wholly, then complete or abort the exception.
   */
  DMSNAP_ANSWER_READY = 1,
  /**
   * Run this plan, finish it, then ask again.
   */
  DMSNAP_ANSWER_PLAN = 2,
  /**
   * Something is under way elsewhere: wait until an exception was completed or aborted, a plan
   * was finished, or an unpin said so; then ask again.
   */
  DMSNAP_ANSWER_WAIT = 3,
  /**
   * The first chunk needs no exception any more: map it again.
   */
  DMSNAP_ANSWER_RETRY = 4,
  /**
   * No record is missing on disk. Flush the COW file for the data's sake.
   */
  DMSNAP_ANSWER_CLEAN = 5,
  /**
   * The job is done.
   */
  DMSNAP_ANSWER_DONE = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum dmsnap_answer dmsnap_answer;
#else
typedef uint32_t dmsnap_answer;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Where the content of chunks without an exception comes from, as far as no file is named.
 */
enum dmsnap_origin_choice
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Open no file that an image names: an image that names one, or a bare store, is refused with
   * `-EACCES`. The default.
   */
  DMSNAP_ORIGIN_CHOICE_REFUSE = 0,
  /**
   * Follow the names that the images store. Only for images from somebody you trust with every
   * file you can read.
   */
  DMSNAP_ORIGIN_CHOICE_FROM_IMAGE = 1,
  /**
   * No origin, whatever the image says: zeros.
   */
  DMSNAP_ORIGIN_CHOICE_ZEROS = 2,
  /**
   * Follow the names that the images store, but only relative ones without `..`; others are refused
   * with `-EACCES`. For images that a guest may have written.
   */
  DMSNAP_ORIGIN_CHOICE_FROM_IMAGE_INSIDE = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum dmsnap_origin_choice dmsnap_origin_choice;
#else
typedef uint32_t dmsnap_origin_choice;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What happens when a COW device of fixed size has no chunk left.
 */
enum dmsnap_overflow_mode
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * First writes fail with `-ENOSPC`; everything else goes on. The default.
   */
  DMSNAP_OVERFLOW_MODE_NO_SPACE = 0,
  /**
   * As the kernel's P: the snapshot is invalidated, on disk too.
   */
  DMSNAP_OVERFLOW_MODE_PERSISTENT = 1,
  /**
   * As the kernel's PO: every write fails from then on, reads go on; reopening ends it.
   */
  DMSNAP_OVERFLOW_MODE_PERSISTENT_OVERFLOW = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum dmsnap_overflow_mode dmsnap_overflow_mode;
#else
typedef uint32_t dmsnap_overflow_mode;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Lock on a file, by the rules of QEMU's file driver.
 */
enum dmsnap_lock_mode
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * None: for readers that only inspect.
   */
  DMSNAP_LOCK_MODE_NONE = 0,
  /**
   * Reads, and keeps others from writing and resizing.
   */
  DMSNAP_LOCK_MODE_READER = 1,
  /**
   * Reads and writes, and keeps others from writing.
   */
  DMSNAP_LOCK_MODE_WRITER = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum dmsnap_lock_mode dmsnap_lock_mode;
#else
typedef uint32_t dmsnap_lock_mode;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a check repairs.
 */
enum dmsnap_repair
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Nothing: the file is only read.
   */
  DMSNAP_REPAIR_NONE = 0,
  /**
   * Leaks: space that nothing refers to is given back.
   */
  DMSNAP_REPAIR_LEAKS = 1,
  /**
   * Leaks and every finding that is repairable.
   */
  DMSNAP_REPAIR_ALL = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum dmsnap_repair dmsnap_repair;
#else
typedef uint32_t dmsnap_repair;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What to change about an image's descriptor. What is not named stays. For one thread at a time.
 */
typedef struct dmsnap_amend_options dmsnap_amend_options;

/**
 * How an image is checked. Copied by the calls that take it. For one thread at a time.
 */
typedef struct dmsnap_check_options dmsnap_check_options;

/**
 * Reads a store for a check: used as a loader, but goes on where that one refuses. For one thread
 * at a time.
 */
typedef struct dmsnap_check_reader dmsnap_check_reader;

/**
 * What a check found, and what a repair changed. Does not change; may be used by several threads
 * at once.
 */
typedef struct dmsnap_check_report dmsnap_check_report;

/**
 * What image is created. Copied by the calls that take it. For one thread at a time.
 */
typedef struct dmsnap_create_options dmsnap_create_options;

/**
 * What an image knows about itself: size, identity, and the name of its origin. A bare store has
 * none.
 *
 * For one thread at a time.
 */
typedef struct dmsnap_descriptor dmsnap_descriptor;

/**
 * How a file is opened. For one thread at a time.
 */
typedef struct dmsnap_file_options dmsnap_file_options;

/**
 * An open image: a COW layer over its origins. All calls but `dmsnap_image_close` may be made from
 * any number of threads at once.
 *
 * A write is visible when it returned, and durable when a flush that began later has returned.
 */
typedef struct dmsnap_image dmsnap_image;

/**
 * Facts about an image, as they were when they were asked for. May be used by several threads at
 * once.
 */
typedef struct dmsnap_info dmsnap_info;

/**
 * How a store is loaded. For one thread at a time.
 */
typedef struct dmsnap_load_options dmsnap_load_options;

/**
 * Turns the bytes of a COW file into a store (the kernel's `read_metadata`, which does the reading
 * itself). For one thread at a time.
 */
typedef struct dmsnap_loader dmsnap_loader;

/**
 * A merge in steps. Reads and writes of the image go on between and during the steps. For one
 * thread at a time.
 */
typedef struct dmsnap_merge dmsnap_merge;

/**
 * How an image is opened. Copied by the calls that take it. For one thread at a time.
 */
typedef struct dmsnap_open_options dmsnap_open_options;

/**
 * Steps that the store half asks its host to run, and their order.
 *
 * `DMSNAP_STEP_TYPE_FLUSH` and `DMSNAP_STEP_TYPE_SET_SIZE` are barriers: they begin when every
 * step before them has ended, and steps behind them begin when they have ended. Steps between two
 * barriers touch different bytes and may run in any order or at once. A plan owns its bytes.
 * Running it twice, or again after it failed half-way, does no harm.
 *
 * A plan goes back to what gave it out, by the `finish_plan` of that type, also when a step
 * failed. One thread at a time may use it, but its steps may be carried out by many.
 */
typedef struct dmsnap_plan dmsnap_plan;

/**
 * How a damaged layer is recovered. Copied by the call that takes it. For one thread at a time.
 */
typedef struct dmsnap_recover_options dmsnap_recover_options;

/**
 * What a recovery found and did. Does not change; may be used by several threads at once.
 */
typedef struct dmsnap_recover_report dmsnap_recover_report;

/**
 * Where bytes live: a file, a block device, memory, or a host's callbacks. May be used by several
 * threads at once. What uses a storage holds a reference of its own, so it can be freed right
 * after it was handed over.
 *
 * Images, checks and new images that use one storage meet as programs do that lock one file: who
 * writes is alone, others get `-EBUSY`. Several can share what they only read, such as the origin
 * of several layers, until one of these wants to merge into it.
 */
typedef struct dmsnap_storage dmsnap_storage;

/**
 * The exception store of one layer. It decides and does no I/O: the host does that, and runs the
 * plans it is given.
 *
 * Calls that take a `const` store may run at the same time as each other. The host keeps all other
 * calls apart, from each other and from those, as with a read-write lock. `dmsnap_store_unpin`
 * alone may be called at any time.
 */
typedef struct dmsnap_store dmsnap_store;

/**
 * I/O that a host does for a storage. Set `struct_size`, and all that is not used to zero or NULL.
 *
 * Callbacks run only on threads that are inside a call of this library on that host's behalf,
 * several at once if the host calls from several threads, and never while the library holds a lock
 * that another call needs, with one exception: where `request_alignment` is above 1, writers of
 * the same blocks wait for each other. So while `pwritev` runs, or `preadv` for the rest of a
 * block that is written in part, or `write_zeroes`, or `discard`, others who change those blocks
 * wait, and while `set_size` runs or waits all who change the storage do: who comes first is served
 * first. Reads and flushes never wait. A callback must not wait for another change to its own
 * storage. Callbacks must not use the image that they are called for: that gives `-EDEADLK`. They
 * must return, neither throwing nor jumping. What they are given is theirs for the duration of the
 * call. They return 0, or a number of bytes, or a negative errno. `-EINTR` has them called again.
 */
typedef struct dmsnap_storage_ops {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * Handed to every callback.
   */
  void *opaque;
  /**
   * Fills the buffers, or a beginning of them, from `offset`. Returns how many bytes that was; 0
   * only at the end. Required.
   */
  int64_t (*preadv)(void *opaque, const struct iovec *iov, int iovcnt, uint64_t offset);
  /**
   * Writes the buffers, or a beginning of them, at `offset`, past the end too if there is
   * `set_size`. Returns how many bytes that was, at least 1. Required.
   */
  int64_t (*pwritev)(void *opaque, const struct iovec *iov, int iovcnt, uint64_t offset);
  /**
   * Makes durable what was written before. Required. `-ENOSPC` and `-EDQUOT` promise that nothing
   * of it is lost, so that flushing again helps once there is space; `fdatasync` promises no such
   * thing. A host that cannot promise it returns `-EIO`.
   */
  int (*flush)(void *opaque);
  /**
   * Tells the size in bytes. Required.
   */
  int (*size)(void *opaque, uint64_t *size);
  /**
   * Changes the size; new bytes read as zeros. `size` need not be a multiple of `request_alignment`:
   * a host that knows no other sizes takes the next larger one. NULL: the size is fixed, as a
   * device's.
   */
  int (*set_size)(void *opaque, uint64_t size);
  /**
   * Makes a range read as zeros; with `unmap` space may be given back. NULL, or `-ENOTSUP`:
   * zeros are written.
   */
  int (*write_zeroes)(void *opaque, uint64_t offset, uint64_t len, bool unmap);
  /**
   * Takes note that nobody needs the content of a range any more. May be NULL.
   */
  int (*discard)(void *opaque, uint64_t offset, uint64_t len);
  /**
   * Tells how many bytes from `offset`, which lies inside, are equally allocated, and whether
   * they are. What is not allocated reads as zeros. NULL: everything is allocated.
   */
  int (*extents)(void *opaque, uint64_t offset, uint64_t *len, bool *allocated);
  /**
   * Called once with `opaque`, when the last user of the storage is gone; also if the call that
   * was to take it fails, unless it fails because the structure is NULL or its `struct_size` is
   * none (`-EINVAL`): of a structure with fields that this library does not know (`-ENOTSUP`)
   * this one is known all the same. No other callback runs after it. May be NULL.
   */
  void (*free)(void *opaque);
  /**
   * Offsets and lengths of transfers, and the size, are multiples of this; a power of two up to
   * 1 MiB. 0 is as good as 1.
   */
  uint32_t request_alignment;
  /**
   * Buffers start at multiples of this; a power of two up to 1 MiB. 0 is as good as 1.
   */
  uint32_t memory_alignment;
} dmsnap_storage_ops;

/**
 * The kernel's status of a snapshot. Set `struct_size` before the call.
 */
typedef struct dmsnap_status {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * Which it is. The figures of `dmsnap_usage` have a meaning if it is
   * `DMSNAP_STATUS_KIND_ACTIVE`.
   */
  dmsnap_status_kind kind;
  /**
   * The kernel's words, as `dmsetup status` shows them: "80/2048 16", "Invalid", "Merge failed"
   * or "Overflow".
   */
  char text[64];
} dmsnap_status;

/**
 * The kernel's figures of a snapshot, in sectors of 512 bytes. Set `struct_size` before the call.
 */
typedef struct dmsnap_usage {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * Sectors handed out, with header, metadata areas and holes.
   */
  uint64_t sectors_allocated;
  /**
   * Size of the COW device.
   */
  uint64_t total_sectors;
  /**
   * Header and metadata areas up to the current one.
   */
  uint64_t metadata_sectors;
} dmsnap_usage;

/**
 * Exceptions whose old and new chunks both follow each other. Set `struct_size` before the call.
 */
typedef struct dmsnap_run {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * First chunk of the snapshot.
   */
  uint64_t old_chunk;
  /**
   * First chunk of the COW file.
   */
  uint64_t new_chunk;
  /**
   * Number of chunks. 0: there are no more exceptions.
   */
  uint64_t count;
} dmsnap_run;

/**
 * A run of the disk that one layer answers for. Set `struct_size` before the call.
 */
typedef struct dmsnap_extent {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * First byte in the image: what was asked for.
   */
  uint64_t start;
  /**
   * Number of bytes.
   */
  uint64_t len;
  /**
   * First byte in the file of the layer that answers, `UINT64_MAX` if no layer holds the range.
   */
  uint64_t offset;
  /**
   * The layer that answers: 0 is the top, 1 its origin, and so on.
   */
  uint32_t depth;
  /**
   * Whether it is known to be zeros.
   */
  dmsnap_extent_kind kind;
  /**
   * Whether that layer holds the range. If not, no layer does, and it reads as zeros.
   */
  bool present;
  /**
   * Whether the bytes occupy space in that layer's file.
   */
  bool allocated;
} dmsnap_extent;

/**
 * How far a job or a merge is. Set `struct_size` before the call.
 */
typedef struct dmsnap_progress {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * Exceptions dealt with so far.
   */
  uint64_t done;
  /**
   * Exceptions in all.
   */
  uint64_t total;
  /**
   * Bytes copied into the origin, as far as the library did that.
   */
  uint64_t bytes_copied;
} dmsnap_progress;

/**
 * The numbers of an image. Set `struct_size` before the call.
 */
typedef struct dmsnap_facts {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * Size of the disk in bytes. A bare store without a known origin: up to the end of its last
   * exception.
   */
  uint64_t virtual_size;
  /**
   * Bytes in a chunk.
   */
  uint64_t chunk_size;
  /**
   * Number of exceptions.
   */
  uint64_t exceptions;
  /**
   * Length of the file in bytes.
   */
  uint64_t file_size;
  /**
   * Bytes that the file occupies, `UINT64_MAX` where that is not known.
   */
  uint64_t allocated_bytes;
  /**
   * Layers that `dmsnap_info_layer` knows, the top included: as far as they are open.
   */
  uint64_t layers;
  /**
   * Warnings that `dmsnap_info_warning` knows.
   */
  uint64_t warnings;
  /**
   * State of the store.
   */
  dmsnap_state state;
  /**
   * Whether it is a bare store, without an image descriptor.
   */
  bool bare;
} dmsnap_facts;

/**
 * One file of a chain. Set `struct_size` before the call. The strings belong to the info.
 */
typedef struct dmsnap_layer {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * The file; NULL for a storage that the host supplied.
   */
  const char *path;
  /**
   * What errors call it.
   */
  const char *name;
  /**
   * Name of its origin as stored; NULL if there is none.
   */
  const char *origin_name;
  /**
   * Size in bytes of the disk that it shows.
   */
  uint64_t virtual_size;
  /**
   * Its format.
   */
  dmsnap_format format;
  /**
   * Its UUID, zero if it has none.
   */
  uint8_t uuid[16];
} dmsnap_layer;

/**
 * The figures of a check. Set `struct_size` before the call. Those about leaks and repairs are of
 * the blocking half: a host of the store half finds leaks itself, see `dmsnap_check_report_hole`.
 */
typedef struct dmsnap_check_summary {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * Findings that are listed, at most 1000 of a kind.
   */
  uint64_t findings;
  /**
   * Ranges below `next_free` that no record uses.
   */
  uint64_t holes;
  /**
   * Findings that are corruptions.
   */
  uint64_t corruptions;
  /**
   * Findings that a repair can mend.
   */
  uint64_t repairable;
  /**
   * Exceptions that are legal.
   */
  uint64_t exceptions;
  /**
   * Metadata areas in use.
   */
  uint64_t areas;
  /**
   * The chunk behind the highest one in use.
   */
  uint64_t next_free;
  /**
   * Bytes in a chunk.
   */
  uint64_t chunk_size;
  /**
   * Chunks that no record refers to and that occupy space.
   */
  uint64_t leaks;
  /**
   * The bytes they occupy.
   */
  uint64_t leaked_bytes;
  /**
   * Findings that were repaired.
   */
  uint64_t repaired;
  /**
   * Leaked chunks whose space was given back.
   */
  uint64_t repaired_leaks;
  /**
   * Leaks that are left.
   */
  uint64_t remaining_leaks;
  /**
   * Repairable findings that are left.
   */
  uint64_t remaining_repairable;
  /**
   * Corruptions that are left; no repair touches them.
   */
  uint64_t remaining_corruptions;
} dmsnap_check_summary;

/**
 * One finding. Set `struct_size` before the call.
 */
typedef struct dmsnap_finding {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * How bad it is.
   */
  dmsnap_severity severity;
  /**
   * What it is.
   */
  dmsnap_finding_kind kind;
  /**
   * Byte in the COW file that it is about; `UINT64_MAX` if it is about none.
   */
  uint64_t offset;
  /**
   * The details. Belongs to the report.
   */
  const char *message;
} dmsnap_finding;

/**
 * The figures of a recovery. Set `struct_size` before the call.
 */
typedef struct dmsnap_recover_summary {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * What the header said. Of an invalidated store the log is complete only if no write to the
   * origin was the cause: what that replaced is lost, and the store does not tell.
   */
  dmsnap_header_state header;
  /**
   * Whether everything that the log held was recovered.
   */
  bool complete;
  /**
   * Whether recovering in place changed the file.
   */
  bool changed;
  /**
   * Bytes in a chunk.
   */
  uint64_t chunk_size;
  /**
   * Size of the disk in bytes; `UINT64_MAX` if nothing says it, the result is a bare store then.
   */
  uint64_t virtual_size;
  /**
   * Exceptions that were recovered.
   */
  uint64_t recovered;
  /**
   * Records that were left out, without those past the end of the disk.
   */
  uint64_t lost;
  /**
   * Records of chunks past the end of the disk, which show nothing.
   */
  uint64_t past_end;
  /**
   * Records that stood twice.
   */
  uint64_t repeated;
  /**
   * Records behind the end of the log, which were not looked at.
   */
  uint64_t stale;
  /**
   * The metadata area from which on the log is missing; `UINT64_MAX` if it is all there.
   */
  uint64_t missing_area;
  /**
   * Left out records that are listed, at most 1000.
   */
  uint64_t left_out;
} dmsnap_recover_summary;

/**
 * A record that was left out. Set `struct_size` before the call.
 */
typedef struct dmsnap_left_out {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * Why.
   */
  dmsnap_doubt doubt;
  /**
   * Its number in the log, counted from 0.
   */
  uint64_t index;
  /**
   * Its chunk of the disk.
   */
  uint64_t old_chunk;
  /**
   * Its chunk of the COW file.
   */
  uint64_t new_chunk;
} dmsnap_left_out;

/**
 * The numbers of a descriptor. Set `struct_size` before the call.
 */
typedef struct dmsnap_descriptor_info {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * Size of the image in bytes.
   */
  uint64_t virtual_size;
  /**
   * Counts up with each write of the descriptor.
   */
  uint64_t generation;
  /**
   * Features that a program may ignore.
   */
  uint64_t compatible_features;
  /**
   * Features that a program must know.
   */
  uint64_t incompatible_features;
  /**
   * Size of the origin in bytes when the layer was made; informative.
   */
  uint64_t origin_size;
  /**
   * Identity of the image.
   */
  uint8_t uuid[16];
  /**
   * Identity of the origin, zero where it has none or it is not known.
   */
  uint8_t origin_uuid[16];
} dmsnap_descriptor_info;

/**
 * One step of a plan. Set `struct_size` before the call.
 */
typedef struct dmsnap_step {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * What to do.
   */
  dmsnap_step_type type;
  /**
   * Where; for a copy, its source.
   */
  dmsnap_device device;
  /**
   * Where a copy goes. Else as `device`.
   */
  dmsnap_device to_device;
  /**
   * Zeroing only: whether space may be given back. If not, the range shall end up with space of
   * its own.
   */
  bool unmap;
  /**
   * Whether this step is a barrier.
   */
  bool barrier;
  /**
   * First byte; for a copy, in its source.
   */
  uint64_t offset;
  /**
   * Number of bytes; for a change of size, the new size.
   */
  uint64_t len;
  /**
   * First byte of a copy in its target.
   */
  uint64_t to_offset;
  /**
   * The bytes of a write, NULL for all others. They belong to the plan.
   */
  const uint8_t *data;
} dmsnap_step;

/**
 * The kernel's header at the start of a COW file. Set `struct_size` before the call.
 */
typedef struct dmsnap_header {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * 0 if the snapshot was invalidated.
   */
  uint32_t valid;
  /**
   * Version of the format.
   */
  uint32_t version;
  /**
   * Bytes in a chunk.
   */
  uint64_t chunk_size;
} dmsnap_header;

/**
 * Sizes of a COW file in bytes. Set `struct_size` before the call.
 */
typedef struct dmsnap_measure {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * For the chunks that are mapped.
   */
  uint64_t required;
  /**
   * For a disk of which every chunk is mapped.
   */
  uint64_t fully_allocated;
} dmsnap_measure;

/**
 * Facts about a store. Set `struct_size` before the call.
 */
typedef struct dmsnap_store_facts {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * Size of the disk that the layer shows, in bytes.
   */
  uint64_t virtual_size;
  /**
   * Bytes in a chunk.
   */
  uint64_t chunk_size;
  /**
   * Size of the COW file in bytes, as far as the store knows.
   */
  uint64_t cow_size;
  /**
   * Exceptions that reads see.
   */
  uint64_t exceptions;
  /**
   * Exceptions that reads see and that are not on disk yet.
   */
  uint64_t pending;
  /**
   * Bytes of memory that the exceptions take.
   */
  uint64_t heap_bytes;
  /**
   * What can be done at the moment.
   */
  dmsnap_state state;
  /**
   * The header's word on validity: 0 if the snapshot was invalidated.
   */
  uint32_t valid;
  /**
   * Whether the store takes writes.
   */
  bool writable;
  /**
   * Whether it is a bare store, without an image descriptor.
   */
  bool bare;
  /**
   * Whether an interrupted operation waits to be finished by `dmsnap_store_prepare_repair`.
   */
  bool wants_repair;
} dmsnap_store_facts;

/**
 * Where a run of bytes lives. Set `struct_size` before the call.
 */
typedef struct dmsnap_mapping {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * Where the bytes are read from or written to.
   */
  dmsnap_target target;
  /**
   * Number of bytes from the start of the range for which this holds, at least 1.
   */
  uint64_t len;
  /**
   * First byte in the target; for `UNMAPPED` and `WAIT` what was asked for.
   */
  uint64_t offset;
} dmsnap_mapping;

/**
 * Chunks in flight: `count` chunks of the snapshot from `old_chunk` on shall live in the COW file
 * from `new_chunk` on. Set `struct_size` before the call.
 */
typedef struct dmsnap_exception {
  /**
   * Size of this structure in bytes, set by the caller.
   */
  size_t struct_size;
  /**
   * Name of this exception, for completing or aborting it.
   */
  uint64_t id;
  /**
   * First chunk of the snapshot.
   */
  uint64_t old_chunk;
  /**
   * First chunk of the COW file.
   */
  uint64_t new_chunk;
  /**
   * Number of chunks, at most as many as asked for.
   */
  uint64_t count;
  /**
   * Byte of the COW file at which `new_chunk` starts.
   */
  uint64_t cow_offset;
  /**
   * Whether the chunks read as zeros already, so that zeros need not be written.
   */
  bool reads_zero;
} dmsnap_exception;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Version of the library as text, such as "0.1.0". Lives for ever.
 */
const char *dmsnap_version(void);

/**
 * Version of the library as a number, to be compared with `DMSNAP_VERSION_NUMBER`, which is the
 * header's.
 */
uint32_t dmsnap_version_number(void);

/**
 * What the last call that failed on this thread said: one line with the file, the operation and
 * the offset where known, and what was found and expected. Empty if none has failed. Never NULL.
 *
 * The memory belongs to the library. It holds until another call fails on this thread, and no
 * longer than the thread.
 */
const char *dmsnap_last_error_message(void);

/**
 * The kind of the last error on this thread. Set by calls that fail; others leave it as it is.
 */
dmsnap_error_kind dmsnap_last_error_kind(void);

/**
 * Options for reading through the page cache under a reader's lock. Never NULL.
 */
struct dmsnap_file_options *dmsnap_file_options_new(void);

/**
 * Frees options. NULL is allowed.
 */
void dmsnap_file_options_free(struct dmsnap_file_options *options);

/**
 * Whether the file is opened for writing too, under a writer's lock.
 */
int dmsnap_file_options_set_writable(struct dmsnap_file_options *options, bool writable);

/**
 * Whether I/O bypasses the page cache (`O_DIRECT`). Any range and buffer can be used all the same.
 */
int dmsnap_file_options_set_direct(struct dmsnap_file_options *options, bool direct);

/**
 * Whether the file is created, for writing; `-EEXIST` if there is one.
 */
int dmsnap_file_options_set_create(struct dmsnap_file_options *options, bool create);

/**
 * The lock to take instead of the one that follows from the access: a `dmsnap_lock_mode`.
 */
int dmsnap_file_options_set_lock(struct dmsnap_file_options *options, uint32_t mode);

/**
 * Opens the file or block device at `path`. NULL options are the defaults. `-EBUSY` if somebody
 * else's lock forbids it.
 */
int dmsnap_storage_open(const char *path,
                        const struct dmsnap_file_options *options,
                        struct dmsnap_storage **out);

/**
 * Uses the open file or block device `fd`, of which the library makes a duplicate: the caller
 * keeps its descriptor and may close it at any time. `name` is what errors call it; NULL stands
 * for "fd N". NULL options are the defaults.
 *
 * A descriptor that can only read, where writing is asked for, is opened once more through
 * `/proc`.
 */
int dmsnap_storage_open_fd(int fd,
                           const char *name,
                           const struct dmsnap_file_options *options,
                           struct dmsnap_storage **out);

/**
 * A storage whose I/O the host does. `ops` is copied; see there for who calls what. `name` is what
 * errors call it; NULL stands for "host".
 */
int dmsnap_storage_open_ops(const struct dmsnap_storage_ops *ops,
                            const char *name,
                            struct dmsnap_storage **out);

/**
 * A storage in memory of `size` zero bytes. It can grow, or has this size for ever, as a device.
 */
int dmsnap_storage_open_memory(uint64_t size, bool growable, struct dmsnap_storage **out);

/**
 * Gives up this reference; the last one closes the storage. NULL is allowed.
 */
void dmsnap_storage_free(struct dmsnap_storage *storage);

/**
 * Options: read-only, through the page cache, locked, `DMSNAP_ORIGIN_CHOICE_REFUSE`. Never NULL.
 */
struct dmsnap_open_options *dmsnap_open_options_new(void);

/**
 * Frees options. NULL is allowed.
 */
void dmsnap_open_options_free(struct dmsnap_open_options *options);

/**
 * Whether the image can be written. Its origins are only ever read, except by a merge.
 */
int dmsnap_open_options_set_writable(struct dmsnap_open_options *options, bool writable);

/**
 * Whether files are opened with `O_DIRECT`.
 */
int dmsnap_open_options_set_direct(struct dmsnap_open_options *options, bool direct);

/**
 * Whether files are locked against other programs, the default. A writable image always is.
 */
int dmsnap_open_options_set_lock(struct dmsnap_open_options *options, bool lock);

/**
 * What happens when a COW device of fixed size is full: a `dmsnap_overflow_mode`.
 */
int dmsnap_open_options_set_overflow_mode(struct dmsnap_open_options *options, uint32_t mode);

/**
 * Where the origin comes from, if no file is to be named: a `dmsnap_origin_choice`. This and the
 * next three replace each other.
 */
int dmsnap_open_options_set_origin(struct dmsnap_open_options *options, uint32_t choice);

/**
 * The origin is the file at `path`, whatever the image says. `format` is a `dmsnap_format`;
 * `below`, a `dmsnap_origin_choice`, is for what lies below the origin if it is a layer itself.
 */
int dmsnap_open_options_set_origin_path(struct dmsnap_open_options *options,
                                        const char *path,
                                        uint32_t format,
                                        uint32_t below);

/**
 * The origin is the raw bytes of `storage`. The options hold a reference of their own.
 */
int dmsnap_open_options_set_origin_storage(struct dmsnap_open_options *options,
                                           const struct dmsnap_storage *storage);

/**
 * The origin is an image that is open already. It can be read through its own handle from then on,
 * not written. The options, and the image that is opened with them, hold a reference of their own.
 */
int dmsnap_open_options_set_origin_image(struct dmsnap_open_options *options,
                                         const struct dmsnap_image *image);

/**
 * Opens even if an origin's UUID is not the recorded one, and merges even into a raw origin whose
 * size is not. The content is then most likely wrong.
 */
int dmsnap_open_options_set_ignore_origin_uuid(struct dmsnap_open_options *options, bool ignore);

/**
 * Opens even if slots of the top layer's descriptor are damaged, for `dmsnap_image_amend` to add or
 * remove a descriptor. With no good slot the layer counts as a bare store. Where one is good and
 * there are exceptions past the end that it gives, those are kept; without this such a layer opens
 * read-only.
 */
int dmsnap_open_options_set_ignore_descriptor_damage(struct dmsnap_open_options *options,
                                                     bool ignore);

/**
 * Size of the disk in bytes, a multiple of 512, if the image is a bare store. It does not record
 * one; without this it is as long as its origin, and without an origin as long as its last
 * exception says.
 */
int dmsnap_open_options_set_bare_size(struct dmsnap_open_options *options, uint64_t size);

/**
 * Options: chunks of 16 KiB, no origin, a random UUID. The size has to be set unless there is an
 * origin. Never NULL.
 */
struct dmsnap_create_options *dmsnap_create_options_new(void);

/**
 * Frees options. NULL is allowed.
 */
void dmsnap_create_options_free(struct dmsnap_create_options *options);

/**
 * Bytes in a chunk: a power of two from 512 bytes to 1 GiB.
 */
int dmsnap_create_options_set_chunk_size(struct dmsnap_create_options *options, uint64_t bytes);

/**
 * Size of the disk in bytes, a multiple of 512. Defaults to the origin's, rounded up to that.
 */
int dmsnap_create_options_set_size(struct dmsnap_create_options *options, uint64_t bytes);

/**
 * The origin, by a name (UTF-8) that is stored as given; a relative one starts at the new file's
 * directory. `format` is a `dmsnap_format`. The origin must exist, unless
 * `dmsnap_create_options_set_origin_identity` says what there is to know.
 */
int dmsnap_create_options_set_origin(struct dmsnap_create_options *options,
                                     const char *name,
                                     uint32_t format);

/**
 * What to record as the origin's UUID (16 bytes; NULL or zeros: unknown) and size in bytes,
 * instead of opening the origin to find out.
 */
int dmsnap_create_options_set_origin_identity(struct dmsnap_create_options *options,
                                              const uint8_t *uuid,
                                              uint64_t size);

/**
 * Whether to make a store without a descriptor, as the kernel makes it: it records neither size
 * nor origin, its user has to know them.
 */
int dmsnap_create_options_set_bare(struct dmsnap_create_options *options, bool bare);

/**
 * Identity of the new image, 16 bytes that are not all zero, instead of a random one.
 */
int dmsnap_create_options_set_uuid(struct dmsnap_create_options *options, const uint8_t *uuid);

/**
 * Whether a file or block device that exists may be used. Its content is lost.
 */
int dmsnap_create_options_set_on_existing(struct dmsnap_create_options *options, bool on_existing);

/**
 * Creates a layer at `path`, which must not exist unless the options allow it. Durable when it
 * returns; after a failure nothing is left at `path`.
 */
int dmsnap_image_create(const char *path, const struct dmsnap_create_options *options);

/**
 * Creates a layer in `storage`, whose content is lost. Opens nothing else: what is to be known of
 * an origin comes from `dmsnap_create_options_set_origin_identity`.
 */
int dmsnap_image_create_on(const struct dmsnap_storage *storage,
                           const struct dmsnap_create_options *options);

/**
 * Opens the layer at `path` and what lies below it. NULL options are the defaults. `-EACCES` if
 * the image names an origin and the options do not say where it comes from.
 */
int dmsnap_image_open(const char *path,
                      const struct dmsnap_open_options *options,
                      struct dmsnap_image **out);

/**
 * Opens the layer in `storage`, of which the image holds a reference of its own. A relative name
 * of an origin starts at the current directory.
 */
int dmsnap_image_open_storage(const struct dmsnap_storage *storage,
                              const struct dmsnap_open_options *options,
                              struct dmsnap_image **out);

/**
 * Flushes, gives back what space was reserved ahead, and closes. The handle is gone whatever it
 * returns, except for `-EDEADLK`, and for `-EINVAL` because of NULL. An image that others have as
 * their origin stays open below them.
 */
int dmsnap_image_close(struct dmsnap_image *image);

/**
 * Size of the disk in bytes.
 */
int dmsnap_image_size(const struct dmsnap_image *image, uint64_t *out);

/**
 * Bytes in a chunk of the top layer.
 */
int dmsnap_image_chunk_size(const struct dmsnap_image *image, uint64_t *out);

/**
 * Makes the disk `size` bytes long, a multiple of 512. What is new reads as zeros. Shorter only if
 * `shrink` is set: what lay past the new end is lost. Durable when it returns. A bare store cannot
 * be resized.
 */
int dmsnap_image_resize(const struct dmsnap_image *image, uint64_t size, bool shrink);

/**
 * Creates a layer at `path` with this image as its origin, and goes on in it: what is written from
 * now on goes there, and what was the top layer so far is frozen, flushed and locked as an origin.
 * `chunk_size` is in bytes, 0 stands for the present one. A failure leaves everything as it was.
 */
int dmsnap_image_snapshot(const struct dmsnap_image *image, const char *path, uint64_t chunk_size);

/**
 * The same in `storage`, whose content is lost. `origin_name` is what the new layer records as the
 * name of the present top layer; NULL records none.
 */
int dmsnap_image_snapshot_to(const struct dmsnap_image *image,
                             const struct dmsnap_storage *storage,
                             const char *origin_name,
                             uint64_t chunk_size);

/**
 * Forgets every exception: the image reads as its origin again. Durable when it returns.
 */
int dmsnap_image_make_empty(const struct dmsnap_image *image);

/**
 * Invalidates the store for ever, as the kernel does on overflow. Durable when it returns.
 */
int dmsnap_image_drop_snapshot(const struct dmsnap_image *image);

/**
 * The kernel's status of the top layer.
 */
int dmsnap_image_status(const struct dmsnap_image *image, struct dmsnap_status *out);

/**
 * The kernel's figures of the top layer.
 */
int dmsnap_image_usage(const struct dmsnap_image *image, struct dmsnap_usage *out);

/**
 * The first exceptions of the top layer at or behind chunk `old_chunk`. To see all, begin with 0
 * and go on at `old_chunk + count`.
 */
int dmsnap_image_next_run(const struct dmsnap_image *image,
                          uint64_t old_chunk,
                          struct dmsnap_run *out);

/**
 * Reads `len` bytes at `offset` into `buffer`. `-EINVAL` if they reach past the end of the disk.
 */
int dmsnap_image_read(const struct dmsnap_image *image, void *buffer, size_t len, uint64_t offset);

/**
 * Reads into `iovcnt` buffers, at most 1024, from `offset` on. They must not overlap. All of them
 * are filled, or it fails.
 */
int dmsnap_image_readv(const struct dmsnap_image *image,
                       const struct iovec *iov,
                       int iovcnt,
                       uint64_t offset);

/**
 * Writes `len` bytes from `buffer` to `offset`.
 */
int dmsnap_image_write(const struct dmsnap_image *image,
                       const void *buffer,
                       size_t len,
                       uint64_t offset);

/**
 * Writes `iovcnt` buffers, at most 1024, one behind the other from `offset` on.
 */
int dmsnap_image_writev(const struct dmsnap_image *image,
                        const struct iovec *iov,
                        int iovcnt,
                        uint64_t offset);

/**
 * Returns once everything that was written before the call is durable.
 */
int dmsnap_image_flush(const struct dmsnap_image *image);

/**
 * Gives back the space of `len` bytes at `offset`: chunks that lie wholly in there and were
 * written become zeros, all else stays as it is.
 */
int dmsnap_image_discard(const struct dmsnap_image *image, uint64_t offset, uint64_t len);

/**
 * Makes `len` bytes at `offset` read as zeros. With `unmap` space may be given back.
 */
int dmsnap_image_write_zeroes(const struct dmsnap_image *image,
                              uint64_t offset,
                              uint64_t len,
                              bool unmap);

/**
 * The first extent of the range of `len` bytes, at least 1, from `offset` on. To see all, go on at
 * `start + len`.
 */
int dmsnap_image_next_extent(const struct dmsnap_image *image,
                             uint64_t offset,
                             uint64_t len,
                             struct dmsnap_extent *out);

/**
 * Merges the top layer into its origin. Reads and writes of other threads go on meanwhile.
 *
 * `callback` is called between the batches, with `opaque` and how far the merge is; `false` from
 * it stops the merge with `-ECANCELED`, and what was merged stays merged. It runs on the calling
 * thread, must return, and must not use this image. NULL is allowed.
 */
int dmsnap_image_merge(const struct dmsnap_image *image,
                       bool (*callback)(void *opaque, const struct dmsnap_progress *progress),
                       void *opaque);

/**
 * Begins a merge that the caller drives in steps. The image must stay open as long as the merge.
 */
int dmsnap_merge_open(const struct dmsnap_image *image, struct dmsnap_merge **out);

/**
 * Merges one bounded batch, and tells whether there is more to do.
 */
int dmsnap_merge_step(struct dmsnap_merge *merge, bool *more);

/**
 * How far the merge is.
 */
int dmsnap_merge_progress(const struct dmsnap_merge *merge, struct dmsnap_progress *out);

/**
 * Ends a merge. What is left is cancelled; a later merge takes up from there. NULL is allowed.
 */
void dmsnap_merge_free(struct dmsnap_merge *merge);

/**
 * Facts about the image and its chain.
 */
int dmsnap_image_info(const struct dmsnap_image *image, struct dmsnap_info **out);

/**
 * Facts about the layer at `path`: takes no lock and opens no other file.
 */
int dmsnap_info_open(const char *path, struct dmsnap_info **out);

/**
 * Facts about the layer in `storage`.
 */
int dmsnap_info_open_storage(const struct dmsnap_storage *storage, struct dmsnap_info **out);

/**
 * Frees it with all strings that came from it. NULL is allowed.
 */
void dmsnap_info_free(struct dmsnap_info *info);

/**
 * The numbers.
 */
int dmsnap_info_facts(const struct dmsnap_info *info, struct dmsnap_facts *out);

/**
 * The kernel's status.
 */
int dmsnap_info_status(const struct dmsnap_info *info, struct dmsnap_status *out);

/**
 * The kernel's figures.
 */
int dmsnap_info_usage(const struct dmsnap_info *info, struct dmsnap_usage *out);

/**
 * The image descriptor of the top layer, NULL for a bare store. It is a copy and belongs to the
 * caller.
 */
int dmsnap_info_descriptor(const struct dmsnap_info *info, struct dmsnap_descriptor **out);

/**
 * Warning `index`, counted from 0: what looked wrong while opening but did no harm. NULL behind
 * the last one. It belongs to the info.
 */
const char *dmsnap_info_warning(const struct dmsnap_info *info, uint64_t index);

/**
 * Layer `index`: 0 is the top, 1 its origin, and so on; `-EINVAL` behind the last one.
 */
int dmsnap_info_layer(const struct dmsnap_info *info, uint64_t index, struct dmsnap_layer *out);

/**
 * Options that change nothing. Never NULL.
 */
struct dmsnap_amend_options *dmsnap_amend_options_new(void);

/**
 * Frees options. NULL is allowed.
 */
void dmsnap_amend_options_free(struct dmsnap_amend_options *options);

/**
 * Records another origin, by a name (UTF-8) as in `dmsnap_create_options_set_origin`; NULL records
 * that there is none, and `format` does not count then. The content below is not looked at: it
 * must be the same, or the image changes.
 */
int dmsnap_amend_options_set_origin(struct dmsnap_amend_options *options,
                                    const char *name,
                                    uint32_t format);

/**
 * Gives a bare store a descriptor, with this size of the disk in bytes. Needs chunks of at least
 * 4096 bytes. Where one of the two slots of a descriptor is damaged, it is written anew from the
 * other one, with this size: it may have said another.
 */
int dmsnap_amend_options_add_descriptor(struct dmsnap_amend_options *options, uint64_t size);

/**
 * The UUID of a descriptor that is added, 16 bytes that are not all zero, instead of a random one.
 * Layers above this one open only if it is the one they know.
 */
int dmsnap_amend_options_set_uuid(struct dmsnap_amend_options *options, const uint8_t *uuid);

/**
 * Makes it a bare store: size, origin and UUID are forgotten.
 */
int dmsnap_amend_options_remove_descriptor(struct dmsnap_amend_options *options);

/**
 * Changes the descriptor; durable when it returns. Names count at the next open: the open image
 * goes on with the origin that it has. A size counts at once: the image is as large as a descriptor
 * that is added says, or as its origin once there is none.
 */
int dmsnap_image_amend(const struct dmsnap_image *image,
                       const struct dmsnap_amend_options *options);

/**
 * Options: repairs nothing, with a lock. Never NULL.
 */
struct dmsnap_check_options *dmsnap_check_options_new(void);

/**
 * Frees options. NULL is allowed.
 */
void dmsnap_check_options_free(struct dmsnap_check_options *options);

/**
 * What is repaired: a `dmsnap_repair`.
 */
int dmsnap_check_options_set_repair(struct dmsnap_check_options *options, uint32_t what);

/**
 * Whether the file is locked against other programs, the default. A repair always locks.
 */
int dmsnap_check_options_set_lock(struct dmsnap_check_options *options, bool lock);

/**
 * Size of a bare store's origin in bytes, so that exceptions past its end are found.
 */
int dmsnap_check_options_set_origin_size(struct dmsnap_check_options *options, uint64_t size);

/**
 * Checks the layer at `path`, and nothing below it. NULL options are the defaults. Findings are no
 * error: the report has them.
 */
int dmsnap_check_report_open(const char *path,
                             const struct dmsnap_check_options *options,
                             struct dmsnap_check_report **out);

/**
 * Checks the layer in `storage`.
 */
int dmsnap_check_report_open_storage(const struct dmsnap_storage *storage,
                                     const struct dmsnap_check_options *options,
                                     struct dmsnap_check_report **out);

/**
 * The figures of a report.
 */
int dmsnap_check_report_summary(const struct dmsnap_check_report *report,
                                struct dmsnap_check_summary *out);

/**
 * Finding `index`, counted from 0; `-EINVAL` behind the last one.
 */
int dmsnap_check_report_finding(const struct dmsnap_check_report *report,
                                uint64_t index,
                                struct dmsnap_finding *out);

/**
 * Hole `index`, counted from 0: a range of the COW file below next free that no record uses, in
 * bytes. Metadata areas may lie in it. Where it occupies space, the parts that
 * `dmsnap_check_report_data` tells are leaks.
 */
int dmsnap_check_report_hole(const struct dmsnap_check_report *report,
                             uint64_t index,
                             uint64_t *offset,
                             uint64_t *len);

/**
 * The first part of the range of `len` bytes from `offset` of the COW file that is no metadata
 * area. A length of 0 is given if there is none.
 */
int dmsnap_check_report_data(const struct dmsnap_check_report *report,
                             uint64_t offset,
                             uint64_t len,
                             uint64_t *data_offset,
                             uint64_t *data_len);

/**
 * The image descriptor, if there is a good one, else NULL. It belongs to the caller.
 */
int dmsnap_check_report_descriptor(const struct dmsnap_check_report *report,
                                   struct dmsnap_descriptor **out);

/**
 * Frees a report. NULL is allowed.
 */
void dmsnap_check_report_free(struct dmsnap_check_report *report);

/**
 * Begins to check a store. Used as a loader, but goes on where that one refuses.
 */
int dmsnap_check_reader_new(const struct dmsnap_load_options *options,
                            struct dmsnap_check_reader **out);

/**
 * Frees a check reader. NULL is allowed.
 */
void dmsnap_check_reader_free(struct dmsnap_check_reader *reader);

/**
 * As `dmsnap_loader_next_plan`.
 */
int dmsnap_check_reader_next_plan(struct dmsnap_check_reader *reader, struct dmsnap_plan **plan);

/**
 * As `dmsnap_loader_finish_plan`; fails only if the file is no store that can be checked.
 */
int dmsnap_check_reader_finish_plan(struct dmsnap_check_reader *reader, struct dmsnap_plan *plan);

/**
 * Gives the report, when `dmsnap_check_reader_next_plan` gave NULL. The reader is gone after the
 * call, whatever it returns.
 */
int dmsnap_check_reader_finish(struct dmsnap_check_reader *reader,
                               struct dmsnap_check_report **out);

/**
 * Options: size, origin and chunk size are what the damaged file says. Never NULL.
 */
struct dmsnap_recover_options *dmsnap_recover_options_new(void);

/**
 * Frees options. NULL is allowed.
 */
void dmsnap_recover_options_free(struct dmsnap_recover_options *options);

/**
 * Size of the disk in bytes, a multiple of 512. A kernel that invalidates a store wipes what its
 * descriptor said.
 */
int dmsnap_recover_options_set_size(struct dmsnap_recover_options *options, uint64_t size);

/**
 * The origin to record, by a name (UTF-8) as in `dmsnap_create_options_set_origin`.
 */
int dmsnap_recover_options_set_origin(struct dmsnap_recover_options *options,
                                      const char *name,
                                      uint32_t format);

/**
 * Bytes in a chunk, where the header does not tell it any more.
 */
int dmsnap_recover_options_set_chunk_size(struct dmsnap_recover_options *options, uint64_t bytes);

/**
 * Whether the result is a store without a descriptor, whatever is known of size and origin.
 */
int dmsnap_recover_options_set_bare(struct dmsnap_recover_options *options, bool bare);

/**
 * Whether the damaged file is locked against other programs, the default. Recovering in place
 * always locks.
 */
int dmsnap_recover_options_set_lock(struct dmsnap_recover_options *options, bool lock);

/**
 * Makes a new layer at `new_path`, which must not exist, of what the damaged one at `path` still
 * holds with certainty; that one is only read. With `new_path` NULL the damaged file itself is
 * made a good store: what is left out is lost for good then. NULL options are the defaults.
 *
 * `callback` may be NULL. It is called between the copies, with `opaque` and how far the recovery
 * is in exceptions; `false` from it stops, with `-ECANCELED` and nothing left at `new_path`. In
 * place it is not called.
 */
int dmsnap_recover_report_open(const char *path,
                               const char *new_path,
                               const struct dmsnap_recover_options *options,
                               bool (*callback)(void *opaque, const struct dmsnap_progress *progress),
                               void *opaque,
                               struct dmsnap_recover_report **out);

/**
 * Frees a report. NULL is allowed.
 */
void dmsnap_recover_report_free(struct dmsnap_recover_report *report);

/**
 * The figures of a report.
 */
int dmsnap_recover_report_summary(const struct dmsnap_recover_report *report,
                                  struct dmsnap_recover_summary *out);

/**
 * Left out record `index`, counted from 0; `-EINVAL` behind the last one that is listed.
 */
int dmsnap_recover_report_left_out(const struct dmsnap_recover_report *report,
                                   uint64_t index,
                                   struct dmsnap_left_out *out);

/**
 * A descriptor for an image of `virtual_size` bytes, a multiple of 512, with this UUID of 16 bytes
 * that are not all zero. The store sets the generation.
 */
int dmsnap_descriptor_new(uint64_t virtual_size,
                          const uint8_t *uuid,
                          struct dmsnap_descriptor **out);

/**
 * Frees a descriptor. NULL is allowed.
 */
void dmsnap_descriptor_free(struct dmsnap_descriptor *descriptor);

/**
 * Its numbers.
 */
int dmsnap_descriptor_read(const struct dmsnap_descriptor *descriptor,
                           struct dmsnap_descriptor_info *out);

/**
 * Name of the origin as stored; NULL if there is none. It belongs to the descriptor and holds
 * until that is changed or freed.
 */
const char *dmsnap_descriptor_origin_name(const struct dmsnap_descriptor *descriptor);

/**
 * Name of the origin's format, as `dmsnap_descriptor_origin_name`.
 */
const char *dmsnap_descriptor_origin_format(const struct dmsnap_descriptor *descriptor);

/**
 * Sets name, format name, UUID and size in bytes of the origin. A NULL name stands for no origin,
 * a UUID that is NULL or zero for an unknown one. At most 1023 bytes of name, UTF-8.
 */
int dmsnap_descriptor_set_origin(struct dmsnap_descriptor *descriptor,
                                 const char *name,
                                 const char *format,
                                 const uint8_t *uuid,
                                 uint64_t size);

/**
 * Changes the size of the image in bytes, for a descriptor that is to be stored by
 * `dmsnap_store_prepare_descriptor`. To change the size of a disk, use
 * `dmsnap_store_prepare_resize`.
 */
int dmsnap_descriptor_set_virtual_size(struct dmsnap_descriptor *descriptor, uint64_t virtual_size);

/**
 * Number of steps. 0 for NULL.
 */
size_t dmsnap_plan_step_count(const struct dmsnap_plan *plan);

/**
 * What the plan is for.
 */
int dmsnap_plan_purpose(const struct dmsnap_plan *plan, dmsnap_purpose *out);

/**
 * Step `index`, counted from 0. Its `data` belongs to the plan and holds until the plan is
 * finished or freed.
 */
int dmsnap_plan_step(const struct dmsnap_plan *plan, size_t index, struct dmsnap_step *out);

/**
 * Gives the plan's own place for the bytes that step `index`, a read, asks for: as many as its
 * `len`, zeros at first. What is read straight into it need not be supplied, which saves a copy.
 * It belongs to the plan and holds until the plan is finished or freed, or that step is supplied;
 * asked for again, it is the same. Several threads may fill the places of several steps at once.
 *
 * A plan whose read failed then does not go back to a loader or a check reader, which would take
 * the zeros for what was read: free it.
 */
int dmsnap_plan_buffer(struct dmsnap_plan *plan, size_t index, void **out);

/**
 * Hands over the `len` bytes that step `index`, a read, asked for. They are copied; see
 * `dmsnap_plan_buffer`.
 */
int dmsnap_plan_supply(struct dmsnap_plan *plan, size_t index, const void *data, size_t len);

/**
 * Ends a plan that need not go back: one of a loader or a check reader that is given up, or one of
 * `dmsnap_store_format`. NULL is allowed. A plan of a store goes to `dmsnap_store_finish_plan`
 * instead, or the store waits for it for ever.
 */
void dmsnap_plan_free(struct dmsnap_plan *plan);

/**
 * Tells whether `data`, the first `len` bytes of a file (16 are enough), is a store; `out` may be
 * NULL. `-EINVAL` if it is something else or blank, `-EUCLEAN` for an illegal chunk size,
 * `-ENOTSUP` for another version.
 */
int dmsnap_header_probe(const void *data, size_t len, struct dmsnap_header *out);

/**
 * How large a COW file gets with `mapped_chunks` exceptions, and at the most, for a disk of
 * `virtual_size` bytes in chunks of `chunk_size` bytes.
 */
int dmsnap_store_measure(uint64_t chunk_size,
                         uint64_t virtual_size,
                         uint64_t mapped_chunks,
                         struct dmsnap_measure *out);

/**
 * Gives the plan that makes a new store with chunks of `chunk_size` bytes: a power of two from 512
 * bytes to 1 GiB, from 4096 on if there is a `descriptor`. NULL makes it a bare store.
 * `fixed_size` is for a device: its size is not set, and it may hold anything.
 *
 * The header's magic comes last: until then the file is no store. Run the plan, then free it.
 */
int dmsnap_store_format(uint64_t chunk_size,
                        const struct dmsnap_descriptor *descriptor,
                        bool fixed_size,
                        struct dmsnap_plan **plan);

/**
 * Options for a COW file of `cow_size` bytes: of fixed size, read-only,
 * `DMSNAP_OVERFLOW_MODE_NO_SPACE`. Never NULL.
 */
struct dmsnap_load_options *dmsnap_load_options_new(uint64_t cow_size);

/**
 * Frees options. NULL is allowed.
 */
void dmsnap_load_options_free(struct dmsnap_load_options *options);

/**
 * Whether the COW file can be made longer. By `DMSNAP_STEP_TYPE_SET_SIZE`, or by writing past its
 * end, as a file: in both cases bytes that were not written read as zeros. The store counts on
 * that and does not zero fresh chunks there.
 */
int dmsnap_load_options_set_growable(struct dmsnap_load_options *options, bool growable);

/**
 * Whether the store will be written. `dmsnap_store_set_writable` changes that later.
 */
int dmsnap_load_options_set_writable(struct dmsnap_load_options *options, bool writable);

/**
 * Size of the origin in bytes, from which a bare store takes its own. Then it has to be a multiple
 * of 512 (an odd end does not count, as on a loop device), or `dmsnap_loader_finish` says
 * `-EINVAL`. Without it a bare store ends with its last exception.
 */
int dmsnap_load_options_set_origin_size(struct dmsnap_load_options *options, uint64_t size);

/**
 * What a full device of fixed size means: a `dmsnap_overflow_mode`.
 */
int dmsnap_load_options_set_overflow_mode(struct dmsnap_load_options *options, uint32_t mode);

/**
 * Begins to load a store. Nothing is read yet.
 */
int dmsnap_loader_new(const struct dmsnap_load_options *options, struct dmsnap_loader **out);

/**
 * Frees a loader. NULL is allowed.
 */
void dmsnap_loader_free(struct dmsnap_loader *loader);

/**
 * The next reads, several at once and of bounded size, as a plan that belongs to the caller; NULL
 * when everything is known. The plan has reads of the COW file only. It takes the place of the one
 * before, if that did not come back: then it reads the same bytes, and the older one is refused.
 */
int dmsnap_loader_next_plan(struct dmsnap_loader *loader, struct dmsnap_plan **plan);

/**
 * Takes in what was read. Every step must have been supplied. The plan is gone after the call,
 * whatever it returns. `-EINVAL` if the file is no store, `-EUCLEAN` if it contradicts itself,
 * `-ENOTSUP` for a version or feature that is not known.
 */
int dmsnap_loader_finish_plan(struct dmsnap_loader *loader, struct dmsnap_plan *plan);

/**
 * Gives the store, when `dmsnap_loader_next_plan` gave NULL. The loader is gone after the call,
 * whatever it returns. An invalidated store loads: its state is `DMSNAP_STATE_INVALID`.
 */
int dmsnap_loader_finish(struct dmsnap_loader *loader, struct dmsnap_store **out);

/**
 * Frees a store. What was not committed is lost. NULL is allowed.
 */
void dmsnap_store_free(struct dmsnap_store *store);

/**
 * Makes a store writable that was loaded for reading, or the other way round, as when a block
 * device is reopened. Nothing is read again: nobody else may have written to the COW file since
 * the store was loaded. What the loader did not look at is cleared by the first commit. `-EBUSY` if
 * a store is to take no more writes while exceptions are in flight or not committed, or a plan or a
 * job is under way.
 */
int dmsnap_store_set_writable(struct dmsnap_store *store, bool writable);

/**
 * Facts about the store.
 */
int dmsnap_store_info(const struct dmsnap_store *store, struct dmsnap_store_facts *out);

/**
 * The image descriptor, NULL for a bare store. It is a copy and belongs to the caller.
 */
int dmsnap_store_descriptor(const struct dmsnap_store *store, struct dmsnap_descriptor **out);

/**
 * Whether so many exceptions wait that the host should commit now, to bound memory and loss. Ask
 * after completing. `false` for NULL.
 */
bool dmsnap_store_should_commit(const struct dmsnap_store *store);

/**
 * The kernel's figures (its `usage`). Prepared exceptions count, as in the kernel.
 */
int dmsnap_store_usage(const struct dmsnap_store *store, struct dmsnap_usage *out);

/**
 * The kernel's status.
 */
int dmsnap_store_status(const struct dmsnap_store *store, struct dmsnap_status *out);

/**
 * The first exceptions at or behind chunk `old_chunk` of the snapshot. To see all, begin with 0
 * and go on at `old_chunk + count`.
 */
int dmsnap_store_next_run(const struct dmsnap_store *store,
                          uint64_t old_chunk,
                          struct dmsnap_run *out);

/**
 * Finds where the first bytes of the range are read from, and how many of them lie there in one
 * run. What is in flight still reads as the origin.
 *
 * `-EINVAL` for an empty range or one that ends past the disk, `-EIO` if the snapshot is invalid.
 * Allocates nothing.
 */
int dmsnap_store_map(const struct dmsnap_store *store,
                     uint64_t offset,
                     uint64_t len,
                     struct dmsnap_mapping *out);

/**
 * Finds where the first bytes of the range are written to, and how many of them go there in one
 * run.
 *
 * Errors as `dmsnap_store_map`, and `-EROFS`, `-ENOSPC` (overflow in mode PO) or `-EIO` (an
 * earlier failure) if writing is not possible. Allocates nothing.
 */
int dmsnap_store_map_write(const struct dmsnap_store *store,
                           uint64_t offset,
                           uint64_t len,
                           struct dmsnap_mapping *out);

/**
 * Takes a pin: what was mapped under the same (shared) lock stays where it is until the pin is
 * released. One pin serves any number of ranges. 0 for NULL.
 */
uint64_t dmsnap_store_pin(const struct dmsnap_store *store);

/**
 * Releases a pin, once. May be called at any time, also while an exclusive call runs. Returns
 * whether the host should wake those who were told to wait.
 */
bool dmsnap_store_unpin(const struct dmsnap_store *store, uint64_t pin);

/**
 * Allocates chunks of the COW file for up to `count` chunks of the snapshot from `first_chunk` on,
 * which `dmsnap_store_map_write` called `UNMAPPED` (the kernel's `prepare_exception`, for a run of
 * chunks). The answer is one of
 *
 * - `READY`: `exception` is filled in. Until it is completed or aborted, reads see the origin and
 *   other writers of these chunks wait. Give the new chunks their whole content: what is written,
 *   the origin's bytes around it, zeros past the end of the origin and of the disk.
 * - `PLAN`: a plan is given (`plan` is NULL otherwise), which goes back to
 *   `dmsnap_store_finish_plan`. Then ask again. It reserves space, or, where an interrupted
 *   operation left records that stand twice, removes these: then it may have reads, too.
 * - `WAIT`, `RETRY`.
 *
 * `-ENOSPC` if a device of fixed size is full. Without a mode nothing else happens, and it can be
 * tried again after `dmsnap_store_set_cow_size`. In mode PO the state becomes
 * `DMSNAP_STATE_OVERFLOW`: reads go on, writes are refused until the store is loaded again. In
 * mode P the snapshot is then invalid, see `dmsnap_store_take_invalidation`.
 */
int dmsnap_store_prepare_exception(struct dmsnap_store *store,
                                   uint64_t first_chunk,
                                   uint64_t count,
                                   dmsnap_answer *answer,
                                   struct dmsnap_exception *exception,
                                   struct dmsnap_plan **plan);

/**
 * Makes a prepared exception visible to reads. Its data must be in place, though not yet durable.
 * Unlike in the kernel, no record is written until `dmsnap_store_commit_exceptions`. If it fails,
 * the exception was aborted.
 */
int dmsnap_store_complete_exception(struct dmsnap_store *store, uint64_t id);

/**
 * Forgets a prepared exception whose data could not be written. Its chunks are used again; writers
 * that waited try again.
 */
int dmsnap_store_abort_exception(struct dmsnap_store *store, uint64_t id);

/**
 * Asks what has to be written so that every exception completed by now survives a crash (the
 * kernel's `commit_exception`, for many at once). What is in flight is not waited for. The answer
 * is
 *
 * - `PLAN`: it holds all flushes of the COW file that are needed. Run it, finish it, and ask again
 *   if what was completed meanwhile matters.
 * - `CLEAN`: just flush the COW file. Tell `dmsnap_store_fail` if that fails.
 * - `WAIT`: a plan is outstanding. One commit is outstanding at a time.
 *
 * The plan may be one that a job needs which was cancelled: see `dmsnap_store_is_cancelling`. Then
 * a commit follows when the host asks again.
 *
 * `plan` is NULL unless the answer is `PLAN`.
 */
int dmsnap_store_commit_exceptions(struct dmsnap_store *store,
                                   dmsnap_answer *answer,
                                   struct dmsnap_plan **plan);

/**
 * Gives a plan back to the store, with 0 if every step was done or the negative errno of one that
 * failed, which is passed on. The plan is gone after the call, whatever it returns.
 *
 * `-ENOSPC` and `-EDQUOT` leave everything as it was: the store gives the same work out again when
 * it is asked. They are for writes. A flush that failed for want of space has lost what it was to
 * make durable, on Linux as elsewhere: report it as `-EIO`, unless what is below your flush
 * promises otherwise.
 *
 * Any other failure of a plan that writes metadata or flushes, the COW file or the origin, ends
 * writing until the store is loaded again: `DMSNAP_STATE_FAILED`. A merge has its flush of the
 * origin in a plan of its own, and its records are cleared after that only. Where its copies or
 * reads fail, the state is `DMSNAP_STATE_MERGE_FAILED`: the pair of store and origin is whole,
 * first writes go on to the origin, and the merge can be begun again.
 */
int dmsnap_store_finish_plan(struct dmsnap_store *store, struct dmsnap_plan *plan, int result);

/**
 * Tells that a flush of the COW file, which the host did by itself, failed with this negative
 * errno. Nothing can be taken for durable then: the store takes no more writes until it is loaded
 * again. `-ENOSPC` and `-EDQUOT` do not count: they say that nothing is lost, as in
 * `dmsnap_store_finish_plan`.
 */
int dmsnap_store_fail(struct dmsnap_store *store, int result);

/**
 * Begins a merge into an origin of `origin_size` bytes, which is at least as long as the disk (the
 * kernel's `prepare_merge`). From now on first writes go to the origin. Unlike the kernel's it
 * works in large batches, each of which copies, flushes the origin, clears the records (the
 * kernel's `commit_merge`) and flushes the COW file; `dmsnap_store_next_plan` gives them out.
 *
 * After a merge that failed, a resize, `make_empty` and another descriptor are refused with
 * `DMSNAP_ERROR_KIND_MERGE_FAILED` until a merge has ended well or the store was loaded again.
 */
int dmsnap_store_prepare_merge(struct dmsnap_store *store, uint64_t origin_size);

/**
 * Begins to change the size of the disk to `size` bytes, a multiple of 512, over an origin of
 * `origin_size` bytes. What growing uncovers will read as zeros. Shrinking drops exceptions; what
 * lay there is lost. A bare store cannot be resized.
 *
 * When the disk shrinks the new size counts as soon as this returns, and no I/O past the new end
 * may be under way. When it grows the new size counts when the job is done.
 */
int dmsnap_store_prepare_resize(struct dmsnap_store *store, uint64_t size, uint64_t origin_size);

/**
 * Begins to store another image descriptor; the store sets its generation. NULL removes it: the
 * store becomes bare. The descriptor stays the caller's.
 */
int dmsnap_store_prepare_descriptor(struct dmsnap_store *store,
                                    const struct dmsnap_descriptor *descriptor);

/**
 * Begins to finish what an interrupted operation left: stale slots, records that stand twice,
 * exceptions past the disk's end. The facts say whether that is wanted. A host that leaves it out
 * loses nothing: first writes, merges and resizes begin with what could harm them.
 */
int dmsnap_store_prepare_repair(struct dmsnap_store *store);

/**
 * Begins to forget every exception: the disk reads as its origin again.
 *
 * Exceptions in flight are waited for: complete or abort them. New ones have to wait until the job
 * is done. Reads may be under way, the chunks they have pinned are not used again before they are
 * unpinned. A write in place that is under way, or that comes before the job is done, may be
 * forgotten with the rest.
 */
int dmsnap_store_make_empty(struct dmsnap_store *store);

/**
 * Begins to invalidate the store for ever (the kernel's `drop_snapshot`). Unlike the kernel it
 * writes the first sector only and keeps the descriptor.
 */
int dmsnap_store_drop_snapshot(struct dmsnap_store *store);

/**
 * Gives the next plan of the job that was begun by `dmsnap_store_prepare_...`, `make_empty` or
 * `drop_snapshot`. One job at a time; other calls go on beside it. The answer is `PLAN`, `WAIT` or
 * `DONE`, after which the job is over; `plan` is NULL unless it is `PLAN`. After an error the job
 * waits for another call, or for `dmsnap_store_cancel`.
 */
int dmsnap_store_next_plan(struct dmsnap_store *store,
                           dmsnap_answer *answer,
                           struct dmsnap_plan **plan);

/**
 * Ends the job where it stands; what it made durable stays. Between two plans only: `-EBUSY` while
 * one is outstanding. A resize that is cancelled has the size that is on disk, the old one or the
 * new one: ask for the facts.
 *
 * Where a plan found no space half-way through a change of the metadata, the job is not over at
 * once: see `dmsnap_store_is_cancelling`.
 *
 * A merge that is cancelled is not over yet: writes that were sent to the origin may be under way.
 * Call `dmsnap_store_next_plan` until it says `DONE`, and flush the origin, before you let go of
 * it or make it read-only.
 */
int dmsnap_store_cancel(struct dmsnap_store *store);

/**
 * Whether a job was cancelled of which a plan found no space half-way, so that what is on disk is
 * not known until another plan has succeeded: what was begun is finished, or, where that can be
 * (a descriptor, a size, `dmsnap_store_drop_snapshot`), taken back.
 *
 * `dmsnap_store_commit_exceptions` gives that plan out, and so does
 * `dmsnap_store_prepare_exception` where it needs it. Until it has succeeded other jobs are
 * `-EBUSY`, and writes to what the job was about get `WAIT`: commit then instead of waiting.
 * `false` for NULL.
 */
bool dmsnap_store_is_cancelling(const struct dmsnap_store *store);

/**
 * How far the job is; zeros if there is none.
 */
int dmsnap_store_progress(const struct dmsnap_store *store, struct dmsnap_progress *out);

/**
 * Gives a plan for returning the space of chunks that were freed and that no pin holds, or NULL if
 * there are none at the moment. Good after a batch of a merge, and after other jobs: what is
 * reserved for first writes to come is kept. One such plan at a time; ask again when it is
 * finished, until the answer is NULL.
 */
int dmsnap_store_reclaim(struct dmsnap_store *store, struct dmsnap_plan **plan);

/**
 * Gives a plan for cutting the file behind its last chunk in use and the next metadata area, so
 * that what is reserved is given up too, or NULL. For closing: after the last commit, and when
 * `dmsnap_store_reclaim` has nothing more. A cut that failed is not asked for again.
 */
int dmsnap_store_trim(struct dmsnap_store *store, struct dmsnap_plan **plan);

/**
 * Gives the plan that writes the invalid header, if running full in mode P has made one due, else
 * NULL.
 */
int dmsnap_store_take_invalidation(struct dmsnap_store *store, struct dmsnap_plan **plan);

/**
 * Tells that a COW device of fixed size has `size` bytes now. What is new on it is used at once.
 */
int dmsnap_store_set_cow_size(struct dmsnap_store *store, uint64_t size);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* DMSNAP_H */
