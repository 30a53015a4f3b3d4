"""The image formats that are measured."""

from dataclasses import dataclass
from fnmatch import fnmatch

KIB = 1 << 10
MIB = 1 << 20


@dataclass(frozen=True)
class Format:
    """An image format with the options it is created with."""

    name: str
    driver: str
    cluster: int = 0
    options: tuple[str, ...] = ()

    @property
    def heading(self):
        """Two short lines over a column: what it is, and its cluster size."""
        group = self.driver
        if "lazy_refcounts=on" in self.options:
            group = "lazy"
        if "extended_l2=on" in self.options:
            group = "ext"
        return group, f"{self.cluster // KIB}K"

    @property
    def is_raw(self):
        return self.driver == "raw"

    @property
    def is_ours(self):
        return self.driver == "dmsnap"

    @property
    def is_qcow2(self):
        return self.driver == "qcow2"


def _formats():
    sizes = [4, 16, 64]
    yield Format("raw", "raw")
    # The default is clusters of 64 KiB, so that size is not made once more.
    yield Format("qcow2", "qcow2", 64 * KIB)
    for size in (4, 16):
        yield Format(f"qcow2-{size}K", "qcow2", size * KIB, (f"cluster_size={size}K",))
    for size in sizes:
        options = (f"cluster_size={size}K", "lazy_refcounts=on")
        yield Format(f"qcow2-lazy-{size}K", "qcow2", size * KIB, options)
    for size in (64, 128):
        options = (f"cluster_size={size}K", "extended_l2=on")
        yield Format(f"qcow2-ext-{size}K", "qcow2", size * KIB, options)
    yield Format("qed", "qed", 64 * KIB)
    for size in sizes:
        yield Format(f"dmsnap-{size}K", "dmsnap", size * KIB, (f"chunk_size={size}K",))


ALL = tuple(_formats())
RAW = ALL[0]
CLUSTERS = sorted({form.cluster for form in ALL if form.cluster})


def chosen(patterns):
    """Raw, which everything is measured against, and the formats that a pattern fits."""
    return [
        form
        for form in ALL
        if form.is_raw or not patterns or any(fnmatch(form.name, each) for each in patterns)
    ]
