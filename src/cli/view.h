/*
 * Showing an answer as it is written: thoughts dimmed and indented between two lines of their own,
 * lines broken between words at the width of the terminal, nothing that could drive the terminal.
 * When stdout is no terminal the text goes out as it is.
 */
#ifndef PONDER_CLI_VIEW_H
#define PONDER_CLI_VIEW_H

#include "cli/term.h"
#include "text/parse.h"

#include <stdio.h>

struct view {
    const struct term *term;
    bool wrap, hide_thinking;
    bool thinking; /* between the two lines */
    bool begun;    /* something of the current block was shown */
    int limit;     /* columns of a line; 0 = no wrapping */
    int indent, column;
    char word[256]; /* bytes since the last place where a line may break */
    size_t word_len;
    int word_width;
};

void view_init(struct view *v, const struct term *t, bool wrap, bool hide_thinking);

/* Opens and closes the frame around a thought. */
void view_think_begin(struct view *v);
void view_think_end(struct view *v, double seconds, size_t tokens, bool cut_off);

/* A piece of whole characters. An error is one of writing. */
int view_text(struct view *v, const char *s, size_t n, struct err *e);

/* Ends the last line. */
int view_finish(struct view *v, struct err *e);

#endif
