/*
 * countdown: make a target from three numbers by + - *.
 *
 * The search that a solution shows goes backwards: one number is used last, so the other two have
 * to make what is missing. "Last 7" of 7, 12, 3 with target 81: 81-7=74 and 81+7=88 would do (and
 * 81/7, were it whole); 12 and 3 make 12+3=15, 12-3=9, 12*3=36: no. Three numbers are three such
 * lines at most, and the largest number first finds most answers in the first line.
 *
 *   0 backwards   as above, until it is found
 *   1 tries       two numbers, then the third: some tries that fail, then one that does not
 *   2 direct      the two equations alone
 *
 * Kind 0: every number exactly once; kind 1: at most once. Values: three numbers, the target.
 */
#include "base/num.h"
#include "grade/gym_impl.h"

#include <inttypes.h>
#include <string.h>

enum { NUMBERS = 3, NUMBER_MAX = 99, TARGET_MAX = 999, EXACT = 0, AT_MOST = 1 };

/* x = a op b, and then x (outer) c, or c - x when `turned`; outer = 0: x is the target. */
struct way {
    int64_t a, b, c, x;
    char op, outer;
    bool turned;
};

/* Numbers with index `last` apart: a ≥ b. */
static void part(const struct gym_item *it, size_t last, struct way *w)
{
    int32_t rest[2];
    size_t n = 0;
    for (size_t i = 0; i < NUMBERS; i++)
        if (i != last && n < 2)
            rest[n++] = it->v[i];
    w->a = rest[0] > rest[1] ? rest[0] : rest[1];
    w->b = rest[0] > rest[1] ? rest[1] : rest[0];
    w->c = it->v[last];
}

/* What a op b makes; false when it is out of reach (a product too large to come back). */
static bool reach(struct way *w, char op, int64_t target)
{
    w->op = op;
    w->x = gym_apply(op, w->a, w->b);
    return op != '*' || w->x <= target + w->c;
}

/* How x and c make the target, if they do. */
static bool finish(struct way *w, int64_t target, bool at_most)
{
    w->turned = false;
    w->outer = 0;
    if (at_most && w->x == target)
        return true;
    if (w->x + w->c == target)
        w->outer = '+';
    else if (w->x - w->c == target)
        w->outer = '-';
    else if (w->x * w->c == target && w->c > 1)
        w->outer = '*';
    else if (w->c - w->x == target)
        w->outer = '-', w->turned = true;
    return w->outer != 0;
}

static const char inner_ops[] = "+-*";

/* The numbers' places, largest number first; equal ones in their order. */
static void order_of(const struct gym_item *it, size_t order[NUMBERS])
{
    for (size_t i = 0; i < NUMBERS; i++) {
        size_t j = i;
        for (; j > 0 && it->v[order[j - 1]] < it->v[i]; j--)
            order[j] = order[j - 1];
        order[j] = i;
    }
}

/* The first way that backwards search finds; *line is how many last numbers it took, from 1. */
static bool solve(const struct gym_item *it, struct way *w, size_t *line)
{
    size_t order[NUMBERS];
    order_of(it, order);
    for (size_t i = 0; i < NUMBERS; i++) {
        part(it, order[i], w);
        *line = i + 1;
        for (const char *op = inner_ops; *op; op++)
            if (reach(w, *op, it->v[NUMBERS]) && finish(w, it->v[NUMBERS], it->kind == AT_MOST))
                return true;
    }
    return false;
}

static bool countdown_valid(const struct gym_item *it)
{
    struct way w;
    size_t line;
    if (it->kind > AT_MOST || it->n != NUMBERS + 1)
        return false;
    for (size_t i = 0; i < NUMBERS; i++)
        if (it->v[i] < 1 || it->v[i] > NUMBER_MAX)
            return false;
    return it->v[NUMBERS] >= 1 && it->v[NUMBERS] <= TARGET_MAX && solve(it, &w, &line);
}

