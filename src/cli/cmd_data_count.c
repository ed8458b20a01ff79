/* data count: what a model would learn from files: records, tokens, lengths. */
#include "base/num.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/lines.h"
#include "cli/model_files.h"
#include "train/data_options.h"

#include <stdio.h>
#include <string.h>

struct count_options {
    struct train_options train;
    const char *stage;
    int64_t threads, batch;
    int json;
};

#define AT(field) offsetof(struct count_options, field)
// clang-format off
static const struct opt count_rows[] = {
    {.name = "stage", .kind = OPT_ENUM, .arg = "NAME", .choices = "pretrain|sft|dpo|reward|grpo", .value = "sft", .offset = AT(stage),
     .help = "what the data are for: which columns are read"},
    {.name = "per-device-train-batch-size", .alias = "batch-size", .kind = OPT_SIZE, .arg = "N", .min = 1, .max = 1 << 24, .value = "8", .offset = AT(batch),
     .help = "sequences, packs or pairs of a step, to count steps"},
    {.name = "json", .kind = OPT_FLAG, .offset = AT(json), .help = "print one JSON object"},
    {.name = "threads", .brief = 't', .kind = OPT_INT, .arg = "N", .min = 1, .max = TEAM_MAX, .shown = "one for each core that this process may use",
     .env = "PONDER_THREADS", .offset = AT(threads), .help = "threads that read"},
};
// clang-format on
#undef AT

static const struct opt_group count_groups[] = {
    {"Options", count_rows, NUM_COUNT(count_rows), 0},
    {"Data", train_rows_data, TRAIN_N_DATA, offsetof(struct count_options, train)},
};

struct count_watch {
    struct progress bar;
    const struct interrupt *interrupt;
};

static bool count_progress(void *arg, uint64_t done, uint64_t total)
{
    struct count_watch *w = arg;
    w->bar.total = total;
    progress_update(&w->bar, done);
    return !interrupt_pending(w->interrupt);
}

static void count_row(const char *name, uint64_t n, const char *words)
{
    char text[32];
    if (n)
        printf("%-12s %14s  %s\n", name, term_group(text, sizeof text, n), words);
}

static void count_print(const struct data *d, const struct data_stats *s, uint64_t steps)
{
    char where[600], words[640], low[32], high[32], count[32];
    count_row("records", s->records, "");
    count_row("used", s->used, "");
    count_row("too long", s->too_long, "left out");
    count_row("empty", s->empty, "nothing in them to learn");
    snprintf(words, sizeof words, "cut to the maximum length, %s tokens lost",
             term_group(low, sizeof low, s->cut));
    count_row("truncated", s->truncated, words);
    count_row("turns", s->turns,
              "of assistants that are no targets: the template changes them later");
    count_row("tokens", s->tokens, "");
    count_row("targets", s->targets, "tokens that are learned");
    count_row("mean", s->mean, "tokens of a sequence");
    snprintf(words, sizeof words, "%s", data_where(d, s->longest_record, where, sizeof where));
    count_row("longest", s->longest, words);
    count_row("epoch", s->epoch_records, "records, by the weights");
    count_row("steps", steps, "of an epoch");
    for (size_t i = 0; i < DATA_BUCKETS; i++)
        if (s->bucket[i])
            printf("%12s to %-9s %11s sequences\n", term_group(low, sizeof low, 1ull << i),
                   term_group(high, sizeof high, (2ull << i) - 1),
                   term_group(count, sizeof count, s->bucket[i]));
}

static int count_print_json(const struct data *d, const struct data_stats *s, uint64_t steps,
                            struct err *e)
{
    char where[600];
    json_t *lengths = json_array();
    for (size_t i = 0; i < DATA_BUCKETS; i++)
        if (s->bucket[i])
            json_array_append_new(lengths, json_pack("{sI sI sI}", "from", (json_int_t)(1ull << i),
                                                     "to", (json_int_t)((2ull << i) - 1),
                                                     "sequences", (json_int_t)s->bucket[i]));
    json_t *o = json_pack("{sI sI sI sI sI sI sI sI sI sI sI s{sI ss} sI sI so}", "records",
                          (json_int_t)s->records, "used", (json_int_t)s->used, "too_long",
                          (json_int_t)s->too_long, "empty", (json_int_t)s->empty, "truncated",
                          (json_int_t)s->truncated, "cut_tokens", (json_int_t)s->cut, "turns_left",
                          (json_int_t)s->turns, "sequences", (json_int_t)s->sequences, "tokens",
                          (json_int_t)s->tokens, "targets", (json_int_t)s->targets, "mean",
                          (json_int_t)s->mean, "longest", "tokens", (json_int_t)s->longest, "where",
                          data_where(d, s->longest_record, where, sizeof where), "epoch_records",
                          (json_int_t)s->epoch_records, "epoch_steps", (json_int_t)steps, "lengths",
                          lengths);
    int rc = o ? lines_print_json(o, true, e) : err_nomem(e, 0, "the figures");
    json_decref(o);
    return rc;
}

