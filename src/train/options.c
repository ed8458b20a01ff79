/* See options.h. */
#include "train/options.h"

#include <stddef.h>

#define AT(field) offsetof(struct train_options, field)

// clang-format off
const struct opt train_rows_model[TRAIN_N_MODEL] = {
    {.name = "model", .brief = 'm', .alias = "model-name-or-path model-name", .kind = OPT_STRING, .arg = "MODEL", .offset = AT(model),
     .help = "what is trained: a Hugging Face folder or a .gguf file"},
    {.name = "output-dir", .brief = 'o', .alias = "output", .kind = OPT_STRING, .arg = "RUN", .offset = AT(output),
     .help = "the run's folder: log, checkpoints and the result in RUN/model"},
    {.name = "overwrite-output-dir", .alias = "overwrite", .kind = OPT_FLAG, .offset = AT(overwrite),
     .help = "remove the run that is there; else it goes on where it was"},
    {.name = "resume-from-checkpoint", .alias = "resume", .kind = OPT_STRING, .arg = "STEP", .shown = "the newest", .offset = AT(resume),
     .help = "go on from that checkpoint of the run"},
    {.name = "save-type", .alias = "dtype", .kind = OPT_ENUM, .choices = "f32|bf16|f16", .value = "f32", .offset = AT(save_type),
     .help = "of the weights in RUN/model"},
    {.name = "threads", .brief = 't', .kind = OPT_INT, .arg = "N", .min = 0, .max = 256, .value = "0", .shown = "as many as there are cores", .env = "PONDER_THREADS", .offset = AT(threads),
     .help = "results do not depend on it"},
    {.name = "isa", .kind = OPT_ENUM, .choices = "auto|scalar|avx2|avx512|vnni", .value = "auto", .env = "PONDER_ISA", .offset = AT(isa),
     .help = "instruction set; results do not depend on it"},
    {.name = "dry-run", .kind = OPT_FLAG, .offset = AT(dry_run),
     .help = "say what would be done: memory, tokens, steps, time"},
};

const struct opt train_rows_data[TRAIN_N_DATA] = {
    {.name = "dataset", .brief = 'd', .alias = "dataset-name train-file", .kind = OPT_LIST, .arg = "FILE[:WEIGHT]", .offset = AT(dataset),
     .help = "JSON lines: text, messages, prompt and completion, or prompt, chosen and rejected; several are mixed by weight"},
    {.name = "eval-dataset", .alias = "validation-file", .kind = OPT_LIST, .arg = "FILE", .offset = AT(eval_dataset),
     .help = "measured now and then, never learned"},
    {.name = "test-size", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 0.9, .value = "0", .offset = AT(test_size),
     .help = "share of the records that is kept for evaluation, chosen by a hash of what is asked"},
    {.name = "max-length", .alias = "max-seq-length", .kind = OPT_SIZE, .arg = "N", .min = 2, .max = 1 << 24, .value = "1024", .offset = AT(max_length),
     .help = "tokens of a sequence, at most"},
    {.name = "overflow", .kind = OPT_ENUM, .choices = "truncate|drop", .value = "truncate", .offset = AT(overflow),
     .help = "what becomes of longer ones; how many is said"},
    {.name = "packing", .kind = OPT_ENUM, .choices = "none|bfd|bfd-split|wrapped", .shown = "none (pretrain: wrapped)", .offset = AT(packing),
     .help = "several sequences an item, up to --max-length tokens; none sees another"},
    {.name = "dataset-text-field", .kind = OPT_STRING, .arg = "NAME", .value = "text", .offset = AT(text_field),
     .help = "column of plain texts"},
    {.name = "system", .kind = OPT_STRING, .arg = "TEXT", .offset = AT(system),
     .help = "system message for conversations without one"},
    {.name = "completion-only-loss", .kind = OPT_SWITCH, .value = "1", .offset = AT(completion_only),
     .help = "prompts are read, not learned"},
    {.name = "assistant-only-loss", .kind = OPT_FLAG, .offset = AT(assistant_only),
     .help = "of conversations only what the assistant says is learned"},
    {.name = "ordered", .alias = "no-shuffle-dataset", .kind = OPT_FLAG, .offset = AT(ordered),
     .help = "records in the order of the files"},
};

