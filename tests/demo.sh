#!/usr/bin/env bash
# The demo: a base image with a real file system, layers on it, a snapshot, merges. Every step is verified, by e2fsck and debugfs
# where it is about files. Needs no root and leaves nothing behind. DMSNAP names the tool, KEEP=1 keeps the files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C

tool=$(realpath "${DMSNAP:-${CARGO_TARGET_DIR:-target}/release/dmsnap}")
work=$(mktemp -d "${TMPDIR:-/tmp}/dmsnap-demo.XXXXXX")
if [ -n "${KEEP:-}" ]; then echo "files are in $work"; else trap 'rm -rf "$work"' EXIT; fi
cd "$work"

step=0
say() { step=$((step + 1)); printf '\n%d. %s\n' "$step" "$*"; }
die() { echo "demo: FAILED: $*" >&2; exit 1; }
# An argument as one would type it.
quoted() { case $1 in *[!A-Za-z0-9_./=-]*) echo "'$1'" ;; *) echo "$1" ;; esac; }
dmsnap() {
    local word line="dmsnap"
    for word in "$@"; do line+=" $(quoted "$word")"; done
    echo "   \$ $line"
    "$tool" "$@" 2>&1 | sed 's/^/   /'
}
checksum() { sha256sum < "$1"; }
verified() { echo "   verified: $*"; }

# Offset in the image of block $2 of file $1 in the ext4 file system $base.
offset_of() {
    local block
    block=$(debugfs -R "bmap $1 $2" "$base" 2> /dev/null)
    [ "$block" -gt 0 ] || die "debugfs does not find block $2 of $1"
    echo $((block * 4096))
}

# The file system in raw image $1 is sound, and file $2 in it has the content of $3.
verify_file() {
    e2fsck -fn "$1" > fsck.log 2>&1 || { cat fsck.log; die "e2fsck finds the file system in $1 damaged"; }
    rm -f extracted
    debugfs -R "dump $2 extracted" "$1" 2> /dev/null
    cmp "$3" extracted || die "$2 in $1 has not the content it should have"
    verified "e2fsck finds $1 clean, and $2 in it has the right bytes"
}

base=base.raw

say "A base image: 64 MiB with an ext4 file system and a few files in it"
mkdir tree
echo "hello from the base image" > tree/hello.txt
head -c 1M /dev/zero | tr '\0' '.' > tree/disk.dat
mke2fs -q -t ext4 -b 4096 -d tree "$base" 64M > mke2fs.log 2>&1 || { cat mke2fs.log; die "mke2fs failed"; }
base_before=$(checksum "$base")
first=$(offset_of /disk.dat 10)
second=$(offset_of /disk.dat 200)
echo "   $base: $(du -k "$base" | cut -f1) KiB used"

say "A layer over it. Only what changes will be stored there"
dmsnap create -b "$base" -F raw layer.dms
dmsnap info layer.dms

say "Writes go to the layer: block 10 of /disk.dat becomes all 0xaa"
dmsnap io layer.dms -c "write -P 0xaa $first 4096" -c flush
dmsnap io layer.dms -c "read -P 0xaa $first 4096" -c "read -P 0x2e $((first + 4096)) 4096"
[ "$(checksum "$base")" = "$base_before" ] || die "the base was written"
verified "the base has not changed by a byte"
dmsnap map layer.dms
dmsnap check layer.dms

say "A snapshot: layer.dms is frozen, top.dms takes the writes from now on"
dmsnap snapshot layer.dms top.dms
layer_before=$(checksum layer.dms)
dmsnap io top.dms -c "write -P 0x55 $second 512" -c flush
[ "$(checksum layer.dms)" = "$layer_before" ] || die "the frozen layer was written"
verified "neither the frozen layer nor the base has changed"
dmsnap info top.dms

say "What the chain base.raw <- layer.dms <- top.dms shows, as a raw image"
dmsnap convert -f dmsnap -O raw top.dms top.raw
cp tree/disk.dat expected.dat
head -c 4096 /dev/zero | tr '\0' '\252' | dd of=expected.dat bs=4096 seek=10 conv=notrunc status=none
head -c 512 /dev/zero | tr '\0' '\125' | dd of=expected.dat bs=4096 seek=200 conv=notrunc status=none
verify_file top.raw /disk.dat expected.dat
dmsnap compare -f dmsnap -F raw top.dms top.raw

say "Merge: top.dms into layer.dms, then layer.dms into the base (of which a copy is kept)"
dmsnap merge top.dms
dmsnap compare -f dmsnap -F raw layer.dms top.raw
cp "$base" base.orig.raw
dmsnap merge layer.dms
cmp "$base" top.raw || die "the merged base differs"
verify_file "$base" /disk.dat expected.dat
dmsnap check layer.dms

say "A changed image against its base: only what differs is stored"
cp base.orig.raw changed.raw
echo "a file that the base does not have" > new.txt
debugfs -w -R "write new.txt new.txt" changed.raw > /dev/null 2>&1
dmsnap convert -f raw -O dmsnap -o chunk_size=4K -B base.orig.raw -F raw changed.raw small.dms
echo "   changed.raw is $(du -k --apparent-size changed.raw | cut -f1) KiB long, small.dms uses $(du -k small.dms | cut -f1) KiB"
dmsnap compare -f dmsnap -F raw small.dms changed.raw
dmsnap convert -f dmsnap -O raw small.dms small.raw
verify_file small.raw /new.txt new.txt

say "The same file is a COW device for the kernel. What root would type (only shown here):"
dmsnap table small.dms --origin-dev /dev/loop0 --cow-dev /dev/loop1 --cover

printf '\ndemo: all verified\n'
