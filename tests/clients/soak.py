"""A long load with random cancels: texts, memory, descriptors, and how soon quick routes answer.

    python3 soak.py MODEL… [--minutes 120] [--streams 32] [--idle 1000] [--quick 1] [options of ponder serve]

Starts a server on the models, learns what each of some prompts gives alone, then asks for them from many threads at once and
leaves a third of the streams early. Ends with 0 when every complete text was the one it gives alone, no request failed,
quick routes answered within --quick seconds at the 99th percentile, and memory and descriptors are where they began.

Worth trying: --kv-tokens 1024 (preemption), several models with --max-loaded-models 1 (they load and unload all the time),
--streams 256 --idle 1000. PONDER names the program.
"""
import argparse
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

QUESTIONS = ["Count from one to twenty.", "Write a short poem about rain.", "What is the capital of France?", "List three colours.",
             "Explain why the sky is blue.", "Translate 'good morning' into Chinese.", "What is 17 times 3?", "Name a fruit and say what it tastes like."]
STORY = " ".join(f"Room {i} of the house has {i * 7 % 11} windows and {i * 5 % 3} doors." for i in range(1, 20))


class Server:
    """`ponder serve`, and requests to it."""

    def __init__(self, models, options):
        begin = time.monotonic()
        self.process = subprocess.Popen([os.environ.get("PONDER", "ponder"), "serve", *models, "--port", "0", "--no-access-log", *options],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.log, self.at = [], None
        for line in self.process.stderr:
            self.log.append(line)
            found = re.search(r"https?://([\w.]+):(\d+)", line)
            if found:
                self.at = (found.group(1), int(found.group(2)))
                break
        if not self.at:
            raise RuntimeError("the server did not start:\n" + "".join(self.log))
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()
        self.quick("/health")
        self.start_seconds = time.monotonic() - begin
        self.models = [m["id"] for m in json.loads(self.quick("/v1/models"))["data"]]

    def quick(self, path):
        c = http.client.HTTPConnection(*self.at, timeout=120)
        try:
            c.request("GET", path)
            r = c.getresponse()
            text = r.read()
            if r.status != 200:
                raise RuntimeError(f"{path}: status {r.status}: {text[:200]}")
            return text
        finally:
            c.close()

    def count(self):
        """How many different requests there are."""
        return 4 * len(QUESTIONS) * len(self.models)

    def ask(self, k, tokens, leave=None):
        """Text of request k, or None when it was left after `leave` pieces. From count() on each begins like no other."""
        model, rest = self.models[k % len(self.models)], k // len(self.models)
        text = QUESTIONS[rest % len(QUESTIONS)]
        if rest // len(QUESTIONS) % 2:
            text = STORY + "\n" + text
        if k >= self.count():
            text = f"House {k}. {STORY}\n{text}"
        seeded = rest // len(QUESTIONS) // 2
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}], "stream": True, "temperature": 1 if seeded else 0,
                           "seed": k, "max_tokens": tokens})
        c = http.client.HTTPConnection(*self.at, timeout=600)
        try:
            c.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            r = c.getresponse()
            if r.status != 200:
                raise RuntimeError(f"status {r.status}: {r.read()[:200]}")
            text, pieces = "", 0
            for line in r:
                if line.strip() == b"data: [DONE]":
                    return text
                if not line.startswith(b"data: "):
                    continue
                o = json.loads(line[6:])
                if "error" in o:
                    raise RuntimeError(str(o))
                for choice in o["choices"]:
                    d = choice["delta"]
                    text += (d.get("reasoning_content") or "") + (d.get("content") or "")
                pieces += 1
                if leave is not None and pieces >= leave:
                    return None
            raise RuntimeError("the stream has no end")
        finally:
            c.close()

    def usage(self):
        """Megabytes and descriptors."""
        with open(f"/proc/{self.process.pid}/status") as f:
            rss = int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) // 1024
        return rss, len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def metric(self, name):
        text = self.quick("/metrics").decode()
        return sum(float(v) for v in re.findall(r"^%s(?:\{[^}]*\})? (\S+)$" % re.escape(name), text, re.M))

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


