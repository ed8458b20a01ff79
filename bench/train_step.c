/*
 * How fast a model is trained: steps of AdamW over a batch of 16 sequences of 256 random tokens,
 * the loss cross entropy, as bench/train asks for beside PyTorch.
 *
 *   bench-train-step MODEL [--threads N] [--steps N] [--isa NAME] [--bf16]
 *
 * Prints one line of JSON: best and median time of a step, tokens a second, 6 × parameters × tokens
 * a second in GFLOP/s (no attention in it), and the machine's peak at float32 multiply-adds with as
 * many threads, measured before and after.
 */
#include "base/clock.h"
#include "base/num.h"
#include "base/rng.h"
#include "comm/comm.h"
#include "engine/engine.h"
#include "engine/parts.h"
#include "kernels/peak.h"
#include "train/loss_ce.h"
#include "train/trainer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEQS = 16, LENGTH = 256, STEPS_MAX = 1000, PEAK_ROUNDS = 20000 };

struct peak_job {
    enum cpu_isa isa;
    uint64_t ops[TEAM_MAX * 4];
};

static void peak_chunk(void *arg, size_t chunk, int worker)
{
    struct peak_job *j = arg;
    (void)worker;
    j->ops[chunk] = peak_run(PEAK_F32, j->isa, NULL, PEAK_ROUNDS);
}

/* Best of some, in GFLOP/s. */
static double peak(struct team *team, enum cpu_isa isa)
{
    struct peak_job j = {.isa = isa};
    size_t chunks = (size_t)team_threads(team) * 4;
    double best = 0;
    for (int i = 0; i < 60; i++) {
        double t = clock_seconds(), ops = 0;
        team_run(team, peak_chunk, &j, chunks);
        t = clock_seconds() - t;
        for (size_t c = 0; c < chunks; c++)
            ops += (double)j.ops[c];
        best = ops / t / 1e9 > best ? ops / t / 1e9 : best;
    }
    return best;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct bench {
    const char *model;
    int threads, steps;
    bool bf16;
    enum cpu_isa isa;
    struct comm *comm;
    struct engine *engine;
    struct trainer *trainer;
    double t[STEPS_MAX];
    struct train_result result;
};

static int run(struct bench *b, struct err *e)
{
    static int32_t ids[SEQS * LENGTH];
    static uint8_t target[LENGTH];
    struct data_seq seq[SEQS];
    struct data_batch batch = {.seq = seq, .n = SEQS, .tokens = SEQS * LENGTH};
    struct loss_ce loss;
    loss_ce_init(&loss, 0);
    size_t vocab = engine_info(b->engine)->vocab;
    struct rng rng;
    rng_init(&rng, 1, 0);
    memset(target, 1, sizeof target);
    for (size_t i = 0; i < NUM_COUNT(ids); i++)
        ids[i] = (int32_t)(rng_u32(&rng) % vocab);
    for (size_t i = 0; i < SEQS; i++)
        seq[i] =
            (struct data_seq){.ids = ids + i * LENGTH, .target = target, .n = LENGTH, .weight = 1};
    for (size_t i = 0; i <= DATA_SHARDS; i++)
        batch.shard[i] = SEQS * i / DATA_SHARDS;
    struct train_loss l = {.pass = loss_ce_pass, .arg = &loss};
    int rc = 0;
    for (int i = -2; !rc && i < b->steps; i++) { /* two to warm up */
        double t = clock_seconds();
        loss_ce_aim(&loss, &batch);
        rc = trainer_step(b->trainer, &batch, &l, 3e-4, &b->result, e);
        b->t[i < 0 ? 0 : i] = clock_seconds() - t;
    }
    loss_ce_release(&loss);
    return rc;
}

static int bench(struct bench *b, struct err *e)
{
    struct engine_opts o = {
        .threads = b->threads, .isa = b->isa, .ctx = 512, .kv_type = QUANT_F32, .train = true};
    o.bf16 = b->bf16;
    o.act = b->bf16 ? ENGINE_ACT_INT8 : ENGINE_ACT_F32;
    int rc = comm_open(&b->comm, e);
    if (!rc)
        rc = engine_open(&b->engine, b->model, &o, e);
    if (rc)
        return rc;
    struct trainer_opts t = {.engine = b->engine, .comm = b->comm, .longest = LENGTH};
    t.optim = (struct optim_opts){
        .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.1, .max_grad_norm = 1.0};
    rc = trainer_new(&b->trainer, &t, e);
    if (rc)
        return rc;
    struct engine_parts parts;
    engine_parts(b->engine, &parts);
    double top = peak(parts.team, b->isa);
    rc = run(b, e);
    if (rc)
        return rc;
    double after = peak(parts.team, b->isa), tokens = SEQS * LENGTH;
    qsort(b->t, (size_t)b->steps, sizeof *b->t, by_value);
    double best = b->t[0], median = b->t[b->steps / 2];
    size_t n = trainer_params(b->trainer)->total;
    printf("{\"threads\": %d, \"params\": %zu, \"best_ms\": %.1f, \"median_ms\": %.1f, "
           "\"best_toks\": %.0f, \"median_toks\": %.0f, \"gflops\": %.1f, \"peak\": [%.0f, %.0f], "
           "\"loss\": %.3f}\n",
           team_threads(parts.team), n, best * 1e3, median * 1e3, tokens / best, tokens / median,
           6 * (double)n * tokens / best / 1e9, top, after,
           b->result.stat[CE_LOSS] / b->result.stat[CE_TOKENS]);
    return 0;
}

int main(int argc, char **argv)
{
    static struct bench b = {.steps = 10};
    struct err e = {0};
    b.isa = cpu_best();
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--threads") && i + 1 < argc)
            b.threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--steps") && i + 1 < argc)
            b.steps = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--bf16"))
            b.bf16 = true;
        else if (!strcmp(argv[i], "--isa") && i + 1 < argc &&
                 cpu_isa_parse(&b.isa, argv[i + 1], &e))
            break;
        else if (!strcmp(argv[i], "--isa") && i + 1 < argc)
            i++;
        else
            b.model = argv[i];
    if (!b.model || b.steps < 1 || b.steps > STEPS_MAX || e.text[0]) {
        fprintf(stderr,
                "usage: bench-train-step MODEL [--threads N] [--steps N] [--isa NAME] [--bf16]\n");
        return 2;
    }
    int rc = bench(&b, &e);
    if (rc)
        fprintf(stderr, "%s\n", e.text);
    trainer_free(b.trainer);
    engine_free(b.engine);
    comm_close(b.comm, rc != 0);
    return rc != 0;
}
