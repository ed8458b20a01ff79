/*
 * See normalize.h. utf8proc knows how single characters decompose, their combining classes and how
 * pairs compose. Putting marks into canonical order is done here, because utf8proc's way takes
 * quadratic time on a long run of marks, and such runs are an old trick.
 *
 * Text is worked on in segments: one ASCII character with the characters above ASCII that follow
 * it. ASCII never changes and never joins what stands before it, so segments do not influence each
 * other.
 */
#include "text/normalize.h"

#include "base/num.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/*
 * Ranges of characters above ASCII that are their own NFC and never compose with a character before
 * them; so text of only these (and ASCII) is normalized already.
 */
static const struct {
    uint32_t first, last;
} stable[] = {
    {0x80, 0x2ff},    {0x400, 0x482},   {0x48a, 0x52f},     {0x2010, 0x2027},
    {0x3001, 0x3029}, {0x3041, 0x3096}, {0x30a1, 0x30fa},   {0x4e00, 0x9fff},
    {0xac00, 0xd7a3}, {0xff01, 0xffdc}, {0x1f300, 0x1f64f},
};

static bool is_stable(uint32_t cp)
{
    for (size_t i = 0; i < NUM_COUNT(stable); i++)
        if (cp <= stable[i].last)
            return cp >= stable[i].first;
    return false;
}

int normalizer_add(struct normalizer *z, enum normal_form form, struct err *e)
{
    if (z->forms == NORMALIZER_FORMS)
        return err_set(e, ERR_LIMIT, "a normalizer of more than %d forms", NORMALIZER_FORMS);
    z->form[z->forms++] = (uint8_t)form;
    return 0;
}

static size_t ascii_run(const char *s, size_t n)
{
    size_t i = 0;
    for (uint64_t x; n - i >= 8; i += 8) {
        memcpy(&x, s + i, 8);
        if (x & 0x8080808080808080u)
            break;
    }
    while (i < n && !((unsigned char)s[i] & 0x80))
        i++;
    return i;
}

/* Bytes at s that no form of z can change. */
static size_t same_run(bool nfc, const char *s, size_t n)
{
    size_t i = ascii_run(s, n);
    while (nfc && i < n) {
        uint32_t cp;
        size_t used = utf8_next(s + i, n - i, &cp, NULL);
        if (!is_stable(cp))
            break;
        i += used;
        i += ascii_run(s + i, n - i);
    }
    return i;
}

bool normalize_same(const struct normalizer *z, const char *s, size_t n)
{
    bool nfc = true;
    for (int i = 0; i < z->forms; i++)
        nfc &= z->form[i] == NORMAL_NFC;
    return z->forms == 0 || same_run(nfc, s, n) == n;
}

struct cps {
    utf8proc_int32_t *v;
    size_t n, cap;
};

static int cps_room(struct cps *c, size_t more, struct err *e)
{
    if (c->cap - c->n >= more)
        return 0;
    size_t cap = num_max(c->cap + c->cap / 2, c->n + more + 64), bytes;
    if (!num_mul(&bytes, cap, sizeof *c->v))
        return err_nomem(e, SIZE_MAX, "text to normalize");
    utf8proc_int32_t *v = realloc(c->v, bytes);
    if (!v)
        return err_nomem(e, bytes, "text to normalize");
    c->v = v;
    c->cap = cap;
    return 0;
}

static int combining_class(utf8proc_int32_t cp)
{
    return utf8proc_get_property(cp)->combining_class;
}

/* Stable sort of marks by class: insertion for the few of real text, counting for a flood. */
static int order(utf8proc_int32_t *v, size_t n, struct err *e)
{
    if (n <= 32) {
        for (size_t i = 1; i < n; i++) {
            utf8proc_int32_t x = v[i];
            int k = combining_class(x);
            size_t j = i;
            for (; j > 0 && combining_class(v[j - 1]) > k; j--)
                v[j] = v[j - 1];
            v[j] = x;
        }
        return 0;
    }
    size_t at[257] = {0}, bytes = n * sizeof *v; /* v is an array in memory: no overflow */
    utf8proc_int32_t *copy = malloc(bytes);
    if (!copy)
        return err_nomem(e, bytes, "text to normalize");
    memcpy(copy, v, bytes);
    for (size_t i = 0; i < n; i++)
        at[(combining_class(copy[i]) & 0xff) + 1]++;
    for (int i = 0; i < 256; i++)
        at[i + 1] += at[i];
    for (size_t i = 0; i < n; i++)
        v[at[combining_class(copy[i]) & 0xff]++] = copy[i];
    free(copy);
    return 0;
}

