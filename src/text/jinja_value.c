/*
 * Values: making, comparing, hashing, walking. See jinja_value.h for the layout.
 *
 * Semantics are Python's: True equals 1 and 1.0 (also as a key), dicts keep the order of insertion,
 * an undefined value is falsy, empty to walk and equal to any other undefined value.
 */
#include "text/jinja_vm.h"

#include "base/hash.h"
#include "base/num.h"
#include "base/utf8.h"

#include <math.h>
#include <string.h>

const struct value value_none = {.type = V_NONE, .trusted = true},
                   value_missing = {.type = V_MISSING},
                   value_undef = {.type = V_UNDEF, .trusted = true};

struct value value_bool(bool b)
{
    return (struct value){.type = V_BOOL, .trusted = true, .b = b};
}

struct value value_int(int64_t i)
{
    return (struct value){.type = V_INT, .trusted = true, .i = i};
}

struct value value_float(double f)
{
    return (struct value){.type = V_FLOAT, .trusted = true, .f = f};
}

struct value value_str(struct str *s)
{
    return (struct value){.type = V_STR, .s = s};
}

struct value value_list(struct list *l)
{
    return (struct value){.type = V_LIST, .l = l};
}

struct value value_tuple(struct list *l)
{
    return (struct value){.type = V_TUPLE, .l = l};
}

int vm_alloc(struct vm *vm, void *out, size_t n)
{
    memset(out, 0, sizeof(void *));
    if (n > vm->arena.max || vm->arena.used > vm->arena.max - n - (n < vm->arena.max ? 1 : 0))
        return vm_limit(vm, "memory");
    void *p = arena_alloc(&vm->arena, n, vm->e);
    if (!p)
        return vm->arena.used + n + 64 > vm->arena.max ? vm_limit(vm, "memory") : ERR_NOMEM;
    memcpy(out, &p, sizeof p);
    return vm_charge_bytes(vm, n);
}

int vm_array(struct vm *vm, void *out, size_t count, size_t size)
{
    size_t n;
    memset(out, 0, sizeof(void *));
    if (!num_mul(&n, count, size))
        return vm_limit(vm, "memory");
    return vm_alloc(vm, out, n);
}

/* Room for one more in an array of n of *cap elements; *array is a pointer to them. */
static int vm_room(struct vm *vm, void *array, size_t *cap, size_t n, size_t size)
{
    if (n < *cap)
        return 0;
    size_t more = *cap ? *cap * 2 : 4;
    void *old, *grown;
    memcpy(&old, array, sizeof old);
    TRY(vm_array(vm, &grown, more, size));
    if (n)
        memcpy(grown, old, n * size);
    memcpy(array, &grown, sizeof grown);
    *cap = more;
    return 0;
}

/* ---- strings ------------------------------------------------------------------------------- */

int str_wrap(struct vm *vm, const char *p, size_t n, bool trusted, struct value *out)
{
    struct str *s;
    int code = vm_alloc(vm, &s, sizeof *s);
    if (code)
        return code;
    *s = (struct str){.p = p, .n = n, .chars = SIZE_MAX, .trusted = trusted};
    *out = value_str(s);
    return 0;
}

int str_lit(struct vm *vm, const char *s, struct value *out)
{
    return str_wrap(vm, s, strlen(s), true, out);
}

int str_copy(struct vm *vm, const char *p, size_t n, bool trusted, struct value *out)
{
    char *own;
    int code = vm_alloc(vm, &own, n + 1);
    if (code)
        return code;
    if (n)
        memcpy(own, p, n);
    return str_wrap(vm, own, n, trusted, out);
}

int str_cut(struct vm *vm, const struct str *s, size_t from, size_t n, struct value *out)
{
    int code = str_wrap(vm, s->p + from, n, s->trusted, out);
    if (code)
        return code;
    out->s->mask = s->mask ? s->mask + from : NULL;
    out->s->markup = s->markup;
    if (s->chars == s->n)
        out->s->chars = n;
    return 0;
}

