/*
 * Curves as SVG and PNG, by cairo. All lengths are in SVG's pixels; PNG has `scale` times as many.
 *
 * Colours are those of Okabe and Ito ("Color Universal Design", 2008), which people with any kind
 * of colour vision tell apart; from the eighth run on lines are dashed.
 */
#include "base/file.h"
#include "base/num.h"
#include "base/utf8.h"
#include "train/plot_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef PONDER_CAIRO
#include <cairo-svg.h>
#include <cairo.h>

enum {
    MARGIN = 30,
    PANEL_W = 330,
    PANEL_H = 220,
    GAP_X = 34,
    GAP_Y = 30,
    HEAD = 38, /* of a panel: its title */
    FOOT = 22, /* of a panel: labels of steps */
    TICKS = 5,
    PNG_MAX = 16000, /* pixels on a side */
};

struct rgb {
    double r, g, b;
};

static const struct rgb ink = {0.13, 0.15, 0.18}, grey = {0.42, 0.45, 0.49},
                        rule = {0.905, 0.912, 0.92}, base_line = {0.70, 0.72, 0.75};

static const struct rgb palette[] = {
    {0.000, 0.447, 0.698}, {0.835, 0.369, 0.000}, {0.000, 0.620, 0.451}, {0.800, 0.475, 0.655},
    {0.902, 0.624, 0.000}, {0.337, 0.706, 0.914}, {0.35, 0.35, 0.38},
};

struct canvas {
    cairo_t *c;
    const struct plot *p;
    const struct plot_options *o;
    struct plot_curve *curve;
};

/* Where a panel's values are. */
struct frame {
    double x, y, w, h; /* of the area of lines */
    struct plot_axis ax, ay;
};

static void set_colour(cairo_t *c, struct rgb k, double alpha)
{
    cairo_set_source_rgba(c, k.r, k.g, k.b, alpha);
}

