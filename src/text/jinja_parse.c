/*
 * The parser, first half: helpers and expressions. A recursive descent by precedence:
 *
 *     x if c else y  <  or  <  and  <  not  <  comparisons  <  + -  <  ~  <  * / // %  <  **
 *     <  unary - +  <  .name [item] (call)  <  |filter, is test
 *
 * Left-associative chains of "and", "or" and "~" become one node with many operands. Recursion is
 * bounded by PARSE_DEPTH_MAX, the height of trees by NODE_DEPTH_MAX.
 */
#include "text/jinja_parse.h"

#include "base/hash.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- tokens -------------------------------------------------------------------------------- */

int parse_step(struct parser *p)
{
    if (p->has_ahead) {
        p->cur = p->ahead;
        p->has_ahead = false;
        return 0;
    }
    return lex_next(&p->lx, &p->cur, p->e);
}

int parse_look(struct parser *p, struct token *t)
{
    if (!p->has_ahead) {
        TRY(lex_next(&p->lx, &p->ahead, p->e));
        p->has_ahead = true;
    }
    *t = p->ahead;
    return 0;
}

int(parse_fail)(struct parser *p, uint32_t line, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(p->e, ERR_FORMAT, "line %u: %s", line, text);
}

int(parse_unexpected)(struct parser *p, const char *wanted)
{
    char buf[64];
    const char *got = token_describe(&p->cur, buf, sizeof buf);
    if (wanted)
        return parse_fail(p, p->cur.line, "expected %s, found '%s'", wanted, got);
    return parse_fail(p, p->cur.line, "unexpected '%s'", got);
}

bool cur_is(const struct parser *p, enum token_kind kind)
{
    return p->cur.kind == kind;
}

static bool token_name(const struct token *t, const char *name)
{
    return t->kind == T_NAME && t->n == strlen(name) && !memcmp(t->p, name, t->n);
}

bool cur_name(const struct parser *p, const char *name)
{
    return token_name(&p->cur, name);
}

int parse_expect(struct parser *p, enum token_kind kind, const char *what)
{
    if (p->cur.kind != kind)
        return parse_unexpected(p, what);
    return parse_step(p);
}

int parse_expect_name(struct parser *p, const struct name **out)
{
    if (p->cur.kind != T_NAME)
        return parse_unexpected(p, "a name");
    TRY(name_intern(p, p->cur.p, p->cur.n, out));
    return parse_step(p);
}

int parse_skip_name(struct parser *p, const char *name, bool *was)
{
    *was = cur_name(p, name);
    return *was ? parse_step(p) : 0;
}

int parse_enter(struct parser *p)
{
    if (++p->depth > PARSE_DEPTH_MAX)
        return err_set(p->e, ERR_LIMIT, "line %u: the template is nested too deeply (more than %d)",
                       p->cur.line, PARSE_DEPTH_MAX);
    return 0;
}

/* ---- nodes --------------------------------------------------------------------------------- */

int node_new(struct parser *p, enum node_kind kind, uint32_t line, struct node **out)
{
    struct node *n = arena_alloc(&p->j->arena, sizeof *n, p->e);
    if (!n)
        return ERR_NOMEM;
    n->kind = (uint8_t)kind;
    n->line = line;
    n->depth = 1;
    *out = n;
    return 0;
}

int node_lift(struct parser *p, struct node *n, const struct node *child)
{
    if (!child || child->depth < n->depth)
        return 0;
    if (child->depth >= NODE_DEPTH_MAX)
        return err_set(p->e, ERR_LIMIT, "line %u: the expression is too long or too deep (%d)",
                       n->line, NODE_DEPTH_MAX);
    n->depth = (uint16_t)(child->depth + 1);
    return 0;
}

int nodes_push(struct parser *p, struct nodes *l, struct node *n)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 4;
        struct node **v = arena_array(&p->j->arena, cap, sizeof *v, p->e);
        if (!v)
            return ERR_NOMEM;
        if (l->n)
            memcpy(v, l->v, l->n * sizeof *v);
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = n;
    return 0;
}