size_t str_chars(struct str *s)
{
    if (s->chars == SIZE_MAX) {
        size_t k = 0;
        for (size_t i = 0; i < s->n; i++)
            k += ((unsigned char)s->p[i] & 0xc0) != 0x80;
        s->chars = k;
    }
    return s->chars;
}

size_t str_byte_of(struct str *s, size_t ch)
{
    if (str_chars(s) == s->n)
        return ch;
    if (ch >= s->chars)
        return s->n;
    size_t i = 0;
    for (size_t k = 0; i < s->n; i++)
        if (((unsigned char)s->p[i] & 0xc0) != 0x80 && k++ == ch)
            break;
    return i;
}

bool str_trusted(const struct str *s)
{
    if (!s->mask)
        return s->trusted || !s->n;
    return !memchr(s->mask, 0, s->n);
}

bool str_eq(const struct str *s, const char *lit)
{
    return s->n == strlen(lit) && !memcmp(s->p, lit, s->n);
}

bool str_same(const struct str *a, const struct str *b)
{
    return a->n == b->n && (a->p == b->p || !memcmp(a->p, b->p, a->n));
}

/* The order of UTF-8 bytes is the order of code points. */
int str_cmp(const struct str *a, const struct str *b)
{
    size_t n = num_min(a->n, b->n);
    int c = n ? memcmp(a->p, b->p, n) : 0;
    return c ? c : (a->n > b->n) - (a->n < b->n);
}

/* ---- lists --------------------------------------------------------------------------------- */

int list_new(struct vm *vm, size_t cap, struct list **out)
{
    struct list *l;
    *out = NULL;
    TRY(vm_alloc(vm, &l, sizeof *l));
    if ((l->cap = cap))
        TRY(vm_array(vm, &l->v, cap, sizeof *l->v));
    *out = l;
    return 0;
}

int list_push(struct vm *vm, struct list *l, struct value v)
{
    TRY(vm_room(vm, &l->v, &l->cap, l->n, sizeof *l->v));
    l->v[l->n++] = v;
    return 0;
}

int tuple_pair(struct vm *vm, struct value a, struct value b, struct value *out)
{
    struct list *l;
    int code = list_new(vm, 2, &l);
    if (code)
        return code;
    l->v[0] = a;
    l->v[1] = b;
    l->n = 2;
    *out = value_tuple(l);
    return 0;
}

int list_from(struct vm *vm, struct value v, struct list **out)
{
    struct iter *it;
    size_t n = 0;
    bool done;
    int code = iter_new(vm, v, &it);
    if (code)
        return code;
    value_len(v, &n);
    if ((code = list_new(vm, v.type == V_STR ? num_min(n, 64) : n, out)))
        return code;
    for (;;) {
        struct value x;
        if ((code = iter_next(vm, it, &x, &done)) || done)
            return code;
        if ((code = list_push(vm, *out, x)) || (code = vm_charge(vm, 1)))
            return code;
    }
}

/* ---- hashing and dicts ----------------------------------------------------------------------- */

uint64_t str_hash(const struct vm *vm, const struct str *s)
{
    return hash_bytes(s->p, s->n, vm->jinja->seed);
}

bool value_hashable(struct value v)
{
    if (v.type == V_LIST || v.type == V_DICT || v.type == V_VIEW)
        return false;
    if (v.type == V_TUPLE)
        for (size_t i = 0; i < v.l->n; i++)
            if (!value_hashable(v.l->v[i]))
                return false;
    return true;
}

