/* Versions: the library's own, the header's, and the macros that are computed. */
#include "util.h"

#if DMSNAP_VERSION_NUMBER < 0x000100 || DMSNAP_VERSION_NUMBER >= 0x1000000
#error "the preprocessor must be able to compare versions"
#endif

int main(void)
{
    char text[32];
    unsigned number = DMSNAP_VERSION_NUMBER;

    snprintf(text, sizeof(text), "%d.%d.%d", DMSNAP_VERSION_MAJOR, DMSNAP_VERSION_MINOR,
             DMSNAP_VERSION_PATCH);
    CHECK(strcmp(text, dmsnap_version()) == 0);
    CHECK(number == dmsnap_version_number());
    CHECK(number >> 16 == DMSNAP_VERSION_MAJOR);
    CHECK((number >> 8 & 255) == DMSNAP_VERSION_MINOR);
    CHECK((number & 255) == DMSNAP_VERSION_PATCH);
    return finish();
}
