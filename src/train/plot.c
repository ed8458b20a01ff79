/* Reading runs, choosing panels, smoothing. See plot.h. */
#include "train/plot.h"

#include "base/file.h"
#include "base/num.h"
#include "format/jsonin.h"
#include "train/plot_impl.h"
#include "train/run.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define VALUE_MAX 1e100

enum { SERIES_MAX = 1024, POINTS_MAX = 1 << 25, METRIC_MAX = 128 };

static const char *const file_names[] = {"log.jsonl", "timings.jsonl"};

void plot_options_init(struct plot_options *o)
{
    *o = (struct plot_options){.smooth = -1, .scale = 2};
}

int plot_new(struct plot **out, struct err *e)
{
    *out = calloc(1, sizeof **out);
    return *out ? 0 : err_nomem(e, sizeof **out, "curves");
}

/* ---- series ---------------------------------------------------------------------------------- */

const struct plot_series *plot_series_of(const struct plot_run *r, const char *name)
{
    for (size_t i = 0; i < r->n; i++)
        if (!strcmp(r->v[i].name, name))
            return &r->v[i];
    return NULL;
}

static void forget(struct plot_run *r)
{
    for (size_t i = 0; i < r->n; i++) {
        free(r->v[i].name);
        free(r->v[i].x);
        free(r->v[i].y);
    }
    r->n = r->points = 0;
    r->step = -1;
    for (size_t i = 0; i < 2; i++)
        steplog_in_close(&r->files[i]);
}

static void run_release(struct plot_run *r)
{
    forget(r);
    free(r->v);
    free(r->dir);
    free(r->label);
    json_decref(r->config);
}

void plot_free(struct plot *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->n; i++)
        run_release(&p->runs[i]);
    free(p);
}

/* Lines have their metrics in the same order, so the series is looked for from `*hint` on. */
static int series_for(struct plot_run *r, const char *name, size_t *hint, struct plot_series **out,
                      struct err *e)
{
    for (size_t i = 0; i < r->n; i++) {
        size_t k = (*hint + i) % r->n;
        if (!strcmp(r->v[k].name, name)) {
            *hint = k + 1;
            *out = &r->v[k];
            return 0;
        }
    }
    *out = NULL;
    if (r->n == SERIES_MAX || strlen(name) >= METRIC_MAX)
        return 0; /* not drawn */
    if (r->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 32;
        struct plot_series *v = realloc(r->v, cap * sizeof *v);
        if (!v)
            return err_nomem(e, cap * sizeof *v, "curves");
        r->v = v;
        r->cap = cap;
    }
    struct plot_series *s = &r->v[r->n];
    *s = (struct plot_series){.name = strdup(name)};
    if (!s->name)
        return err_nomem(e, strlen(name) + 1, "curves");
    *hint = ++r->n;
    *out = s;
    return 0;
}

static int add_point(struct plot_run *r, struct plot_series *s, double x, double y, struct err *e)
{
    if (r->points == POINTS_MAX)
        return err_set(e, ERR_LIMIT, "%s: more than %d values", r->dir, POINTS_MAX);
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 256;
        double *a = realloc(s->x, cap * sizeof *a);
        if (a)
            s->x = a;
        double *b = a ? realloc(s->y, cap * sizeof *b) : NULL;
        if (!b)
            return err_nomem(e, cap * sizeof *b, "curves");
        s->y = b;
        s->cap = cap;
    }
    s->x[s->n] = x;
    s->y[s->n++] = fmax(-VALUE_MAX, fmin(VALUE_MAX, y)); /* differences stay finite */
    r->points++;
    return 0;
}

static int take_line(struct plot_run *r, const char *s, size_t n, int64_t step, struct err *e)
{
    static const struct jsonin_limits limits = {4, 64, 2 * RUN_VALUES_MAX};
    json_t *o, *v;
    const char *key;
    struct err ignored;
    size_t hint = 0;
    int rc = 0;
    if (jsonin_object(&o, s, n, &limits, false, &ignored))
        return 0;
    json_object_foreach(o, key, v)
    {
        struct plot_series *to;
        if (!json_is_number(v) || !strcmp(key, "step"))
            continue;
        rc = series_for(r, key, &hint, &to, e);
        if (!rc && to)
            rc = add_point(r, to, (double)step, json_number_value(v), e);
        if (rc)
            break;
    }
    json_decref(o);
    return rc;
}

