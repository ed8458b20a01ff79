/*
 * What has to be known of a whole automaton before it is used:
 *
 *   which nodes can reach RET without a byte (a loop over such a body needs no minimum: the rest of
 *   its rounds may be empty);
 *   whether a call can reach itself without a byte (left recursion: its stack would grow for ever);
 *   `need`: how many frames the shortest way from a node to RET needs. A node with no way admits no
 *   text, and a matcher enters nothing that it could not leave within the depth it has.
 *
 * The first and the last are least solutions of equations with "the least of" (EDGES, SPLIT) and
 * "the most of" (CALL, LOOP) over successors: nodes are settled in ascending order of their value,
 * each once (Knuth 1977, "A generalization of Dijkstra's algorithm"), so time is linear.
 */
#include "base/num.h"
#include "text/grammar_impl.h"

#include <stdlib.h>
#include <string.h>

/* Predecessors of each node: pred[head[i] … head[i + 1]) as node × 2 + (it is the callee). */
struct preds {
    uint32_t *head, *pred;
};

struct visit {
    void (*see)(void *arg, uint32_t from, uint32_t to, bool entry);
    void *arg;
};

static void each_edge(const struct grammar *g, const struct visit *v)
{
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const struct gnode *x = &g->node[i];
        switch (x->op) {
        case GOP_EDGES:
            for (uint32_t k = 0; k < x->b; k++)
                v->see(v->arg, i, g->edge[x->a + k].to, false);
            break;
        case GOP_SPLIT:
            for (uint32_t k = 0; k < x->b; k++)
                v->see(v->arg, i, g->target[x->a + k], false);
            break;
        case GOP_CALL:
        case GOP_LOOP:
            v->see(v->arg, i, x->a, true);
            v->see(v->arg, i, x->b, false);
            break;
        case GOP_CTRL:
            v->see(v->arg, i, x->b, false);
            break;
        default:
            break;
        }
    }
}

static void count_edge(void *arg, uint32_t from, uint32_t to, bool entry)
{
    struct preds *p = arg;
    p->head[to + 1]++;
}

static void put_edge(void *arg, uint32_t from, uint32_t to, bool entry)
{
    struct preds *p = arg;
    p->pred[p->head[to]++] = from * 2 + entry;
}

static bool preds_init(struct preds *p, const struct grammar *g)
{
    struct visit v = {count_edge, p};
    size_t n = g->n_nodes;
    p->head = calloc(n + 2, sizeof *p->head);
    p->pred = NULL;
    if (!p->head)
        return false;
    each_edge(g, &v);
    for (size_t i = 0; i < n; i++)
        p->head[i + 1] += p->head[i];
    p->pred = malloc((p->head[n] + 1) * sizeof *p->pred);
    if (!p->pred)
        return false;
    v.see = put_edge;
    each_edge(g, &v);
    memmove(p->head + 1, p->head, n * sizeof *p->head); /* each start went on to the next one */
    p->head[0] = 0;
    return true;
}

static void preds_release(struct preds *p)
{
    free(p->head);
    free(p->pred);
}

/* ---- least values --------------------------------------------------------------------------- */

struct solver {
    const struct grammar *g;
    struct preds preds;
    bool empty;            /* solve for "reaches RET without a byte", else for need */
    uint16_t *value;       /* UINT16_MAX: not settled */
    uint16_t *part;        /* of a CALL or LOOP whose one side is settled */
    uint32_t *now, *later; /* settled, to be looked at: of this value, of the next one */
    size_t n_now, n_later;
};

static void settle(struct solver *s, uint32_t node, unsigned value, unsigned now)
{
    s->value[node] = (uint16_t)value;
    if (value == now)
        s->now[s->n_now++] = node;
    else
        s->later[s->n_later++] = node;
}

/* `node` has a successor that was settled with `now`. */
static void arrive(struct solver *s, uint32_t node, bool entry, unsigned now)
{
    const struct gnode *x = &s->g->node[node];
    if (s->value[node] != UINT16_MAX)
        return;
    switch (x->op) {
    case GOP_EDGES:
    case GOP_CTRL:
        if (!s->empty)
            settle(s, node, now, now);
        return;
    case GOP_LOOP:
        if (s->g->loop[x->c].min == 0) {
            if (!entry)
                settle(s, node, now, now);
            return;
        }
        break;
    case GOP_CALL:
        break;
    default:
        settle(s, node, now, now);
        return;
    }
    unsigned cost = now + (entry && !s->empty && !(x->flags & GF_TAIL));
    if (s->part[node] == UINT16_MAX)
        s->part[node] = (uint16_t)cost;
    else
        settle(s, node, cost > s->part[node] ? cost : s->part[node], now);
}

static void solve(struct solver *s, bool empty)
{
    size_t n = s->g->n_nodes;
    s->empty = empty;
    memset(s->value, 0xff, n * sizeof *s->value);
    memset(s->part, 0xff, n * sizeof *s->part);
    s->n_now = s->n_later = 0;
    settle(s, 0, 0, 0);
    for (unsigned now = 0; s->n_now && now < UINT16_MAX - 1; now++) {
        while (s->n_now) {
            uint32_t to = s->now[--s->n_now];
            for (uint32_t i = s->preds.head[to]; i < s->preds.head[to + 1]; i++)
                arrive(s, s->preds.pred[i] / 2, s->preds.pred[i] & 1, now);
        }
        uint32_t *swap = s->now;
        s->now = s->later;
        s->later = swap;
        s->n_now = s->n_later;
        s->n_later = 0;
    }
}

/* ---- left recursion ------------------------------------------------------------------------- */

/* Tarjan's strongly connected components over the steps that take no byte, with a stack of its own.
   A call inside a component reaches itself. */