static void countdown_draw(struct gym_item *it, struct rng *r, int level, const struct gym_knobs *k)
{
    static const int32_t numbers[] = {10, 20, 30, 50}, targets[] = {50, 100, 100, 200};
    int32_t to = k->numbers_to ? k->numbers_to : numbers[level - 1];
    int32_t most = k->target_to ? k->target_to : targets[level - 1];
    it->kind = gym_range(r, 0, 4) == 0 ? AT_MOST : EXACT;
    it->n = NUMBERS + 1;
    for (int tries = 0; tries < 256; tries++) {
        struct way w;
        for (size_t i = 0; i < NUMBERS; i++)
            it->v[i] = gym_range(r, 1, to);
        part(it, (size_t)gym_range(r, 0, 2), &w);
        int64_t x = gym_apply(inner_ops[gym_range(r, 0, 2)], w.a, w.b);
        int64_t t = gym_apply(inner_ops[gym_range(r, 0, 2)], x, w.c);
        if (it->kind == AT_MOST && gym_range(r, 0, 1))
            t = x;
        t = t < 0 ? -t : t;
        bool given = t == it->v[0] || t == it->v[1] || t == it->v[2];
        it->v[NUMBERS] = t <= most ? (int32_t)t : 0;
        if (t && t <= most && !(given && it->kind == AT_MOST) && countdown_valid(it))
            return;
    }
    for (int32_t i = 0; i < NUMBERS; i++) /* when the knobs leave nothing: 1+1-1=1 */
        it->v[i] = 1;
    it->kind = EXACT;
    it->v[NUMBERS] = 1;
}

static void countdown_normal(struct gym_item *it)
{
    for (size_t i = 1; i < NUMBERS; i++)
        for (size_t j = i; j > 0 && it->v[j - 1] > it->v[j]; j--) {
            int32_t t = it->v[j];
            it->v[j] = it->v[j - 1];
            it->v[j - 1] = t;
        }
    it->kind = 0; /* with the same numbers the two kinds are too close to be apart */
}

static void countdown_prompt(struct gym_pen *p, const struct gym_item *it)
{
    int a = it->v[0], b = it->v[1], c = it->v[2], t = it->v[NUMBERS];
    uint32_t way = gym_pick(it, 1, 4);
    if (way == 0)
        GYM_PUT(p, "Use the numbers %d, %d, %d and + - * to make %d.", "用%d、%d、%d和+-*得到%d。",
                a, b, c, t);
    else if (way == 1)
        GYM_PUT(p, "Make %4$d from %1$d, %2$d and %3$d with + - *.",
                "用+-*把%1$d、%2$d、%3$d算成%4$d。", a, b, c, t);
    else if (way == 2)
        GYM_PUT(p, "Countdown: numbers %d, %d, %d, target %d. Use + - *.",
                "数字游戏：数字%d、%d、%d，目标%d。可以用+-*。", a, b, c, t);
    else
        GYM_PUT(p, "How can you get %4$d from the numbers %1$d, %2$d, %3$d with + - *?",
                "数字%1$d、%2$d、%3$d怎样用+-*得到%4$d？", a, b, c, t);
    if (it->kind == AT_MOST)
        GYM_PUT(p, " Each number at most once.", "每个数最多用一次。");
    else
        GYM_PUT(p, " Each number exactly once.", "每个数正好用一次。");
}

/* ---- work ------------------------------------------------------------------------------------ */

static void put_last(struct gym_pen *p, const struct way *w, int64_t target)
{
    if (!w->outer)
        return;
    int64_t x = w->turned ? w->c : w->x, y = w->turned ? w->x : w->c;
    gym_put(p, "%" PRId64 "%c%" PRId64 "=%" PRId64, x, w->outer, y, target);
}

/* Between equations; a space is one token where a comma and a space are two. */
static void comma(struct gym_pen *p)
{
    GYM_PUT(p, " ", "，");
}

/* What the other two would have to make. */
static void put_needs(struct gym_pen *p, const struct way *w, int64_t target)
{
    int64_t hi = target > w->c ? target : w->c, lo = target > w->c ? w->c : target;
    gym_put(p, "%" PRId64 "-%" PRId64 "=%" PRId64, hi, lo, hi - lo);
    comma(p);
    gym_put(p, "%" PRId64 "+%" PRId64 "=%" PRId64, target, w->c, target + w->c);
    if (w->c > 1 && target % w->c == 0) {
        comma(p);
        gym_put(p, "%" PRId64 "/%" PRId64 "=%" PRId64, target, w->c, target / w->c);
    }
}

