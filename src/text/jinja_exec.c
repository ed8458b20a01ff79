/*
 * Statements: output, assignments, loops, macros; scopes and captured output.
 *
 * A scope is the variables of one block; {% if %} has none of its own, loops make a fresh one for
 * each item, macros run in one under the scope they were defined in. Assignments go to the
 * innermost scope, as Jinja has it.
 */
#include "text/jinja_vm.h"

#include "base/num.h"

#include <string.h>

enum { MACRO_DEPTH_MAX = 180, EXEC_DEPTH_MAX = 1500 };

/* ---- scopes ---------------------------------------------------------------------------------- */

int scope_push(struct vm *vm, struct scope *up)
{
    struct scope *s;
    TRY(vm_alloc(vm, &s, sizeof *s));
    s->up = up;
    vm->scope = s;
    return 0;
}

int scope_set(struct vm *vm, const struct name *n, struct value v)
{
    struct scope *s = vm->scope;
    for (size_t i = 0; i < s->n; i++) {
        if (s->v[i].name == n) {
            s->v[i].value = v;
            return vm_charge(vm, i / 8);
        }
    }
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 4;
        struct binding *grown;
        TRY(vm_array(vm, &grown, cap, sizeof *grown));
        if (s->n)
            memcpy(grown, s->v, s->n * sizeof *grown);
        s->v = grown;
        s->cap = cap;
    }
    s->v[s->n++] = (struct binding){n, v};
    return vm_charge(vm, s->n / 8);
}

int scope_get(struct vm *vm, const struct name *n, struct value *out)
{
    size_t work = 0;
    *out = value_missing;
    for (const struct scope *s = vm->scope; s; s = s->up) {
        for (size_t i = 0; i < s->n; i++) {
            if (s->v[i].name == n) {
                *out = s->v[i].value;
                return vm_charge(vm, (work + i) / 8);
            }
        }
        work += s->n + 1;
    }
    return vm_charge(vm, work / 8);
}

/* ---- output ---------------------------------------------------------------------------------- */

int vm_emit(struct vm *vm, const struct str *s)
{
    if (vm->sink)
        return sb_str(vm->sink, s);
    struct jinja_result *r = vm->out;
    if (s->n > vm->output_max - r->text.len)
        return vm_limit(vm, "output");
    TRY(vm_charge_bytes(vm, s->n));
    TRY(buf_reserve(&r->trusted, s->n, vm->e));
    TRY(buf_append(&r->text, s->p, s->n, vm->e));
    if (s->mask)
        return buf_append(&r->trusted, s->mask, s->n, vm->e);
    if (!s->n)
        return 0;
    memset(r->trusted.data + r->trusted.len, s->trusted, s->n);
    r->trusted.len += s->n;
    r->trusted.data[r->trusted.len] = 0;
    return 0;
}

void capture_begin(struct vm *vm, struct capture *c)
{
    sb_init(&c->sb, vm);
    c->up = vm->sink;
    vm->sink = &c->sb;
}

int capture_end(struct vm *vm, struct capture *c, int code, struct value *out)
{
    vm->sink = c->up;
    return code ? code : sb_done(&c->sb, out);
}

static int exec_data(struct vm *vm, const struct node *n)
{
    return vm_emit(vm, n->value.s);
}

static int exec_output(struct vm *vm, const struct node *n)
{
    struct value v;
    struct str *s;
    TRY(eval(vm, n->set.value, &v));
    TRY(value_str_of(vm, v, &s));
    return vm_emit(vm, s);
}

/* ---- assignments ------------------------------------------------------------------------------
 */

int exec_assign(struct vm *vm, const struct node *t, struct value v)
{
    if (t->kind == N_NAME)
        return scope_set(vm, t->name, v);
    if (t->kind == N_NSREF) {
        struct value ns;
        TRY(scope_get(vm, t->nsref.name, &ns));
        if (ns.type != V_NS)
            return vm_fail(vm, "cannot assign attribute on non-namespace object");
        struct value key = value_str((struct str *)(uintptr_t)&t->nsref.attr->s);
        return dict_set(vm, ns.d, key, v);
    }
    struct list *l;
    TRY(list_from(vm, v, &l));
    if (l->n != t->items.n)
        return vm_fail(vm, "cannot unpack %zu values into %zu names", l->n, t->items.n);
    for (size_t i = 0; i < l->n; i++)
        TRY(exec_assign(vm, t->items.v[i], l->v[i]));
    return 0;
}