static int name_grow(struct parser *p)
{
    struct jinja *j = p->j;
    size_t old = j->nslots, want = old ? old * 2 : 64;
    struct name **t = arena_array(&j->arena, want, sizeof *t, p->e);
    if (!t)
        return ERR_NOMEM;
    for (size_t i = 0; i < old; i++) {
        for (struct name *n = j->names[i], *next; n; n = next) {
            next = n->next;
            n->next = t[n->hash & (want - 1)];
            t[n->hash & (want - 1)] = n;
        }
    }
    j->names = t;
    j->nslots = want;
    return 0;
}

int name_intern(struct parser *p, const char *s, size_t n, const struct name **out)
{
    struct jinja *j = p->j;
    if (j->nnames >= j->nslots)
        TRY(name_grow(p));
    uint64_t hash = hash_bytes(s, n, j->seed);
    struct name **slot = &j->names[hash & (j->nslots - 1)];
    for (struct name *k = *slot; k; k = k->next) {
        if (k->hash == hash && k->s.n == n && !memcmp(k->s.p, s, n)) {
            *out = k;
            return 0;
        }
    }
    struct name *k = arena_alloc(&j->arena, sizeof *k, p->e);
    if (!k)
        return ERR_NOMEM;
    k->s = (struct str){.p = s, .n = n, .chars = SIZE_MAX, .trusted = true};
    str_chars(&k->s);
    k->hash = hash;
    k->global = global_find(s, n);
    k->next = *slot;
    *slot = k;
    j->nnames++;
    *out = k;
    return 0;
}

static int const_node(struct parser *p, uint32_t line, struct value v, struct node **out)
{
    TRY(node_new(p, N_CONST, line, out));
    (*out)->value = v;
    return 0;
}

static int string_node(struct parser *p, enum node_kind kind, uint32_t line, const char *s,
                       size_t n, struct node **out)
{
    struct str *k = arena_alloc(&p->j->arena, sizeof *k, p->e);
    if (!k)
        return ERR_NOMEM;
    *k = (struct str){.p = s, .n = n, .chars = SIZE_MAX, .trusted = true};
    str_chars(k); /* counted now: threads share it later */
    TRY(node_new(p, kind, line, out));
    (*out)->value = value_str(k);
    return 0;
}

/* ---- primary expressions ------------------------------------------------------------------- */

/* Neighbouring strings are one string. */
static int parse_string(struct parser *p, struct node **out)
{
    uint32_t line = p->cur.line;
    const char *s = p->cur.p;
    size_t n = p->cur.n, cap = n;
    char *own = NULL;
    TRY(parse_step(p));
    while (cur_is(p, T_STRING)) {
        if (!own || cap - n < p->cur.n) {
            cap = (n + p->cur.n) * 2;
            char *grown = arena_alloc(&p->j->arena, cap + 1, p->e);
            if (!grown)
                return ERR_NOMEM;
            memcpy(grown, s, n);
            s = own = grown;
        }
        memcpy(own + n, p->cur.p, p->cur.n);
        n += p->cur.n;
        TRY(parse_step(p));
    }
    return string_node(p, N_CONST, line, s, n, out);
}

static int parse_list(struct parser *p, struct node **out)
{
    TRY(node_new(p, N_LIST, p->cur.line, out));
    TRY(parse_step(p));
    while (!cur_is(p, T_RBRACKET)) {
        if ((*out)->items.n)
            TRY(parse_expect(p, T_COMMA, "','"));
        if (cur_is(p, T_RBRACKET))
            break;
        struct node *x;
        TRY(parse_expression(p, true, &x));
        TRY(nodes_push(p, &(*out)->items, x));
        TRY(node_lift(p, *out, x));
    }
    return parse_expect(p, T_RBRACKET, "']'");
}

