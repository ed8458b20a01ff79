/* See gym.h: the table of tasks, and what all of them do alike. */
#include "grade/gym.h"

#include "base/hash.h"
#include "base/num.h"
#include "grade/gym_impl.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define GYM(name) extern const struct gym_task gym_task_##name;
#include "grade/gym.def"
#undef GYM

static const struct gym_task *const gym_rows[] = {
#define GYM(name) &gym_task_##name,
#include "grade/gym.def"
#undef GYM
};

static const char *const gym_languages[GYM_LANGUAGES] = {"en", "zh"};

const char *gym_language_name(enum gym_language l)
{
    return gym_languages[l];
}

bool gym_language_parse(enum gym_language *out, struct span name)
{
    for (int i = 0; i < GYM_LANGUAGES; i++)
        if (span_is(name, gym_languages[i])) {
            *out = (enum gym_language)i;
            return true;
        }
    return false;
}

size_t gym_count(void)
{
    return NUM_COUNT(gym_rows);
}

const struct gym_task *gym_task(size_t i)
{
    return gym_rows[i];
}

const struct gym_task *gym_find(struct span name)
{
    for (size_t i = 0; i < NUM_COUNT(gym_rows); i++)
        if (span_is(name, gym_rows[i]->name))
            return gym_rows[i];
    return NULL;
}

const char *gym_name(const struct gym_task *t)
{
    return t->name;
}

const char *gym_about(const struct gym_task *t)
{
    return t->about;
}

/* ---- making ---------------------------------------------------------------------------------- */

int32_t gym_range(struct rng *r, int32_t lo, int32_t hi)
{
    return lo + (int32_t)(rng_u32(r) % (uint32_t)(hi - lo + 1));
}

uint32_t gym_pick(const struct gym_item *it, uint32_t salt, uint32_t n)
{
    return (uint32_t)(hash_u64(((uint64_t)it->wording << 32 | salt) + 0x9e3779b97f4a7c15u) % n);
}

int64_t gym_apply(char op, int64_t x, int64_t y)
{
    return op == '+' ? x + y : op == '-' ? x - y : op == '*' ? x * y : x / y;
}

/* Random numbers of a task and an index: the name keeps them when rows of the table move. */
static void gym_stream(struct rng *r, const struct gym_task *t, uint64_t seed, uint64_t index,
                       uint64_t purpose)
{
    uint64_t h = hash_fnv1a(t->name, strlen(t->name), HASH_FNV1A);
    rng_init(r, seed, hash_u64(h ^ purpose) + index);
}

void gym_make(struct gym_item *out, const struct gym_task *t, enum gym_language l, uint64_t seed,
              uint64_t index, const struct gym_knobs *k)
{
    static const struct gym_knobs none;
    static const int mix[] = {1, 2, 2, 3, 3};
    struct rng problem, words;
    gym_stream(&problem, t, seed, index, 0);
    gym_stream(&words, t, seed, index, 1 + (uint64_t)l);
    *out = (struct gym_item){.task = t, .language = l, .wording = rng_u32(&words)};
    if (!k)
        k = &none;
    int level = mix[rng_u32(&problem) % NUM_COUNT(mix)];
    t->draw(out, &problem, k->level ? k->level : level, k);
}

void gym_next(struct gym_item *out, const struct gym_task *t, enum gym_language l, uint64_t seed,
              uint64_t *index, const struct gym_knobs *k, enum gym_split split)
{
    do
        gym_make(out, t, l, seed, (*index)++, k);
    while (gym_split(out) != split);
}

uint64_t gym_hash(const struct gym_item *it)
{
    struct gym_item x = *it;
    if (x.task->normal)
        x.task->normal(&x);
    uint64_t h = hash_fnv1a(x.task->name, strlen(x.task->name), HASH_FNV1A);
    h = hash_u64(h ^ x.kind);
    for (size_t i = 0; i < x.n; i++)
        h = hash_u64(h * 31 + (uint32_t)x.v[i] + i);
    return h;
}

enum gym_split gym_split(const struct gym_item *it)
{
    return gym_hash(it) % 10 == 0 ? GYM_EVAL : GYM_TRAIN;
}

/* ---- ids ------------------------------------------------------------------------------------- */

