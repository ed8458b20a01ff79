/*
 * word: short stories with numbers, two steps each.
 *
 * A template (gym_word.def) has a formula, and its texts in both languages. The kind is the
 * template, the values are a, b and c. Names and things come from the wording: they decorate.
 *
 *   0 lines    a line for each step, named after what it finds, and the last one checked backwards
 *   1 steps    first this, then that
 *   2 direct   the formula in one equation
 */
#include "base/num.h"
#include "grade/gym_impl.h"

#include <inttypes.h>
#include <string.h>

/* What is done: first two values, then the third; `turned`: third op first. */
enum formula {
    ADD_SUB,
    SUB_ADD,
    MUL_ADD,
    MUL_SUB,
    SUB_MUL, /* c - a*b */
    ADD_MUL,
    GAP_MUL, /* (a-b)*c */
    ADD_DIV,
    GAP_DIV,
    MUL_DIV,
    DIV_ADD,
    TIMES_ADD, /* a*b + a: c is a */
    TIMES_SUB,
};

static const struct {
    char first, second;
    bool turned, twice; /* c op result; c is a once more */
} formulas[] = {
    [ADD_SUB] = {'+', '-', false, false},  [SUB_ADD] = {'-', '+', false, false},
    [MUL_ADD] = {'*', '+', false, false},  [MUL_SUB] = {'*', '-', false, false},
    [SUB_MUL] = {'*', '-', true, false},   [ADD_MUL] = {'+', '*', false, false},
    [GAP_MUL] = {'-', '*', false, false},  [ADD_DIV] = {'+', '/', false, false},
    [GAP_DIV] = {'-', '/', false, false},  [MUL_DIV] = {'*', '/', false, false},
    [DIV_ADD] = {'/', '+', false, false},  [TIMES_ADD] = {'*', '+', false, true},
    [TIMES_SUB] = {'*', '-', false, true},
};

struct text {
    const char *in[GYM_LANGUAGES];
};

static const struct {
    enum formula formula;
    struct text question, first, second, answer;
} templates[] = {
#define WORD(formula, q_en, q_zh, f_en, f_zh, s_en, s_zh, a_en, a_zh) \
    {formula, {{q_en, q_zh}}, {{f_en, f_zh}}, {{s_en, s_zh}}, {{a_en, a_zh}}},
#include "grade/gym_word.def"
#undef WORD
};

enum { NAMES = 8, THINGS = 6, VALUE_MAX = 9999 };

static const char *const names[GYM_LANGUAGES][NAMES] = {
    {"Tom", "Amy", "Ben", "Lily", "Sam", "Anna", "Max", "Emma"},
    {"小明", "小红", "小华", "小丽", "小刚", "小芳", "小军", "小雪"},
};
static const char *const things[GYM_LANGUAGES][THINGS] = {
    {"apples", "eggs", "balls", "oranges", "cups", "cakes"},
    {"苹果", "鸡蛋", "球", "橙子", "杯子", "蛋糕"},
};

/* The two results; false when one is not a positive whole number. */
static bool work(const struct gym_item *it, int64_t *first, int64_t *second)
{
    enum formula f = templates[it->kind].formula;
    int64_t a = it->v[0], b = it->v[1], c = it->v[2];
    if (formulas[f].first == '/' && a % b)
        return false;
    *first = gym_apply(formulas[f].first, a, b);
    if (*first < 1 || (formulas[f].second == '/' && *first % c))
        return false;
    *second = formulas[f].turned ? gym_apply(formulas[f].second, c, *first)
                                 : gym_apply(formulas[f].second, *first, c);
    return *second >= 1;
}

static bool word_valid(const struct gym_item *it)
{
    int64_t x, y;
    if (it->kind >= NUM_COUNT(templates) || it->n != 3)
        return false;
    for (size_t i = 0; i < 3; i++)
        if (it->v[i] < 1 || it->v[i] > VALUE_MAX)
            return false;
    return (!formulas[templates[it->kind].formula].twice || it->v[2] == it->v[0]) &&
           work(it, &x, &y);
}

static void word_draw(struct gym_item *it, struct rng *r, int level, const struct gym_knobs *k)
{
    static const int32_t sums[] = {20, 50, 90, 500}, factors[] = {6, 9, 12, 25};
    int32_t most = sums[level - 1], f = factors[level - 1], *v = it->v;
    int64_t first, x;
    (void)k;
    it->kind = (uint32_t)gym_range(r, 0, NUM_COUNT(templates) - 1);
    it->n = 3;
    do {
        v[0] = gym_range(r, 2, f);
        v[1] = gym_range(r, 2, f < 9 ? f : 9);
        v[2] = gym_range(r, 2, f < 9 ? f : 9);
        switch (templates[it->kind].formula) {
        case ADD_SUB:
        case SUB_ADD:
            for (int i = 0; i < 3; i++)
                v[i] = gym_range(r, 2, most);
            break;
        case MUL_ADD:
        case MUL_SUB:
            v[2] = gym_range(r, 2, most);
            break;
        case SUB_MUL:
            v[2] = v[0] * v[1] + gym_range(r, 1, most);
            break;
        case ADD_MUL:
        case MUL_DIV:
            break;
        case GAP_MUL:
            v[0] = v[1] + gym_range(r, 1, f);
            break;
        case ADD_DIV: /* v[2] is what divides */
            v[0] = gym_range(r, 1, v[2] * f - 1);
            v[1] = v[2] * gym_range(r, v[0] / v[2] + 1, f) - v[0];
            break;
        case GAP_DIV:
            v[1] = gym_range(r, 2, most);
            v[0] = v[2] * gym_range(r, 2, f) + v[1];
            break;
        case DIV_ADD:
            v[0] = v[1] * gym_range(r, 2, f);
            v[2] = gym_range(r, 2, most);
            break;
        case TIMES_ADD:
        case TIMES_SUB:
            v[2] = v[0];
            break;
        }
        /* one apple would need other words */
    } while (v[0] < 2 || v[1] < 2 || v[2] < 2 || !word_valid(it) || !work(it, &first, &x) || x < 2);
}

