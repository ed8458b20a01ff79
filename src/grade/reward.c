/* See reward.h: the table, and what a group has in common. */
#include "grade/reward.h"

#include "base/num.h"
#include "grade/reward_impl.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reward {
    const char *name, *about;
    double (*one)(const struct reward_case *c);
    bool scratch;
};

static const struct reward rows[] = {
#define REWARD(name, scratch, about) {#name, about, reward_##name, scratch},
#include "grade/reward.def"
#undef REWARD
};

void reward_options_init(struct reward_options *o)
{
    *o = (struct reward_options){
        .cosine_min_value_wrong = 0,
        .cosine_max_value_wrong = -0.5,
        .cosine_min_value_correct = 0.5,
        .cosine_max_value_correct = 1,
        .cosine_max_len = 1000,
        .repetition_n_grams = 3,
        .repetition_max_penalty = -1,
        .max_completion_len = 16384,
        .soft_punish_cache = 4096,
    };
}

size_t reward_count(void)
{
    return NUM_COUNT(rows);
}

const struct reward *reward_at(size_t i)
{
    return &rows[i];
}

const struct reward *reward_find(struct span name)
{
    for (size_t i = 0; i < NUM_COUNT(rows); i++)
        if (span_is(name, rows[i].name))
            return &rows[i];
    return NULL;
}

const char *reward_name(const struct reward *r)
{
    return r->name;
}

const char *reward_about(const struct reward *r)
{
    return r->about;
}

void reward_say(const struct reward_case *c, const char *fmt, ...)
{
    va_list ap;
    if (!c->why)
        return;
    va_start(ap, fmt);
    vsnprintf(c->why->text, sizeof c->why->text, fmt, ap);
    va_end(ap);
}

/* ---- what all rules see ---------------------------------------------------------------------- */

static bool can_judge(const struct reward_problem *p)
{
    return p->item || p->gold.s;
}

enum grade reward_verdict(const struct reward_problem *p, struct span text)
{
    return p->item ? gym_verify(p->item, text) : answer_grade(p->gold, text, NULL);
}

static size_t characters(struct span a)
{
    size_t n = 0;
    for (size_t i = 0; i < a.n; i++)
        n += (a.s[i] & 0xc0) != 0x80;
    return n;
}

static size_t length_of(const struct reward_sample *s)
{
    return s->tokens ? s->tokens : characters(s->text);
}

int reward_group(const struct reward *r, const struct reward_options *o,
                 const struct reward_problem *p, const struct reward_sample *sample, size_t n,
                 float *out, struct reward_why *why, struct err *e)
{
    static const char open[] = "<think>\n";
    struct reward_case c = {.o = o, .problem = p, .shortest = SIZE_MAX};
    struct buf text;
    size_t most = 0;
    int rc = 0;
    buf_init(&text, REWARD_TEXT_MAX + sizeof open);
    for (size_t i = 0; i < n; i++) {
        size_t len = length_of(&sample[i]);
        c.shortest = num_min(c.shortest, len);
        c.longest = num_max(c.longest, len);
        most = num_max(most, num_max(sample[i].text.n, sample[i].ids ? sample[i].tokens : 0));
        if (sample[i].text.n > REWARD_TEXT_MAX)
            rc = err_set(e, ERR_LIMIT, "an output of %zu bytes is too long to be judged",
                         sample[i].text.n);
    }
    if (!rc && r->scratch && !(c.scratch = malloc((most + 1) * sizeof *c.scratch)))
        rc = err_nomem(e, (most + 1) * sizeof *c.scratch, "a reward");
    for (size_t i = 0; !rc && i < n; i++) {
        c.sample = &sample[i];
        c.why = why ? &why[i] : NULL;
        if (why)
            why[i].text[0] = 0;
        c.length = length_of(&sample[i]);
        c.text = sample[i].text;
        if (p->thinking_open) {
            buf_clear(&text);
            rc = buf_puts(&text, open, e);
            rc = rc ? rc : buf_append(&text, c.text.s, c.text.n, e);
            c.text = (struct span){text.data, text.len};
        }
        if (rc)
            break;
        c.has_verdict = can_judge(p);
        c.verdict = c.has_verdict ? reward_verdict(p, c.text) : GRADE_UNPARSED;
        /* A gold answer that cannot be read says nothing about an answer in other words. */
        if (c.verdict == GRADE_UNPARSED && !p->item && c.has_verdict) {
            struct span gold;
            c.has_verdict = answer_extract(p->gold, &gold) && answer_readable(gold);
        }
        out[i] = (float)r->one(&c);
    }
    buf_release(&text);
    free(c.scratch);
    return rc;
}

struct span reward_thought(struct span text)
{
    size_t from = span_find(text, "<think>", 0);
    if (from == text.n)
        return text;
    from += strlen("<think>");
    size_t to = span_find(text, "</think>", from);
    return (struct span){text.s + from, to - from};
}

/* ---- right or wrong -------------------------------------------------------------------------- */

double reward_accuracy(const struct reward_case *c)
{
    struct span a;
    if (!c->has_verdict) {
        reward_say(c, c->problem->gold.s ? "the right answer cannot be read"
                                         : "no right answer is known");
        return NAN;
    }
    if (!answer_part(c->text, &a))
        reward_say(c, "the thought does not end");
    else if (!answer_boxed(c->text, &a) && c->verdict == GRADE_UNPARSED)
        reward_say(c, "no \\boxed{} in the answer");
    else if (a.s)
        reward_say(c, "\\boxed{%.*s}: %s", (int)num_min(a.n, 60), a.s, grade_name(c->verdict));
    else
        reward_say(c, "%s", grade_name(c->verdict));
    return c->verdict == GRADE_EQUAL;
}

/* ---- by length ------------------------------------------------------------------------------- */

double reward_length(const struct reward_case *c)
{
    if (!c->has_verdict || c->longest == c->shortest)
        return c->has_verdict ? 0 : NAN;
    double x = 0.5 - (double)(c->length - c->shortest) / (double)(c->longest - c->shortest);
    reward_say(c, "%zu, between %zu and %zu, %s", c->length, c->shortest, c->longest,
               c->verdict == GRADE_EQUAL ? "right" : "wrong");
    return c->verdict == GRADE_EQUAL || x < 0 ? x : 0;
}

double reward_cosine(const struct reward_case *c)
{
    if (!c->has_verdict)
        return NAN;
    bool right = c->verdict == GRADE_EQUAL;
    /* for wrong answers least and most change places, so that short ones lose most */
    double least = right ? c->o->cosine_min_value_correct : c->o->cosine_max_value_wrong;
    double most = right ? c->o->cosine_max_value_correct : c->o->cosine_min_value_wrong;
    double share = (double)c->length / (double)c->o->cosine_max_len;
    reward_say(c, "%zu of %zu, %s", c->length, c->o->cosine_max_len, right ? "right" : "wrong");
    return least + 0.5 * (most - least) * (1 + cos(share * 3.14159265358979323846));
}

double reward_soft_overlong(const struct reward_case *c)
{
    size_t most = c->o->max_completion_len, cache = c->o->soft_punish_cache;
    double from = (double)most - (double)cache;
    double x = (double)c->length;
    reward_say(c, "%zu of %zu", c->length, most);
    return x <= from ? 0 : c->length <= most ? (from - x) / (double)cache : -1;
}
