/*
 * Reading a line from a person: with editing and a history where libedit is built in, else plainly.
 * At the prompt Ctrl-C clears the line and Ctrl-D on an empty line leaves.
 */
#ifndef PONDER_CLI_EDIT_H
#define PONDER_CLI_EDIT_H

#include "base/buf.h"
#include "cli/interrupt.h"

#include <stdbool.h>

struct edit;

enum edit_result { EDIT_LINE, EDIT_END, EDIT_INTERRUPT, EDIT_ERROR };

/* `file` is where the history is kept, or NULL for nowhere. `i` is being watched (interrupt_watch)
   whenever a line is read. */
int edit_new(struct edit **out, struct interrupt *i, const char *file, struct err *e);
void edit_free(struct edit *d); /* saves the history; NULL is fine */

/* One line without its newline into `line`. */
enum edit_result edit_line(struct edit *d, const char *prompt, struct buf *line, struct err *e);

/* Remembers an entry; edit_history switches that on and off. */
void edit_remember(struct edit *d, const char *text);
void edit_history(struct edit *d, bool on);

#endif
