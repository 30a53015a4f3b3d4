"""What QEMU's blklogwrites wrote down, and what a power cut could have left of it."""

import struct
from dataclasses import dataclass

SECTOR = 512
ENTRY = struct.Struct("<4Q")
FLUSH = 1
DISCARD = 4
# What discarded bytes turn into, so that nobody can come to rely on anything else.
GARBAGE = b"\xdb"


@dataclass(frozen=True)
class Entry:
    """A request that reached the file. Zeros are written out in the log."""

    offset: int
    data: bytes
    is_flush: bool

    def sectors(self):
        return -(-len(self.data) // SECTOR)


class Log:
    """A log file that grows while QEMU runs; an entry is there when its request has ended."""

    def __init__(self, path):
        self._file = open(path, "rb")
        self._next = SECTOR
        self.entries = []

    def close(self):
        self._file.close()

    def position(self):
        """How many requests have ended so far."""
        self._file.seek(0, 2)
        end = self._file.tell()
        while self._next + SECTOR <= end:
            self._file.seek(self._next)
            sector, count, flags, _ = ENTRY.unpack(self._file.read(ENTRY.size))
            length = count * SECTOR
            self._next += SECTOR
            if flags & DISCARD:
                data = GARBAGE * length
            else:
                self._file.seek(self._next)
                data = self._file.read(length)
                assert len(data) == length, "an entry without its data"
                self._next += length
            self.entries.append(Entry(sector * SECTOR, data, bool(flags & FLUSH)))
        return len(self.entries)


class Replay:
    """States of a file after a power cut, from what it held at first and the log."""

    def __init__(self, first, entries):
        self._entries = entries
        self._durable = [(0, bytes(first))]
        now = bytearray(first)
        for number, entry in enumerate(entries):
            apply(now, entry, range(entry.sectors()))
            if entry.is_flush:
                self._durable.append((number + 1, bytes(now)))

    def states(self, position, chance, count):
        """Bytes that a cut after so many requests could have left: all, nothing, and by chance."""
        since, durable = next(state for state in reversed(self._durable) if state[0] <= position)
        pending = [entry for entry in self._entries[since:position] if entry.data]
        yield self._with(durable, pending, lambda entry: range(entry.sectors()))
        if not pending:
            return
        yield durable
        # The last one torn, the others there: what a cut in the middle of a commit looks like.
        last = pending[-1]
        kept = range(chance.randint(0, last.sectors()))
        whole = self._with(durable, pending[:-1], lambda entry: range(entry.sectors()))
        yield self._with(whole, [last], lambda _: kept)
        for _ in range(count):
            keep, tear = chance.random(), chance.random() / 2
            yield self._with(durable, pending, lambda entry: some(entry, chance, keep, tear))

    @staticmethod
    def _with(content, entries, choose):
        state = bytearray(content)
        for entry in entries:
            apply(state, entry, choose(entry))
        return bytes(state)


def some(entry, chance, keep, tear):
    """Numbers of the sectors that have reached the disk."""
    count = entry.sectors()
    if chance.random() < tear:
        return [number for number in range(count) if chance.random() < 0.5]
    return range(count) if chance.random() < keep else ()


def apply(content, entry, sectors):
    if not entry.data or not len(sectors):
        return
    end = entry.offset + (max(sectors) + 1) * SECTOR
    content.extend(bytes(max(0, end - len(content))))
    for number in sectors:
        start = number * SECTOR
        content[entry.offset + start : entry.offset + start + SECTOR] = entry.data[
            start : start + SECTOR
        ]
