/* See reward_model.h. */
#include "train/reward_model.h"

#include "base/file.h"
#include "format/adapter.h"
#include "train/example.h"
#include "train/record.h"
#include "train/score.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reward_model {
    struct frozen *frozen;
    struct score *score;
    struct example_how how;
    struct example x;
    bool answer; /* sees what is behind the thought */
    size_t longest;
};

/* Takes ":answer" or ":whole", then ":WEIGHT", off the end of the path. */
static int spec_read(char *path, struct reward_model *m, double *weight, struct err *e)
{
    char *colon = strrchr(path, ':'), *end;
    *weight = 1;
    if (colon && (!strcmp(colon, ":answer") || !strcmp(colon, ":whole"))) {
        m->answer = colon[1] == 'a';
        *colon = '\0';
        colon = strrchr(path, ':');
    }
    if (colon) {
        double w = strtod(colon + 1, &end);
        if (end == colon + 1 || *end || !isfinite(w))
            return err_set(e, ERR_USAGE,
                           "--reward-model: \"%s\" is no weight; write DIR:WEIGHT:answer or "
                           "DIR:WEIGHT:whole",
                           colon + 1);
        *weight = w;
        *colon = '\0';
    }
    return 0;
}

/* "runs/helpful/model" is "helpful". */
static void spec_name(const char *path, char name[48])
{
    size_t n = strlen(path), from;
    for (int up = 0;; up++) {
        while (n && path[n - 1] == '/')
            n--;
        from = n;
        while (from && path[from - 1] != '/')
            from--;
        if (up || n - from != 5 || memcmp(path + from, "model", 5) != 0 || !from)
            break;
        n = from;
    }
    snprintf(name, 48, "%.*s", (int)(n - from), path + from);
}

/* A folder with an adapter names the model that it is for. */
static int model_base(struct adapter **a, const char *path, struct frozen_opts *fo, struct err *e)
{
    char file[4096];
    fo->path = path;
    fo->adapter = NULL;
    if (!file_join(file, sizeof file, path, "adapter_config.json") ||
        file_kind(file) != FILE_REGULAR)
        return 0;
    int rc = adapter_open(a, path, e);
    const json_t *c = rc ? NULL : adapter_config(*a);
    const char *base = json_string_value(json_object_get(c, "base_model_name_or_path"));
    if (!rc && (!base || file_kind(base) == FILE_NONE))
        rc =
            err_set(e, ERR_NOTFOUND,
                    "%s is an adapter of \"%s\" (base_model_name_or_path), which is not here: name "
                    "its folder or file there, or merge the adapter (ponder merge)",
                    path, base ? base : "");
    fo->path = base;
    fo->adapter = path;
    return rc;
}

static int model_load_all(struct reward_model *m, const char *path, const struct frozen_opts *o,
                          struct err *e)
{
    struct frozen_opts fo = *o;
    struct adapter *a = NULL;
    int rc = model_base(&a, path, &fo, e);
    rc = rc ? rc : frozen_open(&m->frozen, &fo, e);
    adapter_free(a);
    rc = rc ? rc : score_open(&m->score, frozen_engine(m->frozen), fo.adapter, e);
    if (!rc && !m->score->found)
        rc = err_set(
            e, ERR_USAGE,
            "%s has no score.weight: it is no reward model (ponder train reward makes one)", path);
    struct data_options how = {.use = DATA_LEARN};
    if (!rc) {
        how.tokenizer = engine_tokenizer(frozen_engine(m->frozen));
        how.chat = engine_chat(frozen_engine(m->frozen));
        if (!how.tokenizer)
            rc = err_set(e, ERR_USAGE, "%s has no tokenizer", path);
    }
    return rc ? rc : example_how_init(&m->how, &how, e);
}

