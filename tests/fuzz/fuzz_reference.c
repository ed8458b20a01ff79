/*
 * Fuzzing the reader of saved logits. The checksum is made right first, else nothing behind it
 * would ever be reached; of a file that opens, everything is read.
 */
#include "base/hash.h"
#include "eval/reference.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reference r;
    struct err e = {0};
    uint64_t sum;
    uint8_t *p = malloc(size + 1);
    if (!p)
        return 0;
    memcpy(p, data, size);
    if (size >= sizeof sum) {
        sum = hash_fnv1a(p, size - sizeof sum, HASH_FNV1A);
        memcpy(p + size - sizeof sum, &sum, sizeof sum);
    }
    int rc = reference_open_memory(&r, p, size, &e);
    if (rc && !*e.text)
        abort();
    if (!rc) {
        uint64_t seen = 0;
        if (r.head.top > r.head.vocab || strlen(r.head.name) >= sizeof r.head.name)
            abort();
        for (size_t i = 0; i < r.head.windows; i++) {
            struct eval_window w = eval_window_at(&r.head.cut, r.head.n_ids, i);
            if (w.start > r.head.n_ids || w.n > r.head.n_ids - w.start || w.n < 2 ||
                w.from > w.n - 1)
                abort();
            seen += w.n - 1 - w.from;
        }
        if (seen != r.head.rows)
            abort();
        for (size_t i = 0; i < r.head.rows; i++) {
            struct cells c = reference_cells(p + (r.rows - p) + i * r.row_bytes, r.head.top);
            for (size_t k = 0; k < r.head.top; k++)
                if (c.ids[k] >= r.head.vocab || c.lp[k] > 1)
                    abort();
        }
        reference_release(&r);
    }
    free(p);
    return 0;
}
