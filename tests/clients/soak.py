"""A long load with random cancels: texts, memory and descriptors.

    python3 soak.py MODEL [--minutes 120] [--streams 32] [--idle 1000]

Starts a server on MODEL, learns what each of some prompts gives alone, then asks for them from many threads at once and
leaves a third of the streams early. Ends with 0 when every complete text was the one it gives alone, no request failed,
quick routes answered within a second at the 99th percentile, and memory and descriptors are where they began.
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
import urllib.parse

PROMPTS = ["Count from one to twenty.", "Write a short poem about rain.", "What is the capital of France?", "List three colours.",
           "Explain why the sky is blue.", "Translate 'good morning' into Chinese.", "What is 17 times 3?", "Name a fruit and say what it tastes like."]


class Load:
    def __init__(self, url, tokens):
        at = urllib.parse.urlparse(url)
        self.at, self.tokens = (at.hostname, at.port), tokens
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.alone, self.failures = {}, []
        self.complete = self.cancelled = self.answered = 0
        self.quick = []

    def ask(self, k, leave=None):
        """Text of prompt k, or None when it was left after `leave` pieces."""
        body = json.dumps({"model": "", "messages": [{"role": "user", "content": PROMPTS[k % len(PROMPTS)]}], "stream": True,
                           "temperature": 0 if k % 2 else 1, "seed": k, "max_tokens": self.tokens} | {"model": self.model})
        c = http.client.HTTPConnection(*self.at, timeout=600)
        c.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        r = c.getresponse()
        if r.status != 200:
            raise RuntimeError(f"status {r.status}: {r.read()[:200]}")
        text, pieces, end = "", 0, False
        for line in r:
            if not line.startswith(b"data: "):
                continue
            if line.strip() == b"data: [DONE]":
                end = True
                break
            o = json.loads(line[6:])
            if "error" in o:
                raise RuntimeError(str(o))
            for choice in o["choices"]:
                d = choice["delta"]
                text += (d.get("reasoning_content") or "") + (d.get("content") or "")
            pieces += 1
            if leave is not None and pieces >= leave:
                c.close()
                return None
        c.close()
        if not end:
            raise RuntimeError("the stream has no end")
        return text

    def worker(self, seed):
        rng = random.Random(seed)
        while not self.stop.is_set():
            k = rng.randrange(len(self.alone))
            leave = rng.randrange(1, self.tokens) if rng.random() < 0.33 else None
            try:
                text = self.ask(k, leave)
                with self.lock:
                    if text is None:
                        self.cancelled += 1
                    else:
                        self.complete += 1
                        if text != self.alone[k]:
                            self.failures.append(f"prompt {k}: {text!r} is not {self.alone[k]!r}")
            except Exception as error:  # noqa: BLE001 - everything is a finding
                with self.lock:
                    self.failures.append(f"prompt {k}: {error!r}")
                time.sleep(0.5)

    def watch(self):
        while not self.stop.is_set():
            for path in ("/health", "/api/tags"):
                begin = time.monotonic()
                try:
                    c = http.client.HTTPConnection(*self.at, timeout=30)
                    c.request("GET", path)
                    c.getresponse().read()
                    c.close()
                except Exception as error:  # noqa: BLE001
                    self.failures.append(f"{path}: {error!r}")
                self.quick.append(time.monotonic() - begin)
            time.sleep(0.2)


def usage(pid):
    with open(f"/proc/{pid}/status") as f:
        rss = int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) // 1024
    return rss, len(os.listdir(f"/proc/{pid}/fd"))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("model")
    p.add_argument("--minutes", type=float, default=120)
    p.add_argument("--streams", type=int, default=32)
    p.add_argument("--idle", type=int, default=0)
    p.add_argument("--tokens", type=int, default=48)
    p.add_argument("options", nargs="*")
    a = p.parse_args()
    server = subprocess.Popen([os.environ.get("PONDER", "ponder"), "serve", a.model, "--port", "0", *a.options],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    url = None
    for line in server.stderr:
        found = re.search(r"https?://[\w.]+:\d+", line)
        if found:
            url = found.group(0)
            break
    threading.Thread(target=lambda: [None for _ in server.stderr], daemon=True).start()
    load = Load(url, a.tokens)
    at = urllib.parse.urlparse(url)
    c = http.client.HTTPConnection(at.hostname, at.port)
    c.request("GET", "/v1/models")
    load.model = json.load(c.getresponse())["data"][0]["id"]
    c.close()
    for k in range(2 * len(PROMPTS)):
        load.alone[k] = load.ask(k)
    threads = [threading.Thread(target=load.worker, args=(i,)) for i in range(a.streams)] + [threading.Thread(target=load.watch)]
    before = None
    idle = [socket.create_connection((at.hostname, at.port)) for _ in range(a.idle)]
    begin = time.monotonic()
    for t in threads:
        t.start()
    while time.monotonic() - begin < a.minutes * 60 and len(load.failures) < 20:
        time.sleep(min(20, a.minutes * 6))
        if before is None and time.monotonic() - begin > min(120, a.minutes * 12):
            before = usage(server.pid)  # caches are full by now
        print(f"{time.monotonic() - begin:6.0f} s  {load.complete} complete  {load.cancelled} left  {len(load.failures)} failures  "
              f"{usage(server.pid)[0]} MB  {usage(server.pid)[1]} descriptors", flush=True)
    load.stop.set()
    for t in threads:
        t.join()
    for s in idle:
        s.close()
    time.sleep(3)
    after = usage(server.pid)
    quick = sorted(load.quick)
    p99 = quick[int(len(quick) * 0.99)] if quick else 0
    server.send_signal(signal.SIGTERM)
    status = server.wait(60)
    print(f"memory {before[0]} -> {after[0]} MB, descriptors {before[1]} -> {after[1]} (with {a.idle} idle and {a.streams} streams before), quick routes p99 {p99 * 1e3:.0f} ms, status {status}")
    for f in load.failures[:20]:
        print(f)
    ok = not load.failures and status == 0 and p99 < 1 and after[0] < before[0] * 1.05 + 16 and after[1] <= before[1]
    print("ok" if ok else "not ok")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