static int hash_at(struct vm *vm, struct value v, unsigned depth, uint64_t *out)
{
    uint64_t seed = vm->jinja->seed;
    *out = 0;
    if (depth > VALUE_DEPTH_MAX)
        return vm_limit(vm, "nesting of values");
    switch (v.type) {
    case V_STR:
        *out = str_hash(vm, v.s);
        return vm_charge_bytes(vm, v.s->n);
    case V_INT:
        *out = hash_u64((uint64_t)v.i ^ seed);
        return 0;
    case V_BOOL:
        *out = hash_u64((uint64_t)v.b ^ seed);
        return 0;
    case V_FLOAT:
        if (v.f == floor(v.f) && fabs(v.f) < 9e18)
            *out = hash_u64((uint64_t)(int64_t)v.f ^ seed);
        else
            *out = hash_bytes(&v.f, sizeof v.f, seed);
        return 0;
    case V_TUPLE:
        *out = seed;
        for (size_t i = 0; i < v.l->n; i++) {
            uint64_t h;
            int code = hash_at(vm, v.l->v[i], depth + 1, &h);
            if (code)
                return code;
            *out = hash_u64(*out * 31 + h);
        }
        return vm_charge(vm, v.l->n);
    case V_LIST:
    case V_DICT:
    case V_VIEW:
        return vm_fail(vm, "unhashable type: '%s'", value_type_name(v));
    case V_NONE:
    case V_UNDEF:
        *out = hash_u64(v.type + seed);
        return 0;
    default:
        *out = hash_u64((uint64_t)(uintptr_t)v.p ^ seed);
        return 0;
    }
}

int value_hash(struct vm *vm, struct value v, uint64_t *out)
{
    return hash_at(vm, v, 0, out);
}

int dict_new(struct vm *vm, size_t cap, struct dict **out)
{
    struct dict *d;
    *out = NULL;
    TRY(vm_alloc(vm, &d, sizeof *d));
    if ((d->cap = cap))
        TRY(vm_array(vm, &d->v, cap, sizeof *d->v));
    *out = d;
    return 0;
}

static int dict_index(struct vm *vm, struct dict *d)
{
    size_t want = d->nslots ? d->nslots * 2 : 32;
    uint32_t *slots;
    if (d->n > UINT32_MAX / 4)
        return vm_limit(vm, "memory");
    int code = vm_array(vm, &slots, want, sizeof *slots);
    if (code)
        return code;
    for (size_t i = 0; i < d->n; i++) {
        size_t k = d->v[i].hash & (want - 1);
        while (slots[k])
            k = (k + 1) & (want - 1);
        slots[k] = (uint32_t)(i + 1);
    }
    d->slots = slots;
    d->nslots = want;
    return 0;
}

/* The pair with this key and hash, or NULL. */
static int find_pair(struct vm *vm, const struct dict *d, struct value k, uint64_t hash,
                     struct pair **out)
{
    *out = NULL;
    size_t i = d->nslots ? hash & (d->nslots - 1) : 0;
    for (;; i++) {
        size_t at;
        if (d->nslots) {
            uint32_t slot = d->slots[i & (d->nslots - 1)];
            if (!slot)
                return 0;
            at = slot - 1;
        } else if (i < d->n) {
            at = i;
        } else {
            return 0;
        }
        if (d->v[at].hash != hash)
            continue;
        bool eq;
        int code = value_eq(vm, d->v[at].key, k, &eq);
        if (code)
            return code;
        if (eq) {
            *out = &d->v[at];
            return 0;
        }
    }
}

int dict_find(struct vm *vm, const struct dict *d, struct value k, struct value **out)
{
    uint64_t hash;
    struct pair *p;
    *out = NULL;
    int code = value_hash(vm, k, &hash);
    if (!code)
        code = find_pair(vm, d, k, hash, &p);
    if (!code && p)
        *out = &p->val;
    return code;
}

struct value *dict_find_str(struct vm *vm, const struct dict *d, const struct str *k, uint64_t hash)
{
    size_t i = d->nslots ? hash & (d->nslots - 1) : 0;
    for (;; i++) {
        size_t at;
        if (d->nslots) {
            uint32_t slot = d->slots[i & (d->nslots - 1)];
            if (!slot)
                return NULL;
            at = slot - 1;
        } else if (i < d->n) {
            at = i;
        } else {
            return NULL;
        }
        struct pair *p = &d->v[at];
        if (p->hash == hash && p->key.type == V_STR && str_same(p->key.s, k))
            return &p->val;
    }
}

