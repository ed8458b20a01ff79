/*
 * Filters on sequences. Those that give a generator in the reference (map, select, unique, batch,
 * …) give one here: items are made as they are asked for, and only once.
 */
#include "text/jinja_vm.h"

#include "base/hash.h"
#include "base/num.h"

#include <string.h>

#define FILTER(name)                                                                         \
    static int name(struct vm *vm, struct value self, struct value *a, const struct call *c, \
                    struct value *out)

/* ---- attributes by path: "a.b.0" ----------------------------------------------------------- */

static int attr_path(struct vm *vm, struct value item, struct value path, struct value fallback,
                     struct value *out)
{
    *out = item;
    if (path.type == V_NONE || path.type == V_MISSING)
        return 0;
    if (path.type != V_STR) {
        TRY(value_item(vm, item, path, out));
        if (out->type == V_UNDEF && arg_given(fallback) && fallback.type != V_NONE)
            *out = fallback;
        return 0;
    }
    const struct str *s = path.s;
    for (size_t i = 0; i <= s->n; i++) {
        struct value part;
        int64_t k;
        bool over;
        size_t end = i;
        bool number = true;
        for (; end < s->n && s->p[end] != '.'; end++)
            number &= s->p[end] >= '0' && s->p[end] <= '9';
        TRY(str_cut(vm, s, i, end - i, &part));
        if (number && end > i && parse_int(part.s, 10, &k, &over))
            part = value_int(k);
        TRY(value_item(vm, *out, part, out));
        if (out->type == V_UNDEF && arg_given(fallback) && fallback.type != V_NONE)
            *out = fallback;
        i = end;
    }
    return 0;
}

static int fold_case(struct vm *vm, bool sensitive, struct value *v)
{
    return sensitive || v->type != V_STR ? 0 : str_case(vm, v->s, CASE_LOWER, v);
}

/* The key of an item for sorting and grouping. */
static int item_key(struct vm *vm, struct value item, struct value path, bool sensitive,
                    struct value *out)
{
    TRY(attr_path(vm, item, path, value_missing, out));
    return fold_case(vm, sensitive, out);
}

/* ---- sorting ------------------------------------------------------------------------------- */

/*
 * The key is a list of the attributes, which commas separate. Lists compare by "==" first, so equal
 * keys are in order even where "<" is not defined for them (None, undefined).
 */
static int sort_key(struct vm *vm, struct value item, struct value path, bool sensitive,
                    struct value *out)
{
    struct list *keys;
    struct value key;
    TRY(list_new(vm, 1, &keys));
    if (path.type != V_STR) {
        TRY(item_key(vm, item, path, sensitive, &key));
        TRY(list_push(vm, keys, key));
    }
    for (size_t i = 0; path.type == V_STR && i <= path.s->n; i++) {
        size_t end = i;
        struct value part;
        while (end < path.s->n && path.s->p[end] != ',')
            end++;
        TRY(str_cut(vm, path.s, i, end - i, &part));
        TRY(item_key(vm, item, part, sensitive, &key));
        TRY(list_push(vm, keys, key));
        i = end;
    }
    *out = value_list(keys);
    return 0;
}

static int keyed_items(struct vm *vm, struct value v, struct value path, bool sensitive,
                       struct keyed **out, size_t *n)
{
    struct list *l;
    TRY(list_from(vm, v, &l));
    TRY(vm_array(vm, out, l->n, sizeof **out));
    *n = l->n;
    for (size_t i = 0; i < l->n; i++) {
        (*out)[i].item = l->v[i];
        TRY(sort_key(vm, l->v[i], path, sensitive, &(*out)[i].key));
    }
    return 0;
}

static int list_of_items(struct vm *vm, const struct keyed *k, size_t n, struct value *out)
{
    struct list *l;
    TRY(list_new(vm, n, &l));
    for (size_t i = 0; i < n; i++)
        l->v[i] = k[i].item;
    l->n = n;
    *out = value_list(l);
    return 0;
}

FILTER(f_sort)
{
    bool reverse, sensitive;
    struct keyed *k;
    size_t n;
    int64_t backwards;
    TRY(arg_int(vm, a[0], 0, &backwards)); /* sorted() takes no other type */
    reverse = backwards != 0;
    TRY(arg_bool(vm, a[1], false, &sensitive));
    TRY(keyed_items(vm, self, a[2], sensitive, &k, &n));
    TRY(sort_keyed(vm, k, n, reverse));
    return list_of_items(vm, k, n, out);
}

