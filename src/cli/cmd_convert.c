/* convert: a model in another kind of files. */
#include "base/num.h"
#include "cli/convert_files.h"

static const struct opt_group convert_groups[] = {
    {"Options", convert_files_rows, CONVERT_FILES_N, 0},
};

static int convert_run_command(struct cli *c, const void *opts, struct err *e)
{
    return convert_files(c, opts, "converting", e);
}

const struct command cmd_convert = {
    .name = "convert",
    .args = "IN OUT",
    .summary = "write a model as other files",
    .about =
        "Writes a model as a GGUF file (OUT ends in .gguf) or as a Hugging Face folder. IN is "
        "either of them. Weights keep their types unless --type says otherwise; the tokenizer, "
        "the chat template and all settings come along.\n\nOUT appears when it is complete; "
        "nothing is left when the work is stopped.",
    .examples = "ponder convert DeepSeek-R1-Distill-Qwen-1.5B/ r1-1.5b.gguf\n"
                "# join a split model, or split one\n"
                "ponder convert big-00001-of-00003.gguf whole.gguf\n"
                "ponder convert whole.gguf parts.gguf --split-size 5G\n"
                "# for ponder alone: used from the file as it is, without packing\n"
                "ponder convert model.gguf model-packed.gguf --packed\n",
    .spec = {convert_groups, NUM_COUNT(convert_groups)},
    .opts_size = sizeof(struct convert_files_options),
    .min_args = 1,
    .max_args = 2,
    .run = convert_run_command,
};
