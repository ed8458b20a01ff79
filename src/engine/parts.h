/*
 * The parts of an engine, for the trainer: it runs the same model with a tape, on the same threads
 * and the same weights that the engine samples from. Everybody else sees engine.h.
 */
#ifndef PONDER_ENGINE_PARTS_H
#define PONDER_ENGINE_PARTS_H

#include "engine/engine.h"
#include "model/model.h"

struct engine_parts {
    const struct kern *kern;
    struct team *team;
    struct model *model;
};

/* All the engine's. */
void engine_parts(struct engine *g, struct engine_parts *out);

#endif
