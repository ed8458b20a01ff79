/* plot: curves of training runs, as pictures or on the terminal. */
#include "base/num.h"
#include "cli/command.h"
#include "cli/watch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PLOT_TEXT = 4 << 20 };

struct plot_command {
    const char *metrics, *title;
    double smooth, scale;
    int64_t columns;
    struct opt_list out;
    int term, watch;
};

#define AT(field) offsetof(struct plot_command, field)
// clang-format off
static const struct opt plot_rows[] = {
    {.name = "out", .brief = 'o', .kind = OPT_LIST, .arg = "FILE", .offset = AT(out),
     .help = "write a picture, FILE.svg or FILE.png; may be repeated"},
    {.name = "metrics", .brief = 'm', .kind = OPT_STRING, .arg = "NAMES", .shown = "those that runs of this kind are watched by", .offset = AT(metrics),
     .help = "what to draw, in this order: names from log.jsonl, separated by commas; 'rewards/*' are all that begin so"},
    {.name = "smooth", .kind = OPT_FLOAT, .arg = "N", .min = 0, .max = 1e6, .shown = "a seventh of them", .offset = AT(smooth),
     .help = "smooth over about N points; 0 = draw what was measured, alone"},
    {.name = "term", .kind = OPT_FLAG, .offset = AT(term), .help = "draw on the terminal (what happens without --out)"},
    {.name = "watch", .brief = 'w', .kind = OPT_FLAG, .offset = AT(watch),
     .help = "draw on the terminal and go on as long as the runs do"},
    {.name = "title", .kind = OPT_STRING, .arg = "TEXT", .shown = "the name of the run", .offset = AT(title), .help = "title of the picture"},
    {.name = "columns", .kind = OPT_INT, .arg = "N", .min = 1, .max = 8, .shown = "as suits their number", .offset = AT(columns),
     .help = "panels beside each other in a picture"},
    {.name = "scale", .kind = OPT_FLOAT, .arg = "X", .min = 0.25, .max = 8, .value = "2", .offset = AT(scale), .help = "size of a PNG: X = 2 is for screens of high resolution and for print"},
};
// clang-format on
#undef AT

static const struct opt_group plot_groups[] = {{"Options", plot_rows, NUM_COUNT(plot_rows), 0}};

static int plot_on_terminal(struct cli *c, const struct plot *p, const struct plot_options *o,
                            struct err *e)
{
    struct plot_screen s = {.columns = term_width(&c->term) - 1, .colour = c->term.colour};
    struct buf text;
    buf_init(&text, PLOT_TEXT);
    int rc = plot_text(p, o, &s, &text, e);
    if (!rc) {
        fputs(text.data, stdout);
        rc = term_flush(e);
    }
    buf_release(&text);
    return rc;
}

static int plot_run(struct cli *c, const void *opts, struct err *e)
{
    const struct plot_command *a = opts;
    struct plot_options o;
    struct plot *p = NULL;
    plot_options_init(&o);
    o.metrics = a->metrics;
    o.title = a->title;
    o.scale = a->scale;
    if (!isnan(a->smooth))
        o.smooth = a->smooth;
    if (a->columns != OPT_UNSET)
        o.columns = (int)a->columns;
    if (a->watch && a->out.n)
        return err_set(e, ERR_USAGE, "--watch and --out: give one of them");
    if (a->watch)
        return watch_run(c, (const char *const *)c->args, (size_t)c->n_args, &o, e);
    int rc = plot_new(&p, e);
    for (int i = 0; i < c->n_args && !rc; i++)
        rc = plot_add(p, c->args[i], e);
    if (!rc && (a->term || !a->out.n))
        rc = plot_on_terminal(c, p, &o, e);
    for (size_t i = 0; i < a->out.n && !rc; i++) {
        rc = plot_save(p, &o, a->out.v[i], e);
        if (!rc)
            printf("wrote %s\n", a->out.v[i]);
    }
    plot_free(p);
    return rc;
}

const struct command cmd_plot = {
    .name = "plot",
    .args = "RUN [RUN…]",
    .summary = "draw the curves of training runs",
    .about =
        "RUN is a folder that `ponder train` writes. Each metric has a panel, each run a colour; "
        "several runs are laid over one another. Lines are smoothed, and what was measured stands "
        "faint behind them. The band around the length of completions reaches from the shortest "
        "to the longest.\n\n"
        "--watch follows runs that are going on; Ctrl-C ends the watching, not the run.",
    .examples = "ponder plot runs/r1/stage2\n"
                "ponder plot runs/r1/stage2 --watch\n"
                "ponder plot runs/a runs/b -o compare.svg --metrics 'loss,reward,rewards/*'\n",
    .spec = {plot_groups, NUM_COUNT(plot_groups)},
    .opts_size = sizeof(struct plot_command),
    .min_args = 1,
    .max_args = -1,
    .run = plot_run,
};
