/* Axes: ranges that end at round numbers, ticks, and how numbers are written beside them. */
#ifndef PONDER_TRAIN_PLOT_AXIS_H
#define PONDER_TRAIN_PLOT_AXIS_H

#include <stdbool.h>
#include <stddef.h>

enum { PLOT_LABEL_MAX = 32, PLOT_TICKS_MAX = 16 };

struct plot_axis {
    double lo, hi, step; /* ticks are the multiples of step between lo and hi */
    double unit;         /* labels are values divided by it */
    int decimals;
    int exponent; /* unit is 10^exponent when this is not 0: said beside the title, "×10⁻⁴" */
    const char *suffix; /* behind each label: "", "k", "M" */
};

/* About `want` ticks; with `round` the range is widened to ticks. */
void plot_axis_init(struct plot_axis *a, double lo, double hi, int want, bool round);

size_t plot_axis_ticks(const struct plot_axis *a, double out[PLOT_TICKS_MAX]);

/* The label of a tick. */
void plot_axis_label(const struct plot_axis *a, double v, char out[PLOT_LABEL_MAX]);

/* "×10⁻⁴", or "" when labels are plain. */
void plot_axis_unit(const struct plot_axis *a, char out[PLOT_LABEL_MAX]);

/* A value on its own: "0.742", "3.1e-5", "12.4k". */
void plot_value(double v, char out[PLOT_LABEL_MAX]);

#endif
