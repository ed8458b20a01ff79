/*
 * Checkpoints of a run and its result. See loop.h and train/checkpoint.h.
 *
 * A checkpoint has three slabs (params.h): the values, and the optimizer's two moments, which ranks
 * have in parts; and as JSON the counters, the tokens seen and the sums of the log's next line.
 * Nothing else is needed: data, schedule and random numbers are functions of the step.
 */
#include "base/file.h"
#include "base/folder.h"
#include "base/num.h"
#include "convert/convert.h"
#include "train/loop_impl.h"
#include "train/lora.h"
#include "train/plot.h"
#include "train/steplog.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the configuration ----------------------------------------------------------------------- */

/* Options that change no bit of the result. */
static const char *const loop_free[] = {"version",
                                        "options.threads",
                                        "options.isa",
                                        "options.output-dir",
                                        "options.overwrite-output-dir",
                                        "options.resume-from-checkpoint",
                                        "options.save-steps",
                                        "options.save-total-limit",
                                        "options.pass-tokens",
                                        "options.gradient-checkpointing",
                                        "options.save-type",
                                        "options.dry-run",
                                        NULL};

static int loop_config(const struct loop *l, json_t **out, struct err *e)
{
    const struct opt_spec *spec = &l->stage->spec;
    struct buf text;
    json_t *options = json_object(), *model = NULL;
    buf_init(&text, 1 << 20);
    int rc = 0;
    for (size_t g = 0; !rc && g < spec->n; g++)
        for (size_t i = 0; !rc && i < spec->groups[g].n; i++) {
            const struct opt *o = &spec->groups[g].rows[i];
            buf_clear(&text);
            rc = opt_show(o, l->o, spec->groups[g].base, &text, e);
            if (!rc && text.len)
                json_object_set_new(options, o->name, json_stringn(text.data, text.len));
        }
    const struct engine_info *info = engine_info(l->engine);
    model = json_pack("{s:s,s:s,s:I}", "name", info->name, "architecture", info->arch, "parameters",
                      (json_int_t)info->params);
    *out = rc ? NULL
              : json_pack("{s:s,s:s,s:O,s:O}", "ponder", PONDER_VERSION, "stage", l->stage->name,
                          "model", model, "options", options);
    if (!rc && !*out)
        rc = err_nomem(e, 1024, "the configuration");
    json_decref(options);
    json_decref(model);
    buf_release(&text);
    return rc;
}

/* ---- saving ---------------------------------------------------------------------------------- */

static json_t *loop_state(const struct loop *l)
{
    json_t *sums = json_object();
    for (size_t i = 0; i < l->n_values; i++)
        json_object_set_new(sums, l->value[i].key,
                            json_pack("[f,f]", l->value[i].sum, l->value[i].count));
    const struct optim *o = trainer_optim(l->trainer);
    json_t *s =
        json_pack("{s:I,s:I,s:I,s:f,s:o}", "step", (json_int_t)l->step, "of", (json_int_t)l->steps,
                  "optimizer_steps", (json_int_t)o->steps, "tokens", l->tokens, "sums", sums);
    if (s && l->extra)
        json_object_set(s, "stage", l->extra);
    return s;
}

static int loop_write(struct loop *l, const float *values, struct err *e)
{
    const struct optim *o = trainer_optim(l->trainer);
    uint64_t n = o->params->total;
    struct checkpoint_tensor t[] = {
        {.name = "values", .dtype = "F32", .dims = 1, .shape = {n}, .data = values},
        {.name = "m", .dtype = "F32", .dims = 1, .shape = {n}, .data = o->m},
        {.name = "v", .dtype = "F32", .dims = 1, .shape = {n}, .data = o->v},
        {.name = "reference", .dtype = "F32", .dims = 1, .shape = {n}, .data = l->more},
    };
    struct checkpoint_part part[] = {{"train", t, NUM_COUNT(t) - !l->more}};
    json_t *state = loop_state(l);
    struct checkpoint c = {.step = l->step,
                           .state = state,
                           .metric = l->eval_step == l->step ? l->last_eval : NAN,
                           .parts = part,
                           .n_parts = 1};
    struct checkpoint_keep keep = {.last = (size_t)l->o->save_limit, .best = l->o->save_best};
    int rc = state ? 0 : err_nomem(e, 4096, "a checkpoint's state");
    rc = rc ? rc : run_sync(l->run, e);
    rc = rc ? rc : checkpoint_save(l->o->output, &c, &keep, e);
    json_decref(state);
    return rc;
}