FILTER(f_dictsort)
{
    bool sensitive, reverse, by_value = false;
    struct keyed *k;
    TRY(arg_bool(vm, a[0], false, &sensitive));
    TRY(arg_bool(vm, a[2], false, &reverse));
    if (arg_given(a[1])) {
        by_value = a[1].type == V_STR && str_eq(a[1].s, "value");
        if (!by_value && (a[1].type != V_STR || !str_eq(a[1].s, "key")))
            return vm_fail(vm, "dictsort: sort by either \"key\" or \"value\"");
    }
    if (self.type != V_DICT)
        return self.type == V_UNDEF
                   ? vm_undefined(vm, self)
                   : vm_fail(vm, "'%s' object has no attribute 'items'", value_type_name(self));
    TRY(vm_array(vm, &k, self.d->n, sizeof *k));
    for (size_t i = 0; i < self.d->n; i++) {
        const struct pair *p = &self.d->v[i];
        TRY(tuple_pair(vm, p->key, p->val, &k[i].item));
        k[i].key = by_value ? p->val : p->key;
        TRY(fold_case(vm, sensitive, &k[i].key));
    }
    TRY(sort_keyed(vm, k, self.d->n, reverse));
    return list_of_items(vm, k, self.d->n, out);
}

FILTER(f_groupby)
{
    bool sensitive;
    struct list *l, *groups;
    struct keyed *k;
    TRY(arg_bool(vm, a[2], false, &sensitive));
    TRY(list_from(vm, self, &l));
    TRY(vm_array(vm, &k, l->n, sizeof *k));
    for (size_t i = 0; i < l->n; i++) {
        k[i].item = l->v[i];
        TRY(attr_path(vm, l->v[i], a[0], a[1], &k[i].key));
        TRY(fold_case(vm, sensitive, &k[i].key));
    }
    TRY(sort_keyed(vm, k, l->n, false));
    TRY(list_new(vm, 0, &groups));
    for (size_t i = 0, end; i < l->n; i = end) {
        struct list *members;
        struct value key, group;
        bool same = true;
        for (end = i + 1; end < l->n; end++) {
            TRY(value_eq(vm, k[i].key, k[end].key, &same));
            if (!same)
                break;
        }
        TRY(list_new(vm, end - i, &members));
        for (size_t m = i; m < end; m++)
            TRY(list_push(vm, members, k[m].item));
        /* the key as the first member writes it */
        TRY(attr_path(vm, k[i].item, a[0], a[1], &key));
        TRY(tuple_pair(vm, key, value_list(members), &group));
        group.l->group = true;
        TRY(list_push(vm, groups, group));
    }
    *out = value_list(groups);
    return 0;
}

static int extreme(struct vm *vm, struct value self, struct value *a, enum order_op better,
                   struct value *out)
{
    bool sensitive, any = false, done, yes;
    struct iter *it;
    struct value best_key = value_missing;
    TRY(arg_bool(vm, a[0], false, &sensitive));
    TRY(iter_new(vm, self, &it));
    *out = value_undef;
    for (;;) {
        struct value v, key;
        TRY(iter_next(vm, it, &v, &done));
        if (done)
            return 0;
        TRY(item_key(vm, v, a[1], sensitive, &key));
        yes = true;
        if (any)
            TRY(value_order(vm, better, key, best_key, &yes));
        any = true;
        if (yes) {
            best_key = key;
            *out = v;
        }
    }
}

FILTER(f_min)
{
    return extreme(vm, self, a, ORDER_LT, out);
}

FILTER(f_max)
{
    return extreme(vm, self, a, ORDER_GT, out);
}

/* ---- whole sequences ----------------------------------------------------------------------- */

FILTER(f_length)
{
    size_t n;
    if (!value_len(self, &n))
        return vm_fail(vm, "object of type '%s' has no len()", value_type_name(self));
    *out = value_int((int64_t)n);
    return 0;
}

FILTER(f_first)
{
    struct iter *it;
    bool done;
    TRY(iter_new(vm, self, &it));
    TRY(iter_next(vm, it, out, &done));
    if (done)
        *out = value_undef;
    return 0;
}