/* ---- following ------------------------------------------------------------------------------- */

/* Reads on in one file. *again: it was cut back, so what was read is not what it has. */
static int read_on(struct plot_run *r, size_t which, bool *changed, bool *again, struct err *e)
{
    struct steplog_in *in = &r->files[which];
    char path[RUN_PATH_MAX];
    struct stat st;
    const char *s;
    size_t n;
    int rc = 0;
    if (!file_join(path, sizeof path, r->dir, file_names[which]))
        return err_set(e, ERR_LIMIT, "%.200s: the path is too long", r->dir);
    if (in->fd < 0 && (rc = steplog_in_open(in, path, &(bool){false}, e)))
        return rc;
    if (stat(path, &st) == 0 && (uint64_t)st.st_size < in->offset) {
        *again = true;
        return 0;
    }
    while (!(rc = steplog_in_next(in, &s, &n, e)) && s) {
        int64_t step;
        if (!steplog_step(s, n, &step) || (which == 0 && step < r->step)) {
            *again = true;
            return 0;
        }
        if (which == 0)
            r->step = step;
        *changed = true;
        rc = take_line(r, s, n, step, e);
        if (rc)
            return rc;
    }
    return rc;
}

static int run_update(struct plot_run *r, bool *changed, struct err *e)
{
    int rc = 0;
    for (int round = 0; round < 2 && !rc; round++) {
        bool again = false;
        for (size_t i = 0; i < 2 && !rc; i++)
            rc = read_on(r, i, changed, &again, e);
        if (rc || !again || round)
            break;
        forget(r);
        *changed = true;
    }
    return rc;
}

int plot_update(struct plot *p, bool *changed, struct err *e)
{
    int rc = 0;
    *changed = false;
    for (size_t i = 0; i < p->n && !rc; i++)
        rc = run_update(&p->runs[i], changed, e);
    return rc;
}

/* Names of runs without the folders that all of them are in. */
static void shorten_labels(struct plot *p)
{
    size_t common = 0;
    if (p->n < 2)
        return;
    const char *first = p->runs[0].dir;
    for (size_t at = 0; first[at]; at++) {
        for (size_t i = 1; i < p->n; i++)
            if (p->runs[i].dir[at] != first[at])
                goto found;
        if (first[at] == '/')
            common = at + 1;
    }
found:
    /* "runs/r1/" of runs/r1/a and runs/r1/b */
    snprintf(p->title, sizeof p->title, "%zu runs", p->n);
    if (common > 1)
        snprintf(p->title, sizeof p->title, "%.*s", (int)(common - 1), first);
    for (size_t i = 0; i < p->n; i++)
        memmove(p->runs[i].label, p->runs[i].dir + common, strlen(p->runs[i].dir + common) + 1);
}

int plot_add(struct plot *p, const char *dir, struct err *e)
{
    char path[RUN_PATH_MAX];
    struct err ignored;
    bool changed;
    if (p->n == PLOT_RUNS_MAX)
        return err_set(e, ERR_LIMIT, "more than %d runs", PLOT_RUNS_MAX);
    if (!file_join(path, sizeof path, dir, file_names[0]) || file_kind(path) != FILE_REGULAR)
        return err_set(e, ERR_NOTFOUND, "%s: is no folder of a training run (it has no log.jsonl)",
                       dir);
    struct plot_run *r = &p->runs[p->n];
    *r = (struct plot_run){.step = -1, .dir = strdup(dir), .label = strdup(dir)};
    for (size_t i = 0; i < 2; i++)
        r->files[i].fd = -1;
    if (!r->dir || !r->label) {
        run_release(r);
        return err_nomem(e, strlen(dir) + 1, "curves");
    }
    for (size_t n = strlen(dir); n > 1 && dir[n - 1] == '/'; n--)
        r->dir[n - 1] = r->label[n - 1] = '\0';
    if (run_config(&r->config, dir, &ignored))
        r->config = NULL;
    int rc = run_update(r, &changed, e);
    if (rc) {
        run_release(r);
        return err_ctx(e, "%s", dir);
    }
    p->n++;
    shorten_labels(p);
    return 0;
}

