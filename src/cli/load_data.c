/* What a load asks for: lengths and prompts. See load.h. */
#include "cli/load.h"

#include "base/buf.h"
#include "base/num.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DATA_LINES_MAX = 1000000, DATA_LINE_MAX = 16 << 20 };

struct load_data {
    struct load_data_opts o;
    json_t *rows; /* [{"messages", "output_len"?}, …] of a file, or NULL */
};

/* ---- lengths -------------------------------------------------------------------------------- */

int load_length_parse(struct load_length *out, const char *text, struct err *e)
{
    double a, b;
    int end = 0;
    *out = (struct load_length){.kind = LENGTH_UNIFORM};
    if (sscanf(text, "normal:%lf:%lf%n", &a, &b, &end) == 2 && !text[end])
        out->kind = LENGTH_NORMAL;
    else if (sscanf(text, "lognormal:%lf:%lf%n", &a, &b, &end) == 2 && !text[end])
        out->kind = LENGTH_LOGNORMAL;
    else if (sscanf(text, "exp:%lf%n", &a, &end) == 1 && !text[end])
        out->kind = LENGTH_EXP, b = 0;
    else if (sscanf(text, "%lf-%lf%n", &a, &b, &end) == 2 && !text[end] && b >= a)
        out->kind = LENGTH_UNIFORM;
    else if (sscanf(text, "%lf%n", &a, &end) == 1 && !text[end])
        b = a;
    else
        a = b = NAN;
    if (!(a >= 1 && a <= 1e7 && b >= 0 && b <= 1e7))
        return err_set(e, ERR_USAGE,
                       "\"%.60s\" is no length: write 128, 64-512, normal:256:64, "
                       "lognormal:200:0.8 or exp:200",
                       text);
    out->a = a;
    out->b = b;
    return 0;
}

size_t load_length_draw(const struct load_length *l, struct rng *r, size_t min, size_t max)
{
    double v = l->a;
    switch (l->kind) {
    case LENGTH_UNIFORM:
        v = l->a + floor(rng_uniform(r) * (l->b - l->a + 1));
        break;
    case LENGTH_NORMAL:
        v = l->a + l->b * rng_normal(r);
        break;
    case LENGTH_LOGNORMAL:
        v = l->a * exp(l->b * rng_normal(r));
        break;
    case LENGTH_EXP:
        v = -l->a * log(1 - rng_uniform(r));
        break;
    }
    v = round(v);
    return v < (double)min ? min : v > (double)max ? max : (size_t)v;
}

/* ---- files ---------------------------------------------------------------------------------- */

/* One line in OpenAI's words; NULL when it holds no question. */
static json_t *row_of(json_t *o)
{
    json_t *messages = json_object_get(o, "messages"), *talk = json_object_get(o, "conversations");
    json_t *prompt = json_object_get(o, "prompt"), *one;
    json_t *out = json_array();
    size_t i;
    if (json_is_array(messages)) {
        json_array_extend(out, messages);
    } else if (json_is_string(prompt)) {
        json_array_append_new(out, json_pack("{ss sO}", "role", "user", "content", prompt));
    } else if (json_is_array(talk)) {
        json_array_foreach(talk, i, one)
        {
            const char *from = json_string_value(json_object_get(one, "from"));
            json_t *value = json_object_get(one, "value");
            if (!from || !json_is_string(value))
                continue;
            const char *role = !strcmp(from, "gpt")      ? "assistant"
                               : !strcmp(from, "system") ? "system"
                                                         : "user";
            json_array_append_new(out, json_pack("{ss sO}", "role", role, "content", value));
        }
    }
    /* What is asked ends with the user's last turn. */
    for (size_t n = json_array_size(out); n; n--) {
        const char *role = json_string_value(json_object_get(json_array_get(out, n - 1), "role"));
        if (!role || strcmp(role, "assistant"))
            break;
        json_array_remove(out, n - 1);
    }
    if (!json_array_size(out)) {
        json_decref(out);
        return NULL;
    }
    json_t *row = json_pack("{so}", "messages", out), *len = json_object_get(o, "output_len");
    if (row && json_is_integer(len))
        json_object_set(row, "output_len", len);
    return row;
}

