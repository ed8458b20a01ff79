#!/usr/bin/env python3
"""Makes the qwen3 golden: a tiny random model and its logits, trace and greedy tokens in float64.

usage: make_qwen3.py OUT_DIR        (needs numpy)

Written from the published description of the architecture, apart from the C code: RMSNorm of each head of q and k before a
half-split rotation, grouped-query attention with a head size that is not d / heads, SwiGLU, YaRN scaling.
"""
import json, math, os, struct, sys
import numpy as np

D, HEADS, KV, HEAD, FF, LAYERS, VOCAB = 64, 4, 2, 24, 96, 3, 300
EPS, THETA = 1e-6, 10000.0
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


def freqs():
    f = THETA ** (-np.arange(0, HEAD, 2) / HEAD)
    turns = lambda n: HEAD * math.log(YARN["original_max_position_embeddings"] / (n * 2 * math.pi)) / (2 * math.log(THETA))
    lo, hi = max(math.floor(turns(32)), 0), min(math.ceil(turns(1)), HEAD - 1)
    ramp = np.clip((np.arange(HEAD // 2) - lo) / (hi - lo if hi != lo else 0.001), 0, 1)
    return f / YARN["factor"] * ramp + f * (1 - ramp), 0.1 * math.log(YARN["factor"]) + 1


def norm(x, w):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * w


def rotate(x, f, scale):  # (T, heads, HEAD)
    a = np.arange(x.shape[0])[:, None] * f
    c, s = np.cos(a)[:, None] * scale, np.sin(a)[:, None] * scale
    u, v = x[..., :HEAD // 2], x[..., HEAD // 2:]
    return np.concatenate([u * c - v * s, v * c + u * s], -1)


def forward(w, ids, trace=None):
    keep = (lambda k, v: trace.__setitem__(k, v)) if trace is not None else (lambda k, v: None)
    f, scale = freqs()
    x = w["model.embed_tokens.weight"][ids]
    keep("embed", x)
    n = len(ids)
    mask = np.triu(np.full((n, n), -np.inf), 1)
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        h = norm(x, w[p + "input_layernorm.weight"])
        split = lambda name, heads: (h @ w[p + f"self_attn.{name}_proj.weight"].T).reshape(n, heads, HEAD)
        q = rotate(norm(split("q", HEADS), w[p + "self_attn.q_norm.weight"]), f, scale)
        k = rotate(norm(split("k", KV), w[p + "self_attn.k_norm.weight"]), f, scale)
        v = split("v", KV)
        o = np.zeros((n, HEADS, HEAD))
        for j in range(HEADS):
            s = q[:, j] @ k[:, j * KV // HEADS].T / math.sqrt(HEAD) + mask
            s = np.exp(s - s.max(-1, keepdims=True))
            o[:, j] = s / s.sum(-1, keepdims=True) @ v[:, j * KV // HEADS]
        a = o.reshape(n, -1) @ w[p + "self_attn.o_proj.weight"].T
        keep(f"layer.{i}.attn_out", a)
        x = x + a
        h = norm(x, w[p + "post_attention_layernorm.weight"])
        g = h @ w[p + "mlp.gate_proj.weight"].T
        m = (g / (1 + np.exp(-g)) * (h @ w[p + "mlp.up_proj.weight"].T)) @ w[p + "mlp.down_proj.weight"].T
        keep(f"layer.{i}.mlp_out", m)
        x = x + m
        keep(f"layer.{i}.hidden", x)
    x = norm(x, w["model.norm.weight"])
    keep("final_norm", x)
    return x @ w["lm_head.weight"].T


def save(path, tensors):
    head, at, blobs = {}, 0, []
    for k, v in tensors.items():
        b = np.ascontiguousarray(v, "<f4").tobytes()
        head[k] = {"dtype": "F32", "shape": list(v.shape), "data_offsets": [at, at + len(b)]}
        at += len(b)
        blobs.append(b)
    h = json.dumps(head).encode()
    h += b" " * (-len(h) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(h)) + h + b"".join(blobs))


def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    r = np.random.default_rng(3)
    mat = lambda o, i: (r.standard_normal((o, i)) * 1.5 / math.sqrt(i)).astype(np.float32)
    vec = lambda n: (1 + 0.2 * r.standard_normal(n)).astype(np.float32)
    w = {"model.embed_tokens.weight": mat(VOCAB, D) * 8, "model.norm.weight": vec(D), "lm_head.weight": mat(VOCAB, D)}
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        w |= {p + "input_layernorm.weight": vec(D), p + "post_attention_layernorm.weight": vec(D),
              p + "self_attn.q_proj.weight": mat(HEADS * HEAD, D), p + "self_attn.k_proj.weight": mat(KV * HEAD, D),
              p + "self_attn.v_proj.weight": mat(KV * HEAD, D), p + "self_attn.o_proj.weight": mat(D, HEADS * HEAD),
              p + "self_attn.q_norm.weight": vec(HEAD), p + "self_attn.k_norm.weight": vec(HEAD),
              p + "mlp.gate_proj.weight": mat(FF, D), p + "mlp.up_proj.weight": mat(FF, D), p + "mlp.down_proj.weight": mat(D, FF)}
    save(out + "/model.safetensors", w)
    json.dump({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu", "rms_norm_eps": EPS, "vocab_size": VOCAB,
               "tie_word_embeddings": False, "hidden_size": D, "intermediate_size": FF, "num_hidden_layers": LAYERS,
               "num_attention_heads": HEADS, "num_key_value_heads": KV, "head_dim": HEAD, "max_position_embeddings": 128,
               "rope_theta": THETA, "rope_scaling": YARN, "attention_bias": False}, open(out + "/config.json", "w"), indent=1)
    w = {k: v.astype(np.float64) for k, v in w.items()}
    prompts, logits, trace = [], {}, {}
    for i, n in enumerate((1, 7, 33, 80)):
        ids = [int(t) for t in r.integers(0, VOCAB, n)]
        y = forward(w, ids, trace if i == 1 else None)
        logits[f"logits.{i}"] = y
        greedy, more = [], list(ids)
        for _ in range(8):
            y = forward(w, more)[-1]
            top = np.sort(y)[-2:]
            assert top[1] - top[0] > 2e-3, "a near tie: change the seed"
            greedy.append(int(y.argmax()))
            more.append(greedy[-1])
        prompts.append({"ids": ids, "greedy": greedy})
    save(out + "/logits.safetensors", logits)
    save(out + "/trace.safetensors", trace)
    json.dump({"prompts": prompts}, open(out + "/expected.json", "w"))


main()