int dict_set(struct vm *vm, struct dict *d, struct value k, struct value v)
{
    uint64_t hash;
    struct pair *p;
    int code = value_hash(vm, k, &hash);
    if (code || (code = find_pair(vm, d, k, hash, &p)))
        return code;
    if (p) {
        p->val = v;
        return 0;
    }
    TRY(vm_room(vm, &d->v, &d->cap, d->n, sizeof *d->v));
    d->v[d->n++] = (struct pair){k, v, hash};
    if (d->nslots ? d->n * 2 > d->nslots : d->n > 8)
        return dict_index(vm, d);
    if (d->nslots) {
        size_t i = hash & (d->nslots - 1);
        while (d->slots[i])
            i = (i + 1) & (d->nslots - 1);
        d->slots[i] = (uint32_t)d->n;
    }
    return 0;
}

int dict_set_lit(struct vm *vm, struct dict *d, const char *k, struct value v)
{
    struct value key;
    int code = str_lit(vm, k, &key);
    return code ? code : dict_set(vm, d, key, v);
}

/* ---- asking -------------------------------------------------------------------------------- */

const char *value_type_name(struct value v)
{
    static const char *const names[V_TYPES] = {
        [V_MISSING] = "missing", [V_UNDEF] = "Undefined", [V_NONE] = "NoneType",
        [V_BOOL] = "bool",       [V_INT] = "int",         [V_FLOAT] = "float",
        [V_STR] = "str",         [V_LIST] = "list",       [V_TUPLE] = "tuple",
        [V_DICT] = "dict",       [V_VIEW] = "dict view",  [V_RANGE] = "range",
        [V_ITER] = "generator",  [V_NS] = "Namespace",    [V_LOOP] = "LoopContext",
        [V_MACRO] = "Macro",     [V_METHOD] = "method",   [V_FUNC] = "function",
        [V_JOINER] = "Joiner",   [V_CYCLER] = "Cycler",
    };
    static const char *const views[] = {"dict_keys", "dict_values", "dict_items"};
    return v.type == V_VIEW ? views[v.view->kind] : names[v.type];
}

bool value_len(struct value v, size_t *out)
{
    switch (v.type) {
    case V_UNDEF:
        *out = 0;
        return true;
    case V_STR:
        *out = str_chars(v.s);
        return true;
    case V_LIST:
    case V_TUPLE:
        *out = v.l->n;
        return true;
    case V_DICT:
        *out = v.d->n;
        return true;
    case V_VIEW:
        *out = v.view->d->n;
        return true;
    case V_RANGE:
        *out = (size_t)v.range->n;
        return true;
    default:
        return false;
    }
}

bool value_truth(struct value v)
{
    size_t n;
    switch (v.type) {
    case V_NONE:
    case V_MISSING:
        return false;
    case V_BOOL:
        return v.b;
    case V_INT:
        return v.i != 0;
    case V_FLOAT:
        return v.f != 0;
    case V_STR:
        return v.s->n != 0;
    default:
        return value_len(v, &n) ? n != 0 : true;
    }
}

bool value_as_int(struct value v, int64_t *out)
{
    if (v.type == V_INT)
        *out = v.i;
    else if (v.type == V_BOOL)
        *out = v.b;
    else
        return false;
    return true;
}

bool value_as_float(struct value v, double *out)
{
    int64_t i;
    if (v.type == V_FLOAT)
        *out = v.f;
    else if (value_as_int(v, &i))
        *out = (double)i;
    else
        return false;
    return true;
}

/* Exact comparison of an integer with a double: -1, 0, 1; 2 when f is NaN. */
static int cmp_int_float(int64_t i, double f)
{
    if (isnan(f))
        return 2;
    if (f >= 9223372036854775808.0)
        return -1;
    if (f < -9223372036854775808.0)
        return 1;
    int64_t t = (int64_t)f; /* toward zero */
    if (i != t)
        return i < t ? -1 : 1;
    double rest = f - (double)t;
    return rest > 0 ? -1 : rest < 0 ? 1 : 0;
}

