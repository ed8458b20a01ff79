/* The policy losses against TRL's own numbers (tests/golden/train), against finite differences
 * where TRL has none, and their advantages. */
#include "support/golden.h"
#include "train/policy.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX = 64 };

static double near(double a, double b)
{
    return fabs(a - b) / fmax(1, fabs(b));
}

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v))
        fail_msg("grpo.json: %s is no number", key);
    return json_number_value(v);
}

static struct golden_tensor of_case(const struct golden *g, const json_t *c, const char *what)
{
    char name[128];
    snprintf(name, sizeof name, "data%d.%s", (int)number(c, "data"), what);
    return golden_get(g, "%s", name);
}

static void check_case(const struct golden *g, const json_t *c)
{
    const char *name = json_string_value(json_object_get(c, "name"));
    struct golden_tensor logp = of_case(g, c, "logps"), old = of_case(g, c, "old_logps"),
                         ref = of_case(g, c, "ref_logps"), adv = of_case(g, c, "advantages"),
                         mask = of_case(g, c, "mask");
    struct golden_tensor want = golden_get(g, "%s.grad_logps", name);
    size_t rows = logp.dim[0], cols = logp.dim[1];
    assert_true(cols <= MAX);
    struct policy_opts o;
    policy_opts_init(&o);
    assert_true(policy_kind_parse(&o.kind, json_string_value(json_object_get(c, "loss_type"))));
    o.beta = number(c, "beta");
    o.epsilon = number(c, "epsilon_low");
    o.epsilon_high = number(c, "epsilon_high");
    o.sequence =
        !strcmp(json_string_value(json_object_get(c, "importance_sampling_level")), "sequence");
    o.longest = (size_t)number(c, "max_completion_length");
    o.rows = (double)rows;
    o.tokens = number(c, "num_items_in_batch");
    struct policy_stats sum = {0};
    for (size_t r = 0; r < rows; r++) {
        uint8_t on[MAX];
        float grad[MAX];
        for (size_t t = 0; t < cols; t++) {
            size_t i = r * cols + t;
            on[t] = !strcmp(mask.dtype, "F32")     ? mask.f32[i] != 0
                    : mask.bytes / mask.count == 8 ? mask.i64[i] != 0
                    : mask.bytes / mask.count == 4 ? mask.i32[i] != 0
                                                   : mask.u8[i] != 0;
        }
        struct policy_row row = {.n = cols,
                                 .logp = logp.f32 + r * cols,
                                 .ref = ref.f32 + r * cols,
                                 .mask = on,
                                 .advantage = adv.f32[r],
                                 .grad = grad};
        if (json_is_true(json_object_get(c, "use_old_logps")))
            row.old = old.f32 + r * cols;
        policy_loss(&o, &row, &sum);
        for (size_t t = 0; t < cols; t++)
            if (near(grad[t], want.f32[r * cols + t]) > 1e-6)
                fail_msg("%s: row %zu, token %zu: gradient %g, TRL has %g", name, r, t, grad[t],
                         want.f32[r * cols + t]);
    }
    if (near(sum.loss, number(c, "loss")) > 1e-6)
        fail_msg("%s: loss %.9g, TRL has %.9g", name, sum.loss, number(c, "loss"));
    const json_t *metrics = json_object_get(c, "metrics");
    double by = o.sequence ? sum.rows : sum.tokens;
    assert_true(near(sum.clip_low / by, number(metrics, "clip_ratio/low_mean")) < 1e-6);
    assert_true(near(sum.clip_high / by, number(metrics, "clip_ratio/high_mean")) < 1e-6);
    if (o.beta != 0)
        assert_true(near(sum.kl / sum.tokens, number(metrics, "kl")) < 1e-6);
}

static json_t *golden_json(void)
{
    json_error_t je;
    json_t *j = json_load_file(GOLDEN_DIR "/train/grpo.json", 0, &je);
    if (!j)
        fail_msg("grpo.json: %s", je.text);
    return j;
}

static void losses_and_gradients_are_trl_s(void **state)
{
    (void)state;
    struct golden *g = golden_load("train/grpo.safetensors");
    json_t *j = golden_json(), *c;
    size_t i;
    assert_true(json_array_size(json_object_get(j, "cases")) >= 50);
    json_array_foreach(json_object_get(j, "cases"), i, c) check_case(g, c);
    json_decref(j);
    golden_free(g);
}

