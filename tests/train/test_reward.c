/*
 * Reward models: scores, loss and gradients against PyTorch's (tests/golden/train), labels against
 * finite differences; the same bits however a step is computed.
 *
 * Another folder of the same form: an argument, or PONDER_TRAIN_GOLDEN.
 */
#include "base/num.h"
#include "train/loss_score.h"
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

static void gradients_are_pytorch_s(void **state)
{
    static const size_t order[] = {0, 2, 1, 3}; /* the reference has the chosen ones first */
    static struct trained_batch b;
    const char *model = *state;
    char path[600];
    struct err e = {0};
    struct trained x;
    struct train_result r;
    json_t *root, *want = trained_json(&root, model, "rl/reward_model");
    trained_open(&x, trained_path(path, model, NULL),
                 &(struct trained_how){.threads = 2, .score = true});
    assert_false(x.score->found);
    struct golden *g = golden_load(trained_path(path, model, "rl.safetensors"));
    struct golden_tensor ids = golden_get(g, "input_ids"), mask = golden_get(g, "attention_mask"),
                         head = golden_get(g, "score.weight");
    trained_rows(&b, &ids, &mask, NULL, order, 4, 2);
    assert_int_equal(head.count, x.score->w.cols);
    memcpy(x.score->value, head.f32, head.count * sizeof(float));
    struct loss_score score = {.score = x.score, .pairwise = true, .count = 2};
    struct train_loss loss = {.pass = loss_score_pass, .arg = &score, .pairs = true};
    for (size_t i = 0; i < 4; i += 2)
        b.seq[i].margin = 0.5F;
    trained_die(trainer_look(x.t, &b.b, &loss, &r, &e), &e);
    double exact = trained_number(want, "loss_with_margin_0.5");
    assert_true(fabs(r.stat[SCORE_LOSS] / 2 - exact) <= 1e-5 * exact);
    for (size_t i = 0; i < 4; i += 2)
        b.seq[i].margin = 0;
    trained_die(trainer_step(x.t, &b.b, &loss, 0, &r, &e), &e);
    double got = r.stat[SCORE_LOSS] / 2, sum = 0;
    exact = trained_number(want, "loss");
    print_message("# %s: loss %.9g, want %.9g\n", model, got, exact);
    assert_true(fabs(got - exact) <= 1e-5 * exact);
    for (size_t i = 0; i < 4; i++)
        sum += json_number_value(json_array_get(json_object_get(want, "rewards"), i));
    assert_true(fabs(r.stat[SCORE_SUM] - sum) <= 1e-5 * fmax(1, fabs(sum)));
    assert_true(trained_check_gradients(&x, g, "rm.grad.") >= 6); /* the head's too */
    golden_free(g);
    json_decref(root);
    trained_close(&x);
}

static void softminus_is_exact_everywhere(void **state)
{
    (void)state;
    static const double at[] = {-800, -30, -1, -1e-9, 0, 0.5, 20, 800};
    for (size_t i = 0; i < NUM_COUNT(at); i++) {
        double by, x, h = 1e-5, v = loss_softminus(at[i], &by);
        double slope = (loss_softminus(at[i] + h, &x) - loss_softminus(at[i] - h, &x)) / (2 * h);
        assert_true(isfinite(v) && v >= 0);
        assert_true(fabs(slope - by) < 1e-6);
        assert_true(fabs(v - loss_softminus(-at[i], &x) + at[i]) < 1e-12 * fmax(1, fabs(at[i])));
    }
}

static const size_t lengths[] = {30, 12, 9, 33, 25, 25, 18, 40};

static void score_batch(struct trained_batch *b, bool pairs)
{
    trained_made(b, lengths, 8, pairs ? 2 : 1, 200);
    for (size_t i = 0; i < 8; i++)
        b->seq[i].label = i % 3 == 0;
}