int reward_model_open(struct reward_model **out, const char *spec, const struct frozen_opts *o,
                      char name[48], double *weight, struct err *e)
{
    char *path = strdup(spec);
    struct reward_model *m = calloc(1, sizeof *m);
    *out = m;
    if (!path || !m) {
        free(path);
        return err_nomem(e, sizeof *m, "a reward model");
    }
    example_init(&m->x);
    m->longest = o->longest;
    int rc = spec_read(path, m, weight, e);
    rc = rc ? rc : model_load_all(m, path, o, e);
    spec_name(path, name);
    free(path);
    return rc;
}

void reward_model_free(struct reward_model *m)
{
    if (!m)
        return;
    example_release(&m->x);
    example_how_release(&m->how);
    score_free(m->score);
    frozen_free(m->frozen);
    free(m);
}

/* What the model is to see of a completion: a text that the caller frees. */
static json_t *seen(const struct reward_model *m, bool thinking, struct span text)
{
    static const char open[] = "<think>\n";
    size_t lead = thinking ? sizeof open - 1 : 0;
    char *whole = malloc(lead + text.n + 1);
    if (!whole)
        return NULL;
    memcpy(whole, open, lead);
    memcpy(whole + lead, text.s, text.n);
    struct span all = {whole, lead + text.n}, part = all;
    if (m->answer && !answer_part(all, &part))
        part.n = 0;
    if (m->answer)
        part = span_trim(part);
    json_t *s = record_text(part.s, part.n);
    free(whole);
    return s;
}

/* One completion as a sequence of the reward model's tokens; the caller frees ids. */
static int sequence(struct reward_model *m, const struct record *r, bool thinking, struct span text,
                    struct data_seq *out, struct err *e)
{
    json_t *said = seen(m, thinking, text);
    json_t *c = json_is_string(r->prompt)
                    ? json_incref(said)
                    : json_pack("[{s:s,s:O}]", "role", "assistant", "content", said);
    json_t *row = json_pack("{s:O,s:O}", "prompt", r->prompt, "completion", c);
    int rc = said && c && row ? example_make(&m->how, row, &m->x, e)
                              : err_nomem(e, text.n, "a completion");
    json_decref(row);
    json_decref(c);
    json_decref(said);
    if (rc)
        return rc;
    const struct ids *ids = &m->x.seq[0].ids;
    size_t from = ids->n > m->longest ? ids->n - m->longest : 0; /* the end is what is scored */
    int32_t *copy = calloc(ids->n - from + 1, sizeof *copy);
    if (!copy)
        return err_nomem(e, ids->n * sizeof *copy, "a completion");
    memcpy(copy, ids->v + from, (ids->n - from) * sizeof *copy);
    *out = (struct data_seq){.ids = copy, .n = ids->n - from, .weight = 1};
    return 0;
}

int reward_model_group(struct reward_model *m, const json_t *record, bool thinking,
                       const struct span *text, size_t n, float *out, struct err *e)
{
    struct record r;
    struct data_seq *seq = calloc(n, sizeof *seq);
    int rc = record_read(&r, record, DATA_PROMPTS, NULL, NULL, e);
    if (!rc && !seq)
        rc = err_nomem(e, n * sizeof *seq, "completions");
    for (size_t i = 0; !rc && i < n; i++)
        rc = sequence(m, &r, thinking, text[i], &seq[i], e);
    struct data_batch b = {.seq = seq, .n = n};
    for (size_t first = 0, k; !rc && first < n; first += k) {
        struct frozen_states s;
        rc = frozen_cut(m->frozen, &b, first, &k, e);
        rc = rc ? rc : frozen_look(m->frozen, seq + first, k, &s, e);
        for (size_t i = 0; !rc && i < k; i++)
            out[first + i] =
                (float)score_of(m->score, s.hidden.data + (s.row[i + 1] - 1) * s.hidden.cols);
    }
    for (size_t i = 0; seq && i < n; i++)
        free((void *)(uintptr_t)seq[i].ids);
    free(seq);
    record_release(&r);
    return rc;
}
