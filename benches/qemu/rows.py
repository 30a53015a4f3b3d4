"""What is measured: the rows of the table."""

from pathlib import Path

from formats import KIB, RAW
from tools import Sample

FILLED = 0x5A
WRITTEN = 0xA5
FLUSH_INTERVAL = 64
COPY_READ = 12 * KIB
COPY_WRITE = 16 * KIB
FIO_LOG = "fio.log"


class QemuImgBench:
    """Requests by `qemu-img bench`, 64 at a time."""

    def __init__(self, access, is_write, flushed=False):
        self.access = access
        self.is_write = is_write
        self.flushed = flushed

    def run(self, bench, form, image, cache):
        options = ["-w", "--pattern", WRITTEN] if self.is_write else []
        if self.flushed:
            options += ["--flush-interval", FLUSH_INTERVAL]
        return bench.tools.bench(form.driver, image, self.access, *options, cache=cache)


class FioOverNbd:
    """The same requests by fio, through an export by qemu-nbd."""

    flushed = False

    def __init__(self, access, is_write, depth):
        self.access = access
        self.is_write = is_write
        self.depth = depth

    def run(self, bench, form, image, cache):
        self._write_log()
        with bench.tools.export(form.driver, image, cache):
            job = bench.tools.fio(
                [
                    f"--read_iolog={FIO_LOG}",
                    "--replay_no_stall=1",
                    "--filename=image",
                    f"--size={self.access.size}",
                    f"--iodepth={self.depth}",
                    f"--buffer_pattern={WRITTEN:#x}",
                ]
            )
        seconds = job["write" if self.is_write else "read"]["runtime"] / 1000
        return Sample(seconds, seconds)

    def _write_log(self):
        """The requests as fio replays them.

        fio ends without what is outstanding when its log ends, so the log ends with requests that
        have been there.
        """
        verb = "write" if self.is_write else "read"
        offsets = self.access.offsets()
        lines = [
            f"image {verb} {at} {self.access.request}" for at in offsets + offsets[: self.depth]
        ]
        Path(FIO_LOG).write_text(
            "\n".join(["fio version 2 iolog", "image add", "image open", *lines, ""])
        )


class Row:
    """One line of the table: how a format is measured, and how its image is checked afterwards."""

    load = None
    reference = None  # the name of something else that is measured beside raw

    def __init__(self, kind, name, direct):
        self.kind = kind
        self.direct = direct
        self.name = f"{name}, {'direct' if direct else 'buffered'}"

    @property
    def cache(self):
        return "none" if self.direct else "writeback"

    def prepare(self, bench):
        """Makes what all formats need before the first round."""

    def sample(self, bench, form):
        raise NotImplementedError

    def verify(self, bench, form):
        """After a run: whether the guest's bytes are those expected."""

    def clean(self, bench, form):
        """Removes what a run has made."""

    def finish(self, bench):
        """Removes what prepare has made."""


class InPlace(Row):
    """Reads, or rewrites, of layers that are filled already."""

    def __init__(self, name, direct, load, fill):
        super().__init__("rewrite" if load.is_write else "read", name, direct)
        self.load = load
        self.fill = fill

    def prepare(self, bench):
        self.layers = bench.filled_layers(self.fill)
        for form in bench.formats:
            bench.workspace.make_ready(self.layers.image(form), self.direct)
        if bench.check and self.load.is_write:
            bench.write_plainly(self.layers.expected, self.load.access, WRITTEN)

    def sample(self, bench, form):
        return self.load.run(bench, form, self.layers.image(form), self.cache)

    def verify(self, bench, form):
        bench.expect(self, form, self.layers.image(form), self.layers.expected)


class FirstWrites(Row):
    """Writes to new layers over a base of random bytes; for raw, to a new sparse file."""

    def __init__(self, name, direct, load):
        super().__init__("first write", name, direct)
        self.load = load
        if (
            isinstance(load, QemuImgBench)
            and not load.flushed
            and load.access.is_small_scattered()
        ):
            self.reference = "raw 12K read + 16K write"
            self.copies = load.access.aligned(COPY_WRITE)

    def prepare(self, bench):
        bench.drop_filled_layers()
        bench.workspace.make_ready(bench.base, self.direct)
        if bench.check:
            bench.workspace.copy(bench.base, "expected")
            bench.write_plainly("expected", self.load.access, WRITTEN)

    def sample(self, bench, form):
        bench.tools.create(form, "layer", bench.sizes.base, bench.base)
        return self.load.run(bench, form, "layer", self.cache)

    def sample_reference(self, bench):
        """Raw files: a read of the rest of a chunk of 16 KiB, and a write of the whole."""
        bench.tools.create(RAW, "layer", bench.sizes.base)
        read = self.copies.shortened(COPY_READ)
        reads = bench.tools.bench("raw", bench.base, read, cache=self.cache)
        writes = bench.tools.bench(
            "raw", "layer", self.copies, "-w", "--pattern", WRITTEN, cache=self.cache
        )
        bench.workspace.remove("layer")
        return Sample(reads.seconds + writes.seconds, reads.wall + writes.wall)

    def verify(self, bench, form):
        if not form.is_raw:
            bench.expect(self, form, "layer", "expected")

    def clean(self, bench, form):
        bench.workspace.remove("layer")

    def finish(self, bench):
        bench.workspace.remove("expected")


