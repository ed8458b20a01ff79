#include "base/cpu.h"
#include "cli/command.h"

#include <stdio.h>

static int version_run(struct cli *c, const void *opts, struct err *e)
{
    char cpu[128];
    cpu_model_name(cpu, sizeof cpu);
    printf("ponder " PONDER_VERSION "\n%s, %s\n", cpu, cpu_isa_name(cpu_best()));
    return 0;
}

const struct command cmd_version = {
    .name = "version",
    .args = "",
    .summary = "print the version and what the processor can do",
    .about = "Prints the version, the processor's name and the instruction set that is used.",
    .run = version_run,
};