static int one_of(struct vm *vm, struct value self, size_t i, struct value *out)
{
    if (self.type == V_STR)
        return value_item(vm, self, value_int((int64_t)i), out);
    if (self.type == V_LIST || self.type == V_TUPLE) {
        *out = self.l->v[i];
        return 0;
    }
    struct list *l;
    TRY(list_from(vm, self, &l));
    *out = l->v[i];
    return 0;
}

FILTER(f_last)
{
    size_t n;
    if (!value_len(self, &n))
        return vm_fail(vm, "'%s' object is not reversible", value_type_name(self));
    *out = value_undef;
    return n ? one_of(vm, self, n - 1, out) : 0;
}

/* Runs repeat exactly, so the choice depends on the work done so far and nothing else. */
FILTER(f_random)
{
    size_t n;
    if (!value_len(self, &n) || self.type == V_DICT || self.type == V_VIEW)
        return vm_fail(vm, "random: '%s' object is not a sequence", value_type_name(self));
    *out = value_undef;
    return n ? one_of(vm, self, (size_t)(hash_u64(vm->steps) % n), out) : 0;
}

FILTER(f_list)
{
    struct list *l;
    TRY(list_from(vm, self, &l));
    *out = value_list(l);
    return 0;
}

FILTER(f_join)
{
    struct list *l;
    struct value sep;
    struct str *s;
    TRY(str_lit(vm, "", &sep));
    if (arg_given(a[0])) {
        TRY(value_str_of(vm, a[0], &s));
        sep = value_str(s);
    }
    TRY(list_from(vm, self, &l));
    for (size_t i = 0; i < l->n; i++) {
        TRY(attr_path(vm, l->v[i], a[1], value_missing, &l->v[i]));
        TRY(value_str_of(vm, l->v[i], &s));
        l->v[i] = value_str(s);
    }
    return str_join(vm, sep.s, l, out);
}

FILTER(f_sum)
{
    struct iter *it;
    *out = arg_given(a[1]) ? a[1] : value_int(0);
    if (out->type == V_STR)
        return vm_fail(vm, "sum() can't sum strings");
    TRY(iter_new(vm, self, &it));
    for (;;) {
        struct value v;
        bool done;
        TRY(iter_next(vm, it, &v, &done));
        if (done)
            return 0;
        TRY(attr_path(vm, v, a[0], value_missing, &v));
        TRY(op_binary(vm, OP_ADD, *out, v, out));
    }
}

/* ---- generators ---------------------------------------------------------------------------- */

static int generator(struct vm *vm, struct value src, void *arg,
                     int (*next)(struct vm *, struct iter *, struct value *, bool *),
                     struct value *out)
{
    struct iter *it;
    TRY(vm_alloc(vm, &it, sizeof *it));
    it->next = next;
    it->src = src;
    it->arg = arg;
    *out = (struct value){.type = V_ITER, .iter = it};
    return 0;
}

/* The iterator over the source, made when the first item is asked for. */
static int source(struct vm *vm, struct iter *it)
{
    return it->inner ? 0 : iter_new(vm, it->src, &it->inner);
}

/* The filter, test or attribute that a generator applies. As in the reference it is looked at when
   the first item is asked for, so mistakes in it do not show earlier. */
struct apply {
    struct call call;            /* as written; `prepare` takes the name off */
    struct value path, fallback; /* map(attribute=…), selectattr: V_MISSING = the item itself */
    const struct func *func;     /* NULL: no name was given */
    bool ready, is_map, by_attr, negate;
};

static int prepare(struct vm *vm, struct apply *ap)
{
    struct call *c = &ap->call;
    ap->ready = true;
    if (ap->is_map && !c->npos) {
        for (size_t i = 0; i < c->nkw; i++) {
            if (str_eq(c->kw[i].name, "attribute"))
                ap->path = c->kw[i].value;
            else if (str_eq(c->kw[i].name, "default"))
                ap->fallback = c->kw[i].value;
            else
                return vm_fail(vm, "map() got an unexpected keyword argument");
        }
        return arg_given(ap->path) ? 0 : vm_fail(vm, "map requires a filter argument");
    }
    if (ap->by_attr) {
        if (!c->npos)
            return vm_fail(vm, "missing parameter for attribute name");
        ap->path = *c->pos++;
        c->npos--;
    }
    if (!c->npos)
        return 0;
    if (c->pos->type != V_STR)
        return vm_fail(vm, "the name of a filter or test must be a string");
    const struct str *name = c->pos->s;
    ap->func = ap->is_map ? filter_find(name->p, name->n) : test_find(name->p, name->n);
    if (!ap->func)
        return vm_fail(vm, "no %s named '%.*s'", ap->is_map ? "filter" : "test",
                       (int)num_min(name->n, 60), name->p);
    c->pos++;
    c->npos--;
    return 0;
}

