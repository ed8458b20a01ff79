/* train: what stages there are, and watching runs. Each stage is a command of two words
 * (cmd_train.c).
 */
#include "base/num.h"
#include "cli/command.h"
#include "cli/watch.h"

#include <stddef.h>

struct train_command {
    struct opt_list watch;
    const char *metrics;
};

#define AT(field) offsetof(struct train_command, field)
// clang-format off
static const struct opt train_rows[] = {
    {.name = "watch", .brief = 'w', .kind = OPT_LIST, .arg = "RUN", .offset = AT(watch),
     .help = "draw the curves of a run as they grow; may be repeated. ponder plot has more"},
    {.name = "metrics", .kind = OPT_STRING, .arg = "NAMES", .shown = "as ponder plot", .offset = AT(metrics),
     .help = "what to draw: names from log.jsonl, separated by commas"},
};
// clang-format on
#undef AT

static const struct opt_group train_groups[] = {{"Options", train_rows, NUM_COUNT(train_rows), 0}};

static int train_watch(struct cli *c, const void *opts, struct err *e)
{
    const struct train_command *a = opts;
    struct plot_options o;
    if (!a->watch.n || c->n_args)
        return command_list(c, e);
    plot_options_init(&o);
    o.metrics = a->metrics;
    return watch_run(c, a->watch.v, a->watch.n, &o, e);
}

const struct command cmd_train = {
    .name = "train",
    .args = "[--watch RUN]",
    .summary = "the stages of training; watch a run",
    .about = "Lists the stages: each is a command, `ponder train sft`, with options of its own. "
             "--watch draws the curves of runs on the terminal as long as they go on; Ctrl-C ends "
             "the watching, not the run.",
    .examples = "ponder train\n"
                "ponder train --watch runs/sft\n",
    .spec = {train_groups, NUM_COUNT(train_groups)},
    .opts_size = sizeof(struct train_command),
    .max_args = -1,
    .run = train_watch,
};