static void word_normal(struct gym_item *it)
{
    char op = formulas[templates[it->kind].formula].first;
    if ((op == '+' || op == '*') && it->v[0] > it->v[1]) {
        int32_t t = it->v[0];
        it->v[0] = it->v[1];
        it->v[1] = t;
    }
}

/* Writes a template's text with what stands in braces filled in. */
static void put_text(struct gym_pen *p, const struct gym_item *it, const struct text *t)
{
    int64_t first, x;
    const char *s = t->in[p->language], *brace;
    uint32_t who = gym_pick(it, 1, NAMES), other = (who + 1 + gym_pick(it, 2, NAMES - 1)) % NAMES;
    if (!work(it, &first, &x))
        return;
    for (; (brace = strchr(s, '{')) && brace[1]; s = brace + 3) {
        char what = brace[1];
        gym_put(p, "%.*s", (int)(brace - s), s);
        if (what >= 'a' && what <= 'c')
            gym_put(p, "%" PRId32, it->v[what - 'a']);
        else if (what == 'x')
            gym_put(p, "\\boxed{%" PRId64 "}", x);
        else if (what == 'o')
            gym_put(p, "%s", things[p->language][gym_pick(it, 3, THINGS)]);
        else
            gym_put(p, "%s", names[p->language][what == 'N' ? who : other]);
    }
    gym_put(p, "%s", s);
}

static void word_prompt(struct gym_pen *p, const struct gym_item *it)
{
    put_text(p, it, &templates[it->kind].question);
}

static void put_equation(struct gym_pen *p, int64_t x, char op, int64_t y)
{
    gym_put(p, "%" PRId64 "%c%" PRId64 "=%" PRId64, x, op, y, gym_apply(op, x, y));
    GYM_PUT(p, ".", "。");
}

/* The last step backwards. */
static void put_check(struct gym_pen *p, int64_t first, char op, int64_t c, int64_t x, bool turned)
{
    GYM_PUT(p, "\nCheck: ", "\n检查：");
    if (turned)
        put_equation(p, x, '+', first);
    else
        put_equation(p, x, op == '+' ? '-' : op == '-' ? '+' : op == '*' ? '/' : '*', c);
}

static void word_think(struct gym_pen *p, const struct gym_item *it, int style)
{
    enum formula f = templates[it->kind].formula;
    char one = formulas[f].first, two = formulas[f].second;
    bool turned = formulas[f].turned;
    int64_t first, x, c = it->v[2];
    if (!work(it, &first, &x))
        return;
    if (style == 2) {
        bool brackets = (one == '+' || one == '-') && (two == '*' || two == '/');
        if (turned)
            gym_put(p, "%" PRId64 "%c", c, two);
        gym_put(p, "%s%d%c%d%s", brackets ? "(" : "", it->v[0], one, it->v[1], brackets ? ")" : "");
        if (!turned)
            gym_put(p, "%c%" PRId64, two, c);
        gym_put(p, "=%" PRId64, x);
        GYM_PUT(p, ".", "。");
        return;
    }
    if (style == 0) {
        put_text(p, it, &templates[it->kind].first);
        GYM_PUT(p, ": ", "：");
    } else {
        GYM_PUT(p, "First ", "先算");
    }
    put_equation(p, it->v[0], one, it->v[1]);
    if (style == 0) {
        gym_put(p, "\n");
        put_text(p, it, &templates[it->kind].second);
        GYM_PUT(p, ": ", "：");
    } else {
        GYM_PUT(p, " Then ", "再算");
    }
    put_equation(p, turned ? c : first, two, turned ? first : c);
    if (style == 0)
        put_check(p, first, two, c, x, turned);
}

static void word_answer(struct gym_pen *p, const struct gym_item *it)
{
    put_text(p, it, &templates[it->kind].answer);
}

static void word_gold(struct gym_pen *p, const struct gym_item *it)
{
    int64_t first, x;
    if (work(it, &first, &x))
        gym_put(p, "%" PRId64, x);
}

const struct gym_task gym_task_word = {
    .name = "word",
    .about = "short stories with numbers, two steps",
    .draw = word_draw,
    .valid = word_valid,
    .normal = word_normal,
    .prompt = word_prompt,
    .think = word_think,
    .answer = word_answer,
    .gold = word_gold,
    .verify = gym_verify_value,
    .worse = gym_worse_value,
};
