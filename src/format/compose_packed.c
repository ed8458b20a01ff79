/*
 * GPTQ (Frantar et al. 2022) and AWQ (Lin et al. 2023): integers of a few bits packed into 32-bit
 * words, with a scale and a zero point for each output and group of inputs:
 * weight[o][i] = scales[g][o] × (q[i][o] − zero[g][o]), g the group of input i.
 *
 *   GPTQ  X.qweight I32 [in × bits / 32, out]   input i in word i / per, lowest bits first
 *         X.qzeros  I32 [groups, out × bits / 32]
 *         X.scales  [groups, out]
 *         X.g_idx   I32 [in]                    the group of each input; may be absent or empty
 *   AWQ   X.qweight I32 [in, out / 8]           8 outputs in a word, in the order 0 2 4 6 1 3 5 7
 *         X.qzeros  I32 [groups, out / 8]
 *         X.scales  [groups, out]
 *
 * The first version of GPTQ's format stores zero points less one; "checkpoint_format" tells. The
 * matrices lie transposed, inputs by outputs, and become outputs by inputs here.
 *
 * Where inputs are in the order of their groups (not with "desc_act"), groups are whole blocks and
 * every scale is a half, whatever its dtype, rows have the form Q4Z or Q8Z, in the memory of the
 * file. Else they are F32, and with "desc_act" there is a compact form in the order of groups.
 * Scales that are not stored as halves are looked at when opening: what is rounded to bfloat16
 * nearly always is a half too, and F32 takes eight times the memory. Left out: GPTQ with 3 bits
 * (values across words), AWQ's "gemv" order, other packings of kernels.
 */
#include "format/parts.h"

#include "base/num.h"

#include <string.h>
#include <strings.h>

enum { PACKED_BLOCK = 32, PACKED_GROUPS = 512, Q4Z_BYTES = 20, Q8Z_BYTES = 36 };

/* Which nibble of a word output 8j + c has in AWQ. */
static const uint8_t awq_slot[8] = {0, 4, 1, 5, 2, 6, 3, 7};

enum { PART_WEIGHT, PART_ZEROS, PART_SCALES, PART_INDEX };

static inline uint32_t word_at(const struct source_tensor *t, size_t i)
{
    uint32_t v;

    memcpy(&v, t->data + 4 * i, sizeof v);
    return v;
}

/* Element (row, column c of cols) of a matrix whose words run along the columns. */
static inline int along(const struct source_tensor *t, const struct parts_packed *p, size_t row,
                        size_t c, size_t cols)
{
    size_t per = 32 / (size_t)p->bits, slot = p->awq ? awq_slot[c % per] : c % per;

    return (int)(word_at(t, row * (cols / per) + c / per) >> ((size_t)p->bits * slot) &
                 ((1u << p->bits) - 1));
}

static inline int zero_at(const struct source_parts *p, size_t group, size_t o, size_t outs)
{
    return along(p->part[PART_ZEROS], &p->packed, group, o, outs) + p->packed.zero_shift;
}

/*
 * The words that hold inputs [i, i + n) of output o, n up to 32: with AWQ one for each input, the
 * same for 8 outputs. Missing inputs have the code 0, or 128 where codes take a byte.
 */
static void words_at(const struct source_parts *p, size_t o, size_t outs, size_t i, size_t n,
                     uint32_t words[PACKED_BLOCK])
{
    const struct source_tensor *w = p->part[PART_WEIGHT];
    size_t per = p->packed.awq ? 1 : 32 / (size_t)p->packed.bits, k = 0;
    size_t row = p->packed.awq ? outs / 8 : outs, at = i / per * row + (p->packed.awq ? o / 8 : o);

    for (; k < n / per; k++)
        words[k] = word_at(w, at + k * row);
    for (; k < PACKED_BLOCK; k++)
        words[k] = p->packed.bits == 8 ? 0x80808080u : 0;
}

