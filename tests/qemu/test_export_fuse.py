"""Layers that the storage daemon shows as raw files, by FUSE, to programs that know no format."""

import contextlib
import json
import os
import random
import unittest

from harness.exports import HOLE, MIB, SIZE, ExportTest, each_chunk, noise, same
from harness.servers import FuseDaemon, layer_node
from harness.tools import dmsnap, run, sha256


@contextlib.contextmanager
def loop_device(file):
    device = run("losetup", "--find", "--show", file).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


@contextlib.contextmanager
def mounted(device, directory):
    directory.mkdir(exist_ok=True)
    run("mount", device, directory)
    try:
        yield directory
    finally:
        run("umount", directory)


class Fuse(ExportTest):
    def serve(self, layer, growable=False):
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            self.fail("/dev/fuse is missing or not for this user: these tests need FUSE")
        return FuseDaemon(self.dir, layer_node("disk", layer), growable)

    def scatter(self, file, disk):
        """Writes of any place and length, also behind each other."""
        dice = random.Random("scatter")
        for _ in range(200):
            start = dice.randrange(SIZE)
            data = dice.randbytes(min(dice.choice((1, 511, 4096, 70000)), SIZE - start))
            os.pwrite(file, data, start)
            disk[start : start + len(data)] = data

    def size_of(self, layer):
        return json.loads(dmsnap("info", "--output", "json", layer))["virtual-size"]

    @each_chunk
    def test_reads_and_writes(self, layer, disk):
        with self.serve(layer) as server:
            self.assertEqual(server.file.stat().st_size, SIZE)
            self.assertEqual(run("sha256sum", server.file).split()[0], self.base_sum)
            with open(server.file, "r+b", buffering=0) as file:
                self.scatter(file.fileno(), disk)
                os.fsync(file.fileno())
            same(server.file.read_bytes(), disk, "what the file shows")
        self.judge(layer, disk)

    @each_chunk
    def test_killed(self, layer, disk):
        """After SIGKILL all is there that was written before fsync, without repair."""
        with self.serve(layer) as server:
            file = os.open(server.file, os.O_RDWR)
            self.scatter(file, disk)
            os.fsync(file)
            # Before the file is closed, which would flush.
            server.kill()
            with contextlib.suppress(OSError):
                os.close(file)
        self.judge(layer, disk)

    @each_chunk
    def test_holes(self, layer, disk):
        """fallocate makes zeros, also over the base, and gives back space; cp sees them."""
        ranges = {"--punch-hole": (MIB, 3 * MIB), "--zero-range": (20 * MIB + 700, 100000)}
        with self.serve(layer) as server:
            with open(server.file, "r+b") as file:
                file.write(noise(8 * MIB, "data"))
            disk[: 8 * MIB] = noise(8 * MIB, "data")
            occupied = layer.stat().st_blocks * 512
            for how, (start, length) in ranges.items():
                run("fallocate", how, "-o", start, "-l", length, server.file)
                disk[start : start + length] = bytes(length)
            self.assertLess(layer.stat().st_blocks * 512, occupied - 2 * MIB)
            copy = self.dir / "copy"
            run("cp", "--sparse=always", server.file, copy)
        same(copy.read_bytes(), disk, "the copy")
        self.assertLess(copy.stat().st_blocks * 512, SIZE - len(HOLE) - 2 * MIB)
        self.judge(layer, disk)

    @each_chunk
    def test_copied_into(self, layer, _):
        """The file is cut to nothing and grows again: its holes must not show the base."""
        source = self.dir / "source"
        content = bytearray(SIZE + 3 * MIB)
        content[5 * MIB : 6 * MIB] = noise(MIB, "one")
        content[SIZE + 2 * MIB :] = noise(MIB, "two")
        source.write_bytes(content)
        with self.serve(layer, growable=True) as server:
            # That a program opens it with O_TRUNC means nothing to QEMU.
            os.truncate(server.file, 0)
            run("dd", f"if={source}", f"of={server.file}", "bs=64K", "conv=sparse")
            same(server.file.read_bytes(), content, "what the file shows")
        self.assertEqual(self.size_of(layer), len(content))
        self.judge(layer, content)

    def test_grows(self):
        layer = self.layer("layer")
        with self.serve(layer, growable=True) as server:
            os.truncate(server.file, SIZE + MIB)
            with open(server.file, "r+b", buffering=0) as file:
                os.pwrite(file.fileno(), b"e" * 1024, SIZE + 2 * MIB)
                with self.assertRaisesRegex(OSError, "Invalid argument"):
                    # As with other formats, disks end with a sector.
                    os.pwrite(file.fileno(), b"e", SIZE + 3 * MIB)
        grown = self.content + bytes(2 * MIB) + b"e" * 1024
        self.assertEqual(self.size_of(layer), len(grown))
        self.judge(layer, grown)

    def test_does_not_grow(self):
        """Without growable=on, writes end where the disk ends."""
        layer = self.layer("layer")
        with self.serve(layer) as server:
            with open(server.file, "r+b", buffering=0) as file:
                self.assertEqual(os.pwrite(file.fileno(), bytes(1024), SIZE - 512), 512)
                with self.assertRaises(OSError):
                    os.pwrite(file.fileno(), b"x", SIZE)
        self.assertEqual(self.size_of(layer), SIZE)
        self.judge(layer, self.content[:-512] + bytes(512))

    @each_chunk
    def test_file_system(self, layer, _):
        """On a loop device over the file: trimmed, mounted again and checked."""
        self.need_root("loop devices")
        tree = self.dir / "tree"
        tree.mkdir(exist_ok=True)
        for number in range(40):
            (tree / str(number)).write_bytes(noise(number * 20011, number))
        sums = {path.name: sha256(path) for path in tree.iterdir()}
        mount = self.dir / "mount"
        with self.serve(layer) as server, loop_device(server.file) as device:
            run("mke2fs", "-q", "-t", "ext4", device)
            with mounted(device, mount):
                run("cp", "-r", tree, mount)
                for number in range(0, 40, 2):
                    (mount / "tree" / str(number)).unlink()
                    del sums[str(number)]
                run("fstrim", mount)
            run("e2fsck", "-fn", device)
            with mounted(device, mount):
                there = {path.name: sha256(path) for path in (mount / "tree").iterdir()}
                self.assertEqual(there, sums)
            shown = server.file.read_bytes()
        self.judge(layer, shown)


if __name__ == "__main__":
    unittest.main()
