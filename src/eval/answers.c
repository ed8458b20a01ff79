/* See answers.h. */
#include "eval/answers.h"

#include "base/clock.h"
#include "base/num.h"
#include "base/rng.h"
#include "engine/many.h"
#include "format/meta_json.h"
#include "grade/gym_data.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWERS_STREAM = 0x616e7377, ANSWERS_PROMPT = 1 << 20 };

/* Sums over the problems of a row. */
struct answers_sum {
    double pass1, square, passk, consk, unparsed, format, language, tokens, cut, spoken;
};

struct answers_run {
    const struct answers_params *p;
    struct answers *out;
    struct answers_sum sum[ANSWERS_ROWS];
    struct ids *ids; /* (problems) prompts */
    bool *open;      /* (problems) whose prompt ends in an open thought */
    struct many_prompt *prompt;
    size_t n;
};

/* ---- prompts --------------------------------------------------------------------------------- */

static int answers_encode(struct answers_run *r, size_t i, struct err *e)
{
    const json_t *prompt = json_object_get(json_array_get(r->p->records, i), "prompt");
    struct engine *g = r->p->engine;
    int rc;
    if (json_is_string(prompt)) { /* as training takes it: control tokens in it are tokens */
        const char *text = json_string_value(prompt);
        size_t n = json_string_length(prompt);
        rc = tokenizer_encode(engine_tokenizer(g), text, n, TOKENIZER_BOS | TOKENIZER_SPECIAL, NULL,
                              &r->ids[i], e);
        r->open[i] = chat_thinking_open(text, n);
    } else {
        json_t *request = json_pack("{s:O}", "messages", (json_t *)(uintptr_t)prompt);
        rc = !json_is_array(prompt) ? err_set(e, ERR_FORMAT, "no \"prompt\"")
             : !request             ? err_nomem(e, 256, "a prompt")
                        : chat_encode(engine_chat(g), request, &r->ids[i], &r->open[i], e);
        json_decref(request);
    }
    size_t ctx = engine_info(g)->ctx, n = rc ? 0 : r->ids[i].n;
    if (n >= ctx)
        rc = err_set(e, ERR_LIMIT, "its %zu tokens leave no room in the context of %zu", n, ctx);
    r->out->tight += n + r->p->max_tokens > ctx;
    return rc ? err_ctx(e, "problem %zu", i + 1) : 0;
}

static int answers_prompts(struct answers_run *r, struct err *e)
{
    r->ids = calloc(r->n, sizeof *r->ids);
    r->open = calloc(r->n, sizeof *r->open);
    r->prompt = calloc(r->n, sizeof *r->prompt);
    if (!r->ids || !r->open || !r->prompt)
        return err_nomem(e, r->n * sizeof *r->ids, "problems");
    for (size_t i = 0; i < r->n; i++)
        ids_init(&r->ids[i], ANSWERS_PROMPT);
    for (size_t i = 0; i < r->n; i++) {
        int rc = answers_encode(r, i, e);
        if (rc)
            return rc;
        uint32_t w[4];
        rng_block(r->p->sampling.seed, ANSWERS_STREAM, i, w);
        r->prompt[i] = (struct many_prompt){r->ids[i].v, r->ids[i].n, (uint64_t)w[0] << 32 | w[1]};
    }
    return 0;
}

/* ---- judging --------------------------------------------------------------------------------- */

/* 1 − C(k − c, k) / C(k, k): any right one will do. */
static double pass_any(size_t right)
{
    return right > 0;
}

static bool answers_same(const struct many_sample *a, const struct many_sample *b)
{
    struct span x, y;
    if (!answer_extract((struct span){a->text, a->n_text}, &x) ||
        !answer_extract((struct span){b->text, b->n_text}, &y))
        return false;
    return (x.n == y.n && !memcmp(x.s, y.s, x.n)) || answer_equal(x, y) == GRADE_EQUAL;
}

/* The sample whose answer most others gave. */
static size_t answers_vote(const struct many_sample *s, size_t k)
{
    size_t best = 0, most = 0;
    for (size_t i = 0; i < k; i++) {
        size_t votes = 0;
        for (size_t j = 0; j < k; j++)
            votes += i == j || answers_same(&s[i], &s[j]);
        if (votes > most) {
            most = votes;
            best = i;
        }
    }
    return best;
}

static int answers_tell(const struct answers_run *r, const json_t *record,
                        const struct many_sample *s, enum grade verdict, struct err *e)
{
    if (!r->p->answer)
        return 0;
    json_t *text = meta_json_string(s->text, s->n_text); /* also what is no UTF-8 */
    if (!text)
        return err_nomem(e, s->n_text, "an answer");
    json_t *o = json_pack("{s:O?,s:O?,s:o,s:s,s:I,s:b}", "id", json_object_get(record, "id"),
                          "prompt", json_object_get(record, "prompt"), "answer", text, "verdict",
                          grade_name(verdict), "tokens", (json_int_t)s->n, "cut", !s->ended);
    int rc = o ? r->p->answer(r->p->arg, o, e) : err_nomem(e, s->n_text, "an answer");
    json_decref(o);
    return rc;
}

static void answers_thought(const struct answers_run *r, const struct many_sample *s, size_t i,
                            const struct reward_problem *p, struct answers_sum *x, struct err *e)
{
    struct reward_options o;
    struct reward_sample one = {.text = {s->text, s->n_text}, .tokens = s->n};
    float v = 0;
    struct reward_problem q = *p;
    q.thinking_open = r->open[i];
    reward_options_init(&o);
    if (!reward_group(reward_find(span_of("format")), &o, &q, &one, 1, &v, NULL, e) && v > 0)
        x->format += 1;
    if (p->language >= 0 &&
        !reward_group(reward_find(span_of("language")), &o, &q, &one, 1, &v, NULL, e) &&
        !isnan(v)) {
        x->language += (double)v;
        x->spoken++;
    }
}

