/* What `ponder bench` found, and how it is printed. Private to the command. */
#ifndef PONDER_CLI_BENCH_REPORT_H
#define PONDER_CLI_BENCH_REPORT_H

#include "engine/engine.h"
#include "kernels/peak.h"

#include <jansson.h>

/* One measured thing. */
struct bench_result {
    bool decode, sched; /* sched: through the scheduler */
    int threads;
    size_t tokens, depth, sequences; /* tokens of each sequence */
    double *rate;                    /* (samples) tokens a second of all sequences, ascending */
    size_t samples;
    double bytes;                  /* read by one pass over `tokens`; 0 for prefill */
    double ops[ENGINE_MATH_COUNT]; /* of the linear layers in one pass, two per multiply-add */
    double regions;                /* parallel ones of one pass */
    double limit[PEAK_KIND_COUNT]; /* of the machine, a second; 0 = not known */
};

struct bench_results {
    struct bench_result *row;
    size_t n;
};

double bench_median(const struct bench_result *r);
void bench_results_release(struct bench_results *all);

enum bench_form { BENCH_TABLE, BENCH_MARKDOWN };

/* `head` is a line about the model and the machine. */
void bench_print(const struct bench_results *all, const char *head, enum bench_form form);

/* One JSON object with `model` (borrowed) and all rows. */
int bench_print_json(const struct bench_results *all, json_t *model, struct err *e);

#endif
