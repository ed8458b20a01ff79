/*
 * data tokenizer: a vocabulary made from texts, as the tokenizer files of a model of DeepSeek-R1's
 * kind: its control tokens, its chat template, single digits.
 */
#include "base/file.h"
#include "base/folder.h"
#include "base/num.h"
#include "cli/command.h"
#include "convert/hf_files.h"
#include "text/bpe_train.h"
#include "text/chat.h"
#include "train/data_tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENIZER_SPECIALS = 7 + OPT_LIST_MAX, TOKENIZER_TEMPLATE = 1 << 20 };

/* Ids from 0 on. The first three have roles. */
static const struct bpe_special tokenizer_special[] = {
    {"<｜begin▁of▁sentence｜>", 1},
    {"<｜end▁of▁sentence｜>", 1},
    {"<｜▁pad▁｜>", 1},
    {"<｜User｜>", 1},
    {"<｜Assistant｜>", 1},
    {"<think>", 0},
    {"</think>", 0},
};

/* The form of R1's chats: system, then turns; a thought is opened for the model, and is left out of
   earlier turns. */
static const char tokenizer_template[] =
    "{%- macro text(content) -%}"
    "{%- if content is string -%}{{ content }}{%- elif content -%}"
    "{%- for part in content -%}{{ part if part is string else part.text }}{%- endfor -%}"
    "{%- endif -%}{%- endmacro -%}"
    "{{- bos_token -}}"
    "{%- for m in messages if m.role == 'system' -%}"
    "{{- '' if loop.first else '\\n\\n' -}}{{- text(m.content) -}}"
    "{%- endfor -%}"
    "{%- for m in messages -%}"
    "{%- if m.role == 'user' -%}{{- '<｜User｜>' -}}{{- text(m.content) -}}"
    "{%- elif m.role == 'assistant' -%}"
    "{%- set answer = text(m.content) -%}"
    "{{- '<｜Assistant｜>' -}}"
    "{{- answer.split('</think>')[-1].lstrip('\\n') if '</think>' in answer else answer -}}"
    "{{- eos_token -}}"
    "{%- elif m.role != 'system' -%}"
    "{{- raise_exception('unknown role: ' ~ m.role) -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<｜Assistant｜><think>\\n' -}}{%- endif -%}";

struct tokenizer_options {
    struct opt_list input, special;
    const char *out, *pretok, *template;
    int64_t vocab, max_token, min_count;
};

#define AT(field) offsetof(struct tokenizer_options, field)
// clang-format off
static const struct opt tokenizer_rows[] = {
    {.name = "vocab-size", .kind = OPT_SIZE, .arg = "N", .min = 263, .max = 1 << 24, .value = "32768", .offset = AT(vocab),
     .help = "tokens in all: 7 control tokens, 256 bytes, the rest merges"},
    {.name = "output", .brief = 'o', .alias = "out", .kind = OPT_STRING, .arg = "DIR", .offset = AT(out),
     .help = "folder for tokenizer.json, tokenizer_config.json and generation_config.json"},
    {.name = "input", .kind = OPT_LIST, .arg = "FILE", .offset = AT(input),
     .help = "more files; may be given several times"},
    {.name = "special", .kind = OPT_LIST, .arg = "TOKEN", .offset = AT(special),
     .help = "further control tokens; may be given several times"},
    {.name = "pre-tokenizer", .kind = OPT_STRING, .arg = "NAME", .value = "smollm", .offset = AT(pretok),
     .help = "how texts are cut, by the names of GGUF files: smollm (each digit alone), deepseek-v3 (three digits), …"},
    {.name = "max-token-length", .kind = OPT_INT, .arg = "BYTES", .min = 2, .max = 1 << 12, .shown = "no bound", .offset = AT(max_token),
     .help = "longest token; a Chinese character has 3 bytes"},
    {.name = "min-frequency", .kind = OPT_INT, .arg = "N", .min = 1, .max = 1e9, .value = "2", .offset = AT(min_count),
     .help = "rarer pairs are not merged"},
    {.name = "chat-template", .kind = OPT_STRING, .arg = "FILE", .shown = "R1's form", .offset = AT(template),
     .help = "Jinja template of the chat"},
};
// clang-format on
#undef AT

static const struct opt_group tokenizer_groups[] = {
    {"Options", tokenizer_rows, NUM_COUNT(tokenizer_rows), 0}};

static int tokenizer_add(void *arg, const char *s, size_t n, struct err *e)
{
    return bpe_trainer_add(arg, s, n, e);
}

static int tokenizer_count_files(struct cli *c, const struct tokenizer_options *o,
                                 struct bpe_trainer *t, struct err *e)
{
    int rc = 0;
    for (int i = 0; !rc && i < c->n_args; i++)
        rc = data_texts(c->args[i], tokenizer_add, t, e);
    for (size_t i = 0; !rc && i < o->input.n; i++)
        rc = data_texts(o->input.v[i], tokenizer_add, t, e);
    return rc;
}

