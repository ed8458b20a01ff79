/*
 * arithmetic: one or two of + - * / on whole numbers.
 *
 * The kind is a form: which operators stand between the numbers. A problem is worked out as one or
 * two steps of one operator each, and a step in one of the styles
 *
 *   0 digits   column by column from the right, carries and borrows written down
 *   1 parts    hundreds, tens and ones one after the other
 *   2 direct   the equation alone
 *
 * Normal form: a sum of signed products with factors and terms in order, so that 6*47+128 and
 * 128+47*6 are one problem.
 */
#include "base/num.h"
#include "grade/gym_impl.h"

#include <inttypes.h>
#include <stdlib.h>

enum { DIGITS = 6, VALUE_MAX = 99999, WAYS = 14 };

static const char *const forms[] = {
    "+", "-", "*", "/", "++", "+-", "-+", "--", "*+", "*-", "+*", "-*",
};

struct step {
    int64_t x, y, z;
    char op;
};

/* Steps in the order in which they are done; returns how many. The last z is the value. */
static size_t steps_of(const struct gym_item *it, struct step s[2])
{
    const char *ops = forms[it->kind];
    size_t first = it->n == 3 && ops[1] == '*'; /* the operator that comes first */
    int64_t x = it->v[first], y = it->v[first + 1];
    s[0] = (struct step){x, y, gym_apply(ops[first], x, y), ops[first]};
    if (it->n == 2)
        return 1;
    x = first ? it->v[0] : s[0].z;
    y = first ? s[0].z : it->v[2];
    s[1] = (struct step){x, y, gym_apply(ops[!first], x, y), ops[!first]};
    return 2;
}

static bool arithmetic_valid(const struct gym_item *it)
{
    struct step s[2];
    if (it->kind >= NUM_COUNT(forms) || it->n != (forms[it->kind][1] ? 3 : 2))
        return false;
    for (size_t i = 0; i < it->n; i++)
        if (it->v[i] < 0 || it->v[i] > VALUE_MAX)
            return false;
    if (forms[it->kind][0] == '/')
        return it->v[1] > 0 && it->v[1] < 10 && it->v[0] % it->v[1] == 0;
    if (forms[it->kind][0] == '*' || it->n == 3) /* a factor of two digits at most */
        for (size_t i = 0; i + 1 < it->n; i++)
            if (forms[it->kind][i] == '*' && (it->v[i] > 99 || it->v[i + 1] > 99))
                return false;
    size_t n = steps_of(it, s);
    return n == 1 || (s[0].z >= 0 && s[1].z >= 0);
}

static int32_t with_digits(struct rng *r, int digits)
{
    int32_t lo = 1;
    for (int i = 1; i < digits; i++)
        lo *= 10;
    return gym_range(r, lo, lo * 10 - 1);
}

static void set(struct gym_item *it, uint32_t kind, int32_t a, int32_t b)
{
    it->kind = kind;
    it->n = 2;
    it->v[0] = a;
    it->v[1] = b;
}

static void draw_two(struct gym_item *it, struct rng *r, int level, const struct gym_knobs *k)
{
    int lo = k->digits ? k->digits : level == 1 ? 1 : level == 4 ? 4 : 2;
    int hi = k->digits ? k->digits : level == 1 ? 2 : level == 4 ? 4 : 3;
    int32_t choice = gym_range(r, 0, level == 1 ? 4 : level == 4 ? 5 : 6);
    if (choice < 4) {
        int32_t a = with_digits(r, gym_range(r, lo, hi)), b = with_digits(r, gym_range(r, lo, hi));
        bool swap = choice > 1 && a < b && gym_range(r, 0, 9) > 0; /* few are below zero */
        set(it, choice > 1, swap ? b : a, swap ? a : b);
    } else if (choice == 6) {
        int32_t b = gym_range(r, 2, 9);
        set(it, 3, b * gym_range(r, 11, 99), b);
    } else if (level == 4) {
        set(it, 2, gym_range(r, 11, 99), gym_range(r, 11, 99));
    } else {
        int32_t a = level == 1 ? gym_range(r, 2, 12) : gym_range(r, 11, 99);
        int32_t b = gym_range(r, 2, 9);
        bool swap = gym_range(r, 0, 3) == 0;
        set(it, 2, swap ? b : a, swap ? a : b);
    }
}

static void draw_three(struct gym_item *it, struct rng *r, const struct gym_knobs *k)
{
    for (int tries = 0; tries < 64; tries++) {
        it->kind = (uint32_t)gym_range(r, 4, NUM_COUNT(forms) - 1);
        it->n = 3;
        const char *ops = forms[it->kind];
        for (size_t i = 0; i < 3; i++)
            it->v[i] = with_digits(r, k->digits ? k->digits : gym_range(r, 2, 3));
        if (ops[0] == '*' || ops[1] == '*') {
            size_t f = ops[1] == '*';
            bool swap = gym_range(r, 0, 3) == 0;
            it->v[f + swap] = gym_range(r, 11, 99);
            it->v[f + !swap] = gym_range(r, 2, 9);
        }
        if (arithmetic_valid(it))
            return;
    }
    it->kind = 4; /* a sum is always fine */
}

