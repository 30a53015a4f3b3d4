/*
 * Writes and verifies sectors that tell where and when they were written.
 *
 *   stamp fill FILE SEED SECTORS           a new file, each sector of generation 0
 *   stamp write [OPTION...] DEVICE SEED    batches of random writes, each batch flushed
 *   stamp verify [OPTION...] DEVICE SEED   every sector is whole and not older than it must be
 *
 *   -o FIRST     first sector of the region (0)      -n COUNT  its length (0: to the end)
 *   -a AFTER     batches that were written before: for write, it goes on behind them (0)
 *   -b BATCHES   last batch: for verify, the one up to which all was flushed
 *   -u FILE      write until FILE exists
 *   -r FILE      write "flushed BATCH" to FILE after each flush
 *   -d           write past the page cache
 *   -c CPU       run there
 *
 * What batch B of a seed writes follows from both alone, and B is the generation of what it writes.
 * So whoever knows the number of the last flushed batch knows how old each sector may be at most.
 * While it writes, random ranges are read back and verified too. The region must hold stamps of the
 * seed from the start (fill), so a sector of zeros or of another place is as wrong as a torn one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

enum {
    SECTOR = 512,
    WORDS = SECTOR / 8,
    HEADER_WORDS = 4,
    REQUEST_SECTORS = 64,
    CHUNK_SECTORS = 32,
    BATCH_REQUESTS = 16,
    SHOWN_ERRORS = 10,
};

#define MAGIC UINT64_C(0x31706d617473736d)

typedef struct Region {
    const char *path;
    int write_fd;
    int read_fd;
    uint64_t seed;
    uint64_t first;
    uint64_t count;
    uint32_t *oldest; /* per sector, the generation it must have reached */
    uint64_t errors;
} Region;

typedef struct Range {
    uint64_t start; /* in the region */
    uint64_t count;
} Range;

