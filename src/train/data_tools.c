#include "train/data_tools.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/num.h"
#include "base/utf8.h"
#include "train/jsonl.h"
#include "train/plan.h"
#include "train/record.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NGRAM_MAX = 64 };

int data_source_parse(struct data_source *out, const char *text, struct arena *a, struct err *e)
{
    const char *colon = strrchr(text, ':');
    size_t n = strlen(text);
    char *end = NULL;
    *out = (struct data_source){.weight = 1};
    if (colon && colon[1] && !strchr(colon, '/') && file_kind(text) == FILE_NONE) {
        double w = strtod(colon + 1, &end);
        if (!*end && !(w > 0 && w <= 1e6))
            return err_set(e, ERR_USAGE, "%.300s: the weight is %s: a number above 0 is needed",
                           text, colon + 1);
        if (!*end) {
            n = (size_t)(colon - text);
            out->weight = w;
        }
    }
    out->path = arena_strndup(a, text, n, e);
    return out->path ? 0 : ERR_NOMEM;
}

static int put_line(struct file_out *f, const struct jsonl *j, uint64_t i, struct err *e)
{
    size_t n;
    const char *s = jsonl_line(j, i, &n);
    int rc = file_out_write(f, s, n, e);
    return rc ? rc : file_out_write(f, "\n", 1, e);
}

/* ---- mixtures ---------------------------------------------------------------------------------
 */

static int mix_write(struct jsonl *const *file, const uint32_t *base, const uint32_t *list,
                     uint64_t n, const char *out, struct err *e)
{
    struct file_out f;
    int rc = file_out_open(&f, out, e);
    for (uint64_t i = 0; !rc && i < n; i++) {
        size_t k = 0;
        while (list[i] >= base[k + 1])
            k++;
        rc = put_line(&f, file[k], list[i] - base[k], e);
    }
    if (!rc)
        return file_out_commit(&f, e);
    file_out_abort(&f);
    return rc;
}

int data_mix(const struct data_source *s, size_t n, uint64_t seed, bool ordered, const char *out,
             uint64_t *lines, struct err *e)
{
    struct plan_part *part = calloc(n + 1, sizeof *part);
    struct jsonl **file = calloc(n + 1, sizeof(struct jsonl *));
    uint32_t *base = calloc(n + 2, sizeof *base), *list = NULL;
    uint64_t total = 0;
    int rc = part && file && base ? 0 : err_nomem(e, 0, "a mixture");
    for (size_t i = 0; !rc && i < n; i++) {
        rc = jsonl_open(&file[i], s[i].path, e);
        if (rc)
            break;
        total += jsonl_count(file[i]);
        if (total >= UINT32_MAX)
            rc = err_set(e, ERR_LIMIT, "the files have more than %u lines", UINT32_MAX);
        base[i + 1] = (uint32_t)total;
        part[i] = (struct plan_part){.n = (size_t)jsonl_count(file[i]), .weight = s[i].weight};
    }
    if (!rc && !(list = malloc((total + 1) * sizeof *list)))
        rc = err_nomem(e, total * sizeof *list, "a mixture");
    for (uint32_t i = 0; !rc && i < total; i++)
        list[i] = i;
    for (size_t i = 0; !rc && i < n; i++)
        part[i].record = list + base[i];
    uint32_t *order = NULL;
    size_t count = 0;
    if (!rc)
        rc = plan_order(part, n, 0, seed, ordered, &order, &count, e);
    if (!rc)
        rc = mix_write(file, base, order, count, out, e);
    *lines = count;
    for (size_t i = 0; file && i < n; i++)
        jsonl_free(file[i]);
    free(order);
    free(list);
    free(base);
    free(file);
    free(part);
    return rc;
}

/* ---- splits -----------------------------------------------------------------------------------
 */

int data_split(struct data_split *s, struct err *e)
{
    struct jsonl *j;
    struct file_out f[2] = {{.fd = -1}, {.fd = -1}};
    uint64_t *count[2] = {&s->n_train, &s->n_test};
    s->n_train = s->n_test = 0;
    if (!(s->test_size > 0 && s->test_size < 1))
        return err_set(e, ERR_USAGE, "the share of test records is %g: between 0 and 1",
                       s->test_size);
    if (strcmp(s->train, s->test) == 0)
        return err_set(e, ERR_USAGE, "%.300s: both parts cannot be in one file", s->train);
    int rc = jsonl_open(&j, s->path, e);
    if (rc)
        return rc;
    rc = file_out_open(&f[0], s->train, e);
    if (!rc)
        rc = file_out_open(&f[1], s->test, e);
    for (uint64_t i = 0; !rc && i < jsonl_count(j); i++) {
        json_t *row = NULL;
        if ((rc = jsonl_object(j, i, &row, e))) {
            jsonl_at(j, i, e);
            break;
        }
        int test = data_split_point(row, s->text) < s->test_size;
        json_decref(row);
        ++*count[test];
        rc = put_line(&f[test], j, i, e);
    }
    for (int k = 0; !rc && k < 2; k++) /* both are whole before the first has its name */
        rc = file_out_sync(&f[k], e);
    for (int k = 0; !rc && k < 2; k++)
        rc = file_out_commit(&f[k], e);
    for (int k = 0; k < 2; k++)
        file_out_abort(&f[k]);
    jsonl_free(j);
    return rc;
}

