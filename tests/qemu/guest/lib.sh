# What commands in the guest can use.

# await COMMAND...: until it works, a minute at least.
await() {
    local tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 3000 ] || { echo "in vain: $*" >&2; return 1; }
        usleep 20000
    done
}

# The disk with this serial number; disks that are plugged in appear after a while.
disk() {
    local device
    await find_disk "$1" || { echo "in /sys/block is only: $(ls /sys/block)" >&2; return 1; }
    echo "$device"
}

find_disk() {
    local block
    for block in /sys/block/*; do
        if [ "$(cat "$block/serial" 2> /dev/null)" = "$1" ]; then
            device=/dev/${block##*/}
            return
        fi
    done
    return 1
}

# start_job NAME COMMAND...: in the background; its output and status are kept.
start_job() {
    local name="$1"
    shift
    (
        set +e
        "$@" > "/jobs/$name.output" 2>&1
        echo $? > "/jobs/$name.part"
        mv "/jobs/$name.part" "/jobs/$name.status"
    ) < /dev/null > /dev/null 2>&1 &
}

# SHA-256 of a device, past the page cache.
hash() { dd if="$1" bs=64k iflag=direct status=none | sha256sum | cut -d " " -f 1; }

# Removes a layer that the lines of `dmsnap table` made, and what they put below it.
forget() {
    dmsetup remove "$1"
    [ ! -e "/dev/mapper/$1-origin" ] || dmsetup remove "$1-origin"
}
