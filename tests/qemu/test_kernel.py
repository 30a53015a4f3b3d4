"""QEMU and the kernel write in turns to one layer; each shows what both wrote, byte for byte."""

import hashlib
import random
import unittest

from harness import tools
from harness.case import MIB, SECTOR, Case
from harness.judge import Judge, kernel_view

SEED = 83
# The last chunk is short, whatever the size of chunks.
SECTORS = 4 * MIB // SECTOR + 7
CHUNKS = (4096, 16384, 65536)


class Disk:
    """What a disk has to show: a raw file, and random writes that each side is told to do."""

    def __init__(self, base, stamps, seed):
        self.content = bytearray(base.read_bytes())
        self._stamps = stamps.read_bytes()
        self._random = random.Random(seed)

    def sha256(self):
        return hashlib.sha256(self.content).hexdigest()

    def random_range(self):
        start = self._random.randrange(SECTORS)
        return start * SECTOR, min(self._random.randint(1, 80), SECTORS - start) * SECTOR

    def qemu_writes(self, count):
        """Commands of qemu-io, with flushes and zeros among them."""
        commands = []
        for _ in range(count):
            start, length = self.random_range()
            byte = self._random.randrange(256)
            how = "-z" if byte == 0 or byte % 8 == 1 else f"-P {byte}"
            self.content[start : start + length] = bytes([0 if how == "-z" else byte]) * length
            commands.append(f"write {how} {start} {length}")
            if byte % 4 == 0:
                commands.append("flush")
        return commands

    def kernel_writes(self, guest, device, count):
        """Has the guest copy parts of its file of stamps to a device, each to its own place."""
        for _ in range(count):
            start, length = self.random_range()
            self.content[start : start + length] = self._stamps[start : start + length]
            guest.run(
                f"dd if=/tmp/stamps of={device} bs={max(length, 4096)} count={length}"
                f" skip={start} seek={start}"
                " iflag=skip_bytes,count_bytes oflag=direct,seek_bytes conv=notrunc status=none"
            )


class Kernel(Case):
    def setUp(self):
        super().setUp()
        self.base = self.stamped("base.raw", SECTORS * SECTOR, SEED)
        self.stamps = self.stamped("stamps", SECTORS * SECTOR, SEED + 1)

    def launch(self, vm):
        vm.launch()
        vm.guest.run(f"stamp fill /tmp/stamps {SEED + 1} {SECTORS}")

    def test_layer_that_qemu_made(self):
        with self.vm() as vm:
            self.launch(vm)
            for chunk in CHUNKS:
                self.take_turns_with_a_layer(vm, chunk)

    def take_turns_with_a_layer(self, vm, chunk):
        disk = Disk(self.base, self.stamps, f"layer of {chunk}")
        layer = tools.create(self.dir / f"{chunk}.dms", chunk, self.base, "raw")
        tools.qemu_io(layer, *disk.qemu_writes(60))
        with Judge(vm) as judge:
            device = judge.attach(judge.plug(self.base, read_only=True), layer)
            self.assert_device(vm, device, disk, f"chunk {chunk}: the kernel first")
            disk.kernel_writes(vm.guest, device, 10)
            self.assert_device(vm, device, disk, f"chunk {chunk}: the kernel after its writes")
        raw = self.assert_layers(layer)
        self.assertEqual(tools.sha256(raw), disk.sha256(), f"chunk {chunk}: QEMU after the kernel")
        tools.qemu_io(layer, *disk.qemu_writes(20))
        view = kernel_view(vm, self.base, layer)
        self.assertEqual(view, disk.sha256(), f"chunk {chunk}: the kernel after QEMU")

    def test_store_that_the_kernel_made(self):
        with self.vm() as vm:
            self.launch(vm)
            for chunk in CHUNKS:
                self.take_turns_with_a_store(vm, chunk)

    def take_turns_with_a_store(self, vm, chunk):
        disk = Disk(self.base, self.stamps, f"store of {chunk}")
        store = self.dir / f"{chunk}.cow"
        with open(store, "wb") as file:
            file.truncate(8 * MIB)
        with Judge(vm) as judge:
            origin, cow = judge.plug(self.base, read_only=True), judge.plug(store)
            device = judge.snapshot(origin, cow, chunk)
            disk.kernel_writes(vm.guest, device, 10)
            self.assert_device(vm, device, disk, f"chunk {chunk}: the kernel first")
        self.assert_store(store, disk, f"chunk {chunk}: after the kernel")
        tools.qemu_io(self.named(store), *disk.qemu_writes(40), options=["--image-opts"])
        self.assert_store(store, disk, f"chunk {chunk}: after its own writes")
        with Judge(vm) as judge:
            origin = judge.plug(self.base, read_only=True)
            device = judge.attach(origin, store, options=["--origin", self.base])
            self.assert_device(vm, device, disk, f"chunk {chunk}: the kernel after QEMU")
            disk.kernel_writes(vm.guest, device, 5)
        self.assert_store(store, disk, f"chunk {chunk}: after the kernel's second turn")

    def named(self, store):
        """A store without a descriptor, over the raw file, in QEMU's words."""
        backing = f"backing.driver=raw,backing.file.driver=file,backing.file.filename={self.base}"
        return f"driver=dmsnap,file.driver=file,file.filename={store},{backing}"

    def assert_device(self, vm, device, disk, when):
        self.assertEqual(vm.guest.run(f"hash {device}"), disk.sha256(), when)

    def assert_store(self, store, disk, when):
        """QEMU and dmsnap show the disk, and dmsnap finds nothing wrong."""
        tools.dmsnap("check", "--origin", self.base, store)
        theirs, ours = store.with_suffix(".raw"), store.with_suffix(".ours")
        tools.qemu_img("convert", "--image-opts", "-O", "raw", self.named(store), theirs)
        self.assertEqual(tools.sha256(theirs), disk.sha256(), f"{when}: QEMU")
        tools.dmsnap(
            "convert", "-q", "--origin", self.base, "-f", "dmsnap", "-O", "raw", store, ours
        )
        self.assertEqual(tools.sha256(ours), disk.sha256(), f"{when}: dmsnap")


if __name__ == "__main__":
    unittest.main()
