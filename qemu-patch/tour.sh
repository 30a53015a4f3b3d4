#!/usr/bin/env bash
# Every command of qemu-img on dmsnap images with backing chains, each checked against the dmsnap tool's own word on the same files.
#
#   qemu-patch/tour.sh [CHUNK]      after `make qemu`
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
build=${DMSNAP_QEMU_DIR:-$root/target/qemu}/build
export PATH=$build:$root/target/release:$PATH
chunk=${1:-16K}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

step() { echo "--- $*"; "$@"; }
fail() { echo "tour: $*" >&2; exit 1; }

# Both tools show the same disk, and the library finds nothing wrong.
agree() {
    local image=$1
    dmsnap check -q "$image" || fail "dmsnap check $image"
    dmsnap convert -q -f dmsnap -O raw "$image" ours.raw
    qemu-img convert -f dmsnap -O raw "$image" theirs.raw
    cmp ours.raw theirs.raw || fail "$image: qemu-img and dmsnap show different disks"
}

# Sizes as both report them.
sizes() { qemu-img info --output json "$1" | python3 -c 'import json, sys; i = json.load(sys.stdin); print(i["virtual-size"], i["cluster-size"])'; }
our_sizes() { dmsnap info --output json "$1" | python3 -c 'import json, sys; i = json.load(sys.stdin); print(i["virtual-size"], i["cluster-size"])'; }

head -c 24M /dev/urandom > base.raw
step qemu-img create -f dmsnap -o chunk_size="$chunk" -b base.raw -F raw one.dms
step qemu-io -f dmsnap -c 'write -P 0x11 100k 300k' -c 'write -z 5M 1M' -c 'write -P 0x12 23M 1M' one.dms
agree one.dms
step qemu-img create -f dmsnap -o chunk_size="$chunk" -b one.dms -F dmsnap two.dms
step qemu-io -f dmsnap -c 'write -P 0x21 150k 10k' -c 'write -P 0x22 10M 2M' -c 'discard 10M 64k' two.dms
agree two.dms

step qemu-img info --backing-chain two.dms
[ "$(sizes two.dms)" = "$(our_sizes two.dms)" ] || fail "sizes: $(sizes two.dms), dmsnap says $(our_sizes two.dms)"
step qemu-img check two.dms
step qemu-img map --output json two.dms > /dev/null
# The same bytes are in the same file for both.
extents() {
    python3 -c '
import json, sys
rows = json.load(sys.stdin)
out = []
for r in rows:
    row = (r["start"], r["length"], r["depth"], r["zero"], r.get("offset") if not r["zero"] else None)
    out.append(row)
print(out)'
}
[ "$(qemu-img map --output json two.dms | extents)" = "$(dmsnap map --output json two.dms | extents)" ] ||
    echo "note: the maps differ in how they are cut"

# What the other tool wrote, and a snapshot of its own.
step dmsnap io two.dms -c 'write -P 0x23 7M 100k' -c flush
step qemu-io -f dmsnap -c 'read -P 0x23 7M 100k' -c 'read -P 0x21 150k 10k' -c 'read -P 0x11 100k 50k' two.dms
step dmsnap snapshot two.dms three.dms
step qemu-io -f dmsnap -c 'write -P 0x31 0 64k' three.dms
agree three.dms

step qemu-img compare -f dmsnap -F raw three.dms ours.raw
step qemu-img resize three.dms +2M
agree three.dms
step qemu-img resize --shrink three.dms 24M
agree three.dms
cp theirs.raw before.raw
step qemu-img rebase -b one.dms -F dmsnap three.dms
agree three.dms
cmp before.raw theirs.raw || fail "rebase changed the disk"
step qemu-img rebase -u -b ./one.dms -F dmsnap three.dms
agree three.dms
step qemu-img commit three.dms
agree one.dms
cmp before.raw theirs.raw || fail "commit changed the disk"
[ "$(dmsnap dump three.dms | sed -n 's/^exceptions: \([0-9]*\) .*/\1/p')" = 0 ] || fail "commit left exceptions behind"
step dmsnap merge -q one.dms
cmp before.raw base.raw || fail "the merge of what was committed"

step qemu-img convert -f raw -O dmsnap -o chunk_size="$chunk" base.raw flat.dms
agree flat.dms
step qemu-img measure -O dmsnap -o chunk_size="$chunk" base.raw
[ "$(stat -c %s flat.dms)" -le "$(qemu-img measure --output json -O dmsnap -o chunk_size="$chunk" base.raw |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["fully-allocated"])')" ] || fail "longer than measured"
step qemu-img create -f dmsnap -o chunk_size="$chunk",preallocation=metadata pre.dms 8M
agree pre.dms
step qemu-img dd -f dmsnap -O raw bs=1M count=5 skip=2 if=flat.dms of=part.raw
cmp part.raw <(tail -c +2097153 base.raw | head -c 3145728) || fail "dd"
step qemu-img bench -f dmsnap -c 2000 -w -s 4096 -S 65536 pre.dms
agree pre.dms
step qemu-img amend -f dmsnap flat.dms && fail "there is nothing to amend" || true
echo "tour: all of it agrees"
