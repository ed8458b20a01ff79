/* See gym_data.h. */
#include "grade/gym_data.h"

#include "base/hash.h"
#include "base/num.h"
#include "grade/gym_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { DATA_TRIES = 1024 };

bool gym_form_parse(enum gym_form *out, struct span name)
{
    static const char names[] = GYM_FORMS;
    int form = 0;
    for (const char *s = names; *s; form++) {
        size_t n = strcspn(s, "|");
        if (name.n == n && !memcmp(name.s, s, n)) {
            *out = (enum gym_form)form;
            return true;
        }
        s += n + (s[n] != 0);
    }
    return false;
}

/* Rows of GYM_SAFETY that comply with something unsafe. */
static bool complies(const struct gym_data *d, uint64_t row)
{
    return d->form == GYM_SAFETY && (row & 1) && gym_has_unsafe(d->task);
}

/* A row tries its own stretch of indices until an item is on the right side. */
int gym_data_item(const struct gym_data *d, uint64_t row, struct gym_item *out, struct err *e)
{
    uint64_t seed = d->seed;
    bool unsafe = complies(d, row);
    if (d->split == GYM_TRAIN)
        seed = hash_u64(seed * GYM_LANGUAGES + d->language);
    for (uint64_t i = 0; i < DATA_TRIES; i++) {
        gym_make(out, d->task, d->language, seed, row * DATA_TRIES + i, &d->knobs);
        if (gym_split(out) == d->split && (!unsafe || gym_unsafe(out)))
            return 0;
    }
    return err_set(e, ERR_LIMIT, "%s: with these knobs no problem is %s", gym_name(d->task),
                   d->split == GYM_EVAL ? "held out" : "for training");
}

/* ---- texts ----------------------------------------------------------------------------------- */

/* Eight small equations that are held out nowhere. */
static void facts_arithmetic(struct gym_pen *p, struct rng *r)
{
    static const char ops[] = "++-*";
    for (int done = 0; done < 8;) {
        struct gym_item it = {.task = gym_find(span_of("arithmetic")), .n = 2};
        char op = ops[gym_range(r, 0, 3)];
        it.kind = op == '+' ? 0 : op == '-' ? 1 : 2;
        it.v[0] = gym_range(r, 0, op == '*' ? 12 : 30);
        it.v[1] = gym_range(r, 0, op == '*' ? 9 : op == '-' ? it.v[0] : 20);
        if (gym_split(&it) != GYM_TRAIN)
            continue;
        if (done++)
            gym_put(p, "\n");
        gym_put(p, "%" PRId32 "%c%" PRId32 "=%" PRId64, it.v[0], op, it.v[1],
                gym_apply(op, it.v[0], it.v[1]));
    }
}