/* RUN/plots, where there is cairo. Pictures are not worth a run: what goes wrong is only told. */
static void loop_plots(struct loop *l)
{
    static const char *const names[] = {"curves.svg", "curves.png"};
    char dir[RUN_PATH_MAX], path[RUN_PATH_MAX];
    struct plot_options o;
    struct plot *p = NULL;
    struct err e;
    if (!plot_has_cairo())
        return;
    plot_options_init(&o);
    int rc = file_join(dir, sizeof dir, l->o->output, "plots")
                 ? folder_make(dir, &e)
                 : err_set(&e, ERR_LIMIT, "the path is too long");
    rc = rc ? rc : plot_new(&p, &e);
    rc = rc ? rc : plot_add(p, l->o->output, &e);
    for (size_t i = 0; !rc && i < NUM_COUNT(names); i++)
        rc = file_join(path, sizeof path, dir, names[i])
                 ? plot_save(p, &o, path, &e)
                 : err_set(&e, ERR_LIMIT, "the path is too long");
    plot_free(p);
    if (rc && rc != ERR_NOTFOUND && l->env->log)
        log_line(l->env->log, LOG_WARN, "plots: %s", e.text);
}

int loop_save(struct loop *l, struct err *e)
{
    struct optim *o = trainer_optim(l->trainer);
    size_t n = o->params->total;
    int rc = comm_gather(l->env->comm, o->m, n, PARAMS_UNIT, e);
    rc = rc ? rc : comm_gather(l->env->comm, o->v, n, PARAMS_UNIT, e);
    if (rc || !l->run) {
        l->saved = rc ? l->saved : l->step;
        return rc;
    }
    float *values = params_slab(o->params, e);
    if (!values)
        return ERR_NOMEM;
    params_get(o->params, values, 0, n);
    if (!params_finite(values, n) || !params_finite(o->m, n) || !params_finite(o->v, n))
        rc = err_set(e, ERR_LIMIT,
                     "step %lld: weights or moments of the optimizer became NaN or infinite, so "
                     "they were not saved. Try a smaller --learning-rate",
                     (long long)l->step);
    rc = rc ? rc : loop_write(l, values, e);
    params_slab_free(o->params, values);
    if (rc)
        return rc;
    l->saved = l->step;
    loop_plots(l);
    return 0;
}

/* ---- going on -------------------------------------------------------------------------------- */

static int slab_read(struct checkpoint_in *c, const char *name, float *to, size_t n, struct err *e)
{
    struct checkpoint_tensor t = {.name = name, .dtype = "F32", .dims = 1, .shape = {n}};
    const void *data;
    size_t bytes;
    int rc = checkpoint_data(c, "train", &t, &data, &bytes, e);
    if (!rc)
        memcpy(to, data, bytes);
    return rc;
}

static int state_number(const json_t *s, const char *key, double *out, struct err *e)
{
    const json_t *v = json_object_get(s, key);
    *out = json_number_value(v);
    return json_is_number(v) ? 0
                             : err_set(e, ERR_FORMAT, "the checkpoint's state has no \"%s\"", key);
}

static int loop_read(struct loop *l, struct checkpoint_in *c, float *values, struct err *e)
{
    struct optim *o = trainer_optim(l->trainer);
    const json_t *s = checkpoint_state(c);
    double steps = 0;
    int rc = state_number(s, "optimizer_steps", &steps, e);
    rc = rc ? rc : state_number(s, "tokens", &l->tokens, e);
    rc = rc ? rc : slab_read(c, "values", values, o->params->total, e);
    rc = rc ? rc : slab_read(c, "m", o->m, o->params->total, e);
    rc = rc ? rc : slab_read(c, "v", o->v, o->params->total, e);
    if (!rc && l->more)
        rc = slab_read(c, "reference", l->more, o->params->total, e);
    checkpoint_drop(c, "train");
    if (rc)
        return rc;
    o->steps = (uint64_t)steps;
    l->step = checkpoint_step(c);
    l->extra = json_incref(json_object_get(s, "stage"));
    const char *key;
    json_t *v, *sums = json_object_get(s, "sums");
    json_object_foreach(sums, key, v)
    {
        if (l->n_values == LOOP_VALUES)
            break;
        struct loop_value *x = &l->value[l->n_values];
        *x = (struct loop_value){.sum = json_number_value(json_array_get(v, 0)),
                                 .count = json_number_value(json_array_get(v, 1))};
        /* Keys of the log are constants of the stage; this one lives with the state. */
        x->key = key;
        l->n_values++;
    }
    json_decref(l->resumed);
    l->resumed = json_incref(sums);
    return 0;
}

