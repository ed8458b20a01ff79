/*
 * See repl.h. Commands are a table; /set and /show have tables of their own. A failed command or
 * answer is a line on stderr, and the chat goes on.
 */
#include "cli/repl.h"

#include "base/arena.h"
#include "base/file.h"
#include "base/num.h"
#include "base/progress.h"
#include "cli/edit.h"
#include "cli/lines.h"
#include "cli/locate.h"
#include "format/meta_json.h"

#include <stdlib.h>
#include <string.h>

enum { REPL_TEXT_MAX = 16 << 20 };

struct repl {
    struct talk *t;
    struct edit *edit;
    struct arena arena; /* values of parameters that were set */
    bool leave;
};

struct repl_row {
    const char *name, *args, *help;
    int (*run)(struct repl *r, char *args, struct err *e);
};

static const struct opt_group repl_groups[] = {
    {"Sampling", options_sampling, OPTIONS_SAMPLING_N, offsetof(struct talk, sampling)},
};
static const struct opt_spec repl_spec = {repl_groups, NUM_COUNT(repl_groups)};

/* Cuts the first word off; returns what follows it. */
static char *repl_word(char **text)
{
    char *word = *text;
    char *end = word + strcspn(word, " \t\n");
    if (*end) {
        *end++ = 0;
        end += strspn(end, " \t\n");
    }
    *text = end;
    return word;
}

/* Takes quotes around a whole text away. */
static char *repl_unquote(char *s)
{
    size_t n = strlen(s);
    if (n >= 6 && !strncmp(s, "\"\"\"", 3) && !strcmp(s + n - 3, "\"\"\"")) {
        s[n - 3] = 0;
        return s + 3;
    }
    if (n >= 2 && s[0] == '"' && s[n - 1] == '"') {
        s[n - 1] = 0;
        return s + 1;
    }
    return s;
}

/* ---- /set
 * ---------------------------------------------------------------------------------------- */

static int set_parameter(struct repl *r, char *args, struct err *e)
{
    char *name = repl_word(&args);
    if (!*name || !*args)
        return err_set(e, ERR_USAGE,
                       "/set parameter NAME VALUE, like /set parameter temperature 0.6");
    char *value = arena_strndup(&r->arena, repl_unquote(args), strlen(args), e);
    int rc = value ? opt_assign(&repl_spec, r->t, name, value, e) : e->code;
    if (!rc)
        printf("Set parameter '%s' to '%s'\n", name, value);
    return rc;
}

static int set_system(struct repl *r, char *args, struct err *e)
{
    int rc = talk_system(r->t, repl_unquote(args), e);
    if (!rc)
        printf(r->t->system ? "Set the system message.\n" : "Removed the system message.\n");
    return rc;
}

static int set_history(struct repl *r, char *args, struct err *e)
{
    edit_history(r->edit, true);
    printf("Questions are remembered for the arrow keys.\n");
    return 0;
}

static int set_nohistory(struct repl *r, char *args, struct err *e)
{
    edit_history(r->edit, false);
    printf("Questions are not remembered from here on.\n");
    return 0;
}

static int set_verbose(struct repl *r, char *args, struct err *e)
{
    r->t->verbose = true;
    printf("Timings follow each answer.\n");
    return 0;
}

static int set_quiet(struct repl *r, char *args, struct err *e)
{
    r->t->verbose = false;
    printf("No timings.\n");
    return 0;
}

static int set_wordwrap(struct repl *r, char *args, struct err *e)
{
    r->t->wrap = true;
    printf("Lines are broken between words.\n");
    return 0;
}

static int set_nowordwrap(struct repl *r, char *args, struct err *e)
{
    r->t->wrap = false;
    printf("Lines are not broken between words.\n");
    return 0;
}

static int set_think(struct repl *r, char *args, struct err *e)
{
    if (chat_thinking(engine_chat(r->t->engine)) == CHAT_THINK_NONE)
        return err_set(e, ERR_UNSUPPORTED, "this model does not think before it answers");
    r->t->think = 1;
    printf("The model thinks before it answers.\n");
    return 0;
}

static int set_nothink(struct repl *r, char *args, struct err *e)
{
    r->t->think = 0;
    printf("The model answers without thinking.\n");
    return 0;
}