struct tarjan {
    const struct grammar *g;
    const uint16_t *empty;
    uint32_t *index, *low, *stack, *path, *pos;
    uint8_t *on;
    uint32_t next;
    size_t n_stack, n_path;
};

/* The k-th successor without a byte; false when there are no more. */
static bool successor(const struct tarjan *t, uint32_t node, uint32_t k, uint32_t *to)
{
    const struct gnode *x = &t->g->node[node];
    if (x->op == GOP_SPLIT && k < x->b) {
        *to = t->g->target[x->a + k];
        return true;
    }
    if (x->op != GOP_CALL && x->op != GOP_LOOP)
        return false;
    bool passes = t->empty[x->a] != UINT16_MAX || (x->op == GOP_LOOP && t->g->loop[x->c].min == 0);
    *to = k ? x->b : x->a;
    return k < 1u + passes;
}

static void enter(struct tarjan *t, uint32_t node)
{
    t->index[node] = t->low[node] = ++t->next;
    t->stack[t->n_stack++] = node;
    t->on[node] = 1;
    t->path[t->n_path] = node;
    t->pos[t->n_path++] = 0;
}

/* All that is above `node` on the stack is one component: a call into it is left recursion. */
static uint32_t leave_component(struct tarjan *t, uint32_t node)
{
    size_t first = t->n_stack;
    uint32_t found = UINT32_MAX;
    while (t->stack[--first] != node)
        ;
    for (size_t i = first; i < t->n_stack; i++) {
        const struct gnode *x = &t->g->node[t->stack[i]];
        if ((x->op == GOP_CALL || x->op == GOP_LOOP) && t->on[x->a] &&
            t->low[x->a] >= t->index[node])
            found = t->stack[i];
    }
    for (size_t i = first; i < t->n_stack; i++)
        t->on[t->stack[i]] = 0;
    t->n_stack = first;
    return found;
}

/* A node that calls itself without a byte; UINT32_MAX: there is none. */
static uint32_t find_left(struct tarjan *t)
{
    for (uint32_t i = 0; i < t->g->n_nodes; i++) {
        if (t->index[i])
            continue;
        enter(t, i);
        while (t->n_path) {
            uint32_t node = t->path[t->n_path - 1], to;
            if (successor(t, node, t->pos[t->n_path - 1], &to)) {
                t->pos[t->n_path - 1]++;
                if (!t->index[to])
                    enter(t, to);
                else if (t->on[to] && t->index[to] < t->low[node])
                    t->low[node] = t->index[to];
                continue;
            }
            t->n_path--;
            if (t->n_path && t->low[node] < t->low[t->path[t->n_path - 1]])
                t->low[t->path[t->n_path - 1]] = t->low[node];
            if (t->low[node] == t->index[node]) {
                uint32_t found = leave_component(t, node);
                if (found != UINT32_MAX)
                    return found;
            }
        }
    }
    return UINT32_MAX;
}

static void check_left(struct gbuild *b, const uint16_t *empty)
{
    struct grammar *g = b->g;
    size_t n = g->n_nodes;
    uint32_t *all = calloc(5 * n, sizeof *all);
    uint8_t *on = calloc(n, 1);
    struct tarjan t = {g, empty, all, all + n, all + 2 * n, all + 3 * n, all + 4 * n, on, 0, 0, 0};
    if (!all || !on) {
        gbuild_fail(b, ERR_NOMEM, "no memory for a grammar (%zu bytes)", 5 * n * sizeof *all);
    } else {
        uint32_t node = find_left(&t);
        if (node != UINT32_MAX && g->node[node].op == GOP_CALL)
            gbuild_fail(
                b, ERR_UNSUPPORTED,
                "\"%.100s\" begins with itself: left recursion has to be written as a repetition",
                b->rule[g->node[node].c].name);
        else if (node != UINT32_MAX)
            gbuild_fail(b, ERR_UNSUPPORTED, "a repetition begins with itself");
    }
    free(all);
    free(on);
}

/* ---- all of it ------------------------------------------------------------------------------ */

int ganalyse(struct gbuild *b)
{
    struct grammar *g = b->g;
    size_t n = g->n_nodes;
    struct solver s = {.g = g};
    bool ok = preds_init(&s.preds, g);
    s.value = malloc(n * sizeof *s.value);
    s.part = malloc(n * sizeof *s.part);
    s.now = malloc(n * sizeof *s.now);
    s.later = malloc(n * sizeof *s.later);
    if (!ok || !s.value || !s.part || !s.now || !s.later) {
        gbuild_fail(b, ERR_NOMEM, "no memory for a grammar (%zu bytes)", 12 * n);
        goto out;
    }
    solve(&s, true);
    for (size_t i = 0; i < n; i++)
        if (g->node[i].op == GOP_LOOP && s.value[g->node[i].a] != UINT16_MAX)
            g->loop[g->node[i].c].min = 0;
    solve(&s, true); /* with those minima gone, more may be empty */
    check_left(b, s.value);
    solve(&s, false);
    unsigned need = s.value[g->start[GRAMMAR_THOUGHT_NONE]];
    b->nothing = need == UINT16_MAX && !b->code;
    if (need == UINT16_MAX)
        gbuild_fail(b, ERR_FORMAT, "no text at all fits");
    else if (need > GRAMMAR_DEPTH_MAX)
        gbuild_fail(b, ERR_LIMIT, "every text nests deeper than %d levels", GRAMMAR_DEPTH_MAX);
    g->need = s.value;
    s.value = NULL;
out:
    preds_release(&s.preds);
    free(s.value);
    free(s.part);
    free(s.now);
    free(s.later);
    return b->code;
}