static int data_line(struct load_data *d, const char *s, size_t n, size_t line, struct err *e)
{
    json_error_t je;
    json_t *o = json_loadb(s, n, JSON_ALLOW_NUL, &je);
    if (!o)
        return err_set(e, ERR_FORMAT, "%s:%zu: %s", d->o.file, line, je.text);
    json_t *row = row_of(o);
    json_decref(o);
    if (row && json_array_append_new(d->rows, row))
        return err_nomem(e, n, "prompts");
    return 0;
}

static int data_read(struct load_data *d, struct err *e)
{
    FILE *f = fopen(d->o.file, "r");
    if (!f)
        return err_errno(e, "%s", d->o.file);
    char *text = NULL;
    size_t cap = 0, line = 0;
    int rc = 0;
    ssize_t n;
    d->rows = json_array();
    while (!rc && ++line <= DATA_LINES_MAX && (n = getline(&text, &cap, f)) >= 0) {
        if (n > DATA_LINE_MAX)
            rc = err_set(e, ERR_LIMIT, "%s:%zu: longer than 16 MiB", d->o.file, line);
        else if (strspn(text, " \t\r\n") < (size_t)n)
            rc = data_line(d, text, (size_t)n, line, e);
    }
    if (!rc && ferror(f))
        rc = err_errno(e, "%s", d->o.file);
    free(text);
    fclose(f);
    if (!rc && !json_array_size(d->rows))
        rc = err_set(e, ERR_FORMAT,
                     "%s: no line with \"messages\", \"conversations\" or \"prompt\"", d->o.file);
    return rc;
}

int load_data_new(struct load_data **out, const struct load_data_opts *o, struct err *e)
{
    struct load_data *d = calloc(1, sizeof *d);
    *out = NULL;
    if (!d)
        return err_nomem(e, sizeof *d, "prompts");
    d->o = *o;
    int rc = o->file ? data_read(d, e) : 0;
    if (rc)
        load_data_free(d);
    else
        *out = d;
    return rc;
}

void load_data_free(struct load_data *d)
{
    if (!d)
        return;
    json_decref(d->rows);
    free(d);
}

/* ---- prompts -------------------------------------------------------------------------------- */

/* n words drawn from r. */
static int put_words(struct buf *b, struct rng *r, size_t n, struct err *e)
{
    static const char *const words[] = {
        "time",     "year",    "people",   "way",    "day",        "man",    "thing",   "woman",
        "life",     "child",   "world",    "school", "state",      "family", "student", "group",
        "country",  "problem", "hand",     "part",   "place",      "case",   "week",    "company",
        "system",   "program", "question", "work",   "government", "number", "night",   "point",
        "home",     "water",   "room",     "mother", "area",       "money",  "story",   "fact",
        "month",    "lot",     "right",    "study",  "book",       "eye",    "job",     "word",
        "business", "issue",   "side",     "kind",   "head",       "house",  "service", "friend",
        "father",   "power",   "hour",     "game",   "line",       "end",    "member",  "law"};
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++)
        rc = buf_printf(b, e, "%s%s", b->len ? " " : "", words[rng_u32(r) % NUM_COUNT(words)]);
    return rc;
}

int load_data_get(const struct load_data *d, size_t i, json_t **messages, size_t *answer,
                  struct err *e)
{
    struct rng r, shared;
    rng_init(&r, d->o.seed, i + 1);
    *messages = NULL;
    *answer = load_length_draw(&d->o.answer, &r, 1, 1 << 20);
    if (d->rows) {
        json_t *row = json_array_get(d->rows, i % json_array_size(d->rows));
        json_t *len = json_object_get(row, "output_len");
        if (json_is_integer(len) && json_integer_value(len) > 0)
            *answer = (size_t)json_integer_value(len);
        *messages = json_incref(json_object_get(row, "messages"));
        return 0;
    }
    struct buf text;
    buf_init(&text, 64 << 20);
    rng_init(&shared, d->o.seed, 0);
    size_t tokens = load_length_draw(&d->o.prompt, &r, 1, 1 << 20);
    int rc = put_words(&text, &shared, d->o.prefix, e);
    rc = rc ? rc : put_words(&text, &r, tokens * 10 / 13 + 1, e);
    if (!rc)
        *messages = json_pack("[{ss ss}]", "role", "user", "content", text.data);
    buf_release(&text);
    return rc || *messages ? rc : err_nomem(e, 0, "a prompt");
}
