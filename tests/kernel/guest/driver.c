/*
 * Works on device-mapper devices for the host, all in one process: `driver DISK`.
 *
 * Under emulation every process costs some hundredths of a second; this one makes, writes, reads and removes a snapshot in some
 * thousandths. The disk is shared with the host, which sees what we write and the other way round as soon as a request is done:
 *
 *   sector 0       number and length of the last message, two 64-bit words; its text begins at sector 8
 *   sector 4096    the same of the last answer; its text begins at sector 4104
 *   sector 8192    the host's: content of the devices that it asks for
 *
 * A message is a list of commands, one a line, and each has one line in the answer: "ok", with what was asked for, or "error ERRNO".
 * Positions and counts are sectors. A table is "START LENGTH TARGET ARGUMENTS", and more of them behind " ; "; @NAME in it is the
 * number of a device, @disk that of the disk.
 *
 *   create NAME TABLE          a device that is active
 *   load NAME TABLE            another table for a device; it counts from the next resume on
 *   suspend | resume NAME
 *   remove NAME
 *   status NAME                the words of its first target
 *   wait NAME                  the same when a merge has ended, well or badly
 *   copy FROM SECTOR COUNT TO SECTOR     in one request
 *   hash NAME | hash NAME SECTOR COUNT   as `hash` below has it
 *   discard NAME SECTOR COUNT
 *   flush NAME
 *   quit
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/dm-ioctl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum {
    SECTOR = 512,
    MESSAGE = 0,
    ANSWER = 4096 * SECTOR,
    TEXT = 8 * SECTOR,
    TEXT_MAX = 2000 * 1024,
    BUFFER = 1 << 20,
    DEVICES = 64,
    WORDS = 32,
};

struct device {
    char name[32];
    dev_t number;
    int fd;
};

static struct device devices[DEVICES];
static int control;
/* Aligned for direct I/O. */
static char *buffer, *message, *answer;
static size_t answered;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void *aligned(size_t size)
{
    void *place;

    if (posix_memalign(&place, 4096, size) != 0) {
        die("memory");
    }
    memset(place, 0, size);
    return place;
}

/* ---- devices ---- */

static struct device *find(const char *name)
{
    for (struct device *device = devices; device < devices + DEVICES; device++) {
        if (device->name[0] != '\0' && strcmp(device->name, name) == 0) {
            return device;
        }
    }
    errno = ENODEV;
    return NULL;
}

/* The device's file, which the kernel makes by itself. */
static int file_of(struct device *device)
{
    char path[32];

    if (device->fd < 0) {
        snprintf(path, sizeof(path), "/dev/dm-%u", minor(device->number));
        device->fd = open(path, O_RDWR | O_DIRECT);
        if (device->fd < 0 && (errno == EACCES || errno == EROFS)) {
            device->fd = open(path, O_RDONLY | O_DIRECT);
        }
    }
    return device->fd;
}

static int file_named(const char *name)
{
    struct device *device = find(name);

    return device ? file_of(device) : -1;
}

/* ---- device-mapper ---- */

static struct dm_ioctl *request(const char *name, uint32_t flags)
{
    static union {
        struct dm_ioctl head;
        char bytes[16384];
    } space;
    struct dm_ioctl *head = &space.head;

    memset(head, 0, sizeof(space));
    head->version[0] = DM_VERSION_MAJOR;
    head->data_size = sizeof(space);
    head->data_start = sizeof(*head);
    head->flags = flags;
    strncpy(head->name, name, sizeof(head->name) - 1);
    return head;
}

static int simple(unsigned long code, const char *name, uint32_t flags)
{
    return ioctl(control, code, request(name, flags));
}

/* One argument of a target; returns where the next goes. */
static char *put_argument(char *to, const char *word)
{
    if (word[0] == '@') {
        struct device *device = find(word + 1);

        return device ? to + sprintf(to, "%u:%u ", major(device->number), minor(device->number)) : NULL;
    }
    return to + sprintf(to, "%s ", word);
}

/* Words of a table, NULL behind the last. */
static int load_table(const char *name, char **words)
{
    struct dm_ioctl *head = request(name, 0);
    char *place = (char *)(head + 1);

    while (words[0] && words[1] && words[2]) {
        struct dm_target_spec *spec = (struct dm_target_spec *)place;
        char *end = place + sizeof(*spec);

        spec->sector_start = strtoull(words[0], NULL, 10);
        spec->length = strtoull(words[1], NULL, 10);
        strncpy(spec->target_type, words[2], sizeof(spec->target_type) - 1);
        for (words += 3; *words && strcmp(*words, ";") != 0; words++) {
            end = put_argument(end, *words);
            if (!end) {
                return -1;
            }
        }
        words += *words != NULL;
        /* Its end, and the alignment of what follows. */
        spec->next = (end - place + 1 + 7) & ~7;
        place += spec->next;
        head->target_count++;
    }
    return ioctl(control, DM_TABLE_LOAD, head);
}

