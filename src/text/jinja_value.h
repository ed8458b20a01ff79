/*
 * Values of the template language: Python's None, bool, int, float, str, list, tuple, dict and the
 * few helper objects that templates see.
 *
 * Everything lives in the arena of one rendering and is never freed before its end. A value is 16
 * bytes; containers are behind pointers and immutable once a template can see them (namespace
 * attributes are the exception). Integers are 64 bits wide; results beyond are an error.
 *
 * Strings are valid UTF-8 with a provenance: `trusted` for the whole text, or a byte per byte in
 * `mask` when it is mixed. Pieces share the bytes (and the mask) of what they were cut from.
 */
#ifndef PONDER_TEXT_JINJA_VALUE_H
#define PONDER_TEXT_JINJA_VALUE_H

#include "base/arena.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vm;
struct value;

/* Passes the code of a failed call on; everything here lives in arenas, so nothing is to be undone.
 */
#define TRY(x)           \
    do {                 \
        int try_ = (x);  \
        if (try_)        \
            return try_; \
    } while (0)

enum value_type {
    V_MISSING, /* an argument that was not given; templates never see it */
    V_UNDEF,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STR,
    V_LIST,
    V_TUPLE,
    V_DICT,
    V_VIEW, /* dict.keys(), values(), items() */
    V_RANGE,
    V_ITER, /* a generator: runs once */
    V_NS,   /* namespace() */
    V_LOOP, /* the loop variable */
    V_MACRO,
    V_METHOD, /* a method bound to its value */
    V_FUNC,   /* a global function or class */
    V_JOINER,
    V_CYCLER,
    V_TYPES,
};

struct str {
    const char *p;
    size_t n;            /* bytes */
    size_t chars;        /* code points; SIZE_MAX = not counted yet */
    const uint8_t *mask; /* n provenance bytes when mixed, else NULL */
    bool trusted;        /* without a mask: all of it */
    bool markup;         /* went through |safe or |escape */
};

struct undef {
    const struct str *name; /* may be NULL */
    const char *owner;      /* type that lacks the attribute; NULL: a plain variable */
    bool is_unsafe;         /* refused by the sandbox */
};

struct value {
    uint8_t type;
    bool trusted; /* of scalars: not from the context */
    union {
        bool b;
        int64_t i;
        double f;
        struct str *s;
        struct list *l; /* LIST, TUPLE */
        struct dict *d; /* DICT, NS */
        struct view *view;
        struct range *range;
        struct iter *iter;
        struct loop *loop;
        struct macro *macro;
        struct method *method;
        const struct func *func;
        struct joiner *joiner;
        struct cycler *cycler;
        const struct undef *u; /* may be NULL */
        void *p;
    };
};

struct list {
    struct value *v;
    size_t n, cap;
    bool group; /* an item of |groupby: attributes grouper and list */
};

struct pair {
    struct value key, val;
    uint64_t hash;
};

/* In order of insertion, like Python's; `slots` is an open-addressing index once n > 8. */
struct dict {
    struct pair *v;
    uint32_t *slots; /* 0 = free, else position + 1 */
    size_t n, cap, nslots;
};

enum view_kind { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS };

struct view {
    struct dict *d;
    enum view_kind kind;
};

struct range {
    int64_t start, stop, step;
    int64_t n;
};

/* Produces values one by one. `next` sets *done at the end, and keeps doing so. */
struct iter {
    int (*next)(struct vm *vm, struct iter *it, struct value *out, bool *done);
    struct value src;   /* what is walked */
    struct iter *inner; /* for filters on top of another iterator */
    void *arg;          /* of `next` */
    size_t pos;         /* index, or byte position in a string */
    bool done;
};

struct joiner {
    struct value sep;
    bool used;
};

struct cycler {
    struct list items;
    size_t pos;
};

/* ---- making values ------------------------------------------------------------------------- */

extern const struct value value_none, value_missing, value_undef;

struct value value_bool(bool b);
struct value value_int(int64_t i);
struct value value_float(double f);
struct value value_str(struct str *s);

/* Memory of the rendering; ERR_LIMIT when its bound is reached. */
int vm_alloc(struct vm *vm, void *out, size_t n);
int vm_array(struct vm *vm, void *out, size_t count, size_t size);

/* A string over bytes that live long enough; `trusted` for all of them. */
int str_wrap(struct vm *vm, const char *p, size_t n, bool trusted, struct value *out);
int str_lit(struct vm *vm, const char *s, struct value *out); /* trusted, static */
int str_copy(struct vm *vm, const char *p, size_t n, bool trusted, struct value *out);
/* Bytes [at, at + n) of s, sharing them. */
int str_cut(struct vm *vm, const struct str *s, size_t at, size_t n, struct value *out);
size_t str_chars(struct str *s);              /* code points, counted once */
size_t str_byte_of(struct str *s, size_t ch); /* byte position of code point ch ≤ chars */
bool str_trusted(const struct str *s);        /* every byte of it */
bool str_eq(const struct str *s, const char *lit);
bool str_same(const struct str *a, const struct str *b);
int str_cmp(const struct str *a, const struct str *b); /* by code points */

