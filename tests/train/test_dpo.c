/*
 * Preference losses: against TRL's numbers on given log-probabilities and on models
 * (tests/golden/train), against finite differences; the same bits however a step is computed.
 *
 * Another folder of the same form: an argument, or PONDER_TRAIN_GOLDEN.
 */
#include "base/num.h"
#include "train/loss_pairs.h"
#include "train/policy_ref.h"
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

static double at(const json_t *o, const char *key, size_t i)
{
    const json_t *v = json_array_get(json_object_get(o, key), i);
    if (!json_is_number(v))
        fail_msg("train.json: %s has no number %zu", key, i);
    return json_number_value(v);
}

static void given_log_probabilities(void **state)
{
    json_t *root, *all = trained_json(&root, *state, "rl/dpo_on_logps"), *c;
    size_t k, n = json_array_size(json_object_get(all, "chosen"));
    json_array_foreach(json_object_get(all, "cases"), k, c)
    {
        struct pairs_opts o = {PAIRS_SIGMOID, trained_number(c, "beta"),
                               trained_number(c, "label_smoothing")};
        double loss = 0;
        for (size_t i = 0; i < n; i++) {
            struct pairs_side yes = {at(all, "chosen", i), at(all, "ref_chosen", i), 5};
            struct pairs_side no = {at(all, "rejected", i), at(all, "ref_rejected", i), 7};
            double up, down;
            loss += pairs_loss(&o, &yes, &no, &up, &down) / (double)n;
            assert_true(fabs(up / (double)n - at(c, "grad_chosen", i)) < 1e-6);
            assert_true(fabs(down / (double)n - at(c, "grad_rejected", i)) < 1e-6);
            assert_true(fabs(o.beta * (yes.logp - yes.ref) - at(c, "rewards_chosen", i)) < 1e-5);
            assert_true(fabs(o.beta * (no.logp - no.ref) - at(c, "rewards_rejected", i)) < 1e-5);
        }
        assert_true(fabs(loss - trained_number(c, "loss")) < 1e-6);
    }
    assert_true(k >= 3);
    json_decref(root);
}

static void derivatives_are_slopes(void **state)
{
    (void)state;
    static const char *const names[] = {"sigmoid", "robust", "hinge", "ipo", "sigmoid_norm"};
    for (size_t k = 0; k < NUM_COUNT(names); k++)
        for (double lp = -40; lp < 40; lp += 3.7) {
            struct pairs_opts o = {.beta = 0.3, .smoothing = k < 2 ? 0.2 : 0};
            assert_true(pairs_kind_parse(&o.kind, names[k]));
            struct pairs_side yes = {lp, -3, 4}, no = {-7, -6.5, 9};
            double up, down, a, b, h = 1e-4;
            double here = pairs_loss(&o, &yes, &no, &up, &down);
            assert_true(isfinite(here));
            for (int side = 0; side < 2; side++) {
                struct pairs_side *s = side ? &no : &yes;
                double was = s->logp, x, y;
                s->logp = was + h;
                a = pairs_loss(&o, &yes, &no, &x, &y);
                s->logp = was - h;
                b = pairs_loss(&o, &yes, &no, &x, &y);
                s->logp = was;
                double want = side ? down : up, got = (a - b) / (2 * h);
                if (fabs(got - want) > 1e-6 * fmax(1, fabs(want)))
                    fail_msg("%s at %g: derivative %g, slope %g", names[k], lp, want, got);
            }
        }
    enum pairs_kind kind;
    assert_false(pairs_kind_parse(&kind, "nonsense"));
    /* Far out nothing overflows. */
    struct pairs_opts o = {PAIRS_SIGMOID, 1, 0};
    struct pairs_side yes = {-5000, 0, 1}, no = {0, 0, 1};
    double up, down;
    assert_true(pairs_loss(&o, &yes, &no, &up, &down) == 5000 && up == -1 && down == 1);
}

