/*
 * The scheduler over a real (tiny) model: every answer is, token for token, that of `generate`
 * alone, whatever else runs, ends, is preempted or cancelled beside it; who goes first; what is
 * given back.
 */
#include "base/clock.h"
#include "base/num.h"
#include "base/rng.h"
#include "engine/generate.h"
#include "engine/sched.h"
#include "support/fail_alloc.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CTX = 512, TEXT = 16384, SAMPLES = 4 };

/* ---- engines and schedulers ------------------------------------------------------------------ */

static struct engine *open_path(const char *path, size_t pages, size_t want, bool mtp)
{
    struct engine_opts o;
    struct engine *g = NULL;
    struct err e = {0};
    engine_opts_init(&o);
    o.threads = 2;
    o.ctx = CTX;
    o.batch = 96;
    o.want = want;
    o.cache = pages * 64;
    o.mtp = mtp;
    if (engine_open(&g, path, &o, &e))
        fail_msg("%s", e.text);
    return g;
}

static struct engine *open_wide(size_t pages, size_t want)
{
    return open_path(GOLDEN_DIR "/models/llama_rope_llama3", pages, want, false);
}

static struct engine *open_llama(size_t pages)
{
    return open_wide(pages, 40);
}

static struct sched *new_sched(struct engine *g, const struct sched_opts *o)
{
    struct sched *s = NULL;
    struct err e = {0};
    struct sched_opts own;
    sched_opts_init(&own);
    if (sched_new(&s, g, o ? o : &own, &e))
        fail_msg("%s", e.text);
    return s;
}

/* ---- clients --------------------------------------------------------------------------------- */

struct client {
    struct request *handle;
    struct request_params p;
    int32_t prompt[CTX];
    char text[SAMPLES][TEXT];
    int32_t ids[SAMPLES][CTX + 1];
    float logprob[SAMPLES][CTX + 1];
    size_t len[SAMPLES], n_ids[SAMPLES];
    enum request_end end[SAMPLES];
    struct request_stats stats;
    struct token_info prompt_info[CTX];
    struct token_prob prompt_top[CTX][20];
    size_t n_prompt_info;
    float *vector;
    size_t n_vector;
    int error;
    size_t started, progress, prompted, ended, done, samples; /* events */
    size_t cancel_at;                                         /* tokens; 0: never */
    atomic_int busy;                                          /* an event is being delivered */
    bool cut;
};

static void client_piece(struct client *c, const struct request_event *ev)
{
    size_t k = ev->sample;
    assert_true(k < SAMPLES && c->len[k] + ev->n < TEXT);
    memcpy(c->text[k] + c->len[k], ev->text, ev->n);
    c->len[k] += ev->n;
}

static void client_event(void *arg, const struct request_event *ev)
{
    struct client *c = arg;
    assert_int_equal(atomic_fetch_add(&c->busy, 1), 0); /* one at a time */
    assert_non_null(c->handle);
    assert_int_equal(c->done, 0); /* nothing after the last */
    switch (ev->kind) {
    case REQUEST_STARTED:
        c->started++;
        break;
    case REQUEST_CHOSEN: /* nobody asked for it */
        fail();
        break;
    case REQUEST_PROGRESS:
        assert_true(c->started && !c->prompted && ev->done < ev->total);
        c->progress++;
        break;
    case REQUEST_PROMPT:
        c->prompted++;
        c->n_prompt_info = ev->info ? ev->n_info : 0;
        for (size_t i = 0; i < c->n_prompt_info; i++) {
            c->prompt_info[i] = ev->info[i];
            memcpy(c->prompt_top[i], ev->info[i].top, ev->info[i].n_top * sizeof *ev->info[i].top);
            assert_int_equal(ev->ids[i], ev->info[i].self.id);
        }
        break;
    case REQUEST_PIECE:
        assert_int_equal(c->prompted, 1);
        client_piece(c, ev);
        break;
    case REQUEST_SAMPLE:
        c->samples++;
        c->end[ev->sample] = ev->end;
        c->cut |= ev->thought_cut;
        break;
    case REQUEST_EMBEDDED:
        c->vector = malloc(ev->n_vector * sizeof *c->vector);
        memcpy(c->vector, ev->vector, ev->n_vector * sizeof *c->vector);
        c->n_vector = ev->n_vector;
        break;
    case REQUEST_DONE:
        c->stats = *ev->stats;
        break;
    case REQUEST_FAILED:
        c->error = ev->error->code;
        break;
    }
    for (size_t i = 0; i < ev->n_info && (ev->kind == REQUEST_PIECE || ev->kind == REQUEST_SAMPLE);
         i++) {
        size_t at = c->n_ids[ev->sample]++;
        c->ids[ev->sample][at] = ev->ids[i];
        if (ev->info)
            c->logprob[ev->sample][at] = ev->info[i].self.logprob;
    }
    if (c->cancel_at && c->n_ids[0] >= c->cancel_at)
        request_cancel(c->handle);
    c->done += ev->kind == REQUEST_DONE || ev->kind == REQUEST_FAILED;
    atomic_fetch_sub(&c->busy, 1);
    if (c->done)
        request_free(c->handle);
}