static void arithmetic_draw(struct gym_item *it, struct rng *r, int level,
                            const struct gym_knobs *k)
{
    int terms = k->terms ? k->terms : level == 3 ? 3 : 2;
    if (terms == 3)
        draw_three(it, r, k);
    else
        draw_two(it, r, level, k);
}

/* A term is sign, first factor and second (0: none), packed; terms ascend. */
static void arithmetic_normal(struct gym_item *it)
{
    const char *ops = forms[it->kind];
    int32_t term[3][3] = {{1, it->v[0], 0}};
    size_t n = 1;
    if (ops[0] == '/')
        return;
    for (size_t i = 1; i < it->n; i++) {
        if (ops[i - 1] == '*')
            term[n - 1][2] = it->v[i];
        else
            term[n][0] = ops[i - 1] == '+', term[n][1] = it->v[i], term[n++][2] = 0;
    }
    for (size_t i = 0; i < n; i++) /* the larger factor first */
        if (term[i][2] > term[i][1]) {
            int32_t t = term[i][1];
            term[i][1] = term[i][2];
            term[i][2] = t;
        }
    for (size_t i = 1; i < n; i++)
        for (size_t j = i; j > 0; j--) {
            int64_t a =
                ((int64_t)term[j - 1][0] << 40 | (int64_t)term[j - 1][1] << 20) + term[j - 1][2];
            int64_t b = ((int64_t)term[j][0] << 40 | (int64_t)term[j][1] << 20) + term[j][2];
            for (int c = 0; a > b && c < 3; c++) {
                int32_t t = term[j][c];
                term[j][c] = term[j - 1][c];
                term[j - 1][c] = t;
            }
        }
    it->kind = 1000;
    it->n = 0;
    for (size_t i = 0; i < n; i++) {
        it->v[it->n++] = term[i][0] | (term[i][2] ? 2 : 0);
        it->v[it->n++] = term[i][1];
        if (term[i][2])
            it->v[it->n++] = term[i][2];
    }
}

/* ---- prompts --------------------------------------------------------------------------------- */

/* The operators as a prompt writes them. */
struct signs {
    const char *plus, *minus, *times, *over;
};

static void put_expression(struct gym_pen *p, const struct gym_item *it, const struct signs *w)
{
    const char *ops = forms[it->kind];
    gym_put(p, "%" PRId32, it->v[0]);
    for (size_t i = 1; i < it->n; i++) {
        char op = ops[i - 1];
        gym_put(p, "%s%" PRId32,
                op == '+'   ? w->plus
                : op == '-' ? w->minus
                : op == '*' ? w->times
                            : w->over,
                it->v[i]);
    }
}

static const struct signs tight = {"+", "-", "*", "/"};

static void arithmetic_prompt(struct gym_pen *p, const struct gym_item *it)
{
    static const struct signs wide = {" + ", " - ", " * ", " / "};
    static const struct signs school = {"+", "-", "×", "÷"};
    static const struct signs en = {" plus ", " minus ", " times ", " divided by "};
    static const struct signs zh = {"加", "减", "乘", "除以"};
    static const struct {
        const char *before;
        const struct signs *signs;
        const char *after;
    } ways[GYM_LANGUAGES][WAYS] = {
        {
            {"", &tight, "=?"},
            {"What is ", &tight, "?"},
            {"Compute ", &tight, "."},
            {"", &wide, " = ?"},
            {"What is ", &wide, "?"},
            {"What is ", &en, "?"},
            {"", &tight, ""},
            {"Calculate ", &wide, "."},
            {"How much is ", &en, "?"},
            {"", &school, "=?"},
            {"", &wide, ""},
            {"", &tight, "="},
            {"what is ", &wide, ""},
            {"Please compute ", &wide, "."},
        },
        {
            {"计算", &tight, "。"},
            {"", &tight, "等于多少？"},
            {"", &school, "等于多少？"},
            {"", &zh, "等于多少？"},
            {"计算", &zh, "。"},
            {"", &tight, "=？"},
            {"请计算", &tight, "。"},
            {"", &wide, "是多少？"},
            {"", &zh, "是多少？"},
            {"请算一算", &school, "。"},
            {"", &wide, "等于几？"},
            {"", &tight, "等于几"},
            {"算", &tight, ""},
            {"请问", &wide, "等于多少？"},
        },
    };
    uint32_t i = gym_pick(it, 1, WAYS);
    gym_put(p, "%s", ways[it->language][i].before);
    put_expression(p, it, ways[it->language][i].signs);
    gym_put(p, "%s", ways[it->language][i].after);
}

