/* The table of commands and what follows from it. */
#include "cli/command.h"

#include "base/num.h"

#include <string.h>

#define COMMAND(name) extern const struct command cmd_##name;
#include "cli/command.def"
#undef COMMAND

static const struct command *const command_rows[] = {
#define COMMAND(name) &cmd_##name,
#include "cli/command.def"
#undef COMMAND
};

const struct command *const *command_all(size_t *n)
{
    *n = NUM_COUNT(command_rows);
    return command_rows;
}

const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < NUM_COUNT(command_rows); i++)
        if (!strcmp(command_rows[i]->name, name))
            return command_rows[i];
    return NULL;
}

const struct command *command_words(int argc, char *const *argv, int *words)
{
    for (size_t i = 0; i < NUM_COUNT(command_rows) && argc > 1; i++) {
        const char *name = command_rows[i]->name, *gap = strchr(name, ' ');
        if (gap && strlen(argv[0]) == (size_t)(gap - name) &&
            !memcmp(argv[0], name, strlen(argv[0])) && !strcmp(argv[1], gap + 1)) {
            *words = 2;
            return command_rows[i];
        }
    }
    return NULL;
}

static const char *command_name_at(const void *arg, size_t i)
{
    return i < NUM_COUNT(command_rows) ? command_rows[i]->name : NULL;
}

int command_list(const struct cli *c, struct err *e)
{
    const char *first = c->command->name;
    size_t n = strlen(first);
    if (c->n_args)
        return err_set(e, ERR_USAGE,
                       "%s: there is no \"%.100s\"; \"ponder %s\" lists what there is", first,
                       c->args[0], first);
    for (size_t i = 0; i < NUM_COUNT(command_rows); i++) {
        const struct command *x = command_rows[i];
        if (!strncmp(x->name, first, n) && x->name[n] == ' ')
            printf("ponder %-18s %s\n", x->name, x->summary);
    }
    return 0;
}

int command_unknown(const char *name, struct err *e)
{
    const char *near = opt_nearest(name, command_name_at, NULL);
    if (near)
        return err_set(e, ERR_USAGE, "unknown command \"%.100s\"; did you mean \"%s\"?", name,
                       near);
    return err_set(e, ERR_USAGE, "unknown command \"%.100s\"; \"ponder help\" lists the commands",
                   name);
}

int command_status(int code)
{
    return code == ERR_OK ? 0 : code == ERR_USAGE ? 2 : code == ERR_CANCELLED ? 130 : 1;
}
