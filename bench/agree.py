"""Holds ponder's logits against llama.cpp's along llama.cpp's own greedy path.

usage: agree.py PONDER MODEL.gguf

For each prompt llama.cpp writes 32 tokens greedily; ponder scores the same tokens. Where the two disagree about the best
token, llama.cpp's two best logits must be closer than 0.05 (a near tie). Exit status 1 otherwise.

Both engines round the inputs of quantized products to int8, each in its own way. ponder with --activations f32 rounds
nothing, over the same weights: it tells who is nearer to exact arithmetic where the two differ. That column informs; it
changes neither the threshold nor the exit status.
"""
import array, ctypes, json, subprocess, sys, tempfile

import llama_cpp
import numpy as np

PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n",
    "Question: What is 12 times 12?\nAnswer:",
    "Once upon a time, in a small village,",
    "The three primary colours are",
    "To make a cup of tea, first",
    "#include <stdio.h>\n\nint main(void)\n{\n",
    "Water boils at a temperature of",
    "In 1969, Neil Armstrong",
    "SELECT name FROM users WHERE",
]
STEPS, TIE = 32, 0.05


def score(ponder, model, ids, activations):
    """ponder's logits after each of the ids."""
    with tempfile.NamedTemporaryFile() as f:
        subprocess.run([ponder, "logits", model, "--ids", ",".join(map(str, ids)), "--out", f.name,
                        "--activations", activations],
                       check=True, stdout=subprocess.DEVNULL)
        return np.fromfile(f.name, "<f4").reshape(len(ids), -1)


def log_softmax(x):
    x = x.astype(np.float64) - x.max()
    return x - np.log(np.exp(x).sum())


def main():
    ponder, model = sys.argv[1:3]
    llm = llama_cpp.Llama(model, n_ctx=512, n_threads=2, verbose=False, logits_all=True)
    bad = near = total = 0
    worst = 0.0
    follows = {"llama.cpp": 0, "ponder": 0, "neither": 0}  # where the two disagree
    float_same, float_kl = {"llama.cpp": 0, "ponder": 0}, {"llama.cpp": 0.0, "ponder": 0.0}
    for p in PROMPTS:
        ids = llm.tokenize(p.encode(), add_bos=True, special=False)
        llm.reset()
        llm.eval(ids)
        path = list(ids)
        for _ in range(STEPS):
            path.append(int(llm.scores[len(path) - 1].argmax()))
            llm.eval(path[-1:])
        peer = np.array(llm.scores[len(ids) - 1:len(path) - 1])
        own = score(ponder, model, path[:-1], "int8")[len(ids) - 1:]
        truth = score(ponder, model, path[:-1], "f32")[len(ids) - 1:]
        for k in range(STEPS):
            a, b = int(peer[k].argmax()), int(own[k].argmax())
            lp, lo = log_softmax(peer[k]), log_softmax(own[k])
            worst = max(worst, abs(lp[a] - lo[a]))
            total += 1
            lt, t = log_softmax(truth[k]), int(truth[k].argmax())
            for name, token, other in ("llama.cpp", a, lp), ("ponder", b, lo):
                float_same[name] += token == t
                float_kl[name] += float((np.exp(lt) * (lt - other)).sum())
            if a == b:
                continue
            who = "llama.cpp" if t == a else "ponder" if t == b else "neither"
            follows[who] += 1
            gap = float(peer[k][a] - peer[k][b])
            if gap < TIE:
                near += 1
            else:
                bad += 1
            print(f"  {p!r} token {k}: llama.cpp {a}, ponder {b}, gap {gap:.3f}{' (near tie)' if gap < TIE else ''}; "
                  f"float {t} ({who}), its gap {lt[a] - lt[b]:+.3f}", flush=True)
    print(f"{model.split('/')[-1]}: {total - bad - near}/{total} equal, {near} near ties, {bad} different; "
          f"largest difference of a best token's log-probability {worst:.3f}")
    print("  where they disagree, float follows " + ", ".join(f"{k} {v}" for k, v in follows.items()))
    for name in float_same:
        print(f"  {name} against float: {float_same[name]}/{total} equal, mean KL {float_kl[name] / total:.6f}")
    sys.exit(bad > 0)


main()
