/*
 * Evaluation of expressions: a walk over the tree. Its depth is bounded by the parser's bound on
 * trees times the bound on macro calls; `depth` guards the product.
 */
#include "text/jinja_vm.h"

#include "base/num.h"

#include <string.h>

enum { EVAL_DEPTH_MAX = 1500 };

static int eval_name(struct vm *vm, const struct node *n, struct value *out)
{
    TRY(scope_get(vm, n->name, out));
    if (out->type != V_MISSING)
        return 0;
    struct value *v = dict_find_str(vm, vm->context, &n->name->s, n->name->hash);
    if (v)
        *out = *v;
    else if (n->name->global)
        *out = (struct value){.type = V_FUNC, .trusted = true, .func = n->name->global};
    else
        return make_undef(vm, &n->name->s, NULL, out);
    return 0;
}

static int eval_list(struct vm *vm, const struct node *n, struct value *out)
{
    struct list *l;
    TRY(list_new(vm, n->items.n, &l));
    for (size_t i = 0; i < n->items.n; i++) {
        TRY(eval(vm, n->items.v[i], &l->v[i]));
        l->n = i + 1;
    }
    out->type = n->kind == N_LIST ? V_LIST : V_TUPLE;
    out->l = l;
    return 0;
}

static int eval_dict(struct vm *vm, const struct node *n, struct value *out)
{
    struct dict *d;
    TRY(dict_new(vm, n->items.n / 2, &d));
    for (size_t i = 0; i + 1 < n->items.n; i += 2) {
        struct value k, v;
        TRY(eval(vm, n->items.v[i], &k));
        TRY(eval(vm, n->items.v[i + 1], &v));
        TRY(dict_set(vm, d, k, v));
    }
    *out = (struct value){.type = V_DICT, .d = d};
    return 0;
}

static int eval_concat(struct vm *vm, const struct node *n, struct value *out)
{
    struct sb b;
    sb_init(&b, vm);
    for (size_t i = 0; i < n->items.n; i++) {
        struct value v;
        TRY(eval(vm, n->items.v[i], &v));
        TRY(value_put(&b, v));
    }
    return sb_done(&b, out);
}

static int compare(struct vm *vm, enum compare_op op, struct value a, struct value b, bool *out)
{
    switch (op) {
    case CMP_EQ:
    case CMP_NE:
        TRY(value_eq(vm, a, b, out));
        *out ^= op == CMP_NE;
        return 0;
    case CMP_IN:
    case CMP_NOTIN:
        TRY(value_contains(vm, a, b, out));
        *out ^= op == CMP_NOTIN;
        return 0;
    case CMP_LT:
        return value_order(vm, ORDER_LT, a, b, out);
    case CMP_LE:
        return value_order(vm, ORDER_LE, a, b, out);
    case CMP_GT:
        return value_order(vm, ORDER_GT, a, b, out);
    default:
        return value_order(vm, ORDER_GE, a, b, out);
    }
}

static int eval_compare(struct vm *vm, const struct node *n, struct value *out)
{
    struct value a, b;
    bool yes = true;
    TRY(eval(vm, n->cmp.first, &a));
    for (size_t i = 0; yes && i < n->cmp.n; i++) {
        TRY(eval(vm, n->cmp.ops[i].value, &b));
        TRY(compare(vm, n->cmp.ops[i].op, a, b, &yes));
        a = b;
    }
    *out = value_bool(yes);
    return 0;
}

static int eval_chain(struct vm *vm, const struct node *n, struct value *out)
{
    bool stop_at = n->kind == N_OR;
    for (size_t i = 0; i < n->items.n; i++) {
        TRY(eval(vm, n->items.v[i], out));
        if (value_truth(*out) == stop_at)
            break;
    }
    return 0;
}