class Convert(Row):
    """`qemu-img convert` of a half filled image, buffered with its own default of the cache."""

    SOURCE = "source"

    def __init__(self, direct, to_format):
        super().__init__("convert", f"convert {'to' if to_format else 'from'} the format", direct)
        self.to_format = to_format

    def prepare(self, bench):
        bench.drop_filled_layers()
        bench.make_random(self.SOURCE, bench.sizes.converted, half=True)
        bench.workspace.make_ready(self.SOURCE, self.direct)
        if not self.to_format:
            for form in bench.formats:
                self._convert(bench, RAW, self.SOURCE, form, self._image(form))
                bench.workspace.make_ready(self._image(form), self.direct)

    def sample(self, bench, form):
        if self.to_format:
            return self._convert(bench, RAW, self.SOURCE, form, "target")
        return self._convert(bench, form, self._image(form), RAW, "target")

    def _convert(self, bench, source_form, source, target_form, target):
        options = ["-T", "none", "-t", "none"] if self.direct else []
        if target_form.options:
            options += ["-o", ",".join(target_form.options)]
        drivers = ["-f", source_form.driver, "-O", target_form.driver]
        return bench.tools.timed_img("convert", *drivers, *options, source, target)

    def _image(self, form):
        return f"converted.{form.name}"

    def verify(self, bench, form):
        bench.expect(self, form, "target", self.SOURCE, None if self.to_format else RAW)

    def clean(self, bench, form):
        bench.workspace.remove("target")

    def finish(self, bench):
        bench.workspace.remove(self.SOURCE, *(self._image(form) for form in bench.formats))


class Commit(Row):
    """`qemu-img commit` of a filled layer, emptied afterwards as is the default.

    For raw: `qemu-img convert -n` of as many bytes from one raw file to another, with the same
    flush at its end.
    """

    BASE = "committed.raw"

    def __init__(self, direct, share, fill, order):
        super().__init__("commit", f"commit, {100 // share} % filled {order}", direct)
        self.fill = fill

    def prepare(self, bench):
        bench.drop_filled_layers()
        bench.make_random(self.BASE, bench.sizes.committed)
        self.layers = bench.new_filled_layers(self.fill, self.BASE)
        bench.make_random(self.layers.image(RAW), self.fill.total())
        if bench.check:
            bench.workspace.copy(self.BASE, "pristine")

    def sample(self, bench, form):
        bench.workspace.copy(self.layers.image(form), "layer")
        bench.workspace.make_ready("layer", self.direct)
        if bench.check:
            bench.workspace.copy("pristine", self.BASE)
        bench.workspace.make_ready(self.BASE, self.direct)
        if form.is_raw:
            source = ["-T", "none"] if self.direct else []
            options = ["-n", "-f", "raw", "-O", "raw", "-t", self.cache, *source]
            return bench.tools.timed_img("convert", *options, "layer", self.BASE)
        return bench.tools.timed_img("commit", "-q", "-f", form.driver, "-t", self.cache, "layer")

    def verify(self, bench, form):
        if not form.is_raw:
            bench.expect(self, form, self.BASE, self.layers.expected, RAW)

    def clean(self, bench, form):
        bench.workspace.remove("layer")

    def finish(self, bench):
        self.layers.remove()
        bench.workspace.remove(self.BASE, "pristine")


def sections(sizes):
    """Headings, and the rows below them."""
    modes = (False, True)
    for order, is_scattered in (("random", True), ("sequential", False)):
        fill = sizes.fill_scattered(sizes.layer) if is_scattered else sizes.fill(sizes.layer)
        yield f"Layers filled in {order} order", [
            InPlace(f"{size} KiB {order} {verb}", direct, QemuImgBench(access, is_write), fill)
            for direct in modes
            for verb, is_write in (("reads", False), ("rewrites", True))
            for size in (4, 64)
            for access in [sizes.in_place(size * KIB, is_scattered, direct)]
        ]
    yield "First writes over a backing file", [
        FirstWrites(f"{size} KiB {order} first writes", direct, QemuImgBench(access, True))
        for direct in modes
        for order, is_scattered in (("random", True), ("sequential", False))
        for size in (4, 64)
        for access in [sizes.first_writes(size * KIB, is_scattered)]
    ]
    yield f"First writes with a flush every {FLUSH_INTERVAL}", [
        FirstWrites(
            f"4 KiB {order} first writes, flushed", direct, QemuImgBench(access, True, True)
        )
        for direct in modes
        for order, is_scattered in (("random", True), ("sequential", False))
        for access in [sizes.first_writes(4 * KIB, is_scattered, flushed=True)]
    ]
    yield "fio through an NBD export", list(_exported(sizes, modes))
    yield "Commit", [
        Commit(direct, share, fill, order)
        for direct in modes
        for share in (4, 1)
        for order, fill in (
            ("in order", sizes.fill(sizes.committed, share)),
            ("scattered", sizes.fill_scattered(sizes.committed, share)),
        )
    ]
    yield "Convert", [
        Convert(direct, to_format) for direct in modes for to_format in (True, False)
    ]


def _exported(sizes, modes):
    fill = sizes.fill_scattered(sizes.layer)
    in_place = sizes.exported_in_place()
    first = sizes.exported_first()
    for direct in modes:
        for depth in (1, 16):
            reads, writes = (FioOverNbd(in_place, is_write, depth) for is_write in (False, True))
            yield InPlace(f"NBD, {depth} at a time: 4 KiB random reads", direct, reads, fill)
            yield InPlace(f"NBD, {depth} at a time: 4 KiB random rewrites", direct, writes, fill)
    for direct in modes:
        for depth in (1, 16):
            load = FioOverNbd(first, True, depth)
            yield FirstWrites(f"NBD, {depth} at a time: 4 KiB random first writes", direct, load)
