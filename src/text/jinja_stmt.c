/*
 * The parser, second half: statements. One row of `tags` per tag; each has a function that reads
 * the tag, its body and its end tag.
 *
 * Left out: {% extends %}, {% include %} and {% import %} parse but refuse to run, since a chat
 * template has no other templates to load.
 */
#include "text/jinja_parse.h"

#include "base/num.h"

#include <string.h>

static int parse_nodes(struct parser *p, const char *const *ends, struct nodes *out);

static int scope_node_of(struct parser *p, uint32_t line, struct node **out)
{
    return node_new(p, S_SCOPE, line, out);
}

static int lift_all(struct parser *p, struct node *n, const struct nodes *l)
{
    for (size_t i = 0; i < l->n; i++)
        TRY(node_lift(p, n, l->v[i]));
    return 0;
}

/* The body of `owner` up to one of `ends` (NULL-terminated), which stays the current token. */
static int parse_body(struct parser *p, struct node *owner, const char *const *ends,
                      struct nodes *out)
{
    if (cur_is(p, T_COLON))
        TRY(parse_step(p));
    TRY(parse_expect(p, T_BLOCK_END, "the end of the tag"));
    TRY(parse_nodes(p, ends, out));
    return lift_all(p, owner, out);
}

/*
 * A body with a scope of its own: unknown filters in it are errors at once, even when the whole
 * stands under a condition. `own_loops`: break and continue cannot leave it.
 */
static int parse_own_body(struct parser *p, struct node *owner, const char *const *ends,
                          bool own_loops, struct nodes *out)
{
    struct pending before = p->pending;
    unsigned loops = p->loops;
    p->pending.any = false;
    if (own_loops)
        p->loops = 0;
    TRY(parse_body(p, owner, ends, out));
    if (p->pending.any)
        return parse_fail(p, p->pending.line, "%s", p->pending.what);
    p->pending = before;
    p->loops = loops;
    return 0;
}

static const char *const
    end_for[] = {"endfor", "else", NULL},
    *const end_for_else[] = {"endfor", NULL}, *const end_if[] = {"elif", "else", "endif", NULL},
    *const end_else[] = {"endif", NULL}, *const end_set[] = {"endset", NULL},
    *const end_macro[] = {"endmacro", NULL}, *const end_call[] = {"endcall", NULL},
    *const end_filter[] = {"endfilter", NULL}, *const end_with[] = {"endwith", NULL},
    *const end_generation[] = {"endgeneration", NULL}, *const end_block[] = {"endblock", NULL},
    *const end_autoescape[] = {"endautoescape", NULL};

static int parse_set(struct parser *p, uint32_t line, struct node **out)
{
    struct node *target;
    TRY(parse_target(p, true, NULL, &target));
    if (cur_is(p, T_ASSIGN)) {
        TRY(parse_step(p));
        TRY(node_new(p, S_SET, line, out));
        (*out)->set.target = target;
        TRY(parse_tuple(p, 0, NULL, &(*out)->set.value));
        TRY(node_lift(p, *out, target));
        return node_lift(p, *out, (*out)->set.value);
    }
    TRY(node_new(p, S_SETBLOCK, line, out));
    (*out)->set.target = target;
    TRY(node_lift(p, *out, target));
    TRY(parse_filters(p, NULL, false, &(*out)->set.value));
    TRY(node_lift(p, *out, (*out)->set.value));
    TRY(parse_own_body(p, *out, end_set, false, &(*out)->set.body));
    return parse_step(p);
}

static int parse_for(struct parser *p, uint32_t line, struct node **out)
{
    struct node *n;
    bool has;
    TRY(node_new(p, S_FOR, line, &n));
    *out = n;
    p->fors++;
    TRY(parse_target(p, false, "in", &n->loop.target));
    if (!cur_name(p, "in"))
        return parse_unexpected(p, "'in'");
    TRY(parse_step(p));
    TRY(parse_tuple(p, TUPLE_NO_COND, "recursive", &n->loop.iter));
    TRY(node_lift(p, n, n->loop.target));
    TRY(node_lift(p, n, n->loop.iter));
    TRY(parse_skip_name(p, "if", &has));
    if (has) {
        TRY(parse_expression(p, true, &n->loop.test));
        TRY(node_lift(p, n, n->loop.test));
    }
    TRY(parse_skip_name(p, "recursive", &n->loop.recursive));
    unsigned loops = p->loops;
    p->loops = loops + 1;
    TRY(parse_own_body(p, n, end_for, false, &n->loop.body));
    p->loops = n->loop.recursive ? 0 : loops;
    TRY(parse_skip_name(p, "else", &has));
    if (has)
        TRY(parse_own_body(p, n, end_for_else, false, &n->loop.other));
    if (!has || cur_name(p, "endfor"))
        TRY(parse_step(p));
    p->loops = loops;
    p->fors--;
    return 0;
}

