/*
 * Ctrl-C. SIGINT is blocked in every thread and waited for by one of our own, so that it is noticed
 * at any time, also inside a long computation, and no handler touches program state:
 *
 *   - nobody is watching (loading, reading input): the program ends at once with status 130
 *   - somebody is watching: the first one is counted for interrupt_pending to see; a second one
 *     before it was taken ends the program
 *
 * Must be started before any other thread is. When SIGINT was ignored at start (a background job of
 * a script) it stays ignored.
 */
#ifndef PONDER_CLI_INTERRUPT_H
#define PONDER_CLI_INTERRUPT_H

#include "base/err.h"

#include <stdbool.h>

struct interrupt;

int interrupt_new(struct interrupt **out, struct err *e);
void interrupt_free(struct interrupt *i); /* NULL is fine */

/* From here on somebody asks interrupt_pending; counts start at none. */
void interrupt_watch(struct interrupt *i);
void interrupt_unwatch(struct interrupt *i);
bool interrupt_pending(const struct interrupt *i);

/* A descriptor that is readable while an interrupt is pending, for poll. */
int interrupt_fd(const struct interrupt *i);

#endif