static int exec_set(struct vm *vm, const struct node *n)
{
    struct value v;
    TRY(eval(vm, n->set.value, &v));
    return exec_assign(vm, n->set.target, v);
}

/* A body in a scope of its own. */
static int exec_scoped(struct vm *vm, const struct nodes *body)
{
    struct scope *up = vm->scope;
    TRY(scope_push(vm, up));
    int code = exec_body(vm, body);
    vm->scope = up;
    return code;
}

static int capture_scoped(struct vm *vm, const struct nodes *body, struct value *out)
{
    struct capture c;
    capture_begin(vm, &c);
    return capture_end(vm, &c, exec_scoped(vm, body), out);
}

/* A chain of filters whose head has no operand yet. */
static int apply_filters(struct vm *vm, const struct node *n, struct value v, struct value *out)
{
    struct call c;
    if (!n) {
        *out = v;
        return 0;
    }
    TRY(apply_filters(vm, n->call.of, v, &v));
    TRY(eval_args(vm, n->call.args, &c));
    if (!n->call.func)
        return vm_fail(vm, "no filter named '%.*s'", (int)num_min(n->call.name->s.n, 60),
                       n->call.name->s.p);
    return func_call(vm, n->call.func, v, &c, out);
}

static int exec_setblock(struct vm *vm, const struct node *n)
{
    struct value v;
    TRY(capture_scoped(vm, &n->set.body, &v));
    if (vm->flow != FLOW_NEXT)
        return 0;
    TRY(apply_filters(vm, n->set.value, v, &v));
    return exec_assign(vm, n->set.target, v);
}

static int exec_filter(struct vm *vm, const struct node *n)
{
    struct value v;
    struct str *s;
    TRY(capture_scoped(vm, &n->filter.body, &v));
    if (vm->flow != FLOW_NEXT)
        return 0;
    TRY(apply_filters(vm, n->filter.value, v, &v));
    TRY(value_str_of(vm, v, &s));
    return vm_emit(vm, s);
}

static int exec_scope(struct vm *vm, const struct node *n)
{
    return exec_scoped(vm, &n->body);
}

static int exec_with(struct vm *vm, const struct node *n)
{
    struct scope *up = vm->scope, *inner;
    TRY(scope_push(vm, up));
    inner = vm->scope;
    int code = 0;
    for (size_t i = 0; i < n->with.values.n && !code; i++) {
        struct value v;
        vm->scope = up; /* the values see the variables outside */
        code = eval(vm, n->with.values.v[i], &v);
        vm->scope = inner;
        if (!code)
            code = exec_assign(vm, n->with.targets.v[i], v);
    }
    if (!code)
        code = exec_body(vm, &n->with.body);
    vm->scope = up;
    return code;
}

/* ---- loops ------------------------------------------------------------------------------------
 */

struct loop_filter {
    const struct node *node;
    struct scope *scope;
};

/* {% for x in y if test %}: the items that pass, tested as the loop gets to them. */
static int next_passing(struct vm *vm, struct iter *it, struct value *out, bool *done)
{
    struct loop_filter *f = it->arg;
    for (;;) {
        struct value test;
        TRY(iter_next(vm, it->inner, out, done));
        if (*done)
            return 0;
        struct scope *saved = vm->scope;
        TRY(scope_push(vm, f->scope));
        int code = exec_assign(vm, f->node->loop.target, *out);
        if (!code)
            code = eval(vm, f->node->loop.test, &test);
        vm->scope = saved;
        if (code || value_truth(test))
            return code;
    }
}

static int loop_advance(struct vm *vm, struct loop *l, bool *done)
{
    l->before = l->current;
    if (l->has_after) {
        l->current = l->after;
        l->has_after = false;
        *done = false;
    } else {
        struct value v;
        TRY(iter_next(vm, l->it, &v, done));
        if (!*done)
            l->current = v;
    }
    l->index0 += !*done;
    return 0;
}

static int loop_start(struct vm *vm, const struct node *n, struct value src, unsigned depth0,
                      struct loop **out)
{
    struct loop *l;
    TRY(vm_alloc(vm, &l, sizeof *l));
    TRY(iter_new(vm, src, &l->it));
    l->src = src;
    l->index0 = -1;
    l->depth0 = depth0;
    l->node = n->loop.recursive ? n : NULL;
    l->scope = vm->scope;
    if (n->loop.test) {
        struct loop_filter *f;
        struct iter *it;
        TRY(vm_alloc(vm, &f, sizeof *f));
        TRY(vm_alloc(vm, &it, sizeof *it));
        *f = (struct loop_filter){n, vm->scope};
        it->next = next_passing;
        it->inner = l->it;
        it->arg = f;
        l->it = it;
        l->src = (struct value){.type = V_ITER, .iter = it};
    }
    *out = l;
    return 0;
}

