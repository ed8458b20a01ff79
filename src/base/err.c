#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Text from files may hold anything: keep an error one printable line (UTF-8 passes). */
static void err_clean(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = ' ';
}

int(err_set)(struct err *e, int code, const char *fmt, ...)
{
    if (!e)
        return code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    err_clean(e->text);
    e->code = code;
    return code;
}

int(err_ctx)(struct err *e, const char *fmt, ...)
{
    if (!e)
        return ERR_FORMAT;
    char old[ERR_TEXT_MAX];
    memcpy(old, e->text, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    if (n < 0)
        n = 0;
    if ((size_t)n < sizeof e->text)
        snprintf(e->text + n, sizeof e->text - (size_t)n, ": %s", old);
    err_clean(e->text);
    return e->code;
}

int(err_nomem)(struct err *e, size_t bytes, const char *what)
{
    return err_set(e, ERR_NOMEM, "no memory for %s (%zu bytes)", what, bytes);
}

int(err_errno)(struct err *e, const char *fmt, ...)
{
    int no = errno;
    char what[ERR_TEXT_MAX / 2];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(e, no == ENOMEM ? ERR_NOMEM : ERR_IO, "%s: %s", what, strerror(no));
}
