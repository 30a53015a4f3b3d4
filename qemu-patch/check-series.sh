#!/usr/bin/env bash
# Builds QEMU's tools at every patch of the series, then without the driver and with it as a module. After `make qemu`.
set -euo pipefail
# shellcheck source=qemu-patch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

series=$out/check-series
rm -rf "$series"
git -C "$out/src" worktree prune
first=$(git -C "$out/src" rev-list --max-parents=0 HEAD)
mapfile -t commits < <(git -C "$out/src" rev-list --reverse "$first..HEAD")
mkdir "$series"
quietly series-source git -C "$out/src" worktree add --detach "$series/src" "${commits[0]}"

# Whether qemu-img of a build makes an image and finds it again by its magic.
knows_dmsnap() {
    local build=$1
    "$build/qemu-img" create -q -f dmsnap "$series/image" 1M && "$build/qemu-img" info "$series/image" | grep -q 'format: dmsnap'
}

build() {
    quietly series-configure configure_qemu "$series/$1" --disable-system --disable-user "${@:2}"
    quietly series-build ninja -C "$series/$1"
}

build build
for commit in "${commits[@]}"; do
    git -C "$series/src" checkout -q --detach "$commit"
    quietly series-build ninja -C "$series/build"
    say "builds: $(git -C "$out/src" log -1 --format=%s "$commit")"
done
knows_dmsnap "$series/build" || die "the whole series does not know its format"

build build --disable-dmsnap
if knows_dmsnap "$series/build" 2> /dev/null; then die "--disable-dmsnap leaves the format in"; fi
say "builds: --disable-dmsnap"

build modules --enable-modules
[ -e "$series/modules/block-dmsnap.so" ] || die "--enable-modules made no module of the driver"
"$series/modules/qemu-img" create -q -f dmsnap "$series/image" 1M || die "the driver as a module does not load"
say "builds: --enable-modules, and qemu-img loads the module"
git -C "$out/src" worktree remove --force "$series/src"
rm -rf "$series"
