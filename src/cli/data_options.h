/* Options about training data, which all commands that read it have: TRL's names and defaults. */
#ifndef PONDER_CLI_DATA_OPTIONS_H
#define PONDER_CLI_DATA_OPTIONS_H

#include "base/arena.h"
#include "base/opt.h"
#include "train/data.h"

struct data_cli {
    const char *packing, *too_long, *text, *system;
    int64_t max_length;
    double test_size;
    int completion_only, assistant_only;
};

enum { OPTIONS_DATA_N = 8 };
extern const struct opt options_data[OPTIONS_DATA_N];

/* What the options say; sources, model, batch and order stay the caller's. */
void data_cli_apply(const struct data_cli *c, struct data_options *o);

/* FILE or FILE:WEIGHT each; the sources lie in the arena. */
int data_cli_sources(const char *const *args, size_t n, struct arena *a, struct data_options *o,
                     struct err *e);

#endif