static const struct name *loop_name(const struct vm *vm)
{
    return vm->jinja->loop;
}

static int run_loop(struct vm *vm, const struct node *n, struct loop *l, bool *ran)
{
    struct scope *up = vm->scope;
    struct value self = {.type = V_LOOP, .loop = l};
    int code = 0;
    *ran = false;
    for (;;) {
        bool done;
        if ((code = loop_advance(vm, l, &done)) || done)
            break;
        if ((code = scope_push(vm, up)) || (code = scope_set(vm, loop_name(vm), self)) ||
            (code = exec_assign(vm, n->loop.target, l->current)) || (code = vm_charge(vm, 1)) ||
            (code = exec_body(vm, &n->loop.body)))
            break;
        vm->scope = up;
        enum flow flow = vm->flow;
        vm->flow = FLOW_NEXT;
        /* An item that was left early does not count as one for {% else %}. */
        *ran |= flow == FLOW_NEXT;
        if (flow == FLOW_BREAK)
            break;
    }
    vm->scope = up;
    return code;
}

int exec_for(struct vm *vm, const struct node *n, struct value src, unsigned depth0)
{
    struct loop *l;
    bool ran;
    TRY(loop_start(vm, n, src, depth0, &l));
    TRY(run_loop(vm, n, l, &ran));
    return ran || !n->loop.other.n ? 0 : exec_scoped(vm, &n->loop.other);
}

static int exec_loop(struct vm *vm, const struct node *n)
{
    struct value src;
    TRY(eval(vm, n->loop.iter, &src));
    return exec_for(vm, n, src, 0);
}

int loop_call(struct vm *vm, struct loop *l, struct value v, struct value *out)
{
    struct capture c;
    struct scope *saved = vm->scope;
    if (!l->node)
        return vm_fail(vm, "the loop must have the 'recursive' marker to be called recursively");
    if (vm->macros >= MACRO_DEPTH_MAX)
        return vm_limit(vm, "nested loops");
    vm->macros++;
    vm->scope = l->scope;
    capture_begin(vm, &c);
    int code = capture_end(vm, &c, exec_for(vm, l->node, v, l->depth0 + 1), out);
    vm->scope = saved;
    vm->macros--;
    return code;
}

/* ---- conditions, macros ------------------------------------------------------------------------
 */

static int exec_if(struct vm *vm, const struct node *n)
{
    for (size_t i = 0; i < n->branches.n; i++) {
        const struct branch *b = &n->branches.v[i];
        struct value v;
        if (b->test)
            TRY(eval(vm, b->test, &v));
        if (!b->test || value_truth(v))
            return exec_body(vm, &b->body);
    }
    return 0;
}

static int new_macro(struct vm *vm, const struct signature *sig, struct value *out)
{
    struct macro *m;
    TRY(vm_alloc(vm, &m, sizeof *m));
    *m = (struct macro){sig, vm->scope};
    *out = (struct value){.type = V_MACRO, .macro = m};
    return 0;
}

static int exec_macro(struct vm *vm, const struct node *n)
{
    struct value v;
    TRY(new_macro(vm, n->macro, &v));
    return scope_set(vm, n->macro->name, v);
}

static int exec_callblock(struct vm *vm, const struct node *n)
{
    struct value f, caller, v;
    struct call c;
    struct str *s;
    const struct node *call = n->callblock.call;
    TRY(new_macro(vm, n->callblock.caller, &caller));
    TRY(eval(vm, call->call.of, &f));
    TRY(eval_args(vm, call->call.args, &c));
    struct kw *kw;
    TRY(vm_array(vm, &kw, c.nkw + 1, sizeof *kw));
    if (c.nkw)
        memcpy(kw, c.kw, c.nkw * sizeof *kw);
    kw[c.nkw] = (struct kw){&vm->jinja->caller->s, caller};
    c.kw = kw;
    c.nkw++;
    TRY(vm_call(vm, f, &c, &v));
    TRY(value_str_of(vm, v, &s));
    return vm_emit(vm, s);
}