/* ---- work ------------------------------------------------------------------------------------ */

static size_t digits_of(int64_t x, int d[DIGITS * 2])
{
    size_t n = 0;
    do
        d[n++] = (int)(x % 10);
    while (x /= 10);
    return n;
}

static void put_equation(struct gym_pen *p, const struct step *s)
{
    gym_put(p, "%" PRId64 "%c%" PRId64 "=%" PRId64, s->x, s->op, s->y, s->z);
}

static void stop(struct gym_pen *p)
{
    GYM_PUT(p, ".", "。");
}

static void put_so(struct gym_pen *p, const struct step *s)
{
    gym_gap(p);
    GYM_PUT(p, "So ", "所以");
    put_equation(p, s);
    stop(p);
}

static void columns_add(struct gym_pen *p, const struct step *s)
{
    int x[DIGITS * 2] = {0}, y[DIGITS * 2] = {0}, carry = 0;
    size_t nx = digits_of(s->x, x), ny = digits_of(s->y, y), n = num_max(nx, ny);
    for (size_t i = 0; i < n; i++) {
        int sum = x[i] + y[i] + carry;
        if (i)
            gym_gap(p);
        gym_put(p, "%d+%d", x[i], y[i]);
        if (carry)
            gym_put(p, "+1");
        gym_put(p, "=%d", sum);
        carry = sum > 9;
        if (carry && i + 1 < n)
            GYM_PUT(p, ", write %d, carry 1", "，写%d进1", sum % 10);
        stop(p);
    }
}

static void columns_subtract(struct gym_pen *p, const struct step *s)
{
    int x[DIGITS * 2] = {0}, y[DIGITS * 2] = {0}, borrow = 0;
    size_t n = digits_of(s->x, x);
    digits_of(s->y, y);
    for (size_t i = 0; i < n; i++) {
        int d = x[i] - y[i] - borrow, lend = d < 0 ? 10 : 0;
        if (i)
            gym_gap(p);
        gym_put(p, "%d-%d", x[i] + lend, y[i]);
        if (borrow)
            gym_put(p, "-1");
        gym_put(p, "=%d", d + lend);
        borrow = lend > 0;
        if (borrow)
            GYM_PUT(p, ", borrow 1", "，借1");
        stop(p);
    }
}

/* y has one digit. */
static void columns_multiply(struct gym_pen *p, const struct step *s)
{
    int x[DIGITS * 2] = {0};
    int64_t carry = 0;
    size_t n = digits_of(s->x, x);
    for (size_t i = 0; i < n; i++) {
        int64_t product = x[i] * s->y + carry;
        if (i)
            gym_gap(p);
        gym_put(p, "%d*%" PRId64, x[i], s->y);
        if (carry)
            gym_put(p, "+%" PRId64, carry);
        gym_put(p, "=%" PRId64, product);
        carry = product / 10;
        if (carry && i + 1 < n)
            GYM_PUT(p, ", write %" PRId64 ", carry %" PRId64, "，写%" PRId64 "进%" PRId64,
                    product % 10, carry);
        stop(p);
    }
}

/* y has one digit: digit by digit from the left, 14=7*2+0. */
static void columns_divide(struct gym_pen *p, const struct step *s)
{
    int x[DIGITS * 2] = {0};
    int64_t rest = 0;
    bool first = true;
    for (size_t i = digits_of(s->x, x); i-- > 0;) {
        int64_t now = rest * 10 + x[i];
        rest = now % s->y;
        if (first && now < s->y && i)
            continue;
        if (!first)
            gym_gap(p);
        gym_put(p, "%" PRId64 "=%" PRId64 "*%" PRId64 "+%" PRId64, now, s->y, now / s->y, rest);
        stop(p);
        first = false;
    }
}

static bool small(const struct step *s)
{
    return s->op == '/' ? s->z < 10 : s->x < 10 && s->y < 10;
}

static void put_step(struct gym_pen *p, const struct step *s, int style);

/* Two digits times two digits: by ones, by tens, and the sum. */
static void long_multiply(struct gym_pen *p, const struct step *s, int style)
{
    int64_t ones = s->y % 10, tens = s->y / 10;
    struct step a = {s->x, ones, s->x * ones, '*'}, b = {s->x, tens, s->x * tens, '*'};
    struct step sum = {a.z, b.z * 10, s->z, '+'};
    if (ones) {
        put_step(p, &a, style);
        gym_gap(p);
    }
    put_step(p, &b, style);
    gym_gap(p);
    gym_put(p, "%" PRId64 "*%" PRId64 "=%" PRId64, s->x, tens * 10, b.z * 10);
    stop(p);
    if (ones) {
        gym_gap(p);
        put_step(p, &sum, style);
        put_so(p, s);
    }
}

