#!/usr/bin/env bash
# Installs what is needed and the machine lacks: for the demo (`setup.sh demo`), the tests with QEMU (`setup.sh qemu`), or all tests
# (`setup.sh`).
#
# Goes by commands, not packages: whatever provides a command is good. Where one is missing, apt installs Debian's package, as
# root or through sudo. The kernel and the emulator for tests/kernel are another matter: tests/kernel/setup.sh unpacks them below
# target/ and installs nothing.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"
# shellcheck source=tests/packages.sh
. "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

# Rust links with cc, and needs the C library to link to; gcc only recommends that.
demo=(cc:gcc mke2fs:e2fsprogs e2fsck:e2fsprogs debugfs:e2fsprogs)
tests=(c++:g++ nm:binutils pkg-config:pkg-config valgrind:valgrind qemu-io:qemu-utils
    losetup:mount groff:groff-base xz:xz-utils)
# The QEMU with the driver has a setup of its own (make qemu); qemu-img here is one without.
qemu=(cc:gcc qemu-img:qemu-utils nbdinfo:libnbd-bin nbdcopy:libnbd-bin fio:fio fusermount3:fuse3
    mke2fs:e2fsprogs e2fsck:e2fsprogs losetup:mount fallocate:util-linux fstrim:util-linux setpriv:util-linux)

die() { echo "tests/setup.sh: $*" >&2; exit 1; }

case ${1:-tests} in
demo) wanted=("${demo[@]}") ;;
qemu) wanted=("${qemu[@]}") ;;
tests) wanted=("${demo[@]}" "${tests[@]}" "${qemu[@]}") ;;
*) die "'$1' is neither demo, qemu nor tests" ;;
esac

command -v cargo > /dev/null || die "cargo is missing: install Rust 1.95 or newer (rustup, or a distribution's package)"

if [ "${1:-tests}" = tests ]; then
    for component in fmt:rustfmt clippy:clippy; do
        "${CARGO:-cargo}" "${component%%:*}" --version > /dev/null 2>&1 ||
            die "cargo ${component%%:*} is missing: rustup component add ${component#*:} (or a distribution's package)"
    done
fi

missing=()
for entry in "${wanted[@]}"; do
    command -v "${entry%%:*}" > /dev/null || missing+=("${entry#*:}")
done
# A compiler without the C library's headers and start files links nothing.
if [[ " ${missing[*]} " == *" gcc "* ]] || ! echo 'int main(void) { return 0; }' | cc -x c -o /dev/null - 2> /dev/null; then
    missing+=(libc6-dev)
fi
[ ${#missing[@]} -gt 0 ] || exit 0
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
install_packages "${missing[@]}" || die "these are needed: ${missing[*]}"