static int push_branch(struct parser *p, struct node *n, struct branch b)
{
    size_t k = n->branches.n;
    if ((k & (k - 1)) == 0) { /* full at powers of two */
        struct branch *v = arena_array(&p->j->arena, k ? k * 2 : 1, sizeof *v, p->e);
        if (!v)
            return ERR_NOMEM;
        if (k)
            memcpy(v, n->branches.v, k * sizeof *v);
        n->branches.v = v;
    }
    n->branches.v[n->branches.n++] = b;
    return 0;
}

static int parse_if(struct parser *p, uint32_t line, struct node **out)
{
    struct pending before = p->pending;
    TRY(node_new(p, S_IF, line, out));
    for (bool more = true; more;) {
        struct branch b = {NULL, {0}};
        TRY(parse_tuple(p, TUPLE_NO_COND, NULL, &b.test));
        TRY(node_lift(p, *out, b.test));
        TRY(parse_body(p, *out, end_if, &b.body));
        TRY(push_branch(p, *out, b));
        TRY(parse_skip_name(p, "elif", &more));
    }
    if (cur_name(p, "else")) {
        struct branch b = {NULL, {0}};
        TRY(parse_step(p));
        TRY(parse_body(p, *out, end_else, &b.body));
        TRY(push_branch(p, *out, b));
    }
    p->pending = before;
    return parse_step(p);
}

/* "(a, b=1)" */
static int parse_signature(struct parser *p, struct node *owner, struct signature *s)
{
    enum { MACRO_PARAMS_MAX = 64 };
    TRY(parse_expect(p, T_LPAREN, "'('"));
    s->params = arena_array(&p->j->arena, MACRO_PARAMS_MAX, sizeof *s->params, p->e);
    s->defaults = arena_array(&p->j->arena, MACRO_PARAMS_MAX, sizeof *s->defaults, p->e);
    if (!s->params || !s->defaults)
        return ERR_NOMEM;
    while (!cur_is(p, T_RPAREN)) {
        uint32_t line = p->cur.line;
        if (s->nparams)
            TRY(parse_expect(p, T_COMMA, "','"));
        if (s->nparams == MACRO_PARAMS_MAX)
            return parse_fail(p, line, "a macro takes at most %d parameters", MACRO_PARAMS_MAX);
        const struct name *name;
        struct node *def = NULL;
        TRY(parse_expect_name(p, &name));
        for (size_t i = 0; i < s->nparams; i++)
            if (s->params[i] == name)
                return parse_fail(p, line, "a macro has two parameters of the same name");
        if (cur_is(p, T_ASSIGN)) {
            TRY(parse_step(p));
            TRY(parse_expression(p, true, &def));
            TRY(node_lift(p, owner, def));
        } else if (s->nparams && s->defaults[s->nparams - 1]) {
            return parse_fail(p, line, "a parameter without default follows one with a default");
        }
        s->explicit_caller |= str_eq(&name->s, "caller");
        s->params[s->nparams] = name;
        s->defaults[s->nparams++] = def;
    }
    return parse_step(p);
}

static bool has_param(const struct signature *s, const char *name)
{
    for (size_t i = 0; i < s->nparams; i++)
        if (str_eq(&s->params[i]->s, name))
            return true;
    return false;
}

static int parse_macro_body(struct parser *p, struct node *owner, const char *const *ends,
                            struct signature *s)
{
    struct macro_frame frame = {.up = p->macro};
    p->macro = &frame;
    int code = parse_own_body(p, owner, ends, true, &s->body);
    p->macro = frame.up;
    if (code)
        return code;
    s->uses_caller = frame.caller;
    s->uses_kwargs = frame.kwargs && !has_param(s, "kwargs");
    s->uses_varargs = frame.varargs && !has_param(s, "varargs");
    if (frame.caller && s->explicit_caller)
        for (size_t i = 0; i < s->nparams; i++)
            if (str_eq(&s->params[i]->s, "caller") && !s->defaults[i])
                return parse_fail(p, owner->line, "the parameter 'caller' needs a default");
    return parse_step(p);
}

static int parse_macro(struct parser *p, uint32_t line, struct node **out)
{
    struct signature *s = arena_alloc(&p->j->arena, sizeof *s, p->e);
    if (!s)
        return ERR_NOMEM;
    TRY(node_new(p, S_MACRO, line, out));
    (*out)->macro = s;
    TRY(parse_expect_name(p, &s->name));
    TRY(parse_signature(p, *out, s));
    return parse_macro_body(p, *out, end_macro, s);
}

