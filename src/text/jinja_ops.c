/*
 * Operators: arithmetic, subscripts, slices, attributes.
 *
 * Attributes and items follow the sandbox of the reference: `x.name` looks for a method or field
 * first and for an item second, `x['name']` the other way round, what is not there is undefined,
 * and names that begin with an underscore, or methods that change a list or dict, are refused when
 * used.
 */
#include "text/jinja_vm.h"

#include "base/num.h"
#include "base/utf8.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- errors -------------------------------------------------------------------------------- */

int(vm_fail)(struct vm *vm, const char *fmt, ...)
{
    char text[384];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(vm->e, ERR_FORMAT, "line %u: %s", vm->line, text);
}

int(vm_limit)(struct vm *vm, const char *what)
{
    return err_set(vm->e, ERR_LIMIT, "line %u: the template exceeds the limit of %s", vm->line,
                   what);
}

int(vm_undefined)(struct vm *vm, struct value v)
{
    const struct undef *u = v.u;
    if (!u || !u->name)
        return vm_fail(vm, "the value is undefined");
    int n = (int)num_min(u->name->n, 80);
    if (u->is_unsafe)
        return vm_fail(vm, "access to attribute '%.*s' of '%s' object is unsafe", n, u->name->p,
                       u->owner);
    if (u->owner)
        return vm_fail(vm, "'%s' object has no attribute '%.*s'", u->owner, n, u->name->p);
    return vm_fail(vm, "'%.*s' is undefined", n, u->name->p);
}

int(vm_unsupported)(struct vm *vm, const char *op, struct value a, struct value b)
{
    if (a.type == V_UNDEF || b.type == V_UNDEF)
        return vm_undefined(vm, a.type == V_UNDEF ? a : b);
    return vm_fail(vm, "'%s' not supported between '%s' and '%s'", op, value_type_name(a),
                   value_type_name(b));
}

static int new_undef(struct vm *vm, const struct str *name, const char *owner, bool is_unsafe,
                     struct value *out)
{
    struct undef *u;
    TRY(vm_alloc(vm, &u, sizeof *u));
    *u = (struct undef){name, owner, is_unsafe};
    *out = value_undef;
    out->u = u;
    return 0;
}

int make_undef(struct vm *vm, const struct str *name, const char *owner, struct value *out)
{
    return new_undef(vm, name, owner, false, out);
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

static int overflow(struct vm *vm)
{
    return vm_fail(vm, "the result is an integer of more than 64 bits");
}

static int int_pow(struct vm *vm, int64_t a, int64_t b, int64_t *out)
{
    int64_t r = 1;
    while (b > 0) {
        if ((b & 1) && __builtin_mul_overflow(r, a, &r))
            return overflow(vm);
        b >>= 1;
        if (b && __builtin_mul_overflow(a, a, &a))
            return overflow(vm);
    }
    *out = r;
    return 0;
}

static int ints(struct vm *vm, enum binary_op op, int64_t a, int64_t b, struct value *out)
{
    int64_t r = 0;
    if (!b && (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD))
        return vm_fail(vm, "division by zero");
    switch (op) {
    case OP_ADD:
        if (__builtin_add_overflow(a, b, &r))
            return overflow(vm);
        break;
    case OP_SUB:
        if (__builtin_sub_overflow(a, b, &r))
            return overflow(vm);
        break;
    case OP_MUL:
        if (__builtin_mul_overflow(a, b, &r))
            return overflow(vm);
        break;
    case OP_DIV:
        *out = value_float((double)a / (double)b);
        return 0;
    case OP_FLOORDIV:
        if (b == -1 && a == INT64_MIN)
            return overflow(vm);
        r = a / b - (a % b && (a < 0) != (b < 0));
        break;
    case OP_MOD:
        r = b == -1 ? 0 : a % b;
        if (r && (r < 0) != (b < 0))
            r += b;
        break;
    case OP_POW:
        if (b < 0 && !a)
            return vm_fail(vm, "0.0 cannot be raised to a negative power");
        if (b < 0) {
            *out = value_float(pow((double)a, (double)b));
            return 0;
        }
        TRY(int_pow(vm, a, b, &r));
        break;
    }
    *out = value_int(r);
    return 0;
}

static int floats(struct vm *vm, enum binary_op op, double a, double b, struct value *out)
{
    double r = 0;
    if (b == 0 && (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD))
        return vm_fail(vm, "float division by zero");
    switch (op) {
    case OP_ADD:
        r = a + b;
        break;
    case OP_SUB:
        r = a - b;
        break;
    case OP_MUL:
        r = a * b;
        break;
    case OP_DIV:
        r = a / b;
        break;
    case OP_FLOORDIV:
    case OP_MOD: {
        double m = fmod(a, b);
        if (m != 0 && (m < 0) != (b < 0))
            m += b;
        else if (m == 0)
            m = copysign(0, b);
        r = m;
        if (op == OP_FLOORDIV) {
            r = (a - m) / b;
            r = r - floor(r) > 0.5 ? floor(r) + 1 : floor(r);
        }
        break;
    }
    case OP_POW:
        if (a == 0 && b < 0)
            return vm_fail(vm, "0.0 cannot be raised to a negative power");
        if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b))
            return vm_fail(vm, "complex numbers are not supported");
        r = pow(a, b);
        if (isinf(r) && isfinite(a) && isfinite(b))
            return vm_fail(vm, "Numerical result out of range");
        break;
    }
    *out = value_float(r);
    return 0;
}

