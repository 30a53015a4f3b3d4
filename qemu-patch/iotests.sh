#!/usr/bin/env bash
# Runs QEMU's own tests with dmsnap images: all that apply, those named, or those about dmsnap only (`iotests.sh own`). The last line
# counts them.
set -euo pipefail
# shellcheck source=qemu-patch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

"$here/firmware.sh"
log=$out/iotests.log
if [ "${1:-}" = own ]; then
    mapfile -t own < <(cd "$out/src/tests/qemu-iotests" && find tests -name 'dmsnap-*' ! -name '*.*' -printf '%f\n' | sort)
    [ ${#own[@]} -gt 0 ] || die "$out/src has no tests of its own about dmsnap"
    set -- "${own[@]}"
fi
cd "$out/build/tests/qemu-iotests"
status=0
./check -dmsnap "$@" 2>&1 | tee "$log" || status=$?
# The same words as in the summary of check, by which it ends.
words() { sed -n "s/^$1: //p" "$log" | tail -n 1 | wc -w; }
failed=$(words Failures)
not_run=$(words 'Not run')
passed=$(sed -n -e 's/^Passed all \([0-9]*\) iotests$/\1/p' -e 's/^Failed [0-9]* of \([0-9]*\) iotests$/\1/p' "$log" | tail -n 1)
passed=$((${passed:-0} - failed))
echo "iotests: $passed passed, $failed failed, $not_run not run"
exit "$status"
