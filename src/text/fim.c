/* See fim.h. */
#include "text/fim.h"

const struct fim_form fim_forms[FIM_FORMS] = {
    {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"}, /* DeepSeek */
    {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"}, /* Qwen2.5, CodeGemma */
    {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},       /* StarCoder, Granite, SmolLM */
    {"<fim-prefix>", "<fim-suffix>", "<fim-middle>"},       /* SantaCoder */
};

const struct fim_form *fim_find(const struct tokenizer *t)
{
    for (size_t i = 0; i < FIM_FORMS; i++) {
        const struct fim_form *f = &fim_forms[i];
        if (tokenizer_find(t, f->begin) >= 0 && tokenizer_find(t, f->hole) >= 0 &&
            tokenizer_find(t, f->end) >= 0)
            return f;
    }
    return NULL;
}

int fim_encode(const struct tokenizer *t, const char *prefix, size_t n_prefix, const char *suffix,
               size_t n_suffix, struct ids *out, struct err *e)
{
    const struct fim_form *f = fim_find(t);
    if (!f)
        return err_set(e, ERR_UNSUPPORTED,
                       "this model cannot fill in the middle: its vocabulary has no tokens for it");
    int rc = 0;
    if (tokenizer_adds_bos(t) && tokenizer_bos(t) >= 0)
        rc = ids_push(out, tokenizer_bos(t), e);
    if (!rc)
        rc = ids_push(out, tokenizer_find(t, f->begin), e);
    if (!rc)
        rc = tokenizer_encode(t, prefix, n_prefix, 0, NULL, out, e);
    if (!rc)
        rc = ids_push(out, tokenizer_find(t, f->hole), e);
    if (!rc)
        rc = tokenizer_encode(t, suffix, n_suffix, 0, NULL, out, e);
    return rc ? rc : ids_push(out, tokenizer_find(t, f->end), e);
}
