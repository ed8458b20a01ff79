/* Fuzzing TOML: what is read can be written as JSON and read again as the same, an error has words.
 */
#include "train/toml.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *v, *again;
    struct err e = {0};
    int rc = toml_parse(&v, (const char *)data, size, &e);
    if (rc) {
        must(!v && e.code == rc && e.text[0]);
        return 0;
    }
    must(json_is_object(v));
    char *text = json_dumps(v, JSON_COMPACT);
    must(text != NULL);
    again = json_loads(text, 0, NULL);
    must(json_equal(v, again));
    json_decref(again);
    json_decref(v);
    free(text);
    return 0;
}