int gym_id(const struct gym_item *it, struct buf *out, struct err *e)
{
    int rc = buf_printf(out, e, "%s-%s-%" PRIu32 "-", it->task->name,
                        gym_language_name(it->language), it->kind);
    for (size_t i = 0; !rc && i < it->n; i++)
        rc = buf_printf(out, e, i ? ".%" PRId32 : "%" PRId32, it->v[i]);
    return rc ? rc : buf_printf(out, e, "-%" PRIx32, it->wording);
}

/* The field before the next '-'. */
static struct span id_field(struct span *id)
{
    size_t n = span_find(*id, "-", 0);
    struct span f = {id->s, n};
    size_t skip = num_min(n + 1, id->n);
    id->s += skip;
    id->n -= skip;
    return f;
}

/* All of f as a number without sign or leading zeros, at most `max`. */
static bool id_number(struct span f, unsigned base, uint64_t max, uint64_t *out)
{
    *out = 0;
    if (!f.n || f.n > 10 || (f.n > 1 && f.s[0] == '0'))
        return false;
    for (size_t i = 0; i < f.n; i++) {
        char c = f.s[i];
        unsigned d = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                     : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                                            : 99;
        if (d >= base)
            return false;
        *out = *out * base + d;
    }
    return *out <= max;
}

static bool id_parse(struct gym_item *it, struct span id)
{
    uint64_t x;
    *it = (struct gym_item){.task = gym_find(id_field(&id))};
    if (!it->task || !gym_language_parse(&it->language, id_field(&id)) ||
        !id_number(id_field(&id), 10, UINT32_MAX, &x))
        return false;
    it->kind = (uint32_t)x;
    struct span values = id_field(&id);
    while (values.n) {
        size_t n = span_find(values, ".", 0);
        if (it->n == GYM_VALUES || !id_number((struct span){values.s, n}, 10, INT32_MAX, &x) ||
            n + 1 == values.n)
            return false;
        it->v[it->n++] = (int32_t)x;
        n = num_min(n + 1, values.n);
        values.s += n;
        values.n -= n;
    }
    if (!id_number(id, 16, UINT32_MAX, &x))
        return false;
    it->wording = (uint32_t)x;
    return true;
}

int gym_read(struct gym_item *out, struct span id, struct err *e)
{
    if (id.n < GYM_ID_MAX && id_parse(out, id) && out->task->valid(out))
        return 0;
    return err_set(e, ERR_FORMAT, "\"%.*s\" is no id of an r1-gym problem",
                   (int)num_min(id.n, GYM_ID_MAX), id.s);
}

/* ---- texts ----------------------------------------------------------------------------------- */

void gym_put(struct gym_pen *p, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    if (p->rc)
        return;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    p->rc = n < 0 || (size_t)n >= sizeof text ? err_set(p->e, ERR_LIMIT, "a text is too long")
                                              : buf_append(p->out, text, (size_t)n, p->e);
}

void gym_gap(struct gym_pen *p)
{
    if (p->language != GYM_ZH)
        gym_put(p, " ");
}

int gym_prompt(const struct gym_item *it, struct buf *out, struct err *e)
{
    struct gym_pen p = {out, e, it->language, 0};
    it->task->prompt(&p, it);
    return p.rc;
}

int gym_think(const struct gym_item *it, enum gym_language l, int style, struct buf *out,
              struct err *e)
{
    struct gym_pen p = {out, e, l, 0};
    it->task->think(&p, it, style);
    return p.rc;
}

int gym_answer(const struct gym_item *it, struct buf *out, struct err *e)
{
    struct gym_pen p = {out, e, it->language, 0};
    it->task->answer(&p, it);
    return p.rc;
}

int gym_gold(const struct gym_item *it, struct buf *out, struct err *e)
{
    struct gym_pen p = {out, e, it->language, 0};
    it->task->gold(&p, it);
    return p.rc;
}

static const char think_open[] = "<think>\n", think_close[] = "\n</think>\n\n";

int gym_completion(const struct gym_item *it, enum gym_language l, int style, struct buf *out,
                   struct err *e)
{
    int rc = buf_puts(out, think_open, e);
    rc = rc ? rc : gym_think(it, l, style, out, e);
    rc = rc ? rc : buf_puts(out, think_close, e);
    return rc ? rc : gym_answer(it, out, e);
}

