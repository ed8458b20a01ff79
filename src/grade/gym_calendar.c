/*
 * calendar: days of the week, dates and months.
 *
 *   AFTER, BEFORE   the day of the week so many days from one: weekday, days
 *   DATE            the date so many days after one: month, day, days
 *   BETWEEN         days from one date to a later one: month, day, month, day
 *   WEEKDAY         the day of the week of a date, from another date in that month: weekday, month,
 * day, day LATER, EARLIER  the month so many months from one: month, months
 *
 * Dates never cross the end of February, so that leap years do not matter. Weekdays are 0 (Monday)
 * to 6, months 1 to 12.
 *
 *   0 weeks     whole weeks taken off, the rest counted day by day
 *   1 numbers   days and months as numbers
 *   2 direct    the last step alone
 */
#include "base/num.h"
#include "grade/gym_impl.h"

#include <inttypes.h>
#include <string.h>

enum kind { AFTER, BEFORE, DATE, BETWEEN, WEEKDAY, LATER, EARLIER, KINDS };

static const char *const weekdays[GYM_LANGUAGES][7] = {
    {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"},
    {"星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日"},
};
static const char *const months_en[12] = {"January",   "February", "March",    "April",
                                          "May",       "June",     "July",     "August",
                                          "September", "October",  "November", "December"};
static const int month_days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

/* A date moved by days within the same year; false when it crosses February's end or the year's. */
static bool add_days(int32_t *month, int32_t *day, int32_t days)
{
    *day += days;
    while (*day > month_days[*month - 1]) {
        *day -= month_days[*month - 1];
        if (*month == 2 || *month == 12)
            return false;
        ++*month;
    }
    return true;
}

static bool date_valid(int32_t month, int32_t day)
{
    return month >= 1 && month <= 12 && day >= 1 && day <= month_days[month - 1];
}

/* Days from the first date to the second, -1 when there is no good way. */
static int32_t days_between(const int32_t v[4])
{
    for (int32_t d = 1; d < 365; d++) {
        int32_t m = v[0], day = v[1];
        if (!add_days(&m, &day, d))
            return -1;
        if (m == v[2] && day == v[3])
            return d;
    }
    return -1;
}

static bool calendar_valid(const struct gym_item *it)
{
    static const size_t count[KINDS] = {2, 2, 3, 4, 4, 2, 2};
    const int32_t *v = it->v;
    int32_t m = v[0], d = v[1];
    if (it->kind >= KINDS || it->n != count[it->kind])
        return false;
    switch ((enum kind)it->kind) {
    case AFTER:
    case BEFORE:
        return v[0] >= 0 && v[0] < 7 && v[1] >= 1 && v[1] <= 999;
    case DATE:
        return date_valid(m, d) && v[2] >= 1 && v[2] < 365 && add_days(&m, &d, v[2]);
    case BETWEEN: /* at most the next month: one subtotal */
        return date_valid(m, d) && date_valid(v[2], v[3]) && v[2] - v[0] <= 1 &&
               days_between(v) > 0;
    case WEEKDAY:
        return v[0] >= 0 && v[0] < 7 && date_valid(v[1], v[2]) && date_valid(v[1], v[3]) &&
               v[2] < v[3];
    default:
        return v[0] >= 1 && v[0] <= 12 && v[1] >= 1 && v[1] <= 99;
    }
}

static void calendar_draw(struct gym_item *it, struct rng *r, int level, const struct gym_knobs *k)
{
    static const int32_t days[] = {14, 40, 100, 300}, months[] = {11, 11, 24, 48};
    int32_t most = k->days_to ? k->days_to : days[level - 1];
    for (int tries = 0; tries < 256; tries++) {
        static const uint32_t mix[] = {AFTER,   AFTER, BEFORE, DATE,    DATE,
                                       WEEKDAY, LATER, LATER,  EARLIER, BETWEEN};
        it->kind = mix[gym_range(r, 0, NUM_COUNT(mix) - 1)];
        it->n = 2;
        int32_t *v = it->v;
        if (it->kind == AFTER || it->kind == BEFORE) {
            v[0] = gym_range(r, 0, 6);
            v[1] = gym_range(r, 1, most);
        } else if (it->kind == DATE) {
            it->n = 3;
            v[0] = gym_range(r, 1, 12);
            v[1] = gym_range(r, 1, month_days[v[0] - 1]);
            v[2] = gym_range(r, 1, most < 40 ? most : 40);
        } else if (it->kind == BETWEEN) {
            it->n = 4;
            v[0] = v[2] = gym_range(r, 1, 12);
            v[1] = v[3] = gym_range(r, 1, month_days[v[0] - 1]);
            if (!add_days(&v[2], &v[3], gym_range(r, 1, most < 40 ? most : 40)))
                continue;
        } else if (it->kind == WEEKDAY) {
            it->n = 4;
            v[0] = gym_range(r, 0, 6);
            v[1] = gym_range(r, 1, 12);
            v[2] = gym_range(r, 1, 20);
            v[3] = gym_range(r, v[2] + 1, month_days[v[1] - 1]);
        } else {
            v[0] = gym_range(r, 1, 12);
            v[1] = gym_range(r, 1, months[level - 1]);
        }
        if (calendar_valid(it))
            return;
    }
    it->kind = AFTER;
    it->n = 2;
    it->v[0] = 0;
    it->v[1] = 1;
}

/* The same day forwards and backwards, or in whatever month, is not the same problem; but the
   month of WEEKDAY is decoration. */
static void calendar_normal(struct gym_item *it)
{
    if (it->kind == WEEKDAY)
        it->v[1] = 1;
}

/* ---- words ----------------------------------------------------------------------------------- */

static void put_month(struct gym_pen *p, int32_t month)
{
    if (p->language == GYM_ZH)
        gym_put(p, "%d月", month);
    else
        gym_put(p, "%s", months_en[month - 1]);
}

static void put_date(struct gym_pen *p, int32_t month, int32_t day)
{
    if (p->language == GYM_ZH)
        gym_put(p, "%d月%d日", month, day);
    else
        gym_put(p, "%s %d", months_en[month - 1], day);
}

static const char *weekday(const struct gym_pen *p, int32_t w)
{
    return weekdays[p->language][((w % 7) + 7) % 7];
}

static void stop(struct gym_pen *p)
{
    GYM_PUT(p, ".", "。");
}

static const char *plural(int32_t n)
{
    return n == 1 ? "" : "s";
}

static void prompt_weekday(struct gym_pen *p, const struct gym_item *it)
{
    const char *w = weekday(p, it->v[0]);
    int n = it->v[1];
    bool after = it->kind == AFTER, zh = p->language == GYM_ZH;
    const char *side = zh ? (after ? "之后" : "之前") : after ? "after" : "before";
    uint32_t way = gym_pick(it, 1, 3);
    if (way == 0 && zh)
        gym_put(p, "%s%s%d天是星期几？", w, side, n);
    else if (way == 0)
        gym_put(p, "What day of the week is %d day%s %s %s?", n, plural(n), side, w);
    else if (way == 1 && zh)
        gym_put(p, "%s的%d天%s是星期几？", w, n, side);
    else if (way == 1)
        gym_put(p, "Which day is %d day%s %s %s?", n, plural(n), side, w);
    else if (zh)
        gym_put(p, "今天是%s，%d天%s是星期几？", w, n, side);
    else if (after)
        gym_put(p, "Today is %s. What day is it in %d day%s?", w, n, plural(n));
    else
        gym_put(p, "Today is %s. What day was it %d day%s ago?", w, n, plural(n));
}

static void prompt_date(struct gym_pen *p, const struct gym_item *it)
{
    const int32_t *v = it->v;
    uint32_t way = gym_pick(it, 1, 2);
    bool zh = p->language == GYM_ZH;
    if (it->kind == DATE && way == 0) {
        if (zh)
            gym_put(p, "从");
        else
            gym_put(p, "What date is %d day%s after ", v[2], plural(v[2]));
        put_date(p, v[0], v[1]);
        if (zh)
            gym_put(p, "往后%d天是几月几日？", v[2]);
        else
            gym_put(p, "?");
    } else if (it->kind == DATE) {
        GYM_PUT(p, "Today is ", "今天是");
        put_date(p, v[0], v[1]);
        if (zh)
            gym_put(p, "，%d天之后是几月几日？", v[2]);
        else
            gym_put(p, ". What date is it in %d day%s?", v[2], plural(v[2]));
    } else if (it->kind == BETWEEN) {
        if (way == 0)
            GYM_PUT(p, "How many days are there from ", "从");
        else
            GYM_PUT(p, "How many days is it from ", "请问从");
        put_date(p, v[0], v[1]);
        GYM_PUT(p, " to ", "到");
        put_date(p, v[2], v[3]);
        GYM_PUT(p, "?", "有多少天？");
    } else {
        put_date(p, v[1], v[2]);
        GYM_PUT(p, " is a %s. What day of the week is ", "是%s。", weekday(p, v[0]));
        put_date(p, v[1], v[3]);
        GYM_PUT(p, "?", "是星期几？");
    }
}

static void calendar_prompt(struct gym_pen *p, const struct gym_item *it)
{
    bool later = it->kind == LATER, first = gym_pick(it, 1, 2) == 0;
    int32_t month = it->v[0], n = it->v[1];
    if (it->kind == AFTER || it->kind == BEFORE)
        prompt_weekday(p, it);
    else if (it->kind != LATER && it->kind != EARLIER)
        prompt_date(p, it);
    else if (p->language == GYM_EN)
        gym_put(p, "%s month is %d month%s %s %s?", first ? "Which" : "What", n, plural(n),
                later ? "after" : "before", months_en[month - 1]);
    else if (first)
        gym_put(p, "%d月%s%d个月是几月？", month, later ? "之后" : "之前", n);
    else
        gym_put(p, "%d月的%d个月%s是几月？", month, n, later ? "之后" : "之前");
}

/* ---- work ------------------------------------------------------------------------------------ */

/* From weekday w, n days on (or back). */
static void think_weekday(struct gym_pen *p, int32_t w, int32_t n, bool back, int style)
{
    int32_t rest = n % 7, sign = back ? -1 : 1, to = ((w + sign * rest) % 7 + 7) % 7;
    if (style == 1) { /* Monday is day 1 */
        int32_t raw = w + 1 + sign * n, weeks = back ? n / 7 * 7 : (n + w) / 7 * 7;
        if (back && raw + weeks < 1)
            weeks += 7;
        GYM_PUT(p, "%s is day %d. %d%c%d=%d", "%s是第%d天。%d%c%d=%d", weekday(p, w), w + 1, w + 1,
                back ? '-' : '+', n, raw);
        if (weeks)
            GYM_PUT(p, ", %d%c%d=%d", "，%d%c%d=%d", raw, back ? '+' : '-', weeks,
                    raw - sign * weeks);
        stop(p);
        gym_gap(p);
        GYM_PUT(p, "Day %d is %s.", "第%d天是%s。", to + 1, weekday(p, to));
        return;
    }
    if (n >= 7) {
        gym_put(p, "%d=%d*7+%d", n, n / 7, rest);
        stop(p);
        gym_gap(p);
    }
    if (!rest) {
        GYM_PUT(p, "So it is %s again.", "所以还是%s。", weekday(p, w));
        return;
    }
    if (style == 2) {
        GYM_PUT(p, "So it is %s.", "所以是%s。", weekday(p, to));
        return;
    }
    if (p->language == GYM_ZH)
        gym_put(p, "%s%s%d天：", weekday(p, w), back ? "之前" : "之后", rest);
    else
        gym_put(p, "%d day%s %s %s: ", rest, plural(rest), back ? "before" : "after",
                weekday(p, w));
    for (int32_t i = 1; i <= rest; i++) {
        if (i > 1)
            GYM_PUT(p, ", ", "、");
        gym_put(p, "%s", weekday(p, w + sign * i));
    }
    stop(p);
}

static void think_date(struct gym_pen *p, const int32_t v[3], int style)
{
    int32_t month = v[0], day = v[1], left = v[2];
    if (style == 1) { /* to the end of the month, and on */
        while (day + left > month_days[month - 1]) {
            int32_t rest = month_days[month - 1] - day;
            gym_put(p, "%d-%d=%d", month_days[month - 1], day, rest);
            GYM_PUT(p, ", %d-%d=%d. ", "，%d-%d=%d。", left, rest, left - rest);
            left -= rest;
            day = 0;
            month++;
        }
        if (day) {
            gym_put(p, "%d+%d=%d", day, left, day + left);
            stop(p);
            gym_gap(p);
        }
    } else {
        if (style == 0) {
            put_month(p, month);
            GYM_PUT(p, " has %d days. ", "有%d天。", month_days[month - 1]);
        }
        gym_put(p, "%d+%d=%d", day, left, day + left);
        while (day + left > month_days[month - 1]) {
            GYM_PUT(p, ", %d-%d=%d", "，%d-%d=%d", day + left, month_days[month - 1],
                    day + left - month_days[month - 1]);
            left -= month_days[month - 1];
            month++;
            if (style == 0 && day + left > month_days[month - 1]) {
                stop(p);
                gym_gap(p);
                put_month(p, month);
                GYM_PUT(p, " has %d days", "有%d天", month_days[month - 1]);
            }
        }
        stop(p);
        gym_gap(p);
    }
    GYM_PUT(p, "So ", "所以是");
    month = v[0], day = v[1];
    add_days(&month, &day, v[2]);
    put_date(p, month, day);
    stop(p);
}

static void think_between(struct gym_pen *p, const int32_t v[4], int style)
{
    int32_t len = month_days[v[0] - 1];
    if (v[0] == v[2]) {
        gym_put(p, "%d-%d=%d", v[3], v[1], v[3] - v[1]);
        stop(p);
        return;
    }
    if (style == 2) {
        gym_put(p, "%d-%d+%d=%d", len, v[1], v[3], len - v[1] + v[3]);
        stop(p);
        return;
    }
    put_month(p, v[0]);
    GYM_PUT(p, " has %d days. ", "有%d天。", len);
    if (style == 0)
        GYM_PUT(p, "%d-%d=%d, %d+%d=%d.", "%d-%d=%d，%d+%d=%d。", len, v[1], len - v[1], len - v[1],
                v[3], len - v[1] + v[3]);
    else
        GYM_PUT(p, "%d+%d=%d, %d-%d=%d.", "%d+%d=%d，%d-%d=%d。", len, v[3], len + v[3], len + v[3],
                v[1], len - v[1] + v[3]);
}

static int32_t month_from(int32_t month, int32_t n, bool back)
{
    int32_t m = (month - 1 + (back ? -n : n)) % 12;
    return (m + 12) % 12 + 1;
}

static void think_month(struct gym_pen *p, int32_t month, int32_t n, bool back, int style)
{
    int32_t sign = back ? -1 : 1, raw = month + sign * n, to = month_from(month, n, back);
    if (style == 1 && n % 12) { /* month by month */
        if (n > 12) {
            gym_put(p, "%d-%d=%d", n, n / 12 * 12, n % 12);
            stop(p);
            gym_gap(p);
        }
        for (int32_t i = 1; i <= n % 12; i++) {
            if (i > 1)
                GYM_PUT(p, ", ", "、");
            put_month(p, month_from(month, i, back));
        }
        stop(p);
        return;
    }
    if (style != 2 && p->language == GYM_EN)
        gym_put(p, "%s is month %d. ", months_en[month - 1], month);
    gym_put(p, "%d%c%d=%d", month, back ? '-' : '+', n, raw);
    while (raw < 1 || raw > 12) {
        GYM_PUT(p, ", %d%c12=%d", "，%d%c12=%d", raw, back ? '+' : '-', raw - sign * 12);
        raw -= sign * 12;
    }
    stop(p);
    gym_gap(p);
    if (p->language == GYM_ZH)
        gym_put(p, "是%d月。", to);
    else
        gym_put(p, "Month %d is %s.", to, months_en[to - 1]);
}

static void calendar_think(struct gym_pen *p, const struct gym_item *it, int style)
{
    const int32_t *v = it->v;
    switch ((enum kind)it->kind) {
    case AFTER:
    case BEFORE:
        think_weekday(p, v[0], v[1], it->kind == BEFORE, style);
        break;
    case DATE:
        think_date(p, v, style);
        break;
    case BETWEEN:
        think_between(p, v, style);
        break;
    case WEEKDAY:
        gym_put(p, "%d-%d=%d", v[3], v[2], v[3] - v[2]);
        stop(p);
        gym_gap(p);
        think_weekday(p, v[0], v[3] - v[2], false, style);
        break;
    default:
        think_month(p, v[0], v[1], it->kind == EARLIER, style);
    }
}

/* ---- answers --------------------------------------------------------------------------------- */

/* Weekday, month and day of the answer, or a number of days; what it does not have is 0. */
struct value {
    int weekday; /* 1 to 7 */
    int month, day, days;
};

static struct value value_of(const struct gym_item *it)
{
    const int32_t *v = it->v;
    struct value x = {0};
    int32_t m = v[0], d = v[1];
    if (it->kind == DATE) {
        add_days(&m, &d, v[2]);
        x.month = m, x.day = d;
    } else if (it->kind == BETWEEN) {
        x.days = days_between(v);
    } else if (it->kind == LATER || it->kind == EARLIER) {
        x.month = month_from(v[0], v[1], it->kind == EARLIER);
    } else {
        int32_t n = it->kind == WEEKDAY ? v[3] - v[2] : it->kind == BEFORE ? -v[1] : v[1];
        x.weekday = ((v[0] + n) % 7 + 7) % 7 + 1;
    }
    return x;
}

static void calendar_gold(struct gym_pen *p, const struct gym_item *it)
{
    struct value x = value_of(it);
    if (x.weekday)
        gym_put(p, "%s", weekday(p, x.weekday - 1));
    else if (x.day)
        put_date(p, x.month, x.day);
    else if (x.month)
        put_month(p, x.month);
    else
        gym_put(p, "%d", x.days);
}

static void calendar_answer(struct gym_pen *p, const struct gym_item *it)
{
    GYM_PUT(p, "The answer is \\boxed{", "答案是\\boxed{");
    calendar_gold(p, it);
    GYM_PUT(p, "}.", "}。");
}

/* ---- verifying ------------------------------------------------------------------------------- */

static bool same_letters(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((a[i] | 32) != (b[i] | 32))
            return false;
    return true;
}

/* A name, or its first letters (three or more), at the beginning of *a; a point may follow. */
static bool eat_name(struct span *a, const char *name)
{
    size_t n = 0;
    while (n < a->n && ((a->s[n] >= 'a' && a->s[n] <= 'z') || (a->s[n] >= 'A' && a->s[n] <= 'Z')))
        n++;
    if (n < 3 || n > strlen(name) || !same_letters(a->s, name, n))
        return false;
    n += n < a->n && a->s[n] == '.';
    *a = span_trim((struct span){a->s + n, a->n - n});
    return true;
}

static bool eat_text(struct span *a, const char *text)
{
    size_t n = strlen(text);
    if (a->n < n || memcmp(a->s, text, n) != 0)
        return false;
    *a = span_trim((struct span){a->s + n, a->n - n});
    return true;
}

static int eat_number(struct span *a)
{
    int x = 0;
    size_t n = 0;
    for (; n < a->n && n < 4 && a->s[n] >= '0' && a->s[n] <= '9'; n++)
        x = x * 10 + (a->s[n] - '0');
    a->s += n;
    a->n -= n;
    return n ? x : -1;
}

static int eat_month_name(struct span *a)
{
    for (int m = 0; m < 12; m++)
        if (eat_name(a, months_en[m]))
            return m + 1;
    return 0;
}

/* 星期, 周, 礼拜 with 一 … 六, 日 or 天. */
static int eat_weekday(struct span *a)
{
    static const char *const before[] = {"星期", "周", "礼拜"};
    static const char *const day[] = {"一", "二", "三", "四", "五", "六", "日", "天"};
    for (int w = 0; w < 7; w++)
        if (eat_name(a, weekdays[GYM_EN][w]))
            return w + 1;
    for (size_t i = 0; i < NUM_COUNT(before); i++)
        if (eat_text(a, before[i]))
            for (int w = 0; w < 8; w++)
                if (eat_text(a, day[w]))
                    return w < 7 ? w + 1 : 7;
    return 0;
}

/* "April 14", "14 April", "April 14th", "4月14日", "4月", "April". */
static bool read_date(struct span a, struct value *x)
{
    static const char *const ends[] = {"st", "nd", "rd", "th"};
    x->month = eat_month_name(&a);
    if (x->month && !a.n)
        return true;
    int number = eat_number(&a);
    a = span_trim(a);
    if (number < 0)
        return false;
    if (!x->month && eat_text(&a, "月")) {
        x->month = number;
        if (!a.n || (eat_text(&a, "份") && !a.n))
            return true;
        number = eat_number(&a);
        a = span_trim(a);
        if (!eat_text(&a, "日"))
            eat_text(&a, "号");
    }
    for (size_t i = 0; i < NUM_COUNT(ends); i++)
        if (eat_text(&a, ends[i]))
            break;
    if (!x->month)
        x->month = eat_month_name(&a);
    x->day = number;
    return x->month && number > 0 && !a.n;
}

static enum grade calendar_verify(const struct gym_item *it, struct span output)
{
    struct value want = value_of(it), got = {0};
    struct span a;
    if (!answer_extract(output, &a))
        return GRADE_UNPARSED;
    a = span_trim(a);
    if (eat_text(&a, "\\text{") && a.n && a.s[a.n - 1] == '}')
        a = span_trim((struct span){a.s, a.n - 1});
    if (want.days) {
        struct span rest = a;
        got.days = eat_number(&rest);
        rest = span_trim(rest);
        if (!eat_text(&rest, "天") && !eat_text(&rest, "days"))
            eat_text(&rest, "day");
        if (got.days < 0 || rest.n)
            return GRADE_UNPARSED;
    } else if (want.weekday) {
        got.weekday = eat_weekday(&a);
        if (!got.weekday || a.n)
            return GRADE_UNPARSED;
    } else if (!read_date(a, &got)) {
        return GRADE_UNPARSED;
    }
    return got.weekday == want.weekday && got.month == want.month && got.day == want.day &&
                   got.days == want.days
               ? GRADE_EQUAL
               : GRADE_DIFFERENT;
}

const struct gym_task gym_task_calendar = {
    .name = "calendar",
    .about = "days of the week, dates and months",
    .draw = calendar_draw,
    .valid = calendar_valid,
    .normal = calendar_normal,
    .prompt = calendar_prompt,
    .think = calendar_think,
    .answer = calendar_answer,
    .gold = calendar_gold,
    .verify = calendar_verify,
    .worse = gym_worse_value,
};