static int join_lists(struct vm *vm, const struct list *a, const struct list *b, struct list **out)
{
    TRY(list_new(vm, a->n + b->n, out));
    TRY(vm_charge(vm, (a->n + b->n) / 4));
    if (a->n)
        memcpy((*out)->v, a->v, a->n * sizeof *a->v);
    if (b->n)
        memcpy((*out)->v + a->n, b->v, b->n * sizeof *b->v);
    (*out)->n = a->n + b->n;
    return 0;
}

static int add(struct vm *vm, struct value a, struct value b, struct value *out)
{
    if (a.type == V_STR && b.type == V_STR) {
        struct sb s;
        bool markup = a.s->markup || b.s->markup;
        if (markup) {
            TRY(escape_html(vm, a, &a));
            TRY(escape_html(vm, b, &b));
        }
        sb_init(&s, vm);
        TRY(sb_room(&s, a.s->n + b.s->n));
        TRY(sb_str(&s, a.s));
        TRY(sb_str(&s, b.s));
        TRY(sb_done(&s, out));
        out->s->markup = markup;
        if (a.s->chars != SIZE_MAX && b.s->chars != SIZE_MAX)
            out->s->chars = a.s->chars + b.s->chars;
        return 0;
    }
    if (a.type == b.type && (a.type == V_LIST || a.type == V_TUPLE)) {
        struct list *l;
        TRY(join_lists(vm, a.l, b.l, &l));
        out->type = a.type;
        out->l = l;
        return 0;
    }
    return vm_unsupported(vm, "+", a, b);
}

static int repeat(struct vm *vm, struct value v, int64_t times, struct value *out)
{
    if (times < 0)
        times = 0;
    if (v.type == V_STR) {
        struct sb s;
        sb_init(&s, vm);
        TRY(sb_fill(&s, v.s, (size_t)times));
        TRY(sb_done(&s, out));
        out->s->markup = v.s->markup;
        return 0;
    }
    struct list *l;
    size_t n;
    if (!num_mul(&n, v.l->n, (size_t)times))
        return vm_limit(vm, "memory");
    TRY(list_new(vm, n, &l));
    TRY(vm_charge(vm, n / 4));
    for (size_t i = 0; v.l->n && i < (size_t)times; i++)
        memcpy(l->v + i * v.l->n, v.l->v, v.l->n * sizeof *l->v);
    l->n = n;
    out->type = v.type;
    out->l = l;
    return 0;
}

static bool is_sequence(struct value v)
{
    return v.type == V_STR || v.type == V_LIST || v.type == V_TUPLE;
}

int op_binary(struct vm *vm, enum binary_op op, struct value a, struct value b, struct value *out)
{
    static const char *const names[] = {"+", "-", "*", "/", "//", "%", "**"};
    int64_t i, j;
    double x, y;
    bool ai = value_as_int(a, &i), bi = value_as_int(b, &j);
    if (a.type == V_UNDEF || b.type == V_UNDEF) {
        if (op == OP_MOD && a.type == V_STR)
            return str_percent(vm, a.s, b, out);
        return vm_undefined(vm, a.type == V_UNDEF ? a : b);
    }
    if (ai && bi) {
        TRY(ints(vm, op, i, j, out));
        out->trusted = a.trusted && b.trusted;
        return 0;
    }
    if (value_as_float(a, &x) && value_as_float(b, &y)) {
        TRY(floats(vm, op, x, y, out));
        out->trusted = a.trusted && b.trusted;
        return 0;
    }
    if (op == OP_ADD)
        return add(vm, a, b, out);
    if (op == OP_MUL && is_sequence(a) && bi)
        return repeat(vm, a, j, out);
    if (op == OP_MUL && is_sequence(b) && ai)
        return repeat(vm, b, i, out);
    if (op == OP_MOD && a.type == V_STR)
        return str_percent(vm, a.s, b, out);
    return vm_unsupported(vm, names[op], a, b);
}

