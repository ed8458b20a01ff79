/*
 * train recipe: a file of commands, one after the other, in one folder.
 *
 * A recipe is a table [set] of values with names, and an array [[step]] of commands of this
 * program: their options are the step's keys, `args` what stands without a name. "{name}" in a text
 * is replaced by the value, "{dir}" by the folder. What is finished is noted in DIR/recipe.json
 * with the options it had, so that the same command goes on where it was; a training step in the
 * middle goes on from its own checkpoint. A step that changed since it was finished is an error:
 * nothing is silently kept or thrown away.
 */
#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/folder.h"
#include "base/num.h"
#include "cli/command.h"
#include "comm/comm.h"
#include "train/config.h"
#include "train/steplog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RECIPE_STEPS = 256, RECIPE_TEXT = 1 << 16, RECIPE_ARGS = 32 };

struct recipe_options {
    const char *dir, *only, *from;
    struct opt_list set;
    int dry_run;
};

#define AT(field) offsetof(struct recipe_options, field)
// clang-format off
static const struct opt recipe_rows[] = {
    {.name = "output-dir", .brief = 'o', .alias = "output", .kind = OPT_STRING, .arg = "DIR", .offset = AT(dir),
     .help = "folder of everything that the steps make"},
    {.name = "set", .kind = OPT_LIST, .arg = "NAME=VALUE", .offset = AT(set),
     .help = "another value for a name of the recipe's table [set]"},
    {.name = "only", .kind = OPT_STRING, .arg = "STEP", .offset = AT(only),
     .help = "this step alone"},
    {.name = "from", .kind = OPT_STRING, .arg = "STEP", .offset = AT(from),
     .help = "do that step and those behind it again"},
    {.name = "dry-run", .kind = OPT_FLAG, .offset = AT(dry_run),
     .help = "print the commands, run none"},
};
// clang-format on
#undef AT

static const struct opt_group recipe_groups[] = {
    {"Options", recipe_rows, NUM_COUNT(recipe_rows), 0}};

struct recipe {
    struct cli *cli;
    const struct recipe_options *o;
    const char *path;
    json_t *file, *set, *done; /* done: {step: {"command": …, "seconds": …}} */
    struct arena texts;
    struct comm *comm;
};

/* ---- values ---------------------------------------------------------------------------------- */

static int recipe_set(struct recipe *r, struct err *e)
{
    json_t *set = json_object_get(r->file, "set");
    r->set = set ? json_deep_copy(set) : json_object();
    if (!json_is_object(r->set))
        return err_set(e, ERR_FORMAT, "%s: \"set\" is no table", r->path);
    for (size_t i = 0; i < r->o->set.n; i++) {
        const char *eq = strchr(r->o->set.v[i], '=');
        char name[128];
        if (!eq || (size_t)(eq - r->o->set.v[i]) >= sizeof name)
            return err_set(e, ERR_USAGE, "--set %s: give NAME=VALUE", r->o->set.v[i]);
        snprintf(name, sizeof name, "%.*s", (int)(eq - r->o->set.v[i]), r->o->set.v[i]);
        if (!json_object_get(r->set, name))
            return err_set(e, ERR_USAGE, "--set %s: the recipe's table [set] has no \"%s\"",
                           r->o->set.v[i], name);
        json_object_set_new(r->set, name, json_string(eq + 1));
    }
    return 0;
}

/* A value as a command line has it; new places for texts. */
/* With the fewest digits that read back as the same number: 0.003, and not 0.0030000000000000001.
 */
static int recipe_number(struct buf *b, double v, struct err *e)
{
    char text[40] = "";
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    return buf_puts(b, text, e);
}

static int recipe_text(struct recipe *r, const json_t *v, const char **out, struct err *e);

/* The value called by what is between braces. */
static int recipe_name(struct recipe *r, const char *s, size_t n, struct buf *out, struct err *e)
{
    char name[128];
    const char *text;
    snprintf(name, sizeof name, "%.*s", (int)num_min(n, 127), s);
    if (!strcmp(name, "dir"))
        return buf_puts(out, r->o->dir, e);
    if (!strcmp(name, "recipe")) {
        const char *slash = strrchr(r->path, '/');
        return slash ? buf_append(out, r->path, (size_t)(slash - r->path), e)
                     : buf_putc(out, '.', e);
    }
    const json_t *v = json_object_get(r->set, name);
    if (!v || (json_is_string(v) && strchr(json_string_value(v), '{')))
        return err_set(e, ERR_FORMAT, "%s: there is no plain value called {%s} in [set]", r->path,
                       name);
    int rc = recipe_text(r, v, &text, e);
    return rc ? rc : buf_puts(out, text, e);
}