/* A template that does not parse is found here and not when the model is used. */
static int tokenizer_chat(const char *file, struct buf *text, struct err *e)
{
    struct chat *chat = NULL;
    int rc = file ? file_read(text, file, e)
                  : buf_append(text, tokenizer_template, sizeof tokenizer_template - 1, e);
    if (!rc)
        rc = chat_new_text(&chat, NULL, text->data, text->len, e);
    if (rc && file)
        err_ctx(e, "%.300s", file);
    chat_free(chat);
    return rc;
}

static int tokenizer_write_files(const struct tokenizer_options *o, const struct bpe_trainer *t,
                                 const struct buf *template, struct err *e)
{
    const struct bpe_special *s = tokenizer_special;
    json_t *tokenizer = NULL;
    json_t *config =
        json_pack("{ss sb sb sb ss ss ss ss%}", "tokenizer_class", "PreTrainedTokenizerFast",
                  "add_bos_token", 1, "add_eos_token", 0, "clean_up_tokenization_spaces", 0,
                  "bos_token", s[0].text, "eos_token", s[1].text, "pad_token", s[2].text,
                  "chat_template", template->data, template->len);
    json_t *generation =
        json_pack("{si si si sb sf sf}", "bos_token_id", 0, "eos_token_id", 1, "pad_token_id", 2,
                  "do_sample", 1, "temperature", 0.6, "top_p", 0.95);
    int rc = folder_make(o->out, e);
    if (!rc)
        rc = bpe_trainer_json(t, s[0].text, &tokenizer, e);
    if (!rc)
        rc = hf_write_json(o->out, "tokenizer_config.json", config, e);
    if (!rc)
        rc = hf_write_json(o->out, "generation_config.json", generation, e);
    if (!rc)
        rc = hf_write_json(o->out, "tokenizer.json", tokenizer, e);
    json_decref(config);
    json_decref(generation);
    json_decref(tokenizer);
    return rc;
}

static int tokenizer_run(struct cli *c, const void *opts, struct err *e)
{
    const struct tokenizer_options *o = opts;
    struct bpe_special special[TOKENIZER_SPECIALS];
    struct bpe_train_options how = {.pretok = o->pretok,
                                    .special = special,
                                    .n_special = NUM_COUNT(tokenizer_special),
                                    .vocab_size = (size_t)o->vocab,
                                    .max_token =
                                        o->max_token == OPT_UNSET ? 0 : (size_t)o->max_token,
                                    .min_count = (uint64_t)o->min_count};
    struct bpe_trainer *t = NULL;
    struct buf template;
    char path[4096], a[32], b[32], d[32];
    if (!o->out)
        return err_set(e, ERR_USAGE, "data tokenizer: --output is missing");
    if (!c->n_args && !o->input.n)
        return err_set(e, ERR_USAGE, "data tokenizer: no file to learn from was given");
    if (!file_join(path, sizeof path, o->out, "tokenizer.json"))
        return err_set(e, ERR_USAGE, "--output: the path is too long");
    if (file_kind(path) != FILE_NONE)
        return err_set(e, ERR_USAGE, "%.300s: is there already; give another folder", path);
    memcpy(special, tokenizer_special, sizeof tokenizer_special);
    for (size_t i = 0; i < o->special.n; i++)
        special[how.n_special++] = (struct bpe_special){o->special.v[i], 1};
    buf_init(&template, TOKENIZER_TEMPLATE);
    int rc = tokenizer_chat(o->template, &template, e);
    if (!rc)
        rc = bpe_trainer_new(&t, &how, e);
    if (!rc)
        rc = tokenizer_count_files(c, o, t, e);
    if (!rc)
        rc = bpe_trainer_run(t, e);
    if (!rc)
        rc = tokenizer_write_files(o, t, &template, e);
    if (!rc) {
        uint64_t tokens = bpe_trainer_tokens(t);
        printf("wrote %s: %s tokens; %s bytes of text are %s of them", o->out,
               term_group(a, sizeof a, bpe_trainer_vocab(t)),
               term_group(b, sizeof b, bpe_trainer_bytes(t)), term_group(d, sizeof d, tokens));
        printf(tokens ? " (%.2f bytes each)\n" : "\n",
               tokens ? (double)bpe_trainer_bytes(t) / (double)tokens : 0);
        if (bpe_trainer_vocab(t) < how.vocab_size)
            printf("the texts have no more pairs that come %lld times\n", (long long)o->min_count);
    }
    bpe_trainer_free(t);
    buf_release(&template);
    return rc;
}

const struct command cmd_data_tokenizer = {
    .name = "data tokenizer",
    .args = "FILE… --vocab-size N --output DIR",
    .summary = "make a tokenizer from texts",
    .about =
        "Makes a byte-level BPE tokenizer in Hugging Face's files, with the control tokens and "
        "the chat template of DeepSeek-R1: for a model of one's own (\"ponder init "
        "--tokenizer DIR\"). Of .jsonl files it reads prompts, completions, messages and "
        "texts, of others everything. The same texts give the same files.",
    .examples = "ponder data tokenizer train.jsonl --vocab-size 640 --output tokenizer/\n",
    .spec = {tokenizer_groups, NUM_COUNT(tokenizer_groups)},
    .opts_size = sizeof(struct tokenizer_options),
    .max_args = -1,
    .run = tokenizer_run,
};
