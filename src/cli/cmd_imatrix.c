/* imatrix: how large the inputs of each matrix are over a text, for quantization. */
#include "base/clock.h"
#include "base/num.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/locate.h"
#include "cli/options.h"
#include "cli/text_ids.h"
#include "eval/imatrix_run.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { IMATRIX_CTX = 512, IMATRIX_WANT = 64, IMATRIX_IDS = 1 << 28 };

struct imatrix_options {
    int64_t threads, ctx, chunks, from_chunk, save_every;
    const char *out;
    struct opt_list in;
    int head;
    struct engine_options engine;
};

#define AT(field) offsetof(struct imatrix_options, field)
// clang-format off
static const struct opt imatrix_rows[] = {
    {.name = "out", .brief = 'o', .alias = "output-file", .kind = OPT_STRING, .arg = "FILE", .value = "imatrix.gguf", .offset = AT(out),
     .help = "where the importance matrix goes"},
    {.name = "in", .alias = "in-file", .kind = OPT_LIST, .arg = "FILE", .offset = AT(in),
     .help = "add to what this importance matrix has; may be repeated"},
    {.name = "ctx", .brief = 'c', .alias = "ctx-size", .kind = OPT_SIZE, .arg = "N", .min = 2, .max = 1 << 24, .value = "512", .offset = AT(ctx),
     .help = "tokens of a chunk"},
    {.name = "chunks", .kind = OPT_SIZE, .arg = "N", .min = 1, .max = 1 << 30, .shown = "all", .offset = AT(chunks),
     .help = "at most N chunks"},
    {.name = "from-chunk", .alias = "chunk", .kind = OPT_SIZE, .arg = "N", .min = 0, .max = 1 << 30, .value = "0", .offset = AT(from_chunk),
     .help = "leave out the first N chunks: to go on with --in where a run was stopped"},
    {.name = "save-every", .alias = "output-frequency", .kind = OPT_SIZE, .arg = "N", .min = 0, .max = 1 << 30, .value = "10", .offset = AT(save_every),
     .help = "write the file after every N chunks as well as at the end; 0 = at the end only"},
    {.name = "process-output", .alias = "head", .kind = OPT_FLAG, .offset = AT(head),
     .help = "also collect for the output head, which costs time and is rarely quantized hard"},
    {.name = "threads", .brief = 't', .kind = OPT_INT, .arg = "N", .min = 1, .max = 256, .shown = "one for each core that this process may use",
     .env = "PONDER_THREADS", .offset = AT(threads), .help = "compute threads; the result is the same for any number"},
};
// clang-format on
#undef AT

static const struct opt_group imatrix_groups[] = {
    {"Options", imatrix_rows, NUM_COUNT(imatrix_rows), 0},
    {"Engine", options_engine + OPTIONS_OWN_N, OPTIONS_ENGINE_N - OPTIONS_OWN_N,
     offsetof(struct imatrix_options, engine)},
};

struct imatrix_watch {
    struct cli *cli;
    const struct imatrix_options *o;
    struct insums m;
    struct progress bar;
    size_t done, total;
};

static int imatrix_step(void *arg, size_t done, size_t total, struct err *e)
{
    struct imatrix_watch *w = arg;
    size_t every = (size_t)w->o->save_every;
    w->bar.total = w->total = total;
    w->done = done;
    progress_update(&w->bar, done);
    if (done < total && interrupt_pending(w->cli->interrupt))
        return err_set(e, ERR_CANCELLED, "stopped");
    return every && done % every == 0 && done < total ? insums_write(&w->m, w->o->out, e) : 0;
}

/* Experts that the text never reached: their matrices have no weights for the quantizer. */
static size_t imatrix_idle(const struct insums *m)
{
    size_t idle = 0;
    for (size_t i = 0; i < m->n; i++)
        for (size_t k = 0; k < m->entries[i].mats; k++)
            idle += m->entries[i].counts[k] == 0;
    return idle;
}