int list_new(struct vm *vm, size_t cap, struct list **out);
int list_push(struct vm *vm, struct list *l, struct value v);
struct value value_list(struct list *l);
struct value value_tuple(struct list *l);
int tuple_pair(struct vm *vm, struct value a, struct value b, struct value *out);

int dict_new(struct vm *vm, size_t cap, struct dict **out);
int dict_set(struct vm *vm, struct dict *d, struct value k, struct value v); /* fails: unhashable */
int dict_set_lit(struct vm *vm, struct dict *d, const char *k, struct value v);
/* *out = NULL when absent. */
int dict_find(struct vm *vm, const struct dict *d, struct value k, struct value **out);
struct value *dict_find_str(struct vm *vm, const struct dict *d, const struct str *k,
                            uint64_t hash);
bool value_hashable(struct value v);
int value_hash(struct vm *vm, struct value v, uint64_t *out);
uint64_t str_hash(const struct vm *vm, const struct str *s);

/* ---- asking values ------------------------------------------------------------------------- */

const char *value_type_name(struct value v); /* as Python says: "str", "NoneType" */
bool value_truth(struct value v);
/* int for INT and BOOL. */
bool value_as_int(struct value v, int64_t *out);
bool value_as_float(struct value v, double *out); /* FLOAT, INT, BOOL */
int value_eq(struct vm *vm, struct value a, struct value b, bool *out);
bool value_same(struct value a, struct value b); /* Python's `is` */
enum order_op { ORDER_LT, ORDER_LE, ORDER_GT, ORDER_GE };
int value_order(struct vm *vm, enum order_op op, struct value a, struct value b, bool *out);
int value_contains(struct vm *vm, struct value item, struct value in, bool *out);
/* Stable merge sort by key with Python's "<"; `reverse` keeps equal items in their order too. */
struct keyed {
    struct value key, item;
};
int sort_keyed(struct vm *vm, struct keyed *v, size_t n, bool reverse);
/* len(): false when the type has none. */
bool value_len(struct value v, size_t *out);

/* iter(): fails with "'int' object is not iterable". */
int iter_new(struct vm *vm, struct value v, struct iter **out);
bool value_iterable(struct value v);
int iter_next(struct vm *vm, struct iter *it, struct value *out, bool *done);
int64_t range_at(const struct range *r, int64_t i); /* item i < n */
/* list(v) */
int list_from(struct vm *vm, struct value v, struct list **out);

/* ---- building strings ---------------------------------------------------------------------- */

struct sb {
    struct vm *vm;
    char *p;
    uint8_t *mask; /* NULL while all bytes have the same provenance */
    size_t n, cap;
    size_t limit; /* most bytes; 0 = the memory of the rendering decides */
    bool trusted; /* of the bytes so far */
};

void sb_init(struct sb *b, struct vm *vm);
int sb_room(struct sb *b, size_t more);
int sb_put(struct sb *b, const char *p, size_t n, bool trusted);
int sb_puts(struct sb *b, const char *s); /* trusted */
int sb_char(struct sb *b, uint32_t cp, bool trusted);
int sb_fill(struct sb *b, const struct str *pad, size_t times);
int sb_str(struct sb *b, const struct str *s);
int sb_cut(struct sb *b, const struct str *s, size_t at, size_t n);
int sb_done(struct sb *b, struct value *out); /* the string; b may not be used after */

/* ---- text of values ------------------------------------------------------------------------ */

int value_str_of(struct vm *vm, struct value v, struct str **out); /* str(v) */
int value_repr(struct vm *vm, struct value v, struct sb *b, unsigned depth);
int value_put(struct sb *b, struct value v); /* appends str(v) */
struct json_style {
    const struct str *indent; /* one level, or NULL for one line */
    const struct str *item_sep, *key_sep;
    bool ascii, sort_keys;
};
int value_json(struct vm *vm, struct value v, const struct json_style *style, struct value *out);
enum { FLOAT_TEXT_MAX = 40 };
/* Python's repr of a float, the shortest text that reads back equal. */
size_t float_text(double f, char out[FLOAT_TEXT_MAX]);
int escape_html(struct vm *vm, struct value v, struct value *out); /* markupsafe's escape */

enum { VALUE_DEPTH_MAX = 400 }; /* nesting that printing, comparing and converting follow */

#endif
