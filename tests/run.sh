#!/usr/bin/env bash
# Runs the checks of this project: all of them, or the stages named as arguments.
#
# Every stage runs even if one before it failed, and the last line counts the stages. The exit status is 0 only if all passed.
# Tests on loop devices need root: without it each says on standard error that it was skipped, with CI=true it fails.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/sbin:/sbin"
cargo=${CARGO:-cargo}
unset CARGO

all=(format clippy documentation manual release rust fuzz interleavings ffi demo qemu)

stage_format() {
    "$cargo" fmt --check && "$cargo" fmt --check --manifest-path fuzz/Cargo.toml &&
        "$cargo" fmt --check --manifest-path tests/interleavings/Cargo.toml &&
        "$cargo" fmt --check --manifest-path tests/mutants/Cargo.toml
}

# Twice: as everybody builds it, and as a Rust program does that wants neither the C ABI nor the tool.
stage_clippy() {
    "$cargo" clippy --locked --all-targets -- -D warnings &&
        "$cargo" clippy --locked --lib --no-default-features -- -D warnings
}

stage_documentation() { RUSTDOCFLAGS="-D warnings" "$cargo" doc --locked --no-deps; }

stage_manual() {
    local complaints
    complaints=$(groff -man -Tutf8 -ww -z docs/dmsnap.1 2>&1)
    if [ -n "$complaints" ]; then
        echo "$complaints"
        return 1
    fi
}

stage_release() { "$cargo" build --locked --release; }

stage_rust() { tests/kernel/setup.sh && "$cargo" test --locked --no-fail-fast; }

# The corpus, then 10 s for each target, with one seed: what chance finds is for `make torture`.
stage_fuzz() { CARGO=$cargo fuzz/run.sh corpus && CARGO=$cargo DMSNAP_SEED=${DMSNAP_SEED:-1} fuzz/run.sh 25; }

# The library once more, on locks that explore the orders in which threads may run.
stage_interleavings() { CARGO=$cargo tests/interleavings.sh; }

stage_ffi() { CARGO=$cargo ffi-tests/run.sh; }

stage_demo() { stage_release && tests/demo.sh; }

# The driver for QEMU: iotests run those of our own, `make iotests` all of them.
stage_qemu() {
    stage_release && qemu-patch/build.sh && qemu-patch/lint.sh &&
        qemu-patch/tour.sh 4K && qemu-patch/tour.sh 16K && qemu-patch/tour.sh 64K &&
        tests/qemu/run.sh && qemu-patch/iotests.sh own
}

need=tests
[ "$*" != demo ] || need=demo
[ $# -gt 0 ] || set -- "${all[@]}"
CARGO=$cargo tests/setup.sh "$need" || exit 1

passed=0
failures=()
for stage in "$@"; do
    declare -F "stage_$stage" > /dev/null || { echo "tests/run.sh: no stage '$stage'; there are: ${all[*]}" >&2; exit 2; }
    [ $# -eq 1 ] || echo "==== $stage"
    started=$SECONDS
    if "stage_$stage"; then
        passed=$((passed + 1))
    else
        failures+=("$stage")
    fi
    [ $# -eq 1 ] || echo "==== $stage: $((SECONDS - started)) s"
done
[ ${#failures[@]} -eq 0 ] || echo "failed: ${failures[*]}" >&2
# A stage that was asked for by name speaks for itself.
[ $# -eq 1 ] || echo "stages: $passed passed, ${#failures[@]} failed"
[ ${#failures[@]} -eq 0 ]
