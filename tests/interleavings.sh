#!/usr/bin/env bash
# Explores the orders in which threads may run, with the package tests/interleavings: a bounded number, or for so many seconds:
# `tests/interleavings.sh [SECONDS]`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo=${CARGO:-cargo}
unset CARGO

CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}")/interleavings
export CARGO_TARGET_DIR
package=(--locked --quiet --manifest-path tests/interleavings/Cargo.toml)

if [ $# -gt 0 ]; then
    count=$("$cargo" test "${package[@]}" -- --list | grep -c ': test$')
    export DMSNAP_TORTURE=$((($1 + count - 1) / count))
fi
"$cargo" test "${package[@]}"
