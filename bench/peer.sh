# A Python with llama-cpp-python and, where it installs, ik-llama-cpp-python: the peers of the comparisons; made once
# in the cache. Sourced by bench/agree and bench/compare; sets $python.
venv=${PONDER_PEER:-${XDG_CACHE_HOME:-$HOME/.cache}/ponder/peer}
python=$venv/bin/python
if ! "$python" -c 'import llama_cpp, numpy' 2>/dev/null; then
    printf 'Setting up llama-cpp-python in %s (builds llama.cpp: some minutes)\n' "$venv" >&2
    python3 -m venv "$venv"
    # Without AMX: in virtual machines that show it but do not let it run, llama.cpp would crash.
    off='-mno-amx-tile -mno-amx-int8 -mno-amx-bf16'
    CMAKE_ARGS="-DCMAKE_C_FLAGS='$off' -DCMAKE_CXX_FLAGS='$off'" "$venv/bin/pip" install -q --no-binary llama-cpp-python llama-cpp-python numpy
fi
# The wheel is built for AVX2; a native libllama.so of ik_llama.cpp is used with IK_LLAMA_CPP_LIB_PATH (--ik-lib). Tried once.
if [ ! -e "$venv/ik-tried" ] && ! "$python" -c 'import ik_llama_cpp' 2>/dev/null; then
    "$venv/bin/pip" install -q --only-binary :all: ik-llama-cpp-python >&2 ||
        printf 'ik-llama-cpp-python does not install here: compared with llama.cpp alone\n' >&2
    : >"$venv/ik-tried"
fi