static void advantages_are_trl_s(void **state)
{
    (void)state;
    static const char *const keys[] = {"advantages_group", "advantages_batch", "advantages_none"};
    static const char *const names[] = {"group", "batch", "none"};
    json_t *j = golden_json(), *c;
    size_t i;
    json_array_foreach(json_object_get(j, "advantages"), i, c)
    {
        json_t *r = json_object_get(c, "rewards");
        size_t n = json_array_size(r);
        double reward[MAX], out[MAX];
        for (size_t k = 0; k < n; k++)
            reward[k] = json_number_value(json_array_get(r, k));
        for (size_t m = 0; m < 3; m++) {
            enum policy_scale scale;
            assert_true(policy_scale_parse(&scale, names[m]));
            policy_advantages(out, reward, n, (size_t)number(c, "group_size"), scale, NULL);
            for (size_t k = 0; k < n; k++)
                assert_true(near(out[k], json_number_value(json_array_get(
                                             json_object_get(c, keys[m]), k))) < 1e-6);
        }
    }
    json_decref(j);
}

/* What TRL's cases leave out: cispo, the cap δ, GSPO with every divisor, the corrected KL. */
static void gradients_are_the_slopes_of_the_loss(void **state)
{
    (void)state;
    static const float old[] = {-1.1F, -0.3F, -2.0F, -0.9F, -1.6F},
                       ref[] = {-1.0F, -0.5F, -1.7F, -1.2F, -1.4F};
    static const float base[] = {-0.6F, -0.31F, -2.9F, -0.2F, -1.5F};
    static const uint8_t mask[] = {1, 1, 1, 0, 1};
    for (int kind = POLICY_GRPO; kind <= POLICY_CISPO; kind++)
        for (int form = 0; form < 16; form++) {
            struct policy_opts o = {.kind = (enum policy_kind)kind,
                                    .sequence = form & 1,
                                    .epsilon = 0.2,
                                    .epsilon_high = kind == POLICY_CISPO ? 5 : 0.28,
                                    .delta = form & 2 ? 1.9 : 0,
                                    .beta = form & 4 ? 0.04 : 0,
                                    .kl_corrected = form & 4,
                                    .longest = 9,
                                    .rows = 3,
                                    .tokens = 11};
            if (kind == POLICY_CISPO && (form & 3))
                continue;
            double a = form & 8 ? -0.7 : 1.3;
            for (size_t t = 0; t < 5; t++) {
                float lp[5], grad[5], other[5];
                double at[2];
                memcpy(lp, base, sizeof lp);
                struct policy_row row = {5, lp, old, ref, mask, NULL, a, grad};
                struct policy_stats here = {0};
                policy_loss(&o, &row, &here);
                row.grad = other;
                for (int side = 0; side < 2; side++) {
                    struct policy_stats s = {0};
                    lp[t] = base[t] + (side ? 1 : -1) * 0x1p-10F;
                    policy_loss(&o, &row, &s);
                    at[side] = s.loss;
                }
                double slope = (at[1] - at[0]) / 0x1p-9;
                if (kind == POLICY_CISPO) /* the factor is held constant: not the loss's slope */
                    slope = t == 3 ? 0 : -fmin(exp(base[t] - old[t]), 5) * a / 11;
                if (kind == POLICY_CISPO && (form & 4) && t != 3) {
                    double d = ref[t] - base[t], w = exp(base[t] - old[t]);
                    slope += 0.04 * w * (1 - exp(d) + exp(d) - d - 1) / 11;
                }
                if (fabs(slope - grad[t]) > 2e-5)
                    fail_msg("kind %d form %d token %zu: gradient %g, slope %g", kind, form, t,
                             grad[t], slope);
            }
        }
}

static void groups_without_a_difference_teach_nothing(void **state)
{
    (void)state;
    const double reward[] = {0.1, 0.1, 0.1, 1, 0, NAN};
    double out[6];
    size_t dead;
    policy_advantages(out, reward, 6, 3, POLICY_SCALE_GROUP, &dead);
    assert_int_equal(dead, 1);
    for (size_t i = 0; i < 3; i++)
        assert_true(out[i] == 0);
    assert_true(out[3] > 0 && out[4] == -out[3] && out[5] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_and_gradients_are_trl_s),
        cmocka_unit_test(advantages_are_trl_s),
        cmocka_unit_test(gradients_are_the_slopes_of_the_loss),
        cmocka_unit_test(groups_without_a_difference_teach_nothing),
    };
    return cmocka_run_group_tests_name("train/policy", tests, NULL, NULL);
}
