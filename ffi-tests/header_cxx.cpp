// The C header from C++, without the C++ one.
#include <dmsnap.h>
#include <dmsnap.h>

#include <cstring>

int main()
{
    dmsnap_usage usage = {};
    usage.struct_size = sizeof usage;
    dmsnap_format format = DMSNAP_FORMAT_RAW;
    dmsnap_open_options *options = dmsnap_open_options_new();
    int result = dmsnap_open_options_set_origin_path(options, "origin", format,
                                                     DMSNAP_ORIGIN_CHOICE_REFUSE);
    dmsnap_open_options_free(options);
    return result == 0 && std::strcmp(dmsnap_version(), "") != 0 ? 0 : 1;
}
