/* Second file of header_twice.c. */
#include <dmsnap.h>

unsigned other_file(void);

unsigned other_file(void)
{
    return DMSNAP_VERSION_NUMBER;
}
