#include "train/data_options.h"

#include "train/data_tools.h"

#include <string.h>

int data_options_sources(struct data_options *d, const struct opt_list *files, struct arena *a,
                         struct err *e)
{
    struct data_source *s = arena_array(a, files->n, sizeof *s, e);
    int rc = s ? 0 : ERR_NOMEM;
    for (size_t i = 0; !rc && i < files->n; i++)
        rc = data_source_parse(&s[i], files->v[i], a, e);
    d->sources = s;
    d->n_sources = files->n;
    return rc;
}

void data_options_take(struct data_options *d, const struct train_options *o, enum data_use use)
{
    static const char *const packing[] = {"none", "bfd", "bfd-split", "wrapped"};
    d->use = use;
    d->packing = DATA_UNPACKED; /* pairs and prompts are never packed */
    for (int i = 0; i < 4 && use == DATA_LEARN && o->packing; i++)
        if (strcmp(o->packing, packing[i]) == 0)
            d->packing = (enum data_packing)i;
    d->overflow = o->overflow && strcmp(o->overflow, "drop") == 0 ? DATA_DROP : DATA_TRUNCATE;
    d->max_length = (size_t)o->max_length;
    d->ordered = o->ordered;
    d->whole = !o->completion_only;
    d->assistant_only = o->assistant_only;
    d->text = o->text_field;
    d->system = o->system;
    d->test_size = o->test_size;
}