static const struct repl_row set_rows[] = {
    {"parameter", "NAME VALUE", "change how tokens are chosen", set_parameter},
    {"system", "\"TEXT\"", "what the model is told before the chat; empty removes it", set_system},
    {"verbose", "", "show timings after each answer", set_verbose},
    {"quiet", "", "do not", set_quiet},
    {"think", "", "let the model think before it answers", set_think},
    {"nothink", "", "answer at once", set_nothink},
    {"history", "", "remember questions for the arrow keys", set_history},
    {"nohistory", "", "do not", set_nohistory},
    {"wordwrap", "", "break lines between words", set_wordwrap},
    {"nowordwrap", "", "do not", set_nowordwrap},
};

/* ---- /show
 * --------------------------------------------------------------------------------------- */

static int show_info(struct repl *r, char *args, struct err *e)
{
    const struct engine_info *i = engine_info(r->t->engine);
    char a[32], b[32], c[32];
    printf("model        %s\n", i->name);
    printf("architecture %s, %zu layers\n", i->arch, i->layers);
    printf("parameters   %s\n", term_group(a, sizeof a, i->params));
    printf("weights      %s, %s\n", i->file_type,
           progress_bytes(a, sizeof a, (double)i->weight_bytes));
    printf("context      %s tokens (trained for %s), %s\n", term_group(a, sizeof a, i->ctx),
           term_group(b, sizeof b, i->ctx_train),
           progress_bytes(c, sizeof c, (double)i->kv_token_bytes * (double)i->ctx));
    printf("vocabulary   %s tokens\n", term_group(a, sizeof a, i->vocab));
    printf("computing    %d thread%s, %s\n", i->threads, i->threads == 1 ? "" : "s",
           cpu_isa_name(i->isa));
    struct ids ids;
    bool open;
    ids_init(&ids, (size_t)1 << 28);
    if (json_array_size(r->t->messages) && !talk_encode(r->t, &ids, &open, NULL))
        printf("this chat    %zu messages, %s tokens\n", json_array_size(r->t->messages),
               term_group(a, sizeof a, ids.n));
    ids_release(&ids);
    return 0;
}

static int show_parameters(struct repl *r, char *args, struct err *e)
{
    struct sampler_params p;
    engine_sampling(r->t->engine, &p);
    printf("The model's: temperature %g, top-k %d, top-p %g, min-p %g, typical-p %g,\n"
           "repeat-penalty %g over %d tokens, frequency-penalty %g, presence-penalty %g\n",
           (double)p.temperature, p.top_k, (double)p.top_p, (double)p.min_p, (double)p.typical_p,
           (double)p.repetition_penalty, p.penalty_last, (double)p.frequency_penalty,
           (double)p.presence_penalty);
    struct buf b;
    bool any = false;
    buf_init(&b, 1 << 16);
    for (size_t i = 0; i < OPTIONS_SAMPLING_N; i++) {
        buf_clear(&b);
        if (opt_show(&options_sampling[i], r->t, repl_groups[0].base, &b, NULL) || !b.len)
            continue;
        if (!any)
            printf("Set here:\n");
        any = true;
        printf("  %-18s %s\n", options_sampling[i].name, b.data);
    }
    buf_release(&b);
    return 0;
}

static int show_clean(const char *s, size_t n, struct err *e)
{
    struct buf b;
    buf_init(&b, REPL_TEXT_MAX);
    int rc = term_clean(&b, s, n, false, e);
    if (!rc)
        printf("%s%s", b.data, b.len && b.data[b.len - 1] == '\n' ? "" : "\n");
    buf_release(&b);
    return rc;
}

static int show_system(struct repl *r, char *args, struct err *e)
{
    if (r->t->system)
        return show_clean(r->t->system, strlen(r->t->system), e);
    printf("No system message is set; /set system \"…\" gives one.\n");
    return 0;
}

static int show_template(struct repl *r, char *args, struct err *e)
{
    size_t n;
    const struct chat *c = engine_chat(r->t->engine);
    const char *s = chat_template_text(c, &n);
    printf("Template (%s):\n", chat_template_origin(c));
    return show_clean(s, n, e);
}

