/* See added.h. Swallowed white space and word boundaries follow Hugging Face's tokenizers. */
#include "text/added.h"

#include "base/hash.h"
#include "base/utf8.h"

#include <string.h>
#include <utf8proc.h>

int added_init(struct added *a, struct arena *arena, size_t bytes, struct err *e)
{
    *a = (struct added){.nodes = 1, .room = bytes + 1};
    size_t slots = 16;
    while (slots < 2 * bytes)
        slots *= 2;
    a->edge = arena_array(arena, slots, sizeof *a->edge, e);
    a->leaf = arena_array(arena, a->room, sizeof *a->leaf, e);
    if (!a->edge || !a->leaf)
        return ERR_NOMEM;
    a->mask = slots - 1;
    for (size_t i = 0; i < a->room; i++)
        a->leaf[i].id = -1;
    return 0;
}

static struct added_edge *edge(const struct added *a, uint32_t node, unsigned char c)
{
    uint64_t key = ((uint64_t)node << 8 | c) + 1;
    size_t i = (size_t)hash_u64(key) & a->mask;
    while (a->edge[i].key && a->edge[i].key != key)
        i = (i + 1) & a->mask;
    return &a->edge[i];
}

int added_put(struct added *a, const char *s, size_t n, int32_t id, unsigned flags, struct err *e)
{
    if (n > ADDED_LENGTH)
        return err_set(e, ERR_LIMIT, "an added token of %zu bytes: at most %d are supported", n,
                       ADDED_LENGTH);
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        struct added_edge *g = edge(a, node, (unsigned char)s[i]);
        if (!g->key) {
            if (a->nodes == a->room)
                return err_set(e, ERR_FORMAT, "more added tokens than announced");
            g->key = ((uint64_t)node << 8 | (unsigned char)s[i]) + 1;
            g->node = (uint32_t)a->nodes++;
        }
        node = g->node;
    }
    if (n > 0 && a->leaf[node].id < 0) {
        a->leaf[node] = (struct added_leaf){id, flags};
        a->begins[(unsigned char)s[0]] = true;
    }
    return 0;
}

int32_t added_exact(const struct added *a, const char *s, size_t n)
{
    uint32_t node = 0;
    if (a->nodes < 2)
        return -1;
    for (size_t i = 0; i < n; i++) {
        const struct added_edge *g = edge(a, node, (unsigned char)s[i]);
        if (!g->key)
            return -1;
        node = g->node;
    }
    return a->leaf[node].id;
}

/* The longest token at s; its length, or 0. */
static size_t longest(const struct added *a, const char *s, size_t n, const uint8_t *trust,
                      struct added_leaf *leaf)
{
    uint32_t node = 0;
    size_t best = 0;
    for (size_t i = 0; i < n && (!trust || trust[i]); i++) {
        const struct added_edge *g = edge(a, node, (unsigned char)s[i]);
        if (!g->key)
            break;
        node = g->node;
        if (a->leaf[node].id >= 0) {
            best = i + 1;
            *leaf = a->leaf[node];
        }
    }
    return best;
}

static bool is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

static bool is_word(uint32_t c)
{
    static const uint64_t kinds = /* general categories of \w */
        1u << UTF8PROC_CATEGORY_LU | 1u << UTF8PROC_CATEGORY_LL | 1u << UTF8PROC_CATEGORY_LT |
        1u << UTF8PROC_CATEGORY_LM | 1u << UTF8PROC_CATEGORY_LO | 1u << UTF8PROC_CATEGORY_MN |
        1u << UTF8PROC_CATEGORY_MC | 1u << UTF8PROC_CATEGORY_ME | 1u << UTF8PROC_CATEGORY_ND |
        1u << UTF8PROC_CATEGORY_NL | 1u << UTF8PROC_CATEGORY_PC;
    return (kinds >> utf8proc_category((utf8proc_int32_t)c) & 1) || c == 0x200c || c == 0x200d ||
           (c >= 0x24b6 && c <= 0x24e9);
}

/* The character that ends at s + n, n > 0. */
static uint32_t char_before(const char *s, size_t n, size_t *used)
{
    uint32_t c;
    size_t k = 1;
    while (k < n && k < 4 && ((unsigned char)s[n - k] & 0xc0) == 0x80)
        k++;
    utf8_next(s + n - k, k, &c, NULL);
    *used = k;
    return c;
}

static bool inside_word(const char *s, size_t n, size_t from, size_t to)
{
    size_t used;
    uint32_t c;
    if (from > 0 && is_word(char_before(s, from, &used)))
        return true;
    return to < n && (utf8_next(s + to, n - to, &c, NULL), is_word(c));
}

bool added_next(const struct added *a, const char *s, size_t n, const uint8_t *trust, size_t *at,
                size_t *done, struct added_match *m)
{
    if (a->nodes < 2)
        return false;
    for (size_t i = *at; i < n; i++) {
        struct added_leaf leaf;
        size_t len, used;
        uint32_t c;
        if (!a->begins[(unsigned char)s[i]] ||
            !(len = longest(a, s + i, n - i, trust ? trust + i : NULL, &leaf)))
            continue;
        *at = i + len;
        size_t from = i, to = i + len;
        if ((leaf.flags & ADDED_WORD && inside_word(s, n, from, to)) || to <= *done) {
            i = to - 1;
            continue;
        }
        if (from < *done)
            from = *done;
        while (leaf.flags & ADDED_LSTRIP && from > *done && is_space(char_before(s, from, &used)))
            from -= used;
        while (leaf.flags & ADDED_RSTRIP && to < n &&
               (used = utf8_next(s + to, n - to, &c, NULL), is_space(c)))
            to += used;
        *m = (struct added_match){from, to, leaf.id};
        *done = to;
        return true;
    }
    *at = n;
    return false;
}
