/* Packed tensors as a source gives them: sizes, rows, and the panels themselves (packed.h). */
#include "format/packed.h"

#include "base/num.h"
#include "format/parts.h"
#include "kernels/panel.h"

#include <string.h>

enum { PACKED_COLS_MAX = 1 << 30 }; /* of a row: a panel's bytes then fit whatever the type */

bool packed_takes(const struct quant_type *t, int dims)
{
    return t && dims >= 2 && dims <= SOURCE_DIMS && panel_find(t->id);
}

/* Panels of one matrix. */
static uint64_t matrix_panels(const uint64_t *shape, int dims)
{
    return (shape[dims - 2] + KERN_ROWS - 1) / KERN_ROWS;
}

bool packed_size(const struct quant_type *t, int dims, const uint64_t *shape, size_t *bytes)
{
    size_t n = (size_t)matrix_panels(shape, dims), row;
    if (shape[dims - 1] > PACKED_COLS_MAX || !quant_size(t, (size_t)shape[dims - 1], &row))
        return false;
    for (int i = 0; i + 2 < dims; i++)
        if (!num_mul(&n, n, (size_t)shape[i]))
            return false;
    return num_mul(bytes, n, panel_find(t->id)->bytes((size_t)shape[dims - 1]));
}

/* The panel of a row, rows of all matrices counted through; *r becomes the row's number in it. */
static const uint8_t *packed_at(const struct source_tensor *t, uint64_t *r)
{
    uint64_t rows = t->shape[t->dims - 2], matrix = *r / rows, in = *r % rows;
    uint64_t panel = matrix * matrix_panels(t->shape, t->dims) + in / KERN_ROWS;
    *r = in % KERN_ROWS;
    return t->panels +
           (size_t)panel * panel_find(t->type->id)->bytes((size_t)t->shape[t->dims - 1]);
}

static void packed_rows(const struct source_tensor *t, uint64_t r0, size_t n, uint8_t *dst,
                        size_t stride)
{
    const struct panel_layout *layout = panel_find(t->type->id);
    for (size_t i = 0; i < n; i++) {
        uint64_t r = r0 + i;
        const uint8_t *panel = packed_at(t, &r);
        layout->unpack_row(dst + i * stride, panel, (size_t)r, (size_t)t->shape[t->dims - 1]);
    }
}

/* Without parts: panels take the place. */
const struct source_parts packed_parts = {.rows = packed_rows};

const uint8_t *source_panels(const struct source_tensor *t, uint64_t r0, uint64_t n)
{
    if (!t->panels || (uintptr_t)t->panels % KERN_ALIGN)
        return NULL;
    uint64_t rows = t->shape[t->dims - 2], in = r0 % rows;
    if (in % KERN_ROWS || n > rows - in)
        return NULL;
    return packed_at(t, &r0);
}

uint64_t packed_bytes_before(const struct source_tensor *t, uint64_t r)
{
    return (uint64_t)(packed_at(t, &r) - t->panels);
}