/* ---- decontamination --------------------------------------------------------------------------
 */

/* Hashes of runs of words. */
struct grams {
    uint64_t *slot; /* open addressing; 0: empty */
    size_t mask, used;
    struct buf text; /* scratch: a question */
    uint64_t *word;  /* scratch: hashes of its words */
    size_t room;
};

static void grams_release(struct grams *g)
{
    free(g->slot);
    free(g->word);
    buf_release(&g->text);
}

static bool grams_has(const struct grams *g, uint64_t h)
{
    if (!g->slot)
        return false;
    for (size_t k = h & g->mask; g->slot[k]; k = (k + 1) & g->mask)
        if (g->slot[k] == h)
            return true;
    return false;
}

static int grams_put(struct grams *g, uint64_t h, struct err *e)
{
    if (grams_has(g, h))
        return 0;
    if (!g->slot || 2 * g->used > g->mask) {
        size_t n = g->slot ? 2 * (g->mask + 1) : 1024;
        uint64_t *slot = calloc(n, sizeof *slot);
        if (!slot)
            return err_nomem(e, n * sizeof *slot, "the questions to compare with");
        for (size_t i = 0; g->slot && i <= g->mask; i++)
            if (g->slot[i]) {
                size_t k = g->slot[i] & (n - 1);
                while (slot[k])
                    k = (k + 1) & (n - 1);
                slot[k] = g->slot[i];
            }
        free(g->slot);
        g->slot = slot;
        g->mask = n - 1;
    }
    size_t k = h & g->mask;
    while (g->slot[k])
        k = (k + 1) & g->mask;
    g->slot[k] = h;
    g->used++;
    return 0;
}

static bool own_word(uint32_t cp)
{
    return (cp >= 0x3040 && cp <= 0x30ff) || (cp >= 0x3400 && cp <= 0x9fff) ||
           (cp >= 0xf900 && cp <= 0xfaff) || (cp >= 0x20000 && cp <= 0x3ffff);
}

static int add_word(struct grams *g, size_t *n, const char *s, size_t len, struct err *e)
{
    if (!len)
        return 0;
    if (*n == g->room) {
        size_t room = g->room ? 2 * g->room : 256;
        uint64_t *word = realloc(g->word, room * sizeof *word);
        if (!word)
            return err_nomem(e, room * sizeof *word, "the words of a question");
        g->word = word;
        g->room = room;
    }
    g->word[(*n)++] = hash_xxh64(s, len, 0);
    return 0;
}

/* Words of a question in normal form. */
static int words_of(struct grams *g, const json_t *row, const char *text, size_t *n, struct err *e)
{
    buf_clear(&g->text);
    int rc = record_asks(row, text, &g->text, e);
    const char *s = g->text.data;
    size_t len = g->text.len, from = 0;
    *n = 0;
    for (size_t i = 0, k; !rc && i < len; i += k) {
        uint32_t cp;
        k = utf8_next(s + i, len - i, &cp, NULL);
        if (cp != ' ' && !own_word(cp))
            continue;
        rc = add_word(g, n, s + from, i - from, e);
        if (!rc && cp != ' ')
            rc = add_word(g, n, s + i, k, e);
        from = i + k;
    }
    return rc ? rc : add_word(g, n, s + from, len - from, e);
}

/* The i-th run of the n words; a question of fewer is one run. */
static uint64_t gram_at(const struct grams *g, size_t i, size_t n, size_t ngram)
{
    uint64_t h = hash_xxh64(g->word + i, num_min(n, ngram) * sizeof *g->word, n < ngram);
    return h ? h : 1;
}

static int learn_file(struct grams *g, const char *path, size_t ngram, const char *text,
                      struct err *e)
{
    struct jsonl *j;
    int rc = jsonl_open(&j, path, e);
    for (uint64_t i = 0; !rc && i < jsonl_count(j); i++) {
        json_t *row = NULL;
        size_t n = 0;
        rc = jsonl_object(j, i, &row, e);
        if (!rc)
            rc = words_of(g, row, text, &n, e);
        if (rc)
            jsonl_at(j, i, e);
        json_decref(row);
        for (size_t k = 0; !rc && n && k <= (n < ngram ? 0 : n - ngram); k++)
            rc = grams_put(g, gram_at(g, k, n, ngram), e);
    }
    jsonl_free(j);
    return rc;
}

