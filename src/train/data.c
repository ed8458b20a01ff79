#include "train/data.h"

#include "base/hash.h"
#include "base/num.h"
#include "train/example.h"
#include "train/jsonl.h"
#include "train/plan.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DATA_CHUNK = 128, DATA_SLICE = 64 }; /* records of a chunk, chunks between two reports */

struct part {
    struct jsonl *lines;
    uint32_t base, n; /* records [base, base + n) */
    uint32_t *used;   /* those with tokens, ascending */
    struct data_stats stats;
};

/* The tokens of a record as they are kept; `ids` is followed by those of the second sequence and
   then by a byte for the target of each. */
struct kept {
    uint32_t n[2], prompt[2];
    float weight;
    uint8_t thinking;
    int8_t label;
    float margin;
    int32_t ids[];
};

/* The examples of a chunk that was read. */
struct chunk {
    uint8_t *bytes;
    uint32_t at[DATA_CHUNK]; /* in multiples of 4 bytes; UINT32_MAX: not used */
};

struct worker {
    struct example x;
    struct data_stats stats;
    struct buf bytes;
};

struct data {
    struct data_options o; /* of strings and sources only while opening */
    struct example_how how;
    struct team *team;
    struct part *part;
    struct plan_part *order; /* of each part, what epochs take from */
    size_t n_parts;
    uint32_t n;       /* records */
    uint32_t *tokens; /* (n) of the record's sequences together; 0: it is not used */
    uint32_t *targets;
    struct chunk **chunk; /* (chunks of all parts) NULL, or the tokens */
    atomic_size_t kept;   /* bytes */
    atomic_bool keep;
    struct worker *worker; /* one a thread */
    int workers;
    struct plan plan; /* of `epoch` */
    uint64_t epoch;
    bool planned, even; /* every epoch has as many items */
    uint64_t *first;    /* (n_first) the first step of each epoch, as far as known */
    size_t n_first, c_first;
};

/* ---- reading all records ----------------------------------------------------------------------
 */

struct pass {
    struct data *d;
    struct part *part;
    size_t first_chunk; /* of the part, of this slice */
    pthread_mutex_t lock;
    uint64_t bad, bad_record; /* how many, and which is the first */
    struct err e;
};

static void pass_failed(struct pass *p, uint64_t record, const struct err *e)
{
    pthread_mutex_lock(&p->lock);
    if (!p->bad++ || record < p->bad_record) {
        p->bad_record = record;
        p->e = *e;
    }
    pthread_mutex_unlock(&p->lock);
}

static size_t targets_of(const struct example_seq *s, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += s->target.data[i] != 0;
    return sum;
}

/* Cuts sequences to max_length; false: the record is not used. */
static bool fit_lengths(const struct data_options *o, struct example *x, struct data_stats *s)
{
    bool split = o->packing == DATA_BFD_SPLIT || o->packing == DATA_WRAPPED, cut = false;
    if (!o->max_length || split)
        return true;
    for (size_t i = 0; i < x->n; i++)
        if (x->seq[i].ids.n > o->max_length) {
            if (o->overflow == DATA_DROP || o->use == DATA_PROMPTS) {
                s->too_long++;
                return false;
            }
            cut = true;
        }
    for (size_t i = 0; i < x->n; i++) {
        struct example_seq *q = &x->seq[i];
        if (q->ids.n <= o->max_length)
            continue;
        s->cut += q->ids.n - o->max_length;
        q->ids.n = q->target.len = o->max_length;
        q->prompt = num_min(q->prompt, o->max_length);
    }
    s->truncated += cut;
    return true;
}

static void count_length(struct data_stats *s, size_t n, uint64_t record)
{
    size_t bucket = 0;
    while (bucket + 1 < DATA_BUCKETS && n >> (bucket + 1))
        bucket++;
    s->bucket[bucket]++;
    s->sequences++;
    s->mean += n; /* the sum, until the end */
    if (n > s->longest || (n == s->longest && record < s->longest_record)) {
        s->longest = n;
        s->longest_record = record;
    }
}

