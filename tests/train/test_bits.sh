#!/bin/sh
# Same seed, same bits: test_bits.sh PONDER GOLDEN_FOLDER. Prints TAP.
# Every stage runs once; then with other numbers of threads, other instruction sets, other sizes of passes, on
# several ranks, and killed again and again. What people keep of a run has to have the same bytes each time.
# PONDER_BITS_KILLS says how often each stage is killed (3), PONDER_BITS_SEED at which instants; PONDER_BITS_KEEP=DIR keeps
# the folders there.
set -u
ponder=$1
golden=$2
kills=${PONDER_BITS_KILLS:-3}
seed=${PONDER_BITS_SEED:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
copy=${PONDER_BITS_KEEP:-}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/ponder-bits.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
for v in $(env | sed -n 's/^\(PONDER_[A-Z_]*\)=.*/\1/p'); do unset "$v"; done
export HOME="$tmp" LC_ALL=C.UTF-8 PONDER_THREADS=2
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none

# ---- a model, and records to learn from --------------------------------------------------------------

cat >"$tmp/config.json" <<'END'
{"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 300, "hidden_size": 32,
 "intermediate_size": 64, "moe_intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
 "num_key_value_heads": 2, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
 "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "norm_topk_prob": true, "scoring_func": "sigmoid",
 "topk_method": "noaux_tc", "routed_scaling_factor": 2.5, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16,
 "qk_rope_head_dim": 8, "v_head_dim": 16, "num_nextn_predict_layers": 1, "hidden_act": "silu", "rms_norm_eps": 1e-06,
 "rope_theta": 10000, "max_position_embeddings": 512, "tie_word_embeddings": false, "attention_bias": false,
 "initializer_range": 0.05, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float32"}
END
{
    "$ponder" data r1-gym --form pretrain --count 20 --output "$tmp/texts.jsonl" &&
        "$ponder" data r1-gym --form sft --count 4 --output "$tmp/pairs.jsonl" &&
        "$ponder" data r1-gym --tasks general --form preference --count 8 --output "$tmp/better.jsonl" &&
        "$ponder" data r1-gym --tasks general --form safety --count 8 --output "$tmp/labels.jsonl" &&
        "$ponder" data r1-gym --form prompt --count 4 --output "$tmp/prompts.jsonl" &&
        "$ponder" data tokenizer "$tmp/texts.jsonl" --vocab-size 300 --output "$tmp/tokenizer" &&
        "$ponder" init "$tmp/init" --config "$tmp/config.json" --tokenizer "$tmp/tokenizer" --type f32 --seed 1 &&
        "$ponder" train pretrain -m "$tmp/init" -d "$tmp/texts.jsonl" -o "$tmp/base" --max-steps 60 -b 16 --max-length 64 \
            --learning-rate 1e-2 --save-steps 0
} >"$tmp/out" 2>&1 || {
    cat "$tmp/out"
    echo 'Bail out! the model and its data could not be made'
    exit 1
}

# ---- one run -----------------------------------------------------------------------------------------

# train STAGE RUN [options]: the stage as this test runs it. `$ranks` of them, when there are several.
# STAGE.bf16 is the stage with products in BF16.
train() {
    stage=${1%.bf16}
    run=$2
    command=$stage
    [ "$stage" = "$1" ] || set -- "$@" --bf16
    shift 2
    case $stage in
    pretrain) set -- -m "$tmp/init" -d "$tmp/texts.jsonl" --max-steps 6 -b 20 --max-length 40 --learning-rate 3e-3 \
        --mtp-weight 0.3 --balance-loss 1e-4 --router-bias-rate 0.001 --test-size 0.1 --eval-steps 2 \
        --load-best-model-at-end --logging-steps 2 "$@" ;;
    sft) set -- -m "$golden/models/llama_rope_llama3" -d "$tmp/pairs.jsonl:0.7" --max-steps 6 -b 19 --max-length 64 \
        --packing bfd --learning-rate 1e-3 --logging-steps 1 "$@" ;;
    grpo) set -- -m "$tmp/base/model" -d "$tmp/prompts.jsonl" --max-steps 6 -b 20 -G 4 --max-completion-length 12 \
        --max-prompt-length 96 --learning-rate 1e-3 --beta 0.04 --sync-ref-model --ref-model-sync-steps 2 \
        --dynamic-sampling --steps-per-generation 2 --reward-funcs language,tag_count,repetition --log-completions \
        --logging-steps 1 "$@" ;;
    dpo) set -- -m "$tmp/base/model" -d "$tmp/better.jsonl" --max-steps 6 -b 11 --max-length 96 --learning-rate 1e-3 \
        --test-size 0.2 --eval-steps 2 --logging-steps 1 "$@" ;;
    reward) set -- -m "$tmp/base/model" -d "$tmp/better.jsonl" --max-steps 6 -b 11 --max-length 96 --learning-rate 3e-3 \
        --center-rewards-coefficient 0.01 --test-size 0.2 --eval-steps 2 --logging-steps 1 "$@" ;;
    labels)
        command=reward
        set -- -m "$tmp/base/model" -d "$tmp/labels.jsonl" --max-steps 6 -b 11 --max-length 96 --learning-rate 3e-3 \
            --loss-type pointwise --logging-steps 2 "$@"
        ;;
    distill) set -- -m "$tmp/init" --teacher-model "$tmp/base/model" -d "$tmp/pairs.jsonl" --max-steps 6 -b 11 \
        --max-length 64 --max-new-tokens 12 --learning-rate 3e-3 --test-size 0.1 --eval-steps 3 --logging-steps 1 "$@" ;;
    rejection) set -- -m "$tmp/base/model" -d "$tmp/prompts.jsonl" --max-steps 6 -b 6 -G 4 \
        --max-completion-length 12 --max-prompt-length 96 --reward-funcs repetition --reward-thresholds=-1 \
        --keep 2 --keep-rule random --temperature 1.3 "$@" ;;
    esac
    if [ "${ranks:-1}" -gt 1 ]; then
        set -- mpirun -n "$ranks" "$ponder" train "$command" -o "$run" "$@"
    else
        set -- "$ponder" train "$command" -o "$run" "$@"
    fi
    exec "$@" </dev/null
}

