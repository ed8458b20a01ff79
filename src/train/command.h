/*
 * A reward by somebody else's program: `--reward-command CMD`, only together with --allow-commands.
 *
 * For each prompt's completions the program is started anew. It reads a line of JSON for each on
 * its standard input (the record with "completion", a text) and writes a line for each: a number,
 * null (no verdict), or an object with "reward" and perhaps "why". Then it ends with status 0.
 *
 * CMD is split into words at blanks outside of quotes; no shell sees it. The program runs
 *   - without network where the system lets a process give it up (a network namespace of its own),
 *   - without further privileges (PR_SET_NO_NEW_PRIVS), descriptors, or environment but a plain
 * PATH and LANG,
 *   - with limits: CPU and wall time, 2 GiB of memory, 64 MiB of a file, 64 descriptors, no cores,
 *   - and dies with ponder.
 * It may still read, and write, the files that ponder's user may: a program that is not to be
 * trusted belongs into a container.
 *
 * Threads: one caller.
 */
#ifndef PONDER_TRAIN_COMMAND_H
#define PONDER_TRAIN_COMMAND_H

#include "base/err.h"
#include "base/log.h"
#include "grade/answer.h"
#include "grade/reward.h"

#include <jansson.h>

struct command_reward;

/* `log` (may be NULL) hears when the system does not let a program be cut off from the network. */
int command_reward_open(struct command_reward **out, const char *cmd, double seconds,
                        const struct log *log, struct err *e);
void command_reward_free(struct command_reward *c); /* NULL is fine */

/* Rewards of n completions of a record; NaN: no verdict. why (n) or NULL. */
int command_reward_group(struct command_reward *c, const json_t *record, const struct span *text,
                         size_t n, float *out, struct reward_why *why, struct err *e);
#endif
