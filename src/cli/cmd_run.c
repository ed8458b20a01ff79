/*
 * run: one answer, or a chat.
 *
 * Which of the arguments is the model: with --model none of them; else the first one when it names
 * a model; else, when PONDER_MODEL is set or the first one is several words, none.
 */
#include "base/file.h"
#include "base/num.h"
#include "cli/command.h"
#include "cli/lines.h"
#include "cli/locate.h"
#include "cli/repl.h"
#include "cli/talk.h"
#include "format/jsonin.h"
#include "text/grammar.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RUN_INPUT_MAX = 64 << 20, RUN_GRAMMAR_MAX = 16 << 20 };

struct run_options {
    const char *model, *system, *format, *grammar;
    int think, hide_thinking, word_wrap, verbose, json;
    int64_t think_budget;
    struct engine_options engine;
    struct sampling_options sampling;
};

#define AT(field) offsetof(struct run_options, field)
// clang-format off
static const struct opt run_rows[] = {
    {.name = "model", .brief = 'm', .kind = OPT_STRING, .arg = "MODEL", .offset = AT(model), .shown = "PONDER_MODEL",
     .help = "the model; all arguments are the prompt then"},
    {.name = "system", .kind = OPT_STRING, .arg = "TEXT", .offset = AT(system),
     .help = "what the model is told before the chat"},
    {.name = "think", .kind = OPT_SWITCH, .offset = AT(think), .shown = "as the model does",
     .help = "whether the model thinks before it answers"},
    {.name = "think-budget", .kind = OPT_INT, .arg = "N", .min = 0, .max = INT32_MAX, .shown = "as long as the model likes",
     .offset = AT(think_budget), .help = "tokens of a thought, at most: then it is closed and the answer begins"},
    {.name = "hide-thinking", .alias = "hidethinking", .kind = OPT_FLAG, .offset = AT(hide_thinking),
     .help = "let it think, but show only the answer"},
    {.name = "word-wrap", .alias = "wordwrap", .kind = OPT_SWITCH, .offset = AT(word_wrap), .shown = "on",
     .help = "break lines between words on a terminal"},
    {.name = "verbose", .brief = 'v', .kind = OPT_FLAG, .offset = AT(verbose), .env = "PONDER_VERBOSE",
     .help = "tell at the end what it cost: speed, share of the memory bandwidth, memory"},
    {.name = "format", .kind = OPT_STRING, .arg = "json|SCHEMA", .offset = AT(format),
     .help = "hold the answer to JSON: any object, or a JSON schema (a file, or its text)"},
    {.name = "grammar", .alias = "grammar-file", .kind = OPT_STRING, .arg = "FILE", .offset = AT(grammar),
     .help = "hold the answer to a grammar in llama.cpp's notation (GBNF)"},
    {.name = "json", .kind = OPT_FLAG, .offset = AT(json),
     .help = "print one JSON object with answer, reasoning, tool calls, timings and why it stopped"},
};
// clang-format on
#undef AT

static const struct opt_group run_groups[] = {
    {"Chat", run_rows, NUM_COUNT(run_rows), 0},
    {"Sampling (without these: what the model recommends)", options_sampling, OPTIONS_SAMPLING_N,
     offsetof(struct run_options, sampling)},
    {"Engine", options_engine, OPTIONS_ENGINE_N, offsetof(struct run_options, engine)},
};

/* Finds the model; *first is the index of the first argument that belongs to the prompt. */
static int run_model(const struct cli *c, const struct run_options *o, char path[LOCATE_MAX],
                     int *first, struct err *e)
{
    const char *env = getenv("PONDER_MODEL");
    *first = 0;
    if (o->model)
        return locate_model(o->model, path, e);
    if (!c->n_args)
        return locate_default(path, e);
    if (((env && *env) || locate_is_words(c->args[0])) && !locate_is_model(c->args[0]))
        return locate_default(path, e);
    *first = 1;
    return locate_model(c->args[0], path, e);
}