# ---- what is claimed ---------------------------------------------------------------------------------

# differs STAGE RUN: names the files of RUN that are not those of the first run of the stage.
differs() {
    for f in log.jsonl samples.jsonl model/model.safetensors; do
        a=$tmp/$1/$f
        b=$2/$f
        if [ -e "$a" ] || [ -e "$b" ]; then
            cmp -s "$a" "$b" || printf ' %s differs.' "$f"
        fi
    done
}

# is NAME FAULTS
is() {
    if [ -z "$2" ]; then
        echo "ok $1"
    else
        echo "not ok $1:$2"
    fi
}

# same STAGE NAME [options]: a run with these options has the bytes of the first one.
same() {
    stage=$1
    name=$2
    shift 2
    run=$tmp/$stage.v
    rm -rf "$run"
    if ! (train "$stage" "$run" "$@") >"$tmp/$stage.out" 2>&1; then
        is "$stage: $name" " $(tail -n 3 "$tmp/$stage.out" | tr '\n' ' ')"
    else
        is "$stage: $name" "$(differs "$stage" "$run")"
    fi
}

# delay N: the N-th random time, in milliseconds below $2.
delay() {
    awk -v seed="$seed" -v n="$1" -v most="$2" 'BEGIN { x = sin(seed + n * 12.9898) * 43758.5453; printf "%.3f\n", (x - int(x) + (x < 0)) * most / 1000 }'
}

# killed STAGE: killed at random instants, and once while the result is being written, then left to end.
killed() {
    stage=$1
    run=$tmp/$stage.k
    save='--save-steps 1'
    [ "$stage" != rejection ] || save= # it can go on after any batch
    wait_ms=$(cat "$tmp/$stage.ms")
    n=0
    at=
    while [ $n -lt "$kills" ]; do
        n=$((n + 1))
        (train "$stage" "$run" $save) >"$tmp/$stage.out" 2>&1 &
        pid=$!
        t=$(delay "$((n * 7 + ${#stage}))" "$wait_ms")
        at="$at $t"
        sleep "$t"
        kill -9 $pid 2>/dev/null
        wait $pid 2>/dev/null
    done
    # The last checkpoint is there: what comes now is the result.
    (train "$stage" "$run" $save) >"$tmp/$stage.out" 2>&1 &
    pid=$!
    while [ ! -e "$run/checkpoints/step-6" ] && kill -0 $pid 2>/dev/null; do sleep 0.002; done
    sleep "$(delay 99 20)"
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    if ! (train "$stage" "$run" $save) >"$tmp/$stage.out" 2>&1; then
        is "$stage: killed after$at s and at the end (seed $seed)" " $(tail -n 3 "$tmp/$stage.out" | tr '\n' ' ')"
    else
        is "$stage: killed after$at s and at the end (seed $seed)" "$(differs "$stage" "$run")"
    fi
}

