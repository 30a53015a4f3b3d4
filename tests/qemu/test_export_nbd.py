"""Layers served over NBD to the tools of libnbd, to fio and to QEMU's own client."""

import json
import unittest
from concurrent.futures import ThreadPoolExecutor

from harness.exports import HOLE, KIB, MIB, SIZE, ExportTest, each_chunk, noise, same, unpatched
from harness.servers import NbdDaemon, QemuNbd, layer_node
from harness.tools import BUILD, ToolError, dmsnap, run
from harness.vm import image_nodes

# Four connections with writes of 4 KiB and of mixed sizes, in this region each.
FIO_REGIONS = [(start * MIB, (start + 4) * MIB) for start in (0, 7, 14, 21)]
FIO_SIZES = ("bs=4k", "bssplit=512/10:4k/40:20k/30:64k/20")
FIO_JOBS = """
[global]
ioengine=nbd
thread=1
rw=randwrite
size=4m
iodepth=16
verify=crc32c
verify_fatal=1
verify_state_save=0
""" + "".join(
    f"[at{start}]\noffset={start}\n{FIO_SIZES[number % 2]}\nuri=URI\n"
    for number, (start, _) in enumerate(FIO_REGIONS)
)


def start(server):
    """Starts a server that may be unable to."""
    with server:
        pass


def client(uri, *commands, status=0):
    """Runs commands of an unpatched qemu-io; it flushes when it ends, and else only as told."""
    words = [word for command in commands for word in ("-c", command)]
    return run(unpatched("qemu-io"), "-t", "writeback", "-f", "raw", *words, uri, status=status)


def killed_client(uri, *commands):
    """The same, but nothing is flushed at the end."""
    client(uri, *commands, "sigraise 9", status=-9)


def facts(uri):
    (export,) = json.loads(run("nbdinfo", "--json", uri))["exports"]
    return export


def zeros(uri):
    """What the server says are zeros: a list of (start, end), adjacent ones joined."""
    ranges = []
    for extent in json.loads(run("nbdinfo", "--json", "--map", uri)):
        start, end = extent["offset"], extent["offset"] + extent["length"]
        if not extent["type"] & 2:
            continue
        if ranges and ranges[-1][1] == start:
            start, _ = ranges.pop()
        ranges.append((start, end))
    return ranges


