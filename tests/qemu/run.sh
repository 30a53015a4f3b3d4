#!/usr/bin/env bash
# Runs the tests in which the patched QEMU runs a guest: all of them, or those named.
#
#   tests/qemu/run.sh                                  after `make qemu` and `make build`
#   tests/qemu/run.sh test_jobs test_kill.Kill         by module, class or method, as unittest names them
#
# QEMU comes from DMSNAP_QEMU_DIR (target/qemu), the tool from DMSNAP (target/release/dmsnap), the kernel from DMSNAP_KERNEL_DIR
# (target/kernel, prepared at the first time). Root is needed to mount a small file system. What cannot run fails.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
export PYTHONDONTWRITEBYTECODE=1 PATH="$PATH:/usr/sbin:/sbin"
./prepare.sh
if [ $# -eq 0 ]; then
    modules=(test_*.py)
    set -- "${modules[@]%.py}"
fi

# Tests clean up behind themselves, but not if they are interrupted.
TMPDIR=$(mktemp -d)
export TMPDIR
clean_up() {
    local place
    while read -r _ place _; do
        case $place in "$TMPDIR"/*) umount "$place" ;; esac
    done < /proc/mounts
    rm -rf "$TMPDIR"
}
trap clean_up EXIT

started=$SECONDS
status=passed
python3 -m unittest -v "$@" || status=failed
echo "tests/qemu: $status, $((SECONDS - started)) s"
[ $status = passed ]
