/* The interactive chat: prompt, commands with a slash, answers. */
#ifndef PONDER_CLI_REPL_H
#define PONDER_CLI_REPL_H

#include "cli/talk.h"

/* Runs until the user leaves. `t` is ready to be asked. */
int repl_run(struct talk *t, struct err *e);

#endif
