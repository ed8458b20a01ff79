/* What reading and drawing of curves share. */
#ifndef PONDER_TRAIN_PLOT_IMPL_H
#define PONDER_TRAIN_PLOT_IMPL_H

#include "train/plot.h"
#include "train/plot_axis.h"
#include "train/steplog.h"

#include <jansson.h>

enum { PLOT_BINS = 600, PLOT_TITLE_MAX = 160 };

/* A metric of a run: (x[i], y[i]) in the order of the log. */
struct plot_series {
    char *name;
    double *x, *y;
    size_t n, cap;
};

struct plot_run {
    char *dir, *label;
    json_t *config;             /* NULL: none that can be read */
    struct steplog_in files[2]; /* log and timings */
    struct plot_series *v;
    size_t n, cap, points;
    int64_t step; /* of the last line of the log; -1: none */
};

struct plot {
    struct plot_run runs[PLOT_RUNS_MAX];
    size_t n;
    char title[PLOT_TITLE_MAX];
};

/* One panel: a metric over all runs. */
struct plot_panel {
    char metric[PLOT_TITLE_MAX], title[PLOT_TITLE_MAX];
    const char *low, *high; /* metrics that bound a band around it, or NULL */
    bool unit;              /* between 0 and 1 */
    bool exact;             /* has no noise: is not smoothed */
};

const struct plot_series *plot_series_of(const struct plot_run *r, const char *name);

/* Which panels there are. ERR_USAGE: a pattern of o->metrics that no metric has. */
int plot_panels(const struct plot *p, const struct plot_options *o,
                struct plot_panel out[PLOT_PANELS_MAX], size_t *n, struct err *e);

/*
 * A line as it is drawn: at most `bins` ≤ PLOT_BINS points, ascending in x. Where there are more,
 * each is a stretch of the run: its mean, and the least and greatest value in it.
 */
struct plot_curve {
    size_t n;
    double x[PLOT_BINS], y[PLOT_BINS], least[PLOT_BINS], greatest[PLOT_BINS];
    double smooth[PLOT_BINS];
    bool smoothed; /* smooth differs from y */
    double spread; /* of the values around it: about a standard deviation */
};

void plot_curve_init(struct plot_curve *c, const struct plot_series *s, size_t bins, double smooth);
/* How much a panel is smoothed. */
double plot_panel_smooth(const struct plot_options *o, const struct plot_panel *panel);

/* Axes that fit the panel's lines; false when no run has a value. `curve` is working memory. */
bool plot_panel_axes(const struct plot *p, const struct plot_options *o,
                     const struct plot_panel *panel, struct plot_curve *curve, size_t bins,
                     struct plot_axis *x, struct plot_axis *y, int ticks);

/* The title of a picture: the run, or the folder of several. */
const char *plot_title(const struct plot *p);
/* What a picture is about, in words: stage, model, steps. */
int plot_subtitle(const struct plot *p, struct buf *out, struct err *e);
/* Seconds a step, of late; 0: not known. */
double plot_pace(const struct plot_run *r);
/* Steps that the run will have; 0: not known. */
int64_t plot_total(const struct plot_run *r);

#endif
