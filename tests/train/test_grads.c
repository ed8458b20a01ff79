/*
 * Gradients of whole models against PyTorch's (tests/golden/train: mean cross entropy of a batch of
 * right-padded sequences, labels shifted by one): every tensor within 1e-5 + 1e-3 |g|, losses
 * within 1e-5. The bits do not depend on recomputing blocks, on threads, or on how the batch is
 * cut. The prediction layer's loss and the balance loss against finite differences.
 *
 * Another folder of the same form: an argument, or PONDER_TRAIN_GOLDEN.
 */
#include "base/num.h"
#include "model/model.h"
#include "support/golden.h"
#include "tensor/logprob.h"
#include "tensor/loss.h"
#include "tensor/tape.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEQS = 8, TOKENS = 64, ROWS = SEQS * TOKENS };

static char folder[400];

static void die(int rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->text);
}

/* ---- a model whose weights are trained ------------------------------------------------------- */

struct param {
    struct model_param p;
    struct weight_param values;
};

struct fixture {
    struct kern kern;
    struct team *team;
    struct op_ctx ops;
    struct source *src;
    struct model *model;
    struct kv_pool *kv;
    struct kv_seq seq[SEQS];
    struct param *param;
    size_t n_param;
};

static int attach(void *arg, const struct model_param *p)
{
    struct fixture *f = arg;
    f->param = realloc(f->param, (f->n_param + 1) * sizeof *f->param);
    assert_non_null(f->param);
    size_t n = weight_values(p->weight);
    struct param *q = &f->param[f->n_param++];
    *q = (struct param){*p, {p->weight->own, calloc(n, sizeof(float)), n}};
    assert_non_null(q->values.grad);
    return 0;
}

/* With `adapt` an adapter is trained: the one at `adapter` if that is no NULL. */
static void fixture_load_with(struct fixture *f, const char *path, int threads,
                              const struct model_adapt *adapt, const char *adapter, bool bf16)
{
    struct err e = {0};
    struct kv_shape shape;
    struct model_config cfg;
    memset(f, 0, sizeof *f);
    kern_init(&f->kern, cpu_best());
    if (!bf16)
        kern_float(&f->kern); /* inputs of BF16 bases are not rounded */
    die(team_new(&f->team, threads, &e), &e);
    op_ctx_init(&f->ops, &f->kern, f->team);
    die(source_open(&f->src, path, &e), &e);
    die(model_check(f->src, &cfg, &e), &e);
    struct adapter *a = NULL;
    if (adapter)
        die(adapter_open(&a, adapter, &e), &e);
    struct model_load_opts o = {.train = !adapt,
                                .bf16 = bf16,
                                .mtp = cfg.n_mtp != 0,
                                .place = MODEL_PACKED,
                                .adapt = adapt,
                                .adapter = a};
    die(model_load(&f->model, f->src, &cfg, &f->ops, &o, &e), &e);
    adapter_free(a);
    model_kv_shape(f->model, &shape);
    shape.type = QUANT_F32;
    die(kv_pool_new(&f->kv, &shape, SEQS * ((TOKENS + KV_PAGE - 1) / KV_PAGE), &e), &e);
    for (size_t i = 0; i < SEQS; i++)
        die(kv_seq_init(&f->seq[i], f->kv, TOKENS, &e), &e);
    assert_int_equal(model_params_each(f->model, attach, f), 0);
    for (size_t i = 0; i < f->n_param; i++)
        f->param[i].p.weight->param = &f->param[i].values;
}

static void fixture_load(struct fixture *f, const char *path, int threads)
{
    fixture_load_with(f, path, threads, NULL, NULL, false);
}

static void fixture_release(struct fixture *f)
{
    for (size_t i = 0; i < f->n_param; i++)
        free(f->param[i].values.grad);
    free(f->param);
    for (size_t i = 0; i < SEQS; i++)
        kv_seq_release(&f->seq[i]);
    kv_pool_free(f->kv);
    model_free(f->model);
    source_free(f->src);
    op_ctx_release(&f->ops);
    team_free(f->team);
}

/* ---- sequences and their loss ---------------------------------------------------------------- */

struct data {
    size_t n_seq, len[SEQS];
    int32_t ids[SEQS][TOKENS], label[SEQS][TOKENS]; /* label of the next token; −1: none */
    size_t labels;
};