static int show_all(struct repl *r, char *args, struct err *e)
{
    int rc = show_info(r, args, e);
    if (!rc)
        rc = show_parameters(r, args, e);
    if (!rc)
        rc = show_system(r, args, e);
    return rc ? rc : show_template(r, args, e);
}

static const struct repl_row show_rows[] = {
    {"info", "", "the model and what it takes", show_info},
    {"parameters", "", "how tokens are chosen", show_parameters},
    {"system", "", "the system message", show_system},
    {"template", "", "the chat template", show_template},
    {"all", "", "all of these", show_all},
};

/* ---- commands
 * ------------------------------------------------------------------------------------ */

struct repl_table {
    const struct repl_row *rows;
    size_t n;
};

static const char *repl_name_at(const void *arg, size_t i)
{
    const struct repl_table *t = arg;
    return i < t->n ? t->rows[i].name : NULL;
}

static int repl_dispatch(const struct repl_row *rows, size_t n, const char *before, struct repl *r,
                         char *text, struct err *e)
{
    struct repl_table table = {rows, n};
    char *name = repl_word(&text);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(rows[i].name, name))
            return rows[i].run(r, text, e);
    const char *near = *name ? opt_nearest(name, repl_name_at, &table) : NULL;
    if (near)
        return err_set(e, ERR_USAGE, "unknown command %s%.60s; did you mean %s%s?", before, name,
                       before, near);
    return err_set(e, ERR_USAGE, "unknown command %s%.60s; /? lists the commands", before, name);
}

static int repl_set(struct repl *r, char *args, struct err *e)
{
    return repl_dispatch(set_rows, NUM_COUNT(set_rows), "/set ", r, args, e);
}

static int repl_show(struct repl *r, char *args, struct err *e)
{
    return repl_dispatch(show_rows, NUM_COUNT(show_rows), "/show ", r, args, e);
}

static int repl_clear(struct repl *r, char *args, struct err *e)
{
    talk_clear(r->t);
    printf("A new chat begins.\n");
    return 0;
}

static int repl_save(struct repl *r, char *args, struct err *e)
{
    struct file_out f;
    json_t *all = json_array();
    char *text = NULL;
    int rc;
    if (!*args) {
        json_decref(all);
        return err_set(e, ERR_USAGE, "/save FILE");
    }
    if (r->t->system)
        json_array_append_new(all, json_pack("{ss so}", "role", "system", "content",
                                             meta_json_string(r->t->system, strlen(r->t->system))));
    if (json_array_extend(all, r->t->messages) || !(text = json_dumps(all, JSON_INDENT(1))))
        rc = err_nomem(e, 0, "the conversation");
    else if (!(rc = file_out_open(&f, args, e))) {
        rc = file_out_write(&f, text, strlen(text), e);
        if (!rc)
            rc = file_out_write(&f, "\n", 1, e);
        if (!rc)
            rc = file_out_commit(&f, e);
        else
            file_out_abort(&f);
    }
    if (!rc)
        printf("Saved %zu messages to %s.\n", json_array_size(r->t->messages), args);
    free(text);
    json_decref(all);
    return rc;
}

/* Messages are objects whose role and content are strings; a system message may come first. */
static int repl_load_check(const json_t *all, struct err *e)
{
    size_t i;
    json_t *m;
    if (!json_is_array(all))
        return err_set(e, ERR_FORMAT, "not an array of messages");
    json_array_foreach(all, i, m)
    {
        if (!json_is_string(json_object_get(m, "role")) ||
            !json_is_string(json_object_get(m, "content")))
            return err_set(e, ERR_FORMAT, "message %zu has no role or no content", i);
    }
    return 0;
}

static int repl_load(struct repl *r, char *args, struct err *e)
{
    struct buf text;
    json_error_t je;
    json_t *all = NULL;
    if (!*args)
        return err_set(e, ERR_USAGE, "/load FILE");
    buf_init(&text, REPL_TEXT_MAX);
    int rc = file_read(&text, args, e);
    if (!rc && !(all = json_loadb(text.data, text.len, JSON_ALLOW_NUL, &je)))
        rc = je.text[0]
                 ? err_set(e, ERR_FORMAT, "%.200s: not JSON: line %d: %s", args, je.line, je.text)
                 : err_nomem(e, text.len, args);
    if (!rc && (rc = repl_load_check(all, e)))
        err_ctx(e, "%.200s", args);
    if (!rc) {
        json_t *first = json_array_get(all, 0);
        const char *role = json_string_value(json_object_get(first, "role"));
        bool system = role && !strcmp(role, "system");
        rc = talk_system(r->t, system ? json_string_value(json_object_get(first, "content")) : NULL,
                         e);
        if (!rc && system)
            json_array_remove(all, 0);
    }
    if (!rc) {
        json_decref(r->t->messages);
        r->t->messages = json_incref(all);
        printf("Loaded %zu messages.\n", json_array_size(all));
    }
    json_decref(all);
    buf_release(&text);
    return rc;
}

