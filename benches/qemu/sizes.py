"""How much is measured: enough for a tenth of a second a run, and some twenty minutes in all."""

from dataclasses import dataclass, replace

from access import every_nth, scattered, scattered_apart, sequential
from formats import KIB, MIB


@dataclass(frozen=True)
class Sizes:
    """Bytes of images and numbers of requests."""

    # Layers that are written to for the first time, and what lies below them.
    base: int = 768 * MIB
    # Filled layers that are read and rewritten.
    layer: int = 256 * MIB
    committed: int = 128 * MIB
    converted: int = 512 * MIB
    # Small requests have 4 KiB, large ones 64 KiB. Direct ones in place are half as many.
    small_in_place: int = 16384
    large_in_place: int = 4096
    small_first: int = 4096
    large_first: int = 2048
    small_sequential: int = 16384
    flushed: int = 2048
    exported: int = 2048

    def divided(self, divisor):
        parts = {name: value // divisor for name, value in vars(self).items()}
        # At least two flush intervals.
        parts["flushed"] = max(128, parts["flushed"])
        return replace(self, **parts)

    def fill(self, size, share=1):
        """Of every `share`-th piece of 64 KiB, in order."""
        return every_nth(64 * KIB, share, size)

    def fill_scattered(self, size, share=1):
        """Of the same pieces in another order."""
        unit = 64 * KIB * share
        return scattered(64 * KIB, size // unit, size, unit)

    def in_place(self, request, is_scattered, direct):
        count = self.small_in_place if request == 4 * KIB else self.large_in_place
        kind = scattered if is_scattered else sequential
        return kind(request, count // 2 if direct else count, self.layer)

    def first_writes(self, request, is_scattered, flushed=False):
        small = request == 4 * KIB
        if not is_scattered:
            count = self.small_sequential if small else self.large_first
            return sequential(request, self.flushed if flushed else count, self.base)
        count = self.small_first if small else self.large_first
        return scattered_apart(request, self.flushed if flushed else count, self.base)

    def exported_in_place(self):
        return scattered(4 * KIB, self.exported, self.layer)

    def exported_first(self):
        return scattered_apart(4 * KIB, self.exported, self.base)