struct loss {
    const struct kern *kern;
    int32_t label[ROWS];
    bool skip[ROWS];
    double row[ROWS], scale;
    bool back;
};

static void loss_ce(void *arg, size_t row, float *logits, size_t n)
{
    struct loss *l = arg;
    struct logprob lp;
    logprob_of(l->kern, logits, n, 1, l->label[row], &lp);
    l->row[row] = -(double)lp.value;
    l->kern->softmax(logits, n);
    logits[l->label[row]] -= 1;
    for (size_t i = 0; i < n; i++)
        logits[i] *= (float)l->scale;
}

struct ways {
    bool recompute, cut, mtp, back;
    float balance, dropout;
    double mtp_weight;
};

/* Rows of a batch of sequences [s0, s1). */
struct rows {
    struct batch b;
    struct batch_run run[SEQS];
    int32_t ids[ROWS];
    uint32_t pos[ROWS], want[ROWS], from[ROWS];
    uint64_t key[ROWS];
};

/* Each sequence's tokens but the last `less`, beginning with token `first`. */
static void rows_of(struct fixture *f, const struct data *d, size_t s0, size_t s1, size_t first,
                    struct rows *r, int32_t *label, bool *skip, size_t ahead)
{
    struct err e = {0};
    size_t n = 0, at = 0;
    memset(&r->b, 0, sizeof r->b);
    for (size_t s = s0; s < s1; s++) {
        size_t len = d->len[s] - first;
        die(kv_seq_reserve(&f->seq[s], 0, 0, len, &e), &e);
        r->run[s - s0] = (struct batch_run){.seq = &f->seq[s], .row = n, .n = len};
        for (size_t t = 0; t < len; t++, n++) {
            r->ids[n] = d->ids[s][t + first];
            r->pos[n] = (uint32_t)t;
            r->want[n] = (uint32_t)n;
            r->key[n] = (uint64_t)s << 32 | t;
            r->from[n] = (uint32_t)(at + t);
            label[n] = t + ahead < d->len[s] ? d->label[s][t + ahead - 1] : -1;
            skip[n] = label[n] < 0;
        }
        at += d->len[s];
    }
    r->b = (struct batch){.n = n,
                          .ids = r->ids,
                          .pos = r->pos,
                          .want = r->want,
                          .n_want = n,
                          .runs = r->run,
                          .n_runs = s1 - s0};
}

static double head_loss(struct fixture *f, struct tape *tape, struct tensor x,
                        const struct weight *head, struct loss *l, const struct ways *w)
{
    double sum = 0;
    memset(l->row, 0, sizeof l->row);
    loss_head(&f->ops, x, head, l->skip, loss_ce, l, w->back ? tape_grad(tape, x) : NULL);
    for (size_t i = 0; i < x.rows; i++)
        sum += l->row[i] * l->scale;
    return sum;
}

static double pass(struct fixture *f, struct tape *tape, const struct data *d, size_t s0, size_t s1,
                   const struct ways *w)
{
    static struct rows main, mtp;
    static struct loss l, l2;
    struct err e = {0};
    l = (struct loss){.kern = &f->kern, .scale = 1 / (double)d->labels};
    rows_of(f, d, s0, s1, 0, &main, l.label, l.skip, 1);
    /* What a dry run says has to be enough. */
    struct op_tape shape = {.keep = true, .recompute = w->recompute};
    struct op_dropout dropout = {.p = w->dropout, .seed = 5, .row = main.key, .rows = main.b.n};
    f->ops.dropout = w->dropout > 0 ? &dropout : NULL;
    for (int dry = 1; dry >= 0; dry--) {
        f->ops.dry = dry;
        f->ops.used = 0;
        if (dry) {
            f->ops.tape = &shape;
            f->ops.peak = 0;
        } else {
            tape_start(tape);
        }
        struct tensor x = model_states(f->model, &f->ops, &main.b), y = {0};
        if (w->mtp) {
            l2 = (struct loss){.kern = &f->kern, .scale = w->mtp_weight / (double)d->labels};
            rows_of(f, d, s0, s1, 1, &mtp, l2.label, l2.skip, 2);
            struct tensor h = op_rows(&f->ops, x, mtp.from, mtp.b.n);
            y = model_states_mtp(f->model, &f->ops, &mtp.b, h);
        }
        if (dry) {
            loss_head(&f->ops, x, model_head(f->model), NULL, loss_ce, NULL, NULL);
            size_t peak = f->ops.peak;
            f->ops.tape = NULL;
            f->ops.dry = false;
            f->ops.used = 0;
            die(op_ctx_reserve(&f->ops, peak, &e), &e);
            continue;
        }
        double loss = head_loss(f, tape, x, model_head(f->model), &l, w);
        if (w->mtp)
            loss += head_loss(f, tape, y, model_head_mtp(f->model), &l2, w);
        if (w->back)
            die(tape_backward(tape, &e), &e);
        else
            tape_stop(tape);
        f->ops.dropout = NULL;
        f->ops.used = 0;
        return tape_balance(tape, loss);
    }
    return 0;
}