static int parse_dict(struct parser *p, struct node **out)
{
    TRY(node_new(p, N_DICT, p->cur.line, out));
    TRY(parse_step(p));
    while (!cur_is(p, T_RBRACE)) {
        if ((*out)->items.n)
            TRY(parse_expect(p, T_COMMA, "','"));
        if (cur_is(p, T_RBRACE))
            break;
        struct node *k, *v;
        TRY(parse_expression(p, true, &k));
        TRY(parse_expect(p, T_COLON, "':'"));
        TRY(parse_expression(p, true, &v));
        TRY(nodes_push(p, &(*out)->items, k));
        TRY(nodes_push(p, &(*out)->items, v));
        TRY(node_lift(p, *out, k));
        TRY(node_lift(p, *out, v));
    }
    return parse_expect(p, T_RBRACE, "'}'");
}

static void note_special_name(struct parser *p, const struct token *t)
{
    if (!p->macro)
        return;
    bool caller = token_name(t, "caller"), var = token_name(t, "varargs"),
         kw = token_name(t, "kwargs");
    if (!caller && !var && !kw)
        return;
    for (struct macro_frame *f = p->macro; f; f = f->up) {
        f->caller |= caller;
        f->varargs |= var;
        f->kwargs |= kw;
    }
}

static int parse_name(struct parser *p, bool ns, struct node **out)
{
    static const struct constant {
        const char *name;
        enum value_type type;
        bool b;
    } constants[] = {
        {"true", V_BOOL, true},   {"True", V_BOOL, true},  {"false", V_BOOL, false},
        {"False", V_BOOL, false}, {"none", V_NONE, false}, {"None", V_NONE, false},
    };
    struct token t = p->cur;
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (token_name(&t, constants[i].name)) {
            TRY(parse_step(p));
            return const_node(p, t.line,
                              constants[i].type == V_NONE ? value_none : value_bool(constants[i].b),
                              out);
        }
    }
    const struct name *name;
    TRY(name_intern(p, t.p, t.n, &name));
    TRY(parse_step(p));
    if (ns && cur_is(p, T_DOT)) {
        TRY(parse_step(p));
        TRY(node_new(p, N_NSREF, t.line, out));
        (*out)->nsref.name = name;
        return parse_expect_name(p, &(*out)->nsref.attr);
    }
    note_special_name(p, &t);
    TRY(node_new(p, N_NAME, t.line, out));
    (*out)->name = name;
    return 0;
}

static int parse_primary(struct parser *p, bool ns, struct node **out)
{
    struct token t = p->cur;
    switch (t.kind) {
    case T_NAME:
        return parse_name(p, ns, out);
    case T_STRING:
        return parse_string(p, out);
    case T_INT:
        TRY(parse_step(p));
        return const_node(p, t.line, value_int(t.i), out);
    case T_FLOAT:
        TRY(parse_step(p));
        return const_node(p, t.line, value_float(t.f), out);
    case T_LPAREN:
        TRY(parse_step(p));
        TRY(parse_tuple(p, TUPLE_PARENS, NULL, out));
        return parse_expect(p, T_RPAREN, "')'");
    case T_LBRACKET:
        return parse_list(p, out);
    case T_LBRACE:
        return parse_dict(p, out);
    default:
        return parse_unexpected(p, NULL);
    }
}

/* ---- what follows a primary ------------------------------------------------------------------ */

static int parse_subscribed(struct parser *p, struct node *of, uint32_t line, bool *slice,
                            struct node **out)
{
    *slice = true;
    struct node *part[3] = {NULL, NULL, NULL};
    if (!cur_is(p, T_COLON)) {
        TRY(parse_expression(p, true, &part[0]));
        if (!cur_is(p, T_COLON)) {
            *out = part[0];
            *slice = false;
            return 0;
        }
    }
    TRY(parse_step(p));
    if (!cur_is(p, T_COLON) && !cur_is(p, T_RBRACKET) && !cur_is(p, T_COMMA))
        TRY(parse_expression(p, true, &part[1]));
    if (cur_is(p, T_COLON)) {
        TRY(parse_step(p));
        if (!cur_is(p, T_RBRACKET) && !cur_is(p, T_COMMA))
            TRY(parse_expression(p, true, &part[2]));
    }
    TRY(node_new(p, N_SLICE, line, out));
    (*out)->item.of = of;
    (*out)->item.lo = part[0];
    (*out)->item.hi = part[1];
    (*out)->item.step = part[2];
    TRY(node_lift(p, *out, of));
    for (int i = 0; i < 3; i++)
        TRY(node_lift(p, *out, part[i]));
    return 0;
}