static void backwards(struct gym_pen *p, const struct gym_item *it)
{
    size_t order[NUMBERS];
    int64_t target = it->v[NUMBERS];
    order_of(it, order);
    for (size_t i = 0; i < NUMBERS; i++) {
        struct way w;
        part(it, order[i], &w);
        GYM_PUT(p, "%sLast %" PRId64 ": ", "%s最后用%" PRId64 "：", i ? "\n" : "", w.c);
        put_needs(p, &w, target);
        GYM_PUT(p, ". Try", "。试");
        for (const char *op = inner_ops; *op; op++) {
            if (!reach(&w, *op, target))
                continue;
            if (op > inner_ops)
                comma(p);
            else
                gym_gap(p);
            gym_put(p, "%" PRId64 "%c%" PRId64 "=%" PRId64, w.a, w.op, w.b, w.x);
            if (finish(&w, target, it->kind == AT_MOST)) {
                GYM_PUT(p, ". Yes.", "。可以。");
                if (w.outer)
                    gym_gap(p);
                put_last(p, &w, target);
                if (w.outer)
                    GYM_PUT(p, ".", "。");
                return;
            }
        }
        GYM_PUT(p, ". No.", "。不行。");
    }
}

/* Forwards: up to three pairs that lead nowhere, each with its ends, then the pair that does. */
static void tries(struct gym_pen *p, const struct gym_item *it, const struct way *good)
{
    int64_t target = it->v[NUMBERS];
    uint32_t want = gym_pick(it, 2, 4), at = gym_pick(it, 3, 9);
    for (uint32_t i = 0; i < 9 && want; i++, at = (at + 4) % 9) {
        struct way w;
        part(it, at / 3, &w);
        if (!reach(&w, inner_ops[at % 3], target) || finish(&w, target, true))
            continue;
        gym_put(p, "%" PRId64 "%c%" PRId64 "=%" PRId64, w.a, w.op, w.b, w.x);
        GYM_PUT(p, ": %" PRId64 "+%" PRId64 "=%" PRId64 ", ",
                "：%" PRId64 "+%" PRId64 "=%" PRId64 "，", w.x, w.c, w.x + w.c);
        int64_t hi = w.x > w.c ? w.x : w.c, lo = w.x > w.c ? w.c : w.x;
        gym_put(p, "%" PRId64 "-%" PRId64 "=%" PRId64, hi, lo, hi - lo);
        GYM_PUT(p, " no.\n", "，不行。\n");
        want--;
    }
    gym_put(p, "%" PRId64 "%c%" PRId64 "=%" PRId64, good->a, good->op, good->b, good->x);
    if (good->outer)
        GYM_PUT(p, ": ", "：");
    put_last(p, good, target);
    GYM_PUT(p, " yes.", "，可以。");
}

static void countdown_think(struct gym_pen *p, const struct gym_item *it, int style)
{
    struct way w;
    size_t line;
    if (!solve(it, &w, &line))
        return; /* no valid item */
    if (style == 0) {
        backwards(p, it);
    } else if (style == 1) {
        tries(p, it, &w);
    } else {
        gym_put(p, "%" PRId64 "%c%" PRId64 "=%" PRId64, w.a, w.op, w.b, w.x);
        if (w.outer)
            comma(p);
        put_last(p, &w, it->v[NUMBERS]);
        GYM_PUT(p, ".", "。");
    }
}

static void countdown_gold(struct gym_pen *p, const struct gym_item *it)
{
    struct way w;
    size_t line;
    if (!solve(it, &w, &line))
        return;
    bool brackets = w.op != '*' && (w.outer == '*' || w.turned);
    if (w.turned)
        gym_put(p, "%" PRId64 "-", w.c);
    gym_put(p, "%s%" PRId64 "%c%" PRId64 "%s", brackets ? "(" : "", w.a, w.op, w.b,
            brackets ? ")" : "");
    if (w.outer && !w.turned)
        gym_put(p, "%c%" PRId64, w.outer, w.c);
}

static void countdown_answer(struct gym_pen *p, const struct gym_item *it)
{
    GYM_PUT(p, "The answer is \\boxed{", "答案是\\boxed{");
    countdown_gold(p, it);
    GYM_PUT(p, "}.", "}。");
}

/* ---- verifying ------------------------------------------------------------------------------- */

/* An expression of + - * and brackets over whole numbers. */
struct reader {
    struct span s;
    int depth;
    size_t n;
    int64_t used[NUMBERS + 1];
    bool bad, other; /* not an expression; an operator that is not allowed */
};

enum { READER_DEPTH = 16, READER_MOST = 1000000000 };

static bool eat(struct reader *r, const char *text)
{
    size_t n = strlen(text);
    if (r->s.n < n || memcmp(r->s.s, text, n) != 0)
        return false;
    r->s.s += n;
    r->s.n -= n;
    return true;
}

