/*
 * See view.h. Text is shown at once, so a word that turns out not to fit is taken back: the cursor
 * moves to where it began, the rest of the line is erased, and the word is written again below.
 */
#include "cli/view.h"

#include "base/utf8.h"

#include <string.h>

enum { VIEW_THINK_INDENT = 2 };

void view_init(struct view *v, const struct term *t, bool wrap, bool hide_thinking)
{
    memset(v, 0, sizeof *v);
    v->term = t;
    v->wrap = wrap && t->escapes;
    v->hide_thinking = hide_thinking;
    v->limit = v->wrap ? term_width(t) - 1 : 0;
}

static void view_break(struct view *v)
{
    putchar('\n');
    v->column = 0;
    v->word_len = 0;
    v->word_width = 0;
}

static void view_indent(struct view *v)
{
    for (; v->column < v->indent; v->column++)
        putchar(' ');
}

/* Moves the unfinished word to the next line, or breaks it when it is too long for that. */
static void view_overflow(struct view *v)
{
    char word[sizeof v->word];
    size_t n = v->word_len;
    int width = v->word_width;
    if (!n || v->column - width <= v->indent || width > v->limit / 2) {
        view_break(v);
        view_indent(v);
        return;
    }
    memcpy(word, v->word, n);
    printf("\033[%dD\033[K", width);
    view_break(v);
    view_indent(v);
    fwrite(word, 1, n, stdout);
    memcpy(v->word, word, n);
    v->word_len = n;
    v->word_width = width;
    v->column += width;
}

static void view_char(struct view *v, uint32_t cp)
{
    char c[4];
    if (cp == '\n') {
        view_break(v);
        return;
    }
    if (term_char_unsafe(cp))
        cp = 0xfffd;
    if (cp == '\t' && v->wrap)
        cp = ' ';
    int w = term_char_width(cp);
    bool space = cp == ' ';
    view_indent(v);
    if (v->limit && v->column + w > v->limit) {
        if (space) {
            view_break(v);
            return;
        }
        view_overflow(v);
    }
    size_t n = utf8_put(c, cp);
    fwrite(c, 1, n, stdout);
    v->column += w;
    if (space || w > 1 || v->word_len + n > sizeof v->word) {
        v->word_len = 0;
        v->word_width = 0;
    } else {
        memcpy(v->word + v->word_len, c, n);
        v->word_len += n;
        v->word_width += w;
    }
}

int view_text(struct view *v, const char *s, size_t n, struct err *e)
{
    if (n)
        v->begun = true;
    if (!v->term->out_tty) {
        fwrite(s, 1, n, stdout);
        if (n)
            v->column = s[n - 1] != '\n';
        return term_flush(e);
    }
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += utf8_next(s + i, n - i, &cp, NULL);
        view_char(v, cp);
    }
    return term_flush(e);
}

void view_think_begin(struct view *v)
{
    if (v->hide_thinking)
        return;
    if (v->column)
        view_break(v);
    printf("%sThinking…\n", term_dim(v->term));
    v->thinking = true;
    v->indent = v->term->out_tty ? VIEW_THINK_INDENT : 0;
    fflush(stdout);
}

void view_think_end(struct view *v, double seconds, size_t tokens, bool cut_off)
{
    char n[32];
    if (!v->thinking)
        return;
    if (v->column)
        view_break(v);
    printf("…%s thinking (%.1f s, %s token%s)%s\n", cut_off ? "stopped" : "done", seconds,
           term_group(n, sizeof n, tokens), tokens == 1 ? "" : "s", term_plain(v->term));
    v->thinking = false;
    v->begun = false;
    v->indent = 0;
    fflush(stdout);
}

int view_finish(struct view *v, struct err *e)
{
    if (v->column || !v->begun)
        view_break(v);
    v->begun = false;
    return term_flush(e);
}
