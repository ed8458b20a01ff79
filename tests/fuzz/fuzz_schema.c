/* Fuzzing JSON schemas: what compiles leads somewhere at every step. */
#include "fuzz_grammar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct grammar *g;
    struct err e = {0};
    json_t *schema = json_loadb((const char *)data, size, JSON_DECODE_ANY, NULL);
    if (!schema)
        return 0;
    int code = grammar_new_schema(&g, schema, &e);
    json_decref(schema);
    if (code) {
        must(!g && e.code == code && e.text[0]);
        return 0;
    }
    fuzz_walk(g, data, size);
    grammar_unref(g);
    return 0;
}
