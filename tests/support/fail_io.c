#include "support/fail_io.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_size_t calls, first, last, failed;
static atomic_int code, kills;

void fail_io_at(size_t n, int error)
{
    calls = 0;
    failed = 0;
    kills = 0;
    code = error;
    first = n;
    last = n;
}

void fail_io_from(size_t n, int error)
{
    fail_io_at(n, error);
    last = SIZE_MAX;
}

void fail_io_kill_at(size_t n)
{
    fail_io_at(n, EIO);
    kills = 1;
}

bool fail_io_stop(void)
{
    first = 0;
    return failed;
}

/* Whether this call is one that fails; does not return when it kills and there is nothing to do
   first. */
static bool refuse(bool removes, bool writes)
{
    size_t n = ++calls;
    if (!first || n < first || n > last || (removes && last == SIZE_MAX))
        return false;
    failed++;
    if (kills && !writes)
        raise(SIGKILL);
    errno = code;
    return true;
}

/* With offsets of 64 bits, as Meson compiles, open is open64 and so on. */
int __real_open64(const char *path, int flags, ...);
ssize_t __real_write(int fd, const void *p, size_t n);
ssize_t __real_pwrite64(int fd, const void *p, size_t n, off_t at);
int __real_fsync(int fd);
int __real_fdatasync(int fd);
int __real_rename(const char *a, const char *b);
int __real_renameat2(int x, const char *a, int y, const char *b, unsigned flags);
int __real_mkdir(const char *path, mode_t mode);
int __real_unlink(const char *path);
int __real_unlinkat(int fd, const char *path, int flags);
int __real_rmdir(const char *path);
int __real_ftruncate64(int fd, off_t n);

int __wrap_open64(const char *path, int flags, ...);
ssize_t __wrap_write(int fd, const void *p, size_t n);
ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off_t at);
int __wrap_fsync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_rename(const char *a, const char *b);
int __wrap_renameat2(int x, const char *a, int y, const char *b, unsigned flags);
int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_unlink(const char *path);
int __wrap_unlinkat(int fd, const char *path, int flags);
int __wrap_rmdir(const char *path);
int __wrap_ftruncate64(int fd, off_t n);

int __wrap_open64(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    bool writes = (flags & O_ACCMODE) != O_RDONLY;
    return writes && refuse(false, false) ? -1 : __real_open64(path, flags, mode);
}

ssize_t __wrap_write(int fd, const void *p, size_t n)
{
    if (fd <= 2 || !refuse(false, true))
        return __real_write(fd, p, n);
    int was = errno;
    if (n > 1 && __real_write(fd, p, n / 2) < 0)
        was = errno;
    if (kills)
        raise(SIGKILL);
    errno = was;
    return -1;
}

ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off_t at)
{
    if (!refuse(false, true))
        return __real_pwrite64(fd, p, n, at);
    int was = errno;
    if (n > 1 && __real_pwrite64(fd, p, n / 2, at) < 0)
        was = errno;
    if (kills)
        raise(SIGKILL);
    errno = was;
    return -1;
}

int __wrap_fsync(int fd)
{
    return refuse(false, false) ? -1 : __real_fsync(fd);
}

int __wrap_fdatasync(int fd)
{
    return refuse(false, false) ? -1 : __real_fdatasync(fd);
}

int __wrap_rename(const char *a, const char *b)
{
    return refuse(false, false) ? -1 : __real_rename(a, b);
}

int __wrap_renameat2(int x, const char *a, int y, const char *b, unsigned flags)
{
    return refuse(false, false) ? -1 : __real_renameat2(x, a, y, b, flags);
}

int __wrap_mkdir(const char *path, mode_t mode)
{
    return refuse(false, false) ? -1 : __real_mkdir(path, mode);
}

int __wrap_unlink(const char *path)
{
    return refuse(true, false) ? -1 : __real_unlink(path);
}

int __wrap_unlinkat(int fd, const char *path, int flags)
{
    return refuse(true, false) ? -1 : __real_unlinkat(fd, path, flags);
}

int __wrap_rmdir(const char *path)
{
    return refuse(true, false) ? -1 : __real_rmdir(path);
}

int __wrap_ftruncate64(int fd, off_t n)
{
    return refuse(true, false) ? -1 : __real_ftruncate64(fd, n);
}
