#include "train/record.h"

#include "base/hash.h"
#include "base/num.h"
#include "base/utf8.h"
#include "format/jsonin.h"
#include "train/jsonl.h"

#include <math.h>
#include <string.h>
#include <utf8proc.h>

enum { RECORD_MESSAGES = 4096 };

/* ---- messages ---------------------------------------------------------------------------------
 */

static const char *text_at(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static bool is_role(const json_t *message, const char *role)
{
    const char *s = text_at(message, "role");
    return s && strcmp(s, role) == 0;
}

json_t *record_content(const json_t *message)
{
    json_t *c = json_object_get(message, "content"), *part;
    if (!c || json_is_null(c))
        return json_string("");
    if (json_is_string(c))
        return json_incref(c);
    struct buf text;
    struct err e;
    size_t i;
    bool fine = json_is_array(c);
    buf_init(&text, (size_t)JSONL_LINE * 4);
    json_array_foreach(c, i, part)
    {
        const json_t *s = json_is_string(part) ? part : json_object_get(part, "text");
        fine = fine && json_is_string(s) &&
               !buf_append(&text, json_string_value(s), json_string_length(s), &e);
    }
    json_t *out = fine ? json_stringn(text.data, text.len) : NULL;
    buf_release(&text);
    return out;
}

static int check_message(const json_t *m, const char *column, size_t i, struct err *e)
{
    if (!json_is_object(m))
        return err_set(e, ERR_FORMAT, "\"%s\": message %zu is %s, not an object", column, i + 1,
                       jsonin_kind(m));
    const json_t *role = json_object_get(m, "role"), *content = json_object_get(m, "content");
    if (!json_is_string(role))
        return err_set(e, ERR_FORMAT, "\"%s\": message %zu: \"role\" is %s, not a string", column,
                       i + 1, jsonin_kind(role));
    if (content && !json_is_string(content) && !json_is_array(content) && !json_is_null(content))
        return err_set(e, ERR_FORMAT, "\"%s\": message %zu: \"content\" is %s, not a string",
                       column, i + 1, jsonin_kind(content));
    if (!content && !json_object_get(m, "tool_calls"))
        return err_set(e, ERR_FORMAT, "\"%s\": message %zu: \"content\" is missing", column, i + 1);
    return 0;
}

/* ShareGPT's {"from", "value"}. A new reference. */
static json_t *from_sharegpt(const json_t *list)
{
    static const struct {
        const char *from, *role;
    } roles[] = {{"human", "user"},
                 {"gpt", "assistant"},
                 {"function_call", "assistant"},
                 {"observation", "tool"}};
    json_t *out = json_array(), *m;
    size_t i;
    json_array_foreach(list, i, m)
    {
        const char *from = text_at(m, "from");
        json_t *value = json_object_get(m, "value");
        if (!from || !value) { /* is checked as it stands */
            json_array_append(out, m);
            continue;
        }
        for (size_t k = 0; k < NUM_COUNT(roles); k++)
            if (strcmp(from, roles[k].from) == 0)
                from = roles[k].role;
        json_array_append_new(out, json_pack("{ss sO}", "role", from, "content", value));
    }
    return out;
}

/* A text, or a list of messages that is as it should be. */
static int check_side(const json_t *v, const char *column, struct err *e)
{
    const json_t *m;
    size_t i;
    int rc = 0;
    if (json_is_string(v))
        return 0;
    if (!json_is_array(v))
        return err_set(e, ERR_FORMAT, "\"%s\" is %s: a string or a list of messages is needed",
                       column, jsonin_kind(v));
    if (!json_array_size(v))
        return err_set(e, ERR_FORMAT, "\"%s\" has no messages", column);
    if (json_array_size(v) > RECORD_MESSAGES)
        return err_set(e, ERR_LIMIT, "\"%s\" has %zu messages: at most %d are supported", column,
                       json_array_size(v), RECORD_MESSAGES);
    json_array_foreach(v, i, m)
    {
        if (!rc)
            rc = check_message(m, column, i, e);
    }
    return rc;
}

static json_t *one_message(const char *role, json_t *content)
{
    return json_pack("[{ss sO}]", "role", role, "content", content);
}

/* A prompt that is a list begins with `system` unless it has one of its own. */
static int add_system(json_t **list, const char *system, struct err *e)
{
    if (!system || !json_is_array(*list) || is_role(json_array_get(*list, 0), "system"))
        return 0;
    json_t *copy = json_copy(*list);
    if (!copy ||
        json_array_insert_new(copy, 0, json_pack("{ss ss}", "role", "system", "content", system))) {
        json_decref(copy);
        return err_nomem(e, 0, "a message");
    }
    json_decref(*list);
    *list = copy;
    return 0;
}

/* ---- forms ------------------------------------------------------------------------------------
 */

/* list[from, to) as a list of its own. */
static json_t *part_of(const json_t *list, size_t from, size_t to)
{
    json_t *out = json_array();
    for (size_t i = from; out && i < to; i++)
        json_array_append(out, json_array_get(list, i));
    return out;
}

static int take(json_t **out, json_t *v, const char *column, struct err *e)
{
    int rc = check_side(v, column, e);
    if (!rc)
        *out = json_incref(v);
    return rc;
}

/* A completion of messages may be a text too: what the assistant says. */
static int take_next(json_t **out, json_t *v, const json_t *prompt, const char *column,
                     struct err *e)
{
    int rc = check_side(v, column, e);
    if (rc)
        return rc;
    if (json_is_string(prompt) && json_is_array(v))
        return err_set(e, ERR_FORMAT,
                       "\"%s\" is a list of messages, but the prompt is a text: both have to be "
                       "the same",
                       column);
    *out =
        json_is_array(prompt) && json_is_string(v) ? one_message("assistant", v) : json_incref(v);
    return *out ? 0 : err_nomem(e, 0, "a message");
}

/* "problem" or "question", as one message of a user. */
static json_t *problem_of(const json_t *row, const char **column)
{
    *column = json_object_get(row, "problem") ? "problem" : "question";
    return json_object_get(row, *column);
}

static json_t *solution_of(const json_t *row, const char **column)
{
    *column = json_object_get(row, "solution") ? "solution" : "answer";
    return json_object_get(row, *column);
}

static int take_problem(struct record *r, const json_t *row, struct err *e)
{
    const char *column;
    json_t *v = problem_of(row, &column);
    if (!json_is_string(v))
        return err_set(e, ERR_FORMAT, "\"%s\" is %s, not a string", column, jsonin_kind(v));
    r->form = RECORD_CHAT;
    r->prompt = one_message("user", v);
    return r->prompt ? 0 : err_nomem(e, 0, "a message");
}

/* The column of a whole conversation; NULL when there is none. A new reference. */
static json_t *conversation_of(const json_t *row, const char **column)
{
    json_t *v = json_object_get(row, *column = "messages");
    if (v)
        return json_incref(v);
    v = json_object_get(row, *column = "conversations");
    return json_is_array(v) ? from_sharegpt(v) : v ? json_incref(v) : NULL;
}

/* What no form fits is told with the columns that are there. */
static int no_form(const json_t *row, const char *needs, struct err *e)
{
    char names[160] = "";
    size_t at = 0;
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)row, key, v)
    {
        int n = snprintf(names + at, sizeof names - at, "%s\"%.40s\"", at ? ", " : "", key);
        at += n > 0 && (size_t)n < sizeof names - at ? (size_t)n : 0;
        names[at] = 0;
    }
    return err_set(e, ERR_FORMAT, "needs %s, but has %s", needs, at ? names : "no columns");
}