static struct client *client_new(size_t n_prompt, uint64_t which)
{
    struct client *c = calloc(1, sizeof *c);
    request_params_init(&c->p);
    for (size_t i = 0; i < n_prompt; i++)
        c->prompt[i] = (int32_t)(3 + (i * 7919 + which * 131) % 240);
    c->p.prompt = c->prompt;
    c->p.n_prompt = n_prompt;
    c->p.sampling.temperature = 0;
    c->p.sampling.seed = which;
    c->p.answer.max_tokens = 20;
    c->p.answer.raw = c->p.answer.special = true;
    c->p.event = client_event;
    c->p.arg = c;
    return c;
}

static void client_free(struct client *c)
{
    free(c->vector);
    free(c);
}

static void submit(struct sched *s, struct client *c)
{
    struct err e = {0};
    if (sched_submit(s, &c->p, &c->handle, &e))
        fail_msg("%s", e.text);
}

static bool step(struct sched *s)
{
    struct err e = {0};
    bool idle;
    if (sched_step(s, &idle, &e))
        fail_msg("%s", e.text);
    return !idle;
}

static void run(struct sched *s)
{
    size_t steps = 0;
    while (step(s))
        assert_true(++steps < 100000);
}

/* Nothing is held by anybody. */
static void assert_all_free(struct sched *s)
{
    struct sched_stats st;
    step(s);
    sched_stats(s, &st);
    assert_int_equal(st.running, 0);
    assert_int_equal(st.waiting, 0);
    assert_int_equal(st.pages_used, 0);
}

/* ---- the truth ------------------------------------------------------------------------------- */

struct truth {
    char text[TEXT];
    size_t len;
    const int32_t *ids; /* of the session */
    size_t n_ids;
    enum generate_stop stop;
    struct session *s;
};

static int truth_emit(void *arg, enum parse_event ev, const char *s, size_t n)
{
    struct truth *t = arg;
    memcpy(t->text + t->len, s, n);
    t->len += n;
    return 0;
}

/* An engine of its own: pages that a prefix cache keeps are not unused. */
static struct engine *alone;

static int open_alone(void **state)
{
    alone = open_llama(CTX / 64);
    return 0;
}

static int close_alone(void **state)
{
    engine_free(alone);
    return 0;
}

/* What the request would say alone. */
static void truth_find(const struct client *c, size_t sample, struct truth *t)
{
    struct generate_params p = {
        .sampling = c->p.sampling, .answer = c->p.answer, .emit = truth_emit, .arg = t};
    struct generate_stats st;
    struct err e = {0};
    memset(t, 0, sizeof *t);
    p.sampling.seed += sample;
    if (session_new(&t->s, alone, &e) || generate(t->s, c->p.prompt, c->p.n_prompt, &p, &st, &e))
        fail_msg("%s", e.text);
    t->ids = session_ids(t->s) + c->p.n_prompt;
    t->n_ids = session_len(t->s) - c->p.n_prompt;
    t->stop = st.stop;
}

