/*
 * Steps of the trainer against PyTorch's (tests/golden/train): AdamW on three batches, GRPO on the
 * model.
 *
 * Another folder of the same form: an argument, or PONDER_TRAIN_GOLDEN.
 */
#include "train/loss_ce.h"
#include "train/loss_policy.h"
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

/* ---- AdamW ----------------------------------------------------------------------------------- */

static void sft_batch(struct trained_batch *b, const struct golden *g, int number)
{
    static const size_t order[] = {0, 1, 2, 3, 4, 5, 6, 7};
    struct golden_tensor ids = golden_get(g, "b%d.input_ids", number);
    struct golden_tensor label = golden_get(g, "b%d.labels", number);
    struct golden_tensor mask = golden_get(g, "b%d.attention_mask", number);
    trained_rows(b, &ids, &mask, NULL, order, ids.dim[0], 1);
    for (size_t s = 0; s < ids.dim[0]; s++)
        for (size_t t = 1; t < b->seq[s].n; t++) /* right-padded */
            b->target[s][t] = label.i32[s * ids.dim[1] + t] >= 0;
}

static void check_number(const char *model, const char *what, size_t step, double got, double want)
{
    print_message("# %s step %zu: %s %.9g, want %.9g\n", model, step + 1, what, got, want);
    if (!(fabs(got - want) <= 1e-5 * fabs(want)))
        fail_msg("%s step %zu: %s %.9g, want %.9g", model, step + 1, what, got, want);
}

static void adamw_is_pytorch_s(void **state)
{
    const char *model = *state;
    char path[600];
    struct err e = {0};
    struct trained x;
    struct trained_how how = {.threads = 2, .max_grad_norm = 1, .weight_decay = 0.1, .beta2 = 0.95};
    struct loss_ce ce;
    loss_ce_init(&ce, 0);
    struct train_loss loss = {.pass = loss_ce_pass, .arg = &ce};
    json_t *root, *sft = trained_json(&root, model, "sft");
    trained_open(&x, trained_path(path, model, NULL), &how);
    struct golden *g = golden_load(trained_path(path, model, "batches.safetensors"));
    for (size_t step = 0; step < 3; step++) {
        static struct trained_batch b;
        struct train_result r;
        sft_batch(&b, g, (int)step);
        loss_ce_aim(&ce, &b.b);
        trained_die(trainer_step(x.t, &b.b, &loss, 1e-3, &r, &e), &e);
        check_number(
            model, "loss", step, r.stat[CE_LOSS] / r.stat[CE_TOKENS],
            json_number_value(json_array_get(json_object_get(sft, "loss_per_step"), step)));
        check_number(
            model, "norm", step, r.norm,
            json_number_value(json_array_get(json_object_get(sft, "grad_norm_before_clip"), step)));
        if (step == 1)
            continue;
        struct golden *want = golden_load(trained_path(
            path, model, step ? "params_step3_selected.safetensors" : "params_step1.safetensors"));
        size_t n = trained_check_values(&x, want, 2 * 1e-3 * (double)(step + 1));
        assert_true(n >= (step ? 3 : 15));
        golden_free(want);
    }
    golden_free(g);
    json_decref(root);
    loss_ce_release(&ce);
    trained_close(&x);
}

/* ---- GRPO on a model ------------------------------------------------------------------------- */

enum { ROWS = 4 };

/* Log-probabilities of completions from a reference's (rows, t − 1). */
static void completion_logps(const struct trained_batch *b, const struct golden_tensor *all,
                             float out[ROWS][TRAINED_TOKENS])
{
    for (size_t i = 0; i < ROWS; i++)
        for (size_t t = b->seq[i].prompt; t < b->seq[i].n; t++)
            out[i][t - b->seq[i].prompt] = all->f32[i * all->dim[1] + t - 1];
}