static int read_learn(struct record *r, const json_t *row, const char *text, struct err *e)
{
    const char *column;
    json_t *prompt = json_object_get(row, "prompt"), *next = json_object_get(row, "completion");
    json_t *list = conversation_of(row, &column);
    if (list) {
        r->form = RECORD_WHOLE;
        int rc = json_is_array(list)
                     ? take(&r->prompt, list, column, e)
                     : err_set(e, ERR_FORMAT, "\"%s\" is %s, not a list of messages", column,
                               jsonin_kind(list));
        json_decref(list);
        return rc;
    }
    if (prompt && next) {
        int rc = take(&r->prompt, prompt, "prompt", e);
        r->form = json_is_array(prompt) ? RECORD_CHAT : RECORD_TEXT;
        return rc ? rc : take_next(&r->next, next, prompt, "completion", e);
    }
    if ((next = json_object_get(row, text))) {
        if (!json_is_string(next))
            return err_set(e, ERR_FORMAT, "\"%s\" is %s, not a string", text, jsonin_kind(next));
        r->form = RECORD_TEXT;
        r->next = json_incref(next);
        return 0;
    }
    if (!problem_of(row, &column) || !(next = solution_of(row, &column)))
        return no_form(row,
                       "\"messages\", or \"prompt\" and \"completion\", or \"text\", or "
                       "\"problem\" and \"solution\"",
                       e);
    int rc = take_problem(r, row, e);
    return rc ? rc : take_next(&r->next, next, r->prompt, column, e);
}

