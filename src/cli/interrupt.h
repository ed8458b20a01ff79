/*
 * Ctrl-C, and what else the system or the terminal may say. Signals are blocked in every thread and
 * waited for by one of our own, so that they are noticed at any time, also inside a long
 * computation, and no handler touches program state. SIGINT:
 *
 *   - nobody is watching (loading, reading input): the program ends at once with status 130
 *   - somebody is watching: it is kept until interrupt_take; another one a second or more after one
 *     that was not taken ends the program, which does not seem to listen
 *   - somebody is at a prompt, or asks many times a second: it is kept, whatever the time
 *
 * What ends or stops the program (SIGTERM, SIGHUP, SIGQUIT, SIGTSTP) puts the terminal back first.
 * While files are written that an end would leave half-done, SIGTERM and SIGHUP are interrupts too,
 * and end the program when the files are complete or gone.
 * A change of the window's size and the return from a stop are kept for whoever draws on it.
 *
 * Must be started before any other thread is. A signal that was ignored at start (SIGINT in a
 * background job of a script, SIGHUP under nohup) stays ignored.
 */
#ifndef PONDER_CLI_INTERRUPT_H
#define PONDER_CLI_INTERRUPT_H

#include "base/err.h"

#include <stdbool.h>

struct interrupt;

int interrupt_new(struct interrupt **out, struct err *e);
void interrupt_free(struct interrupt *i); /* NULL is fine */

/* From here on somebody asks; the first of nested watches begins with none. */
void interrupt_watch(struct interrupt *i);
void interrupt_unwatch(struct interrupt *i);
void interrupt_prompt(struct interrupt *i, bool on);

/* A watch while files are written. The second may end the program, by what came meanwhile. */
void interrupt_guard(struct interrupt *i);
void interrupt_unguard(struct interrupt *i);

/* From here on the program is a server: SIGINT and SIGTERM are counted and kept, and do not end it;
   who stops it cleanly looks at the count. The fourth one ends it at once all the same. */
void interrupt_serve(struct interrupt *i);
int interrupt_count(const struct interrupt *i);

/* Whether there is an interrupt that was not taken. Any thread. */
bool interrupt_pending(const struct interrupt *i);

enum { INTERRUPT_STOP = 1, INTERRUPT_RESIZED = 2, INTERRUPT_CONTINUED = 4 };

/* Takes what came since the last call: a set of the above. One thread. */
int interrupt_take(struct interrupt *i);

/* A descriptor that is readable while there is something to take (now and then without), for poll.
 */
int interrupt_fd(const struct interrupt *i);

/* Does to this process what `sig` does to one that takes no care of it; returns after a stop. */
void interrupt_default(int sig);

#endif