static int item_node(struct parser *p, struct node *of, struct node *key, struct node **out)
{
    TRY(node_new(p, N_ITEM, of->line, out));
    (*out)->item.of = of;
    (*out)->item.lo = key;
    TRY(node_lift(p, *out, of));
    return node_lift(p, *out, key);
}

static int parse_brackets(struct parser *p, struct node *of, struct node **out)
{
    uint32_t line = p->cur.line;
    struct node *first = NULL, *tuple = NULL;
    bool slice = false, slices = false;
    TRY(parse_step(p));
    while (!cur_is(p, T_RBRACKET)) {
        if (first)
            TRY(parse_expect(p, T_COMMA, "','"));
        struct node *x;
        TRY(parse_subscribed(p, of, line, &slice, &x));
        slices |= slice;
        if (first && slices)
            return parse_fail(p, line, "slices in several dimensions are not supported");
        if (first && !tuple) {
            TRY(node_new(p, N_TUPLE, line, &tuple));
            TRY(nodes_push(p, &tuple->items, first));
            TRY(node_lift(p, tuple, first));
        }
        if (tuple) {
            TRY(nodes_push(p, &tuple->items, x));
            TRY(node_lift(p, tuple, x));
        }
        first = x;
    }
    TRY(parse_step(p));
    if (slices) {
        *out = first;
        return 0;
    }
    if (!first) /* x[] is x[()] */
        TRY(node_new(p, N_TUPLE, line, &tuple));
    return item_node(p, of, tuple ? tuple : first, out);
}

static int parse_dot(struct parser *p, struct node *of, struct node **out)
{
    TRY(parse_step(p));
    if (cur_is(p, T_INT)) {
        struct node *key;
        TRY(const_node(p, p->cur.line, value_int(p->cur.i), &key));
        TRY(parse_step(p));
        return item_node(p, of, key, out);
    }
    if (!cur_is(p, T_NAME))
        return parse_unexpected(p, "a name or a number");
    TRY(node_new(p, N_ATTR, of->line, out));
    (*out)->attr.of = of;
    TRY(node_lift(p, *out, of));
    return parse_expect_name(p, &(*out)->attr.name);
}

static int push_kwarg(struct parser *p, struct args *a, const struct name *name, struct node *value)
{
    for (size_t i = 0; i < a->nkw; i++)
        if (a->kw[i].name == name)
            return parse_fail(p, value->line, "keyword argument repeated: %.*s", (int)name->s.n,
                              name->s.p);
    if ((a->nkw & (a->nkw - 1)) == 0) { /* full at powers of two */
        size_t cap = a->nkw ? a->nkw * 2 : 1;
        struct kwarg *kw = arena_array(&p->j->arena, cap, sizeof *kw, p->e);
        if (!kw)
            return ERR_NOMEM;
        if (a->nkw)
            memcpy(kw, a->kw, a->nkw * sizeof *kw);
        a->kw = kw;
    }
    if (a->nkw >= 256)
        return parse_fail(p, value->line, "too many keyword arguments");
    a->kw[a->nkw++] = (struct kwarg){name, value};
    return 0;
}

static int parse_argument(struct parser *p, struct node *owner, struct args *a)
{
    static const char *const bad = "malformed arguments of a call";
    uint32_t line = p->cur.line;
    struct token next = {0};
    struct node *x;
    if (cur_is(p, T_NAME))
        TRY(parse_look(p, &next));
    if (cur_is(p, T_MUL)) {
        if (a->star || a->starstar)
            return parse_fail(p, line, "%s", bad);
        TRY(parse_step(p));
        TRY(parse_expression(p, true, &x));
        a->star = x;
    } else if (cur_is(p, T_POW)) {
        if (a->starstar)
            return parse_fail(p, line, "%s", bad);
        TRY(parse_step(p));
        TRY(parse_expression(p, true, &x));
        a->starstar = x;
    } else if (next.kind == T_ASSIGN) {
        const struct name *name;
        if (a->starstar)
            return parse_fail(p, line, "%s", bad);
        TRY(parse_expect_name(p, &name));
        TRY(parse_step(p));
        TRY(parse_expression(p, true, &x));
        TRY(push_kwarg(p, a, name, x));
    } else {
        if (a->star || a->starstar || a->nkw)
            return parse_fail(p, line, "%s", bad);
        TRY(parse_expression(p, true, &x));
        TRY(nodes_push(p, &a->pos, x));
    }
    return node_lift(p, owner, x);
}

