/* init: a new model with random weights. */
#include "base/file.h"
#include "base/num.h"
#include "base/progress.h"
#include "base/rng.h"
#include "cli/command.h"
#include "cli/convert_files.h"
#include "cli/locate.h"
#include "convert/convert.h"

#include <math.h>
#include <stdio.h>

struct init_options {
    const char *config, *type, *tokenizer;
    int64_t seed, threads;
    double deviation;
};

#define AT(field) offsetof(struct init_options, field)
// clang-format off
static const struct opt init_rows[] = {
    {.name = "config", .kind = OPT_STRING, .arg = "FILE", .offset = AT(config),
     .help = "config.json of the model (or the folder that has it): architecture and sizes"},
    {.name = "tokenizer", .kind = OPT_STRING, .arg = "DIR", .shown = "none", .offset = AT(tokenizer),
     .help = "folder whose tokenizer files are copied"},
    {.name = "type", .kind = OPT_STRING, .arg = "T", .shown = "BF16", .offset = AT(type),
     .help = "F32, F16 or BF16"},
    {.name = "seed", .kind = OPT_INT, .arg = "N", .min = 0, .max = 9e18, .shown = "random", .offset = AT(seed),
     .help = "the same seed gives the same model"},
    {.name = "std", .kind = OPT_FLOAT, .arg = "X", .min = 1e-6, .max = 10, .shown = "initializer_range of the configuration, or 0.02", .offset = AT(deviation),
     .help = "standard deviation of the weights"},
    {.name = "threads", .brief = 't', .kind = OPT_INT, .arg = "N", .min = 1, .max = TEAM_MAX,
     .shown = "one for each core that this process may use", .env = "PONDER_THREADS", .offset = AT(threads),
     .help = "compute threads; the result is the same for any number"},
};
// clang-format on
#undef AT

static const struct opt_group init_groups[] = {{"Options", init_rows, NUM_COUNT(init_rows), 0}};

static int init_write(struct cli *c, struct convert_plan *p, const struct init_options *o,
                      uint64_t seed, struct err *e)
{
    char size[32], values[32];
    interrupt_guard(c->interrupt);
    interrupt_prompt(c->interrupt, true);
    int rc = convert_files_write(c, p, c->args[0], o->threads, "making", NULL, e);
    interrupt_prompt(c->interrupt, false);
    if (!rc)
        printf("wrote %s: %s weights, %s, seed %llu\n", c->args[0],
               term_group(values, sizeof values, convert_plan_values(p)),
               progress_bytes(size, sizeof size, (double)convert_plan_bytes(p)),
               (unsigned long long)seed);
    interrupt_unguard(c->interrupt);
    return rc;
}

static int init_run(struct cli *c, const void *opts, struct err *e)
{
    const struct init_options *o = opts;
    struct convert_init init = {.seed =
                                    o->seed == OPT_UNSET ? rng_os_seed() >> 1 : (uint64_t)o->seed,
                                .deviation = isnan(o->deviation) ? 0 : o->deviation};
    struct source *config = NULL, *tokenizer = NULL;
    struct convert_plan *p = NULL;
    char path[LOCATE_MAX], where[LOCATE_MAX];
    if (!o->config)
        return err_set(e, ERR_USAGE, "init: --config is missing: ponder init %s", c->command->args);
    if (o->type && !(init.mix = mix_find(o->type)))
        return mix_unknown(o->type, e);
    bool folder = file_kind(o->config) == FILE_DIR;
    int n = snprintf(path, sizeof path, "%s%s", o->config, folder ? "/config.json" : "");
    int rc = n < LOCATE_MAX ? 0 : err_set(e, ERR_USAGE, "--config: the path is too long");
    if (!rc)
        rc = source_open_config(&config, path, e);
    if (!rc && o->tokenizer && !(rc = locate_model(o->tokenizer, where, e)))
        rc = source_open(&tokenizer, where, e);
    if (!rc && (rc = convert_init_new(&p, config, tokenizer, &init, e)) && rc != ERR_USAGE)
        err_ctx(e, "%.300s", path);
    if (!rc)
        rc = init_write(c, p, o, init.seed, e);
    convert_plan_free(p);
    source_free(tokenizer);
    source_free(config);
    return rc;
}

const struct command cmd_init = {
    .name = "init",
    .args = "--config FILE DIR",
    .summary = "make a new model with random weights",
    .about = "Makes a Hugging Face folder of the architecture and sizes that a config.json "
             "describes, with random weights: for training from scratch, tests and benchmarks. "
             "Matrices are normally distributed, norms 1, biases 0; the same seed gives the same "
             "bytes.",
    .examples = "ponder init --config config.json --seed 1 new-model\n"
                "# with the tokenizer of another model\n"
                "ponder init --config config.json --tokenizer qwen2.5-0.5b/ new-model\n",
    .spec = {init_groups, NUM_COUNT(init_groups)},
    .opts_size = sizeof(struct init_options),
    .min_args = 1,
    .max_args = 1,
    .run = init_run,
};
