#include "base/arena.h"

#include "base/num.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    ALIGN = 16,
    FIRST_BLOCK = 4096,
    LAST_BLOCK = 4 << 20, /* growth stops here */
};

struct arena_block {
    struct arena_block *next;
    size_t cap, used;
    _Alignas(ALIGN) unsigned char bytes[];
};

void arena_init(struct arena *a, size_t max)
{
    *a = (struct arena){.max = max};
}

void arena_release(struct arena *a)
{
    for (struct arena_block *b = a->head; b;) {
        struct arena_block *next = b->next;
        free(b);
        b = next;
    }
    a->head = NULL;
    a->used = 0;
}

/* A block for at least n bytes. Big pieces go behind the head, whose free room stays in use. */
static struct arena_block *block_new(struct arena *a, size_t n)
{
    size_t grow = FIRST_BLOCK;
    if (a->head)
        grow = num_min(num_max(a->head->cap, FIRST_BLOCK / 2) * 2, LAST_BLOCK);
    bool own = n > grow / 4;
    size_t cap = own ? n : grow, total;
    if (!num_add(&total, cap, sizeof(struct arena_block)))
        return NULL;
    struct arena_block *b = calloc(1, total);
    if (!b)
        return NULL;
    b->cap = cap;
    if (own && a->head) {
        b->next = a->head->next;
        a->head->next = b;
    } else {
        b->next = a->head;
        a->head = b;
    }
    return b;
}

void *arena_alloc(struct arena *a, size_t n, struct err *e)
{
    size_t size;
    if (!num_add(&size, n ? n : 1, ALIGN - 1)) {
        err_nomem(e, n, "an arena piece");
        return NULL;
    }
    size -= size % ALIGN;
    if (size > a->max || a->used > a->max - size) {
        err_set(e, ERR_NOMEM, "memory limit reached: %zu bytes more than the %zu of at most %zu", n,
                a->used, a->max);
        return NULL;
    }
    struct arena_block *b = a->head;
    if (!b || b->cap - b->used < size) {
        b = block_new(a, size);
        if (!b) {
            err_nomem(e, size, "an arena block");
            return NULL;
        }
    }
    void *p = b->bytes + b->used;
    b->used += size;
    a->used += size;
    return p;
}

void *arena_array(struct arena *a, size_t count, size_t size, struct err *e)
{
    size_t n;
    if (!num_mul(&n, count, size)) {
        err_set(e, ERR_NOMEM, "no memory for %zu items of %zu bytes", count, size);
        return NULL;
    }
    return arena_alloc(a, n, e);
}

char *arena_strndup(struct arena *a, const char *s, size_t n, struct err *e)
{
    if (n == SIZE_MAX) {
        err_nomem(e, n, "a string");
        return NULL;
    }
    char *p = arena_alloc(a, n + 1, e);
    if (p && n)
        memcpy(p, s, n);
    return p;
}
