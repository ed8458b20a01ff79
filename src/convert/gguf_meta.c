/*
 * Metadata of a GGUF file. From a GGUF source every key is copied byte for byte, but for those that
 * speak of the types, of the split, and of the importance that was used.
 */
#include "base/num.h"
#include "convert/imatrix.h"
#include "convert/write.h"
#include "format/gguf.h"

#include <string.h>

enum { QUANTIZATION_VERSION = 2, FTYPE_GUESSED = 1024 };

static int put_text(struct gguf_writer *w, const char *key, const char *s, struct err *e)
{
    return gguf_put_string(w, key, s, strlen(s), e);
}

/* Keys that are written anew. */
static bool own_key(const struct convert_plan *p, const char *key)
{
    static const char *const keys[] = {"general.file_type", "general.quantization_version",
                                       "split.no", "split.count", "split.tensors.count"};
    for (size_t i = 0; i < NUM_COUNT(keys); i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    return (p->imatrix && strncmp(key, "quantize.imatrix.", 17) == 0) ||
           (p->o.name && strcmp(key, "general.name") == 0);
}

static int copy_keys(struct convert_plan *p, struct gguf_writer *w, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; !rc && i < source_value_count(p->src); i++) {
        const char *key = source_value_at(p->src, i, NULL);
        if (!own_key(p, key))
            rc = gguf_copy(w, p->src, key, e);
    }
    return rc;
}

/* The number for the type that most of the weights have, where no mix says it. */
static uint32_t guess_ftype(const struct convert_plan *p)
{
    uint64_t bytes[QUANT_ID_MAX] = {0};
    unsigned best = 0;
    size_t n;
    const struct mix *m = mix_all(&n);
    for (size_t i = 0; i < p->n; i++) {
        unsigned id = p->tensors[i].type->id;
        bytes[id] += p->tensors[i].bytes;
        if (p->tensors[i].dims > 1 && bytes[id] > bytes[best])
            best = id;
    }
    for (size_t i = 0; i < n; i++)
        if (m[i].type == best)
            return m[i].ftype;
    return FTYPE_GUESSED;
}

static int put_imatrix(const struct convert_plan *p, struct gguf_writer *w, struct err *e)
{
    const char *slash = strrchr(p->o.imatrix, '/');
    int rc = put_text(w, "quantize.imatrix.file", slash ? slash + 1 : p->o.imatrix, e);
    if (!rc && *imatrix_dataset(p->imatrix))
        rc = put_text(w, "quantize.imatrix.dataset", imatrix_dataset(p->imatrix), e);
    if (!rc)
        rc = gguf_put_i32(w, "quantize.imatrix.entries_count", (int32_t)imatrix_count(p->imatrix),
                          e);
    if (!rc && imatrix_chunks(p->imatrix) >= 0 && imatrix_chunks(p->imatrix) <= INT32_MAX)
        rc = gguf_put_i32(w, "quantize.imatrix.chunks_count", (int32_t)imatrix_chunks(p->imatrix),
                          e);
    return rc;
}

int convert_gguf_meta(struct convert_plan *p, struct gguf_writer *w, struct err *e)
{
    int rc = copy_keys(p, w, e);
    if (!rc && p->o.name)
        rc = put_text(w, "general.name", p->o.name, e);
    if (!rc)
        rc = gguf_put_u32(w, "general.file_type", p->o.mix ? p->o.mix->ftype : guess_ftype(p), e);
    if (!rc)
        rc = gguf_put_u32(w, "general.quantization_version", QUANTIZATION_VERSION, e);
    if (!rc && p->imatrix)
        rc = put_imatrix(p, w, e);
    return rc;
}