/* One form of one segment, appended to `out`. */
static int segment(enum normal_form form, const char *s, size_t n, struct cps *c, struct buf *out,
                   struct err *e)
{
    utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    if (form == NORMAL_NFKC || form == NORMAL_NFKD)
        options |= UTF8PROC_COMPAT;
    int rc = 0, boundary = 0;
    c->n = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += utf8_next(s + i, n - i, &cp, NULL);
        rc = cps_room(c, 32, e); /* no character decomposes into more than 18 */
        if (rc)
            return rc;
        utf8proc_ssize_t k =
            utf8proc_decompose_char((utf8proc_int32_t)cp, c->v + c->n, 32, options, &boundary);
        if (k < 0 || k > 32)
            return err_set(e, ERR_FORMAT, "U+%04X cannot be normalized", cp);
        c->n += (size_t)k;
    }
    for (size_t i = 0; !rc && i < c->n;) {
        size_t from = i;
        while (i < c->n && combining_class(c->v[i]))
            i++;
        rc = order(c->v + from, i - from, e);
        i += i == from;
    }
    if (rc)
        return rc;
    if (form == NORMAL_NFC || form == NORMAL_NFKC) {
        utf8proc_ssize_t k = utf8proc_normalize_utf32(c->v, (utf8proc_ssize_t)c->n,
                                                      UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        if (k < 0)
            return err_set(e, ERR_FORMAT, "text cannot be normalized: %s", utf8proc_errmsg(k));
        c->n = (size_t)k;
    }
    for (size_t i = 0; !rc && i < c->n; i++) {
        char u[4];
        rc = buf_append(out, u, utf8_put(u, (uint32_t)c->v[i]), e);
    }
    return rc;
}

/* Copies s with its marks. */
static int keep(const char *s, size_t n, const uint8_t *trust, struct buf *text, struct buf *marks,
                struct err *e)
{
    int rc = buf_append(text, s, n, e);
    return rc || !trust ? rc : buf_append(marks, trust, n, e);
}

static int change(enum normal_form form, const char *s, size_t n, const uint8_t *trust,
                  struct cps *c, struct buf *text, struct buf *marks, struct err *e)
{
    size_t before = text->len;
    int rc = segment(form, s, n, c, text, e);
    if (rc || !trust)
        return rc;
    size_t len = text->len - before;
    if (len == n && memcmp(text->data + before, s, n) == 0)
        return buf_append(marks, trust, n, e);
    rc = buf_reserve(marks, len, e);
    if (rc || len == 0)
        return rc;
    memset(marks->data + marks->len, memchr(trust, 0, n) == NULL, len);
    marks->len += len;
    marks->data[marks->len] = 0;
    return 0;
}

static int one_form(enum normal_form form, const char *s, size_t n, const uint8_t *trust,
                    struct buf *text, struct buf *marks, struct err *e)
{
    struct cps c = {0};
    int rc = 0;
    size_t i = 0;
    while (!rc && i < n) {
        size_t run = same_run(form == NORMAL_NFC, s + i, n - i);
        if (i + run < n) /* the segment begins with the last ASCII character */
            while (run > 0 && ((unsigned char)s[i + run] & 0x80))
                run--;
        rc = keep(s + i, run, trust ? trust + i : NULL, text, marks, e);
        i += run;
        size_t end = i;
        for (end += end < n; end < n && ((unsigned char)s[end] & 0x80);)
            end++;
        if (!rc && end > i)
            rc = change(form, s + i, end - i, trust ? trust + i : NULL, &c, text, marks, e);
        i = end;
    }
    free(c.v);
    return rc;
}

int normalize_text(const struct normalizer *z, const char *s, size_t n, const uint8_t *trust,
                   struct buf *text, struct buf *marks, struct err *e)
{
    if (z->forms == 0)
        return keep(s, n, trust, text, marks, e);
    int rc = one_form(z->form[0], s, n, trust, text, marks, e);
    for (int i = 1; !rc && i < z->forms; i++) { /* the result before is the text of the next */
        struct buf t = *text, m;
        buf_init(text, t.max);
        buf_init(&m, SIZE_MAX / 2);
        if (trust) {
            m = *marks;
            buf_init(marks, m.max);
        }
        rc = one_form(z->form[i], t.data, t.len, trust ? (const uint8_t *)m.data : NULL, text,
                      marks, e);
        buf_release(&t);
        buf_release(&m);
    }
    return rc;
}
