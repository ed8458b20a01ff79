/*
 * render: conversations in, the text of the prompt out. A row that cannot be rendered gives a row
 * with its error, and the work goes on.
 */
#include "base/file.h"
#include "base/num.h"
#include "cli/command.h"
#include "cli/lines.h"
#include "cli/model_files.h"
#include "text/chat.h"
#include "text/jinja.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RENDER_TEMPLATE_MAX = 16 << 20 };

struct render_options {
    const char *file;
};

static const struct opt render_rows[] = {
    {.name = "template",
     .kind = OPT_STRING,
     .arg = "FILE",
     .offset = offsetof(struct render_options, file),
     .help = "render this template instead of the model's"},
};

static const struct opt_group render_groups[] = {
    {"Options", render_rows, NUM_COUNT(render_rows), 0},
};

/* SOURCE_DATE_EPOCH freezes strftime_now, for output that can be compared. */
static time_t render_now(void)
{
    const char *s = getenv("SOURCE_DATE_EPOCH");
    return s ? (time_t)strtoll(s, NULL, 10) : 0;
}

/* Bare Jinja is there to compare the engine with others, so its clock stands still: 2024-07-26
   15:04:05 local time. */
static time_t render_still(void)
{
    struct tm t = {.tm_year = 124,
                   .tm_mon = 6,
                   .tm_mday = 26,
                   .tm_hour = 15,
                   .tm_min = 4,
                   .tm_sec = 5,
                   .tm_isdst = -1};
    time_t now = render_now();
    return now ? now : mktime(&t);
}

/* {"template": "…", "context": {…}} */
static int render_bare(const json_t *row, struct jinja_result *out, struct err *e)
{
    const json_t *text = json_object_get(row, "template");
    const json_t *context = json_object_get(row, "context");
    struct jinja_limits limits = {.now = render_still()};
    struct jinja *j = NULL;
    json_t *empty = NULL;
    if (!json_is_string(text))
        return err_set(e, ERR_FORMAT, "\"template\" is not a string");
    if (context && !json_is_object(context))
        return err_set(e, ERR_FORMAT, "\"context\" is not an object");
    if (!context && !(context = empty = json_object()))
        return err_nomem(e, 0, "a context");
    int rc = jinja_new(&j, json_string_value(text), json_string_length(text), e);
    if (!rc)
        rc = jinja_render(j, context, &limits, out, e);
    jinja_free(j);
    json_decref(empty);
    return rc;
}

/* An array of messages, or an object with "messages". */
static int render_chat(const struct chat *chat, json_t *row, struct jinja_result *out,
                       struct err *e)
{
    json_t *request = NULL;
    if (!chat)
        return err_set(e, ERR_FORMAT, "no template: give --template FILE or a model");
    if (json_is_array(row)) {
        request = json_object();
        if (!request || json_object_set(request, "messages", row)) {
            json_decref(request);
            return err_nomem(e, 0, "a conversation");
        }
    } else if (json_is_object(row)) {
        request = json_incref(row);
    } else {
        return err_set(e, ERR_FORMAT, "a conversation is an array of messages or an object");
    }
    int rc = chat_render(chat, request, out, e);
    json_decref(request);
    return rc;
}

static int render_row(const struct chat *chat, json_t *row, struct buf *out, struct err *e)
{
    struct jinja_result r;
    struct err bad = {0};
    int rc;
    jinja_result_init(&r, LINES_MAX);
    if (!row)
        bad = *e;
    else if (json_is_object(row) && json_object_get(row, "template") &&
             !json_object_get(row, "messages"))
        render_bare(row, &r, &bad);
    else
        render_chat(chat, row, &r, &bad);
    rc = buf_puts(out, bad.code ? "{\"error\":" : "{\"text\":", e);
    if (!rc && bad.code)
        rc = lines_put_string(out, bad.text, strlen(bad.text), e);
    else if (!rc)
        rc = lines_put_string(out, r.text.data, r.text.len, e);
    if (!rc)
        rc = buf_putc(out, '}', e);
    jinja_result_release(&r);
    return rc ? rc : lines_print(out, e);
}

/* The template of --template or of the model; none for "-" alone. */
static int render_open(struct model_files *m, struct chat **chat, const char *name,
                       const char *file, struct err *e)
{
    struct buf text;
    int rc = 0;
    buf_init(&text, RENDER_TEMPLATE_MAX);
    if (strcmp(name, "-") != 0)
        rc = model_files_open(m, name, e);
    if (!rc && file && !(rc = file_read(&text, file, e))) {
        rc = chat_new_text(chat, m->tokenizer, text.data, text.len, e);
        if (rc)
            err_ctx(e, "%s", file);
    } else if (!rc && m->source) {
        rc = chat_new(chat, m->source, m->tokenizer, NULL, e);
    }
    buf_release(&text);
    return rc;
}

static int render_run(struct cli *c, const void *opts, struct err *e)
{
    const struct render_options *o = opts;
    struct model_files m = {0};
    struct chat *chat = NULL;
    struct lines in;
    struct buf out;
    json_t *row = NULL;
    lines_init(&in, STDIN_FILENO);
    buf_init(&out, (size_t)LINES_MAX * 8);
    int rc = render_open(&m, &chat, c->args[0], o->file, e);
    while (!rc) {
        rc = lines_json(&in, &row, e);
        if (rc && rc != ERR_FORMAT) /* the line is there but is no JSON: a row like others */
            break;
        if (!rc && !row)
            break;
        rc = render_row(chat, row, &out, e);
        json_decref(row);
    }
    chat_free(chat);
    buf_release(&out);
    lines_release(&in);
    model_files_release(&m);
    return rc;
}

const struct command cmd_render = {
    .name = "render",
    .args = "MODEL",
    .summary = "conversations to prompt text",
    .about =
        "Each line of standard input is a conversation: an array of messages, or an object "
        "with \"messages\" and any of \"tools\", \"add_generation_prompt\", "
        "\"continue_final_message\" and further keys, which become variables of the template; "
        "or {\"template\": \"…\", \"context\": {…}} for a template of its own. Prints {\"text\": "
        "\"…\"} or {\"error\": \"…\"} a line.\n\nMODEL may be \"-\" with --template or with rows "
        "that bring their template. The latter see a clock that stands still, at 2024-07-26 "
        "15:04:05 or at SOURCE_DATE_EPOCH.",
    .examples = "echo '[{\"role\":\"user\",\"content\":\"Hi\"}]' | ponder render model.gguf\n"
                "echo '{\"template\":\"{{ 6 * 7 }}\"}' | ponder render -\n",
    .spec = {render_groups, NUM_COUNT(render_groups)},
    .opts_size = sizeof(struct render_options),
    .min_args = 1,
    .max_args = 1,
    .run = render_run,
};
