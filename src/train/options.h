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
    int overwrite, dry_run;
    /* data */
    const char *packing, *overflow, *text_field, *system;
    int64_t max_length; /* of grpo: of a prompt */
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
    /* adapters */
    int use_peft, lora_rs;
    int64_t lora_r;
    double lora_alpha, lora_dropout;
    const char *lora_targets, *lora;
    /* log and checkpoints */
    int64_t logging_steps, save_steps, save_limit, eval_steps, eval_batch;
    int save_best;
    /* sampling */
    int64_t generations, max_completion, top_k, max_seqs;
    double temperature, top_p, min_p;
    int ignore_end;
    /* rewards */
    const char *rewards, *reward_weights, *reward_command;
    struct opt_list reward_models;
    int64_t soft_cache, reward_model_after;
    double command_weight, command_seconds;
    int allow_commands;
    /* rejection */
    const char *thresholds, *keep_rule;
    int64_t keep_each;
    /* dpo */
    const char *dpo_loss;
    double dpo_beta, label_smoothing;
    /* reward */
    const char *reward_loss;
    double center;
    /* distill */
    const char *teacher;
    double distill_beta, lmbda, distill_temperature;
    int64_t max_new_tokens;
    /* grpo */
    const char *loss_type, *scale_rewards, *importance;
    double kl_beta, epsilon_low, epsilon_high, delta, entropy_coef, top_entropy, ref_alpha;
    int64_t iterations, steps_per_generation, dynamic_rounds, ref_steps;
    int kl_corrected, mask_truncated, dynamic_sampling, sync_ref, log_completions;
};

/* Rows of a group: their number is written twice so that it is a constant; a table with fewer has a
   row without a name, which tests/train/test_options.c finds. */
enum {
    TRAIN_N_MODEL = 8,
    TRAIN_N_DATA = 11,
    TRAIN_N_STEPS = 8,
    TRAIN_N_OPTIM = 10,
    TRAIN_N_DEEPSEEK = 3,
    TRAIN_N_LORA = 7,
    TRAIN_N_LOG = 6,
    TRAIN_N_PROMPTS = 5,
    TRAIN_N_PAIRS = 7,
    TRAIN_N_DPO = 3,
    TRAIN_N_REWARD_MODEL = 2,
    TRAIN_N_DISTILL = 6,
    TRAIN_N_SAMPLING = 8,
    TRAIN_N_REWARDS = 9,
    TRAIN_N_REJECTION = 7,
    TRAIN_N_GRPO = 19,
};
extern const struct opt train_rows_model[TRAIN_N_MODEL];
extern const struct opt train_rows_data[TRAIN_N_DATA];
extern const struct opt train_rows_steps[TRAIN_N_STEPS];
extern const struct opt train_rows_optim[TRAIN_N_OPTIM];
extern const struct opt train_rows_deepseek[TRAIN_N_DEEPSEEK];
extern const struct opt train_rows_lora[TRAIN_N_LORA];
extern const struct opt train_rows_log[TRAIN_N_LOG];
extern const struct opt train_rows_prompts[TRAIN_N_PROMPTS];
extern const struct opt train_rows_pairs[TRAIN_N_PAIRS];
extern const struct opt train_rows_dpo[TRAIN_N_DPO];
extern const struct opt train_rows_reward_model[TRAIN_N_REWARD_MODEL];
extern const struct opt train_rows_distill[TRAIN_N_DISTILL];
extern const struct opt train_rows_sampling[TRAIN_N_SAMPLING];
extern const struct opt train_rows_rewards[TRAIN_N_REWARDS];
extern const struct opt train_rows_grpo[TRAIN_N_GRPO];
extern const struct opt train_rows_rejection[TRAIN_N_REJECTION];

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
#define TRAIN_GROUP_LORA                             \
    {                                                \
        "Adapters", train_rows_lora, TRAIN_N_LORA, 0 \
    }
#define TRAIN_GROUP_LOG                                       \
    {                                                         \
        "Log and checkpoints", train_rows_log, TRAIN_N_LOG, 0 \
    }
#define TRAIN_GROUP_PROMPTS                            \
    {                                                  \
        "Data", train_rows_prompts, TRAIN_N_PROMPTS, 0 \
    }
#define TRAIN_GROUP_PAIRS                          \
    {                                              \
        "Data", train_rows_pairs, TRAIN_N_PAIRS, 0 \
    }
#define TRAIN_GROUP_DPO                       \
    {                                         \
        "DPO", train_rows_dpo, TRAIN_N_DPO, 0 \
    }
#define TRAIN_GROUP_REWARD_MODEL                                         \
    {                                                                    \
        "Reward model", train_rows_reward_model, TRAIN_N_REWARD_MODEL, 0 \
    }
#define TRAIN_GROUP_DISTILL                               \
    {                                                     \
        "Teacher", train_rows_distill, TRAIN_N_DISTILL, 0 \
    }
#define TRAIN_GROUP_SAMPLING                                 \
    {                                                        \
        "Sampling", train_rows_sampling, TRAIN_N_SAMPLING, 0 \
    }
#define TRAIN_GROUP_REWARDS                               \
    {                                                     \
        "Rewards", train_rows_rewards, TRAIN_N_REWARDS, 0 \
    }
#define TRAIN_GROUP_GRPO                         \
    {                                            \
        "GRPO", train_rows_grpo, TRAIN_N_GRPO, 0 \
    }
#define TRAIN_GROUP_REJECTION                                      \
    {                                                              \
        "What is kept", train_rows_rejection, TRAIN_N_REJECTION, 0 \
    }

#endif
