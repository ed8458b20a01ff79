/*
 * Numbers within bounds, exactly, as expressions over their digits: of a range of whole numbers
 * with the same count of digits, those that share the first digit of a bound go on being compared,
 * and those strictly between may have any digits. Fractions compare digit by digit from the point
 * on, where a text that ends has zeros. So the size is linear in the digits of the bounds.
 *
 * Bounded numbers have no exponent; integers have up to 18 digits, others 16 before the point and
 * 16 behind what the bounds say.
 */
#include "base/num.h"
#include "text/grammar_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIGITS_MAX = 40, INTEGER_DIGITS = 18, REAL_DIGITS = 16, FRACTION_DIGITS = 16 };

/* A bound that is not negative: digits in front of the point without leading zeros, and behind it
   without trailing ones. */
struct decimal {
    char whole[DIGITS_MAX], part[DIGITS_MAX];
    size_t n_whole, n_part;
};

static struct gx *digit(struct gbuild *b, int lo, int hi)
{
    struct gset set = {.n = 0};
    if (lo > hi)
        return gx_never(b);
    gset_add(b, &set, (uint32_t)lo, (uint32_t)hi);
    return gx_class(b, &set);
}

static struct gx *any_digits(struct gbuild *b, uint32_t min, uint32_t max)
{
    return gx_rep(b, digit(b, '0', '9'), min, max);
}

/* ---- whole numbers ------------------------------------------------------------------------------
 */

static struct gx *at_least(struct gbuild *b, const char *lo, size_t n)
{
    if (!n)
        return gx_empty(b);
    return GX_ALT(
        b, GX_SEQ(b, digit(b, lo[0], lo[0]), at_least(b, lo + 1, n - 1)),
        GX_SEQ(b, digit(b, lo[0] + 1, '9'), any_digits(b, (uint32_t)n - 1, (uint32_t)n - 1)));
}

static struct gx *at_most(struct gbuild *b, const char *hi, size_t n)
{
    if (!n)
        return gx_empty(b);
    return GX_ALT(
        b, GX_SEQ(b, digit(b, hi[0], hi[0]), at_most(b, hi + 1, n - 1)),
        GX_SEQ(b, digit(b, '0', hi[0] - 1), any_digits(b, (uint32_t)n - 1, (uint32_t)n - 1)));
}

/* Texts of n digits from lo to hi. */
static struct gx *same_length(struct gbuild *b, const char *lo, const char *hi, size_t n)
{
    if (!n)
        return gx_empty(b);
    if (lo[0] == hi[0])
        return GX_SEQ(b, digit(b, lo[0], lo[0]), same_length(b, lo + 1, hi + 1, n - 1));
    uint32_t rest = (uint32_t)n - 1;
    return GX_ALT(b, GX_SEQ(b, digit(b, lo[0], lo[0]), at_least(b, lo + 1, n - 1)),
                  GX_SEQ(b, digit(b, lo[0] + 1, hi[0] - 1), any_digits(b, rest, rest)),
                  GX_SEQ(b, digit(b, hi[0], hi[0]), at_most(b, hi + 1, n - 1)));
}

static int compare(const char *a, size_t n, const char *c, size_t k)
{
    return n != k ? (n < k ? -1 : 1) : memcmp(a, c, n);
}

/* Whole numbers from lo to hi, not negative. */
static struct gx *whole_range(struct gbuild *b, const char *lo, size_t n_lo, const char *hi,
                              size_t n_hi)
{
    char least[DIGITS_MAX], most[DIGITS_MAX];
    struct gxs l = {.n = 0};
    if (compare(lo, n_lo, hi, n_hi) > 0)
        return gx_never(b);
    memset(most, '9', sizeof most);
    memset(least, '0', sizeof least);
    for (size_t n = n_lo; n <= n_hi; n++) {
        least[0] = n == 1 ? '0' : '1';
        gxs_add(b, &l, same_length(b, n == n_lo ? lo : least, n == n_hi ? hi : most, n));
    }
    return gx_alt(b, l.v, l.n);
}

/* ±1 on a text of digits. */
static void bump(char *s, size_t *n, int by)
{
    size_t i = *n;
    char from = by > 0 ? '9' : '0', to = by > 0 ? '0' : '9';
    while (i && s[i - 1] == from)
        s[--i] = to;
    if (i) {
        s[i - 1] = (char)(s[i - 1] + by);
    } else if (by > 0) {
        memmove(s + 1, s, *n);
        s[0] = '1';
        ++*n;
    }
    if (by < 0 && *n > 1 && s[0] == '0') {
        memmove(s, s + 1, --*n);
    }
}

/* ---- fractions ------------------------------------------------------------------------------ */