static void gradients_are_trl_s(void **state)
{
    static const size_t order[] = {0, 2, 1, 3}; /* the reference has the chosen ones first */
    static struct trained_batch b;
    static float ref[4][TRAINED_TOKENS];
    const char *model = *state;
    char path[600];
    struct err e = {0};
    struct trained x;
    struct train_result r;
    json_t *root, *want = trained_json(&root, model, "rl/dpo_model");
    trained_open(&x, trained_path(path, model, NULL), &(struct trained_how){.threads = 2});
    struct golden *g = golden_load(trained_path(path, model, "rl.safetensors"));
    struct golden_tensor ids = golden_get(g, "input_ids"), mask = golden_get(g, "attention_mask"),
                         said = golden_get(g, "completion_mask"),
                         refs = golden_get(g, "ref_token_logps");
    trained_rows(&b, &ids, &mask, &said, order, 4, 2);
    for (size_t i = 0; i < 4; i++)
        for (size_t t = b.seq[i].prompt; t < b.seq[i].n; t++)
            ref[i][t - b.seq[i].prompt] = refs.f32[order[i] * refs.dim[1] + t - 1];
    float *out[] = {ref[0], ref[1], ref[2], ref[3]};
    struct loss_pairs pairs = {.opts = {PAIRS_SIGMOID, trained_number(want, "beta"), 0},
                               .logp = {.temperature = 1},
                               .ref = out,
                               .pairs = 2};
    struct train_loss loss = {.pass = loss_pairs_pass, .arg = &pairs, .pairs = true};
    trained_die(trainer_step(x.t, &b.b, &loss, 0, &r, &e), &e);
    double got = r.stat[PAIRS_LOSS] / 2, exact = trained_number(want, "loss");
    print_message("# %s: loss %.9g, want %.9g\n", model, got, exact);
    assert_true(fabs(got - exact) <= 1e-5 * exact);
    double chosen = at(want, "logps", 0) + at(want, "logps", 1);
    assert_true(fabs(r.stat[PAIRS_LOGP_CHOSEN] - chosen) <= 1e-5 * fabs(chosen));
    assert_true(trained_check_gradients(&x, g, "dpo.grad.") >= 5);
    loss_pairs_release(&pairs);
    golden_free(g);
    json_decref(root);
    trained_close(&x);
}

/* Three steps from the model as it is; the bits of everything that was learned. */
static uint64_t three_steps(const char *model, const struct trained_how *how, double *last)
{
    static const size_t len[] = {30, 12, 9, 33, 25, 25, 18, 40};
    static struct trained_batch b;
    static float ref[8][TRAINED_TOKENS];
    char path[600];
    float *out[8];
    struct err e = {0};
    struct trained x;
    struct policy_ref was;
    struct loss_pairs pairs = {
        .opts = {PAIRS_SIGMOID, 0.1, 0}, .logp = {.temperature = 1}, .ref = out, .pairs = 4};
    struct train_loss loss = {.pass = loss_pairs_pass, .arg = &pairs, .pairs = true};
    trained_open(&x, trained_path(path, model, NULL), how);
    trained_die(policy_ref_init(&was, x.t, x.comm, &e), &e);
    trained_made(&b, len, 8, 2, 200);
    for (size_t i = 0; i < 8; i++)
        out[i] = ref[i];
    for (int step = 0; step < 3; step++) {
        struct train_result r;
        trained_die(policy_ref_logps(&was, &b.b, 1, 0, out, &e), &e);
        trained_die(trainer_step(x.t, &b.b, &loss, 1e-3, &r, &e), &e);
        if (step == 0) /* the policy is the reference */
            assert_true(fabs(r.stat[PAIRS_LOSS] / 4 - log(2)) < 1e-12);
        *last = r.stat[PAIRS_LOSS] / 4;
    }
    uint64_t h = trained_hash(&x);
    policy_ref_release(&was);
    loss_pairs_release(&pairs);
    trained_close(&x);
    return h;
}

static void bits_do_not_depend_on_the_way(void **state)
{
    double loss, other;
    uint64_t h = three_steps(*state, &(struct trained_how){.threads = 1}, &loss);
    assert_true(loss < log(2)); /* it learns */
    static const struct trained_how ways[] = {
        {.threads = 2, .pass_tokens = 64}, {.threads = 3, .pass_tokens = 100, .recompute = true}};
    for (size_t i = 0; i < NUM_COUNT(ways); i++) {
        assert_true(three_steps(*state, &ways[i], &other) == h);
        assert_true(other == loss);
    }
}

#define MODEL(test, name)                                           \
    {                                                               \
#test " " name, test, NULL, NULL, (void *)(uintptr_t)(name) \
    }

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        MODEL(given_log_probabilities, "llama"),      cmocka_unit_test(derivatives_are_slopes),
        MODEL(gradients_are_trl_s, "llama"),          MODEL(gradients_are_trl_s, "qwen2"),
        MODEL(gradients_are_trl_s, "dsv3"),           MODEL(bits_do_not_depend_on_the_way, "llama"),
        MODEL(bits_do_not_depend_on_the_way, "dsv3"),
    };
    trained_folder(argc, argv);
    return cmocka_run_group_tests_name("train/dpo", tests, NULL, NULL);
}
