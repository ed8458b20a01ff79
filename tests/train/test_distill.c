/*
 * Distillation: divergences by their definitions, gradients by finite differences; a model that
 * teaches itself; the same bits however a step is computed.
 *
 * Another folder of models: an argument, or PONDER_TRAIN_GOLDEN.
 */
#include "base/num.h"
#include "train/loss_distill.h"
#include "trained.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORDS = 11 };

static void softmax(const double *z, double t, double *p)
{
    double sum = 0;
    for (size_t i = 0; i < WORDS; i++)
        sum += p[i] = exp(z[i] / t);
    for (size_t i = 0; i < WORDS; i++)
        p[i] /= sum;
}

static double kl(const double *a, const double *b)
{
    double sum = 0;
    for (size_t i = 0; i < WORDS; i++)
        sum += a[i] * log(a[i] / b[i]);
    return sum;
}

/* As the header defines it, in double. */
static double defined(const double *student, const double *teacher, double beta, double t)
{
    double p[WORDS], q[WORDS], m[WORDS];
    softmax(teacher, t, p);
    softmax(student, t, q);
    for (size_t i = 0; i < WORDS; i++)
        m[i] = beta * p[i] + (1 - beta) * q[i];
    return beta <= 0 ? kl(p, q) : beta >= 1 ? kl(q, p) : beta * kl(p, m) + (1 - beta) * kl(q, m);
}

static void divergences_and_slopes(void **state)
{
    (void)state;
    static const double betas[] = {0, 0.1, 0.5, 0.9, 1}, heats[] = {0.9, 1, 2.5};
    struct kern kern;
    kern_init(&kern, cpu_best());
    for (size_t k = 0; k < NUM_COUNT(betas) * NUM_COUNT(heats); k++) {
        double beta = betas[k % NUM_COUNT(betas)], t = heats[k / NUM_COUNT(betas)];
        double s[WORDS], u[WORDS], p[WORDS], entropy, weight = 0.25;
        float logits[WORDS], logp[WORDS];
        for (size_t i = 0; i < WORDS; i++) {
            s[i] = (double)(float)(3 * sin(1.0 + (double)(i * 7 % 11)));
            u[i] = (double)(float)(4 * cos(2.0 + (double)(i * 5 % 11)));
            logits[i] = (float)s[i];
        }
        softmax(u, t, p);
        for (size_t i = 0; i < WORDS; i++)
            logp[i] = (float)log(p[i]);
        double got =
            distill_divergence(&kern, logits, logp, WORDS, beta, (float)t, (float)weight, &entropy);
        double want = defined(s, u, beta, t);
        if (fabs(got - want) > 2e-6 * fmax(1, want))
            fail_msg("beta %g at %g: divergence %.9g, want %.9g", beta, t, got, want);
        for (size_t i = 0; i < WORDS; i++) {
            double was = s[i], h = 1e-4;
            s[i] = was + h;
            double up = defined(s, u, beta, t);
            s[i] = was - h;
            double slope = weight * (up - defined(s, u, beta, t)) / (2 * h);
            s[i] = was;
            if (fabs(slope - (double)logits[i]) > 2e-6)
                fail_msg("beta %g at %g, logit %zu: gradient %g, slope %g", beta, t, i,
                         (double)logits[i], slope);
        }
    }
}

static const size_t lengths[] = {30, 12, 9, 33, 25, 25, 18, 40};

static struct frozen *teacher_open(const char *model, size_t pass_tokens, int threads)
{
    char path[600];
    struct frozen *f;
    struct err e = {0};
    struct frozen_opts o = {.path = trained_path(path, model, NULL),
                            .threads = threads,
                            .pass_tokens = pass_tokens ? pass_tokens : 4096,
                            .longest = TRAINED_TOKENS};
    trained_die(frozen_open(&f, &o, &e), &e);
    return f;
}