static int parse_call_block(struct parser *p, uint32_t line, struct node **out)
{
    struct signature *s = arena_alloc(&p->j->arena, sizeof *s, p->e);
    if (!s)
        return ERR_NOMEM;
    TRY(node_new(p, S_CALL, line, out));
    (*out)->callblock.caller = s;
    if (cur_is(p, T_LPAREN))
        TRY(parse_signature(p, *out, s));
    TRY(parse_expression(p, true, &(*out)->callblock.call));
    if ((*out)->callblock.call->kind != N_CALL)
        return parse_fail(p, line, "{%% call %%} needs a call");
    TRY(node_lift(p, *out, (*out)->callblock.call));
    return parse_macro_body(p, *out, end_call, s);
}

static int parse_filter_block(struct parser *p, uint32_t line, struct node **out)
{
    struct pending before = p->pending;
    p->pending.any = false;
    TRY(node_new(p, S_FILTER, line, out));
    TRY(parse_filters(p, NULL, true, &(*out)->filter.value));
    if (p->pending.any)
        return parse_fail(p, p->pending.line, "%s", p->pending.what);
    p->pending = before;
    TRY(node_lift(p, *out, (*out)->filter.value));
    TRY(parse_own_body(p, *out, end_filter, false, &(*out)->filter.body));
    return parse_step(p);
}

static int parse_with(struct parser *p, uint32_t line, struct node **out)
{
    TRY(node_new(p, S_WITH, line, out));
    while (!cur_is(p, T_BLOCK_END)) {
        struct node *target, *value;
        if ((*out)->with.targets.n)
            TRY(parse_expect(p, T_COMMA, "','"));
        TRY(parse_target(p, false, NULL, &target));
        TRY(parse_expect(p, T_ASSIGN, "'='"));
        TRY(parse_expression(p, true, &value));
        TRY(nodes_push(p, &(*out)->with.targets, target));
        TRY(nodes_push(p, &(*out)->with.values, value));
        TRY(node_lift(p, *out, target));
        TRY(node_lift(p, *out, value));
    }
    TRY(parse_own_body(p, *out, end_with, false, &(*out)->with.body));
    return parse_step(p);
}

static int parse_generation(struct parser *p, uint32_t line, struct node **out)
{
    TRY(scope_node_of(p, line, out));
    TRY(parse_own_body(p, *out, end_generation, true, &(*out)->body));
    return parse_step(p);
}

static int parse_block(struct parser *p, uint32_t line, struct node **out)
{
    const struct name *name;
    struct node *mark;
    bool has;
    TRY(parse_expect_name(p, &name));
    for (size_t i = 0; i < p->blocks.n; i++)
        if (p->blocks.v[i]->name == name)
            return parse_fail(p, line, "block '%.*s' is defined twice", (int)num_min(name->s.n, 60),
                              name->s.p);
    TRY(node_new(p, N_NAME, line, &mark));
    mark->name = name;
    TRY(nodes_push(p, &p->blocks, mark));
    TRY(parse_skip_name(p, "scoped", &has));
    TRY(parse_skip_name(p, "required", &has));
    TRY(scope_node_of(p, line, out));
    TRY(parse_own_body(p, *out, end_block, true, &(*out)->body));
    TRY(parse_step(p));
    if (cur_is(p, T_NAME) && p->cur.n == name->s.n && !memcmp(p->cur.p, name->s.p, name->s.n))
        return parse_step(p);
    return 0;
}

static int parse_autoescape(struct parser *p, uint32_t line, struct node **out)
{
    struct node *on;
    TRY(parse_expression(p, true, &on));
    TRY(scope_node_of(p, line, out));
    TRY(parse_own_body(p, *out, end_autoescape, false, &(*out)->body));
    if (on->kind != N_CONST || value_truth(on->value)) {
        (*out)->kind = S_REFUSE;
        (*out)->refusal = "autoescape is not supported in chat templates";
    }
    return parse_step(p);
}

static int parse_print(struct parser *p, uint32_t line, struct node **out)
{
    TRY(scope_node_of(p, line, out));
    while (!cur_is(p, T_BLOCK_END)) {
        struct node *n;
        if ((*out)->body.n)
            TRY(parse_expect(p, T_COMMA, "','"));
        TRY(node_new(p, S_OUTPUT, p->cur.line, &n));
        TRY(parse_expression(p, true, &n->set.value));
        TRY(node_lift(p, n, n->set.value));
        TRY(nodes_push(p, &(*out)->body, n));
        TRY(node_lift(p, *out, n));
    }
    return 0;
}

