/*
 * Functions: binding of arguments, the methods of lists, dicts and helper objects, and the global
 * functions (range, namespace, raise_exception, …).
 */
#include "text/jinja_vm.h"

#include "base/num.h"

#include <limits.h>
#include <string.h>

#define FUNC(name)                                                                           \
    static int name(struct vm *vm, struct value self, struct value *a, const struct call *c, \
                    struct value *out)

/* ---- arguments ------------------------------------------------------------------------------- */

struct param {
    const char *name;
    size_t n;
    bool optional;
};

static size_t parse_params(const char *s, struct param *out)
{
    size_t n = 0;
    while (*s && n < PARAMS_MAX) {
        size_t k = strcspn(s, ",?");
        out[n] = (struct param){s, k, s[k] == '?'};
        n++;
        s += k + (s[k] == '?');
        s += *s == ',';
    }
    return n;
}

int func_call(struct vm *vm, const struct func *f, struct value self, const struct call *c,
              struct value *out)
{
    struct param p[PARAMS_MAX];
    struct value a[PARAMS_MAX];
    for (size_t i = 0; i < PARAMS_MAX; i++)
        a[i] = value_missing;
    if (*f->params == '*')
        return f->fn(vm, self, a, c, out);
    bool positional = *f->params == '/';
    size_t n = parse_params(f->params + positional, p);
    if (c->npos > n)
        return vm_fail(vm, "%s() takes at most %zu argument(s), %zu given", f->name, n, c->npos);
    for (size_t i = 0; i < c->npos; i++)
        a[i] = c->pos[i];
    for (size_t k = 0; k < c->nkw; k++) {
        const struct str *name = c->kw[k].name;
        size_t i = 0;
        while (i < n && (positional || p[i].n != name->n || memcmp(p[i].name, name->p, name->n)))
            i++;
        if (i == n)
            return vm_fail(vm, "%s() got an unexpected keyword argument '%.*s'", f->name,
                           (int)num_min(name->n, 60), name->p);
        if (arg_given(a[i]))
            return vm_fail(vm, "%s() got two values for '%.*s'", f->name, (int)p[i].n, p[i].name);
        a[i] = c->kw[k].value;
    }
    for (size_t i = 0; i < n; i++)
        if (!p[i].optional && !arg_given(a[i]))
            return vm_fail(vm, "%s() lacks the argument '%.*s'", f->name, (int)p[i].n, p[i].name);
    return f->fn(vm, self, a, c, out);
}

int arg_int(struct vm *vm, struct value v, int64_t fallback, int64_t *out)
{
    if (v.type == V_MISSING) {
        *out = fallback;
        return 0;
    }
    if (v.type == V_UNDEF)
        return vm_undefined(vm, v);
    if (!value_as_int(v, out))
        return vm_fail(vm, "'%s' object cannot be interpreted as an integer", value_type_name(v));
    return 0;
}

int arg_bool(struct vm *vm, struct value v, bool fallback, bool *out)
{
    *out = v.type == V_MISSING ? fallback : value_truth(v);
    return 0;
}

int arg_str(struct vm *vm, struct value v, struct str **out)
{
    if (v.type == V_UNDEF)
        return vm_undefined(vm, v);
    if (v.type != V_STR)
        return vm_fail(vm, "expected a string, not %s", value_type_name(v));
    *out = v.s;
    return 0;
}

const struct func *func_find(const struct func *table, size_t n, const char *name, size_t len)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(table[i].name) == len && !memcmp(table[i].name, name, len))
            return &table[i];
    return NULL;
}

/* ---- methods of lists, tuples, dicts -----------------------------------------------------------
 */

FUNC(list_count)
{
    int64_t n = 0;
    for (size_t i = 0; i < self.l->n; i++) {
        bool eq = value_same(self.l->v[i], a[0]);
        if (!eq)
            TRY(value_eq(vm, self.l->v[i], a[0], &eq));
        n += eq;
    }
    *out = value_int(n);
    return 0;
}

FUNC(list_index)
{
    int64_t n = (int64_t)self.l->n, lo, hi;
    TRY(arg_int(vm, a[1], 0, &lo));
    TRY(arg_int(vm, a[2], n, &hi));
    lo = lo < 0 ? (lo + n < 0 ? 0 : lo + n) : lo;
    hi = hi < 0 ? hi + n : hi > n ? n : hi;
    for (int64_t i = lo; i < hi; i++) {
        bool eq = value_same(self.l->v[i], a[0]);
        if (!eq)
            TRY(value_eq(vm, self.l->v[i], a[0], &eq));
        if (eq) {
            *out = value_int(i);
            return 0;
        }
    }
    return vm_fail(vm, "the value is not in the list");
}

FUNC(list_copy)
{
    *out = self;
    return 0;
}

FUNC(range_count)
{
    bool in;
    TRY(value_contains(vm, a[0], self, &in));
    *out = value_int(in);
    return 0;
}

