/*
 * Panels: pack and unpack_row are inverse for every type, missing rows and the end of a panel are
 * zero, and nothing is read or written outside.
 */
#include "checkasm.h"

#include "base/num.h"

#include <string.h>

static void check_type(struct checkasm *c, const struct quant_type *t, size_t rows, size_t k)
{
    const struct kern_mul *m = &c->k->mul[t->id];
    size_t row = check_row_bytes(t, k), bytes = m->panel_bytes(k);
    size_t stride = row + check_range(c, 0, 5);
    if (bytes % KERN_ALIGN || bytes < 16 * row) {
        check_fail(c, "k %zu: a panel of %zu bytes", k, bytes);
        return;
    }
    uint8_t *file = check_buf(c, stride * (rows - 1) + row), *panel = check_buf(c, bytes);
    uint8_t *again = check_buf(c, bytes), *back = check_buf(c, row);
    check_bytes(c, file, stride * (rows - 1) + row);
    memset(again, 0x5A, bytes); /* other filling: every byte must be written */
    m->pack(panel, file, stride, rows, k);
    m->pack(again, file, stride, rows, k);
    check_same_bytes(c, panel, again, bytes, "second call");
    for (size_t r = 0; r < 16; r++) {
        m->unpack_row(back, panel, r, k);
        if (r < rows)
            check_same_bytes(c, back, file + r * stride, row, "row");
        else
            for (size_t i = 0; i < row; i++)
                if (back[i]) {
                    check_fail(c, "missing row %zu, byte %zu is %02x", r, i, back[i]);
                    break;
                }
    }
    /* A panel holds the bits of its rows and zeros: as many ones as the file's rows. */
    size_t ones = 0, want = 0;
    for (size_t i = 0; i < bytes; i++)
        ones += (size_t)__builtin_popcount(panel[i]);
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < row; i++)
            want += (size_t)__builtin_popcount(file[r * stride + i]);
    if (ones != want)
        check_fail(c, "rows %zu k %zu: %zu bits set, not %zu", rows, k, ones, want);
    check_buf_reset(c);
}

struct pack_bench {
    const struct quant_type *t;
    uint8_t *file, *panels;
    size_t rows, k;
};

static void bench_run(const struct kern *k, void *arg)
{
    struct pack_bench *b = arg;
    const struct kern_mul *m = &k->mul[b->t->id];
    size_t row = check_row_bytes(b->t, b->k), bytes = m->panel_bytes(b->k);
    for (size_t i = 0; i < b->rows / 16; i++)
        m->pack(b->panels + i * bytes, b->file + 16 * i * row, row, 16, b->k);
}

static void bench_type(struct checkasm *c, const struct quant_type *t)
{
    struct pack_bench b = {.t = t, .rows = 1536, .k = 8960};
    size_t bytes = b.rows * check_row_bytes(t, b.k);
    b.file = check_buf(c, bytes);
    b.panels = check_buf(c, b.rows / 16 * c->k->mul[t->id].panel_bytes(b.k));
    check_bench(c, "1536x8960", bench_run, &b, (double)bytes, 0);
    check_buf_reset(c);
}

void check_pack(struct checkasm *c)
{
    size_t count;
    const struct quant_type *const *all = quant_all(&count);
    for (size_t i = 0; i < count; i++) {
        const struct quant_type *t = all[i];
        if (c->k->mul[t->id].act == KERN_ACT_NONE)
            continue;
        if (!check_func(c, c->k->mul[t->id].pack != c->below->mul[t->id].pack, "pack.%s", t->name))
            continue;
        for (size_t rows = 1; rows <= 16; rows++)
            for (size_t n = 1; n <= 7; n++)
                check_type(c, t, rows, n * t->block);
        check_type(c, t, 16, 1536);
        if (t->block == 1 || t->partial)
            check_type(c, t, 13, 777);
        if (c->bench)
            bench_type(c, t);
    }
}