/* Rank 0's, for all. */
static int loop_share(struct loop *l, float *values, struct err *e)
{
    struct optim *o = trainer_optim(l->trainer);
    struct comm *c = l->env->comm;
    size_t bytes = o->params->total * sizeof(float);
    int rc = comm_tell(c, &l->step, sizeof l->step, e);
    rc = rc ? rc : comm_tell(c, &o->steps, sizeof o->steps, e);
    rc = rc ? rc : comm_tell(c, &l->tokens, sizeof l->tokens, e);
    if (rc || !l->step)
        return rc;
    l->saved = l->step;
    rc = comm_tell(c, values, bytes, e);
    rc = rc ? rc : comm_tell(c, o->m, bytes, e);
    rc = rc ? rc : comm_tell(c, o->v, bytes, e);
    if (!rc && l->more)
        rc = comm_tell(c, l->more, bytes, e);
    int64_t prompts = json_integer_value(json_object_get(l->extra, "prompts"));
    rc = rc ? rc : comm_tell(c, &prompts, sizeof prompts, e);
    if (!rc && !l->extra)
        l->extra = json_pack("{s:I}", "prompts", (json_int_t)prompts);
    if (!rc) {
        params_set(trainer_params(l->trainer), values, 0, o->params->total);
        trainer_changed(l->trainer);
    }
    return rc;
}

/* The newest checkpoint of the run, or the one asked for. */
static int loop_resume(struct loop *l, float *values, struct err *e)
{
    struct checkpoint_in *c = NULL;
    struct buf skipped;
    int64_t want = -1;
    buf_init(&skipped, 1 << 16);
    if (l->o->resume) {
        char *end;
        want = strtoll(l->o->resume, &end, 10);
        if (end == l->o->resume || *end || want < 1)
            return err_set(e, ERR_USAGE, "--resume-from-checkpoint %s: give the number of a step",
                           l->o->resume);
    }
    int rc = checkpoint_open(&c, l->o->output, want, &skipped, e);
    if (skipped.len && l->env->log)
        log_line(l->env->log, LOG_WARN, "%.*s", (int)skipped.len, skipped.data);
    if (rc == ERR_NOTFOUND && want < 0)
        rc = 0;
    else if (!rc)
        rc = loop_read(l, c, values, e);
    checkpoint_free(c);
    buf_release(&skipped);
    return rc ? rc : run_rewind(l->run, l->step ? l->step : -1, NULL, e);
}

/* Opens the run; *resumed says whether it was there, with the same options. */
static int loop_run_open(struct loop *l, bool *resumed, struct err *e)
{
    json_t *config = NULL, *was = NULL;
    enum run_mode mode = l->o->overwrite ? RUN_OVERWRITE : RUN_RESUME;
    *resumed = false;
    int rc = loop_config(l, &config, e);
    rc = rc ? rc : run_open(&l->run, l->o->output, mode, config, e);
    if (!rc && run_resumed(l->run)) {
        *resumed = true;
        rc = run_config(&was, l->o->output, e);
        rc = rc ? rc : run_config_same(was, config, loop_free, e);
    }
    json_decref(was);
    json_decref(config);
    return rc;
}

int loop_folder(struct loop *l, struct err *e)
{
    float *values = params_slab(trainer_params(l->trainer), e);
    bool resumed = false;
    if (!values)
        return ERR_NOMEM;
    int rc = comm_rank(l->env->comm) == 0 ? loop_run_open(l, &resumed, e) : 0;
    if (!rc && resumed)
        rc = loop_resume(l, values, e);
    if (!rc)
        rc = loop_share(l, values, e);
    params_slab_free(trainer_params(l->trainer), values);
    return rc;
}

/* The last step that has a line in the log: lines are written when all else of a step is. */
static int loop_last(struct loop *l, struct err *e)
{
    struct steplog_in in;
    char path[RUN_PATH_MAX];
    const char *line;
    size_t n;
    bool missing = false;
    snprintf(path, sizeof path, "%s/log.jsonl", l->o->output);
    int rc = steplog_in_open(&in, path, &missing, e);
    if (rc || missing)
        return rc;
    while (!(rc = steplog_in_next(&in, &line, &n, e)) && line)
        steplog_step(line, n, &l->step);
    steplog_in_close(&in);
    return rc;
}

int loop_folder_plain(struct loop *l, struct err *e)
{
    bool resumed = false;
    int rc = comm_rank(l->env->comm) == 0 ? loop_run_open(l, &resumed, e) : 0;
    if (!rc && resumed)
        rc = loop_last(l, e);
    if (!rc && resumed)
        rc = run_rewind(l->run, l->step ? l->step : -1, NULL, e);
    return rc ? rc : comm_tell(l->env->comm, &l->step, sizeof l->step, e);
}

/* ---- the result ------------------------------------------------------------------------------ */

/* Values of one tensor of the folder, row by row. */
struct export
{
    struct convert_plan *plan;
    const struct params *params;
    float **rows; /* (tensors of the plan), owned */
    size_t n;
    struct err *e;
};