static int recipe_fill(struct recipe *r, const char *s, struct buf *out, struct err *e)
{
    int rc = 0;
    while (!rc && *s) {
        const char *open = strchr(s, '{'), *close = open ? strchr(open, '}') : NULL;
        bool name = open && close && close > open + 1;
        for (const char *p = open + 1; name && p < close; p++)
            name = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || *p == '_' ||
                   (*p >= '0' && *p <= '9');
        if (!name) { /* braces of JSON and the like stay */
            size_t n = open ? (size_t)(open - s) + 1 : strlen(s);
            rc = buf_append(out, s, n, e);
            s += n;
            continue;
        }
        rc = buf_append(out, s, (size_t)(open - s), e);
        rc = rc ? rc : recipe_name(r, open + 1, (size_t)(close - open - 1), out, e);
        s = close + 1;
    }
    return rc;
}

static int recipe_text(struct recipe *r, const json_t *v, const char **out, struct err *e)
{
    struct buf b;
    int rc = 0;
    buf_init(&b, RECIPE_TEXT);
    if (json_is_string(v))
        rc = recipe_fill(r, json_string_value(v), &b, e);
    else if (json_is_integer(v))
        rc = buf_printf(&b, e, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v))
        rc = recipe_number(&b, json_real_value(v), e);
    else if (json_is_boolean(v))
        rc = buf_puts(&b, json_is_true(v) ? "true" : "false", e);
    else
        rc = err_set(e, ERR_FORMAT, "%s: a value is a text, a number, true or false", r->path);
    *out = rc ? NULL : arena_strndup(&r->texts, b.data, b.len, e);
    buf_release(&b);
    return rc ? rc : *out ? 0 : ERR_NOMEM;
}

/* ---- a step ---------------------------------------------------------------------------------- */

struct recipe_step {
    const char *name;
    const struct command *command;
    void *opts;
    char *args[RECIPE_ARGS];
    int n_args;
    struct buf line; /* as it would be typed */
};

static int step_say(struct recipe_step *s, const char *text, struct err *e)
{
    bool plain = *text && !strpbrk(text, " \t\n\"'\\$*?{}[]()|&;<>`#");
    return plain ? buf_printf(&s->line, e, " %s", text) : buf_printf(&s->line, e, " '%s'", text);
}

static int step_option(struct recipe *r, struct recipe_step *s, const char *key, const json_t *v,
                       struct err *e)
{
    const char *text;
    if (json_is_array(v)) {
        size_t i;
        const json_t *one;
        int rc = 0;
        json_array_foreach(v, i, one) if (!rc) rc = step_option(r, s, key, one, e);
        return rc;
    }
    int rc = recipe_text(r, v, &text, e);
    size_t base;
    const struct opt *row = opt_find(&s->command->spec, key, strlen(key), &base);
    if (!rc && !row)
        return err_set(e, ERR_FORMAT, "step %s: ponder %s has no option --%s", s->name,
                       s->command->name, key);
    bool flag = row && (row->kind == OPT_FLAG || row->kind == OPT_SWITCH);
    if (!rc && flag)
        rc = buf_printf(&s->line, e, " --%s%s", json_is_true(v) ? "" : "no-", row->name);
    else if (!rc)
        rc = buf_printf(&s->line, e, " --%s", row->name);
    if (!rc && !flag)
        rc = step_say(s, text, e);
    rc = rc ? rc : opt_assign(&s->command->spec, s->opts, key, text, e);
    return rc == ERR_USAGE ? err_ctx(e, "step %s", s->name) : rc;
}

