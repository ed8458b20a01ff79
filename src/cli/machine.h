/* What this machine can do at most, measured: what speeds are compared with. */
#ifndef PONDER_CLI_MACHINE_H
#define PONDER_CLI_MACHINE_H

#include "base/cpu.h"

/* Bytes a second that `threads` threads read from memory together, best of passes for about
   `seconds`. 0 when it could not be measured. */
double machine_bandwidth(int threads, double seconds);

/* int8 operations a second (two per multiply-add) that `threads` threads do together from registers
   with the instructions of `isa`; 0 when not measurable. */
double machine_int8(int threads, enum cpu_isa isa, double seconds);

#endif
