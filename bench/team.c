/*
 * How long a region of the thread team takes that does nothing: back to back, and after the caller
 * worked alone for a while (a token's serial parts, or a pause between questions).
 *
 *   bench-team [THREADS]
 *
 * Prints median and 99th percentile in microseconds. A region has four chunks a thread, as a small
 * matrix has.
 */
#include "base/team.h"
#include "base/clock.h"
#include "base/num.h"

#include <stdio.h>
#include <stdlib.h>

static void nothing(void *arg, size_t chunk, int worker)
{
    (void)arg, (void)chunk, (void)worker;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static const struct {
        double alone; /* seconds */
        size_t n;
    } waits[] = {{0, 20000},     {10e-6, 5000}, {100e-6, 2000},
                 {300e-6, 1000}, {2e-3, 300},   {5e-3, 200}};
    struct err e = {0};
    struct team *t;
    if (team_new(&t, argc > 1 ? atoi(argv[1]) : 0, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    size_t chunks = (size_t)team_threads(t) * 4;
    printf("%d threads\n%12s %10s %10s\n", team_threads(t), "alone", "median us", "99% us");
    for (size_t i = 0; i < NUM_COUNT(waits); i++) {
        double *s = malloc(waits[i].n * sizeof *s);
        if (!s)
            return 1;
        for (size_t k = 0; k < waits[i].n; k++) {
            for (double begin = clock_seconds(); clock_seconds() - begin < waits[i].alone;)
                ;
            double begin = clock_seconds();
            team_run(t, nothing, NULL, chunks);
            s[k] = clock_seconds() - begin;
        }
        qsort(s, waits[i].n, sizeof *s, by_value);
        printf("%9.2f ms %10.2f %10.2f\n", waits[i].alone * 1e3, s[waits[i].n / 2] * 1e6,
               s[waits[i].n * 99 / 100] * 1e6);
        free(s);
    }
    team_free(t);
    return 0;
}
