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
