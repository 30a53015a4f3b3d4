#!/usr/bin/env bash
# Fuzzes: `fuzz/run.sh SECONDS [TARGET...]`, the seconds shared by the targets, two of which run at a time.
#
#     fuzz/run.sh corpus [TARGET...]         runs each file of the committed corpus once
#     fuzz/run.sh minimise [TARGET...]       replaces the committed corpus by what is needed of it and of what was found since
#     fuzz/run.sh repeat TARGET FILE...      runs files once, as after a crash
#
# Needs the stable toolchain and c++, no cargo-fuzz. With FUZZ_ASAN=1 everything is built with AddressSanitizer.
# What is found goes to target/fuzz; DMSNAP_SEED= sets libFuzzer's seed. Exits with 1 if anything was found.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
cargo=${CARGO:-cargo}
unset CARGO

all=(open structured operations descriptor capi)
jobs=2

die() { echo "fuzz/run.sh: $*" >&2; exit 2; }

mode=${1:-}
shift
case $mode in
corpus | minimise | repeat) ;;
*) [[ $mode =~ ^[0-9]+$ ]] || die "SECONDS, corpus, minimise or repeat are expected, not '$mode'" ;;
esac
files=()
if [ "$mode" = repeat ]; then
    files=("${@:2}")
    set -- "${1:-}"
    [ ${#files[@]} -gt 0 ] || die "which files?"
fi
[ $# -gt 0 ] || set -- "${all[@]}"
for target in "$@"; do
    [[ " ${all[*]} " == *" $target "* ]] || die "no target '$target'; there are: ${all[*]}"
done

out=${CARGO_TARGET_DIR:-target}/fuzz
mkdir -p "$out"
out=$(cd "$out" && pwd)

# What cargo-fuzz passes too.
flags=(-Cpasses=sancov-module --cfg fuzzing
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares)
build=$out/build
if [ -n "${FUZZ_ASAN:-}" ]; then
    flags+=(-Zsanitizer=address)
    build=$out/build-asan
    export RUSTC_BOOTSTRAP=1 ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1}
fi

host=$(rustc -vV | sed -n 's/^host: //p')
# With --target the flags do not reach build scripts, which would lack libFuzzer.
RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR=$build "$cargo" build --locked --quiet --release \
    --manifest-path fuzz/Cargo.toml --target "$host" || exit 1

binary() { echo "$build/$host/release/$1"; }

# The longest input of a target, in bytes.
longest() {
    case $1 in
    open) echo 13312 ;;
    descriptor) echo 3200 ;;
    *) echo 2048 ;;
    esac
}

# Bounds that libFuzzer watches over; the targets have narrower ones for the heap. An input takes milliseconds, and a second for
# chunks of 1 GiB, but the machine may be busy: the clock is no measure.
# Long inputs are tried early: short ones are few operations.
common=(-timeout=300 -report_slow_units=300 -rss_limit_mb=768 -len_control=5 -print_final_stats=1)

run_target() {
    local target=$1 seconds=$2 log=$out/$1.log status
    local work=$out/corpus/$target
    mkdir -p "$work" "$out/artifacts/$target"
    "$(binary "$target")" "${common[@]}" "-max_total_time=$seconds" "-max_len=$(longest "$target")" \
        ${DMSNAP_SEED:+"-seed=$((DMSNAP_SEED % 4294967295 + 1))"} -dict=fuzz/dictionary \
        "-artifact_prefix=$out/artifacts/$target/" "$work" "fuzz/corpus/$target" > "$log" 2>&1
    status=$?
    count "$target" "$log"
    [ $status -eq 0 ] && return
    failed "$target" "$log"
    return 1
}

count() {
    local executions
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$2" | tail -n 1)
    if [ -n "${DMSNAP_COUNTS:-}" ]; then echo "fuzz executions ${executions:-0}" >> "$DMSNAP_COUNTS"; fi
    echo "$1: ${executions:-0} executions"
}

failed() {
    local target=$1 log=$2 file
    grep -aE 'panicked at|^memory:|ERROR: ' -A 3 "$log" | head -n 20 >&2
    file=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    echo "fuzz/run.sh: $target failed; to repeat it: fuzz/run.sh repeat $target ${file:-(no file: see $log)}" >&2
}

run_corpus() {
    local target=$1 log=$out/$1.log
    mkdir -p "$out/artifacts/$target"
    if ! "$(binary "$target")" "${common[@]}" -runs=0 "-max_len=$(longest "$target")" \
        "-artifact_prefix=$out/artifacts/$target/" "fuzz/corpus/$target" > "$log" 2>&1; then
        failed "$target" "$log"
        return 1
    fi
}

minimise() {
    local target=$1 merged=$out/merged/$1 most
    most=$(longest "$target")
    # The rest of a file is mostly zeros, and is made again.
    [ "$target" != open ] || most=3072
    rm -rf "$merged"
    mkdir -p "$merged" "$out/corpus/$target" "fuzz/corpus/$target"
    "$(binary "$target")" -merge=1 -timeout=300 "-max_len=$most" "$merged" \
        "fuzz/corpus/$target" "$out/corpus/$target" > "$out/$target.log" 2>&1 || { failed "$target" "$out/$target.log"; return 1; }
    # Inputs that were a crash once keep their names and stay, and so do those that others are to begin from.
    find "fuzz/corpus/$target" -type f ! -name 'crash-*' ! -name 'seed-*' -delete
    cp "$merged"/* "fuzz/corpus/$target/"
}

# at_once COMMAND...: calls the command with each target, some at a time, and tells whether all succeeded.
at_once() {
    local target running=0 result=0
    for target in "${targets[@]}"; do
        if [ $running -eq $jobs ]; then
            wait -n || result=1
            running=$((running - 1))
        fi
        "$1" "$target" "${@:2}" &
        running=$((running + 1))
    done
    while [ $running -gt 0 ]; do
        wait -n || result=1
        running=$((running - 1))
    done
    return $result
}

targets=("$@")
case $mode in
corpus) at_once run_corpus ;;
minimise) at_once minimise ;;
repeat) exec "$(binary "$1")" "${common[@]}" "${files[@]}" ;;
*)
    share=$((mode * jobs / $#))
    [ $# -ge $jobs ] || share=$mode
    at_once run_target $((share > 0 ? share : 1))
    ;;
esac
