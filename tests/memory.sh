#!/usr/bin/env bash
# Looks for memory errors and races for so many seconds: `tests/memory.sh SECONDS`, the part "memory" of `make torture`.
#
# First everything once: the C programs with AddressSanitizer, UndefinedBehaviorSanitizer, ThreadSanitizer and valgrind, and the Rust tests
# of storages and of the C interface with AddressSanitizer. Then, for as long as there is time, the host that answers with anything,
# with ever new seeds. The compiler is a stable one; sanitizers have to be unlocked.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
cargo=${CARGO:-cargo}
unset CARGO
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
work=$target/ffi-tests
end=$((SECONDS + ${1:?tests/memory.sh: how many seconds?}))
failed=0

# step COMMAND...: says so if it fails.
step() {
    "$@" && return
    failed=1
    echo "FAILED: $*"
}

count() { [ -z "${DMSNAP_COUNTS:-}" ] || echo "memory $1 $2" >> "$DMSNAP_COUNTS"; }

# The standard library comes as it is, without a sanitizer; what it does in our memory is seen all the same.
rust_tests() {
    local host
    host=$(rustc -vV | sed -n 's/^host: //p')
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=$target/sanitized \
        "$cargo" test --locked --target "$host" --no-default-features --features capi --no-fail-fast "$@"
}

in_directory() { (cd "$1" && "${@:2}"); }

# A number of cases from a seed on, in a directory of their own.
hostile_host() {
    local directory status
    directory=$(mktemp -d "$work/run.XXXXXX")
    DMSNAP_SEED=$1 DMSNAP_CASES=$2 in_directory "$directory" "${@:3}"
    status=$?
    rm -rf "$directory"
    [ $status -eq 0 ] || echo "with DMSNAP_SEED=$1 DMSNAP_CASES=$2"
    return $status
}

step env CARGO="$cargo" ffi-tests/run.sh
step rust_tests --lib -- storage:: ffi::
step rust_tests --test storage_files --test storage_backends --test storage_callbacks --test header
count sanitized-programs 5

seed=$(((${DMSNAP_SEED:-$(date +%s)} * 100000) % 1000000000))
while [ $SECONDS -lt $end ] && [ $failed -eq 0 ]; do
    step hostile_host $seed 400 env ASAN_OPTIONS=detect_leaks=1 LD_LIBRARY_PATH="$work/sanitized" "$work/hostile_host.asan"
    step hostile_host $((seed + 400)) 20 env LD_LIBRARY_PATH="$target/ffi-install/usr/lib" \
        valgrind --quiet --error-exitcode=99 --leak-check=full "$work/hostile_host"
    count sanitized-programs 2
    seed=$((seed + 420))
done
[ $failed -eq 0 ]