static int step_args(struct recipe *r, struct recipe_step *s, const json_t *list, struct err *e)
{
    size_t i;
    const json_t *v;
    int rc = 0;
    json_array_foreach(list, i, v)
    {
        const char *text;
        if (rc || s->n_args == RECIPE_ARGS)
            return rc ? rc : err_set(e, ERR_FORMAT, "step %s: too many args", s->name);
        if (!(rc = recipe_text(r, v, &text, e)) && !(rc = step_say(s, text, e)))
            s->args[s->n_args++] = (char *)(uintptr_t)text;
    }
    return rc;
}

/* Reads a step; its options are checked all the same when it will not run. */
static int step_read(struct recipe *r, struct recipe_step *s, const json_t *o, struct err *e)
{
    const char *key, *command = json_string_value(json_object_get(o, "command"));
    const json_t *v;
    *s = (struct recipe_step){.name = json_string_value(json_object_get(o, "name"))};
    buf_init(&s->line, RECIPE_TEXT * 4);
    if (!s->name || !command)
        return err_set(e, ERR_FORMAT, "%s: each step has a name and a command", r->path);
    s->command = command_find(command);
    if (!s->command)
        return command_unknown(command, e);
    s->opts = calloc(1, s->command->opts_size + 1);
    int rc = s->opts ? opt_defaults(&s->command->spec, s->opts, e)
                     : err_nomem(e, s->command->opts_size, "options");
    rc = rc ? rc : buf_printf(&s->line, e, "ponder %s", command);
    if (!rc)
        rc = step_args(r, s, json_object_get(o, "args"), e);
    json_object_foreach((json_t *)(uintptr_t)o, key, v)
    {
        if (rc)
            break;
        if (strcmp(key, "name") && strcmp(key, "command") && strcmp(key, "args"))
            rc = step_option(r, s, key, v, e);
    }
    int most = s->command->max_args;
    if (!rc && (s->n_args < s->command->min_args || (most >= 0 && s->n_args > most)))
        rc = err_set(e, ERR_FORMAT, "step %s: ponder %s takes %d to %d args, not %d", s->name,
                     command, s->command->min_args, most, s->n_args);
    return rc;
}

static void step_release(struct recipe_step *s)
{
    free(s->opts);
    buf_release(&s->line);
}

/* ---- the folder ------------------------------------------------------------------------------ */

static int recipe_state(struct recipe *r, char *path, size_t cap, struct err *e)
{
    json_error_t je;
    if (snprintf(path, cap, "%s/recipe.json", r->o->dir) >= (int)cap)
        return err_set(e, ERR_LIMIT, "%.100s: the path is too long", r->o->dir);
    r->done = json_load_file(path, 0, &je);
    if (!r->done && json_error_code(&je) == json_error_cannot_open_file)
        r->done = json_object();
    if (!json_is_object(r->done))
        return err_set(e, ERR_FORMAT, "%s: %s", path, je.text);
    return 0;
}

static int recipe_note(struct recipe *r, const struct recipe_step *s, double seconds,
                       const char *path, struct err *e)
{
    json_t *v = json_pack("{s:s%,s:f}", "command", s->line.data, s->line.len, "seconds", seconds);
    if (!v || json_object_set_new(r->done, s->name, v))
        return err_nomem(e, 4096, path);
    return steplog_save(path, r->done, e);
}

static int recipe_step(struct recipe *r, struct recipe_step *s, size_t i, size_t n,
                       const char *path, struct err *e)
{
    const json_t *was = json_object_get(r->done, s->name);
    const char *line = json_string_value(json_object_get(was, "command"));
    if (line && strcmp(line, s->line.data) != 0)
        return err_set(
            e, ERR_USAGE,
            "step %s was finished with other options; --from %s does it and what follows "
            "again, another --output-dir keeps both",
            s->name, s->name);
    if (line) {
        if (comm_rank(r->comm) == 0)
            fprintf(stderr, "[%zu/%zu] %s: done before\n", i, n, s->name);
        return 0;
    }
    bool mine = comm_rank(r->comm) == 0;
    if (mine)
        fprintf(stderr, "[%zu/%zu] %s: %s\n", i, n, s->name, s->line.data);
    double start = clock_seconds();
    struct cli c = *r->cli;
    c.command = s->command;
    c.args = s->args;
    c.n_args = s->n_args;
    int rc = 0;
    if (mine || !strncmp(s->command->name, "train ", 6))
        rc = s->command->run(&c, s->opts, e);
    fflush(stdout);
    if (rc)
        return err_ctx(e, "step %s", s->name);
    int32_t done = 1; /* the others wait here */
    rc = comm_tell(r->comm, &done, sizeof done, e);
    if (rc || !mine)
        return rc;
    return recipe_note(r, s, clock_seconds() - start, path, e);
}