# dead STAGE: one of four ranks is killed: the others end too, and two ranks finish the run.
dead() {
    stage=$1
    run=$tmp/$stage.d
    name="$stage: a rank that dies ends the run, which two others finish"
    if ! command -v mpirun >/dev/null 2>&1; then
        echo "ok $name # SKIP there is no mpirun"
        return
    fi
    faults=' no rank died in time.'
    for _ in 1 2 3 4 5; do
        rm -rf "$run"
        (ranks=4 && train "$stage" "$run" --save-steps 1 --threads 1) >"$tmp/$stage.out" 2>&1 &
        pid=$!
        while [ ! -e "$run/checkpoints/step-1" ] && kill -0 $pid 2>/dev/null; do sleep 0.01; done
        rank=$(cut -d' ' -f2 "/proc/$pid/task/$pid/children")
        ! kill -9 "$rank" 2>/dev/null || for i in $(seq 300); do
            kill -0 $pid 2>/dev/null || break
            sleep 0.1
        done
        if kill -9 $pid 2>/dev/null; then
            faults=' the others went on.'
            break
        fi
        wait $pid && continue # it was done before
        faults=
        break
    done
    (ranks=2 && train "$stage" "$run" --threads 1) >"$tmp/$stage.out" 2>&1 ||
        faults="$faults $(tail -n 3 "$tmp/$stage.out" | tr '\n' ' ')"
    is "$name" "$faults$(differs "$stage" "$run")"
}

# first STAGE: what the others are held against. Every run of the test saves checkpoints or not: no bit depends on it.
first() {
    begin=$(date +%s%N)
    if (save="--save-steps 1"; [ $1 != rejection ] || save=; train "$1" "$tmp/$1" $save) >"$tmp/$1.out" 2>&1; then
        end=$(date +%s%N)
        echo $(((end - begin) / 1000000)) >"$tmp/$1.ms"
        case $1 in
        grpo* | rejection) [ -s "$tmp/$1/samples.jsonl" ] && is "$1: runs" '' || is "$1: runs" ' nothing was sampled.' ;;
        *) is "$1: runs" '' ;;
        esac
    else
        is "$1: runs" " $(tail -n 3 "$tmp/$1.out" | tr '\n' ' ')"
    fi
}

has() {
    "$ponder" train pretrain --isa "$1" -m "$tmp/init" -d "$tmp/texts.jsonl" --dry-run >/dev/null 2>&1
}

# all STAGE
all() {
    if [ "$1" = rejection ]; then
        other='--max-num-seqs 5'
        again=
        none=
    else
        other='--pass-tokens 64'
        again=--gradient-checkpointing
        none='--save-steps 0'
    fi
    same "$1" "one thread, plain C${other:+, $other}" --threads 1 --isa scalar $none $other
    same "$1" "three threads${again:+, $again}" --threads 3 $none $again
    for isa in avx2 avx512; do
        ! has $isa || same "$1" "$isa" --isa $isa $none
    done
    for ranks in 2 4; do
        if command -v mpirun >/dev/null 2>&1; then
            same "$1" "$ranks ranks" --threads 1 $none
        else
            echo "ok $1: $ranks ranks # SKIP there is no mpirun"
        fi
    done
    ranks=1
    killed "$1"
    [ "$1" != sft ] || dead "$1"
}

stages='pretrain sft dpo reward labels distill grpo grpo.bf16 rejection'
{
    for s in $stages; do first $s; done
    for s in $stages; do
        all $s >"$tmp/$s.tap" 2>&1 &
        [ $s != distill ] || wait
    done
    wait
    for s in $stages; do cat "$tmp/$s.tap"; done
} | awk '/^(not )?ok / { sub(/ok /, "ok " ++n " - ") } { print } END { print "1.." n }' | tee "$tmp/tap"
if [ -n "$copy" ]; then cp -r "$tmp" "$copy"; fi
! grep -q '^not ok' "$tmp/tap"