class Served:
    """What holds whichever program serves a layer."""

    def serve(self, layer, detect_zeroes="off", writable=True):
        """A server, whose `uri` is the layer's."""
        raise NotImplementedError

    def read_all(self, uri):
        path = self.dir / "shown"
        run("nbdcopy", uri, path)
        shown = path.read_bytes()
        path.unlink()
        return shown

    @each_chunk
    def test_facts(self, layer, _):
        with self.serve(layer) as server:
            export = facts(server.uri)
        self.assertEqual(export["export-size"], SIZE)
        self.assertIn("base:allocation", export["contexts"])
        self.assertEqual(export["block_size_minimum"], 1)
        self.assertGreaterEqual(export["block_size_maximum"], 32 * MIB)
        self.assertFalse(export["is_read_only"])
        for ability in ("flush", "fua", "trim", "zero", "fast_zero", "df", "multi_conn"):
            self.assertTrue(export[f"can_{ability}"], ability)

    def test_read_only(self):
        layer = self.layer("layer")
        with self.serve(layer, writable=False) as server:
            self.assertTrue(facts(server.uri)["is_read_only"])
            refused = client(server.uri, "write 0 4k", status=1)
            self.assertIn("Permission denied", refused)
            same(self.read_all(server.uri), self.content, "what is read")
        self.judge(layer, self.content)

    @each_chunk
    def test_map(self, layer, disk):
        """Zeros are seen where the base has a hole, and where the layer has."""
        data = (HOLE.start + MIB, HOLE.start + MIB + 64 * KIB)
        expected = [
            (2 * MIB, 2 * MIB + 128 * KIB),
            (3 * MIB, 3 * MIB + 128 * KIB),
            (HOLE.start, data[0]),
            (data[1], HOLE.stop),
        ]
        with self.serve(layer) as server:
            self.assertEqual(zeros(server.uri), [(HOLE.start, HOLE.stop)])
            client(server.uri, f"write -P 0x5a {data[0]} 64k", "write -z -u 2M 128k")
            client(server.uri, "write -P 0x5b 3M 256k", "discard 3M 128k")
            self.assertEqual(zeros(server.uri), expected)
        disk[data[0] : data[1]] = b"\x5a" * (64 * KIB)
        disk[3 * MIB : 3 * MIB + 256 * KIB] = b"\x5b" * (256 * KIB)
        for start, end in expected:
            disk[start:end] = bytes(end - start)
        self.judge(layer, disk)

    @each_chunk
    def test_copies(self, layer, _):
        """nbdcopy writes a full and a sparse disk over four connections, and reads them back."""
        source = self.dir / "source"
        for name, extents in (("full", [(0, SIZE)]), ("sparse", [(MIB, 77777), (20 * MIB, MIB)])):
            content = bytearray(SIZE)
            for offset, length in extents:
                content[offset : offset + length] = noise(length, name)
            source.write_bytes(content)
            how = ["--connections=4", "--requests=16", "--request-size=65536", "--flush"]
            with self.serve(layer) as server:
                run("nbdcopy", *how, source, server.uri)
                same(self.read_all(server.uri), content, f"the {name} disk, read back")
            self.judge(layer, content)

    @each_chunk
    def test_zeros_and_trim(self, layer, disk):
        """Zeros are exact to the byte; a trim gives back space and touches nothing beside it."""
        zeroed = ((1300001, 333), (1500 * KIB, 100 * KIB), (6000001, 70000), (7 * MIB, 64 * KIB))
        with self.serve(layer) as server:
            client(
                server.uri, "write -P 1 1M 4M", "write -z 1300001 333", "write -z -u 1500k 100k"
            )
            client(server.uri, "write -z 6000001 70000", "write -z -n 7M 64k")
            disk[MIB : 5 * MIB] = b"\x01" * (4 * MIB)
            for start, length in zeroed:
                disk[start : start + length] = bytes(length)
            same(self.read_all(server.uri), disk, "with zeros")

            start, end = 2 * MIB + 512, 4 * MIB - 512
            occupied = layer.stat().st_blocks * 512
            client(server.uri, f"discard {start} {end - start}")
            self.assertLess(layer.stat().st_blocks * 512, occupied - MIB)
            shown = self.read_all(server.uri)
            # What was trimmed may be anything.
            disk[start:end] = shown[start:end]
            same(shown, disk, "beside the trim")
        self.judge(layer, disk)

    @each_chunk
    def test_detected_zeros(self, layer, disk):
        """Zeros that arrive as data take no space."""
        disk[:] = bytes(SIZE)
        disk[3 * MIB : 3 * MIB + 64 * KIB] = noise(64 * KIB, "data")
        source = self.dir / "source"
        source.write_bytes(disk)
        with self.serve(layer, detect_zeroes="unmap") as server:
            # nbdcopy would detect them itself otherwise.
            how = ["--no-extents", "--sparse=0", "--request-size=65536", "--flush"]
            run("nbdcopy", *how, source, server.uri)
            self.assertLess(layer.stat().st_blocks * 512, MIB)
        self.judge(layer, disk)

    @each_chunk
    def test_fio(self, layer, disk):
        """What four connections write is verified at once, and when another server serves it."""
        jobs = self.dir / "jobs.fio"
        with self.serve(layer) as server:
            jobs.write_text(FIO_JOBS.replace("URI", f"{server.uri}\nverify_backlog=64"))
            run("fio", jobs)
            shown = self.read_all(server.uri)
        self.judge(layer, shown)
        with self.serve(layer) as server:
            # With a backlog, this would verify nothing.
            jobs.write_text(FIO_JOBS.replace("URI", server.uri))
            run("fio", "--verify_only", jobs)
        for start, end in FIO_REGIONS:
            disk[start:end] = shown[start:end]
        same(shown, disk, "beside what fio wrote")

    @each_chunk
    def test_killed(self, layer, disk):
        """After SIGKILL all is there that was flushed or written with FUA, without repair."""
        for last in (
            ("write -P 0x11 100k 300k", "write -P 0x12 5000001 777", "flush"),
            ("write -P 0x13 -f 10M 70k",),
            ("write -z -f 6M 50k",),
            ("write -P 0x14 21M 100k",),
        ):
            with self.serve(layer) as server:
                killed_client(server.uri, *last)
                server.kill()
            dmsnap("check", layer)
        for start, length, value in (
            (100 * KIB, 300 * KIB, 0x11),
            (5000001, 777, 0x12),
            (10 * MIB, 70 * KIB, 0x13),
            (6 * MIB, 50 * KIB, 0),
        ):
            disk[start : start + length] = bytes([value]) * length
        with self.serve(layer) as server:
            shown = self.read_all(server.uri)
        # Of the last write, which nothing flushed, any sector may be there or not.
        for start in range(21 * MIB, 21 * MIB + 100 * KIB, 512):
            sector = slice(start, start + 512)
            self.assertIn(shown[sector], (disk[sector], b"\x14" * 512))
            disk[sector] = shown[sector]
        same(shown, disk, "after SIGKILL")
        self.judge(layer, disk)

    def test_locked(self):
        """A layer that is served is nobody else's, and each message says so."""
        layer = self.layer("layer")
        users = (
            lambda: start(QemuNbd(self.dir, layer, name="second")),
            lambda: start(QemuNbd(self.dir, layer, "--read-only", name="second")),
            lambda: start(
                NbdDaemon(self.dir, [layer_node("disk", layer)], ["disk"], name="second")
            ),
            lambda: run(BUILD / "qemu-io", "-f", "dmsnap", "-c", "quit", layer),
            lambda: run(unpatched("qemu-io"), "-f", "raw", "-c", "write 0 4k", layer),
            lambda: dmsnap("io", layer, "-c", "write 0 4k"),
            lambda: dmsnap("merge", layer),
        )
        with self.serve(layer) as server:
            for user in users:
                with self.assertRaises(ToolError) as caught:
                    user()
                self.assertRegex(str(caught.exception), r'"write" lock|somebody else has it open')
                self.assertIn(str(layer), str(caught.exception))
            client(server.uri, "write -P 7 0 4k")
        self.judge(layer, b"\x07" * (4 * KIB) + self.content[4 * KIB :])