static int answers_judge(struct answers_run *r, size_t i, const struct many_sample *s,
                         struct answers_sum *x, struct err *e)
{
    const json_t *record = json_array_get(r->p->records, i);
    struct reward_source from;
    struct reward_problem p;
    size_t right = 0, k = r->p->k;
    *x = (struct answers_sum){0};
    int rc = reward_problem_read(&p, &from, record, e);
    if (rc)
        return err_ctx(e, "problem %zu", i + 1);
    size_t vote = answers_vote(s, k);
    for (size_t j = 0; !rc && j < k; j++) {
        enum grade g = reward_verdict(&p, (struct span){s[j].text, s[j].n_text});
        right += g == GRADE_EQUAL;
        x->unparsed += g == GRADE_UNPARSED;
        x->tokens += (double)s[j].n;
        x->cut += !s[j].ended;
        x->consk += j == vote && g == GRADE_EQUAL;
        answers_thought(r, &s[j], i, &p, x, e);
        rc = answers_tell(r, record, &s[j], g, e);
    }
    x->pass1 = (double)right / (double)k;
    x->square = x->pass1 * x->pass1;
    x->passk = pass_any(right);
    return rc;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static size_t answers_row(struct answers *out, const char *name)
{
    size_t i = 0;
    while (i < out->n && strcmp(out->row[i].name, name) != 0)
        i++;
    if (i == out->n && out->n < ANSWERS_ROWS - 1)
        snprintf(out->row[out->n++].name, sizeof out->row[i].name, "%s", name);
    return num_min(i, ANSWERS_ROWS - 2);
}

static void sum_add(struct answers_sum *a, const struct answers_sum *b)
{
    a->pass1 += b->pass1;
    a->square += b->square;
    a->passk += b->passk;
    a->consk += b->consk;
    a->unparsed += b->unparsed;
    a->format += b->format;
    a->language += b->language;
    a->tokens += b->tokens;
    a->cut += b->cut;
    a->spoken += b->spoken;
}

static void answers_mean(struct answers_row *row, const struct answers_sum *s, double k)
{
    double n = (double)row->problems, all = n * k;
    row->pass1 = s->pass1 / n;
    double spread = fmax(s->square / n - row->pass1 * row->pass1, 0);
    row->pass1_error = n > 1 ? sqrt(spread / (n - 1)) : NAN;
    row->passk = s->passk / n;
    row->consk = s->consk / n;
    row->unparsed = s->unparsed / all;
    row->format = s->format / all;
    row->language = s->spoken ? s->language / s->spoken : NAN;
    row->tokens = s->tokens / all;
    row->cut = s->cut / all;
}

static int answers_count(struct answers_run *r, const struct many_sample *s, struct err *e)
{
    struct answers *out = r->out;
    struct answers_sum all = {0}, one;
    for (size_t i = 0; i < r->n; i++) {
        const json_t *record = json_array_get(r->p->records, i);
        const char *task = json_string_value(json_object_get(record, "task"));
        const char *language = json_string_value(json_object_get(record, "language"));
        char name[96];
        int rc = answers_judge(r, i, s + i * r->p->k, &one, e);
        if (rc)
            return rc;
        sum_add(&all, &one);
        out->answers += r->p->k;
        out->tokens += (size_t)one.tokens;
        if (!task && !language)
            continue;
        snprintf(name, sizeof name, "%s%s%s", task ? task : "", task && language ? " " : "",
                 language ? language : "");
        size_t at = answers_row(out, name);
        out->row[at].problems++;
        sum_add(&r->sum[at], &one);
    }
    for (size_t i = 0; i < out->n; i++)
        answers_mean(&out->row[i], &r->sum[i], (double)r->p->k);
    struct answers_row *last = &out->row[out->n++];
    snprintf(last->name, sizeof last->name, "all");
    last->problems = r->n;
    answers_mean(last, &all, (double)r->p->k);
    return 0;
}

int answers_run(struct answers *out, const struct answers_params *p, struct err *e)
{
    struct answers_run *r = calloc(1, sizeof *r);
    struct many *many = NULL;
    struct many_sample *sample;
    double start = clock_seconds();
    if (!r)
        return err_nomem(e, sizeof *r, "an evaluation");
    memset(out, 0, sizeof *out);
    r->p = p;
    r->out = out;
    r->n = json_array_size(p->records);
    struct many_opts mo = {.engine = p->engine,
                           .seqs = p->seqs,
                           .n = p->k,
                           .max_tokens = p->max_tokens,
                           .sampling = p->sampling,
                           .prefix = true};
    int rc = r->n ? answers_prompts(r, e) : err_set(e, ERR_USAGE, "there are no problems");
    rc = rc ? rc : many_new(&many, &mo, e);
    rc = rc ? rc : many_run(many, r->prompt, r->n, p->progress, p->arg, &sample, e);
    out->seconds = clock_seconds() - start;
    rc = rc ? rc : answers_count(r, sample, e);
    many_free(many);
    for (size_t i = 0; r->ids && i < r->n; i++)
        ids_release(&r->ids[i]);
    free(r->ids);
    free(r->open);
    free(r->prompt);
    free(r);
    return rc;
}
