#!/usr/bin/env bash
# How many lines of csrc/ and of nexus_channels/ the tests reach, and which they do not. Fails under 95 %.
#
#   tests/coverage.sh [--only gil | free | python] [--least PERCENT] [--keep FOLDER]
#
# gil, free: the whole suite on builds that count lines, of the default python3 and of a free-threaded one if it is there
# (some lines are compiled for it alone), and the programs of tests/c; added up. python: those tests that run the surface,
# children included, under coverage.py, which would be in the way of the others. All of it takes some 20 minutes; works
# on copies of the checkout, in FOLDER if it is given, where counts of parts that were run before are added.
# What is left over is explained in docs/reliability.md.
set -uo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
least=95 only=all keep=
while [ $# -gt 0 ]; do
    case $1 in
        --only) only=$2 ;;
        --least) least=$2 ;;
        --keep) keep=$2 ;;
        *) sed -n '2,11p' "$0"; exit 2 ;;
    esac
    shift 2
done
if [ -n "$keep" ]; then
    mkdir -p "$keep" && work=$(cd "$keep" && pwd) || exit 2
else
    work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT || exit 2
fi
failures=0
wants() { [ $only = all ] || [ $only = "$1" ]; }
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }

# build NAME INTERPRETER EXTRAS: a copy of the checkout, built in place to count lines, and an environment for it.
build() {
    local tree=$work/$1 bin=$work/$1-venv/bin
    rm -rf "$tree" "$work/$1.json" && mkdir -p "$tree" || return
    (cd "$here" && git ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' file; do [ -e "$file" ] && printf '%s\0' "$file"; done |
        tar --null --files-from=- -cf -) | tar -C "$tree" -xf - || return
    "$2" -m venv "$work/$1-venv" && "$bin/pip" install -q -e "$tree[$3]" 'coverage>=7.10' 'gcovr>=8' || return
    # Once more, as pip builds in a folder that it removes, where the notes on lines would be.
    (cd "$tree" && NEXUS_CHANNELS_COVERAGE=1 "$bin/python" -W ignore setup.py -q build_ext --inplace \
        --build-temp build/temp 2>"$work/build.log") || { cat "$work/build.log"; return 1; }
}

# suite NAME: all tests; what was counted in C is written to NAME.json.
suite() {
    local tree=$work/$1 bin=$work/$1-venv/bin code=0
    (cd "$tree" && PATH=$bin:$PATH NEXUS_TEST_DRIVER_FLAGS="--coverage -fprofile-update=atomic -O0" \
        "$bin/python" -m pytest -q --basetemp="$work/$1-tmp") || code=1
    mkdir -p "$tree/build/c"
    for program in "$tree"/tests/c/test_*.c "$tree"/tests/c/stress_*.c; do
        (cd "$tree/build/c" && gcc --coverage -fprofile-update=atomic -O0 -std=c11 -I../../tests/c -I../../csrc \
            "$program" -pthread -o "$(basename "$program" .c)" &&
            STRESS_ITEMS=2000 "./$(basename "$program" .c)" >/dev/null) || code=1
    done
    "$bin/gcovr" --root "$tree" --filter "$tree/csrc/" --merge-mode-functions=separate --json "$work/$1.json" \
        "$tree/build" "$work/$1-tmp" || code=1
    return $code
}

find_free_threaded() {
    local python
    for python in $(type -aP python3.14t python3.13t) /opt/python3.13t/bin/python3; do
        "$python" -c 'import sysconfig; assert sysconfig.get_config_var("Py_GIL_DISABLED")' 2>/dev/null && echo "$python" && return
    done
    return 1
}

if wants gil || wants python; then
    build gil "${PYTHON:-python3}" test,bench || { echo "FAILED: the build"; exit 1; }
fi

if wants python; then
    bin=$work/gil-venv/bin
    export COVERAGE_RCFILE=$work/coveragerc
    printf '%s\n' '[run]' "source = $work/gil/nexus_channels" "data_file = $work/python.data" 'parallel = true' \
        'patch = subprocess' '[report]' 'show_missing = true' "fail_under = $least" >"$COVERAGE_RCFILE"
    rm -f "$work"/python.data*
    cd "$work/gil" || exit 1
    PATH=$bin:$PATH "$bin/coverage" run -m pytest -q --basetemp="$work/python-tmp" \
        tests/test_{api,bench_command,bench_smoke,bytes_api,errors,info,mux,native,native_header}.py ||
        fail "the tests of the surface"
    "$bin/coverage" combine -q && "$bin/coverage" report || fail "nexus_channels/ under $least %"
    unset COVERAGE_RCFILE
fi

if wants gil; then
    suite gil || fail "the suite with a GIL"
fi
if wants free; then
    if python=$(find_free_threaded); then
        build free "$python" test && suite free || fail "the suite without a GIL"
    else
        echo "SKIPPED: what is compiled for free-threaded builds alone: there is no python3.13t"
    fi
fi
if wants gil || wants free; then
    traces=()
    for part in gil free; do
        [ -f "$work/$part.json" ] && traces+=(-a "$work/$part.json") && bin=$work/$part-venv/bin
    done
    "$bin/gcovr" --root "$here" --merge-mode-functions=separate "${traces[@]}" --txt - --fail-under-line "$least" ||
        fail "csrc/ under $least %"
fi
[ $failures = 0 ]
