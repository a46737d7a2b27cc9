#!/bin/sh
# Builds and runs everything that proves the C core on its own: unit tests, stress, processes, delays, models.
#
#   run.sh [--full | --short] [--only PART]     PART: unit, stress, process, delay, model
#
# Plain, under ASan + UBSan and under TSan, with gcc and with clang where there is one (CLANG names it).
# --full runs the sizes of a release: some 45 minutes instead of three; --short one compiler, plain.
set -u
cd "$(dirname "$0")" || exit 2
size=quick only=all
while [ $# -gt 0 ]; do
    case $1 in
        --full) size=full ;;
        --short) size=short ;;
        --only) shift; only=${1:-} ;;
        *) sed -n '2,8p' "$0"; exit 2 ;;
    esac
    shift
done

out=$(mktemp -d) || exit 2
trap 'rm -rf "$out"' EXIT
failed=0 passed=0
began=$(date +%s)
warnings="-std=c11 -Wall -Wextra -Werror"
sanitize_address="-O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
sanitize_thread="-O1 -fsanitize=thread"
export ASAN_OPTIONS=detect_leaks=1 TSAN_OPTIONS=halt_on_error=1 UBSAN_OPTIONS=print_stacktrace=1

skip() { echo "SKIPPED $1: $2"; }
wants() { [ "$only" = all ] || [ "$only" = "$1" ]; }

compilers=
for cc in "${GCC:-gcc}" "${CLANG:-$(basename "$(command -v clang-16 clang | head -n 1)")}"; do
    if [ $size = short ] && [ -n "$compilers" ]; then
        break
    elif [ -z "$cc" ]; then
        skip clang "no clang-16 and no clang on PATH"
    elif ! command -v "$cc" >/dev/null; then
        skip "$cc" "not installed"
    else
        compilers="$compilers $cc"
    fi
done

# Can this compiler build and run with these flags here?
works() {
    echo 'int main(void) { return 0; }' >"$out/try.c"
    # shellcheck disable=SC2086
    $1 $2 "$out/try.c" -o "$out/try" 2>/dev/null && "$out/try" >/dev/null 2>&1
}

# build CC "flags" source program
build() {
    # shellcheck disable=SC2086
    $1 $warnings $2 -g -I. -I../../csrc "$3" -pthread -o "$4" && return 0
    echo "FAILED to build $3 with $1 $2"
    failed=$((failed + 1))
    return 1
}

# run "what" command...: quiet when it passes
run() {
    what=$1
    shift
    start=$(date +%s)
    if timeout "$limit" "$@" >"$out/log" 2>&1; then
        passed=$((passed + 1))
        echo "ok     $what: $(tail -n 1 "$out/log") ($(($(date +%s) - start)) s)"
    else
        status=$?
        failed=$((failed + 1))
        [ $status = 124 ] && echo "no end within $limit s" >>"$out/log"
        sed 's/^/    /' "$out/log" | tail -n 200
        echo "FAILED $what: exit $status"
        return 1
    fi
}

# Somebody was killed at each step of a lane, if there are lanes here: in one of the modes, as under a sanitizer a side may
# never have to sleep.
all_died() {
    [ -s "$out/killings" ] && ! grep -q '^no lanes' "$out/killings" || return
    sed -n 's/.*NC_STEP("\([^"]*\)").*/\1/p' ../../csrc/nc_lane.h ../../csrc/os_*.h | sort -u >"$out/steps"
    grep -q . "$out/steps" || { echo "FAILED: no NC_STEP found"; failed=$((failed + 1)); }
    while read -r step; do
        grep -qF "killed at '$step'" "$out/killings" || {
            echo "FAILED: nobody was killed at '$step'"
            failed=$((failed + 1))
        }
    done <"$out/steps"
}

modes="plain address thread"
case $size in
    full)
        limit=1500 ring_plain=100000000 ring_address=10000000 ring_thread=10000000 bounds="-r 10"
        log_plain=10000000 log_address=2000000 log_thread=1000000
        gate_plain=1000000 gate_address=200000 gate_thread=100000 delay_times=200 delay_items=20000
        procs_plain=10000000 procs_address=1000000 procs_thread=1000000
        ;;
    quick)
        limit=120 ring_plain=100000 ring_address=50000 ring_thread=20000 bounds=
        log_plain=100000 log_address=50000 log_thread=10000
        gate_plain=5000 gate_address=2000 gate_thread=1000 delay_times=20 delay_items=500
        procs_plain=100000 procs_address=20000 procs_thread=20000
        ;;
    short)
        limit=120 ring_plain=100000 log_plain=20000 gate_plain=5000 delay_times=20 delay_items=500 modes=plain
        procs_plain=20000
        bounds='-l 1'
        ;;
esac

