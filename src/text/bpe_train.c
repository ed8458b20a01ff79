#include "text/bpe_train.h"

#include "base/buf.h"
#include "base/hash.h"
#include "base/num.h"
#include "base/utf8.h"
#include "text/pretok.h"
#include "text/tokenizer_write.h"
#include "text/vocab.h"

#include <stdlib.h>
#include <string.h>

enum { BYTES = 256, PIECE_MAX = 4096 };

/* Of the pieces, the bytes and then the tokens: at most so much. */
static const size_t text_max = (size_t)16 << 30;

/* A piece of text that occurs `count` times. */
struct word {
    size_t at;  /* its bytes, and later its tokens, begin here */
    uint32_t n; /* bytes, later tokens */
    uint64_t count;
};

struct pair {
    uint64_t key; /* left id << 32 | right id */
    int64_t count;
    uint32_t *word; /* (n) words it was seen in; it may have left some again */
    uint32_t n, room;
};

/* Open addressing, linear probing: index + 1 of what is there, 0 for nothing. */
struct table {
    uint32_t *slot;
    size_t mask, used;
};

struct best {
    int64_t count;
    uint64_t key;
    uint32_t pair;
};

struct bpe_trainer {
    struct bpe_train_options o;
    struct pretok pretok;
    struct pretok_work *work;
    struct buf bytes; /* of all words */
    struct word *word;
    size_t words, c_words;
    struct table word_table, pair_table;
    int32_t *token; /* of all words */
    struct pair *pair;
    size_t pairs, c_pairs;
    struct best *heap;
    size_t heaped, c_heap;
    uint64_t *merge; /* (merges) keys */
    size_t merges;
    uint32_t *length; /* (vocabulary) bytes of each token */
    uint64_t total;   /* bytes counted */
    bool begins[256]; /* a special token begins with this byte */
};

/* ---- growing ----------------------------------------------------------------------------------
 */

/* Room for one more element of `size` bytes behind the n that are there. */
static int grow(void *array, size_t n, size_t *room, size_t size, struct err *e)
{
    void **p = array;
    if (n < *room)
        return 0;
    size_t more = *room ? *room * 2 : 64, bytes;
    void *v = num_mul(&bytes, more, size) ? realloc(*p, bytes) : NULL;
    if (!v)
        return err_nomem(e, more * size, "a vocabulary");
    *p = v;
    *room = more;
    return 0;
}

static int table_grow(struct table *t, uint64_t (*hash)(const void *arg, uint32_t i),
                      const void *arg, struct err *e)
{
    if (t->slot && 2 * t->used < t->mask)
        return 0;
    size_t n = t->slot ? 2 * (t->mask + 1) : 1024;
    uint32_t *slot = calloc(n, sizeof *slot);
    if (!slot)
        return err_nomem(e, n * sizeof *slot, "a vocabulary");
    for (size_t i = 0; t->slot && i <= t->mask; i++)
        if (t->slot[i]) {
            size_t k = hash(arg, t->slot[i] - 1) & (n - 1);
            while (slot[k])
                k = (k + 1) & (n - 1);
            slot[k] = t->slot[i];
        }
    free(t->slot);
    t->slot = slot;
    t->mask = n - 1;
    return 0;
}

/* ---- counting pieces --------------------------------------------------------------------------
 */

static uint64_t word_hash(const void *arg, uint32_t i)
{
    const struct bpe_trainer *t = arg;
    return hash_bytes(t->bytes.data + t->word[i].at, t->word[i].n, 0);
}

