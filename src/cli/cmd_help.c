#include "base/num.h"
#include "cli/command.h"

#include <stdio.h>

struct help_options {
    int man;
    const char *completion;
};

static const struct opt help_rows[] = {
    {.name = "man",
     .kind = OPT_FLAG,
     .offset = offsetof(struct help_options, man),
     .help = "print a manual page (man(7) source)"},
    {.name = "completion",
     .kind = OPT_ENUM,
     .arg = "SHELL",
     .choices = "bash",
     .offset = offsetof(struct help_options, completion),
     .help = "print a completion script"},
};

static const struct opt_group help_groups[] = {
    {"Options", help_rows, NUM_COUNT(help_rows), 0},
};

static int help_run(struct cli *c, const void *opts, struct err *e)
{
    const struct help_options *o = opts;
    const struct command *k = NULL;
    struct buf out;
    int rc;
    if (c->n_args) {
        k = command_words(c->n_args, c->args, &(int){0});
        if (!k && c->n_args == 1)
            k = command_find(c->args[0]);
        if (!k)
            return command_unknown(c->args[0], e);
    }
    buf_init(&out, 1 << 20);
    int width = term_width(&c->term);
    if (o->completion)
        rc = help_completion(&out, e);
    else if (o->man)
        rc = help_man(k, &out, e);
    else if (k)
        rc = help_command(k, width > 100 ? 100 : width, &out, e);
    else
        rc = help_overview(&out, e);
    if (!rc)
        fputs(out.data, stdout);
    buf_release(&out);
    return rc;
}

const struct command cmd_help = {
    .name = "help",
    .args = "[COMMAND]",
    .summary = "tell about a command",
    .about = "Tells what the commands do, or all about one of them.",
    .examples = "# all about a command\n"
                "ponder help run\n"
                "# its manual page\n"
                "ponder help --man run | man -l -\n"
                "# completion in bash\n"
                "source <(ponder help --completion bash)\n",
    .spec = {help_groups, NUM_COUNT(help_groups)},
    .opts_size = sizeof(struct help_options),
    .max_args = 2,
    .run = help_run,
};
