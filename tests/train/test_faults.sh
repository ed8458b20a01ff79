#!/bin/sh
# What goes wrong in a run is told in words, and what was saved stays: test_faults.sh PONDER. Prints TAP.
# Memory that is not there, losses that are no numbers, a disk that is full.
set -u
ponder=$1
tmp=$(mktemp -d "${TMPDIR:-/tmp}/ponder-faults.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
for v in $(env | sed -n 's/^\(PONDER_[A-Z_]*\)=.*/\1/p'); do unset "$v"; done
export HOME="$tmp" LC_ALL=C.UTF-8 PONDER_THREADS=2

# Few weights, many activations.
cat >"$tmp/config.json" <<'END'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 300, "hidden_size": 32,
 "intermediate_size": 4096, "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 2,
 "hidden_act": "silu", "rms_norm_eps": 1e-06, "rope_theta": 10000, "max_position_embeddings": 512,
 "tie_word_embeddings": false, "initializer_range": 0.05, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float32"}
END
{
    "$ponder" data r1-gym --form pretrain --count 20 --output "$tmp/texts.jsonl" &&
        "$ponder" data r1-gym --form prompt --count 4 --output "$tmp/prompts.jsonl" &&
        "$ponder" data tokenizer "$tmp/texts.jsonl" --vocab-size 300 --output "$tmp/tokenizer" &&
        "$ponder" init "$tmp/model" --config "$tmp/config.json" --tokenizer "$tmp/tokenizer" --type f32 --seed 1
} >"$tmp/out" 2>&1 || {
    cat "$tmp/out"
    echo 'Bail out! the model and its data could not be made'
    exit 1
}

n=0
# is NAME: the shell's last status says whether it holds.
is() {
    [ $? -eq 0 ] && ok=ok || ok='not ok'
    n=$((n + 1))
    echo "$ok $n - $1"
    [ "$ok" = ok ] || sed 's/^/# /' "$tmp/out"
}

# sft RUN [options]; what it prints is in $tmp/out.
sft() {
    run=$tmp/$1
    shift
    "$ponder" train sft -m "$tmp/model" -d "$tmp/texts.jsonl" -o "$run" --max-length 64 --logging-steps 1 "$@" >"$tmp/out" 2>&1
}

# fails CODE TEXT…: the status was CODE, and each text was printed.
fails() {
    [ "$1" = "$2" ] || return 1
    shift 2
    for text in "$@"; do grep -qF -- "$text" "$tmp/out" || return 1; done
}

# ---- memory ------------------------------------------------------------------------------------------

sft big -b 1048576 --gradient-accumulation-steps 2 --pass-tokens 16m --dry-run
fails $? 1 'memory ' 'a pass of 16777216 tokens' 'are free' '--gradient-checkpointing (activations' 'a smaller --pass-tokens'
is 'a dry run says how much memory a pass needs, and what would need less'
sft big -b 1048576 --gradient-accumulation-steps 2 --pass-tokens 16m --gradient-checkpointing
fails $? 1 'a pass of 16777216 tokens' 'are free' && [ ! -e "$tmp/big" ] && ! grep -qF -- '--gradient-checkpointing' "$tmp/out"
is 'a run that memory has no room for is refused before it begins'
"$ponder" train grpo -m "$tmp/model" -d "$tmp/prompts.jsonl" -o "$tmp/big" --max-completion-length 8m --max-num-seqs 1 >"$tmp/out" 2>&1
fails $? 1 'are free' && [ ! -e "$tmp/big" ]
is 'so is sampling'
sft long --max-length 16m --max-steps 1 -b 8
is 'a large --max-length costs nothing when no record is long'

# ---- numbers -----------------------------------------------------------------------------------------

diverge='--learning-rate 1e3 --weight-decay 10 --max-steps 40 -b 8 --save-steps 1'
sft nan $diverge
fails $? 1 'step ' 'Try a smaller --learning-rate' 'the last good checkpoint is '
is 'a loss that is no number ends the run; step and last checkpoint are named'
good=$(sed -n 's/.*the last good checkpoint is //p' "$tmp/out")
cp "$tmp/out" "$tmp/first"
[ -d "$good" ] && [ ! -e "$tmp/nan/model" ] && ! grep -qiE 'nan|inf' "$tmp/nan/log.jsonl"
is 'that checkpoint is there, no result is, and the log has numbers'
sft nan $diverge
[ "$(grep '^ponder: ' "$tmp/out")" = "$(grep '^ponder: ' "$tmp/first")" ]
is 'it can be gone on from'
sft none --learning-rate 1e3 --weight-decay 10 --max-steps 40 -b 8 --save-steps 0
fails $? 1 'step ' 'no checkpoint was saved before'
is 'where nothing was saved, that is said'

# ---- a full disk -------------------------------------------------------------------------------------

few='--max-steps 40 -b 8 --save-steps 5 --use-peft --lora-r 1 --lora-target-modules o_proj'
sft whole $few
is 'a run with room enough'
# A file that may not grow further is what a full disk looks like; without the signal that would end the process.
for blocks in 1 8 16 48 160; do
    (
        trap '' XFSZ
        ulimit -f "$blocks"
        sft full $few
    )
    fails $? 1 "$tmp/full"
    is "files of $blocks blocks at most: what could not be written is named"
done
sft full $few && cmp -s "$tmp/whole/log.jsonl" "$tmp/full/log.jsonl" &&
    cmp -s "$tmp/whole/model/adapter_model.safetensors" "$tmp/full/model/adapter_model.safetensors"
is 'with room again, the same command ends with the bytes of an undisturbed run'
echo "1..$n"
