#include "base/progress.h"

#include "base/clock.h"
#include "base/num.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { BAR_CELLS = 18, LINE_MAX_BYTES = 512 };

static const double first_draw = 0.5, redraw = 0.1; /* seconds */

void progress_init(struct progress *p, FILE *out, const char *label, enum progress_unit unit,
                   uint64_t total)
{
    bool tty = out && isatty(fileno(out));
    *p = (struct progress){.out = out,
                           .tty = tty,
                           .label = label,
                           .unit = unit,
                           .total = total,
                           .started = clock_seconds()};
}

/* SI prefix for x: *scale divides it, the name comes back. Rounds up to "1.0 MB", not "1000 KB". */
static const char *si_unit(double x, double *scale)
{
    static const char *const names[] = {"B", "KB", "MB", "GB", "TB", "PB"};
    size_t i = 0;
    for (*scale = 1; i + 1 < NUM_COUNT(names) && x / *scale >= (i ? 999.95 : 999.5); i++)
        *scale *= 1000;
    return names[i];
}

/* Three digits or so: 1.9, 15.9, 212. Below 1000 of the smallest unit there are no tenths. */
static void si_number(char *out, size_t cap, double x, double scale)
{
    bool whole = scale < 2e3 ? scale < 2 || x / scale >= 99.95 : x / scale >= 99.95;
    snprintf(out, cap, whole ? "%.0f" : "%.1f", x / scale);
}

char *progress_bytes(char *out, size_t cap, double bytes)
{
    double scale;
    if (!(bytes > 0))
        bytes = 0;
    const char *unit = si_unit(bytes, &scale);
    char num[32];
    si_number(num, sizeof num, bytes, scale);
    snprintf(out, cap, "%s %s", num, unit);
    return out;
}

/* 12345 → "12,345" */
static char *grouped(char *out, size_t cap, uint64_t x)
{
    char digits[24];
    size_t n = (size_t)snprintf(digits, sizeof digits, "%llu", (unsigned long long)x), w = 0;
    for (size_t i = 0; i < n && w + 2 < cap; i++) {
        if (i && (n - i) % 3 == 0)
            out[w++] = ',';
        out[w++] = digits[i];
    }
    out[w] = 0;
    return out;
}

static void duration(char *out, size_t cap, double seconds)
{
    if (!(seconds < 359999))
        seconds = 359999; /* 99:59:59 stands for "do not wait" */
    unsigned s = (unsigned)(seconds + 0.5);
    if (s >= 3600)
        snprintf(out, cap, "%u:%02u:%02u", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, cap, "%u:%02u", s / 60, s % 60);
}

/* The bar in eighths of a cell; returns bytes written. Its frame takes two columns. */
static size_t bar(char *out, size_t cap, double share)
{
    static const char *const parts[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    unsigned eighths = (unsigned)(share * BAR_CELLS * 8 + 0.5), full = eighths / 8;
    char cells[BAR_CELLS * 4 + 1] = "";
    size_t n = 0;
    for (unsigned i = 0; i < full; i++, n += 3)
        memcpy(cells + n, "█", 4);
    unsigned used = full;
    if (eighths % 8) {
        memcpy(cells + n, parts[eighths % 8], 4);
        n += 3;
        used++;
    }
    for (; used < BAR_CELLS; used++)
        cells[n++] = ' ';
    cells[n] = 0;
    return (size_t)snprintf(out, cap, "▕%s▏", cells);
}

/* "6.8/15.9 GB  212 MB/s" or "5,218/12,130  31/s" */
static void amounts(char *out, size_t cap, const struct progress *p, double rate)
{
    char a[32], b[32], r[32];
    if (p->unit == PROGRESS_BYTES) {
        double scale;
        const char *unit = si_unit((double)(p->total ? p->total : p->done), &scale);
        si_number(a, sizeof a, (double)p->done, scale);
        si_number(b, sizeof b, (double)p->total, scale);
        progress_bytes(r, sizeof r, rate);
        if (p->total)
            snprintf(out, cap, "%s/%s %s  %s/s", a, b, unit, r);
        else
            snprintf(out, cap, "%s %s  %s/s", a, unit, r);
        return;
    }
    grouped(a, sizeof a, p->done);
    grouped(b, sizeof b, p->total);
    if (rate > 0 && rate < 0.1)
        snprintf(r, sizeof r, "%.0f s each", 1 / rate);
    else
        snprintf(r, sizeof r, rate < 9.95 ? "%.1f/s" : "%.0f/s", rate);
    if (p->total)
        snprintf(out, cap, "%s/%s  %s", a, b, r);
    else
        snprintf(out, cap, "%s  %s", a, r);
}

static size_t columns(const struct progress *p)
{
    struct winsize w;
    return ioctl(fileno(p->out), TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : 80;
}

/* How many columns a line of our own making takes: it has no wide or combining characters. */
static size_t width(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += (*s & 0xc0) != 0x80;
    return n;
}

static void draw(struct progress *p, double now)
{
    double seconds = now - p->started, rate = seconds > 0 ? (double)p->done / seconds : 0;
    char text[128], left[48] = "", gauge[160] = "", share_text[16] = "", line[LINE_MAX_BYTES];
    amounts(text, sizeof text, p, rate);
    if (p->total) {
        uint64_t done = p->done < p->total ? p->done : p->total;
        double share = (double)done / (double)p->total;
        bar(gauge, sizeof gauge, share);
        snprintf(share_text, sizeof share_text, " %d%%  ", (int)(share * 100));
        if (rate > 0) {
            char t[32];
            duration(t, sizeof t, (double)(p->total - done) / rate);
            snprintf(left, sizeof left, "  %s left", t);
        }
    }
    size_t cols = columns(p);
    int n = snprintf(line, sizeof line, "%s  %s%s%s%s", p->label, gauge, share_text, text, left);
    if (n > 0 && width(line) >= cols) /* narrow: the bar goes first, then the rest */
        n = snprintf(line, sizeof line, "%s %s%s", p->label, share_text, left);
    if (n < 0 || (size_t)n >= sizeof line || width(line) >= cols)
        return;
    fprintf(p->out, "\r%s\033[K", line);
    fflush(p->out);
    p->drawn = true;
    p->last_draw = now;
}

void progress_update(struct progress *p, uint64_t done)
{
    p->done = done;
    if (!p->tty)
        return;
    double now = clock_seconds();
    if (now - p->started < first_draw || (p->drawn && now - p->last_draw < redraw))
        return;
    draw(p, now);
}

void progress_finish(struct progress *p)
{
    if (!p->drawn)
        return;
    fputs("\r\033[K", p->out);
    fflush(p->out);
    p->drawn = false;
}
