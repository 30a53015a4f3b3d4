"""A VM whose image lacks space stops, and goes on when there is some: the guest sees nothing."""

import unittest

from harness import tools
from harness.case import MIB, SECTOR, Case
from harness.writer import Writer

SEED = 71
SIZE = 16 * MIB
HALF = SIZE // SECTOR // 2
FULL = 4 * MIB
# Chunk 1 of a layer holds its first records.
CHUNK = 16384


class NoSpace(Case):
    def small_file_system(self):
        """An ext4 in a file, mounted; freed() gives back its ballast bit by bit."""
        image, place = self.dir / "ext4", self.dir / "small"
        with open(image, "wb") as file:
            file.truncate(64 * MIB)
        tools.run("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", image)
        place.mkdir()
        tools.run("mount", "-o", "loop", image, place)
        self.addCleanup(tools.run, "umount", place)
        return place

    def leave_free(self, place, size):
        """Fills a file system but for so many bytes."""
        ballast = place / "ballast"
        ballast.unlink(missing_ok=True)
        tools.run("sync", "-f", place)
        tools.run("fallocate", "-l", self.available(place) - size, ballast)

    def available(self, place):
        return int(tools.run("df", "--output=avail", "-B1", place).split()[-1])

    def test_no_space_for_data(self):
        place = self.small_file_system()
        base = self.stamped("base.raw", SIZE, SEED)
        layer = tools.create(place / "layer.dms", backing=base, backing_format="raw")
        self.leave_free(place, FULL)
        with self.vm() as vm:
            nodes = vm.chain("layer", (base, "raw"), (layer, "dmsnap"))
            vm.disk(nodes[-1], "data", werror="enospc")
            vm.launch()
            # One request at a time in one half, as many as the guest likes in the other.
            writers = [
                Writer(vm, "data", SEED, sectors=HALF),
                Writer(vm, "data", SEED, first=HALF, cached=True),
            ]
            for writer in writers:
                writer.start()
            for _ in range(3):
                self.await_stop(vm)
                self.leave_free(place, FULL)
                vm.cmd("cont")
            self.await_stop(vm)
            (place / "ballast").unlink()
            vm.cmd("cont")
            for writer in writers:
                writer.await_batches(5)
            self.finish(vm, base, layer, *writers)

    def test_no_space_for_records(self):
        """A flush writes records: that it lacks space is the flush's failure."""
        base = self.stamped("base.raw", SIZE, SEED)
        layer = tools.create(self.dir / "layer.dms", backing=base, backing_format="raw")
        fault = {
            "event": "none",
            "iotype": "write",
            "errno": 28,
            "once": True,
            "sector": CHUNK // SECTOR,
        }
        with self.vm() as vm:
            vm.image("base", base, "raw")
            vm.blockdev({"driver": "file", "node-name": "file", "filename": str(layer)})
            # For the guest's flush, that of the VM that stops, and the guest's again.
            faults = {"inject-error": [fault] * 3}
            vm.blockdev({"driver": "blkdebug", "node-name": "debug", "image": "file", **faults})
            vm.blockdev(
                {"driver": "dmsnap", "node-name": "top", "file": "debug", "backing": "base"}
            )
            vm.disk("top", "data", werror="enospc")
            vm.launch()
            writer = Writer(vm, "data", SEED)
            writer.start()
            for _ in range(2):
                self.await_stop(vm)
                vm.cmd("cont")
            writer.await_batches(5)
            self.finish(vm, base, layer, writer)

    def await_stop(self, vm):
        """Until the VM has stopped for lack of space."""
        event = vm.await_event("BLOCK_IO_ERROR")
        self.assertEqual(event["data"]["action"], "stop", event)
        self.assertTrue(event["data"]["nospace"], event)
        vm.await_event("STOP")
        self.assertEqual(vm.cmd("query-status")["status"], "io-error")

    def finish(self, vm, base, layer, *writers):
        """All that the guest wrote is there, for the kernel too."""
        for writer in writers:
            writer.stop()
            writer.verify()
        raw = self.assert_agreement(vm, "data", base, layer)
        for writer in writers:
            writer.verify_file(raw)


if __name__ == "__main__":
    unittest.main()
