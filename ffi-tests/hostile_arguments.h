/* What hostile_arguments.c makes its calls of: one of everything, and the argument for each type and name in dmsnap.h. */
#ifndef HOSTILE_ARGUMENTS_H
#define HOSTILE_ARGUMENTS_H

#include "util.h"
#include "host.h"

#define DISK (1 << 20)
#define COW "hostile.cow"
#define STORE "hostile.store"
#define NEW "hostile.new"
/* More than the library's limit for a structure. */
#define ROOM 8192

/* What all functions write to. */
struct outputs {
    /* A structure that begins with its size. */
    union {
        size_t struct_size;
        unsigned char bytes[ROOM];
    } sized;
    uint64_t word_out, word_offset, word_len, word_data_offset, word_data_len;
    dmsnap_answer answer;
    dmsnap_purpose purpose;
    bool more;
    dmsnap_storage *storage;
    dmsnap_image *image;
    dmsnap_merge *merge;
    dmsnap_info *info;
    dmsnap_check_report *report;
    dmsnap_recover_report *recovery;
    dmsnap_check_reader *reader;
    dmsnap_descriptor *descriptor;
    dmsnap_plan *plan;
    dmsnap_loader *loader;
    dmsnap_store *store;
    void *memory;
};

/* One of everything, fresh for each call. */
struct fixture {
    dmsnap_file_options *file_options;
    dmsnap_open_options *open_options;
    dmsnap_create_options *create_options;
    dmsnap_amend_options *amend_options;
    dmsnap_check_options *check_options;
    dmsnap_recover_options *recover_options;
    dmsnap_load_options *load_options;
    dmsnap_storage *storage, *cow, *origin;
    dmsnap_image *image;
    dmsnap_merge *merge;
    dmsnap_info *info;
    dmsnap_check_report *report;
    dmsnap_recover_report *recovery;
    dmsnap_check_reader *reader;
    dmsnap_descriptor *descriptor;
    dmsnap_plan *plan;
    dmsnap_loader *loader;
    struct host host;
    int fd;
    unsigned char buffer[ROOM];
    uint8_t uuid[16];
    struct iovec iov[2];
    union {
        dmsnap_storage_ops ops;
        unsigned char bytes[ROOM];
    } ops;
    struct outputs out;
    /* Which argument is replaced, -1: none; and by what, if it is a number. */
    int turn;
    uint64_t number;
    /* What structures say of their size; 0: the truth. */
    size_t struct_size;
    bool lies;
};

struct function {
    const char *name;
    int64_t (*call)(struct fixture *f);
    /* A letter for each argument: p for a pointer, n for a number. */
    const char *kinds;
    const char *names;
    /* Whether it returns 0 or a negative errno. */
    bool fails;
    /* Whether it is given a structure that begins with its size. */
    bool takes_size;
};

/* The structure at `place` that a function fills in. */
static void *sized(struct fixture *f, void *place, size_t size)
{
    size_t said = f->lies ? f->struct_size : size;

    memcpy(place, &said, sizeof(said));
    return place;
}

static dmsnap_merge *merge(struct fixture *f)
{
    if (f->merge == NULL) {
        OK(dmsnap_merge_open(f->image, &f->merge));
    }
    return f->merge;
}

/* What a call is made of. */
#define POINTER(index, value) (f->turn == (index) ? NULL : (value))
#define NUMBER(index, type, value) (f->turn == (index) ? (type)f->number : (type)(value))
#define FILLED(type) ((type *)sized(f, &f->out.sized, sizeof(type)))

#define ARGUMENT_dmsnap_file_options_pointer(name) f->file_options
#define ARGUMENT_dmsnap_open_options_pointer(name) f->open_options
#define ARGUMENT_dmsnap_create_options_pointer(name) f->create_options
#define ARGUMENT_dmsnap_amend_options_pointer(name) f->amend_options
#define ARGUMENT_dmsnap_check_options_pointer(name) f->check_options
#define ARGUMENT_dmsnap_recover_options_pointer(name) f->recover_options
#define ARGUMENT_dmsnap_load_options_pointer(name) f->load_options
#define ARGUMENT_dmsnap_storage_pointer(name) f->storage
#define ARGUMENT_dmsnap_image_pointer(name) f->image
#define ARGUMENT_dmsnap_merge_pointer(name) merge(f)
#define ARGUMENT_dmsnap_info_pointer(name) f->info
#define ARGUMENT_dmsnap_check_report_pointer(name) f->report
#define ARGUMENT_dmsnap_recover_report_pointer(name) f->recovery
#define ARGUMENT_dmsnap_check_reader_pointer(name) f->reader
#define ARGUMENT_dmsnap_descriptor_pointer(name) f->descriptor
#define ARGUMENT_dmsnap_plan_pointer(name) f->plan
#define ARGUMENT_dmsnap_loader_pointer(name) f->loader
#define ARGUMENT_dmsnap_store_pointer(name) f->host.store