/* Arguments in parentheses into owner->call.args. */
static int parse_args(struct parser *p, struct node *owner)
{
    struct args *a = arena_alloc(&p->j->arena, sizeof *a, p->e);
    if (!a)
        return ERR_NOMEM;
    owner->call.args = a;
    TRY(parse_expect(p, T_LPAREN, "'('"));
    for (bool first = true; !cur_is(p, T_RPAREN); first = false) {
        if (!first) {
            TRY(parse_expect(p, T_COMMA, "','"));
            if (cur_is(p, T_RPAREN))
                break;
        }
        TRY(parse_argument(p, owner, a));
    }
    return parse_step(p);
}

static int parse_call(struct parser *p, struct node *of, struct node **out)
{
    TRY(node_new(p, N_CALL, p->cur.line, out));
    (*out)->call.of = of;
    TRY(node_lift(p, *out, of));
    return parse_args(p, *out);
}

static int parse_postfix(struct parser *p, struct node *n, struct node **out)
{
    for (;;) {
        if (cur_is(p, T_DOT))
            TRY(parse_dot(p, n, &n));
        else if (cur_is(p, T_LBRACKET))
            TRY(parse_brackets(p, n, &n));
        else if (cur_is(p, T_LPAREN))
            TRY(parse_call(p, n, &n));
        else
            break;
    }
    *out = n;
    return 0;
}

/* ---- filters and tests --------------------------------------------------------------------- */

/* A name with dots in it, as filters and tests may have. */
static int parse_dotted(struct parser *p, const struct name **out)
{
    TRY(parse_expect_name(p, out));
    while (cur_is(p, T_DOT)) {
        const struct name *more;
        TRY(parse_step(p));
        TRY(parse_expect_name(p, &more));
        size_t n = (*out)->s.n + 1 + more->s.n;
        char *s = arena_alloc(&p->j->arena, n + 1, p->e);
        if (!s)
            return ERR_NOMEM;
        memcpy(s, (*out)->s.p, (*out)->s.n);
        s[(*out)->s.n] = '.';
        memcpy(s + (*out)->s.n + 1, more->s.p, more->s.n);
        TRY(name_intern(p, s, n, out));
    }
    return 0;
}

static void note_unknown(struct parser *p, const char *what, const struct name *name, uint32_t line)
{
    if (p->pending.any)
        return;
    p->pending.any = true;
    p->pending.line = line;
    snprintf(p->pending.what, sizeof p->pending.what, "no %s named '%.*s'", what,
             (int)(name->s.n < 60 ? name->s.n : 60), name->s.p);
}

int parse_filters(struct parser *p, struct node *of, bool inline_first, struct node **out)
{
    *out = of;
    while (cur_is(p, T_PIPE) || inline_first) {
        if (!inline_first)
            TRY(parse_step(p));
        inline_first = false;
        struct node *n;
        TRY(node_new(p, N_FILTER, p->cur.line, &n));
        n->call.of = *out;
        TRY(node_lift(p, n, *out));
        TRY(parse_dotted(p, &n->call.name));
        n->call.func = filter_find(n->call.name->s.p, n->call.name->s.n);
        if (!n->call.func)
            note_unknown(p, "filter", n->call.name, n->line);
        if (cur_is(p, T_LPAREN))
            TRY(parse_args(p, n));
        *out = n;
    }
    return 0;
}

static bool starts_test_argument(const struct parser *p)
{
    switch (p->cur.kind) {
    case T_NAME:
        return !cur_name(p, "else") && !cur_name(p, "or") && !cur_name(p, "and");
    case T_STRING:
    case T_INT:
    case T_FLOAT:
    case T_LBRACKET:
    case T_LBRACE:
        return true;
    default:
        return false;
    }
}

