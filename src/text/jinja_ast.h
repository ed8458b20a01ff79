/*
 * The syntax tree of a template. Nodes live in the arena of the template and are not changed by
 * rendering, so a template may be rendered by several threads at once.
 *
 * `depth` is the height of a node's tree; the parser bounds it, so that walking it by recursion is
 * safe.
 */
#ifndef PONDER_TEXT_JINJA_AST_H
#define PONDER_TEXT_JINJA_AST_H

#include "text/jinja_value.h"

enum node_kind {
    /* expressions */
    N_CONST,
    N_NAME,
    N_LIST,
    N_TUPLE,
    N_DICT,
    N_BINARY,
    N_NEG,
    N_POS,
    N_NOT,
    N_AND,
    N_OR,
    N_COMPARE,
    N_CONCAT,
    N_COND,
    N_ATTR,
    N_ITEM,
    N_SLICE,
    N_CALL,
    N_FILTER,
    N_TEST,
    N_NSREF, /* ns.attr as the target of an assignment */
    /* statements */
    S_DATA,
    S_OUTPUT,
    S_SET,
    S_SETBLOCK,
    S_FOR,
    S_IF,
    S_MACRO,
    S_CALL,
    S_FILTER,
    S_WITH,
    S_BREAK,
    S_CONTINUE,
    S_SCOPE,  /* generation, block, autoescape: a body in a scope of its own */
    S_REFUSE, /* understood, but an error when it is reached */
    N_KINDS,
};

enum binary_op { OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD, OP_POW };

enum compare_op { CMP_EQ, CMP_NE, CMP_LT, CMP_LE, CMP_GT, CMP_GE, CMP_IN, CMP_NOTIN };

/* Names are interned: equal names have the same pointer. */
struct name {
    struct str s;
    uint64_t hash; /* hash_bytes with the template's seed */
    const struct func *global;
    struct name *next;
};

struct nodes {
    struct node **v;
    size_t n, cap;
};

struct kwarg {
    const struct name *name;
    struct node *value;
};

struct args {
    struct nodes pos;
    struct kwarg *kw;
    size_t nkw;
    struct node *star, *starstar; /* *args, **kwargs */
};

struct operand {
    enum compare_op op;
    struct node *value;
};

struct branch {
    struct node *test; /* NULL: else */
    struct nodes body;
};

/* A macro or the body of {% call %}. */
struct signature {
    const struct name *name; /* NULL for a caller */
    const struct name **params;
    struct node **defaults; /* NULL: none */
    size_t nparams;
    struct nodes body;
    bool uses_caller, uses_varargs, uses_kwargs, explicit_caller;
};

struct node {
    uint8_t kind;
    uint8_t op;     /* binary_op; N_TEST: negated does not exist (N_NOT is used) */
    uint16_t depth; /* height of the tree below, 1 = leaf */
    uint32_t line;
    union {
        struct value value;      /* CONST; S_DATA: a string */
        const struct name *name; /* NAME */
        struct nodes
            items; /* LIST, TUPLE, CONCAT, AND/OR/BINARY/…: the operands; DICT: key, value, … */
        struct {
            struct node *first;
            struct operand *ops;
            size_t n;
        } cmp;
        struct {
            struct node *test, *yes, *no; /* no may be NULL */
        } cond;
        struct {
            struct node *of;
            const struct name *name;
        } attr;
        struct {
            struct node *of, *lo, *hi, *step; /* ITEM: lo; SLICE: any may be NULL */
        } item;
        struct {
            struct node *of; /* NULL in the head of a filter chain over a block */
            const struct func *func;
            const struct name *name;
            struct args *args;
        } call; /* CALL, FILTER, TEST */
        struct {
            const struct name *name, *attr;
        } nsref;
        struct {
            struct node *target, *value; /* SETBLOCK: value = filter chain or NULL */
            struct nodes body;
        } set;
        struct {
            struct node *target, *iter, *test;
            struct nodes body, other;
            bool recursive;
        } loop;
        struct {
            struct branch *v;
            size_t n;
        } branches;
        struct signature *macro;
        struct {
            struct signature *caller;
            struct node *call;
        } callblock;
        struct {
            struct node *value;
            struct nodes body;
        } filter;
        struct {
            struct nodes targets, values, body;
        } with;
        struct nodes body;   /* SCOPE */
        const char *refusal; /* REFUSE */
    };
};

struct jinja {
    struct arena arena;
    struct nodes body;
    struct name **names; /* chained hash table */
    size_t nnames, nslots;
    const struct name *loop, *caller, *varargs, *kwargs; /* names that rendering binds */
    uint64_t seed; /* of the hashes of names, and of the dicts of every rendering */
};

enum {
    TEMPLATE_MAX = 2 << 20, /* bytes of a template */
    NODE_DEPTH_MAX = 300,   /* height of an expression or nesting of blocks */
};

#endif
