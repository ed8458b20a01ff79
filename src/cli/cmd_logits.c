/* logits: what the model computes for given tokens, for tests and research. */
#include "base/num.h"
#include "cli/command.h"
#include "cli/lines.h"
#include "cli/locate.h"
#include "cli/options.h"
#include "cli/output.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct logits_options {
    const char *ids, *out;
    int last, mtp;
    int64_t chunk;
    struct engine_options engine;
};

#define AT(field) offsetof(struct logits_options, field)
// clang-format off
static const struct opt logits_rows[] = {
    {.name = "ids", .kind = OPT_STRING, .arg = "1,2,3", .offset = AT(ids), .help = "the token ids"},
    {.name = "out", .brief = 'o', .kind = OPT_STRING, .arg = "FILE", .offset = AT(out),
     .help = "where the logits go: float32, little-endian, a row per token, no header"},
    {.name = "last", .kind = OPT_FLAG, .offset = AT(last), .help = "only the row of the last token"},
    {.name = "chunk", .kind = OPT_INT, .arg = "N", .min = 1, .max = INT32_MAX, .offset = AT(chunk),
     .help = "feed N tokens at a time; the result is the same for any"},
    {.name = "mtp", .kind = OPT_FLAG, .offset = AT(mtp),
     .help = "the logits of the multi-token prediction layer, for models with one"},
};
// clang-format on
#undef AT

static const struct opt_group logits_groups[] = {
    {"Options", logits_rows, NUM_COUNT(logits_rows), 0},
    {"Engine", options_engine, OPTIONS_ENGINE_N, offsetof(struct logits_options, engine)},
};

static int logits_ids(struct ids *ids, const char *s, struct err *e)
{
    for (; s;) {
        char *end;
        errno = 0;
        long long v = strtoll(s, &end, 10);
        if (end == s || errno || v < 0 || v > INT32_MAX || (*end && *end != ','))
            return err_set(e, ERR_USAGE,
                           "--ids: token ids are whole numbers, as in 1,2,3; not \"%.40s\"", s);
        int rc = ids_push(ids, (int32_t)v, e);
        if (rc || !*end)
            return rc;
        s = end + 1;
    }
    return 0;
}

static int logits_compute(struct session *s, const struct ids *ids, const struct logits_options *o,
                          size_t vocab, struct output *out, struct err *e)
{
    size_t row, bytes, chunk = o->chunk == OPT_UNSET ? ids->n : (size_t)o->chunk;
    int rc = 0;
    if (!num_mul(&row, vocab, sizeof(float)))
        return err_set(e, ERR_LIMIT, "the vocabulary is too large");
    if (o->last) {
        for (size_t i = 0; !rc && i < ids->n; i += chunk)
            rc = session_append(s, ids->v + i, num_min(chunk, ids->n - i), e);
        return rc ? rc : output_write(out, session_logits(s), row, e);
    }
    /* Rows are written as they come, so that memory does not grow with the text. */
    chunk = num_min(chunk, num_max(1, ((size_t)64 << 20) / row));
    if (!num_mul(&bytes, row, num_min(chunk, ids->n)))
        return err_set(e, ERR_LIMIT, "too many logits");
    float *y = malloc(bytes);
    if (!y)
        return err_nomem(e, bytes, "the logits");
    for (size_t i = 0; !rc && i < ids->n; i += chunk) {
        size_t n = num_min(chunk, ids->n - i);
        rc = session_append_all(s, ids->v + i, n, y, e);
        if (!rc)
            rc = output_write(out, y, n * row, e);
    }
    free(y);
    return rc;
}

/* Of the prediction layer: a row less than tokens. */
static int logits_mtp(struct session *s, const struct ids *ids, const struct logits_options *o,
                      size_t vocab, struct output *out, struct err *e)
{
    size_t row, bytes, chunk = o->chunk == OPT_UNSET ? ids->n : (size_t)o->chunk;
    if (!num_mul(&row, vocab, sizeof(float)) || !num_mul(&bytes, row, ids->n))
        return err_set(e, ERR_LIMIT, "too many logits");
    float *y = malloc(bytes);
    if (!y)
        return err_nomem(e, bytes, "the logits");
    int rc = session_mtp_all(s, ids->v, ids->n, chunk, y, e);
    size_t first = o->last ? ids->n - 2 : 0;
    if (!rc)
        rc = output_write(out, y + first * vocab, (ids->n - 1 - first) * row, e);
    free(y);
    return rc;
}

static int logits_run(struct cli *c, const void *opts, struct err *e)
{
    const struct logits_options *o = opts;
    struct log log = {stderr, LOG_WARN};
    char path[LOCATE_MAX];
    struct engine_request r = {.path = path,
                               .o = &o->engine,
                               .log = &log,
                               .kv_type = QUANT_F32,
                               .act = ENGINE_ACT_F32,
                               .mtp = o->mtp};
    struct engine *g = NULL;
    struct session *s = NULL;
    struct output out = {.file = {.fd = -1}, .fd = -1};
    struct ids ids;
    ids_init(&ids, (size_t)1 << 24);
    int rc = 0;
    if (!o->ids || !o->out)
        rc = err_set(e, ERR_USAGE,
                     "logits: --%s is needed: ponder logits MODEL --ids 1,2,3 --out FILE",
                     o->ids ? "out" : "ids");
    if (!rc)
        rc = logits_ids(&ids, o->ids, e);
    if (!rc)
        rc = locate_model(c->args[0], path, e);
    r.ctx = ids.n;
    if (!rc)
        rc = options_open(&g, &r, e);
    if (!rc && o->mtp && ids.n < 2)
        rc = err_set(e, ERR_USAGE, "--mtp predicts from two tokens on: give more --ids");
    for (size_t i = 0; !rc && i < ids.n; i++)
        if ((size_t)ids.v[i] >= engine_info(g)->vocab)
            rc = err_set(e, ERR_USAGE, "--ids: token id %d is outside the vocabulary (0 to %zu)",
                         ids.v[i], engine_info(g)->vocab - 1);
    if (!rc)
        rc = session_new(&s, g, e);
    if (!rc)
        rc = output_open(&out, o->out, e);
    if (!rc)
        rc = (o->mtp ? logits_mtp : logits_compute)(s, &ids, o, engine_info(g)->vocab, &out, e);
    rc = output_close(&out, rc, e);
    if (!rc)
        printf("{\"rows\": %zu, \"vocab\": %zu}\n", o->last ? 1 : ids.n - (o->mtp ? 1 : 0),
               engine_info(g)->vocab);
    session_free(s);
    engine_free(g);
    buf_release(&r.template_text);
    ids_release(&ids);
    return rc;
}

const struct command cmd_logits = {
    .name = "logits",
    .args = "MODEL --ids 1,2,3 --out FILE",
    .summary = "compute the logits of given tokens",
    .about =
        "Writes the logits of every token (or of the last one) to a file and prints how many "
        "rows and columns that is. Keys and values are kept as float32 here, and products with "
        "quantized weights read float32 activations, unless --kv-type and --activations say "
        "otherwise, so that the result is as exact as it can be.",
    .examples = "ponder logits model.gguf --ids 1,2,3 --out logits.f32\n",
    .spec = {logits_groups, NUM_COUNT(logits_groups)},
    .opts_size = sizeof(struct logits_options),
    .min_args = 1,
    .max_args = 1,
    .run = logits_run,
};
