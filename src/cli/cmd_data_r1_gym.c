/*
 * data r1-gym: problems made by rule, as JSON lines. What a row is stands in grade/gym_data.h; here
 * rows of several tasks and languages are interleaved, so that any part of the file has the same
 * mixture as the whole.
 */
#include "base/hash.h"
#include "base/num.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/lines.h"
#include "cli/output.h"
#include "grade/gym_data.h"

#include <stdlib.h>
#include <string.h>

struct gym_options {
    const char *tasks, *languages, *split, *form, *style, *template, *out;
    int64_t count, seed, level, digits, terms, numbers_to, target_to, days_to;
    double mixed;
    int unique;
};

#define AT(field) offsetof(struct gym_options, field)
// clang-format off
static const struct opt gym_rows[] = {
    {.name = "tasks", .kind = OPT_STRING, .arg = "LIST", .shown = "all", .offset = AT(tasks),
     .help = "arithmetic, countdown, calendar, word, general; NAME:X for X times as many rows"},
    {.name = "languages", .kind = OPT_STRING, .arg = "LIST", .value = "en,zh", .offset = AT(languages),
     .help = "en and zh, also with :X"},
    {.name = "count", .brief = 'n', .kind = OPT_SIZE, .arg = "N", .min = 1, .max = 1e9, .value = "200", .offset = AT(count),
     .help = "rows for each task and language"},
    {.name = "split", .kind = OPT_ENUM, .arg = "SIDE", .choices = "train|eval", .value = "train", .offset = AT(split),
     .help = "eval: problems that no training row has, in any wording or language; every tenth"},
    {.name = "seed", .kind = OPT_INT, .arg = "N", .min = 0, .max = 9e18, .value = "42", .offset = AT(seed),
     .help = "other seeds give other problems, never ones of the other side"},
    {.name = "form", .kind = OPT_ENUM, .arg = "FORM", .choices = GYM_FORMS, .value = "prompt", .offset = AT(form),
     .help = "columns of a row; see above"},
    {.name = "style", .kind = OPT_ENUM, .arg = "N", .choices = "0|1|2|mix", .shown = "0, pretrain: mix", .offset = AT(style),
     .help = "how solutions are worked out: 0 step by step as a cold start teaches it, 1 another way, 2 shortest, or all mixed"},
    {.name = "template", .kind = OPT_STRING, .arg = "TEXT", .shown = "messages", .offset = AT(template),
     .help = "prompts are texts for a model that knows no chat: this one, with the problem in the place of {} (form prompt)"},
    {.name = "mixed-language", .kind = OPT_FLOAT, .arg = "P", .min = 0, .max = 1, .value = "0", .offset = AT(mixed),
     .help = "share of thoughts in the other language (sft)"},
    {.name = "unique", .kind = OPT_SWITCH, .shown = "with --split eval", .value = NULL, .offset = AT(unique),
     .help = "each problem once for a task and language"},
    {.name = "output", .brief = 'o', .alias = "out", .kind = OPT_STRING, .arg = "FILE", .shown = "standard output", .offset = AT(out),
     .help = "where rows go"},
};
static const struct opt knob_rows[] = {
    {.name = "level", .kind = OPT_INT, .arg = "N", .min = 1, .max = GYM_LEVELS, .shown = "1 to 3 mixed", .offset = AT(level),
     .help = "1 is easiest, 4 beyond what a tiny model learns"},
    {.name = "digits", .kind = OPT_INT, .arg = "N", .min = 1, .max = 5, .shown = "by level", .offset = AT(digits),
     .help = "arithmetic: of numbers that are added or subtracted"},
    {.name = "terms", .kind = OPT_INT, .arg = "N", .min = 2, .max = 3, .shown = "by level", .offset = AT(terms),
     .help = "arithmetic: numbers in a problem"},
    {.name = "numbers-to", .kind = OPT_INT, .arg = "N", .min = 1, .max = 99, .shown = "by level", .offset = AT(numbers_to),
     .help = "countdown: the largest number"},
    {.name = "target-to", .kind = OPT_INT, .arg = "N", .min = 1, .max = 999, .shown = "by level", .offset = AT(target_to),
     .help = "countdown: the largest target"},
    {.name = "days-to", .kind = OPT_INT, .arg = "N", .min = 1, .max = 999, .shown = "by level", .offset = AT(days_to),
     .help = "calendar: the most days"},
};
// clang-format on
#undef AT

