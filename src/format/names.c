/*
 * Names from files: a hash table to look them up, and how they are checked and shown.
 *
 * The table is open addressing with linear probes at a load of at most one half, keyed with a
 * random seed, so a file whose author chose the names cannot make lookups slow.
 */
#include "format/priv.h"

#include "base/hash.h"
#include "base/num.h"
#include "base/rng.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

struct names_slot {
    const char *key; /* NULL: free */
    size_t n, value;
    uint64_t hash;
};

int names_init(struct names *t, size_t max, struct err *e)
{
    size_t slots = 8, bytes;

    while (slots / 2 < max)
        slots *= 2;
    if (!num_mul(&bytes, slots, sizeof *t->slot))
        return err_set(e, ERR_LIMIT, "too many names (%zu)", max);
    t->slot = calloc(slots, sizeof *t->slot);
    if (!t->slot)
        return err_nomem(e, bytes, "a table of names");
    t->mask = slots - 1;
    t->used = 0;
    t->seed = rng_os_seed();
    return 0;
}

void names_release(struct names *t)
{
    free(t->slot);
    memset(t, 0, sizeof *t);
}

/* The slot of the name, or the free one where it belongs. */
static struct names_slot *probe(const struct names *t, const char *s, size_t n, uint64_t hash)
{
    size_t i = (size_t)hash & t->mask;

    while (t->slot[i].key) {
        struct names_slot *slot = &t->slot[i];
        if (slot->hash == hash && slot->n == n && memcmp(slot->key, s, n) == 0)
            return slot;
        i = (i + 1) & t->mask;
    }
    return &t->slot[i];
}

size_t names_find(const struct names *t, const char *s, size_t n)
{
    const struct names_slot *slot;

    if (!t->slot)
        return SIZE_MAX;
    slot = probe(t, s, n, hash_bytes(s, n, t->seed));
    return slot->key ? slot->value : SIZE_MAX;
}

bool names_add(struct names *t, const char *s, size_t n, size_t value)
{
    uint64_t hash = hash_bytes(s, n, t->seed);
    struct names_slot *slot = probe(t, s, n, hash);

    if (slot->key)
        return false;
    *slot = (struct names_slot){.key = s, .n = n, .value = value, .hash = hash};
    t->used++;
    return true;
}

static bool is_control(unsigned char c)
{
    return c < 0x20 || c == 0x7f;
}

const char *name_fault(const char *s, size_t n)
{
    if (n == 0)
        return "is empty";
    if (n > SOURCE_MAX_NAME)
        return "is longer than 65535 bytes";
    if (!utf8_valid(s, n))
        return "is not UTF-8";
    for (size_t i = 0; i < n; i++)
        if (is_control((unsigned char)s[i]))
            return "has control characters in it";
    return NULL;
}

struct shown name_show(const char *s, size_t n)
{
    struct shown out;
    size_t at = 0, len = 0;
    bool cut = false;

    while (at < n) {
        uint32_t cp;
        bool bad = false;
        size_t step = utf8_next(s + at, n - at, &cp, &bad);
        if (len + step > NAME_SHOWN) {
            cut = true;
            break;
        }
        if (bad || cp < 0x20 || (cp >= 0x7f && cp < 0xa0))
            out.text[len++] = '?';
        else
            for (size_t i = 0; i < step; i++)
                out.text[len++] = s[at + i];
        at += step;
    }
    memcpy(out.text + len, cut ? "..." : "", cut ? 4 : 1);
    return out;
}

bool path_ends(const char *path, const char *suffix)
{
    size_t n = strlen(path), k = strlen(suffix);

    return n >= k && memcmp(path + n - k, suffix, k) == 0;
}
