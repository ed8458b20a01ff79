/*
 * Curves as text. A character of braille is 2 × 4 dots (U+2800 and a bit for each dot), so a chart
 * of 30 × 6 characters has 60 × 24 dots. A cell has the colour of the run that is drawn last in it.
 */
#include "base/num.h"
#include "base/utf8.h"
#include "train/plot_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum {
    PANEL_MIN = 36, /* columns of a panel, at least */
    PANEL_MAX = 72,
    GAP = 3,
    CHART_MIN = 3, /* rows of dots' cells, at least and at most */
    CHART_MAX = 8,
    AXIS = 7,  /* columns of the labels at the left */
    FRAME = 3, /* rows of a panel beside its chart: title, steps, an empty one */
    WIDTH_MAX = 512,
};

/* ANSI colours that are told apart on light and dark grounds. */
static const char *const colours[] = {"\033[36m", "\033[33m", "\033[35m", "\033[32m",
                                      "\033[34m", "\033[31m", "\033[37m"};

struct cells {
    int w, h;
    uint8_t dots[PANEL_MAX * CHART_MAX], run[PANEL_MAX * CHART_MAX];
};

static void set_dot(struct cells *c, int x, int y, size_t run)
{
    static const uint8_t bits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    if (x < 0 || y < 0 || x >= 2 * c->w || y >= 4 * c->h)
        return;
    int at = y / 4 * c->w + x / 2;
    c->dots[at] |= bits[y % 4][x % 2];
    c->run[at] = (uint8_t)run;
}

/* From one point to another, in dots; what leaves the chart is not drawn. */
static void set_line(struct cells *c, double x0, double y0, double x1, double y1, size_t run)
{
    double n = ceil(fmax(fabs(x1 - x0), fabs(y1 - y0)));
    if (!(n < 1e6))
        return;
    for (double i = 0; i <= n; i++) {
        double t = n > 0 ? i / n : 0;
        set_dot(c, (int)floor(x0 + t * (x1 - x0) + 0.5), (int)floor(y0 + t * (y1 - y0) + 0.5), run);
    }
}

static void draw(struct cells *c, const struct plot_curve *k, const struct plot_axis *ax,
                 const struct plot_axis *ay, size_t run)
{
    double px = 0, py = 0, w = 2 * c->w - 1, h = 4 * c->h - 1;
    for (size_t i = 0; i < k->n; i++) {
        double x = (k->x[i] - ax->lo) / (ax->hi - ax->lo) * w;
        double t = (k->smooth[i] - ay->lo) / (ay->hi - ay->lo);
        double y = (1 - fmax(-2, fmin(3, t))) * h;
        set_line(c, i ? px : x, i ? py : y, x, y, run);
        px = x;
        py = y;
    }
}

/* ---- text ------------------------------------------------------------------------------------ */

