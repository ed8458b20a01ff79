/*
 * data: files of training data. `data` alone says what there is; each tool is a command of two
 * words with a row of its own.
 */
#include "base/num.h"
#include "cli/command.h"
#include "train/data_tools.h"

#include <stdio.h>
#include <string.h>

enum { DATA_PATHS = 4 << 20 };

/* ---- data -------------------------------------------------------------------------------------
 */

static int data_run(struct cli *c, const void *opts, struct err *e)
{
    (void)opts;
    return command_list(c, e);
}

const struct command cmd_data = {
    .name = "data",
    .args = "",
    .summary = "tools for training data",
    .about = "Lists the tools for files of training data. They are JSON lines, one object each: "
             "{\"text\"}, {\"messages\"}, {\"prompt\", \"completion\"}, {\"prompt\", \"chosen\", "
             "\"rejected\"}, or {\"prompt\"} with columns for whoever grades the answer; texts are "
             "strings or lists of messages.",
    .examples = "ponder data\n",
    .max_args = -1,
    .run = data_run,
};

/* ---- data mix ---------------------------------------------------------------------------------
 */

struct mix_options {
    const char *out;
    int64_t seed;
    int shuffle;
};

#define AT(field) offsetof(struct mix_options, field)
// clang-format off
static const struct opt mix_rows[] = {
    {.name = "output", .brief = 'o', .alias = "out", .kind = OPT_STRING, .arg = "FILE", .offset = AT(out),
     .help = "where the mixture goes"},
    {.name = "seed", .kind = OPT_INT, .arg = "N", .min = 0, .max = 9e18, .value = "42", .offset = AT(seed),
     .help = "of the order"},
    {.name = "shuffle", .kind = OPT_SWITCH, .value = "1", .offset = AT(shuffle),
     .help = "in a random order; without, one file after the other"},
};
// clang-format on
#undef AT

static const struct opt_group mix_groups[] = {{"Options", mix_rows, NUM_COUNT(mix_rows), 0}};

static int mix_run(struct cli *c, const void *opts, struct err *e)
{
    const struct mix_options *o = opts;
    struct arena a;
    uint64_t lines = 0;
    char text[32];
    if (!o->out)
        return err_set(e, ERR_USAGE, "data mix: --output is missing");
    arena_init(&a, DATA_PATHS);
    struct data_source *s = arena_array(&a, (size_t)c->n_args, sizeof *s, e);
    int rc = s ? 0 : ERR_NOMEM;
    for (int i = 0; !rc && i < c->n_args; i++)
        rc = data_source_parse(&s[i], c->args[i], &a, e);
    if (!rc)
        rc = data_mix(s, (size_t)c->n_args, (uint64_t)o->seed, !o->shuffle, o->out, &lines, e);
    if (!rc)
        printf("wrote %s: %s lines of %d files\n", o->out, term_group(text, sizeof text, lines),
               c->n_args);
    arena_release(&a);
    return rc;
}

const struct command cmd_data_mix = {
    .name = "data mix",
    .args = "FILE[:WEIGHT]… --output FILE",
    .summary = "mix files of training data by weights",
    .about = "A weight says how often the lines of a file come: 1 (the default) each once, 0.25 a "
             "quarter of them, 2 each twice. It is held to the line. \"ponder train\" takes the "
             "same weights without a file in between.",
    .examples = "ponder data mix math.jsonl chat.jsonl:0.25 --output train.jsonl\n",
    .spec = {mix_groups, NUM_COUNT(mix_groups)},
    .opts_size = sizeof(struct mix_options),
    .min_args = 1,
    .max_args = -1,
    .run = mix_run,
};

/* ---- data split -------------------------------------------------------------------------------
 */

struct split_options {
    double test_size;
    const char *text;
};

#define AT(field) offsetof(struct split_options, field)
// clang-format off
static const struct opt split_rows[] = {
    {.name = "test-size", .kind = OPT_FLOAT, .arg = "X", .min = 1e-9, .max = 0.999999999, .value = "0.1", .offset = AT(test_size),
     .help = "share of the records that goes to TEST"},
    {.name = "dataset-text-field", .kind = OPT_STRING, .arg = "NAME", .value = "text", .offset = AT(text),
     .help = "the column of plain texts"},
};
// clang-format on
#undef AT

static const struct opt_group split_groups[] = {{"Options", split_rows, NUM_COUNT(split_rows), 0}};

