/*
 * The type of every tensor: the user's rules first, then the mix, then what fits the row's length.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/num.h"
#include "convert/imatrix.h"
#include "convert/plan.h"
#include "format/packed.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RULE_PATTERN_MAX = 4096, RULE_NEST_MAX = 100 };

struct rule {
    pcre2_code *code;
    const struct quant_type *type;
    size_t used; /* tensors that it decided */
};

struct rules {
    struct rule *v;
    size_t n;
    pcre2_match_data *data;
    pcre2_match_context *limits;
};

static void rules_release(struct rules *r)
{
    for (size_t i = 0; i < r->n; i++)
        pcre2_code_free(r->v[i].code);
    free(r->v);
    pcre2_match_data_free(r->data);
    pcre2_match_context_free(r->limits);
}

/* "REGEX=TYPE": the last '=' separates. */
static int rule_parse(struct rule *r, const char *text, struct err *e)
{
    const char *eq = strrchr(text, '=');
    int code = 0;
    PCRE2_SIZE at = 0;
    if (!eq || eq == text || !eq[1])
        return err_set(e, ERR_USAGE, "--tensor-type %.80s: must be REGEX=TYPE, like attn_v=Q8_0",
                       text);
    r->type = quant_by_name(eq + 1);
    if (!r->type)
        return err_set(e, ERR_USAGE, "--tensor-type %.80s: there is no weight type \"%.30s\"", text,
                       eq + 1);
    pcre2_compile_context *c = pcre2_compile_context_create(NULL);
    if (!c)
        return err_nomem(e, 0, "a pattern");
    pcre2_set_max_pattern_length(c, RULE_PATTERN_MAX);
    pcre2_set_parens_nest_limit(c, RULE_NEST_MAX);
    r->code = pcre2_compile((PCRE2_SPTR)text, (PCRE2_SIZE)(eq - text), PCRE2_UTF, &code, &at, c);
    pcre2_compile_context_free(c);
    if (r->code)
        return 0;
    char words[120] = "";
    pcre2_get_error_message(code, (PCRE2_UCHAR *)words, sizeof words);
    return err_set(e, ERR_USAGE, "--tensor-type %.80s: at character %zu: %s", text, (size_t)at + 1,
                   words);
}

static int rules_init(struct rules *r, const struct convert_options *o, struct err *e)
{
    memset(r, 0, sizeof *r);
    if (!o->n_rules)
        return 0;
    r->v = calloc(o->n_rules, sizeof *r->v);
    r->data = pcre2_match_data_create(1, NULL);
    r->limits = pcre2_match_context_create(NULL);
    if (!r->v || !r->data || !r->limits)
        return err_nomem(e, 0, "the rules");
    pcre2_set_match_limit(r->limits, 100000);
    pcre2_set_depth_limit(r->limits, 1000);
    int rc = 0;
    for (; !rc && r->n < o->n_rules; r->n++)
        rc = rule_parse(&r->v[r->n], o->rules[r->n], e);
    return rc;
}

/* The type of the first rule that matches; NULL when none does. */
static const struct quant_type *rules_type(struct rules *r, const char *name)
{
    for (size_t i = 0; i < r->n; i++)
        if (pcre2_match(r->v[i].code, (PCRE2_SPTR)name, strlen(name), 0, 0, r->data, r->limits) >=
            0) {
            r->v[i].used++;
            return r->v[i].type;
        }
    return NULL;
}

/* ---- what the mix looks at --------------------------------------------------------------------
 */

static size_t model_number(const struct source *src, const char *gguf, const char *hf, size_t none)
{
    const struct source_value *v, *arch;
    struct source_value first;
    char key[160];
    if (source_kind(src) == SOURCE_GGUF) {
        arch = source_value(src, "general.architecture");
        if (!arch || arch->type != SOURCE_STRING || arch->s.n > 60)
            return none;
        snprintf(key, sizeof key, "%.*s.%s", (int)arch->s.n, arch->s.p, gguf);
        v = source_value(src, key);
    } else {
        v = source_value(src, hf);
    }
    if (v && v->type == SOURCE_ARRAY && v->count && !source_array_get(src, v, 0, &first, NULL))
        v = &first;
    if (v && v->type == SOURCE_UINT && v->u < 1000000)
        return (size_t)v->u;
    if (v && v->type == SOURCE_INT && v->i >= 0 && v->i < 1000000)
        return (size_t)v->i;
    return none;
}

