"""Training throughput of ponder, of PyTorch and of TRL: see bench/train.

Each round runs every (model, type, threads) once with either program, one after the other, so that what the machine does to
one it does to the other. The table has medians over rounds of the median step, and the ratio. As PyTorch's peer serve the
classes of transformers (eager, SDPA, fused AdamW), in float32 or under autocast to bfloat16; as TRL's its GRPOTrainer with
defaults. GRPO's prompts are 32 tokens of a byte-level tokenizer, its completions go on to 64 whatever is drawn. The model's
folder is made by `ponder init`.
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
config, threads, steps, bf16 = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "bf16"
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
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = model(input_ids=x, labels=x).loss
    loss.backward()
    opt.step()
    opt.zero_grad(set_to_none=True)
    times.append(time.perf_counter() - t)
times = sorted(times[2:])
print(json.dumps({"median": statistics.median(times), "best": times[0]}))
"""

TRL = r"""
import json, sys, time, statistics, torch, transformers
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer
config, threads, steps, bf16 = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "bf16"
folder, prompts, out = sys.argv[5:]
torch.set_num_threads(threads)
torch.manual_seed(0)
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=folder + "/tokenizer.json", padding_side="left",
                                                 bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
ids = {k + "_token_id": tokenizer.convert_tokens_to_ids(f"<{k}>") for k in ("bos", "eos", "pad")}
model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
    **{k: v for k, v in config.items() if k not in ("architectures", "model_type", "torch_dtype")}, **ids))
ends = []
class Clock(transformers.TrainerCallback):
    def on_step_end(self, *a, **k):
        ends.append(time.perf_counter())
trainer = GRPOTrainer(
    model=model, processing_class=tokenizer, callbacks=[Clock()],
    reward_funcs=lambda completions, **k: [float(c.count("e")) for c in completions],
    train_dataset=Dataset.from_list([json.loads(line) for line in open(prompts)]),
    args=GRPOConfig(output_dir=out, per_device_train_batch_size=64, num_generations=8, max_completion_length=64,
                    max_steps=steps + 1, use_cpu=True, bf16=bf16, logging_steps=1, report_to=[], save_strategy="no",
                    generation_kwargs={"min_new_tokens": 64}, gradient_checkpointing=False, learning_rate=1e-5,
                    disable_tqdm=True))
trainer.train()
assert all(l["completions/mean_length"] == 64 for l in trainer.state.log_history if "reward" in l)
times = sorted(b - a for a, b in zip(ends, ends[1:]))
print(json.dumps({"median": statistics.median(times), "best": times[0]}))
"""


def fail(command, out):
    sys.exit(f"{command[0]} failed:\n{(out.stderr or out.stdout)[-2000:]}")


def last_json(command):
    out = subprocess.run(command, capture_output=True, text=True)
    if out.returncode:
        fail(command, out)
    return json.loads([line for line in out.stdout.splitlines() if line.startswith("{")][-1])


def has(python, modules):
    return bool(python) and subprocess.run([python, "-c", "import " + modules], capture_output=True).returncode == 0