static int repl_bye(struct repl *r, char *args, struct err *e)
{
    r->leave = true;
    return 0;
}

static int repl_help(struct repl *r, char *args, struct err *e);

static const struct repl_row repl_rows[] = {
    {"/set", "WHAT …", "change something of this chat", repl_set},
    {"/show", "WHAT", "show something", repl_show},
    {"/clear", "", "begin a new chat", repl_clear},
    {"/save", "FILE", "write the chat to a file", repl_save},
    {"/load", "FILE", "go on with a saved chat", repl_load},
    {"/?", "", "this help", repl_help},
    {"/help", "", NULL, repl_help},
    {"/bye", "", "leave (or Ctrl-D)", repl_bye},
    {"/exit", "", NULL, repl_bye},
};

static void repl_help_rows(const char *before, const struct repl_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (rows[i].help)
            printf("  %s%s%s%-*s %s\n", before, rows[i].name, *rows[i].args ? " " : "",
                   (int)num_max(1, 26 - strlen(before) - strlen(rows[i].name)), rows[i].args,
                   rows[i].help);
}

static int repl_help(struct repl *r, char *args, struct err *e)
{
    repl_help_rows("", repl_rows, NUM_COUNT(repl_rows));
    printf("\n");
    repl_help_rows("/set ", set_rows, NUM_COUNT(set_rows));
    printf("\n");
    repl_help_rows("/show ", show_rows, NUM_COUNT(show_rows));
    printf("\n  \"\"\" begins and ends a text of several lines.\n"
           "  Ctrl-C stops an answer; the chat goes on.\n");
    return 0;
}

/* ---- the loop
 * ------------------------------------------------------------------------------------ */

static int repl_ask(struct repl *r, const char *text, size_t n, struct err *e)
{
    struct talk *t = r->t;
    struct view v;
    struct talk_answer a;
    char x[32];
    talk_answer_init(&a);
    view_init(&v, &t->cli->term, t->wrap, t->hide_thinking);
    if (t->bundled) /* it was trained on single questions: earlier ones only confuse it */
        talk_clear(t);
    int rc = talk_ask(t, text, n, &v, &a, e);
    if (rc == ERR_CANCELLED) {
        fprintf(stderr, "(stopped)\n");
        rc = 0;
    } else if (!rc && a.stats.stop == GENERATE_CONTEXT) {
        fprintf(stderr,
                "ponder: the context of %s tokens is full and the answer was cut off: /clear "
                "begins a new chat; --ctx gives more room\n",
                term_group(x, sizeof x, engine_info(t->engine)->ctx));
    } else if (!rc && a.stats.stop == GENERATE_LENGTH) {
        fprintf(stderr, "(stopped after %s tokens: max-tokens)\n",
                term_group(x, sizeof x, a.stats.answer_tokens));
    }
    if (!rc)
        talk_note_loop(t, &a);
    if (!rc && t->verbose)
        talk_report(t, &a);
    talk_answer_release(&a);
    return rc;
}

/* The rest of a text that began with three quotes. */
static enum edit_result repl_more(struct repl *r, struct buf *text, struct err *e)
{
    struct buf line;
    enum edit_result got = EDIT_LINE;
    buf_init(&line, REPL_TEXT_MAX);
    while (got == EDIT_LINE) {
        const char *end = strstr(strstr(text->data, "\"\"\"") + 3, "\"\"\"");
        if (end)
            break;
        got = edit_line(r->edit, "... ", &line, e);
        if (got == EDIT_LINE &&
            (buf_putc(text, '\n', e) || buf_append(text, line.data, line.len, e)))
            got = EDIT_ERROR;
    }
    buf_release(&line);
    return got;
}