/* -1, 0, 1, or 2 for "not ordered" (NaN). False when one of them is no number. */
static bool cmp_numbers(struct value a, struct value b, int *out)
{
    int64_t i, j;
    bool ai = value_as_int(a, &i), bi = value_as_int(b, &j);
    if ((!ai && a.type != V_FLOAT) || (!bi && b.type != V_FLOAT))
        return false;
    if (ai && bi) {
        *out = (i > j) - (i < j);
    } else if (ai) {
        *out = cmp_int_float(i, b.f);
    } else if (bi) {
        int c = cmp_int_float(j, a.f);
        *out = c == 2 ? 2 : -c;
    } else {
        *out = isnan(a.f) || isnan(b.f) ? 2 : (a.f > b.f) - (a.f < b.f);
    }
    return true;
}

static int eq_at(struct vm *vm, struct value a, struct value b, unsigned depth, bool *out);

static int eq_lists(struct vm *vm, const struct list *a, const struct list *b, unsigned depth,
                    bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        int code = value_same(a->v[i], b->v[i]) ? 0 : eq_at(vm, a->v[i], b->v[i], depth + 1, out);
        if (code)
            return code;
    }
    return vm_charge(vm, a->n / 4);
}

static int eq_dicts(struct vm *vm, const struct dict *a, const struct dict *b, unsigned depth,
                    bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        struct value *other;
        int code = dict_find(vm, b, a->v[i].key, &other);
        if (code)
            return code;
        *out = other != NULL;
        if (other && !value_same(a->v[i].val, *other) &&
            (code = eq_at(vm, a->v[i].val, *other, depth + 1, out)))
            return code;
    }
    return vm_charge(vm, a->n / 4);
}

static int eq_views(struct vm *vm, const struct view *a, const struct view *b, unsigned depth,
                    bool *out)
{
    *out = a == b;
    if (a->kind != b->kind || a->kind == VIEW_VALUES)
        return 0;
    if (a->kind == VIEW_ITEMS)
        return eq_dicts(vm, a->d, b->d, depth, out);
    *out = a->d->n == b->d->n;
    for (size_t i = 0; *out && i < a->d->n; i++) {
        struct value *other;
        int code = dict_find(vm, b->d, a->d->v[i].key, &other);
        if (code)
            return code;
        *out = other != NULL;
    }
    return vm_charge(vm, a->d->n);
}

static int eq_at(struct vm *vm, struct value a, struct value b, unsigned depth, bool *out)
{
    int c;
    if (depth > VALUE_DEPTH_MAX)
        return vm_limit(vm, "nesting of values");
    int code = vm_charge(vm, 1);
    if (code)
        return code;
    if (cmp_numbers(a, b, &c)) {
        *out = c == 0;
        return 0;
    }
    *out = false;
    if (a.type != b.type)
        return 0;
    switch (a.type) {
    case V_UNDEF:
    case V_NONE:
        *out = true;
        return 0;
    case V_STR:
        *out = str_same(a.s, b.s);
        return a.s->n == b.s->n ? vm_charge_bytes(vm, a.s->n) : 0;
    case V_LIST:
    case V_TUPLE:
        return eq_lists(vm, a.l, b.l, depth, out);
    case V_DICT:
        return eq_dicts(vm, a.d, b.d, depth, out);
    case V_VIEW:
        return eq_views(vm, a.view, b.view, depth, out);
    case V_RANGE:
        *out = a.range->n == b.range->n &&
               (!a.range->n || (a.range->start == b.range->start &&
                                (a.range->n == 1 || a.range->step == b.range->step)));
        return 0;
    default:
        *out = a.p == b.p;
        return 0;
    }
}

int value_eq(struct vm *vm, struct value a, struct value b, bool *out)
{
    return eq_at(vm, a, b, 0, out);
}

