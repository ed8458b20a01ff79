/* Fuzzing regular expressions: what compiles leads somewhere at every step. */
#include "fuzz_grammar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct grammar *g;
    struct err e = {0};
    int code = grammar_new_regex(&g, (const char *)data, size, &e);
    if (code) {
        must(!g && e.code == code && e.text[0]);
        return 0;
    }
    fuzz_walk(g, data, size);
    grammar_unref(g);
    return 0;
}
