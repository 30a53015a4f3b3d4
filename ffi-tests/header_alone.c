/* The header needs no other one before it. */
#include <dmsnap.h>

int main(void)
{
    return dmsnap_version_number() == DMSNAP_VERSION_NUMBER ? 0 : 1;
}