for cc in $compilers; do
    for mode in $modes; do
        case $mode in
            plain) flags=-O2 ring=$ring_plain log=$log_plain gate=$gate_plain procs=$procs_plain ;;
            address)
                flags=$sanitize_address ring=$ring_address log=$log_address gate=$gate_address procs=$procs_address
                ;;
            thread) flags=$sanitize_thread ring=$ring_thread log=$log_thread gate=$gate_thread procs=$procs_thread ;;
        esac
        if ! works "$cc" "$flags"; then
            skip "$cc $mode" "cannot build or run with $flags here"
            continue
        fi
        if wants unit; then
            for test in test_ring test_gate test_log test_chan test_lane test_lanes test_ticket; do
                build "$cc" "$flags" $test.c "$out/$test" && run "$cc, $mode: $test" "$out/$test"
            done
            build "$cc" "$flags -DNC_RING_LINE=8" test_ring.c "$out/test_ring_8" && # as with a GIL
                run "$cc, $mode: test_ring without lines" "$out/test_ring_8"
        fi
        if wants stress; then
            build "$cc" "$flags" stress_ring.c "$out/stress_ring" &&
                run "$cc, $mode: stress_ring, $ring items a topology" env STRESS_ITEMS=$ring "$out/stress_ring"
            build "$cc" "$flags" stress_log.c "$out/stress_log" &&
                run "$cc, $mode: stress_log, $log records a topology" env STRESS_ITEMS=$log "$out/stress_log"
            build "$cc" "$flags" stress_gate.c "$out/stress_gate" &&
                run "$cc, $mode: stress_gate, $gate items a scenario" env STRESS_ITEMS=$gate "$out/stress_gate"
            build "$cc" "$flags -DCHAN_OF_BYTES" stress_gate.c "$out/stress_bytes" &&
                run "$cc, $mode: stress_gate of bytes, $gate a scenario" env STRESS_ITEMS=$gate "$out/stress_bytes"
            build "$cc" "$flags" stress_lane.c "$out/stress_lane" &&
                run "$cc, $mode: stress_lane, $log records a scenario" env STRESS_ITEMS=$log "$out/stress_lane"
            build "$cc" "$flags" stress_lanes.c "$out/stress_lanes" &&
                run "$cc, $mode: stress_lanes, $log messages a thread" env STRESS_ITEMS=$log "$out/stress_lanes"
        fi
        if wants process; then
            build "$cc" "$flags" procs_attach.c "$out/procs_attach" &&
                run "$cc, $mode: procs_attach, $procs looks" env STRESS_ITEMS=$procs "$out/procs_attach"
            for program in procs_lane procs_lobby; do
                build "$cc" "$flags" $program.c "$out/$program" &&
                    run "$cc, $mode: $program, $procs records a scenario" env STRESS_ITEMS=$procs "$out/$program" &&
                    cat "$out/log" >>"$out/killings"
            done
        fi
    done
done
all_died

# Each step at which another thread may run, delayed in turn: yield, then 1 ms.  But for that of look_sc, which no stress
# program comes to.
if wants delay; then
    cc=${compilers# }
    cc=${cc%% *}
    build "$cc" -O2 stress_ring.c "$out/stress_ring"
    build "$cc" -O2 stress_log.c "$out/stress_log"
    build "$cc" -O2 stress_gate.c "$out/stress_gate"
    build "$cc" "-O2 -DCHAN_OF_BYTES" stress_gate.c "$out/stress_bytes"
    build "$cc" -O2 stress_lane.c "$out/stress_lane"
    while read -r program files; do
        # shellcheck disable=SC2086
        sed -n 's/.*NC_STEP("\([^"]*\)").*/\1/p' $files | grep -v '^look_sc' | sort -u >"$out/steps"
        grep -q . "$out/steps" || { echo "FAILED: no NC_STEP found"; failed=$((failed + 1)); }
        while read -r step; do
            for us in 0 1000; do
                run "$program, '$step' delayed by $us us" env DELAY_STEP="$step" DELAY_US="$us" \
                    DELAY_TIMES=$delay_times STRESS_ITEMS=$delay_items "$out/$program"
                grep -q '^[1-9][0-9]* delays' "$out/log" || {
                    echo "FAILED: $program never came to '$step'"
                    failed=$((failed + 1))
                }
            done
        done <"$out/steps"
    done <<END
stress_ring ../../csrc/nc_ring.h
stress_log ../../csrc/nc_log.h
stress_gate ../../csrc/nc_ring.h ../../csrc/nc_gate.h ../../csrc/nc_chan.h chan.h
stress_bytes ../../csrc/nc_log.h ../../csrc/nc_gate.h ../../csrc/nc_chan.h chan.h stress_gate.c
stress_lane ../../csrc/nc_lane.h ../../csrc/os_bell.h
END
fi

if wants model; then
    cc=${compilers# }
    cc=${cc%% *}
    if ! works "$cc" -fsanitize=thread; then
        skip models "$cc cannot instrument plain accesses (-fsanitize=thread)"
    elif $cc -O2 -std=gnu11 -Wall -Wextra -Werror -c model/model.c -o "$out/model.o"; then
        while read -r model source define; do
            # shellcheck disable=SC2086
            if $cc $warnings -O1 -g -DNC_MODEL='"model.h"' $define -Imodel -I. -I../../csrc -fsanitize=thread \
                -c model/$source.c -o "$out/m.o" && $cc "$out/m.o" "$out/model.o" -o "$out/models_$model"; then
                run "models: $model" "$out/models_$model" $bounds
            else
                echo "FAILED to build model/$source.c $define"
                failed=$((failed + 1))
            fi
        done <<END
litmus litmus
ring ring
log log
gate gate
gate_of_bytes gate -DCHAN_OF_BYTES
end end
lane lane
lanes lanes
select select
END
    else
        failed=$((failed + 1))
    fi
fi

echo "$passed passed, $failed failed, $(($(date +%s) - began)) s"
[ $failed = 0 ] && [ $passed -gt 0 ]
