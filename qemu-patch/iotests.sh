#!/usr/bin/env bash
# Runs QEMU's own tests with dmsnap images, those named or all that apply. The last line counts them.
set -euo pipefail
# shellcheck source=qemu-patch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Firmware is not in Debian's source package, and installing QEMU's packages could replace the machine's own.
firmware() {
    local data=$out/firmware target=$out/build/qemu-bundle/usr/local/share/qemu package file
    if ! [ -e "$data/ready" ]; then
        rm -rf "$data" && mkdir -p "$data/debs"
        for package in seabios ipxe-qemu qemu-system-data; do
            (cd "$data/debs" && apt-get -q download "$package" > /dev/null)
        done
        for file in "$data"/debs/*.deb; do
            dpkg-deb -x "$file" "$data"
        done
        touch "$data/ready"
    fi
    mkdir -p "$target"
    for file in "$data"/{usr/share/seabios,usr/share/qemu,usr/lib/ipxe/qemu}/*; do
        [ -e "$target/${file##*/}" ] || ln -s "$file" "$target/"
    done
}

firmware
log=$out/iotests.log
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
