/* The scores of a router: private to tensor/. */
#ifndef PONDER_TENSOR_ROUTE_IMPL_H
#define PONDER_TENSOR_ROUTE_IMPL_H

#include "tensor/ops.h"

/* n logits become scores, in place. */
void route_scores(const struct kern *k, enum router_score score, float *s, size_t n);

#endif
