"""Power fails while QEMU writes to a layer: QEMU's own blklogwrites tells what it did to the file, in which order.

Every state that a cut could have left opens without a repair, shows all that was flushed, and nothing that nobody wrote.
"""

import os
import random
import subprocess
import unittest
from dataclasses import dataclass

from harness import tools
from harness.budget import count, seeds
from harness.case import MIB, SECTOR, Case
from harness.library import opened
from harness.log_writes import Log, Replay

PROMPT = b"qemu-io> "
STAMPS = 67
# With chunks of 4 KiB more than one area is needed.
SECTORS = 3 * MIB // SECTOR // 2 + 5
SESSIONS = 2
COMMANDS = 12
STATES_BY_CHANCE = 2
LEAKS = 3


class QemuIo:
    """A qemu-io that is given commands one by one."""

    def __init__(self, layer, log):
        image = (
            "driver=dmsnap,discard=unmap,detect-zeroes=off,file.driver=blklogwrites"
            f",file.file.driver=file,file.file.filename={layer},file.file.discard=unmap"
            f",file.log.driver=file,file.log.filename={log}"
        )
        self._process = subprocess.Popen(
            [tools.BUILD / "qemu-io", "--image-opts", image],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._until_prompt()

    def run(self, command):
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()
        said = self._until_prompt()
        if b"rror" in said or b"failed" in said:
            raise tools.ToolError(f"{command}: {said.decode()}")

    def _until_prompt(self):
        said = b""
        while not said.endswith(PROMPT):
            some = os.read(self._process.stdout.fileno(), 4096)
            if not some:
                raise tools.ToolError(f"qemu-io ended: {said.decode()}")
            said += some
        return said

    def close(self):
        self._process.stdin.close()
        self._process.stdout.read()
        self._process.stdout.close()
        if self._process.wait(tools.TIMEOUT) != 0:
            raise tools.ToolError("qemu-io failed at its end")


@dataclass
class Mark:
    """What was true when a command had ended."""

    position: int
    disk: bytes
    file_size: int
    is_durable: bool


class Writer:
    """Gives a layer random commands, and knows what it has to show after each."""

    def __init__(self, layer, chunk, disk, chance):
        self.layer = layer
        self.chunk = chunk
        self.disk = bytearray(disk)
        self._chance = chance
        self._mapped = set()

    def session(self, log):
        """Opens the layer, writes, closes it. Returns what the file held at first, and marks."""
        first = self.layer.read_bytes()
        log.write_bytes(b"")
        writes = Log(log)
        io = QemuIo(self.layer, log)
        marks = []

        def mark(is_durable):
            size = self.layer.stat().st_size
            marks.append(Mark(writes.position(), bytes(self.disk), size, is_durable))

        mark(is_durable=True)
        for _ in range(COMMANDS):
            mark(is_durable=self._command(io))
        io.close()
        mark(is_durable=True)
        writes.close()
        return first, marks, writes.entries

    def _command(self, io):
        """Runs one; whether a power cut afterwards has to leave all that was written."""
        kind = self._chance.randrange(20)
        if kind < 8:
            io.run(self._write(*self._range()))
        elif kind < 12:
            # Several at once, in parts of the disk that are disjoint.
            part = len(self.disk) // SECTOR // 6
            for number in range(6):
                start, length = self._range(number * part, part)
                io.run("aio_" + self._write(start, length))
            io.run("aio_flush")
        elif kind < 15:
            start, length = self._range()
            self._change(start, bytes(length))
            unmap = self._chance.choice(["", "-u "])
            io.run(f"write -z {unmap}{start} {length}")
        elif kind < 17:
            self._discard(io)
        elif kind == 17:
            self.disk.extend(bytes(SECTOR * self._chance.randrange(40)))
            io.run(f"truncate {len(self.disk)}")
            return True
        else:
            io.run("flush")
            return True
        return False

    def _range(self, first=0, count=None):
        count = len(self.disk) // SECTOR if count is None else count
        start = self._chance.randrange(count)
        most = self._chance.choice([2, 20, 600])
        length = min(self._chance.randint(1, most), count - start)
        return (first + start) * SECTOR, length * SECTOR

    def _write(self, start, length):
        byte = self._chance.randrange(1, 256)
        self._change(start, bytes([byte]) * length)
        return f"write -q -P {byte} {start} {length}"

    def _change(self, start, data):
        self.disk[start : start + len(data)] = data
        self._mapped.update(range(start // self.chunk, -(-(start + len(data)) // self.chunk)))

    def _discard(self, io):
        """Of a chunk that has an exception, which turns to zeros."""
        whole = [chunk for chunk in self._mapped if (chunk + 1) * self.chunk <= len(self.disk)]
        if whole:
            start = self._chance.choice(sorted(whole)) * self.chunk
            self.disk[start : start + self.chunk] = bytes(self.chunk)
            io.run(f"discard {start} {self.chunk}")


class Crash(Case):
    def setUp(self):
        super().setUp()
        self.base = self.stamped("base.raw", SECTORS * SECTOR, STAMPS)
        self.state = self.dir / "state.dms"

    def test_every_state_that_a_power_cut_leaves_is_good(self):
        for seed in seeds(3):
            with self.subTest(seed=seed):
                self.cut_power(seed, (4096, 16384, 65536)[seed % 3])

    def cut_power(self, seed, chunk):
        chance = random.Random(seed)
        layer = tools.create(self.dir / "layer.dms", chunk, self.base, "raw")
        writer = Writer(layer, chunk, self.base.read_bytes(), chance)
        for _ in range(SESSIONS):
            first, marks, entries = writer.session(self.dir / "log")
            replay = Replay(first, entries)
            tried = 0
            for position in range(len(entries) + 1):
                for state in replay.states(position, chance, STATES_BY_CHANCE):
                    tried += 1
                    what = f"chunk {chunk}, {position} of {len(entries)} requests, state {tried}"
                    self.judge(state, position, marks, what, write_on=tried % 5 == 0)
            count("crash", "states-of-QEMU", tried)
        layer.unlink()

    def judge(self, state, position, marks, what, write_on):
        ended = sum(mark.position <= position for mark in marks)
        durable = max(number for number in range(ended) if marks[number].is_durable)
        # The command under way at the cut may have happened in part.
        possible = [mark.disk for mark in marks[durable : ended + 1]]
        # How the file grows is not in the log: ahead of what is written, and durable with it.
        self.put(state, max(mark.file_size for mark in marks[ended - 1 : ended + 1]))
        with opened(self.state) as image:
            disk = image.read()
        self.assert_mixture(disk, possible, what)
        if write_on:
            self.write_on(disk, what)

    def put(self, state, size):
        """Writes a file; what is zeros stays a hole."""
        with open(self.state, "wb") as file:
            for start in range(0, len(state), 4096):
                block = state[start : start + 4096]
                if block.count(0) != len(block):
                    file.seek(start)
                    file.write(block)
            file.truncate(max(size, len(state)))

    def assert_mixture(self, disk, possible, what):
        """Each sector is what one of the possible disks has there, and the size is one of theirs."""
        if disk in possible:
            return
        sizes = {len(each) for each in possible}
        self.assertIn(len(disk), sizes, f"{what}: size")
        for start in range(0, len(disk), SECTOR):
            sector = disk[start : start + SECTOR]
            if not any(each[start : start + SECTOR] == sector for each in possible):
                self.fail(f"{what}: nobody wrote what is at {start}")

    def write_on(self, disk, what):
        """Writing goes on in it as in any other image, and QEMU sees the same."""
        data = b"\xa5" * 9000
        with opened(self.state, writable=True) as image:
            image.write(data, 5000)
            image.flush()
        expected = disk[:5000] + data + disk[14000:]
        raw = self.state.with_suffix(".raw")
        tools.qemu_img("convert", "-f", "dmsnap", "-O", "raw", self.state, raw)
        self.assertTrue(raw.read_bytes() == expected, f"{what}: QEMU, after it was written on")
        # Space that nothing refers to is what a crash may leave.
        tools.qemu_img("check", "-q", "-f", "dmsnap", self.state, status=(0, LEAKS))


if __name__ == "__main__":
    unittest.main()