static struct gx *nonzero_rest(struct gbuild *b)
{
    return GX_SEQ(b, gx_rep(b, digit(b, '0', '0'), 0, FRACTION_DIGITS), digit(b, '1', '9'),
                  any_digits(b, 0, FRACTION_DIGITS));
}

/* Digits behind the point, the first i of them those of f, that make at least f. */
static struct gx *part_least(struct gbuild *b, const struct decimal *f, size_t i, bool open)
{
    if (i == f->n_part)
        return open ? nonzero_rest(b) : any_digits(b, i ? 0 : 1, FRACTION_DIGITS);
    char c = f->part[i];
    return GX_ALT(b, GX_SEQ(b, digit(b, c + 1, '9'), any_digits(b, 0, FRACTION_DIGITS)),
                  GX_SEQ(b, digit(b, c, c), part_least(b, f, i + 1, open)));
}

static struct gx *part_most(struct gbuild *b, const struct decimal *f, size_t i, bool open)
{
    struct gxs l = {.n = 0};
    if (i == f->n_part) {
        if (open)
            return gx_never(b);
        return gx_rep(b, digit(b, '0', '0'), i ? 0 : 1, FRACTION_DIGITS);
    }
    char c = f->part[i];
    if (i)
        gxs_add(b, &l, gx_empty(b)); /* less than f, which goes on with more than zeros */
    gxs_add(b, &l, GX_SEQ(b, digit(b, '0', c - 1), any_digits(b, 0, FRACTION_DIGITS)));
    gxs_add(b, &l, GX_SEQ(b, digit(b, c, c), part_most(b, f, i + 1, open)));
    return gx_alt(b, l.v, l.n);
}

static char part_at(const struct decimal *f, size_t i)
{
    return i < f->n_part ? f->part[i] : '0';
}

struct bounds {
    struct decimal lo, hi;
    bool lo_open, hi_open, has_hi;
};

/* Digits behind the point when what is in front is that of both bounds; i digits were theirs. */
static struct gx *part_between(struct gbuild *b, const struct bounds *r, size_t i)
{
    const struct decimal *lo = &r->lo, *hi = &r->hi;
    struct gxs l = {.n = 0};
    if (i >= lo->n_part && i >= hi->n_part) /* both are said: only zeros may follow */
        return r->lo_open || r->hi_open ? gx_never(b)
                                        : gx_rep(b, digit(b, '0', '0'), i ? 0 : 1, FRACTION_DIGITS);
    char c = part_at(lo, i), d = part_at(hi, i);
    if (i && i >= lo->n_part && !r->lo_open)
        gxs_add(b, &l, gx_empty(b));
    if (c == d) {
        gxs_add(b, &l, GX_SEQ(b, digit(b, c, c), part_between(b, r, i + 1)));
        return gx_alt(b, l.v, l.n);
    }
    struct decimal zero = *lo; /* at least: lo, whose digits may have ended */
    zero.n_part = lo->n_part > i + 1 ? lo->n_part : i + 1;
    for (size_t k = lo->n_part; k < zero.n_part; k++)
        zero.part[k] = '0';
    gxs_add(b, &l, GX_SEQ(b, digit(b, c, c), part_least(b, &zero, i + 1, r->lo_open)));
    gxs_add(b, &l, GX_SEQ(b, digit(b, c + 1, d - 1), any_digits(b, 0, FRACTION_DIGITS)));
    gxs_add(b, &l, GX_SEQ(b, digit(b, d, d), part_most(b, hi, i + 1, r->hi_open)));
    return gx_alt(b, l.v, l.n);
}

/* Numbers from r.lo to r.hi, not negative. */
static struct gx *real_range(struct gbuild *b, struct bounds *r)
{
    struct gxs l = {.n = 0};
    struct gx *point = gx_text(b, ".");
    if (!r->has_hi) {
        memset(r->hi.whole, '9', REAL_DIGITS);
        r->hi.n_whole = REAL_DIGITS;
        r->hi.n_part = 0;
        r->hi_open = false;
    }
    struct decimal *lo = &r->lo, *hi = &r->hi;
    int order = compare(lo->whole, lo->n_whole, hi->whole, hi->n_whole);
    if (order > 0)
        return gx_never(b);
    struct gx *first = gx_bytes(b, lo->whole, lo->n_whole),
              *last = gx_bytes(b, hi->whole, hi->n_whole);
    if (order == 0) {
        if (!lo->n_part && !r->lo_open && (hi->n_part || !r->hi_open))
            gxs_add(b, &l, first);
        int parts = memcmp(lo->part, hi->part, num_min(lo->n_part, hi->n_part));
        if (parts > 0 || (parts == 0 && lo->n_part > hi->n_part))
            return gx_never(b);
        gxs_add(b, &l, GX_SEQ(b, first, point, part_between(b, r, 0)));
        return gx_alt(b, l.v, l.n);
    }
    if (!lo->n_part && !r->lo_open)
        gxs_add(b, &l, first);
    gxs_add(b, &l, GX_SEQ(b, first, point, part_least(b, lo, 0, r->lo_open)));
    if (hi->n_part || !r->hi_open)
        gxs_add(b, &l, last);
    gxs_add(b, &l, GX_SEQ(b, last, point, part_most(b, hi, 0, r->hi_open)));
    char from[DIGITS_MAX], to[DIGITS_MAX];
    size_t n_from = lo->n_whole, n_to = hi->n_whole;
    memcpy(from, lo->whole, n_from);
    memcpy(to, hi->whole, n_to);
    bump(from, &n_from, 1);
    bump(to, &n_to, -1);
    struct gx *part = GX_SEQ(b, point, any_digits(b, 1, FRACTION_DIGITS));
    gxs_add(b, &l, GX_SEQ(b, whole_range(b, from, n_from, to, n_to), gx_opt(b, part)));
    return gx_alt(b, l.v, l.n);
}