/* Forgets that a step and those behind it are done. */
static int recipe_from(struct recipe *r, const json_t *steps, struct err *e)
{
    bool found = false;
    size_t i;
    const json_t *v;
    json_array_foreach(steps, i, v)
    {
        const char *name = json_string_value(json_object_get(v, "name"));
        found = found || (name && !strcmp(name, r->o->from));
        if (found && name)
            json_object_del(r->done, name);
    }
    return found ? 0 : err_set(e, ERR_USAGE, "--from %s: there is no such step", r->o->from);
}

static int recipe_all(struct recipe *r, struct err *e)
{
    const json_t *steps = json_object_get(r->file, "step");
    size_t i, n = json_array_size(steps), ran = 0;
    char path[4096];
    const json_t *v;
    if (!n || n > RECIPE_STEPS)
        return err_set(e, ERR_FORMAT, "%s: a recipe has 1 to %d [[step]]s", r->path, RECIPE_STEPS);
    int rc = recipe_state(r, path, sizeof path, e);
    if (!rc && r->o->from)
        rc = recipe_from(r, steps, e);
    /* All are read before the first one runs. */
    for (int pass = 0; !rc && pass < (r->o->dry_run ? 1 : 2); pass++)
        json_array_foreach(steps, i, v)
        {
            struct recipe_step s;
            rc = rc ? rc : step_read(r, &s, v, e);
            bool wanted = !rc && (!r->o->only || !strcmp(s.name, r->o->only));
            ran += wanted;
            if (!rc && pass == 0 && r->o->dry_run && wanted)
                printf("%s\n", s.line.data);
            if (!rc && pass == 1 && wanted)
                rc = recipe_step(r, &s, i + 1, n, path, e);
            step_release(&s);
            if (rc)
                break;
        }
    if (!rc && !ran)
        rc = err_set(e, ERR_USAGE, "--only %s: there is no such step", r->o->only);
    return rc;
}

static int recipe_run(struct cli *c, const void *opts, struct err *e)
{
    const struct recipe_options *o = opts;
    struct recipe r = {.cli = c, .o = o, .path = c->args[0]};
    arena_init(&r.texts, 1 << 26);
    int rc = o->dir ? config_read(&r.file, r.path, e)
                    : err_set(e, ERR_USAGE, "where does everything go? Give --output-dir");
    rc = rc ? rc : recipe_set(&r, e);
    rc = rc ? rc : comm_open(&r.comm, e);
    if (!rc && !o->dry_run)
        rc = folder_make(o->dir, e);
    rc = rc ? rc : recipe_all(&r, e);
    comm_close(r.comm, rc && rc != ERR_CANCELLED);
    json_decref(r.done);
    json_decref(r.set);
    json_decref(r.file);
    arena_release(&r.texts);
    return rc;
}

const struct command cmd_train_recipe = {
    .name = "train recipe",
    .args = "FILE --output-dir DIR",
    .summary = "run a recipe: commands from a file, one after the other",
    .about = "A recipe is a TOML or JSON file: [set] gives values names, and each [[step]] is a "
             "command of this program with its options as keys (recipes/ has R1's). \"{name}\" "
             "stands for a value of [set], \"{dir}\" for the folder, \"{recipe}\" for the recipe's "
             "own.\n\n"
             "The same command goes on where it was, also in the middle of a step.",
    .examples = "# the model that ponder ships, from an empty folder\n"
                "ponder train recipe recipes/r1.toml -o runs/r1\n"
                "# what it would do\n"
                "ponder train recipe recipes/r1.toml -o runs/r1 --dry-run",
    .spec = {recipe_groups, NUM_COUNT(recipe_groups)},
    .opts_size = sizeof(struct recipe_options),
    .min_args = 1,
    .max_args = 1,
    .run = recipe_run,
};