def tokenizer(folder):
    """A byte a token, in GPT-2's spelling of bytes; then names up to 512, of which the last three are special."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [b for b in range(256) if b not in printable]
    names = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(other))]
    names += [f"<unused{i}>" for i in range(512 - 3 - len(names))] + ["<bos>", "<eos>", "<pad>"]
    special = [{"id": 512 - 3 + i, "content": c, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True} for i, c in enumerate(names[-3:])]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    os.mkdir(folder)
    with open(f"{folder}/tokenizer.json", "w") as f:
        json.dump({"version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
                   "pre_tokenizer": level, "post_processor": None, "decoder": level,
                   "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                             "vocab": {c: i for i, c in enumerate(names)}, "merges": []}}, f)
    with open(f"{folder}/tokenizer_config.json", "w") as f:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>",
                   "pad_token": "<pad>", "add_bos_token": False}, f)


def ours_step(a, folder, what, kind, threads):
    """Seconds of a step of ponder: median and best."""
    if what != "grpo":
        r = last_json([os.path.join(a.build, "tests/train/bench-train-step"), f"{folder}/{what}.new", "--threads", threads,
                       "--steps", str(a.steps)] + (["--bf16"] if kind == "bf16" else []))
        return {"median": r["median_ms"] / 1e3, "best": r["best_ms"] / 1e3}
    command = [os.path.join(a.build, "src/cli/ponder"), "train", "grpo", "-m", f"{folder}/grpo.new", "-d",
               f"{folder}/prompts.jsonl", "-o", f"{folder}/run", "--overwrite-output-dir", "--max-steps", str(a.steps + 1),
               "-G", "8", "-b", "64", "--max-completion-length", "64", "--ignore-eos", "--reward-funcs", "repetition",
               "--logging-steps", "1", "--save-steps", "0", "--lr", "1e-5", "-t", threads]
    out = subprocess.run(command + (["--bf16"] if kind == "bf16" else []), capture_output=True, text=True)
    if out.returncode:
        fail(command, out)
    with open(f"{folder}/run/log.jsonl") as f:
        assert json.loads(f.readlines()[-1])["num_tokens"] == (a.steps + 1) * 64 * 96
    with open(f"{folder}/run/timings.jsonl") as f:
        ends = [json.loads(line)["seconds"] for line in f]
    times = sorted(b - a for a, b in zip(ends, ends[1:]))
    return {"median": statistics.median(times), "best": times[0]}


def their_step(a, folder, what, kind, threads):
    if what != "grpo":
        return last_json([a.peer, "-c", PEER, json.dumps(MODELS[what]), threads, str(a.steps), kind])
    return last_json([a.peer, "-c", TRL, json.dumps(MODELS["dense"]), threads, str(a.steps), kind, f"{folder}/tokenizer",
                      f"{folder}/prompts.jsonl", f"{folder}/trl"])


def make(a, folder, what):
    with open(f"{folder}/{what}.json", "w") as f:
        json.dump(MODELS["dense" if what == "grpo" else what], f)
    command = [os.path.join(a.build, "src/cli/ponder"), "init", "--config", f"{folder}/{what}.json", f"{folder}/{what}.new",
               "--type", "F32", "--seed", "1"]
    if what == "grpo":
        tokenizer(f"{folder}/tokenizer")
        command += ["--tokenizer", f"{folder}/tokenizer"]
        with open(f"{folder}/prompts.jsonl", "w") as f:
            for i in range(512):
                f.write(json.dumps({"prompt": f"{i:03d} what is two plus two? answer"[:32]}) + "\n")
    out = subprocess.run(command, capture_output=True, text=True)
    if out.returncode:
        fail(command, out)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("-t", "--threads", default="2", help="thread counts, by commas")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=4, help="timed steps of a run")
    p.add_argument("--what", default="dense,moe,grpo")
    p.add_argument("--types", default="f32,bf16")
    p.add_argument("--peer", default=shutil.which("python3"), help="a Python with torch and transformers, and trl")
    p.add_argument("--build", default="build", help="ponder's build folder")
    a = p.parse_args()
    peers = {"grpo": has(a.peer, "torch, transformers, trl, datasets")}
    peers["dense"] = peers["moe"] = has(a.peer, "torch, transformers")
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        for what in a.what.split(","):
            make(a, folder, what)
            if not peers[what]:
                print(f"{what}: {a.peer} has not the packages, ponder runs alone")
        for _ in range(a.rounds):
            for t in a.threads.split(","):
                for what in a.what.split(","):
                    for kind in a.types.split(","):
                        us, them = runs.setdefault((what, kind, t), ([], []))
                        us.append(ours_step(a, folder, what, kind, t))
                        if peers[what]:
                            them.append(their_step(a, folder, what, kind, t))
    print("         type  threads   ponder: s a step (best)    tok/s    peer: s a step (best)    ratio")
    for (what, kind, t), (us, them) in runs.items():
        mid, tokens = statistics.median(r["median"] for r in us), 64 * 64 if what == "grpo" else 4096
        line = f"{what:8} {kind:4} {t:>8}   {mid:11.3f} ({min(r['best'] for r in us):.3f})   {tokens / mid:9.0f}"
        if them:
            other = statistics.median(r["median"] for r in them)
            line += f"    {other:9.3f} ({min(r['best'] for r in them):.3f})    {other / mid:8.2f}"
        print(line)


main()
