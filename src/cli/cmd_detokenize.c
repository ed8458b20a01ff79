/* detokenize: arrays of token ids in, JSON strings out. */
#include "base/num.h"
#include "cli/command.h"
#include "cli/lines.h"
#include "cli/model_files.h"

#include <unistd.h>

struct detokenize_options {
    int bytes;
};

static const struct opt detokenize_rows[] = {
    {.name = "bytes",
     .kind = OPT_FLAG,
     .offset = offsetof(struct detokenize_options, bytes),
     .help = "print the exact bytes in lower-case hexadecimal instead of text"},
};

static const struct opt_group detokenize_groups[] = {
    {"Options", detokenize_rows, NUM_COUNT(detokenize_rows), 0},
};

static int detokenize_bytes(const struct tokenizer *t, const json_t *v, struct buf *raw,
                            size_t number, struct err *e)
{
    size_t i;
    json_t *x;
    if (!json_is_array(v))
        return err_set(e, ERR_FORMAT, "line %zu is not a JSON array of token ids", number);
    json_array_foreach(v, i, x)
    {
        size_t n;
        json_int_t id = json_integer_value(x);
        if (!json_is_integer(x))
            return err_set(e, ERR_FORMAT, "line %zu: element %zu is not a whole number", number, i);
        if (id < 0 || (size_t)id >= tokenizer_count(t))
            return err_set(e, ERR_FORMAT,
                           "line %zu: token id %lld is outside the vocabulary (0 to %zu)", number,
                           (long long)id, tokenizer_count(t) - 1);
        const char *s = tokenizer_bytes(t, (int32_t)id, &n);
        int rc = buf_append(raw, s, n, e);
        if (rc)
            return err_ctx(e, "line %zu", number);
    }
    return 0;
}

static int detokenize_hex(const struct buf *raw, struct buf *out, struct err *e)
{
    static const char digit[] = "0123456789abcdef";
    int rc = buf_reserve(out, raw->len * 2 + 2, e);
    if (rc)
        return rc;
    buf_putc(out, '"', e);
    for (size_t i = 0; i < raw->len; i++) {
        unsigned char c = (unsigned char)raw->data[i];
        char two[2] = {digit[c >> 4], digit[c & 15]};
        buf_append(out, two, 2, e);
    }
    return buf_putc(out, '"', e);
}

static int detokenize_run(struct cli *c, const void *opts, struct err *e)
{
    const struct detokenize_options *o = opts;
    struct model_files m;
    struct lines in;
    struct buf raw, out;
    json_t *v = NULL;
    lines_init(&in, STDIN_FILENO);
    buf_init(&raw, (size_t)LINES_MAX * 4);
    buf_init(&out, (size_t)LINES_MAX * 8);
    int rc = model_files_open(&m, c->args[0], e);
    while (!rc && !(rc = lines_json(&in, &v, e)) && v) {
        buf_clear(&raw);
        rc = detokenize_bytes(m.tokenizer, v, &raw, in.number, e);
        json_decref(v);
        if (!rc)
            rc = o->bytes ? detokenize_hex(&raw, &out, e)
                          : lines_put_string(&out, raw.data, raw.len, e);
        if (!rc)
            rc = lines_print(&out, e);
    }
    buf_release(&out);
    buf_release(&raw);
    lines_release(&in);
    model_files_release(&m);
    return rc;
}

const struct command cmd_detokenize = {
    .name = "detokenize",
    .args = "MODEL",
    .summary = "token ids to text",
    .about = "Each line of standard input is a JSON array of token ids; prints a JSON string a "
             "line. Bytes that are no UTF-8 become U+FFFD; control tokens are shown.",
    .examples = "echo '[9707,11,1879]' | ponder detokenize model.gguf\n",
    .spec = {detokenize_groups, NUM_COUNT(detokenize_groups)},
    .opts_size = sizeof(struct detokenize_options),
    .min_args = 1,
    .max_args = 1,
    .run = detokenize_run,
};
