/* What rustc's ThreadSanitizer calls and GCC's lacks. The functions called here are those that the sanitizer watches. */
#ifndef __clang__
#include <string.h>

void *__tsan_memset(void *to, int byte, size_t len);
void *__tsan_memcpy(void *to, const void *from, size_t len);
void *__tsan_memmove(void *to, const void *from, size_t len);

void *__tsan_memset(void *to, int byte, size_t len)
{
    return memset(to, byte, len);
}

void *__tsan_memcpy(void *to, const void *from, size_t len)
{
    return memcpy(to, from, len);
}

void *__tsan_memmove(void *to, const void *from, size_t len)
{
    return memmove(to, from, len);
}
#else
typedef int not_empty;
#endif
