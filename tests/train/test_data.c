/*
 * Training data: every form gives the tokens and targets that it should, wrong lines are named,
 * weights and packs hold to the record and the token, and the order is a function of seed and step
 * that threads, memory and resuming do not change.
 */
#include "base/team.h"
#include "support/fail_alloc.h"
#include "support/golden.h"
#include "train/data.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
    char dir[64];
    struct source *src;
    struct tokenizer *tok;
    struct chat *chat;
    struct team *one, *three;
} t;

static void good(int rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->text);
}

/* ---- a model of R1's kind, and files ------------------------------------------------------------
 */

static const char *path_of(const char *name)
{
    static char path[8][128];
    static int next;
    char *p = path[next++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", t.dir, name);
    return p;
}

static const char *write_text(const char *name, const char *text)
{
    const char *path = path_of(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
    return path;
}

static void write_json(const char *name, json_t *o)
{
    char *text = json_dumps(o, 0);
    write_text(name, text);
    free(text);
    json_decref(o);
}

static int setup(void **state)
{
    static const char *const tokens[] = {"<｜begin▁of▁sentence｜>",
                                         "<｜end▁of▁sentence｜>",
                                         "<｜User｜>",
                                         "<｜Assistant｜>",
                                         "<think>",
                                         "</think>"};
    struct err e = {0};
    size_t n;
    strcpy(t.dir, "/tmp/ponder-data-XXXXXX");
    assert_non_null(mkdtemp(t.dir));
    char *text = golden_file("models/qwen2_tied/tokenizer.json", &n);
    json_t *o = json_loadb(text, n, 0, NULL), *added = json_array();
    free(text);
    for (int i = 0; i < 6; i++)
        json_array_append_new(added, json_pack("{s:i,s:s,s:b,s:b,s:b,s:b,s:b}", "id", 505 + i,
                                               "content", tokens[i], "single_word", 0, "lstrip", 0,
                                               "rstrip", 0, "normalized", 0, "special", i < 4));
    json_object_set_new(o, "added_tokens", added);
    write_json("tokenizer.json", o);
    write_json("tokenizer_config.json", json_pack("{s:s,s:s,s:b}", "bos_token", tokens[0],
                                                  "eos_token", tokens[1], "add_bos_token", 1));
    good(source_open(&t.src, t.dir, &e) || tokenizer_new(&t.tok, t.src, &e) ||
             chat_new(&t.chat, t.src, t.tok, NULL, &e) || team_new(&t.one, 1, &e) ||
             team_new(&t.three, 3, &e),
         &e);
    return 0;
}

static int teardown(void **state)
{
    chat_free(t.chat);
    tokenizer_free(t.tok);
    source_free(t.src);
    team_free(t.one);
    team_free(t.three);
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "a.jsonl",
                                        "b.jsonl"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(path_of(names[i]));
    return rmdir(t.dir);
}

static struct data_options options(const struct data_source *s, size_t n)
{
    return (struct data_options){.sources = s,
                                 .n_sources = n,
                                 .tokenizer = t.tok,
                                 .chat = t.chat,
                                 .batch = 4,
                                 .seed = 1,
                                 .ordered = true,
                                 .max_length = 256};
}

static struct data *opened(const struct data_options *o, struct team *team)
{
    struct data *d;
    struct err e = {0};
    good(data_open(&d, o, team, NULL, NULL, &e), &e);
    return d;
}

/* A sequence as text, targets in "[…]"; control tokens as they are written. */
static char *shown(const struct data_seq *s)
{
    struct buf b;
    bool on = false;
    buf_init(&b, 1 << 20);
    for (size_t i = 0; i < s->n; i++) {
        size_t n;
        const char *p = tokenizer_bytes(t.tok, s->ids[i], &n);
        if ((s->target[i] != 0) != on)
            assert_int_equal(buf_puts(&b, on ? "]" : "[", NULL), 0);
        on = s->target[i];
        assert_int_equal(buf_append(&b, p, n, NULL), 0);
    }
    if (on)
        assert_int_equal(buf_puts(&b, "]", NULL), 0);
    return b.data;
}

static void expect_seq(const struct data_seq *s, const char *want)
{
    char *text = shown(s);
    assert_string_equal(text, want);
    free(text);
    assert_int_equal(s->target[0], 0);
}

/* One line in, its only sequence out. */
static void expect(const char *line, const struct data_options *how, const char *want)
{
    struct data_source s = {write_text("a.jsonl", line), 1};
    struct data_options o = options(&s, 1);
    struct data_batch b;
    struct err e = {0};
    if (how) {
        o.use = how->use;
        o.whole = how->whole;
        o.assistant_only = how->assistant_only;
        o.system = how->system;
    }
    struct data *d = opened(&o, t.one);
    data_batch_init(&b);
    good(data_batch(d, 0, &b, &e), &e);
    assert_int_equal(b.n, 1);
    expect_seq(&b.seq[0], want);
    data_batch_release(&b);
    data_free(d);
}

/* ---- forms --------------------------------------------------------------------------------------
 */

#define BOS "<｜begin▁of▁sentence｜>"
#define EOS "<｜end▁of▁sentence｜>"
#define USER "<｜User｜>"
#define BOT "<｜Assistant｜>"

static void test_text(void **state)
{
    expect("{\"text\": \"ab cd\"}", NULL, BOS "[ab cd" EOS "]");
    /* what is written out is not added again */
    expect("{\"text\": \"" BOS USER "x" EOS "\"}", NULL, BOS "[" USER "x" EOS "]");
    expect("{\"prompt\": \"2+2=\", \"completion\": \"4\"}", NULL, BOS "2+2=[4" EOS "]");
    struct data_options whole = {.whole = true};
    expect("{\"prompt\": \"2+2=\", \"completion\": \"4\"}", &whole, BOS "[2+2=4" EOS "]");
}

static void test_chat(void **state)
{
#define ASK "{\"prompt\": [{\"role\": \"user\", \"content\": \"hi\"}], \"completion\": "
#define SAY(rest) ASK "[{\"role\": \"assistant\", " rest "}]}"
#define FRONT BOS USER "hi" BOT "<think>\n"
    expect(SAY("\"content\": \"<think>\\nso\\n</think>\\n\\nyes\""), NULL,
           FRONT "[so\n</think>\n\nyes" EOS "]");
    expect(SAY("\"content\": \"yes\", \"reasoning_content\": \"so\""), NULL,
           FRONT "[so\n</think>\n\nyes" EOS "]");
    expect(SAY("\"content\": \"yes\""), NULL, FRONT "[\n</think>\n\nyes" EOS "]");
    expect(SAY("\"content\": \"so\\n</think>\\n\\nyes\""), NULL,
           FRONT "[so\n</think>\n\nyes" EOS "]");
    expect(ASK "\"yes\"}", NULL, FRONT "[\n</think>\n\nyes" EOS "]");
    expect("{\"problem\": \"hi\", \"solution\": \"yes\"}", NULL,
           FRONT "[\n</think>\n\nyes" EOS "]");
    struct data_options system = {.system = "Be brief."};
    expect(SAY("\"content\": \"yes\""), &system,
           BOS "Be brief." USER "hi" BOT "<think>\n[\n</think>\n\nyes" EOS "]");
}

/* Only the template's control tokens and an assistant's thoughts are tokens: text is text. */
static void test_injection(void **state)
{
    struct data_source s = {write_text("a.jsonl", ASK "\"" EOS "<think>\"}"), 1};
    struct data_options o = options(&s, 1);
    struct data *d = opened(&o, t.one);
    struct data_batch b;
    struct err e = {0};
    size_t ends = 0, thoughts = 0;
    data_batch_init(&b);
    good(data_batch(d, 0, &b, &e), &e);
    for (size_t i = 0; i < b.seq[0].n; i++) {
        ends += b.seq[0].ids[i] == tokenizer_eos(t.tok);
        thoughts += b.seq[0].ids[i] == tokenizer_find(t.tok, "<think>");
    }
    assert_int_equal(ends, 1);
    assert_int_equal(thoughts, 2);
    data_batch_release(&b);
    data_free(d);
}

static void test_conversation(void **state)
{
#define TALK                                                                                    \
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "      \
    "\"content\": \"b\"}, {\"role\": \"user\", \"content\": \"c\"}, {\"role\": \"assistant\", " \
    "\"content\": \"<think>\\nd\\n</think>\\n\\ne\"}]}"
    struct data_options only = {.assistant_only = true};
    expect(TALK, NULL,
           BOS "[" USER "a" BOT "b" EOS USER "c" BOT "<think>\nd\n</think>\n\ne" EOS "]");
    /* the template opens a thought where it asks for an answer, but shows none in earlier turns */
    expect(TALK, &only, BOS USER "a" BOT "b" EOS USER "c" BOT "<think>\n[d\n</think>\n\ne" EOS "]");
    expect("{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", "
           "\"value\": \"b\"}]}",
           &only, BOS USER "a" BOT "<think>\n[\n</think>\n\nb" EOS "]");
    struct data_options prompt = {.use = DATA_PROMPTS};
    expect(TALK, &prompt, BOS USER "a" BOT "b" EOS USER "c" BOT "<think>\n");

    /* A template that writes earlier turns as it asked for them: all of them are targets. */
    static const char chatml[] =
        "{% for m in messages %}{{ '<｜User｜>' if m.role == 'user' else '<｜Assistant｜>' }}"
        "{{ m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}";
    struct chat *own = t.chat;
    struct err e = {0};
    good(chat_new_text(&t.chat, t.tok, chatml, strlen(chatml), &e), &e);
    expect(TALK, &only,
           USER "a" EOS BOT "[b" EOS "]" USER "c" EOS BOT "[<think>\nd\n</think>\n\ne" EOS "]");
    chat_free(t.chat);
    t.chat = own;
}

static void test_pairs(void **state)
{
    struct data_source s = {
        write_text("a.jsonl",
                   "{\"prompt\": \"p \", \"chosen\": \"good\", \"rejected\": \"bad\"}\n"
                   "{\"chosen\": \"one two\", \"rejected\": \"one three\", \"weight\": 0.5}\n"),
        1};
    struct data_options o = options(&s, 1);
    struct data_batch b;
    struct err e = {0};
    o.use = DATA_PAIRS;
    struct data *d = opened(&o, t.three);
    data_batch_init(&b);
    good(data_batch(d, 0, &b, &e), &e);
    assert_int_equal(b.items, 2);
    assert_int_equal(b.n, 4);
    expect_seq(&b.seq[0], BOS "p [good" EOS "]");
    expect_seq(&b.seq[1], BOS "p [bad" EOS "]");
    expect_seq(&b.seq[2], BOS "one [two" EOS "]");
    expect_seq(&b.seq[3], BOS "one [three" EOS "]");
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(b.seq[i].role, i % 2 ? DATA_REJECTED : DATA_CHOSEN);
        assert_int_equal(b.seq[i].record, i / 2);
        assert_true(b.seq[i].weight == (i < 2 ? 1.0f : 0.5f));
    }
    for (size_t k = 0; k <= DATA_SHARDS; k++) /* a pair is never cut */
        assert_int_equal(b.shard[k] % 2, 0);
    data_batch_release(&b);
    data_free(d);
}

static void test_labels(void **state)
{
    struct data_source s = {
        write_text("a.jsonl", "{\"prompt\": \"p \", \"completion\": \"a\", \"label\": true}\n"
                              "{\"prompt\": \"p \", \"completion\": \"b\", \"label\": 0}\n"
                              "{\"prompt\": \"p \", \"completion\": \"c\", \"label\": \"x\"}\n"
                              "{\"prompt\": \"p \", \"completion\": \"d\"}\n"),
        1};
    static const int want[] = {1, 0, -1, -1};
    for (size_t keep = 0; keep < 2; keep++) { /* kept in memory, and read again */
        struct data_options o = options(&s, 1);
        struct data_batch b;
        struct err e = {0};
        o.keep = keep;
        struct data *d = opened(&o, t.one);
        data_batch_init(&b);
        good(data_batch(d, 0, &b, &e), &e);
        for (size_t i = 0; i < 4; i++)
            assert_int_equal(b.seq[i].label, want[i]);
        data_batch_release(&b);
        data_free(d);
    }
}

static void test_prompts(void **state)
{
    struct data_source s = {write_text("a.jsonl", "\xef\xbb\xbf{\"prompt\": \"p\", \"gold\": 4}\r\n"
                                                  "\n  \n"
                                                  "{\"question\": \"hi\", \"answer\": \"#### 5\"}"),
                            1};
    struct data_options o = options(&s, 1);
    struct data_batch b;
    struct err e = {0};
    char where[200];
    json_t *row;
    o.use = DATA_PROMPTS;
    struct data *d = opened(&o, t.one);
    data_batch_init(&b);
    good(data_batch(d, 0, &b, &e), &e);
    assert_int_equal(b.n, 2);
    assert_int_equal(b.targets, 0);
    expect_seq(&b.seq[0], BOS "p");
    expect_seq(&b.seq[1], FRONT);
    assert_false(b.seq[0].thinking);
    assert_true(b.seq[1].thinking);
    good(data_record(d, b.seq[0].record, &row, &e), &e);
    assert_int_equal(json_integer_value(json_object_get(row, "gold")), 4);
    json_decref(row);
    good(data_record(d, b.seq[1].record, &row, &e), &e);
    assert_string_equal(json_string_value(json_object_get(row, "answer")), "#### 5");
    json_decref(row);
    assert_non_null(strstr(data_where(d, b.seq[1].record, where, sizeof where), "a.jsonl: line 4"));
    assert_int_not_equal(data_record(d, 99, &row, &e), 0);
    data_batch_release(&b);
    data_free(d);
}

/* ---- what is wrong is told ----------------------------------------------------------------------
 */

static void refused(const char *text, enum data_use use, int code, const char *a, const char *b)
{
    struct data_source s = {write_text("a.jsonl", text), 1};
    struct data_options o = options(&s, 1);
    struct data *d = NULL;
    struct err e = {0};
    o.use = use;
    assert_int_equal(data_open(&d, &o, t.three, NULL, NULL, &e), code);
    assert_null(d);
    if (!strstr(e.text, a) || !strstr(e.text, b))
        fail_msg("\"%s\" holds neither \"%s\" nor \"%s\"", e.text, a, b);
}

static void test_bad(void **state)
{
    static const char ok[] = "{\"text\": \"x\"}\n";
    char text[4096];
    static const struct {
        const char *line, *word;
        enum data_use use;
    } rows[] = {
        {"{\"text\": 5}", "\"text\" is an integer", DATA_LEARN},
        {"{\"text\": \"x\"", "not valid JSON", DATA_LEARN},
        {"[1]", "an array", DATA_LEARN},
        {"{\"txt\": \"x\"}", "has \"txt\"", DATA_LEARN},
        {"{\"prompt\": \"x\", \"completion\": [{\"role\": \"assistant\", \"content\": \"\"}]}",
         "\"completion\" is a list", DATA_LEARN},
        {"{\"messages\": []}", "\"messages\" has no messages", DATA_LEARN},
        {"{\"messages\": [{\"content\": \"x\"}]}", "message 1: \"role\" is missing", DATA_LEARN},
        {"{\"messages\": [{\"role\": \"user\"}]}", "\"content\" is missing", DATA_LEARN},
        {"{\"messages\": [{\"role\": \"user\", \"content\": 1}]}", "\"content\" is an integer",
         DATA_LEARN},
        {"{\"messages\": [{\"role\": \"bard\", \"content\": \"x\"}]}", "unknown role", DATA_LEARN},
        {"{\"text\": \"x\", \"weight\": -1}", "\"weight\"", DATA_LEARN},
        {"{\"prompt\": \"x\", \"chosen\": \"y\"}", "\"rejected\"", DATA_PAIRS},
        {"{\"chosen\": \"y\", \"rejected\": []}", "\"rejected\"", DATA_PAIRS},
        {"{\"prompt\": null}", "\"prompt\" is null", DATA_PROMPTS},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *front = rows[i].use == DATA_LEARN ? ok : "";
        snprintf(text, sizeof text, "%s\n%s\n", front, rows[i].line);
        refused(
            text, rows[i].use, ERR_FORMAT,
            rows[i].use == DATA_LEARN ? "a.jsonl: line 3: " : "a.jsonl: line 2: ", rows[i].word);
    }
    /* the first of several, whatever thread meets one first */
    size_t n = 0;
    for (int i = 0; i < 200; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s", i < 150 ? ok : "{}\n");
    refused(text, DATA_LEARN, ERR_FORMAT, "line 151: ", "(and 49 more lines are wrong)");
    refused("", DATA_LEARN, ERR_FORMAT, "a.jsonl", "empty");
    refused("[\n{}]", DATA_LEARN, ERR_FORMAT, "a.jsonl", "array");
    refused("{\"prompt\": \"x\", \"completion\": \"\", \"weight\": 1e99}", DATA_LEARN, ERR_FORMAT,
            "line 1", "\"weight\"");
}

static void test_lengths(void **state)
{
    struct data_source s = {write_text("a.jsonl", "{\"text\": \"0123456789\"}\n{\"text\": \"0\"}\n"
                                                  "{\"prompt\": \"0123456789\", \"completion\": "
                                                  "\"1\"}\n"),
                            1};
    struct data_options o = options(&s, 1);
    struct data_stats n;
    struct data_batch b;
    struct err e = {0};
    o.max_length = 5;
    struct data *d = opened(&o, t.one);
    data_stats(d, &n);
    assert_int_equal(n.records, 3);
    assert_int_equal(n.used, 2);
    assert_int_equal(n.truncated, 2);
    assert_int_equal(n.cut, 7 + 8);
    assert_int_equal(n.empty, 1); /* of the third only the prompt is left */
    assert_int_equal(n.longest, 13);
    assert_int_equal(n.longest_record, 2);
    assert_int_equal(n.tokens, 5 + 3);
    assert_int_equal(n.targets, 4 + 2);
    assert_int_equal(n.bucket[1], 1); /* 3 */
    assert_int_equal(n.bucket[3], 2); /* 12, 13 */
    data_batch_init(&b);
    good(data_batch(d, 0, &b, &e), &e);
    expect_seq(&b.seq[0], BOS "[0123]");
    expect_seq(&b.seq[1], BOS "[0" EOS "]");
    data_free(d);
    o.overflow = DATA_DROP;
    d = opened(&o, t.one);
    data_stats(d, &n);
    assert_int_equal(n.used, 1);
    assert_int_equal(n.too_long, 2);
    data_batch_release(&b);
    data_free(d);
    o.max_length = 2;
    struct data *none;
    assert_int_equal(data_open(&none, &o, t.one, NULL, NULL, &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "3 are longer than 2 tokens"));
}

/* ---- order, weights, packs ----------------------------------------------------------------------
 */

/* `n` texts of different lengths, which no other file has. */
static const char *write_many(const char *name, size_t n, char letter)
{
    struct buf b;
    buf_init(&b, 1 << 24);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(buf_printf(&b, NULL, "{\"text\": \"%c%zu %.*s\"}\n", letter, i,
                                    (int)(i * 7 % 23), "xyxyxyxyxyxyxyxyxyxyxyxy"),
                         0);
    const char *path = write_text(name, b.data);
    buf_release(&b);
    return path;
}

/* Adds how often each record came in an epoch. */
static size_t count_epoch(struct data *d, uint64_t epoch, unsigned *times)
{
    struct data_batch b;
    struct err e = {0};
    uint64_t from, to;
    size_t tokens = 0;
    data_batch_init(&b);
    good(data_steps(d, epoch, &from, &e) || data_steps(d, epoch + 1, &to, &e), &e);
    for (uint64_t step = from; step < to; step++) {
        good(data_batch(d, step, &b, &e), &e);
        assert_int_equal(b.epoch, epoch);
        tokens += b.tokens;
        for (size_t i = 0; i < b.n; i++)
            times[b.seq[i].record]++;
        assert_int_equal(b.shard[0], 0);
        assert_int_equal(b.shard[DATA_SHARDS], b.n);
    }
    data_batch_release(&b);
    return tokens;
}

static void test_weights(void **state)
{
    struct data_source s[] = {{write_many("a.jsonl", 40, 'a'), 0.25},
                              {write_many("b.jsonl", 10, 'b'), 2}};
    struct data_options o = options(s, 2);
    unsigned times[512] = {0}, total[512] = {0};
    o.ordered = false;
    struct data *d = opened(&o, t.one);
    for (uint64_t epoch = 0; epoch < 8; epoch++) {
        size_t a = 0, b = 0;
        memset(times, 0, sizeof times);
        (void)count_epoch(d, epoch, times);
        for (size_t i = 0; i < data_records(d); i++) {
            assert_true(times[i] <= (i < 40 ? 1 : 2));
            *(i < 40 ? &a : &b) += times[i];
            total[i] += times[i];
        }
        assert_int_equal(a, 10);
        assert_int_equal(b, 20);
    }
    /* a quarter an epoch: in eight epochs each came twice */
    for (size_t i = 0; i < 40; i++)
        assert_int_equal(total[i], 2);
    data_free(d);
}

static bool same_batch(const struct data_batch *a, const struct data_batch *b)
{
    bool same = a->n == b->n && a->tokens == b->tokens && a->targets == b->targets &&
                !memcmp(a->shard, b->shard, sizeof a->shard);
    for (size_t i = 0; same && i < a->n; i++)
        same = a->seq[i].n == b->seq[i].n && a->seq[i].record == b->seq[i].record &&
               !memcmp(a->seq[i].ids, b->seq[i].ids, a->seq[i].n * sizeof(int32_t)) &&
               !memcmp(a->seq[i].target, b->seq[i].target, a->seq[i].n);
    return same;
}

/* Any step on its own is what it is when all are gone through, with other threads and memory. */
static void test_order(void **state)
{
    struct data_source s[] = {{write_many("a.jsonl", 300, 'a'), 1.5},
                              {write_many("b.jsonl", 50, 'b'), 1}};
    for (int packing = DATA_UNPACKED; packing <= DATA_WRAPPED; packing++) {
        struct data_options o = options(s, 2);
        struct data_batch x, y;
        struct err e = {0};
        size_t others = 0;
        o.ordered = false;
        o.packing = (enum data_packing)packing;
        o.max_length = 40;
        o.batch = 9;
        struct data *a = opened(&o, t.one);
        o.keep = 1;
        struct data *b = opened(&o, t.three);
        o.seed = 2;
        struct data *c = opened(&o, t.three);
        data_batch_init(&x);
        data_batch_init(&y);
        uint64_t steps;
        good(data_steps(b, 3, &steps, &e), &e);
        for (uint64_t i = 0; i < steps; i++) {
            good(data_batch(a, i, &x, &e), &e);
            good(data_batch(b, steps - 1 - i, &y, &e), &e);
            good(data_batch(b, i, &y, &e), &e);
            assert_true(same_batch(&x, &y));
            good(data_batch(c, i, &y, &e), &e);
            others += !same_batch(&x, &y);
        }
        assert_true(others * 10 > steps * 9);
        assert_int_equal(x.epoch, 2);
        good(data_batch(a, steps, &x, &e), &e);
        assert_int_equal(x.epoch, 3);
        data_batch_release(&x);
        data_batch_release(&y);
        data_free(a);
        data_free(b);
        data_free(c);
    }
}

static void test_packs(void **state)
{
    enum { ROOM = 40 };
    struct data_source s = {write_many("a.jsonl", 500, 'a'), 1};
    struct data_options o = options(&s, 1);
    struct data_stats all;
    o.max_length = 0;
    struct data *d = opened(&o, t.one);
    data_stats(d, &all);
    data_free(d);
    assert_int_equal(all.used, 500);
    for (int packing = DATA_BFD; packing <= DATA_WRAPPED; packing++) {
        struct data_batch b;
        struct err e = {0};
        unsigned times[600] = {0};
        uint64_t packs, tokens = 0;
        o.packing = (enum data_packing)packing;
        o.max_length = packing == DATA_BFD_SPLIT ? 16 : ROOM;
        o.batch = 1;
        o.ordered = false;
        d = opened(&o, t.three);
        data_batch_init(&b);
        good(data_steps(d, 1, &packs, &e), &e);
        for (uint64_t i = 0; i < packs; i++) {
            good(data_batch(d, i, &b, &e), &e);
            assert_true(b.tokens <= o.max_length);
            tokens += b.tokens;
            for (size_t k = 0; k < b.n; k++) {
                times[b.seq[k].record] += (unsigned)b.seq[k].n;
                assert_int_equal(b.seq[k].target[0], 0);
            }
        }
        assert_int_equal(tokens, all.tokens); /* nothing is lost, nothing comes twice */
        for (size_t i = 0; i < 500; i++)
            assert_true(times[i] > 0);
        uint64_t least = (all.tokens + o.max_length - 1) / o.max_length;
        if (packing == DATA_WRAPPED)
            assert_int_equal(packs, least);
        else /* the bound of best fit decreasing is 11/9; with so many short ones it is near 1 */
            assert_true(packs >= least && packs * 20 <= least * 21 + 20);
        data_batch_release(&b);
        data_free(d);
    }
}

static void test_split(void **state)
{
    struct data_source s = {write_many("a.jsonl", 1000, 'a'), 1};
    struct data_options o = options(&s, 1);
    unsigned train[1100] = {0}, test[1100] = {0};
    struct data_stats n;
    o.test_size = 0.2;
    o.batch = 64;
    struct data *d = opened(&o, t.three);
    (void)count_epoch(d, 0, train);
    data_free(d);
    o.test = true;
    d = opened(&o, t.one);
    (void)count_epoch(d, 0, test);
    data_stats(d, &n);
    data_free(d);
    for (size_t i = 0; i < 1000; i++)
        assert_int_equal(train[i] + test[i], 1);
    assert_true(n.used > 150 && n.used < 250); /* 200, four standard errors are 51 */

    /* the question decides, not its form, spelling or answer */
    static const char *const same[] = {
        "{\"prompt\": \"What  is 2+2?\", \"completion\": \"4\"}",
        "{\"prompt\": [{\"role\": \"system\", \"content\": \"x\"}, {\"role\": \"user\", "
        "\"content\": \"what is 2+2? \"}]}",
        "{\"problem\": \"What is\\n2+2?\", \"solution\": \"5\"}",
    };
    double first = -1;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        json_t *row = json_loads(same[i], 0, NULL);
        double x = data_split_point(row, NULL);
        json_decref(row);
        assert_true(x >= 0 && x < 1 && (first < 0 || x == first));
        first = x;
    }
}

static void test_alloc(void **state)
{
    struct data_source s[] = {
        {write_text("a.jsonl", TALK "\n" SAY("\"content\": \"yes\"") "\n{\"text\": \"x\"}\n"), 1.5},
        {write_text("b.jsonl", "{\"text\": \"y\"}\n"), 1}};
    struct data_options o = options(s, 2);
    o.packing = DATA_BFD;
    o.ordered = false;
    o.assistant_only = true;
    for (size_t n = 1;; n++) {
        struct err e = {0};
        struct data *d;
        struct data_batch b;
        data_batch_init(&b);
        fail_alloc_at(n);
        int rc = data_open(&d, &o, t.one, NULL, NULL, &e);
        for (uint64_t step = 0; !rc && step < 3; step++)
            rc = data_batch(d, step, &b, &e);
        bool failed = fail_alloc_stop();
        if (rc)
            assert_true(e.text[0] != 0);
        data_batch_release(&b);
        data_free(d);
        if (!failed) {
            good(rc, &e);
            break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),      cmocka_unit_test(test_chat),
        cmocka_unit_test(test_injection), cmocka_unit_test(test_conversation),
        cmocka_unit_test(test_pairs),     cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_labels),    cmocka_unit_test(test_bad),
        cmocka_unit_test(test_lengths),   cmocka_unit_test(test_weights),
        cmocka_unit_test(test_order),     cmocka_unit_test(test_packs),
        cmocka_unit_test(test_split),     cmocka_unit_test(test_alloc),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
