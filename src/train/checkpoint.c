/* Saving checkpoints, and which there are; loading is in checkpoint_in.c. See checkpoint.h. */
#include "train/checkpoint.h"

#include "base/file.h"
#include "base/folder.h"
#include "base/hash.h"
#include "base/num.h"
#include "base/progress.h"
#include "format/safetensors.h"
#include "train/checkpoint_impl.h"
#include "train/steplog.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const char step_prefix[] = "step-";

int checkpoint_inside(char out[CHECKPOINT_PATH], const char *dir, const char *name, struct err *e)
{
    if (!file_join(out, CHECKPOINT_PATH, dir, name))
        return err_set(e, ERR_LIMIT, "%.200s: the path is too long", dir);
    return 0;
}

bool checkpoint_path(char *out, size_t cap, const char *run, int64_t step)
{
    char name[64];
    snprintf(name, sizeof name, "checkpoints/%s%" PRId64, step_prefix, step);
    return file_join(out, cap, run, name);
}

/* ---- pieces of a checkpoint that is being written -------------------------------------------- */

static int tensor_bytes(const struct checkpoint_tensor *t, uint64_t *bytes, struct err *e)
{
    const char *known;
    size_t n = safetensors_bits(t->dtype, &known);
    if (!n || t->dims < 0 || t->dims > CHECKPOINT_DIMS)
        return err_set(e, ERR_USAGE, "tensor %s: no such dtype, or more than %d dimensions",
                       t->name, CHECKPOINT_DIMS);
    for (int i = 0; i < t->dims; i++)
        if (!num_mul(&n, n, (size_t)t->shape[i]))
            return err_set(e, ERR_USAGE, "tensor %s: its size overflows", t->name);
    *bytes = n / 8;
    return 0;
}

static int write_tensor(struct safetensors_writer *w, const struct checkpoint_tensor *t,
                        uint8_t *piece, struct err *e)
{
    uint64_t bytes = 0;
    int rc = tensor_bytes(t, &bytes, e);
    if (!rc && t->data)
        return safetensors_write_data(w, t->data, (size_t)bytes, e);
    for (uint64_t at = 0; at < bytes && !rc;) {
        size_t n = bytes - at < CHECKPOINT_PIECE ? (size_t)(bytes - at) : CHECKPOINT_PIECE;
        rc = t->read(t->arg, t, at, piece, n, e);
        if (!rc)
            rc = safetensors_write_data(w, piece, n, e);
        at += n;
    }
    return rc;
}

static int write_part(const char *dir, const struct checkpoint_part *p, uint8_t *piece,
                      struct err *e)
{
    char path[CHECKPOINT_PATH], name[256];
    struct safetensors_writer *w = NULL;
    snprintf(name, sizeof name, "%s.safetensors", p->name);
    int rc = checkpoint_inside(path, dir, name, e);
    if (!rc)
        rc = safetensors_writer_new(&w, path, 0, e);
    for (size_t i = 0; i < p->n && !rc; i++) {
        const struct checkpoint_tensor *t = &p->tensors[i];
        rc = safetensors_add_tensor(w, t->name, t->dtype, t->dims, t->shape, e);
    }
    for (size_t i = 0; i < p->n && !rc; i++)
        rc = write_tensor(w, &p->tensors[i], piece, e);
    if (!rc)
        rc = safetensors_writer_commit(w, e);
    safetensors_writer_free(w);
    return rc;
}

static int write_json(const char *dir, const char *name, const json_t *v, struct err *e)
{
    char path[CHECKPOINT_PATH];
    int rc = checkpoint_inside(path, dir, name, e);
    return rc ? rc : steplog_save(path, v, e);
}

