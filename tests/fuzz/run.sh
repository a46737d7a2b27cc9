#!/bin/sh
# Fuzzes the byte ring and lanes: run.sh [seconds], 60 if not told, a third of them for each of three targets
# (fuzz_log.c, fuzz_lane.c).
#
# Begins with the corpus kept here, and leaves an input that fails in this folder, as crash-...; `run.sh 0` runs the
# corpus alone.  Without libFuzzer it only does that, with gcc; and lanes get inputs at random besides.  FUZZ_NEW names a folder that keeps what is new, CLANG
# and GCC the compilers.
set -u
cd "$(dirname "$0")" || exit 2
seconds=${1:-60}
CLANG=${CLANG:-$(command -v clang-16 clang clang-19 clang-18 clang-17 clang-15 clang-14 | head -n 1)}
out=$(mktemp -d) || exit 2
trap 'rm -rf "$out"' EXIT
flags="-std=c11 -O1 -g -Wall -Wextra -Werror -I. -I../c -I../../csrc -fno-sanitize-recover=all"

echo 'int LLVMFuzzerTestOneInput(const char *p, unsigned long n) { return p && n > 1 ? 0 : 0; }' >"$out/try.c"
if [ -n "$CLANG" ] && "$CLANG" -fsanitize=fuzzer,address,undefined "$out/try.c" -o "$out/try" >/dev/null 2>&1; then
    fuzzer=yes
    compile="$CLANG $flags -fsanitize=fuzzer,address,undefined"
else
    fuzzer=no
    compile="${GCC:-gcc} $flags -fsanitize=address,undefined -DREPLAY"
    [ "$seconds" -gt 0 ] && echo "SKIPPED: no clang with libFuzzer here; the corpus alone"
fi

failed=0
# fuzz CORPUS FLAGS LONGEST SOURCE [ARGUMENT of a replay]
fuzz() {
    # shellcheck disable=SC2086
    $compile $2 "$4" -o "$out/$1" || { failed=1; return; }
    if [ $fuzzer = yes ]; then
        new=${FUZZ_NEW:-$out}/new-$1
        mkdir -p "$new"
        more="-runs=0"
        [ "$seconds" -gt 0 ] && more="-max_total_time=$(((seconds + 2) / 3))"
        # shellcheck disable=SC2086
        "$out/$1" $more -max_len=$3 -timeout=10 -print_final_stats=1 "$new" "corpus/$1" >"$out/log" 2>&1
    else
        "$out/$1" ${5:+"$5"} "corpus/$1"/* >"$out/log" 2>&1
    fi
    if [ $? = 0 ]; then
        echo "ok     $1: $(sed -n 's/^stat::number_of_executed_units: *//p; s/^replayed: *//p' "$out/log") inputs"
    else
        tail -n 60 "$out/log"
        echo "FAILED $1"
        failed=1
    fi
}
fuzz operations "" 400 fuzz_log.c
fuzz hostile -DHOSTILE 1500 fuzz_log.c
fuzz lane "" 600 fuzz_lane.c "-$((50000 + seconds * 20000))"
exit $failed
