#!/usr/bin/env bash
# Installs what the demo (`setup.sh demo`) or all tests (`setup.sh`) need and the machine lacks.
#
# Goes by commands, not packages: whatever provides a command is good. Where one is missing, apt installs Debian's package, as
# root or through sudo. The kernel and the emulator for tests/kernel are another matter: tests/kernel/setup.sh unpacks them below
# target/ and installs nothing.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

# Rust links with cc, and needs the C library to link to; gcc only recommends that.
demo=(cc:gcc mke2fs:e2fsprogs e2fsck:e2fsprogs debugfs:e2fsprogs)
tests=(c++:g++ nm:binutils pkg-config:pkg-config valgrind:valgrind qemu-io:qemu-utils
    losetup:mount groff:groff-base xz:xz-utils)

die() { echo "tests/setup.sh: $*" >&2; exit 1; }

command -v cargo > /dev/null || die "cargo is missing: install Rust 1.95 or newer (rustup, or a distribution's package)"

if [ "${1:-}" != demo ]; then
    for component in fmt:rustfmt clippy:clippy; do
        "${CARGO:-cargo}" "${component%%:*}" --version > /dev/null 2>&1 ||
            die "cargo ${component%%:*} is missing: rustup component add ${component#*:} (or a distribution's package)"
    done
fi

wanted=("${demo[@]}")
[ "${1:-}" = demo ] || wanted+=("${tests[@]}")
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

command -v apt-get > /dev/null ||
    die "these are missing and there is no apt-get to install them; Debian calls them: ${missing[*]}"
if [ "$(id -u)" = 0 ]; then
    root=()
elif command -v sudo > /dev/null; then
    root=(sudo)
else
    die "run as root: apt-get install ${missing[*]}"
fi

install() {
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q install -y --no-install-recommends "${missing[@]}" < /dev/null
}
echo "tests/setup.sh: installing ${missing[*]}"
if ! install > /dev/null 2>&1; then
    # A fresh machine has no package lists, an old one has stale ones.
    "${root[@]}" apt-get -q update || die "apt-get update failed"
    install || die "could not install ${missing[*]}"
fi