static int parse_break(struct parser *p, uint32_t line, struct node **out)
{
    if (!p->loops)
        return parse_fail(p, line, "break outside of a loop");
    return node_new(p, S_BREAK, line, out);
}

static int parse_continue(struct parser *p, uint32_t line, struct node **out)
{
    if (!p->loops)
        return parse_fail(p, line, "continue outside of a loop");
    return node_new(p, S_CONTINUE, line, out);
}

static int parse_refused(struct parser *p, uint32_t line, struct node **out)
{
    struct node *ignored;
    TRY(node_new(p, S_REFUSE, line, out));
    (*out)->refusal = "a chat template cannot load other templates (extends, include, import)";
    TRY(parse_expression(p, true, &ignored));
    while (!cur_is(p, T_BLOCK_END)) {
        if (!cur_is(p, T_NAME) && !cur_is(p, T_COMMA))
            return parse_unexpected(p, NULL);
        TRY(parse_step(p));
    }
    return 0;
}

static const struct tag {
    const char *name;
    int (*parse)(struct parser *p, uint32_t line, struct node **out);
} tags[] = {
    {"set", parse_set},
    {"for", parse_for},
    {"if", parse_if},
    {"macro", parse_macro},
    {"call", parse_call_block},
    {"filter", parse_filter_block},
    {"with", parse_with},
    {"generation", parse_generation},
    {"block", parse_block},
    {"autoescape", parse_autoescape},
    {"print", parse_print},
    {"break", parse_break},
    {"continue", parse_continue},
    {"extends", parse_refused},
    {"include", parse_refused},
    {"import", parse_refused},
    {"from", parse_refused},
};

static int parse_statement(struct parser *p, struct node **out)
{
    uint32_t line = p->cur.line;
    if (!cur_is(p, T_NAME))
        return parse_unexpected(p, "the name of a tag");
    for (size_t i = 0; i < NUM_COUNT(tags); i++) {
        if (!cur_name(p, tags[i].name))
            continue;
        TRY(parse_enter(p));
        TRY(parse_step(p));
        TRY(tags[i].parse(p, line, out));
        p->depth--;
        return parse_expect(p, T_BLOCK_END, "the end of the tag");
    }
    if (p->cur.n > 3 && !memcmp(p->cur.p, "end", 3))
        return parse_unexpected(p, NULL);
    return parse_fail(p, line, "unknown tag '%.*s'", (int)num_min(p->cur.n, 60), p->cur.p);
}

static bool at_end_tag(const struct parser *p, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (cur_name(p, *ends))
            return true;
    return false;
}

static int parse_data(struct parser *p, struct node **out)
{
    struct str *s = arena_alloc(&p->j->arena, sizeof *s, p->e);
    if (!s)
        return ERR_NOMEM;
    *s = (struct str){.p = p->cur.p, .n = p->cur.n, .chars = SIZE_MAX, .trusted = true};
    TRY(node_new(p, S_DATA, p->cur.line, out));
    (*out)->value = value_str(s);
    return parse_step(p);
}

/* Statements up to one of `ends`, or to the end of the template when `ends` is NULL. */
static int parse_nodes(struct parser *p, const char *const *ends, struct nodes *out)
{
    while (!cur_is(p, T_EOF)) {
        struct node *n;
        if (cur_is(p, T_DATA)) {
            TRY(parse_data(p, &n));
        } else if (cur_is(p, T_VAR_BEGIN)) {
            TRY(parse_step(p));
            TRY(node_new(p, S_OUTPUT, p->cur.line, &n));
            TRY(parse_tuple(p, 0, NULL, &n->set.value));
            TRY(node_lift(p, n, n->set.value));
            TRY(parse_expect(p, T_VAR_END, "'}}'"));
        } else {
            TRY(parse_expect(p, T_BLOCK_BEGIN, "a tag"));
            if (at_end_tag(p, ends))
                return 0;
            TRY(parse_statement(p, &n));
        }
        TRY(nodes_push(p, out, n));
    }
    if (ends)
        return parse_fail(p, p->cur.line, "unexpected end of template: '%s' is missing",
                          ends[0] == end_for[0] ? "endfor"
                          : ends == end_if      ? "endif"
                                                : ends[0]);
    return 0;
}

int parse_template(struct parser *p, struct nodes *out)
{
    TRY(parse_step(p));
    TRY(parse_nodes(p, NULL, out));
    if (p->pending.any)
        return parse_fail(p, p->pending.line, "%s", p->pending.what);
    return 0;
}