/* The eight nibbles of a word as bytes, the lowest first. */
static inline uint64_t spread(uint32_t word)
{
    uint64_t x = word;

    x = (x | x << 16) & 0x0000FFFF0000FFFFu;
    x = (x | x << 8) & 0x00FF00FF00FF00FFu;
    return (x | x << 4) & 0x0F0F0F0F0F0F0F0Fu;
}

/* The codes of 32 inputs of output o as they lie in a block of Q8Z (8 bits) or Q4Z. */
static void put_codes(const struct parts_packed *p, const uint32_t words[PACKED_BLOCK], size_t o,
                      uint8_t *to)
{
    if (p->awq) {
        unsigned shift = 4u * awq_slot[o % 8];
        for (size_t k = 0; k < 16; k++)
            to[k] = (uint8_t)((words[k] >> shift & 15) | (words[k + 16] >> shift & 15) << 4);
    } else if (p->bits == 8) {
        for (size_t k = 0; k < 8; k++) {
            uint32_t v = words[k] ^ 0x80808080u; /* minus 128 */
            memcpy(to + 4 * k, &v, sizeof v);
        }
    } else if (p->bits == 4) {
        for (size_t k = 0; k < 2; k++) {
            uint64_t v = spread(words[k]) | spread(words[k + 2]) << 4;
            memcpy(to + 8 * k, &v, sizeof v);
        }
    } else {
        for (size_t k = 0; k < 16; k++)
            to[k] = (uint8_t)((words[0] >> 2 * k & 3) | (words[1] >> 2 * k & 3) << 4);
    }
}

/* A scale that was found to be a half. */
static inline uint16_t scale_half(const struct source_tensor *t, size_t i)
{
    uint16_t h;

    if (t->type->id != QUANT_F16)
        return quant_f32_to_f16(part_float(t, i));
    memcpy(&h, t->data + 2 * i, sizeof h);
    return h;
}

/* Blocks outside, rows inside: the words of neighbouring outputs lie side by side, or are one. */
static void rows_blocks(const struct source_tensor *t, uint64_t r0, size_t n, uint8_t *dst,
                        size_t stride)
{
    const struct source_parts *p = t->parts;
    size_t outs = (size_t)t->shape[0], ins = (size_t)t->shape[1];
    size_t block = p->packed.bits == 8 ? Q8Z_BYTES : Q4Z_BYTES;
    int bias = p->packed.bits == 8 ? 128 : 0;
    uint32_t words[PACKED_BLOCK];

    for (size_t i = 0; i < ins; i += PACKED_BLOCK)
        for (size_t r = 0; r < n; r++) {
            size_t o = (size_t)r0 + r, group = i / p->packed.group;
            uint16_t zero = quant_f32_to_f16((float)(zero_at(p, group, o, outs) - bias));
            uint16_t scale = scale_half(p->part[PART_SCALES], group * outs + o);
            uint8_t *to = dst + r * stride + i / PACKED_BLOCK * block;
            if (r == 0 || !p->packed.awq || o % 8 == 0)
                words_at(p, o, outs, i, num_min(PACKED_BLOCK, ins - i), words);
            memcpy(to, &scale, 2);
            memcpy(to + 2, &zero, 2);
            put_codes(&p->packed, words, o, to + 4);
        }
}

static inline size_t group_at(const struct parts_packed *p, size_t i)
{
    uint32_t g;

    if (!p->index)
        return i / p->group;
    memcpy(&g, p->index + 4 * i, sizeof g);
    return g;
}

/* Scales and zero points of an output, as many as fit. */
struct groups {
    float scale[PACKED_GROUPS], zero[PACKED_GROUPS];
};

static void groups_at(const struct source_parts *p, size_t o, size_t outs, size_t first,
                      struct groups *g)
{
    size_t n = num_min((size_t)p->part[PART_SCALES]->shape[0] - first, PACKED_GROUPS);

    for (size_t i = 0; i < n; i++) {
        g->scale[i] = part_float(p->part[PART_SCALES], (first + i) * outs + o);
        g->zero[i] = (float)zero_at(p, first + i, o, outs);
    }
}