#define ARGUMENT_dmsnap_storage_place(name) &f->out.storage
#define ARGUMENT_dmsnap_image_place(name) &f->out.image
#define ARGUMENT_dmsnap_merge_place(name) &f->out.merge
#define ARGUMENT_dmsnap_info_place(name) &f->out.info
#define ARGUMENT_dmsnap_check_report_place(name) &f->out.report
#define ARGUMENT_dmsnap_recover_report_place(name) &f->out.recovery
#define ARGUMENT_dmsnap_check_reader_place(name) &f->out.reader
#define ARGUMENT_dmsnap_descriptor_place(name) &f->out.descriptor
#define ARGUMENT_dmsnap_plan_place(name) &f->out.plan
#define ARGUMENT_dmsnap_loader_place(name) &f->out.loader
#define ARGUMENT_dmsnap_store_place(name) &f->out.store
#define ARGUMENT_void_place(name) &f->out.memory
#define ARGUMENT_uint64_t_pointer(name) &f->out.word_##name
#define ARGUMENT_dmsnap_answer_pointer(name) &f->out.answer
#define ARGUMENT_dmsnap_purpose_pointer(name) &f->out.purpose
#define ARGUMENT__Bool_pointer(name) &f->out.more

#define ARGUMENT_dmsnap_status_pointer(name) FILLED(dmsnap_status)
#define ARGUMENT_dmsnap_usage_pointer(name) FILLED(dmsnap_usage)
#define ARGUMENT_dmsnap_run_pointer(name) FILLED(dmsnap_run)
#define ARGUMENT_dmsnap_extent_pointer(name) FILLED(dmsnap_extent)
#define ARGUMENT_dmsnap_progress_pointer(name) FILLED(dmsnap_progress)
#define ARGUMENT_dmsnap_facts_pointer(name) FILLED(dmsnap_facts)
#define ARGUMENT_dmsnap_layer_pointer(name) FILLED(dmsnap_layer)
#define ARGUMENT_dmsnap_check_summary_pointer(name) FILLED(dmsnap_check_summary)
#define ARGUMENT_dmsnap_finding_pointer(name) FILLED(dmsnap_finding)
#define ARGUMENT_dmsnap_recover_summary_pointer(name) FILLED(dmsnap_recover_summary)
#define ARGUMENT_dmsnap_left_out_pointer(name) FILLED(dmsnap_left_out)
#define ARGUMENT_dmsnap_descriptor_info_pointer(name) FILLED(dmsnap_descriptor_info)
#define ARGUMENT_dmsnap_step_pointer(name) FILLED(dmsnap_step)
#define ARGUMENT_dmsnap_header_pointer(name) FILLED(dmsnap_header)
#define ARGUMENT_dmsnap_measure_pointer(name) FILLED(dmsnap_measure)
#define ARGUMENT_dmsnap_store_facts_pointer(name) FILLED(dmsnap_store_facts)
#define ARGUMENT_dmsnap_mapping_pointer(name) FILLED(dmsnap_mapping)
#define ARGUMENT_dmsnap_exception_pointer(name) FILLED(dmsnap_exception)

#define ARGUMENT_char_pointer(name) text(#name)
#define ARGUMENT_void_pointer(name) f->buffer
#define ARGUMENT_uint8_t_pointer(name) f->uuid
#define ARGUMENT_iovec_pointer(name) f->iov
#define ARGUMENT_dmsnap_storage_ops_pointer(name)                                                  \
    ((dmsnap_storage_ops *)sized(f, &f->ops, sizeof(dmsnap_storage_ops)))
#define ARGUMENT_callback_pointer(name) go_on

#define ARGUMENT_size DISK
#define ARGUMENT_virtual_size DISK
#define ARGUMENT_origin_size DISK
#define ARGUMENT_cow_size DISK
#define ARGUMENT_offset 0
#define ARGUMENT_len 512
#define ARGUMENT_bytes 4096
#define ARGUMENT_chunk_size 4096
#define ARGUMENT_mapped_chunks 3
#define ARGUMENT_old_chunk 0
#define ARGUMENT_first_chunk 0
#define ARGUMENT_count 1
#define ARGUMENT_index 0
#define ARGUMENT_iovcnt 2
#define ARGUMENT_id 12345
#define ARGUMENT_pin 0
#define ARGUMENT_result 0
#define ARGUMENT_fd f->fd
#define ARGUMENT_mode 0
#define ARGUMENT_what 0
#define ARGUMENT_choice 0
#define ARGUMENT_format DMSNAP_FORMAT_RAW
#define ARGUMENT_below 0
#define ARGUMENT_bare true
#define ARGUMENT_create true
#define ARGUMENT_direct false
#define ARGUMENT_fixed_size false
#define ARGUMENT_growable true
#define ARGUMENT_ignore true
#define ARGUMENT_lock true
#define ARGUMENT_on_existing true
#define ARGUMENT_shrink true
#define ARGUMENT_unmap true
#define ARGUMENT_writable true

static const char *text(const char *name)
{
    if (strcmp(name, "new_path") == 0) {
        return NEW;
    }
    return strcmp(name, "path") == 0 ? COW : name;
}

static bool go_on(void *opaque, const dmsnap_progress *progress)
{
    return opaque != NULL && progress->done <= progress->total;
}

#endif