const struct opt train_rows_steps[TRAIN_N_STEPS] = {
    {.name = "num-train-epochs", .brief = 'e', .alias = "epochs", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 1e6, .shown = "3, or the stage's", .offset = AT(epochs),
     .help = "how often the data are passed through"},
    {.name = "max-steps", .kind = OPT_INT, .arg = "N", .min = -1, .max = 1e9, .value = "-1", .shown = "by epochs", .offset = AT(max_steps),
     .help = "steps of the optimizer"},
    {.name = "per-device-train-batch-size", .brief = 'b', .alias = "batch-size train-batch-size", .kind = OPT_INT, .arg = "N", .min = 1, .max = 1 << 20, .value = "8", .offset = AT(batch),
     .help = "items of a step (all ranks together), times"},
    {.name = "gradient-accumulation-steps", .kind = OPT_INT, .arg = "N", .min = 1, .max = 1 << 20, .value = "1", .offset = AT(accumulation),
     .help = "this"},
    {.name = "pass-tokens", .kind = OPT_SIZE, .arg = "N", .min = 64, .max = 1 << 24, .value = "4096", .offset = AT(pass_tokens),
     .help = "tokens that go through the model together: memory, not results, depends on it"},
    {.name = "gradient-checkpointing", .kind = OPT_FLAG, .offset = AT(recompute),
     .help = "less memory, a third more work, the same bits"},
    {.name = "bf16", .kind = OPT_FLAG, .offset = AT(bf16),
     .help = "products by weights rounded to BF16: faster; values, sums and checkpoints stay F32"},
    {.name = "seed", .kind = OPT_INT, .arg = "N", .min = 0, .max = 9e18, .value = "42", .offset = AT(seed),
     .help = "of everything random; the same seed gives the same bits"},
};

const struct opt train_rows_optim[TRAIN_N_OPTIM] = {
    {.name = "learning-rate", .brief = 'l', .alias = "lr", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 1e3, .shown = "by stage", .offset = AT(lr),
     .help = "the largest"},
    {.name = "lr-scheduler-type", .alias = "scheduler", .kind = OPT_STRING, .arg = "NAME", .shown = "linear, or the stage's", .offset = AT(scheduler),
     .help = "linear, cosine, cosine_with_min_lr, constant, constant_with_warmup, …"},
    {.name = "lr-scheduler-kwargs", .kind = OPT_STRING, .arg = "JSON", .offset = AT(scheduler_args),
     .help = "its settings, like {\"min_lr_rate\": 0.1}"},
    {.name = "warmup-steps", .kind = OPT_INT, .arg = "N", .min = 0, .max = 1e9, .value = "0", .offset = AT(warmup_steps),
     .help = "steps in which the rate rises"},
    {.name = "warmup-ratio", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 1, .shown = "0, or the stage's", .offset = AT(warmup_ratio),
     .help = "the same as a share of all steps"},
    {.name = "weight-decay", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 10, .shown = "0, or the stage's", .offset = AT(weight_decay),
     .help = "of matrices; norms and biases have none"},
    {.name = "adam-beta1", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 0.999999, .value = "0.9", .offset = AT(beta1), .help = "AdamW's"},
    {.name = "adam-beta2", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 0.9999999, .shown = "0.999, or the stage's", .offset = AT(beta2), .help = "AdamW's"},
    {.name = "adam-epsilon", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 1, .value = "1e-8", .offset = AT(epsilon), .help = "AdamW's"},
    {.name = "max-grad-norm", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 1e9, .value = "1", .offset = AT(max_grad_norm),
     .help = "the gradient is cut to this length; 0: never"},
};

const struct opt train_rows_deepseek[TRAIN_N_DEEPSEEK] = {
    {.name = "mtp-weight", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 10, .value = "0", .offset = AT(mtp_weight),
     .help = "of the multi-token prediction layer's loss; 0: the layer is left alone (V3: 0.3, then 0.1)"},
    {.name = "balance-loss", .alias = "aux-loss-alpha", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 10, .value = "0", .offset = AT(balance),
     .help = "of the sequence-wise balance of experts (V3: 1e-4)"},
    {.name = "router-bias-rate", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 1, .value = "0", .offset = AT(router_rate),
     .help = "by which routers' biases move towards experts with less to do (V3: 0.001)"},
};

