#!/usr/bin/env bash
# Writes the series anew from the commits in target/qemu/src that follow the imported source.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
src=${1:-$(dirname "$here")/target/qemu/src}
rm -f "$here"/*.patch
first=$(git -C "$src" rev-list --max-parents=0 HEAD)
git -C "$src" format-patch --quiet --zero-commit --no-signature --no-stat --no-numbered -o "$here" "$first"