/* Keeps the sequences of x for later. */
static int keep_example(struct worker *w, uint32_t *at, struct err *e)
{
    struct kept k = {.weight = w->x.weight,
                     .thinking = w->x.thinking,
                     .label = (int8_t)w->x.label,
                     .margin = w->x.margin};
    static const char zero[4] = {0};
    size_t bytes = 0;
    int rc = 0;
    for (size_t i = 0; i < w->x.n; i++) {
        k.n[i] = (uint32_t)w->x.seq[i].ids.n;
        k.prompt[i] = (uint32_t)w->x.seq[i].prompt;
        bytes += k.n[i];
    }
    *at = (uint32_t)(w->bytes.len / 4);
    rc = buf_append(&w->bytes, &k, sizeof k, e);
    for (size_t i = 0; !rc && i < w->x.n; i++)
        rc = buf_append(&w->bytes, w->x.seq[i].ids.v, k.n[i] * sizeof(int32_t), e);
    for (size_t i = 0; !rc && i < w->x.n; i++)
        rc = buf_append(&w->bytes, w->x.seq[i].target.data, k.n[i], e);
    return rc ? rc : buf_append(&w->bytes, zero, (4 - bytes % 4) % 4, e);
}

/* Counts one record and finds out whether it is used. *at: where it is kept. */
static int read_record(struct data *d, struct part *p, struct worker *w, uint32_t i, uint32_t *at,
                       struct err *e)
{
    const struct data_options *o = &d->o;
    struct data_stats *s = &w->stats;
    uint64_t tokens = 0, targets = 0;
    json_t *row = NULL;
    int rc = jsonl_object(p->lines, i, &row, e);
    if (!rc && o->test_size > 0 && (data_split_point(row, o->text) < o->test_size) != o->test) {
        json_decref(row);
        return 0;
    }
    if (!rc)
        rc = example_make(&d->how, row, &w->x, e);
    json_decref(row);
    if (rc)
        return rc;
    s->records++;
    for (size_t k = 0; k < w->x.n; k++)
        count_length(s, w->x.seq[k].ids.n, p->base + i);
    bool empty = false;
    if (!fit_lengths(o, &w->x, s))
        return 0;
    for (size_t k = 0; k < w->x.n; k++) {
        size_t n = w->x.seq[k].ids.n, t = targets_of(&w->x.seq[k], n);
        tokens += n;
        targets += t;
        empty = empty || !n || (!t && o->use != DATA_PROMPTS);
    }
    if (empty) {
        s->empty++;
        return 0;
    }
    s->used++;
    s->turns += w->x.turns_left;
    s->tokens += tokens;
    s->targets += targets;
    d->tokens[p->base + i] = (uint32_t)tokens;
    d->targets[p->base + i] = (uint32_t)targets;
    return d->keep ? keep_example(w, at, e) : 0;
}

static void read_chunk(void *arg, size_t chunk, int worker)
{
    struct pass *p = arg;
    struct data *d = p->d;
    struct worker *w = &d->worker[worker];
    struct chunk *c = NULL;
    struct err e = {0};
    size_t k = p->first_chunk + chunk, slot = p->part->base / DATA_CHUNK + k, from = k * DATA_CHUNK,
           to = num_min(from + DATA_CHUNK, p->part->n);
    uint32_t at[DATA_CHUNK];
    buf_clear(&w->bytes);
    for (size_t i = from; i < to; i++) {
        at[i - from] = UINT32_MAX;
        if (read_record(d, p->part, w, (uint32_t)i, &at[i - from], &e))
            pass_failed(p, i, &e);
    }
    if (!d->keep || !w->bytes.len)
        return;
    if (atomic_fetch_add(&d->kept, w->bytes.len) + w->bytes.len > d->o.keep) {
        d->keep = false; /* it is taken back when all are read */
        return;
    }
    /* Without memory to keep them they are made when they are needed. */
    if ((c = malloc(sizeof *c)) && (c->bytes = malloc(w->bytes.len))) {
        memcpy(c->bytes, w->bytes.data, w->bytes.len);
        memcpy(c->at, at, sizeof at);
        d->chunk[slot] = c;
    } else {
        free(c);
    }
}

static void add_stats(struct data_stats *to, const struct data_stats *s)
{
    to->records += s->records;
    to->used += s->used;
    to->too_long += s->too_long;
    to->empty += s->empty;
    to->truncated += s->truncated;
    to->cut += s->cut;
    to->turns += s->turns;
    to->sequences += s->sequences;
    to->tokens += s->tokens;
    to->targets += s->targets;
    to->mean += s->mean;
    if (s->longest > to->longest ||
        (s->longest == to->longest && s->longest && s->longest_record < to->longest_record)) {
        to->longest = s->longest;
        to->longest_record = s->longest_record;
    }
    for (int i = 0; i < DATA_BUCKETS; i++)
        to->bucket[i] += s->bucket[i];
}