const struct opt train_rows_lora[TRAIN_N_LORA] = {
    {.name = "use-peft", .kind = OPT_FLAG, .offset = AT(use_peft),
     .help = "train a LoRA adapter; the model stays as it is, quantized or not (QLoRA)"},
    {.name = "lora", .alias = "adapter adapter-name-or-path", .kind = OPT_STRING, .arg = "DIR", .offset = AT(lora),
     .help = "go on with this adapter of the model (PEFT's layout): its rank, alpha and layers stay; --use-peft goes without saying"},
    {.name = "lora-r", .kind = OPT_INT, .arg = "N", .min = 1, .max = 4096, .shown = "16", .offset = AT(lora_r),
     .help = "its rank"},
    {.name = "lora-alpha", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 1e6, .shown = "32", .offset = AT(lora_alpha),
     .help = "its products count X / rank times"},
    {.name = "lora-dropout", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 0.99, .shown = "0.05 (dpo, grpo: 0)", .offset = AT(lora_dropout),
     .help = "share of its inputs that a step leaves out"},
    {.name = "use-rslora", .kind = OPT_FLAG, .offset = AT(lora_rs), .help = "X / √rank times"},
    {.name = "lora-target-modules", .kind = OPT_STRING, .arg = "LIST", .shown = "all-linear", .offset = AT(lora_targets),
     .help = "ends of layers' names: q_proj,v_proj; all-linear: all of them but the head, routers and routed experts"},
};

const struct opt train_rows_log[TRAIN_N_LOG] = {
    {.name = "logging-steps", .kind = OPT_INT, .arg = "N", .min = 1, .max = 1e9, .value = "10", .offset = AT(logging_steps),
     .help = "a line of the log every N steps"},
    {.name = "save-steps", .kind = OPT_INT, .arg = "N", .min = 0, .max = 1e9, .value = "500", .offset = AT(save_steps),
     .help = "a checkpoint every N steps; 0: none"},
    {.name = "save-total-limit", .kind = OPT_INT, .arg = "N", .min = 0, .max = 1e6, .value = "3", .offset = AT(save_limit),
     .help = "checkpoints that are kept; 0: all"},
    {.name = "load-best-model-at-end", .kind = OPT_FLAG, .offset = AT(save_best),
     .help = "the result is the checkpoint with the best evaluation, which is kept"},
    {.name = "eval-steps", .kind = OPT_INT, .arg = "N", .min = 0, .max = 1e9, .value = "0", .shown = "at the end", .offset = AT(eval_steps),
     .help = "evaluate every N steps"},
    {.name = "per-device-eval-batch-size", .alias = "eval-batch-size", .kind = OPT_INT, .arg = "N", .min = 1, .max = 1 << 20, .value = "8", .offset = AT(eval_batch),
     .help = "items that are evaluated together"},
};
// clang-format on
#undef AT

#define AT(field) offsetof(struct train_options, field)
// clang-format off
const struct opt train_rows_prompts[TRAIN_N_PROMPTS] = {
    {.name = "dataset", .brief = 'd', .alias = "dataset-name train-file", .kind = OPT_LIST, .arg = "FILE[:WEIGHT]", .offset = AT(dataset),
     .help = "JSON lines with a prompt, and columns for the rewards: id (of r1-gym), gold, language"},
    {.name = "max-prompt-length", .kind = OPT_SIZE, .arg = "N", .min = 1, .max = 1 << 24, .value = "512", .offset = AT(max_length),
     .help = "tokens of a prompt, at most; longer ones are left out, and counted"},
    {.name = "system", .kind = OPT_STRING, .arg = "TEXT", .offset = AT(system),
     .help = "system message for conversations without one"},
    {.name = "ordered", .alias = "no-shuffle-dataset", .kind = OPT_FLAG, .offset = AT(ordered),
     .help = "records in the order of the files"},
    {.name = "test-size", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 0.9, .value = "0", .offset = AT(test_size),
     .help = "share of the records that is left out, chosen by a hash of what is asked"},
};

