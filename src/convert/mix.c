/*
 * Mixes: see mix.h. A rule is a row of mix.def; this file says what kinds of tensors there are and
 * when a condition holds.
 */
#include "convert/mix.h"

#include "base/num.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum mix_id {
#define MIX(id, name, alias, ftype, type, about) MIX_##id,
#include "convert/mix.def"
#undef MIX
    MIX_COUNT
};
_Static_assert(MIX_COUNT <= 64, "mixes are bits of a word");

static const struct mix mixes[] = {
#define MIX(id, name, alias, ftype, type, about) {name, alias, ftype, QUANT_##type, about},
#include "convert/mix.def"
#undef MIX
};

enum mix_kind {
    K_HEAD = 1,
    K_EMBED = 2,
    K_V = 4,
    K_K = 8,
    K_Q = 16,
    K_OUT = 32,
    K_UP = 64,
    K_GATE = 128,
    K_DOWN = 256,
    K_LATENT = 512, /* the two parts of a latent attention's kv_b */
    K_OTHER = 1024,
    K_ALL = 2047,
};

enum mix_when {
    ALWAYS,
    ODD_ROWS,      /* the default's block does not divide the row */
    ROUTED,        /* several matrices in one: routed experts */
    SEPARATE_HEAD, /* the embedding is not the head as well */
    GQA_4,         /* four or more heads share keys and values */
    GQA_OR_EXPERTS_4,
    EXPERTS_8, /* exactly */
    EXPERTS_8_MORE_BITS,
    NO_IMATRIX,
    V_FIRST_2,
    V_FIRST_4,
    V_MORE_BITS,
    WIDE,
    MORE_BITS,
    DOWN_8TH,  /* the first eighth, counted in ffn_down tensors */
    LAYER_8TH, /* … in layers */
    LAYER_8TH_IMATRIX,
    LAYER_8TH_NO_IMATRIX,
    LAYER_16TH,
    LAYER_MIDDLE, /* neither the first nor the last eighth */
};

/* Results that are no type of their own. */
enum { RESULT_KEEP = 200, RESULT_Q3_K_OR_WIDE, RESULT_Q4_K_OR_WIDE };

struct mix_rule {
    uint64_t mixes;
    uint16_t kinds;
    uint8_t when, result;
};

#define M(id) (UINT64_C(1) << MIX_##id)
#define QUANT_KEEP RESULT_KEEP
#define QUANT_Q3_K_OR_WIDE RESULT_Q3_K_OR_WIDE
#define QUANT_Q4_K_OR_WIDE RESULT_Q4_K_OR_WIDE
static const struct mix_rule mix_rules[] = {
#define RULE(m, k, w, t) {m, k, w, QUANT_##t},
#include "convert/mix.def"
#undef RULE
};

/* ---- names ------------------------------------------------------------------------------------
 */

const struct mix *mix_all(size_t *n)
{
    *n = NUM_COUNT(mixes);
    return mixes;
}

const struct mix *mix_find(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < NUM_COUNT(mixes); i++) {
        const char *a = mixes[i].alias;
        if (strcasecmp(name, mixes[i].name) == 0 ||
            (a && strlen(a) == n && strcasecmp(name, a) == 0))
            return &mixes[i];
    }
    return NULL;
}

int mix_unknown(const char *name, struct err *e)
{
    char known[400] = "";
    for (size_t i = 0, at = 0; i < NUM_COUNT(mixes) && at < sizeof known; i++)
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? " " : "", mixes[i].name);
    return err_set(e, ERR_USAGE, "unknown type \"%.30s\"; there are %s", name, known);
}

/* ---- tensors ----------------------------------------------------------------------------------
 */

static bool has(const char *name, const char *part)
{
    return strstr(name, part) != NULL;
}

static unsigned mix_kind(const char *name)
{
    static const struct {
        const char *part;
        unsigned kind;
    } kinds[] = {
        {"attn_qkv.weight", K_V}, {"attn_kv_b.weight", K_V}, {"attn_v.weight", K_V},
        {"attn_k.weight", K_K},   {"attn_q.weight", K_Q},    {"attn_output.weight", K_OUT},
        {"ffn_up", K_UP},         {"ffn_gate", K_GATE},      {"ffn_down", K_DOWN},
        {"attn_k_b", K_LATENT},   {"attn_v_b", K_LATENT},    {"attn_kv_a_mqa", K_LATENT},
    };
    if (strcmp(name, "output.weight") == 0)
        return K_HEAD;
    if (strcmp(name, "token_embd.weight") == 0 || strcmp(name, "per_layer_token_embd.weight") == 0)
        return K_EMBED;
    for (size_t i = 0; i < NUM_COUNT(kinds); i++)
        if (has(name, kinds[i].part))
            return kinds[i].kind;
    return K_OTHER;
}

bool mix_is_attn_v(const char *name)
{
    return mix_kind(name) == K_V;
}

bool mix_quantizes(const struct mix_tensor *t)
{
    static const char *const never[] = {
        "_norm.weight",  "ffn_gate_inp.weight", "ssm_conv1d",        "shortconv.conv.weight",
        "position_embd", "token_types.weight",  "attn_rel_b.weight",
    };
    size_t n = strlen(t->name);
    if (t->dims < 2 || n < 6 || strcmp(t->name + n - 6, "weight") != 0)
        return false;
    for (size_t i = 0; i < NUM_COUNT(never); i++)
        if (has(t->name, never[i]))
            return false;
    return true;
}

/* The block of "blk.N.…", or -1. */
static long mix_block(const char *name)
{
    char *end;
    if (strncmp(name, "blk.", 4) != 0 || name[4] < '0' || name[4] > '9')
        return -1;
    long n = strtol(name + 4, &end, 10);
    return *end == '.' ? n : -1;
}