FUNC(range_index)
{
    struct list *l;
    TRY(list_from(vm, self, &l));
    return list_index(vm, value_list(l), a, c, out);
}

static int view_of(struct vm *vm, struct value self, enum view_kind kind, struct value *out)
{
    struct view *v;
    TRY(vm_alloc(vm, &v, sizeof *v));
    *v = (struct view){self.d, kind};
    *out = (struct value){.type = V_VIEW, .view = v};
    return 0;
}

FUNC(dict_keys)
{
    return view_of(vm, self, VIEW_KEYS, out);
}

FUNC(dict_values)
{
    return view_of(vm, self, VIEW_VALUES, out);
}

FUNC(dict_items)
{
    return view_of(vm, self, VIEW_ITEMS, out);
}

FUNC(dict_get)
{
    struct value *at;
    TRY(dict_find(vm, self.d, a[0], &at));
    *out = at ? *at : arg_given(a[1]) ? a[1] : value_none;
    return 0;
}

FUNC(cycler_next)
{
    struct cycler *y = self.cycler;
    *out = y->items.v[y->pos];
    y->pos = (y->pos + 1) % y->items.n;
    return 0;
}

FUNC(cycler_reset)
{
    self.cycler->pos = 0;
    *out = value_none;
    return 0;
}

FUNC(loop_cycle)
{
    if (!c->npos || c->nkw)
        return vm_fail(vm, "no items for cycling given");
    *out = c->pos[(size_t)self.loop->index0 % c->npos];
    return 0;
}

FUNC(loop_changed)
{
    struct loop *l = self.loop;
    struct list *now;
    bool same = false;
    TRY(list_new(vm, c->npos, &now));
    for (size_t i = 0; i < c->npos; i++)
        TRY(list_push(vm, now, c->pos[i]));
    if (l->has_changed)
        TRY(value_eq(vm, l->changed, value_tuple(now), &same));
    l->changed = value_tuple(now);
    l->has_changed = true;
    *out = value_bool(!same);
    return 0;
}

FUNC(int_bits)
{
    uint64_t u = self.i < 0 ? 0 - (uint64_t)self.i : (uint64_t)self.i;
    int64_t n = 0;
    for (; u; u >>= 1)
        n++;
    *out = value_int(n);
    return 0;
}

FUNC(float_is_integer)
{
    *out = value_bool(self.f - self.f == 0 && self.f == (double)(int64_t)self.f);
    if (self.f >= 9e18 || self.f <= -9e18)
        *out = value_bool(self.f - self.f == 0);
    return 0;
}

static const struct func methods_list[] = {
    {"count", "/value", list_count},
    {"index", "/value,start?,stop?", list_index},
    {"copy", "", list_copy},
};
static const struct func methods_range[] = {
    {"count", "/value", range_count},
    {"index", "/value", range_index},
};
static const struct func methods_dict[] = {
    {"keys", "", dict_keys},   {"values", "", dict_values},
    {"items", "", dict_items}, {"get", "/key,default?", dict_get},
    {"copy", "", list_copy},
};
static const struct func methods_cycler[] = {
    {"next", "", cycler_next},
    {"reset", "", cycler_reset},
};
static const struct func methods_loop[] = {
    {"cycle", "*", loop_cycle},
    {"changed", "*", loop_changed},
};
static const struct func methods_int[] = {{"bit_length", "", int_bits}};
static const struct func methods_float[] = {{"is_integer", "", float_is_integer}};

/* What the sandbox keeps templates from calling. */
static const char *const list_mutators[] = {"append", "clear",  "pop",    "reverse", "insert",
                                            "sort",   "extend", "remove", NULL};
static const char *const dict_mutators[] = {"clear",      "pop",    "popitem",
                                            "setdefault", "update", NULL};

static const struct type_methods {
    enum value_type type;
    const struct func *table;
    size_t n;
    const char *const *mutators;
} type_methods[] = {
    {V_LIST, methods_list, NUM_COUNT(methods_list), list_mutators},
    {V_TUPLE, methods_list, NUM_COUNT(methods_list) - 1, NULL},
    {V_DICT, methods_dict, NUM_COUNT(methods_dict), dict_mutators},
    {V_RANGE, methods_range, NUM_COUNT(methods_range), NULL},
    {V_CYCLER, methods_cycler, NUM_COUNT(methods_cycler), NULL},
    {V_LOOP, methods_loop, NUM_COUNT(methods_loop), NULL},
    {V_INT, methods_int, NUM_COUNT(methods_int), NULL},
    {V_FLOAT, methods_float, NUM_COUNT(methods_float), NULL},
};

const struct func *method_find(struct value self, const char *name, size_t n, bool *mutates)
{
    *mutates = false;
    if (self.type == V_STR)
        return func_find(methods_str, methods_str_n, name, n);
    for (size_t i = 0; i < NUM_COUNT(type_methods); i++) {
        const struct type_methods *t = &type_methods[i];
        if (t->type != (enum value_type)self.type)
            continue;
        for (const char *const *m = t->mutators; m && *m; m++)
            if (strlen(*m) == n && !memcmp(*m, name, n))
                *mutates = true;
        return func_find(t->table, t->n, name, n);
    }
    return NULL;
}