static uint64_t buffer[REQUEST_SECTORS * WORDS] __attribute__((aligned(4096)));

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fputs("stamp: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint64_t next_random(uint64_t *state)
{
    *state = mix(*state);
    return *state;
}

static void make_stamp(uint64_t *words, uint64_t seed, uint64_t sector, uint64_t generation)
{
    uint64_t state = mix(seed ^ mix(sector ^ mix(generation)));

    words[0] = MAGIC;
    words[1] = seed;
    words[2] = sector;
    words[3] = generation;
    for (int i = HEADER_WORDS; i < WORDS; i++) {
        words[i] = next_random(&state);
    }
}

static bool is_stamp(const uint64_t *words, uint64_t seed, uint64_t sector)
{
    uint64_t expected[WORDS];

    make_stamp(expected, seed, sector, words[3]);
    return memcmp(expected, words, SECTOR) == 0;
}

static bool is_zero(const uint64_t *words)
{
    return words[0] == 0 && memcmp(words, words + 1, SECTOR - 8) == 0;
}

/* Says what a wrong sector is. */
static void describe(const uint64_t *words)
{
    if (is_zero(words)) {
        fputs("zeros\n", stderr);
    } else if (words[0] != MAGIC) {
        fprintf(stderr, "no stamp, begins with %016" PRIx64 "\n", words[0]);
    } else {
        fprintf(stderr, "%s of sector %" PRIu64 ", generation %" PRIu64 ", seed %" PRIu64 "\n",
                is_stamp(words, words[1], words[2]) ? "the stamp" : "a damaged stamp",
                words[2], words[3], words[1]);
    }
}

static void check_sector(Region *region, uint64_t place, const uint64_t *words)
{
    uint64_t sector = region->first + place;

    if (is_stamp(words, region->seed, sector) && words[3] >= region->oldest[place]) {
        return;
    }
    if (region->errors++ < SHOWN_ERRORS) {
        fprintf(stderr,
                "%s: sector %" PRIu64 " must be of generation %" PRIu32 " or later, of seed %" PRIu64
                ", but is ", region->path, sector, region->oldest[place], region->seed);
        describe(words);
    }
}

static void check_range(Region *region, Range range)
{
    size_t length = range.count * SECTOR;
    ssize_t got = pread(region->read_fd, buffer, length, (region->first + range.start) * SECTOR);

    if (got != (ssize_t)length) {
        die("%s: reading %zu bytes at sector %" PRIu64 ": %s", region->path, length,
            region->first + range.start, got < 0 ? strerror(errno) : "too few came");
    }
    for (uint64_t i = 0; i < range.count; i++) {
        check_sector(region, range.start + i, buffer + i * WORDS);
    }
}

static void end_if_wrong(Region *region, uint64_t batch)
{
    if (region->errors) {
        die("%s: %" PRIu64 " sectors are wrong after batch %" PRIu64, region->path,
            region->errors, batch);
    }
}

static void check_all(Region *region, uint64_t batch)
{
    for (uint64_t at = 0; at < region->count; at += REQUEST_SECTORS) {
        uint64_t left = region->count - at;

        check_range(region, (Range) { at, left < REQUEST_SECTORS ? left : REQUEST_SECTORS });
    }
    end_if_wrong(region, batch);
}

/* Of any start and length, and at times whole chunks. */
static Range random_range(const Region *region, uint64_t *random)
{
    uint64_t start = next_random(random) % region->count;
    uint64_t count = next_random(random) % REQUEST_SECTORS + 1;

    if (next_random(random) % 4 == 0) {
        start -= start % CHUNK_SECTORS;
        count = CHUNK_SECTORS;
    }
    if (count > region->count - start) {
        count = region->count - start;
    }
    return (Range) { start, count };
}

static uint64_t batch_random(const Region *region, uint64_t batch)
{
    return mix(region->seed) ^ mix(~batch);
}

static void note_range(Region *region, Range range, uint64_t batch)
{
    for (uint64_t i = 0; i < range.count; i++) {
        region->oldest[range.start + i] = batch;
    }
}

/* What is known once batches up to this one were flushed. */
static void note_batches(Region *region, uint64_t last)
{
    for (uint64_t batch = 1; batch <= last; batch++) {
        uint64_t random = batch_random(region, batch);

        for (int i = 0; i < BATCH_REQUESTS; i++) {
            note_range(region, random_range(region, &random), batch);
        }
    }
}

static void write_range(Region *region, Range range, uint64_t batch)
{
    size_t length = range.count * SECTOR;
    uint64_t sector = region->first + range.start;
    ssize_t put;

    for (uint64_t i = 0; i < range.count; i++) {
        make_stamp(buffer + i * WORDS, region->seed, sector + i, batch);
    }
    put = pwrite(region->write_fd, buffer, length, sector * SECTOR);
    if (put != (ssize_t)length) {
        die("%s: writing %zu bytes at sector %" PRIu64 ": %s", region->path, length, sector,
            put < 0 ? strerror(errno) : "too few were taken");
    }
    note_range(region, range, batch);
}

static void write_batch(Region *region, uint64_t batch)
{
    uint64_t random = batch_random(region, batch);
    uint64_t elsewhere = mix(random);

    for (int i = 0; i < BATCH_REQUESTS; i++) {
        write_range(region, random_range(region, &random), batch);
        check_range(region, random_range(region, &elsewhere));
    }
    if (fdatasync(region->write_fd) < 0) {
        die("%s: flush of batch %" PRIu64 ": %s", region->path, batch, strerror(errno));
    }
    end_if_wrong(region, batch);
}

static int open_or_die(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0666);

    if (fd < 0) {
        die("%s: %s", path, strerror(errno));
    }
    return fd;
}

/* The line has left the guest when this returns. */
static void report(int fd, uint64_t batch)
{
    char line[64];
    int length = snprintf(line, sizeof(line), "flushed %" PRIu64 "\n", batch);

    if (fd >= 0 && write(fd, line, length) != length) {
        die("the report of batch %" PRIu64 ": %s", batch, strerror(errno));
    }
    if (fd >= 0 && isatty(fd) && tcdrain(fd) < 0) {
        die("waiting for the report of batch %" PRIu64 ": %s", batch, strerror(errno));
    }
}

