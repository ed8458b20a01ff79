/*
 * When two short answers are the same value.
 *
 * An answer is first freed of what is only typography (dollar signs, \left, thin spaces, brackets
 * around the whole), then read as a rational number: sign, numerator and denominator in decimal
 * digits. a/b = c/d is a·d = c·b, a product of digit strings, so equality is exact at any size and
 * nothing can overflow. What is no number is compared letter by letter.
 *
 * Left out: variables, roots, powers, sets, units, percent.
 */
#include "base/num.h"
#include "grade/answer.h"

#include <limits.h>
#include <string.h>

/* Digits with the lowest first, no zeros at the high end; n = 0 is zero. */
enum { DIGITS_MAX = 4 * ANSWER_DIGITS + 16 };
struct digits {
    size_t n;
    unsigned char d[DIGITS_MAX];
};

struct rational {
    bool negative;
    struct digits top, bottom; /* bottom > 0 */
};

static void digits_trim(struct digits *a)
{
    while (a->n && !a->d[a->n - 1])
        a->n--;
}

static void digits_mul(struct digits *out, const struct digits *a, const struct digits *b)
{
    unsigned sum[DIGITS_MAX] = {0};
    out->n = a->n && b->n ? a->n + b->n : 0; /* callers keep this below DIGITS_MAX */
    for (size_t i = 0; i < a->n; i++)
        for (size_t j = 0; j < b->n; j++)
            sum[i + j] += (unsigned)a->d[i] * b->d[j];
    for (size_t i = 0; i + 1 < out->n; i++) {
        sum[i + 1] += sum[i] / 10;
        out->d[i] = (unsigned char)(sum[i] % 10);
    }
    if (out->n)
        out->d[out->n - 1] = (unsigned char)sum[out->n - 1];
    digits_trim(out);
}

static void digits_add(struct digits *a, const struct digits *b)
{
    unsigned carry = 0;
    size_t n = num_max(a->n, b->n);
    for (size_t i = 0; i < n; i++) {
        unsigned s = (i < a->n ? a->d[i] : 0u) + (i < b->n ? b->d[i] : 0u) + carry;
        a->d[i] = (unsigned char)(s % 10);
        carry = s / 10;
    }
    a->n = n;
    if (carry)
        a->d[a->n++] = (unsigned char)carry;
}

static bool digits_same(const struct digits *a, const struct digits *b)
{
    return a->n == b->n && !memcmp(a->d, b->d, a->n);
}

/* ---- typography ------------------------------------------------------------------------------ */

struct plain {
    char s[ANSWER_MAX];
    size_t n;
};

/* What has no meaning for a value; longer ones first. */
static const char *const empty_marks[] = {
    "\\displaystyle",
    "\\left",
    "\\right",
    "\\,",
    "\\;",
    "\\:",
    "\\!",
    "\\(",
    "\\)",
    "\\[",
    "\\]",
    "\\$",
    "\\ ",
    "$",
};

static const struct {
    const char *from, *to;
} marks[] = {
    {"{,}", ","},          {"\xe2\x88\x92", "-"}, {"\\dfrac", "\\frac"},
    {"\\tfrac", "\\frac"}, {"\\cfrac", "\\frac"},
};

static bool letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The bytes at s[0..n) that `mark` takes, 0 when it is not there. A word in letters ends there. */
static size_t mark_at(const char *s, size_t n, const char *mark)
{
    size_t len = strlen(mark);
    if (len > n || memcmp(s, mark, len) != 0)
        return 0;
    return letter(mark[len - 1]) && len < n && letter(s[len]) ? 0 : len;
}

static bool plain_put(struct plain *p, const char *s, size_t n)
{
    if (n > sizeof p->s - p->n)
        return false;
    memcpy(p->s + p->n, s, n);
    p->n += n;
    return true;
}

/* One piece of the text; returns how many bytes it was, 0 when there is no room. */
static size_t plain_step(struct plain *p, const char *s, size_t n)
{
    size_t len;
    for (size_t i = 0; i < NUM_COUNT(empty_marks); i++)
        if ((len = mark_at(s, n, empty_marks[i])))
            return len;
    for (size_t i = 0; i < NUM_COUNT(marks); i++)
        if ((len = mark_at(s, n, marks[i].from)))
            return plain_put(p, marks[i].to, strlen(marks[i].to)) ? len : 0;
    return plain_put(p, s, 1) ? 1 : 0;
}

