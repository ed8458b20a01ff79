/* See output.h. */
#include "cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int output_open(struct output *o, const char *path, struct err *e)
{
    o->fd = -1;
    o->file.fd = -1;
    if (!path) {
        o->fd = STDOUT_FILENO;
        return 0;
    }
    enum file_kind_id kind = file_kind(path);
    if (kind == FILE_DIR)
        return err_set(e, ERR_IO, "%.300s: is a folder; give --out a file", path);
    if (kind != FILE_OTHER)
        return file_out_open(&o->file, path, e);
    o->fd = open(path, O_WRONLY | O_CLOEXEC);
    return o->fd < 0 ? err_errno(e, "%.300s", path) : 0;
}

int output_write(struct output *o, const void *p, size_t n, struct err *e)
{
    if (o->fd < 0)
        return file_out_write(&o->file, p, n, e);
    for (const char *s = p; n;) {
        ssize_t k = write(o->fd, s, n);
        if (k < 0 && errno != EINTR)
            return err_errno(e, "cannot write the output");
        s += k > 0 ? k : 0;
        n -= k > 0 ? (size_t)k : 0;
    }
    return 0;
}

int output_close(struct output *o, int rc, struct err *e)
{
    if (o->fd > STDOUT_FILENO)
        close(o->fd);
    else if (!rc && o->file.fd >= 0)
        rc = file_out_commit(&o->file, e);
    else if (o->file.fd >= 0)
        file_out_abort(&o->file);
    return rc;
}