static const struct opt_group gym_groups[] = {
    {"Options", gym_rows, NUM_COUNT(gym_rows), 0},
    {"Difficulty", knob_rows, NUM_COUNT(knob_rows), 0},
};

/* Rows of one task and language. */
struct stream {
    struct gym_data data;
    uint64_t want, done, next; /* rows; next: the number that is tried next */
};

enum { STREAMS_MAX = 64, UNIQUE_TRIES = 4096, WRITE_BYTES = 1 << 18, TEMPLATE_MAX = 2000 };

struct gym_job {
    struct stream stream[STREAMS_MAX];
    size_t n;
    uint64_t *seen; /* hashes of problems, open addressing; 0 is empty */
    size_t mask;
};

/* "name" or "name:2.5" of a list; the weight is 1 without. */
static int next_entry(const char **list, const char *option, struct span *name, double *weight,
                      struct err *e)
{
    size_t n = strcspn(*list, ",");
    struct span all = span_trim((struct span){*list, n});
    size_t colon = span_find(all, ":", 0);
    char number[32], *end;
    *list += n + ((*list)[n] == ',');
    *name = span_trim((struct span){all.s, colon});
    *weight = 1;
    if (colon == all.n)
        return 0;
    size_t len = num_min(all.n - colon - 1, sizeof number - 1);
    memcpy(number, all.s + colon + 1, len);
    number[len] = 0;
    *weight = strtod(number, &end);
    if (end == number || *end || !(*weight > 0 && *weight <= 1e6))
        return err_set(e, ERR_USAGE, "--%s \"%.*s\": the weight behind : has to be above 0", option,
                       (int)num_min(all.n, 60), all.s);
    return 0;
}

static int add_language(struct gym_job *j, const struct gym_options *o, const struct gym_task *t,
                        double task_weight, struct span name, double weight, struct err *e)
{
    struct stream *s = &j->stream[j->n];
    if (j->n == STREAMS_MAX)
        return err_set(e, ERR_LIMIT, "more than %d tasks and languages", STREAMS_MAX);
    *s = (struct stream){.data = {.task = t,
                                  .seed = (uint64_t)o->seed,
                                  .mixed = o->mixed,
                                  .split = !strcmp(o->split, "eval") ? GYM_EVAL : GYM_TRAIN}};
    if (!gym_language_parse(&s->data.language, name))
        return err_set(e, ERR_USAGE, "--languages: \"%.*s\" is not one of en, zh",
                       (int)num_min(name.n, 60), name.s);
    const int64_t given[] = {o->level,      o->digits,    o->terms,
                             o->numbers_to, o->target_to, o->days_to};
    int *const knobs[] = {&s->data.knobs.level,     &s->data.knobs.digits,
                          &s->data.knobs.terms,     &s->data.knobs.numbers_to,
                          &s->data.knobs.target_to, &s->data.knobs.days_to};
    for (size_t i = 0; i < NUM_COUNT(given); i++)
        *knobs[i] = given[i] == OPT_UNSET ? 0 : (int)given[i];
    gym_form_parse(&s->data.form, span_of(o->form));
    bool mix = o->style ? !strcmp(o->style, "mix") : s->data.form == GYM_PRETRAIN;
    s->data.style = mix ? -1 : o->style ? o->style[0] - '0' : 0;
    s->data.template = o->template;
    s->want = (uint64_t)((double)o->count * task_weight * weight + 0.5);
    j->n++;
    return 0;
}

