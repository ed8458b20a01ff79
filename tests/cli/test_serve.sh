#!/bin/sh
# ponder serve as people run it: test_serve.sh PONDER CLIENT GOLDEN_FOLDER. Prints TAP.
# CLIENT is serve_client (serve_client.c): HTTP without further programs.
set -u
ponder=$1
client=$2
golden=$3
tmp=$(mktemp -d "${TMPDIR:-/tmp}/ponder-serve.XXXXXX") || exit 1
pid=
trap '[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null; rm -rf "$tmp"' EXIT
for v in $(env | sed -n 's/^\(\(PONDER\|OLLAMA\)_[A-Z_]*\)=.*/\1/p'); do unset "$v"; done
unset XDG_CACHE_HOME XDG_DATA_HOME
export HOME="$tmp/home" LC_ALL=C.UTF-8
mkdir -p "$HOME" "$tmp/models"
ln -s "$golden/models/qwen2_tied" "$tmp/models/qwen2_tied"
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

# start WORDS…: the server in the background; waits until it says where it is. Sets $at and $pid.
start() {
    : >"$tmp/err" # not by the server: its shell may not have come to it when we look
    "$@" >"$tmp/said" 2>"$tmp/err" </dev/null &
    pid=$!
    n=0
    until at=$(sed -n 's/.* · \(http[^ ]*\|unix:[^ ]*\) (.*/\1/p' "$tmp/err") && [ -n "$at" ] && grep -q '^\([0-9]*\|no\) models\?: ' "$tmp/err"; do
        n=$((n + 1))
        if [ $n -gt 300 ] || ! kill -0 "$pid" 2>/dev/null; then
            at=
            return 1
        fi
        "$client" wait 100
    done
}

# get PATH: the body in $tmp/out; the status.
get() {
    "$client" get "${at#http://}" "$1" >"$tmp/out" 2>&1
}

# stop SIGNAL: ends it; its status in $status.
stop() {
    kill "-$1" "$pid"
    wait "$pid"
    status=$?
    pid=
}

start "$ponder" serve --port 0 --models-dir "$tmp/models" --ctx 256 -t 1
ok "it says where it is" $?
grep -q '^1 model: qwen2_tied$' "$tmp/err"
ok "and what it has" $?
grep -q 'no API key: local use only$' "$tmp/err"
ok "and who may use it" $?
get /health && grep -q '"ok"' "$tmp/out"
ok "it answers" $?
get /v1/models && grep -q '"id":"qwen2_tied"' "$tmp/out"
ok "its models are listed" $?
! "$ponder" serve --port "${at##*:}" >"$tmp/out" 2>&1 && grep -q "^ponder: port ${at##*:} is in use (by .*pid $pid): stop it, or give --port$" "$tmp/out"
ok "a port in use is named, and who has it" $?
stop TERM
ok "SIGTERM ends it well" $status
grep -q '^[0-9:]* GET /v1/models 200$' "$tmp/err"
ok "requests have a line each" $?

start "$client" exec "$ponder" serve --port 0 --models-dir "$tmp/models" --ctx 256 -t 1 --no-access-log
get /v1/models
stop INT
[ $status = 0 ] && ! grep -q GET "$tmp/err"
ok "Ctrl-C too; --no-access-log is silent" $?

# A request that has not ended keeps it alive; a second signal does not wait.
start "$ponder" serve --port 0 --models-dir "$tmp/models" --ctx 1024 -t 1
"$client" begin "${at#http://}" "$tmp/begun" &
asks=$!
"$client" file "$tmp/begun"
kill -TERM "$pid"
"$client" grep "$tmp/err" 'finishing 1 request (Ctrl-C again to stop now)'
ok "it says what it waits for" $?
kill -0 "$pid" 2>/dev/null
ok "and waits" $?
stop TERM
ok "a second signal ends it at once" $status
wait $asks