/* Who is as the teacher is learns nothing. */
static void a_twin_learns_nothing(void **state)
{
    static struct trained_batch b;
    char path[600];
    struct err e = {0};
    struct trained x;
    struct train_result r;
    trained_open(&x, trained_path(path, *state, NULL), &(struct trained_how){.threads = 2});
    struct loss_distill l = {
        .teacher = teacher_open(*state, 0, 2), .beta = 0.5, .temperature = 0.9F, .vocab = 256};
    struct train_loss loss = {.pass = loss_distill_pass, .arg = &l};
    trained_made(&b, lengths, 8, 1, 200);
    loss_distill_aim(&l, &b.b);
    trained_die(trainer_step(x.t, &b.b, &loss, 0, &r, &e), &e);
    assert_true(r.stat[DISTILL_TOKENS] == l.tokens && l.tokens > 90);
    print_message("# %s: divergence %.3g, norm %.3g\n", (const char *)*state,
                  r.stat[DISTILL_LOSS] / l.tokens, r.norm);
    assert_true(fabs(r.stat[DISTILL_LOSS]) / l.tokens < 1e-7); /* float exp: 6e-8 a probability */
    assert_true(r.norm < 1e-5);
    assert_true(fabs(r.stat[DISTILL_ENTROPY] - r.stat[DISTILL_TEACHER]) < 1e-3);
    loss_distill_release(&l);
    frozen_free(l.teacher);
    trained_close(&x);
}

static uint64_t steps(const char *model, const char *teacher, const struct trained_how *how,
                      size_t bytes, double beta, double *first, double *last)
{
    static struct trained_batch b;
    char path[600];
    struct err e = {0};
    struct trained x;
    trained_open(&x, trained_path(path, model, NULL), how);
    struct loss_distill l = {.teacher = teacher_open(teacher, how->pass_tokens, how->threads),
                             .beta = beta,
                             .temperature = 0.9F,
                             .vocab = 256,
                             .bytes = bytes};
    struct train_loss loss = {.pass = loss_distill_pass, .arg = &l};
    trained_made(&b, lengths, 8, 1, 200);
    loss_distill_aim(&l, &b.b);
    for (int i = 0; i < 4; i++) {
        struct train_result r;
        trained_die(trainer_step(x.t, &b.b, &loss, 3e-3, &r, &e), &e);
        *(i ? last : first) = r.stat[DISTILL_LOSS] / l.tokens;
    }
    uint64_t h = trained_hash(&x);
    loss_distill_release(&l);
    frozen_free(l.teacher);
    trained_close(&x);
    return h;
}

/* Threads, passes, recomputed blocks, and how many of the teacher's rows are held. */
static void bits_do_not_depend_on_the_way(void **state)
{
    const char *model = *state, *teacher = strcmp(model, "llama") ? "llama" : "dsv3";
    static const double betas[] = {0, 0.5, 1};
    for (size_t k = 0; k < NUM_COUNT(betas); k++) {
        double first, last, a, z;
        uint64_t h =
            steps(model, teacher, &(struct trained_how){.threads = 1}, 0, betas[k], &first, &last);
        if (!(last < first))
            fail_msg("beta %g: %g, then %g", betas[k], first, last);
        assert_true(steps(model, teacher, &(struct trained_how){.threads = 2, .pass_tokens = 64},
                          7 * 1024, betas[k], &a, &z) == h);
        assert_true(a == first && z == last);
        assert_true(
            steps(model, teacher,
                  &(struct trained_how){.threads = 3, .pass_tokens = 100, .recompute = true}, 1,
                  betas[k], &a, &z) == h);
        assert_true(a == first && z == last);
    }
}

#define MODEL(test, name)                                           \
    {                                                               \
#test " " name, test, NULL, NULL, (void *)(uintptr_t)(name) \
    }

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(divergences_and_slopes),     MODEL(a_twin_learns_nothing, "qwen2"),
        MODEL(a_twin_learns_nothing, "dsv3"),         MODEL(bits_do_not_depend_on_the_way, "llama"),
        MODEL(bits_do_not_depend_on_the_way, "dsv3"),
    };
    trained_folder(argc, argv);
    return cmocka_run_group_tests_name("train/distill", tests, NULL, NULL);
}