static int count_piece(void *arg, const char *s, size_t n, struct err *e)
{
    struct bpe_trainer *t = arg;
    /* No vocabulary is better for what a megabyte without a gap has in it. */
    for (; n > PIECE_MAX; s += PIECE_MAX, n -= PIECE_MAX) {
        int rc = count_piece(t, s, PIECE_MAX, e);
        if (rc)
            return rc;
    }
    t->total += n;
    int rc = table_grow(&t->word_table, word_hash, t, e);
    if (rc)
        return rc;
    size_t k = hash_bytes(s, n, 0) & t->word_table.mask;
    for (; t->word_table.slot[k]; k = (k + 1) & t->word_table.mask) {
        struct word *w = &t->word[t->word_table.slot[k] - 1];
        if (w->n == n && memcmp(t->bytes.data + w->at, s, n) == 0) {
            w->count++;
            return 0;
        }
    }
    if (t->words >= UINT32_MAX - 1)
        return err_set(e, ERR_LIMIT, "the texts have more than %u different words", UINT32_MAX - 1);
    rc = grow(&t->word, t->words, &t->c_words, sizeof *t->word, e);
    if (rc)
        return rc;
    t->word[t->words] = (struct word){t->bytes.len, (uint32_t)n, 1};
    rc = buf_append(&t->bytes, s, n, e);
    if (rc)
        return rc;
    t->word_table.slot[k] = (uint32_t)++t->words;
    t->word_table.used++;
    return 0;
}

static int add_plain(struct bpe_trainer *t, const char *s, size_t n, struct err *e)
{
    if (!n)
        return 0;
    pretok_work_begin(t->work, n);
    return pretok_run(&t->pretok, t->work, s, n, count_piece, t, e);
}

/* The special token that s begins with: its length, or 0. */
static size_t special_at(const struct bpe_trainer *t, const char *s, size_t n)
{
    size_t best = 0;
    for (size_t i = 0; i < t->o.n_special; i++) {
        size_t k = strlen(t->o.special[i].text);
        if (k <= n && k > best && memcmp(s, t->o.special[i].text, k) == 0)
            best = k;
    }
    return best;
}

int bpe_trainer_add(struct bpe_trainer *t, const char *s, size_t n, struct err *e)
{
    size_t from = 0;
    int rc = 0;
    if (!utf8_valid(s, n))
        return err_set(e, ERR_FORMAT, "the text is not UTF-8");
    for (size_t i = 0; !rc && i < n;) {
        size_t k = t->begins[(unsigned char)s[i]] ? special_at(t, s + i, n - i) : 0;
        if (k) {
            rc = add_plain(t, s + from, i - from, e);
            from = i + k;
        }
        i += k ? k : 1;
    }
    return rc ? rc : add_plain(t, s + from, n - from, e);
}

/* ---- pairs ------------------------------------------------------------------------------------
 */

static uint64_t pair_hash(const void *arg, uint32_t i)
{
    return hash_u64(((const struct bpe_trainer *)arg)->pair[i].key);
}

/* Changes the count of a pair by that of word w, which gained it or lost it. */
static int pair_add(struct bpe_trainer *t, int32_t a, int32_t b, uint32_t w, int sign,
                    struct err *e)
{
    uint64_t key = (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
    int rc = table_grow(&t->pair_table, pair_hash, t, e);
    if (rc)
        return rc;
    size_t k = hash_u64(key) & t->pair_table.mask;
    while (t->pair_table.slot[k] && t->pair[t->pair_table.slot[k] - 1].key != key)
        k = (k + 1) & t->pair_table.mask;
    if (!t->pair_table.slot[k]) {
        if (t->pairs >= UINT32_MAX - 1)
            return err_set(e, ERR_LIMIT, "the texts have too many pairs of tokens");
        if ((rc = grow(&t->pair, t->pairs, &t->c_pairs, sizeof *t->pair, e)))
            return rc;
        t->pair[t->pairs] = (struct pair){.key = key};
        t->pair_table.slot[k] = (uint32_t)++t->pairs;
        t->pair_table.used++;
    }
    struct pair *p = &t->pair[t->pair_table.slot[k] - 1];
    p->count += sign * (int64_t)t->word[w].count;
    if (sign < 0 || (p->n && p->word[p->n - 1] == w))
        return 0;
    size_t room = p->room;
    if ((rc = grow(&p->word, p->n, &room, sizeof *p->word, e)))
        return rc;
    p->room = (uint32_t)room;
    p->word[p->n++] = w;
    return 0;
}

/* ---- the heap of pairs ------------------------------------------------------------------------
 */

static bool better(const struct best *a, const struct best *b)
{
    return a->count != b->count ? a->count > b->count : a->key < b->key;
}

static int heap_push(struct bpe_trainer *t, uint32_t pair, struct err *e)
{
    const struct pair *p = &t->pair[pair];
    struct best x = {p->count, p->key, pair};
    int rc = grow(&t->heap, t->heaped, &t->c_heap, sizeof *t->heap, e);
    if (rc)
        return rc;
    size_t i = t->heaped++;
    for (; i && better(&x, &t->heap[(i - 1) / 2]); i = (i - 1) / 2)
        t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = x;
    return 0;
}

static struct best heap_pop(struct bpe_trainer *t)
{
    struct best top = t->heap[0], x = t->heap[--t->heaped];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < t->heaped; i = k) {
        if (k + 1 < t->heaped && better(&t->heap[k + 1], &t->heap[k]))
            k++;
        if (!better(&t->heap[k], &x))
            break;
        t->heap[i] = t->heap[k];
    }
    t->heap[i] = x;
    return top;
}