int op_negate(struct vm *vm, struct value a, struct value *out)
{
    int64_t i;
    if (a.type == V_FLOAT)
        *out = value_float(-a.f);
    else if (!value_as_int(a, &i))
        return a.type == V_UNDEF
                   ? vm_undefined(vm, a)
                   : vm_fail(vm, "bad operand type for unary -: '%s'", value_type_name(a));
    else if (i == INT64_MIN)
        return overflow(vm);
    else
        *out = value_int(-i);
    out->trusted = a.trusted;
    return 0;
}

/* ---- items --------------------------------------------------------------------------------- */

/* *found = false: there is no such item (IndexError, KeyError, TypeError in the reference). */
static int plain_item(struct vm *vm, struct value of, struct value key, bool *found,
                      struct value *out)
{
    int64_t i, n;
    size_t len;
    struct value *at;
    *found = false;
    if (of.type == V_DICT) {
        if (!value_hashable(key))
            return 0;
        TRY(dict_find(vm, of.d, key, &at));
        if ((*found = at != NULL))
            *out = *at;
        return 0;
    }
    if ((of.type != V_STR && of.type != V_LIST && of.type != V_TUPLE && of.type != V_RANGE) ||
        !value_as_int(key, &i) || !value_len(of, &len))
        return 0;
    n = (int64_t)len;
    i = i < 0 ? i + n : i;
    if (i < 0 || i >= n)
        return 0;
    *found = true;
    if (of.type == V_RANGE) {
        *out = value_int(range_at(of.range, i));
        return 0;
    }
    if (of.type != V_STR) {
        *out = of.l->v[i];
        return 0;
    }
    size_t from = str_byte_of(of.s, (size_t)i);
    uint32_t cp;
    if (of.s->chars != of.s->n)
        TRY(vm_charge_bytes(vm, from * 4));
    return str_cut(vm, of.s, from, utf8_next(of.s->p + from, of.s->n - from, &cp, NULL), out);
}

static int loop_field(struct vm *vm, struct loop *l, const struct str *name, bool *found,
                      struct value *out);

static int macro_field(struct vm *vm, const struct signature *sig, const struct str *name,
                       bool *found, struct value *out)
{
    struct list *l;
    *found = true;
    if (str_eq(name, "name")) {
        *out = value_none;
        return sig->name ? str_wrap(vm, sig->name->s.p, sig->name->s.n, true, out) : 0;
    }
    if (str_eq(name, "arguments")) {
        TRY(list_new(vm, sig->nparams, &l));
        for (size_t i = 0; i < sig->nparams; i++) {
            TRY(str_wrap(vm, sig->params[i]->s.p, sig->params[i]->s.n, true, &l->v[i]));
            l->n = i + 1;
        }
        *out = value_tuple(l);
        return 0;
    }
    if (str_eq(name, "caller"))
        *out = value_bool(sig->uses_caller);
    else if (str_eq(name, "catch_kwargs"))
        *out = value_bool(sig->uses_kwargs);
    else if (str_eq(name, "catch_varargs"))
        *out = value_bool(sig->uses_varargs);
    else
        *found = false;
    return 0;
}

/* Attributes that are not items: fields and methods. */
static int plain_attr(struct vm *vm, struct value of, const struct str *name, bool *found,
                      struct value *out)
{
    bool mutates = false;
    *found = true;
    if (of.type == V_NS) {
        struct value *at = dict_find_str(vm, of.d, name, str_hash(vm, name));
        if ((*found = at != NULL))
            *out = *at;
        return 0;
    }
    if (of.type == V_LOOP) {
        TRY(loop_field(vm, of.loop, name, found, out));
        if (*found)
            return 0;
    }
    if (of.type == V_TUPLE && of.l->group && (str_eq(name, "grouper") || str_eq(name, "list"))) {
        *out = of.l->v[str_eq(name, "list")];
        return 0;
    }
    if (of.type == V_MACRO) {
        TRY(macro_field(vm, of.macro->sig, name, found, out));
        if (*found)
            return 0;
    }
    if (of.type == V_CYCLER && str_eq(name, "current")) {
        *out = of.cycler->items.v[of.cycler->pos];
        return 0;
    }
    const struct func *f = method_find(of, name->p, name->n, &mutates);
    if (mutates ||
        (name->n > 4 && !memcmp(name->p, "__", 2) && !memcmp(name->p + name->n - 2, "__", 2)))
        return new_undef(vm, name, value_type_name(of), true, out);
    *found = f != NULL;
    if (!f)
        return 0;
    struct method *m;
    TRY(vm_alloc(vm, &m, sizeof *m));
    *m = (struct method){f, of};
    *out = (struct value){.type = V_METHOD, .method = m};
    return 0;
}

