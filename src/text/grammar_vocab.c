/*
 * The vocabulary for masks: a trie of the tokens' bytes, laid out in the order of a depth-first
 * walk, so that a mask is one pass from left to right that skips the subtrees which do not fit. For
 * each subtree it is known which classes of bytes are in it: where all of them lead back to where
 * they came from (most of a string, free text), the whole subtree fits without a look at it.
 *
 * Control tokens are kept apart: special ones, and added ones written <…>. They stand only where a
 * grammar names them. Other added tokens (runs of spaces in some vocabularies) are text.
 */
#include "base/num.h"
#include "text/grammar_impl.h"

#include <stdlib.h>
#include <string.h>

enum { LONGEST = 512 }; /* longer tokens are never allowed */

struct entry {
    const char *p;
    uint32_t n;
    int32_t id;
};

static int by_bytes(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int c = memcmp(x->p, y->p, num_min(x->n, y->n));
    if (c)
        return c;
    return x->n != y->n ? (x->n < y->n ? -1 : 1) : x->id < y->id ? -1 : 1;
}

static enum gkind kind_of(const struct tokenizer *tok, int32_t id)
{
    size_t n;
    const char *p = tokenizer_bytes(tok, id, &n);
    if (!n)
        return GKIND_NONE;
    if (tokenizer_is_end(tok, id))
        return GKIND_END;
    if (tokenizer_is_special(tok, id) ||
        (tokenizer_is_added(tok, id) && n > 2 && p[0] == '<' && p[n - 1] == '>'))
        return GKIND_CONTROL;
    return n > LONGEST ? GKIND_NONE : GKIND_PLAIN;
}

/* Bytes of all tokens, one behind the other, and what each of them is. */
static int copy_tokens(struct grammar_vocab *v, const struct tokenizer *tok, struct err *e)
{
    size_t total = 0, n;
    for (size_t i = 0; i < v->count; i++) {
        tokenizer_bytes(tok, (int32_t)i, &n);
        if (!num_add(&total, total, n) || total > UINT32_MAX)
            return err_set(e, ERR_LIMIT, "the tokens have more than 4 GB");
    }
    v->start = malloc((v->count + 1) * sizeof *v->start);
    v->bytes = malloc(total + 1);
    v->kind = calloc(v->count + 1, 1);
    v->same = malloc((v->count + 1) * sizeof *v->same);
    if (!v->start || !v->bytes || !v->kind || !v->same)
        return err_nomem(e, total + 9 * v->count, "a vocabulary");
    uint32_t at = 0;
    for (size_t i = 0; i < v->count; i++) {
        const char *p = tokenizer_bytes(tok, (int32_t)i, &n);
        v->start[i] = at;
        if (n)
            memcpy(v->bytes + at, p, n);
        at += (uint32_t)n;
        v->kind[i] = (uint8_t)kind_of(tok, (int32_t)i);
        v->same[i] = -1;
    }
    v->start[v->count] = at;
    return 0;
}

/* Lists of control and end tokens. */
static int list_controls(struct grammar_vocab *v, struct err *e)
{
    for (size_t i = 0; i < v->count; i++) {
        v->n_control += v->kind[i] == GKIND_CONTROL;
        v->n_end += v->kind[i] == GKIND_END;
    }
    if (!v->n_end)
        return err_set(e, ERR_UNSUPPORTED,
                       "the vocabulary has no token that ends an answer, so its form cannot be "
                       "held to a grammar");
    v->control = calloc(v->n_control + 1, sizeof *v->control);
    v->end = calloc(v->n_end, sizeof *v->end);
    if (!v->control || !v->end)
        return err_nomem(e, v->n_control * sizeof *v->control, "a vocabulary");
    size_t c = 0, k = 0;
    for (size_t i = 0; i < v->count; i++) {
        if (v->kind[i] == GKIND_CONTROL)
            v->control[c++] =
                (struct gcontrol){(int32_t)i, v->start[i], v->start[i + 1] - v->start[i]};
        if (v->kind[i] == GKIND_END)
            v->end[k++] = (int32_t)i;
    }
    return 0;
}

/* From tokens in order to the trie; `out` NULL only counts. Returns the number of nodes. */
static size_t build(struct grammar_vocab *v, const struct entry *t, size_t n, struct gtrie *out)
{
    uint32_t path[LONGEST];
    size_t depth = 0, nodes = 0;
    for (size_t i = 0; i < n; i++) {
        size_t same = 0;
        while (i && same < t[i].n && same < t[i - 1].n && t[i].p[same] == t[i - 1].p[same])
            same++;
        if (i && same == t[i].n) { /* the same bytes again: in order, the other is no longer */
            if (out)
                v->same[t[i - 1].id] = t[i].id;
            continue;
        }
        for (; out && depth > same; depth--)
            out[path[depth - 1]].skip = (uint32_t)nodes - path[depth - 1];
        for (depth = same; depth < t[i].n; depth++) {
            if (out)
                out[nodes] = (struct gtrie){
                    .token = -1, .depth = (uint16_t)depth, .byte = (uint8_t)t[i].p[depth]};
            path[depth] = (uint32_t)nodes++;
        }
        if (out)
            out[nodes - 1].token = t[i].id;
    }
    for (; out && depth > 0; depth--)
        out[path[depth - 1]].skip = (uint32_t)nodes - path[depth - 1];
    return nodes;
}

/* ---- what subtrees hold --------------------------------------------------------------------- */

int gclass_of(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return 0;
    if (c >= 'a' && c <= 'z')
        return 1;
    if (c >= 'A' && c <= 'Z')
        return 2;
    if (c < ' ' || c == 127)
        return c == '\n' ? 3 : c == '\t' ? 4 : c == '\r' ? 5 : 6;
    static const char alone[] = " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
    return 7 + (int)(strchr(alone, c) - alone);
}

