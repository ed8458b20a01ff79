"""Alternating runs of ponder and its peers on the same files; prints medians, and ratios with their range.

Peers: llama.cpp (llama-cpp-python) with and without flash attention, with and without its repacking; ik_llama.cpp
(ik-llama-cpp-python, where it can be imported) with and without flash attention, with and without -rtr. For each work
that one counts whose median is the best. The first round tries them all; later ones only those that came within 5% of
the best in some work. One process per run and contender, in turns, forwards and backwards, so that a slow minute of a
shared machine meets all of them. A round's ratio is ponder's figure over that peer's of the same round.

ponder runs with --activations int8, which is what the peers compute with.

With --data FILE the rounds are kept in FILE: a long comparison can be made in pieces, and the table is of all that is
there; --rounds 0 only prints it.
"""
import argparse, json, os, resource, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))


def numbers(s):
    return [int(x) for x in s.split(",") if x]


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("models", nargs="*", help="GGUF files (default: the small models that the project tests with)")
    a.add_argument("-t", "--threads", type=numbers, default=[1, 2])
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("-r", "--samples", type=int, default=1, help="samples of a run; their median is the run's figure")
    a.add_argument("-p", "--prefill", type=numbers, default=[512])
    a.add_argument("-n", "--decode", type=int, default=64, help="tokens of each decoding test")
    a.add_argument("-d", "--depth", type=numbers, default=[0], help="depths at which decoding is measured")
    a.add_argument("--parallel", type=numbers, default=[], help="sequences that decode together, like 8,32")
    a.add_argument("--isa", help="ponder's instruction set; peers stay what they were built for")
    a.add_argument("--ponder", default="build/src/cli/ponder")
    a.add_argument("--ponder-args", default="", help="more options of ponder bench")
    a.add_argument("--llama-python", default=sys.executable, help="interpreter that has llama_cpp")
    a.add_argument("--llama-lib", help="folder with another libllama.so for it")
    a.add_argument("--ik-python", default=os.environ.get("PONDER_PEER_IK", sys.executable),
                   help="interpreter that has ik_llama_cpp (PONDER_PEER_IK)")
    a.add_argument("--ik-lib", default=os.environ.get("IK_LLAMA_CPP_LIB_PATH"), help="another libllama.so for it")
    a.add_argument("--only", help="comma-separated parts of peers' names: leave the others out")
    a.add_argument("--start", action="store_true", help="measure start to first token and peak memory instead")
    a.add_argument("--data", help="file to keep the rounds in")
    return a.parse_args()


def works(o):
    def work(decode, tokens, depth, sequences):
        name = f"{'n' if decode else 'p'}{tokens}" + (f"x{sequences}" if sequences > 1 else "") + (f"@{depth}" if depth else "")
        return {"name": name, "decode": decode, "tokens": tokens, "depth": depth, "sequences": sequences}
    return ([work(False, p, 0, 1) for p in o.prefill if p] +
            ([work(True, o.decode, d, 1) for d in o.depth] +
             [work(True, o.decode, 0, b) for b in o.parallel] if o.decode else []))


def own(o, model, threads):
    """{work: (tok/s, share of reading, share of the arithmetic's peak, its name)}"""
    out = {}
    calls = [["-p", ",".join(map(str, o.prefill)) or "0", "-n", str(o.decode) if 0 in o.depth else "0"]]
    deep = [d for d in o.depth if d]
    if deep and o.decode:
        calls.append(["-p", "0", "-n", str(o.decode), "-d", ",".join(map(str, deep))])
    if o.parallel and o.decode:
        calls.append(["-p", "0", "-n", str(o.decode), "--parallel", ",".join(map(str, o.parallel))])
    for call in calls:
        if call[1] == "0" and call[3] == "0":
            continue
        r = subprocess.run([o.ponder, "bench", model, "--activations", "int8", "-t", str(threads), "-r", str(o.samples), "--json",
                            *call, *(["--isa", o.isa] if o.isa else []), *o.ponder_args.split()],
                           capture_output=True, text=True)
        if r.returncode:
            sys.exit(r.stderr.strip())
        for row in json.loads(r.stdout)["results"]:
            name = f"{row['test'][0].replace('d', 'n')}{row['tokens']}" + (
                f"x{row['sequences']}" if row["sequences"] > 1 else "") + (f"@{row['depth']}" if row["depth"] else "")
            out[name] = row["tokens_per_second"], row["read_share"], row["ops_share"], row["arithmetic"]
    return out


