/*
 * GGUF files of a plan: one, or a split set as llama.cpp names and marks it. All shards get their
 * names at the end, when all of them are written.
 */
#include "base/file.h"
#include "base/num.h"
#include "convert/write.h"
#include "format/gguf.h"
#include "format/packed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OUT_PATH = 4096, OUT_FILES = 4096 };

struct gguf_out {
    struct convert_plan *p;
    struct gguf_writer **w;
};

static int out_name(char name[OUT_PATH], const char *path, int i, int n, struct err *e)
{
    size_t len = strlen(path);
    if (len >= 5 && strcmp(path + len - 5, ".gguf") == 0)
        len -= 5;
    int w = n == 1 ? snprintf(name, OUT_PATH, "%s", path)
                   : snprintf(name, OUT_PATH, "%.*s-%05d-of-%05d.gguf", (int)len, path, i + 1, n);
    return w < OUT_PATH ? 0 : err_set(e, ERR_USAGE, "%.80s…: the path is too long", path);
}

static int out_check(const struct convert_plan *p, const char *name, struct err *e)
{
    for (size_t i = 0; i < source_file_count(p->src); i++) {
        char *a = realpath(source_file_path(p->src, i), NULL), *b = realpath(name, NULL);
        bool same = a && b && strcmp(a, b) == 0;
        free(a);
        free(b);
        if (same)
            return err_set(e, ERR_USAGE, "%.300s: is the source itself; give another name", name);
    }
    if (!p->o.force && file_kind(name) != FILE_NONE)
        return err_set(e, ERR_USAGE,
                       "%.300s: is there already; give another name, or --force to replace it",
                       name);
    return 0;
}

/* What a split set needs; the other metadata is in the first file. */
static int out_split_keys(struct gguf_out *o, int i, struct err *e)
{
    struct gguf_writer *w = o->w[i];
    int rc = gguf_put_u16(w, "split.no", (uint16_t)i, e);
    if (!rc)
        rc = gguf_put_u16(w, "split.count", (uint16_t)o->p->files, e);
    return rc ? rc : gguf_put_i32(w, "split.tensors.count", (int32_t)o->p->n, e);
}

static int out_open(struct gguf_out *o, const char *path, struct err *e)
{
    char name[OUT_PATH];
    int rc = 0, n = o->p->files;
    for (int i = 0; !rc && i < n; i++) {
        rc = out_name(name, path, i, n, e);
        if (!rc)
            rc = out_check(o->p, name, e);
        if (!rc)
            rc = gguf_writer_new(&o->w[i], name, e);
        if (!rc && i == 0)
            rc = convert_gguf_meta(o->p, o->w[i], e);
        if (!rc && n > 1)
            rc = out_split_keys(o, i, e);
        if (!rc && o->p->o.packed)
            rc = gguf_put_u32(o->w[i], "general.alignment", PACKED_ALIGNMENT, e);
    }
    for (size_t i = 0; !rc && i < o->p->n; i++) {
        const struct convert_tensor *t = &o->p->tensors[i];
        rc = (t->packed ? gguf_add_packed : gguf_add_tensor)(o->w[t->file], t->name, t->type,
                                                             t->dims, t->shape, e);
    }
    return rc;
}

static int out_data(void *state, const struct convert_tensor *t, const void *p, size_t n,
                    struct err *e)
{
    struct gguf_out *o = state;
    return gguf_write_data(o->w[t->file], p, n, e);
}

/* All files get their names, or none keeps it. */
static int out_commit(struct gguf_out *o, const char *path, struct err *e)
{
    char name[OUT_PATH];
    int rc = 0, i = 0;
    for (; !rc && i < o->p->files; i++)
        rc = gguf_writer_commit(o->w[i], e);
    for (; rc && i > 0; i--)
        if (!out_name(name, path, i - 1, o->p->files, NULL))
            unlink(name);
    return rc;
}

int convert_write_gguf(struct convert_plan *p, const char *path, struct team *team,
                       convert_progress *progress, void *arg, struct err *e)
{
    struct gguf_out o = {.p = p};
    if (p->files > OUT_FILES)
        return err_set(e, ERR_USAGE, "--split-size: %d files are too many, at most %d", p->files,
                       OUT_FILES);
    o.w = calloc((size_t)p->files, sizeof(struct gguf_writer *));
    if (!o.w)
        return err_nomem(e, (size_t)p->files * sizeof *o.w, "the output files");
    struct convert_sink sink = {.state = &o, .data = out_data};
    int rc = out_open(&o, path, e);
    if (!rc)
        rc = convert_stream(p, &sink, team, progress, arg, e);
    if (!rc)
        rc = out_commit(&o, path, e);
    for (int i = 0; i < p->files; i++)
        gguf_writer_free(o.w[i]);
    free(o.w);
    return rc;
}