static int pass_result(struct pass *p, struct err *e)
{
    if (!p->bad)
        return 0;
    if (e)
        *e = p->e;
    if (p->e.code == ERR_NOMEM)
        return ERR_NOMEM;
    int rc = jsonl_at(p->part->lines, p->bad_record, e);
    if (p->bad > 1 && e) {
        size_t n = strlen(e->text);
        snprintf(e->text + n, sizeof e->text - n, " (and %llu more lines are wrong)",
                 (unsigned long long)(p->bad - 1));
    }
    return rc;
}

/* `done` records of `total` are in the parts before this one. */
static int read_part(struct data *d, struct part *part, data_progress *progress, void *arg,
                     struct err *e)
{
    struct pass p = {.d = d, .part = part};
    size_t chunks = (part->n + DATA_CHUNK - 1) / DATA_CHUNK;
    int rc = 0;
    pthread_mutex_init(&p.lock, NULL);
    for (size_t at = 0; !rc && at < chunks; at += DATA_SLICE) {
        p.first_chunk = at;
        team_run(d->team, read_chunk, &p, num_min(DATA_SLICE, chunks - at));
        uint64_t done = part->base + num_min((at + DATA_SLICE) * DATA_CHUNK, part->n);
        if (progress && !progress(arg, num_min(done, d->n), d->n))
            rc = err_set(e, ERR_CANCELLED, "reading the data was stopped");
    }
    pthread_mutex_destroy(&p.lock);
    if (!rc)
        rc = pass_result(&p, e);
    for (int i = 0; i < d->workers; i++) {
        add_stats(&part->stats, &d->worker[i].stats);
        d->worker[i].stats = (struct data_stats){0};
    }
    if (rc)
        return rc;
    part->used = malloc((part->stats.used + 1) * sizeof *part->used);
    if (!part->used)
        return err_nomem(e, part->stats.used * sizeof *part->used, "the index of records");
    struct plan_part *order = &d->order[part - d->part];
    for (uint32_t i = part->base; i < part->base + part->n; i++)
        if (d->tokens[i])
            part->used[order->n++] = i;
    order->record = part->used;
    return 0;
}

/* ---- opening ----------------------------------------------------------------------------------
 */

static int check_options(const struct data_options *o, struct err *e)
{
    if (!o->n_sources)
        return err_set(e, ERR_USAGE, "there are no files of data");
    for (size_t i = 0; i < o->n_sources; i++)
        if (!(o->sources[i].weight > 0 && o->sources[i].weight <= 1e6))
            return err_set(e, ERR_USAGE, "%.300s: its weight is %g: a number above 0 is needed",
                           o->sources[i].path, o->sources[i].weight);
    if (!o->batch || o->batch > 1 << 24)
        return err_set(e, ERR_USAGE, "the batch is %zu: from 1 to %d are possible", o->batch,
                       1 << 24);
    if (o->packing && o->use != DATA_LEARN)
        return err_set(e, ERR_USAGE, "pairs and prompts cannot be packed");
    if (o->packing && !o->max_length)
        return err_set(e, ERR_USAGE, "packing needs a maximum length");
    if (o->max_length == 1 || o->max_length > 1 << 26)
        return err_set(e, ERR_USAGE, "the maximum length is %zu: from 2 to %d are possible",
                       o->max_length, 1 << 26);
    if (!(o->test_size >= 0 && o->test_size < 1))
        return err_set(e, ERR_USAGE, "the share of test records is %g: a number from 0 to below 1",
                       o->test_size);
    return 0;
}

