#include "cli/model_files.h"

#include "cli/locate.h"

#include <string.h>

int model_files_open(struct model_files *m, const char *name, struct err *e)
{
    char path[LOCATE_MAX];
    memset(m, 0, sizeof *m);
    int rc = locate_model(name, path, e);
    if (!rc)
        rc = source_open(&m->source, path, e);
    if (!rc)
        rc = tokenizer_new(&m->tokenizer, m->source, e);
    return rc;
}

void model_files_release(struct model_files *m)
{
    tokenizer_free(m->tokenizer);
    source_free(m->source);
    memset(m, 0, sizeof *m);
}
