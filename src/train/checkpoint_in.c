/* Loading checkpoints. See checkpoint.h. */
#include "base/num.h"
#include "format/jsonin.h"
#include "format/source.h"
#include "train/checkpoint_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { STATE_MAX = 64 << 20 };

struct checkpoint_in {
    char dir[CHECKPOINT_PATH];
    int64_t step;
    double metric;
    json_t *state;
    struct checkpoint_in_part {
        char name[80];
        struct source *source;
    } parts[CHECKPOINT_PARTS_MAX];
    size_t n;
};

static int read_json(json_t **out, const char *dir, const char *name, struct err *e)
{
    static const struct jsonin_limits limits = {64, 1 << 20, 1 << 22};
    char path[CHECKPOINT_PATH];
    struct buf b;
    *out = NULL;
    buf_init(&b, STATE_MAX);
    int rc = checkpoint_inside(path, dir, name, e);
    if (!rc)
        rc = file_read(&b, path, e);
    if (!rc && (rc = jsonin_object(out, b.data, b.len, &limits, false, e)))
        err_ctx(e, "%s", name);
    buf_release(&b);
    return rc;
}

/* A row of the manifest: its name is one of a file in the folder, which has that many bytes. */
static int check_file(const char *dir, const json_t *row, struct err *e)
{
    char path[CHECKPOINT_PATH];
    struct stat st;
    const char *name = json_string_value(json_object_get(row, "name"));
    const char *sum = json_string_value(json_object_get(row, "xxh64"));
    const json_t *bytes = json_object_get(row, "bytes");
    if (!name || !sum || strlen(sum) != 16 || !json_is_integer(bytes) || strchr(name, '/') ||
        name[0] == '.' || strlen(name) >= 80)
        return err_set(e, ERR_FORMAT, "manifest.json: a file without name, bytes or xxh64");
    int rc = checkpoint_inside(path, dir, name, e);
    if (rc)
        return rc;
    if (stat(path, &st) != 0)
        return err_set(e, ERR_FORMAT, "%s is missing", name);
    if ((json_int_t)st.st_size != json_integer_value(bytes))
        return err_set(e, ERR_FORMAT, "%s has %lld bytes and had %lld when it was written", name,
                       (long long)st.st_size, (long long)json_integer_value(bytes));
    return 0;
}

int checkpoint_manifest(json_t **out, const char *run, int64_t step, double *metric, struct err *e)
{
    char dir[CHECKPOINT_PATH];
    json_t *m = NULL;
    int rc = 0;
    *out = NULL;
    *metric = NAN;
    if (!checkpoint_path(dir, sizeof dir, run, step))
        return err_set(e, ERR_LIMIT, "%.200s: the path is too long", run);
    rc = read_json(&m, dir, "manifest.json", e);
    if (rc)
        return rc;
    const json_t *files = json_object_get(m, "files"), *version = json_object_get(m, "version");
    if (json_integer_value(version) != 1)
        rc = err_set(e, ERR_UNSUPPORTED, "manifest.json: is of version %lld; this ponder reads 1",
                     (long long)json_integer_value(version));
    else if (json_integer_value(json_object_get(m, "step")) != step)
        rc = err_set(e, ERR_FORMAT, "manifest.json: is that of another step");
    else if (!json_is_array(files) || json_array_size(files) > CHECKPOINT_PARTS_MAX + 1)
        rc = err_set(e, ERR_FORMAT, "manifest.json: has no list of files");
    for (size_t i = 0; i < json_array_size(files) && !rc; i++)
        rc = check_file(dir, json_array_get(files, i), e);
    const json_t *v = json_object_get(m, "metric");
    if (json_is_number(v))
        *metric = json_number_value(v);
    if (rc)
        json_decref(m);
    else
        *out = m;
    return rc;
}

/* The bytes of a file are those that were written. */
static int verify(const char *dir, const json_t *row, struct err *e)
{
    const char *name = json_string_value(json_object_get(row, "name"));
    char path[CHECKPOINT_PATH], sum[17];
    struct file_map m;
    int rc = checkpoint_inside(path, dir, name, e);
    if (!rc)
        rc = file_map(&m, path, e);
    if (rc)
        return rc;
    checkpoint_sum(sum, &m);
    file_map_release(&m);
    if (strcmp(sum, json_string_value(json_object_get(row, "xxh64"))) != 0)
        return err_set(e, ERR_FORMAT, "%s: its bytes are not those that were written", name);
    return 0;
}

static int open_part(struct checkpoint_in *c, const char *name, struct err *e)
{
    static const char ending[] = ".safetensors";
    size_t n = strlen(name), end = sizeof ending - 1;
    char path[CHECKPOINT_PATH];
    if (n <= end || strcmp(name + n - end, ending) != 0)
        return 0;
    struct checkpoint_in_part *p = &c->parts[c->n];
    snprintf(p->name, sizeof p->name, "%.*s", (int)(n - end), name);
    int rc = checkpoint_inside(path, c->dir, name, e);
    if (!rc)
        rc = source_open(&p->source, path, e);
    if (!rc)
        c->n++;
    return rc;
}

