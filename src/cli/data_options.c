#include "cli/data_options.h"

#include "train/data_tools.h"

#include <string.h>

#define AT(field) offsetof(struct data_cli, field)
// clang-format off
const struct opt options_data[OPTIONS_DATA_N] = {
    {.name = "max-length", .alias = "max-seq-length", .kind = OPT_SIZE, .arg = "N", .min = 0, .max = 1 << 26, .value = "1024", .offset = AT(max_length),
     .help = "longest sequence in tokens, and the size of a pack; 0: no bound"},
    {.name = "too-long", .kind = OPT_ENUM, .arg = "HOW", .choices = "truncate|drop", .value = "truncate", .offset = AT(too_long),
     .help = "what becomes of longer ones; prompts of RL are always dropped"},
    {.name = "packing", .alias = "packing-strategy", .kind = OPT_ENUM, .arg = "HOW", .choices = "none|bfd|bfd_split|wrapped", .value = "none", .offset = AT(packing),
     .help = "put several sequences into one of max-length tokens: best fit decreasing, the same with long ones split, or one "
             "after the other, cut where it is full; they never see each other"},
    {.name = "completion-only-loss", .kind = OPT_SWITCH, .value = "1", .offset = AT(completion_only),
     .help = "prompts are not learned"},
    {.name = "assistant-only-loss", .kind = OPT_FLAG, .offset = AT(assistant_only),
     .help = "of conversations only what the assistant says is learned"},
    {.name = "dataset-text-field", .kind = OPT_STRING, .arg = "NAME", .value = "text", .offset = AT(text),
     .help = "the column of plain texts"},
    {.name = "system-prompt", .kind = OPT_STRING, .arg = "TEXT", .offset = AT(system),
     .help = "a system message before conversations that have none"},
    {.name = "test-size", .alias = "test-split-size", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 0.999, .value = "0", .offset = AT(test_size),
     .help = "share of the records that is kept for tests, chosen by hash of the question"},
};
// clang-format on
#undef AT

void data_cli_apply(const struct data_cli *c, struct data_options *o)
{
    static const char *const packing[] = {"none", "bfd", "bfd_split", "wrapped"};
    for (int i = 0; i < 4; i++)
        if (strcmp(c->packing, packing[i]) == 0)
            o->packing = (enum data_packing)i;
    o->overflow = strcmp(c->too_long, "drop") == 0 ? DATA_DROP : DATA_TRUNCATE;
    o->max_length = (size_t)c->max_length;
    o->whole = !c->completion_only;
    o->assistant_only = c->assistant_only;
    o->text = c->text;
    o->system = c->system;
    o->test_size = c->test_size;
}

int data_cli_sources(const char *const *args, size_t n, struct arena *a, struct data_options *o,
                     struct err *e)
{
    struct data_source *s = arena_array(a, n, sizeof *s, e);
    int rc = s ? 0 : ERR_NOMEM;
    for (size_t i = 0; !rc && i < n; i++)
        rc = data_source_parse(&s[i], args[i], a, e);
    o->sources = s;
    o->n_sources = n;
    return rc;
}
