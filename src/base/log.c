#include "base/log_private.h"

#include <stdarg.h>
#include <string.h>

static void log_put(const struct log *l, const char *prefix, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));
static void log_put(const struct log *l, const char *prefix, const char *fmt, va_list ap)
{
    char text[4160];
    size_t before = strlen(prefix), room = sizeof text - 1 - before; /* 1: for the line's end */
    memcpy(text, prefix, before);
    int n = vsnprintf(text + before, room, fmt, ap);
    if (n < 0)
        return;
    if ((size_t)n >= room)
        memcpy(text + before + room - 4, "...", 4); /* say that it was cut */
    /* Names from files end up here: no terminal control sequences, and one line stays one line. */
    char *s = text + before;
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = ' ';
    *s++ = '\n';
    size_t len = (size_t)(s - text);
    if (l->writer) {
        log_writer_put(l->writer, text, len);
        return;
    }
    fwrite(text, 1, len, l->out); /* one call: lines of several threads do not mix */
    fflush(l->out);
}

void log_line(const struct log *l, enum log_level level, const char *fmt, ...)
{
    if (!l || !l->out || level > l->level)
        return;
    va_list ap;
    va_start(ap, fmt);
    log_put(l, level == LOG_WARN ? "ponder: warning: " : "ponder: ", fmt, ap);
    va_end(ap);
}

void log_bare(const struct log *l, const char *fmt, ...)
{
    if (!l || !l->out)
        return;
    va_list ap;
    va_start(ap, fmt);
    log_put(l, "", fmt, ap);
    va_end(ap);
}

int log_level_parse(enum log_level *out, const char *name)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    for (int i = 0; i < 4; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum log_level)i;
            return 0;
        }
    return -1;
}