/* Adds what a file of the folder has to the manifest. */
static int describe_file(json_t *files, const char *dir, const char *name, struct err *e)
{
    char path[CHECKPOINT_PATH], sum[17];
    struct file_map m;
    int rc = checkpoint_inside(path, dir, name, e);
    if (!rc)
        rc = file_map(&m, path, e);
    if (rc)
        return rc;
    checkpoint_sum(sum, &m);
    json_t *o = json_pack("{ss sI ss}", "name", name, "bytes", (json_int_t)m.size, "xxh64", sum);
    if (!o || json_array_append_new(files, o))
        rc = err_nomem(e, 0, "the manifest");
    file_map_release(&m);
    return rc;
}

void checkpoint_sum(char out[17], const struct file_map *m)
{
    snprintf(out, 17, "%016" PRIx64,
             hash_xxh64(m->data ? m->data : (const uint8_t *)"", m->size, 0));
}

static int write_manifest(const char *dir, const struct checkpoint *c, struct err *e)
{
    char name[256];
    json_t *files = json_array();
    json_t *m = json_pack("{sssisIso*sO}", "format", "ponder checkpoint", "version", 1, "step",
                          (json_int_t)c->step, "metric",
                          isfinite(c->metric) ? json_real(c->metric) : NULL, "files", files);
    int rc = m ? 0 : err_nomem(e, 0, "the manifest");
    if (!rc)
        rc = describe_file(files, dir, "state.json", e);
    for (size_t i = 0; i < c->n_parts && !rc; i++) {
        snprintf(name, sizeof name, "%s.safetensors", c->parts[i].name);
        rc = describe_file(files, dir, name, e);
    }
    if (!rc)
        rc = write_json(dir, "manifest.json", m, e);
    json_decref(files);
    json_decref(m);
    return rc;
}

static int write_all(const char *dir, const struct checkpoint *c, struct err *e)
{
    uint8_t *piece = aligned_alloc(64, CHECKPOINT_PIECE);
    int rc = piece ? 0 : err_nomem(e, CHECKPOINT_PIECE, "writing a checkpoint");
    for (size_t i = 0; i < c->n_parts && !rc; i++)
        rc = write_part(dir, &c->parts[i], piece, e);
    if (!rc)
        rc = write_json(dir, "state.json", c->state, e);
    if (!rc)
        rc = write_manifest(dir, c, e);
    free(piece);
    return rc;
}

/* ---- the folder of checkpoints --------------------------------------------------------------- */

/* Removes what was being written or removed when a process was killed. */
static int tidy(const char *folder, struct err *e)
{
    char path[CHECKPOINT_PATH];
    DIR *d = opendir(folder);
    int rc = 0;
    if (!d)
        return errno == ENOENT ? 0 : err_errno(e, "%s", folder);
    for (struct dirent *x; !rc && (x = readdir(d));)
        if (x->d_name[0] == '.' && !strncmp(x->d_name + 1, step_prefix, sizeof step_prefix - 1)) {
            rc = checkpoint_inside(path, folder, x->d_name, e);
            if (!rc)
                rc = folder_remove(path, e);
        }
    closedir(d);
    return rc;
}

/* Under another name first: a folder called step-N is whole at any time. */
static int remove_step(const char *folder, int64_t step, struct err *e)
{
    char name[64], from[CHECKPOINT_PATH], to[CHECKPOINT_PATH];
    snprintf(name, sizeof name, ".%s%" PRId64 ".old", step_prefix, step);
    int rc = checkpoint_inside(from, folder, name + 1, e);
    if (rc)
        return rc;
    from[strlen(from) - 4] = '\0';
    rc = checkpoint_inside(to, folder, name, e);
    if (!rc)
        rc = folder_remove(to, e);
    if (!rc && rename(from, to) != 0)
        return errno == ENOENT ? 0 : err_errno(e, "%s: cannot be removed", from);
    return rc ? rc : folder_remove(to, e);
}

