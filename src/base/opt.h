/*
 * Options as tables: a row says everything about an option, and parsing, range checks, environment
 * variables, help texts, the man page and shell completion all come from the rows.
 *
 * A command has a struct of its options and groups of rows that point into it; shared groups (the
 * engine's options, sampling) are tables that several commands place somewhere in their struct.
 * Options and other arguments may be mixed in any order; "--" ends the options; a lone "-" and what
 * looks like a negative number are arguments.
 */
#ifndef PONDER_BASE_OPT_H
#define PONDER_BASE_OPT_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The kind says which C type lies at the row's offset. */
enum opt_kind {
    OPT_FLAG,   /* int: 0, or 1 when given (0 again with --no-NAME) */
    OPT_SWITCH, /* int: -1 when not given, 1 for --NAME, 0 for --no-NAME */
    OPT_INT,    /* int64_t */
    OPT_SIZE,   /* int64_t; takes the endings k and m (1,024 and 1,048,576) */
    OPT_FLOAT,  /* double */
    OPT_STRING, /* const char * */
    OPT_ENUM,   /* const char *: one of `choices` as it stands there */
    OPT_LIST,   /* struct opt_list: may be given several times */
};

enum { OPT_LIST_MAX = 64 };

/* Texts point into argv or to wherever the value came from. */
struct opt_list {
    const char *v[OPT_LIST_MAX];
    size_t n;
};

#define OPT_NO_BOUND 1e9    /* bounds from here on are not worth a word */
#define OPT_UNSET INT64_MIN /* an OPT_INT or OPT_SIZE without a value; OPT_FLOAT has NAN */

struct opt {
    const char *name;    /* without dashes */
    const char *alias;   /* other names, separated by spaces, or NULL: accepted, not shown */
    const char *arg;     /* what help calls the value: "N", "FILE" */
    const char *choices; /* of OPT_ENUM: "f16|f32" */
    const char *value;   /* default, parsed as if it were given; NULL = not set */
    const char *shown;   /* the default in words, for help; NULL = `value` */
    const char *env;     /* variable that is taken when the option is not given, or NULL */
    const char *help;
    double min, max; /* of numbers, both included */
    size_t offset;   /* in the group's struct */
    enum opt_kind kind;
    char brief; /* one letter, or 0 */
};

struct opt_group {
    const char *title; /* NULL: understood, but not shown in help */
    const struct opt *rows;
    size_t n;
    size_t base; /* offset of the group's struct in the command's */
};

struct opt_spec {
    const struct opt_group *groups;
    size_t n;
};

/* Gives every row its default. */
int opt_defaults(const struct opt_spec *s, void *target, struct err *e);

/*
 * Parses argv[0..argc). What is no option is moved to the front of argv, in order; *args is how
 * many those are. *help becomes true at -h or --help, and parsing ends there. Rows that were not
 * given take their variable from the environment. ERR_USAGE names the option and what it may be.
 */
int opt_parse(const struct opt_spec *s, void *target, int argc, char **argv, int *args, bool *help,
              struct err *e);

/* Sets one row by name ('_' is as good as '-'); `value` must outlive the target's use. */
int opt_assign(const struct opt_spec *s, void *target, const char *name, const char *value,
               struct err *e);

/* The row of a name or alias; NULL when there is none. */
const struct opt *opt_find(const struct opt_spec *s, const char *name, size_t n, size_t *base);

/* The value of a row as a user would write it; "" when it has none. */
int opt_show(const struct opt *o, const void *target, size_t base, struct buf *out, struct err *e);

/* The nearest of the names to a misspelt one, or NULL when none is near. */
const char *opt_nearest(const char *word, const char *(*name)(const void *arg, size_t i),
                        const void *arg);

#endif