static void assert_truth(const struct client *c, size_t sample)
{
    struct truth *t = malloc(sizeof *t);
    size_t len = c->len[sample];
    truth_find(c, sample, t);
    assert_int_equal(c->done, 1);
    assert_int_equal(c->error, 0);
    if (c->end[sample] == REQUEST_CANCELLED || c->end[sample] == REQUEST_DEADLINE) {
        /* A character that was cut in the middle is shown as U+FFFD. */
        if (len >= 3 && memcmp(c->text[sample] + len - 3, "\xef\xbf\xbd", 3) == 0)
            len -= 3;
        assert_true(len <= t->len && c->n_ids[sample] <= t->n_ids);
    } else {
        static const enum request_end ends[] = {
            [GENERATE_END] = REQUEST_STOP,
            [GENERATE_STRING] = REQUEST_STOP,
            [GENERATE_LENGTH] = REQUEST_LENGTH,
            [GENERATE_CONTEXT] = REQUEST_CONTEXT,
        };
        assert_int_equal(c->end[sample], ends[t->stop]);
        assert_int_equal(len, t->len);
        /* A token whose text completes a stop string is counted, but not kept. */
        assert_int_equal(c->n_ids[sample], t->n_ids + (t->stop == GENERATE_STRING));
    }
    assert_memory_equal(c->text[sample], t->text, len);
    assert_memory_equal(c->ids[sample], t->ids,
                        num_min(c->n_ids[sample], t->n_ids) * sizeof *t->ids);
    session_free(t->s);
    free(t);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void test_alone(void **state)
{
    struct engine *g = open_llama(16);
    struct sched *s = new_sched(g, NULL);
    for (size_t i = 0; i < 8; i++) {
        static const char *const stop[] = {"zz", "e"};
        struct client *c = client_new(i == 3 ? CTX : i == 4 ? 1 : 1 + i * 50, i);
        c->p.sampling.temperature = i % 2 ? 0.9f : 0;
        c->p.sampling.presence_penalty = i == 2 ? 0.7f : 0;
        c->p.answer.max_tokens = i == 5 ? 1 : i == 6 ? 0 : 60;
        c->p.answer.raw = c->p.answer.special = i == 1;
        c->p.answer.think_max = i == 7 ? 5 : -1;
        c->p.answer.thinking_open = i == 7;
        c->p.answer.stop = stop;
        c->p.answer.n_stop = i == 4 ? 2 : 0;
        submit(s, c);
        run(s);
        assert_truth(c, 0);
        assert_int_equal(c->started, 1);
        assert_int_equal(c->prompted, 1);
        assert_int_equal(c->samples, 1);
        assert_int_equal(c->stats.prompt_tokens, c->p.n_prompt);
        assert_int_equal(c->stats.answer_tokens, c->n_ids[0]);
        assert_int_equal(c->cut, i == 7);
        client_free(c);
    }
    assert_all_free(s);
    sched_free(s);
    engine_free(g);
}

/* What steps are said to have done is there while requests run, and sums up to what they were. */
struct work_sum {
    struct client *c;
    struct sched_work all;
    size_t steps, early; /* early: answer tokens told before the request ended */
};

static void work_add(void *arg, const struct sched_work *w)
{
    struct work_sum *t = arg;
    t->steps++;
    t->all.computed += w->computed;
    t->all.prompt += w->prompt;
    t->all.answer += w->answer;
    assert_true(w->answer <= 2); /* of two samples */
    t->early += t->c->done ? 0 : w->answer;
}

static void test_work(void **state)
{
    struct engine *g = open_llama(16);
    struct work_sum t = {0};
    struct sched_opts o;
    sched_opts_init(&o);
    o.step = work_add;
    o.step_arg = &t;
    struct sched *s = new_sched(g, &o);
    struct client *c = t.c = client_new(40, 5);
    c->p.n = 2;
    c->p.answer.max_tokens = 12;
    c->p.answer.ignore_end = true;
    submit(s, c);
    run(s);
    assert_int_equal(c->stats.answer_tokens, 24);
    assert_int_equal(t.all.prompt, 40);
    assert_int_equal(t.all.answer, 24);
    assert_int_equal(t.early, 24);
    /* the last token of each is chosen and not computed */
    assert_int_equal(t.all.computed, 40 + 2 * 11);
    assert_true(t.steps >= 12);
    client_free(c);
    assert_all_free(s);
    sched_free(s);
    engine_free(g);
}

/* Requests of all kinds arrive while others run; the cache has room for a few of them. */
static void crowd(struct sched *s, size_t n, uint64_t seed, size_t longest)
{
    struct client **c = calloc(n, sizeof(void *));
    struct rng rng;
    size_t sent = 0, preempted = 0;
    rng_init(&rng, seed, 0);
    while (sent < n || step(s)) {
        for (size_t k = rng_u32(&rng) % 4; sent < n && k-- > 0;) {
            struct client *x = c[sent] = client_new(1 + rng_u32(&rng) % longest, rng_u32(&rng));
            x->p.sampling.temperature = rng_u32(&rng) % 2 ? 0.8f : 0;
            x->p.sampling.top_k = rng_u32(&rng) % 3 ? 0 : 10;
            x->p.sampling.repetition_penalty = rng_u32(&rng) % 3 ? 1 : 1.2f;
            x->p.answer.max_tokens = 1 + rng_u32(&rng) % longest;
            x->p.priority = (int)(rng_u32(&rng) % 3);
            x->p.owner = rng_u32(&rng) % 3;
            x->p.logprobs = rng_u32(&rng) % 4 ? -1 : 2;
            x->p.n = rng_u32(&rng) % 8 ? 1 : 3;
            x->cancel_at = rng_u32(&rng) % 6 ? 0 : 1 + rng_u32(&rng) % 30;
            submit(s, x);
            sent++;
        }
        if (sent < n)
            step(s);
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < c[i]->p.n; k++)
            assert_truth(c[i], k);
        preempted += c[i]->stats.preemptions;
        client_free(c[i]);
    }
    struct sched_stats st;
    sched_stats(s, &st);
    assert_int_equal(st.preemptions, preempted);
    free(c);
}

static void test_crowd(void **state)
{
    struct engine *g = open_llama(400);
    struct sched *s = new_sched(g, NULL);
    crowd(s, 40, 1, 200);
    assert_all_free(s);
    sched_free(s);
    engine_free(g);
}

/* The cache holds one and a half full sequences: every answer is preempted again and again. */
static void test_tiny_cache(void **state)
{
    struct engine *g = open_llama(12);
    struct sched *s = new_sched(g, NULL);
    struct sched_stats st;
    crowd(s, 32, 2, 240);
    sched_stats(s, &st);
    assert_true(st.preemptions > 0);
    assert_all_free(s);
    sched_free(s);
    engine_free(g);
}

