# Shared by ./start and ./check: the packages that are needed, and the build. POSIX sh, sourced.
#
# Each line: package, and what it is for. Only what is missing is installed, with apt-get, after saying so.

packages_run='
gcc               the C compiler
libc6-dev         headers of the C library
meson             the build system
ninja-build       runs the build
pkg-config        finds the libraries
libjansson-dev    JSON
libpcre2-dev      patterns of tokenizers
libutf8proc-dev   Unicode normalization
libedit-dev       line editing in the chat
libcurl4-openssl-dev  asking servers: ponder bench serve
libhwloc-dev      cores, caches and memory nodes
libmicrohttpd-dev  HTTP connections of the server
libsqlite3-dev    metrics of training runs as a table
libcairo2-dev     plots of training runs: ponder plot
libssl-dev        SHA-256 of API keys
'
packages_model='
python3-pip       fetches the first model, which is published as a Python package
'
packages_check='
libcmocka-dev     unit tests
clang-format-14   formatting
libopenmpi-dev    training in several processes
openmpi-bin       starts them: mpirun
python3-venv      real clients for the server, in an environment of their own
'
packages_tidy='
clang-tidy-14     static analysis
'
packages_sanitize='
clang-14          fuzzing and the sanitizers of a second compiler
libclang-rt-14-dev  their run-time part
valgrind          memory checking
'

say() {
    printf '%s\n' "$*"
}

die() {
    printf 'ponder: %s\n' "$*" >&2
    exit 1
}

# Names in a list of "name  reason" lines that dpkg does not know as installed. pip may also come with a
# Python of the user's own.
missing() {
    printf '%s\n' "$1" | while read -r name why; do
        [ -n "$name" ] || continue
        if [ "$name" = python3-pip ] && python3 -m pip --version >/dev/null 2>&1; then
            continue
        fi
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || printf '%s ' "$name"
    done
}

# install LIST…: prints what and why, installs it (or only prints, when no_install is set).
install_packages() {
    list=
    for l in "$@"; do
        list="$list
$l"
    done
    if ! command -v dpkg-query >/dev/null 2>&1; then
        # Not Debian: believe that the developer knows; the build says what it misses.
        command -v meson >/dev/null 2>&1 && return 0
        die "this system has no apt. Install by hand what these Debian packages hold: $(printf '%s' "$list" | awk 'NF { printf "%s ", $1 }')"
    fi
    names=$(missing "$list")
    if [ -n "${no_install:-}" ]; then
        [ -n "$names" ] || say "nothing is missing"
        for n in $names; do
            printf '%s\n' "$list" | awk -v n="$n" '$1 == n { print }'
        done
        exit 0
    fi
    [ -n "$names" ] || return 0
    sudo=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null 2>&1 ||
            die "these packages are missing and there is no sudo: as root, run: apt-get install $names"
        sudo=sudo
    fi
    say "Installing packages: $names  (${sudo:+$sudo }apt-get install; list them with $0 --no-install)"
    log=$(mktemp)
    # An image that is new has no package lists yet.
    if ! { $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $names ||
           { $sudo apt-get update &&
             $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $names; }; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        die "apt-get could not install them (its last words are above)"
    fi
    rm -f "$log"
}

# build DIR [meson options…]: configures once, then builds; a bar on a terminal, one line elsewhere.
build() {
    dir=$1
    shift
    if [ ! -f "$dir/build.ninja" ]; then
        meson setup "$dir" "$@" >"$dir.log" 2>&1 || {
            tail -n 20 "$dir.log" >&2
            die "the build could not be configured (all of it: $dir.log)"
        }
        rm -f "$dir.log"
    fi
    log=$dir/build.log
    begin=$(date +%s)
    if [ -t 1 ]; then
        { NINJA_STATUS='@%f %t ' ninja -C "$dir" 2>&1; echo "exit $?"; } | awk -v log_file="$log" '
            function bar(done, total,    n, i, s) {
                n = int(done * 24 / total); s = ""
                for (i = 0; i < 24; i++) s = s (i < n ? "█" : " ")
                printf "\rBuilding ponder  ▕%s▏ %d/%d ", s, done, total; drawn = 1; fflush()
            }
            /^exit / { code = $2; next }
            /^@/ { sub(/^@/, ""); bar($1, $2); print > log_file; next }
            { print > log_file }
            END { if (drawn) printf "\r\033[K"; exit code }' || {
            grep -B2 -A12 -E 'FAILED|error:' "$log" | head -n 40 >&2
            die "the build failed (all of it: $log)"
        }
    else
        ninja -C "$dir" >"$log" 2>&1 || {
            grep -B2 -A12 -E 'FAILED|error:' "$log" | head -n 40 >&2
            die "the build failed (all of it: $log)"
        }
    fi
    took=$(($(date +%s) - begin))
    [ "$took" -lt 3 ] || say "Built ponder in $took s"
}
