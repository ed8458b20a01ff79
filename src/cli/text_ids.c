#include "cli/text_ids.h"

#include "base/file.h"
#include "cli/lines.h"

#include <string.h>
#include <unistd.h>

int text_ids(struct ids *out, const struct engine *g, const char *path, struct err *e)
{
    const struct tokenizer *t = engine_tokenizer(g);
    struct buf text;
    if (!t)
        return err_set(e, ERR_UNSUPPORTED,
                       "the model's folder has no tokenizer: texts cannot be read");
    buf_init(&text, LINES_MAX);
    bool input = !strcmp(path, "-");
    int rc = input ? lines_read_all(&text, STDIN_FILENO, e) : file_read(&text, path, e);
    if (!rc && !text.len)
        rc = err_set(e, ERR_USAGE, "%.300s: the text is empty", input ? "standard input" : path);
    if (!rc)
        rc = tokenizer_encode(t, text.data, text.len, TOKENIZER_BOS, NULL, out, e);
    buf_release(&text);
    return rc;
}

int32_t text_bos(const struct engine *g)
{
    const struct tokenizer *t = engine_tokenizer(g);
    return t && tokenizer_adds_bos(t) ? tokenizer_bos(t) : -1;
}
