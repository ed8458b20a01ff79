/*
 * Commands: one file and one row in command.def each.
 *
 * A command describes itself (usage, words, examples, tables of options) and has a function that
 * gets the parsed options. Only commands print and only main exits; everything below returns
 * errors.
 */
#ifndef PONDER_CLI_COMMAND_H
#define PONDER_CLI_COMMAND_H

#include "base/log.h"
#include "base/opt.h"
#include "cli/interrupt.h"
#include "cli/term.h"

/* What every command gets. */
struct cli {
    struct term term;
    struct interrupt *interrupt; /* Ctrl-C, see cli/interrupt.h */
    const struct command *command;
    char **args; /* what was no option */
    int n_args;
};

struct command {
    const char *name;
    const char *args;     /* usage: "[MODEL] [PROMPT…]" */
    const char *summary;  /* a few words, for the list of commands */
    const char *about;    /* paragraphs, separated by empty lines */
    const char *examples; /* lines: "# what" and the command below it */
    struct opt_spec spec;
    size_t opts_size; /* of the struct that the rows point into; given to run zeroed and filled */
    int min_args, max_args; /* -1: any number */
    int (*run)(struct cli *c, const void *opts, struct err *e);
};

/* All commands in the order of command.def; *n says how many. */
const struct command *const *command_all(size_t *n);
const struct command *command_find(const char *name);
/* The command whose name of two words ("bench serve") the arguments begin with; *words becomes 2.
   NULL: none. */
const struct command *command_words(int argc, char *const *argv, int *words);

/* For a command that only begins those of two words: prints them. ERR_USAGE: an argument that is no
   second word of one. */
int command_list(const struct cli *c, struct err *e);

/* ERR_USAGE: unknown command "x"; did you mean "y"? */
int command_unknown(const char *name, struct err *e);

/* Exit status of an error code: 0 ok, 1 the work failed, 2 wrong use, 130 interrupted. */
int command_status(int code);

/* Texts made from the tables (opt_help.c). `width` is where lines are wrapped. */
int help_overview(struct buf *out, struct err *e);
int help_command(const struct command *c, int width, struct buf *out, struct err *e);
int help_man(const struct command *c, struct buf *out, struct err *e); /* NULL: ponder(1) */
int help_completion(struct buf *out, struct err *e);                   /* bash */

#endif
