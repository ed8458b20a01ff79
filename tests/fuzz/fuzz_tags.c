/* Fuzzing structural tags: what compiles leads somewhere at every step. */
#include "fuzz_grammar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct grammar *g;
    struct err e = {0};
    json_t *tag = json_loadb((const char *)data, size, JSON_DECODE_ANY, NULL);
    if (!tag)
        return 0;
    const struct grammar_form f = {.kind = GRAMMAR_TAGS, .json = tag};
    int code = grammar_new(&g, &f, &e);
    json_decref(tag);
    if (code) {
        must(!g && e.code == code && e.text[0]);
        return 0;
    }
    fuzz_walk(g, data, size);
    grammar_unref(g);
    return 0;
}
