/* Not a test but the test of two tools: hands the library fewer bytes than it says.
 * AddressSanitizer and valgrind have to see that the library reads past them, or they see
 * nothing in the other programs either. */
#include <dmsnap.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    unsigned char *bytes = malloc(12);
    int result;

    if (bytes == NULL) {
        return 1;
    }
    memcpy(bytes, "SnAp\1\0\0\0\1\0\0", 12);
    result = dmsnap_header_probe(bytes, 16, NULL);
    free(bytes);
    (void)result;
    return 0;
}
