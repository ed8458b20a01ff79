/*
 * Curves of training runs: read from their folders (train/run.h), drawn as SVG or PNG by cairo, or
 * as text for a terminal.
 *
 * A picture is small multiples: a panel for each metric, a colour for each run. Lines are smoothed
 * by a local linear fit with Gaussian weights, which neither lags behind nor bends at the ends;
 * what was measured stands faint behind them. Ranges leave out single outliers (2% on either side).
 * Runs that are being written can be followed.
 *
 * Not thread-safe: one owner at a time.
 */
#ifndef PONDER_TRAIN_PLOT_H
#define PONDER_TRAIN_PLOT_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PLOT_RUNS_MAX = 16, PLOT_PANELS_MAX = 24 };

struct plot;

struct plot_options {
    const char *metrics; /* names or patterns ("rewards/ *") separated by commas; NULL: the usual */
    double smooth;       /* over about so many points; 0: not at all; < 0: as suits their number */
    const char *title;   /* NULL: names of the runs */
    double scale;        /* PNG: pixels for each of SVG's */
    int columns;         /* of panels; 0: as many as suit */
};

/* The defaults. */
void plot_options_init(struct plot_options *o);

int plot_new(struct plot **out, struct err *e);
void plot_free(struct plot *p); /* NULL is fine */

/* Adds a run. ERR_NOTFOUND: there is no run in that folder. */
int plot_add(struct plot *p, const char *dir, struct err *e);

/* Reads what was written since; *changed is whether there was anything. A run that was cut back and
   goes on is read anew. */
int plot_update(struct plot *p, bool *changed, struct err *e);

/* Writes FILE.svg or FILE.png, whole or not at all. */
int plot_save(const struct plot *p, const struct plot_options *o, const char *path, struct err *e);
bool plot_has_cairo(void); /* whether this build can */

/* What a terminal gives. */
struct plot_screen {
    int columns, rows; /* rows 0: as many as it takes */
    bool colour;
};

/* Panels as text, in lines of at most `columns`, each with its newline. */
int plot_text(const struct plot *p, const struct plot_options *o, const struct plot_screen *s,
              struct buf *out, struct err *e);

/* One line about a run: its name, step, pace and newest values. */
int plot_line(const struct plot *p, size_t run, struct buf *out, struct err *e);

/* ▁▂▅▇ of at most `width` characters. */
int plot_spark(struct buf *out, const double *v, size_t n, size_t width, struct err *e);

/* Step of the last line that was read of a run; -1: none. */
int64_t plot_last_step(const struct plot *p, size_t run);

#endif
