/* Two threads set one options object, which the header forbids: to see that ThreadSanitizer looks into the library. */
#include "util.h"

#include <pthread.h>

static dmsnap_open_options *options;

static void *set(void *unused)
{
    int i;

    for (i = 0; i < 1000; i++) {
        OK(dmsnap_open_options_set_writable(options, i % 2 == 0));
    }
    return unused;
}

int main(void)
{
    pthread_t threads[2];
    int i;

    options = dmsnap_open_options_new();
    for (i = 0; i < 2; i++) {
        CHECK(pthread_create(&threads[i], NULL, set, NULL) == 0);
    }
    for (i = 0; i < 2; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    dmsnap_open_options_free(options);
    return finish();
}
