/*
 * The machine that renders: limits, scopes, output, and the tables of functions.
 *
 * Filters, tests, methods and global functions all are rows of the same kind (struct func), with
 * their parameters as text; func_call binds positional and keyword arguments by it. Adding one is
 * one function and one row.
 */
#ifndef PONDER_TEXT_JINJA_VM_H
#define PONDER_TEXT_JINJA_VM_H

#include "base/buf.h"
#include "text/jinja.h"
#include "text/jinja_ast.h"

struct binding {
    const struct name *name;
    struct value value;
};

/* Variables of a block. Macros keep the scope they were defined in. */
struct scope {
    struct scope *up;
    struct binding *v;
    size_t n, cap;
};

enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };

struct vm {
    const struct jinja *jinja;
    struct err *e;
    struct arena arena;
    uint64_t steps, steps_max;
    unsigned depth, macros, iters; /* nesting of evaluation, macro calls, generators */
    uint32_t line;                 /* of the node evaluated last, for errors */
    struct dict *context;
    struct scope *scope;
    struct sb *sink; /* NULL: out */
    struct jinja_result *out;
    size_t output_max;
    enum flow flow;
    time_t now;
    bool raised;
};

struct kw {
    const struct str *name;
    struct value value;
};

struct call {
    struct value *pos;
    size_t npos;
    struct kw *kw;
    size_t nkw;
};

enum { PARAMS_MAX = 8 };

/*
 * `params` is "a,b?,c?": names of parameters, '?' = optional, a leading '/' = positional only, "*"
 * = the function reads the call itself. `a` holds the bound values (V_MISSING where not given).
 * `self` is the filtered or tested value, or the object of a method.
 */
struct func {
    const char *name, *params;
    int (*fn)(struct vm *vm, struct value self, struct value *a, const struct call *c,
              struct value *out);
    const void *data; /* for functions that serve several rows */
    bool is_class;    /* prints as a class */
};

struct method {
    const struct func *func;
    struct value self;
};

struct macro {
    const struct signature *sig;
    struct scope *scope;
};

struct loop {
    struct iter *it;
    const struct node *node; /* for recursive loops, else NULL */
    struct scope *scope;     /* around the loop */
    struct value src;        /* for the length */
    struct value before, current, after, changed;
    int64_t index0;
    size_t length;
    unsigned depth0;
    bool has_after, has_length, has_changed;
};

/* ---- errors and limits --------------------------------------------------------------------- */