/* The loss; with `back` gradients, from zero. */
static double run(struct fixture *f, const struct data *d, const struct ways *w)
{
    struct tape *tape;
    struct err e = {0};
    double loss = 0;
    f->ops.used = 0;
    die(tape_new(&tape, &f->ops, &(struct tape_opts){w->recompute, w->balance}, &e), &e);
    for (size_t i = 0; i < f->n_param; i++)
        memset(f->param[i].values.grad, 0, f->param[i].values.n * sizeof(float));
    for (size_t s = 0; s < d->n_seq; s += w->cut ? 1 : d->n_seq)
        loss += pass(f, tape, d, s, w->cut ? s + 1 : d->n_seq, w);
    tape_free(tape);
    model_lora_back(f->model, &f->ops);
    /* Weights that share values have one gradient: the sum. */
    for (size_t i = 0; i < f->n_param; i++)
        for (size_t k = 0; k < i; k++)
            if (f->param[i].p.same == f->param[k].p.weight)
                for (size_t v = 0; v < f->param[k].values.n; v++)
                    f->param[k].values.grad[v] += f->param[i].values.grad[v];
    return loss;
}

/* ---- against the references ------------------------------------------------------------------ */

static void data_load(struct data *d, const char *model, int batch)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s/batches.safetensors", folder, model);
    struct golden *g = golden_load(path);
    struct golden_tensor ids = golden_get(g, "b%d.input_ids", batch);
    struct golden_tensor label = golden_get(g, "b%d.labels", batch);
    struct golden_tensor mask = golden_get(g, "b%d.attention_mask", batch);
    memset(d, 0, sizeof *d);
    assert_in_range(ids.dim[0], 1, SEQS);
    assert_in_range(ids.dim[1], 1, TOKENS);
    d->n_seq = ids.dim[0];
    for (size_t s = 0; s < d->n_seq; s++)
        for (size_t t = 0; t < ids.dim[1]; t++) {
            size_t at = s * ids.dim[1] + t;
            if (!mask.i32[at])
                continue;
            d->ids[s][d->len[s]++] = ids.i32[at];
            if (t)
                d->label[s][t - 1] = label.i32[at] < 0 ? -1 : label.i32[at];
            d->labels += t && label.i32[at] >= 0;
        }
    golden_free(g);
}

static json_t *expected(const char *model)
{
    char path[512];
    size_t bytes;
    snprintf(path, sizeof path, "%s/%s/train.json", folder, model);
    char *text = golden_file(path, &bytes);
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    free(text);
    return root;
}

/* Every tensor of the file is one of the model's, and the other way round. */
static void check_tensors(struct fixture *f, const char *model, const char *file)
{
    char path[512];
    double worst = 0;
    snprintf(path, sizeof path, "%s/%s/%s", folder, model, file);
    struct golden *g = golden_load(path);
    for (size_t i = 0, end; i < f->n_param; i = end) {
        const struct model_param *p = &f->param[i].p;
        for (end = i + 1; end < f->n_param && !strcmp(p->name, f->param[end].p.name);)
            end++;
        if (p->same || p->steers)
            continue;
        size_t n = (p->rows ? p->rows : 1) * p->cols;
        float *got = malloc(n * sizeof *got);
        assert_non_null(got);
        for (size_t k = i; k < end; k++)
            model_param_to_rows(&f->param[k].p, f->param[k].values.grad, got);
        struct golden_tensor want = golden_get(g, "%s", p->name);
        assert_int_equal(want.count, n);
        for (size_t k = 0; k < n; k++) {
            double off = fabs((double)got[k] - (double)want.f32[k]);
            double most = 1e-5 + 1e-3 * fabs((double)want.f32[k]);
            worst = fmax(worst, off / most);
            if (!(off <= most))
                fail_msg("%s: gradient of %s, value %zu, is %.8g, want %.8g", model, p->name, k,
                         (double)got[k], (double)want.f32[k]);
        }
        free(got);
    }
    print_message("# %s: largest deviation %.4f of what is allowed\n", model, worst);
    golden_free(g);
}