def peer(o, model, threads, variant, what):
    engine, flash, repack = variant
    job = {"engine": engine, "model": os.path.abspath(model), "threads": threads, "flash": flash, "repack": repack, "samples": o.samples, **what}
    env = dict(os.environ)
    if engine == "llama" and o.llama_lib:
        env["LLAMA_CPP_LIB_PATH"] = o.llama_lib
    if engine == "ik" and o.ik_lib:
        env["IK_LLAMA_CPP_LIB_PATH"] = o.ik_lib
    python = o.llama_python if engine == "llama" else o.ik_python
    r = subprocess.run([python, f"{HERE}/peer_run.py", json.dumps(job)], capture_output=True, text=True, env=env)
    if r.returncode:
        lines = r.stderr.strip().split("\n")
        return None, next((x for x in lines if "ASSERT" in x), lines[-1])[:200] or f"exit status {r.returncode}"
    return json.loads(r.stdout.strip().split("\n")[-1]), None


def variant_name(v):
    engine, flash, repack = v
    words = [{"llama": "llama.cpp", "ik": "ik_llama.cpp"}[engine]]
    words += ["flash"] if flash else []
    words += (["repacked"] if repack else []) if engine == "llama" else (["-rtr"] if repack else [])
    return " ".join(words)


def variants(o):
    def has(python, module):
        return subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 0
    found = [e for e, p, m in (("llama", o.llama_python, "llama_cpp"), ("ik", o.ik_python, "ik_llama_cpp")) if has(p, m)]
    if "ik" not in found:
        print("ik_llama_cpp cannot be imported: ik_llama.cpp is left out", file=sys.stderr)
    all = {variant_name(v): v for v in [(e, f, r) for e in found for f in (True, False) for r in (True, False)]}
    return {n: v for n, v in all.items() if not o.only or any(x in n for x in o.only.split(","))}


def promising(rounds, names):
    """Variants within 5% of the best in some work, by medians of the rounds so far."""
    if not rounds:
        return list(names)
    keep = set()
    for w in {w for r in rounds for v in r["peers"].values() for w in v}:
        medians = {n: statistics.median([r["peers"][n][w] for r in rounds if w in r["peers"].get(n, {})] or [0]) for n in names}
        keep |= {n for n in names if medians[n] and medians[n] >= 0.95 * max(medians.values())}
    return [n for n in names if n in keep]


def peer_works(o, model, threads, name, variant, broken):
    """{work: tok/s}. A work that a peer cannot do (some abort) is tried once, and reported once."""
    todo = [w for w in works(o) if w["name"] not in broken.get(name, [])]
    got, _ = peer(o, model, threads, variant, {"works": todo}) if todo else ({}, None)
    if got is None:
        got = {}
        for w in todo:
            one, why = peer(o, model, threads, variant, {"works": [w]})
            got.update(one or {})
            if not one:
                broken.setdefault(name, []).append(w["name"])
                print(f"{os.path.basename(model)}, {name}, {w['name']}: does not run: {why}", file=sys.stderr)
    return {w: statistics.median(v) for w, v in got.items()}


def one_round(o, model, threads, rounds, names, broken):
    result = {"own": {}, "peers": {}}
    turn = ["ponder"] + promising(rounds, names)
    for who in turn if len(rounds) % 2 == 0 else turn[::-1]:
        if who == "ponder":
            result["own"] = own(o, model, threads)
            continue
        result["peers"][who] = peer_works(o, model, threads, who, names[who], broken)
    return result


def share(rows, k):
    v = [r[k] for r in rows if r[k] is not None]
    return f"{100 * statistics.median(v):.0f}%" if v else "–"