static int eval_unary(struct vm *vm, const struct node *n, struct value *out)
{
    struct value v;
    double x;
    TRY(eval(vm, n->items.v[0], &v));
    if (n->kind == N_NOT) {
        *out = value_bool(!value_truth(v));
        return 0;
    }
    if (n->kind == N_NEG)
        return op_negate(vm, v, out);
    if (!value_as_float(v, &x))
        return v.type == V_UNDEF
                   ? vm_undefined(vm, v)
                   : vm_fail(vm, "bad operand type for unary +: '%s'", value_type_name(v));
    *out = v.type == V_BOOL ? value_int(v.b) : v;
    return 0;
}

static int eval_slice(struct vm *vm, const struct node *n, struct value *out)
{
    struct value of, part[3] = {value_missing, value_missing, value_missing};
    const struct node *nodes[3] = {n->item.lo, n->item.hi, n->item.step};
    TRY(eval(vm, n->item.of, &of));
    for (int i = 0; i < 3; i++)
        if (nodes[i])
            TRY(eval(vm, nodes[i], &part[i]));
    return value_slice(vm, of, part[0], part[1], part[2], out);
}

/* ---- calls ----------------------------------------------------------------------------------- */

static int push_starstar(struct vm *vm, const struct node *n, struct call *out)
{
    struct value v;
    TRY(eval(vm, n, &v));
    if (v.type != V_DICT)
        return vm_fail(vm, "argument after ** must be a mapping, not %s", value_type_name(v));
    struct kw *kw;
    TRY(vm_array(vm, &kw, out->nkw + v.d->n, sizeof *kw));
    if (out->nkw)
        memcpy(kw, out->kw, out->nkw * sizeof *kw);
    for (size_t i = 0; i < v.d->n; i++) {
        if (v.d->v[i].key.type != V_STR)
            return vm_fail(vm, "keywords must be strings");
        for (size_t k = 0; k < out->nkw; k++)
            if (str_same(out->kw[k].name, v.d->v[i].key.s))
                return vm_fail(vm, "multiple values for a keyword argument");
        kw[out->nkw + i] = (struct kw){v.d->v[i].key.s, v.d->v[i].val};
    }
    TRY(vm_charge(vm, v.d->n * (out->nkw + 1)));
    out->kw = kw;
    out->nkw += v.d->n;
    return 0;
}

int eval_args(struct vm *vm, const struct args *a, struct call *out)
{
    struct list *rest = NULL;
    struct value v;
    *out = (struct call){0};
    if (!a)
        return 0;
    if (a->pos.n)
        TRY(vm_array(vm, &out->pos, a->pos.n, sizeof *out->pos));
    for (; out->npos < a->pos.n; out->npos++)
        TRY(eval(vm, a->pos.v[out->npos], &out->pos[out->npos]));
    if (a->star) {
        TRY(eval(vm, a->star, &v));
        TRY(list_from(vm, v, &rest));
        struct value *all;
        TRY(vm_array(vm, &all, out->npos + rest->n, sizeof *all));
        if (out->npos)
            memcpy(all, out->pos, out->npos * sizeof *all);
        if (rest->n)
            memcpy(all + out->npos, rest->v, rest->n * sizeof *all);
        out->pos = all;
        out->npos += rest->n;
    }
    if (a->nkw)
        TRY(vm_array(vm, &out->kw, a->nkw, sizeof *out->kw));
    for (; out->nkw < a->nkw; out->nkw++) {
        TRY(eval(vm, a->kw[out->nkw].value, &v));
        out->kw[out->nkw] = (struct kw){&a->kw[out->nkw].name->s, v};
    }
    return a->starstar ? push_starstar(vm, a->starstar, out) : 0;
}