static void golden_path(char path[512], const char *model)
{
    bool whole = folder[0] == '/';
    snprintf(path, 512, "%s%s%s/%s", whole ? "" : GOLDEN_DIR, whole ? "" : "/", folder, model);
}

static void test_golden(void **state)
{
    const char *model = *state;
    struct fixture f;
    struct data d;
    char path[512];
    golden_path(path, model);
    fixture_load(&f, path, 2);
    data_load(&d, model, 0);
    json_t *root = expected(model), *sft = json_object_get(root, "sft");
    double want = json_number_value(json_array_get(json_object_get(sft, "loss_per_step"), 0));
    double loss = run(&f, &d, &(struct ways){.back = true});
    print_message("# %s: loss %.8g, want %.8g\n", model, loss, want);
    if (!(fabs(loss - want) <= 1e-5 * want))
        fail_msg("%s: loss %.9g, want %.9g", model, loss, want);
    check_tensors(&f, model, "grads_step0.safetensors");
    json_decref(root);
    fixture_release(&f);
}

/* The base stays as it is, and PEFT's adapter is trained. */
static void test_adapter(void **state)
{
    const char *model = *state;
    struct fixture f;
    struct data d;
    char path[512], adapter[600];
    golden_path(path, model);
    snprintf(adapter, sizeof adapter, "%s/adapter", path);
    fixture_load_with(&f, path, 2, &(struct model_adapt){.rank = 0}, adapter, false);
    data_load(&d, model, 0);
    json_t *root = expected(model), *lora = json_object_get(root, "lora");
    assert_int_equal(f.n_param, json_array_size(json_object_get(lora, "trainable")));
    double want = json_number_value(json_object_get(lora, "loss"));
    double loss = run(&f, &d, &(struct ways){.back = true});
    if (!(fabs(loss - want) <= 1e-5 * want))
        fail_msg("%s: loss %.9g, want %.9g", model, loss, want);
    check_tensors(&f, model, "lora_grads.safetensors");
    json_decref(root);
    fixture_release(&f);
}

/* ---- the same bits however it is computed ---------------------------------------------------- */

/* Sequences of any tokens: a long one, a single token, and others; a label is left out here and
 * there. */
static void data_make(struct data *d, size_t n_vocab)
{
    static const size_t len[] = {37, 3, 64, 12};
    memset(d, 0, sizeof *d);
    d->n_seq = NUM_COUNT(len);
    for (size_t s = 0; s < d->n_seq; s++) {
        d->len[s] = len[s];
        for (size_t t = 0; t < len[s]; t++)
            d->ids[s][t] = (int32_t)((s * 977 + t * t * 31 + t * 7919) % n_vocab);
        for (size_t t = 0; t + 1 < len[s]; t++) {
            d->label[s][t] = t % 7 == 3 ? -1 : d->ids[s][t + 1];
            d->labels += d->label[s][t] >= 0;
        }
    }
}

static void model_path(char path[512], const char *model)
{
    snprintf(path, 512, "%s/%s", GOLDEN_DIR, model);
}

