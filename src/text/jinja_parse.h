/* Shared by the two halves of the parser: expressions (jinja_parse.c) and statements
   (jinja_stmt.c). */
#ifndef PONDER_TEXT_JINJA_PARSE_H
#define PONDER_TEXT_JINJA_PARSE_H

#include "text/jinja_lex.h"
#include "text/jinja_vm.h"

/* What is known of the macro or call body being parsed. */
struct macro_frame {
    struct macro_frame *up;
    bool caller, varargs, kwargs; /* used in the body */
};

/* An unknown filter or test. The reference finds these when it compiles, except under a
   condition, where they only fail when they are reached. */
struct pending {
    bool any;
    uint32_t line;
    char what[96];
};

struct parser {
    struct jinja *j;
    struct lexer lx;
    struct token cur, ahead;
    bool has_ahead;
    unsigned depth;
    unsigned loops; /* open loops that break and continue can reach */
    unsigned fors;  /* open loops at all */
    struct macro_frame *macro;
    struct pending pending;
    struct nodes blocks; /* names of {% block %}, as NAME nodes */
    struct err *e;
};

enum { PARSE_DEPTH_MAX = 150 };

int parse_step(struct parser *p); /* to the next token */
int parse_look(struct parser *p, struct token *t);
int parse_fail(struct parser *p, uint32_t line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int parse_unexpected(struct parser *p, const char *wanted);
#ifdef __clang_analyzer__ /* see base/err.h */
#define parse_fail(...) ERR_SURE(parse_fail(__VA_ARGS__))
#define parse_unexpected(...) ERR_SURE(parse_unexpected(__VA_ARGS__))
#endif
bool cur_is(const struct parser *p, enum token_kind kind);
bool cur_name(const struct parser *p, const char *name);
int parse_expect(struct parser *p, enum token_kind kind, const char *what);
int parse_expect_name(struct parser *p, const struct name **out);
int parse_skip_name(struct parser *p, const char *name, bool *was);
int parse_enter(struct parser *p); /* counts nesting; pair with p->depth-- */

int node_new(struct parser *p, enum node_kind kind, uint32_t line, struct node **out);
int node_lift(struct parser *p, struct node *n, const struct node *child);
int nodes_push(struct parser *p, struct nodes *l, struct node *n);
int name_intern(struct parser *p, const char *s, size_t n, const struct name **out);

int parse_expression(struct parser *p, bool condexpr, struct node **out);
enum tuple_flags { TUPLE_NO_COND = 1, TUPLE_PARENS = 2, TUPLE_TARGET = 4, TUPLE_NS = 8 };
/* `stop`: a name that ends the tuple, or NULL. */
int parse_tuple(struct parser *p, unsigned flags, const char *stop, struct node **out);
int parse_target(struct parser *p, bool ns, const char *stop, struct node **out);
/* Filters behind `of` (may be NULL: filters of a block). `inline_first`: without the first "|". */
int parse_filters(struct parser *p, struct node *of, bool inline_first, struct node **out);
int parse_template(struct parser *p, struct nodes *out);

#endif
