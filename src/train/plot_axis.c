#include "train/plot_axis.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The smallest of 1, 2, 5, 10, 20, … that is not below x; with `quarters` also 2.5, 25, …. */
static double nice(double x, bool quarters)
{
    double p = pow(10, floor(log10(x)));
    double f = x / p;
    return p * (f <= 1 + 1e-9                 ? 1
                : f <= 2 + 1e-9               ? 2
                : quarters && f <= 2.5 + 1e-9 ? 2.5
                : f <= 5 + 1e-9               ? 5
                                              : 10);
}

/* How labels are written: plain, in thousands, or with a power of ten beside the title. */
static void choose_unit(struct plot_axis *a)
{
    double most = fmax(fabs(a->lo), fabs(a->hi));
    a->unit = 1;
    a->suffix = "";
    a->exponent = 0;
    if (most >= 1e12 || (most > 0 && most < 0.01)) {
        a->exponent = (int)floor(log10(most) + 1e-9);
        a->unit = pow(10, a->exponent);
    } else if (most >= 1e9) {
        a->unit = 1e9;
        a->suffix = "G";
    } else if (most >= 1e6) {
        a->unit = 1e6;
        a->suffix = "M";
    } else if (most >= 1e4) {
        a->unit = 1e3;
        a->suffix = "k";
    }
    double step = a->step / a->unit;
    a->decimals = 0;
    while (a->decimals < 9 && fabs(step - round(step)) > 1e-6 * step) {
        step *= 10;
        a->decimals++;
    }
}

void plot_axis_init(struct plot_axis *a, double lo, double hi, int want, bool round_)
{
    if (!(hi > lo)) { /* one value: a range around it */
        double d = lo != 0 ? fabs(lo) * 0.1 : 1;
        lo -= d;
        hi += d;
    }
    /* Doubles cannot tell more than so many steps apart. */
    double least = fmax(fabs(lo), fabs(hi)) * 1e-9;
    a->step = nice(fmax((hi - lo) / (want > 1 ? want - 1 : 1), fmax(least, 1e-300)), round_);
    a->lo = round_ ? floor(lo / a->step + 1e-6) * a->step : lo;
    a->hi = round_ ? ceil(hi / a->step - 1e-6) * a->step : hi;
    if (!(a->hi > a->lo))
        a->hi = a->lo + a->step;
    choose_unit(a);
}

size_t plot_axis_ticks(const struct plot_axis *a, double out[PLOT_TICKS_MAX])
{
    size_t n = 0;
    double slack = 1e-6 * a->step;
    for (double k = ceil((a->lo - slack) / a->step);
         k * a->step <= a->hi + slack && n < PLOT_TICKS_MAX; k++)
        out[n++] = k == 0 ? 0 : k * a->step;
    return n;
}

/* With a true minus sign. */
static void put_number(char out[PLOT_LABEL_MAX], double v, int decimals, const char *suffix)
{
    char digits[PLOT_LABEL_MAX];
    snprintf(digits, sizeof digits, "%.*f", decimals, fabs(v));
    bool minus = v < 0 && strtod(digits, NULL) != 0;
    snprintf(out, PLOT_LABEL_MAX, "%s%.12s%.16s", minus ? "−" : "", digits, suffix);
}

void plot_axis_label(const struct plot_axis *a, double v, char out[PLOT_LABEL_MAX])
{
    put_number(out, v / a->unit, a->decimals, v == 0 ? "" : a->suffix);
}

void plot_axis_unit(const struct plot_axis *a, char out[PLOT_LABEL_MAX])
{
    static const char *const raised[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
    char digits[8];
    out[0] = '\0';
    if (!a->exponent)
        return;
    snprintf(digits, sizeof digits, "%d", abs(a->exponent) % 1000);
    size_t n = (size_t)snprintf(out, PLOT_LABEL_MAX, "×10%s", a->exponent < 0 ? "⁻" : "");
    for (const char *d = digits; *d; d++)
        n += (size_t)snprintf(out + n, PLOT_LABEL_MAX - n, "%s", raised[*d - '0']);
}

void plot_value(double v, char out[PLOT_LABEL_MAX])
{
    double m = fabs(v);
    struct plot_axis a = {.unit = 1};
    if (!isfinite(v)) {
        snprintf(out, PLOT_LABEL_MAX, "–");
    } else if (m > 0 && (m < 1e-3 || m >= 1e9)) {
        char unit[PLOT_LABEL_MAX] = "";
        a.exponent = (int)floor(log10(m) + 1e-12);
        plot_axis_unit(&a, unit);
        put_number(out, v / pow(10, a.exponent), 2, unit);
    } else if (m >= 1e6) {
        put_number(out, v / 1e6, 2, "M");
    } else if (m >= 1e4) {
        put_number(out, v / 1e3, 1, "k");
    } else {
        put_number(out, v, m >= 1000 ? 0 : m >= 100 ? 1 : m >= 10 ? 2 : m >= 0.1 ? 3 : 4, "");
    }
}