static void test_bits(void **state)
{
    static const struct {
        int threads;
        struct ways w;
    } ways[] = {
        {1, {.back = true}},
        {3, {.back = true}},
        {2, {.back = true, .recompute = true}},
        {2, {.back = true, .cut = true}},
        {3, {.back = true, .cut = true, .recompute = true}},
    };
    const char *model = *state;
    struct fixture one, f;
    struct data d;
    char path[512];
    model_path(path, model);
    fixture_load(&one, path, 2);
    data_make(&d, model_config(one.model)->n_vocab);
    bool mtp = model_config(one.model)->n_mtp;
    struct ways w = {.back = true, .mtp = mtp, .balance = 0.5f, .mtp_weight = 0.3};
    double loss = run(&one, &d, &w);
    assert_true(loss > 0);
    for (size_t i = 0; i < NUM_COUNT(ways); i++) {
        w = ways[i].w;
        w.mtp = mtp;
        w.balance = 0.5f;
        w.mtp_weight = 0.3;
        fixture_load(&f, path, ways[i].threads);
        double again = run(&f, &d, &w);
        if (!(fabs(again - loss) <= 1e-12 * loss)) /* sums of rows in another order */
            fail_msg("%s, way %zu: loss %.17g, before %.17g", model, i, again, loss);
        assert_int_equal(f.n_param, one.n_param);
        for (size_t k = 0; k < f.n_param; k++)
            if (memcmp(f.param[k].values.grad, one.param[k].values.grad,
                       f.param[k].values.n * sizeof(float)) != 0)
                fail_msg("%s, way %zu: bits of %s's gradient differ", model, i, f.param[k].p.name);
        fixture_release(&f);
    }
    fixture_release(&one);
}

/* Products in BF16: the gradient is that of float32 but for roundings, each up to 2^-9 of a factor
 * and about as often as not in either direction, so a few times 2^-9 after some layers; and it has
 * the same bits on any number of threads, in passes that begin anywhere, and computed again. */
static void test_bf16(void **state)
{
    const char *model = *state;
    static const struct ways ways[] = {
        {.back = true}, {.back = true}, {.back = true, .cut = true, .recompute = true}};
    struct fixture one, f[NUM_COUNT(ways)];
    struct data d;
    char path[512];
    model_path(path, model);
    fixture_load(&one, path, 2);
    data_make(&d, model_config(one.model)->n_vocab);
    double loss = run(&one, &d, &ways[0]), off = 0, all = 0;
    for (int i = 0; i < (int)NUM_COUNT(ways); i++) {
        fixture_load_with(&f[i], path, 1 + i, NULL, NULL, true);
        assert_true(fabs(run(&f[i], &d, &ways[i]) - loss) <= 0.01 * loss);
    }
    for (size_t k = 0; k < one.n_param; k++) {
        const float *g = f[0].param[k].values.grad, *want = one.param[k].values.grad;
        size_t n = one.param[k].values.n;
        for (size_t i = 1; i < NUM_COUNT(ways); i++)
            if (memcmp(g, f[i].param[k].values.grad, n * sizeof *g) != 0)
                fail_msg("%s, way %zu: bits of %s's gradient differ", model, i,
                         one.param[k].p.name);
        for (size_t i = 0; i < n; i++) {
            double v = (double)g[i] - (double)want[i];
            off += v * v;
            all += (double)want[i] * (double)want[i];
        }
    }
    print_message("# %s: in BF16 %.2g of the gradient off\n", model, sqrt(off / all));
    assert_true(off > 0);
    assert_true(off <= 0.05 * 0.05 * all);
    for (size_t i = 0; i < NUM_COUNT(ways); i++)
        fixture_release(&f[i]);
    fixture_release(&one);
}

/* ---- finite differences ---------------------------------------------------------------------- */

/* The loss when a weight moves along its gradient by `step`. */
static double moved(struct fixture *f, const struct data *d, const struct ways *w, size_t i,
                    const float *grad, double step)
{
    const struct weight_param *v = &f->param[i].values;
    float *was = malloc(v->n * sizeof *was);
    assert_non_null(was);
    memcpy(was, v->value, v->n * sizeof *was);
    for (size_t k = 0; k < v->n; k++)
        v->value[k] = (float)((double)was[k] + step * (double)grad[k]);
    model_lora_merge(f->model, &f->ops);
    double loss = run(f, d, w);
    memcpy(v->value, was, v->n * sizeof *was);
    model_lora_merge(f->model, &f->ops);
    free(was);
    return loss;
}

/*
 * Along its gradient g a weight's loss grows by |g|. A part of the gradient that is missing, or too
 * much, shows in every weight that it flows to.
 */