/* ---- merging ----------------------------------------------------------------------------------
 */

/* Replaces a, b by `to` in word w, and counts its new neighbours instead of the old ones. */
static int merge_word(struct bpe_trainer *t, uint32_t w, int32_t a, int32_t b, int32_t to,
                      struct err *e)
{
    int32_t *v = t->token + t->word[w].at;
    uint32_t n = t->word[w].n, out = 0;
    int rc = 0;
    for (uint32_t i = 0; !rc && i < n; i++) {
        if (i + 1 == n || v[i] != a || v[i + 1] != b) {
            v[out++] = v[i];
            continue;
        }
        if (out) {
            rc = pair_add(t, v[out - 1], a, w, -1, e);
            if (!rc)
                rc = pair_add(t, v[out - 1], to, w, 1, e);
        }
        if (!rc && i + 2 < n) {
            rc = pair_add(t, b, v[i + 2], w, -1, e);
            if (!rc)
                rc = pair_add(t, to, v[i + 2], w, 1, e);
        }
        if (!rc)
            rc = pair_add(t, a, b, w, -1, e);
        v[out++] = to;
        i++;
    }
    t->word[w].n = out;
    return rc;
}

static int merge_best(struct bpe_trainer *t, uint32_t pair, struct err *e)
{
    uint64_t key = t->pair[pair].key;
    int32_t a = (int32_t)(key >> 32), b = (int32_t)key, to = (int32_t)bpe_trainer_vocab(t);
    uint32_t n = t->pair[pair].n, *word = t->pair[pair].word;
    size_t before = t->pairs;
    int rc = 0;
    t->pair[pair].word = NULL; /* while it is walked, the list may not grow */
    t->pair[pair].n = t->pair[pair].room = 0;
    t->length[to] = t->length[a] + t->length[b];
    t->merge[t->merges++] = key;
    for (uint32_t i = 0; !rc && i < n; i++)
        rc = merge_word(t, word[i], a, b, to, e);
    free(word);
    /* What is new has the new token in it; other pairs only lost, which the heap finds out later.
     */
    for (size_t i = before; !rc && i < t->pairs; i++)
        rc = heap_push(t, (uint32_t)i, e);
    return rc;
}

static int first_pairs(struct bpe_trainer *t, struct err *e)
{
    int32_t bytes = (int32_t)t->o.n_special;
    int rc = 0;
    t->token = malloc((t->bytes.len + 1) * sizeof *t->token);
    t->length = calloc(t->o.vocab_size, sizeof *t->length);
    t->merge = malloc(t->o.vocab_size * sizeof *t->merge);
    if (!t->token || !t->length || !t->merge)
        return err_nomem(e, t->bytes.len * sizeof *t->token, "a vocabulary");
    for (size_t i = 0; i < t->bytes.len; i++)
        t->token[i] = bytes + (unsigned char)t->bytes.data[i];
    for (size_t i = 0; i < BYTES; i++)
        t->length[(size_t)bytes + i] = 1;
    for (size_t w = 0; w < t->words; w++)
        for (uint32_t i = 0; !rc && i + 1 < t->word[w].n; i++)
            rc = pair_add(t, t->token[t->word[w].at + i], t->token[t->word[w].at + i + 1],
                          (uint32_t)w, 1, e);
    for (size_t i = 0; !rc && i < t->pairs; i++)
        rc = heap_push(t, (uint32_t)i, e);
    return rc;
}