static int parse_test(struct parser *p, struct node *of, struct node **out)
{
    uint32_t line = p->cur.line;
    bool negated;
    TRY(parse_step(p));
    TRY(parse_skip_name(p, "not", &negated));
    struct node *n;
    TRY(node_new(p, N_TEST, line, &n));
    n->call.of = of;
    TRY(node_lift(p, n, of));
    TRY(parse_dotted(p, &n->call.name));
    n->call.func = test_find(n->call.name->s.p, n->call.name->s.n);
    if (!n->call.func)
        note_unknown(p, "test", n->call.name, line);
    if (cur_is(p, T_LPAREN)) {
        TRY(parse_args(p, n));
    } else if (starts_test_argument(p)) {
        if (cur_name(p, "is"))
            return parse_fail(p, line, "tests with 'is' cannot be chained");
        struct args *a = arena_alloc(&p->j->arena, sizeof *a, p->e);
        struct node *x;
        if (!a)
            return ERR_NOMEM;
        n->call.args = a;
        TRY(parse_primary(p, false, &x));
        TRY(parse_postfix(p, x, &x));
        TRY(nodes_push(p, &a->pos, x));
        TRY(node_lift(p, n, x));
    }
    *out = n;
    if (!negated)
        return 0;
    TRY(node_new(p, N_NOT, line, out));
    TRY(nodes_push(p, &(*out)->items, n));
    return node_lift(p, *out, n);
}

static int parse_filter_expr(struct parser *p, struct node *n, struct node **out)
{
    for (;;) {
        if (cur_is(p, T_PIPE))
            TRY(parse_filters(p, n, false, &n));
        else if (cur_name(p, "is"))
            TRY(parse_test(p, n, &n));
        else if (cur_is(p, T_LPAREN))
            TRY(parse_call(p, n, &n));
        else
            break;
    }
    *out = n;
    return 0;
}

/* ---- operators ------------------------------------------------------------------------------- */

static int operands(struct parser *p, enum node_kind kind, uint32_t line, struct node *a,
                    struct node *b, struct node **out)
{
    struct node *n;
    TRY(node_new(p, kind, line, &n));
    TRY(nodes_push(p, &n->items, a));
    TRY(node_lift(p, n, a));
    if (b) {
        TRY(nodes_push(p, &n->items, b));
        TRY(node_lift(p, n, b));
    }
    *out = n;
    return 0;
}

static int parse_unary(struct parser *p, bool filters, struct node **out)
{
    struct node *n;
    uint32_t line = p->cur.line;
    if (cur_is(p, T_SUB) || cur_is(p, T_ADD)) {
        enum node_kind kind = cur_is(p, T_SUB) ? N_NEG : N_POS;
        TRY(parse_enter(p));
        TRY(parse_step(p));
        TRY(parse_unary(p, false, &n));
        p->depth--;
        TRY(operands(p, kind, line, n, NULL, &n));
    } else {
        TRY(parse_primary(p, false, &n));
    }
    TRY(parse_postfix(p, n, &n));
    if (filters)
        TRY(parse_filter_expr(p, n, &n));
    *out = n;
    return 0;
}

static int parse_pow(struct parser *p, struct node **out)
{
    TRY(parse_unary(p, true, out));
    while (cur_is(p, T_POW)) {
        struct node *b;
        uint32_t line = p->cur.line;
        TRY(parse_step(p));
        TRY(parse_unary(p, true, &b));
        TRY(operands(p, N_BINARY, line, *out, b, out));
        (*out)->op = OP_POW;
    }
    return 0;
}

