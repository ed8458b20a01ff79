#include "eval/windows.h"

#include "base/num.h"

int eval_windows(size_t *out, const struct eval_cut *c, size_t n, struct err *e)
{
    size_t most;
    *out = 0;
    if (c->ctx < 2)
        return err_set(e, ERR_USAGE, "windows of %zu tokens: must be at least 2", c->ctx);
    if (c->stride > c->ctx)
        return err_set(e, ERR_USAGE, "a stride of %zu tokens skips some: the window has %zu",
                       c->stride, c->ctx);
    if (!c->stride && n < 2 * c->ctx)
        return err_set(e, ERR_LIMIT,
                       "the text has %zu tokens and two chunks of %zu are needed: give a longer "
                       "text, a smaller --ctx, or --stride",
                       n, c->ctx);
    if (n < 2)
        return err_set(e, ERR_LIMIT, "the text has %zu tokens: nothing can be scored", n);
    if (!c->stride)
        most = n / c->ctx;
    else
        most = n <= c->ctx ? 1 : 1 + (n - c->ctx + c->stride - 1) / c->stride;
    *out = c->limit ? num_min(c->limit, most) : most;
    return 0;
}

struct eval_window eval_window_at(const struct eval_cut *c, size_t n, size_t i)
{
    if (!c->stride)
        return (struct eval_window){i * c->ctx, c->ctx, c->ctx / 2};
    struct eval_window w = {.start = i * c->stride};
    size_t end = num_min(w.start + c->ctx, n);
    w.n = end - w.start;
    if (i) { /* what the window before reached, less the one whose logits predict the next token */
        size_t before = w.start - c->stride + c->ctx;
        w.from = before > w.start ? before - w.start - 1 : 0;
    }
    return w;
}

size_t eval_window_rows(const struct eval_cut *c, size_t n, size_t windows)
{
    size_t rows = 0;
    for (size_t i = 0; i < windows; i++) {
        struct eval_window w = eval_window_at(c, n, i);
        rows += w.n - 1 - w.from;
    }
    return rows;
}