/* Binds the arguments of a call in the current scope. */
static int bind_macro(struct vm *vm, const struct signature *sig, const struct call *c)
{
    struct dict *extra = NULL;
    bool has_caller = sig->explicit_caller;
    struct value caller = value_undef;
    TRY(dict_new(vm, c->nkw, &extra));
    for (size_t i = 0; i < sig->nparams; i++) {
        struct value v = i < c->npos ? c->pos[i] : value_missing;
        for (size_t k = 0; k < c->nkw && i >= c->npos; k++)
            if (str_same(c->kw[k].name, &sig->params[i]->s))
                v = c->kw[k].value;
        if (v.type == V_MISSING && sig->defaults[i])
            TRY(eval(vm, sig->defaults[i], &v));
        else if (v.type == V_MISSING)
            TRY(make_undef(vm, &sig->params[i]->s, NULL, &v));
        TRY(scope_set(vm, sig->params[i], v));
    }
    for (size_t k = 0; k < c->nkw; k++) {
        size_t i = num_min(c->npos, sig->nparams);
        while (i < sig->nparams && !str_same(c->kw[k].name, &sig->params[i]->s))
            i++;
        if (i < sig->nparams)
            continue;
        if (sig->uses_caller && !has_caller && str_eq(c->kw[k].name, "caller"))
            caller = c->kw[k].value;
        else if (sig->uses_kwargs)
            TRY(dict_set(vm, extra, value_str((struct str *)(uintptr_t)c->kw[k].name),
                         c->kw[k].value));
        else
            return vm_fail(vm, "the macro takes no keyword argument '%.*s'",
                           (int)num_min(c->kw[k].name->n, 60), c->kw[k].name->p);
    }
    if (sig->uses_caller && !has_caller)
        TRY(scope_set(vm, vm->jinja->caller, caller.type == V_NONE ? value_undef : caller));
    if (sig->uses_kwargs)
        TRY(scope_set(vm, vm->jinja->kwargs, (struct value){.type = V_DICT, .d = extra}));
    if (sig->uses_varargs) {
        struct list *l;
        size_t skip = num_min(c->npos, sig->nparams);
        TRY(list_new(vm, c->npos - skip, &l));
        for (size_t i = skip; i < c->npos; i++)
            TRY(list_push(vm, l, c->pos[i]));
        return scope_set(vm, vm->jinja->varargs, value_tuple(l));
    }
    if (c->npos > sig->nparams)
        return vm_fail(vm, "the macro takes not more than %zu argument(s)", sig->nparams);
    return 0;
}

int macro_call(struct vm *vm, struct macro *m, const struct call *c, struct value *out)
{
    struct scope *saved = vm->scope;
    struct capture cap;
    if (vm->macros >= MACRO_DEPTH_MAX)
        return vm_limit(vm, "nested macro calls");
    vm->macros++;
    TRY(scope_push(vm, m->scope));
    TRY(bind_macro(vm, m->sig, c));
    capture_begin(vm, &cap);
    int code = capture_end(vm, &cap, exec_body(vm, &m->sig->body), out);
    vm->scope = saved;
    vm->macros--;
    return code;
}

static int exec_break(struct vm *vm, const struct node *n)
{
    vm->flow = FLOW_BREAK;
    return 0;
}

static int exec_continue(struct vm *vm, const struct node *n)
{
    vm->flow = FLOW_CONTINUE;
    return 0;
}

static int exec_refuse(struct vm *vm, const struct node *n)
{
    return vm_fail(vm, "%s", n->refusal);
}

int exec_body(struct vm *vm, const struct nodes *body)
{
    static int (*const table[N_KINDS])(struct vm *, const struct node *) = {
        [S_DATA] = exec_data,         [S_OUTPUT] = exec_output,  [S_SET] = exec_set,
        [S_SETBLOCK] = exec_setblock, [S_FOR] = exec_loop,       [S_IF] = exec_if,
        [S_MACRO] = exec_macro,       [S_CALL] = exec_callblock, [S_FILTER] = exec_filter,
        [S_WITH] = exec_with,         [S_BREAK] = exec_break,    [S_CONTINUE] = exec_continue,
        [S_SCOPE] = exec_scope,       [S_REFUSE] = exec_refuse,
    };
    if (++vm->depth > EXEC_DEPTH_MAX)
        return vm_limit(vm, "nested blocks");
    for (size_t i = 0; i < body->n && vm->flow == FLOW_NEXT; i++) {
        const struct node *n = body->v[i];
        TRY(vm_charge(vm, 1));
        vm->line = n->line;
        TRY(table[n->kind](vm, n));
    }
    vm->depth--;
    return 0;
}