/* ---- bounds with signs ---------------------------------------------------------------------- */

/* |text| as digits; false when it has too many of them. */
static bool read(const char *text, struct decimal *out)
{
    memset(out, 0, sizeof *out);
    text += *text == '-';
    while (*text == '0')
        text++;
    for (; *text && *text != '.'; text++) {
        if (out->n_whole >= REAL_DIGITS + 4)
            return false;
        out->whole[out->n_whole++] = *text;
    }
    if (*text == '.')
        for (text++; *text; text++) {
            if (out->n_part >= FRACTION_DIGITS + 4)
                return false;
            out->part[out->n_part++] = *text;
        }
    while (out->n_part && out->part[out->n_part - 1] == '0')
        out->n_part--;
    if (!out->n_whole)
        out->whole[out->n_whole++] = '0';
    return true;
}

static bool is_zero(const struct decimal *d)
{
    return d->n_whole == 1 && d->whole[0] == '0' && !d->n_part;
}

/* Rounds to a whole number inside the range. */
static void round_in(struct decimal *d, bool *open, bool up)
{
    if (d->n_part ? up : *open && up)
        bump(d->whole, &d->n_whole, 1);
    else if (!d->n_part && *open && !up)
        bump(d->whole, &d->n_whole, -1);
    d->n_part = 0;
    *open = false;
}

/* Numbers that are not negative (or, of the magnitudes, those of negative ones). */
static struct gx *half(struct gbuild *b, struct bounds r, bool real, bool negative)
{
    if (real)
        return real_range(b, &r);
    bool nothing = r.has_hi && r.hi_open && is_zero(&r.hi);
    round_in(&r.lo, &r.lo_open, true);
    if (!r.has_hi) {
        memset(r.hi.whole, '9', INTEGER_DIGITS);
        r.hi.n_whole = INTEGER_DIGITS;
    } else {
        round_in(&r.hi, &r.hi_open, false);
    }
    if (negative && is_zero(&r.lo))
        r.lo.whole[0] = '1'; /* no "-0" */
    return nothing ? gx_never(b)
                   : whole_range(b, r.lo.whole, r.lo.n_whole, r.hi.whole, r.hi.n_whole);
}

struct gx *gnumber_range(struct gjson *j, const char *lo, bool lo_open, const char *hi,
                         bool hi_open, bool real)
{
    struct gbuild *b = j->b;
    struct decimal low, high, zero;
    if ((lo && !read(lo, &low)) || (hi && !read(hi, &high)))
        return gbuild_fail(b, ERR_UNSUPPORTED, "the bound %.40s has too many digits", lo ? lo : hi);
    read("0", &zero);
    bool lo_negative = lo && *lo == '-' && !is_zero(&low),
         hi_negative = hi && *hi == '-' && !is_zero(&high);
    struct gxs l = {.n = 0};
    if (!hi_negative) { /* from max(lo, 0) to hi */
        bool from_lo = lo && !lo_negative;
        struct bounds r = {from_lo ? low : zero, hi ? high : zero, from_lo && lo_open, hi_open,
                           hi != NULL};
        gxs_add(b, &l, half(b, r, real, false));
    }
    if (!lo || lo_negative) { /* magnitudes from max(-hi, 0) to -lo */
        bool least_open = hi && (hi_negative || is_zero(&high)) && hi_open;
        struct bounds r = {hi_negative ? high : zero, lo ? low : zero, least_open, lo_open,
                           lo != NULL};
        gxs_add(b, &l, GX_SEQ(b, gx_text(b, "-"), half(b, r, real, true)));
    }
    return gx_alt(b, l.v, l.n);
}
