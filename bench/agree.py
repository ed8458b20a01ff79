"""Holds ponder's logits against llama.cpp's along llama.cpp's own greedy path.

usage: agree.py PONDER MODEL.gguf

For each prompt llama.cpp writes 32 tokens greedily; ponder scores the same tokens. Where the two disagree about the best
token, llama.cpp's two best logits must be closer than 0.05 (a near tie). Exit status 1 otherwise.
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


def main():
    ponder, model = sys.argv[1:3]
    llm = llama_cpp.Llama(model, n_ctx=512, n_threads=2, verbose=False, logits_all=True)
    bad = near = total = 0
    worst = 0.0
    for p in PROMPTS:
        ids = llm.tokenize(p.encode(), add_bos=True, special=False)
        llm.reset()
        llm.eval(ids)
        path = list(ids)
        for _ in range(STEPS):
            path.append(int(llm.scores[len(path) - 1].argmax()))
            llm.eval(path[-1:])
        peer = np.array(llm.scores[len(ids) - 1:len(path) - 1])
        with tempfile.NamedTemporaryFile() as f:
            subprocess.run([ponder, "logits", model, "--ids", ",".join(map(str, path[:-1])), "--out", f.name],
                           check=True, stdout=subprocess.DEVNULL)
            own = np.fromfile(f.name, "<f4").reshape(len(path) - 1, -1)[len(ids) - 1:]
        for k in range(STEPS):
            a, b = int(peer[k].argmax()), int(own[k].argmax())
            worst = max(worst, float(np.abs(np.log(np.exp(peer[k] - peer[k].max()).sum()) + peer[k].max() - peer[k][a]
                                           - (np.log(np.exp(own[k] - own[k].max()).sum()) + own[k].max() - own[k][a]))))
            total += 1
            if a != b:
                gap = float(peer[k][a] - peer[k][b])
                if gap < TIE:
                    near += 1
                else:
                    bad += 1
                    print(f"  {p!r} token {k}: llama.cpp {a}, ponder {b}, gap {gap:.3f}")
    print(f"{model.split('/')[-1]}: {total - bad - near}/{total} equal, {near} near ties, {bad} different; "
          f"largest difference of a best token's log-probability {worst:.3f}")
    sys.exit(bad > 0)


main()
