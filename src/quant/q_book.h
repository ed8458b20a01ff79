/*
 * Inside quant/: the codebooks of the IQ types as their encoder sees them.
 *
 * A row of a codebook is four `options` of `radix` values each: with three levels (radix 9) an
 * option is a pair of neighbouring values (3 × level of the first + level of the second), with
 * eight levels (radix 8) a single value. Its cell is (a, b): a = radix × option 0 + option 1, b the
 * same of options 2 and 3. The rows of the codebook are listed by a.
 */
#ifndef PONDER_QUANT_Q_BOOK_H
#define PONDER_QUANT_Q_BOOK_H

#include "quant/q_impl.h"

struct q_book {
    int radix;              /* 9 or 8 */
    const uint16_t *first;  /* [radix² + 1]: where the rows with an a begin in the next two */
    const uint8_t *second;  /* their b, ascending */
    const uint16_t *code;   /* and their codes in the file */
    const uint64_t *member; /* [radix²][2]: bit b is set when the codebook has (a, b) */
    float level[8];         /* ascending: 3 or 8 of them */
};

extern const struct q_book q_iq2_xxs_book, q_iq2_xs_book, q_iq2_s_book, q_iq3_xxs_book,
    q_iq3_s_book, q_iq1_book;

/* Eight values and what is chosen for them. */
struct q_pick {
    uint8_t option[8]; /* four, or twice four */
    int8_t flipped;    /* the value whose sign is changed, or −1 */
    uint8_t shift;     /* which of two shifts (IQ1) */
};

/*
 * The rows of the codebook, times 1/inverse, that are nearest to the eight values x ≥ 0 (any sign
 * for IQ1) with weights w: least Σ w (x·inverse − level − shift)². With `odd`, one value is taken
 * with the opposite sign. value (8) gets the levels with shift and, for a value flipped, negated.
 */
void q_book_nearest(const struct q_book *book, const float *x, const float *w, float inverse,
                    float shift, bool odd, struct q_pick *pick, float *value);

/* The code of the row with these four options. */
unsigned q_book_code(const struct q_book *book, const uint8_t option[4]);

#endif