static int unknown_task(struct span name, struct err *e)
{
    char all[ERR_TEXT_MAX - 100];
    size_t n = 0;
    for (size_t i = 0; i < gym_count() && n < sizeof all; i++)
        n += (size_t)snprintf(all + n, sizeof all - n, "%s%s (%s)", i ? ", " : "",
                              gym_name(gym_task(i)), gym_about(gym_task(i)));
    return err_set(e, ERR_USAGE, "--tasks: there is no task \"%.*s\"; there are %s",
                   (int)num_min(name.n, 60), name.s, all);
}

static int add_task(struct gym_job *j, const struct gym_options *o, const struct gym_task *t,
                    double task_weight, struct err *e)
{
    const char *list = o->languages;
    int rc = 0;
    while (!rc && *list) {
        struct span name;
        double weight;
        rc = next_entry(&list, "languages", &name, &weight, e);
        rc = rc ? rc : add_language(j, o, t, task_weight, name, weight, e);
    }
    return rc;
}

static int plan(struct gym_job *j, const struct gym_options *o, struct err *e)
{
    const char *list = o->tasks;
    int rc = 0;
    for (size_t i = 0; !list && !rc && i < gym_count(); i++)
        rc = add_task(j, o, gym_task(i), 1, e);
    while (!rc && list && *list) {
        struct span name;
        double weight;
        rc = next_entry(&list, "tasks", &name, &weight, e);
        const struct gym_task *t = gym_find(name);
        if (!rc && !t)
            rc = unknown_task(name, e);
        rc = rc ? rc : add_task(j, o, t, weight, e);
    }
    uint64_t all = 0;
    for (size_t i = 0; i < j->n; i++)
        all += j->stream[i].want;
    if (!rc && !all)
        rc = err_set(e, ERR_USAGE, "there are no rows to write");
    bool unique = o->unique >= 0 ? o->unique : !strcmp(o->split, "eval");
    if (rc || !unique)
        return rc;
    for (j->mask = 1023; j->mask < 2 * all; j->mask = 2 * j->mask + 1)
        ;
    j->seen = calloc(j->mask + 1, sizeof *j->seen);
    return j->seen ? 0 : err_nomem(e, (j->mask + 1) * sizeof *j->seen, "problems seen");
}

/* True the first time that a stream has a problem. */
static bool fresh(struct gym_job *j, size_t stream, const struct gym_item *it)
{
    uint64_t h = hash_u64(gym_hash(it) ^ (stream + 1) * 0x9e3779b97f4a7c15u) | 1;
    size_t at = h & j->mask;
    while (j->seen[at] && j->seen[at] != h)
        at = (at + 1) & j->mask;
    bool is = !j->seen[at];
    j->seen[at] = h;
    return is;
}

/* The next row of a stream. ERR_LIMIT: there are no more problems. */
static int next_row(struct gym_job *j, size_t i, json_t **out, struct err *e)
{
    struct stream *s = &j->stream[i];
    struct gym_item it;
    for (int tries = 0; j->seen; tries++, s->next++) {
        int rc = gym_data_item(&s->data, s->next, &it, e);
        if (rc)
            return rc;
        if (fresh(j, i, &it))
            break;
        if (tries == UNIQUE_TRIES)
            return err_set(e, ERR_LIMIT,
                           "%s has only about %llu different problems of this kind; ask for fewer, "
                           "or give --no-unique",
                           gym_name(s->data.task), (unsigned long long)s->done);
    }
    s->done++;
    return gym_data_row(&s->data, s->next++, out, e);
}

/* The stream that is furthest behind its share. */
static size_t behind(const struct gym_job *j)
{
    size_t best = 0;
    double least = 2;
    for (size_t i = 0; i < j->n; i++) {
        const struct stream *s = &j->stream[i];
        double share = s->done < s->want ? ((double)s->done + 0.5) / (double)s->want : 3;
        if (share < least) {
            least = share;
            best = i;
        }
    }
    return best;
}