/* The next item of the source; a falsy source has none. */
static int next_source(struct vm *vm, struct iter *it, struct value *out, bool *done)
{
    struct apply *ap = it->arg;
    *done = !value_truth(it->src);
    if (*done)
        return 0;
    if (!ap->ready)
        TRY(prepare(vm, ap));
    TRY(source(vm, it));
    TRY(vm_charge(vm, 1));
    return iter_next(vm, it->inner, out, done);
}

static int next_map(struct vm *vm, struct iter *it, struct value *out, bool *done)
{
    struct apply *ap = it->arg;
    struct value v;
    TRY(next_source(vm, it, &v, done));
    if (*done)
        return 0;
    return ap->func ? func_call(vm, ap->func, v, &ap->call, out)
                    : attr_path(vm, v, ap->path, ap->fallback, out);
}

static int next_select(struct vm *vm, struct iter *it, struct value *out, bool *done)
{
    struct apply *ap = it->arg;
    for (;;) {
        struct value v, verdict;
        TRY(next_source(vm, it, out, done));
        if (*done)
            return 0;
        TRY(attr_path(vm, *out, ap->path, value_missing, &v));
        verdict = v;
        if (ap->func)
            TRY(func_call(vm, ap->func, v, &ap->call, &verdict));
        if (value_truth(verdict) != ap->negate)
            return 0;
    }
}

static int apply_items(struct vm *vm, struct value self, const struct call *c, struct apply how,
                       struct value *out)
{
    struct apply *ap;
    TRY(vm_alloc(vm, &ap, sizeof *ap));
    *ap = how;
    ap->call = *c;
    ap->path = ap->fallback = value_missing;
    return generator(vm, self, ap, ap->is_map ? next_map : next_select, out);
}

FILTER(f_map)
{
    return apply_items(vm, self, c, (struct apply){.is_map = true}, out);
}

FILTER(f_select)
{
    return apply_items(vm, self, c, (struct apply){.negate = false}, out);
}

FILTER(f_reject)
{
    return apply_items(vm, self, c, (struct apply){.negate = true}, out);
}

FILTER(f_selectattr)
{
    return apply_items(vm, self, c, (struct apply){.by_attr = true}, out);
}

FILTER(f_rejectattr)
{
    return apply_items(vm, self, c, (struct apply){.by_attr = true, .negate = true}, out);
}

struct unique {
    struct dict *seen;
    struct value path;
    bool sensitive;
};

static int next_unique(struct vm *vm, struct iter *it, struct value *out, bool *done)
{
    struct unique *u = it->arg;
    TRY(source(vm, it));
    for (;;) {
        struct value key, *at;
        TRY(iter_next(vm, it->inner, out, done));
        if (*done)
            return 0;
        TRY(item_key(vm, *out, u->path, u->sensitive, &key));
        TRY(dict_find(vm, u->seen, key, &at));
        if (!at)
            return dict_set(vm, u->seen, key, value_none);
    }
}

FILTER(f_unique)
{
    struct unique *u;
    TRY(vm_alloc(vm, &u, sizeof *u));
    TRY(dict_new(vm, 0, &u->seen));
    TRY(arg_bool(vm, a[0], false, &u->sensitive));
    u->path = a[1];
    return generator(vm, self, u, next_unique, out);
}

struct batch {
    int64_t count;
    struct value slices, fill; /* slice: the count as given, read when it is needed */
    struct list *items;        /* slice only */
};