/* Few rows of logits, few tokens in a step. */
static void test_narrow_steps(void **state)
{
    struct engine *g = open_wide(64, 3);
    struct sched_opts o;
    sched_opts_init(&o);
    o.budget = 17;
    struct sched *s = new_sched(g, &o);
    crowd(s, 12, 3, 100);
    assert_all_free(s);
    sched_free(s);
    engine_free(g);
}

static void test_samples(void **state)
{
    struct engine *g = open_llama(64);
    struct sched *s = new_sched(g, NULL);
    struct client *c = client_new(130, 5);
    c->p.n = SAMPLES;
    c->p.sampling.temperature = 1;
    c->p.answer.max_tokens = 30;
    submit(s, c);
    run(s);
    assert_int_equal(c->samples, SAMPLES);
    for (size_t i = 0; i < SAMPLES; i++)
        assert_truth(c, i);
    assert_memory_not_equal(c->text[0], c->text[1], 8);
    assert_int_equal(c->stats.answer_tokens, c->n_ids[0] + c->n_ids[1] + c->n_ids[2] + c->n_ids[3]);
    /* The prompt was computed once. */
    struct sched_stats st;
    sched_stats(s, &st);
    assert_int_equal(st.prompt_tokens, 130);
    client_free(c);
    /* Fewer places than samples: they wait for each other. */
    sched_free(s);
    struct sched_opts o;
    sched_opts_init(&o);
    o.seqs = 2;
    s = new_sched(g, &o);
    c = client_new(70, 6);
    c->p.n = SAMPLES;
    c->p.sampling.temperature = 1;
    submit(s, c);
    run(s);
    for (size_t i = 0; i < SAMPLES; i++)
        assert_truth(c, i);
    client_free(c);
    assert_all_free(s);
    sched_free(s);
    engine_free(g);
}

static void test_cancel(void **state)
{
    struct engine *g = open_llama(64);
    struct sched_opts o;
    sched_opts_init(&o);
    o.seqs = 2;
    struct sched *s = new_sched(g, &o);
    struct client *c[4];
    struct sched_stats st;
    for (size_t i = 0; i < 4; i++) {
        c[i] = client_new(300, i);
        c[i]->p.answer.max_tokens = 100;
        submit(s, c[i]);
    }
    step(s);
    sched_stats(s, &st);
    assert_int_equal(st.running, 2);
    assert_int_equal(st.waiting, 2);
    assert_true(st.pages_used > 0);
    request_cancel(c[0]->handle); /* in the middle of its prompt */
    request_cancel(c[3]->handle); /* it waits */
    step(s);
    assert_int_equal(c[0]->done, 1);
    assert_int_equal(c[0]->end[0], REQUEST_CANCELLED);
    assert_int_equal(c[3]->done, 1);
    assert_int_equal(c[3]->started, 0);
    assert_int_equal(c[3]->end[0], REQUEST_CANCELLED);
    while (c[1]->n_ids[0] < 10)
        step(s);
    request_cancel(c[1]->handle); /* in the middle of its answer */
    step(s);
    assert_int_equal(c[1]->done, 1);
    run(s);
    for (size_t i = 0; i < 4; i++) {
        assert_truth(c[i], 0);
        client_free(c[i]);
    }
    assert_all_free(s);
    sched_free(s);
    engine_free(g);
}

static void test_deadline(void **state)
{
    struct engine *g = open_llama(64);
    struct sched *s = new_sched(g, NULL);
    struct client *a = client_new(20, 1), *b = client_new(20, 2);
    a->p.answer.max_tokens = b->p.answer.max_tokens = 0;
    a->p.answer.ignore_end = b->p.answer.ignore_end = true;
    a->p.deadline = clock_seconds() + 0.2;
    submit(s, a);
    submit(s, b);
    while (!a->done && a->n_ids[0] < 3)
        step(s);
    while (clock_seconds() < a->p.deadline)
        usleep(10000);
    step(s);
    assert_int_equal(a->end[0], REQUEST_DEADLINE);
    assert_true(clock_seconds() >= a->p.deadline);
    run(s);
    assert_truth(a, 0);
    assert_truth(b, 0);
    client_free(a);
    a = client_new(20, 1); /* too late before it began */
    a->p.deadline = clock_seconds() - 1;
    submit(s, a);
    run(s);
    assert_int_equal(a->end[0], REQUEST_DEADLINE);
    assert_int_equal(a->started, 0);
    assert_int_equal(a->len[0], 0);
    client_free(a);
    client_free(b);
    sched_free(s);
    engine_free(g);
}

/* Which of the clients ended first, second, … */
static void order_of_ends(struct sched *s, struct client **c, size_t n, size_t *order)
{
    for (size_t k = 0; k < n;) {
        step(s);
        for (size_t i = 0; i < n; i++) {
            bool known = !c[i]->done;
            for (size_t j = 0; j < k; j++)
                known |= order[j] == i;
            if (!known)
                order[k++] = i;
        }
    }
}