const struct opt train_rows_pairs[TRAIN_N_PAIRS] = {
    {.name = "dataset", .brief = 'd', .alias = "dataset-name train-file", .kind = OPT_LIST, .arg = "FILE[:WEIGHT]", .offset = AT(dataset),
     .help = "JSON lines with chosen and rejected, and a prompt unless it is what both begin with; several are mixed by weight"},
    {.name = "eval-dataset", .alias = "validation-file", .kind = OPT_LIST, .arg = "FILE", .offset = AT(eval_dataset),
     .help = "measured now and then, never learned"},
    {.name = "test-size", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 0.9, .value = "0", .offset = AT(test_size),
     .help = "share of the records that is kept for evaluation, chosen by a hash of what is asked"},
    {.name = "max-length", .alias = "max-seq-length", .kind = OPT_SIZE, .arg = "N", .min = 2, .max = 1 << 24, .value = "1024", .offset = AT(max_length),
     .help = "tokens of prompt and completion, at most"},
    {.name = "overflow", .kind = OPT_ENUM, .choices = "truncate|drop", .value = "truncate", .offset = AT(overflow),
     .help = "what becomes of longer ones; how many is said"},
    {.name = "system", .kind = OPT_STRING, .arg = "TEXT", .offset = AT(system),
     .help = "system message for conversations without one"},
    {.name = "ordered", .alias = "no-shuffle-dataset", .kind = OPT_FLAG, .offset = AT(ordered),
     .help = "records in the order of the files"},
};

const struct opt train_rows_dpo[TRAIN_N_DPO] = {
    {.name = "loss-type", .kind = OPT_ENUM, .choices = "sigmoid|robust|hinge|ipo|sigmoid_norm", .value = "sigmoid", .offset = AT(dpo_loss),
     .help = "of a pair"},
    {.name = "beta", .kind = OPT_FLOAT, .arg = "X", .min = 1e-6, .max = 100, .value = "0.1", .offset = AT(dpo_beta),
     .help = "how firmly the policy stays near the one it began with"},
    {.name = "label-smoothing", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 0.499, .value = "0", .offset = AT(label_smoothing),
     .help = "share of pairs that may be the wrong way round (sigmoid, robust)"},
};

const struct opt train_rows_reward_model[TRAIN_N_REWARD_MODEL] = {
    {.name = "loss-type", .kind = OPT_ENUM, .choices = "pairwise|pointwise", .value = "pairwise", .offset = AT(reward_loss),
     .help = "from chosen and rejected, or from a completion and its label (true or false)"},
    {.name = "center-rewards-coefficient", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 1e3, .value = "0", .offset = AT(center),
     .help = "X times the square of a pair's sum is added to its loss (0.01 keeps scores around 0)"},
};

const struct opt train_rows_distill[TRAIN_N_DISTILL] = {
    {.name = "teacher-model", .alias = "teacher-model-name-or-path teacher", .kind = OPT_STRING, .arg = "MODEL", .offset = AT(teacher),
     .help = "whose distributions are learned: a folder or a .gguf file of any types, with the same tokens"},
    {.name = "beta", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 1, .value = "0.5", .offset = AT(distill_beta),
     .help = "0: forward KL; 1: reverse KL; between: the generalised Jensen-Shannon divergence"},
    {.name = "lmbda", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 1, .value = "0.5", .offset = AT(lmbda),
     .help = "share of the steps in which the student answers the prompts itself"},
    {.name = "temperature", .kind = OPT_FLOAT, .arg = "X", .min = 0.01, .max = 10, .value = "0.9", .offset = AT(distill_temperature),
     .help = "of both distributions, and of the student's samples"},
    {.name = "max-new-tokens", .kind = OPT_SIZE, .arg = "N", .min = 1, .max = 1 << 24, .value = "128", .offset = AT(max_new_tokens),
     .help = "of the student's samples"},
    {.name = "max-num-seqs", .kind = OPT_INT, .arg = "N", .min = 1, .max = 4096, .value = "256", .offset = AT(max_seqs),
     .help = "samples that are drawn at the same time: memory, not results, depends on it"},
};