static bool text_is(const struct source_value *v, const char *s)
{
    return v && v->type == SOURCE_STRING && v->s.n == strlen(s) && memcmp(v->s.p, s, v->s.n) == 0;
}

static void model_facts(struct mix_model *m, const struct convert_plan *p)
{
    const struct source *src = p->src;
    const struct source_value *arch =
        source_value(src, source_kind(src) == SOURCE_GGUF ? "general.architecture" : "model_type");
    m->n_layer = model_number(src, "block_count", "num_hidden_layers", 0);
    m->n_expert = model_number(src, "expert_count", "n_routed_experts", 0);
    m->n_head = model_number(src, "attention.head_count", "num_attention_heads", 0);
    m->n_kv_head = model_number(src, "attention.head_count_kv", "num_key_value_heads", m->n_head);
    if (text_is(arch, "deepseek_v2") || text_is(arch, "deepseek_v3"))
        m->n_kv_head = 1; /* latent attention, as its GGUF files have it */
    m->wide = m->n_layer == 80 && (text_is(arch, "llama") || text_is(arch, "qwen2"));
    m->imatrix = p->imatrix != NULL;
    for (size_t i = 0; i < p->n; i++) {
        m->has_output |= strcmp(p->tensors[i].name, "output.weight") == 0;
        m->n_attn_v += mix_is_attn_v(p->tensors[i].name);
    }
}

/* ---- choosing ---------------------------------------------------------------------------------
 */

static struct mix_tensor mix_view(const struct convert_tensor *t)
{
    struct mix_tensor m = {.name = t->name, .dims = t->dims, .cols = plan_cols(t), .outer = 1};
    for (int i = 0; i + 2 < t->dims; i++)
        m.outer *= t->shape[i];
    return m;
}

static const struct quant_type *source_type(const struct convert_tensor *t)
{
    return t->n_runs ? t->runs[0].t->type : quant_by_id(QUANT_F32);
}

/* Hugging Face files have floats only; names there end in "weight" or "bias". */
static const struct quant_type *type_hf(const struct convert_plan *p,
                                        const struct convert_tensor *t)
{
    const struct quant_type *from = source_type(t);
    size_t n = strlen(t->name);
    if (n >= 23 && strcmp(t->name + n - 23, "e_score_correction_bias") == 0)
        return quant_by_id(QUANT_F32);
    enum quant_id to = p->o.mix ? p->o.mix->type : QUANT_F32;
    if (p->o.mix && (to < QUANT_INNER || (to == QUANT_NF4 ? nf4_takes(t) : fp8_takes(t))))
        return quant_by_id(to);
    return from->safetensors ? from : quant_by_id(QUANT_F32);
}

/* Vectors and what else is not quantized: as it is; from Hugging Face files, whose norms are often
   BF16, as F32. */
static const struct quant_type *type_plain(const struct convert_plan *p,
                                           const struct convert_tensor *t)
{
    const struct quant_type *from = source_type(t);
    bool keep = source_kind(p->src) == SOURCE_GGUF && t->n_runs && from->block == 1;
    return keep ? from : quant_by_id(QUANT_F32);
}

/* Kinds that only checkpoints have (FP8 with scales, GPTQ, …) become F32, which holds their values
   exactly; packed files can hold them as they are. */
static const struct quant_type *type_kept(const struct convert_plan *p,
                                          const struct convert_tensor *t)
{
    const struct quant_type *from = source_type(t);
    bool packs = p->o.packed && packed_takes(from, t->dims) && !plan_turns(t);
    return from->id < QUANT_INNER || packs ? from : quant_by_id(QUANT_F32);
}

/*
 * Packed is what products read: all matrices but tables that are only looked up. The embedding is
 * the head too where there is none.
 */
static bool type_packs(const struct convert_plan *p, const struct mix_model *m,
                       const struct convert_tensor *t)
{
    bool table =
        strstr(t->name, "embed_tokens") || (strstr(t->name, "token_embd") && m->has_output);
    return p->o.packed && packed_takes(t->type, t->dims) && (!table || t->type->id >= QUANT_INNER);
}

static const struct quant_type *type_gguf(const struct convert_plan *p, struct mix_state *s,
                                          struct rules *r, struct convert_tensor *t)
{
    struct mix_tensor m = mix_view(t);
    if (!mix_quantizes(&m))
        return type_plain(p, t);
    const struct quant_type *type = rules_type(r, t->name);
    if (!type && !s->mix)
        return type_kept(p, t);
    if (!type)
        type = p->o.pure ? quant_by_id(s->mix->type) : mix_type(s, &m);
    const struct quant_type *fit = mix_fit(type, m.cols);
    t->fallback = fit != type;
    return fit;
}

