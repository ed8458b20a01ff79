/*
 * Fuzzing tokenizer files and texts: a tokenizer.json, a byte 0xff (which no JSON text holds), and
 * a text that what opened encodes and decodes.
 */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Things that must hold for whatever opens; a crash is how a fuzzer learns of a broken one. */
static void must(bool ok)
{
    if (!ok)
        abort();
}

static void encode(const struct tokenizer *t, const char *text, size_t n, unsigned flags,
                   const uint8_t *trust)
{
    struct ids a;
    struct buf out;
    struct detok d;
    struct err e = {0};
    ids_init(&a, 1 << 20);
    buf_init(&out, (size_t)1 << 28);
    detok_init(&d);
    int rc = tokenizer_encode(t, text, n, flags, trust, &a, &e);
    must(rc == 0 || (rc == e.code && e.text[0] && a.n == 0));
    for (size_t i = 0; i < a.n; i++) {
        must(a.v[i] >= 0 && (size_t)a.v[i] < tokenizer_count(t));
        must(detok_push(&d, t, a.v[i], &out, &e) == 0);
    }
    must(detok_flush(&d, &out, &e) == 0);
    buf_release(&out);
    ids_release(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size ? memchr(data, 0xff, size) : NULL;
    size_t n = end ? (size_t)(end - data) : size;
    struct tokenizer *t;
    struct err e = {0};
    int rc = tokenizer_new_json(&t, (const char *)data, n, &e);

    if (rc) {
        must(!t && rc == e.code && e.text[0]);
        return 0;
    }
    if (end) {
        const char *text = (const char *)end + 1;
        size_t m = size - n - 1;
        m = m < 4096 ? m : 4096; /* a hostile pattern may need a steady time per byte */
        uint8_t trust[4096];
        for (size_t i = 0; i < m; i++)
            trust[i] = (text[i] ^ i) % 7 != 0;
        encode(t, text, m, 0, NULL);
        encode(t, text, m, TOKENIZER_SPECIAL | TOKENIZER_BOS, NULL);
        encode(t, text, m, 0, trust);
    }
    tokenizer_free(t);
    return 0;
}
