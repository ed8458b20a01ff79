"""Training throughput of ponder and of PyTorch: see bench/train.

Each round runs every (model, threads) once with either program, one after the other, so that what the machine does to one
it does to the other. The table has medians over rounds of the median step, and the ratio. As PyTorch's peer serve the
classes of transformers (eager, SDPA, fused AdamW), in float32. The model's folder is made by `ponder init`.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

COMMON = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 4,
          "intermediate_size": 688, "vocab_size": 512, "max_position_embeddings": 512, "tie_word_embeddings": False,
          "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 10000.0, "torch_dtype": "float32"}
MODELS = {
    "dense": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "head_dim": 64, **COMMON},
    "moe": {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "moe_intermediate_size": 88,
            "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 1, "topk_group": 1,
            "first_k_dense_replace": 1, "q_lora_rank": 128, "kv_lora_rank": 64, "qk_nope_head_dim": 32,
            "qk_rope_head_dim": 16, "v_head_dim": 32, "rope_interleave": True, "routed_scaling_factor": 2.5,
            "norm_topk_prob": True, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1,
            "num_nextn_predict_layers": 0, **COMMON},
}

PEER = r"""
import json, sys, time, statistics, torch, transformers
config, threads, steps = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
torch.manual_seed(0)
kind = config["architectures"][0]
config = getattr(transformers, kind.replace("ForCausalLM", "Config"))(
    **{k: v for k, v in config.items() if k not in ("architectures", "model_type", "torch_dtype")})
model = getattr(transformers, kind)(config).train()
opt = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1, fused=True)
x = torch.randint(0, config.vocab_size, (16, 256))
times = []
for _ in range(steps + 2):
    t = time.perf_counter()
    model(input_ids=x, labels=x).loss.backward()
    opt.step()
    opt.zero_grad(set_to_none=True)
    times.append(time.perf_counter() - t)
times = sorted(times[2:])
print(json.dumps({"median_toks": 4096 / statistics.median(times), "best_toks": 4096 / times[0]}))
"""


def last_json(command):
    out = subprocess.run(command, capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"{command[0]} failed:\n{out.stderr[-2000:]}")
    return json.loads(out.stdout.strip().splitlines()[-1])


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("-t", "--threads", default="2", help="thread counts, by commas")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=4, help="timed steps of a run")
    p.add_argument("--models", default="dense,moe")
    p.add_argument("--peer", default=shutil.which("python3"), help="a Python with torch and transformers")
    p.add_argument("--build", default="build", help="ponder's build folder")
    a = p.parse_args()
    ours = os.path.join(a.build, "tests/train/bench-train-step")
    peer = a.peer and subprocess.run([a.peer, "-c", "import torch, transformers"], capture_output=True).returncode == 0
    if not peer:
        print(f"{a.peer} has no torch and transformers: ponder alone")
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        for m in a.models.split(","):
            os.mkdir(f"{folder}/{m}")
            with open(f"{folder}/{m}/config.json", "w") as f:
                json.dump(MODELS[m], f)
            subprocess.run([os.path.join(a.build, "src/cli/ponder"), "init", "--config", f"{folder}/{m}/config.json",
                            f"{folder}/{m}.new", "--type", "F32", "--seed", "1"], check=True, capture_output=True)
        for _ in range(a.rounds):
            for t in a.threads.split(","):
                for m in a.models.split(","):
                    got = runs.setdefault((m, t), ([], []))
                    got[0].append(last_json([ours, f"{folder}/{m}.new", "--threads", t, "--steps", str(a.steps)]))
                    if peer:
                        got[1].append(last_json([a.peer, "-c", PEER, json.dumps(MODELS[m]), t, str(a.steps)]))
    print("model  threads  ponder tok/s (best)   share of peak  PyTorch tok/s (best)   ratio")
    for (m, t), (us, them) in runs.items():
        mid = statistics.median(r["median_toks"] for r in us)
        best = max(r["best_toks"] for r in us)
        share = statistics.median(r["gflops"] * r["median_toks"] / r["best_toks"] / max(r["peak"]) for r in us)
        line = f"{m:6} {t:>7}  {mid:8.0f} ({best:6.0f})       {share:8.2f}"
        if them:
            other = statistics.median(r["median_toks"] for r in them)
            line += f"       {other:8.0f} ({max(r['best_toks'] for r in them):6.0f})    {mid / other:5.2f}"
        print(line)


main()