int gutf8_step(int state, uint8_t byte)
{
    static const struct {
        uint8_t from, lo, hi, to;
    } steps[] = {{0, 0xc2, 0xdf, 1}, {0, 0xe0, 0xe0, 4}, {0, 0xe1, 0xec, 2}, {0, 0xed, 0xed, 5},
                 {0, 0xee, 0xef, 2}, {0, 0xf0, 0xf0, 6}, {0, 0xf1, 0xf3, 3}, {0, 0xf4, 0xf4, 7},
                 {1, 0x80, 0xbf, 0}, {2, 0x80, 0xbf, 1}, {3, 0x80, 0xbf, 2}, {4, 0xa0, 0xbf, 1},
                 {5, 0x80, 0x9f, 1}, {6, 0x90, 0xbf, 2}, {7, 0x80, 0x8f, 2}};
    if (byte < 0x80)
        return state ? -1 : 0;
    for (size_t i = 0; i < NUM_COUNT(steps); i++)
        if (steps[i].from == state && byte >= steps[i].lo && byte <= steps[i].hi)
            return steps[i].to;
    return -1;
}

/* Fills below, rank, order and heights, from the last node to the first. */
static void describe(struct grammar_vocab *v, uint8_t *well)
{
    uint32_t tokens = 0;
    for (size_t i = 0; i < v->n_trie; i++) {
        v->rank[i] = tokens;
        for (int32_t id = v->trie[i].token; id >= 0; id = v->same[id])
            v->order[tokens++] = id;
    }
    v->rank[v->n_trie] = tokens;
    for (size_t i = v->n_trie; i-- > 0;) {
        struct gtrie *t = &v->trie[i];
        uint64_t below = t->byte < 0x80 ? 1ull << gclass_of(t->byte) : 1ull << GCLASS_UTF8;
        unsigned height = 0;
        uint8_t all = 0xff; /* entry states from which all children are well-formed */
        for (size_t k = i + 1; k < i + t->skip; k += v->trie[k].skip) {
            below |= v->below[k] & ~(1ull << GCLASS_BROKEN);
            if (v->below[k] >> GCLASS_BROKEN & 1) /* for this node's start it may be right */
                below |= 1ull << GCLASS_UTF8;
            all &= well[k];
            height = v->trie[k].height > height ? v->trie[k].height : height;
        }
        well[i] = 0;
        for (int state = 0; state < 8; state++) {
            int to = gutf8_step(state, t->byte);
            if (to >= 0 && (all >> to & 1))
                well[i] |= (uint8_t)(1u << state);
        }
        if (below >> GCLASS_UTF8 & 1 && !(well[i] & 1))
            below = (below & ~(1ull << GCLASS_UTF8)) | 1ull << GCLASS_BROKEN;
        v->below[i] = below;
        t->height = (uint8_t)(height < 255 ? height + 1 : 255);
    }
}

static int make_trie(struct grammar_vocab *v, struct err *e)
{
    struct entry *t = malloc((v->count + 1) * sizeof *t);
    size_t n = 0;
    if (!t)
        return err_nomem(e, v->count * sizeof *t, "a vocabulary");
    for (size_t i = 0; i < v->count; i++)
        if (v->kind[i] == GKIND_PLAIN) {
            t[n] =
                (struct entry){v->bytes + v->start[i], v->start[i + 1] - v->start[i], (int32_t)i};
            v->longest = num_max(v->longest, t[n++].n);
        }
    qsort(t, n, sizeof *t, by_bytes);
    v->n_trie = build(v, t, n, NULL);
    v->trie = malloc((v->n_trie + 1) * sizeof *v->trie);
    v->below = malloc((v->n_trie + 1) * sizeof *v->below);
    v->rank = malloc((v->n_trie + 1) * sizeof *v->rank);
    v->order = malloc((n + 1) * sizeof *v->order);
    uint8_t *well = malloc(v->n_trie + 1);
    bool ok = v->trie && v->below && v->rank && v->order && well;
    if (ok) {
        build(v, t, n, v->trie);
        describe(v, well);
    }
    free(t);
    free(well);
    return ok ? 0 : err_nomem(e, v->n_trie * sizeof *v->trie, "a vocabulary");
}

int grammar_vocab_new(struct grammar_vocab **out, const struct tokenizer *tok, struct err *e)
{
    struct grammar_vocab *v = calloc(1, sizeof *v);
    *out = NULL;
    if (!v)
        return err_nomem(e, sizeof *v, "a vocabulary");
    atomic_init(&v->refs, 1);
    v->count = tokenizer_count(tok);
    v->words = (v->count + 31) / 32;
    int code = copy_tokens(v, tok, e);
    code = code ? code : list_controls(v, e);
    code = code ? code : make_trie(v, e);
    if (code)
        grammar_vocab_unref(v);
    else
        *out = v;
    return code;
}

struct grammar_vocab *grammar_vocab_ref(struct grammar_vocab *v)
{
    atomic_fetch_add(&v->refs, 1);
    return v;
}

void grammar_vocab_unref(struct grammar_vocab *v)
{
    if (!v || atomic_fetch_sub(&v->refs, 1) > 1)
        return;
    free(v->trie);
    free(v->below);
    free(v->rank);
    free(v->order);
    free(v->same);
    free(v->start);
    free(v->bytes);
    free(v->kind);
    free(v->control);
    free(v->end);
    free(v);
}

size_t grammar_vocab_words(const struct grammar_vocab *v)
{
    return v->words;
}