/* ---- global functions -------------------------------------------------------------------------
 */

FUNC(g_range)
{
    enum { RANGE_MAX = 100000 };
    struct range *r;
    int64_t x[3] = {0, 0, 1};
    if (c->nkw || !c->npos || c->npos > 3)
        return vm_fail(vm, "range() takes 1 to 3 arguments");
    for (size_t i = 0; i < c->npos; i++)
        TRY(arg_int(vm, c->pos[i], 0, &x[c->npos == 1 ? 1 : i]));
    if (!x[2])
        return vm_fail(vm, "range() arg 3 must not be zero");
    __int128 span = (__int128)x[1] - x[0], n = 0;
    if (x[2] > 0 && span > 0)
        n = (span - 1) / x[2] + 1;
    else if (x[2] < 0 && span < 0)
        n = (-span - 1) / -(__int128)x[2] + 1;
    if (n > RANGE_MAX)
        return vm_fail(vm, "range too big: at most %d items", RANGE_MAX);
    TRY(vm_alloc(vm, &r, sizeof *r));
    *r = (struct range){x[0], x[1], x[2], (int64_t)n};
    *out = (struct value){.type = V_RANGE, .range = r};
    return 0;
}

/* dict(mapping or pairs, **kwargs) */
static int make_dict(struct vm *vm, const struct call *c, struct dict **out)
{
    TRY(dict_new(vm, c->nkw, out));
    if (c->npos > 1)
        return vm_fail(vm, "dict expected at most 1 argument, got %zu", c->npos);
    if (c->npos && (c->pos[0].type == V_DICT || c->pos[0].type == V_NS)) {
        const struct dict *d = c->pos[0].d;
        if (c->pos[0].type == V_NS)
            return vm_fail(vm, "'Namespace' object is not iterable");
        for (size_t i = 0; i < d->n; i++)
            TRY(dict_set(vm, *out, d->v[i].key, d->v[i].val));
    } else if (c->npos) {
        struct list *pairs;
        TRY(list_from(vm, c->pos[0], &pairs));
        for (size_t i = 0; i < pairs->n; i++) {
            struct list *pair;
            TRY(list_from(vm, pairs->v[i], &pair));
            if (pair->n != 2)
                return vm_fail(vm,
                               "dictionary update sequence element has length %zu; 2 is required",
                               pair->n);
            TRY(dict_set(vm, *out, pair->v[0], pair->v[1]));
        }
    }
    for (size_t i = 0; i < c->nkw; i++)
        TRY(dict_set(vm, *out, value_str((struct str *)(uintptr_t)c->kw[i].name), c->kw[i].value));
    return 0;
}

FUNC(g_dict)
{
    struct dict *d;
    TRY(make_dict(vm, c, &d));
    *out = (struct value){.type = V_DICT, .d = d};
    return 0;
}

FUNC(g_namespace)
{
    struct dict *d;
    TRY(make_dict(vm, c, &d));
    *out = (struct value){.type = V_NS, .d = d};
    return 0;
}

FUNC(g_joiner)
{
    struct joiner *j;
    TRY(vm_alloc(vm, &j, sizeof *j));
    j->sep = a[0];
    if (!arg_given(a[0]))
        TRY(str_lit(vm, ", ", &j->sep));
    *out = (struct value){.type = V_JOINER, .joiner = j};
    return 0;
}

FUNC(g_cycler)
{
    struct cycler *y;
    if (!c->npos || c->nkw)
        return vm_fail(vm, "at least one item has to be provided");
    TRY(vm_alloc(vm, &y, sizeof *y));
    for (size_t i = 0; i < c->npos; i++)
        TRY(list_push(vm, &y->items, c->pos[i]));
    *out = (struct value){.type = V_CYCLER, .cycler = y};
    return 0;
}

FUNC(g_raise)
{
    struct str *s = NULL;
    TRY(value_str_of(vm, a[0], &s));
    vm->raised = true;
    return err_set(vm->e, ERR_FORMAT, "%.*s", (int)num_min(s->n, INT_MAX), s->p);
}

FUNC(g_strftime)
{
    struct str *s = NULL;
    TRY(arg_str(vm, a[0], &s));
    return strftime_text(vm, s, out);
}

static const struct func globals[] = {
    {"range", "*", g_range},
    {"dict", "*", g_dict, NULL, true},
    {"namespace", "*", g_namespace, NULL, true},
    {"joiner", "sep?", g_joiner, NULL, true},
    {"cycler", "*", g_cycler, NULL, true},
    {"raise_exception", "message", g_raise},
    {"strftime_now", "format", g_strftime},
};

const struct func *global_find(const char *name, size_t n)
{
    return func_find(globals, NUM_COUNT(globals), name, n);
}
