#include "base/file.h"

#include "base/folder.h"
#include "base/num.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file that moves under us (written while it is mapped) is outside of what mmap can guard:
   shrinking a mapped file raises SIGBUS in any program. */

/* O_NONBLOCK: a FIFO without a writer must not hang the open; regular files do not care. */
static int open_read(const char *path)
{
    int fd;
    do
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static const char *mode_words(mode_t mode)
{
    return S_ISDIR(mode)    ? "a directory"
           : S_ISFIFO(mode) ? "a pipe (FIFO)"
           : S_ISSOCK(mode) ? "a socket"
           : S_ISCHR(mode)  ? "a character device"
           : S_ISBLK(mode)  ? "a block device"
                            : "not a regular file";
}

int file_map(struct file_map *m, const char *path, struct err *e)
{
    *m = (struct file_map){0};
    int rc = 0, fd = open_read(path);
    if (fd < 0)
        return err_errno(e, "%s", path);
    struct stat st;
    if (fstat(fd, &st) != 0) {
        rc = err_errno(e, "%s", path);
    } else if (!S_ISREG(st.st_mode)) {
        rc =
            err_set(e, ERR_IO, "%s: is %s; a regular file is needed", path, mode_words(st.st_mode));
    } else if (st.st_size < 0 || (uintmax_t)st.st_size > PTRDIFF_MAX) {
        rc = err_set(e, ERR_LIMIT, "%s: too large to map on this machine", path);
    } else if (st.st_size > 0) {
        m->written[0] = st.st_mtim.tv_sec;
        m->written[1] = st.st_mtim.tv_nsec;
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            rc = err_errno(e, "%s: cannot be mapped", path);
        } else {
            m->data = p;
            m->size = (size_t)st.st_size;
        }
    }
    close(fd);
    return rc;
}

void file_map_release(struct file_map *m)
{
    if (m->data)
        munmap((void *)(uintptr_t)m->data, m->size);
    *m = (struct file_map){0};
}

void file_map_drop(const struct file_map *m, size_t off, size_t len)
{
    if (!m->data || off >= m->size)
        return;
    len = num_min(len, m->size - off);
    if (!len)
        return;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), start = off - off % page;
    /* Pages shared with a neighbour come back from the page cache when they are touched. */
    madvise((void *)(uintptr_t)(m->data + start), off + len - start, MADV_DONTNEED);
}

static int read_all(struct buf *out, int fd, const char *path, struct err *e)
{
    for (;;) {
        size_t want = num_min(65536, out->max - out->len);
        if (want == 0) { /* full: only the end of the file may follow */
            char one;
            ssize_t n = read(fd, &one, 1);
            if (n == 0)
                return 0;
            if (n > 0)
                return err_set(e, ERR_LIMIT, "%s: larger than the limit of %zu bytes", path,
                               out->max);
            if (errno == EINTR)
                continue;
            return err_errno(e, "%s", path);
        }
        int rc = buf_reserve(out, want, e);
        if (rc)
            return err_ctx(e, "%s", path);
        ssize_t n = read(fd, out->data + out->len, num_min(out->cap - out->len, 1 << 30));
        if (n == 0)
            return 0;
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return err_errno(e, "%s", path);
        }
        out->len += (size_t)n;
        out->data[out->len] = 0;
    }
}

int file_read(struct buf *out, const char *path, struct err *e)
{
    int fd;
    do
        fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return err_errno(e, "%s", path);
    size_t before = out->len, want;
    struct stat st;
    int rc = 0;
    if (fstat(fd, &st) != 0)
        rc = err_errno(e, "%s", path);
    else if (S_ISDIR(st.st_mode))
        rc = err_set(e, ERR_IO, "%s: is a directory; a file is needed", path);
    else if (S_ISREG(st.st_mode) && st.st_size > 0) { /* one allocation instead of many */
        if ((uintmax_t)st.st_size > out->max - out->len)
            rc = err_set(e, ERR_LIMIT, "%s: larger than the limit of %zu bytes", path, out->max);
        else if (num_add(&want, (size_t)st.st_size, 0) && (rc = buf_reserve(out, want, e)))
            rc = err_ctx(e, "%s", path);
    }
    if (!rc)
        rc = read_all(out, fd, path, e);
    close(fd);
    if (rc && out->cap) {
        out->len = before;
        out->data[before] = 0;
    }
    return rc;
}

enum file_kind_id file_kind(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return FILE_NONE;
    return S_ISREG(st.st_mode) ? FILE_REGULAR : S_ISDIR(st.st_mode) ? FILE_DIR : FILE_OTHER;
}

bool file_join(char *out, size_t cap, const char *dir, const char *name)
{
    size_t n = strlen(dir);
    const char *slash = n && dir[n - 1] != '/' ? "/" : "";
    while (n && *name == '/')
        name++;
    int w = snprintf(out, cap, "%s%s%s", dir, slash, name);
    return w >= 0 && (size_t)w < cap;
}

