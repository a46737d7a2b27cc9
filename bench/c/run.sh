#!/bin/sh
# Builds and runs the benchmarks of the core: run.sh [rings | bytes | lanes] [compiler].  BENCH_ROUNDS and BENCH_ITEMS
# set the size.  rings: shapes of a ring of pointers; bytes: messages of 8 to 1024 bytes; lanes: from process to
# process.  All where none is named.
# run.sh peers [OPTION...]: the queues of Rust crates beside the core, if there is cargo; see peers/src/main.rs.
set -eu
cd "$(dirname "$0")"
if [ "${1:-}" = peers ]; then
    shift
    cd peers
    if ! command -v cargo >/dev/null 2>&1; then
        echo "SKIPPED peers: no cargo"
    elif ! cargo fetch --quiet; then
        echo "SKIPPED peers: cargo cannot fetch the crates"
    else
        cargo run --quiet --release -- "$@"
    fi
    exit
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags="-O2 -std=c11"
programs="rings bytes lanes"
case ${1:-} in
    rings | bytes | lanes) programs=$1; shift ;;
esac
for program in $programs; do
    # shellcheck disable=SC2086
    "${1:-gcc}" $flags -Wall -Wextra -Werror -DFLAGS="\"$flags\"" -I../../csrc $program.c -pthread -o "$out/$program"
    "$out/$program"
done
