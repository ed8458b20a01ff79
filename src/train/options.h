/*
 * Options of training stages, as tables: command lines and recipes set the same rows.
 *
 * Names and defaults are those of TRL and transformers where these have them (`_` is as good as
 * `-`). What differs is said in a row's help: above all, the batch of a step is
 * per-device-train-batch-size × gradient-accumulation-steps whatever the number of ranks, because
 * results do not depend on ranks.
 */
#ifndef PONDER_TRAIN_OPTIONS_H
#define PONDER_TRAIN_OPTIONS_H

#include "base/opt.h"

struct train_options {
    /* model and files */
    const char *model, *output, *isa, *resume, *save_type;
    struct opt_list dataset, eval_dataset;
    int64_t threads;
    int overwrite;
    /* data */
    const char *packing, *overflow, *text_field, *system;
    int64_t max_length;
    int completion_only, assistant_only, ordered;
    double test_size;
    /* steps */
    int64_t batch, accumulation, max_steps, seed, pass_tokens;
    double epochs;
    int recompute, bf16;
    /* optimizer and schedule */
    double lr, beta1, beta2, epsilon, weight_decay, max_grad_norm, warmup_ratio;
    int64_t warmup_steps;
    const char *scheduler, *scheduler_args;
    /* DeepSeek's own */
    double mtp_weight, balance, router_rate;
    /* log and checkpoints */
    int64_t logging_steps, save_steps, save_limit, eval_steps, eval_batch;
    int save_best, dry_run;
    /* adapters */
    int use_peft, use_rslora;
    int64_t lora_r, lora_alpha;
    double lora_dropout;
    const char *lora_targets;
    /* dpo, reward */
    double beta, label_smoothing, center;
    const char *dpo_loss, *reward_kind;
    /* distill */
    const char *teacher, *distill_loss;
    double distill_temperature, distill_beta, distill_weight;
    /* sampling: grpo, rejection */
    int64_t generations, max_completion, top_k, max_prompt;
    double temperature, top_p, min_p;
    /* grpo */
    const char *loss_type, *scale_rewards, *importance, *rewards, *reward_weights, *ref_model,
        *reward_model, *reward_command, *language;
    double epsilon_low, epsilon_high, delta, entropy_coef, top_entropy, kl_beta, ref_alpha;
    int64_t iterations, steps_per_generation, ref_steps, cache_tokens, soft_cache;
    int mask_truncated, dynamic_sampling, sync_ref, kl_corrected, log_completions;
    int64_t dynamic_rounds;
    double soft_overlong;
    /* rejection */
    int64_t keep_each;
    const char *keep_rule;
    double max_mixed;
};

/* Rows of a group: their number is written twice so that it is a constant; a table with fewer has a
   row without a name, which tests/train/test_options.c finds. */
enum {
    TRAIN_N_MODEL = 8,
    TRAIN_N_DATA = 11,
    TRAIN_N_STEPS = 7,
    TRAIN_N_OPTIM = 10,
    TRAIN_N_DEEPSEEK = 3,
    TRAIN_N_LOG = 6,
};
extern const struct opt train_rows_model[TRAIN_N_MODEL];
extern const struct opt train_rows_data[TRAIN_N_DATA];
extern const struct opt train_rows_steps[TRAIN_N_STEPS];
extern const struct opt train_rows_optim[TRAIN_N_OPTIM];
extern const struct opt train_rows_deepseek[TRAIN_N_DEEPSEEK];
extern const struct opt train_rows_log[TRAIN_N_LOG];

/* Entries of a stage's array of groups. */
#define TRAIN_GROUP_MODEL                                     \
    {                                                         \
        "Model and files", train_rows_model, TRAIN_N_MODEL, 0 \
    }
#define TRAIN_GROUP_DATA                         \
    {                                            \
        "Data", train_rows_data, TRAIN_N_DATA, 0 \
    }
#define TRAIN_GROUP_STEPS                           \
    {                                               \
        "Steps", train_rows_steps, TRAIN_N_STEPS, 0 \
    }
#define TRAIN_GROUP_OPTIM                               \
    {                                                   \
        "Optimizer", train_rows_optim, TRAIN_N_OPTIM, 0 \
    }
#define TRAIN_GROUP_DEEPSEEK                                 \
    {                                                        \
        "DeepSeek", train_rows_deepseek, TRAIN_N_DEEPSEEK, 0 \
    }
#define TRAIN_GROUP_LOG                                       \
    {                                                         \
        "Log and checkpoints", train_rows_log, TRAIN_N_LOG, 0 \
    }

#endif
