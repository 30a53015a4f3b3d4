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
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
out=${DMSNAP_QEMU_DIR:-$root/target/qemu}
mkdir -p "$out"
out=$(cd "$out" && pwd)

say() { echo "qemu-patch: $*"; }
die() { echo "qemu-patch: $*" >&2; exit 1; }

# Runs a command whose output is of interest only if it fails.
quietly() {
    local log=$out/$1.log
    shift
    "$@" > "$log" 2>&1 || { tail -n 40 "$log" >&2; die "failed: $*; all of it is in $log"; }
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo > /dev/null; then sudo "$@"; else die "run as root: $*"; fi
}

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
    say "installing ${missing[*]}"
    # Lists first: parts of one source must have one version.
    as_root apt-get -q update > "$out/apt.log" 2>&1 || die "apt-get update failed: see $out/apt.log"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${missing[@]}" \
        < /dev/null >> "$out/apt.log" 2>&1 || die "could not install ${missing[*]}: see $out/apt.log"
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

# The patched tree, made anew when the series or its source changes.
prepare_source() {
    local recipe
    recipe=$(cat "$here"/*.patch "$here/build.sh" | sha256sum | cut -d ' ' -f 1)" ${QEMU_SRC:-debian}"
    if [ "$(cat "$out/source" 2> /dev/null)" = "$recipe" ]; then
        return
    fi
    rm -rf "$out/source" "$out/src" "$out/build"
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
    say "applying the patches"
    quietly patch git -C "$out/src" am --quiet "$here"/*.patch
    echo "$recipe" > "$out/source"
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

configure() {
    local venv=$out/venv
    if ! [ -x "$venv/bin/meson" ]; then
        quietly venv python3 -m venv "$venv"
        quietly pip "$venv/bin/pip" -q install meson==1.5.0 pycotap==1.3.1 distlib
    fi
    mkdir -p "$out/build"
    # shellcheck disable=SC2046
    (cd "$out/build" && PKG_CONFIG_PATH=$out/prefix/lib/pkgconfig ../src/configure --python="$venv/bin/python3" \
        --extra-ldflags="-Wl,-rpath,$out/prefix/lib" $(options))
}

# What the tests use, and no more.
options() {
    printf '%s\n' --without-default-features --disable-download --disable-docs --disable-install-blobs --enable-tools --enable-system \
        --enable-tcg --enable-fdt --enable-fuse --enable-qed --enable-parallels --enable-vdi --enable-vmdk --enable-vpc --enable-qcow1 \
        --enable-dmg --enable-cloop --enable-bochs --enable-pixman --enable-linux-aio --enable-linux-io-uring --enable-vhost-user \
        --enable-vhost-user-blk-server --enable-dmsnap --target-list=x86_64-softmmu
}

install_needs
prepare_source
say "building libdmsnap"
build_library
if ! [ -e "$out/build/build.ninja" ]; then
    say "configuring QEMU"
    quietly configure configure
fi
say "building QEMU (some minutes the first time)"
quietly build ninja -C "$out/build"
say "done: $out/build"
