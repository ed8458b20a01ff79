/*
 * Packed tensors of a GGUF file: matrices as panels of 16 rows (kernels/panel.h) instead of rows,
 * so that kernels read the mapping as it is: nothing is copied at the start, and processes share
 * one page cache.
 *
 * The file is GGUF version 3 in everything else. What differs:
 *   type number      PACKED_TYPE + the weight type's (quant.h, also the ones that only ponder has):
 *                    other programs know no such type and refuse the file
 *   dimensions       as of the same tensor in rows, at least two
 *   data             panels of the first matrix, then of the next (experts): ceil(rows / 16) each,
 *                    the last one filled with zero rows
 *   PACKED_KEY       uint32, PANEL_LAYOUTS of the program that wrote it
 *   general.alignment  64 or a multiple
 * Vectors, tables that are only looked up, and types without panels stay rows under their own
 * number. A packed tensor has no `data`: source_rows unpacks, so that whoever reads rows need not
 * know; source_panels gives the panels.
 */
#ifndef PONDER_FORMAT_PACKED_H
#define PONDER_FORMAT_PACKED_H

#include "base/err.h"
#include "quant/quant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PACKED_TYPE = 0x10000, PACKED_ALIGNMENT = 64 };
#define PACKED_KEY "ponder.panels"

/* Whether a tensor of this type and shape (outermost first) can be packed. */
bool packed_takes(const struct quant_type *t, int dims);

/* Bytes of all panels of such a tensor; false when they do not fit into size_t. */
bool packed_size(const struct quant_type *t, int dims, const uint64_t *shape, size_t *bytes);

#endif
