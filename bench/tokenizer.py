"""Alternating runs of `ponder tokenize` and the "tokenizers" package over the same text, on one core each.

The text is given once as a whole and once as a list of documents (cut at line ends, about 6 KB each), as JSON strings.
ponder's time is that of the whole process, reading and writing JSON, less that of a process without input (which only
loads the vocabulary); control tokens in the text are recognised, as the package does. The package's time is that of
the call alone, the best of its ways: encode, encode_batch, encode_batch_fast. The ids must be equal. The ratio of a
round is the peer's time over ponder's.
"""
import argparse, array, json, os, statistics, subprocess, sys, tempfile, time

PEER = r"""
import array, json, sys, time
import tokenizers
model, texts, ids, how = sys.argv[1:5]
t = tokenizers.Tokenizer.from_file(model)
texts = [json.loads(x) for x in open(texts)]
start = time.perf_counter()
if how == "encode":
    got = [t.encode(x, add_special_tokens=False) for x in texts]
else:
    got = getattr(t, how)(texts, add_special_tokens=False)
print(time.perf_counter() - start)
with open(ids, "wb") as f:
    for g in got:
        array.array("i", g.ids).tofile(f)
"""
WAYS = ["encode", "encode_batch", "encode_batch_fast"]
ONE = dict(os.environ, TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")


def core():
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def documents(text, size):
    out, part, length = [], [], 0
    for line in text.splitlines(keepends=True):
        part.append(line)
        length += len(line)
        if length >= size:
            out.append("".join(part))
            part, length = [], 0
    return out + ["".join(part)] if part else out


def own(exe, model, texts, ids):
    def run(stdin, stdout):
        start = time.perf_counter()
        subprocess.run([exe, "tokenize", "--special", model], stdin=stdin, stdout=stdout, check=True, preexec_fn=core)
        return time.perf_counter() - start

    with open(texts, "rb") as f, open(ids + ".json", "wb") as g:
        load = run(subprocess.DEVNULL, subprocess.DEVNULL)
        seconds = run(f, g) - load
    with open(ids + ".json") as f, open(ids, "wb") as g:
        for line in f:
            array.array("i", json.loads(line)).tofile(g)
    return seconds


def peer(model, texts, ids, how):
    r = subprocess.run([sys.executable, "-c", PEER, model, texts, ids, how], capture_output=True, text=True, check=True,
                       env=ONE, preexec_fn=core)
    return float(r.stdout)


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("text")
    a.add_argument("models", nargs="+")
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--ponder", default="build/src/cli/ponder")
    a = a.parse_args()
    with open(a.text, "rb") as f:
        data = f.read()
    text = data.decode("utf-8", "replace")
    mb = len(text.encode()) / 1e6
    with tempfile.TemporaryDirectory() as tmp:
        forms = {"whole": [text], "documents": documents(text, 6000)}
        for name, parts in forms.items():
            with open(f"{tmp}/{name}", "w") as f:
                f.writelines(json.dumps(x) + "\n" for x in parts)
        print("| tokenizer | text | ponder MB/s | tokenizers MB/s | ratio (range) |\n|---|---|--:|--:|--:|")
        for m in a.models:
            path = os.path.join(m, "tokenizer.json") if os.path.isdir(m) else m
            for name in forms:
                rows = []
                for i in range(a.rounds):
                    texts = f"{tmp}/{name}"
                    turns = [lambda: own(a.ponder, path, texts, f"{tmp}/own")]
                    turns += [lambda w=w: peer(path, texts, f"{tmp}/{w}", w) for w in WAYS]
                    order = range(len(turns)) if i % 2 == 0 else reversed(range(len(turns)))
                    got = {k: turns[k]() for k in order}
                    rows.append((got[0], min(got[k] for k in got if k)))
                    with open(f"{tmp}/own", "rb") as f, open(f"{tmp}/encode", "rb") as g:
                        if f.read() != g.read():
                            sys.exit(f"{m}, {name}: the ids differ")
                q = [y / x for x, y in rows]
                x, y = (statistics.median(mb / r[k] for r in rows) for k in (0, 1))
                print(f"| {os.path.basename(os.path.abspath(m))} | {name} | {x:.1f} | {y:.2f} | "
                      f"{statistics.median(q):.1f} ({min(q):.1f}–{max(q):.1f}) |", flush=True)


main()