static void skip(struct reader *r)
{
    while (eat(r, " ") || eat(r, "\n") || eat(r, "$") || eat(r, "\\,") || eat(r, "\\left") ||
           eat(r, "\\right"))
        ;
}

static int64_t read_sum(struct reader *r);

static int64_t read_factor(struct reader *r)
{
    int64_t x = 0;
    size_t digits = 0;
    skip(r);
    if (eat(r, "(")) {
        if (++r->depth > READER_DEPTH)
            r->bad = true;
        x = r->bad ? 0 : read_sum(r);
        r->depth--;
        skip(r);
        r->bad |= !eat(r, ")");
        return x;
    }
    for (; r->s.n && r->s.s[0] >= '0' && r->s.s[0] <= '9' && digits < 9; digits++) {
        x = x * 10 + (r->s.s[0] - '0');
        r->s.s++;
        r->s.n--;
    }
    if (!digits)
        r->bad = true;
    else if (r->n <= NUMBERS)
        r->used[r->n++] = x;
    return x;
}

static int64_t keep_small(struct reader *r, int64_t x)
{
    if (x > READER_MOST || x < -READER_MOST) {
        r->other = true;
        return 0;
    }
    return x;
}

static int64_t read_product(struct reader *r)
{
    int64_t x = read_factor(r);
    while (!r->bad) {
        skip(r);
        if (eat(r, "*") || eat(r, "×") || eat(r, "·") || eat(r, "\\times") || eat(r, "\\cdot")) {
            x = keep_small(r, x * read_factor(r));
        } else if (eat(r, "/") || eat(r, "÷") || eat(r, "\\div")) {
            r->other = true;
            read_factor(r);
        } else {
            break;
        }
    }
    return x;
}

static int64_t read_sum(struct reader *r)
{
    int64_t x = read_product(r);
    while (!r->bad) {
        skip(r);
        if (eat(r, "+"))
            x = keep_small(r, x + read_product(r));
        else if (eat(r, "-") || eat(r, "−"))
            x = keep_small(r, x - read_product(r));
        else
            break;
    }
    return x;
}

/* Every number used is one of the item's that is left, and with `exact` none is left. */
static bool uses(const struct gym_item *it, const struct reader *r)
{
    bool gone[NUMBERS] = {false};
    if (r->n > NUMBERS || (it->kind == EXACT && r->n != NUMBERS))
        return false;
    for (size_t i = 0; i < r->n; i++) {
        size_t j = 0;
        while (j < NUMBERS && (gone[j] || it->v[j] != r->used[i]))
            j++;
        if (j == NUMBERS)
            return false;
        gone[j] = true;
    }
    return true;
}

static enum grade countdown_verify(const struct gym_item *it, struct span output)
{
    struct reader r = {.bad = false};
    long long right;
    if (!answer_extract(output, &r.s))
        return GRADE_UNPARSED;
    int64_t x = read_sum(&r);
    skip(&r);
    if (r.bad)
        return GRADE_UNPARSED;
    bool equation = eat(&r, "=");
    if (equation && (!answer_int(r.s, &right) || right != it->v[NUMBERS]))
        return GRADE_DIFFERENT;
    if (r.s.n && !equation)
        return GRADE_UNPARSED;
    return !r.other && x == it->v[NUMBERS] && uses(it, &r) ? GRADE_EQUAL : GRADE_DIFFERENT;
}

/* The right way to another target. */
static void countdown_worse(struct gym_pen *p, const struct gym_item *it, uint32_t fault)
{
    struct gym_item other = *it;
    do
        other.v[NUMBERS]++;
    while (other.v[NUMBERS] < TARGET_MAX && (!countdown_valid(&other)));
    if (!countdown_valid(&other)) { /* 1+1+… reaches nothing larger */
        GYM_PUT(p, "The answer is \\boxed{%d}.", "答案是\\boxed{%d}。", it->v[NUMBERS]);
        return;
    }
    countdown_answer(p, &other);
}

const struct gym_task gym_task_countdown = {
    .name = "countdown",
    .about = "make a target from three numbers with + - *",
    .draw = countdown_draw,
    .valid = countdown_valid,
    .normal = countdown_normal,
    .prompt = countdown_prompt,
    .think = countdown_think,
    .answer = countdown_answer,
    .gold = countdown_gold,
    .verify = countdown_verify,
    .worse = countdown_worse,
};
