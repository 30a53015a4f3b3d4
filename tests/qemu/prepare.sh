#!/usr/bin/env bash
# Prepares what the tests with QEMU need, or does nothing if that was done before.
#
#   tests/qemu/prepare.sh           after `make qemu` and `make build`
#
# QEMU comes from DMSNAP_QEMU_DIR (target/qemu), the guest's kernel from tests/kernel/setup.sh. Into target/qemu-guest go
#
#   stamp      the program of guest/stamp.c, for the host and the guest
#   initrd     what the guest boots with
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
qemu=${DMSNAP_QEMU_DIR:-$root/target/qemu}
kernel=${DMSNAP_KERNEL_DIR:-$root/target/kernel}
out=$root/target/qemu-guest

die() { echo "tests/qemu/prepare.sh: $*" >&2; exit 1; }

[ -x "$qemu/build/qemu-system-x86_64" ] || die "$qemu/build/qemu-system-x86_64 is missing: run 'make qemu' first"
command -v cc > /dev/null || die "cc is missing: install gcc and libc6-dev"
"$root/tests/kernel/setup.sh"
"$root/qemu-patch/firmware.sh"

mkdir -p "$out"
exec 9> "$out/lock"
flock 9
recipe=$(cat "${BASH_SOURCE[0]}" "$here"/guest/* "$kernel/ready" | sha256sum)
if [ "$(cat "$out/ready" 2> /dev/null)" = "$recipe" ]; then exit 0; fi
rm -rf "$out/stage"
mkdir -p "$out"/stage/{bin,guest}
cc -static -O2 -Wall -Wextra -Werror "$here/guest/stamp.c" -o "$out/stamp"
cp "$out/stamp" "$out/stage/bin/"
cp "$here/guest/lib.sh" "$out/stage/guest/"
install -m 755 "$here/guest/init" "$out/stage/init"
# A kernel unpacks archives that follow each other.
{ cat "$kernel/initrd-vm"; (cd "$out/stage" && find . | "$kernel/busybox" cpio -o -H newc --quiet); } > "$out/initrd"
rm -rf "$out/stage"
echo "$recipe" > "$out/ready"