static int read_prompt(struct record *r, const json_t *row, struct err *e)
{
    const char *column;
    json_t *prompt = json_object_get(row, "prompt"), *list;
    if (prompt) {
        r->form = json_is_array(prompt) ? RECORD_CHAT : RECORD_TEXT;
        return take(&r->prompt, prompt, "prompt", e);
    }
    if (problem_of(row, &column))
        return take_problem(r, row, e);
    if (!(list = conversation_of(row, &column)))
        return no_form(row, "\"prompt\" (or \"problem\", \"question\", \"messages\")", e);
    /* What the assistant says at the end is an answer, and no part of the prompt. */
    int rc = check_side(list, column, e);
    size_t n = json_array_size(list);
    while (n && is_role(json_array_get(list, n - 1), "assistant"))
        n--;
    if (!rc && !n)
        rc = err_set(e, ERR_FORMAT, "\"%s\": nobody asks anything", column);
    r->form = RECORD_CHAT;
    if (!rc && !(r->prompt = part_of(list, 0, n)))
        rc = err_nomem(e, 0, "messages");
    json_decref(list);
    return rc;
}

/* How much two texts have in common, up to a blank, so that no word is cut. */
static size_t shared_text(const json_t *a, const json_t *b)
{
    const char *s = json_string_value(a), *t = json_string_value(b);
    size_t n = num_min(json_string_length(a), json_string_length(b)), i = 0;
    while (i < n && s[i] == t[i])
        i++;
    while (i && s[i - 1] != ' ' && s[i - 1] != '\n')
        i--;
    return i;
}

/* Without a prompt it is what chosen and rejected have in common at their beginning. */
static int shared_prompt(struct record *r, json_t *chosen, json_t *rejected, struct err *e)
{
    if (json_is_string(chosen) != json_is_string(rejected))
        return err_set(e, ERR_FORMAT,
                       "\"chosen\" is %s, but \"rejected\" is %s: both have to be the same",
                       jsonin_kind(chosen), jsonin_kind(rejected));
    if (json_is_string(chosen)) {
        size_t n = shared_text(chosen, rejected);
        r->form = RECORD_TEXT;
        r->prompt = json_stringn(json_string_value(chosen), n);
        r->next = json_stringn(json_string_value(chosen) + n, json_string_length(chosen) - n);
        r->rejected =
            json_stringn(json_string_value(rejected) + n, json_string_length(rejected) - n);
    } else {
        size_t n = 0, a = json_array_size(chosen), b = json_array_size(rejected);
        while (n + 1 < a && n + 1 < b &&
               json_equal(json_array_get(chosen, n), json_array_get(rejected, n)))
            n++;
        if (!n)
            return err_set(e, ERR_FORMAT,
                           "\"chosen\" and \"rejected\" begin with different messages, and there "
                           "is no \"prompt\"");
        r->form = RECORD_CHAT;
        r->prompt = part_of(chosen, 0, n);
        r->next = part_of(chosen, n, a);
        r->rejected = part_of(rejected, n, b);
    }
    return r->prompt && r->next && r->rejected ? 0 : err_nomem(e, 0, "a pair");
}

static int read_pair(struct record *r, const json_t *row, struct err *e)
{
    json_t *prompt = json_object_get(row, "prompt"), *chosen = json_object_get(row, "chosen"),
           *rejected = json_object_get(row, "rejected");
    if (!chosen || !rejected)
        return no_form(row, "\"chosen\" and \"rejected\"", e);
    int rc = check_side(chosen, "chosen", e);
    if (!rc)
        rc = check_side(rejected, "rejected", e);
    if (rc || !prompt)
        return rc ? rc : shared_prompt(r, chosen, rejected, e);
    rc = take(&r->prompt, prompt, "prompt", e);
    r->form = json_is_array(prompt) ? RECORD_CHAT : RECORD_TEXT;
    if (!rc)
        rc = take_next(&r->next, chosen, prompt, "chosen", e);
    return rc ? rc : take_next(&r->rejected, rejected, prompt, "rejected", e);
}

/* {"prompt", "completion", "label"}: wanted or not. Other columns of that name say nothing. */
static int read_label(const json_t *row)
{
    const json_t *v = json_object_get(row, "label");
    if (json_is_boolean(v))
        return json_is_true(v);
    return json_is_integer(v) && (json_integer_value(v) | 1) == 1 ? (int)json_integer_value(v) : -1;
}

