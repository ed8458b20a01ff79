/*
 * The table of weight types and its lookups. Rows come from quant.def.
 */
#include "quant/quant.h"

#include "base/num.h"
#include "quant/q_impl.h"

#include <strings.h>

static const struct quant_type rows[] = {
#define ROW(id, name, safetensors, block, bytes, decode, encode) \
    {QUANT_##id, name, safetensors, block, bytes, QUANT_##id >= QUANT_INNER, decode, encode},
#include "quant/quant.def"
#undef ROW
};

/* Position in `rows` of each type, so that the two tables below can be constant. */
enum {
#define ROW(id, name, safetensors, block, bytes, decode, encode) AT_##id,
#include "quant/quant.def"
#undef ROW
};

static const struct quant_type *const in_order[] = {
#define ROW(id, name, safetensors, block, bytes, decode, encode) &rows[AT_##id],
#include "quant/quant.def"
#undef ROW
};

static const struct quant_type *const by_id[QUANT_ID_MAX] = {
#define ROW(id, name, safetensors, block, bytes, decode, encode) [QUANT_##id] = &rows[AT_##id],
#include "quant/quant.def"
#undef ROW
};

const struct quant_type *quant_by_id(uint32_t id)
{
    return id < QUANT_ID_MAX ? by_id[id] : NULL;
}

const struct quant_type *quant_by_name(const char *name)
{
    for (size_t i = 0; name && i < NUM_COUNT(rows); i++)
        if (!strcasecmp(rows[i].name, name))
            return &rows[i];
    return NULL;
}

const struct quant_type *quant_by_safetensors(const char *dtype)
{
    for (size_t i = 0; dtype && i < NUM_COUNT(rows); i++)
        if (rows[i].safetensors && !strcmp(rows[i].safetensors, dtype))
            return &rows[i];
    return NULL;
}

const struct quant_type *const *quant_all(size_t *count)
{
    *count = NUM_COUNT(in_order);
    return in_order;
}

bool quant_size(const struct quant_type *t, size_t n, size_t *bytes)
{
    size_t blocks = n / t->block, rest = n % t->block;
    return (!rest || t->partial) && num_mul(bytes, blocks + (rest != 0), t->bytes);
}