/* ---- atomic output ------------------------------------------------------------------------- */

static void out_forget(struct file_out *f)
{
    free(f->path);
    free(f->part);
    free(f->wait);
    *f = (struct file_out){.fd = -1};
}

/* The plain name first; a number after it when a file of that name is left over or in use. */
static int part_open(struct file_out *f, size_t cap)
{
    for (int i = 0; i < 16; i++) {
        int w = snprintf(f->part, cap, "%s.part-%ld", f->path, (long)getpid());
        if (i)
            snprintf(f->part + w, cap - (size_t)w, ".%d", i);
        do
            f->fd = open(f->part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        while (f->fd < 0 && errno == EINTR);
        if (f->fd >= 0 || errno != EEXIST)
            break;
    }
    return f->fd < 0 ? -1 : 0;
}

int file_out_open(struct file_out *f, const char *path, struct err *e)
{
    *f = (struct file_out){.fd = -1};
    enum file_kind_id kind = file_kind(path);
    if (!*path || kind == FILE_DIR)
        return err_set(e, ERR_IO, "%s: is a directory; name a file to write", *path ? path : "''");
    if (kind == FILE_OTHER) /* renaming over it would replace a device or pipe */
        return err_set(e, ERR_IO, "%s: is not a regular file and cannot be replaced", path);
    size_t cap = strlen(path) + 40;
    f->path = strdup(path);
    f->part = malloc(cap);
    int rc = 0;
    if (!f->path || !f->part)
        rc = err_nomem(e, cap, "a file name");
    else if (part_open(f, cap) != 0)
        rc = err_errno(e, "%s: cannot be written", path);
    if (rc)
        out_forget(f);
    return rc;
}

static int out_write(const struct file_out *f, const uint8_t *s, size_t n, struct err *e)
{
    while (n) {
        ssize_t w = write(f->fd, s, num_min(n, 1 << 30));
        if (w < 0) {
            if (errno == EINTR)
                continue;
            return err_errno(e, "%s: cannot be written", f->path);
        }
        s += w;
        n -= (size_t)w;
    }
    return 0;
}

/* Writes what waits. */
static int out_flush(struct file_out *f, struct err *e)
{
    size_t n = f->waits;
    f->waits = 0;
    return out_write(f, f->wait, n, e);
}

int file_out_write(struct file_out *f, const void *p, size_t n, struct err *e)
{
    const uint8_t *s = p;
    int rc = 0;
    if (f->fd < 0)
        return err_set(e, ERR_IO, "%s: is not open", f->path ? f->path : "output file");
    while (!rc && n) {
        size_t take = num_min(n, FILE_CHUNK - f->waits);
        if (take == FILE_CHUNK) {
            take = n / FILE_CHUNK * FILE_CHUNK;
            rc = out_write(f, s, take, e);
        } else {
            if (!f->wait && !(f->wait = malloc(FILE_CHUNK)))
                return err_nomem(e, FILE_CHUNK, f->path);
            memcpy(f->wait + f->waits, s, take);
            f->waits += take;
            if (f->waits == FILE_CHUNK)
                rc = out_flush(f, e);
        }
        s += take;
        n -= take;
        f->offset += take;
    }
    return rc;
}

/* Makes the rename last through a power cut. */
static int sync_folder_of(const char *path, struct err *e)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    char *dir = n ? strndup(path, n) : strdup(slash ? "/" : ".");
    if (!dir)
        return err_nomem(e, n + 2, "a file name");
    int rc = folder_sync(dir, e);
    free(dir);
    return rc;
}

int file_out_sync(struct file_out *f, struct err *e)
{
    if (f->fd < 0)
        return err_set(e, ERR_IO, "output file is not open");
    int rc = out_flush(f, e);
    free(f->wait);
    f->wait = NULL;
    if (!rc && fsync(f->fd) != 0 && errno != EINVAL && errno != EROFS)
        rc = err_errno(e, "%s: cannot be synced", f->path);
    int fd = f->fd;
    f->fd = -1;
    if (close(fd) != 0 && errno != EINTR && !rc)
        rc = err_errno(e, "%s: cannot be closed", f->path);
    return rc;
}

int file_out_commit(struct file_out *f, struct err *e)
{
    if (!f->part)
        return err_set(e, ERR_IO, "output file is not open");
    int rc = f->fd >= 0 ? file_out_sync(f, e) : 0;
    if (!rc && rename(f->part, f->path) != 0)
        rc = err_errno(e, "%s: cannot be given its name", f->path);
    if (rc)
        unlink(f->part);
    else
        rc = sync_folder_of(f->path, e);
    out_forget(f);
    return rc;
}

void file_out_abort(struct file_out *f)
{
    if (!f->part)
        return;
    if (f->fd >= 0)
        close(f->fd);
    unlink(f->part);
    out_forget(f);
}