static int write_rows(struct cli *c, struct gym_job *j, struct output *out, struct err *e)
{
    struct progress bar;
    struct buf rows;
    uint64_t all = 0;
    int rc = 0;
    buf_init(&rows, 2 * WRITE_BYTES);
    for (size_t i = 0; i < j->n; i++)
        all += j->stream[i].want;
    progress_init(&bar, stderr, "writing", PROGRESS_COUNT, all);
    interrupt_watch(c->interrupt);
    for (uint64_t k = 0; !rc && k < all; k++) {
        json_t *row = NULL;
        rc = next_row(j, behind(j), &row, e);
        char *text = rc ? NULL : json_dumps(row, JSON_COMPACT);
        if (!rc && !text)
            rc = err_nomem(e, 0, "a row");
        rc = rc ? rc : buf_puts(&rows, text, e);
        rc = rc ? rc : buf_putc(&rows, '\n', e);
        free(text);
        json_decref(row);
        if (!rc && (rows.len >= WRITE_BYTES || k + 1 == all)) {
            rc = output_write(out, rows.data, rows.len, e);
            buf_clear(&rows);
        }
        progress_update(&bar, k + 1);
        if (!rc && interrupt_pending(c->interrupt))
            rc = err_set(e, ERR_CANCELLED, "stopped; nothing was kept");
    }
    interrupt_unwatch(c->interrupt);
    progress_finish(&bar);
    buf_release(&rows);
    return rc;
}

static int gym_run(struct cli *c, const void *opts, struct err *e)
{
    const struct gym_options *o = opts;
    struct gym_job *j = calloc(1, sizeof *j);
    struct output out = {.file = {.fd = -1}, .fd = -1};
    if (!j)
        return err_nomem(e, sizeof *j, "the plan");
    int rc = 0;
    if (o->template && strcmp(o->form, "prompt") != 0)
        rc = err_set(e, ERR_USAGE, "--template is for --form prompt");
    else if (o->template && (!strstr(o->template, "{}") || strlen(o->template) > TEMPLATE_MAX))
        rc = err_set(e, ERR_USAGE,
                     "--template: a text of at most %d bytes, with {} where the problem stands",
                     TEMPLATE_MAX);
    rc = rc ? rc : plan(j, o, e);
    if (!rc)
        rc = output_open(&out, o->out && strcmp(o->out, "-") != 0 ? o->out : NULL, e);
    rc = rc ? rc : write_rows(c, j, &out, e);
    rc = output_close(&out, rc, e);
    free(j->seen);
    free(j);
    return rc;
}

const struct command cmd_data_r1_gym = {
    .name = "data r1-gym",
    .args = "",
    .summary = "make problems with answers that can be checked",
    .about =
        "Writes JSON lines: arithmetic, countdown, calendar, word problems and general talk, in "
        "English and Chinese. The same options give the same rows.\n\n"
        "Forms: prompt has \"prompt\" (a message); sft adds \"completion\" (thought and answer); "
        "pretrain has \"text\" with worked solutions; preference has \"prompt\", \"chosen\" and "
        "\"rejected\"; safety has \"prompt\", \"completion\" and \"label\", false where something "
        "unsafe is complied with. All but pretrain "
        "carry "
        "\"task\", \"language\", \"gold\" and \"id\", from which `ponder grade` and the trainer's "
        "rewards know the problem again.",
    .examples =
        "# what models are measured by: 200 problems that are not in training\n"
        "ponder data r1-gym --split eval --count 200 --output eval.jsonl\n"
        "# a cold start, a tenth of it with thoughts in the wrong language\n"
        "ponder data r1-gym --form sft --count 200 --mixed-language 0.1 --output cold.jsonl\n"
        "# for a base model, as R1-Zero begins\n"
        "ponder data r1-gym --template 'User: {} Assistant:' --output zero.jsonl\n"
        "# for reward models\n"
        "ponder data r1-gym --tasks general --form preference --count 1000 --output pairs.jsonl\n",
    .spec = {gym_groups, NUM_COUNT(gym_groups)},
    .opts_size = sizeof(struct gym_options),
    .run = gym_run,
};