/* Every character that is put here takes one column. */
static int columns_of(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static int pad(struct buf *b, int n, struct err *e)
{
    int rc = 0;
    while (n-- > 0 && !rc)
        rc = buf_putc(b, ' ', e);
    return rc;
}

/* At most `n` columns of a text from outside; what could drive the terminal becomes U+FFFD. */
static int put_clean(struct buf *b, const char *s, int n, int *used, struct err *e)
{
    int rc = 0;
    *used = 0;
    for (size_t i = 0, len = strlen(s); i < len && *used < n && !rc;) {
        uint32_t cp;
        char c[4];
        i += utf8_next(s + i, len - i, &cp, NULL);
        utf8proc_category_t kind = utf8proc_category((utf8proc_int32_t)cp);
        if (kind == UTF8PROC_CATEGORY_CC || kind == UTF8PROC_CATEGORY_CF)
            cp = 0xfffd;
        int w = utf8proc_charwidth((utf8proc_int32_t)cp);
        if (*used + w > n)
            break;
        rc = buf_append(b, c, utf8_put(c, cp), e);
        *used += w;
    }
    return rc;
}

static const char *colour_of(const struct plot_screen *s, size_t run)
{
    return s->colour ? colours[run % NUM_COUNT(colours)] : "";
}

static const char *style(const struct plot_screen *s, const char *code)
{
    return s->colour ? code : "";
}

/* Everything of one panel, a row of text at a time. */
struct panel {
    const struct plot *p;
    const struct plot_screen *s;
    const struct plot_panel *what;
    struct plot_axis ax, ay;
    struct cells cells;
    char value[PLOT_LABEL_MAX]; /* the newest, when there is one run */
    bool empty;
};

static int put_title(const struct panel *q, int width, struct buf *b, struct err *e)
{
    char unit[PLOT_LABEL_MAX];
    int used, room = width - columns_of(q->value) - (*q->value ? 1 : 0);
    plot_axis_unit(&q->ay, unit);
    if (*unit)
        room -= columns_of(unit) + 1;
    int rc = buf_puts(b, style(q->s, "\033[1m"), e);
    if (!rc)
        rc = put_clean(b, q->what->title, room, &used, e);
    if (!rc)
        rc = buf_puts(b, style(q->s, "\033[0m"), e);
    if (!rc && *unit)
        rc = buf_printf(b, e, "%s %s%s", style(q->s, "\033[2m"), unit, style(q->s, "\033[0m"));
    if (!rc)
        rc = pad(b, room - used + (*q->value ? 1 : 0), e);
    if (!rc && *q->value)
        rc = buf_printf(b, e, "%s%s%s", colour_of(q->s, 0), q->value, style(q->s, "\033[0m"));
    return rc;
}

static int put_cells(const struct panel *q, int row, struct buf *b, struct err *e)
{
    const struct cells *c = &q->cells;
    size_t last = SIZE_MAX;
    int rc = 0;
    for (int x = 0; x < c->w && !rc; x++) {
        char out[4];
        uint8_t dots = c->dots[row * c->w + x];
        size_t run = c->run[row * c->w + x];
        if (dots && run != last) {
            rc = buf_puts(b, colour_of(q->s, run), e);
            last = run;
        }
        if (!rc)
            rc = dots ? buf_append(b, out, utf8_put(out, 0x2800u + dots), e) : buf_putc(b, ' ', e);
    }
    return rc ? rc : buf_puts(b, last == SIZE_MAX ? "" : style(q->s, "\033[0m"), e);
}

/* A row of the chart, the label of a tick before it where one is nearest to it. */
static int put_chart(const struct panel *q, int row, struct buf *b, struct err *e)
{
    double ticks[PLOT_TICKS_MAX];
    char label[PLOT_LABEL_MAX] = "";
    size_t n = plot_axis_ticks(&q->ay, ticks);
    for (size_t i = 0; i < n; i++) {
        double t = (ticks[i] - q->ay.lo) / (q->ay.hi - q->ay.lo);
        if ((int)floor((1 - t) * (q->cells.h - 1) + 0.5) == row)
            plot_axis_label(&q->ay, ticks[i], label);
    }
    int rc = buf_puts(b, style(q->s, "\033[2m"), e);
    if (!rc)
        rc = pad(b, AXIS - 1 - columns_of(label), e);
    if (!rc)
        rc = buf_printf(b, e, "%s%s%s", label, *label ? "┤" : "│", style(q->s, "\033[0m"));
    return rc ? rc : put_cells(q, row, b, e);
}

static int put_steps(const struct panel *q, int width, struct buf *b, struct err *e)
{
    double ticks[PLOT_TICKS_MAX];
    char row[WIDTH_MAX];
    size_t n = plot_axis_ticks(&q->ax, ticks);
    int w = q->cells.w, end = 0;
    memset(row, ' ', sizeof row);
    for (size_t i = 0; i < n; i++) {
        char label[PLOT_LABEL_MAX];
        plot_axis_label(&q->ax, ticks[i], label);
        int len = (int)strlen(label);
        double t = (ticks[i] - q->ax.lo) / (q->ax.hi - q->ax.lo);
        int at = (int)floor(t * (w - 1) + 0.5) - len / 2;
        at = at < 0 ? 0 : at > w - len ? w - len : at;
        if (at < end || label[0] & 0x80)
            continue;
        memcpy(row + at, label, (size_t)len);
        end = at + len + 1;
    }
    int rc = buf_puts(b, style(q->s, "\033[2m"), e);
    if (!rc)
        rc = pad(b, AXIS, e);
    if (!rc)
        rc = buf_append(b, row, (size_t)w, e);
    if (!rc)
        rc = buf_puts(b, style(q->s, "\033[0m"), e);
    return rc ? rc : pad(b, width - AXIS - w, e);
}

static int put_row(const struct panel *q, int row, int width, struct buf *b, struct err *e)
{
    if (q->empty)
        return pad(b, width, e);
    if (row == 0)
        return put_title(q, width, b, e);
    if (row <= q->cells.h)
        return put_chart(q, row - 1, b, e);
    return put_steps(q, width, b, e);
}

static void make(struct panel *q, const struct plot_options *o, struct plot_curve *curve, int width,
                 int chart)
{
    size_t bins = 2 * (size_t)(width - AXIS); /* a point for each dot */
    q->cells.w = width - AXIS;
    q->cells.h = chart;
    q->empty = !plot_panel_axes(q->p, o, q->what, curve, bins, &q->ax, &q->ay, chart < 5 ? 3 : 4);
    for (size_t i = 0; i < q->p->n && !q->empty; i++) {
        const struct plot_series *s = plot_series_of(&q->p->runs[i], q->what->metric);
        if (!s || !s->n)
            continue;
        plot_curve_init(curve, s, bins, plot_panel_smooth(o, q->what));
        draw(&q->cells, curve, &q->ax, &q->ay, i);
        if (q->p->n == 1)
            plot_value(curve->smooth[curve->n - 1], q->value);
    }
}

/* ---- the screen ------------------------------------------------------------------------------ */

/* "runs/r1 · grpo · step 140 of 400 · 3.1 s/step · 14 min left" */
static int put_status(const struct plot_run *r, int room, struct buf *b, struct err *e)
{
    const char *stage = json_string_value(json_object_get(r->config, "stage"));
    int64_t total = plot_total(r);
    char text[512], pace[64] = "", left[64] = "", steps[64];
    double mean = plot_pace(r), rest = (double)(total - r->step) * mean;
    int used;
    if (mean > 0) {
        if (mean < 0.1)
            snprintf(pace, sizeof pace, " · %.0f steps/s", 1 / mean);
        else
            snprintf(pace, sizeof pace, " · %.*f s/step", mean < 10 ? 1 : 0, mean);
        if (total > r->step && rest < 100)
            snprintf(left, sizeof left, " · %.0f s left", rest);
        else if (total > r->step && rest < 100 * 60)
            snprintf(left, sizeof left, " · %.0f min left", rest / 60);
        else if (total > r->step)
            snprintf(left, sizeof left, " · %.1f h left", rest / 3600);
    }
    if (total > 0)
        snprintf(steps, sizeof steps, "step %" PRId64 "/%" PRId64, r->step < 0 ? 0 : r->step,
                 total);
    else
        snprintf(steps, sizeof steps, "step %" PRId64, r->step < 0 ? 0 : r->step);
    snprintf(text, sizeof text, "%.200s%s%.40s · %s%s%s", r->label, stage ? " · " : "",
             stage ? stage : "", steps, pace, left);
    return put_clean(b, text, room, &used, e);
}

static int put_head(const struct plot *p, const struct plot_screen *s, struct buf *b, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < p->n && !rc; i++) {
        if (p->n > 1)
            rc = buf_printf(b, e, "%s━━%s ", colour_of(s, i), style(s, "\033[0m"));
        if (!rc)
            rc = put_status(&p->runs[i], s->columns - (p->n > 1 ? 3 : 0), b, e);
        if (!rc)
            rc = buf_putc(b, '\n', e);
    }
    return rc ? rc : buf_putc(b, '\n', e);
}

