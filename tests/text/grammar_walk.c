#include "text/grammar_walk.h"

#include "base/rng.h"
#include "format/source.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct vocab vocab_open(const char *path)
{
    struct err e = {0};
    struct source *s;
    struct vocab v;
    if (source_open(&s, path, &e) || tokenizer_new(&v.tok, s, &e) ||
        grammar_vocab_new(&v.v, v.tok, &e))
        fail_msg("%s", e.text);
    source_free(s);
    return v;
}

void vocab_close(struct vocab *v)
{
    grammar_vocab_unref(v->v);
    tokenizer_free(v->tok);
}

bool mask_has(const uint32_t *bits, int32_t id)
{
    return bits[id / 32] >> (id % 32) & 1;
}

/* Of the tokens that may come one that leads to the end of JSON, else `other`. */
static int32_t closing(const struct vocab *v, const int32_t *may, size_t n, int32_t other)
{
    static const char wanted[] = "\"}]";
    size_t best = strlen(wanted), k;
    for (size_t i = 0; i < n; i++) {
        if (tokenizer_is_end(v->tok, may[i]))
            return may[i];
        const char *p = tokenizer_bytes(v->tok, may[i], &k);
        const char *at = k == 1 ? strchr(wanted, *p) : NULL;
        if (at && *at && (size_t)(at - wanted) < best) {
            best = (size_t)(at - wanted);
            other = may[i];
        }
    }
    return other;
}

bool grammar_walk(const struct vocab *v, struct grammar *g, enum grammar_thought thought,
                  uint64_t seed, struct buf *out)
{
    struct err e = {0};
    struct grammar_state *s;
    size_t count = tokenizer_count(v->tok);
    int32_t *may = malloc(count * sizeof *may);
    bool ended = false;
    if (grammar_state_new(&s, g, v->v, thought, &e))
        fail_msg("%s", e.text);
    for (uint64_t step = 0; step < 3000 && !ended; step++) {
        const uint32_t *bits;
        size_t n = 0, k;
        uint32_t r[4];
        if (grammar_state_mask(s, &bits, &e))
            fail_msg("%s", e.text);
        for (size_t i = 0; i < count; i++)
            if (mask_has(bits, (int32_t)i))
                may[n++] = (int32_t)i;
        assert_true(n > 0);
        rng_block(seed, 7, step, r);
        int32_t id = may[r[0] % n];
        if (step > 60 && r[1] % 4)
            id = closing(v, may, n, id);
        if (grammar_state_accept(s, id, &e))
            fail_msg("%s", e.text);
        ended = tokenizer_is_end(v->tok, id);
        const char *p = tokenizer_bytes(v->tok, id, &k);
        if (!ended)
            assert_int_equal(buf_append(out, p, k, &e), 0);
    }
    grammar_state_free(s);
    free(may);
    return ended;
}

bool grammar_takes(const struct vocab *v, struct grammar *g, const char *text, size_t n)
{
    struct err e = {0};
    struct grammar_state *s;
    int32_t byte[256], end = -1;
    memset(byte, 0xff, sizeof byte);
    for (int32_t i = 0; (size_t)i < tokenizer_count(v->tok); i++) {
        size_t k;
        const char *p = tokenizer_bytes(v->tok, i, &k);
        if (k == 1)
            byte[(unsigned char)*p] = i;
        if (tokenizer_is_end(v->tok, i))
            end = i;
    }
    if (grammar_state_new(&s, g, v->v, GRAMMAR_THOUGHT_NONE, &e))
        fail_msg("%s", e.text);
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) {
        assert_true(byte[(unsigned char)text[i]] >= 0);
        int code = grammar_state_accept(s, byte[(unsigned char)text[i]], &e);
        assert_true(code == 0 || code == ERR_FORMAT);
        ok = !code;
    }
    ok = ok && grammar_state_accept(s, end, &e) == 0;
    grammar_state_free(s);
    return ok;
}
