#!/bin/sh
# The recipes that come with ponder: test_recipes.sh PONDER SOURCE_FOLDER. Prints TAP.
# Each is read whole; three run from an empty folder to their last step, with as few rows and steps as will do; then a
# model card is made of what they left.
set -u
ponder=$1
source=$2
tmp=$(mktemp -d "${TMPDIR:-/tmp}/ponder-recipes.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
for v in $(env | sed -n 's/^\(PONDER_[A-Z_]*\)=.*/\1/p'); do unset "$v"; done
export HOME="$tmp" LC_ALL=C.UTF-8 PONDER_THREADS=2
count=0

# ok NAME STATUS
ok() {
    count=$((count + 1))
    if [ "$2" = 0 ]; then
        echo "ok $count - $1"
    else
        echo "not ok $count - $1"
        tail -n 20 "$tmp/out" | sed 's/^/# /'
    fi
}

for recipe in "$source"/recipes/*.toml; do
    name=$(basename "$recipe" .toml)
    "$ponder" train recipe "$recipe" -o "$tmp/dry" --dry-run >"$tmp/out" 2>&1 &&
        [ "$(grep -c '^ponder ' "$tmp/out")" = "$(grep -c '^\[\[step\]\]' "$recipe")" ]
    ok "$name: every step is a command with options that it has" $?
    missing=$(grep -o '{recipe}/[^"]*' "$recipe" | sed 's|{recipe}/||' | while read -r f; do
        [ -f "$source/recipes/$f" ] || echo "$f"
    done)
    [ -z "$missing" ]
    ok "$name: the files beside it are there" $?
    grep -q "\`$name.toml\`" "$source/recipes/README.md"
    ok "$name: recipes/README.md tells of it" $?
done
[ ! -e "$tmp/dry" ]
ok "a dry run leaves nothing" $?

# run NAME FOLDER NAME=VALUE…: the recipe with these values.
run() {
    recipe=$1
    folder=$2
    shift 2
    for v in "$@"; do
        set -- "$@" --set "$v"
        shift
    done
    "$ponder" train recipe "$source/recipes/$recipe.toml" -o "$tmp/$folder" "$@" >"$tmp/out" 2>&1
}

run r1-nano nano rows=60 pretrain_steps=4 cold_rows=2 rl_steps=1 prompts=2 problems=1 samples=1
ok "r1-nano runs" $?
run r1-nano nano rows=60 pretrain_steps=4 cold_rows=2 rl_steps=1 prompts=2 problems=1 samples=1
[ $? = 0 ] && [ "$(grep -c ': done before$' "$tmp/out")" = "$(grep -c '^\[\[step\]\]' "$source/recipes/r1-nano.toml")" ]
ok "and knows that it has run" $?
run r1-zero zero "base=$tmp/nano/pretrain/model" steps=1 prompts=4 problems=1 samples=1 &&
    head -n 1 "$tmp/zero/eval.jsonl" | grep -q '^{"prompt":"[^{]*\\n",'
ok "r1-zero runs, with texts for prompts" $?

PONDER=$ponder "$source/tools/model-card" "$tmp/card/mini.md" "$tmp/nano" "$tmp/zero" >"$tmp/out" 2>&1 &&
    grep -q '^| | cold | rl | base | zero |$' "$tmp/card/mini.md" && grep -q '^| all | \*\*' "$tmp/card/mini.md" &&
    grep -q '^\*\*rl\*\* (' "$tmp/card/mini.md"
ok "a model card has their stages and scores" $?
# The card counts answers as the measurement did.
"$ponder" eval answers "$tmp/nano/rl/model" "$tmp/nano/eval.jsonl" --samples 1 --max-tokens 192 --json >"$tmp/json" 2>"$tmp/out"
want=$(tr -d ' \n' <"$tmp/json" | sed 's/.*"name":"all",\([^}]*\)}.*/\1/' | sed 's/.*"format":\([0-9.]*\).*/\1/' | awk '{ printf "%.1f%%", 100 * $1 }')
[ "$(sed -n 's/^| format | [^|]* | \([^ ]*\) |.*/\1/p' "$tmp/card/mini.md")" = "$want" ]
ok "and says what the measurement said" $?
echo "1..$count"
