/* Whole grammars of one form, and forms as parts of others: see grammar.h. */
#include "base/num.h"
#include "text/grammar_impl.h"

#include <string.h>

struct gx *gchoice(struct gbuild *b, const json_t *strings)
{
    size_t n = json_array_size(strings), total = 0, i;
    const json_t *s;
    if (!n)
        return gbuild_fail(b, ERR_FORMAT, "there is no choice to choose from");
    struct gword *w = gbuild_alloc(b, n, sizeof *w);
    if (!w)
        return NULL;
    json_array_foreach(strings, i, s)
    {
        if (!json_is_string(s))
            return gbuild_fail(b, ERR_FORMAT, "choice %zu is no string", i + 1);
        w[i] = (struct gword){json_string_value(s), json_string_length(s)};
        total += w[i].n;
    }
    if (total > GRAMMAR_TEXT_MAX)
        return gbuild_fail(b, ERR_LIMIT, "the choices have more than %d MB",
                           GRAMMAR_TEXT_MAX >> 20);
    return gx_words(b, w, n);
}

static struct gx *schema(struct gjson *j, const json_t *s)
{
    bool before = j->b->code;
    struct gx *x = gschema(j, s, false);
    if (j->b->code && !before)
        err_ctx(&j->b->err, "the schema");
    return x;
}

struct gx *gform(struct gjson *j, const struct grammar_form *f)
{
    switch (f->kind) {
    case GRAMMAR_FREE:
        return gx_until(j->b, "", NULL, true);
    case GRAMMAR_JSON:
        return gjson_object(j);
    case GRAMMAR_SCHEMA:
        return schema(j, f->json);
    case GRAMMAR_REGEX:
        return gregex(j->b, f->text, f->n, NULL, true);
    case GRAMMAR_CHOICE:
        return gchoice(j->b, f->json);
    case GRAMMAR_GBNF:
        return ggbnf(j->b, f->text, f->n);
    case GRAMMAR_TAGS:
        return gtags(j, f->json);
    }
    return NULL;
}

int grammar_new(struct grammar **out, const struct grammar_form *f, struct err *e)
{
    struct gbuild b;
    *out = NULL;
    int code = gbuild_init(&b, e);
    struct gjson j = {.b = &b};
    code = code ? code : gbuild_finish(&b, gform(&j, f), out, e);
    gbuild_release(&b);
    return code;
}

int grammar_new_json(struct grammar **out, struct err *e)
{
    return grammar_new(out, &(struct grammar_form){.kind = GRAMMAR_JSON}, e);
}

int grammar_new_schema(struct grammar **out, const json_t *s, struct err *e)
{
    return grammar_new(out, &(struct grammar_form){.kind = GRAMMAR_SCHEMA, .json = s}, e);
}

int grammar_new_regex(struct grammar **out, const char *s, size_t n, struct err *e)
{
    return grammar_new(out, &(struct grammar_form){.kind = GRAMMAR_REGEX, .text = s, .n = n}, e);
}

int grammar_new_gbnf(struct grammar **out, const char *s, size_t n, struct err *e)
{
    return grammar_new(out, &(struct grammar_form){.kind = GRAMMAR_GBNF, .text = s, .n = n}, e);
}