static int open_parts(struct data *d, struct err *e)
{
    uint64_t n = 0;
    d->part = calloc(d->o.n_sources, sizeof *d->part);
    d->order = calloc(d->o.n_sources, sizeof *d->order);
    if (!d->part || !d->order)
        return err_nomem(e, 0, "the files of data");
    for (size_t i = 0; i < d->o.n_sources; i++) {
        struct part *p = &d->part[d->n_parts++];
        int rc = jsonl_open(&p->lines, d->o.sources[i].path, e);
        if (rc)
            return rc;
        d->order[i].weight = d->o.sources[i].weight;
        n = num_round_up(n, DATA_CHUNK); /* a chunk belongs to one file */
        if (n + jsonl_count(p->lines) > UINT32_MAX - 1)
            return err_set(e, ERR_LIMIT, "the files have more than %u lines", UINT32_MAX - 1);
        p->base = (uint32_t)n;
        p->n = (uint32_t)jsonl_count(p->lines);
        n += p->n;
    }
    d->n = (uint32_t)n;
    d->tokens = calloc(n + 1, sizeof *d->tokens);
    d->targets = calloc(n + 1, sizeof *d->targets);
    d->chunk = calloc(n / DATA_CHUNK + 1, sizeof(struct chunk *));
    if (!d->tokens || !d->targets || !d->chunk)
        return err_nomem(e, n * 8, "the index of records");
    return 0;
}

static int open_workers(struct data *d, struct err *e)
{
    int n = team_threads(d->team);
    if (!(d->worker = calloc((size_t)n, sizeof *d->worker)))
        return err_nomem(e, 0, "the readers of data");
    d->workers = n;
    for (int i = 0; i < n; i++) {
        example_init(&d->worker[i].x);
        buf_init(&d->worker[i].bytes, (size_t)4 * UINT32_MAX);
    }
    return 0;
}

static void drop_chunks(struct data *d)
{
    for (size_t i = 0; d->chunk && i <= d->n / DATA_CHUNK; i++)
        if (d->chunk[i]) {
            free(d->chunk[i]->bytes);
            free(d->chunk[i]);
            d->chunk[i] = NULL;
        }
}

static int count_epoch(struct data *d, struct err *e)
{
    uint64_t n = 0;
    d->even = true;
    for (size_t i = 0; i < d->n_parts; i++) {
        n += plan_share(&d->order[i]);
        d->even = d->even && d->order[i].weight == floor(d->order[i].weight);
    }
    d->even = d->even || !d->o.packing; /* lengths decide how many packs there are */
    if (n >= UINT32_MAX)
        return err_set(e, ERR_LIMIT, "an epoch has more than %u records: use smaller weights",
                       UINT32_MAX);
    if (n)
        return 0;
    struct data_stats s;
    data_stats(d, &s);
    return err_set(e, ERR_USAGE,
                   "no record is left to train on: of %llu, %llu are longer than %zu tokens and "
                   "%llu have nothing to learn in them",
                   (unsigned long long)s.records, (unsigned long long)s.too_long, d->o.max_length,
                   (unsigned long long)s.empty);
}

int data_open(struct data **out, const struct data_options *o, struct team *team,
              data_progress *progress, void *arg, struct err *e)
{
    struct data *d;
    *out = NULL;
    int rc = check_options(o, e);
    if (rc)
        return rc;
    if (!(d = calloc(1, sizeof *d)))
        return err_nomem(e, sizeof *d, "the data");
    d->o = *o;
    d->o.keep = o->keep ? o->keep : (size_t)1 << 30;
    d->keep = true;
    d->team = team;
    rc = example_how_init(&d->how, o, e);
    if (!rc)
        rc = open_workers(d, e);
    if (!rc)
        rc = open_parts(d, e);
    for (size_t i = 0; !rc && i < d->n_parts; i++)
        rc = read_part(d, &d->part[i], progress, arg, e);
    if (!rc && !d->keep)
        drop_chunks(d);
    if (!rc)
        rc = count_epoch(d, e);
    if (rc) {
        data_free(d);
        return rc;
    }
    *out = d;
    return 0;
}

void data_free(struct data *d)
{
    if (!d)
        return;
    drop_chunks(d);
    for (size_t i = 0; i < d->n_parts; i++) {
        jsonl_free(d->part[i].lines);
        free(d->part[i].used);
    }
    for (int i = 0; i < d->workers; i++) {
        example_release(&d->worker[i].x);
        buf_release(&d->worker[i].bytes);
    }
    example_how_release(&d->how);
    plan_release(&d->plan);
    free(d->worker);
    free(d->part);
    free(d->order);
    free(d->tokens);
    free(d->targets);
    free(d->chunk);
    free(d->first);
    free(d);
}

/* ---- epochs -----------------------------------------------------------------------------------
 */