static int activate(const char *name, char **words)
{
    return load_table(name, words) < 0 ? -1 : simple(DM_DEV_SUSPEND, name, 0);
}

static int create(const char *name, char **words)
{
    struct dm_ioctl *head = request(name, 0);
    struct device *device = devices;
    int error;

    while (device < devices + DEVICES && device->name[0] != '\0') {
        device++;
    }
    if (device == devices + DEVICES || strlen(name) >= sizeof(device->name)) {
        errno = ENOSPC;
        return -1;
    }
    if (ioctl(control, DM_DEV_CREATE, head) < 0) {
        return -1;
    }
    device->number = makedev(major(head->dev), minor(head->dev));
    device->fd = -1;
    if (activate(name, words) < 0) {
        error = errno;
        simple(DM_DEV_REMOVE, name, 0);
        errno = error;
        return -1;
    }
    strcpy(device->name, name);
    return 0;
}

static int drop(const char *name)
{
    struct device *device = find(name);

    if (!device) {
        return -1;
    }
    if (device->fd >= 0) {
        close(device->fd);
        device->fd = -1;
    }
    if (simple(DM_DEV_REMOVE, name, 0) < 0) {
        return -1;
    }
    device->name[0] = '\0';
    return 0;
}

/* The words of the first target, NULL with errno if there are none. */
static const char *status(const char *name)
{
    struct dm_ioctl *head = request(name, 0);

    if (ioctl(control, DM_TABLE_STATUS, head) < 0) {
        return NULL;
    }
    return (char *)head + head->data_start + sizeof(struct dm_target_spec);
}

static const char *wait_merge(const char *name)
{
    for (;;) {
        const char *words = status(name);
        uint64_t used, total, metadata;

        if (!words || sscanf(words, "%" SCNu64 "/%" SCNu64 " %" SCNu64, &used, &total, &metadata) != 3 || used == metadata) {
            return words;
        }
        usleep(500);
    }
}

/* ---- content ---- */

/* 0, or -1 with errno; a short transfer is an I/O error. */
static int whole(ssize_t done, size_t wanted)
{
    if (done >= 0 && (size_t)done != wanted) {
        errno = EIO;
    }
    return done == (ssize_t)wanted ? 0 : -1;
}

static int copy(int from, uint64_t from_sector, uint64_t count, int to, uint64_t to_sector)
{
    size_t size = count * SECTOR;

    if (size > BUFFER) {
        errno = EINVAL;
        return -1;
    }
    return whole(pread(from, buffer, size, from_sector * SECTOR), size) < 0
        ? -1 : whole(pwrite(to, buffer, size, to_sector * SECTOR), size);
}

static uint64_t hash(uint64_t state, const char *bytes, size_t size)
{
    for (size_t at = 0; at < size; at += 8) {
        uint64_t word;

        memcpy(&word, bytes + at, 8);
        word ^= state;
        state = (word << 29 | word >> 35) * UINT64_C(0x9e3779b97f4a7c15);
    }
    return state;
}

static int hash_range(int fd, uint64_t sector, uint64_t count, uint64_t *state)
{
    *state = count;
    for (uint64_t at = sector * SECTOR, end = at + count * SECTOR; at < end;) {
        size_t size = end - at < BUFFER ? end - at : BUFFER;

        if (whole(pread(fd, buffer, size, at), size) < 0) {
            return -1;
        }
        *state = hash(*state, buffer, size);
        at += size;
    }
    return 0;
}

static int hash_words(char **words, uint64_t *state)
{
    int fd = file_named(words[0]);
    uint64_t size;

    if (fd < 0) {
        return -1;
    }
    if (words[1] && words[2]) {
        return hash_range(fd, strtoull(words[1], NULL, 10), strtoull(words[2], NULL, 10), state);
    }
    return ioctl(fd, BLKGETSIZE64, &size) < 0 ? -1 : hash_range(fd, 0, size / SECTOR, state);
}

static int discard(char **words)
{
    int fd = file_named(words[0]);
    uint64_t range[2] = {strtoull(words[1], NULL, 10) * SECTOR, strtoull(words[2], NULL, 10) * SECTOR};

    return fd < 0 ? -1 : ioctl(fd, BLKDISCARD, range);
}

static int copy_words(char **words)
{
    int from = file_named(words[0]), to = file_named(words[3]);

    if (from < 0 || to < 0) {
        return -1;
    }
    return copy(from, strtoull(words[1], NULL, 10), strtoull(words[2], NULL, 10), to, strtoull(words[4], NULL, 10));
}

/* ---- messages ---- */

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    answered += vsnprintf(answer + answered, TEXT_MAX - answered, format, arguments);
    va_end(arguments);
    if (answered >= TEXT_MAX) {
        die("too long an answer");
    }
}

static void say_result(int result)
{
    if (result < 0) {
        say("error %d\n", errno);
    } else {
        say("ok\n");
    }
}