static void write_batches(Region *region, uint64_t after, uint64_t last, const char *until,
                          const char *report_path)
{
    int report_fd = report_path ? open_or_die(report_path, O_WRONLY | O_NOCTTY | O_APPEND) : -1;
    uint64_t batch = after;

    note_batches(region, after);
    while (batch < last && !(until && access(until, F_OK) == 0)) {
        write_batch(region, ++batch);
        report(report_fd, batch);
    }
    check_all(region, batch);
    printf("batches %" PRIu64 "\n", batch);
}

static void fill(const char *path, uint64_t seed, uint64_t sectors)
{
    FILE *file = fopen(path, "wxe");

    for (uint64_t i = 0; file && i < sectors; i++) {
        make_stamp(buffer, seed, i, 0);
        if (fwrite(buffer, SECTOR, 1, file) != 1) {
            break;
        }
    }
    if (!file || fclose(file) != 0) {
        die("%s: %s", path, strerror(errno));
    }
}

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0) {
        die("CPU %d: %s", cpu, strerror(errno));
    }
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t value;

    errno = 0;
    value = strtoull(text, &end, 0);
    if (errno || end == text || *end) {
        die("'%s' is no number", text);
    }
    return value;
}

/* What is read comes from the device itself, not from the guest's page cache. */
static void open_region(Region *region, bool writable, bool direct)
{
    struct stat status;
    off_t size;
    uint64_t sectors;

    if (stat(region->path, &status) < 0) {
        die("%s: %s", region->path, strerror(errno));
    }
    region->read_fd = open_or_die(region->path, O_RDONLY | (S_ISBLK(status.st_mode) ? O_DIRECT : 0));
    if (writable) {
        region->write_fd = open_or_die(region->path, O_WRONLY | (direct ? O_DIRECT : 0));
    }
    size = lseek(region->read_fd, 0, SEEK_END);
    sectors = size < 0 ? 0 : size / SECTOR;
    if (region->first >= sectors || region->count > sectors - region->first) {
        die("%s: %" PRIu64 " sectors from sector %" PRIu64 " on are not on a device of %" PRIu64,
            region->path, region->count, region->first, sectors);
    }
    if (region->count == 0) {
        region->count = sectors - region->first;
    }
    region->oldest = calloc(region->count, sizeof(*region->oldest));
    if (!region->oldest) {
        die("not enough memory for %" PRIu64 " sectors", region->count);
    }
}

int main(int argc, char **argv)
{
    Region region = { 0 };
    uint64_t after = 0, last = UINT64_MAX;
    const char *until = NULL, *report_path = NULL, *mode;
    bool direct = false;
    int option;

    if (argc == 5 && strcmp(argv[1], "fill") == 0) {
        fill(argv[2], number(argv[3]), number(argv[4]));
        return 0;
    }
    mode = argc > 1 ? argv[1] : "";
    optind = 2;
    while ((option = getopt(argc, argv, "o:n:a:b:u:r:dc:")) != -1) {
        switch (option) {
        case 'o': region.first = number(optarg); break;
        case 'n': region.count = number(optarg); break;
        case 'a': after = number(optarg); break;
        case 'b': last = number(optarg); break;
        case 'u': until = optarg; break;
        case 'r': report_path = optarg; break;
        case 'd': direct = true; break;
        case 'c': pin(number(optarg)); break;
        default: return 2;
        }
    }
    if (argc - optind != 2) {
        die("usage: fill FILE SEED SECTORS, or write|verify [OPTION...] DEVICE SEED");
    }
    region.path = argv[optind];
    region.seed = number(argv[optind + 1]);
    if (strcmp(mode, "write") == 0 && (until || last != UINT64_MAX)) {
        open_region(&region, true, direct);
        write_batches(&region, after, last, until, report_path);
    } else if (strcmp(mode, "verify") == 0 && last != UINT64_MAX) {
        open_region(&region, false, false);
        note_batches(&region, last);
        check_all(&region, last);
    } else {
        die("write needs -b or -u, verify needs -b");
    }
    return 0;
}
