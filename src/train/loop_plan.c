/* What a run will take, before its first step: its plan for people, and whether memory has room. */
#include "base/num.h"
#include "base/progress.h"
#include "base/quota.h"
#include "train/loop_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void loop_plan_line(const struct loop *l, const char *key, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (l->env->plan)
        l->env->plan(l->env->arg, key, text);
}

void loop_plan(struct loop *l, struct data *train, int64_t steps)
{
    const struct train_options *o = l->o;
    const struct engine_info *info = engine_info(l->engine);
    const struct params *p = trainer_params(l->trainer);
    struct data_stats s;
    data_stats(train, &s);
    loop_plan_line(l, "model", "%s, %s, %.2f million weights", info->name, info->arch,
                   (double)info->params / 1e6);
    loop_plan_line(l, "trained", "%.2f million numbers in %zu tensors", (double)p->count / 1e6,
                   p->n);
    loop_plan_line(l, "records", "%llu used of %llu (%llu too long, %llu empty, %llu cut)",
                   (unsigned long long)s.used, (unsigned long long)s.records,
                   (unsigned long long)s.too_long, (unsigned long long)s.empty,
                   (unsigned long long)s.truncated);
    loop_plan_line(l, "tokens", "%llu, %llu of them learned; longest %zu, mean %zu",
                   (unsigned long long)s.tokens, (unsigned long long)s.targets, s.longest, s.mean);
    double batch = (double)(o->batch * o->accumulation);
    double a_step = s.sequences ? (double)s.tokens / (double)s.sequences * batch : 0;
    if (o->packing && strcmp(o->packing, "none") != 0)
        a_step = batch * (double)o->max_length;
    loop_plan_line(l, "steps", "%lld of %.0f items, about %.0f tokens each", (long long)steps,
                   batch, a_step);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Of the largest pass: sequences fill it up, but a single one, or a pair, always fits. */
static size_t fits_tokens(const struct loop *l, const struct loop_pass *p)
{
    size_t most = num_max((size_t)l->o->pass_tokens, p->unit * p->longest);
    return num_max(num_min(most, p->shard), 1);
}

/* What would help. */
static void fits_remedies(const struct loop *l, const struct loop_pass *p, size_t tokens,
                          const struct trainer_memory *m, uint64_t engine, char *out, size_t cap)
{
    char less[32];
    struct trainer_memory with;
    size_t n = 0;
    bool one = tokens <= p->unit * p->longest;
    trainer_need(l->trainer, tokens, p->longest, true, &with);
    *out = 0;
    if (!l->o->recompute && with.values < m->values)
        n += (size_t)snprintf(out + n, cap - n, "--gradient-checkpointing (activations %s), ",
                              progress_bytes(less, sizeof less, (double)with.values));
    if (!l->o->use_peft && m->state > m->values)
        n += (size_t)snprintf(out + n, cap - n, "--use-peft, ");
    if (engine > m->values)
        n += (size_t)snprintf(out + n, cap - n, "a smaller --max-num-seqs, ");
    snprintf(out + n, cap - n, "%sa smaller %s", n ? "or " : "", one ? p->option : "--pass-tokens");
}

int loop_fits(struct loop *l, const struct loop_pass *p, struct err *e)
{
    const struct engine_info *info = engine_info(l->engine);
    size_t tokens = fits_tokens(l, p), have = quota_memory(""), here = comm_here(l->env->comm);
    struct trainer_memory m;
    trainer_need(l->trainer, tokens, p->longest, l->o->recompute, &m);
    /* The engine's own sessions: completions are sampled there. */
    uint64_t engine = info->cache * info->kv_token_bytes + info->scratch_bytes;
    uint64_t need = m.state + m.cache + m.values + engine;
    char all[32], state[32], cache[32], values[32], room[32], remedies[256];
    progress_bytes(all, sizeof all, (double)need);
    progress_bytes(state, sizeof state, (double)m.state);
    progress_bytes(cache, sizeof cache, (double)(m.cache + engine));
    progress_bytes(values, sizeof values, (double)m.values);
    progress_bytes(room, sizeof room, (double)(have / here));
    if (l->o->dry_run)
        loop_plan_line(l, "memory",
                       "%s beside the weights (%.2f GB): gradients and moments %s, keys and values "
                       "%s, activations %s for %zu tokens at once; %s are free",
                       all, (double)info->weight_bytes / 1e9, state, cache, values, tokens, room);
    if (have == SIZE_MAX || need <= have / here)
        return 0;
    fits_remedies(l, p, tokens, &m, engine, remedies, sizeof remedies);
    return err_set(e, ERR_NOMEM,
                   "a pass of %zu tokens (the longest sequence has %zu) needs %s of memory: "
                   "gradients and moments %s, keys and values %s, activations %s; %s are free%s. "
                   "Give %s",
                   tokens, p->longest, all, state, cache, values, room,
                   here > 1 ? " for each of this machine's ranks" : "", remedies);
}