/* The gradient of the head is the slope of the loss, centered pairs and labels alike. */
static void gradients_are_slopes(void **state)
{
    static struct trained_batch b;
    char path[600];
    struct err e = {0};
    for (int pairs = 0; pairs < 2; pairs++) {
        struct trained x;
        struct train_result r;
        trained_open(&x, trained_path(path, *state, NULL),
                     &(struct trained_how){.threads = 2, .score = true});
        score_batch(&b, pairs);
        struct loss_score score = {
            .score = x.score, .pairwise = pairs, .center = 0.3, .count = pairs ? 4 : 8};
        struct train_loss loss = {.pass = loss_score_pass, .arg = &score, .pairs = pairs};
        for (size_t i = 0; i < x.score->w.cols; i++)
            x.score->value[i] = 0.03F * (float)((i * 7) % 11) - 0.1F;
        trained_die(trainer_step(x.t, &b.b, &loss, 0, &r, &e), &e);
        const struct params *p = trainer_params(x.t);
        const float *grad = trainer_gradient(x.t) + p->p[p->n - 1].at;
        assert_string_equal(p->p[p->n - 1].info.name, "score.weight");
        for (size_t i = 0; i < x.score->w.cols; i += 5) {
            double side[2];
            float was = x.score->value[i];
            for (int k = 0; k < 2; k++) {
                x.score->value[i] = was + (k ? 0x1p-9F : -0x1p-9F);
                trained_die(trainer_look(x.t, &b.b, &loss, &r, &e), &e);
                side[k] = r.stat[SCORE_LOSS] / score.count;
            }
            x.score->value[i] = was;
            double slope = (side[1] - side[0]) / 0x1p-8;
            if (fabs(slope - (double)grad[i]) > 1e-3 * fmax(1, fabs(slope)))
                fail_msg("value %zu: gradient %g, slope %g", i, (double)grad[i], slope);
        }
        trained_close(&x);
    }
}

static uint64_t three_steps(const char *model, const struct trained_how *how, bool pairs,
                            double *last)
{
    static struct trained_batch b;
    char path[600];
    struct err e = {0};
    struct trained x;
    trained_open(&x, trained_path(path, model, NULL), how);
    score_batch(&b, pairs);
    struct loss_score score = {
        .score = x.score, .pairwise = pairs, .center = 0.01, .count = pairs ? 4 : 8};
    struct train_loss loss = {.pass = loss_score_pass, .arg = &score, .pairs = pairs};
    for (int step = 0; step < 3; step++) {
        struct train_result r;
        trained_die(trainer_step(x.t, &b.b, &loss, 1e-3, &r, &e), &e);
        *last = r.stat[SCORE_LOSS] / score.count;
        if (step == 0) /* the head begins as zero */
            assert_true(fabs(*last - log(2)) < 1e-12);
    }
    uint64_t h = trained_hash(&x);
    trained_close(&x);
    return h;
}

static void bits_do_not_depend_on_the_way(void **state)
{
    static const struct trained_how ways[] = {
        {.threads = 2, .pass_tokens = 64, .score = true},
        {.threads = 3, .pass_tokens = 100, .recompute = true, .score = true}};
    for (int pairs = 0; pairs < 2; pairs++) {
        double loss, other;
        uint64_t h =
            three_steps(*state, &(struct trained_how){.threads = 1, .score = true}, pairs, &loss);
        assert_true(loss < log(2)); /* it learns */
        for (size_t i = 0; i < NUM_COUNT(ways); i++) {
            assert_true(three_steps(*state, &ways[i], pairs, &other) == h);
            assert_true(other == loss);
        }
    }
}

#define MODEL(test, name)                                           \
    {                                                               \
#test " " name, test, NULL, NULL, (void *)(uintptr_t)(name) \
    }

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        MODEL(gradients_are_pytorch_s, "llama"),
        MODEL(gradients_are_pytorch_s, "qwen2"),
        MODEL(gradients_are_pytorch_s, "dsv3"),
        cmocka_unit_test(softminus_is_exact_everywhere),
        MODEL(gradients_are_slopes, "qwen2"),
        MODEL(bits_do_not_depend_on_the_way, "llama"),
        MODEL(bits_do_not_depend_on_the_way, "dsv3"),
    };
    trained_folder(argc, argv);
    return cmocka_run_group_tests_name("train/reward", tests, NULL, NULL);
}