static const char *const weekdays[GYM_LANGUAGES][7] = {
    {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"},
    {"星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日"},
};

static void facts_calendar(struct gym_pen *p, struct rng *r)
{
    static const char *const months[12] = {"January",   "February", "March",    "April",
                                           "May",       "June",     "July",     "August",
                                           "September", "October",  "November", "December"};
    static const int days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int from = gym_range(r, 0, 83), back = gym_range(r, 0, 2) == 0;
    if (gym_range(r, 0, 1)) {
        for (int i = 0; i < 9; i++) {
            if (i)
                GYM_PUT(p, ", ", "、");
            gym_put(p, "%s", weekdays[p->language][(from + (back ? 84 - i : i)) % 7]);
        }
        GYM_PUT(p, ".", "。");
        return;
    }
    for (int i = 0; i < 3; i++) {
        int m = (from + i) % 12;
        gym_put(p, i ? "\n" : "");
        if (p->language == GYM_ZH)
            gym_put(p, "%d月有%d天，后面是%d月。", m + 1, days[m], (m + 1) % 12 + 1);
        else
            gym_put(p, "%s is month %d. It has %d days. Then comes %s.", months[m], m + 1, days[m],
                    months[(m + 1) % 12]);
    }
}

/* The same in both languages, this one first. */
static void twins(struct gym_pen *p, const struct gym_item *it)
{
    for (int i = 0; i < GYM_LANGUAGES; i++) {
        struct gym_item x = *it;
        x.language = i ? (enum gym_language) !it->language : it->language;
        struct gym_pen q = {p->out, p->e, x.language, p->rc};
        gym_put(&q, i ? "\n" : "");
        x.task->prompt(&q, &x);
        gym_put(&q, "\n");
        x.task->answer(&q, &x);
        p->rc = q.rc;
    }
}

static int data_text(const struct gym_data *d, const struct gym_item *it, struct rng *r, int style,
                     struct buf *out, struct err *e)
{
    struct gym_pen p = {out, e, it->language, 0};
    int32_t what = gym_range(r, 0, 9);
    if (what == 0 && !strcmp(gym_name(d->task), "arithmetic")) {
        facts_arithmetic(&p, r);
    } else if (what == 0 && !strcmp(gym_name(d->task), "calendar")) {
        facts_calendar(&p, r);
    } else if (what == 0) {
        twins(&p, it);
    } else {
        it->task->prompt(&p, it);
        gym_put(&p, what == 1 ? "\n<think>\n" : "\n");
        size_t before = out->len;
        it->task->think(&p, it, style);
        gym_put(&p, what == 1 ? "\n</think>\n\n" : out->len > before ? "\n" : "");
        it->task->answer(&p, it);
    }
    return p.rc;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static json_t *message(const char *role, const struct buf *text)
{
    return json_pack("[{s:s, s:s%}]", "role", role, "content", text->data, text->len);
}

/* A member with a list of one message. */
static int put_message(json_t *row, const char *key, const char *role, const struct buf *text,
                       struct err *e)
{
    return json_object_set_new(row, key, message(role, text)) ? err_nomem(e, text->len, "a row")
                                                              : 0;
}

/* What was asked, as every form but pretrain has it. */
static int put_problem(json_t *row, const struct gym_data *d, const struct gym_item *it,
                       struct buf *text, struct err *e)
{
    const char *hole = d->template && d->form == GYM_PROMPT ? strstr(d->template, "{}") : NULL;
    int rc = hole ? buf_append(text, d->template, (size_t)(hole - d->template), e) : 0;
    rc = rc ? rc : gym_prompt(it, text, e);
    if (!hole)
        return rc ? rc : put_message(row, "prompt", "user", text, e);
    rc = rc ? rc : buf_puts(text, hole + 2, e);
    if (!rc && json_object_set_new(row, "prompt", json_stringn(text->data, text->len)))
        rc = err_nomem(e, text->len, "a row");
    return rc;
}

static int put_columns(json_t *row, const struct gym_item *it, struct buf *text, struct err *e)
{
    int rc, bad = 0;
    bad |= json_object_set_new(row, "task", json_string(gym_name(it->task)));
    bad |= json_object_set_new(row, "language", json_string(gym_language_name(it->language)));
    buf_clear(text);
    if ((rc = gym_gold(it, text, e)))
        return rc;
    bad |= json_object_set_new(row, "gold", json_stringn(text->data, text->len));
    buf_clear(text);
    if ((rc = gym_id(it, text, e)))
        return rc;
    bad |= json_object_set_new(row, "id", json_stringn(text->data, text->len));
    return bad ? err_nomem(e, text->len, "a row") : 0;
}

static int put_pair(json_t *row, const struct gym_item *it, uint64_t number, struct buf *text,
                    struct err *e)
{
    const char *kind = gym_unsafe(it) ? "safety" : "helpful";
    int rc = gym_answer(it, text, e);
    rc = rc ? rc : put_message(row, "chosen", "assistant", text, e);
    buf_clear(text);
    rc = rc ? rc : gym_worse(it, (uint32_t)number, text, e);
    rc = rc ? rc : put_message(row, "rejected", "assistant", text, e);
    if (!rc && json_object_set_new(row, "kind", json_string(kind)))
        rc = err_nomem(e, 0, "a row");
    return rc;
}

static int put_safety(json_t *row, const struct gym_data *d, const struct gym_item *it, int style,
                      uint64_t number, struct buf *text, struct err *e)
{
    bool unsafe = complies(d, number), bad = unsafe || (!gym_unsafe(it) && number % 8 == 0);
    int rc = bad ? gym_worse_completion(it, style, (uint32_t)(number / 8), text, e)
                 : gym_completion(it, it->language, style, text, e);
    rc = rc ? rc : put_message(row, "completion", "assistant", text, e);
    if (!rc && json_object_set_new(row, "label", json_boolean(!unsafe)))
        rc = err_nomem(e, 0, "a row");
    return rc;
}

int gym_data_row(const struct gym_data *d, uint64_t row, json_t **out, struct err *e)
{
    struct gym_item it;
    struct rng r;
    struct buf text;
    *out = NULL;
    int rc = gym_data_item(d, row, &it, e);
    if (rc)
        return rc;
    rng_init(&r, d->seed, hash_u64(gym_hash(&it) + row) ^ d->language);
    int style = gym_range(&r, 0, GYM_STYLES - 1);
    bool other = rng_uniform(&r) < d->mixed;
    style = d->style >= 0 ? d->style : style;
    json_t *j = json_object();
    if (!j)
        return err_nomem(e, 0, "a row");
    buf_init(&text, GYM_TEXT_MAX);
    if (d->form == GYM_PRETRAIN) {
        rc = data_text(d, &it, &r, style, &text, e);
        if (!rc && json_object_set_new(j, "text", json_stringn(text.data, text.len)))
            rc = err_nomem(e, text.len, "a row");
    } else {
        rc = put_problem(j, d, &it, &text, e);
        buf_clear(&text);
        if (!rc && d->form == GYM_SFT) {
            enum gym_language l = other ? (enum gym_language) !it.language : it.language;
            rc = gym_completion(&it, l, style, &text, e);
            rc = rc ? rc : put_message(j, "completion", "assistant", &text, e);
        } else if (!rc && d->form == GYM_PREFERENCE) {
            rc = put_pair(j, &it, row, &text, e);
        } else if (!rc && d->form == GYM_SAFETY) {
            rc = put_safety(j, d, &it, style, row, &text, e);
        }
        rc = rc ? rc : put_columns(j, &it, &text, e);
    }
    buf_release(&text);
    if (rc)
        json_decref(j);
    else
        *out = j;
    return rc;
}

/* ---- reading back ---------------------------------------------------------------------------- */

static struct span text_of(const json_t *v)
{
    return (struct span){json_string_value(v), json_string_length(v)};
}

/* "… #### 42" is 42. */
static struct span behind_marks(struct span a)
{
    size_t at = 0, last = a.n;
    while ((at = span_find(a, "####", at)) < a.n)
        last = at += 4;
    return last < a.n ? span_trim((struct span){a.s + last, a.n - last}) : a;
}

int reward_problem_read(struct reward_problem *p, struct reward_source *from, const json_t *record,
                        struct err *e)
{
    static const char *const columns[] = {"gold", "solution", "answer", "target"};
    enum gym_language l;
    const json_t *id = json_object_get(record, "id"), *task = json_object_get(record, "task");
    const json_t *language = json_object_get(record, "language");
    *p = (struct reward_problem){.language = -1};
    if (json_is_string(language) && gym_language_parse(&l, text_of(language)))
        p->language = (int)l;
    for (size_t i = 0; !p->gold.s && i < NUM_COUNT(columns); i++) {
        const json_t *v = json_object_get(record, columns[i]);
        if (json_is_string(v)) {
            p->gold = behind_marks(text_of(v));
        } else if (json_is_integer(v)) {
            snprintf(from->number, sizeof from->number, "%" JSON_INTEGER_FORMAT,
                     json_integer_value(v));
            p->gold = span_of(from->number);
        } else if (json_is_real(v)) {
            snprintf(from->number, sizeof from->number, "%.15g", json_real_value(v));
            p->gold = span_of(from->number);
        }
    }
    if (!json_is_string(id))
        return 0;
    int rc = gym_read(&from->item, text_of(id), e);
    if (rc) /* other data have ids too */
        return json_is_string(task) && gym_find(text_of(task)) ? rc : 0;
    p->item = &from->item;
    p->language = (int)from->item.language;
    return 0;
}