static int export_one(struct export *x, const struct param *p)
{
    if (!p->info.row) /* not the model's: it is there as a whole */
        return 0;
    size_t i = convert_plan_find(x->plan, p->info.name);
    if (i == SIZE_MAX) /* what shares its values with another may have no tensor of its own */
        return p->same ? 0
                       : err_set(x->e, ERR_FORMAT, "the folder has no tensor \"%s\"", p->info.name);
    size_t n = (p->info.rows ? p->info.rows : 1) * p->info.cols;
    if (!x->rows[i]) {
        x->rows[i] = calloc(n, sizeof(float));
        if (!x->rows[i])
            return err_nomem(x->e, n * sizeof(float), "the result");
        int rc = convert_plan_replace(x->plan, i, x->rows[i], n, x->e);
        if (rc)
            return rc;
    }
    model_param_to_rows(&p->info, p->own.value, x->rows[i]);
    return 0;
}

/* What a killed process left of its result. */
static int export_tidy(const char *run, struct err *e)
{
    static const char part[] = ".model";
    char path[RUN_PATH_MAX];
    DIR *d = opendir(run);
    int rc = 0;
    if (!d)
        return err_errno(e, "%s", run);
    for (struct dirent *x; !rc && (x = readdir(d));)
        if (!strncmp(x->d_name, part, sizeof part - 1))
            rc = file_join(path, sizeof path, run, x->d_name)
                     ? folder_remove(path, e)
                     : err_set(e, ERR_LIMIT, "%.100s: the path is too long", run);
    closedir(d);
    return rc;
}

/* To a folder of another name first: RUN/model is whole or not there. */
static int loop_export(struct loop *l, struct err *e)
{
    struct convert_options o = {.format = CONVERT_HF,
                                .force = true,
                                .mix = mix_find(l->o->save_type),
                                .classifier = l->score != NULL};
    struct engine_parts parts;
    struct export x = {.params = trainer_params(l->trainer), .e = e};
    char path[RUN_PATH_MAX], part[RUN_PATH_MAX];
    if (!file_join(path, sizeof path, l->o->output, "model") ||
        !file_join(part, sizeof part, l->o->output, ".model"))
        return err_set(e, ERR_LIMIT, "%.100s: the path is too long", l->o->output);
    if (l->o->use_peft)
        return lora_write(path, x.params, l->adapter, l->o, e);
    engine_parts(l->engine, &parts);
    int rc = export_tidy(l->o->output, e);
    rc = rc ? rc : convert_plan_new(&x.plan, engine_source(l->engine), &o, e);
    if (rc)
        return rc;
    x.n = convert_plan_count(x.plan);
    x.rows = calloc(x.n, sizeof *x.rows);
    if (!x.rows)
        rc = err_nomem(e, x.n * sizeof *x.rows, "the result");
    if (!rc && l->score)
        rc =
            convert_plan_add(x.plan, l->score->param.name, 1, l->score->w.cols, l->score->value, e);
    for (size_t i = 0; !rc && i < x.params->n; i++)
        rc = export_one(&x, &x.params->p[i]);
    if (!rc)
        rc = convert_write(x.plan, part, parts.team, NULL, NULL, e);
    if (!rc && !(rc = folder_replace(part, path, e)))
        rc = folder_sync(l->o->output, e);
    for (size_t i = 0; x.rows && i < x.n; i++)
        free(x.rows[i]);
    free(x.rows);
    convert_plan_free(x.plan);
    return rc;
}

/* The values of the best checkpoint instead of the last ones. */
static int loop_best(struct loop *l, struct err *e)
{
    int64_t step;
    struct checkpoint_in *c = NULL;
    struct params *p = trainer_params(l->trainer);
    int rc = checkpoint_best(l->o->output, false, &step, e);
    if (rc)
        return rc == ERR_NOTFOUND ? 0 : rc;
    float *values = params_slab(p, e);
    if (!values)
        return ERR_NOMEM;
    rc = checkpoint_open(&c, l->o->output, step, NULL, e);
    rc = rc ? rc : slab_read(c, "values", values, p->total, e);
    if (!rc)
        params_set(p, values, 0, p->total);
    checkpoint_free(c);
    params_slab_free(p, values);
    return rc;
}

int loop_finish(struct loop *l, struct err *e)
{
    int rc = l->saved == l->step ? 0 : loop_save(l, e);
    if (rc || !l->run)
        return rc;
    if (l->o->save_best)
        rc = loop_best(l, e);
    rc = rc ? rc : loop_export(l, e);
    return rc ? err_ctx(e, "the result") : 0;
}