const char *plot_title(const struct plot *p)
{
    return p->n == 1 ? p->runs[0].label : p->title;
}

int64_t plot_last_step(const struct plot *p, size_t run)
{
    return p->runs[run].step;
}

double plot_pace(const struct plot_run *r)
{
    enum { RECENT = 20 };
    const struct plot_series *s = plot_series_of(r, "step_time");
    double sum = 0;
    size_t n = s ? num_min(s->n, RECENT) : 0;
    for (size_t i = 0; i < n; i++)
        sum += s->y[s->n - 1 - i] / (double)n;
    if (n)
        return sum;
    s = plot_series_of(r, "seconds"); /* since the process began: less again after a resume */
    n = s && s->n ? num_min(s->n - 1, RECENT) : 0;
    while (n > 0 && !(s->y[s->n - 1 - n] < s->y[s->n - 1]))
        n--;
    if (!n || !(s->x[s->n - 1] > s->x[s->n - 1 - n]))
        return 0;
    return (s->y[s->n - 1] - s->y[s->n - 1 - n]) / (s->x[s->n - 1] - s->x[s->n - 1 - n]);
}

int64_t plot_total(const struct plot_run *r)
{
    const struct plot_series *s = plot_series_of(r, "total_steps");
    if (s && s->n && s->y[s->n - 1] < 1e15)
        return (int64_t)s->y[s->n - 1];
    static const char *const names[] = {"total_steps", "max_steps"};
    for (size_t i = 0; i < NUM_COUNT(names); i++) {
        json_int_t v = json_integer_value(json_object_get(r->config, names[i]));
        if (v > 0)
            return v;
    }
    return 0;
}

/* Of a configuration that has {"model": "x"} or {"model": {"name": "x"}}. */
static const char *model_name(const struct plot_run *r)
{
    const json_t *m = json_object_get(r->config, "model");
    return json_string_value(json_is_object(m) ? json_object_get(m, "name") : m);
}

int plot_subtitle(const struct plot *p, struct buf *out, struct err *e)
{
    const struct plot_run *r = &p->runs[0];
    const char *words[] = {json_string_value(json_object_get(r->config, "stage")), model_name(r)};
    int rc = 0;
    for (size_t i = 0; i < 2 && p->n == 1 && !rc; i++)
        if (words[i])
            rc = buf_printf(out, e, "%.80s · ", words[i]);
    int64_t last = r->step, total = plot_total(r);
    for (size_t i = 1; i < p->n; i++)
        if (p->runs[i].step > last)
            last = p->runs[i].step;
    if (!rc && p->n == 1 && total > last)
        return buf_printf(out, e, "step %" PRId64 " of %" PRId64, last, total);
    return rc ? rc
              : buf_printf(out, e, "%" PRId64 " step%s", last < 0 ? 0 : last, last == 1 ? "" : "s");
}

/* ---- panels ---------------------------------------------------------------------------------- */

/* Metrics that have a title, in the order in which they are shown. A star stands for a name, which
   follows the title. */
