/* The header twice, and in two files of one program: it defines nothing that could clash. */
#include <dmsnap.h>
#include <dmsnap.h>

unsigned other_file(void);

int main(void)
{
    return other_file() == dmsnap_version_number() ? 0 : 1;
}