static void differences(const char *model, const struct model_adapt *adapt)
{
    struct fixture f;
    struct data d;
    char path[512];
    double worst = 0;
    model_path(path, model);
    fixture_load_with(&f, path, 2, adapt, NULL, false);
    for (size_t i = 0; i < f.n_param && adapt; i++) /* a fresh B is zero: A has no gradient */
        for (size_t k = 0; k < f.param[i].values.n; k++)
            f.param[i].values.value[k] += (float)(0.05 * sin((double)(i * 31 + k)));
    model_lora_merge(f.model, &f.ops);
    data_make(&d, model_config(f.model)->n_vocab);
    struct ways w = {
        .back = true, .mtp = model_config(f.model)->n_mtp, .balance = 0.7f, .mtp_weight = 0.6};
    if (adapt && !w.mtp)
        w.dropout = 0.25f;
    double loss = run(&f, &d, &w);
    float **grad = calloc(f.n_param, sizeof *grad);
    assert_non_null(grad);
    for (size_t i = 0; i < f.n_param; i++) {
        size_t bytes = f.param[i].values.n * sizeof(float);
        grad[i] = malloc(bytes);
        assert_non_null(grad[i]);
        memcpy(grad[i], f.param[i].values.grad, bytes);
    }
    size_t checked = 0;
    for (size_t i = 0; i < f.n_param; i++) {
        double square = 0;
        for (size_t k = 0; k < f.param[i].values.n; k++)
            square += (double)grad[i][k] * (double)grad[i][k];
        double norm = sqrt(square);
        if (f.param[i].p.same || f.param[i].p.steers || norm < 1e-3)
            continue;
        /* Far enough that float losses tell; with experts, near enough that no token changes its
           own. */
        double far = model_config(f.model)->n_expert ? 2e-4 : 2e-3;
        double step = fmin(far / square, far / norm);
        double slope =
            (moved(&f, &d, &w, i, grad[i], step) - moved(&f, &d, &w, i, grad[i], -step)) /
            (2 * step * norm);
        /* A loss has the roundings of float: some 1e-7 of it, over the way that was gone. */
        double most = 0.01 * norm + 2e-7 * loss / (2 * step * norm);
        worst = fmax(worst, fabs(slope - norm) / most);
        if (!(fabs(slope - norm) <= most))
            fail_msg("%s: %s: slope %.6g, gradient %.6g", model, f.param[i].p.name, slope, norm);
        checked++;
    }
    print_message("# %s: %zu weights, at most %.2g of what is allowed\n", model, checked, worst);
    assert_true(checked > 10);
    for (size_t i = 0; i < f.n_param; i++)
        free(grad[i]);
    free(grad);
    fixture_release(&f);
}

static void test_differences(void **state)
{
    differences(*state, NULL);
}

/* All that an adapter can be for: experts and the head too. */
static bool all_modules(void *arg, const char *module)
{
    (void)arg;
    return !strstr(module, "layers.0.");
}

static void test_adapter_differences(void **state)
{
    struct model_adapt a = {.rank = 3, .alpha = 6, .rs = true, .seed = 4, .choose = all_modules};
    differences(*state, &a);
}

/* What dropout leaves out is the same whatever is computed together, again, or by how many threads;
 * with it the loss is another one. */
static void test_adapter_dropout(void **state)
{
    const struct ways ways[] = {{.back = true, .dropout = 0.25f},
                                {.back = true, .dropout = 0.25f, .recompute = true},
                                {.back = true, .dropout = 0.25f, .cut = true}};
    struct model_adapt a = {.rank = 3, .alpha = 6, .seed = 4};
    float **grad = NULL;
    double first = 0;
    for (int threads = 1; threads <= 3; threads += 2)
        for (size_t i = 0; i < NUM_COUNT(ways); i++) {
            struct fixture f;
            struct data d;
            char path[512];
            model_path(path, *state);
            fixture_load_with(&f, path, threads, &a, NULL, false);
            for (size_t p = 0; p < f.n_param; p++)
                for (size_t k = 0; k < f.param[p].values.n; k++)
                    f.param[p].values.value[k] += (float)(0.05 * sin((double)(p * 31 + k)));
            model_lora_merge(f.model, &f.ops);
            data_make(&d, model_config(f.model)->n_vocab);
            double loss = run(&f, &d, &ways[i]), plain;
            if (!grad) {
                first = loss;
                grad = calloc(f.n_param, sizeof *grad);
                assert_non_null(grad);
            }
            for (size_t p = 0; p < f.n_param; p++) {
                size_t bytes = f.param[p].values.n * sizeof(float);
                if (grad[p]) {
                    assert_memory_equal(grad[p], f.param[p].values.grad, bytes);
                    continue;
                }
                grad[p] = malloc(bytes);
                assert_non_null(grad[p]);
                memcpy(grad[p], f.param[p].values.grad, bytes);
            }
            plain = run(&f, &d, &(struct ways){.dropout = 0});
            assert_true(fabs(loss - first) <= 1e-12 * loss); /* the rows' sum is cut otherwise */
            assert_true(fabs(loss - plain) > 1e-4);
            bool last = threads == 3 && i + 1 == NUM_COUNT(ways);
            for (size_t p = 0; last && p < f.n_param; p++)
                free(grad[p]);
            fixture_release(&f);
        }
    free(grad);
}