static int plan_epoch(struct data *d, uint64_t epoch, struct err *e)
{
    uint32_t *list = NULL;
    size_t n = 0;
    if (d->planned && d->epoch == epoch)
        return 0;
    plan_release(&d->plan);
    d->planned = false;
    int rc = plan_order(d->order, d->n_parts, epoch, d->o.seed, d->o.ordered, &list, &n, e);
    if (!rc)
        rc = plan_new(&d->plan, list, n, d->tokens, d->o.packing, (uint32_t)d->o.max_length, e);
    /* Packs come out with the longest sequences first. */
    if (!rc && d->o.packing && !d->o.ordered)
        rc = plan_shuffle_items(&d->plan, epoch, d->o.seed, e);
    free(list);
    d->planned = !rc;
    d->epoch = epoch;
    return rc;
}

static uint64_t steps_of(const struct data *d)
{
    return (d->plan.n_items + d->o.batch - 1) / d->o.batch;
}

/* Which epoch a step is in, and the first step of that. */
static int find_epoch(struct data *d, uint64_t step, uint64_t *epoch, uint64_t *first,
                      struct err *e)
{
    int rc = 0;
    if (d->even) {
        if (!d->planned && (rc = plan_epoch(d, 0, e)))
            return rc;
        *epoch = step / steps_of(d);
        *first = *epoch * steps_of(d);
        return 0;
    }
    /* Epochs differ in length: those in between are planned once, to count their steps. */
    for (;;) {
        if (d->n_first && d->first[d->n_first - 1] > step) {
            size_t k = d->n_first - 1;
            while (d->first[k] > step)
                k--;
            *epoch = k;
            *first = d->first[k];
            return 0;
        }
        if (d->n_first + 2 > d->c_first) {
            size_t c = d->c_first ? d->c_first * 2 : 64;
            uint64_t *v = realloc(d->first, c * sizeof *v);
            if (!v)
                return err_nomem(e, c * sizeof *v, "the list of epochs");
            d->first = v;
            d->c_first = c;
        }
        if (!d->n_first)
            d->first[d->n_first++] = 0;
        if ((rc = plan_epoch(d, d->n_first - 1, e)))
            return rc;
        d->first[d->n_first] = d->first[d->n_first - 1] + steps_of(d);
        d->n_first++;
    }
}

int data_steps(struct data *d, uint64_t epochs, uint64_t *steps, struct err *e)
{
    int rc = 0;
    *steps = 0;
    if (d->even) {
        rc = plan_epoch(d, d->planned ? d->epoch : 0, e);
        if (!rc && epochs > UINT64_MAX / 2 / steps_of(d))
            rc = err_set(e, ERR_LIMIT, "%llu epochs are too many", (unsigned long long)epochs);
        *steps = rc ? 0 : epochs * steps_of(d);
        return rc;
    }
    for (uint64_t epoch = 0; !rc && epoch < epochs; epoch++) {
        uint64_t at, first;
        rc = find_epoch(d, *steps, &at, &first, e); /* makes the next entry known */
        if (!rc)
            *steps = d->first[epoch + 1];
    }
    return rc;
}

/* ---- batches ----------------------------------------------------------------------------------
 */

struct data_batch_mem {
    struct data_seq *seq; /* (2 × pieces) */
    int32_t *ids;
    uint8_t *target;
    size_t tokens;
    size_t *at; /* (pieces) first token of each */
    size_t pieces;
};

void data_batch_init(struct data_batch *b)
{
    *b = (struct data_batch){0};
}

void data_batch_release(struct data_batch *b)
{
    if (b->mem) {
        free(b->mem->seq);
        free(b->mem->ids);
        free(b->mem->target);
        free(b->mem->at);
        free(b->mem);
    }
    *b = (struct data_batch){0};
}

static int batch_reserve(struct data_batch *b, size_t pieces, size_t tokens, struct err *e)
{
    struct data_batch_mem *m = b->mem;
    if (!m && !(m = b->mem = calloc(1, sizeof *m)))
        return err_nomem(e, sizeof *m, "a batch");
    if (pieces > m->pieces) {
        free(m->seq);
        free(m->at);
        m->pieces = 0;
        m->seq = malloc(2 * pieces * sizeof *m->seq);
        m->at = malloc(pieces * sizeof *m->at);
        if (!m->seq || !m->at)
            return err_nomem(e, 2 * pieces * sizeof *m->seq, "a batch");
        m->pieces = pieces;
    }
    if (tokens > m->tokens) {
        free(m->ids);
        free(m->target);
        m->tokens = 0;
        m->ids = malloc(tokens * sizeof *m->ids);
        m->target = malloc(tokens);
        if (!m->ids || !m->target)
            return err_nomem(e, tokens * 5, "a batch");
        m->tokens = tokens;
    }
    return 0;
}

