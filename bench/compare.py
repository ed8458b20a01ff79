"""Alternating runs of ponder and llama.cpp on the same file; prints medians, the ratio and its spread.

One process per run and engine, in turns, so that a slow minute of a shared machine meets both. The ratio of a round is
ponder's figure over the peer's in the same round; printed are the median and the range of those ratios.
"""
import argparse, json, statistics, subprocess, sys, time

PEER = r"""
import sys, time, json
import llama_cpp
model, threads, n, gen, fa = sys.argv[1], *map(int, sys.argv[2:6])
llm = llama_cpp.Llama(model, n_ctx=2048, n_batch=512, n_ubatch=512, n_threads=threads, n_threads_batch=threads,
                      flash_attn=bool(fa), verbose=False)
ids = [(i * 7919 + 13) % 30000 + 10 for i in range(n)]
llm.eval(ids[:32]); llm.reset()
t = time.perf_counter(); llm.eval(ids); pp = n / (time.perf_counter() - t)
for i in range(4): llm.eval([100 + i])
t = time.perf_counter()
for i in range(gen): llm.eval([200 + i])
tg = gen / (time.perf_counter() - t)
print(json.dumps({"prefill": pp, "decode": tg}))
"""


def peer(model, threads, n, gen, fa):
    r = subprocess.run([sys.executable, "-c", PEER, model, str(threads), str(n), str(gen), str(int(fa))],
                       capture_output=True, text=True, check=True)
    return json.loads(r.stdout.strip().split("\n")[-1])


def own(exe, model, threads, n, gen, isa):
    r = subprocess.run([exe, "bench", "--activations", "int8", model, "-t", str(threads), "-p", str(n), "-n", str(gen), "-r", "1", "--json",
                        *(["--isa", isa] if isa else [])], capture_output=True, text=True, check=True)
    return {row["test"]: row["tokens_per_second"] for row in json.loads(r.stdout)["results"]}


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("models", nargs="*")
    a.add_argument("--threads", default="1,2")
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--ponder", default="build/src/cli/ponder")
    a.add_argument("--isa")
    a.add_argument("-p", type=int, default=512)
    a.add_argument("-n", type=int, default=64)
    a = a.parse_args()
    models = a.models or [subprocess.run(["tools/get-model", m], capture_output=True, text=True, check=True).stdout.strip()
                          for m in ("smollm2", "qwen0.5b")]
    print("| model | threads | work | ponder tok/s | llama.cpp tok/s | ratio (range) |\n|---|---|---|---|---|---|")
    for m in models:
        for t in map(int, a.threads.split(",")):
            rows = []
            for i in range(a.rounds):
                # Both of the peer's attention paths; the better one of a round counts.
                turn = [lambda: own(a.ponder, m, t, a.p, a.n, a.isa), lambda: peer(m, t, a.p, a.n, False),
                        lambda: peer(m, t, a.p, a.n, True)]
                got = {}
                for k in (0, 1, 2) if i % 2 == 0 else (2, 1, 0):
                    got[k] = turn[k]()
                rows.append((got[0], {w: max(got[1][w], got[2][w]) for w in ("prefill", "decode")}))
            for w in ("prefill", "decode"):
                x, y = [r[0][w] for r in rows], [r[1][w] for r in rows]
                q = [u / v for u, v in zip(x, y)]
                name = f"prefill {a.p}" if w == "prefill" else f"decode {a.n}"
                print(f"| {m.split('/')[-1]} | {t} | {name} | {statistics.median(x):.1f} | {statistics.median(y):.1f} | "
                      f"{statistics.median(q):.2f} ({min(q):.2f}–{max(q):.2f}) |", flush=True)


main()