static void columns(struct gym_pen *p, const struct step *s)
{
    struct step t = *s;
    if (s->op == '*' && s->y > 9 && s->x > 9) {
        long_multiply(p, s, 0);
        return;
    }
    if (s->op == '*' && s->x < s->y) /* the longer number has the columns */
        t.x = s->y, t.y = s->x;
    if (s->op == '-' && s->x < s->y) {
        t = (struct step){s->y, s->x, -s->z, '-'};
        gym_put(p, "%" PRId64 "<%" PRId64, s->x, s->y);
        stop(p);
        gym_gap(p);
    }
    void (*const by[])(struct gym_pen *, const struct step *) = {columns_add, columns_subtract,
                                                                 columns_multiply, columns_divide};
    by[s->op == '+' ? 0 : s->op == '-' ? 1 : s->op == '*' ? 2 : 3](p, &t);
    if (t.op == '-' && s->x < s->y)
        put_so(p, &t);
    put_so(p, s);
}

/* Hundreds, tens and ones one after the other. */
static void parts(struct gym_pen *p, const struct step *s)
{
    struct step t = *s;
    bool below = s->op == '-' && s->x < s->y;
    int64_t sum = 0, left, unit = 1;
    bool first = true;
    if (below)
        t = (struct step){s->y, s->x, -s->z, '-'};
    if (t.op == '*' && t.x < t.y)
        t.x = s->y, t.y = s->x;
    /* what is taken apart: the second number, of a product the first, of a quotient the result */
    int64_t apart = t.op == '*' ? t.x : t.op == '/' ? t.z : t.y, now = t.x;
    while (apart / unit >= 10)
        unit *= 10;
    for (left = apart; unit; unit /= 10) {
        int64_t part = left / unit * unit;
        left -= part;
        if (!part)
            continue;
        if (!first)
            GYM_PUT(p, ", ", "，");
        if (t.op == '*') {
            gym_put(p, "%" PRId64 "*%" PRId64 "=%" PRId64, part, t.y, part * t.y);
            if (!first) {
                GYM_PUT(p, ", ", "，");
                gym_put(p, "%" PRId64 "+%" PRId64 "=%" PRId64, sum, part * t.y, sum + part * t.y);
            }
            sum += part * t.y;
        } else if (t.op == '/') {
            gym_put(p, "%" PRId64 "*%" PRId64 "=%" PRId64, t.y, part, part * t.y);
            if (left) {
                GYM_PUT(p, ", ", "，");
                gym_put(p, "%" PRId64 "-%" PRId64 "=%" PRId64, now, part * t.y, now - part * t.y);
            }
            now -= part * t.y;
        } else {
            struct step one = {now, part, gym_apply(t.op, now, part), t.op};
            put_equation(p, &one);
            now = one.z;
        }
        first = false;
    }
    stop(p);
    if (below || t.op == '/' || t.x != s->x)
        put_so(p, s);
}

static void put_step(struct gym_pen *p, const struct step *s, int style)
{
    if (small(s) || style == 2 || (style == 1 && (!s->x || !s->y))) {
        put_equation(p, s);
        stop(p);
    } else if (style == 1) {
        parts(p, s);
    } else {
        columns(p, s);
    }
}

static void arithmetic_think(struct gym_pen *p, const struct gym_item *it, int style)
{
    struct step s[2];
    size_t n = steps_of(it, s);
    for (size_t i = 0; i < n; i++) {
        if (i)
            gym_put(p, "\n");
        put_step(p, &s[i], style);
    }
}

static void arithmetic_gold(struct gym_pen *p, const struct gym_item *it)
{
    struct step s[2];
    size_t n = steps_of(it, s);
    gym_put(p, "%" PRId64, s[n - 1].z);
}

static void arithmetic_answer(struct gym_pen *p, const struct gym_item *it)
{
    struct step s[2];
    size_t n = steps_of(it, s);
    GYM_PUT(p, "The answer is \\boxed{%" PRId64 "}.", "答案是\\boxed{%" PRId64 "}。", s[n - 1].z);
}

const struct gym_task gym_task_arithmetic = {
    .name = "arithmetic",
    .about = "sums, differences, products and quotients of one to three numbers",
    .draw = arithmetic_draw,
    .valid = arithmetic_valid,
    .normal = arithmetic_normal,
    .prompt = arithmetic_prompt,
    .think = arithmetic_think,
    .answer = arithmetic_answer,
    .gold = arithmetic_gold,
    .verify = gym_verify_value,
    .worse = gym_worse_value,
};