static void rows_f32(const struct source_tensor *t, uint64_t r0, size_t n, uint8_t *dst,
                     size_t stride)
{
    const struct source_parts *p = t->parts;
    size_t outs = (size_t)t->shape[0], ins = (size_t)t->shape[1];
    bool wide = p->packed.bits == 8;
    uint32_t words[PACKED_BLOCK];
    uint8_t codes[PACKED_BLOCK];
    struct groups groups = {0};

    for (size_t r = 0; r < n && ins; r++) {
        size_t o = (size_t)r0 + r, first = 0; /* of the groups that are at hand */
        groups_at(p, o, outs, first, &groups);
        for (size_t i = 0; i < ins; i += PACKED_BLOCK) {
            size_t take = num_min(PACKED_BLOCK, ins - i);
            words_at(p, o, outs, i, take, words);
            put_codes(&p->packed, words, o, codes);
            for (size_t k = 0; k < take; k++) {
                size_t g = group_at(&p->packed, i + k);
                int q = wide ? codes[k] ^ 0x80 : k < 16 ? codes[k] & 15 : codes[k - 16] >> 4;
                float w;
                if (g - first >= PACKED_GROUPS && !p->packed.index) { /* they come in order */
                    first = g;
                    groups_at(p, o, outs, first, &groups);
                }
                if (g - first < PACKED_GROUPS)
                    w = groups.scale[g - first] * ((float)q - groups.zero[g - first]);
                else
                    w = part_float(p->part[PART_SCALES], g * outs + o) *
                        (float)(q - zero_at(p, g, o, outs));
                memcpy(dst + r * stride + 4 * (i + k), &w, sizeof w);
            }
        }
    }
}

/* Blocks of columns in the order of their groups. */
static void rows_sorted(const struct source_tensor *t, uint64_t r0, size_t n, uint8_t *dst,
                        size_t stride)
{
    const struct source_parts *p = t->parts;
    const uint32_t *order = p->compact.order;
    size_t outs = (size_t)t->shape[0], ins = (size_t)t->shape[1], bits = (size_t)p->packed.bits;
    size_t per = 32 / bits, block = bits == 8 ? Q8Z_BYTES : Q4Z_BYTES;
    uint8_t code[PACKED_BLOCK];

    for (size_t i = 0; i < ins; i += PACKED_BLOCK)
        for (size_t r = 0; r < n; r++) {
            size_t o = (size_t)r0 + r, group = group_at(&p->packed, order[i]);
            float zero = (float)(zero_at(p, group, o, outs) - (bits == 8 ? 128 : 0));
            uint16_t half = quant_f32_to_f16(zero);
            uint16_t scale = scale_half(p->part[PART_SCALES], group * outs + o);
            uint8_t *to = dst + r * stride + i / PACKED_BLOCK * block;
            for (size_t k = 0; k < PACKED_BLOCK; k++) {
                size_t c = order[i + k];
                code[k] = (uint8_t)(word_at(p->part[PART_WEIGHT], c / per * outs + o) >>
                                        bits * (c % per) &
                                    ((1u << bits) - 1));
            }
            memcpy(to, &scale, 2);
            memcpy(to + 2, &half, 2);
            for (size_t k = 0; k < PACKED_BLOCK && bits == 8; k++)
                to[4 + k] = code[k] ^ 0x80;
            for (size_t k = 0; k < PACKED_BLOCK / 2 && bits != 8; k++)
                to[4 + k] = (uint8_t)(code[k] | code[k + 16] << 4);
        }
}

/* ---- opening ------------------------------------------------------------------------------------
 */

