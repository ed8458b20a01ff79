/*
 * Texts made from the command and option tables: the overview, a command's help, manual pages
 * (man(7) macros) and bash completion. Nothing here knows any option by name.
 */
#include "cli/command.h"

#include "base/num.h"
#include "base/utf8.h"

#include <string.h>

enum { HELP_COLUMN = 30 }; /* where the words about an option begin */

/* Characters of UTF-8 text, which is all that our own texts need for their width. */
static size_t help_width(const char *s, size_t n)
{
    size_t w = 0;
    for (size_t i = 0; i < n; i++)
        w += ((unsigned char)s[i] & 0xc0) != 0x80;
    return w;
}

static int help_spaces(struct buf *out, size_t n, struct err *e)
{
    int rc = 0;
    while (n-- && !rc)
        rc = buf_putc(out, ' ', e);
    return rc;
}

/* Appends words wrapped at `width`; the cursor is at column `at`, later lines begin at `indent`. */
static int help_wrap(struct buf *out, const char *s, size_t at, size_t indent, size_t width,
                     struct err *e)
{
    int rc = 0;
    bool first = true;
    while (!rc && *s) {
        if (*s == '\n') { /* an empty line in the text separates paragraphs */
            s++;
            if ((rc = buf_puts(out, *s == '\n' ? "\n\n" : "\n", e)))
                break;
            s += *s == '\n';
            if ((rc = help_spaces(out, indent, e)))
                break;
            at = indent;
            first = true;
            continue;
        }
        size_t n = strcspn(s, " \n"), w = help_width(s, n);
        if (!first && at + 1 + w > width) {
            if ((rc = buf_putc(out, '\n', e)) || (rc = help_spaces(out, indent, e)))
                break;
            at = indent;
            first = true;
        }
        if (!first && (rc = buf_putc(out, ' ', e)))
            break;
        if ((rc = buf_append(out, s, n, e)))
            break;
        at += w + !first;
        first = false;
        s += n + (s[n] == ' ');
    }
    return rc ? rc : buf_putc(out, '\n', e);
}

/* "what it does (0 to 2; default 0.8; PONDER_X)" */
static int help_words(const struct opt *o, struct buf *out, struct err *e)
{
    int rc = buf_puts(out, o->help, e);
    const char *sep = " (";
    bool number = o->kind == OPT_INT || o->kind == OPT_SIZE || o->kind == OPT_FLOAT;
    if (!rc && number && o->min > -OPT_NO_BOUND && o->max < OPT_NO_BOUND) {
        rc = buf_printf(out, e, "%s%.15g to %.15g", sep, o->min, o->max);
        sep = "; ";
    }
    if (!rc && o->kind == OPT_ENUM) {
        rc = buf_puts(out, sep, e);
        for (const char *c = o->choices; !rc && *c; c++)
            rc = *c == '|' ? buf_puts(out, ", ", e) : buf_putc(out, *c, e);
        sep = "; ";
    }
    const char *def = o->shown ? o->shown : o->value;
    if (!rc && def && *def) {
        rc = buf_printf(out, e, "%sdefault: %s", sep, def);
        sep = "; ";
    }
    if (!rc && o->env) {
        rc = buf_printf(out, e, "%s%s", sep, o->env);
        sep = "; ";
    }
    if (!rc && *sep == ';')
        rc = buf_putc(out, ')', e);
    return rc;
}

/* "--think, --no-think" or "-t, --threads N" */
static int help_name(const struct opt *o, struct buf *out, struct err *e)
{
    int rc = o->brief ? buf_printf(out, e, "-%c, ", o->brief) : buf_puts(out, "    ", e);
    if (!rc)
        rc = buf_printf(out, e, "--%s", o->name);
    if (!rc && o->kind == OPT_SWITCH)
        rc = buf_printf(out, e, ", --no-%s", o->name);
    if (!rc && o->kind != OPT_SWITCH && o->kind != OPT_FLAG)
        rc = buf_printf(out, e, " %s", o->arg ? o->arg : "VALUE");
    return rc;
}

static int help_option(const struct opt *o, size_t width, struct buf *out, struct err *e)
{
    struct buf name, words;
    buf_init(&name, 256);
    buf_init(&words, 4096);
    int rc = help_name(o, &name, e);
    if (!rc)
        rc = help_words(o, &words, e);
    if (!rc)
        rc = buf_printf(out, e, "  %s", name.data);
    size_t at = 2 + help_width(name.data, name.len);
    if (!rc && at + 2 > HELP_COLUMN) {
        rc = buf_putc(out, '\n', e);
        at = 0;
    }
    if (!rc)
        rc = help_spaces(out, HELP_COLUMN - at, e);
    if (!rc)
        rc = help_wrap(out, words.data, HELP_COLUMN, HELP_COLUMN, width, e);
    buf_release(&name);
    buf_release(&words);
    return rc;
}

