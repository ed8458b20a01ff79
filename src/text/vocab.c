/* See vocab.h. The map has at least 4/3 slots per id and a random seed: vocabularies are files. */
#include "text/vocab.h"

#include "base/hash.h"
#include "base/num.h"
#include "base/rng.h"
#include "base/utf8.h"

#include <string.h>

enum {
    CHUNK = 1 << 16,
    AHEAD = 16, /* tokens whose slots are fetched together */
};

int vocab_init(struct vocab *v, struct arena *a, size_t count, struct err *e)
{
    *v = (struct vocab){.arena = a, .count = count, .seed = rng_os_seed()};
    if (count > VOCAB_MAX)
        return err_set(e, ERR_LIMIT, "%zu tokens: at most %d are supported", count, VOCAB_MAX);
    v->tok = arena_array(a, count, sizeof *v->tok, e);
    size_t slots = 64;
    while (slots < count + count / 3)
        slots *= 2;
    v->slot = arena_array(a, slots, sizeof *v->slot, e);
    v->mask = slots - 1;
    return v->tok && v->slot ? 0 : ERR_NOMEM;
}

/* Makes room for the n bytes of a token at v->chunk. */
static int room(struct vocab *v, size_t n, struct err *e)
{
    if (n > VOCAB_TOKEN_MAX)
        return err_set(e, ERR_FORMAT, "a token of %zu bytes: at most %d are supported", n,
                       VOCAB_TOKEN_MAX);
    if (n > v->left || !v->chunk) {
        size_t want = num_max(n, CHUNK);
        v->chunk = arena_alloc(v->arena, want, e);
        v->left = v->chunk ? want : 0;
    }
    return v->chunk ? 0 : ERR_NOMEM;
}

static void take(struct vocab *v, int32_t id, size_t n, uint32_t flags)
{
    v->tok[id] = (struct vocab_token){v->chunk, (uint32_t)n, flags | VOCAB_USED};
    v->chunk += n;
    v->left -= n;
}

size_t vocab_alphabet(char *out, const char *s, size_t n)
{
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned c = (unsigned char)s[i];
        if (c >= 0x80) { /* the alphabet ends at U+0143: two bytes of UTF-8 are the most */
            if ((c & 0xe0) != 0xc0 || i + 1 == n || ((unsigned char)s[i + 1] & 0xc0) != 0x80)
                return SIZE_MAX;
            c = (c & 0x1f) << 6 | ((unsigned char)s[++i] & 0x3f);
        }
        if ((c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c <= 255))
            out[m++] = (char)c;
        else if (c >= 256 && c < 256 + 33)
            out[m++] = (char)(c - 256);
        else if (c >= 256 + 33 && c < 256 + 67)
            out[m++] = (char)(c - 256 - 33 + 127);
        else if (c == 256 + 67)
            out[m++] = (char)173;
        else
            return SIZE_MAX;
    }
    return m;
}

size_t vocab_write(char *out, const char *p, size_t n)
{
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned c = (unsigned char)p[i];
        if (c <= 32)
            c += 256;
        else if (c >= 127 && c <= 160)
            c += 256 + 33 - 127;
        else if (c == 173)
            c = 256 + 67;
        m += utf8_put(out + m, c);
    }
    return m;
}

struct vocab_key vocab_key(const struct vocab *v, const char *p, size_t n)
{
    struct vocab_key k = {0};
    uint64_t h = hash_bytes(p, n, v->seed);
    memcpy(&k.head, p, num_min(n, 8));
    k.tag = (uint32_t)num_min(n, 255) << 24 | (uint32_t)(h >> 40);
    k.at = (size_t)h & v->mask;
    __builtin_prefetch(&v->slot[k.at]);
    return k;
}

/* The slot of p[0..n), or the empty one where it would be. */
static struct vocab_slot *slot_of(const struct vocab *v, struct vocab_key k, const char *p,
                                  size_t n)
{
    for (size_t i = k.at;; i = (i + 1) & v->mask) {
        struct vocab_slot *s = &v->slot[i];
        if (!s->id1)
            return s;
        if (s->head != k.head || s->tag != k.tag)
            continue;
        const struct vocab_token *o = &v->tok[s->id1 - 1];
        if (n <= 8 || (o->n == n && memcmp(o->p + 8, p + 8, n - 8) == 0))
            return s;
    }
}

static bool printable(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s[i] < 33 || s[i] > 126)
            return false;
    return n > 0;
}

static void map_put(struct vocab *v, int32_t id, struct vocab_key k)
{
    struct vocab_token *t = &v->tok[id];
    if (!(t->flags & VOCAB_LEVEL) && !(t->flags & VOCAB_ADDED && printable(t->p, t->n)))
        return;
    struct vocab_slot *s = slot_of(v, k, t->p, t->n);
    if (s->id1 && !(t->flags & VOCAB_LEVEL))
        return;
    if (s->id1) /* of two tokens with the same bytes the last one counts */
        v->tok[s->id1 - 1].flags &= ~(uint32_t)VOCAB_LEVEL;
    *s = (struct vocab_slot){k.head, (uint32_t)id + 1, k.tag};
}

void vocab_index(struct vocab *v)
{
    struct vocab_key k[AHEAD];
    for (size_t i = 0; i < v->count; i += AHEAD) {
        size_t n = num_min(AHEAD, v->count - i);
        for (size_t j = 0; j < n; j++)
            k[j] = vocab_key(v, v->tok[i + j].n ? v->tok[i + j].p : "", v->tok[i + j].n);
        for (size_t j = 0; j < n; j++)
            map_put(v, (int32_t)(i + j), k[j]);
    }
}

int vocab_set_level(struct vocab *v, int32_t id, const char *s, size_t n, struct err *e)
{
    int rc = room(v, n, e);
    if (rc)
        return rc;
    size_t m = vocab_alphabet(v->chunk, s, n);
    if (m == SIZE_MAX)
        return vocab_set_raw(v, id, s, n, e);
    take(v, id, m, VOCAB_LEVEL);
    return 0;
}

int vocab_set_raw(struct vocab *v, int32_t id, const char *s, size_t n, struct err *e)
{
    int rc = room(v, n, e);
    if (rc)
        return rc;
    memcpy(v->chunk, s, n);
    take(v, id, n, 0);
    return 0;
}

int32_t vocab_find_key(const struct vocab *v, struct vocab_key k, const char *p, size_t n)
{
    return (int32_t)slot_of(v, k, p, n)->id1 - 1;
}

int32_t vocab_find(const struct vocab *v, const char *p, size_t n)
{
    return vocab_find_key(v, vocab_key(v, p, n), p, n);
}

int32_t vocab_find_written(const struct vocab *v, const char *s, size_t n)
{
    char bytes[1024];
    if (n <= sizeof bytes) {
        size_t m = vocab_alphabet(bytes, s, n);
        int32_t id = m == SIZE_MAX ? -1 : vocab_find(v, bytes, m);
        if (id >= 0)
            return id;
    }
    for (size_t i = 0; i < v->count; i++) {
        const struct vocab_token *t = &v->tok[i];
        if (t->flags & VOCAB_USED && !(t->flags & VOCAB_LEVEL) && t->n == n &&
            memcmp(t->p, s, n) == 0)
            return (int32_t)i;
    }
    return -1;
}
