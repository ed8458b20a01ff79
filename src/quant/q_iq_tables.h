/*
 * Codebooks of the IQ types: constants of the file format. Value i of a row is byte i of the
 * integer, counted from the lowest.
 *
 * Written by tools/gen_iq_tables.py; do not edit.
 */
#ifndef PONDER_QUANT_Q_IQ_TABLES_H
#define PONDER_QUANT_Q_IQ_TABLES_H

#include <stdint.h>

extern const uint64_t q_iq2_xxs_grid[256]; /* IQ2_XXS: 8 magnitudes */
extern const uint64_t q_iq2_xs_grid[512];  /* IQ2_XS: 8 magnitudes */
extern const uint64_t q_iq2_s_grid[1024];  /* IQ2_S: 8 magnitudes */
extern const uint32_t q_iq3_xxs_grid[256]; /* IQ3_XXS: 4 magnitudes */
extern const uint32_t q_iq3_s_grid[512];   /* IQ3_S: 4 magnitudes */
extern const uint64_t q_iq1_grid[2048];    /* IQ1_S and IQ1_M: 8 of -1, 0, 1 as int8 */

#endif