def table(data):
    print("| model | threads | work | ponder tok/s | of reading | of peak | best peer tok/s | which | ratio (range) |\n"
          "|---|--:|---|--:|--:|--:|--:|---|--:|")
    for key, there in data.items():
        model, threads, isa = key.split("|")
        rounds = there["rounds"]
        names = list(dict.fromkeys(w for r in rounds for w in r["own"]))
        for w in names:
            x = [r["own"][w] for r in rounds if w in r["own"]]
            # One peer for all rounds, the one with the best median: the best of each round would be the luckiest.
            peers = {n: statistics.median(v) for n in {n for r in rounds for n in r["peers"]}
                     if (v := [r["peers"][n][w] for r in rounds if w in r["peers"].get(n, {})])}
            who = max(peers, key=peers.get) if peers else None
            q = [r["own"][w][0] / r["peers"][who][w] for r in rounds if w in r["own"] and w in r["peers"].get(who, {})]
            line = f"| {model}{' (' + isa + ')' if isa else ''} | {threads} | {w} | {statistics.median(v[0] for v in x):.1f} | {share(x, 1)} | {share(x, 2)} {x[0][3]} |"
            print(line + (f" {peers[who]:.1f} | {who} | {statistics.median(q):.2f} ({min(q):.2f}–{max(q):.2f}) |"
                          if q else " – | – | – |"))


def warm(path):
    with open(path, "rb", buffering=0) as f:
        while f.read(1 << 24):
            pass


def start(o, models, names):
    """Warm start to the first token, and peak memory, in turns. ponder: from the start of the process to the first byte
    of its answer, also from a packed file; peers: without the start of theirs. The file is read before each, as systems
    drop pages that rest."""
    print("| model | threads | contender | seconds to first token (range) | peak memory | file |\n|---|--:|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            packed = os.path.join(folder, "packed.gguf")
            subprocess.run([o.ponder, "convert", model, packed, "--packed", "--force"], check=True, stdout=subprocess.DEVNULL)
            start_model(o, model, packed, names)


def start_model(o, model, packed, names):
    own = {"ponder": model, "ponder, packed file": packed}
    for threads in o.threads:
        got = {n: [] for n in [*own, *names]}
        for i in range(o.rounds + 1):
            for who in got:
                file = own.get(who, model)
                warm(file)
                if who in own:
                    t = time.perf_counter()
                    p = subprocess.Popen([o.ponder, "run", file, "Hello", "--max-tokens", "1", "-t", str(threads),
                                          *(["--isa", o.isa] if o.isa else [])], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                    p.stdout.read(1)
                    t = time.perf_counter() - t
                    _, _, use = os.wait4(p.pid, 0)
                    row = t, use.ru_maxrss * 1024
                else:
                    v, _ = peer(o, model, threads, names[who], {"start": 32})
                    row = (v["seconds"], v["bytes"]) if v else None
                if i and row:  # the first round warms
                    got[who].append(row)
        for who, rows in got.items():
            if rows:
                s = [r[0] for r in rows]
                print(f"| {os.path.basename(model)} | {threads} | {who} | {statistics.median(s):.3f} ({min(s):.3f}–{max(s):.3f}) | "
                      f"{max(r[1] for r in rows) / 1e6:.0f} MB | {os.path.getsize(model) / 1e6:.0f} MB |", flush=True)


def main():
    o = arguments()
    models = o.models or ([] if o.rounds == 0 else [
        subprocess.run(["tools/get-model", m], capture_output=True, text=True, check=True).stdout.strip() for m in ("smollm2", "qwen0.5b")])
    names = variants(o) if o.rounds else {}
    if o.start:
        return start(o, models, names)
    data = json.load(open(o.data)) if o.data and os.path.exists(o.data) else {}
    for model in models:
        for threads in o.threads:
            of = data.setdefault(f"{os.path.basename(model)}|{threads}|{o.isa or ''}", {"rounds": [], "broken": {}})
            for _ in range(o.rounds):
                of["rounds"].append(one_round(o, model, threads, of["rounds"], names, of["broken"]))
                if o.data:
                    with open(o.data + ".new", "w") as f:
                        json.dump(data, f)
                    os.replace(o.data + ".new", o.data)
    table(data)


main()
