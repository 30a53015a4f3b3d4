#!/usr/bin/env bash
# Puts firmware where the QEMU of build.sh looks for it, once: it is not in Debian's source package, and installing QEMU's packages
# could replace the machine's own.
set -euo pipefail
# shellcheck source=qemu-patch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
data=$out/firmware
target=$out/build/qemu-bundle/usr/local/share/qemu

if ! [ -e "$data/ready" ]; then
    rm -rf "$data" && mkdir -p "$data/debs"
    for package in seabios ipxe-qemu qemu-system-data; do
        (cd "$data/debs" && apt-get -q -o APT::Sandbox::User=root download "$package" > /dev/null)
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