/* Bits and group size (0: one group) of the configuration. */
static int read_config(const struct source *s, struct parts_packed *p, struct err *e)
{
    int64_t bits = 0, group = 0;

    if (!compose_config_int(s, "bits", &bits) && !compose_config_int(s, "w_bit", &bits))
        return err_set(e, ERR_FORMAT, "config.json: quantization_config has no 'bits'");
    if (bits != 4 && (p->awq || (bits != 2 && bits != 8)))
        return err_set(e, ERR_UNSUPPORTED, "%s with %lld bits is not supported, only with %s",
                       p->awq ? "AWQ" : "GPTQ", (long long)bits, p->awq ? "4" : "2, 4 and 8");
    if ((!compose_config_int(s, "group_size", &group) &&
         !compose_config_int(s, "q_group_size", &group)) ||
        group < -1 || group == 0 || group > INT32_MAX)
        return err_set(e, ERR_FORMAT,
                       "config.json: quantization_config needs a 'group_size' of -1 or 1 and more");
    p->bits = (int)bits;
    p->group = group < 0 ? 0 : (size_t)group;
    return 0;
}

static int read_gptq(const struct source *s, struct parts_packed *p, struct err *e)
{
    bool first = !source_value(s, "quantization_config.checkpoint_format") ||
                 compose_config_is(s, "checkpoint_format", "gptq");

    if (!first && !compose_config_is(s, "checkpoint_format", "gptq_v2"))
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: checkpoint_format of GPTQ has to be \"gptq\" or \"gptq_v2\"");
    p->zero_shift = first;
    return read_config(s, p, e);
}

static int read_awq(const struct source *s, struct parts_packed *p, struct err *e)
{
    const struct source_value *v = source_value(s, "quantization_config.version");

    if (v && (v->type != SOURCE_STRING || v->s.n != 4 || strncasecmp(v->s.p, "gemm", 4) != 0))
        return err_set(e, ERR_UNSUPPORTED, "config.json: version of AWQ has to be \"gemm\"");
    p->awq = true;
    return read_config(s, p, e);
}

/* Every input has a group; inputs in the order of their groups need no index. */
static int check_index(struct source_parts *p, const struct source_tensor *index, size_t ins,
                       size_t group, size_t groups, struct err *e)
{
    bool ordered = true;
    int rc = index->bytes ? compose_shape(index, "I32", 1, ins, 1, e) : 0;

    if (rc)
        return rc;
    p->part[PART_INDEX] = index;
    if (!index->bytes)
        return 0;
    for (size_t i = 0; i < ins; i++) {
        uint32_t g = word_at(index, i);
        if (g >= groups)
            return err_set(e, ERR_FORMAT,
                           "g_idx puts input %zu into group %d, but there are %zu groups", i,
                           (int)g, groups);
        ordered &= g == i / group;
    }
    if (!ordered)
        p->packed.index = index->data;
    return 0;
}

/* Whether all scales are halves, to the bit. */
static bool all_halves(const struct source_tensor *t)
{
    size_t count = t->bytes / t->type->bytes;
    float value[256];

    for (size_t i = 0, n; i < count && t->type->id != QUANT_F16; i += n) {
        n = num_min(count - i, NUM_COUNT(value));
        t->type->decode(value, t->data + i * t->type->bytes, n);
        for (size_t k = 0; k < n; k++) {
            float half = quant_f16_to_f32(quant_f32_to_f16(value[k]));
            if (memcmp(&half, &value[k], sizeof half) != 0)
                return false;
        }
    }
    return t->type->id != QUANT_F64; /* whose values are rounded when they are decoded */
}

/* The compact form of inputs that are not in the order of their groups, when groups are blocks. */
static int put_order(struct compose *c, struct source_parts *p, size_t ins, struct err *e)
{
    size_t groups = (size_t)p->part[PART_SCALES]->shape[0];
    size_t *at = arena_array(&c->s->arena, groups + 1, sizeof *at, e);
    uint32_t *order = at ? arena_array(&c->s->arena, ins, sizeof *order, e) : NULL;

    if (!order)
        return ERR_NOMEM;
    memset(at, 0, (groups + 1) * sizeof *at);
    for (size_t i = 0; i < ins; i++)
        at[group_at(&p->packed, i) + 1]++;
    for (size_t g = 0; g < groups; g++) {
        if (at[g + 1] % PACKED_BLOCK)
            return 0;
        at[g + 1] += at[g];
    }
    for (size_t i = 0; i < ins; i++)
        order[at[group_at(&p->packed, i)]++] = (uint32_t)i;
    p->compact.type = quant_by_id(p->packed.bits == 8 ? QUANT_Q8Z : QUANT_Q4Z);
    p->compact.order = order;
    p->compact_rows = rows_sorted;
    return 0;
}