static enum data_use count_use(const char *stage)
{
    if (!strcmp(stage, "grpo"))
        return DATA_PROMPTS;
    return strcmp(stage, "dpo") && strcmp(stage, "reward") ? DATA_LEARN : DATA_PAIRS;
}

/* Files of --dataset, as training names them, and of the command line. */
static int count_files(const struct cli *c, const struct opt_list *named, struct opt_list *out,
                       struct err *e)
{
    *out = *named;
    for (int i = 1; i < c->n_args; i++) {
        if (out->n == OPT_LIST_MAX)
            return err_set(e, ERR_USAGE, "more than %d files", OPT_LIST_MAX);
        out->v[out->n++] = c->args[i];
    }
    return out->n ? 0 : err_set(e, ERR_USAGE, "data count: no file was given");
}

static int count_data(struct cli *c, const struct count_options *o, const struct model_files *m,
                      const struct chat *chat, struct err *e)
{
    struct count_watch watch = {.interrupt = c->interrupt};
    struct data_options d = {.tokenizer = m->tokenizer, .chat = chat, .batch = (size_t)o->batch};
    struct data *data = NULL;
    struct team *team = NULL;
    struct data_stats s;
    struct opt_list files;
    struct arena a;
    uint64_t steps = 0;
    arena_init(&a, 4 << 20);
    data_options_take(&d, &o->train, count_use(o->stage));
    d.keep = 1; /* they are only counted */
    int rc = count_files(c, &o->train.dataset, &files, e);
    if (!rc)
        rc = data_options_sources(&d, &files, &a, e);
    if (!rc)
        rc = team_new(&team, o->threads == OPT_UNSET ? 0 : (int)o->threads, e);
    if (!rc) {
        progress_init(&watch.bar, stderr, "reading", PROGRESS_COUNT, 0);
        interrupt_watch(c->interrupt);
        rc = data_open(&data, &d, team, count_progress, &watch, e);
        interrupt_unwatch(c->interrupt);
        progress_finish(&watch.bar);
    }
    if (!rc)
        rc = data_steps(data, 1, &steps, e);
    if (!rc) {
        data_stats(data, &s);
        if (o->json)
            rc = count_print_json(data, &s, steps, e);
        else
            count_print(data, &s, steps);
    }
    data_free(data);
    team_free(team);
    arena_release(&a);
    return rc;
}

static int count_run(struct cli *c, const void *opts, struct err *e)
{
    struct model_files m = {0};
    struct chat *chat = NULL;
    int rc = model_files_open(&m, c->args[0], e);
    if (!rc)
        rc = chat_new(&chat, m.source, m.tokenizer, NULL, e);
    if (!rc)
        rc = count_data(c, opts, &m, chat, e);
    chat_free(chat);
    model_files_release(&m);
    return rc;
}

const struct command cmd_data_count = {
    .name = "data count",
    .args = "MODEL FILE[:WEIGHT]…",
    .summary = "count the tokens of training data",
    .about = "Reads files of training data as training would, with the tokenizer and the chat "
             "template of MODEL, and says what is in them: records, tokens, targets, lengths, what "
             "is too long. A line that cannot be used is named.",
    .examples =
        "ponder data count model/ train.jsonl\n"
        "ponder data count model/ math.jsonl chat.jsonl:0.25 --packing bfd --max-length 2048\n",
    .spec = {count_groups, NUM_COUNT(count_groups)},
    .opts_size = sizeof(struct count_options),
    .min_args = 1,
    .max_args = -1,
    .run = count_run,
};
