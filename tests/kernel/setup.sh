#!/bin/bash
# Prepares target/kernel for the tests that let a stock Linux kernel judge us.
#
#   tests/kernel/setup.sh           prepare, or do nothing if that was done before
#   DMSNAP_KERNEL_DIR=DIR ...       use DIR instead of target/kernel
#
# Needs a Debian-like system with apt. Packages are downloaded and unpacked below the output
# directory and never installed: no root needed, and nothing on the machine changes (installing
# QEMU by apt could remove a newer qemu-utils). Result:
#
#   vmlinux    the distribution's kernel, unpacked on the host: under emulation that takes longer
#              than all the rest of the boot (falls back to the packed one)
#   initrd     busybox, dmsetup and modules; the test adds /init and its scripts
#   initrd-vm  the same for tests/qemu: file systems and virtio-blk too
#   busybox    runs on the host, too
#   qemu       runs qemu-system-x86_64, ours or the machine's
#   versions   what was used
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${DMSNAP_KERNEL_DIR:-$here/../../target/kernel}
mkdir -p "$out"
out=$(cd "$out" && pwd)
# A changed script means a changed result.
recipe=$(sha256sum < "${BASH_SOURCE[0]}")

# SCSI, because one controller carries hundreds of disks; each virtio-blk disk costs 0.2 s of boot.
modules="virtio_pci virtio_scsi sd_mod dm-snapshot dm-zero dm-delay"
modules_vm="virtio_pci virtio_blk ext4 crc32c_generic dm-snapshot dm-zero"

die() { echo "setup.sh: $*" >&2; exit 1; }
say() { echo "setup.sh: $*"; }

ready() { [ "$(cat "$out/ready" 2>/dev/null)" = "$recipe" ]; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        die "the package lists are missing or too old: run 'apt-get update' as root, then this again"
    fi
}

kernel_package() {
    apt-cache depends linux-image-amd64 2>/dev/null |
        sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}

# Names of the given packages and of everything they need that this machine lacks. Not libc: the
# machine's own loader must match it.
closure() {
    printf '%s\n' "$@"
    apt-get -s install --no-install-recommends "$@" |
        sed -n -e '/^Inst libc6 /d' -e 's/^Inst \([^ ]*\) .*/\1/p'
}

download() {
    local packages
    kernel=$(kernel_package)
    [ -n "$kernel" ] || return 1
    packages=(busybox-static dmsetup e2fsprogs xz-utils)
    [ -n "$system_qemu" ] || packages+=(qemu-system-x86)
    rm -rf debs && mkdir debs
    (cd debs && closure "${packages[@]}" | sort -u | xargs apt-get -q download "$kernel")
}

unpack() {
    local deb
    rm -rf root && mkdir root
    for deb in debs/*.deb; do
        case $deb in
        # The whole package is hundreds of megabytes of drivers.
        debs/linux-image-*)
            dpkg-deb --fsys-tarfile "$deb" | tar -x -C root --wildcards \
                './boot/vmlinuz-*' './*lib/modules/*/modules.builtin' \
                './*lib/modules/*/kernel/'{block,crypto,lib,drivers/{block,md,scsi,virtio},fs/{ext4,jbd2}}'/*' \
                './*lib/modules/*/kernel/fs/mbcache.ko*' ;;
        *) dpkg-deb -x "$deb" root ;;
        esac
    done
}

libraries=root/usr/lib/x86_64-linux-gnu:root/lib/x86_64-linux-gnu

absolute_libraries() { echo "$out/${libraries//:/:$out/}"; }

write_qemu() {
    if [ -n "$system_qemu" ]; then
        printf '#!/bin/sh\nexec %q "$@"\n' "$system_qemu" > qemu
    else
        cat > qemu <<SCRIPT
#!/bin/sh
here=\$(cd "\$(dirname "\$0")" && pwd)
export LD_LIBRARY_PATH="\$here/root/usr/lib/x86_64-linux-gnu:\$here/root/lib/x86_64-linux-gnu"
export QEMU_MODULE_DIR="\$here/root/usr/lib/x86_64-linux-gnu/qemu"
exec "\$here/root/usr/bin/qemu-system-x86_64" -L "\$here/root/usr/share/qemu" -L "\$here/root/usr/share/seabios" "\$@"
SCRIPT
    fi
    chmod +x qemu
    ./qemu -accel help | grep -q tcg || die "$out/qemu cannot emulate: no TCG accelerator"
}

first_of() { local f; for f in "$@"; do if [ -e "$f" ]; then echo "$f"; return; fi; done; return 1; }

