/* quantize: a model in fewer bits. */
#include "base/num.h"
#include "cli/convert_files.h"

static const struct opt_group quantize_groups[] = {
    {"Options", convert_files_rows, CONVERT_FILES_N, 0},
};

static int quantize_run(struct cli *c, const void *opts, struct err *e)
{
    const struct convert_files_options *o = opts;
    if (!o->type)
        return err_set(e, ERR_USAGE,
                       "quantize: --type is missing, like --type Q4_K_M; to keep the types use "
                       "ponder convert");
    return convert_files(c, o, "quantizing", e);
}

const struct command cmd_quantize = {
    .name = "quantize",
    .args = "IN OUT --type T",
    .summary = "write a model with smaller weights",
    .about =
        "Writes a GGUF file whose weights have fewer bits. IN is a .gguf file or a Hugging Face "
        "folder. T is a mix: most tensors get one type, the ones that matter more a better one. "
        "The usual choice is Q4_K_M; Q8_0 is nearly the original, Q2_K the least that is still "
        "sensible. For DeepSeek-R1 and its kin r1-q2 and r1-q4 keep attention, shared experts and "
        "the head in more bits than the routed experts.\n\nOUT appears when it is complete; "
        "nothing is left when the work is stopped.",
    .examples = "ponder quantize model-f16.gguf model-q4.gguf --type Q4_K_M\n"
                "# how large would it be?\n"
                "ponder quantize model-f16.gguf --type IQ3_M --dry-run\n"
                "# better values and heads, fewer bits for the rest\n"
                "ponder quantize in.gguf out.gguf --type Q3_K_M --tensor-type 'attn_v=Q8_0'\n",
    .spec = {quantize_groups, NUM_COUNT(quantize_groups)},
    .opts_size = sizeof(struct convert_files_options),
    .min_args = 1,
    .max_args = 2,
    .run = quantize_run,
};