/* True when s[0] opens a bracket that the last byte closes. */
static bool wrapped(const char *s, size_t n)
{
    size_t depth = 0;
    if (n < 2 || !((s[0] == '(' && s[n - 1] == ')') || (s[0] == '{' && s[n - 1] == '}')))
        return false;
    for (size_t i = 0; i < n; i++) {
        depth += s[i] == '(' || s[i] == '{';
        if (s[i] == ')' || s[i] == '}') {
            if (!depth || (!--depth && i + 1 < n))
                return false;
        }
    }
    return !depth;
}

/* White space between digits or letters says something ("1 2"); elsewhere it is dropped. */
static bool plain_of(struct plain *p, struct span a, struct span *out)
{
    a = span_trim(a);
    if (a.n > ANSWER_MAX)
        return false;
    p->n = 0;
    for (size_t i = 0; i < a.n;) {
        size_t gap = i;
        while (gap < a.n && (a.s[gap] == ' ' || a.s[gap] == '\n' || a.s[gap] == '\t'))
            gap++;
        if (gap > i) {
            char before = p->n ? p->s[p->n - 1] : 0, after = gap < a.n ? a.s[gap] : 0;
            bool keep = (digit(before) || letter(before)) && (digit(after) || letter(after));
            if (keep && !plain_put(p, " ", 1))
                return false;
            i = gap;
            continue;
        }
        size_t len = plain_step(p, a.s + i, a.n - i);
        if (!len)
            return false;
        i += len;
    }
    *out = (struct span){p->s, p->n};
    if (out->n > 1 && out->s[out->n - 1] == '.')
        out->n--;
    while (wrapped(out->s, out->n))
        out->s++, out->n -= 2;
    return out->n > 0;
}

/* ---- numbers --------------------------------------------------------------------------------- */

static bool take(struct span *a, const char *text)
{
    size_t n = strlen(text);
    if (a->n < n || memcmp(a->s, text, n) != 0)
        return false;
    a->s += n;
    a->n -= n;
    return true;
}

static bool take_sign(struct span *a)
{
    bool negative = take(a, "-");
    if (!negative)
        take(a, "+");
    return negative;
}

/* "12", "1,234", ".5", "3.", "0.25": `digits` of the whole, and how many stand behind the point. */
static bool take_decimal(struct span *a, struct digits *out, size_t *behind)
{
    char text[ANSWER_DIGITS];
    size_t n = 0, i = 0, group = 0;
    bool grouped = false, point = false;
    *behind = 0;
    for (; i < a->n; i++) {
        char c = a->s[i];
        if (digit(c)) {
            if (n == sizeof text)
                return false;
            text[n++] = c;
            group++;
            *behind += point;
        } else if (c == ',' && !point && n && i + 1 < a->n && digit(a->s[i + 1])) {
            if (grouped ? group != 3 : group > 3)
                return false;
            grouped = true;
            group = 0;
        } else if (c == '.' && !point) {
            if (grouped && group != 3)
                return false;
            point = true;
        } else {
            break;
        }
    }
    if (!n || (grouped && !point && group != 3))
        return false;
    a->s += i;
    a->n -= i;
    out->n = n;
    for (size_t k = 0; k < n; k++)
        out->d[k] = (unsigned char)(text[n - 1 - k] - '0');
    digits_trim(out);
    return true;
}

static void power_of_ten(struct digits *out, size_t n)
{
    memset(out->d, 0, n);
    out->d[n] = 1;
    out->n = n + 1;
}

/* A decimal with its sign, as a fraction. */
static bool take_number(struct span *a, struct rational *out)
{
    size_t behind;
    out->negative = take_sign(a);
    if (!take_decimal(a, &out->top, &behind))
        return false;
    power_of_ten(&out->bottom, behind);
    return true;
}

