/* parse: raw model output in, reasoning, content and tool calls out. */
#include "base/num.h"
#include "cli/command.h"
#include "cli/lines.h"
#include "cli/locate.h"
#include "text/parse.h"

#include <string.h>
#include <unistd.h>

struct parse_options {
    int thinking_open;
};

static const struct opt parse_rows[] = {
    {.name = "thinking-open",
     .kind = OPT_FLAG,
     .offset = offsetof(struct parse_options, thinking_open),
     .help = "the prompt ended inside <think>: the output begins with reasoning"},
};

static const struct opt_group parse_groups[] = {
    {"Options", parse_rows, NUM_COUNT(parse_rows), 0},
};

static int parse_line(const json_t *v, bool open, size_t number, struct err *e)
{
    json_t *out = NULL;
    if (!json_is_string(v))
        return err_set(e, ERR_FORMAT, "line %zu is not a JSON string", number);
    int rc = parse_output(&out, json_string_value(v), json_string_length(v), open, e);
    if (rc)
        return err_ctx(e, "line %zu", number);
    rc = lines_print_json(out, false, e);
    json_decref(out);
    return rc;
}

static int parse_run(struct cli *c, const void *opts, struct err *e)
{
    const struct parse_options *o = opts;
    char path[LOCATE_MAX];
    struct lines in;
    json_t *v = NULL;
    lines_init(&in, STDIN_FILENO);
    /* The forms are told apart by what the text holds; MODEL only has to exist. */
    int rc = strcmp(c->args[0], "-") != 0 ? locate_model(c->args[0], path, e) : 0;
    while (!rc && !(rc = lines_json(&in, &v, e)) && v) {
        rc = parse_line(v, o->thinking_open, in.number, e);
        json_decref(v);
    }
    lines_release(&in);
    return rc;
}

const struct command cmd_parse = {
    .name = "parse",
    .args = "MODEL",
    .summary = "take a model's raw output apart",
    .about =
        "Each line of standard input is a JSON string with what a model wrote; prints an "
        "object with \"reasoning\", \"content\" and \"tool_calls\" a line. MODEL may be \"-\".",
    .examples = "echo '\"<think>easy</think>\\n\\n4\"' | ponder parse -\n",
    .spec = {parse_groups, NUM_COUNT(parse_groups)},
    .opts_size = sizeof(struct parse_options),
    .min_args = 1,
    .max_args = 1,
    .run = parse_run,
};
