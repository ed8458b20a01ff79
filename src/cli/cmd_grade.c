/*
 * grade: answers in, verdicts out. A line is an object with an answer and what it is held against:
 * a gold answer, or the id of an r1-gym problem, whose own verifier judges then.
 */
#include "base/num.h"
#include "cli/command.h"
#include "cli/lines.h"
#include "format/meta_json.h"
#include "grade/gym_data.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

struct grade_options {
    const char *rewards;
    int thinking_open;
};

#define AT(field) offsetof(struct grade_options, field)
// clang-format off
static const struct opt grade_rows[] = {
    {.name = "rewards", .kind = OPT_STRING, .arg = "LIST", .offset = AT(rewards),
     .help = "also these rewards, like accuracy,format, or all; what does not apply is null"},
    {.name = "thinking-open", .kind = OPT_FLAG, .offset = AT(thinking_open),
     .help = "prompts ended inside <think>: answers begin with a thought"},
};
// clang-format on
#undef AT

static const struct opt_group grade_groups[] = {
    {"Options", grade_rows, NUM_COUNT(grade_rows), 0},
};

/* The next name of a list; false at its end. */
static bool grade_word(const char **list, struct span *word)
{
    size_t n = strcspn(*list, ",");
    *word = span_trim((struct span){*list, n});
    *list += n + ((*list)[n] == ',');
    return n > 0;
}

static bool grade_wants(const struct grade_options *o, const struct reward *r)
{
    const char *list = o->rewards;
    struct span word;
    if (!list || !strcmp(list, "all"))
        return list != NULL;
    while (grade_word(&list, &word))
        if (span_is(word, reward_name(r)))
            return true;
    return false;
}

static int grade_check(const struct grade_options *o, struct err *e)
{
    const char *list = o->rewards ? o->rewards : "";
    struct span word;
    while (strcmp(list, "all") != 0 && grade_word(&list, &word))
        if (!reward_find(word))
            return err_set(e, ERR_USAGE, "--rewards: there is no reward \"%.*s\"",
                           (int)num_min(word.n, 60), word.s);
    return 0;
}

static int grade_rewards(const struct grade_options *o, const struct reward_problem *p,
                         struct span answer, json_t *out, struct err *e)
{
    struct reward_options options;
    struct reward_sample sample = {.text = answer};
    json_t *rewards = json_object(), *reasons = json_object();
    int rc = 0;
    reward_options_init(&options);
    for (size_t i = 0; !rc && i < reward_count(); i++) {
        const struct reward *r = reward_at(i);
        struct reward_why why;
        float x;
        if (!grade_wants(o, r))
            continue;
        rc = reward_group(r, &options, p, &sample, 1, &x, &why, e);
        if (rc)
            break;
        json_object_set_new(rewards, reward_name(r), isnan(x) ? json_null() : json_real((double)x));
        if (why.text[0]) /* it may have been cut inside a character */
            json_object_set_new(reasons, reward_name(r),
                                meta_json_string(why.text, strlen(why.text)));
    }
    json_object_set_new(out, "rewards", rewards);
    json_object_set_new(out, "why", reasons);
    return rc;
}

/* What came out for one line. */
static int grade_print(const struct grade_options *o, const struct reward_problem *p,
                       struct span text, struct err *e)
{
    static const char open[] = "<think>\n";
    struct span a, all;
    struct buf whole;
    json_t *out = json_object();
    buf_init(&whole, LINES_MAX);
    int rc = o->thinking_open ? buf_puts(&whole, open, e) : 0;
    rc = rc ? rc : buf_append(&whole, text.s, text.n, e);
    all = (struct span){whole.data, whole.len};
    if (!rc) {
        bool has = answer_extract(all, &a);
        json_object_set_new(out, "verdict", json_string(grade_name(reward_verdict(p, all))));
        json_object_set_new(out, "extracted", has ? meta_json_string(a.s, a.n) : json_null());
    }
    if (!rc && o->rewards)
        rc = grade_rewards(o, p, text, out, e);
    rc = rc ? rc : lines_print_json(out, false, e);
    buf_release(&whole);
    json_decref(out);
    return rc;
}

/* Takes "answer" out of the line: in other columns it would be the right one. */
static int grade_line(const struct grade_options *o, json_t *v, struct err *e)
{
    struct reward_problem p;
    struct reward_source from;
    json_t *answer = json_incref(json_object_get(v, "answer"));
    int rc = 0;
    if (json_is_string(answer)) {
        json_object_del(v, "answer");
        rc = reward_problem_read(&p, &from, v, e);
    } else {
        rc = err_set(e, ERR_FORMAT, "\"answer\" has to be a string");
    }
    if (!rc && !p.item && !p.gold.s)
        rc = err_set(e, ERR_FORMAT,
                     "there is nothing to hold the answer against: \"gold\", or \"task\" and "
                     "\"id\" of r1-gym");
    if (!rc) {
        p.thinking_open = o->thinking_open;
        rc = grade_print(o, &p,
                         (struct span){json_string_value(answer), json_string_length(answer)}, e);
    }
    json_decref(answer);
    return rc;
}

static int grade_run(struct cli *c, const void *opts, struct err *e)
{
    const struct grade_options *o = opts;
    struct lines in;
    json_t *v = NULL;
    lines_init(&in, STDIN_FILENO);
    int rc = grade_check(o, e);
    (void)c;
    while (!rc && !(rc = lines_json(&in, &v, e)) && v) {
        rc = grade_line(o, v, e);
        if (rc)
            err_ctx(e, "line %zu", in.number);
        json_decref(v);
    }
    lines_release(&in);
    return rc;
}

const struct command cmd_grade = {
    .name = "grade",
    .args = "",
    .summary = "judge answers",
    .about =
        "Each line of standard input is an object with \"gold\", the right answer, and \"answer\", "
        "what a model wrote; prints an object with \"verdict\" (equal, different or unparsed) and "
        "\"extracted\" a line. What counts of an answer is the last \\boxed{} behind the thought, "
        "or all of it where there is no box. Integers, fractions, mixed numbers and decimals are "
        "compared exactly; other forms are equal when they are written alike and unparsed when "
        "not.\n\n"
        "Lines with \"task\" and \"id\" as `ponder data r1-gym` writes them are judged by that "
        "task's verifier, which takes anything right.",
    .examples = "echo '{\"gold\": \"1/2\", \"answer\": \"So \\\\boxed{0.5}.\"}' | ponder grade\n"
                "ponder grade --rewards accuracy,format <answers.jsonl\n",
    .spec = {grade_groups, NUM_COUNT(grade_groups)},
    .opts_size = sizeof(struct grade_options),
    .run = grade_run,
};