static int read_weight(struct record *r, const json_t *row, struct err *e)
{
    const json_t *v = json_object_get(row, "weight");
    r->weight = 1;
    if (!v || json_is_null(v))
        return 0;
    double w = json_number_value(v);
    if (!json_is_number(v) || !(w >= 0 && w <= 1e6))
        return err_set(e, ERR_FORMAT, "\"weight\" is %s: a number from 0 to 1000000 is needed",
                       json_is_number(v) ? "out of bounds" : jsonin_kind(v));
    r->weight = (float)w;
    return 0;
}

static int read_margin(struct record *r, const json_t *row, struct err *e)
{
    const json_t *v = json_object_get(row, "margin");
    if (!v || json_is_null(v))
        return 0;
    double m = json_number_value(v);
    if (!json_is_number(v) || !(m >= -1e6 && m <= 1e6))
        return err_set(e, ERR_FORMAT, "\"margin\" is %s: a number is needed",
                       json_is_number(v) ? "out of bounds" : jsonin_kind(v));
    r->margin = (float)m;
    return 0;
}

int record_read(struct record *r, const json_t *row, enum data_use use, const char *text,
                const char *system, struct err *e)
{
    *r = (struct record){0};
    int rc = use == DATA_LEARN   ? read_learn(r, row, text ? text : "text", e)
             : use == DATA_PAIRS ? read_pair(r, row, e)
                                 : read_prompt(r, row, e);
    if (!rc)
        rc = read_weight(r, row, e);
    if (!rc)
        rc = add_system(&r->prompt, system, e);
    if (!rc)
        rc = read_margin(r, row, e);
    r->label = read_label(row);
    r->tools = json_object_get(row, "tools");
    r->variables = json_object_get(row, "chat_template_kwargs");
    return rc;
}

void record_release(struct record *r)
{
    json_decref(r->prompt);
    json_decref(r->next);
    json_decref(r->rejected);
    *r = (struct record){0};
}

json_t *record_text(const char *s, size_t n)
{
    struct buf out;
    json_t *v = json_stringn(s, n);
    if (v)
        return v;
    buf_init(&out, n * 3 + 4);
    int rc = 0;
    while (!rc && n) {
        uint32_t cp;
        char c[4];
        size_t k = utf8_next(s, n, &cp, NULL);
        s += k;
        n -= k;
        rc = buf_append(&out, c, utf8_put(c, cp), NULL);
    }
    v = rc ? NULL : json_stringn(out.data, out.len);
    buf_release(&out);
    return v;
}

/* ---- what is asked ----------------------------------------------------------------------------
 */

int record_normal(const char *s, size_t n, struct buf *out, struct err *e)
{
    bool gap = false, begun = false;
    int rc = 0;
    while (!rc && n) {
        uint32_t cp;
        char c[4];
        size_t k = utf8_next(s, n, &cp, NULL);
        s += k;
        n -= k;
        utf8proc_category_t kind = utf8proc_category((utf8proc_int32_t)cp);
        if (cp == ' ' || (cp >= 9 && cp <= 13) || kind == UTF8PROC_CATEGORY_ZS) {
            gap = begun;
            continue;
        }
        if (gap)
            rc = buf_putc(out, ' ', e);
        gap = false;
        begun = true;
        if (!rc)
            rc = buf_append(out, c, utf8_put(c, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp)),
                            e);
    }
    return rc;
}

static int normal_content(const json_t *message, struct buf *out, struct err *e)
{
    json_t *c = record_content(message);
    int rc = c ? record_normal(json_string_value(c), json_string_length(c), out, e) : 0;
    json_decref(c);
    return rc;
}

int record_asks(const json_t *row, const char *text, struct buf *out, struct err *e)
{
    const char *const columns[] = {"prompt", "problem", "question", text ? text : "text", "chosen"};
    const char *column;
    json_t *v = conversation_of(row, &column), *m;
    for (size_t i = 0; !v && i < NUM_COUNT(columns); i++)
        v = json_incref(json_object_get(row, columns[i]));
    int rc = 0;
    size_t i;
    if (json_is_string(v))
        rc = record_normal(json_string_value(v), json_string_length(v), out, e);
    json_array_foreach(v, i, m)
    {
        if (is_role(m, "user")) {
            rc = normal_content(m, out, e);
            break;
        }
    }
    json_decref(v);
    return rc;
}

double data_split_point(const json_t *record, const char *text)
{
    struct buf asks;
    struct err e;
    buf_init(&asks, (size_t)JSONL_LINE * 4);
    int rc = record_asks(record, text, &asks, &e);
    double x = rc ? 0 : (double)(hash_xxh64(asks.data, asks.len, 0) >> 11) * 0x1p-53;
    buf_release(&asks);
    return x;
}