static void test_priority(void **state)
{
    struct engine *g = open_llama(64);
    struct sched_opts o;
    sched_opts_init(&o);
    o.seqs = 1;
    struct sched *s = new_sched(g, &o);
    static const int priority[] = {1, 2, 1, 0};
    struct client *c[4];
    size_t order[4];
    for (size_t i = 0; i < 3; i++) {
        c[i] = client_new(30, i);
        c[i]->p.priority = priority[i];
        submit(s, c[i]);
    }
    while (c[0]->n_ids[0] < 5)
        step(s);
    c[3] = client_new(30, 3); /* more urgent than the one that runs */
    c[3]->p.priority = priority[3];
    submit(s, c[3]);
    order_of_ends(s, c, 4, order);
    static const size_t want[] = {3, 0, 2, 1};
    assert_memory_equal(order, want, sizeof want);
    assert_int_equal(c[0]->stats.preemptions, 1);
    for (size_t i = 0; i < 4; i++) {
        assert_truth(c[i], 0);
        client_free(c[i]);
    }
    sched_free(s);
    engine_free(g);
}

/* One owner sends ten requests, then another one two: they are served in turn. */
static void test_fairness(void **state)
{
    struct engine *g = open_llama(64);
    struct sched_opts o;
    sched_opts_init(&o);
    o.seqs = 1;
    struct sched *s = new_sched(g, &o);
    struct client *c[12];
    size_t order[12];
    for (size_t i = 0; i < 12; i++) {
        c[i] = client_new(30, i);
        c[i]->p.owner = i < 10 ? 77 : 78;
        submit(s, c[i]);
    }
    order_of_ends(s, c, 12, order);
    assert_true((order[0] == 10) + (order[1] == 10) + (order[2] == 10) == 1);
    assert_true((order[2] == 11) + (order[3] == 11) + (order[4] == 11) == 1);
    /* Whoever was away for long saved nothing up. */
    struct client *d[6];
    for (size_t i = 0; i < 6; i++) {
        d[i] = client_new(30, i);
        d[i]->p.owner = i % 2 ? 78 : 77;
        submit(s, d[i]);
    }
    order_of_ends(s, d, 6, order);
    for (size_t i = 0; i + 2 < 6; i++) /* never three of one owner in a row */
        assert_false(order[i] % 2 == order[i + 1] % 2 && order[i] % 2 == order[i + 2] % 2);
    for (size_t i = 0; i < 12; i++)
        client_free(c[i]);
    for (size_t i = 0; i < 6; i++)
        client_free(d[i]);
    sched_free(s);
    engine_free(g);
}

static void test_refusals(void **state)
{
    struct engine *g = open_llama(64);
    struct sched_opts o;
    sched_opts_init(&o);
    o.seqs = 1;
    o.queue = 2;
    struct sched *s = new_sched(g, &o);
    struct request *r;
    struct err e = {0};
    struct client *c = client_new(30, 0), *d = client_new(30, 1), *f = client_new(30, 2);
    submit(s, c);
    step(s); /* runs: waits no more */
    submit(s, d);
    submit(s, f);
    struct client *x = client_new(30, 3);
    assert_int_equal(sched_submit(s, &x->p, &r, &e), ERR_BUSY);
    assert_null(r);
    run(s);
    assert_truth(f, 0);

    int32_t many[CTX + 1] = {0};
    x->p.prompt = many;
    x->p.n_prompt = CTX + 1;
    assert_int_equal(sched_submit(s, &x->p, &r, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "513"));
    x->p.n_prompt = 0;
    assert_int_equal(sched_submit(s, &x->p, &r, &e), ERR_USAGE);
    x->p.n_prompt = 3;
    many[2] = 512;
    assert_int_equal(sched_submit(s, &x->p, &r, &e), ERR_USAGE);
    many[2] = 0;
    x->p.sampling.top_p = 7;
    assert_int_equal(sched_submit(s, &x->p, &r, &e), ERR_USAGE);
    x->p.sampling.top_p = 1;
    x->p.logprobs = 21;
    assert_int_equal(sched_submit(s, &x->p, &r, &e), ERR_USAGE);
    x->p.logprobs = -1;
    x->p.n = 1000;
    assert_int_equal(sched_submit(s, &x->p, &r, &e), ERR_USAGE);
    assert_int_equal(x->started + x->done, 0);
    /* The scheduler goes while requests are there. */
    struct client *y = client_new(30, 4), *z = client_new(30, 5);
    submit(s, y);
    step(s);
    submit(s, z);
    sched_free(s);
    assert_int_equal(y->error, ERR_CANCELLED);
    assert_int_equal(z->error, ERR_CANCELLED);
    client_free(c);
    client_free(d);
    client_free(f);
    client_free(x);
    client_free(y);
    client_free(z);
    engine_free(g);
}

/* The log-probability of each token of ids[from..n) from rows computed apart. */
static void reference_rows(struct engine *g, const int32_t *ids, size_t n, float *rows)
{
    struct session *s;
    struct err e = {0};
    if (session_new(&s, g, &e) || session_append_all(s, ids, n, rows, &e))
        fail_msg("%s", e.text);
    session_free(s);
}

