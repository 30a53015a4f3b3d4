"""Snapshots, block jobs and a resize while the guest writes and verifies its disk.

A job starts so slowly that it cannot end, and is let go only when the guest has written more:
so it is certain that both met.
"""

import shutil
import tempfile
import unittest
from pathlib import Path

from harness import tools
from harness.case import MIB, SECTOR, Case
from harness.writer import Writer

SEED = 23
SIZE = 16 * MIB
# Of the guest's writes, these many are in each layer from the start.
BATCHES = 15
LAYERS = 3


class Jobs(Case):
    @classmethod
    def setUpClass(cls):
        """A raw file and layers, each with writes of its own, to copy for each test."""
        cls.images = Path(tempfile.mkdtemp(prefix="dmsnap-"))
        cls.addClassCleanup(shutil.rmtree, cls.images)
        base, disk = cls.images / "layer0", cls.images / "disk"
        tools.stamp("fill", base, SEED, SIZE // SECTOR)
        shutil.copy(base, disk)
        for number in range(LAYERS):
            before = number * BATCHES
            tools.stamp("write", "-a", before, "-b", before + BATCHES, disk, SEED)
            backing = ["-B", f"layer{number}", "-F", "dmsnap" if number else "raw"]
            new = cls.images / f"layer{number + 1}"
            tools.dmsnap("convert", "-q", "-f", "raw", "-O", "dmsnap", *backing, disk, new)

    def layer(self, number):
        return self.dir / f"layer{number}"

    def begin(self, vm, layers):
        """A guest that writes to the uppermost of the nodes layer0..., from the raw file up."""
        for number in range(layers + 1):
            shutil.copy(self.images / f"layer{number}", self.layer(number))
        formats = ["raw"] + ["dmsnap"] * layers
        nodes = vm.chain("layer", *[(self.layer(n), fmt) for n, fmt in enumerate(formats)])
        vm.disk(nodes[-1], "data")
        vm.launch()
        writer = Writer(vm, "data", SEED, layers * BATCHES, sectors=SIZE // SECTOR)
        writer.start()
        writer.await_batches(2)
        return writer

    def slowly(self, vm, writer, command, **arguments):
        """Starts a job that does not get on before the guest has."""
        vm.start_job(command, "job", speed=1, **arguments)
        writer.await_batches(3)
        info = vm.job_info("job")
        self.assertEqual(info["status"], "running", f"{command}: {info}")
        vm.cmd("block-job-set-speed", device="job", speed=0)

    def pivot(self, vm, writer):
        """Completes a job that switches to its target, after more writes."""
        vm.await_job("job", "ready")
        writer.await_batches(2)
        vm.cmd("block-job-complete", device="job")
        vm.end_job("job")

    def end(self, vm, writer, *chain):
        """Guest, dmsnap, QEMU and kernel agree on what the chain shows, the guest's writes."""
        writer.await_batches(2)
        writer.stop()
        writer.verify()
        writer.verify_file(self.assert_agreement(vm, "data", *chain))
        # Those that a job has taken out of the chain, too.
        for layer in self.dir.glob("layer[1-9]"):
            tools.dmsnap("check", layer)

    def test_snapshot(self):
        with self.vm() as vm:
            writer = self.begin(vm, 1)
            for number in (2, 3):
                below = {"backing-file": str(self.layer(number - 1)), "backing-fmt": "dmsnap"}
                top = vm.new_image(f"layer{number}", self.layer(number), SIZE, **below)
                flushed = vm.guest.flushed()
                vm.cmd("blockdev-snapshot", node=f"layer{number - 1}", overlay=top)
                self.assert_frozen(self.layer(number - 1), flushed)
                writer.await_batches(2)
            self.end(vm, writer, *[self.layer(number) for number in range(4)])

    def assert_frozen(self, layer, flushed):
        """A layer below the top is complete in its file, also while QEMU runs."""
        raw = self.assert_layers(layer)
        tools.stamp("verify", "-b", flushed, raw, SEED)

    def test_commit_of_the_active_layer(self):
        with self.vm() as vm:
            writer = self.begin(vm, 2)
            self.slowly(vm, writer, "block-commit", device="layer2", base_node="layer1")
            self.pivot(vm, writer)
            self.end(vm, writer, self.layer(0), self.layer(1))

    def test_commit_of_a_middle_layer(self):
        with self.vm() as vm:
            writer = self.begin(vm, 3)
            nodes = {"top_node": "layer2", "base_node": "layer1", "backing_file": "layer1"}
            self.slowly(vm, writer, "block-commit", device="layer3", **nodes)
            vm.end_job("job")
            self.end(vm, writer, self.layer(0), self.layer(1), self.layer(3))

    def test_commit_into_the_raw_file(self):
        with self.vm() as vm:
            writer = self.begin(vm, 2)
            nodes = {"top_node": "layer1", "base_node": "layer0", "backing_file": "layer0"}
            self.slowly(vm, writer, "block-commit", device="layer2", **nodes)
            vm.end_job("job")
            self.end(vm, writer, self.layer(0), self.layer(2))

    def test_stream_of_a_middle_layer(self):
        with self.vm() as vm:
            writer = self.begin(vm, 3)
            nodes = {"base_node": "layer1", "backing_file": "layer1"}
            self.slowly(vm, writer, "block-stream", device="layer3", **nodes)
            vm.end_job("job")
            self.end(vm, writer, self.layer(0), self.layer(1), self.layer(3))

    def test_stream_of_everything(self):
        with self.vm() as vm:
            writer = self.begin(vm, 2)
            self.slowly(vm, writer, "block-stream", device="layer2")
            vm.end_job("job")
            self.end(vm, writer, None, self.layer(2))

    def test_mirror_to_qcow2_and_back(self):
        with self.vm() as vm:
            writer = self.begin(vm, 2)
            there = {
                "target": str(self.dir / "copy.qcow2"),
                "format": "qcow2",
                "node_name": "copy",
            }
            self.slowly(vm, writer, "drive-mirror", device="layer2", sync="full", **there)
            self.pivot(vm, writer)
            writer.await_batches(2)
            vm.new_image("back", self.dir / "back", SIZE, **{"chunk-size": 65536})
            self.slowly(vm, writer, "blockdev-mirror", device="copy", target="back", sync="full")
            self.pivot(vm, writer)
            self.end(vm, writer, None, self.dir / "back")

    def test_backup(self):
        """The copy is the disk as it was when the backup began, whatever was written meanwhile."""
        with self.vm() as vm:
            writer = self.begin(vm, 2)
            writer.stop()
            view, batches = vm.guest.run("hash $(disk data)"), writer.batches
            vm.new_image("backup", self.dir / "backup", SIZE)
            vm.start_job(
                "blockdev-backup", "job", device="layer2", target="backup", sync="full", speed=1
            )
            writer.start()
            writer.await_batches(5)
            self.assertEqual(vm.job_info("job")["status"], "running")
            vm.cmd("block-job-set-speed", device="job", speed=0)
            vm.end_job("job")
            self.end(vm, writer, *[self.layer(number) for number in range(3)])
            raw = self.assert_view(vm, view, None, self.dir / "backup")
            tools.stamp("verify", "-b", batches, raw, SEED)

    def test_resize(self):
        """The guest sees the new end, zeros up to it, and can write there."""
        with self.vm() as vm:
            writer = self.begin(vm, 2)
            vm.cmd("block_resize", node_name="layer2", size=SIZE * 3 // 2)
            writer.await_batches(2)
            vm.guest.run(f"""
                d=$(disk data)
                has_grown() {{ [ $(blockdev --getsize64 $d) = {SIZE * 3 // 2} ]; }}
                await has_grown
                dd if=$d bs=1M skip={SIZE // MIB} iflag=direct status=none |
                    cmp -n {SIZE // 2} - /dev/zero
                """)
            writer.stop()
            self.write_behind(vm.guest, SIZE // SECTOR, SIZE // 2 // SECTOR)
            writer.verify()
            writer.start()
            self.end(vm, writer, *[self.layer(number) for number in range(3)])

    def write_behind(self, guest, first, count):
        """Stamps in what was added, random writes over them, all verified."""
        guest.run(f"""
            d=$(disk data)
            stamp fill /tmp/stamps {SEED + 1} {first + count}
            at={first // 1024}
            dd if=/tmp/stamps of=$d bs=512k skip=$at seek=$at oflag=direct status=none
            rm /tmp/stamps
            stamp write -b 5 -o {first} $d {SEED + 1}
            stamp verify -b 5 -o {first} $d {SEED + 1}
            """)


if __name__ == "__main__":
    unittest.main()
