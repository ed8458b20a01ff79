"""One run of a peer, for bench/compare: loads a model, measures, prints one line of JSON.

usage: peer_run.py '{"engine": "llama" or "ik", "model": …, "threads": …, "flash": …, "repack": …,
                     "samples": …, "works": [{"name", "decode", "tokens", "depth", "sequences"}, …]}'

With "start": N instead of works: seconds from the call that loads to the logits after N tokens (what
Python takes to start and import is not counted), and
the peak of resident memory. Both engines are driven through their C interface: llama_batch with a
sequence id per token, so that decoding many sequences is what their own servers do. Sequences,
tokens, depth and what is timed are those of `ponder bench`.
"""
import ctypes, importlib, json, resource, sys, time

CHUNK = 512


class Llama:
    """llama.cpp through llama-cpp-python. repack: its repacking of weights at load (extra buffers)."""

    def __init__(self, job):
        import llama_cpp as c
        self.c = c
        self.quiet = c.llama_log_callback(lambda *_: None)
        c.llama_log_set(self.quiet, None)
        c.llama_backend_init()
        p = c.llama_model_default_params()
        p.use_extra_bufts = job["repack"]
        self.model = c.llama_model_load_from_file(job["model"].encode(), p)
        self.vocab = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self.model)) if self.model else 0

    def context(self, job, tokens, sequences):
        p = self.c.llama_context_default_params()
        p.flash_attn_type = 1 if job["flash"] else 0
        return self.c.llama_init_from_model(self.model, fill(p, job, tokens, sequences))

    def cut(self, ctx, seq, n):
        self.c.llama_memory_seq_rm(self.c.llama_get_memory(ctx), seq, n, -1)


class Ik:
    """ik_llama.cpp through ik-llama-cpp-python. repack: -rtr."""

    def __init__(self, job):
        import ik_llama_cpp._ctypes_api as c
        self.c = c
        self.quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
        c._lib.llama_log_set(self.quiet, None)
        c._lib.llama_kv_cache_seq_rm.argtypes = [ctypes.c_void_p] + [ctypes.c_int32] * 3
        c.llama_backend_init()
        p = c.llama_model_default_params()
        p.repack_tensors = job["repack"]
        p.use_mmap = not job["repack"]
        self.model = c.llama_model_load_from_file(job["model"].encode(), p)
        self.vocab = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self.model)) if self.model else 0

    def context(self, job, tokens, sequences):
        p = self.c.llama_context_default_params()
        p.flash_attn = job["flash"]
        return self.c.llama_init_from_model(self.model, fill(p, job, tokens, sequences))

    def cut(self, ctx, seq, n):
        self.c._lib.llama_kv_cache_seq_rm(ctx, seq, n, -1)


def fill(p, job, tokens, sequences):
    p.n_ctx = sequences * (-(-tokens // 256) * 256)
    p.n_batch = p.n_ubatch = CHUNK
    p.n_seq_max = sequences
    p.n_threads = p.n_threads_batch = job["threads"]
    return p


class Runner:
    def __init__(self, engine, job, work):
        self.e, self.w = engine, work
        self.ctx = engine.context(job, work["depth"] + max(work["tokens"], 64), work["sequences"])
        if not self.ctx:
            raise RuntimeError("no context")
        self.batch = engine.c.llama_batch_init(CHUNK, 0, 1)
        self.at = [0] * work["sequences"]

    def free(self):
        self.e.c.llama_batch_free(self.batch)
        self.e.c.llama_free(self.ctx)

    def token(self, seq, pos):
        return ((pos + seq) * 7919 + 13) % (self.e.vocab - 300) + 10

    def decode(self, rows):
        """rows: (sequence, position, whether its logits are wanted)."""
        b = self.batch
        for i, (seq, pos, want) in enumerate(rows):
            b.token[i] = self.token(seq, pos)
            b.pos[i] = pos
            b.n_seq_id[i] = 1
            b.seq_id[i][0] = seq
            b.logits[i] = want
        b.n_tokens = len(rows)
        if self.e.c.llama_decode(self.ctx, b):
            raise RuntimeError("llama_decode failed")
        self.e.c.llama_get_logits_ith(self.ctx, len(rows) - 1)

    def extend(self, seq, n):
        """n more tokens of one sequence, in chunks."""
        start, end = self.at[seq], self.at[seq] + n
        for lo in range(start, end, CHUNK):
            hi = min(end, lo + CHUNK)
            self.decode([(seq, pos, pos == end - 1) for pos in range(lo, hi)])
        self.at[seq] = end

    def back(self):
        for seq in range(self.w["sequences"]):
            self.e.cut(self.ctx, seq, self.w["depth"])
            self.at[seq] = self.w["depth"]

    def once(self, n):
        """Seconds for n tokens of each sequence behind the depth."""
        self.back()
        t = time.perf_counter()
        if not self.w["decode"]:
            self.extend(0, n)
        else:
            for _ in range(n):
                self.decode([(seq, pos, True) for seq, pos in enumerate(self.at)])
                self.at = [pos + 1 for pos in self.at]
        return time.perf_counter() - t

    def rates(self, samples):
        for seq in range(self.w["sequences"]):
            self.extend(seq, self.w["depth"])
        self.once(4 if self.w["decode"] else min(64, self.w["tokens"]))
        n = self.w["tokens"]
        return [n * self.w["sequences"] / self.once(n) for _ in range(samples)]


def main():
    job = json.loads(sys.argv[1])
    importlib.import_module({"llama": "llama_cpp", "ik": "ik_llama_cpp._ctypes_api"}[job["engine"]])
    t = time.perf_counter()
    engine = {"llama": Llama, "ik": Ik}[job["engine"]](job)
    if not engine.model:
        sys.exit("the model cannot be loaded")
    if "start" in job:
        r = Runner(engine, job, {"decode": False, "tokens": job["start"], "depth": 0, "sequences": 1})
        r.extend(0, job["start"])
        took = time.perf_counter() - t
        print(json.dumps({"seconds": took, "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
        return
    out = {}
    for work in job["works"]:
        r = Runner(engine, job, work)
        out[work["name"]] = r.rates(job["samples"])
        r.free()
    print(json.dumps(out))


main()
