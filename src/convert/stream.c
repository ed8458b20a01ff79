/*
 * Streaming: decode, encode, write, a batch of row blocks at a time.
 *
 * A block is some 256 KiB of floats; a batch is a few blocks for each thread. The team decodes and
 * encodes the blocks of a batch, each into its own part of one buffer, then the batch is written in
 * order: memory is a batch, whatever the tensor's size. Pages of the source are given back as
 * tensors are done. The rows of packed tensors become panels on the way; then blocks are whole
 * panels and a batch ends with its matrix.
 */
#include "base/num.h"
#include "convert/write.h"
#include "kernels/panel.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_FLOATS = 1 << 16, BLOCKS_PER_THREAD = 4 };

struct stream {
    struct convert_plan *p;
    struct team *team;
    /* of the tensor at hand */
    const struct convert_tensor *t;
    size_t cols, height, row_bytes;
    size_t block_rows, matrix_rows; /* rows of a block, of one matrix of a 3-D tensor */
    size_t batch_row, batch_rows;
    bool copies;
    const struct panel_layout *layout; /* of packed tensors; else NULL */
    size_t panel_bytes;
    /* memory, grown to what tensors need */
    uint8_t *out;
    float *work; /* per thread: floats of a block, then scratch */
    size_t out_cap, work_cap, work_each;
    size_t rows_at;  /* of a thread's floats: rows before they become panels */
    _Atomic int bad; /* a value that cannot be written */
};

static size_t batch_blocks(const struct stream *s)
{
    return (size_t)team_threads(s->team) * BLOCKS_PER_THREAD;
}

static int grow(void **mem, size_t *cap, size_t want, struct err *e)
{
    if (want <= *cap)
        return 0;
    free(*mem);
    *cap = 0;
    *mem = aligned_alloc(64, num_round_up(want, 64));
    if (!*mem)
        return err_nomem(e, want, "blocks of rows");
    *cap = want;
    return 0;
}

/* Bytes of `rows` rows of one matrix in the output. */
static size_t stream_bytes(const struct stream *s, size_t rows)
{
    return s->layout ? (rows + KERN_ROWS - 1) / KERN_ROWS * s->panel_bytes : rows * s->row_bytes;
}

static int stream_tensor(struct stream *s, const struct convert_tensor *t, struct err *e)
{
    size_t scratch = plan_scratch(t), out, work, rows = 0;
    s->t = t;
    s->cols = plan_cols(t);
    s->height = plan_height(t);
    s->matrix_rows = t->dims > 1 ? (size_t)t->shape[t->dims - 2] : 1;
    s->copies = plan_copies(s->p, t);
    s->row_bytes = s->height ? t->bytes / s->height : 0;
    s->layout = t->packed ? panel_find(t->type->id) : NULL;
    s->panel_bytes = s->layout ? s->layout->bytes(s->cols) : 0;
    if (s->layout && !quant_size(t->type, s->cols, &s->row_bytes))
        return err_set(e, ERR_LIMIT, "tensor \"%s\" is too large", t->name);
    s->block_rows = num_min(s->matrix_rows, num_max(1, BLOCK_FLOATS / num_max(1, s->cols)));
    if (plan_turns(t)) /* decoded once a block: a matrix at a time */
        s->block_rows = s->matrix_rows;
    else if (t->scheme == SCHEME_FP8_CODES) /* blocks of 128 rows share scales */
        s->block_rows = num_min(s->matrix_rows, 128);
    if (s->layout)
        s->block_rows = num_round_up(s->block_rows, KERN_ROWS);
    if (!num_mul(&out, num_round_up(s->block_rows, KERN_ROWS), num_max(s->row_bytes, 1)) ||
        !num_mul(&out, stream_bytes(s, s->block_rows), batch_blocks(s)) ||
        !num_mul(&work, s->block_rows, s->cols) || !num_add(&work, work, scratch) ||
        work > SIZE_MAX / 16 / TEAM_MAX)
        return err_set(e, ERR_LIMIT, "tensor \"%s\" is too large", t->name);
    if (s->layout) /* rows before they become panels */
        rows = num_round_up(s->block_rows * s->row_bytes, 64) / sizeof(float);
    work = s->copies ? 16 : num_round_up(work, 16);
    s->rows_at = work;
    work += rows;
    s->work_each = work;
    int rc = grow((void **)&s->out, &s->out_cap, out, e);
    return rc ? rc
              : grow((void **)&s->work, &s->work_cap,
                     work * sizeof(float) * (size_t)team_threads(s->team), e);
}

/* Encoders want finite values; F16 ends at 65504. */
static bool writable(const struct quant_type *type, const float *v, size_t n)
{
    float most = type->id == QUANT_F16 ? 65519.99f : INFINITY, max = 0;
    bool finite = true;
    for (size_t i = 0; i < n; i++) {
        float a = fabsf(v[i]);
        finite &= a < INFINITY;
        max = a > max ? a : max;
    }
    return finite && max <= most;
}