static int imatrix_finish(struct imatrix_watch *w, const char *text, double seconds, int rc,
                          struct err *e)
{
    struct err lost;
    char t[32];
    bool stopped = rc == ERR_CANCELLED;
    if (rc && !stopped)
        return rc;
    int saved = insums_write(&w->m, w->o->out, stopped ? &lost : e);
    if (saved) {
        if (stopped)
            *e = lost;
        return saved;
    }
    size_t idle = imatrix_idle(&w->m);
    printf("wrote %s: %zu matrices, %" PRIu64 " chunk%s of %u tokens, %.1f s (%s tokens/s)\n",
           w->o->out, w->m.n, w->m.chunks, w->m.chunks == 1 ? "" : "s", w->m.chunk_size, seconds,
           term_group(t, sizeof t,
                      (unsigned long long)((double)w->done * w->m.chunk_size /
                                           (seconds > 0 ? seconds : 1))));
    if (idle)
        printf("%zu experts were never used: give a longer or more varied text\n", idle);
    if (stopped)
        fprintf(stderr,
                "ponder: stopped after %zu of %zu chunks; to go on: ponder imatrix %s %s "
                "--in %s --from-chunk %zu -o %s\n",
                w->done, w->total, w->cli->args[0], text, w->o->out,
                (size_t)w->o->from_chunk + w->done, w->o->out);
    return rc;
}

static int imatrix_command(struct cli *c, const void *opts, struct err *e)
{
    const struct imatrix_options *o = opts;
    struct log log = {stderr, LOG_WARN};
    char path[LOCATE_MAX];
    struct engine_options eo = o->engine;
    struct engine_request r = {.path = path, .o = &eo, .log = &log, .kv_type = QUANT_F16};
    struct imatrix_watch watch = {.cli = c, .o = o};
    struct engine *g = NULL;
    struct ids ids;
    ids_init(&ids, IMATRIX_IDS);
    insums_init(&watch.m);
    int rc = locate_model(c->args[0], path, e);
    for (size_t i = 0; i < o->in.n && !rc; i++)
        rc = insums_read(&watch.m, o->in.v[i], e);
    eo.threads = o->threads;
    eo.ctx = OPT_UNSET;
    r.ctx = (size_t)o->ctx;
    r.want = IMATRIX_WANT;
    if (!rc && eo.mla && !strcmp(eo.mla, "mixed"))
        rc = err_set(e, ERR_USAGE,
                     "--mla mixed: the expanded form does not show what goes into "
                     "each head's matrices; leave it out here");
    if (!rc)
        rc = options_open(&g, &r, e);
    if (!rc)
        rc = text_ids(&ids, g, c->args[1], e);
    if (!rc)
        rc = insums_dataset(&watch.m, c->args[1], strlen(c->args[1]), e);
    if (!rc) {
        struct imatrix_params p = {.ctx = (size_t)o->ctx,
                                   .skip = (size_t)o->from_chunk,
                                   .limit = o->chunks == OPT_UNSET ? 0 : (size_t)o->chunks,
                                   .ids = ids.v,
                                   .n = ids.n,
                                   .bos = text_bos(g),
                                   .head = o->head,
                                   .progress = imatrix_step,
                                   .arg = &watch};
        progress_init(&watch.bar, stderr, "collecting", PROGRESS_COUNT, 0);
        interrupt_guard(c->interrupt);
        double t0 = clock_seconds();
        rc = imatrix_run(&watch.m, g, &p, e);
        double seconds = clock_seconds() - t0;
        progress_finish(&watch.bar);
        rc = imatrix_finish(&watch, c->args[1], seconds, rc, e);
        interrupt_unguard(c->interrupt);
    }
    engine_free(g);
    insums_release(&watch.m);
    buf_release(&r.template_text);
    ids_release(&ids);
    return rc;
}

const struct command cmd_imatrix = {
    .name = "imatrix",
    .args = "MODEL TEXT",
    .summary = "measure what matters to a model's matrices",
    .about =
        "The model reads a text, and for every matrix the squares of its inputs are summed column "
        "by column: an error in a column whose inputs are large costs more. The file is GGUF in "
        "the form of llama.cpp's imatrix, with GGUF's names of tensors whatever files the model "
        "came from. TEXT is a file, or - for standard input; some 100 chunks of varied text are "
        "enough, mixtures of experts want more.\n\n"
        "Ctrl-C writes what was collected so far and says how to go on.",
    .examples = "ponder imatrix model-f16.gguf calibration.txt -o imatrix.gguf\n",
    .spec = {imatrix_groups, NUM_COUNT(imatrix_groups)},
    .opts_size = sizeof(struct imatrix_options),
    .min_args = 2,
    .max_args = 2,
    .run = imatrix_command,
};
