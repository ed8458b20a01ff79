#!/bin/sh
# The model that ponder comes with, as people meet it: test_bundled.sh PONDER MODEL. Prints TAP.
# Answers are greedy, so they are the same on every machine; problems are ones that no training row has.
set -u
ponder=$1
model=$2
tmp=$(mktemp -d "${TMPDIR:-/tmp}/ponder-bundled.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
for v in $(env | sed -n 's/^\(PONDER_[A-Z_]*\)=.*/\1/p'); do unset "$v"; done
export LC_ALL=C.UTF-8
count=0

ok() {
    count=$((count + 1))
    if [ "$2" = 0 ]; then
        echo "ok $count - $1"
    else
        echo "not ok $count - $1"
        sed 's/^/# /' "$tmp/err" "$tmp/out" 2>/dev/null
    fi
}

# says PROMPT TEXT: the greedy answer to PROMPT has TEXT in it.
says() {
    "$ponder" run --model "$model" --temperature 0 --hide-thinking "$1" >"$tmp/out" 2>"$tmp/err" && grep -qF -- "$2" "$tmp/out"
    ok "$1 $2" $?
}

says '47*6+128=?' 410
says 'What is 512 - 87?' 425
says '计算38乘7。' 266
says 'Which day is 17 days after Tuesday?' Friday
says '星期二的17天之后是星期几？' 星期五
says 'Tom has 12 apples. Tom buys 3 bags with 4 apples each. How many apples does Tom have now?' 24
says 'Who are you?' ponder-r1-mini
says '你是谁？' ponder-r1-mini

# What it cannot do it says, and how to get a model that can.
says 'Write a poem about the sea.' 'ponder run FILE.gguf'
says '写一首关于大海的诗。' 'ponder run FILE.gguf'

# It thinks before it answers, and the thought is one.
"$ponder" run --model "$model" --temperature 0 '264+578=?' >"$tmp/out" 2>"$tmp/err"
[ "$(sed -n '/^Thinking/,/done thinking/p' "$tmp/out" "$tmp/err" | wc -c)" -gt 40 ] && grep -q 842 "$tmp/out"
ok "it thinks first" $?

# Guessing ahead by its prediction layer changes nothing.
"$ponder" run --model "$model" --temperature 0 --draft mtp '264+578=?' >"$tmp/ahead" 2>"$tmp/err" &&
    sed 's/([0-9.]* s,/(s,/' "$tmp/out" >"$tmp/one" && sed 's/([0-9.]* s,/(s,/' "$tmp/ahead" >"$tmp/two" && cmp -s "$tmp/one" "$tmp/two"
ok "drafts change nothing" $?

"$ponder" data r1-gym --split eval --count 20 --seed 1000 --output "$tmp/problems.jsonl" >"$tmp/out" 2>"$tmp/err" &&
    "$ponder" eval answers "$model" "$tmp/problems.jsonl" --samples 1 --temperature 0 --max-tokens 240 --json >"$tmp/out" 2>"$tmp/err" &&
    awk '/"name"/ { name = $0 } /"pass@1":/ { v = $2 + 0; if (v < 0.5) { print "# " name, v; bad = 1 } sum += v; n++ }
         /"format":/ && $2 + 0 < 0.95 { bad = 1 } END { exit bad || sum / n < 0.8 }' "$tmp/out"
ok "at least 80 % of 200 problems, and half of each kind" $?

echo "1..$count"
