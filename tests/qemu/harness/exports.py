"""What the tests of exports share: a base, layers over it, and a judgement at the end."""

import functools
import os
import random
import sys
from pathlib import Path

from . import tools
from .case import MIB, Case
from .tools import ToolError, run, sha256

CHUNKS = ("4K", "16K", "64K")
KIB = 1024
# A multiple of sectors, but neither of any chunk nor of a page.
SIZE = 32 * MIB + 5 * KIB
# Of the base.
HOLE = range(8 * MIB, 12 * MIB)


def noise(length, seed):
    return random.Random(seed).randbytes(length)


def same(actual, expected, what):
    """Fails with the first difference of two byte strings."""
    if actual == expected:
        return
    if len(actual) != len(expected):
        raise AssertionError(f"{what}: {len(actual)} bytes instead of {len(expected)}")
    at = next(i for i, (is_, be) in enumerate(zip(actual, expected)) if is_ != be)
    is_, be = actual[at : at + 16].hex(" "), expected[at : at + 16].hex(" ")
    raise AssertionError(f"{what}: differs first at {at:#x}: {is_} instead of {be}")


@functools.cache
def unpatched(name):
    """The machine's own qemu-img or qemu-io: the first in PATH that does not know the format."""
    for directory in os.get_exec_path():
        qemu_img_there = Path(directory, "qemu-img")
        if not os.access(qemu_img_there, os.X_OK):
            continue
        if "dmsnap" not in run(qemu_img_there, "--help"):
            return Path(directory, name)
    raise ToolError(f"no {name} in PATH that does not know dmsnap: run tests/setup.sh qemu")


def each_chunk(method):
    """Runs a test for each chunk size, with a new layer and the bytes that it shows at first."""

    @functools.wraps(method)
    def test(self):
        for chunk in CHUNKS:
            with self.subTest(chunk=chunk):
                method(self, self.layer(f"chunk-{chunk}", chunk), bytearray(self.content))

    return test


class ExportTest(Case):
    """Tests of a layer over a raw base, which a server serves."""

    def setUp(self):
        """A base with a hole, which nothing may change."""
        super().setUp()
        self.base = self.dir / "base.raw"
        self.content = bytearray(noise(SIZE, "base"))
        self.content[HOLE.start : HOLE.stop] = bytes(len(HOLE))
        with open(self.base, "wb") as file:
            file.write(self.content[: HOLE.start])
            file.seek(HOLE.stop)
            file.write(self.content[HOLE.stop :])
        self.base_sum = sha256(self.base)

    def need_root(self, what):
        """As with the other tests on devices: in CI, what cannot run fails."""
        if os.geteuid() == 0:
            return
        if os.environ.get("CI") == "true":
            self.fail(f"{what} need root")
        print(f"{self.id()}: skipped, {what} need root", file=sys.stderr)
        self.skipTest(f"{what} need root")

    def layer(self, name, chunk="16K"):
        path = self.dir / f"{name}.dms"
        return tools.create(path, chunk, backing=self.base, backing_format="raw")

    def judge(self, layer, expected):
        """A layer after use is sound and shows what is expected; its base is as it was."""
        raw = self.assert_layers(layer)
        same(raw.read_bytes(), expected, f"{layer.name} afterwards")
        raw.unlink()
        self.assertEqual(sha256(self.base), self.base_sum, f"{self.base} was written to")
