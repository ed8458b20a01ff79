#!/usr/bin/env python3
"""Makes variants.jsonl: token ids of short texts under many settings of a tokenizer.json.

usage: make.py        (needs the Python package `tokenizers`; 0.22.2 made the stored file)

Each line is an object: `base` (a folder of tests/golden/models with a tokenizer.json), `patch` (members
that replace those of the base), `pre` (only where the same tokenizer can be said in a GGUF file: the name
of its pre-tokenizer there) and `cases`, a list of [text, ids with added tokens recognised].
"""
import copy, itertools, json, os, random
from tokenizers import Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
ATOMS = ["a", "b", "ab", "aab", " ", "  ", "\n", "\r\n", "\t", "1", "23", "4567", "é", "e\u0301", "\u0301", "<x>", "<xy>", "<x",
         "中", "一二", ".", "!!", "'s", "'ſ", "'K", "'\u212a", "ﬁ", "²", "か\u3099", "\u1100\u1161\u11a8", "\u180e", "\u0085", "\u3000", "<x>a",
         " <x>", "x", "_", "½", "st", "ﬆ", "ß", "A", "the", " the", "Then", "<|im_end|>", "<think>", "😀", "Ω", "\u1fbe", "한", "#x", "\x00"]
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2 = dict(LEVEL, use_regex=True)
CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
V3 = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
LLM_CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
LLM_PUNCT = r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+"
BEHAVIORS = ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def seq(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def cased():
    """The letters with case of Unicode 12, out of pretok.def."""
    text = open(os.path.join(HERE, "../../../src/text/pretok.def"), encoding="utf-8").read()
    body = text[text.index("#define PAT_LLM_CASED"):text.index("#define PAT_LLM_PUNCT")]
    return "".join(body.split('"')[1::2]).replace("\\\\", "\\")


def added(base, tokens):
    n = len(base["model"]["vocab"])
    return [dict({"id": n + i, "content": c, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                  "special": True}, **k) for i, (c, k) in enumerate(tokens)]


def variants(base):
    for b in BEHAVIORS:
        for inv in (False, True):
            yield {"pre_tokenizer": seq(split(r"\s|[ab]", b, inv), LEVEL)}, None
            yield {"pre_tokenizer": seq(split("ab", b, inv, "String"), LEVEL)}, None
        yield {"pre_tokenizer": seq(split(r"a*", b), LEVEL)}, None
        yield {"pre_tokenizer": seq(split(r"\p{L}+", b), split(r"\s", b, True), LEVEL)}, None
    yield {"pre_tokenizer": dict(GPT2, add_prefix_space=True)}, None
    for each in (False, True):
        yield {"pre_tokenizer": seq({"type": "Digits", "individual_digits": each}, dict(GPT2, add_prefix_space=not each))}, None
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        yield {"normalizer": {"type": form}}, None
    yield {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "NFC"}]}}, None
    yield {"normalizer": None}, None
    for flags in itertools.product([False, True], repeat=4):
        k = dict(zip(("single_word", "lstrip", "rstrip", "normalized"), flags))
        yield {"added_tokens": added(base, [("<x>", k), ("<xy>", k), ("ab", k), ("é<", k), ("<x", {}), (" <x>", {"special": False}),
                                            ("<x>a", k)])}, None
    yield {"model": dict(base["model"], ignore_merges=True)}, None
    for p in (r"[a-z]+|\s+$", r"\w+|\W", r"\h+", r"[\S]+", r"(?m:a.)", "a.", "^a", "a$", "\\u4e2d+", "[^\\s]+[\\s]", "[]a]+", "(?i:'s|'k|st)",
              "[[:alpha:]]+", r"(?<=a)b|\s+(?!\S)", r"\bab\b", r"\p{Han}+"):
        yield {"pre_tokenizer": seq(split(p), LEVEL)}, None
    n = dict(normalizer=None)
    rows = {
        "qwen2": dict(normalizer={"type": "NFC"}, pre_tokenizer=seq(split(CL100K % ""), LEVEL)),
        "llama-bpe": dict(n, pre_tokenizer=seq(split(CL100K % "{1,3}"), LEVEL), model=dict(base["model"], ignore_merges=True)),
        "deepseek-v3": dict(n, pre_tokenizer=seq(split(r"\p{N}{1,3}"), split("[一-龥\u3040-ゟ゠-ヿ]+"), split(V3), LEVEL)),
        "deepseek-llm": dict(n, pre_tokenizer=seq(split(r"[\r\n]"), split(cased()), split(LLM_PUNCT), split(r"\s+$"), split(LLM_CJK),
                                                  split(r"\p{N}+"), LEVEL)),
        "deepseek-coder": dict(n, pre_tokenizer=seq(split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split(LLM_CJK),
                                                    split(r"\p{N}"), LEVEL)),
        "gpt-2": dict(n, pre_tokenizer=GPT2),
        "smollm": dict(n, pre_tokenizer=seq({"type": "Digits", "individual_digits": True}, GPT2)),
    }
    for name, patch in rows.items():
        yield dict(patch, added_tokens=added(base, [("<x>", {}), ("<think>", {"special": False}), ("<|im_end|>", {})])), name


def main():
    r = random.Random(20)
    out = []
    for folder in ("qwen2_tied", "llama_rope_llama3"):
        base = json.load(open(os.path.join(HERE, "../models", folder, "tokenizer.json"), encoding="utf-8"))
        for patch, pre in ([({}, None)] if folder != "qwen2_tied" else [({}, None), *variants(base)]):
            t = Tokenizer.from_str(json.dumps(dict(copy.deepcopy(base), **patch)))
            if "model" in patch:  # too large to store: only what differs
                patch = dict(patch, model={"ignore_merges": True})
            cases = []
            for i in range(40 if pre or not patch else 12):
                s = "".join(r.choice(ATOMS) for _ in range(r.randint(1, 14 if i % 4 else 40)))
                cases.append([s, t.encode(s, add_special_tokens=False).ids])
            row = {"base": folder, "patch": patch, "cases": cases}
            if pre:
                row["pre"] = pre
            out.append(json.dumps(row))
    with open(os.path.join(HERE, "variants.jsonl"), "w") as f:
        f.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