/* A full disk is better told before than in the middle. */
static int check_space(const char *folder, const struct checkpoint *c, struct err *e)
{
    uint64_t need = 1 << 20, one = 0;
    struct statvfs s;
    for (size_t p = 0; p < c->n_parts; p++)
        for (size_t i = 0; i < c->parts[p].n; i++) {
            int rc = tensor_bytes(&c->parts[p].tensors[i], &one, e);
            if (rc)
                return rc;
            need += one;
        }
    if (statvfs(folder, &s) != 0)
        return 0; /* writing will tell */
    uint64_t have = (uint64_t)s.f_bavail * s.f_frsize;
    if (have >= need)
        return 0;
    char a[32], b[32];
    return err_set(e, ERR_IO, "%s are needed and %s are free there; free some space and resume",
                   progress_bytes(a, sizeof a, (double)need),
                   progress_bytes(b, sizeof b, (double)have));
}

static int newest(const char *run, int64_t *step)
{
    struct checkpoint_info *v;
    struct err ignored;
    size_t n;
    *step = -1;
    if (checkpoint_list(run, &v, &n, &ignored))
        return 0;
    for (size_t i = 0; i < n; i++)
        if (v[i].sound)
            *step = v[i].step;
    free(v);
    return *step >= 0;
}

static int let_go(const char *run, const char *folder, const struct checkpoint_keep *keep,
                  struct err *e)
{
    struct checkpoint_info *v;
    size_t n, sound = 0, seen = 0;
    int64_t best = -1;
    struct err none;
    int rc = checkpoint_list(run, &v, &n, e);
    if (rc)
        return rc;
    if (keep->best && checkpoint_best(run, keep->greater, &best, &none))
        best = -1;
    for (size_t i = 0; i < n; i++)
        sound += v[i].sound;
    for (size_t i = 0; i < n && !rc; i++) {
        if (!v[i].sound)
            continue;
        if (sound - seen++ > keep->last && v[i].step != best)
            rc = remove_step(folder, v[i].step, e);
    }
    free(v);
    return rc;
}

/* Errors of saving end with what is still there. */
static int failed(const char *run, int64_t step, int rc, struct err *e)
{
    char text[ERR_TEXT_MAX];
    int64_t last;
    if (!e)
        return rc;
    snprintf(text, sizeof text, "%s", e->text);
    if (newest(run, &last))
        return err_set(e, rc, "checkpoint of step %" PRId64 ": %.400s (step-%" PRId64 " is kept)",
                       step, text, last);
    return err_set(e, rc, "checkpoint of step %" PRId64 ": %.440s", step, text);
}

static int check(const struct checkpoint *c, struct err *e)
{
    if (c->step < 0 || !json_is_object(c->state) || c->n_parts > CHECKPOINT_PARTS_MAX)
        return err_set(e, ERR_USAGE,
                       "a step below 0, a state that is no object, or too many parts");
    for (size_t p = 0; p < c->n_parts; p++)
        if (!*c->parts[p].name || strchr(c->parts[p].name, '/') || c->parts[p].name[0] == '.' ||
            strlen(c->parts[p].name) > 64)
            return err_set(e, ERR_USAGE, "\"%.80s\" is no name for a part", c->parts[p].name);
    return 0;
}

int checkpoint_save(const char *run, const struct checkpoint *c, const struct checkpoint_keep *keep,
                    struct err *e)
{
    char folder[CHECKPOINT_PATH], part[CHECKPOINT_PATH], final[CHECKPOINT_PATH], name[64];
    bool made = false;
    int rc = check(c, e);
    if (!rc)
        rc = checkpoint_inside(folder, run, "checkpoints", e);
    if (!rc && file_kind(folder) == FILE_NONE && !(rc = folder_make(folder, e)))
        rc = folder_sync(run, e);
    if (!rc)
        rc = tidy(folder, e);
    if (!rc)
        rc = check_space(folder, c, e);
    snprintf(name, sizeof name, ".%s%" PRId64 ".new", step_prefix, c->step);
    if (!rc)
        rc = checkpoint_inside(part, folder, name, e);
    if (!rc && !checkpoint_path(final, sizeof final, run, c->step))
        rc = err_set(e, ERR_LIMIT, "the path is too long");
    if (!rc && !(made = mkdir(part, 0777) == 0))
        rc = err_errno(e, "%s: cannot be made", part);
    if (!rc)
        rc = write_all(part, c, e);
    if (!rc)
        rc = folder_replace(part, final, e);
    if (!rc)
        rc = folder_sync(folder, e);
    if (!rc && keep && keep->last)
        rc = let_go(run, folder, keep, e);
    if (rc && made) {
        struct err ignored;
        folder_remove(part, &ignored);
    }
    return rc ? failed(run, c->step, rc, e) : 0;
}

