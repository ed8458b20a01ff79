/* What the fuzz targets of grammars share: a vocabulary of all bytes, and walks through masks. */
#ifndef PONDER_FUZZ_GRAMMAR_H
#define PONDER_FUZZ_GRAMMAR_H

#include "text/grammar.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* 256 bytes, some pairs of them, a control token and an end token. */
static struct grammar_vocab *fuzz_vocab(void)
{
    static const char
        head[] = "{\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{",
        tail[] = "}},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                 "\"trim_offsets\":true,\"use_regex\":true},\"decoder\":{\"type\":\"ByteLevel\"},"
                 "\"added_tokens\":[{\"id\":300,\"content\":\"<|im_end|>\",\"special\":true,"
                 "\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false},"
                 "{\"id\":301,\"content\":\"<think>\",\"special\":true,\"single_word\":false,"
                 "\"lstrip\":false,\"rstrip\":false,\"normalized\":false}]}";
    static const char *const more[] = {"\\\"}", "\\\",", "ab", "00", "\\\":", "[[", "{\\\"", "Ã©"};
    char text[16384];
    size_t n = (size_t)snprintf(text, sizeof text, "%s", head);
    unsigned other = 0;
    for (unsigned c = 0; c < 256; c++) {
        bool own = (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || c >= 174;
        unsigned cp = own ? c : 256 + other;
        other += !own;
        const char *escape = c == '"' || c == '\\' ? "\\" : "";
        char utf8[3] = {(char)cp, 0, 0};
        if (cp >= 128) {
            utf8[0] = (char)(0xc0 | cp >> 6);
            utf8[1] = (char)(0x80 | (cp & 63));
        }
        n += (size_t)snprintf(text + n, sizeof text - n, "\"%s%s\":%u,", escape, utf8, c);
    }
    for (unsigned i = 0; i < 8; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s\"%s\":%u", i ? "," : "", more[i],
                              256 + i);
    snprintf(text + n, sizeof text - n, "%s", tail);
    struct tokenizer *tok;
    struct grammar_vocab *v;
    struct err e = {0};
    must(!tokenizer_new_json(&tok, text, strlen(text), &e));
    must(!grammar_vocab_new(&v, tok, &e));
    tokenizer_free(tok);
    return v;
}

/*
 * Follows masks, choosing by the bytes of the input: there is always a token, and what is allowed
 * is taken. Only a stated limit may stop it.
 */
static void fuzz_walk(struct grammar *g, const uint8_t *steps, size_t n)
{
    static struct grammar_vocab *v; /* of all inputs */
    struct grammar_state *s;
    v = v ? v : fuzz_vocab();
    struct err e = {0};
    if (grammar_state_new(&s, g, v, GRAMMAR_THOUGHT_NONE, &e)) {
        must(e.code == ERR_LIMIT);
        return;
    }
    for (size_t i = 0; i < n && i < 64; i++) {
        const uint32_t *bits;
        int32_t id = -1;
        unsigned skip = steps[i] % 61;
        if (grammar_state_mask(s, &bits, &e)) {
            must(e.code == ERR_LIMIT);
            break;
        }
        for (int32_t k = 0; k < (int32_t)grammar_vocab_words(v) * 32; k++)
            if (bits[k / 32] >> (k % 32) & 1) {
                id = k;
                if (!skip--)
                    break;
            }
        must(id >= 0);
        if (grammar_state_accept(s, id, &e)) {
            must(e.code == ERR_LIMIT);
            break;
        }
    }
    grammar_state_free(s);
}

#endif