int value_attr(struct vm *vm, struct value of, const struct str *name, struct value *out)
{
    bool found;
    if (of.type == V_UNDEF)
        return vm_undefined(vm, of);
    TRY(plain_attr(vm, of, name, &found, out));
    if (found)
        return 0;
    if (of.type == V_DICT) {
        struct value *at = dict_find_str(vm, of.d, name, str_hash(vm, name));
        if (at) {
            *out = *at;
            return 0;
        }
    }
    return make_undef(vm, name, value_type_name(of), out);
}

int value_item(struct vm *vm, struct value of, struct value key, struct value *out)
{
    bool found;
    if (of.type == V_UNDEF)
        return vm_undefined(vm, of);
    TRY(plain_item(vm, of, key, &found, out));
    if (!found && key.type == V_STR)
        TRY(plain_attr(vm, of, key.s, &found, out));
    if (found)
        return 0;
    struct str *name = NULL;
    if (key.type == V_STR)
        name = key.s;
    else if (key.type == V_INT)
        TRY(value_str_of(vm, key, &name));
    return make_undef(vm, name, value_type_name(of), out);
}

/* Python's slice.indices for one bound. */
static int slice_bound(struct vm *vm, struct value v, int64_t n, int64_t fallback, bool backwards,
                       int64_t *out)
{
    if (v.type == V_NONE || v.type == V_MISSING) {
        *out = fallback;
        return 0;
    }
    if (!value_as_int(v, out))
        return v.type == V_UNDEF ? vm_undefined(vm, v)
                                 : vm_fail(vm, "slice indices must be integers or None");
    if (*out < 0) {
        *out = *out < -n ? (backwards ? -1 : 0) : *out + n;
        if (*out < 0 && !backwards)
            *out = 0;
    } else if (*out >= n) {
        *out = backwards ? n - 1 : n;
    }
    return 0;
}

static int slice_str(struct vm *vm, struct str *s, int64_t lo, int64_t count, int64_t step,
                     struct value *out)
{
    TRY(vm_charge_bytes(vm, s->n));
    if (count <= 0)
        return str_cut(vm, s, 0, 0, out);
    if (step == 1) {
        size_t from = str_byte_of(s, (size_t)lo);
        struct str tail = {.p = s->p + from, .n = s->n - from};
        tail.chars = s->chars - (size_t)lo;
        return str_cut(vm, s, from, str_byte_of(&tail, (size_t)count), out);
    }
    /* Another step: walk by code points, through a table of where they begin. */
    uint32_t *at;
    struct sb b;
    size_t n = str_chars(s), k = 0;
    if (s->n > UINT32_MAX)
        return vm_limit(vm, "memory");
    TRY(vm_array(vm, &at, n + 1, sizeof *at));
    for (size_t i = 0; i < s->n; i++)
        if (((unsigned char)s->p[i] & 0xc0) != 0x80)
            at[k++] = (uint32_t)i;
    at[n] = (uint32_t)s->n;
    sb_init(&b, vm);
    TRY(vm_charge(vm, (size_t)count / 4));
    for (int64_t c = 0, i = lo; c < count; c++, i += step)
        TRY(sb_cut(&b, s, at[i], at[i + 1] - at[i]));
    return sb_done(&b, out);
}

