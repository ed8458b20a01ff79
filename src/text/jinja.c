/*
 * Jinja: the public functions. How the parts hang together:
 *
 *     text ─ jinja_lex ─▶ tokens ─ jinja_parse, jinja_stmt ─▶ tree (jinja_ast.h)
 *     tree + context ─ jinja_exec (statements), jinja_eval (expressions) ─▶ text with provenance
 *     jinja_ops (operators, attributes), jinja_func (arguments, methods, globals), jinja_filters
 * and jinja_seq (filters), jinja_tests, jinja_str and jinja_char (strings), jinja_format
 * (patterns), jinja_text (str, repr, JSON), jinja_value (values)
 *
 * The language is that of Jinja2 3.1 in the set-up that Hugging Face's apply_chat_template uses;
 * the goldens of the tests come from there. A rendering owns one arena and one counter of steps, so
 * a hostile template ends with ERR_LIMIT after bounded time and memory.
 */
#include "text/jinja.h"

#include "base/num.h"
#include "base/rng.h"
#include "text/jinja_parse.h"
#include "text/jinja_vm.h"

#include <stdlib.h>
#include <string.h>

enum { STEPS_DEFAULT = 20000000 };
static const size_t output_default = (size_t)64 << 20, memory_default = (size_t)512 << 20,
                    tree_max = (size_t)512 << 20;

/* ---- templates ---------------------------------------------------------------------------------
 */

static int parse(struct jinja *j, const char *text, size_t n, struct err *e)
{
    struct parser p = {.j = j, .e = e};
    TRY(lex_init(&p.lx, &j->arena, text, n, e));
    TRY(name_intern(&p, "loop", 4, &j->loop));
    TRY(name_intern(&p, "caller", 6, &j->caller));
    TRY(name_intern(&p, "varargs", 7, &j->varargs));
    TRY(name_intern(&p, "kwargs", 6, &j->kwargs));
    return parse_template(&p, &j->body);
}

int jinja_new(struct jinja **out, const char *text, size_t n, struct err *e)
{
    struct err local;
    *out = NULL;
    if (!e)
        e = &local;
    struct jinja *j = calloc(1, sizeof *j);
    if (!j)
        return err_nomem(e, sizeof *j, "a template");
    arena_init(&j->arena, tree_max);
    j->seed = rng_os_seed();
    int code = parse(j, text, n, e);
    if (code) {
        jinja_free(j);
        return code;
    }
    *out = j;
    return 0;
}

void jinja_free(struct jinja *j)
{
    if (!j)
        return;
    arena_release(&j->arena);
    free(j);
}

/* ---- context -----------------------------------------------------------------------------------
 */

static int from_json(struct vm *vm, const json_t *json, bool trusted, unsigned depth,
                     struct value *out);

static int from_array(struct vm *vm, const json_t *json, bool trusted, unsigned depth,
                      struct value *out)
{
    struct list *l;
    TRY(list_new(vm, json_array_size(json), &l));
    for (size_t i = 0; i < json_array_size(json); i++) {
        TRY(from_json(vm, json_array_get(json, i), trusted, depth + 1, &l->v[i]));
        l->n = i + 1;
    }
    *out = value_list(l);
    return 0;
}

static int fill_dict(struct vm *vm, struct dict *d, const json_t *json, bool trusted,
                     unsigned depth)
{
    json_t *object = (json_t *)(uintptr_t)json; /* jansson's iterators take no const */
    for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
        struct value k, v;
        TRY(str_wrap(vm, json_object_iter_key(it), json_object_iter_key_len(it), trusted, &k));
        TRY(from_json(vm, json_object_iter_value(it), trusted, depth + 1, &v));
        TRY(dict_set(vm, d, k, v));
    }
    return 0;
}

/* Strings are not copied: the JSON outlives the rendering. */
static int from_json(struct vm *vm, const json_t *json, bool trusted, unsigned depth,
                     struct value *out)
{
    struct dict *d;
    if (depth > VALUE_DEPTH_MAX)
        return err_set(vm->e, ERR_LIMIT,
                       "the data for the template is nested deeper than %d levels",
                       VALUE_DEPTH_MAX);
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        TRY(dict_new(vm, json_object_size(json), &d));
        TRY(fill_dict(vm, d, json, trusted, depth));
        *out = (struct value){.type = V_DICT, .d = d};
        return 0;
    case JSON_ARRAY:
        return from_array(vm, json, trusted, depth, out);
    case JSON_STRING:
        return str_wrap(vm, json_string_value(json), json_string_length(json), trusted, out);
    case JSON_INTEGER:
        *out = value_int(json_integer_value(json));
        break;
    case JSON_REAL:
        *out = value_float(json_real_value(json));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = value_bool(json_is_true(json));
        break;
    case JSON_NULL:
        *out = value_none;
    }
    out->trusted = trusted;
    return 0;
}

/* ---- rendering ---------------------------------------------------------------------------------
 */

void jinja_result_init(struct jinja_result *r, size_t max)
{
    buf_init(&r->text, max);
    buf_init(&r->trusted, max);
    r->raised = false;
}

void jinja_result_release(struct jinja_result *r)
{
    buf_release(&r->text);
    buf_release(&r->trusted);
}

static int run(struct vm *vm, const json_t *context, const json_t *globals)
{
    TRY(dict_new(vm, json_object_size(context) + json_object_size(globals), &vm->context));
    if (globals)
        TRY(fill_dict(vm, vm->context, globals, true, 0));
    TRY(fill_dict(vm, vm->context, context, false, 0));
    TRY(scope_push(vm, NULL));
    return exec_body(vm, &vm->jinja->body);
}

int jinja_render(const struct jinja *j, const json_t *context, const struct jinja_limits *limits,
                 struct jinja_result *out, struct err *e)
{
    static const struct jinja_limits none = {0};
    struct err local;
    if (!limits)
        limits = &none;
    if (!e)
        e = &local;
    out->raised = false;
    if (!json_is_object(context))
        return err_set(e, ERR_USAGE, "the context of a template must be a JSON object");
    size_t output = limits->output ? limits->output : output_default;
    size_t room = num_min(out->text.max, out->trusted.max);
    struct vm vm = {
        .jinja = j,
        .e = e,
        .steps_max = limits->steps ? limits->steps : STEPS_DEFAULT,
        .out = out,
        .output_max =
            num_min(output > SIZE_MAX - out->text.len ? SIZE_MAX : out->text.len + output, room),
        .now = limits->now ? limits->now : time(NULL),
    };
    arena_init(&vm.arena, limits->memory ? limits->memory : memory_default);
    int code = run(&vm, context, limits->globals);
    out->raised = code && vm.raised;
    arena_release(&vm.arena);
    return code;
}