static int put_packed(struct compose *c, struct stem stem, struct source_parts *p, uint64_t ins,
                      uint64_t outs, struct err *e)
{
    const struct source_tensor *scales = p->part[PART_SCALES];
    size_t group = p->packed.group;
    bool blocks =
        !p->packed.index && (group % PACKED_BLOCK == 0 || group >= ins) && all_halves(scales);
    enum quant_id id = !blocks ? QUANT_F32 : p->packed.bits == 8 ? QUANT_Q8Z : QUANT_Q4Z;
    const char *name = p->packed.awq         ? "AWQ-4"
                       : p->packed.bits == 8 ? "GPTQ-8"
                       : p->packed.bits == 4 ? "GPTQ-4"
                                             : "GPTQ-2";

    int rc = p->packed.index && ins && all_halves(scales) ? put_order(c, p, (size_t)ins, e) : 0;
    if (rc)
        return rc;
    p->rows = blocks ? rows_blocks : rows_f32;
    return compose_put(c, stem, p, quant_by_id(id), name, 2, (uint64_t[]){outs, ins}, e);
}

/* Sizes of the parts, of which the configuration is known. */
static int compose_words(struct compose *c, struct stem stem, struct source_parts *p, struct err *e)
{
    const struct source_tensor *w = stem.mark, **zeros = &p->part[PART_ZEROS],
                               **scales = &p->part[PART_SCALES], *index;
    size_t per = 32 / (size_t)p->packed.bits, ins, outs, groups;
    int rc = compose_need(zeros, c, stem, ".qzeros", e);

    if (!rc)
        rc = compose_need(scales, c, stem, ".scales", e);
    if (!rc)
        rc = compose_shape(w, "I32", 2, w->shape[0], w->shape[1], e);
    if (rc)
        return rc;
    ins = (size_t)w->shape[0];
    outs = (size_t)w->shape[1];
    if (!num_mul(p->packed.awq ? &outs : &ins, p->packed.awq ? outs : ins, per))
        return err_set(e, ERR_FORMAT, "its size overflows");
    if (outs % per)
        return err_set(e, ERR_FORMAT,
                       "%zu outputs are no multiple of the %zu zero points in a word", outs, per);
    if (p->packed.group == 0)
        p->packed.group = num_max(ins, 1);
    groups = ins / p->packed.group + (ins % p->packed.group != 0);
    rc = compose_shape(*zeros, "I32", 2, groups, outs / per, e);
    if (!rc)
        rc = compose_shape(*scales, NULL, 2, groups, outs, e);
    if (!rc && (!(*scales)->type || (*scales)->type->block != 1))
        rc = err_set(e, ERR_FORMAT, "scales have to be floats, they are %s", (*scales)->dtype);
    index = p->packed.awq ? NULL : compose_part(c, stem, ".g_idx");
    if (!rc && index)
        rc = check_index(p, index, ins, p->packed.group, groups, e);
    return rc ? rc : put_packed(c, stem, p, ins, outs, e);
}

/* X.qweight. */
int compose_packed(struct compose *c, struct stem stem, struct err *e)
{
    struct source_parts p = {.part = {stem.mark}};
    int rc;

    if (compose_config_is(c->s, "quant_method", "gptq"))
        rc = read_gptq(c->s, &p.packed, e);
    else if (compose_config_is(c->s, "quant_method", "awq"))
        rc = read_awq(c->s, &p.packed, e);
    else
        return 0; /* not said how: no weight */
    return rc ? rc : compose_words(c, stem, &p, e);
}
