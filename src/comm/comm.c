/*
 * See comm.h. Sums by recursive halving (Thakur, Rabenseifner, Gropp 2005), nearest ranks first, so
 * that each number is added up in the order of the binary tree; gathering is the same way back.
 */
#include "comm/comm_impl.h"

#include "base/num.h"

#include <stdlib.h>
#include <string.h>

struct comm {
    int rank, size, here;
    char *in; /* (room) what comes from another rank */
    size_t room;
};

/* Set by the launchers of Open MPI, MPICH and Slurm. */
static int comm_launched(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *v = getenv(names[i]);
        long n = v ? strtol(v, NULL, 10) : 0;
        if (n > 0)
            return (int)num_min((size_t)n, 1 << 20);
    }
    return 0;
}

int comm_open(struct comm **out, struct err *e)
{
    *out = NULL;
    struct comm *c = calloc(1, sizeof *c);
    if (!c)
        return err_nomem(e, sizeof *c, "ranks");
    c->size = c->here = 1;
    int launched = comm_launched(), rc = 0;
    if (launched > 1)
        rc = world_open(&c->rank, &c->size, &c->here, e);
    if (!rc && (c->size > COMM_MAX || (c->size & (c->size - 1))))
        rc = err_set(e, ERR_USAGE, "%d ranks: sums have a fixed order for 1, 2, 4 or %d", c->size,
                     COMM_MAX);
    if (rc) {
        free(c);
        return rc;
    }
    *out = c;
    return 0;
}

void comm_close(struct comm *c, int failed)
{
    if (!c)
        return;
    if (failed && c->size > 1)
        world_abort(1);
    free(c->in);
    free(c);
}

void comm_end(void)
{
    if (comm_launched() > 1)
        world_end();
}

int comm_here(const struct comm *c)
{
    return c->here;
}

int comm_rank(const struct comm *c)
{
    return c->rank;
}

int comm_size(const struct comm *c)
{
    return c->size;
}

static int comm_room(struct comm *c, size_t bytes, struct err *e)
{
    if (bytes <= c->room)
        return 0;
    free(c->in);
    c->in = malloc(bytes);
    c->room = c->in ? bytes : 0;
    return c->in ? 0 : err_nomem(e, bytes, "what comes from another rank");
}

/* The part that this rank has after level `d` of the halving: of its part before, the lower half
   when its bit d is 0. [lo, hi) in units. */
static void comm_half(const struct comm *c, int d, size_t *lo, size_t *hi, size_t other[2])
{
    size_t mid = *lo + (*hi - *lo) / 2;
    if (c->rank & d) {
        other[0] = *lo;
        other[1] = mid;
        *lo = mid;
    } else {
        other[0] = mid;
        other[1] = *hi;
        *hi = mid;
    }
}

void comm_part(const struct comm *c, size_t n, size_t unit, size_t *from, size_t *to)
{
    size_t lo = 0, hi = (n + unit - 1) / unit, other[2];
    for (int d = 1; d < c->size; d *= 2)
        comm_half(c, d, &lo, &hi, other);
    *from = num_min(lo * unit, n);
    *to = num_min(hi * unit, n);
}

/* Two pieces of different lengths change places: as much as the longer one has is moved. */
static int comm_trade(struct comm *c, int peer, float *x, size_t n, size_t unit,
                      const size_t out[2], const size_t in[2], struct err *e)
{
    size_t a = num_min(out[0] * unit, n), b = num_min(out[1] * unit, n);
    size_t p = num_min(in[0] * unit, n), q = num_min(in[1] * unit, n);
    size_t most = num_max(b - a, q - p) * sizeof *x;
    int rc = comm_room(c, 2 * most, e);
    if (rc || !most)
        return rc;
    memcpy(c->in + most, x + a, (b - a) * sizeof *x);
    return world_swap(peer, c->in + most, c->in, most, e);
}

int comm_scatter_sum(struct comm *c, float *x, size_t n, size_t unit, size_t *from, size_t *to,
                     struct err *e)
{
    size_t lo = 0, hi = (n + unit - 1) / unit, other[2];
    for (int d = 1; d < c->size; d *= 2) {
        comm_half(c, d, &lo, &hi, other);
        int rc = comm_trade(c, c->rank ^ d, x, n, unit, other, (size_t[]){lo, hi}, e);
        if (rc)
            return rc;
        const float *in = (const float *)(const void *)c->in;
        size_t a = num_min(lo * unit, n), b = num_min(hi * unit, n);
        for (size_t i = a; i < b; i++)
            x[i] += in[i - a];
    }
    comm_part(c, n, unit, from, to);
    return 0;
}

int comm_gather(struct comm *c, float *x, size_t n, size_t unit, struct err *e)
{
    for (int d = c->size / 2; d >= 1; d /= 2) {
        size_t lo = 0, hi = (n + unit - 1) / unit, other[2] = {0, 0};
        for (int k = 1; k <= d; k *= 2)
            comm_half(c, k, &lo, &hi, other);
        int rc = comm_trade(c, c->rank ^ d, x, n, unit, (size_t[]){lo, hi}, other, e);
        if (rc)
            return rc;
        size_t a = num_min(other[0] * unit, n), b = num_min(other[1] * unit, n);
        memcpy(x + a, c->in, (b - a) * sizeof *x);
    }
    return 0;
}

int comm_sum(struct comm *c, double *x, size_t n, struct err *e)
{
    int rc = c->size > 1 ? comm_room(c, n * sizeof *x, e) : 0;
    for (int d = 1; !rc && d < c->size; d *= 2) {
        rc = world_swap(c->rank ^ d, x, c->in, n * sizeof *x, e);
        const double *in = (const double *)(const void *)c->in;
        for (size_t i = 0; !rc && i < n; i++)
            x[i] += in[i];
    }
    return rc;
}

int comm_all(struct comm *c, const void *mine, size_t bytes, void **out, size_t *n, struct err *e)
{
    double length[COMM_MAX] = {0};
    size_t all = 0;
    *out = NULL;
    length[c->rank] = (double)bytes;
    int rc = comm_sum(c, length, (size_t)c->size, e);
    for (int r = 0; r < c->size; r++) {
        n[r] = (size_t)length[r];
        all += n[r];
    }
    if (rc)
        return rc;
    *out = malloc(all ? all : 1);
    if (!*out)
        return err_nomem(e, all, "what ranks tell each other");
    if (c->size == 1 && bytes)
        memcpy(*out, mine, bytes);
    return c->size == 1 ? 0 : world_all(mine, *out, n, c->size, e);
}

int comm_tell(struct comm *c, void *x, size_t bytes, struct err *e)
{
    return c->size == 1 ? 0 : world_tell(x, bytes, e);
}