int help_command(const struct command *c, int width, struct buf *out, struct err *e)
{
    size_t w = (size_t)width;
    int rc = buf_printf(out, e, "ponder %s: %s\n\nUsage: ponder %s%s%s%s\n\n", c->name, c->summary,
                        c->name, *c->args ? " " : "", c->args, c->spec.n ? " [options]" : "");
    if (!rc)
        rc = help_wrap(out, c->about, 0, 0, w, e);
    for (size_t g = 0; !rc && g < c->spec.n; g++) {
        if (!c->spec.groups[g].title) /* not for people */
            continue;
        rc = buf_printf(out, e, "\n%s:\n", c->spec.groups[g].title);
        for (size_t i = 0; !rc && i < c->spec.groups[g].n; i++)
            rc = help_option(&c->spec.groups[g].rows[i], w, out, e);
    }
    if (!rc && c->examples)
        rc = buf_puts(out, "\nExamples:\n", e);
    for (const char *s = c->examples; !rc && s && *s;) {
        size_t n = strcspn(s, "\n");
        rc = buf_printf(out, e, "  %.*s\n", (int)n, s);
        s += n + (s[n] == '\n');
    }
    return rc;
}

int help_overview(struct buf *out, struct err *e)
{
    size_t n, width = 0;
    const struct command *const *all = command_all(&n);
    for (size_t i = 0; i < n; i++)
        width = num_max(width, strlen(all[i]->name));
    int rc = buf_puts(out,
                      "ponder runs language models on this machine's processor.\n\n"
                      "Usage: ponder COMMAND [arguments] [options]\n\nCommands:\n",
                      e);
    for (size_t i = 0; !rc && i < n; i++)
        rc = buf_printf(out, e, "  %-*s  %s\n", (int)width, all[i]->name, all[i]->summary);
    if (!rc)
        rc = buf_puts(out,
                      "\n\"ponder help COMMAND\" tells more about one. To begin:\n"
                      "  ponder run model.gguf \"Why is the sky blue?\"\n"
                      "  ponder run model.gguf\n",
                      e);
    return rc;
}

/* ---- manual pages
 * -------------------------------------------------------------------------------- */

/* Text for troff: backslashes, hyphens, and leading dots and quotes are not markup. */
static int man_text(struct buf *out, const char *s, size_t n, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; !rc && i < n; i++) {
        bool start = i == 0 || s[i - 1] == '\n';
        if (s[i] == '\\')
            rc = buf_puts(out, "\\e", e);
        else if (s[i] == '-')
            rc = buf_puts(out, "\\-", e);
        else if (start && (s[i] == '.' || s[i] == '\''))
            rc = buf_printf(out, e, "\\&%c", s[i]);
        else if (start && s[i] == '\n')
            rc = buf_puts(out, ".PP\n", e);
        else
            rc = buf_putc(out, s[i], e);
    }
    return rc;
}

static int man_option(const struct opt *o, struct buf *out, struct err *e)
{
    struct buf name, words;
    buf_init(&name, 256);
    buf_init(&words, 4096);
    int rc = help_name(o, &name, e);
    if (!rc)
        rc = help_words(o, &words, e);
    const char *s = name.data + strspn(name.data, " ");
    if (!rc)
        rc = buf_puts(out, ".TP\n.B ", e);
    if (!rc)
        rc = man_text(out, s, strlen(s), e);
    if (!rc)
        rc = buf_putc(out, '\n', e);
    if (!rc)
        rc = man_text(out, words.data, words.len, e);
    if (!rc)
        rc = buf_putc(out, '\n', e);
    buf_release(&name);
    buf_release(&words);
    return rc;
}

static int man_examples(const struct command *c, struct buf *out, struct err *e)
{
    if (!c->examples)
        return 0;
    int rc = buf_puts(out, ".SH EXAMPLES\n.nf\n", e);
    if (!rc)
        rc = man_text(out, c->examples, strlen(c->examples), e);
    return rc ? rc : buf_puts(out, "\n.fi\n", e);
}

static const char man_status[] =
    ".SH EXIT STATUS\n0 when the work was done, 1 when it failed, 2 when the command was used "
    "wrongly, 130 when it was interrupted. Errors are one line on standard error.\n";

static int man_overview(struct buf *out, struct err *e)
{
    size_t n;
    const struct command *const *all = command_all(&n);
    int rc = buf_puts(out,
                      ".TH PONDER 1 \"\" \"ponder " PONDER_VERSION "\"\n.SH NAME\nponder \\- run "
                      "language models on this machine's processor\n.SH SYNOPSIS\n.B ponder\n.I "
                      "command\n[arguments] [options]\n.SH COMMANDS\n",
                      e);
    for (size_t i = 0; !rc && i < n; i++) {
        rc = buf_printf(out, e, ".TP\n.B %s\n", all[i]->name);
        if (!rc)
            rc = man_text(out, all[i]->summary, strlen(all[i]->summary), e);
        if (!rc)
            rc = buf_puts(out, "\n", e);
    }
    if (!rc)
        rc = buf_puts(out, man_status, e);
    return rc;
}