static void say_words(const char *words)
{
    if (words) {
        say("ok %s\n", words);
    } else {
        say("error %d\n", errno);
    }
}

/* At least so many words behind the command. */
static size_t needed(const char *command)
{
    return strcmp(command, "copy") == 0 ? 5 : strcmp(command, "discard") == 0 ? 3
        : strcmp(command, "create") == 0 || strcmp(command, "load") == 0 ? 4 : 1;
}

static void obey(char **words, size_t count)
{
    const char *command = words[0], *name = words[1];
    uint64_t state;

    if (count < needed(command) + 1) {
        die(command);
    } else if (strcmp(command, "create") == 0) {
        say_result(create(name, words + 2));
    } else if (strcmp(command, "load") == 0) {
        say_result(load_table(name, words + 2));
    } else if (strcmp(command, "suspend") == 0) {
        say_result(simple(DM_DEV_SUSPEND, name, DM_SUSPEND_FLAG));
    } else if (strcmp(command, "resume") == 0) {
        /* There are no file systems to be frozen before a table is replaced. */
        say_result(simple(DM_DEV_SUSPEND, name, DM_SKIP_LOCKFS_FLAG));
    } else if (strcmp(command, "remove") == 0) {
        say_result(drop(name));
    } else if (strcmp(command, "status") == 0) {
        say_words(status(name));
    } else if (strcmp(command, "wait") == 0) {
        say_words(wait_merge(name));
    } else if (strcmp(command, "copy") == 0) {
        say_result(copy_words(words + 1));
    } else if (strcmp(command, "hash") == 0) {
        if (hash_words(words + 1, &state) < 0) {
            say("error %d\n", errno);
        } else {
            say("ok %016" PRIx64 "\n", state);
        }
    } else if (strcmp(command, "discard") == 0) {
        say_result(discard(words + 1));
    } else if (strcmp(command, "flush") == 0) {
        int fd = file_named(name);

        say_result(fd < 0 ? -1 : fsync(fd));
    } else {
        die(command);
    }
}

/* False if the command is to quit. */
static bool obey_line(char *line)
{
    char *words[WORDS + 1] = {NULL}, *place;
    size_t count = 0;

    for (char *word = strtok_r(line, " ", &place); word; word = strtok_r(NULL, " ", &place)) {
        if (count == WORDS) {
            die("too many words");
        }
        words[count++] = word;
    }
    if (count == 1 && strcmp(words[0], "quit") == 0) {
        return false;
    }
    obey(words, count);
    return true;
}

static void transfer(int result)
{
    if (result < 0) {
        die("the shared disk");
    }
}

static size_t padded(size_t size)
{
    return (size + SECTOR - 1) / SECTOR * SECTOR;
}

/* Waits for the next message; returns its text. The longer it takes, the less often we look. */
static char *receive(int disk, uint64_t number)
{
    uint64_t *head = (uint64_t *)buffer;
    unsigned int looks = 0;
    size_t size;

    for (;;) {
        transfer(whole(pread(disk, buffer, SECTOR, MESSAGE), SECTOR));
        if (head[0] == number) {
            break;
        }
        usleep(100 * ++looks < 10000 ? 100 * looks : 10000);
    }
    size = head[1];
    if (size >= TEXT_MAX) {
        die("too long a message");
    }
    if (size > 0) {
        transfer(whole(pread(disk, message, padded(size), MESSAGE + TEXT), padded(size)));
    }
    message[size] = '\0';
    return message;
}

static void send_answer(int disk, uint64_t number)
{
    uint64_t *head = (uint64_t *)buffer;

    if (answered > 0) {
        transfer(whole(pwrite(disk, answer, padded(answered), ANSWER + TEXT), padded(answered)));
    }
    memset(buffer, 0, SECTOR);
    head[0] = number;
    head[1] = answered;
    transfer(whole(pwrite(disk, buffer, SECTOR, ANSWER), SECTOR));
    answered = 0;
}

static bool obey_message(char *text)
{
    char *place;

    for (char *line = strtok_r(text, "\n", &place); line; line = strtok_r(NULL, "\n", &place)) {
        if (!obey_line(line)) {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    struct stat stat;
    bool more = true;

    if (argc != 2) {
        fputs("usage: driver DISK\n", stderr);
        return 2;
    }
    buffer = aligned(BUFFER);
    message = aligned(TEXT_MAX + SECTOR);
    answer = aligned(TEXT_MAX + SECTOR);
    control = open("/dev/mapper/control", O_RDWR);
    if (control < 0) {
        die("/dev/mapper/control");
    }
    devices[0].fd = open(argv[1], O_RDWR | O_DIRECT);
    if (devices[0].fd < 0 || fstat(devices[0].fd, &stat) < 0) {
        die(argv[1]);
    }
    strcpy(devices[0].name, "disk");
    devices[0].number = stat.st_rdev;
    for (uint64_t number = 1; more; number++) {
        more = obey_message(receive(devices[0].fd, number));
        send_answer(devices[0].fd, number);
    }
    return 0;
}