static int parse_product(struct parser *p, struct node **out)
{
    TRY(parse_pow(p, out));
    for (;;) {
        enum binary_op op;
        switch (p->cur.kind) {
        case T_MUL:
            op = OP_MUL;
            break;
        case T_DIV:
            op = OP_DIV;
            break;
        case T_FLOORDIV:
            op = OP_FLOORDIV;
            break;
        case T_MOD:
            op = OP_MOD;
            break;
        default:
            return 0;
        }
        struct node *b;
        uint32_t line = p->cur.line;
        TRY(parse_step(p));
        TRY(parse_pow(p, &b));
        TRY(operands(p, N_BINARY, line, *out, b, out));
        (*out)->op = (uint8_t)op;
    }
}

static int parse_concat(struct parser *p, struct node **out)
{
    TRY(parse_product(p, out));
    if (!cur_is(p, T_TILDE))
        return 0;
    struct node *n;
    TRY(operands(p, N_CONCAT, p->cur.line, *out, NULL, &n));
    while (cur_is(p, T_TILDE)) {
        struct node *b;
        TRY(parse_step(p));
        TRY(parse_product(p, &b));
        TRY(nodes_push(p, &n->items, b));
        TRY(node_lift(p, n, b));
    }
    *out = n;
    return 0;
}

static int parse_sum(struct parser *p, struct node **out)
{
    TRY(parse_concat(p, out));
    while (cur_is(p, T_ADD) || cur_is(p, T_SUB)) {
        struct node *b;
        enum binary_op op = cur_is(p, T_ADD) ? OP_ADD : OP_SUB;
        uint32_t line = p->cur.line;
        TRY(parse_step(p));
        TRY(parse_concat(p, &b));
        TRY(operands(p, N_BINARY, line, *out, b, out));
        (*out)->op = (uint8_t)op;
    }
    return 0;
}

/* The comparison at the current token, consumed; false when there is none. */
static int parse_compare_op(struct parser *p, enum compare_op *op, bool *found)
{
    static const struct {
        enum token_kind token;
        enum compare_op op;
    } table[] = {{T_EQ, CMP_EQ}, {T_NE, CMP_NE}, {T_LT, CMP_LT},
                 {T_LE, CMP_LE}, {T_GT, CMP_GT}, {T_GE, CMP_GE}};
    *found = true;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (cur_is(p, table[i].token)) {
            *op = table[i].op;
            return parse_step(p);
        }
    }
    if (cur_name(p, "in")) {
        *op = CMP_IN;
        return parse_step(p);
    }
    if (cur_name(p, "not")) {
        struct token next;
        TRY(parse_look(p, &next));
        if (token_name(&next, "in")) {
            *op = CMP_NOTIN;
            TRY(parse_step(p));
            return parse_step(p);
        }
    }
    *found = false;
    return 0;
}

static int parse_compare(struct parser *p, struct node **out)
{
    uint32_t line = p->cur.line;
    TRY(parse_sum(p, out));
    struct node *n = NULL;
    size_t cap = 0;
    for (;;) {
        enum compare_op op;
        bool found;
        struct node *b;
        TRY(parse_compare_op(p, &op, &found));
        if (!found)
            break;
        TRY(parse_sum(p, &b));
        if (!n) {
            TRY(node_new(p, N_COMPARE, line, &n));
            n->cmp.first = *out;
            TRY(node_lift(p, n, *out));
        }
        if (n->cmp.n == cap) {
            cap = cap ? cap * 2 : 1;
            struct operand *v = arena_array(&p->j->arena, cap, sizeof *v, p->e);
            if (!v)
                return ERR_NOMEM;
            if (n->cmp.n)
                memcpy(v, n->cmp.ops, n->cmp.n * sizeof *v);
            n->cmp.ops = v;
        }
        n->cmp.ops[n->cmp.n++] = (struct operand){op, b};
        TRY(node_lift(p, n, b));
    }
    if (n)
        *out = n;
    return 0;
}

static int parse_not(struct parser *p, struct node **out)
{
    if (!cur_name(p, "not"))
        return parse_compare(p, out);
    uint32_t line = p->cur.line;
    TRY(parse_enter(p));
    TRY(parse_step(p));
    TRY(parse_not(p, out));
    p->depth--;
    return operands(p, N_NOT, line, *out, NULL, out);
}

