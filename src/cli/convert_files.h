/* What convert and quantize share: their options, and from options to files. */
#ifndef PONDER_CLI_CONVERT_FILES_H
#define PONDER_CLI_CONVERT_FILES_H

#include "cli/command.h"
#include "convert/convert.h"

struct convert_files_options {
    const char *type, *imatrix, *lora, *name, *split, *format;
    struct opt_list rules;
    int pure, packed, dry_run, json, force;
    int64_t threads;
};

enum { CONVERT_FILES_N = 13 };
extern const struct opt convert_files_rows[CONVERT_FILES_N];

/*
 * Writes a plan with a bar that says `verb`, until interrupt_pending; the caller watches or guards
 * interrupts. `threads` may be OPT_UNSET. With `noted`, the plan's notes from that one on are
 * printed once the output is known to be possible; it becomes the number of those that were.
 */
int convert_files_write(struct cli *c, struct convert_plan *p, const char *path, int64_t threads,
                        const char *verb, size_t *noted, struct err *e);

/* Converts c->args[0] to c->args[1]. `verb` is what the bar says. */
int convert_files(struct cli *c, const struct convert_files_options *o, const char *verb,
                  struct err *e);

#endif