static void set_font(cairo_t *c, double size, bool bold)
{
    cairo_select_font_face(c, "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(c, size);
}

enum { TEXT_MAX = 1024 };

/* Cairo gives up at text that is no UTF-8, and names of folders need not be. */
static const char *mend(const char *s, char out[TEXT_MAX])
{
    size_t n = strlen(s), at = 0;
    if (n < TEXT_MAX && utf8_valid(s, n))
        return s;
    for (size_t i = 0; i < n && at + 5 < TEXT_MAX;) {
        uint32_t cp;
        i += utf8_next(s + i, n - i, &cp, NULL);
        at += utf8_put(out + at, cp);
    }
    out[at] = '\0';
    return out;
}

static double text_width(cairo_t *c, const char *s)
{
    char text[TEXT_MAX];
    cairo_text_extents_t t;
    cairo_text_extents(c, mend(s, text), &t);
    return t.x_advance;
}

/* `align`: 0 begins at x, 0.5 is centred, 1 ends there. Returns the width. */
static double put_text(cairo_t *c, double x, double y, double align, const char *s)
{
    char text[TEXT_MAX];
    double w = text_width(c, s);
    cairo_move_to(c, x - align * w, y);
    cairo_show_text(c, mend(s, text));
    return w;
}

/* The same, cut with an ellipsis where it is wider than `room`. */
static void put_fitting(cairo_t *c, double x, double y, const char *s, double room)
{
    char cut[PLOT_TITLE_MAX + 8];
    size_t n = strlen(s) < PLOT_TITLE_MAX ? strlen(s) : PLOT_TITLE_MAX;
    snprintf(cut, sizeof cut, "%.*s", (int)n, s);
    while (n > 1 && text_width(c, cut) > room) {
        do
            n--;
        while (n > 1 && ((unsigned char)s[n] & 0xc0) == 0x80); /* not inside a character */
        snprintf(cut, sizeof cut, "%.*s…", (int)n, s);
    }
    put_text(c, x, y, 0, cut);
}

/* ---- a panel --------------------------------------------------------------------------------- */

static double at_x(const struct frame *f, double v)
{
    return f->x + (v - f->ax.lo) / (f->ax.hi - f->ax.lo) * f->w;
}

/* Far outliers leave the area, but not the range that cairo can draw in. */
static double at_y(const struct frame *f, double v)
{
    double t = (v - f->ay.lo) / (f->ay.hi - f->ay.lo);
    return f->y + f->h - fmax(-2, fmin(3, t)) * f->h;
}

static void draw_grid(cairo_t *c, const struct frame *f)
{
    double ticks[PLOT_TICKS_MAX];
    char label[PLOT_LABEL_MAX];
    size_t n = plot_axis_ticks(&f->ay, ticks);
    set_font(c, 10, false);
    for (size_t i = 0; i < n; i++) {
        double y = round(at_y(f, ticks[i])) + 0.5;
        set_colour(c, i ? rule : base_line, 1);
        cairo_set_line_width(c, 1);
        cairo_move_to(c, f->x, y);
        cairo_line_to(c, f->x + f->w, y);
        cairo_stroke(c);
        plot_axis_label(&f->ay, ticks[i], label);
        set_colour(c, grey, 1);
        put_text(c, f->x - 7, y + 3.5, 1, label);
    }
    n = plot_axis_ticks(&f->ax, ticks);
    for (size_t i = 0; i < n; i++) {
        double x = at_x(f, ticks[i]);
        set_colour(c, base_line, 1);
        cairo_move_to(c, round(x) + 0.5, f->y + f->h);
        cairo_line_to(c, round(x) + 0.5, f->y + f->h + 4);
        cairo_stroke(c);
        plot_axis_label(&f->ax, ticks[i], label);
        set_colour(c, grey, 1);
        /* the last label stays inside the panel */
        double half = text_width(c, label) / 2, right = f->x + f->w + 8 - half;
        put_text(c, fmin(x, right), f->y + f->h + 16, 0.5, label);
    }
}

/*
 * Leaves out points that are within a sixteenth of a pixel of the line without them: files of
 * smooth curves are much smaller. From the point drawn last, [low, high] are the slopes of lines
 * that pass all points since near enough.
 */
static void draw_line(cairo_t *c, const struct frame *f, const struct plot_curve *k,
                      const double *y)
{
    double x0 = 0, y0 = 0, low = -INFINITY, high = INFINITY;
    for (size_t i = 0; i < k->n; i++) {
        double px = at_x(f, k->x[i]), py = at_y(f, y[i]), d = px - x0;
        bool last = i + 1 == k->n;
        if (i && !last && d > 0 && (py - y0) / d >= low && (py - y0) / d <= high) {
            low = fmax(low, (py - 0.06 - y0) / d);
            high = fmin(high, (py + 0.06 - y0) / d);
            double slope = (at_y(f, y[i + 1]) - y0) / (at_x(f, k->x[i + 1]) - x0);
            if (slope >= low && slope <= high)
                continue;
        }
        cairo_line_to(c, px, py);
        x0 = px;
        y0 = py;
        low = -INFINITY;
        high = INFINITY;
    }
    cairo_stroke(c);
}

/* What was measured: a line of single points, or the extent of many. */
static void draw_raw(cairo_t *c, const struct frame *f, const struct plot_curve *k, struct rgb ink_,
                     double alpha)
{
    bool many = false;
    for (size_t i = 0; i < k->n; i++)
        many |= k->least[i] < k->greatest[i];
    if (!many) {
        set_colour(c, ink_, 0.30 * alpha);
        cairo_set_line_width(c, 1);
        draw_line(c, f, k, k->y);
        return;
    }
    for (size_t i = 0; i < k->n; i++)
        cairo_line_to(c, at_x(f, k->x[i]), at_y(f, k->greatest[i]));
    for (size_t i = k->n; i-- > 0;)
        cairo_line_to(c, at_x(f, k->x[i]), at_y(f, k->least[i]));
    cairo_close_path(c);
    set_colour(c, ink_, 0.18 * alpha);
    cairo_fill(c);
}

/* From the least to the greatest of what a metric is the mean of. */
static void draw_band(const struct canvas *v, const struct frame *f, const struct plot_panel *panel,
                      struct rgb ink_)
{
    const struct plot_series *a = plot_series_of(&v->p->runs[0], panel->low);
    const struct plot_series *b = plot_series_of(&v->p->runs[0], panel->high);
    cairo_t *c = v->c;
    if (!a || !b)
        return;
    plot_curve_init(v->curve, a, PLOT_BINS, plot_panel_smooth(v->o, panel));
    for (size_t i = 0; i < v->curve->n; i++)
        cairo_line_to(c, at_x(f, v->curve->x[i]), at_y(f, v->curve->smooth[i]));
    plot_curve_init(v->curve, b, PLOT_BINS, plot_panel_smooth(v->o, panel));
    for (size_t i = v->curve->n; i-- > 0;)
        cairo_line_to(c, at_x(f, v->curve->x[i]), at_y(f, v->curve->smooth[i]));
    cairo_close_path(c);
    set_colour(c, ink_, 0.12);
    cairo_fill(c);
}

static void draw_run(const struct canvas *v, const struct frame *f, const struct plot_panel *panel,
                     size_t i, bool raw)
{
    static const double dash[] = {5, 3};
    const struct plot_series *s = plot_series_of(&v->p->runs[i], panel->metric);
    struct rgb k = palette[i % NUM_COUNT(palette)];
    cairo_t *c = v->c;
    if (!s || !s->n)
        return;
    if (raw && panel->low && v->p->n == 1)
        draw_band(v, f, panel, k);
    plot_curve_init(v->curve, s, PLOT_BINS, plot_panel_smooth(v->o, panel));
    if (raw && v->curve->smoothed)
        draw_raw(c, f, v->curve, k, v->p->n == 1 ? 1 : 0.65);
    if (raw)
        return;
    set_colour(c, k, 1);
    cairo_set_line_width(c, 1.75);
    if (i >= NUM_COUNT(palette))
        cairo_set_dash(c, dash, 2, 0);
    draw_line(c, f, v->curve, v->curve->smooth);
    cairo_set_dash(c, NULL, 0, 0);
    size_t last = v->curve->n - 1; /* where the run is now */
    cairo_arc(c, at_x(f, v->curve->x[last]), at_y(f, v->curve->smooth[last]), 2.6, 0, 2 * M_PI);
    cairo_fill(c);
}

/* The title, the unit of the axis, and with one run the newest value. */
static void draw_head(const struct canvas *v, const struct frame *f, const struct plot_panel *panel,
                      double x, double y)
{
    char unit[PLOT_LABEL_MAX], value[PLOT_LABEL_MAX] = "";
    cairo_t *c = v->c;
    double right = x + PANEL_W;
    const struct plot_series *s = plot_series_of(&v->p->runs[0], panel->metric);
    if (v->p->n == 1 && s && s->n) {
        plot_curve_init(v->curve, s, PLOT_BINS, plot_panel_smooth(v->o, panel));
        plot_value(v->curve->smooth[v->curve->n - 1], value);
        set_font(c, 12.5, true);
        set_colour(c, palette[0], 1);
        right -= put_text(c, right, y + 14, 1, value) + 8;
    }
    plot_axis_unit(&f->ay, unit);
    set_font(c, 9.5, false);
    set_colour(c, grey, 1);
    put_text(c, x, y + 29, 0, unit);
    set_font(c, 12.5, true);
    set_colour(c, ink, 1);
    put_fitting(c, x, y + 14, panel->title, right - x);
}

static void draw_panel(const struct canvas *v, const struct plot_panel *panel, double x, double y)
{
    struct frame f = {.y = y + HEAD, .h = PANEL_H - HEAD - FOOT};
    double ticks[PLOT_TICKS_MAX], widest = 0;
    char label[PLOT_LABEL_MAX];
    cairo_t *c = v->c;
    if (!plot_panel_axes(v->p, v->o, panel, v->curve, PLOT_BINS, &f.ax, &f.ay, TICKS))
        return;
    set_font(c, 10, false);
    for (size_t n = plot_axis_ticks(&f.ay, ticks), i = 0; i < n; i++) {
        plot_axis_label(&f.ay, ticks[i], label);
        widest = fmax(widest, text_width(c, label));
    }
    f.x = x + widest + 8;
    f.w = PANEL_W - widest - 8 - 4;
    draw_head(v, &f, panel, x, y);
    draw_grid(c, &f);
    cairo_save(c);
    cairo_rectangle(c, f.x - 1, f.y - 4, f.w + 6, f.h + 6);
    cairo_clip(c);
    cairo_set_line_join(c, CAIRO_LINE_JOIN_ROUND);
    cairo_set_line_cap(c, CAIRO_LINE_CAP_ROUND);
    for (size_t i = 0; i < v->p->n; i++) /* no line lies under what another was measured */
        draw_run(v, &f, panel, i, true);
    for (size_t i = 0; i < v->p->n; i++)
        draw_run(v, &f, panel, i, false);
    cairo_restore(c);
}

/* ---- the picture ----------------------------------------------------------------------------- */

/* The key of several runs, in as many rows as it takes; only measures when `draw` is false.
   Returns its height. */
static double draw_key(const struct canvas *v, double y, double width, bool draw)
{
    cairo_t *c = v->c;
    double x = MARGIN, height = 0;
    if (v->p->n < 2)
        return 0;
    set_font(c, 11.5, false);
    for (size_t i = 0; i < v->p->n; i++) {
        double w = 24 + text_width(c, v->p->runs[i].label) + 22;
        if (!height || x + w > width - MARGIN + 22) {
            x = MARGIN;
            height += 20;
        }
        if (draw) {
            static const double dash[] = {5, 3};
            set_colour(c, palette[i % NUM_COUNT(palette)], 1);
            cairo_set_line_width(c, 2.5);
            cairo_set_dash(c, dash, i >= NUM_COUNT(palette) ? 2 : 0, 0);
            cairo_move_to(c, x, y + height - 8.5);
            cairo_line_to(c, x + 17, y + height - 8.5);
            cairo_stroke(c);
            cairo_set_dash(c, NULL, 0, 0);
            set_colour(c, ink, 1);
            put_text(c, x + 24, y + height - 4.5, 0, v->p->runs[i].label);
        }
        x += w;
    }
    return height + 6;
}

static int columns_for(const struct plot_options *o, size_t n)
{
    if (o->columns > 0)
        return (int)num_min((size_t)o->columns, n);
    if (n <= 4)
        return n < 2 ? 1 : n == 3 ? 3 : 2;
    /* three or four, whichever leaves fewer places empty */
    return n > 9 && (4 - n % 4) % 4 <= (3 - n % 3) % 3 ? 4 : 3;
}

enum { TITLE_H = 54 };

static int draw_all(const struct canvas *v, const struct plot_panel *panels, size_t n, double width,
                    double top, struct err *e)
{
    int columns = columns_for(v->o, n);
    cairo_t *c = v->c;
    struct buf sub;
    buf_init(&sub, 4096);
    int rc = plot_subtitle(v->p, &sub, e);
    if (rc)
        return rc;
    cairo_set_source_rgb(c, 1, 1, 1);
    cairo_paint(c);
    const char *title = v->o->title ? v->o->title : plot_title(v->p);
    set_font(c, 17, true);
    set_colour(c, ink, 1);
    put_fitting(c, MARGIN, MARGIN + 13, title, width - 2 * MARGIN);
    set_font(c, 11.5, false);
    set_colour(c, grey, 1);
    put_fitting(c, MARGIN, MARGIN + 33, sub.data, width - 2 * MARGIN);
    draw_key(v, MARGIN + TITLE_H - 12, width, true);
    for (size_t i = 0; i < n; i++)
        draw_panel(v, &panels[i], MARGIN + (double)(i % (size_t)columns) * (PANEL_W + GAP_X),
                   top + (double)(i / (size_t)columns) * (PANEL_H + GAP_Y));
    buf_release(&sub);
    return 0;
}

static cairo_status_t write_piece(void *arg, const unsigned char *p, unsigned n)
{
    struct err ignored; /* the file remembers: committing it fails */
    return file_out_write(arg, p, n, &ignored) ? CAIRO_STATUS_WRITE_ERROR : CAIRO_STATUS_SUCCESS;
}

static int fault(cairo_status_t s, const char *path, struct err *e)
{
    return err_set(e, s == CAIRO_STATUS_NO_MEMORY ? ERR_NOMEM : ERR_IO, "%s: %s", path,
                   cairo_status_to_string(s));
}

/* Text needs a surface to be measured on before the size of the picture is known. */
static double key_height(struct canvas *v, double width)
{
    cairo_surface_t *s = cairo_image_surface_create(CAIRO_FORMAT_A8, 1, 1);
    v->c = cairo_create(s);
    double h = draw_key(v, 0, width, false);
    cairo_destroy(v->c);
    cairo_surface_destroy(s);
    return h;
}

static int save(struct canvas *v, const struct plot_panel *panels, size_t n, bool svg,
                const char *path, struct err *e)
{
    int columns = columns_for(v->o, n);
    int rows = (int)((n + (size_t)columns - 1) / (size_t)columns);
    double width = 2 * MARGIN + columns * (PANEL_W + GAP_X) - GAP_X;
    double top = MARGIN + TITLE_H + key_height(v, width);
    double height = top + rows * (PANEL_H + GAP_Y) - GAP_Y + MARGIN - 6;
    double scale = svg ? 1 : v->o->scale;
    struct file_out f;
    if (!svg && (width * scale > PNG_MAX || height * scale > PNG_MAX || !(scale > 0)))
        return err_set(e, ERR_USAGE, "--scale %g: the picture would be %.0f × %.0f pixels", scale,
                       width * scale, height * scale);
    int rc = file_out_open(&f, path, e);
    if (rc)
        return rc;
    cairo_surface_t *s =
        svg ? cairo_svg_surface_create_for_stream(write_piece, &f, width, height)
            : cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)ceil(width * scale),
                                         (int)ceil(height * scale));
    v->c = cairo_create(s);
    cairo_scale(v->c, scale, scale);
    rc = draw_all(v, panels, n, width, top, e);
    cairo_status_t status = cairo_status(v->c);
    cairo_destroy(v->c);
    if (status == CAIRO_STATUS_SUCCESS && !rc && !svg)
        status = cairo_surface_write_to_png_stream(s, write_piece, &f);
    cairo_surface_finish(s);
    if (status == CAIRO_STATUS_SUCCESS)
        status = cairo_surface_status(s);
    cairo_surface_destroy(s);
    if (!rc && status != CAIRO_STATUS_SUCCESS)
        rc = fault(status, path, e);
    if (!rc)
        rc = file_out_commit(&f, e);
    file_out_abort(&f);
    return rc;
}