static int next_batch(struct vm *vm, struct iter *it, struct value *out, bool *done)
{
    struct batch *p = it->arg;
    struct list *l;
    struct value v;
    TRY(source(vm, it));
    TRY(list_new(vm, 0, &l));
    *done = it->done;
    while (!it->done && (!l->n || (int64_t)l->n != p->count)) {
        TRY(iter_next(vm, it->inner, &v, &it->done));
        if (!it->done)
            TRY(list_push(vm, l, v));
    }
    *done = !l->n;
    if (l->n && arg_given(p->fill) && p->fill.type != V_NONE)
        while ((int64_t)l->n < p->count)
            TRY(list_push(vm, l, p->fill));
    *out = value_list(l);
    return 0;
}

FILTER(f_batch)
{
    struct batch *p;
    TRY(vm_alloc(vm, &p, sizeof *p));
    TRY(arg_int(vm, a[0], 0, &p->count));
    p->fill = a[1];
    return generator(vm, self, p, next_batch, out);
}

static int next_slice(struct vm *vm, struct iter *it, struct value *out, bool *done)
{
    struct batch *p = it->arg;
    struct list *l;
    if (!p->items) {
        TRY(arg_int(vm, p->slices, 0, &p->count));
        if (!p->count)
            return vm_fail(vm, "integer division or modulo by zero");
        TRY(list_from(vm, it->src, &p->items));
    }
    *done = (int64_t)it->pos >= p->count;
    if (*done)
        return 0;
    size_t n = p->items->n, k = (size_t)p->count, i = it->pos++;
    size_t each = n / k, extra = n % k;
    size_t from = i * each + num_min(i, extra), to = from + each + (i < extra);
    TRY(list_new(vm, to - from + 1, &l));
    for (; from < to; from++)
        TRY(list_push(vm, l, p->items->v[from]));
    if (i >= extra && arg_given(p->fill) && p->fill.type != V_NONE)
        TRY(list_push(vm, l, p->fill));
    *out = value_list(l);
    return 0;
}

FILTER(f_slice)
{
    struct batch *p;
    TRY(vm_alloc(vm, &p, sizeof *p));
    p->slices = a[0];
    p->fill = a[1];
    return generator(vm, self, p, next_slice, out);
}

static int next_item_pair(struct vm *vm, struct iter *it, struct value *out, bool *done)
{
    *done = it->src.type == V_UNDEF;
    if (*done)
        return 0;
    if (it->src.type != V_DICT)
        return vm_fail(vm, "can only get item pairs from a mapping");
    *done = it->pos >= it->src.d->n;
    if (*done)
        return 0;
    const struct pair *p = &it->src.d->v[it->pos++];
    return tuple_pair(vm, p->key, p->val, out);
}

FILTER(f_items)
{
    return generator(vm, self, NULL, next_item_pair, out);
}

FILTER(f_reverse)
{
    struct list *l;
    struct iter *it;
    if (self.type == V_STR) {
        TRY(value_slice(vm, self, value_missing, value_missing, value_int(-1), out));
        return 0;
    }
    TRY(list_from(vm, self, &l));
    for (size_t i = 0; i < l->n / 2; i++) {
        struct value t = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = t;
    }
    if (self.type == V_ITER) { /* a generator has no reversed(): the reference makes a list */
        *out = value_list(l);
        return 0;
    }
    TRY(iter_new(vm, value_list(l), &it));
    *out = (struct value){.type = V_ITER, .iter = it};
    return 0;
}

const struct func filters_seq[] = {
    {"length", "", f_length},
    {"count", "", f_length},
    {"first", "", f_first},
    {"last", "", f_last},
    {"random", "", f_random},
    {"list", "", f_list},
    {"join", "d?,attribute?", f_join},
    {"sum", "attribute?,start?", f_sum},
    {"min", "case_sensitive?,attribute?", f_min},
    {"max", "case_sensitive?,attribute?", f_max},
    {"sort", "reverse?,case_sensitive?,attribute?", f_sort},
    {"dictsort", "case_sensitive?,by?,reverse?", f_dictsort},
    {"groupby", "attribute,default?,case_sensitive?", f_groupby},
    {"map", "*", f_map},
    {"select", "*", f_select},
    {"reject", "*", f_reject},
    {"selectattr", "*", f_selectattr},
    {"rejectattr", "*", f_rejectattr},
    {"unique", "case_sensitive?,attribute?", f_unique},
    {"batch", "linecount,fill_with?", f_batch},
    {"slice", "slices,fill_with?", f_slice},
    {"items", "", f_items},
    {"reverse", "", f_reverse},
};
const size_t filters_seq_n = NUM_COUNT(filters_seq);
