# What scenario scripts can use. Sizes and positions are sectors of 512 bytes. A disk is named by
# its path ($origin, $cow: as the scenario called it), a device-mapper device by its bare name.

# No udev here: dmsetup makes the nodes itself.
export DM_DISABLE_UDEV=1

# field KEY VALUE: a result for the host.
field() { echo "field $1 $(printf %s "$2" | base64 -w 0)" >&3; }

# Path of a device-mapper device, or of a disk, unchanged.
dev() { case $1 in /*) echo "$1" ;; *) echo "/dev/mapper/$1" ;; esac; }

sectors() { blockdev --getsz "$(dev "$1")"; }

# What can be had without a process is: under emulation each costs some hundredths of a second.

# The disk behind TARGET:LUN; disks appear in the background.
disk_at() {
    local tries=0 address=$1
    while set -- "/sys/class/scsi_disk/0:0:$address/device/block/"*; [ ! -e "$1" ]; do
        tries=$((tries + 1))
        [ $tries -lt 1000 ] || { echo "no disk at $address" >&2; return 1; }
        usleep 10000
    done
    disk=/dev/${1##*/}
}

# create NAME TABLE: any device-mapper device.
create() { dmsetup create "$1" --table "$2"; }

# snapshot NAME ORIGIN COW MODE CHUNK [FEATURE...], MODE being P or PO.
snapshot() { snapshot_target snapshot "$@"; }

# The same for a merge into the origin; it starts at once.
merge() { snapshot_target snapshot-merge "$@"; }

snapshot_target() {
    local target=$1 name=$2 origin cow
    origin=$(dev "$3") cow=$(dev "$4")
    local mode=$5 chunk=$6
    shift 6
    create "$name" "0 $(sectors "$origin") $target $origin $cow $mode $chunk $([ $# = 0 ] || echo $# "$@")"
}

# origin_of NAME ORIGIN: the device through which the origin is written so that snapshots see it.
origin_of() { create "$1" "0 $(sectors "$2") snapshot-origin $(dev "$2")"; }

# An origin device learns the chunk sizes of snapshots made after it only on a resume.
refresh() { dmsetup suspend "$1"; dmsetup resume "$1"; }

detach() { local name; for name in "$@"; do dmsetup remove "$name"; done; }

forget_devices() {
    local tries=0
    while set -- /sys/block/dm-*; [ -e "$1" ] && [ $tries -lt 5 ]; do
        dmsetup remove_all --force
        tries=$((tries + 1))
    done
}

# The target's own words, without position and name of the target.
status() {
    local start length target words
    dmsetup status "$1" > /tmp/status || return
    read -r start length target words < /tmp/status
    echo "$words"
}
table() { dmsetup table "$1" | cut -d ' ' -f 3-; }

# wait_merge NAME: until the merge has ended, well or badly; prints the last status.
wait_merge() {
    local now figures
    while :; do
        now=$(status "$1")
        figures=${now#*/}
        case $now in */*) [ "${now%%/*}" != "${figures#* }" ] || break ;; *) break ;; esac
        usleep 20000
    done
    echo "$now"
}

# hash DEVICE: SHA-256 of its content, past the page cache.
hash() { content "$1" | sha256sum | cut -d ' ' -f 1; }
content() { dd if="$(dev "$1")" bs=64k iflag=direct 2> /dev/null; }

# put DEVICE SECTOR COUNT FROM: writes sectors FROM... of the pattern disk, in one request where
# the kernel can.
put() { write_direct "$1" "$2" "$3" "$pattern" "$4"; }

# fill DEVICE SECTOR COUNT BYTE, the byte in octal.
fill() {
    head -c $(($3 * 512)) /dev/zero | tr '\000' "\\$4" > /tmp/fill
    write_direct "$1" "$2" "$3" /tmp/fill 0
}

# write_direct DEVICE SECTOR COUNT SOURCE SOURCE_SECTOR
# The count is in bytes, because dd aligns its buffer for direct I/O only if a block is a page or
# more, and falls back to whole buffered pages otherwise.
write_direct() {
    local length=$(($3 * 512))
    dd if="$4" of="$(dev "$1")" bs=$((length < 4096 ? 4096 : length)) count=$length \
        skip=$(($5 * 512)) seek=$(($2 * 512)) \
        iflag=skip_bytes,count_bytes oflag=direct,seek_bytes conv=notrunc
}

discard() { blkdiscard -o $(($2 * 512)) -l $(($3 * 512)) "$(dev "$1")"; }

# A device like ORIGIN, except that COUNT sectors from SECTOR on cannot be read or written.
# with_bad_sectors NAME ORIGIN SECTOR COUNT
with_bad_sectors() {
    local size after=$(($3 + $4))
    size=$(sectors "$2")
    create "$1" "0 $3 linear $(dev "$2") 0
$3 $4 error
$after $((size - after)) linear $(dev "$2") $after"
}

# fails COMMAND...: for what must not work.
fails() { if "$@"; then echo "worked, but must fail: $*" >&2; return 1; fi; }

# leave NAME: tells the live status (and content) of snapshot NAME, and detaches it.
leave() {
    field "$1.live_status" "$(status "$1")"
    case $(status "$1") in Invalid) ;; *) field "$1.live_view" "$(hash "$1")" ;; esac
    detach "$1"
}

# examine NAME ORIGIN COW CHUNK: tells status and content of the store when loaded afresh.
examine() {
    snapshot examined "$2" "$3" P "$4"
    field "$1.status" "$(status examined)"
    if content examined > /dev/null 2>&1; then
        field "$1.view" "$(hash examined)"
    else
        field "$1.view" unreadable
    fi
    detach examined
}