static const struct known {
    const char *pattern, *title, *low, *high;
    bool unit, usual;
    bool exact; /* no noise: never smoothed */
} known[] = {
    {"loss", "Loss", NULL, NULL, false, true},
    {"eval_loss", "Loss on held-out data", NULL, NULL, false, true},
    {"mean_token_accuracy", "Token accuracy", NULL, NULL, true, true},
    {"reward", "Reward", NULL, NULL, false, true},
    {"rewards/*/mean", "Reward: ", NULL, NULL, false, true},
    {"accuracy", "Accuracy", NULL, NULL, true, true},
    {"eval/*", "Held-out: ", NULL, NULL, false, true},
    {"rewards/chosen", "Reward of the chosen", NULL, NULL, false, true},
    {"rewards/rejected", "Reward of the rejected", NULL, NULL, false, true},
    {"rewards/accuracies", "Chosen above rejected", NULL, NULL, true, true},
    {"rewards/margins", "Margin of the chosen", NULL, NULL, false, true},
    {"kl", "KL to the reference", NULL, NULL, false, true},
    {"entropy", "Entropy", NULL, NULL, false, true},
    {"completions/mean_length", "Length of completions", "completions/min_length",
     "completions/max_length", false, true},
    {"completions/clipped_ratio", "Completions cut off", NULL, NULL, true, true},
    {"frac_reward_zero_std", "Groups without a signal", NULL, NULL, true, true},
    {"clip_ratio/region_mean", "Clipped ratios", NULL, NULL, true, true},
    {"aux_loss", "Balance loss", NULL, NULL, false, true},
    {"mtp_loss", "Prediction layer's loss", NULL, NULL, false, true},
    {"learning_rate", "Learning rate", NULL, NULL, false, true, true},
    {"grad_norm", "Gradient norm", NULL, NULL, false, true},
    {"reward_std", "Reward within groups, std", NULL, NULL, false, false},
    {"rewards/*/std", "Reward, std: ", NULL, NULL, false, false},
    {"num_tokens", "Tokens", NULL, NULL, false, false, true},
    {"epoch", "Epochs", NULL, NULL, false, false, true},
    {"step_time", "Seconds a step", NULL, NULL, false, false},
    {"tokens_per_second", "Tokens a second", NULL, NULL, false, false},
};

static void make_panel(struct plot_panel *out, const char *metric)
{
    *out = (struct plot_panel){0};
    snprintf(out->metric, sizeof out->metric, "%s", metric);
    snprintf(out->title, sizeof out->title, "%s", metric);
    for (size_t i = 0; i < NUM_COUNT(known); i++) {
        const char *star = strchr(known[i].pattern, '*');
        if (fnmatch(known[i].pattern, metric, star ? FNM_PATHNAME : 0) != 0)
            continue;
        out->low = known[i].low;
        out->high = known[i].high;
        out->unit = known[i].unit;
        out->exact = known[i].exact;
        int from = star ? (int)(star - known[i].pattern) : 0;
        int n = star ? (int)(strlen(metric) - (size_t)from - strlen(star + 1)) : 0;
        snprintf(out->title, sizeof out->title, "%s%.*s", known[i].title, n, metric + from);
        return;
    }
}

/* Adds the metrics of all runs that a pattern has, in the order of the logs. */
static size_t add_matching(const struct plot *p, const char *pattern, bool whole_name,
                           struct plot_panel *out, size_t n)
{
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = 0; k < p->runs[i].n && n < PLOT_PANELS_MAX; k++) {
            const char *name = p->runs[i].v[k].name;
            bool have = fnmatch(pattern, name, whole_name ? FNM_PATHNAME : 0) != 0;
            for (size_t j = 0; j < n && !have; j++)
                have = !strcmp(out[j].metric, name);
            if (!have)
                make_panel(&out[n++], name);
        }
    return n;
}

static int no_metric(const struct plot *p, const char *pattern, struct err *e)
{
    struct buf all;
    buf_init(&all, 1 << 16);
    int rc = 0;
    for (size_t k = 0; p->n && k < p->runs[0].n && all.len < 300 && !rc; k++)
        rc = buf_printf(&all, e, "%s%s", k ? ", " : "", p->runs[0].v[k].name);
    if (!rc)
        rc = err_set(e, ERR_USAGE, "\"%.60s\": no run has such a metric; there are %s", pattern,
                     all.len ? all.data : "none yet");
    buf_release(&all);
    return rc;
}