/* A chain of one boolean operator. */
static int parse_chain(struct parser *p, const char *word, enum node_kind kind,
                       int (*part)(struct parser *, struct node **), struct node **out)
{
    TRY(part(p, out));
    if (!cur_name(p, word))
        return 0;
    struct node *n;
    TRY(operands(p, kind, p->cur.line, *out, NULL, &n));
    while (cur_name(p, word)) {
        struct node *b;
        TRY(parse_step(p));
        TRY(part(p, &b));
        TRY(nodes_push(p, &n->items, b));
        TRY(node_lift(p, n, b));
    }
    *out = n;
    return 0;
}

static int parse_and(struct parser *p, struct node **out)
{
    return parse_chain(p, "and", N_AND, parse_not, out);
}

static int parse_or(struct parser *p, struct node **out)
{
    return parse_chain(p, "or", N_OR, parse_and, out);
}

static int parse_cond(struct parser *p, struct node **out)
{
    struct pending before = p->pending;
    TRY(parse_or(p, out));
    while (cur_name(p, "if")) {
        struct node *n;
        uint32_t line = p->cur.line;
        bool more;
        TRY(parse_step(p));
        TRY(node_new(p, N_COND, line, &n));
        n->cond.yes = *out;
        TRY(node_lift(p, n, *out));
        TRY(parse_or(p, &n->cond.test));
        TRY(node_lift(p, n, n->cond.test));
        TRY(parse_skip_name(p, "else", &more));
        if (more) {
            TRY(parse_enter(p));
            TRY(parse_cond(p, &n->cond.no));
            p->depth--;
            TRY(node_lift(p, n, n->cond.no));
        }
        *out = n;
        p->pending = before; /* conditional: unknown filters fail only when reached */
    }
    return 0;
}

int parse_expression(struct parser *p, bool condexpr, struct node **out)
{
    TRY(parse_enter(p));
    TRY(condexpr ? parse_cond(p, out) : parse_or(p, out));
    p->depth--;
    return 0;
}

static bool tuple_ends(const struct parser *p, const char *stop)
{
    return cur_is(p, T_VAR_END) || cur_is(p, T_BLOCK_END) || cur_is(p, T_RPAREN) ||
           (stop && cur_name(p, stop));
}

int parse_tuple(struct parser *p, unsigned flags, const char *stop, struct node **out)
{
    struct node *tuple = NULL, *x = NULL;
    uint32_t line = p->cur.line;
    TRY(parse_enter(p));
    for (;;) {
        if (x)
            TRY(parse_expect(p, T_COMMA, "','"));
        if (tuple_ends(p, stop))
            break;
        if (flags & TUPLE_TARGET)
            TRY(parse_primary(p, flags & TUPLE_NS, &x));
        else
            TRY(parse_expression(p, !(flags & TUPLE_NO_COND), &x));
        if (cur_is(p, T_COMMA) && !tuple)
            TRY(node_new(p, N_TUPLE, line, &tuple));
        if (tuple) {
            TRY(nodes_push(p, &tuple->items, x));
            TRY(node_lift(p, tuple, x));
        }
        if (!cur_is(p, T_COMMA))
            break;
    }
    p->depth--;
    if (!x && !(flags & TUPLE_PARENS))
        return parse_unexpected(p, "an expression");
    if (!x)
        return node_new(p, N_TUPLE, line, out);
    *out = tuple ? tuple : x;
    return 0;
}

static int check_target(struct parser *p, const struct node *n)
{
    if (n->kind == N_NSREF)
        return 0;
    if (n->kind == N_NAME) {
        if (p->fors && str_eq(&n->name->s, "loop"))
            return parse_fail(p, n->line, "the variable 'loop' cannot be assigned in a loop");
        return 0;
    }
    if (n->kind != N_TUPLE)
        return parse_fail(p, n->line, "cannot assign to an expression");
    for (size_t i = 0; i < n->items.n; i++)
        TRY(check_target(p, n->items.v[i]));
    return 0;
}

int parse_target(struct parser *p, bool ns, const char *stop, struct node **out)
{
    TRY(parse_tuple(p, TUPLE_TARGET | (ns ? TUPLE_NS : 0), stop, out));
    return check_target(p, *out);
}
