#!/usr/bin/env bash
# Looks for defects for so many seconds: `tests/torture.sh SECONDS [SEED [PART...]]`, or `make torture BUDGET=SECONDS SEED=N`.
#
# Parts: crash faults fuzz kernel repair threads memory. Each has its share of the time and prints one line with what it tried and
# how much of that failed; logs are in target/torture. The exit status is 1 if anything failed. A seed repeats a run as far as
# chance is concerned; threads and kills depend on the machine too.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export PATH="$PATH:/usr/sbin:/sbin"
cargo=${CARGO:-cargo}
unset CARGO

all=(crash faults fuzz kernel repair threads memory)
budget=${1:-3600}
seed=${2:-$(date +%s)}
parts=("${@:3}")
[ ${#parts[@]} -gt 0 ] || parts=("${all[@]}")
for number in "$budget" "$seed"; do
    [[ $number =~ ^[0-9]+$ ]] || { echo "tests/torture.sh: '$number' is not a number" >&2; exit 2; }
done
# With a leading zero it would be octal, or no number at all.
budget=$((10#$budget)) seed=$((10#$seed))
for part in "${parts[@]}"; do
    [[ " ${all[*]} " == *" $part "* ]] || { echo "tests/torture.sh: no part '$part'; there are: ${all[*]}" >&2; exit 2; }
done

CARGO=$cargo tests/setup.sh tests || exit 1

out=${CARGO_TARGET_DIR:-target}/torture
mkdir -p "$out"
out=$(cd "$out" && pwd)
export DMSNAP_SEED=$seed CI=true
share=$((budget / ${#parts[@]}))

# torture_tests TARGET...: the tests of these test targets whose names begin with torture_, which share the part's time.
torture_tests() {
    local target targets=() count
    for target in "$@"; do targets+=(--test "$target"); done
    "$cargo" test --locked --release --no-run "${targets[@]}" || return
    count=$("$cargo" test --locked --release "${targets[@]}" -- --list torture_ 2> /dev/null | grep -c ': test$')
    [ "$count" -gt 0 ] || { echo "no tests named torture_ in $*"; return 1; }
    # One at a time, so that each has both cores for its own threads.
    DMSNAP_TORTURE=$(((share + count - 1) / count)) \
        "$cargo" test --locked --release --no-fail-fast "${targets[@]}" -- torture_ --test-threads=1 --nocapture
}

# A fifth of the time for the driver for QEMU.
part_crash() {
    local whole=$share failed=0
    share=$((whole * 4 / 5)) torture_tests torture_crash store_model || failed=1
    "$cargo" build --locked --release && qemu-patch/build.sh &&
        DMSNAP_TORTURE=$((whole / 5)) tests/qemu/run.sh test_crash || failed=1
    return $failed
}
part_faults() { torture_tests torture_faults; }
part_fuzz() { CARGO=$cargo fuzz/run.sh "$share"; }
part_kernel() { tests/kernel/setup.sh && torture_tests kernel; }
part_repair() { tests/kernel/setup.sh && torture_tests torture_repair; }
part_threads() {
    local status=0
    share=$((share * 3 / 4)) torture_tests torture_threads || status=1
    CARGO=$cargo tests/interleavings.sh $((share / 4)) || status=1
    return $status
}
part_memory() { CARGO=$cargo tests/memory.sh "$share"; }

# One line: the sums of what a part has counted, and how many of its steps failed.
summary() {
    local part=$1 failures=$2
    awk -v part="$part" -v failures="$failures" '
        $1 == part { if (!($2 in sum)) order[++n] = $2; sum[$2] += $3 }
        END {
            line = part ": "
            for (i = 1; i <= n; i++) { name = order[i]; gsub("-", " ", name); line = line sum[order[i]] " " name ", " }
            print line failures " failures"
        }' "$out/counts"
}

# Failed tests as cargo counts them: what a test prints stands between its name and its "FAILED". A part that failed otherwise counts
# as one.
failures_in() {
    local log=$1 status=$2 failed
    failed=$(awk '/^test result: FAILED\./ && match($0, /[0-9]+ failed/) { sum += substr($0, RSTART) } END { print sum + 0 }' "$log")
    if [ "$failed" -eq 0 ] && [ "$status" -ne 0 ]; then failed=1; fi
    echo "$failed"
}

failed=0
for part in "${parts[@]}"; do
    rm -f "$out/counts"
    touch "$out/counts"
    DMSNAP_COUNTS=$out/counts "part_$part" > "$out/$part.log" 2>&1
    failures=$(failures_in "$out/$part.log" $?)
    summary "$part" "$failures"
    if [ "$failures" -gt 0 ]; then
        failed=$((failed + failures))
        echo "tests/torture.sh: $part failed, with SEED=$seed: see $out/$part.log" >&2
    fi
done
[ "$failed" -eq 0 ]