int vm_fail(struct vm *vm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int vm_limit(struct vm *vm, const char *what);
int vm_undefined(struct vm *vm, struct value v); /* the error of using an undefined value */
int vm_unsupported(struct vm *vm, const char *op, struct value a, struct value b);
#ifdef __clang_analyzer__ /* see base/err.h */
#define vm_fail(...) ERR_SURE(vm_fail(__VA_ARGS__))
#define vm_limit(...) ERR_SURE(vm_limit(__VA_ARGS__))
#define vm_undefined(...) ERR_SURE(vm_undefined(__VA_ARGS__))
#define vm_unsupported(...) ERR_SURE(vm_unsupported(__VA_ARGS__))
#endif

/* Counts work; ERR_LIMIT when there was too much. */
static inline int vm_charge(struct vm *vm, size_t work)
{
    vm->steps += work;
    return vm->steps > vm->steps_max ? vm_limit(vm, "steps") : 0;
}

/* Work on n bytes of text. */
static inline int vm_charge_bytes(struct vm *vm, size_t n)
{
    return vm_charge(vm, n / 64);
}

/* ---- evaluation ------------------------------------------------------------------------------ */

int eval(struct vm *vm, const struct node *n, struct value *out);
int eval_args(struct vm *vm, const struct args *a, struct call *out);
int exec_body(struct vm *vm, const struct nodes *body);
int vm_call(struct vm *vm, struct value f, const struct call *c, struct value *out);
int macro_call(struct vm *vm, struct macro *m, const struct call *c, struct value *out);
int loop_length(struct vm *vm, struct loop *l); /* into l->length */
int loop_call(struct vm *vm, struct loop *l, struct value v, struct value *out);
int exec_for(struct vm *vm, const struct node *n, struct value src, unsigned depth0);
int exec_assign(struct vm *vm, const struct node *target, struct value v);
int vm_emit(struct vm *vm, const struct str *s);
/* Starts and ends collecting output into a string. */
struct capture {
    struct sb sb, *up;
};
void capture_begin(struct vm *vm, struct capture *c);
int capture_end(struct vm *vm, struct capture *c, int code, struct value *out);

int scope_push(struct vm *vm, struct scope *up);
int scope_set(struct vm *vm, const struct name *n, struct value v);
int scope_get(struct vm *vm, const struct name *n, struct value *out);

int op_binary(struct vm *vm, enum binary_op op, struct value a, struct value b, struct value *out);
int op_negate(struct vm *vm, struct value a, struct value *out);
int value_item(struct vm *vm, struct value of, struct value key, struct value *out); /* of[key] */
int value_attr(struct vm *vm, struct value of, const struct str *name, struct value *out);
int value_slice(struct vm *vm, struct value of, struct value lo, struct value hi, struct value step,
                struct value *out);
int make_undef(struct vm *vm, const struct str *name, const char *owner, struct value *out);

/* ---- tables ---------------------------------------------------------------------------------- */

int func_call(struct vm *vm, const struct func *f, struct value self, const struct call *c,
              struct value *out);
const struct func *func_find(const struct func *table, size_t n, const char *name, size_t len);
const struct func *filter_find(const char *name, size_t n);
const struct func *test_find(const char *name, size_t n);
const struct func *global_find(const char *name, size_t n);
/* Methods of a type; *mutates when the sandbox refuses it. NULL when there is none. */
const struct func *method_find(struct value self, const char *name, size_t n, bool *mutates);

extern const struct func filters_text[], filters_seq[], methods_str[];
extern const size_t filters_text_n, filters_seq_n, methods_str_n;

/* Helpers for arguments: fail with a TypeError's words. */
int arg_int(struct vm *vm, struct value v, int64_t fallback, int64_t *out);
int arg_bool(struct vm *vm, struct value v, bool fallback, bool *out);
int arg_str(struct vm *vm, struct value v, struct str **out); /* must be a string */
static inline bool arg_given(struct value v)
{
    return v.type != V_MISSING;
}

/* ---- shared by filters and methods ---------------------------------------------------------- */

enum strip_side { STRIP_LEFT = 1, STRIP_RIGHT = 2 };
int str_strip(struct vm *vm, struct str *s, const struct str *chars, unsigned sides,
              struct value *out);
int str_replace(struct vm *vm, struct str *s, const struct str *old, const struct str *new,
                int64_t count, struct value *out);
int str_splitlines(struct vm *vm, struct str *s, bool keep, struct list **out);
int str_rsplit(struct vm *vm, struct str *s, const struct str *sep, int64_t max, struct list **out);
int str_join(struct vm *vm, const struct str *sep, const struct list *l, struct value *out);
int str_pad(struct vm *vm, struct str *s, int64_t width, const struct str *fill, int side,
            struct value *out); /* side: -1 text left, 0 centre, 1 text right */
enum str_case { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_CAPITALIZE, CASE_SWAP, CASE_FOLD };
int str_case(struct vm *vm, const struct str *s, enum str_case to, struct value *out);
int str_percent(struct vm *vm, struct str *fmt, struct value arg, struct value *out);
int str_format(struct vm *vm, struct str *fmt, const struct call *c, struct value *out);
/* Rest of int(text) and float(text). False when it is no number. */
bool parse_int(const struct str *s, int base, int64_t *out, bool *overflow);
bool parse_float(const struct str *s, double *out);
bool is_space(uint32_t cp);     /* str.isspace */
bool is_printable(uint32_t cp); /* str.isprintable */
bool is_word(uint32_t cp);      /* \w */
bool is_line_break(uint32_t cp);
enum char_class {
    CLASS_ALPHA,
    CLASS_DECIMAL,
    CLASS_DIGIT,
    CLASS_NUMERIC,
    CLASS_UPPER,
    CLASS_LOWER,
    CLASS_TITLE
};
bool char_is(uint32_t cp, enum char_class c);
int strftime_text(struct vm *vm, const struct str *fmt, struct value *out);

#endif