bool value_same(struct value a, struct value b)
{
    if (a.type != b.type)
        return false;
    switch (a.type) {
    case V_NONE:
    case V_MISSING:
        return true;
    case V_BOOL:
        return a.b == b.b;
    case V_INT: /* small integers and strings are shared objects in the reference */
        return a.i == b.i;
    case V_FLOAT:
        return a.f == b.f;
    case V_STR:
        return a.s == b.s || (a.s->n == b.s->n && a.s->p == b.s->p);
    default:
        return a.p == b.p;
    }
}

static const char *const order_names[] = {"<", "<=", ">", ">="};

static bool order_result(enum order_op op, int c)
{
    switch (op) {
    case ORDER_LT:
        return c == -1;
    case ORDER_LE:
        return c == -1 || c == 0;
    case ORDER_GT:
        return c == 1;
    default:
        return c == 1 || c == 0;
    }
}

static int order_at(struct vm *vm, enum order_op op, struct value a, struct value b, unsigned depth,
                    bool *out)
{
    int c, code = vm_charge(vm, 1);
    if (code)
        return code;
    if (depth > VALUE_DEPTH_MAX)
        return vm_limit(vm, "nesting of values");
    if (a.type == V_UNDEF || b.type == V_UNDEF)
        return vm_undefined(vm, a.type == V_UNDEF ? a : b);
    if (cmp_numbers(a, b, &c)) {
        *out = order_result(op, c);
        return 0;
    }
    if (a.type == V_STR && b.type == V_STR) {
        c = str_cmp(a.s, b.s);
        *out = order_result(op, (c > 0) - (c < 0));
        return vm_charge_bytes(vm, num_min(a.s->n, b.s->n));
    }
    if (a.type != b.type || (a.type != V_LIST && a.type != V_TUPLE))
        return vm_unsupported(vm, order_names[op], a, b);
    size_t n = num_min(a.l->n, b.l->n);
    for (size_t i = 0; i < n; i++) {
        bool eq = true;
        if (!value_same(a.l->v[i], b.l->v[i]) &&
            (code = eq_at(vm, a.l->v[i], b.l->v[i], depth + 1, &eq)))
            return code;
        if (!eq)
            return order_at(vm, op, a.l->v[i], b.l->v[i], depth + 1, out);
    }
    *out = order_result(op, (a.l->n > b.l->n) - (a.l->n < b.l->n));
    return 0;
}

int value_order(struct vm *vm, enum order_op op, struct value a, struct value b, bool *out)
{
    return order_at(vm, op, a, b, 0, out);
}

int sort_keyed(struct vm *vm, struct keyed *v, size_t n, bool reverse)
{
    struct keyed *a = v, *b;
    TRY(vm_array(vm, &b, n, sizeof *b));
    for (size_t w = 1; w < n; w *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * w) {
            size_t mid = num_min(lo + w, n), hi = num_min(lo + 2 * w, n), i = lo, k = mid;
            for (size_t o = lo; o < hi; o++) {
                bool right = false;
                if (i < mid && k < hi)
                    TRY(value_order(vm, ORDER_LT, reverse ? a[i].key : a[k].key,
                                    reverse ? a[k].key : a[i].key, &right));
                b[o] = (i < mid && !right) || k >= hi ? a[i++] : a[k++];
            }
        }
        struct keyed *t = a;
        a = b;
        b = t;
    }
    if (a != v)
        memcpy(v, a, n * sizeof *v);
    return 0;
}

int value_contains(struct vm *vm, struct value item, struct value in, bool *out)
{
    *out = false;
    if (in.type == V_STR) {
        if (item.type != V_STR)
            return vm_fail(vm, "'in <string>' requires string as left operand, not %s",
                           value_type_name(item));
        *out =
            !item.s->n || (in.s->n >= item.s->n && memmem(in.s->p, in.s->n, item.s->p, item.s->n));
        return vm_charge_bytes(vm, in.s->n);
    }
    if (in.type == V_DICT || (in.type == V_VIEW && in.view->kind == VIEW_KEYS)) {
        struct value *found;
        int code = dict_find(vm, in.type == V_DICT ? in.d : in.view->d, item, &found);
        *out = found != NULL;
        return code;
    }
    struct iter *it;
    if (!value_iterable(in))
        return vm_fail(vm, "argument of type '%s' is not iterable", value_type_name(in));
    int code = iter_new(vm, in, &it);
    while (!code && !*out) {
        struct value x;
        bool done;
        if ((code = iter_next(vm, it, &x, &done)) || done)
            break;
        if (value_same(x, item))
            *out = true;
        else
            code = value_eq(vm, x, item, out);
    }
    return code;
}

