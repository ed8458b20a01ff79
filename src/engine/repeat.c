/* See repeat.h. */
#include "engine/repeat.h"

#include <string.h>

void repeat_init(struct repeat *r)
{
    memset(r, 0, sizeof *r);
    r->n = REPEAT_PERIOD;
    for (size_t i = 0; i < REPEAT_PERIOD; i++)
        r->id[i] = -1; /* no token */
}

/*
 * Letters of any script. UTF-8's lead bytes are enough to tell them: C2 has Latin-1's signs, E2 the
 * blocks from U+2000 to U+2FFF (punctuation, arrows, mathematics, frames of tables), F0 emoji.
 */
static bool repeat_has_word(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if ((c | 32) >= 'a' && (c | 32) <= 'z')
            return true;
        if (c >= 0xC3 && c <= 0xED && c != 0xE2)
            return true;
    }
    return false;
}

/* Some counter has come to `most`: is it a loop? */
static bool repeat_decide(const struct repeat *r, uint32_t most)
{
    bool words = false;
    for (size_t p = 1; p <= REPEAT_PERIOD && p * (REPEAT_COPIES - 1) <= most; p++) {
        words |= r->word[r->n - p];
        uint32_t same = r->same[REPEAT_PERIOD - p];
        if (same >= p * (REPEAT_COPIES - 1) && same >= (words ? REPEAT_WORDS : REPEAT_SIGNS))
            return true;
    }
    return false;
}

bool repeat_next(struct repeat *r, int32_t id, const char *text, size_t n)
{
    if (r->n == 2 * REPEAT_PERIOD) {
        memcpy(r->id, r->id + REPEAT_PERIOD, REPEAT_PERIOD * sizeof *r->id);
        memcpy(r->word, r->word + REPEAT_PERIOD, REPEAT_PERIOD * sizeof *r->word);
        r->n = REPEAT_PERIOD;
    }
    const int32_t *before = r->id + r->n - REPEAT_PERIOD;
    uint32_t most = 0;
    for (size_t q = 0; q < REPEAT_PERIOD; q++) {
        uint32_t same = before[q] == id ? r->same[q] + 1 : 0;
        r->same[q] = same;
        most = same > most ? same : most;
    }
    r->id[r->n] = id;
    r->word[r->n++] = repeat_has_word(text, n);
    return most >= REPEAT_WORDS && repeat_decide(r, most);
}
