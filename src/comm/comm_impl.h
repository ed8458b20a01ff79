/* What a world of several ranks has to be able to do; comm.c does the rest with it. */
#ifndef PONDER_COMM_COMM_IMPL_H
#define PONDER_COMM_COMM_IMPL_H

#include "comm/comm.h"

/* Joins the world of the launcher; size 1 when there is none. *here: ranks on this machine. */
int world_open(int *rank, int *size, int *here, struct err *e);
/* Sends `n` bytes to a rank and takes as many from it. */
int world_swap(int peer, const void *out, void *in, size_t n, struct err *e);
/* n bytes of rank 0 to all. */
int world_tell(void *x, size_t n, struct err *e);
/* Bytes of all ranks, one after the other; n[r] of rank r. */
int world_all(const void *mine, void *all, const size_t *n, int size, struct err *e);
void world_abort(int status); /* ends all ranks */
void world_end(void);

#endif
