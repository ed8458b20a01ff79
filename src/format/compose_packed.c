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
 * scales are halves, rows have the form Q4Z or Q8Z, in the memory of the file. Else they are F32.
 * Left out: GPTQ with 3 bits (values across words), AWQ's "gemv" order, other packings of kernels.
 */
#include "format/parts.h"

#include "base/num.h"

#include <string.h>
#include <strings.h>

enum { PACKED_BLOCK = 32, Q4Z_BYTES = 20, Q8Z_BYTES = 36 };

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

/* The codes of inputs [i, i + n) of output o; i is a multiple of 32, n at most that. */
static void codes_at(const struct source_parts *p, size_t o, size_t outs, size_t i, size_t n,
                     uint8_t code[PACKED_BLOCK])
{
    const struct source_tensor *w = p->part[PART_WEIGHT];
    unsigned bits = (unsigned)p->packed.bits;
    size_t per = 32 / bits;

    if (p->packed.awq) {
        for (size_t k = 0; k < n; k++)
            code[k] = (uint8_t)along(w, &p->packed, i + k, o, outs);
        return;
    }
    for (size_t k = 0; k < n; k += per) {
        uint32_t word = word_at(w, (i + k) / per * outs + o);
        for (size_t j = 0; j < per; j++, word >>= bits)
            code[k + j] = (uint8_t)(word & ((1u << bits) - 1));
    }
}

/* One block of Q4Z or Q8Z. */
static void put_block(const struct source_parts *p, size_t o, size_t outs, size_t i, size_t n,
                      uint8_t *to)
{
    size_t group = i / p->packed.group;
    bool wide = p->packed.bits == 8;
    int bias = wide ? 128 : 0;
    uint16_t zero = quant_f32_to_f16((float)(zero_at(p, group, o, outs) - bias));
    uint8_t code[PACKED_BLOCK];

    memset(code, bias, sizeof code);
    codes_at(p, o, outs, i, n, code);
    memcpy(to, p->part[PART_SCALES]->data + 2 * (group * outs + o), 2);
    memcpy(to + 2, &zero, 2);
    for (size_t k = 0; k < PACKED_BLOCK && wide; k++)
        to[4 + k] = code[k] ^ 0x80; /* minus 128 */
    for (size_t k = 0; k < PACKED_BLOCK / 2 && !wide; k++)
        to[4 + k] = (uint8_t)(code[k] | code[k + PACKED_BLOCK / 2] << 4);
}

/* Blocks outside, rows inside: the words of neighbouring outputs lie side by side. */
static void rows_blocks(const struct source_tensor *t, uint64_t r0, size_t n, uint8_t *dst,
                        size_t stride)
{
    const struct source_parts *p = t->parts;
    size_t outs = (size_t)t->shape[0], ins = (size_t)t->shape[1];
    size_t block = p->packed.bits == 8 ? Q8Z_BYTES : Q4Z_BYTES;

    for (size_t i = 0; i < ins; i += PACKED_BLOCK)
        for (size_t r = 0; r < n; r++)
            put_block(p, (size_t)r0 + r, outs, i, num_min(PACKED_BLOCK, ins - i),
                      dst + r * stride + i / PACKED_BLOCK * block);
}

static inline size_t group_at(const struct parts_packed *p, size_t i)
{
    uint32_t g;

    if (!p->index)
        return i / p->group;
    memcpy(&g, p->index + 4 * i, sizeof g);
    return g;
}

static void rows_f32(const struct source_tensor *t, uint64_t r0, size_t n, uint8_t *dst,
                     size_t stride)
{
    const struct source_parts *p = t->parts;
    size_t outs = (size_t)t->shape[0], ins = (size_t)t->shape[1];
    uint8_t code[PACKED_BLOCK];

    for (size_t i = 0; i < ins; i += PACKED_BLOCK)
        for (size_t r = 0; r < n; r++) {
            size_t o = (size_t)r0 + r, take = num_min(PACKED_BLOCK, ins - i);
            codes_at(p, o, outs, i, take, code);
            for (size_t k = 0; k < take; k++) {
                size_t g = group_at(&p->packed, i + k);
                float w = part_float(p->part[PART_SCALES], g * outs + o) *
                          (float)(code[k] - zero_at(p, g, o, outs));
                memcpy(dst + r * stride + 4 * (i + k), &w, sizeof w);
            }
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

static int put_packed(struct compose *c, struct stem stem, struct source_parts *p, uint64_t ins,
                      uint64_t outs, struct err *e)
{
    const struct source_tensor *scales = p->part[PART_SCALES];
    size_t group = p->packed.group;
    bool blocks = !p->packed.index && scales->type->id == QUANT_F16 &&
                  (group % PACKED_BLOCK == 0 || group >= ins);
    enum quant_id id = !blocks ? QUANT_F32 : p->packed.bits == 8 ? QUANT_Q8Z : QUANT_Q4Z;
    const char *name = p->packed.awq         ? "AWQ-4"
                       : p->packed.bits == 8 ? "GPTQ-8"
                       : p->packed.bits == 4 ? "GPTQ-4"
                                             : "GPTQ-2";

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