static int clean_file(struct data_clean *c, struct grams *g, const struct jsonl *j,
                      struct file_out *f, struct err *e)
{
    int rc = 0;
    for (uint64_t i = 0; !rc && i < jsonl_count(j); i++) {
        json_t *row = NULL;
        size_t n = 0;
        bool found = false;
        rc = jsonl_object(j, i, &row, e);
        if (!rc)
            rc = words_of(g, row, c->text, &n, e);
        if (rc)
            jsonl_at(j, i, e);
        json_decref(row);
        for (size_t k = 0; !rc && n && !found && k <= (n < c->ngram ? 0 : n - c->ngram); k++)
            found = grams_has(g, gram_at(g, k, n, c->ngram));
        c->removed += !rc && found;
        c->kept += !rc && !found;
        if (!rc && found && c->gone)
            c->gone(c->arg, jsonl_number(j, i));
        if (!rc && !found && c->out)
            rc = put_line(f, j, i, e);
    }
    return rc;
}

int data_decontaminate(struct data_clean *c, struct err *e)
{
    struct grams g = {0};
    struct jsonl *j = NULL;
    struct file_out f = {.fd = -1};
    int rc = 0;
    c->kept = c->removed = 0;
    if (!c->ngram || c->ngram > NGRAM_MAX)
        return err_set(e, ERR_USAGE, "runs of %zu words: from 1 to %d are possible", c->ngram,
                       NGRAM_MAX);
    buf_init(&g.text, (size_t)JSONL_LINE * 4);
    for (size_t i = 0; !rc && i < c->n_against; i++)
        rc = learn_file(&g, c->against[i], c->ngram, c->text, e);
    if (!rc)
        rc = jsonl_open(&j, c->path, e);
    if (!rc && c->out)
        rc = file_out_open(&f, c->out, e);
    if (!rc)
        rc = clean_file(c, &g, j, &f, e);
    if (!rc && c->out)
        rc = file_out_commit(&f, e);
    else
        file_out_abort(&f);
    jsonl_free(j);
    grams_release(&g);
    return rc;
}

/* ---- texts ------------------------------------------------------------------------------------
 */

struct texts {
    int (*text)(void *arg, const char *s, size_t n, struct err *e);
    void *arg;
};

static int give(const struct texts *t, const json_t *v, struct err *e)
{
    return json_is_string(v) ? t->text(t->arg, json_string_value(v), json_string_length(v), e) : 0;
}

/* A text, or messages with all that is said in them. */
static int give_side(const struct texts *t, const json_t *v, struct err *e)
{
    static const char *const keys[] = {"reasoning_content", "reasoning", "thinking", "value"};
    const json_t *m;
    size_t i;
    int rc = give(t, v, e);
    json_array_foreach(v, i, m)
    {
        json_t *content = record_content(m);
        if (!rc)
            rc = give(t, content, e);
        json_decref(content);
        for (size_t k = 0; !rc && k < NUM_COUNT(keys); k++)
            rc = give(t, json_object_get(m, keys[k]), e);
    }
    return rc;
}

static int give_row(const struct texts *t, const json_t *row, struct err *e)
{
    static const char *const columns[] = {"text",     "prompt",        "completion", "chosen",
                                          "rejected", "messages",      "problem",    "solution",
                                          "question", "conversations", "answer"};
    int rc = 0;
    for (size_t i = 0; !rc && i < NUM_COUNT(columns); i++)
        rc = give_side(t, json_object_get(row, columns[i]), e);
    return rc;
}

int data_texts(const char *path, int (*text)(void *arg, const char *s, size_t n, struct err *e),
               void *arg, struct err *e)
{
    const struct texts t = {text, arg};
    size_t n = strlen(path);
    struct jsonl *j;
    int rc;
    if (n < 6 || strcmp(path + n - 6, ".jsonl") != 0) {
        struct file_map m;
        if ((rc = file_map(&m, path, e)))
            return rc;
        rc = text(arg, m.data ? (const char *)m.data : "", m.size, e);
        file_map_release(&m);
        return rc ? err_ctx(e, "%.300s", path) : 0;
    }
    if ((rc = jsonl_open(&j, path, e)))
        return rc;
    for (uint64_t i = 0; !rc && i < jsonl_count(j); i++) {
        json_t *row = NULL;
        rc = jsonl_object(j, i, &row, e);
        if (!rc)
            rc = give_row(&t, row, e);
        if (rc)
            jsonl_at(j, i, e);
        json_decref(row);
    }
    jsonl_free(j);
    return rc;
}