int vm_call(struct vm *vm, struct value f, const struct call *c, struct value *out)
{
    switch (f.type) {
    case V_METHOD:
        return func_call(vm, f.method->func, f.method->self, c, out);
    case V_FUNC:
        return func_call(vm, f.func, value_missing, c, out);
    case V_MACRO:
        return macro_call(vm, f.macro, c, out);
    case V_LOOP:
        if (c->npos != 1 || c->nkw)
            return vm_fail(vm, "loop() takes one argument");
        return loop_call(vm, f.loop, c->pos[0], out);
    case V_JOINER:
        if (c->npos || c->nkw)
            return vm_fail(vm, "a joiner takes no arguments");
        if (f.joiner->used)
            return (*out = f.joiner->sep), 0;
        f.joiner->used = true;
        return str_lit(vm, "", out);
    case V_UNDEF:
        return vm_undefined(vm, f);
    default:
        return vm_fail(vm, "'%s' object is not callable", value_type_name(f));
    }
}

static int eval_call(struct vm *vm, const struct node *n, struct value *out)
{
    struct value f;
    struct call c;
    TRY(eval(vm, n->call.of, &f));
    TRY(eval_args(vm, n->call.args, &c));
    vm->line = n->line;
    return vm_call(vm, f, &c, out);
}

static int eval_applied(struct vm *vm, const struct node *n, struct value *out)
{
    struct value self;
    struct call c;
    TRY(eval(vm, n->call.of, &self));
    TRY(eval_args(vm, n->call.args, &c));
    vm->line = n->line;
    if (!n->call.func)
        return vm_fail(vm, "no %s named '%.*s'", n->kind == N_FILTER ? "filter" : "test",
                       (int)num_min(n->call.name->s.n, 60), n->call.name->s.p);
    TRY(func_call(vm, n->call.func, self, &c, out));
    if (n->kind == N_TEST)
        *out = value_bool(value_truth(*out));
    return 0;
}

static int eval_subscript(struct vm *vm, const struct node *n, struct value *out)
{
    struct value of, key;
    TRY(eval(vm, n->item.of, &of));
    TRY(eval(vm, n->item.lo, &key));
    return value_item(vm, of, key, out);
}

static int eval_binary(struct vm *vm, const struct node *n, struct value *out)
{
    struct value a, b;
    TRY(eval(vm, n->items.v[0], &a));
    TRY(eval(vm, n->items.v[1], &b));
    vm->line = n->line;
    return op_binary(vm, (enum binary_op)n->op, a, b, out);
}

static int eval_attr(struct vm *vm, const struct node *n, struct value *out)
{
    struct value of;
    TRY(eval(vm, n->attr.of, &of));
    return value_attr(vm, of, &n->attr.name->s, out);
}

static int eval_cond(struct vm *vm, const struct node *n, struct value *out)
{
    struct value test;
    TRY(eval(vm, n->cond.test, &test));
    const struct node *pick = value_truth(test) ? n->cond.yes : n->cond.no;
    if (pick)
        return eval(vm, pick, out);
    *out = value_undef;
    return 0;
}

static int eval_const(struct vm *vm, const struct node *n, struct value *out)
{
    *out = n->value;
    return 0;
}

int eval(struct vm *vm, const struct node *n, struct value *out)
{
    static int (*const table[N_KINDS])(struct vm *, const struct node *, struct value *) = {
        [N_CONST] = eval_const,    [N_NAME] = eval_name,    [N_LIST] = eval_list,
        [N_TUPLE] = eval_list,     [N_DICT] = eval_dict,    [N_BINARY] = eval_binary,
        [N_NEG] = eval_unary,      [N_POS] = eval_unary,    [N_NOT] = eval_unary,
        [N_AND] = eval_chain,      [N_OR] = eval_chain,     [N_COMPARE] = eval_compare,
        [N_CONCAT] = eval_concat,  [N_COND] = eval_cond,    [N_ATTR] = eval_attr,
        [N_ITEM] = eval_subscript, [N_SLICE] = eval_slice,  [N_CALL] = eval_call,
        [N_FILTER] = eval_applied, [N_TEST] = eval_applied,
    };
    TRY(vm_charge(vm, 1));
    if (++vm->depth > EVAL_DEPTH_MAX)
        return vm_limit(vm, "nested evaluation");
    vm->line = n->line;
    int code = table[n->kind](vm, n, out);
    vm->depth--;
    return code;
}