static void assert_prob(const struct token_prob *p, const float *row, size_t vocab)
{
    uint32_t rank = 1;
    for (size_t i = 0; i < vocab; i++)
        rank += row[i] > row[p->id] || (row[i] == row[p->id] && i < (size_t)p->id);
    assert_int_equal(p->rank, rank);
    assert_true(p->logprob == (float)sampler_logprob(row, vocab, p->id));
}

static void test_logprobs(void **state)
{
    struct engine *g = open_llama(64);
    size_t vocab = engine_info(g)->vocab, known = tokenizer_count(engine_tokenizer(g));
    struct sched *s = new_sched(g, NULL);
    struct client *c = client_new(150, 3), *other = client_new(200, 4);
    c->p.logprobs = 5;
    c->p.prompt_logprobs = 3;
    c->p.sampling.temperature = 1.5f;
    other->p.prompt_logprobs = 0;
    submit(s, other);
    submit(s, c);
    run(s);
    assert_truth(c, 0);
    assert_truth(other, 0);
    known = num_min(known, vocab);
    int32_t ids[CTX];
    float *rows = malloc(CTX * vocab * sizeof *rows);
    memcpy(ids, c->prompt, 150 * sizeof *ids);
    memcpy(ids + 150, c->ids[0], c->n_ids[0] * sizeof *ids);
    reference_rows(g, ids, 150 + c->n_ids[0], rows);
    assert_int_equal(c->n_prompt_info, 149);
    for (size_t i = 0; i < 149; i++) {
        const float *row = rows + i * vocab;
        assert_int_equal(c->prompt_info[i].self.id, c->prompt[i + 1]);
        assert_prob(&c->prompt_info[i].self, row, known);
        assert_int_equal(c->prompt_info[i].n_top, 3);
        for (size_t k = 0; k < 3; k++) {
            assert_int_equal(c->prompt_top[i][k].rank, k + 1);
            assert_prob(&c->prompt_top[i][k], row, known);
        }
    }
    assert_int_equal(c->n_ids[0], 20);
    for (size_t i = 0; i < 20; i++)
        assert_true(c->logprob[0][i] ==
                    (float)sampler_logprob(rows + (149 + i) * vocab, known, c->ids[0][i]));
    assert_int_equal(other->n_prompt_info, 199);
    assert_int_equal(other->prompt_info[0].n_top, 0);
    free(rows);
    client_free(c);
    client_free(other);
    sched_free(s);
    engine_free(g);
}

/* An embedding is the same alone and among others, has length 1 and is no other text's. */
static void test_embeddings(void **state)
{
    struct engine *g = open_llama(64);
    float *apart[3] = {0};
    for (int round = 0; round < 2; round++) {
        struct sched *s = new_sched(g, NULL);
        struct client *c[3], *busy = client_new(40, 9);
        if (round)
            submit(s, busy);
        for (size_t i = 0; i < 3; i++) {
            c[i] = client_new(60 + i * 120, i);
            c[i]->p.embed = true;
            submit(s, c[i]);
            if (!round)
                run(s);
        }
        run(s);
        for (size_t i = 0; i < 3; i++) {
            double sum = 0;
            assert_int_equal(c[i]->done, 1);
            assert_int_equal(c[i]->n_vector, 64);
            for (size_t k = 0; k < 64; k++)
                sum += (double)c[i]->vector[k] * (double)c[i]->vector[k];
            assert_true(fabs(sum - 1) < 1e-6);
            if (round)
                assert_memory_equal(c[i]->vector, apart[i], 64 * sizeof(float));
            else
                apart[i] = memcpy(malloc(64 * sizeof(float)), c[i]->vector, 64 * sizeof(float));
            client_free(c[i]);
        }
        if (round)
            assert_truth(busy, 0);
        client_free(busy);
        assert_all_free(s);
        sched_free(s);
    }
    assert_memory_not_equal(apart[0], apart[1], 64 * sizeof(float));
    for (size_t i = 0; i < 3; i++)
        free(apart[i]);
    engine_free(g);
}

/* An embedding that had to make room in the middle of its text adds nothing up twice. */
static void test_embedding_preempted(void **state)
{
    struct engine *g = open_llama(8);
    struct client *c[2];
    for (size_t i = 0; i < 2; i++) {
        struct sched *s = new_sched(g, NULL);
        struct client *first = client_new(300, 9);
        c[i] = client_new(400, 1);
        c[i]->p.embed = true;
        c[i]->p.priority = 1;
        submit(s, c[i]);
        if (i) {
            step(s);
            assert_true(c[i]->progress);
            submit(s, first);
        }
        run(s);
        assert_int_equal(c[i]->done, 1);
        assert_int_equal(c[i]->stats.preemptions, i);
        assert_int_equal(c[i]->n_vector, 64);
        if (i)
            assert_truth(first, 0);
        client_free(first);
        assert_all_free(s);
        sched_free(s);
    }
    assert_memory_equal(c[1]->vector, c[0]->vector, 64 * sizeof(float));
    client_free(c[0]);
    client_free(c[1]);
    engine_free(g);
}

