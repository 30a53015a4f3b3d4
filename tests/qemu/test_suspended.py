"""A first write that is held up half-way does not hold up anything else."""

import unittest

from harness import tools
from harness.case import MIB, SECTOR, Case

SEED = 31
SIZE = 8 * MIB
# Chunks of 16 KiB, in sectors.
CHUNK = 32


class Suspended(Case):
    def test_other_requests_finish_beside_a_suspended_first_write(self):
        base = self.stamped("base.raw", SIZE, SEED)
        layer = tools.create(self.dir / "layer.dms", backing=base, backing_format="raw")
        with self.vm() as vm:
            vm.image("base", base, "raw")
            vm.blockdev({"driver": "file", "node-name": "file", "filename": str(layer)})
            vm.blockdev({"driver": "blkdebug", "node-name": "debug", "image": "file"})
            vm.blockdev(
                {"driver": "dmsnap", "node-name": "top", "file": "debug", "backing": "base"}
            )
            vm.disk("top", "data")
            vm.launch()
            # In order to the device: what was started before a request that ended is there, too.
            vm.guest.run("d=$(disk data); echo none > /sys/block/${d##*/}/queue/scheduler")
            for round_number, event in enumerate(("cow_read", "write_aio")):
                self.hold_up(vm, event, first=round_number * 8 * CHUNK)
            self.assert_agreement(vm, "data", base, layer)

    def hold_up(self, vm, event, first):
        """Suspends the first write to the chunk at this sector at an event of the driver."""
        guest = vm.guest
        held, others = (first + 5, 3), (first + 2 * CHUNK + 3, 4 * CHUNK)
        behind = first + CHUNK
        vm.qemu_io("data", f"break {event} held")
        guest.start("held", stamp("write -d", 1, *held))
        guest.run("d=$(disk data); await grep -q ' [1-9]' /sys/block/${d##*/}/inflight")
        guest.run(stamp("verify", 0, behind, CHUNK))
        vm.qemu_io("data", "wait_break held")

        # Reads of all that follows, then first writes with their flush.
        guest.run(stamp("verify", 0, behind, SIZE // SECTOR - behind))
        guest.run(stamp("write -d", 2, *others))
        guest.run("[ ! -e /jobs/held.status ]")

        vm.qemu_io("data", "resume held")
        guest.finish("held")
        guest.run(stamp("verify", 1, *held))
        guest.run(stamp("verify", 2, *others))
        guest.run(stamp("verify", 0, first, SIZE // SECTOR - first))
        guest.run("rm /jobs/held.*")


def stamp(mode, batches, first, count):
    """The guest's command for so many batches in a range of sectors."""
    return f"stamp {mode} -b {batches} -o {first} -n {count} $(disk data) {SEED}"


if __name__ == "__main__":
    unittest.main()
