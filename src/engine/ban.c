/* See ban.h. For each place in a word, the tokens that are just its rest are found once, by a walk
   over the vocabulary that looks only at words with the token's last byte. */
#include "engine/ban.h"

#include "base/num.h"

#include <stdlib.h>
#include <string.h>

struct place {
    uint32_t word, at; /* bytes of the word that are there */
};

struct ban {
    const struct tokenizer *tok;
    char *bytes;     /* of all words, one behind the other */
    uint32_t *first; /* (n + 1) where each begins */
    size_t n;
    uint32_t *last;     /* (n) the words by their last byte, … */
    uint32_t head[257]; /* … those of byte c from head[c] on */
    /* Tokens that are just the rest of a word from a byte on: rest[from[i] … from[i + 1]). */
    uint32_t *from; /* (bytes + 1) */
    int32_t *rest;
    struct place *open, *next; /* (bytes) words that have begun, n_open of them */
    size_t n_open;
};

static uint32_t length(const struct ban *b, uint32_t w)
{
    return b->first[w + 1] - b->first[w];
}

/* Words without the blanks before them, each also with one. */
static int copy_words(struct ban *b, const char *const *word, size_t n, struct err *e)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        size_t k = strlen(word[i] + strspn(word[i], " "));
        if (!k || k > BAN_BYTES_MAX)
            return err_set(e, ERR_USAGE, "word %zu that is forbidden %s", i + 1,
                           k ? "has more than 1,024 bytes" : "is empty: leave it out");
        total += 2 * k + 1;
    }
    if (n > BAN_WORDS_MAX)
        return err_set(e, ERR_USAGE, "more than %d words are forbidden", BAN_WORDS_MAX);
    b->bytes = malloc(total);
    b->first = malloc((2 * n + 1) * sizeof *b->first);
    b->last = malloc((2 * n + 1) * sizeof *b->last);
    b->from = calloc(total + 2, sizeof *b->from);
    b->open = malloc(total * sizeof *b->open);
    b->next = malloc(total * sizeof *b->next);
    if (!b->bytes || !b->first || !b->last || !b->from || !b->open || !b->next)
        return err_nomem(e, total, "forbidden words");
    uint32_t at = 0;
    for (size_t i = 0; i < 2 * n; i++) {
        const char *s = word[i / 2] + strspn(word[i / 2], " ");
        size_t k = strlen(s);
        b->first[b->n++] = at;
        if (i & 1)
            b->bytes[at++] = ' ';
        memcpy(b->bytes + at, s, k);
        at += (uint32_t)k;
    }
    b->first[b->n] = at;
    return 0;
}

static void sort_words(struct ban *b)
{
    uint32_t at = 0;
    for (unsigned c = 0; c < 256; c++) {
        b->head[c] = at;
        for (uint32_t w = 0; w < b->n; w++)
            if ((uint8_t)b->bytes[b->first[w + 1] - 1] == c)
                b->last[at++] = w;
    }
    b->head[256] = at;
}

/* The rests of words that this token is: counts them, or (rest) puts them in their places. */
static void see_token(struct ban *b, int32_t id, bool counted)
{
    size_t n;
    const char *s = tokenizer_bytes(b->tok, id, &n);
    uint8_t c = n ? (uint8_t)s[n - 1] : 0;
    for (uint32_t i = n ? b->head[c] : 0; n && i < b->head[c + 1]; i++) {
        uint32_t w = b->last[i], end = b->first[w + 1];
        if (length(b, w) < n || memcmp(b->bytes + end - n, s, n) != 0)
            continue;
        if (counted)
            b->rest[b->from[end - n]++] = id;
        else
            b->from[end - n + 2]++;
    }
}

static int find_rests(struct ban *b, size_t n_vocab, struct err *e)
{
    uint32_t bytes = b->first[b->n];
    for (size_t id = 0; id < n_vocab; id++)
        see_token(b, (int32_t)id, false);
    /* from[i + 1] becomes where those of i begin, and moves to where they end as they come */
    for (uint32_t i = 2; i < bytes + 2; i++)
        b->from[i] += b->from[i - 1];
    b->rest = malloc((b->from[bytes + 1] + 1) * sizeof *b->rest);
    if (!b->rest)
        return err_nomem(e, b->from[bytes + 1] * sizeof *b->rest, "forbidden words");
    b->from++;
    for (size_t id = 0; id < n_vocab; id++)
        see_token(b, (int32_t)id, true);
    b->from--;
    return 0;
}

int ban_new(struct ban **out, const struct tokenizer *tok, size_t n_vocab, const char *const *word,
            size_t n, struct err *e)
{
    struct ban *b = calloc(1, sizeof *b);
    *out = NULL;
    if (!b)
        return err_nomem(e, sizeof *b, "forbidden words");
    b->tok = tok;
    int rc = copy_words(b, word, n, e);
    if (!rc) {
        sort_words(b);
        rc = find_rests(b, n_vocab, e);
    }
    if (rc)
        ban_free(b);
    else
        *out = b;
    return rc;
}

void ban_free(struct ban *b)
{
    if (!b)
        return;
    free(b->bytes);
    free(b->first);
    free(b->last);
    free(b->from);
    free(b->rest);
    free(b->open);
    free(b->next);
    free(b);
}

size_t ban_most(const struct ban *b)
{
    return b->from[b->first[b->n]];
}

static size_t put(const struct ban *b, uint32_t at, int32_t *out)
{
    size_t n = b->from[at + 1] - b->from[at];
    if (n)
        memcpy(out, b->rest + b->from[at], n * sizeof *out);
    return n;
}

size_t ban_list(const struct ban *b, int32_t *out)
{
    size_t n = 0;
    for (uint32_t w = 0; w < b->n; w++)
        n += put(b, b->first[w], out + n);
    for (size_t i = 0; i < b->n_open; i++)
        n += put(b, b->first[b->open[i].word] + b->open[i].at, out + n);
    return n;
}

/* Does the word go on with s behind its first `at` bytes, and further? */
static void go_on(struct ban *b, struct place p, const char *s, size_t n, size_t *count)
{
    if (p.at + n < length(b, p.word) && !memcmp(b->bytes + b->first[p.word] + p.at, s, n))
        b->next[(*count)++] = (struct place){p.word, p.at + (uint32_t)n};
}

void ban_accept(struct ban *b, int32_t id)
{
    size_t n, count = 0;
    const char *s = tokenizer_bytes(b->tok, id, &n);
    if (!n || n > BAN_BYTES_MAX) {
        b->n_open = n ? 0 : b->n_open; /* a token without bytes stands nowhere in the text */
        return;
    }
    for (size_t i = 0; i < b->n_open; i++)
        go_on(b, b->open[i], s, n, &count);
    for (uint32_t w = 0; w < b->n; w++)
        go_on(b, (struct place){w, 0}, s, n, &count);
    struct place *was = b->open;
    b->open = b->next;
    b->next = was;
    b->n_open = count;
}
