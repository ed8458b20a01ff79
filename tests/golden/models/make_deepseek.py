#!/usr/bin/env python3
"""Makes the golden of DeepSeek's first mixture of experts: a tiny random model and its logits, trace and greedy tokens in float64.

usage: make_deepseek.py OUT_DIR        (needs numpy)

Written from the published description of the architecture, apart from the C code: attention with a half-split rotation and linear
scaling; a dense first layer; then experts chosen greedily by softmax, weights as they are, and two shared experts.
"""
import json, math, os, struct, sys
import numpy as np

D, HEADS, KV, HEAD, FF, LAYERS, VOCAB = 64, 4, 4, 16, 112, 3, 300
EXPERTS, USED, SHARED, FF_EXPERT, DENSE = 10, 3, 2, 24, 1
EPS, THETA, FACTOR = 1e-6, 10000.0, 4.0


def norm(x, w):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * w


def rotate(x):  # (T, heads, HEAD)
    a = np.arange(x.shape[0])[:, None] * (THETA ** (-np.arange(0, HEAD, 2) / HEAD) / FACTOR)
    c, s = np.cos(a)[:, None], np.sin(a)[:, None]
    u, v = x[..., :HEAD // 2], x[..., HEAD // 2:]
    return np.concatenate([u * c - v * s, v * c + u * s], -1)


def ffn(w, x, p):
    g = x @ w[p + "gate_proj.weight"].T
    return (g / (1 + np.exp(-g)) * (x @ w[p + "up_proj.weight"].T)) @ w[p + "down_proj.weight"].T


def moe(w, x, p, margin):
    s = x @ w[p + "gate.weight"].T
    s = np.exp(s - s.max(-1, keepdims=True))
    s /= s.sum(-1, keepdims=True)
    y = ffn(w, x, p + "shared_experts.")
    for t in range(len(x)):
        order = np.argsort(-s[t])
        margin.append(s[t, order[USED - 1]] - s[t, order[USED]])
        for e in sorted(order[:USED]):
            y[t] += s[t, e] * ffn(w, x[t], p + f"experts.{e}.")
    return y


def forward(w, ids, trace=None, margin=None):
    margin = [] if margin is None else margin
    keep = (lambda k, v: trace.__setitem__(k, v)) if trace is not None else (lambda k, v: None)
    x = w["model.embed_tokens.weight"][ids]
    keep("embed", x)
    n = len(ids)
    mask = np.triu(np.full((n, n), -np.inf), 1)
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        h = norm(x, w[p + "input_layernorm.weight"])
        split = lambda name, heads: (h @ w[p + f"self_attn.{name}_proj.weight"].T).reshape(n, heads, HEAD)
        q, k = rotate(split("q", HEADS)), rotate(split("k", KV))
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
        m = ffn(w, h, p + "mlp.") if i < DENSE else moe(w, h, p + "mlp.", margin)
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
              }
        def ffn_weights(q, ff):
            return {q + "gate_proj.weight": mat(ff, D), q + "up_proj.weight": mat(ff, D), q + "down_proj.weight": mat(D, ff)}
        if i < DENSE:
            w |= ffn_weights(p + "mlp.", FF)
            continue
        w |= {p + "mlp.gate.weight": mat(EXPERTS, D)} | ffn_weights(p + "mlp.shared_experts.", SHARED * FF_EXPERT)
        for e in range(EXPERTS):
            w |= ffn_weights(p + f"mlp.experts.{e}.", FF_EXPERT)
    save(out + "/model.safetensors", w)
    json.dump({"architectures": ["DeepseekForCausalLM"], "model_type": "deepseek", "hidden_act": "silu", "rms_norm_eps": EPS, "vocab_size": VOCAB,
               "tie_word_embeddings": False, "hidden_size": D, "intermediate_size": FF, "num_hidden_layers": LAYERS,
               "num_attention_heads": HEADS, "num_key_value_heads": KV, "max_position_embeddings": 128, "attention_bias": False,
               "rope_theta": THETA, "rope_scaling": {"type": "linear", "factor": FACTOR}, "n_routed_experts": EXPERTS,
               "num_experts_per_tok": USED, "n_shared_experts": SHARED, "moe_intermediate_size": FF_EXPERT, "moe_layer_freq": 1,
               "first_k_dense_replace": DENSE, "norm_topk_prob": False, "scoring_func": "softmax"}, open(out + "/config.json", "w"), indent=1)
    w = {k: v.astype(np.float64) for k, v in w.items()}
    prompts, logits, trace = [], {}, {}
    for i, n in enumerate((1, 7, 33, 80)):
        ids = [int(t) for t in r.integers(0, VOCAB, n)]
        y = forward(w, ids, trace if i == 1 else None)
        logits[f"logits.{i}"] = y
        greedy, more = [], list(ids)
        for _ in range(8):
            margin = []
            y = forward(w, more, None, margin)[-1]
            assert min(margin) > 1e-5, "experts nearly equal: change the seed"
            top = np.sort(y)[-2:]
            assert top[1] - top[0] > 2e-3, "a near tie: change the seed"
            greedy.append(int(y.argmax()))
            more.append(greedy[-1])
        prompts.append({"ids": ids, "greedy": greedy})
    save(out + "/logits.safetensors", logits)
    save(out + "/trace.safetensors", trace)
    json.dump({"prompts": prompts}, open(out + "/expected.json", "w"))


main()