struct fill {
    struct data *d;
    struct data_batch_mem *mem;
    const struct plan_piece *piece;
    size_t per_item; /* sequences of a piece: 1, or 2 for pairs */
    pthread_mutex_t lock;
    size_t failed;
    struct err e;
};

static const struct part *part_of(const struct data *d, uint64_t record)
{
    size_t i = d->n_parts - 1;
    while (i && d->part[i].base > record)
        i--;
    return &d->part[i];
}

/* Writes tokens [from, from + n) of one sequence. */
static void fill_seq(struct data_seq *s, int32_t *ids, uint8_t *target, const int32_t *v,
                     const uint8_t *t, size_t from, size_t n)
{
    memcpy(ids, v + from, n * sizeof *ids);
    memcpy(target, t + from, n);
    target[0] = 0; /* of the later pieces of a record too */
    s->ids = ids;
    s->target = target;
    s->n = n;
    s->prompt = s->prompt > from ? num_min(s->prompt - from, n) : 0;
}

static const struct kept *kept_of(const struct data *d, uint32_t record)
{
    const struct chunk *c = d->chunk[record / DATA_CHUNK];
    return c ? (const void *)(c->bytes + (size_t)4 * c->at[record % DATA_CHUNK]) : NULL;
}

static int fill_kept(const struct kept *k, const struct plan_piece *p, struct data_seq *s,
                     size_t seqs, int32_t *ids, uint8_t *target)
{
    const int32_t *v = k->ids;
    const uint8_t *t = (const uint8_t *)(k->ids + k->n[0] + k->n[1]);
    for (size_t i = 0; i < seqs; i++) {
        size_t n = seqs == 1 ? p->n : k->n[i];
        s[i].weight = k->weight;
        s[i].thinking = k->thinking;
        s[i].label = k->label;
        s[i].margin = k->margin;
        s[i].prompt = k->prompt[i];
        fill_seq(&s[i], ids, target, v, t, p->from, n);
        v += k->n[i];
        t += k->n[i];
        ids += n;
        target += n;
    }
    return 0;
}

static int fill_made(struct data *d, const struct plan_piece *p, struct worker *w,
                     struct data_seq *s, size_t seqs, int32_t *ids, uint8_t *target, struct err *e)
{
    const struct part *part = part_of(d, p->record);
    struct data_stats ignored = {0};
    size_t tokens = 0;
    json_t *row = NULL;
    int rc = jsonl_object(part->lines, p->record - part->base, &row, e);
    if (!rc)
        rc = example_make(&d->how, row, &w->x, e);
    json_decref(row);
    if (rc)
        return jsonl_at(part->lines, p->record - part->base, e);
    (void)fit_lengths(&d->o, &w->x, &ignored);
    for (size_t i = 0; i < seqs; i++)
        tokens += w->x.seq[i].ids.n;
    if (tokens != d->tokens[p->record]) {
        err_set(e, ERR_FORMAT, "is not what it was when the data were opened");
        return jsonl_at(part->lines, p->record - part->base, e);
    }
    for (size_t i = 0; i < seqs; i++) {
        const struct example_seq *q = &w->x.seq[i];
        size_t n = seqs == 1 ? p->n : q->ids.n;
        s[i].weight = w->x.weight;
        s[i].thinking = w->x.thinking;
        s[i].label = w->x.label;
        s[i].margin = w->x.margin;
        s[i].prompt = q->prompt;
        fill_seq(&s[i], ids, target, q->ids.v, (const uint8_t *)q->target.data, p->from, n);
        ids += n;
        target += n;
    }
    return 0;
}

