"""How steady decoding is while a neighbour takes a core now and then.

A neighbour is a process that burns one core for some tens of milliseconds every few hundred, at random times (a fixed
seed), as another tenant of a shared machine does. Prints the median of the samples with and without it, and the worst
sample over the median: work that is shared out in large fixed pieces, or threads that spin for one another, show there
as samples far below the median.
"""
import argparse, json, multiprocessing, random, statistics, subprocess, sys, time


def neighbour(busy, every):
    rng = random.Random(1)
    while True:
        time.sleep(rng.uniform(0.5, 1.5) * every)
        end = time.perf_counter() + rng.uniform(0.5, 1.5) * busy
        while time.perf_counter() < end:
            pass


def samples(o):
    r = subprocess.run([o.ponder, "bench", o.model, "-p", "0", "-n", str(o.tokens), "-r", str(o.samples), "--json",
                        *(["-t", str(o.threads)] if o.threads else []), *(["--isa", o.isa] if o.isa else [])], capture_output=True, text=True)
    if r.returncode:
        sys.exit(r.stderr.strip())
    return json.loads(r.stdout)["results"][0]["samples"]


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("model")
    a.add_argument("-t", "--threads", type=int)
    a.add_argument("-n", "--tokens", type=int, default=32, help="tokens of a sample")
    a.add_argument("-r", "--samples", type=int, default=30)
    a.add_argument("--busy", type=float, default=30, help="milliseconds that the neighbour works at a time")
    a.add_argument("--every", type=float, default=300, help="milliseconds between, on average")
    a.add_argument("--isa")
    a.add_argument("--ponder", default="build/src/cli/ponder")
    o = a.parse_args()
    print("| neighbour | samples | median tok/s | worst tok/s | worst / median | best / median |\n|---|--:|--:|--:|--:|--:|")
    for there in (False, True):
        p = multiprocessing.Process(target=neighbour, args=(o.busy / 1000, o.every / 1000), daemon=True)
        if there:
            p.start()
        v = samples(o)
        if there:
            p.terminate()
        m = statistics.median(v)
        print(f"| {'yes' if there else 'none'} | {len(v)} | {m:.1f} | {min(v):.1f} | {min(v) / m:.2f} | {max(v) / m:.2f} |", flush=True)


main()