static int open_step(struct checkpoint_in **out, const char *run, int64_t step, struct err *e)
{
    json_t *m = NULL;
    struct checkpoint_in *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c)
        return err_nomem(e, sizeof *c, "a checkpoint");
    c->step = step;
    if (!checkpoint_path(c->dir, sizeof c->dir, run, step)) {
        checkpoint_free(c);
        return err_set(e, ERR_LIMIT, "%.200s: the path is too long", run);
    }
    int rc = checkpoint_manifest(&m, run, step, &c->metric, e);
    const json_t *files = json_object_get(m, "files");
    for (size_t i = 0; i < json_array_size(files) && !rc; i++)
        rc = verify(c->dir, json_array_get(files, i), e);
    if (!rc)
        rc = read_json(&c->state, c->dir, "state.json", e);
    for (size_t i = 0; i < json_array_size(files) && !rc && c->n < CHECKPOINT_PARTS_MAX; i++)
        rc = open_part(c, json_string_value(json_object_get(json_array_get(files, i), "name")), e);
    json_decref(m);
    if (rc) {
        checkpoint_free(c);
        return err_ctx(e, "step-%" PRId64, step);
    }
    *out = c;
    return 0;
}

int checkpoint_open(struct checkpoint_in **out, const char *run, int64_t step, struct buf *skipped,
                    struct err *e)
{
    struct checkpoint_info *v;
    size_t n;
    *out = NULL;
    if (step >= 0) {
        int rc = open_step(out, run, step, e);
        return rc ? err_ctx(e, "%s/checkpoints", run) : 0;
    }
    int rc = checkpoint_list(run, &v, &n, e);
    for (size_t i = n; i-- > 0 && !rc && !*out;) {
        struct err why;
        int bad = open_step(out, run, v[i].step, &why);
        if (bad == ERR_NOMEM) /* nothing is wrong with the checkpoint */
            rc = err_set(e, bad, "%s/checkpoints: %.400s", run, why.text);
        else if (bad && skipped)
            rc = buf_printf(skipped, e, "%s\n", why.text);
    }
    free(v);
    if (!rc && !*out)
        rc = err_set(e, ERR_NOTFOUND, "%s: has no checkpoint that can be used", run);
    return rc;
}

void checkpoint_free(struct checkpoint_in *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n; i++)
        source_free(c->parts[i].source);
    json_decref(c->state);
    free(c);
}

int64_t checkpoint_step(const struct checkpoint_in *c)
{
    return c->step;
}

const json_t *checkpoint_state(const struct checkpoint_in *c)
{
    return c->state;
}

double checkpoint_metric(const struct checkpoint_in *c)
{
    return c->metric;
}

static struct source *part_of(const struct checkpoint_in *c, const char *part)
{
    for (size_t i = 0; i < c->n; i++)
        if (!strcmp(c->parts[i].name, part))
            return c->parts[i].source;
    return NULL;
}

bool checkpoint_has_part(const struct checkpoint_in *c, const char *part)
{
    return part_of(c, part) != NULL;
}

/* "F32 [4, 8]" */
static void shape_text(char out[96], const char *dtype, int dims, const uint64_t *shape)
{
    int at = snprintf(out, 96, "%.8s [", dtype);
    for (int i = 0; i < dims && at < 80; i++)
        at += snprintf(out + at, 96 - (size_t)at, "%s%" PRIu64, i ? ", " : "", shape[i]);
    snprintf(out + at, 96 - (size_t)at, "]");
}

int checkpoint_data(struct checkpoint_in *c, const char *part, const struct checkpoint_tensor *t,
                    const void **data, size_t *bytes, struct err *e)
{
    char has[96], wants[96];
    const struct source *s = part_of(c, part);
    const struct source_tensor *x = s ? source_tensor(s, t->name) : NULL;
    *data = NULL;
    *bytes = 0;
    if (!s)
        return err_set(e, ERR_NOTFOUND, "%s: has no %s.safetensors", c->dir, part);
    if (!x)
        return err_set(e, ERR_NOTFOUND, "%s/%s.safetensors: has no tensor %s", c->dir, part,
                       t->name);
    bool same = x->dims == t->dims && !strcmp(x->dtype, t->dtype);
    for (int i = 0; same && i < t->dims; i++)
        same = x->shape[i] == t->shape[i];
    if (!same) {
        shape_text(has, x->dtype, x->dims, x->shape);
        shape_text(wants, t->dtype, t->dims, t->shape);
        return err_set(e, ERR_FORMAT, "%s/%s.safetensors: tensor %s is %s and has to be %s", c->dir,
                       part, t->name, has, wants);
    }
    *data = x->data;
    *bytes = x->bytes;
    return 0;
}

void checkpoint_drop(struct checkpoint_in *c, const char *part)
{
    const struct source *s = part_of(c, part);
    for (size_t i = 0; s && i < source_tensor_count(s); i++)
        source_tensor_drop(s, source_tensor_at(s, i));
}