int mix_order(const char *a, const char *b)
{
    long x = mix_block(a), y = mix_block(b);
    return x != y ? (x < y ? -1 : 1) : strcmp(a, b);
}

/* ---- rules ------------------------------------------------------------------------------------
 */

/* The first and the last eighth of the layers, and every third in between. */
static bool more_bits(size_t i, size_t n)
{
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

static size_t mix_layer(const struct mix_tensor *t)
{
    long block = mix_block(t->name);
    return block >= 0 ? (size_t)block : 0;
}

static bool mix_holds(const struct mix_state *s, const struct mix_tensor *t, unsigned when)
{
    const struct mix_model *m = &s->model;
    size_t gqa = m->n_kv_head ? m->n_head / m->n_kv_head : 1, n = m->n_layer;
    size_t layer = mix_layer(t);
    switch ((enum mix_when)when) {
    case ALWAYS:
        return true;
    case ODD_ROWS:
        return t->cols % quant_by_id(s->mix->type)->block != 0;
    case ROUTED:
        return t->outer > 1 && !has(t->name, "attn_");
    case SEPARATE_HEAD:
        return m->has_output;
    case GQA_4:
        return gqa >= 4;
    case GQA_OR_EXPERTS_4:
        return gqa >= 4 || m->n_expert >= 4;
    case EXPERTS_8:
        return m->n_expert == 8;
    case EXPERTS_8_MORE_BITS:
        return m->n_expert == 8 && more_bits(layer, n);
    case NO_IMATRIX:
        return !m->imatrix;
    case V_FIRST_2:
        return s->i_attn_v < 2;
    case V_FIRST_4:
        return s->i_attn_v < 4;
    case V_MORE_BITS:
        return more_bits(s->i_attn_v, m->n_attn_v);
    case WIDE:
        return m->wide;
    case MORE_BITS:
        return more_bits(layer, n);
    case DOWN_8TH:
        return s->i_down < n / 8;
    case LAYER_8TH:
        return layer < n / 8;
    case LAYER_8TH_IMATRIX:
        return layer < n / 8 && m->imatrix;
    case LAYER_8TH_NO_IMATRIX:
        return layer < n / 8 && !m->imatrix;
    case LAYER_16TH:
        return layer < n / 16;
    case LAYER_MIDDLE:
        return layer >= n / 8 && layer < 7 * n / 8;
    }
    return false;
}

const struct quant_type *mix_type(struct mix_state *s, const struct mix_tensor *t)
{
    const struct quant_type *base = quant_by_id(s->mix->type), *found = base;
    unsigned kind = mix_kind(t->name);
    uint64_t bit = UINT64_C(1) << (s->mix - mixes);
    if (base->block == 1)
        return base;
    if (kind == K_EMBED && !s->model.has_output && strcmp(t->name, "token_embd.weight") == 0)
        kind = K_HEAD;
    for (size_t i = 0; i < NUM_COUNT(mix_rules); i++) {
        const struct mix_rule *r = &mix_rules[i];
        if (!(r->mixes & bit) || !(r->kinds & kind) || !mix_holds(s, t, r->when))
            continue;
        unsigned id = r->result;
        if (id == RESULT_Q3_K_OR_WIDE || id == RESULT_Q4_K_OR_WIDE)
            id = s->model.wide ? QUANT_Q5_K : id == RESULT_Q3_K_OR_WIDE ? QUANT_Q3_K : QUANT_Q4_K;
        if (id != RESULT_KEEP)
            found = quant_by_id(id);
        break;
    }
    s->i_attn_v += kind == K_V;
    s->i_down += kind == K_DOWN;
    return found;
}

const struct quant_type *mix_fit(const struct quant_type *t, uint64_t cols)
{
    static const struct {
        enum quant_id from, to;
    } rows[] = {
        {QUANT_IQ1_S, QUANT_IQ4_NL},  {QUANT_IQ1_M, QUANT_IQ4_NL},  {QUANT_IQ2_XXS, QUANT_IQ4_NL},
        {QUANT_IQ2_XS, QUANT_IQ4_NL}, {QUANT_IQ2_S, QUANT_IQ4_NL},  {QUANT_IQ3_XXS, QUANT_IQ4_NL},
        {QUANT_IQ3_S, QUANT_IQ4_NL},  {QUANT_IQ4_XS, QUANT_IQ4_NL}, {QUANT_Q2_K, QUANT_Q4_0},
        {QUANT_Q3_K, QUANT_Q4_0},     {QUANT_TQ1_0, QUANT_Q4_0},    {QUANT_TQ2_0, QUANT_Q4_0},
        {QUANT_Q4_K, QUANT_Q5_0},     {QUANT_Q5_K, QUANT_Q5_1},     {QUANT_Q6_K, QUANT_Q8_0},
    };
    if (cols % t->block == 0)
        return t;
    for (size_t i = 0; i < NUM_COUNT(rows); i++)
        if (rows[i].from == t->id && cols % quant_by_id(rows[i].to)->block == 0)
            return quant_by_id(rows[i].to);
    return quant_by_id(QUANT_F16);
}

bool mix_wants_imatrix(const struct mix *m, const struct quant_type *t)
{
    switch (t->id) {
    case QUANT_IQ2_XXS:
    case QUANT_IQ2_XS:
    case QUANT_IQ2_S:
    case QUANT_IQ1_S:
    case QUANT_IQ1_M:
    case QUANT_IQ3_XXS:
        return true;
    default:
        return t->id == QUANT_Q2_K && m == &mixes[MIX_Q2_K_S];
    }
}
