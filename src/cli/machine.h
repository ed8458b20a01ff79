/* What this machine can do at most, measured: what speeds are compared with. */
#ifndef PONDER_CLI_MACHINE_H
#define PONDER_CLI_MACHINE_H

/* Bytes a second that `threads` threads read from memory together, best of passes for about
   `seconds`. 0 when it could not be measured. */
double machine_bandwidth(int threads, double seconds);

/* Multiply-adds of int8 a second that `threads` threads do together, from registers; 0 when not
   measurable. */
double machine_int8_macs(int threads, double seconds);

#endif