int help_man(const struct command *c, struct buf *out, struct err *e)
{
    if (!c)
        return man_overview(out, e);
    int rc = buf_printf(out, e, ".TH PONDER-%s 1 \"\" \"ponder " PONDER_VERSION "\"\n.SH NAME\n",
                        c->name);
    if (!rc)
        rc = buf_printf(out, e, "ponder\\-%s \\- ", c->name);
    if (!rc)
        rc = man_text(out, c->summary, strlen(c->summary), e);
    if (!rc)
        rc = buf_printf(out, e, "\n.SH SYNOPSIS\n.B ponder %s\n", c->name);
    if (!rc)
        rc = man_text(out, c->args, strlen(c->args), e);
    if (!rc)
        rc = buf_puts(out, " [options]\n.SH DESCRIPTION\n", e);
    if (!rc)
        rc = man_text(out, c->about, strlen(c->about), e);
    if (!rc)
        rc = buf_puts(out, "\n", e);
    if (!rc && c->spec.n)
        rc = buf_puts(out, ".SH OPTIONS\n", e);
    for (size_t g = 0; !rc && g < c->spec.n; g++) {
        if (!c->spec.groups[g].title)
            continue;
        rc = buf_printf(out, e, ".SS %s\n", c->spec.groups[g].title);
        for (size_t i = 0; !rc && i < c->spec.groups[g].n; i++)
            rc = man_option(&c->spec.groups[g].rows[i], out, e);
    }
    if (!rc)
        rc = man_examples(c, out, e);
    return rc ? rc : buf_puts(out, man_status, e);
}

/* ---- bash completion
 * ----------------------------------------------------------------------------- */

static int completion_words(const struct command *c, struct buf *out, struct err *e)
{
    int rc = 0;
    for (size_t g = 0; !rc && g < c->spec.n; g++)
        for (size_t i = 0; !rc && c->spec.groups[g].title && i < c->spec.groups[g].n; i++) {
            const struct opt *o = &c->spec.groups[g].rows[i];
            rc = buf_printf(out, e, "--%s ", o->name);
            if (!rc && o->kind == OPT_SWITCH)
                rc = buf_printf(out, e, "--no-%s ", o->name);
        }
    return rc ? rc : buf_puts(out, "--help", e);
}

/* Values of options with choices, by the word before the cursor. */
static int completion_values(struct buf *out, struct err *e)
{
    size_t n;
    const struct command *const *all = command_all(&n);
    int rc = 0;
    for (size_t k = 0; !rc && k < n; k++)
        for (size_t g = 0; !rc && g < all[k]->spec.n; g++)
            for (size_t i = 0; !rc && i < all[k]->spec.groups[g].n; i++) {
                const struct opt *o = &all[k]->spec.groups[g].rows[i];
                if (o->kind != OPT_ENUM)
                    continue;
                rc = buf_printf(out, e, "        '%s,--%s') words=\"", all[k]->name, o->name);
                for (const char *c = o->choices; !rc && *c; c++)
                    rc = buf_putc(out, *c == '|' ? ' ' : *c, e);
                if (!rc)
                    rc = buf_puts(out, "\" ;;\n", e);
            }
    return rc;
}

int help_completion(struct buf *out, struct err *e)
{
    size_t n;
    const struct command *const *all = command_all(&n);
    int rc = buf_puts(out,
                      "# bash completion for ponder: source <(ponder help --completion bash)\n"
                      "_ponder()\n{\n"
                      "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
                      "    local words=\"\" command=${COMP_WORDS[1]}\n",
                      e);
    for (size_t i = 0; !rc && i < n; i++)
        if (strchr(all[i]->name, ' ')) /* a name of two words */
            rc =
                buf_printf(out, e, "    [ \"$command ${COMP_WORDS[2]}\" = '%s' ] && command='%s'\n",
                           all[i]->name, all[i]->name);
    rc = rc ? rc : buf_puts(out, "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words=\"", e);
    for (size_t i = 0; !rc && i < n; i++)
        rc = buf_printf(out, e, "%s%s", i ? " " : "", all[i]->name);
    if (!rc)
        rc = buf_puts(out,
                      "\"\n    else\n        case \"$command,$prev\" in\n"
                      "        help,*) words=\"",
                      e);
    for (size_t i = 0; !rc && i < n; i++)
        rc = buf_printf(out, e, "%s%s", i ? " " : "", all[i]->name);
    if (!rc)
        rc = buf_puts(out, "\" ;;\n", e);
    if (!rc)
        rc = completion_values(out, e);
    if (!rc)
        rc = buf_puts(out, "        *) [ \"${cur:0:1}\" = - ] && case \"$command\" in\n", e);
    for (size_t i = 0; !rc && i < n; i++) {
        rc = buf_printf(out, e, "            '%s') words=\"", all[i]->name);
        if (!rc)
            rc = completion_words(all[i], out, e);
        if (!rc)
            rc = buf_puts(out, "\" ;;\n", e);
    }
    return rc ? rc
              : buf_puts(out,
                         "            esac ;;\n        esac\n    fi\n"
                         "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
                         "complete -o default -F _ponder ponder\n",
                         e);
}