int value_slice(struct vm *vm, struct value of, struct value lo, struct value hi, struct value step,
                struct value *out)
{
    int64_t a, b, s = 1;
    size_t len;
    if (of.type == V_UNDEF)
        return vm_undefined(vm, of);
    if ((!is_sequence(of) && of.type != V_RANGE) || !value_len(of, &len))
        return vm_fail(vm, "'%s' object cannot be sliced", value_type_name(of));
    if (step.type != V_MISSING && step.type != V_NONE && !value_as_int(step, &s))
        return step.type == V_UNDEF ? vm_undefined(vm, step)
                                    : vm_fail(vm, "slice indices must be integers or None");
    if (!s)
        return vm_fail(vm, "slice step cannot be zero");
    int64_t n = (int64_t)len, count = 0;
    /* beyond the length all steps are alike; keeps the sums below in range */
    s = s > n + 1 ? n + 1 : s < -n - 1 ? -n - 1 : s;
    TRY(slice_bound(vm, lo, n, s < 0 ? n - 1 : 0, s < 0, &a));
    TRY(slice_bound(vm, hi, n, s < 0 ? -1 : n, s < 0, &b));
    if (s > 0 && b > a)
        count = (b - a - 1) / s + 1;
    else if (s < 0 && b < a)
        count = (a - b - 1) / -s + 1;
    if (of.type == V_STR) {
        TRY(slice_str(vm, of.s, a, count, s, out));
        out->s->markup = of.s->markup;
        return 0;
    }
    if (of.type == V_RANGE) {
        struct range *r;
        TRY(vm_alloc(vm, &r, sizeof *r));
        __int128 step0 = of.range->step, from = of.range->start + a * step0,
                 to = of.range->start + b * step0, by = s * step0;
        *r = (struct range){(int64_t)from, (int64_t)to, (int64_t)by, count};
        if (from != r->start || to != r->stop || by != r->step)
            return overflow(vm);
        *out = (struct value){.type = V_RANGE, .range = r};
        return 0;
    }
    struct list *l;
    TRY(list_new(vm, (size_t)count, &l));
    TRY(vm_charge(vm, (size_t)count / 4));
    for (int64_t c = 0; c < count; c++)
        l->v[c] = of.l->v[a + c * s];
    l->n = (size_t)count;
    out->type = of.type;
    out->l = l;
    return 0;
}

/* ---- the loop variable ----------------------------------------------------------------------- */

/* Reads one item ahead, as `loop.last` and `loop.nextitem` need it. */
static int loop_peek(struct vm *vm, struct loop *l, bool *has)
{
    if (!l->has_after) {
        bool done;
        TRY(iter_next(vm, l->it, &l->after, &done));
        l->has_after = !done;
    }
    *has = l->has_after;
    return 0;
}

int loop_length(struct vm *vm, struct loop *l)
{
    if (l->has_length)
        return 0;
    if (!value_len(l->src, &l->length)) {
        /* A generator: what is left is read into a list and walked from there. */
        struct value rest = {.type = V_ITER, .iter = l->it};
        struct list *all;
        TRY(list_from(vm, rest, &all));
        TRY(iter_new(vm, value_list(all), &l->it));
        l->length = all->n + (size_t)l->index0 + 1 + l->has_after;
    }
    l->has_length = true;
    return 0;
}

static int loop_field(struct vm *vm, struct loop *l, const struct str *name, bool *found,
                      struct value *out)
{
    enum field {
        INDEX,
        INDEX0,
        FIRST,
        LAST,
        LENGTH,
        REVINDEX,
        REVINDEX0,
        DEPTH,
        DEPTH0,
        PREV,
        NEXT
    };
    static const char *const fields[] = {"index",  "index0",   "first",     "last",
                                         "length", "revindex", "revindex0", "depth",
                                         "depth0", "previtem", "nextitem"};
    size_t k = 0;
    bool has = false;
    while (k < NUM_COUNT(fields) && !str_eq(name, fields[k]))
        k++;
    *found = k < NUM_COUNT(fields);
    if (!*found)
        return 0;
    if (k == LAST || k == NEXT)
        TRY(loop_peek(vm, l, &has));
    if (k == LENGTH || k == REVINDEX || k == REVINDEX0)
        TRY(loop_length(vm, l));
    switch ((enum field)k) {
    case INDEX:
        *out = value_int(l->index0 + 1);
        break;
    case INDEX0:
        *out = value_int(l->index0);
        break;
    case FIRST:
        *out = value_bool(l->index0 == 0);
        break;
    case LAST:
        *out = value_bool(!has);
        break;
    case LENGTH:
        *out = value_int((int64_t)l->length);
        break;
    case REVINDEX:
        *out = value_int((int64_t)l->length - l->index0);
        break;
    case REVINDEX0:
        *out = value_int((int64_t)l->length - l->index0 - 1);
        break;
    case DEPTH:
        *out = value_int((int64_t)l->depth0 + 1);
        break;
    case DEPTH0:
        *out = value_int((int64_t)l->depth0);
        break;
    case PREV:
        *out = l->index0 == 0 ? value_undef : l->before;
        break;
    case NEXT:
        *out = has ? l->after : value_undef;
        break;
    }
    return 0;
}
