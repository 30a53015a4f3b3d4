/* Loads the library from a thread, provokes an error there, ends the thread, and closes the
 * library: thread-local data must not need it after that. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct symbols {
    int (*flush)(const void *);
    const char *(*message)(void);
    unsigned (*kind)(void);
};

static void *library;
static struct symbols symbols;

/* ISO C has no conversion from an object's pointer to a function's; POSIX says that the bytes
 * will do. */
static int load(const char *name, void *function, size_t size)
{
    void *symbol = dlsym(library, name);

    if (symbol == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    memcpy(function, &symbol, size);
    return 0;
}

static void *provoke(void *unused)
{
    (void)unused;
    if (symbols.flush(NULL) >= 0 || strstr(symbols.message(), "image is NULL") == NULL) {
        return "no error in a thread";
    }
    return NULL;
}

static void *open_and_provoke(void *path)
{
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return dlerror();
    }
    if (load("dmsnap_image_flush", &symbols.flush, sizeof(symbols.flush)) != 0 ||
        load("dmsnap_last_error_message", &symbols.message, sizeof(symbols.message)) != 0 ||
        load("dmsnap_last_error_kind", &symbols.kind, sizeof(symbols.kind)) != 0) {
        return "a symbol is missing";
    }
    return provoke(NULL);
}

static int run(void *(*body)(void *), void *argument)
{
    pthread_t thread;
    void *complaint;

    if (pthread_create(&thread, NULL, body, argument) != 0 ||
        pthread_join(thread, &complaint) != 0) {
        complaint = "no thread";
    }
    if (complaint != NULL) {
        fprintf(stderr, "%s\n", (const char *)complaint);
        return 1;
    }
    return 0;
}

int main(void)
{
    int round;

    for (round = 0; round < 3; round++) {
        if (run(open_and_provoke, "libdmsnap.so.0") != 0) {
            return 1;
        }
        if (symbols.kind() != 0 || strcmp(symbols.message(), "") != 0) {
            fprintf(stderr, "another thread's error reached this one\n");
            return 1;
        }
        if (run(provoke, NULL) != 0) {
            return 1;
        }
        if (dlclose(library) != 0) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
    }
    return 0;
}