static void fill_piece(void *arg, size_t i, int worker)
{
    struct fill *f = arg;
    const struct plan_piece *p = &f->piece[i];
    struct data_seq *s = &f->mem->seq[i * f->per_item];
    int32_t *ids = f->mem->ids + f->mem->at[i];
    uint8_t *target = f->mem->target + f->mem->at[i];
    const struct kept *k = kept_of(f->d, p->record);
    enum data_use use = f->d->o.use;
    struct err e = {0};
    int rc = k ? fill_kept(k, p, s, f->per_item, ids, target)
               : fill_made(f->d, p, &f->d->worker[worker], s, f->per_item, ids, target, &e);
    if (rc) {
        pthread_mutex_lock(&f->lock);
        if (!f->failed++ || e.code == ERR_NOMEM)
            f->e = e;
        pthread_mutex_unlock(&f->lock);
        return;
    }
    for (size_t j = 0; j < f->per_item; j++) {
        s[j].record = p->record;
        s[j].role = use == DATA_PAIRS ? (j ? DATA_REJECTED : DATA_CHOSEN)
                                      : (use == DATA_PROMPTS ? DATA_PROMPT : DATA_WHOLE);
    }
}

/* Items [from, to) of the plan. */
static int fill_batch(struct data *d, size_t from, size_t to, struct data_batch *b, struct err *e)
{
    const struct plan *plan = &d->plan;
    size_t first = plan->item[from], pieces = plan->item[to] - first, tokens = 0;
    for (size_t i = 0; i < pieces; i++)
        tokens += plan->piece[first + i].n;
    int rc = batch_reserve(b, pieces, tokens, e);
    if (rc)
        return rc;
    struct fill f = {.d = d,
                     .mem = b->mem,
                     .piece = plan->piece + first,
                     .per_item = d->o.use == DATA_PAIRS ? 2 : 1};
    for (size_t i = 0, at = 0; i < pieces; i++) {
        b->mem->at[i] = at;
        at += f.piece[i].n;
    }
    pthread_mutex_init(&f.lock, NULL);
    team_run(d->team, fill_piece, &f, pieces);
    pthread_mutex_destroy(&f.lock);
    if (f.failed) {
        if (e)
            *e = f.e;
        return f.e.code;
    }
    b->seq = b->mem->seq;
    b->n = pieces * f.per_item;
    b->items = to - from;
    b->tokens = tokens;
    b->targets = 0;
    for (size_t i = 0; i < tokens; i++)
        b->targets += b->mem->target[i];
    for (size_t s = 0; s <= DATA_SHARDS; s++)
        b->shard[s] = (plan->item[from + s * b->items / DATA_SHARDS] - first) * f.per_item;
    return 0;
}

int data_batch(struct data *d, uint64_t step, struct data_batch *b, struct err *e)
{
    uint64_t epoch, first;
    int rc = find_epoch(d, step, &epoch, &first, e);
    if (!rc)
        rc = plan_epoch(d, epoch, e);
    if (rc)
        return rc;
    size_t from = (size_t)(step - first) * d->o.batch,
           to = num_min(from + d->o.batch, d->plan.n_items);
    b->epoch = epoch;
    b->progress = (double)epoch + (double)to / (double)d->plan.n_items;
    return fill_batch(d, from, to, b, e);
}

/* ---- records and figures ----------------------------------------------------------------------
 */

uint64_t data_records(const struct data *d)
{
    return d->n;
}

int data_record(const struct data *d, uint64_t record, json_t **out, struct err *e)
{
    const struct part *p = part_of(d, record);
    *out = NULL;
    if (record >= d->n || record - p->base >= p->n)
        return err_set(e, ERR_USAGE, "there is no record %llu", (unsigned long long)record);
    int rc = jsonl_object(p->lines, record - p->base, out, e);
    return rc ? jsonl_at(p->lines, record - p->base, e) : 0;
}

char *data_where(const struct data *d, uint64_t record, char *out, size_t cap)
{
    const struct part *p = part_of(d, record);
    if (record >= d->n || record - p->base >= p->n)
        snprintf(out, cap, "no record");
    else
        snprintf(out, cap, "%s: line %llu", jsonl_path(p->lines),
                 (unsigned long long)jsonl_number(p->lines, record - p->base));
    return out;
}

void data_stats(const struct data *d, struct data_stats *s)
{
    *s = (struct data_stats){0};
    for (size_t i = 0; i < d->n_parts; i++) {
        add_stats(s, &d->part[i].stats);
        s->epoch_records += plan_share(&d->order[i]);
    }
    s->mean = s->sequences ? s->mean / s->sequences : 0;
}