int plot_panels(const struct plot *p, const struct plot_options *o,
                struct plot_panel out[PLOT_PANELS_MAX], size_t *n, struct err *e)
{
    int rc = 0;
    *n = 0;
    if (!o->metrics) {
        for (size_t i = 0; i < NUM_COUNT(known); i++)
            if (known[i].usual)
                *n = add_matching(p, known[i].pattern, true, out, *n);
        if (!*n) /* none of the usual ones: whatever there is */
            *n = add_matching(p, "*", false, out, 0);
        return 0;
    }
    char *list = strdup(o->metrics), *save;
    if (!list)
        return err_nomem(e, strlen(o->metrics) + 1, "names of metrics");
    for (char *s = strtok_r(list, ", ", &save); s && !rc; s = strtok_r(NULL, ", ", &save)) {
        size_t before = *n;
        *n = add_matching(p, s, false, out, *n);
        bool twice = false;
        for (size_t j = 0; j < before; j++)
            twice |= !fnmatch(s, out[j].metric, 0);
        if (*n == before && !twice && before < PLOT_PANELS_MAX)
            rc = no_metric(p, s, e);
    }
    free(list);
    return rc;
}

/* ---- lines ----------------------------------------------------------------------------------- */

/*
 * The value at i of the line that fits best around it (Cleveland's LOWESS, 1979, with Gaussian
 * weights). Near the ends, where there are neighbours on one side only, it looks twice as far.
 */