const struct opt train_rows_sampling[TRAIN_N_SAMPLING] = {
    {.name = "num-generations", .brief = 'G', .kind = OPT_INT, .arg = "N", .min = 2, .max = 128, .value = "8", .offset = AT(generations),
     .help = "completions of a prompt"},
    {.name = "max-completion-length", .kind = OPT_SIZE, .arg = "N", .min = 1, .max = 1 << 24, .value = "512", .offset = AT(max_completion),
     .help = "tokens of a completion, at most"},
    {.name = "temperature", .kind = OPT_FLOAT, .arg = "X", .min = 0.01, .max = 10, .value = "1", .offset = AT(temperature),
     .help = "of the distribution that is sampled"},
    {.name = "top-p", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 1, .value = "1", .offset = AT(top_p), .help = "only 1 can be learned from"},
    {.name = "top-k", .kind = OPT_INT, .arg = "N", .min = 0, .max = 1e9, .value = "0", .offset = AT(top_k), .help = "only 0 can be learned from"},
    {.name = "min-p", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 1, .value = "0", .offset = AT(min_p), .help = "only 0 can be learned from"},
    {.name = "max-num-seqs", .kind = OPT_INT, .arg = "N", .min = 1, .max = 4096, .value = "256", .offset = AT(max_seqs),
     .help = "completions that are sampled at the same time: memory, not results, depends on it"},
    {.name = "ignore-eos", .kind = OPT_FLAG, .offset = AT(ignore_end), .help = "completions are as long as they may be: for measuring"},
};

const struct opt train_rows_rewards[TRAIN_N_REWARDS] = {
    {.name = "reward-funcs", .alias = "rewards", .kind = OPT_STRING, .arg = "LIST", .value = "accuracy,format", .offset = AT(rewards),
     .help = "accuracy, format, tag_count, language, length, cosine, repetition, soft_overlong, …"},
    {.name = "reward-weights", .kind = OPT_STRING, .arg = "LIST", .shown = "1 each", .offset = AT(reward_weights),
     .help = "a number for each"},
    {.name = "soft-punish-cache", .kind = OPT_SIZE, .arg = "N", .min = 0, .max = 1 << 24, .value = "0", .offset = AT(soft_cache),
     .help = "tokens before --max-completion-length in which soft_overlong grows"},
    {.name = "reward-model", .kind = OPT_LIST, .arg = "DIR[:WEIGHT[:answer|whole]]", .offset = AT(reward_models),
     .help = "of ponder train reward; it sees the answer behind the thought, or the whole output"},
    {.name = "reward-model-after", .kind = OPT_INT, .arg = "STEP", .min = 0, .max = 1e9, .value = "0", .offset = AT(reward_model_after),
     .help = "steps without reward models (R1: only the last 400 of 1,700 had them)"},
    {.name = "reward-command", .kind = OPT_STRING, .arg = "CMD", .offset = AT(reward_command),
     .help = "a program that reads completions and writes rewards as JSON lines; no shell. Needs --allow-commands"},
    {.name = "reward-command-weight", .kind = OPT_FLOAT, .arg = "X", .min = -1e6, .max = 1e6, .value = "1", .offset = AT(command_weight),
     .help = "of what it says"},
    {.name = "reward-command-timeout", .kind = OPT_FLOAT, .arg = "SECONDS", .min = 0.1, .max = 86400, .value = "60", .offset = AT(command_seconds),
     .help = "for the completions of a prompt"},
    {.name = "allow-commands", .kind = OPT_FLAG, .offset = AT(allow_commands),
     .help = "programs may be started"},
};

