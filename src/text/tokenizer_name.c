/*
 * Which name of tokenizer.ggml.pre a tokenizer has: found by what it does. Each named pre-tokenizer
 * cuts a text in which all of them differ; the first that cuts it as the tokenizer does, with the
 * same normal form and the same rule for whole pieces, is the one.
 */
#include "text/tokenizer_impl.h"

#include <string.h>

/* Scripts, digits in runs, contractions, punctuation next to letters, all kinds of white space. */
static const char probe[] =
    "Hello, world! I'm here; you'LL see 'S we've DON'T\n"
    "1 12 123 1234 12345 1234567 3.14 1,000,000 ½ ² ⅷ ٣٤٥ 一二三 x1y22z333\n"
    "  two  spaces   three\t\ttabs\n\n\nlines \r\n mixed \n \n end  \n"
    "ünïcödé straße ÀÉ Ωμέγα русский язык עברית العربية हिन्दी ภาษาไทย 한국어 단어 "
    "日本語ひらがなカタカナ中文字符。\n"
    "foo_bar fooBar foo-bar (paren) [x] {y} <z> a=b+c*d/e a&&b||c !? ... --- *** ### `code` $5 €7 "
    "^~|\n"
    "https://example.com/a?b=c#d user@host.org C:\\path\\file 'quoted' \"double\" “curly” ‘one’ …\n"
    "🙂🙃 👩‍👩‍👧 ✓ → ∑∫ a\u0301e\u0301 \u00a0\u3000\u2028 "
    "，。！？；：\n"
    "ƻǀʔⅠⅡ ꙮ Ꭰꭰ ǅ  ...word ,word .5 'word ’s word’s\n"
    "trailing   ";

struct pieces {
    size_t end[1024], n; /* where the pieces end; gaps do not occur: nothing is removed */
    const char *start;
};

static int piece(void *arg, const char *s, size_t n, struct err *e)
{
    struct pieces *p = arg;
    if (p->n == sizeof p->end / sizeof *p->end)
        return err_set(e, ERR_LIMIT, "too many pieces");
    p->end[p->n++] = (size_t)(s - p->start) + n;
    return 0;
}

static int cut(struct pieces *out, const struct pretok *p, struct err *e)
{
    struct pretok_work *w;
    int rc = pretok_work_new(&w, p, e);
    out->n = 0;
    out->start = probe;
    if (!rc) {
        pretok_work_begin(w, sizeof probe);
        rc = pretok_run(p, w, probe, sizeof probe - 1, piece, out, e);
    }
    pretok_work_free(w);
    return rc;
}

int tokenizer_gguf_name(const struct tokenizer *t, const char **name, struct err *e)
{
    struct pieces want, got;
    unsigned flags;
    *name = NULL;
    bool nfc = t->normalizer.forms != 0;
    int rc = cut(&want, &t->pretok, e);
    for (size_t i = 0; !rc && !*name && pretok_name(i); i++) {
        struct pretok p = {0};
        rc = pretok_add_named(&p, pretok_name(i), strlen(pretok_name(i)), &flags, e);
        if (!rc)
            rc = cut(&got, &p, e);
        pretok_release(&p);
        if (!rc && got.n == want.n && !memcmp(got.end, want.end, got.n * sizeof *got.end) &&
            nfc == !!(flags & PRETOK_NFC) && t->bpe.whole == !!(flags & PRETOK_WHOLE))
            *name = pretok_name(i);
    }
    if (!rc && !*name)
        rc = err_set(e, ERR_UNSUPPORTED,
                     "GGUF has no name for the way this tokenizer cuts text into pieces");
    return rc;
}