/* Whether standard input may hold something for us: a pipe, a file, a socket; not /dev/null. */
static bool run_has_input(const struct cli *c)
{
    struct stat st;
    return !c->term.in_tty && !fstat(STDIN_FILENO, &st) && !S_ISCHR(st.st_mode);
}

/* The prompt: what is piped in, an empty line, the arguments. */
static int run_prompt(const struct cli *c, int first, struct buf *out, struct err *e)
{
    int rc = 0;
    bool words = c->n_args > first;
    if (run_has_input(c) || (!words && !(c->term.in_tty && c->term.out_tty)))
        rc = lines_read_all(out, STDIN_FILENO, e);
    while (!rc && out->len && (out->data[out->len - 1] == '\n' || out->data[out->len - 1] == '\r'))
        out->data[--out->len] = 0;
    if (!rc && words && out->len)
        rc = buf_puts(out, "\n\n", e);
    for (int i = first; !rc && i < c->n_args; i++) {
        rc = buf_puts(out, c->args[i], e);
        if (!rc && i + 1 < c->n_args)
            rc = buf_putc(out, ' ', e);
    }
    return rc;
}

/* A schema from a file, or as it is when it begins with a brace. */
static int run_schema(struct grammar **out, const char *text, struct err *e)
{
    static const struct jsonin_limits limits = {
        .depth = 256, .containers = 1 << 20, .values = 1 << 22};
    struct buf file;
    json_t *schema = NULL;
    buf_init(&file, RUN_GRAMMAR_MAX);
    bool inside = *text == '{';
    int rc = inside ? buf_puts(&file, text, e) : file_read(&file, text, e);
    if (!rc) {
        rc = jsonin_object(&schema, file.data, file.len, &limits, false, e);
        rc = rc ? rc : grammar_new_schema(out, schema, e);
        if (rc)
            err_ctx(e, "--format %.200s", inside ? "" : text);
    }
    json_decref(schema);
    buf_release(&file);
    return rc;
}

/* What answers are held to; NULL: nothing. */
static int run_grammar(struct grammar **out, const struct run_options *o, struct err *e)
{
    struct buf file;
    *out = NULL;
    if (o->format && o->grammar)
        return err_set(e, ERR_USAGE, "--format and --grammar exclude each other");
    if (o->format)
        return strcmp(o->format, "json") ? run_schema(out, o->format, e) : grammar_new_json(out, e);
    if (!o->grammar)
        return 0;
    buf_init(&file, RUN_GRAMMAR_MAX);
    int rc = file_read(&file, o->grammar, e);
    if (!rc && (rc = grammar_new_gbnf(out, file.data, file.len, e)))
        err_ctx(e, "%.300s", o->grammar);
    buf_release(&file);
    return rc;
}

static int run_once(struct talk *t, const struct buf *prompt, bool json, struct err *e)
{
    struct view v;
    struct talk_answer a;
    char x[32];
    talk_answer_init(&a);
    view_init(&v, &t->cli->term, t->wrap, t->hide_thinking);
    int rc = talk_ask(t, prompt->data, prompt->len, json ? NULL : &v, &a, e);
    if (json && (!rc || rc == ERR_CANCELLED)) {
        json_t *o = talk_json(t, &a);
        struct err lost = {0};
        int bad = o ? lines_print_json(o, true, &lost) : err_nomem(&lost, 0, "the output");
        json_decref(o);
        if (bad && !rc) {
            *e = lost;
            rc = bad;
        }
    }
    if (!rc && a.stats.stop == GENERATE_CONTEXT)
        fprintf(stderr,
                "ponder: the context of %s tokens is full and the answer was cut off: --ctx gives "
                "more room\n",
                term_group(x, sizeof x, engine_info(t->engine)->ctx));
    if (!rc)
        talk_note_loop(t, &a);
    if (!rc && t->verbose)
        talk_report(t, &a);
    talk_answer_release(&a);
    return rc;
}

