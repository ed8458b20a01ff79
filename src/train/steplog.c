#include "train/steplog.h"

#include "base/file.h"
#include "base/num.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- writing --------------------------------------------------------------------------------- */

int steplog_open(struct steplog *j, const char *path, struct err *e)
{
    struct stat st;
    *j = (struct steplog){.fd = -1};
    j->path = strdup(path);
    if (!j->path)
        return err_nomem(e, strlen(path) + 1, "a path");
    do
        j->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    while (j->fd < 0 && errno == EINTR);
    int rc = 0;
    if (j->fd < 0 || fstat(j->fd, &st) != 0)
        rc = err_errno(e, "%s", path);
    else if (!S_ISREG(st.st_mode))
        rc = err_set(e, ERR_IO, "%s: is not a regular file", path);
    else
        j->size = (uint64_t)st.st_size;
    if (rc)
        steplog_close(j);
    return rc;
}

void steplog_close(struct steplog *j)
{
    if (j->fd >= 0)
        close(j->fd);
    free(j->path);
    *j = (struct steplog){.fd = -1};
}

int steplog_append(struct steplog *j, struct buf *line, struct err *e)
{
    if (j->fd < 0)
        return err_set(e, ERR_IO, "the log is not open");
    int rc = buf_putc(line, '\n', e);
    for (size_t done = 0; !rc && done < line->len;) {
        ssize_t w = pwrite(j->fd, line->data + done, line->len - done, (off_t)(j->size + done));
        if (w < 0 && errno == EINTR)
            continue;
        if (w >= 0) {
            done += (size_t)w;
            continue;
        }
        rc = err_errno(e, "%s: cannot be written (what was logged before is kept)", j->path);
        /* What stands behind the last whole line would be taken for a torn one anyway. */
        while (ftruncate(j->fd, (off_t)j->size) != 0 && errno == EINTR)
            ;
    }
    if (!rc)
        j->size += line->len;
    return rc;
}

int steplog_sync(struct steplog *j, struct err *e)
{
    if (j->fd >= 0 && fdatasync(j->fd) != 0 && errno != EINVAL && errno != EROFS)
        return err_errno(e, "%s: cannot be synced", j->path);
    return 0;
}

int steplog_rewind(struct steplog *j, int64_t step, size_t *dropped, struct err *e)
{
    struct steplog_in r;
    const char *s;
    size_t n, lost = 0;
    uint64_t keep = 0;
    int rc = steplog_in_open(&r, j->path, NULL, e);
    if (rc)
        return rc;
    while (!(rc = steplog_in_next(&r, &s, &n, e)) && s) {
        int64_t at;
        if (!lost && steplog_step(s, n, &at) && at <= step)
            keep = r.offset;
        else
            lost++;
    }
    steplog_in_close(&r);
    if (!rc && keep < j->size) {
        if (ftruncate(j->fd, (off_t)keep) != 0)
            rc = err_errno(e, "%s: cannot be cut", j->path);
        else
            j->size = keep;
    }
    if (dropped)
        *dropped = lost;
    return rc;
}

/* ---- reading --------------------------------------------------------------------------------- */

int steplog_in_open(struct steplog_in *r, const char *path, bool *missing, struct err *e)
{
    *r = (struct steplog_in){.fd = -1};
    buf_init(&r->text, STEPLOG_LINE_MAX);
    if (missing)
        *missing = false;
    do
        r->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    while (r->fd < 0 && errno == EINTR);
    if (r->fd >= 0)
        return 0;
    if (missing && (errno == ENOENT || errno == ENOTDIR)) {
        *missing = true;
        return 0;
    }
    return err_errno(e, "%s", path);
}

void steplog_in_close(struct steplog_in *r)
{
    if (r->fd >= 0)
        close(r->fd);
    r->fd = -1;
    buf_release(&r->text);
}

/* Reads more behind what is there; *got is 0 at the end of the file. */
static int fill(struct steplog_in *r, size_t *got, struct err *e)
{
    struct buf *b = &r->text;
    if (r->at) {
        memmove(b->data, b->data + r->at, b->len - r->at);
        b->len -= r->at;
        r->at = 0;
    }
    size_t want = num_min(num_max(65536, b->len), b->max - b->len);
    if (!want)
        return err_set(e, ERR_LIMIT, "a line is longer than %d bytes", STEPLOG_LINE_MAX);
    int rc = buf_reserve(b, want, e);
    if (rc)
        return rc;
    ssize_t n;
    do
        n = pread(r->fd, b->data + b->len, want, (off_t)(r->offset + b->len));
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_errno(e, "a log cannot be read");
    b->len += (size_t)n;
    b->data[b->len] = 0;
    *got = (size_t)n;
    return 0;
}

int steplog_in_next(struct steplog_in *r, const char **s, size_t *n, struct err *e)
{
    size_t seen = 0, got;
    *s = NULL;
    *n = 0;
    if (r->fd < 0)
        return 0;
    for (;;) {
        char *from = r->text.data + r->at;
        size_t left = r->text.len - r->at;
        char *end = left > seen ? memchr(from + seen, '\n', left - seen) : NULL;
        if (end) {
            *s = from;
            *n = (size_t)(end - from);
            r->at += *n + 1;
            r->offset += *n + 1;
            return 0;
        }
        seen = left;
        int rc = fill(r, &got, e);
        if (rc || !got)
            return rc;
    }
}

bool steplog_step(const char *s, size_t n, int64_t *step)
{
    static const char head[] = "{\"step\":";
    size_t i = sizeof head - 1;
    int64_t v = 0;
    if (n < i + 2 || memcmp(s, head, i) != 0 || s[n - 1] != '}')
        return false;
    for (; i < n && s[i] >= '0' && s[i] <= '9'; i++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, s[i] - '0', &v))
            return false;
    *step = v;
    return i > sizeof head - 1 && (s[i] == ',' || s[i] == '}');
}

/* ---- values ---------------------------------------------------------------------------------- */

int steplog_put_number(struct buf *out, double v, struct err *e)
{
    char text[40];
    if (!isfinite(v))
        return buf_puts(out, "null", e);
    if (v == floor(v) && fabs(v) < 1e15)
        return buf_printf(out, e, "%.0f", v == 0 ? 0.0 : v);
    bool is_float = v == (double)(float)v;
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (is_float ? strtof(text, NULL) == (float)v : strtod(text, NULL) == v)
            break;
    }
    return buf_puts(out, text, e);
}

int steplog_put_string(struct buf *out, const char *s, struct err *e)
{
    int rc = buf_putc(out, '"', e);
    for (; *s && !rc; s++) {
        unsigned char c = (unsigned char)*s;
        if (c < 0x20)
            rc = buf_printf(out, e, "\\u%04x", c);
        else if (c == '"' || c == '\\')
            rc = buf_printf(out, e, "\\%c", c);
        else
            rc = buf_putc(out, *s, e);
    }
    return rc ? rc : buf_putc(out, '"', e);
}

int steplog_save(const char *path, const json_t *v, struct err *e)
{
    struct file_out f;
    char *text = json_dumps(v, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    if (!text)
        return err_nomem(e, 0, path);
    int rc = file_out_open(&f, path, e);
    if (!rc) {
        rc = file_out_write(&f, text, strlen(text), e);
        if (!rc)
            rc = file_out_write(&f, "\n", 1, e);
        if (!rc)
            rc = file_out_commit(&f, e);
        file_out_abort(&f);
    }
    free(text);
    return rc;
}