static double local_fit(const struct plot_curve *c, size_t i, double width, const double *trust)
{
    double s0 = 0, s1 = 0, s2 = 0, t0 = 0, t1 = 0;
    double edge = (double)num_min(i, c->n - 1 - i) / (2 * width);
    width *= edge < 1 ? 2 - edge : 1;
    size_t reach = (size_t)ceil(3 * width);
    size_t from = i > reach ? i - reach : 0, to = num_min(i + reach, c->n - 1);
    for (size_t k = from; k <= to; k++) {
        double d = (double)k - (double)i, w = exp(-0.5 * d * d / (width * width)) * trust[k];
        s0 += w;
        s1 += w * d;
        s2 += w * d * d;
        t0 += w * c->y[k];
        t1 += w * d * c->y[k];
    }
    double det = s0 * s2 - s1 * s1;
    return det > 1e-9 * s0 * s2 ? (s2 * t0 - s1 * t1) / det : s0 > 0 ? t0 / s0 : NAN;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v, size_t n)
{
    qsort(v, n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* How far values are from a line, as a standard deviation that single outliers do not move. */
static double spread_of(const struct plot_curve *c, const double *line)
{
    double away[PLOT_BINS];
    for (size_t i = 0; i < c->n; i++)
        away[i] = fabs(c->y[i] - line[i]);
    return 1.4826 * median(away, c->n);
}

/*
 * What lies far off the running median counts less, or not (Tukey's biweight), so that one spike
 * makes no hill. `range` is that of all values: without any noise there is nothing to go by.
 */
static void fit(struct plot_curve *c, double width, double range)
{
    double trust[PLOT_BINS], middle[PLOT_BINS], near[PLOT_BINS];
    size_t reach = num_min((size_t)ceil(width), c->n / 2);
    for (size_t i = 0; i < c->n; i++) {
        size_t r = num_max(num_min(reach, num_min(i, c->n - 1 - i)), 3);
        size_t from = i > r ? i - r : 0, to = num_min(i + r, c->n - 1);
        memcpy(near, c->y + from, (to - from + 1) * sizeof *near);
        middle[i] = median(near, to - from + 1);
    }
    double spread = spread_of(c, middle);
    for (size_t i = 0; i < c->n; i++) {
        double u = spread > 1e-9 * range ? (c->y[i] - middle[i]) / (6 * spread) : 0;
        trust[i] = fabs(u) < 1 ? (1 - u * u) * (1 - u * u) : 0;
    }
    for (size_t i = 0; i < c->n; i++) {
        double v = local_fit(c, i, width, trust);
        c->smooth[i] = isfinite(v) ? v : middle[i];
    }
    c->spread = spread_of(c, c->smooth);
}

void plot_curve_init(struct plot_curve *c, const struct plot_series *s, size_t bins, double smooth)
{
    size_t per = (s->n + bins - 1) / bins;
    double lo = INFINITY, hi = -INFINITY;
    c->n = 0;
    c->spread = 0;
    for (size_t i = 0; i < s->n; i += per) {
        size_t end = num_min(i + per, s->n), k = c->n++;
        c->x[k] = c->y[k] = 0;
        c->least[k] = c->greatest[k] = s->y[i];
        for (size_t j = i; j < end; j++) {
            c->x[k] += s->x[j] / (double)(end - i);
            c->y[k] += s->y[j] / (double)(end - i);
            c->least[k] = fmin(c->least[k], s->y[j]);
            c->greatest[k] = fmax(c->greatest[k], s->y[j]);
        }
        lo = fmin(lo, c->least[k]);
        hi = fmax(hi, c->greatest[k]);
    }
    double over =
        smooth < 0 ? (c->n < 24 ? 0 : (double)c->n / 7) : smooth / (double)(per ? per : 1);
    c->smoothed = over > 1;
    memcpy(c->smooth, c->y, c->n * sizeof *c->y);
    if (c->smoothed)
        fit(c, over / 4, hi - lo);
    for (size_t i = 0; i < c->n; i++)
        c->smooth[i] = fmin(hi, fmax(lo, c->smooth[i]));
}

/* Widens [*lo, *hi] to what of a curve has to be seen: its line, and what lies around it as most of
   the values do. */
static void cover(const struct plot_curve *c, double *lo, double *hi)
{
    double least = INFINITY, greatest = -INFINITY, a = INFINITY, b = -INFINITY;
    for (size_t i = 0; i < c->n; i++) {
        least = fmin(least, c->least[i]);
        greatest = fmax(greatest, c->greatest[i]);
        a = fmin(a, c->smooth[i] - 2.5 * c->spread);
        b = fmax(b, c->smooth[i] + 2.5 * c->spread);
    }
    *lo = fmin(*lo, fmax(a, least));
    *hi = fmax(*hi, fmin(b, greatest));
}

double plot_panel_smooth(const struct plot_options *o, const struct plot_panel *panel)
{
    return panel->exact ? 0 : o->smooth;
}

bool plot_panel_axes(const struct plot *p, const struct plot_options *o,
                     const struct plot_panel *panel, struct plot_curve *curve, size_t bins,
                     struct plot_axis *x, struct plot_axis *y, int ticks)
{
    double smooth = plot_panel_smooth(o, panel);
    double lo = INFINITY, hi = -INFINITY, first = INFINITY, last = -INFINITY;
    for (size_t i = 0; i < p->n; i++) {
        const struct plot_series *s = plot_series_of(&p->runs[i], panel->metric);
        if (!s || !s->n)
            continue;
        plot_curve_init(curve, s, bins, smooth);
        cover(curve, &lo, &hi);
        for (size_t k = 0; k < p->runs[i].n; k++) { /* all panels have the same steps */
            const struct plot_series *any = &p->runs[i].v[k];
            first = fmin(first, any->x[0]);
            last = fmax(last, any->x[any->n - 1]);
        }
    }
    if (!(hi >= lo))
        return false;
    if (panel->low && p->n == 1) {
        const struct plot_series *a = plot_series_of(&p->runs[0], panel->low);
        const struct plot_series *b = plot_series_of(&p->runs[0], panel->high);
        for (size_t k = 0; a && b && k < 2; k++) {
            plot_curve_init(curve, k ? b : a, bins, smooth);
            cover(curve, &lo, &hi);
        }
    }
    if (lo > 0 && lo < 0.4 * hi) /* what begins near nothing shows it */
        lo = 0;
    if (panel->unit && lo >= 0 && hi <= 1) {
        lo = lo < 0.4 ? 0 : lo;
        hi = hi > 0.6 ? 1 : hi;
    }
    if (first < 0.1 * last)
        first = 0;
    plot_axis_init(y, lo, hi, ticks, true);
    plot_axis_init(x, first, last, ticks + 1, false);
    return true;
}
