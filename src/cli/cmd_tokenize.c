/* tokenize: JSON strings in, arrays of token ids out. */
#include "base/num.h"
#include "cli/command.h"
#include "cli/lines.h"
#include "cli/model_files.h"

#include <unistd.h>

struct tokenize_options {
    int special, bos;
};

static const struct opt tokenize_rows[] = {
    {.name = "special",
     .kind = OPT_FLAG,
     .offset = offsetof(struct tokenize_options, special),
     .help = "recognise control tokens like <|im_end|> in the text; without it text is only text"},
    {.name = "bos",
     .kind = OPT_FLAG,
     .offset = offsetof(struct tokenize_options, bos),
     .help = "put the token for the beginning of a text in front where the model wants one"},
};

static const struct opt_group tokenize_groups[] = {
    {"Options", tokenize_rows, NUM_COUNT(tokenize_rows), 0},
};

/* "[1,2,3]"; digits by hand, because there may be millions of ids. */
static int tokenize_put(struct buf *out, const struct ids *ids, struct err *e)
{
    int rc = buf_putc(out, '[', e);
    for (size_t i = 0; !rc && i < ids->n; i++) {
        char digits[16];
        size_t at = sizeof digits;
        uint32_t v = (uint32_t)ids->v[i];
        do
            digits[--at] = (char)('0' + v % 10);
        while (v /= 10);
        if (i)
            digits[--at] = ',';
        rc = buf_append(out, digits + at, sizeof digits - at, e);
    }
    return rc ? rc : buf_putc(out, ']', e);
}

static int tokenize_line(const struct tokenizer *t, unsigned flags, const json_t *v, size_t number,
                         struct ids *ids, struct buf *out, struct err *e)
{
    if (!json_is_string(v))
        return err_set(e, ERR_FORMAT, "line %zu is not a JSON string", number);
    ids->n = 0;
    int rc = tokenizer_encode(t, json_string_value(v), json_string_length(v), flags, NULL, ids, e);
    if (rc)
        return err_ctx(e, "line %zu", number);
    return tokenize_put(out, ids, e);
}

static int tokenize_run(struct cli *c, const void *opts, struct err *e)
{
    const struct tokenize_options *o = opts;
    unsigned flags = (o->special ? TOKENIZER_SPECIAL : 0u) | (o->bos ? TOKENIZER_BOS : 0u);
    struct model_files m;
    struct lines in;
    struct ids ids;
    struct buf out;
    json_t *v = NULL;
    lines_init(&in, STDIN_FILENO);
    ids_init(&ids, LINES_MAX);
    buf_init(&out, (size_t)LINES_MAX * 8);
    int rc = model_files_open(&m, c->args[0], e);
    while (!rc && !(rc = lines_json(&in, &v, e)) && v) {
        rc = tokenize_line(m.tokenizer, flags, v, in.number, &ids, &out, e);
        json_decref(v);
        if (!rc)
            rc = lines_print(&out, e);
    }
    buf_release(&out);
    ids_release(&ids);
    lines_release(&in);
    model_files_release(&m);
    return rc;
}

const struct command cmd_tokenize = {
    .name = "tokenize",
    .args = "MODEL",
    .summary = "text to token ids",
    .about =
        "Each line of standard input is a JSON string; prints one JSON array of token ids a "
        "line. MODEL may also be a folder with only tokenizer files, or a tokenizer.json. Blank "
        "lines are skipped.",
    .examples = "echo '\"Hello, world\"' | ponder tokenize model.gguf\n",
    .spec = {tokenize_groups, NUM_COUNT(tokenize_groups)},
    .opts_size = sizeof(struct tokenize_options),
    .min_args = 1,
    .max_args = 1,
    .run = tokenize_run,
};
