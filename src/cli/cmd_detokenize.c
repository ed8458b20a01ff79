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

static int detokenize_id(const struct tokenizer *t, long long id, struct buf *raw, size_t number,
                         struct err *e)
{
    size_t n;
    if (id < 0 || (size_t)id >= tokenizer_count(t))
        return err_set(e, ERR_FORMAT,
                       "line %zu: token id %lld is outside the vocabulary (0 to %zu)", number, id,
                       tokenizer_count(t) - 1);
    const char *s = tokenizer_bytes(t, (int32_t)id, &n);
    int rc = buf_append(raw, s, n, e);
    return rc ? err_ctx(e, "line %zu", number) : 0;
}

static const char *detokenize_space(const char *s, const char *end)
{
    while (s < end && (*s == ' ' || *s == '\t' || *s == '\r'))
        s++;
    return s;
}

/*
 * A plain array of at most nine digits each, read in place: there may be millions. *plain becomes
 * false when the line is anything else, and a JSON parser has to say what is wrong with it.
 */
static int detokenize_plain(const struct tokenizer *t, const char *s, size_t n, struct buf *raw,
                            size_t number, bool *plain, struct err *e)
{
    const char *end = s + n;
    *plain = false;
    s = detokenize_space(s, end);
    if (s == end || *s++ != '[')
        return 0;
    for (;;) {
        const char *first = s = detokenize_space(s, end);
        long long id = 0;
        while (s < end && *s >= '0' && *s <= '9' && s - first < 10)
            id = id * 10 + (*s++ - '0');
        if (s == first || s - first > 9 || (*first == '0' && s - first > 1))
            return 0;
        int rc = detokenize_id(t, id, raw, number, e);
        if (rc)
            return rc;
        s = detokenize_space(s, end);
        if (s == end || (*s != ',' && *s != ']'))
            return 0;
        if (*s++ == ']')
            break;
    }
    *plain = detokenize_space(s, end) == end;
    return 0;
}

static int detokenize_json(const struct tokenizer *t, const char *s, size_t n, struct buf *raw,
                           size_t number, struct err *e)
{
    json_t *v = NULL, *x;
    size_t i;
    int rc = lines_parse(s, n, number, &v, e);
    if (!rc && !json_is_array(v))
        rc = err_set(e, ERR_FORMAT, "line %zu is not a JSON array of token ids", number);
    for (i = 0; !rc && i < json_array_size(v); i++) {
        x = json_array_get(v, i);
        rc = json_is_integer(x)
                 ? detokenize_id(t, json_integer_value(x), raw, number, e)
                 : err_set(e, ERR_FORMAT, "line %zu: element %zu is not a whole number", number, i);
    }
    json_decref(v);
    return rc;
}

static int detokenize_line(const struct tokenizer *t, const char *s, size_t n, struct buf *raw,
                           size_t number, struct err *e)
{
    bool plain;
    buf_clear(raw);
    int rc = detokenize_plain(t, s, n, raw, number, &plain, e);
    if (rc || plain)
        return rc;
    buf_clear(raw);
    return detokenize_json(t, s, n, raw, number, e);
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
    const char *s = NULL;
    size_t n = 0;
    lines_init(&in, STDIN_FILENO);
    buf_init(&raw, (size_t)LINES_MAX * 4);
    buf_init(&out, (size_t)LINES_MAX * 8);
    int rc = model_files_open(&m, c->args[0], e);
    while (!rc && !(rc = lines_next(&in, &s, &n, e)) && s) {
        rc = detokenize_line(m.tokenizer, s, n, &raw, in.number, e);
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