/* Rows [r0, r0 + n), all of one matrix. */
static void stream_encode(struct stream *s, size_t r0, size_t n, uint8_t *out, float *work)
{
    const struct convert_tensor *t = s->t;
    const float *importance = t->importance;
    plan_rows(s->p, t, r0, n, work, work + s->block_rows * s->cols);
    if (!writable(t->type, work, n * s->cols))
        atomic_store(&s->bad, 1);
    if (t->scheme == SCHEME_FP8_CODES) {
        fp8_codes(out, work, n, s->cols);
        return;
    }
    if (t->scheme == SCHEME_NF4_CODES) {
        nf4_codes(out, work, n * s->cols);
        return;
    }
    if (importance && t->importance_outer > 1)
        importance += r0 / s->matrix_rows * s->cols;
    for (size_t i = 0; i < n; i++)
        t->type->encode(out + i * s->row_bytes, work + i * s->cols, s->cols, importance);
}

/* Rows [r0, r0 + n), all of one matrix, in their type's form. */
static void stream_rows(struct stream *s, size_t r0, size_t n, uint8_t *out, float *work)
{
    if (s->copies)
        plan_copy(s->t, r0, n, out);
    else
        stream_encode(s, r0, n, out, work);
}

static void stream_block(void *arg, size_t chunk, int worker)
{
    struct stream *s = arg;
    float *work = s->work + (size_t)worker * s->work_each;
    size_t at = chunk * s->block_rows, end = num_min(at + s->block_rows, s->batch_rows);
    if (s->layout) {
        uint8_t *rows = (uint8_t *)(work + s->rows_at);
        stream_rows(s, s->batch_row + at, end - at, rows, work);
        for (size_t r = at; r < end; r += KERN_ROWS)
            s->layout->pack(s->out + stream_bytes(s, r), rows + (r - at) * s->row_bytes,
                            s->row_bytes, num_min(KERN_ROWS, end - r), s->cols);
        return;
    }
    while (at < end) { /* a block may reach into the next matrix, whose importance is another */
        size_t r0 = s->batch_row + at;
        size_t n = num_min(end - at, s->matrix_rows - r0 % s->matrix_rows);
        stream_rows(s, r0, n, s->out + at * s->row_bytes, work);
        at += n;
    }
}

static int stream_bad(const struct stream *s, struct err *e)
{
    if (s->t->type->id == QUANT_F16)
        return err_set(
            e, ERR_FORMAT,
            "tensor \"%s\" has values that F16 cannot hold (beyond 65504, infinite or NaN): "
            "give --type BF16 or F32",
            s->t->name);
    return err_set(e, ERR_FORMAT, "tensor \"%s\" has values that are infinite or NaN", s->t->name);
}

/* What the batch has read of runs that keep their order: a tensor of experts has gigabytes. */
static void stream_drop_batch(const struct stream *s)
{
    size_t at = 0, from = s->batch_row, to = from + s->batch_rows;
    for (size_t i = 0; i < s->t->n_runs && at < to; at += s->t->runs[i++].rows) {
        const struct convert_run *u = &s->t->runs[i];
        size_t lo = num_max(from, at), hi = num_min(to, at + u->rows);
        if (u->how == RUN_PLAIN && lo < hi)
            source_rows_drop(s->p->src, u->t, u->row0 + lo - at, hi - lo);
    }
}

static void stream_drop(const struct stream *s)
{
    const struct source_tensor *last = NULL;
    for (size_t i = 0; i < s->t->n_runs; i++) {
        if (s->t->runs[i].t != last)
            source_tensor_drop(s->p->src, s->t->runs[i].t);
        last = s->t->runs[i].t;
    }
}

int convert_stream(struct convert_plan *p, const struct convert_sink *sink, struct team *team,
                   convert_progress *progress, void *arg, struct err *e)
{
    struct stream s = {.p = p, .team = team};
    uint64_t done = 0;
    int rc = 0;
    for (size_t i = 0; !rc && i < p->n; i++) {
        rc = stream_tensor(&s, &p->tensors[i], e);
        for (size_t r = 0; !rc && r < s.height; r += s.batch_rows) {
            s.batch_row = r;
            s.batch_rows = num_min(s.block_rows * batch_blocks(&s), s.height - r);
            if (s.layout)
                s.batch_rows = num_min(s.batch_rows, s.matrix_rows - r % s.matrix_rows);
            team_run(team, stream_block, &s, (s.batch_rows + s.block_rows - 1) / s.block_rows);
            if (atomic_load(&s.bad))
                rc = stream_bad(&s, e);
            if (!rc)
                rc = sink->data(sink->state, s.t, s.out, stream_bytes(&s, s.batch_rows), e);
            if (!rc)
                stream_drop_batch(&s);
            done += stream_bytes(&s, s.batch_rows);
            if (!rc && progress && !progress(arg, done, p->bytes, i))
                rc = err_set(e, ERR_CANCELLED, "stopped");
        }
        if (!rc)
            stream_drop(&s);
    }
    free(s.out);
    free(s.work);
    return rc;
}
