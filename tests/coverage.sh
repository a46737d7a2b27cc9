#!/usr/bin/env bash
# How many lines of csrc/ and of nexus_channels/ the tests reach, and which they do not. Fails under 95 %.
#
#   tests/coverage.sh [--only c | --only python] [--least PERCENT] [--keep FOLDER]
#
# C: the whole suite on builds that count lines, of the default python3 and of a free-threaded 3.13 if there is one (some
# lines are compiled for it alone), and the programs of tests/c, added up. Python: those tests that run the surface,
# children included, under coverage.py, which would be in the way of the others. Works on copies of the checkout, in
# FOLDER if it is given; takes some 25 minutes, of which Python is one.
# What is left over is explained in docs/reliability.md.
set -uo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
least=95 only=both keep=
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
failed=0

# build NAME INTERPRETER: a copy of the checkout, built in place to count lines, and an environment for it.
build() {
    local tree=$work/$1 bin=$work/$1-venv/bin
    rm -rf "$tree" && mkdir -p "$tree" || return
    (cd "$here" && git ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' file; do [ -e "$file" ] && printf '%s\0' "$file"; done |
        tar --null --files-from=- -cf -) | tar -C "$tree" -xf - || return
    "$2" -m venv "$work/$1-venv" && "$bin/pip" install -q -e "$tree[test,bench]" 'coverage>=7.10' 'gcovr>=8' || return
    # Once more, as pip builds in a folder that it removes, where the notes on lines would be.
    (cd "$tree" && NEXUS_CHANNELS_COVERAGE=1 "$bin/python" -W ignore setup.py -q build_ext --inplace \
        --build-temp build/temp 2>"$work/build.log") || { cat "$work/build.log"; return 1; }
}

# c_suite NAME [PYTEST ARGUMENTS]: the suite; what was counted is written to NAME.json.
c_suite() {
    local tree=$work/$1 bin=$work/$1-venv/bin code
    (cd "$tree" && PATH=$bin:$PATH NEXUS_TEST_DRIVER_FLAGS="--coverage -fprofile-update=atomic -O0" \
        "$bin/python" -m pytest -q --basetemp="$work/$1-tmp")
    code=$?
    (cd "$tree" && mkdir -p build/c && for program in test_ring test_gate stress_ring stress_gate; do
        gcc --coverage -fprofile-update=atomic -O0 -std=c11 -Itests/c -Icsrc "tests/c/$program.c" -pthread \
            -o "build/c/$program" && (cd build/c && STRESS_ITEMS=2000 "./$program" >/dev/null) || exit 1
    done) || code=1
    "$bin/gcovr" --root "$tree" --filter "$tree/csrc/" \
        --merge-mode-functions=separate --json "$work/$1.json" "$tree/build" "$work/$1-tmp" || code=1
    return $code
}

find_free_threaded() {
    local python
    for python in $(type -aP python3.13t python3.14t) /opt/python3.13t/bin/python3; do
        "$python" -c 'import sysconfig; assert sysconfig.get_config_var("Py_GIL_DISABLED")' 2>/dev/null && echo "$python" && return
    done
    return 1
}

build gil "${PYTHON:-python3}" || { echo "FAILED: the build"; exit 1; }

if [ $only != python ]; then
    traces=(-a "$work/gil.json")
    c_suite gil || { echo "FAILED: the suite with a GIL"; failed=1; }
    if free_threaded=$(find_free_threaded) && build free "$free_threaded"; then
        c_suite free || { echo "FAILED: the suite without a GIL"; failed=1; }
        traces+=(-a "$work/free.json")
    else
        echo "SKIPPED: lines for free-threaded builds alone, as there is no free-threaded python3.13t"
    fi
    (cd "$work/gil" && "$work/gil-venv/bin/gcovr" --root . --merge-mode-functions=separate "${traces[@]}" \
        --txt "$work/c.txt" --json-summary "$work/c-summary.json" --fail-under-line "$least")
    [ $? = 0 ] || { echo "FAILED: csrc/ under $least %"; failed=1; }
    cat "$work/c.txt"
fi

if [ $only != c ]; then
    cat >"$work/coveragerc" <<EOF
[run]
source = $work/gil/nexus_channels
data_file = $work/python.data
parallel = true
patch = subprocess
[report]
show_missing = true
fail_under = $least
EOF
    export COVERAGE_RCFILE=$work/coveragerc
    bin=$work/gil-venv/bin
    (cd "$work/gil" && PATH=$bin:$PATH "$bin/coverage" run -m pytest -q tests/test_{api,bench_command,bytes_api,errors,info,mux,native,native_header,bench_smoke}.py) ||
        { echo "FAILED: the tests of the surface"; failed=1; }
    (cd "$work/gil" && "$bin/coverage" combine -q && "$bin/coverage" report) ||
        { echo "FAILED: nexus_channels/ under $least %"; failed=1; }
fi
exit $failed