/* ---- verifying ------------------------------------------------------------------------------- */

enum grade gym_verify(const struct gym_item *it, struct span output)
{
    return it->task->verify(it, output);
}

enum grade gym_verify_value(const struct gym_item *it, struct span output)
{
    struct buf gold;
    struct err e;
    buf_init(&gold, GYM_ID_MAX);
    enum grade g = GRADE_UNPARSED;
    if (!gym_gold(it, &gold, &e))
        g = answer_grade((struct span){gold.data, gold.len}, output, NULL);
    buf_release(&gold);
    return g;
}

bool gym_has_unsafe(const struct gym_task *t)
{
    return t->unsafe != NULL;
}

bool gym_unsafe(const struct gym_item *it)
{
    return it->task->unsafe && it->task->unsafe(it);
}

/* ---- worse answers --------------------------------------------------------------------------- */

void gym_worse_value(struct gym_pen *p, const struct gym_item *it, uint32_t fault)
{
    /* The answer to the problem with one of its numbers changed: the form is right. */
    struct gym_item other = *it;
    for (int32_t step = 1; step < 200; step++) {
        size_t i = (fault + (uint32_t)step) % it->n;
        other = *it;
        other.v[i] = it->v[i] + (step + 1) / 2 * (step & 1 ? 1 : -1);
        if (!it->task->valid(&other))
            continue;
        struct buf gold;
        struct err e;
        buf_init(&gold, GYM_ID_MAX + 16);
        bool wrong = !buf_puts(&gold, "\\boxed{", &e) && !gym_gold(&other, &gold, &e) &&
                     !buf_putc(&gold, '}', &e) &&
                     it->task->verify(it, (struct span){gold.data, gold.len}) == GRADE_DIFFERENT;
        buf_release(&gold);
        if (wrong)
            break;
    }
    it->task->answer(p, &other);
}

enum gym_fault { FAULT_WRONG, FAULT_OTHER_LANGUAGE, FAULT_CUT, FAULT_REPEAT, FAULT_OFF };

int gym_worse(const struct gym_item *it, uint32_t which, struct buf *out, struct err *e)
{
    static const char *const off[GYM_LANGUAGES] = {"I don't know. Ask somebody else.",
                                                   "我不知道，你问别人吧。"};
    struct gym_pen p = {out, e, it->language, 0};
    struct buf good;
    enum gym_fault fault = gym_unsafe(it) ? FAULT_WRONG : (enum gym_fault)(which % GYM_FAULTS);
    buf_init(&good, GYM_TEXT_MAX);
    if (fault == FAULT_OTHER_LANGUAGE) {
        struct gym_item other = *it;
        other.language = p.language = it->language == GYM_EN ? GYM_ZH : GYM_EN;
        it->task->answer(&p, &other);
    } else if (fault == FAULT_CUT || fault == FAULT_REPEAT) {
        p.rc = gym_answer(it, &good, e);
        struct span all = {good.data, good.len};
        /* before a box has its content, and not inside a character */
        size_t half = num_min(good.len / 2, span_find(all, "boxed{", 0));
        while (half && (good.data[half] & 0xc0) == 0x80)
            half--;
        for (int i = 0; !p.rc && i < (fault == FAULT_CUT ? 1 : 3); i++)
            p.rc = buf_append(out, good.data, fault == FAULT_CUT ? half : good.len, e);
    } else if (fault == FAULT_OFF) {
        gym_put(&p, "%s", off[it->language]);
    } else {
        it->task->worse(&p, it, which / GYM_FAULTS);
    }
    buf_release(&good);
    return p.rc;
}

int gym_worse_completion(const struct gym_item *it, int style, uint32_t which, struct buf *out,
                         struct err *e)
{
    struct gym_pen p = {out, e, it->language, 0};
    gym_put(&p, "%s", think_open);
    if (gym_unsafe(it))
        it->task->comply(&p, it);
    else
        it->task->think(&p, it, style);
    gym_put(&p, "%s", think_close);
    return p.rc ? p.rc : gym_worse(it, which, out, e);
}
