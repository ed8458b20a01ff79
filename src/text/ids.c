/* Lists of token ids: see tokenizer.h. */
#include "base/num.h"
#include "text/tokenizer.h"

#include <stdlib.h>

void ids_init(struct ids *a, size_t max)
{
    *a = (struct ids){.max = max};
}

void ids_release(struct ids *a)
{
    free(a->v);
    ids_init(a, a->max);
}

int ids_append(struct ids *a, const int32_t *id, size_t n, struct err *e)
{
    if (n > a->cap - a->n) {
        if (n > a->max - num_min(a->n, a->max))
            return err_set(e, ERR_LIMIT, "more than %zu tokens", a->max);
        size_t cap = num_min(a->max, num_max(num_max(64, a->n + n), a->cap + a->cap / 2)), bytes;
        int32_t *v = num_mul(&bytes, cap, sizeof *v) ? realloc(a->v, bytes) : NULL;
        if (!v)
            return err_nomem(e, cap, "token ids");
        a->v = v;
        a->cap = cap;
    }
    for (size_t i = 0; i < n; i++)
        a->v[a->n + i] = id[i];
    a->n += n;
    return 0;
}

int ids_push(struct ids *a, int32_t id, struct err *e)
{
    return ids_append(a, &id, 1, e);
}