bool plot_has_cairo(void)
{
    return true;
}

int plot_save(const struct plot *p, const struct plot_options *o, const char *path, struct err *e)
{
    struct plot_panel panels[PLOT_PANELS_MAX];
    size_t n, len = strlen(path);
    bool svg = len > 4 && !strcmp(path + len - 4, ".svg");
    if (!svg && !(len > 4 && !strcmp(path + len - 4, ".png")))
        return err_set(e, ERR_USAGE, "%s: the name has to end in .svg or .png", path);
    int rc = plot_panels(p, o, panels, &n, e);
    if (!rc && !n)
        rc = err_set(e, ERR_NOTFOUND, "nothing was logged yet: there is nothing to draw");
    if (rc)
        return rc;
    struct canvas v = {.p = p, .o = o, .curve = malloc(sizeof *v.curve)};
    rc = v.curve ? save(&v, panels, n, svg, path, e) : err_nomem(e, sizeof *v.curve, "curves");
    free(v.curve);
    return rc;
}

#else

bool plot_has_cairo(void)
{
    return false;
}

int plot_save(const struct plot *p, const struct plot_options *o, const char *path, struct err *e)
{
    return err_set(e, ERR_UNSUPPORTED,
                   "%s: this ponder was built without cairo: install libcairo2-dev and build "
                   "again, or use --term",
                   path);
}

#endif