static void grpo_on_a_model(const char *model, const char *kind, const char *prefix)
{
    static const size_t order[] = {0, 1, 2, 3};
    static struct trained_batch b;
    static float was[ROWS][TRAINED_TOKENS], ref[ROWS][TRAINED_TOKENS];
    char path[600], where[64];
    struct err e = {0};
    struct trained x;
    struct train_result r;
    json_t *root, *rl;
    snprintf(where, sizeof where, "rl/grpo_model_%s", kind);
    rl = trained_json(&root, model, where);
    trained_open(&x, trained_path(path, model, NULL), &(struct trained_how){.threads = 2});
    struct golden *g = golden_load(trained_path(path, model, "rl.safetensors"));
    struct golden_tensor ids = golden_get(g, "input_ids"), mask = golden_get(g, "attention_mask"),
                         said = golden_get(g, "completion_mask"),
                         refs = golden_get(g, "ref_token_logps"),
                         logps = golden_get(g, "token_logps");
    trained_rows(&b, &ids, &mask, &said, order, ROWS, 1);
    completion_logps(&b, &refs, ref);
    /* The policy's own log-probabilities: the reference's within rounding, and then on policy. */
    float *out[ROWS] = {was[0], was[1], was[2], was[3]};
    struct logp_look look = {.logp = {.temperature = 1}, .out = out};
    struct train_loss seen = {.pass = logp_look_pass, .arg = &look};
    trained_die(trainer_look(x.t, &b.b, &seen, &r, &e), &e);
    struct loss_policy pg = {.logp = {.temperature = 1}, .on_policy = true};
    struct loss_policy_row row[ROWS];
    policy_opts_init(&pg.opts);
    assert_true(policy_kind_parse(&pg.opts.kind, kind));
    pg.opts.beta = trained_number(rl, "beta");
    pg.opts.rows = ROWS;
    pg.row = row;
    for (size_t i = 0; i < ROWS; i++) {
        size_t n = logp_count(&b.seq[i]);
        row[i] = (struct loss_policy_row){
            .old = was[i],
            .ref = ref[i],
            .n = n,
            .advantage = json_number_value(json_array_get(json_object_get(rl, "advantages"), i))};
        pg.opts.tokens += (double)n;
        for (size_t t = 0; t < n; t++) {
            double want = logps.f32[i * logps.dim[1] + b.seq[i].prompt + t - 1];
            assert_true(fabs((double)was[i][t] - want) <= 1e-5 * fmax(1, fabs(want)));
        }
    }
    struct train_loss loss = {.pass = loss_policy_pass, .arg = &pg};
    trained_die(trainer_step(x.t, &b.b, &loss, 0, &r, &e), &e);
    double want = trained_number(rl, "loss");
    print_message("# %s %s: loss %.9g, want %.9g\n", model, kind, r.stat[PG_LOSS], want);
    assert_true(fabs(r.stat[PG_LOSS] - want) <= 1e-5 * fmax(fabs(want), 1e-2));
    assert_true(r.stat[PG_CHECKED] == pg.opts.tokens); /* all the same bits */
    assert_true(trained_check_gradients(&x, g, prefix) >= 5);
    logp_release(&look.logp);
    loss_policy_release(&pg);
    golden_free(g);
    json_decref(root);
    trained_close(&x);
}

static void grpo_is_trl_s(void **state)
{
    grpo_on_a_model(*state, "grpo", "grpo_grpo.grad.");
    grpo_on_a_model(*state, "dapo", "grpo_dapo.grad.");
}

/* ---- the reference --------------------------------------------------------------------------- */

static double one_logp(struct policy_ref *r, struct trained_batch *b, float at[TRAINED_TOKENS])
{
    struct err e = {0};
    float *out[] = {at};
    double sum = 0;
    trained_die(policy_ref_logps(r, &b->b, 1, 0, out, &e), &e);
    for (size_t t = 0; t < logp_count(&b->seq[0]); t++)
        sum += (double)at[t];
    return sum;
}

/* It stays where it is while the policy learns, and follows when it is told to. */
static void the_reference_stays(void **state)
{
    static struct trained_batch b;
    static const size_t len[] = {21};
    float at[TRAINED_TOKENS];
    char path[600];
    struct err e = {0};
    struct trained x;
    struct policy_ref ref;
    struct train_result r;
    struct loss_ce ce;
    loss_ce_init(&ce, 0);
    struct train_loss loss = {.pass = loss_ce_pass, .arg = &ce};
    trained_open(&x, trained_path(path, *state, NULL), &(struct trained_how){.threads = 2});
    trained_die(policy_ref_init(&ref, x.t, x.comm, &e), &e);
    trained_made(&b, len, 1, 1, 200);
    double first = one_logp(&ref, &b, at);
    loss_ce_aim(&ce, &b.b);
    for (int i = 0; i < 3; i++)
        trained_die(trainer_step(x.t, &b.b, &loss, 1e-3, &r, &e), &e);
    uint64_t now = trained_hash(&x);
    assert_true(one_logp(&ref, &b, at) == first);
    assert_true(trained_hash(&x) == now); /* the policy is back */
    policy_ref_follow(&ref, 1);
    double later = one_logp(&ref, &b, at);
    assert_true(later > first); /* what the policy has learned */
    trained_die(trainer_look(x.t, &b.b, &loss, &r, &e), &e);
    assert_true(fabs(-later - r.stat[CE_LOSS]) < 1e-4);
    policy_ref_release(&ref);
    loss_ce_release(&ce);
    trained_close(&x);
}

#define MODEL(test, name)                                           \
    {                                                               \
#test " " name, test, NULL, NULL, (void *)(uintptr_t)(name) \
    }

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        MODEL(adamw_is_pytorch_s, "llama"), MODEL(adamw_is_pytorch_s, "qwen2"),
        MODEL(adamw_is_pytorch_s, "dsv3"),  MODEL(grpo_is_trl_s, "llama"),
        MODEL(grpo_is_trl_s, "qwen2"),      MODEL(grpo_is_trl_s, "dsv3"),
        MODEL(the_reference_stays, "dsv3"),
    };
    trained_folder(argc, argv);
    return cmocka_run_group_tests_name("train/steps", tests, NULL, NULL);
}