/* A new adapter changes nothing; what is asked in vain is said. */
static void test_adapter_new(void **state)
{
    struct fixture plain, f;
    struct data d;
    struct err e = {0};
    char path[512];
    model_path(path, *state);
    fixture_load(&plain, path, 2);
    data_make(&d, model_config(plain.model)->n_vocab);
    struct model_adapt a = {.rank = 4, .alpha = 8, .seed = 1};
    fixture_load_with(&f, path, 2, &a, NULL, false);
    struct ways w = {.back = true};
    double want = run(&plain, &d, &w), loss = run(&f, &d, &w);
    assert_true(fabs(loss - want) <= 1e-6 * want);
    size_t moved = 0;
    for (size_t i = 0; i < f.n_param; i++) {
        bool b = strstr(f.param[i].p.name, ".lora_B.weight") != NULL;
        assert_true(b || strstr(f.param[i].p.name, ".lora_A.weight"));
        float most = 0, value = 0;
        for (size_t k = 0; k < f.param[i].values.n; k++) {
            most = fmaxf(most, fabsf(f.param[i].values.grad[k]));
            value = fmaxf(value, fabsf(f.param[i].values.value[k]));
        }
        assert_int_equal(b, most > 0); /* B is zero, so A has no gradient */
        assert_int_equal(b, value == 0);
        moved += b;
    }
    assert_true(moved >= 7);
    struct model *m;
    struct model_load_opts o = {.adapt = &(struct model_adapt){.alpha = 8}};
    assert_int_equal(model_load(&m, f.src, model_config(f.model), &f.ops, &o, &e), ERR_USAGE);
    o = (struct model_load_opts){.adapt = &a, .train = true};
    assert_int_equal(model_load(&m, f.src, model_config(f.model), &f.ops, &o, &e), ERR_USAGE);
    fixture_release(&f);
    fixture_release(&plain);
}

#define MODEL(test, name)                                           \
    {                                                               \
#test " " name, test, NULL, NULL, (void *)(uintptr_t)(name) \
    }

int main(int argc, char **argv)
{
    const char *env = getenv("PONDER_TRAIN_GOLDEN");
    const struct CMUnitTest tests[] = {
        MODEL(test_golden, "llama"),
        MODEL(test_golden, "qwen2"),
        MODEL(test_golden, "dsv3"),
        MODEL(test_adapter, "llama"),
        MODEL(test_adapter, "qwen2"),
        MODEL(test_adapter, "dsv3"),
        MODEL(test_adapter_new, "train/llama"),
        MODEL(test_adapter_new, "models/dsv3_qlora_yarn_mtp"),
        MODEL(test_adapter_dropout, "train/llama"),
        MODEL(test_adapter_dropout, "models/dsv2_lite_greedy"),
        MODEL(test_adapter_differences, "train/llama"),
        MODEL(test_adapter_differences, "models/dsv2_lite_greedy"),
        MODEL(test_bits, "train/llama"),
        MODEL(test_bits, "train/qwen2"),
        MODEL(test_bits, "models/qwen3"),
        MODEL(test_bits, "models/deepseek"),
        MODEL(test_bits, "models/dsv2_group_limited"),
        MODEL(test_bits, "models/dsv3_qlora_yarn_mtp"),
        MODEL(test_bf16, "train/llama"),
        MODEL(test_bf16, "train/qwen2"),
        MODEL(test_bf16, "train/dsv3"),
        MODEL(test_differences, "models/qwen3"),
        MODEL(test_differences, "models/deepseek"),
        MODEL(test_differences, "models/dsv2_lite_greedy"),
        MODEL(test_differences, "models/dsv3_qlora_yarn_mtp"),
    };
    snprintf(folder, sizeof folder, "%s", argc > 1 ? argv[1] : env ? env : "train");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