struct layout {
    int columns, width, chart; /* panels beside each other, columns of one, rows of its chart */
    size_t panels;             /* that there is room for */
};

/* As large as the screen lets them be; fewer panels where the smallest do not fit. */
static struct layout lay_out(const struct plot_screen *s, size_t n, int head)
{
    struct layout l = {.columns = (s->columns + GAP) / (PANEL_MIN + GAP)};
    l.columns = l.columns < 1 ? 1 : l.columns > 4 ? 4 : l.columns;
    if ((size_t)l.columns > n)
        l.columns = (int)n;
    l.width = (s->columns - (l.columns - 1) * GAP) / l.columns;
    l.width = l.width > PANEL_MAX ? PANEL_MAX : l.width < AXIS + 8 ? AXIS + 8 : l.width;
    int rows = (int)((n + (size_t)l.columns - 1) / (size_t)l.columns);
    int room = s->rows > 0 ? s->rows - head : rows * (CHART_MAX + FRAME);
    l.chart = room / rows - FRAME;
    while (rows > 1 && l.chart < CHART_MIN)
        l.chart = room / --rows - FRAME;
    l.chart = l.chart > CHART_MAX ? CHART_MAX : l.chart < CHART_MIN ? CHART_MIN : l.chart;
    if (s->rows <= 0)
        l.chart = 6;
    l.panels = num_min(n, (size_t)rows * (size_t)l.columns);
    return l;
}