static int split_run(struct cli *c, const void *opts, struct err *e)
{
    const struct split_options *o = opts;
    struct data_split s = {.path = c->args[0],
                           .train = c->args[1],
                           .test = c->args[2],
                           .text = o->text,
                           .test_size = o->test_size};
    char a[32], b[32];
    int rc = data_split(&s, e);
    if (!rc)
        printf("wrote %s: %s lines, and %s: %s lines\n", s.train,
               term_group(a, sizeof a, s.n_train), s.test, term_group(b, sizeof b, s.n_test));
    return rc;
}

const struct command cmd_data_split = {
    .name = "data split",
    .args = "FILE TRAIN TEST",
    .summary = "split training data by hash of the question",
    .about = "Which side a record goes to is decided by a hash of its prompt (or first message of "
             "the user, or text), in lower case and with single blanks. So the same question is on "
             "the same side in every file, whatever its answer, and stays there when files grow.",
    .examples = "ponder data split all.jsonl train.jsonl test.jsonl --test-size 0.05\n",
    .spec = {split_groups, NUM_COUNT(split_groups)},
    .opts_size = sizeof(struct split_options),
    .min_args = 3,
    .max_args = 3,
    .run = split_run,
};

/* ---- data decontaminate -----------------------------------------------------------------------
 */

struct clean_options {
    struct opt_list against;
    const char *out, *text;
    int64_t ngram;
    int show;
};

#define AT(field) offsetof(struct clean_options, field)
// clang-format off
static const struct opt clean_rows[] = {
    {.name = "against", .alias = "eval-dataset", .kind = OPT_LIST, .arg = "FILE", .offset = AT(against),
     .help = "questions that must not be in the data; may be given several times"},
    {.name = "output", .brief = 'o', .alias = "out", .kind = OPT_STRING, .arg = "FILE", .shown = "none: only count", .offset = AT(out),
     .help = "where the clean lines go"},
    {.name = "ngram-size", .alias = "ngram", .kind = OPT_INT, .arg = "N", .min = 1, .max = 64, .value = "8", .offset = AT(ngram),
     .help = "words in a row that must not be the same"},
    {.name = "dataset-text-field", .kind = OPT_STRING, .arg = "NAME", .value = "text", .offset = AT(text),
     .help = "the column of plain texts"},
    {.name = "show", .kind = OPT_FLAG, .offset = AT(show), .help = "print the line numbers of what goes"},
};
// clang-format on
#undef AT

static const struct opt_group clean_groups[] = {{"Options", clean_rows, NUM_COUNT(clean_rows), 0}};

static void clean_gone(void *arg, uint64_t line)
{
    printf("%s: line %llu\n", (const char *)arg, (unsigned long long)line);
}

static int clean_run(struct cli *c, const void *opts, struct err *e)
{
    const struct clean_options *o = opts;
    struct data_clean d = {.path = c->args[0],
                           .out = o->out,
                           .against = o->against.v,
                           .n_against = o->against.n,
                           .ngram = (size_t)o->ngram,
                           .text = o->text,
                           .gone = o->show ? clean_gone : NULL,
                           .arg = c->args[0]};
    char a[32], b[32];
    if (!o->against.n)
        return err_set(e, ERR_USAGE, "data decontaminate: --against is missing");
    int rc = data_decontaminate(&d, e);
    if (!rc && o->out)
        printf("wrote %s: %s lines; %s were left out\n", o->out, term_group(a, sizeof a, d.kept),
               term_group(b, sizeof b, d.removed));
    else if (!rc)
        printf("%s of %s lines share %lld words in a row with a question that is not to be known\n",
               term_group(b, sizeof b, d.removed), term_group(a, sizeof a, d.kept + d.removed),
               (long long)o->ngram);
    return rc;
}

const struct command cmd_data_decontaminate = {
    .name = "data decontaminate",
    .args = "FILE --against FILE…",
    .summary = "leave out what benchmarks ask",
    .about = "Leaves out records whose question has 8 words in a row that are also in a question "
             "of the given files (the practice of Open-R1). Words are what lies between blanks, in "
             "lower case; each Chinese or Japanese character is a word. Questions of fewer words "
             "count when they are the same.",
    .examples = "ponder data decontaminate train.jsonl --against aime24.jsonl --against "
                "math500.jsonl --output clean.jsonl\n",
    .spec = {clean_groups, NUM_COUNT(clean_groups)},
    .opts_size = sizeof(struct clean_options),
    .min_args = 1,
    .max_args = 1,
    .run = clean_run,
};