/* Runs one request of 250 tokens and returns how many of them were found. */
static size_t cached(struct sched *s, uint64_t salt, size_t same)
{
    struct client *c = client_new(250, 3);
    for (size_t i = same; i < 250; i++)
        c->prompt[i] = (int32_t)(3 + i % 11);
    c->p.salt[1] = salt;
    submit(s, c);
    for (size_t i = 0; !c->done; i++) {
        if (!step(s))
            usleep(1000); /* the disk */
        assert_true(i < 100000);
    }
    assert_truth(c, 0);
    size_t n = c->stats.cached_tokens;
    client_free(c);
    return n;
}

static void test_prefix(void **state)
{
    struct engine *g = open_llama(64);
    struct sched *s = new_sched(g, NULL);
    struct sched_stats st;
    assert_int_equal(cached(s, 1, 250), 0);
    assert_int_equal(cached(s, 1, 250), 192);
    assert_int_equal(cached(s, 1, 140), 128);
    assert_int_equal(cached(s, 2, 250), 0); /* another's */
    step(s);
    sched_stats(s, &st);
    assert_int_equal(st.prefix_hits, 192 + 128);
    assert_true(st.pages_cached > 0);
    assert_int_equal(st.pages_used, 0);
    sched_free(s);
    /* What a request among others has computed serves the next; nobody waits for room that the
       cache only keeps. */
    s = new_sched(g, NULL);
    crowd(s, 12, 7, 250);
    assert_int_equal(cached(s, 1, 250), 0);
    assert_int_equal(cached(s, 1, 250), 192);
    assert_all_free(s);
    sched_free(s);
    /* Without it nothing stays. */
    struct sched_opts o;
    sched_opts_init(&o);
    o.prefix = false;
    s = new_sched(g, &o);
    assert_int_equal(cached(s, 1, 250), 0);
    assert_int_equal(cached(s, 1, 250), 0);
    sched_stats(s, &st);
    assert_int_equal(st.pages_cached, 0);
    sched_free(s);
    engine_free(g);
}

static void test_disk(void **state)
{
    char dir[] = "/tmp/ponder-sched-XXXXXX", command[64];
    struct engine *g = open_llama(64);
    struct sched_opts o;
    assert_non_null(mkdtemp(dir));
    sched_opts_init(&o);
    o.disk = dir;
    o.disk_bytes = 1 << 30;
    for (int round = 0; round < 3; round++) {
        struct sched *s = new_sched(g, &o);
        struct sched_stats st;
        assert_int_equal(cached(s, 1, 250), round ? 192 : 0);
        assert_int_equal(cached(s, 2, 250), round ? 192 : 0);
        if (round) { /* read while others run */
            struct client *busy = client_new(20, 8);
            submit(s, busy);
            assert_int_equal(cached(s, 3, 100), round > 1 ? 64 * 3 : 0);
            run(s);
            assert_truth(busy, 0);
            client_free(busy);
            sched_stats(s, &st);
            assert_true(st.disk_hits >= 2 * 192);
        }
        assert_all_free(s);
        sched_free(s);
    }
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
    engine_free(g);
}

static void link_file(const char *dir, const char *from, const char *name)
{
    char to[512], path[512];
    snprintf(path, sizeof path, "%s/models/%s/%s", GOLDEN_DIR, from, name);
    snprintf(to, sizeof to, "%s/%s", dir, name);
    assert_int_equal(symlink(path, to), 0);
}

/* DeepSeek-V3 with its prediction layer: latents, experts, tokens guessed ahead. The vocabulary is
   the other model's. */
static void test_drafts(void **state)
{
    char dir[] = "/tmp/ponder-sched-XXXXXX", command[64];
    struct engine *llama = alone;
    assert_non_null(mkdtemp(dir));
    link_file(dir, "dsv3_qlora_yarn_mtp", "config.json");
    link_file(dir, "dsv3_qlora_yarn_mtp", "model.safetensors");
    link_file(dir, "llama_rope_llama3", "tokenizer.json");
    link_file(dir, "llama_rope_llama3", "tokenizer_config.json");
    alone = open_path(dir, CTX / 64, 40, false);
    struct engine *g = open_path(dir, 14, 40, true);
    struct sched *s = new_sched(g, NULL);
    crowd(s, 16, 4, 200);
    struct client *c = client_new(20, 1); /* alone, so that it drafts */
    c->p.answer.max_tokens = 100;
    submit(s, c);
    run(s);
    assert_truth(c, 0);
    client_free(c);
    assert_all_free(s);
    sched_free(s);
    engine_free(g);
    engine_free(alone);
    alone = llama;
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
}

/* ---- threads --------------------------------------------------------------------------------- */

struct crew {
    struct sched *s;
    pthread_mutex_t lock;
    pthread_cond_t work;
    bool awake, over;
    atomic_int left;
};

static void crew_wake(void *arg)
{
    struct crew *w = arg;
    pthread_mutex_lock(&w->lock);
    w->awake = true;
    pthread_cond_signal(&w->work);
    pthread_mutex_unlock(&w->lock);
}

