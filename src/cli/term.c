/* See term.h. Widths of characters are utf8proc's (Unicode East Asian Width). */
#include "cli/term.h"

#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utf8proc.h>

void term_init(struct term *t)
{
    const char *kind = getenv("TERM"), *no = getenv("NO_COLOR");
    t->in_tty = isatty(STDIN_FILENO);
    t->out_tty = isatty(STDOUT_FILENO);
    t->err_tty = isatty(STDERR_FILENO);
    t->escapes = t->out_tty && kind && *kind && strcmp(kind, "dumb") != 0;
    t->colour = t->escapes && !(no && *no);
}

int term_width(const struct term *t)
{
    struct winsize w;
    if ((t->out_tty && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) && w.ws_col >= 20) ||
        (t->err_tty && !ioctl(STDERR_FILENO, TIOCGWINSZ, &w) && w.ws_col >= 20))
        return w.ws_col;
    return 80;
}

int term_height(const struct term *t)
{
    struct winsize w;
    return t->out_tty && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) && w.ws_row >= 4 ? w.ws_row : 24;
}

const char *term_dim(const struct term *t)
{
    return t->colour ? "\033[2m" : "";
}

const char *term_bold(const struct term *t)
{
    return t->colour ? "\033[1m" : "";
}

const char *term_plain(const struct term *t)
{
    return t->colour ? "\033[0m" : "";
}

int term_char_width(uint32_t cp)
{
    if (cp < 0x7f)
        return cp >= 0x20;
    int w = utf8proc_charwidth((utf8proc_int32_t)cp);
    return w < 0 ? 0 : w > 2 ? 2 : w;
}

bool term_char_unsafe(uint32_t cp)
{
    /* C0, DEL, C1, and the marks that reorder text (bidirectional overrides and isolates). */
    return (cp < 0x20 && cp != '\n' && cp != '\t') || (cp >= 0x7f && cp < 0xa0) ||
           (cp >= 0x202a && cp <= 0x202e) || (cp >= 0x2066 && cp <= 0x2069);
}

int term_clean(struct buf *out, const char *s, size_t n, bool oneline, struct err *e)
{
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        char c[4];
        i += utf8_next(s + i, n - i, &cp, NULL);
        if (term_char_unsafe(cp))
            cp = 0xfffd;
        if (oneline && (cp == '\n' || cp == '\t'))
            cp = ' ';
        int rc = buf_append(out, c, utf8_put(c, cp), e);
        if (rc)
            return rc;
    }
    return 0;
}

int term_flush(struct err *e)
{
    if (fflush(stdout) || ferror(stdout))
        return err_errno(e, "cannot write the output");
    return 0;
}

char *term_group(char *out, size_t cap, unsigned long long v)
{
    char digits[32];
    int n = snprintf(digits, sizeof digits, "%llu", v);
    size_t at = 0;
    for (int i = 0; i < n && at + 2 < cap; i++) {
        if (i && (n - i) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = 0;
    return out;
}