class Load:
    """Clients that ask for what is known."""

    def __init__(self, server, alone, tokens, leave=0.33):
        self.server, self.alone, self.tokens, self.leave = server, alone, tokens, leave
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.failures, self.quick, self.threads = [], [], []
        self.complete = self.cancelled = 0

    def start(self, streams, seed=0):
        self.threads = [threading.Thread(target=self.worker, args=(seed * 10007 + i,)) for i in range(streams)]
        self.threads.append(threading.Thread(target=self.watch))
        for t in self.threads:
            t.start()

    def end(self):
        self.stop.set()
        for t in self.threads:
            t.join()

    def fail(self, text):
        with self.lock:
            if not self.stop.is_set():
                self.failures.append(text)
        time.sleep(0.5)

    def worker(self, seed):
        rng = random.Random(seed)
        while not self.stop.is_set():
            k = rng.choice(sorted(self.alone))
            leave = rng.randrange(1, self.tokens) if rng.random() < self.leave else None
            try:
                text = self.server.ask(k, self.tokens, leave)
            except Exception as error:  # noqa: BLE001 - everything is a finding
                self.fail(f"request {k}: {error!r}")
                continue
            with self.lock:
                if text is None:
                    self.cancelled += 1
                else:
                    self.complete += 1
            if text is not None and text != self.alone[k]:
                self.fail(f"request {k}: {text!r} is not {self.alone[k]!r}")

    def watch(self):
        while not self.stop.is_set():
            for path in ("/health", "/api/tags"):
                begin = time.monotonic()
                try:
                    self.server.quick(path)
                except Exception as error:  # noqa: BLE001
                    self.fail(f"{path}: {error!r}")
                self.quick.append(time.monotonic() - begin)
            self.stop.wait(0.2)


def percentile(values, p):
    return sorted(values)[min(len(values) - 1, int(len(values) * p))] if values else 0


def main():
    p = argparse.ArgumentParser(allow_abbrev=False)
    p.add_argument("model", nargs="+")
    p.add_argument("--minutes", type=float, default=120)
    p.add_argument("--streams", type=int, default=32)
    p.add_argument("--idle", type=int, default=0)
    p.add_argument("--quick", type=float, default=1)  # more where the machine has other work
    p.add_argument("--tokens", type=int, default=48)
    a, options = p.parse_known_args()
    server = Server(a.model, options)
    alone = {k: server.ask(k, a.tokens) for k in range(server.count())}
    time.sleep(1)
    before = server.usage()  # nobody is connected
    load = Load(server, alone, a.tokens)
    idle = [socket.create_connection(server.at) for _ in range(a.idle)]
    begin, warm = time.monotonic(), 0
    load.start(a.streams)
    while (now := time.monotonic() - begin) < a.minutes * 60 and len(load.failures) < 20:
        load.stop.wait(min(20, a.minutes * 6))
        used = server.usage()
        if now < a.minutes * 20:
            warm = max(warm, used[0])  # caches fill
        print(f"{time.monotonic() - begin:6.0f} s  {load.complete} complete  {load.cancelled} left  {len(load.failures)} failures  "
              f"{used[0]} MB  {used[1]} descriptors  {server.metric('vllm:num_preemptions_total'):.0f} preempted  "
              f"quick p99 {percentile(load.quick, 0.99) * 1e3:.0f} ms", flush=True)
    load.end()
    for s in idle:
        s.close()
    time.sleep(3)
    after = server.usage()
    status = server.end()
    p99 = percentile(load.quick, 0.99)
    print(f"memory {before[0]} alone, {warm} in the first third -> {after[0]} MB; descriptors {before[1]} -> {after[1]}; {a.streams} streams and {a.idle} idle: "
          f"quick routes p50 {percentile(load.quick, 0.5) * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms; status {status}")
    for f in load.failures[:20]:
        print(f)
    ok = not load.failures and status == 0 and p99 < a.quick and after[0] < warm * 1.05 + 16 and after[1] <= before[1]
    print("ok" if ok else "not ok")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