static void *crew_compute(void *arg)
{
    struct crew *w = arg;
    for (;;) {
        pthread_mutex_lock(&w->lock);
        while (!w->awake && !w->over)
            pthread_cond_wait(&w->work, &w->lock);
        bool over = w->over && !w->awake;
        w->awake = false;
        pthread_mutex_unlock(&w->lock);
        if (over)
            return NULL;
        while (step(w->s))
            ;
    }
}

enum { CREW = 3, CREW_EACH = 12 };

struct member {
    struct crew *w;
    struct client *c[CREW_EACH];
    uint64_t seed;
    pthread_t thread;
};

static void *member_run(void *arg)
{
    struct member *m = arg;
    struct rng rng;
    rng_init(&rng, m->seed, 0);
    for (size_t i = 0; i < CREW_EACH; i++) {
        struct client *c = m->c[i] = client_new(1 + rng_u32(&rng) % 100, rng_u32(&rng));
        c->p.answer.max_tokens = 1 + rng_u32(&rng) % 30;
        c->p.n = rng_u32(&rng) % 4 ? 1 : 2;
        c->p.owner = m->seed;
        c->p.sampling.temperature = 0.7f;
        c->cancel_at = rng_u32(&rng) % 4 ? 0 : 1;
        struct err e = {0};
        if (sched_submit(m->w->s, &c->p, &c->handle, &e))
            fail_msg("%s", e.text);
        struct sched_stats st;
        sched_stats(m->w->s, &st);
        usleep(rng_u32(&rng) % 3000);
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct engine *g = open_llama(16);
    struct crew w = {.awake = false};
    struct sched_opts o;
    pthread_t compute;
    static struct member member[CREW];
    pthread_mutex_init(&w.lock, NULL);
    pthread_cond_init(&w.work, NULL);
    sched_opts_init(&o);
    o.wake = crew_wake;
    o.wake_arg = &w;
    w.s = new_sched(g, &o);
    assert_int_equal(pthread_create(&compute, NULL, crew_compute, &w), 0);
    for (size_t i = 0; i < CREW; i++) {
        member[i] = (struct member){.w = &w, .seed = i + 1};
        assert_int_equal(pthread_create(&member[i].thread, NULL, member_run, &member[i]), 0);
    }
    for (size_t i = 0; i < CREW; i++)
        pthread_join(member[i].thread, NULL);
    pthread_mutex_lock(&w.lock);
    w.over = true;
    pthread_cond_signal(&w.work);
    pthread_mutex_unlock(&w.lock);
    pthread_join(compute, NULL);
    assert_all_free(w.s);
    for (size_t i = 0; i < CREW; i++)
        for (size_t k = 0; k < CREW_EACH; k++) {
            for (size_t j = 0; j < member[i].c[k]->p.n; j++)
                assert_truth(member[i].c[k], j);
            client_free(member[i].c[k]);
        }
    sched_free(w.s);
    pthread_mutex_destroy(&w.lock);
    pthread_cond_destroy(&w.work);
    engine_free(g);
}

/* Wherever memory is missing, the request says so, the others go on, and nothing leaks. */
static void test_no_memory(void **state)
{
    struct engine *g = open_llama(64);
    for (size_t n = 1;; n++) {
        struct sched *s = NULL;
        struct sched_opts o;
        struct err e = {0};
        struct client *c = client_new(100, 1), *d = client_new(20, 2);
        struct truth *t = malloc(sizeof *t);
        c->p.n = 2;
        c->p.prompt_logprobs = 1;
        d->p.answer.think_loops = true;
        d->p.answer.raw = false;
        sched_opts_init(&o);
        fail_alloc_at(n);
        int rc = sched_new(&s, g, &o, &e), rc_c = 1, rc_d = 1;
        if (!rc) {
            rc_c = sched_submit(s, &c->p, &c->handle, &e);
            rc_d = sched_submit(s, &d->p, &d->handle, &e);
            for (bool idle = false; !idle && !rc;)
                rc = sched_step(s, &idle, &e);
        }
        bool failed = fail_alloc_stop();
        assert_true(rc == 0 || (failed && rc == ERR_NOMEM));
        assert_true(!rc_c || failed);
        if (!rc && !rc_c)
            assert_true(c->done && (!c->error || c->error == ERR_NOMEM));
        if (!rc && !rc_d && !d->error)
            assert_truth(d, 0);
        free(t);
        sched_free(s);
        client_free(c);
        client_free(d);
        if (!failed)
            break;
    }
    engine_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_work),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_crowd),
        cmocka_unit_test(test_tiny_cache),
        cmocka_unit_test(test_narrow_steps),
        cmocka_unit_test(test_samples),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_priority),
        cmocka_unit_test(test_fairness),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_embeddings),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_disk),
        cmocka_unit_test(test_drafts),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_embedding_preempted),
    };
    return cmocka_run_group_tests(tests, open_alone, close_alone);
}