/* Takes three quotes off both ends. */
static void repl_strip(struct buf *text)
{
    char *begin = strstr(text->data, "\"\"\"");
    if (text->len < 6 || begin != text->data)
        return;
    char *end = strstr(begin + 3, "\"\"\"");
    char *from = begin + 3 + (begin[3] == '\n');
    size_t n = (size_t)((end ? end : text->data + text->len) - from);
    if (n && from[n - 1] == '\n')
        n--;
    memmove(text->data, from, n);
    text->data[n] = 0;
    text->len = n;
}

static int repl_entry(struct repl *r, struct buf *text, struct err *e)
{
    edit_remember(r->edit, text->data);
    char *s = text->data + strspn(text->data, " \t");
    if (s[0] == '/')
        return repl_dispatch(repl_rows, NUM_COUNT(repl_rows), "", r, s, e);
    repl_strip(text);
    if (!text->len)
        return 0;
    return repl_ask(r, text->data, text->len, e);
}

static void repl_banner(const struct talk *t)
{
    const struct engine_info *i = engine_info(t->engine);
    struct buf name;
    char params[32], ctx[32];
    buf_init(&name, 1024);
    term_clean(&name, i->name, strlen(i->name), true, NULL);
    double p = (double)i->params;
    if (p >= 1e9)
        snprintf(params, sizeof params, "%.1f billion", p / 1e9);
    else if (p >= 1e6)
        snprintf(params, sizeof params, p < 1e7 ? "%.1f million" : "%.0f million", p / 1e6);
    else
        snprintf(params, sizeof params, "%.0f thousand", p / 1e3);
    printf("%s%s%s · %s parameters · %s · context of %s tokens\n", term_bold(&t->cli->term),
           name.data, term_plain(&t->cli->term), params, i->file_type,
           term_group(ctx, sizeof ctx, i->ctx));
    if (t->bundled)
        printf("Trained from nothing by ponder: arithmetic, dates, countdown, word problems.\n"
               "Try: What is 47*6+128? · Which day is 17 days after Tuesday? · 计算38乘7。\n"
               "Each question stands on its own. Larger: ./start --larger, ponder run FILE.gguf\n");
    printf("%s/? for help, Ctrl-D to leave%s\n", term_dim(&t->cli->term),
           term_plain(&t->cli->term));
    buf_release(&name);
}

static void repl_complain(const struct err *e)
{
    fflush(stdout);
    fprintf(stderr, "ponder: %s\n", e->text);
}

static int repl_loop(struct repl *r, struct buf *text, struct err *e)
{
    while (!r->leave) {
        struct err bad = {0};
        enum edit_result got = edit_line(r->edit, ">>> ", text, &bad);
        const char *s = text->data + strspn(text->data, " \t");
        bool system = !strncmp(s, "/set system \"\"\"", 15);
        if (got == EDIT_LINE && (!strncmp(s, "\"\"\"", 3) || system))
            got = repl_more(r, text, &bad);
        if (got == EDIT_INTERRUPT)
            continue;
        if (got == EDIT_END)
            break;
        if (got == EDIT_ERROR || (repl_entry(r, text, &bad) && bad.code))
            repl_complain(&bad);
        if (term_flush(e)) /* nobody reads what is said */
            return e->code;
    }
    if (!r->leave)
        printf("\n");
    return 0;
}

int repl_run(struct talk *t, struct err *e)
{
    struct repl r = {.t = t};
    struct buf text;
    char history[LOCATE_MAX];
    struct err lost;
    t->interactive = true;
    buf_init(&text, REPL_TEXT_MAX);
    arena_init(&r.arena, REPL_TEXT_MAX);
    bool have = !locate_data("history", history, &lost);
    interrupt_watch(t->cli->interrupt); /* from the first prompt until the history is saved */
    int rc = edit_new(&r.edit, t->cli->interrupt, have ? history : NULL, e);
    if (!rc) {
        repl_banner(t);
        rc = repl_loop(&r, &text, e);
    }
    edit_free(r.edit);
    interrupt_unwatch(t->cli->interrupt);
    arena_release(&r.arena);
    buf_release(&text);
    return rc;
}
