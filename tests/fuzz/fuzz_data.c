/*
 * Fuzzing data sets: the first byte says how they are read (use, packing, splits, masks), the rest
 * is the file. Whatever opens gives batches whose sequences are whole and within their bounds.
 */
#include "train/data.h"
#include "train/data_tools.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Bytes are tokens; the control tokens of R1 and the tags of thoughts have ids of their own. */
static struct {
    char dir[32];
    struct tokenizer *tok;
    struct chat *chat;
    struct team *team;
} f;

static void must(bool ok)
{
    if (!ok)
        abort();
}

static const char *path_of(const char *name)
{
    static char path[64];
    snprintf(path, sizeof path, "%s/%s", f.dir, name);
    return path;
}

static void write_file(const char *name, const void *p, size_t n)
{
    int fd = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    must(fd >= 0 && write(fd, p, n) == (ssize_t)n);
    close(fd);
}

static void clean_up(void)
{
    unlink(path_of("a.jsonl"));
    rmdir(f.dir);
    chat_free(f.chat);
    tokenizer_free(f.tok);
    team_free(f.team);
}

static json_t *byte_tokenizer(void)
{
    static const char *const special[] = {"<s>",     "</s>",    "<｜User｜>", "<｜Assistant｜>",
                                          "<think>", "</think>"};
    json_t *vocab = json_object(), *added = json_array();
    for (int i = 0; i < 256; i++) { /* the byte alphabet of GPT-2, text/vocab.h */
        bool plain = (i >= 33 && i < 127) || (i >= 161 && i != 173);
        unsigned cp = (unsigned)i, k = 0;
        for (int j = 0; !plain && j < i; j++)
            k += !((j >= 33 && j < 127) || (j >= 161 && j != 173));
        if (!plain)
            cp = 256 + k;
        char s[3] = {(char)cp, 0, 0};
        if (cp >= 128) {
            s[0] = (char)(0xc0 | cp >> 6);
            s[1] = (char)(0x80 | (cp & 0x3f));
        }
        json_object_set_new(vocab, s, json_integer(i));
    }
    for (int i = 0; i < 6; i++)
        json_array_append_new(
            added, json_pack("{sissss}", "id", 256 + i, "content", special[i], "x", "y"));
    return json_pack("{so s{ss so s[]} s{ss sb sb}}", "added_tokens", added, "model", "type", "BPE",
                     "vocab", vocab, "merges", "pre_tokenizer", "type", "ByteLevel",
                     "add_prefix_space", 0, "use_regex", 1);
}

static void begin(void)
{
    static const char template[] =
        "{% for m in messages %}{{ '<｜User｜>' if m.role == 'user' else '<｜Assistant｜>' }}"
        "{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}";
    struct err e;
    strcpy(f.dir, access("/dev/shm", W_OK) ? "/tmp/fuzz-XXXXXX" : "/dev/shm/fuzz-XXXXXX");
    must(mkdtemp(f.dir) != NULL);
    json_t *o = byte_tokenizer();
    char *text = json_dumps(o, 0);
    must(text && !tokenizer_new_json(&f.tok, text, strlen(text), &e));
    must(!chat_new_text(&f.chat, f.tok, template, strlen(template), &e));
    must(!team_new(&f.team, 1, &e));
    free(text);
    json_decref(o);
    must(atexit(clean_up) == 0);
}

static void check_batch(const struct data *d, const struct data_options *o,
                        const struct data_batch *b)
{
    size_t tokens = 0, targets = 0;
    must(b->n && b->items && b->shard[0] == 0 && b->shard[DATA_SHARDS] == b->n);
    for (size_t i = 0; i < DATA_SHARDS; i++)
        must(b->shard[i] <= b->shard[i + 1]);
    for (size_t i = 0; i < b->n; i++) {
        const struct data_seq *s = &b->seq[i];
        json_t *row;
        must(s->n && s->n <= o->max_length && s->prompt <= s->n && !s->target[0]);
        tokens += s->n;
        for (size_t k = 0; k < s->n; k++) {
            must(s->ids[k] >= 0 && (size_t)s->ids[k] < tokenizer_count(f.tok));
            targets += s->target[k];
        }
        must(data_record(d, s->record, &row, NULL) == 0);
        json_decref(row);
    }
    must(tokens == b->tokens && targets == b->targets);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct data *d;
    struct err e = {0};
    if (!f.team)
        begin();
    if (!size || size > 1 << 14)
        return 0;
    uint8_t how = data[0];
    write_file("a.jsonl", data + 1, size - 1);
    struct data_source source = {path_of("a.jsonl"), how & 128 ? 1.5 : 1};
    struct data_options o = {.sources = &source,
                             .n_sources = 1,
                             .tokenizer = f.tok,
                             .chat = f.chat,
                             .use = (enum data_use)(how % 3),
                             .packing = how % 3 ? DATA_UNPACKED : (enum data_packing)(how / 3 % 4),
                             .max_length = how & 16 ? 12 : 400,
                             .batch = 3,
                             .seed = how,
                             .assistant_only = how & 32,
                             .whole = how & 64,
                             .keep = how & 1 ? 1 : 0};
    int rc = data_open(&d, &o, f.team, NULL, NULL, &e);
    must(rc ? rc == e.code && e.text[0] && !d : d != NULL);
    if (!rc) {
        struct data_batch b;
        uint64_t steps;
        data_batch_init(&b);
        must(!data_steps(d, 2, &steps, &e));
        for (uint64_t i = 0; i < steps && i < 40; i++) {
            must(!data_batch(d, i, &b, &e));
            check_batch(d, &o, &b);
        }
        data_batch_release(&b);
        data_free(d);
    }
    struct data_clean c = {
        .path = source.path, .against = &source.path, .n_against = 1, .ngram = 3};
    rc = data_decontaminate(&c, &e);
    must(rc || !c.kept || !c.removed || c.kept + c.removed > 1);
    return 0;
}