# Streams that run when it is told to end come whole; nobody else is let in, and nothing is left.
for how in port socket; do
    rm -f "$tmp/begun"
    [ $how = port ] && where='--port 0' || where="--host $tmp/sock"
    start "$ponder" serve $where --models-dir "$tmp/models" --ctx 1024 -t 1
    to=${at#http://} to=${to#unix:}
    "$client" streams "$to" 32 900 "$tmp/begun" >"$tmp/streams" &
    asks=$!
    "$client" file "$tmp/begun"
    kill -TERM "$pid"
    "$client" grep "$tmp/err" 'finishing 32 requests'
    ok "$how: it says how many it finishes" $?
    refused=0
    until "$client" refused "$to"; do # it says so before it closes
        refused=$((refused + 1))
        [ $refused -lt 100 ] || break
        "$client" wait 20
    done
    [ $refused -lt 100 ] && kill -0 "$pid" 2>/dev/null
    ok "$how: nobody else is let in" $?
    wait "$pid"
    ok "$how: it ends well" $?
    pid=
    wait $asks && grep -q '^32 whole, 0 broken$' "$tmp/streams"
    ok "$how: streams came whole" $?
    [ $how = port ] || [ ! -e "$tmp/sock" ]
    ok "$how: its socket is gone" $?
done
rm -f "$tmp/begun"
start "$ponder" serve --port 0 --models-dir "$tmp/models" --ctx 1024 -t 1
"$client" streams "${at#http://}" 32 900 "$tmp/begun" >"$tmp/streams" &
asks=$!
"$client" file "$tmp/begun"
kill -TERM "$pid"
"$client" grep "$tmp/err" ' requests (Ctrl-C again'
stop TERM
ok "a second signal ends streams, too" $status
wait $asks && ! grep -q ' 0 broken' "$tmp/streams" && grep -q ' broken$' "$tmp/streams"
ok "which then break off" $?

start "$ponder" serve --port 0 --models-dir "$tmp/models" --api-key sk-a --dtype float16 --gpu-memory-utilization 0.9 --max-model-len 256 -t 1
grep -q '^note: --dtype, --gpu-memory-utilization: of no use here, passed over$' "$tmp/err"
ok "options without meaning are named once" $?
grep -q '1 API key$' "$tmp/err" && ! get /v1/models && grep -q 401 "$tmp/out"
ok "a key is asked for" $?
stop TERM

# A deployment guide's command line for R1, with Ollama's environment.
OLLAMA_CONTEXT_LENGTH=128 start "$ponder" serve --port 0 --model "$tmp/models/qwen2_tied" -tp 8 --enable-expert-parallel --trust-remote-code --enforce-eager \
    --max-num-batched-tokens 131072 --reasoning-parser deepseek_r1 --enable-auto-tool-choice --tool-call-parser deepseek_v3 --kv-cache-dtype fp8 --no-enable-prefix-caching \
    --speculative-config '{"method":"deepseek_mtp"}' --disable-log-requests --served-model-name deepseek-r1 -t 1
[ "$(grep -c '^note: ' "$tmp/err")" = 1 ] && grep -q '^note: --tensor-parallel-size, .*--tool-call-parser, .*: of no use here, passed over$' "$tmp/err"
ok "a command line of vLLM's carries over, with one note" $?
get /v1/models && grep -q '"id":"deepseek-r1"' "$tmp/out" && grep -q '"max_model_len":128\b' "$tmp/out"
ok "its names hold; OLLAMA_CONTEXT_LENGTH is the context" $?
stop TERM
OLLAMA_CONTEXT_LENGTH=many "$ponder" serve --port 0 >"$tmp/out" 2>&1
[ $? = 2 ] && grep -q '^ponder: OLLAMA_CONTEXT_LENGTH many: must be a number of tokens$' "$tmp/out"
ok "OLLAMA_CONTEXT_LENGTH has to be a number" $?

PONDER_MODELS="$tmp/models" start "$ponder" serve --host "$tmp/sock" -t 1
[ "$at" = "unix:$tmp/sock" ] && [ -S "$tmp/sock" ]
ok "it listens on a Unix socket; models come from PONDER_MODELS" $?
grep -q '^1 model: qwen2_tied$' "$tmp/err" || ok "which has one" 1
stop TERM
[ ! -e "$tmp/sock" ]
ok "and removes it" $?

# TLS, with a certificate of its own that the client checks.
if command -v openssl >/dev/null 2>&1; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
        -keyout "$tmp/key.pem" -out "$tmp/cert.pem" >"$tmp/out" 2>&1 &&
        start "$ponder" serve --port 0 --models-dir "$tmp/models" --ctx 256 -t 1 --tls-cert "$tmp/cert.pem" --tls-key "$tmp/key.pem"
    ok "it serves TLS" $?
    ask='{"model":"qwen2_tied","stream":true,"max_tokens":6,"ignore_eos":true,"messages":[{"role":"user","content":"hi"}]}'
    printf 'POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: %s\r\n\r\n%s' "${#ask}" "$ask" |
        openssl s_client -quiet -verify_return_error -verify_ip 127.0.0.1 -CAfile "$tmp/cert.pem" -connect "${at#https://}" >"$tmp/out" 2>&1
    grep -q '^HTTP/1.1 200 OK' "$tmp/out" && grep -q '"finish_reason":"length"' "$tmp/out" && grep -q '^data: \[DONE\]' "$tmp/out"
    ok "a stream comes through TLS whole" $?
    ! get /health
    ok "who speaks without TLS gets nothing" $?
    stop TERM
    ok "SIGTERM ends it well with TLS" $status
    "$ponder" serve --port 0 --tls-cert "$tmp/key.pem" --tls-key "$tmp/cert.pem" >"$tmp/out" 2>&1
    [ $? = 1 ] && grep -q 'key.pem' "$tmp/out"
    ok "a certificate that is none is named" $?
fi

# As systemd starts it: descriptor 3 listens already.
start "$client" activate "$ponder" serve --models-dir "$tmp/models" -t 1
get /health && grep -q '"ok"' "$tmp/out"
ok "it takes over a socket that is open" $?
stop TERM

# Adapters are models of their own.
echo '{"text": "to be or not to be"}' >"$tmp/text.jsonl"
"$ponder" train sft --model "$tmp/models/qwen2_tied" --dataset "$tmp/text.jsonl" --output "$tmp/run" --use-peft --max-steps 1 -t 1 >"$tmp/out" 2>&1
ok "an adapter is trained" $?
start "$ponder" serve --port 0 "$tmp/models/qwen2_tied" --enable-lora --lora-modules one="$tmp/run/model" two="$tmp/run/model" --lora three="$tmp/run/model" --ctx 256 -t 1
get /v1/models && [ "$(grep -o '"parent":"qwen2_tied"' "$tmp/out" | wc -l)" = 3 ] && grep -q '"id":"two"' "$tmp/out"
ok "adapters are listed with the model that they are for" $?
get /api/tags && grep -q '"name":"three:latest"' "$tmp/out"
ok "by Ollama's API too" $?
stop TERM
"$ponder" serve --port 0 "$tmp/models/qwen2_tied" --lora one="$tmp/nowhere" >"$tmp/out" 2>&1
[ $? = 1 ] && grep -q 'nowhere: there is no adapter' "$tmp/out"
ok "an adapter that is not there is an error" $?
"$ponder" serve --port 0 "$tmp/models/qwen2_tied" --lora "$tmp/run/model" --lora one="$tmp/run/model" >"$tmp/out" 2>&1
[ $? = 2 ] && grep -q 'is for every model' "$tmp/out"
ok "so is one for every model beside others" $?

"$ponder" serve --port 0 nothing.gguf >"$tmp/out" 2>&1
[ $? = 1 ] && grep -q 'nothing.gguf: no such file' "$tmp/out"
ok "a model that is not there is an error" $?
"$ponder" serve --keep-alive soon >"$tmp/out" 2>&1
[ $? = 2 ] && grep -q -- '--keep-alive soon: must be a time like' "$tmp/out"
ok "a bad time is wrong use" $?
# A copy outside of the build folder, so that the source tree's models are not its own.
mkdir -p "$tmp/bin" "$tmp/share/ponder/models" && cp "$ponder" "$tmp/bin/ponder"
start "$tmp/bin/ponder" serve --port 0
grep -q '^no models: ' "$tmp/err"
ok "without any model it says so" $?
stop TERM
"$ponder" convert "$golden/models/qwen2_tied" "$tmp/share/ponder/models/ponder-r1-mini.gguf" >/dev/null 2>&1
start "$tmp/bin/ponder" serve --port 0
grep -q '^1 model: ponder-r1-mini$' "$tmp/err" && get /v1/models/bundled && grep -q '"bundled"' "$tmp/out"
ok "without any other model it serves the bundled one under both of its names" $?
stop TERM
echo "1..$count"
