/* Who has how many jobs: a short list of owners, guarded by a lock. */
#include "server/job_impl.h"

#include <stdlib.h>

struct job_desk {
    pthread_mutex_t lock;
    struct desk_row {
        uint64_t owner;
        size_t jobs;
    } * row;
    size_t n, cap;
};

int job_desk_new(struct job_desk **out, struct err *e)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return err_nomem(e, sizeof **out, "the jobs");
    pthread_mutex_init(&(*out)->lock, NULL);
    return 0;
}

void job_desk_free(struct job_desk *d)
{
    if (!d)
        return;
    pthread_mutex_destroy(&d->lock);
    free(d->row);
    free(d);
}

bool job_desk_enter(struct job_desk *d, uint64_t owner, size_t most)
{
    bool ok = true;
    size_t i = 0;
    pthread_mutex_lock(&d->lock);
    while (i < d->n && d->row[i].owner != owner)
        i++;
    if (i == d->cap) {
        size_t cap = d->cap ? 2 * d->cap : 16;
        struct desk_row *row = realloc(d->row, cap * sizeof *row);
        ok = row != NULL;
        if (ok) {
            d->row = row;
            d->cap = cap;
        }
    }
    if (ok && i == d->n)
        d->row[d->n++] = (struct desk_row){owner, 0};
    ok = ok && (!most || d->row[i].jobs < most);
    if (ok)
        d->row[i].jobs++;
    pthread_mutex_unlock(&d->lock);
    return ok;
}

void job_desk_leave(struct job_desk *d, uint64_t owner)
{
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < d->n; i++)
        if (d->row[i].owner == owner && !--d->row[i].jobs) {
            d->row[i] = d->row[--d->n];
            break;
        }
    pthread_mutex_unlock(&d->lock);
}