int bpe_trainer_run(struct bpe_trainer *t, struct err *e)
{
    int rc = t->token ? err_set(e, ERR_USAGE, "the vocabulary is made already") : first_pairs(t, e);
    while (!rc && bpe_trainer_vocab(t) < t->o.vocab_size && t->heaped) {
        struct best top = heap_pop(t);
        const struct pair *p = &t->pair[top.pair];
        size_t length = t->length[p->key >> 32] + t->length[(uint32_t)p->key];
        if (p->count < (int64_t)t->o.min_count || (t->o.max_token && length > t->o.max_token))
            continue;
        rc = p->count == top.count ? merge_best(t, top.pair, e) : heap_push(t, top.pair, e);
    }
    return rc;
}

/* ---- making and reading -----------------------------------------------------------------------
 */

int bpe_trainer_new(struct bpe_trainer **out, const struct bpe_train_options *o, struct err *e)
{
    size_t least = o->n_special + BYTES;
    unsigned flags;
    *out = NULL;
    if (o->vocab_size < least || o->vocab_size > VOCAB_MAX)
        return err_set(e, ERR_USAGE,
                       "a vocabulary of %zu: from %zu (%zu special tokens and 256 bytes) to %d are "
                       "possible",
                       o->vocab_size, least, o->n_special, VOCAB_MAX);
    for (size_t i = 0; i < o->n_special; i++)
        for (size_t k = 0; k <= i; k++)
            if (strlen(o->special[i].text) < 2 ||
                (k < i && strcmp(o->special[i].text, o->special[k].text) == 0))
                return err_set(e, ERR_USAGE,
                               "the special token \"%.80s\": it needs two bytes and may be there "
                               "only once",
                               o->special[i].text);
    struct bpe_trainer *t = calloc(1, sizeof *t);
    if (!t)
        return err_nomem(e, sizeof *t, "a vocabulary");
    for (size_t i = 0; i < o->n_special; i++)
        t->begins[(unsigned char)o->special[i].text[0]] = true;
    t->o = *o;
    t->o.min_count = o->min_count ? o->min_count : 1;
    buf_init(&t->bytes, text_max);
    int rc = pretok_add_named(&t->pretok, o->pretok, strlen(o->pretok), &flags, e);
    if (!rc)
        rc = pretok_work_new(&t->work, &t->pretok, e);
    if (rc) {
        bpe_trainer_free(t);
        return rc;
    }
    *out = t;
    return 0;
}

void bpe_trainer_free(struct bpe_trainer *t)
{
    if (!t)
        return;
    pretok_work_free(t->work);
    pretok_release(&t->pretok);
    buf_release(&t->bytes);
    for (size_t i = 0; i < t->pairs; i++)
        free(t->pair[i].word);
    free(t->pair);
    free(t->word);
    free(t->word_table.slot);
    free(t->pair_table.slot);
    free(t->token);
    free(t->heap);
    free(t->merge);
    free(t->length);
    free(t);
}

size_t bpe_trainer_vocab(const struct bpe_trainer *t)
{
    return t->o.n_special + BYTES + t->merges;
}

uint64_t bpe_trainer_bytes(const struct bpe_trainer *t)
{
    return t->total;
}

uint64_t bpe_trainer_tokens(const struct bpe_trainer *t)
{
    uint64_t n = 0;
    for (size_t w = 0; w < t->words; w++)
        n += t->word[w].n * t->word[w].count;
    return n;
}