# Shared libraries of $1 that the loader finds, ours first.
libraries_of() {
    LD_LIBRARY_PATH=$(absolute_libraries) ldd "$1" | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p'
}

unpacked_module() {
    case $1 in
    *.ko) cat "$1" ;;
    *.ko.xz) root/usr/bin/xz -dc "$1" ;;
    *.ko.zst) zstd -qdc "$1" ;;
    esac
}

# Adds module $1 to the stage after the modules it depends on; modules/order lists them so.
stage_module() {
    local name=$1 pattern=${1//[-_]/[-_]} file need
    if grep -qx "$pattern" stage/modules/order; then return; fi
    file=$(find root -path "*/kernel/*/$pattern.ko*" | head -n 1)
    if [ -z "$file" ]; then
        find root -name modules.builtin -exec cat {} + | grep -q "/$pattern\.ko" ||
            die "module $name is neither in $kernel nor built into it"
        return
    fi
    unpacked_module "$file" > "stage/modules/$name.ko"
    for need in $(tr '\0' '\n' < "stage/modules/$name.ko" | sed -n 's/^depends=//p' | tr , ' '); do
        stage_module "$need"
    done
    echo "$name" >> stage/modules/order
}

# Adds program $1 with its shared libraries.
stage_program() {
    cp "$(first_of "root/sbin/$1" "root/usr/sbin/$1")" "stage/bin/$1"
    libraries_of "stage/bin/$1" | xargs -I{} cp -L {} stage/lib/x86_64-linux-gnu/
}

# build_initrd FILE MODULES PROGRAM...
build_initrd() {
    local file=$1 modules=$2 name
    shift 2
    rm -rf stage
    mkdir -p stage/{bin,dev,lib64,modules,proc,sys,tmp,lib/x86_64-linux-gnu}
    : > stage/modules/order
    cp busybox stage/bin/busybox
    cp -L /lib64/ld-linux-x86-64.so.2 stage/lib64/
    for name in "$@"; do stage_program "$name"; done
    for name in $modules; do stage_module "$name"; done
    # Not compressed: unpacking costs more under emulation than loading.
    (cd stage && find . | "$out/busybox" cpio -o -H newc --quiet) > "$file"
}

unpack_kernel() {
    local packed at
    packed=$(first_of root/boot/vmlinuz-*)
    at=$(grep -aobP -m 1 '\xfd7zXZ\x00' "$packed" | head -n 1 | cut -d : -f 1) || true
    # What follows the compressed part makes the decompressor complain; the ELF magic tells.
    if [ -n "$at" ]; then tail -c +$((at + 1)) "$packed" | root/usr/bin/xz -dc > vmlinux 2>/dev/null || true; fi
    if [ "$(head -c 4 vmlinux 2>/dev/null)" != $'\x7fELF' ]; then cp "$packed" vmlinux; fi
}

write_versions() {
    {
        echo "kernel $kernel $(dpkg-deb -f debs/"$kernel"_*.deb Version)"
        echo "qemu $(./qemu --version | head -n 1)"
        echo "dmsetup $(dpkg-deb -f debs/dmsetup_*.deb Version)"
        echo "busybox $(dpkg-deb -f debs/busybox-static_*.deb Version)"
    } > versions
}

if ready; then exit 0; fi
exec 9> "$out/lock"
flock 9
if ready; then exit 0; fi
cd "$out"
for tool in apt-get apt-cache dpkg-deb tar ldd; do
    command -v "$tool" >/dev/null || die "$tool is missing: this needs a Debian-like system"
done
[ "$(dpkg --print-architecture)" = amd64 ] || die "only amd64 machines are supported"
system_qemu=$(command -v qemu-system-x86_64 || true)

say "fetching a kernel and an emulator into $out (once, about 90 MB)"
if ! download > download.log 2>&1; then
    say "the package lists are missing or old, updating them"
    as_root apt-get -q update >> download.log 2>&1
    download >> download.log 2>&1 || { tail -n 20 download.log >&2; die "download failed"; }
fi
unpack
cp "$(first_of root/bin/busybox root/usr/bin/busybox)" busybox
unpack_kernel
write_qemu
build_initrd initrd "$modules" dmsetup
build_initrd initrd-vm "$modules_vm" dmsetup mke2fs e2fsck
write_versions
rm -rf debs stage root/boot root/lib/modules root/usr/lib/modules
echo "$recipe" > ready
say "ready: $(head -n 1 versions)"
