/*
 * One table row per kind of lead byte: how many bytes follow and which range the second byte may
 * have (table 3-7 of the Unicode standard). That range excludes overlong forms, surrogates and
 * numbers above U+10FFFF at the second byte, which is what makes a subpart "maximal".
 */
#include "base/utf8.h"

struct lead {
    uint8_t first, last; /* lead bytes */
    uint8_t more;        /* bytes that follow */
    uint8_t lo, hi;      /* range of the second byte */
};

static const struct lead leads[] = {
    {0xc2, 0xdf, 1, 0x80, 0xbf}, {0xe0, 0xe0, 2, 0xa0, 0xbf}, {0xe1, 0xec, 2, 0x80, 0xbf},
    {0xed, 0xed, 2, 0x80, 0x9f}, {0xee, 0xef, 2, 0x80, 0xbf}, {0xf0, 0xf0, 3, 0x90, 0xbf},
    {0xf1, 0xf3, 3, 0x80, 0xbf}, {0xf4, 0xf4, 3, 0x80, 0x8f},
};

static const struct lead *lead_find(unsigned char c)
{
    if (c < 0xc2 || c > 0xf4)
        return NULL;
    const struct lead *l = leads;
    while (c > l->last)
        l++;
    return l;
}

/* Bytes at s that belong together (≥ 1), whether they are a whole character, and which. */
static size_t scan(const unsigned char *s, size_t n, uint32_t *cp, bool *whole)
{
    *whole = false;
    if (s[0] < 0x80) {
        *cp = s[0];
        *whole = true;
        return 1;
    }
    const struct lead *l = lead_find(s[0]);
    if (!l)
        return 1;
    uint32_t x = s[0] & (0x3fu >> l->more);
    for (size_t i = 1; i <= l->more; i++) {
        if (i >= n)
            return i;
        unsigned char lo = i == 1 ? l->lo : 0x80, hi = i == 1 ? l->hi : 0xbf;
        if (s[i] < lo || s[i] > hi)
            return i;
        x = x << 6 | (s[i] & 0x3fu);
    }
    *cp = x;
    *whole = true;
    return 1u + l->more;
}

size_t utf8_next(const char *s, size_t n, uint32_t *cp, bool *bad)
{
    bool whole;
    size_t used = scan((const unsigned char *)s, n, cp, &whole);
    if (!whole)
        *cp = 0xfffd;
    if (bad)
        *bad = !whole;
    return used;
}

size_t utf8_incomplete(const char *s, size_t n)
{
    /* Only the last three bytes can start a character that is cut off. */
    for (size_t k = 1; k <= 3 && k <= n; k++) {
        const unsigned char *p = (const unsigned char *)s + (n - k);
        if ((*p & 0xc0) == 0x80)
            continue;
        const struct lead *l = lead_find(*p);
        if (!l || l->more < k)
            return 0;
        uint32_t cp;
        bool whole;
        return scan(p, k, &cp, &whole) == k && !whole ? k : 0;
    }
    return 0;
}

size_t utf8_put(char out[4], uint32_t cp)
{
    if (cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
        cp = 0xfffd;
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, cp >>= 6)
        out[i] = (char)(0x80 | (cp & 0x3f));
    out[0] = (char)((0xf00u >> n & 0xf0) | cp);
    return n;
}

bool utf8_valid(const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    while (n) {
        if (*p < 0x80) {
            p++, n--;
            continue;
        }
        uint32_t cp;
        bool whole;
        size_t used = scan(p, n, &cp, &whole);
        if (!whole)
            return false;
        p += used, n -= used;
    }
    return true;
}
