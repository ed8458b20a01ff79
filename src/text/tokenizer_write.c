#include "text/tokenizer_write.h"

#include "text/pretok.h"

json_t *tokenizer_write_added(const char *text, size_t n, int64_t id, bool control)
{
    json_t *content = json_stringn(text, n);
    return content ? json_pack("{sI so sb sb sb sb sb}", "id", (json_int_t)id, "content", content,
                               "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0,
                               "special", control)
                   : NULL;
}

static json_t *pre_tokenizer(const char *const *patterns)
{
    json_t *list = json_array();
    for (; list && *patterns; patterns++)
        if (json_array_append_new(list,
                                  json_pack("{ss s{ss} ss sb}", "type", "Split", "pattern", "Regex",
                                            *patterns, "behavior", "Isolated", "invert", 0))) {
            json_decref(list);
            return NULL;
        }
    if (!list || json_array_append_new(list, json_pack("{ss sb sb sb}", "type", "ByteLevel",
                                                       "add_prefix_space", 0, "trim_offsets", 1,
                                                       "use_regex", 0))) {
        json_decref(list);
        return NULL;
    }
    return json_pack("{ss so}", "type", "Sequence", "pretokenizers", list);
}

static json_t *post_processor(const char *bos, int32_t id)
{
    if (!bos)
        return json_pack("{ss sb sb sb}", "type", "ByteLevel", "add_prefix_space", 1,
                         "trim_offsets", 0, "use_regex", 1);
    return json_pack("{ss s[{s{ss si}} {s{ss si}}] s[{s{ss si}} {s{ss si}} {s{ss si}} {s{ss si}}] "
                     "s{s{ss s[i] s[s]}}}",
                     "type", "TemplateProcessing", "single", "SpecialToken", "id", bos, "type_id",
                     0, "Sequence", "id", "A", "type_id", 0, "pair", "SpecialToken", "id", bos,
                     "type_id", 0, "Sequence", "id", "A", "type_id", 0, "SpecialToken", "id", bos,
                     "type_id", 1, "Sequence", "id", "B", "type_id", 1, "special_tokens", bos, "id",
                     bos, "ids", id, "tokens", bos);
}

json_t *tokenizer_write(const struct tokenizer_parts *p)
{
    json_t *normalizer = p->flags & PRETOK_NFC ? json_pack("{ss}", "type", "NFC") : json_null();
    return json_pack("{ss sn sn sO so so so s{ss sb sb sb} s{ss sn sn sn sn sb sb sb sO sO}}",
                     "version", "1.0", "truncation", "padding", "added_tokens", p->added,
                     "normalizer", normalizer, "pre_tokenizer", pre_tokenizer(p->patterns),
                     "post_processor", post_processor(p->bos, p->bos_id), "decoder", "type",
                     "ByteLevel", "add_prefix_space", 1, "trim_offsets", 1, "use_regex", 1, "model",
                     "type", "BPE", "dropout", "unk_token", "continuing_subword_prefix",
                     "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0, "ignore_merges",
                     (p->flags & PRETOK_WHOLE) != 0, "vocab", p->vocab, "merges", p->merges);
}
