"""Rounds: each format in turn, and raw before and after them."""

import os
import random
from dataclasses import dataclass, field
from statistics import median

from formats import MIB, RAW
from rows import FILLED
from tools import BenchError

# A format that takes so many times as long as raw in the first round is not measured again.
SLOW = 6.0


class FilledLayers:
    """A layer of each format with the same bytes in it, over the same base."""

    def __init__(self, bench, fill, backing):
        self.bench = bench
        self.fill = fill
        self.expected = "filled.expected"
        for form in bench.formats:
            bench.progress(f"filling {form.name}")
            bench.tools.create(form, self.image(form), fill.size, backing)
            bench.tools.bench(
                form.driver, self.image(form), fill, "-w", "--pattern", FILLED, cache="unsafe"
            )
        if bench.check:
            bench.workspace.copy(backing, self.expected)
            os.truncate(self.expected, fill.size)
            bench.write_plainly(self.expected, fill, FILLED)

    def image(self, form):
        return f"filled.{form.name}"

    def remove(self):
        self.bench.workspace.remove(self.expected, *map(self.image, self.bench.formats))


class Bench:
    """What the rows work with."""

    base = "base.raw"

    def __init__(self, tools, workspace, formats, sizes, check, progress):
        self.tools = tools
        self.workspace = workspace
        self.formats = formats
        self.sizes = sizes
        self.check = check
        self.progress = progress
        self.filled = None
        self.make_random(self.base, sizes.base)

    def make_random(self, name, size, half=False):
        """A raw file of random bytes, the same each time. Half: every second MiB is a hole."""
        source = random.Random(1)
        with open(name, "wb") as file:
            for start in range(0, size, MIB):
                if not half or start // MIB % 2 == 0:
                    file.seek(start)
                    file.write(source.randbytes(min(MIB, size - start)))
            file.truncate(size)
        self.workspace.settle(name)

    def write_plainly(self, name, access, byte):
        """The same writes without QEMU: so it shows if its offsets are not those we think."""
        piece = bytes([byte]) * access.request
        with open(name, "r+b", buffering=0) as file:
            for offset in access.offsets():
                os.pwrite(file.fileno(), piece, offset)

    def new_filled_layers(self, fill, backing):
        return FilledLayers(self, fill, backing)

    def filled_layers(self, fill):
        """Filled layers that stay for the rows that follow."""
        if not self.filled or self.filled.fill != fill:
            self.drop_filled_layers()
            self.filled = self.new_filled_layers(fill, self.base)
        return self.filled

    def drop_filled_layers(self):
        if self.filled:
            self.filled.remove()
            self.filled = None

    def expect(self, row, form, image, expected, image_form=None):
        """Refuses other bytes in what `form` came to: an image of it, or of `image_form`."""
        driver = (image_form or form).driver
        same, message = self.tools.compare(driver, image, expected)
        if not same:
            raise BenchError(
                f"{row.name}: {form.name} ended with wrong bytes in the guest: {message}"
            )


@dataclass
class Result:
    """The runs of a row, by the name of what was measured and the round."""

    row: object
    samples: dict[str, list] = field(default_factory=dict)

    def add(self, name, sample):
        self.samples.setdefault(name, []).append(sample)

    def times(self, name):
        """Seconds by round. Raw ran twice in each."""
        times = [sample.seconds for sample in self.samples[name]]
        if name == RAW.name:
            return [(first + second) / 2 for first, second in zip(times[::2], times[1::2])]
        return times

    def ratios(self, name, against=RAW.name):
        return [time / base for time, base in zip(self.times(name), self.times(against))]

    def ratio(self, name, against=RAW.name):
        return median(self.ratios(name, against))

    def at_least(self, name, against=RAW.name):
        """What the ratio is at least in three rounds of four."""
        ratios = sorted(self.ratios(name, against))
        return ratios[len(ratios) // 4]

    def seconds(self, name):
        return median(self.times(name))

    def raw_spread(self):
        """How far raw's own two runs of a round lay apart, as a ratio: what noise does."""
        times = [sample.seconds for sample in self.samples[RAW.name]]
        return median(max(pair) / min(pair) for pair in zip(times[::2], times[1::2]))


def measure(bench, row, rounds):
    bench.progress(f"{row.name}: preparing")
    result = Result(row)
    row.prepare(bench)
    try:
        others = [form for form in bench.formats if not form.is_raw]
        for number in range(rounds):
            bench.progress(f"{row.name}: round {number + 1} of {rounds}")
            _round(bench, row, result, _turned(others, number), number)
            others = [form for form in others if result.ratios(form.name)[0] < SLOW]
    finally:
        row.finish(bench)
    return result


def _turned(formats, number):
    """In another order each round, so that nobody always comes after the same one."""
    start = number % len(formats) if formats else 0
    return formats[start:] + formats[:start]


def _round(bench, row, result, formats, number):
    for form in [RAW, *formats, RAW]:
        sample = row.sample(bench, form)
        if sample.seconds <= 0:
            raise BenchError(
                f"{row.name}: {form.name} took no measurable time: choose larger sizes"
            )
        result.add(form.name, sample)
        if bench.check and number == 0:
            row.verify(bench, form)
        row.clean(bench, form)
        if form.is_raw and row.reference and len(result.samples.get(row.reference, [])) <= number:
            result.add(row.reference, row.sample_reference(bench))
