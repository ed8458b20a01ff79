#include "build.h"

#include "base/file.h"
#include "format/gguf.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

void put(struct bytes *b, const void *p, size_t n)
{
    assert_true(n <= BYTES_MAX - b->n);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

void put_u32(struct bytes *b, uint32_t v)
{
    put(b, &v, sizeof v);
}

void put_u64(struct bytes *b, uint64_t v)
{
    put(b, &v, sizeof v);
}

void put_str(struct bytes *b, const char *s)
{
    put_u64(b, strlen(s));
    put(b, s, strlen(s));
}

/* ---- GGUF ---------------------------------------------------------------------------------------
 */

void spec_base(struct spec *s)
{
    memset(s, 0, sizeof *s);
    s->magic = "GGUF";
    s->version = 3;
    s->keys = s->tensors = UINT64_MAX;
    s->t[0] = (struct spec_tensor){"a", 0, 2, 0, {8, 4}, QUANT_F32, 0};
    s->t[1] = (struct spec_tensor){"b", 0, 1, 0, {8}, QUANT_F32, 128};
    s->t[2] = (struct spec_tensor){"c", 0, 2, 0, {64, 2}, QUANT_Q8_0, 160};
    s->n_t = 3;
    s->align = 32;
    s->data = 320;
    s->cut = SIZE_MAX;
}

struct bytes *spec_key(struct spec *s, const char *key, uint32_t type)
{
    struct bytes *b = &s->extra[s->n_extra++];

    assert_true(s->n_extra <= SPEC_EXTRA);
    put_str(b, key);
    put_u32(b, type);
    return b;
}

void spec_key_u32(struct spec *s, const char *key, uint32_t v)
{
    put_u32(spec_key(s, key, GGUF_U32), v);
}

static size_t base_keys(struct bytes *b, uint64_t first_key)
{
    static const struct {
        const char *key;
        uint32_t type, n;
        int64_t value;
    } plain[] = {
        {"x.u8", GGUF_U8, 1, 200},          {"x.i8", GGUF_I8, 1, -100},
        {"x.u16", GGUF_U16, 2, 60000},      {"x.i16", GGUF_I16, 2, -30000},
        {"x.u32", GGUF_U32, 4, 4000000000}, {"x.i32", GGUF_I32, 4, -2000000000},
        {"x.u64", GGUF_U64, 8, INT64_MAX},  {"x.i64", GGUF_I64, 8, INT64_MIN},
        {"x.bool", GGUF_BOOL, 1, 1},
    };
    static const char *const tokens[] = {"<s>", "", "\xc4\xa0hello"};
    static const int32_t ints[] = {3, -1, 1 << 30};
    float f32 = 1e-5f;
    double f64 = 0.1;
    size_t n = sizeof plain / sizeof *plain;

    put_u64(b, first_key ? first_key : strlen("general.architecture"));
    put(b, "general.architecture", strlen("general.architecture"));
    put_u32(b, GGUF_STRING);
    put_str(b, "llama");
    for (size_t i = 0; i < n; i++) {
        put_str(b, plain[i].key);
        put_u32(b, plain[i].type);
        put(b, &plain[i].value, plain[i].n);
    }
    put_str(b, "x.f32");
    put_u32(b, GGUF_F32);
    put(b, &f32, sizeof f32);
    put_str(b, "x.f64");
    put_u32(b, GGUF_F64);
    put(b, &f64, sizeof f64);
    put_str(b, "x.tokens");
    put_u32(b, GGUF_ARRAY);
    put_u32(b, GGUF_STRING);
    put_u64(b, 3);
    for (int i = 0; i < 3; i++)
        put_str(b, tokens[i]);
    put_str(b, "x.ints");
    put_u32(b, GGUF_ARRAY);
    put_u32(b, GGUF_I32);
    put_u64(b, 3);
    put(b, ints, sizeof ints);
    return n + 5;
}

void spec_write(struct spec *s, struct bytes *out)
{
    static struct bytes keys;
    size_t n_keys, end;

    out->n = keys.n = 0;
    n_keys = base_keys(&keys, s->first_key) + s->n_extra;
    for (size_t i = 0; i < s->n_extra; i++)
        put(&keys, s->extra[i].p, s->extra[i].n);
    put(out, s->magic, 4);
    put_u32(out, s->version);
    put_u64(out, s->tensors == UINT64_MAX ? s->n_t : s->tensors);
    put_u64(out, s->keys == UINT64_MAX ? n_keys : s->keys);
    put(out, keys.p, keys.n);
    for (size_t i = 0; i < s->n_t; i++) {
        const struct spec_tensor *t = &s->t[i];
        put_u64(out, t->name_n ? t->name_n : strlen(t->name));
        put(out, t->name, strlen(t->name));
        put_u32(out, t->announced ? t->announced : t->dims);
        for (uint32_t k = 0; k < t->dims; k++)
            put_u64(out, t->dim[k]);
        put_u32(out, t->type);
        put_u64(out, t->offset);
    }
    s->header = out->n;
    while (out->n % s->align)
        put(out, "", 1);
    end = out->n + s->data;
    for (size_t i = 0; out->n < end; i++)
        put(out, &(uint8_t){(uint8_t)(i % 251)}, 1);
    if (s->cut < out->n)
        out->n = s->cut;
}

/* ---- files --------------------------------------------------------------------------------------
 */

void temp_new(struct temp *t)
{
    memset(t, 0, sizeof *t);
    strcpy(t->dir, "/tmp/ponder-format-XXXXXX");
    assert_non_null(mkdtemp(t->dir));
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    return remove(path);
}

void temp_free(struct temp *t)
{
    nftw(t->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *temp_path(struct temp *t, const char *name)
{
    char *path = t->path[t->at++ % 4];

    assert_true(file_join(path, sizeof t->path[0], t->dir, name));
    return path;
}

const char *temp_write(struct temp *t, const char *name, const void *p, size_t n)
{
    const char *path = temp_path(t, name);
    FILE *f;

    for (char *slash = strchr(path + strlen(t->dir) + 1, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0755);
        *slash = '/';
    }
    f = fopen(path, "wb");
    assert_non_null(f);
    if (n)
        assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return path;
}

const char *temp_text(struct temp *t, const char *name, const char *text)
{
    return temp_write(t, name, text, strlen(text));
}

const char *temp_safetensors(struct temp *t, const char *name, const char *header, size_t data)
{
    static struct bytes b;

    b.n = 0;
    put_str(&b, header);
    for (size_t i = 0; i < data; i++)
        put(&b, &(uint8_t){(uint8_t)i}, 1);
    return temp_write(t, name, b.p, b.n);
}

struct st_tensor *st_add(struct st *f, const char *name, const char *dtype, int dims,
                         const uint64_t *shape, const void *data, size_t bytes)
{
    struct st_tensor *t = &f->t[f->n++];

    assert_true(f->n <= ST_TENSORS && strlen(name) < sizeof t->name);
    memset(t, 0, sizeof *t);
    strcpy(t->name, name);
    snprintf(t->dtype, sizeof t->dtype, "%s", dtype);
    t->dims = dims;
    for (int i = 0; i < dims; i++)
        t->shape[i] = shape[i];
    t->data = data;
    t->bytes = bytes;
    return t;
}

struct st_tensor *st_find(struct st *f, const char *name)
{
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->t[i].name, name) == 0)
            return &f->t[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

const char *st_write(const struct st *f, struct temp *t, const char *name)
{
    static struct bytes b;
    char header[8192];
    size_t at = 0, n = 0;

    for (size_t i = 0; i < f->n; i++) {
        const struct st_tensor *x = &f->t[i];
        n += (size_t)snprintf(header + n, sizeof header - n,
                              "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "{", x->name,
                              x->dtype);
        for (int d = 0; d < x->dims; d++)
            n += (size_t)snprintf(header + n, sizeof header - n, "%s%llu", d ? "," : "",
                                  (unsigned long long)x->shape[d]);
        n += (size_t)snprintf(header + n, sizeof header - n, "],\"data_offsets\":[%zu,%zu]}", at,
                              at + x->bytes);
        at += x->bytes;
        assert_true(n + 2 < sizeof header);
    }
    strcpy(header + n, f->n ? "}" : "{}");
    b.n = 0;
    put_str(&b, header);
    for (size_t i = 0; i < f->n; i++)
        put(&b, f->t[i].data, f->t[i].bytes);
    return temp_write(t, name, b.p, b.n);
}

void assert_refused(const char *path, const char *word, const char *word2)
{
    struct err e = {0};
    struct source *s = (struct source *)&e;
    int rc = source_open(&s, path, &e);

    if (rc == 0)
        fail_msg("%s was accepted (expected: %s)", path, word);
    assert_null(s);
    assert_int_equal(rc, e.code);
    if ((word && !strstr(e.text, word)) || (word2 && !strstr(e.text, word2)))
        fail_msg("expected '%s' and '%s' in: %s", word, word2 ? word2 : "", e.text);
}

struct source *open_ok(const char *path)
{
    struct err e = {0};
    struct source *s;

    if (source_open(&s, path, &e))
        fail_msg("%s", e.text);
    assert_non_null(s);
    return s;
}