class ThroughQemuNbd(Served, ExportTest):
    def serve(self, layer, detect_zeroes="off", writable=True):
        options = ["--discard=unmap", f"--detect-zeroes={detect_zeroes}"]
        if not writable:
            options = ["--read-only"]
        return QemuNbd(self.dir, layer, *options)


class ThroughStorageDaemon(Served, ExportTest):
    def serve(self, layer, detect_zeroes="off", writable=True):
        node = layer_node(
            "disk", layer, **{"detect-zeroes": detect_zeroes, "read-only": not writable}
        )
        server = NbdDaemon(self.dir, [node], ["disk"], writable)
        server.uri = server.uris["disk"]
        return server


class TwoLayers(ExportTest):
    """Two layers over one base, written at the same time."""

    def setUp(self):
        super().setUp()
        self.layers = {"one": self.layer("one", "4K"), "two": self.layer("two", "64K")}
        self.expected = {name: bytearray(self.content) for name in self.layers}

    def write_both(self, uris):
        def write(name):
            """Data and zeros into each megabyte."""
            source = self.dir / f"{name}.data"
            source.write_bytes(noise(512 * KIB, name))
            piece = source.read_bytes() + bytes(90 * KIB)
            commands = []
            for at in range(0, 24 * MIB, MIB):
                commands += [f"write -s {source} {at} 512k", f"write -z -u {at + 512 * KIB} 90k"]
                self.expected[name][at : at + len(piece)] = piece
            client(uris[name], *commands)

        with ThreadPoolExecutor() as pool:
            list(pool.map(write, uris))

    def judge_both(self):
        for name, layer in self.layers.items():
            self.judge(layer, self.expected[name])

    def test_one_daemon(self):
        base = image_nodes("base", self.base, "raw", **{"read-only": True})
        nodes = [layer_node(name, layer, backing="base") for name, layer in self.layers.items()]
        with NbdDaemon(self.dir, [*base, *nodes], list(self.layers)) as server:
            self.write_both(server.uris)
        self.judge_both()

    def test_two_servers(self):
        one, two = (QemuNbd(self.dir, self.layers[name], name=name) for name in self.layers)
        with one, two:
            self.write_both({"one": one.uri, "two": two.uri})
        self.judge_both()

    def test_twice_in_one_daemon(self):
        """A second node of the same file is refused by the first one's lock."""
        nodes = [layer_node(name, self.layers["one"]) for name in ("first", "second")]
        with self.assertRaisesRegex(ToolError, 'Failed to get "write" lock'):
            start(NbdDaemon(self.dir, nodes, ["first", "second"]))
        self.judge(self.layers["one"], self.content)


if __name__ == "__main__":
    unittest.main()
