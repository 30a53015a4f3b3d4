# What the scripts of this directory share; they source it.
# shellcheck shell=bash
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034
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

# What QEMU is configured with, $1 being the build directory and the source beside it; further arguments are options.
configure_qemu() {
    local build=$1
    shift
    mkdir -p "$build"
    (cd "$build" && PKG_CONFIG_PATH=$out/prefix/lib/pkgconfig ../src/configure --python="$out/venv/bin/python3" \
        --extra-ldflags="-Wl,-rpath,$out/prefix/lib" --without-default-features --disable-download --disable-docs \
        --disable-install-blobs --enable-tools --enable-dmsnap "$@")
}