static int by_order(const void *a, const void *b)
{
    const struct convert_tensor *x = *(struct convert_tensor *const *)a,
                                *y = *(struct convert_tensor *const *)b;
    return mix_order(x->name, y->name);
}

/* Importance of the tensor, checked for size. */
static int type_importance(struct convert_plan *p, struct convert_tensor *t, struct err *e)
{
    struct mix_tensor m = mix_view(t);
    if (p->imatrix && t->type->block > 1) {
        size_t n = 0;
        const float *v = imatrix_find(p->imatrix, t->name, &n);
        if (v && n != m.cols && n != m.cols * m.outer)
            return err_set(e, ERR_FORMAT,
                           "%.200s: \"%s\" has %zu values, but the tensor's rows have %llu: the "
                           "file is for another model",
                           p->o.imatrix, t->name, n, (unsigned long long)m.cols);
        t->importance = v;
        t->importance_outer = v ? n / (size_t)m.cols : 0;
    }
    t->poor = p->o.mix && !t->importance && t->type != source_type(t) &&
              mix_wants_imatrix(p->o.mix, t->type) && !strstr(t->name, "token_embd") &&
              strcmp(t->name, "output.weight") != 0;
    return 0;
}

static void type_notes(struct convert_plan *p, const struct rules *rules)
{
    for (size_t i = 0; i < rules->n; i++)
        if (!rules->v[i].used)
            plan_note(p,
                      "--tensor-type %.80s decides nothing: no matrix of this name is left for it",
                      p->o.rules[i]);

    size_t fallback = 0, poor = 0, again = 0, importance = 0, rounded = 0;
    const char *first = NULL, *was = NULL;
    for (size_t i = 0; i < p->n; i++) {
        const struct convert_tensor *t = &p->tensors[i];
        const struct quant_type *from = source_type(t);
        if (t->fallback && !fallback++)
            first = t->name;
        poor += t->poor;
        importance += t->importance != NULL;
        rounded +=
            !p->o.mix && (from->id >= QUANT_INNER || from->block > 1) && t->type->id == QUANT_F32;
        if (from->block > 1 && t->type->block > 1 && from != t->type && !again++)
            was = t->from;
    }
    if (fallback)
        plan_note(p,
                  "%zu tensors (%s…) have rows that are no multiple of the type's block and get "
                  "another type",
                  fallback, first);
    if (poor)
        plan_note(p, "%zu tensors get a type that is poor without --imatrix", poor);
    if (again)
        plan_note(p,
                  "%zu tensors are quantized already (%s): quantizing again loses more than from "
                  "the original weights",
                  again, was);
    if (rounded)
        plan_note(p,
                  "%zu tensors are of a kind that the output does not have and become F32, which "
                  "is exact and large; --type BF16 takes half, a quantization less",
                  rounded);
    if (p->imatrix && !importance)
        plan_note(p, "the imatrix knows none of these tensors");
}

int plan_types(struct convert_plan *p, struct err *e)
{
    struct mix_state s = {.mix = p->o.mix};
    struct rules rules;
    struct convert_tensor **order = calloc(p->n ? p->n : 1, sizeof(struct convert_tensor *));
    int rc = rules_init(&rules, &p->o, e);
    if (!rc && !order)
        rc = err_nomem(e, p->n * sizeof *order, "the plan");
    if (rc)
        goto out;
    for (size_t i = 0; i < p->n; i++)
        order[i] = &p->tensors[i];
    qsort(order, p->n, sizeof(struct convert_tensor *), by_order);
    model_facts(&s.model, p);
    for (size_t i = 0; !rc && i < p->n; i++) {
        struct convert_tensor *t = order[i];
        t->type = p->o.format == CONVERT_HF ? type_hf(p, t) : type_gguf(p, &s, &rules, t);
        t->packed = type_packs(p, &s.model, t);
        rc = type_importance(p, t, e);
    }
    if (!rc && p->o.mix && p->o.mix->type == QUANT_E4M3)
        rc = fp8_tensors(p, e);
    if (!rc && p->o.mix && p->o.mix->type == QUANT_NF4)
        rc = nf4_tensors(p, e);
    if (!rc)
        type_notes(p, &rules);
out:
    rules_release(&rules);
    free(order);
    return rc;
}
