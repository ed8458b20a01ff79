"""kill -9 in the middle of load, again and again: the next start serves at once, and the disk cache is never wrong.

    python3 crash.py MODEL… [--times 20] [--streams 8] [--disk-gb 0.05] [options of ponder serve]

Learns what each of some requests gives without a disk cache. Then, many times: start on one folder of cached prompts, answer
at once, load, and a kill at a random moment. Ends with 0 when every text was the one it gives alone, starts were quick and
the folder kept within its bound, with no more files of other names at the end than one crash leaves. PONDER names the program.
"""
import argparse
import os
import random
import shutil
import sys
import tempfile
import threading
import time

import soak


def files(folder):
    found = [os.path.join(d, n) for d, _, names in os.walk(folder) for n in names]
    total = 0
    for f in found:
        try:
            total += os.path.getsize(f)
        except FileNotFoundError:
            pass
    kinds = {}
    for f in found:
        kind = os.path.splitext(f)[1] or os.path.basename(f)
        kinds[kind] = kinds.get(kind, 0) + 1
    return total, kinds


def strangers(server, k):
    """Prompts that nobody asked before: pages to write, and at the bound to delete."""
    try:
        while True:
            k += 1
            server.ask(k, 1)
    except Exception:  # noqa: BLE001 - the kill
        pass


def main():
    p = argparse.ArgumentParser(allow_abbrev=False)
    p.add_argument("model", nargs="+")
    p.add_argument("--times", type=int, default=20)
    p.add_argument("--streams", type=int, default=8)
    p.add_argument("--disk-gb", type=float, default=0.05)
    p.add_argument("--tokens", type=int, default=16)
    a, options = p.parse_known_args()
    server = soak.Server(a.model, ["--no-prefix-cache", *options])
    alone = {k: server.ask(k, a.tokens) for k in range(server.count())}
    server.end()
    folder, rng, failures, starts, hits = tempfile.mkdtemp(prefix="ponder-crash-"), random.Random(1), [], [], 0
    try:
        for i in range(a.times + 1):
            server = soak.Server(a.model, ["--kv-disk", folder, "--kv-disk-gb", str(a.disk_gb), *options])
            begin = time.monotonic()
            k = rng.choice(sorted(alone))
            if server.ask(k, a.tokens) != alone[k]:
                failures.append(f"start {i}: request {k} has another text")
            starts.append((server.start_seconds, time.monotonic() - begin))
            load = soak.Load(server, alone, a.tokens)
            load.start(a.streams, i)
            threading.Thread(target=strangers, args=(server, 1000 * (i + 1)), daemon=True).start()
            load.stop.wait(rng.uniform(0.05, 3))
            if i < a.times:
                load.stop.set()  # what fails from now on does so because of the kill
                server.process.kill()
            hits += 0 if i < a.times else server.metric("vllm:prefix_cache_hits_total")
            load.end()
            failures += load.failures
            if i == a.times and server.end():
                failures.append("the last server did not end well")
            server.process.wait()
            total, kinds = files(folder)
            print(f"{i:3}  start {starts[-1][0]:.2f} s, first answer {starts[-1][1]:.2f} s  {load.complete} complete  {len(failures)} failures  {total >> 20} MB  {kinds}", flush=True)
            if total > a.disk_gb * 1e9 * 1.05 + (1 << 20):
                failures.append(f"start {i}: {total} bytes on disk")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{a.times} kills: slowest start {max(s for s, _ in starts):.2f} s, slowest first answer {max(f for _, f in starts):.2f} s, {hits:.0f} tokens found by the last server")
    for f in failures[:20]:
        print(f)
    print("not ok" if failures else "ok")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