static int run_engine(struct cli *c, const struct run_options *o, const char *path,
                      struct engine *g, struct grammar *grammar, const struct buf *prompt,
                      bool chat, struct err *e)
{
    struct talk t;
    int rc = talk_init(&t, c, g, e);
    t.think = o->think;
    t.think_budget = o->think_budget;
    t.hide_thinking = o->hide_thinking;
    t.wrap = o->word_wrap != 0;
    t.bundled = locate_is_bundled(path);
    t.verbose = o->verbose;
    t.sampling = o->sampling;
    t.grammar = grammar;
    if (!rc)
        rc = talk_system(&t, o->system, e);
    if (!rc && o->think >= 0 && chat_thinking(engine_chat(g)) == CHAT_THINK_NONE)
        fprintf(stderr, "ponder: note: this model does not think; --%sthink changes nothing\n",
                o->think ? "" : "no-");
    if (!rc)
        rc = chat ? repl_run(&t, e) : run_once(&t, prompt, o->json, e);
    talk_release(&t);
    return rc;
}

static int run_run(struct cli *c, const void *opts, struct err *e)
{
    const struct run_options *o = opts;
    struct log log = {stderr, LOG_WARN};
    char path[LOCATE_MAX];
    struct engine_request r = {
        .path = path, .o = &o->engine, .log = &log, .kv_type = ENGINE_KV_AUTO};
    struct engine *g = NULL;
    struct grammar *grammar = NULL;
    struct buf prompt;
    int first = 0;
    buf_init(&prompt, RUN_INPUT_MAX);
    int rc = run_grammar(&grammar, o, e);
    rc = rc ? rc : run_model(c, o, path, &first, e);
    bool chat = c->n_args <= first && c->term.in_tty && c->term.out_tty;
    if (!rc && chat && o->json)
        rc = err_set(e, ERR_USAGE, "--json needs a prompt");
    if (!rc && !chat)
        rc = run_prompt(c, first, &prompt, e);
    if (!rc && !chat && !prompt.len)
        rc = err_set(e, ERR_USAGE, "no prompt: give one after the model, or on standard input");
    if (!rc)
        rc = options_open(&g, &r, e);
    if (!rc && !engine_chat(g))
        rc = err_set(e, ERR_UNSUPPORTED,
                     "%.300s: has no tokenizer, so it can't read text: put tokenizer.json beside "
                     "the weights",
                     path);
    if (!rc)
        rc = run_engine(c, o, path, g, grammar, &prompt, chat, e);
    grammar_unref(grammar);
    engine_free(g);
    buf_release(&r.template_text);
    buf_release(&prompt);
    return rc;
}

const struct command cmd_run = {
    .name = "run",
    .args = "[MODEL] [PROMPT…]",
    .summary = "answer a prompt, or chat",
    .about =
        "With a prompt: prints the answer. Text that is piped in goes before the prompt, or is the "
        "prompt when there is no other. Without a prompt on a terminal: a chat; /? helps there.\n\n"
        "MODEL is a .gguf file, a folder with config.json, tokenizer.json and safetensors files, "
        "or "
        "the name of one of these in $PONDER_MODELS (default: ~/.cache/ponder/weights), or "
        "`bundled`: ponder-r1-mini, the small model that ponder comes with. With --model, or when "
        "PONDER_MODEL is set or the first argument is several words, and it names no model, all "
        "arguments are the prompt.\n\n"
        "Without a model: PONDER_MODEL, else the only one in $PONDER_MODELS, else the bundled one.",
    .examples = "# one answer\n"
                "ponder run model.gguf \"Why is the sky blue?\"\n"
                "# a chat\n"
                "ponder run model.gguf\n"
                "# about a file\n"
                "ponder run model.gguf \"What does this do?\" < main.c\n"
                "# a form that a program can read\n"
                "ponder run --format schema.json model.gguf \"Who wrote Emma?\"\n"
                "# for a script\n"
                "ponder run --json --temperature 0 model.gguf \"2+2?\" | jq -r .answer\n",
    .spec = {run_groups, NUM_COUNT(run_groups)},
    .opts_size = sizeof(struct run_options),
    .max_args = -1,
    .run = run_run,
};