/* ---- what there is --------------------------------------------------------------------------- */

static int by_step(const void *a, const void *b)
{
    int64_t x = ((const struct checkpoint_info *)a)->step;
    int64_t y = ((const struct checkpoint_info *)b)->step;
    return x < y ? -1 : x > y;
}

/* N of "step-N"; -1 for other names. */
static int64_t step_of(const char *name)
{
    size_t n = sizeof step_prefix - 1;
    int64_t v = 0;
    if (strncmp(name, step_prefix, n) != 0 || !name[n] || (name[n] == '0' && name[n + 1]))
        return -1;
    for (const char *p = name + n; *p; p++)
        if (*p < '0' || *p > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, *p - '0', &v))
            return -1;
    return v;
}

int checkpoint_list(const char *run, struct checkpoint_info **out, size_t *count, struct err *e)
{
    char folder[CHECKPOINT_PATH];
    struct checkpoint_info *v = NULL;
    size_t n = 0, cap = 0;
    *out = NULL;
    *count = 0;
    int rc = checkpoint_inside(folder, run, "checkpoints", e);
    DIR *d = rc ? NULL : opendir(folder);
    if (!d)
        return rc ? rc : errno == ENOENT ? 0 : err_errno(e, "%s", folder);
    for (struct dirent *x; !rc && (x = readdir(d));) {
        int64_t step = step_of(x->d_name);
        if (step < 0)
            continue;
        if (n == cap) {
            size_t more = cap ? 2 * cap : 16;
            struct checkpoint_info *p = realloc(v, more * sizeof *p);
            if (!p) {
                rc = err_nomem(e, more * sizeof *p, "the list of checkpoints");
                break;
            }
            v = p;
            cap = more;
        }
        v[n] = (struct checkpoint_info){.step = step, .metric = NAN};
        struct err ignored;
        json_t *manifest;
        if (!checkpoint_manifest(&manifest, run, step, &v[n].metric, &ignored)) {
            v[n].sound = true;
            json_decref(manifest);
        }
        n++;
    }
    closedir(d);
    if (rc) {
        free(v);
        return rc;
    }
    if (n)
        qsort(v, n, sizeof *v, by_step);
    *out = v;
    *count = n;
    return 0;
}

int checkpoint_best(const char *run, bool greater, int64_t *step, struct err *e)
{
    struct checkpoint_info *v;
    size_t n;
    double best = NAN;
    int rc = checkpoint_list(run, &v, &n, e);
    *step = -1;
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++)
        if (v[i].sound && !isnan(v[i].metric) &&
            (isnan(best) || (greater ? v[i].metric > best : v[i].metric < best))) {
            best = v[i].metric;
            *step = v[i].step;
        }
    free(v);
    return *step >= 0 ? 0 : err_set(e, ERR_NOTFOUND, "%s: no checkpoint has a metric", run);
}

int checkpoint_remove_all(const char *run, struct err *e)
{
    char folder[CHECKPOINT_PATH];
    struct checkpoint_info *v;
    size_t n;
    int rc = checkpoint_list(run, &v, &n, e);
    if (!rc)
        rc = checkpoint_inside(folder, run, "checkpoints", e);
    for (size_t i = 0; i < n && !rc; i++)
        rc = remove_step(folder, v[i].step, e);
    free(v);
    if (!rc)
        rc = tidy(folder, e);
    return rc ? rc : folder_remove(folder, e);
}