/* ---- iterators ----------------------------------------------------------------------------- */

static int next_none(struct vm *vm, struct iter *it, struct value *out, bool *done)
{
    *done = true;
    return 0;
}

static int next_list(struct vm *vm, struct iter *it, struct value *out, bool *done)
{
    const struct list *l = it->src.l;
    *done = it->pos >= l->n;
    if (!*done)
        *out = l->v[it->pos++];
    return 0;
}

static int next_str(struct vm *vm, struct iter *it, struct value *out, bool *done)
{
    const struct str *s = it->src.s;
    *done = it->pos >= s->n;
    if (*done)
        return 0;
    uint32_t cp;
    size_t k = utf8_next(s->p + it->pos, s->n - it->pos, &cp, NULL);
    int code = str_cut(vm, s, it->pos, k, out);
    it->pos += k;
    return code;
}

static int next_pair(struct vm *vm, struct iter *it, struct value *out, bool *done)
{
    bool view = it->src.type == V_VIEW;
    const struct dict *d = view ? it->src.view->d : it->src.d;
    *done = it->pos >= d->n;
    if (*done)
        return 0;
    const struct pair *p = &d->v[it->pos++];
    if (!view || it->src.view->kind == VIEW_KEYS)
        *out = p->key;
    else if (it->src.view->kind == VIEW_VALUES)
        *out = p->val;
    else
        return tuple_pair(vm, p->key, p->val, out);
    return 0;
}

int64_t range_at(const struct range *r, int64_t i)
{
    return (int64_t)(r->start + (__int128)i * r->step);
}

static int next_range(struct vm *vm, struct iter *it, struct value *out, bool *done)
{
    const struct range *r = it->src.range;
    *done = (int64_t)it->pos >= r->n;
    if (!*done)
        *out = value_int(range_at(r, (int64_t)it->pos++));
    return 0;
}

/* Generators stand on generators: how many, the template decides. */
int iter_next(struct vm *vm, struct iter *it, struct value *out, bool *done)
{
    enum { ITER_DEPTH_MAX = 200 };
    if (vm->iters >= ITER_DEPTH_MAX)
        return vm_limit(vm, "generators on top of each other");
    vm->iters++;
    int code = it->next(vm, it, out, done);
    vm->iters--;
    return code;
}

bool value_iterable(struct value v)
{
    switch (v.type) {
    case V_UNDEF:
    case V_STR:
    case V_LIST:
    case V_TUPLE:
    case V_DICT:
    case V_VIEW:
    case V_RANGE:
    case V_ITER:
        return true;
    default:
        return false;
    }
}

int iter_new(struct vm *vm, struct value v, struct iter **out)
{
    *out = NULL;
    if (v.type == V_ITER) {
        *out = v.iter;
        return 0;
    }
    if (!value_iterable(v))
        return vm_fail(vm, "'%s' object is not iterable", value_type_name(v));
    struct iter *it;
    int code = vm_alloc(vm, &it, sizeof *it);
    if (code)
        return code;
    it->src = v;
    switch (v.type) {
    case V_STR:
        it->next = next_str;
        break;
    case V_LIST:
    case V_TUPLE:
        it->next = next_list;
        break;
    case V_DICT:
    case V_VIEW:
        it->next = next_pair;
        break;
    case V_RANGE:
        it->next = next_range;
        break;
    default:
        it->next = next_none;
    }
    *out = it;
    return 0;
}
