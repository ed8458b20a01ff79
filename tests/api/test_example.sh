#!/bin/sh
# The example of docs/examples/ as a person would run it: test_example.sh CHAT MODEL. Prints TAP.
set -u
out=$(printf 'Hello\nAgain\n' | "$1" "$2" 'Be brief.' 2>&1)
status=$?
if [ $status = 0 ] && [ "$(printf '%s\n' "$out" | grep -c 'tokens, .* a second)')" = 2 ]; then
    echo 'ok 1 - two questions, two answers'
else
    echo "not ok 1 - two questions, two answers: status $status: $out"
fi
out=$("$1" /nowhere/model.gguf 2>&1 </dev/null)
if [ $? = 1 ] && printf '%s' "$out" | grep -q '/nowhere/model.gguf'; then
    echo 'ok 2 - a model that is not there'
else
    echo "not ok 2 - a model that is not there: $out"
fi
echo 1..2
