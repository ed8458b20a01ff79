/* What this machine can do at most, measured: what speeds are compared with. */
#ifndef PONDER_CLI_MACHINE_H
#define PONDER_CLI_MACHINE_H

#include "base/cpu.h"
#include "base/err.h"
#include "base/team.h"
#include "kernels/peak.h"

struct machine;

/* Who measures: as many threads as an engine has, where it has them, for its kernels. */
struct machine_spec {
    int threads;
    const struct topology *topology; /* outlives the machine */
    enum team_pin pin;
    enum cpu_isa isa;
};

/* The threads sleep between measurements. */
int machine_new(struct machine **out, const struct machine_spec *s, struct err *e);
void machine_free(struct machine *m);

/*
 * What all threads together do a second, the best of passes for about `seconds`: bytes read from
 * memory (PEAK_READ; with the widest loads and with those of AVX2, whichever are faster here), or
 * operations in registers, two per multiply-add. 0 when it could not be measured.
 */
double machine_measure(struct machine *m, enum peak_kind kind, double seconds);

/* Reading memory alone, for who needs one figure. */
double machine_bandwidth(const struct machine_spec *s, double seconds);

#endif
