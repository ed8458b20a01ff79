/*
 * Unicode normalization (UAX #15) of text that carries trust marks: NFC, NFD, NFKC, NFKD.
 */
#ifndef PONDER_TEXT_NORMALIZE_H
#define PONDER_TEXT_NORMALIZE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum normal_form { NORMAL_NFC, NORMAL_NFD, NORMAL_NFKC, NORMAL_NFKD };

enum { NORMALIZER_FORMS = 4 };

/* Forms applied one after the other; zeroed = none. */
struct normalizer {
    uint8_t form[NORMALIZER_FORMS];
    int forms;
};

int normalizer_add(struct normalizer *z, enum normal_form form, struct err *e);

/* True when s[0..n) certainly stays as it is: a quick look that may miss some. */
bool normalize_same(const struct normalizer *z, const char *s, size_t n);

/*
 * Puts the normalized s[0..n), valid UTF-8, into `text`, and the marks into `marks` when trust is
 * not NULL: what became of several characters is trusted only if all of them were. Time is linear
 * in n.
 */
int normalize_text(const struct normalizer *z, const char *s, size_t n, const uint8_t *trust,
                   struct buf *text, struct buf *marks, struct err *e);

#endif
