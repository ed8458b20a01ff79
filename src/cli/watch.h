/*
 * Watching training runs: their curves on the terminal, drawn anew in place as they grow. Where
 * stdout is no terminal, a line for each step that was logged. Ends when no process writes the runs
 * any more, or by Ctrl-C, which leaves the last picture and touches no run.
 */
#ifndef PONDER_CLI_WATCH_H
#define PONDER_CLI_WATCH_H

#include "cli/command.h"
#include "train/plot.h"

int watch_run(struct cli *c, const char *const *runs, size_t n, const struct plot_options *o,
              struct err *e);

#endif
