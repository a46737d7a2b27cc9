#!/bin/sh
# Builds and runs rings.c: run.sh [compiler].  BENCH_ROUNDS and BENCH_ITEMS set the size.
set -eu
cd "$(dirname "$0")"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags="-O2 -std=c11"
# shellcheck disable=SC2086
"${1:-gcc}" $flags -Wall -Wextra -Werror -DFLAGS="\"$flags\"" -I../../csrc rings.c -pthread -o "$out/rings"
"$out/rings"