/* The argument of \frac: {12}, {-3}, or a single digit. */
static bool take_argument(struct span *a, struct rational *out)
{
    if (take(a, "{"))
        return take_number(a, out) && take(a, "}");
    if (!a->n || !digit(a->s[0]))
        return false;
    struct span one = {a->s, 1};
    a->s++;
    a->n--;
    return take_number(&one, out);
}

/* Room: every number has at most ANSWER_DIGITS digits and a bottom of one more. */
static bool rational_divide(struct rational *out, const struct rational *x,
                            const struct rational *y)
{
    if (!y->top.n)
        return false;
    out->negative = x->negative != y->negative;
    digits_mul(&out->top, &x->top, &y->bottom);
    digits_mul(&out->bottom, &x->bottom, &y->top);
    return true;
}

static bool take_frac(struct span *a, struct rational *out)
{
    struct rational x, y;
    return take(a, "\\frac") && take_argument(a, &x) && take_argument(a, &y) &&
           rational_divide(out, &x, &y);
}

/* The whole of `a` as a number. */
static bool rational_read(struct span a, struct rational *out)
{
    struct rational x, y;
    struct digits part;
    bool negative = take_sign(&a);
    if (!a.n || a.s[0] == '-' || a.s[0] == '+')
        return false;
    if (a.s[0] == '\\') { /* a fraction */
        if (!take_frac(&a, out) || a.n)
            return false;
        out->negative ^= negative;
        return true;
    }
    bool braces = a.s[0] == '{';
    if (!(braces ? take_argument(&a, &x) : take_number(&a, &x)))
        return false;
    x.negative ^= negative;
    if (!a.n) {
        *out = x;
        return true;
    }
    if (take(&a, "/")) {
        braces = a.n && a.s[0] == '{';
        return (braces ? take_argument(&a, &y) : take_number(&a, &y)) && !a.n &&
               rational_divide(out, &x, &y);
    }
    /* a mixed number: an integer before a fraction */
    if (x.bottom.n != 1 || x.top.n > ANSWER_DIGITS / 2 || !take_frac(&a, &y) || a.n || y.negative ||
        y.bottom.n > ANSWER_DIGITS)
        return false;
    digits_mul(&part, &x.top, &y.bottom);
    digits_add(&part, &y.top);
    *out = (struct rational){x.negative, part, y.bottom};
    return true;
}

static bool rational_same(const struct rational *x, const struct rational *y)
{
    struct digits a, b;
    if (x->top.n && y->top.n && x->negative != y->negative)
        return false;
    digits_mul(&a, &x->top, &y->bottom);
    digits_mul(&b, &y->top, &x->bottom);
    return digits_same(&a, &b);
}

/* Too long for one product in DIGITS_MAX. */
static bool rational_large(const struct rational *x)
{
    return num_max(x->top.n, x->bottom.n) > DIGITS_MAX / 2;
}

enum grade answer_equal(struct span gold, struct span answer)
{
    struct plain pg, pa;
    struct span g, a;
    struct rational x, y;
    if (!plain_of(&pg, gold, &g) || !plain_of(&pa, answer, &a))
        return GRADE_UNPARSED;
    if (g.n == a.n && !memcmp(g.s, a.s, g.n))
        return GRADE_EQUAL;
    if (!rational_read(g, &x) || !rational_read(a, &y) || rational_large(&x) || rational_large(&y))
        return GRADE_UNPARSED;
    return rational_same(&x, &y) ? GRADE_EQUAL : GRADE_DIFFERENT;
}

bool answer_readable(struct span a)
{
    struct plain p;
    struct span s;
    struct rational x;
    return plain_of(&p, a, &s) && rational_read(s, &x);
}

bool answer_int(struct span a, long long *out)
{
    struct plain p;
    struct span s;
    struct rational x;
    unsigned long long v = 0;
    if (!plain_of(&p, a, &s) || !rational_read(s, &x) || x.bottom.n != 1 || x.bottom.d[0] != 1 ||
        x.top.n > 18)
        return false;
    for (size_t i = x.top.n; i-- > 0;)
        v = v * 10 + x.top.d[i];
    *out = x.negative ? -(long long)v : (long long)v;
    return true;
}
