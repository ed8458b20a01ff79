/*
 * The entry point: finds the command, reads its options, runs it, turns its error into a line on
 * stderr and an exit status. The only place that exits.
 */
#include "cli/command.h"
#include "comm/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* `ponder --version`, `ponder -h` and the like are the commands of that name. */
static const char *main_command(const char *word)
{
    if (!strcmp(word, "--version") || !strcmp(word, "-v") || !strcmp(word, "-V"))
        return "version";
    if (!strcmp(word, "--help") || !strcmp(word, "-h"))
        return "help";
    return word;
}

static int main_count_args(const struct cli *c, struct err *e)
{
    const struct command *k = c->command;
    if (c->n_args >= k->min_args && (k->max_args < 0 || c->n_args <= k->max_args))
        return 0;
    if (c->n_args < k->min_args)
        return err_set(e, ERR_USAGE, "%s: an argument is missing: ponder %s %s", k->name, k->name,
                       k->args);
    return err_set(e, ERR_USAGE, "%s: unexpected argument \"%.100s\": ponder %s%s%s", k->name,
                   c->args[k->max_args], k->name, *k->args ? " " : "", k->args);
}

static int main_help(const struct cli *c, struct err *e)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    int width = term_width(&c->term);
    int rc = help_command(c->command, width > 100 ? 100 : width, &out, e);
    if (!rc)
        fputs(out.data, stdout);
    buf_release(&out);
    return rc;
}

static int main_run(struct cli *c, int argc, char **argv, struct err *e)
{
    bool help = false;
    const char *word = argc > 1 ? main_command(argv[1]) : "help";
    int words = 1;
    c->command = command_words(argc - 1, argv + 1, &words);
    if (!c->command)
        c->command = command_find(word);
    if (!c->command)
        return word[0] == '-'
                   ? err_set(e, ERR_USAGE,
                             "unknown option \"%.100s\" before the command: ponder COMMAND …", word)
                   : command_unknown(word, e);
    void *opts = calloc(1, c->command->opts_size + 1);
    if (!opts)
        return err_nomem(e, c->command->opts_size, "options");
    int skip = argc > 1 ? 1 + words : 1;
    c->args = argv + skip;
    int rc = opt_defaults(&c->command->spec, opts, e);
    if (!rc)
        rc = opt_parse(&c->command->spec, opts, argc - skip, c->args, &c->n_args, &help, e);
    if (!rc && help)
        rc = main_help(c, e);
    else if (!rc && !(rc = main_count_args(c, e)) && !(rc = interrupt_new(&c->interrupt, e)))
        rc = c->command->run(c, opts, e);
    struct err lost = {0};
    if (term_flush(&lost) && !rc) {
        *e = lost;
        rc = lost.code;
    }
    interrupt_free(c->interrupt);
    free(opts);
    return rc;
}

int main(int argc, char **argv)
{
    struct err e = {0};
    struct cli c = {0};
    term_init(&c.term);
    int rc = main_run(&c, argc, argv, &e);
    if (rc && rc != ERR_CANCELLED)
        fprintf(stderr, "ponder: %s\n", e.text);
    comm_end();
    return command_status(rc);
}
