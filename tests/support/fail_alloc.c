#include "support/fail_alloc.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static atomic_size_t calls, first, last, failed;

void fail_alloc_at(size_t n)
{
    calls = 0;
    failed = 0;
    first = n;
    last = n;
}

void fail_alloc_from(size_t n)
{
    fail_alloc_at(n);
    last = SIZE_MAX;
}

bool fail_alloc_stop(void)
{
    first = 0;
    return failed;
}

size_t fail_alloc_count(void)
{
    return calls;
}

static bool refuse(void)
{
    size_t n = ++calls;
    if (!first || n < first || n > last)
        return false;
    failed++;
    errno = ENOMEM;
    return true;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
int __real_posix_memalign(void **p, size_t align, size_t n);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);
void *__real_mmap(void *p, size_t n, int prot, int flags, int fd, off_t off);
void *__real_mmap64(void *p, size_t n, int prot, int flags, int fd, off_t off);

void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
int __wrap_posix_memalign(void **p, size_t align, size_t n);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);
void *__wrap_mmap(void *p, size_t n, int prot, int flags, int fd, off_t off);
void *__wrap_mmap64(void *p, size_t n, int prot, int flags, int fd, off_t off);

void *__wrap_malloc(size_t n)
{
    return refuse() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return refuse() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return refuse() ? NULL : __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    return refuse() ? NULL : __real_aligned_alloc(align, n);
}

int __wrap_posix_memalign(void **p, size_t align, size_t n)
{
    return refuse() ? ENOMEM : __real_posix_memalign(p, align, n);
}

char *__wrap_strdup(const char *s)
{
    return refuse() ? NULL : __real_strdup(s);
}

char *__wrap_strndup(const char *s, size_t n)
{
    return refuse() ? NULL : __real_strndup(s, n);
}

void *__wrap_mmap(void *p, size_t n, int prot, int flags, int fd, off_t off)
{
    return refuse() ? MAP_FAILED : __real_mmap(p, n, prot, flags, fd, off);
}

/* What mmap is called with -D_FILE_OFFSET_BITS=64, which Meson sets. */
void *__wrap_mmap64(void *p, size_t n, int prot, int flags, int fd, off_t off)
{
    return refuse() ? MAP_FAILED : __real_mmap64(p, n, prot, flags, fd, off);
}