static int put_panels(struct panel *q, size_t n, const struct layout *l, struct buf *b,
                      struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < n; i += (size_t)l->columns) {
        for (int row = 0; row < l->chart + FRAME - 1 && !rc; row++) {
            for (size_t k = i; k < i + (size_t)l->columns && k < n && !rc; k++) {
                rc = k > i ? pad(b, GAP, e) : 0;
                if (!rc)
                    rc = put_row(&q[k], row, l->width, b, e);
            }
            while (!rc && b->len && b->data[b->len - 1] == ' ')
                b->data[--b->len] = '\0';
            if (!rc)
                rc = buf_putc(b, '\n', e);
        }
        if (!rc && i + (size_t)l->columns < n)
            rc = buf_putc(b, '\n', e);
    }
    return rc;
}

int plot_text(const struct plot *p, const struct plot_options *o, const struct plot_screen *s,
              struct buf *out, struct err *e)
{
    struct plot_panel panels[PLOT_PANELS_MAX];
    struct plot_screen screen = *s;
    size_t n;
    screen.columns = s->columns < 24 ? 24 : s->columns > WIDTH_MAX - 1 ? WIDTH_MAX - 1 : s->columns;
    int rc = plot_panels(p, o, panels, &n, e);
    if (!rc)
        rc = put_head(p, &screen, out, e);
    if (rc || !n)
        return rc ? rc : buf_puts(out, "nothing was logged yet\n", e);
    struct layout l = lay_out(&screen, n, (int)p->n + 1);
    struct plot_curve *curve = malloc(sizeof *curve);
    struct panel *q = calloc(l.panels, sizeof *q);
    if (!curve || !q)
        rc = err_nomem(e, sizeof *curve, "curves");
    for (size_t i = 0; i < l.panels && !rc; i++) {
        q[i].p = p;
        q[i].s = &screen;
        q[i].what = &panels[i];
        make(&q[i], o, curve, l.width, l.chart);
    }
    if (!rc)
        rc = put_panels(q, l.panels, &l, out, e);
    free(q);
    free(curve);
    return rc;
}

int plot_line(const struct plot *p, size_t run, struct buf *out, struct err *e)
{
    static const char *const names[] = {
        "loss", "reward", "rewards/accuracy/mean", "mean_token_accuracy", "kl", "learning_rate"};
    const struct plot_run *r = &p->runs[run];
    int rc = put_status(r, WIDTH_MAX, out, e);
    for (size_t i = 0; i < NUM_COUNT(names) && !rc; i++) {
        char value[PLOT_LABEL_MAX];
        const struct plot_series *s = plot_series_of(r, names[i]);
        if (!s || !s->n)
            continue;
        plot_value(s->y[s->n - 1], value);
        rc = buf_printf(out, e, "  %s %s", names[i], value);
    }
    return rc ? rc : buf_putc(out, '\n', e);
}

int plot_spark(struct buf *out, const double *v, size_t n, size_t width, struct err *e)
{
    static const char *const bars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    double lo = INFINITY, hi = -INFINITY;
    int rc = 0;
    size_t cells = num_min(n, width);
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < cells && !rc; i++) {
            size_t from = i * n / cells, to = (i + 1) * n / cells;
            double mean = 0;
            for (size_t k = from; k < to; k++)
                mean += v[k] / (double)(to - from);
            if (!pass && isfinite(mean)) {
                lo = fmin(lo, mean);
                hi = fmax(hi, mean);
            }
            if (pass) {
                double t = hi > lo ? (mean - lo) / (hi - lo) : 0.5;
                int bar = (int)floor(t * 7 + 0.5);
                rc = buf_puts(out, isfinite(mean) ? bars[bar] : " ", e);
            }
        }
    return rc;
}