/* The bytes of a token, written from left to right; pairs have lower ids than what they make. */
static void spell(const struct bpe_trainer *t, uint32_t id, char *out)
{
    size_t base = t->o.n_special + BYTES;
    while (id >= base) {
        uint64_t key = t->merge[id - base];
        uint32_t left = (uint32_t)(key >> 32), right = (uint32_t)key;
        /* the longer side by the loop, so that the depth of calls is at most log2 of the bytes */
        if (t->length[left] < t->length[right]) {
            spell(t, left, out);
            out += t->length[left];
            id = right;
        } else {
            spell(t, right, out + t->length[left]);
            id = left;
        }
    }
    *out = (char)(unsigned char)(id - t->o.n_special);
}

/* A token in the byte alphabet, appended to `out`. */
static int written(const struct bpe_trainer *t, uint32_t id, struct buf *out, struct err *e)
{
    uint32_t n = t->length[id];
    char *bytes = malloc(n), *text = malloc(2 * (size_t)n);
    int rc = bytes && text ? 0 : err_nomem(e, n, "a vocabulary");
    if (!rc) {
        spell(t, id, bytes);
        rc = buf_append(out, text, vocab_write(text, bytes, n), e);
    }
    free(bytes);
    free(text);
    return rc;
}

static int add_vocab(const struct bpe_trainer *t, json_t *vocab, json_t *added, struct err *e)
{
    struct buf s;
    int rc = 0;
    buf_init(&s, PIECE_MAX * 2);
    for (size_t i = 0; !rc && i < bpe_trainer_vocab(t); i++) {
        json_int_t id = (json_int_t)i;
        if (i < t->o.n_special) {
            const struct bpe_special *x = &t->o.special[i];
            if (json_object_set_new(vocab, x->text, json_integer(id)) ||
                json_array_append_new(
                    added, tokenizer_write_added(x->text, strlen(x->text), id, x->control)))
                rc = err_nomem(e, 0, "a vocabulary");
            continue;
        }
        buf_clear(&s);
        rc = written(t, (uint32_t)i, &s, e);
        if (!rc && json_object_setn_new(vocab, s.data, s.len, json_integer(id)))
            rc = err_nomem(e, 0, "a vocabulary");
    }
    buf_release(&s);
    return rc;
}

static int add_merges(const struct bpe_trainer *t, json_t *merges, struct err *e)
{
    struct buf s;
    int rc = 0;
    buf_init(&s, PIECE_MAX * 4);
    for (size_t i = 0; !rc && i < t->merges; i++) {
        buf_clear(&s);
        rc = written(t, (uint32_t)(t->merge[i] >> 32), &s, e);
        if (!rc)
            rc = buf_putc(&s, ' ', e);
        if (!rc)
            rc = written(t, (uint32_t)t->merge[i], &s, e);
        if (!rc && json_array_append_new(merges, json_stringn(s.data, s.len)))
            rc = err_nomem(e, 0, "a vocabulary");
    }
    buf_release(&s);
    return rc;
}

int bpe_trainer_json(const struct bpe_trainer *t, const char *bos, json_t **out, struct err *e)
{
    json_t *vocab = json_object(), *merges = json_array(), *added = json_array();
    struct tokenizer_parts parts = {.vocab = vocab, .merges = merges, .added = added, .bos = bos};
    int rc = vocab && merges && added ? 0 : err_nomem(e, 0, "a vocabulary");
    *out = NULL;
    parts.patterns = pretok_patterns(t->o.pretok, strlen(t->o.pretok), &parts.flags);
    for (size_t i = 0; bos && i < t->o.n_special; i++)
        if (strcmp(t->o.special[i].text, bos) == 0)
            parts.bos_id = (int32_t)i;
    if (!rc && !t->token)
        rc = err_set(e, ERR_USAGE, "the vocabulary is not made yet");
    if (!rc)
        rc = add_vocab(t, vocab, added, e);
    if (!rc)
        rc = add_merges(t, merges, e);
    if (!rc && !(*out = tokenizer_write(&parts)))
        rc = err_nomem(e, 0, "a vocabulary");
    json_decref(vocab);
    json_decref(merges);
    json_decref(added);
    return rc;
}
