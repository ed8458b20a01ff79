#!/bin/sh
# The program as people use it: test_cli.sh PONDER PTY GOLDEN_FOLDER. Prints TAP.
# Models are the tiny random ones of the golden folder; what they say is noise, how it is said counts.
set -u
ponder=$1
pty=$2
golden=$3
model=$golden/models/qwen2_tied
llama=$golden/models/llama_rope_llama3
tmp=$(mktemp -d "${TMPDIR:-/tmp}/ponder-cli.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
for v in $(env | sed -n 's/^\(PONDER_[A-Z_]*\)=.*/\1/p'); do unset "$v"; done
unset NO_COLOR XDG_CACHE_HOME XDG_DATA_HOME SOURCE_DATE_EPOCH
export HOME="$tmp/home" TERM=xterm LC_ALL=C.UTF-8
mkdir -p "$HOME"
# libedit never frees the names of functions that a program adds: 216 bytes, once.
echo 'leak:wcsdup' >"$tmp/lsan"
export LSAN_OPTIONS="suppressions=$tmp/lsan:print_suppressions=0${LSAN_OPTIONS:+:$LSAN_OPTIONS}"
esc=$(printf '\033')
count=0
faults=''

# run WORDS…: the program with empty input; status, output and errors are kept.
run() {
    "$ponder" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    status=$?
}

# feed TEXT WORDS…: the same with input.
feed() {
    printf '%s' "$1" >"$tmp/in"
    shift
    "$ponder" "$@" >"$tmp/out" 2>"$tmp/err" <"$tmp/in"
    status=$?
}

# play SCRIPT WORDS…: the program on a terminal; what appeared is in out.
play() {
    printf '%s\n' "$1" >"$tmp/script"
    shift
    "$pty" -t 30 "$tmp/script" "$ponder" "$@" >"$tmp/out" 2>"$tmp/err"
    status=$?
}

# Claims about the last run; what does not hold is remembered for `is`.
exits() { [ "$status" = "$1" ] || faults="$faults [status $status, not $1]"; }
says() { grep -qF -- "$1" "$tmp/out" || faults="$faults [output lacks: $1]"; }
tells() { grep -qF -- "$1" "$tmp/err" || faults="$faults [errors lack: $1]"; }
hides() { ! grep -qF -- "$1" "$tmp/out" || faults="$faults [output has: $1]"; }
quiet() { [ ! -s "$tmp/err" ] || faults="$faults [errors: $(head -c 200 "$tmp/err")]"; }
silent() { [ ! -s "$tmp/out" ] || faults="$faults [output: $(head -c 200 "$tmp/out")]"; }
prints() { [ "$(cat "$tmp/out")" = "$1" ] || faults="$faults [output is not $1 but $(head -c 200 "$tmp/out")]"; }
oneline() {
    [ "$(wc -l <"$tmp/err")" = 1 ] && grep -q '^ponder: ' "$tmp/err" ||
        faults="$faults [not one line: $(head -c 300 "$tmp/err")]"
}
same() { cmp -s "$1" "$2" || faults="$faults [$1 and $2 differ]"; }
holds() { "$@" || faults="$faults [does not hold: $*]"; }

# is NAME: ends a test.
is() {
    count=$((count + 1))
    if [ -z "$faults" ]; then
        echo "ok $count - $1"
    else
        echo "not ok $count - $1:$faults"
    fi
    faults=''
}

# ---- words -----------------------------------------------------------------------------------------

run
exits 0 && says 'Usage: ponder COMMAND' && quiet
is 'no command shows the overview'

for c in $("$ponder" help | sed -n 's/^  \([a-z]*\)  .*/\1/p'); do
    run "$c" --help
    exits 0 && says "Usage: ponder $c" && quiet
    cp "$tmp/out" "$tmp/a"
    run help "$c"
    same "$tmp/out" "$tmp/a"
    run help --man "$c"
    exits 0 && says '.SH NAME'
    seen=$((${seen:-0} + 1))
done
holds test "${seen:-0}" -ge 10
is 'every command has help and a manual page'

run help --completion bash
exits 0 && says 'complete -o default'
if command -v bash >/dev/null; then holds bash -n "$tmp/out"; fi
is 'shell completion is valid'

run --version
exits 0 && says 'ponder ' && quiet
is 'version'

run tokenise
exits 2 && tells 'unknown command "tokenise"; did you mean "tokenize"?' && oneline && silent
is 'a misspelt command'

run run --temperatur 1 "$model" x
exits 2 && tells 'unknown option "--temperatur"; did you mean "--temperature"?' && oneline
is 'a misspelt option'

run run "$model" x --temperature 9
exits 2 && tells 'ponder: --temperature 9: must be between 0 and 2' && oneline && silent
is 'a value out of range'

run bench
exits 2 && oneline
run inspect a b
exits 2 && tells 'unexpected argument "b"'
is 'too few and too many arguments'

"$ponder" help run >/dev/full 2>"$tmp/err"
status=$?
exits 1 && oneline && tells 'cannot write the output'
is 'a full disk is noticed'

# ---- models that are none --------------------------------------------------------------------------

run run "$tmp/none.gguf" x
exits 1 && tells "$tmp/none.gguf" && tells 'no such file' && oneline && silent
is 'a missing file'

run run nosuchmodel x
exits 1 && tells 'no model "nosuchmodel"' && oneline
is 'a missing name'

mkdir "$tmp/empty"
run run "$tmp/empty" x
exits 1 && tells "$tmp/empty" && oneline
is 'a folder without a model'

head -c 1000 "$golden/format/gguf_py.gguf" >"$tmp/cut.gguf"
run inspect "$tmp/cut.gguf"
exits 1 && tells 'cut.gguf' && oneline && silent
is 'a truncated file'

mkdir "$tmp/alien" && cp "$model"/*.json "$model/model.safetensors" "$tmp/alien/" && chmod u+w "$tmp/alien"/*
sed 's/"model_type": *"qwen2"/"model_type": "martian"/' "$model/config.json" >"$tmp/alien/config.json"
run inspect "$tmp/alien"
exits 1 && tells 'martian' && oneline
run run "$tmp/alien" x
exits 1 && tells 'martian' && oneline
is 'an unknown architecture'

# A copy outside of the build folder, so that the source tree's models are not its own.
mkdir -p "$tmp/bin" && cp "$ponder" "$tmp/bin/ponder"
away() {
    "$tmp/bin/ponder" "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    status=$?
}
away run
exits 2 && tells 'no model given' && oneline
away run bundled x
exits 1 && tells 'without its bundled model' && oneline
is 'no model at all'

mkdir -p "$tmp/share/ponder/models" "$tmp/weights"
"$ponder" convert "$model" "$tmp/share/ponder/models/ponder-r1-mini.gguf" --type F32 >/dev/null 2>&1
"$ponder" convert "$llama" "$tmp/weights/other.gguf" --type F32 >/dev/null 2>&1
for name in bundled ponder-r1-mini; do
    away run "$name" 'Hello there' --seed 7 --max-tokens 12
    exits 0 && quiet
    cp "$tmp/out" "$tmp/$name"
    away inspect "$name" --json
    exits 0 && says '"qwen2'
done
away run --seed 7 --max-tokens 12 --model "$model" 'Hello there'
same "$tmp/out" "$tmp/bundled"
same "$tmp/out" "$tmp/ponder-r1-mini"
echo 'Hello there' | "$tmp/bin/ponder" run --seed 7 --max-tokens 12 >"$tmp/out" 2>"$tmp/err"
same "$tmp/out" "$tmp/bundled"
away run 'Hello there' --seed 7 --max-tokens 12
same "$tmp/out" "$tmp/bundled"
away run 'no such file.gguf'
exits 1 && tells 'no such file or folder' && oneline
is 'the bundled model by its names, and where no other is known'

# PONDER_MODEL goes before the folder of models, that before the bundled one.
away run "$tmp/weights/other.gguf" 'Hello there' --seed 7 --max-tokens 12 && cp "$tmp/out" "$tmp/other"
echo 'Hello there' | PONDER_MODELS=$tmp/weights "$tmp/bin/ponder" run --seed 7 --max-tokens 12 >"$tmp/out" 2>"$tmp/err"
same "$tmp/out" "$tmp/other"
echo 'Hello there' | PONDER_MODELS=$tmp/weights PONDER_MODEL=bundled "$tmp/bin/ponder" run --seed 7 --max-tokens 12 >"$tmp/out" 2>"$tmp/err"
same "$tmp/out" "$tmp/bundled"
cp "$tmp/weights/other.gguf" "$tmp/weights/two.gguf"
PONDER_MODELS=$tmp/weights "$tmp/bin/ponder" run >"$tmp/out" 2>"$tmp/err" </dev/null
status=$?
exits 2 && tells 'which model?' && oneline
is 'which model it is when none was named'

# ---- answers ---------------------------------------------------------------------------------------

run run "$model" 'Hello there' --seed 7 --max-tokens 12
exits 0 && quiet
holds test -s "$tmp/out"
hides "$esc"
cp "$tmp/out" "$tmp/a"
is 'an answer, without colours in a pipe'

run run "$model" Hello there --seed 7 --max-tokens=12 --threads 1
exits 0 && same "$tmp/out" "$tmp/a"
run run "$model" 'Hello there' --seed 7 --max-tokens 12 --isa scalar -t 2
exits 0 && same "$tmp/out" "$tmp/a"
is 'the same seed gives the same answer with any threads and instructions'

feed 'Hello there
' run "$model" --seed 7 --max-tokens 12
exits 0 && same "$tmp/out" "$tmp/a"
is 'the prompt from standard input'

feed 'Hello' run "$model" --seed 7 --max-tokens 3 --json there
exits 0 && says '"answer":' && says '"reasoning":' && says '"stop": "length"' && says '"answer_tokens": 3' && says '"seed": 7' && quiet
holds test "$(head -c 1 "$tmp/out")" = '{'
is 'standard input and a prompt, as JSON'

feed '' run "$model"
exits 2 && tells 'no prompt' && oneline
is 'no prompt'

run run --model "$model" Hello there --seed 7 --max-tokens 12
same "$tmp/out" "$tmp/a"
PONDER_MODEL=$model "$ponder" run Hello there --seed 7 --max-tokens 12 >"$tmp/out" 2>"$tmp/err" </dev/null
same "$tmp/out" "$tmp/a"
PONDER_MODELS=$golden/models "$ponder" run qwen2_tied Hello there --seed 7 --max-tokens 12 >"$tmp/out" 2>"$tmp/err" </dev/null
same "$tmp/out" "$tmp/a"
PONDER_MODELS=$golden/models "$ponder" run qwen2 x >"$tmp/out" 2>"$tmp/err" </dev/null
status=$?
exits 1 && tells 'qwen2_tied' && oneline
is 'models by --model, by PONDER_MODEL and by name'

run run "$model" "$(seq 1 200 | tr '\n' ' ')" --ctx 64
exits 1 && oneline && silent
grep -q 'the prompt has [0-9,]* tokens and the context is 64: shorten it, or give --ctx' "$tmp/err" || faults='[words]'
is 'a prompt beyond the context'

run run "$model" Hello --ctx 40 --seed 1 --temperature 0 --logit-bias 507=-inf --logit-bias 505=-inf
exits 0 && tells 'is full'
is 'an answer beyond the context is cut off with words'

run run "$model" Hello --verbose --max-tokens 4
exits 0
tells 'prompt ' && tells 'answer ' && tells 'memory ' && tells 'tok/s'
is 'what an answer cost'

run run "$model" x --logit-bias 999999=1
exits 2 && oneline && tells 'token ids go from 0 to 511'
run run "$model" x --logit-bias 5
exits 2 && oneline
is 'a bad logit bias'

run run "$model" x --template "$tmp/none.jinja"
exits 1 && oneline && tells 'none.jinja'
printf '{%% if %%}' >"$tmp/bad.jinja"
run run "$model" x --template "$tmp/bad.jinja"
exits 1 && oneline
is 'a bad template'

# ---- plumbing --------------------------------------------------------------------------------------

feed '"Hello, world"
"日本 <|im_end|>"

"tail"' tokenize "$model"
exits 0 && quiet
holds test "$(wc -l <"$tmp/out")" = 3
cp "$tmp/out" "$tmp/in"
"$ponder" detokenize "$model" <"$tmp/in" >"$tmp/out"
prints '"Hello, world"
"日本 <|im_end|>"
"tail"'
"$ponder" detokenize "$model" --bytes <"$tmp/in" >"$tmp/out"
says '"48656c6c6f2c20776f726c64"'
is 'text to tokens and back'

feed '"<|im_end|>"' tokenize "$model" --special
prints '[507]'
feed '"<|im_end|>"' tokenize "$model"
hides '507'
is 'control tokens are recognised only when asked for'

feed '"fine"
{"no": "string"}' tokenize "$model"
exits 1 && tells 'line 2' && oneline
feed '"a"
"open' tokenize "$model"
exits 1 && tells 'line 2' && oneline
feed '[1, 99999999]' detokenize "$model"
exits 1 && tells 'line 1' && tells '99999999' && oneline
feed '[1.5]' detokenize "$model"
exits 1 && oneline
is 'bad lines are named'

feed '{"template": "{{ a * 2 }}", "context": {"a": 21}}
{"template": "{{ raise_exception(\"no\") }}"}
{"template": "{% for %}"}
not json
{"template": "{{ \"é\" }}\u0000"}' render -
exits 0 && quiet
holds test "$(sed -n 1p "$tmp/out")" = '{"text":"42"}'
holds test "$(sed -n 2p "$tmp/out")" = '{"error":"no"}'
sed -n 3,4p "$tmp/out" | grep -vq '^{"error":' && faults="$faults [no error rows]"
holds test "$(sed -n 5p "$tmp/out")" = '{"text":"é\u0000"}'
is 'templates of their own'

feed '[{"role": "user", "content": "Hi"}]' render "$model"
exits 0 && says '"text":' && says 'Hi'
feed '[{"role": "user", "content": "Hi"}]' render -
exits 0 && says '{"error":'
printf '{{ messages[0].content }}!' >"$tmp/t.jinja"
feed '{"messages": [{"role": "user", "content": "Hi"}]}' render - --template "$tmp/t.jinja"
prints '{"text":"Hi!"}'
is 'conversations to text'

feed '"<think>a</think>\n\nb"
"c</think>d"' parse -
exits 0
sed -n 1p "$tmp/out" | grep -q '"reasoning":"a"' || faults="$faults [$(head -1 "$tmp/out")]"
feed '"c</think>d"' parse "$model" --thinking-open
says '"reasoning":"c"' && says '"content":"d"'
is 'output taken apart'

printf '%s\n' '{"gold":"1/2","answer":"<think>\n\\boxed{3}\n</think>\n\nSo \\boxed{0.50}."}' '{"gold":"7","answer":"8"}' \
    '{"gold":"7","answer":"seven"}' '{"gold":"7","answer":"<think>7"}' \
    '{"task":"countdown","id":"countdown-en-0-7.12.3.81-0","answer":"\\boxed{12*7-3}"}' >"$tmp/grade.jsonl"
feed "$(cat "$tmp/grade.jsonl")" grade
exits 0 && quiet && prints '{"verdict":"equal","extracted":"0.50"}
{"verdict":"different","extracted":"8"}
{"verdict":"unparsed","extracted":"seven"}
{"verdict":"unparsed","extracted":null}
{"verdict":"equal","extracted":"12*7-3"}'
feed '{"gold":"7","language":"zh","answer":"x\n</think>\n\n\\boxed{7}"}' grade --thinking-open --rewards accuracy,format,language
exits 0 && says '"accuracy":1.0,"format":1.0,"language":1.0' && says '"why":{"accuracy":"\\boxed{7}: equal"'
feed '{"gold":"7"}' grade
exits 1 && oneline && tells 'line 1: "answer" has to be a string'
feed '{"answer":"7"}' grade
exits 1 && oneline && tells 'nothing to hold the answer against'
feed '{"task":"word","id":"word-en-99-1.1.1-0","answer":"7"}' grade
exits 1 && oneline && tells 'is no id of an r1-gym problem'
run grade --rewards accuracy,nonsense
exits 2 && oneline && tells 'there is no reward "nonsense"'
is 'answers judged'

run data
exits 0 && says 'ponder data r1-gym' && quiet
run data nonsense
exits 2 && oneline && tells 'there is no "nonsense"'
run data r1-gym --count 2 --tasks word --languages en --split eval --template 'Q {} A {}'
exits 0 && quiet && says '{"prompt":"Q ' && says ' A {}","task"' && says '"id":"word-en-'
run data r1-gym --count 2 --template 'no place'
exits 2 && oneline && tells 'with {} where the problem stands'
run data r1-gym --count 2 --template '{}' --form sft
exits 2 && oneline && tells '--template is for --form prompt'
run data r1-gym --count 3 --split eval --form sft
exits 0 && quiet && holds [ "$(wc -l <"$tmp/out")" = 30 ] && says '"task":"general","language":"zh"'
cp "$tmp/out" "$tmp/a"
run data r1-gym --count 3 --split eval --form sft --out "$tmp/gym.jsonl"
exits 0 && silent && holds cmp -s "$tmp/a" "$tmp/gym.jsonl"
run data r1-gym --tasks arithmetic:2,word --languages en --count 4
exits 0 && holds [ "$(grep -c '"task":"arithmetic","language":"en"' "$tmp/out")" = 8 ] && holds [ "$(wc -l <"$tmp/out")" = 12 ]
run data r1-gym --tasks general --split eval --count 100k
exits 1 && oneline && tells 'general has only about' && silent
run data r1-gym --tasks general --split eval --count 100k --out "$tmp/none.jsonl"
exits 1 && holds [ ! -e "$tmp/none.jsonl" ]
run data r1-gym --tasks algebra
exits 2 && oneline && tells 'there is no task "algebra"'
run data r1-gym --languages fr
exits 2 && oneline && tells '"fr" is not one of en, zh'
run data r1-gym --tasks word:0
exits 2 && oneline && tells 'the weight behind : has to be above 0'
is 'problems written'

run logits "$model" --ids 1,2,3,4,5 --out "$tmp/l"
exits 0 && prints '{"rows": 5, "vocab": 512}' && quiet
holds test "$(wc -c <"$tmp/l")" = 10240
run logits "$model" --ids 1,2,3,4,5 --chunk 1 --out "$tmp/l1"
same "$tmp/l" "$tmp/l1"
run logits "$model" --ids 1,2,3,4,5 --last --chunk 2 --out "$tmp/l2"
prints '{"rows": 1, "vocab": 512}'
tail -c 2048 "$tmp/l" >"$tmp/l3"
same "$tmp/l2" "$tmp/l3"
run logits "$model" --ids 1,2 --out /dev/null
exits 0
is 'logits, the same however they are fed'

run logits "$model" --ids 1,512 --out "$tmp/none"
exits 2 && tells 'outside the vocabulary (0 to 511)' && oneline
run logits "$model" --ids 1,x --out "$tmp/none"
exits 2 && oneline
run logits "$model" --ids 1
exits 2 && tells '--out is needed' && oneline
run logits "$model" --ids 1 --mtp --out "$tmp/none"
exits 1 && oneline
run logits "$model" --ids 1 --out "$tmp/none/x"
exits 1 && oneline
holds test ! -e "$tmp/none"
is 'logits of what there is not'

# ---- eval, imatrix ---------------------------------------------------------------------------------

i=0
while [ $i -lt 60 ]; do
    echo "The quick brown fox number $i jumps over the lazy dog."
    i=$((i + 1))
done >"$tmp/text"
run eval perplexity "$model" "$tmp/text" --ctx 64 --save-logits "$tmp/ref" --top 16
exits 0 && says 'perplexity' && says 'windows of 64' && says 'scored' && quiet
run eval perplexity "$model" "$tmp/text" --ctx 64 --json
exits 0 && says '"perplexity"' && hides '"kl"'
grep '"value"' "$tmp/out" >"$tmp/a"
"$ponder" eval perplexity "$model" - --ctx 64 --json -t 1 <"$tmp/text" 2>&1 | grep '"value"' >"$tmp/b"
same "$tmp/a" "$tmp/b"
run eval perplexity "$model" --kl "$tmp/ref"
exits 0 && says 'mean 0.000000 ± 0.000000' && says 'the same at 100.000%' && quiet
run eval perplexity "$model" "$tmp/text" --kl "$tmp/ref" --json --kv-type f32
exits 0 && says '"same_best"'
run eval perplexity "$model" "$tmp/text" --ctx 64 --stride 32
exits 0 && says 'one every 32' && quiet
is 'perplexity and divergence of a text'

run eval perplexity "$model"
exits 2 && oneline && tells 'a text is missing'
run eval beauty "$model"
exits 2 && oneline && tells 'perplexity'
run eval perplexity "$model" "$tmp/text" --ctx 64 --stride 65
exits 2 && oneline && tells 'stride of 65'
run eval perplexity "$model" "$tmp/text" --ctx 1000
exits 1 && oneline && tells 'tokens'
run eval perplexity "$model" "$tmp/text" --ctx 32 --kl "$tmp/ref"
exits 2 && oneline && tells 'leave'
run eval perplexity "$llama" --kl "$tmp/ref"
exits 1 && oneline && tells 'vocabulary'
head -c 3000 "$tmp/ref" >"$tmp/cut"
run eval perplexity "$model" --kl "$tmp/cut"
exits 1 && oneline && tells 'truncated'
run eval perplexity "$model" --kl "$tmp/text"
exits 1 && oneline && tells 'no file of saved logits'
run eval perplexity "$model" "$tmp/text" --ctx 64 --save-logits "$tmp/none/ref"
exits 1 && oneline && tells 'none/ref'
run eval perplexity "$golden/models/qwen2_untied" "$tmp/text"
exits 1 && oneline && tells 'no tokenizer'
is 'eval refuses what cannot be'

run imatrix "$model" "$tmp/text" --ctx 64 -o "$tmp/im.gguf" --chunks 4
exits 0 && says 'wrote' && says '21 matrices' && quiet
run imatrix "$model" "$tmp/text" --ctx 64 -o "$tmp/im2.gguf" --from-chunk 4 --chunks 2 --in "$tmp/im.gguf" --head
exits 0 && says '22 matrices' && says '6 chunks' && quiet
run inspect "$tmp/im2.gguf" --json
exits 0 && says 'blk.2.ffn_down.weight.in_sum2' && says 'blk.0.attn_q.weight.counts' && says 'token_embd.weight.in_sum2'
run imatrix "$model" "$tmp/text" --ctx 32 --in "$tmp/im.gguf" -o "$tmp/none.gguf"
exits 2 && oneline && tells '--ctx 64'
run imatrix "$model" "$tmp/text" --in "$tmp/text" -o "$tmp/none.gguf"
exits 1 && oneline
run imatrix "$model" "$tmp/none"
exits 1 && oneline && tells 'none'
holds [ ! -e "$tmp/none.gguf" ]
is 'imatrix is written, added to, looked at'

run inspect "$model"
exits 0 && says 'model.embed_tokens.weight' && says '512 × 64' && says 'qwen2' && quiet
run inspect "$model" --json
exits 0 && says '"tensors":' && says '"architecture": "qwen2"'
run inspect "$model" --tensor model.norm.weight --raw
exits 0
holds test "$(wc -c <"$tmp/out")" = 256
run inspect "$model" --tensor model.norm.weigth
exits 1 && tells 'did you mean "model.norm.weight"?'
run inspect "$golden/format/gguf_py.gguf" --raw
exits 2 && oneline
r1=$golden/models/dsv3_fp8_mtp
run inspect "$r1"
exits 0 && says '8 of width 72, ' && says 'prediction     1 layer' && says 'FP8         72 tensors'
says 'layers.1.mlp.experts.*.gate_proj.weight' && says '8 tensors' && hides 'mlp.experts.3.'
run inspect "$r1" --full
exits 0 && says 'layers.1.mlp.experts.3.gate_proj.weight' && hides 'experts.*'
run inspect "$r1" --json
exits 0 && says '"experts": {' && says '"prediction_layers": 1' && says '"tensor_bytes": 2024984,'
is 'what is in a file'

run inspect "$golden/quant/fp8.safetensors"
exits 0 && says 'kv_a.weight' && says 'FP8' && hides 'weight_scale_inv' && quiet
"$ponder" inspect "$golden/quant/fp8.safetensors" --tensor kv_a.weight --raw >"$tmp/a"
"$ponder" inspect "$golden/quant/fp8.safetensors" --tensor kv_a.expected --raw >"$tmp/b"
same "$tmp/a" "$tmp/b"
sed 's/"model_type"/"quantization_config": {"quant_method": "hqq"}, "model_type"/' "$model/config.json" >"$tmp/alien/config.json"
run inspect "$tmp/alien"
exits 1 && tells '"hqq"' && tells 'gptq' && oneline
is 'weights in several tensors'

gguf=$golden/format/gguf_py.gguf
run quantize "$gguf" "$tmp/q.gguf"
exits 2 && tells '--type is missing' && oneline
run quantize "$gguf" "$tmp/q.gguf" --type Q4_X
exits 2 && tells 'unknown type "Q4_X"' && oneline
run quantize "$gguf" --type Q8_0
exits 2 && tells 'name the output as well' && oneline
run quantize "$gguf" "$tmp/q.gguf" --type Q8_0 --split-size 5X
exits 2 && tells '--split-size 5X' && oneline
run quantize "$tmp/none.gguf" "$tmp/q.gguf" --type Q8_0
exits 1 && oneline
run quantize "$gguf" "$tmp/q.gguf" --type F32 --tensor-type 'a=b'
exits 2 && tells 'no weight type "b"' && oneline
holds test ! -e "$tmp/q.gguf"
run quantize "$gguf" --type F16 --dry-run
exits 0 && says 'bits a weight'
run convert "$gguf" "$tmp/c.gguf" --json
exits 0 && says '"tensors":' && says '"bytes":' && quiet
run convert "$gguf" "$tmp/c.gguf"
exits 2 && tells 'is there already' && oneline
run convert "$gguf" "$tmp/c.gguf" --force
exits 0 && says "wrote $tmp/c.gguf"
run convert "$tmp/c.gguf" "$tmp/c.gguf" --force
exits 2 && tells 'is the source itself' && oneline
run convert "$model" "$tmp/m.gguf"
exits 0 && says 'bits a weight' && quiet
run quantize "$model" "$tmp/mq.gguf" --type Q8_0 --json
exits 0 && says '"type": "Q8_0"'
run convert "$tmp/m.gguf" "$tmp/back/"
exits 0 && quiet
run logits "$tmp/m.gguf" --ids 5,6,7 --out "$tmp/a.f32"
exits 0
run logits "$tmp/back" --ids 5,6,7 --out "$tmp/b.f32"
exits 0
same "$tmp/a.f32" "$tmp/b.f32"
run convert "$tmp/m.gguf" "$tmp/packed.gguf" --packed
exits 0 && quiet
run logits "$tmp/packed.gguf" --ids 5,6,7 --out "$tmp/b.f32"
exits 0
same "$tmp/a.f32" "$tmp/b.f32"
run inspect "$tmp/packed.gguf"
exits 0 && says 'ponder.panels'
run convert "$tmp/m.gguf" "$tmp/packed" --packed
exits 2 && tells '--packed is for GGUF' && oneline
run convert "$tmp/m.gguf" "$tmp/back" --force
exits 2 && tells 'never replaced' && oneline
run quantize "$tmp/m.gguf" "$tmp/q" --type Q8_0
exits 2 && tells 'cannot hold Q8_0' && oneline
holds test -z "$(find "$tmp" -name '*.part-*')"
run quantize "$gguf" --type F16 --dry-run --tensor-type 'no_such=Q8_0'
exits 0 && tells 'no_such=Q8_0 decides nothing' && oneline
run quantize "$gguf" --type F16 --dry-run --imatrix "$tmp/none.gguf"
exits 1 && oneline && holds [ "$(cut -c 1-$((8 + ${#tmp})) "$tmp/err")" = "ponder: $tmp" ]
is 'other files: quantize and convert'

# A merged adapter: how far logits are from those of base and adapter is told, and decides.
base=$golden/lora/llama
run merge "$base" "$base/adapter" --output "$tmp/merged"
exits 0 && says 'original weights in F32' && says 'the same first choice for 512 of 512 tokens' && says "wrote $tmp/merged"
run logits "$tmp/merged" --ids 5,6,7 --out "$tmp/merged.f32"
exits 0
run logits "$base" --ids 5,6,7 --out "$tmp/base.f32"
exits 0 && holds test "$(cmp -s "$tmp/base.f32" "$tmp/merged.f32"; echo $?)" = 1
run merge "$base" "$base/adapter" --output "$tmp/merged"
exits 2 && oneline && tells 'is there already'
run merge "$base" "$base/adapter" --output "$base"
exits 2 && oneline && tells 'is the base itself'
run merge "$base" "$base/adapter" --type Q8_0 --tolerance 1e-6 --output "$tmp/few.gguf" --json
exits 1 && says '"kept": false' && says '"base_weights": "original"' && says '"output_type": "Q8_0"'
holds test ! -e "$tmp/few.gguf" && holds test -z "$(ls "$tmp" | grep unchecked)"
run merge "$base" "$base/adapter" --type Q8_0 --tolerance 1e-6 --output "$tmp/few.gguf" --json --force
exits 0 && says '"kept": true' && holds test -s "$tmp/few.gguf"
run merge "$tmp/few.gguf" "$base/adapter" --type f16 --output "$tmp/few.gguf" --force
exits 2 && tells 'is the base itself'
run merge "$tmp/few.gguf" "$base/adapter" --type f16 --output "$tmp/again.gguf"
exits 0 && says 'dequantized from Q8_0'
run merge "$base" "$golden/models/qwen2_tied" --output "$tmp/x"
exits 1 && oneline && holds test ! -e "$tmp/x"
is 'adapters are merged, and the difference is told'

run init --config "$model" --tokenizer "$model" --seed 3 "$tmp/new"
exits 0 && says 'seed 3' && quiet
run run "$tmp/new" x -n 3
exits 0
run init "$tmp/new2"
exits 2 && tells '--config is missing' && oneline
run init --config "$model" --type Q4_K_M "$tmp/new2"
exits 2 && tells 'F32, F16 or BF16' && oneline
run init --config "$tmp/none.json" "$tmp/new2"
exits 1 && oneline
holds test ! -e "$tmp/new2"
is 'a new model'

# Some GB that are never written: it ends as soon as it has begun.
sed 's/"hidden_size": 64/"hidden_size": 4096/; s/"intermediate_size": 152/"intermediate_size": 65536/' \
    "$model/config.json" >"$tmp/large.json"
for signal in 15 1; do # SIGTERM, SIGHUP
    for out in "$tmp/large" "$tmp/large.gguf"; do
        "$ponder" init --config "$tmp/large.json" --tokenizer "$model" "$out" >"$tmp/out" 2>"$tmp/err" </dev/null &
        child=$!
        for _ in $(seq 6000); do
            [ -z "$(find "$tmp" -name 'large*.part-*')" ] || break
            sleep 0.01
        done
        kill -$signal $child
        wait $child 2>/dev/null
        status=$?
        exits $((128 + signal))
        holds test -z "$(find "$tmp" -name 'large.part*' -o -name 'large.gguf*' -o -name large)"
    done
done
is 'what ends the program while it writes leaves nothing behind'

run bench "$model" -p 16 -n 4 -r 2 -t 1,2
exits 0 && says 'p16 ' && says 'n4 ' && says 'this machine with 2 threads'
run bench "$model" -p 0 -n 2,4 --parallel 1,3 -r 1 -t 2 --markdown
exits 0 && says '| n4 |' && says '| n2x3 |'
run bench "$model" -p 0 -n 4 -d 0,70 --parallel 1,3 -r 1 --scheduler
exits 0 && says 'n4s ' && says 'n4x3 ' && says 'n4x3s '
run bench "$model" -p 16 -n 4 -d 8 -r 2 -t 1 --json
exits 0 && says '"test": "decode"' && says '"tokens_per_second":' && says '"samples":'
run bench "$model" -t 0
exits 2 && oneline
run bench "$model" -p 16,x
exits 2 && tells 'prefill' && oneline
run bench "$model" -p 0 -n 0
exits 2 && oneline
is 'speed'

# ---- plot ------------------------------------------------------------------------------------------

mkdir "$tmp/curves"
echo '{"stage": "sft"}' >"$tmp/curves/config.json"
for i in 1 2 3 4 5; do
    echo "{\"step\":$i,\"loss\":$((6 - i)).5,\"own\":$i}"
done >"$tmp/curves/log.jsonl"

run plot "$tmp/curves"
exits 0 && quiet && says 'curves · sft · step 5' && says 'Loss' && says '┤' && hides "$esc" && hides 'own'
run plot "$tmp/curves" --metrics own
exits 0 && says 'own' && hides 'Loss'
is 'plot draws the usual metrics, or those that are named'

run plot "$tmp/curves" --metrics lose
exits 2 && oneline && tells '"lose"' && tells 'loss, own'
run plot "$tmp/nothing"
exits 1 && oneline && tells 'no folder of a training run'
run plot "$tmp/curves" --out "$tmp/x.gif"
holds [ "$status" != 0 ] && oneline
is 'plot says what it cannot draw'

run plot "$tmp/curves" --out "$tmp/x.svg" --out "$tmp/x.png"
if grep -q 'without cairo' "$tmp/err"; then
    exits 1 && oneline && tells 'libcairo2-dev'
else
    exits 0 && says "wrote $tmp/x.svg" && holds grep -q '</svg>' "$tmp/x.svg" && holds grep -q PNG "$tmp/x.png"
fi
is 'plot writes pictures'

run train
exits 0 && quiet && says 'ponder train sft'
run train stf
exits 2 && oneline && tells '"stf"'
run train --watch "$tmp/curves"
exits 0 && quiet && says 'step 5  loss 1.500' && hides "$esc"
run plot "$tmp/curves" --watch
exits 0 && quiet && says 'step 5  loss 1.500' && hides "$esc"
is 'watching a run that has ended ends, with a line where there is no terminal'

echo $$ >"$tmp/curves/.lock" # a process that lives
{
    sleep 1
    echo '{"step":6,"loss":0.25}' >>"$tmp/curves/log.jsonl"
} &
play 'expect step 5
expect Loss
expect step 6
expect 0.250
send \x03' plot "$tmp/curves" --watch
wait
exits 0 && says "$esc[K"
is 'watching a run that grows draws it anew, and Ctrl-C ends it'

# ---- on a terminal ---------------------------------------------------------------------------------

play 'expect >>> 
send Hello\r
expect >>> 
send /set parameter temprature 1\r
expect did you mean "temperature"?
expect >>> 
send /set parameter temperature 9\r
expect must be between 0 and 2
expect >>> 
send /set parameter temperature 0.5\r
expect Set parameter
expect >>> 
send /show parameters\r
expect 0.5
expect >>> 
send /shwo\r
expect did you mean /show?
expect >>> 
send /show info\r
expect qwen2
expect >>> 
send /set verbose\r
expect >>> 
send """two\r
expect ... 
send lines"""\r
expect answer
expect memory
expect >>> 
send /clear\r
expect A new chat begins
expect >>> 
send half a question\x03
expect ^C
expect >>> 
end' run "$model" --max-tokens 5
exits 0
says '/? for help'
is 'a chat with its commands'

holds test "$(stat -c %a "$HOME/.local/share/ponder/history")" = 600
holds grep -q 'Hello' "$HOME/.local/share/ponder/history"
own=$ponder
ponder=$tmp/bin/ponder
play 'expect Each question stands on its own.
expect >>> 
send Hello there\r
expect >>> 
send Hello there\r
expect >>> 
send /bye\r' run bundled --max-tokens 8 --temperature 0 --verbose
ponder=$own
exits 0
holds [ "$(cat "$tmp/out" "$tmp/err" | grep -ao 'prompt  *[0-9]* tokens' | sort | uniq -c | awk '{ print $1, NR }')" = '2 1' ]
is 'a chat with the bundled model has no history'

play 'expect >>> 
send /set nohistory\r
expect >>> 
send secret thing\r
expect >>> 
send /bye\r' run "$model" --max-tokens 2
exits 0
holds test -z "$(grep secret "$HOME/.local/share/ponder/history")"
is 'the history is private and can be switched off'

play 'expect >>> 
send Hello\r
wait 0.3
send \x03
expect (stopped)
expect >>> 
send /bye\r' run "$model" --ctx 900k --logit-bias 507=-inf --logit-bias 505=-inf --log error
exits 0
is 'Ctrl-C stops an answer and the chat goes on'

play 'expect >>> 
send /set system "settled"\r
expect >>> 
storm 150 x
storm 100 /show system\r
storm 40 Hello\r
settle \x15/show system\r
end' run "$model" --max-tokens 3
exits 0
is 'Ctrl-C at any moment never ends a chat'

play 'expect >>> 
signal 15' run "$model"
exits 143
is 'a chat ends when it is told to'

play 'wait 0.7
signal 2' run "$model" Hello --ctx 900k --logit-bias 507=-inf --logit-bias 505=-inf --log error
exits 130
is 'an interrupted answer gives status 130'

mkfifo "$tmp/fifo"
printf 'wait 0.4\nsignal 2\n' >"$tmp/script"
exec 9<>"$tmp/fifo"
"$pty" "$tmp/script" sh -c "exec '$ponder' tokenize '$model' <'$tmp/fifo'" >"$tmp/out" 2>"$tmp/err"
status=$?
exec 9>&-
exits 130
is 'interrupted while waiting for input gives status 130'

play '' version
says 'ponder '
hides "$esc"
play 'expect >>> 
end' run "$model"
says "$esc[1m"
printf 'expect >>> \nend\n' >"$tmp/script"
NO_COLOR=1 "$pty" "$tmp/script" "$ponder" run "$model" >"$tmp/out" 2>"$tmp/err"
hides "$esc[1m"
hides "$esc[2m"
is 'NO_COLOR is respected'

printf '<think>\n' >"$tmp/think.jinja"
printf 'expect >>> \nsend x\\r\nexpect Thinking…\nexpect thinking (\nexpect >>> \nend\n' >"$tmp/script"
"$pty" -t 30 "$tmp/script" "$ponder" run "$model" --template "$tmp/think.jinja" --max-tokens 8 >"$tmp/out" 2>"$tmp/err"
status=$?
exits 0
says "$esc[2mThinking…"
run run "$model" x --template "$tmp/think.jinja" --max-tokens 8 --hide-thinking
exits 0 && hides 'Thinking'
run run "$model" x --template "$tmp/think.jinja" --max-tokens 8 --no-think
exits 0 && hides 'Thinking'
is 'thoughts are framed, hidden, left out'

run run "$model" x --template "$tmp/think.jinja" --max-tokens 24 --json --think-budget 3
exits 0 && says '"thought_cut": true'
run run "$model" x --template "$tmp/think.jinja" --max-tokens 24 --json
exits 0 && says '"thought_cut": false'
is 'a thought may have a budget'

printf 'root ::= "yes" | "n" [o0]{3}\n' >"$tmp/g.gbnf"
printf '{"type":"object","properties":{"n":{"type":"integer","minimum":7,"maximum":9}},"required":["n"]}' >"$tmp/schema.json"
run run "$model" x --seed 3 --grammar "$tmp/g.gbnf"
exits 0 && holds grep -qxE 'yes|n[o0]{3}' "$tmp/out"
run run "$model" x --seed 3 --format "$tmp/schema.json" --json
exits 0 && holds grep -qE '"answer": "[{][ n\\t]*' "$tmp/out" && says '\"n\":' && says '"tool_calls": []'
run run "$model" x --format '{"type":"object","unevaluatedProperties":false}'
exits 1 && oneline && tells '#/unevaluatedProperties: this keyword is not supported'
run run "$model" x --format json --grammar "$tmp/g.gbnf"
exits 2 && tells 'exclude each other'
run run "$model" x --grammar "$tmp/none.gbnf"
exits 1 && oneline && tells 'none.gbnf'
is 'answers may be held to a form'

# ---- training data ------------------------------------------------------------------------------

mkdir "$tmp/data"
i=0
while [ $i -lt 60 ]; do
    i=$((i + 1))
    printf '{"prompt":[{"role":"user","content":"%d plus %d"}],"completion":"<think>\\nso %d\\n</think>\\n\\nit is %d"}\n' $i $i $i $i
done >"$tmp/data/a.jsonl"
run data tokenizer "$tmp/data/a.jsonl" --vocab-size 270 --output "$tmp/data/tok"
exits 0
quiet
says "270 tokens"
run data tokenizer "$tmp/data/a.jsonl" --vocab-size 270 --output "$tmp/data/tok"
exits 2
tells "is there already"
printf '"<think>\\nplus 12"\n' >"$tmp/in"
"$ponder" tokenize "$tmp/data/tok" --special <"$tmp/in" >"$tmp/out" 2>"$tmp/err"
says "[5,"
is "a tokenizer is made from texts"

run data count "$tmp/data/tok" "$tmp/data/a.jsonl:0.5" --packing bfd --max-length 64
exits 0
quiet
says "records"
says "30  records, by the weights"
printf '{"text":"x"}\n\n{"messages":"x"}\n' >"$tmp/data/bad.jsonl"
run data count "$tmp/data/tok" "$tmp/data/bad.jsonl"
exits 1
oneline
tells 'bad.jsonl: line 3: "messages" is a string'
is "training data are counted, a wrong line is named"

run data split "$tmp/data/a.jsonl" "$tmp/data/train.jsonl" "$tmp/data/test.jsonl" --test-size 0.5
exits 0
run data decontaminate "$tmp/data/train.jsonl" --against "$tmp/data/test.jsonl" --output "$tmp/data/clean.jsonl"
exits 0
same "$tmp/data/train.jsonl" "$tmp/data/clean.jsonl"
run data mix "$tmp/data/train.jsonl" "$tmp/data/test.jsonl" --output "$tmp/data/all.jsonl"
exits 0
says "60 lines of 2 files"
sort "$tmp/data/all.jsonl" >"$tmp/data/x"
sort "$tmp/data/a.jsonl" >"$tmp/data/y"
same "$tmp/data/x" "$tmp/data/y"
run data none
exits 2
oneline
is "training data are split, cleaned and mixed"

echo "1..$count"
