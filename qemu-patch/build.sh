#!/usr/bin/env bash
# Builds QEMU with the driver for dmsnap images, below target/qemu. Does nothing that was done before.
#
#   qemu-patch/build.sh                  Debian's source of QEMU 10.0 (suite trixie), fetched with the machine's own apt settings
#   QEMU_SRC=DIR qemu-patch/build.sh     a 10.0.x tree of yours, which is copied and stays as it is
#   DMSNAP_QEMU_DIR=DIR ...              use DIR instead of target/qemu
#
# Result: build/ with qemu-img, qemu-io, qemu-nbd, storage-daemon/qemu-storage-daemon and qemu-system-x86_64; src/, the patched tree
# as a git repository; prefix/, the library that they are linked to.
set -euo pipefail
# shellcheck source=qemu-patch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=tests/packages.sh
. "$root/tests/packages.sh"

# Headers and tools that QEMU is built with, as file or command and Debian package.
install_needs() {
    local missing=() entry
    for entry in glib-2.0:libglib2.0-dev pixman-1:libpixman-1-dev fuse3:libfuse3-dev liburing:liburing-dev; do
        pkg-config --exists "${entry%%:*}" 2> /dev/null || missing+=("${entry#*:}")
    done
    # These come without a file for pkg-config in some releases.
    for entry in libaio libfdt; do
        [ -e "/usr/include/$entry.h" ] || missing+=("$entry-dev")
    done
    for entry in flex bison ninja:ninja-build dpkg-source:dpkg-dev git cc:gcc pkg-config python3; do
        command -v "${entry%%:*}" > /dev/null || missing+=("${entry#*:}")
    done
    python3 -c 'import venv, ensurepip' 2> /dev/null || missing+=(python3-venv)
    [ ${#missing[@]} -gt 0 ] || return 0
    install_packages "${missing[@]}" || die "QEMU cannot be built without ${missing[*]}"
}

# Where this machine's apt gets Debian from, and the key it trusts for that.
debian_source() {
    local uri
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2> /dev/null | grep -v -e security | head -n 1)
    [ -n "$uri" ] || uri=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/*.sources 2> /dev/null | head -n 1)
    [ -n "$uri" ] || die "no source of Debian packages is configured: give a tree of QEMU 10.0 as QEMU_SRC"
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri trixie main"
}

fetch() {
    local apt=$out/apt options
    rm -rf "$apt" && mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    debian_source > "$apt/sources.list"
    options=(-o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=)
    apt-get "${options[@]}" update
    (cd "$apt" && apt-get "${options[@]}" source --download-only qemu && dpkg-source --no-check -x qemu_10.0.*.dsc "$out/src")
}

# QEMU's source as one commit, made anew when another is asked for.
prepare_source() {
    local wanted=${QEMU_SRC:-debian}
    if [ "$(cat "$out/source" 2> /dev/null)" = "$wanted" ]; then
        return
    fi
    rm -rf "$out"/{source,series,configured,src,build}
    if [ -n "${QEMU_SRC:-}" ]; then
        [ -e "$QEMU_SRC/VERSION" ] || die "QEMU_SRC=$QEMU_SRC is no source tree of QEMU"
        case $(cat "$QEMU_SRC/VERSION") in
            10.0.*) ;;
            *) die "QEMU_SRC=$QEMU_SRC is QEMU $(cat "$QEMU_SRC/VERSION"); the patches are for 10.0" ;;
        esac
        say "copying $QEMU_SRC"
        mkdir "$out/src" && (cd "$QEMU_SRC" && tar -c --exclude=./.git --exclude=./build .) | tar -x -C "$out/src"
    else
        say "fetching QEMU's source"
        quietly fetch fetch
    fi
    quietly import import_tree
    echo "$wanted" > "$out/source"
}

# Applies the patches beside the tree and moves it to the result: files that stay the same keep their times, so that little is
# built anew after a change.
apply_series() {
    local recipe first beside=$out/patched
    recipe=$(cat "$here"/*.patch | sha256sum | cut -d ' ' -f 1)
    if [ "$(cat "$out/series" 2> /dev/null)" = "$recipe" ]; then
        return
    fi
    say "applying the patches"
    first=$(git -C "$out/src" rev-list --max-parents=0 HEAD)
    rm -rf "$beside"
    git -C "$out/src" worktree prune
    quietly patch git -C "$out/src" worktree add --detach "$beside" "$first"
    quietly patch git -C "$beside" am --quiet "$here"/*.patch
    quietly patch git -C "$out/src" checkout --detach "$(git -C "$beside" rev-parse HEAD)"
    git -C "$out/src" worktree remove --force "$beside"
    echo "$recipe" > "$out/series"
}

import_tree() {
    cd "$out/src"
    git init -q .
    git config user.name dmsnap
    git config user.email dmsnap@localhost
    git config commit.gpgsign false
    git add -A -f .
    git commit -q -m "QEMU $(cat VERSION)"
}

build_library() {
    quietly library make -C "$root" build install PREFIX="$out/prefix" LDCONFIG=true
}

make_venv() {
    local venv=$out/venv
    if ! [ -x "$venv/bin/meson" ]; then
        quietly venv python3 -m venv "$venv"
        quietly pip "$venv/bin/pip" -q install meson==1.5.0 pycotap==1.3.1 distlib
    fi
}

# What the tests use, and no more.
configure() {
    configure_qemu "$out/build" --enable-system --enable-tcg --enable-fdt --enable-fuse --enable-fuse-lseek --enable-qed --enable-parallels \
        --enable-vdi --enable-vmdk --enable-vpc --enable-qcow1 --enable-dmg --enable-cloop --enable-bochs --enable-pixman \
        --enable-linux-aio --enable-linux-io-uring --enable-vhost-user --enable-vhost-user-blk-server \
        --target-list=x86_64-softmmu
}

install_needs
prepare_source
apply_series
say "building libdmsnap"
build_library
make_venv
recipe=$(cat "$here/build.sh" "$here/common.sh" | sha256sum)
if [ "$(cat "$out/configured" 2> /dev/null)" != "$recipe" ]; then
    say "configuring QEMU"
    quietly configure configure
    echo "$recipe" > "$out/configured"
fi
say "building QEMU (some minutes the first time)"
# Its own tests are many; iotests need these programs.
quietly build ninja -C "$out/build" qemu-img qemu-io qemu-nbd storage-daemon/qemu-storage-daemon qemu-system-x86_64
say "done: $out/build"