const struct opt train_rows_grpo[TRAIN_N_GRPO] = {
    {.name = "loss-type", .kind = OPT_ENUM, .choices = "grpo|bnpo|dr_grpo|dapo|cispo", .value = "dapo", .offset = AT(loss_type),
     .help = "what the sum over tokens is divided by, and how ratios are clipped"},
    {.name = "importance-sampling-level", .kind = OPT_ENUM, .choices = "token|sequence", .value = "token", .offset = AT(importance),
     .help = "of the ratio; sequence: GSPO"},
    {.name = "beta", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 100, .value = "0", .offset = AT(kl_beta),
     .help = "of the KL term; 0: no reference model"},
    {.name = "use-bias-correction-kl", .kind = OPT_FLAG, .offset = AT(kl_corrected), .help = "the KL term times the ratio (DeepSeek-V3.2)"},
    {.name = "epsilon", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 1e3, .value = "0.2", .offset = AT(epsilon_low),
     .help = "ratios are clipped below 1 - X"},
    {.name = "epsilon-high", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 1e3, .shown = "--epsilon (cispo: 5)", .offset = AT(epsilon_high),
     .help = "and above 1 + X"},
    {.name = "delta", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 1e6, .shown = "none", .offset = AT(delta),
     .help = "cap on the ratio where it is not clipped"},
    {.name = "scale-rewards", .kind = OPT_ENUM, .choices = "group|batch|none", .value = "group", .offset = AT(scale_rewards),
     .help = "advantages are divided by the standard deviation of"},
    {.name = "steps-per-generation", .kind = OPT_INT, .arg = "N", .min = 1, .max = 4096, .value = "1", .offset = AT(steps_per_generation),
     .help = "steps that share a generation's completions between them (R1: 16)"},
    {.name = "num-iterations", .kind = OPT_INT, .arg = "N", .min = 1, .max = 1000, .value = "1", .offset = AT(iterations),
     .help = "times that a generation is learned from"},
    {.name = "mask-truncated-completions", .kind = OPT_FLAG, .offset = AT(mask_truncated),
     .help = "completions without an end teach nothing"},
    {.name = "dynamic-sampling", .kind = OPT_FLAG, .offset = AT(dynamic_sampling),
     .help = "other prompts in the place of groups with equal rewards (DAPO)"},
    {.name = "dynamic-rounds", .kind = OPT_INT, .arg = "N", .min = 1, .max = 1000, .value = "10", .offset = AT(dynamic_rounds),
     .help = "how often, at most"},
    {.name = "sync-ref-model", .kind = OPT_FLAG, .offset = AT(sync_ref), .help = "the reference follows the policy"},
    {.name = "ref-model-sync-steps", .kind = OPT_INT, .arg = "N", .min = 1, .max = 1e9, .value = "512", .offset = AT(ref_steps),
     .help = "every N steps (R1: 400)"},
    {.name = "ref-model-mixup-alpha", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 1, .value = "0.6", .offset = AT(ref_alpha),
     .help = "to X policy + (1 - X) reference (R1: 1)"},
    {.name = "entropy-coef", .kind = OPT_FLOAT, .arg = "X", .min = -10, .max = 10, .value = "0", .offset = AT(entropy_coef),
     .help = "the loss is less by X times the mean entropy"},
    {.name = "top-entropy-quantile", .kind = OPT_FLOAT, .arg = "X", .min = 0.001, .max = 1, .value = "1", .offset = AT(top_entropy),
     .help = "learn only from this share of tokens, the most uncertain ones"},
    {.name = "log-completions", .kind = OPT_FLAG, .offset = AT(log_completions),
     .help = "completions with their rewards to RUN/samples.jsonl"},
};

const struct opt train_rows_rejection[TRAIN_N_REJECTION] = {
    {.name = "reward-thresholds", .kind = OPT_STRING, .arg = "LIST", .shown = "1 each", .offset = AT(thresholds),
     .help = "what each reward has to reach"},
    {.name = "keep", .kind = OPT_INT, .arg = "N", .min = 1, .max = 128, .value = "1", .offset = AT(keep_each),
     .help = "good completions of a prompt that are kept, at most"},
    {.name = "keep-rule", .kind = OPT_ENUM, .choices = "shortest|random|first", .value = "random", .offset = AT(keep_rule),
     .help = "which, when there are more"},
    {.name = "per-device-train-batch-size", .brief = 'b', .alias = "batch-size", .kind = OPT_INT, .arg = "N", .min = 1, .max = 1 << 20, .value = "32", .offset = AT(batch),
     .help = "prompts that are answered together"},
    {.name = "num-train-epochs", .brief = 'e', .alias = "epochs", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 1e6, .value = "1", .offset = AT(epochs),
     .help = "how often the prompts are passed through"},
    {.name = "max-steps", .kind = OPT_INT, .arg = "N", .min = -1, .max = 1e9, .value = "-1", .shown = "by epochs", .offset = AT(max_steps),
     .help = "batches of prompts"},
    {.name = "seed", .kind = OPT_INT, .arg = "N", .min = 0, .max = 9e18, .value = "42", .offset = AT(seed),
     .help = "of everything random; the same seed gives the same file"},
};
// clang-format on
#undef AT
