"""What the figures of dmsnap should come to: the one place that says so."""

from collections.abc import Callable
from dataclasses import dataclass

from formats import ALL, KIB

# What two figures may lie apart and still count as level.
NOISE = 1.03
NEEDS_MORE = 1.3
CLEARLY_LESS = 0.85
DEFAULT, DEFAULT_QCOW2 = "dmsnap-16K", "qcow2"


@dataclass(frozen=True)
class Miss:
    """A figure that is not what it should be."""

    name: str
    message: str


@dataclass(frozen=True)
class Aim:
    """An aim with the test of a row's result, which yields the misses."""

    text: str
    misses: Callable


def _measured(result, wanted):
    return [form for form in ALL if wanted(form) and form.name in result.samples]


def _best(result, forms):
    return min(forms, key=lambda form: result.ratio(form.name))


def _at_most(result, name, limit, what, against="raw"):
    """A miss has to be seen in three rounds of four: one slow turn is noise."""
    if name in result.samples and result.at_least(name, against) > limit:
        yield Miss(name, f"{result.ratio(name, against):.2f} times {what}, aim <= {limit:.2f}")


def _level_with_best(result):
    theirs = _measured(result, lambda form: form.is_qcow2)
    ours = _measured(result, lambda form: form.is_ours)
    if theirs and ours:
        best = _best(result, theirs).name
        yield from _at_most(
            result, _best(result, ours).name, NOISE, f"the best qcow2, {best}", best
        )


def _level_with_same_size(result):
    plain = _measured(result, _is_plain_qcow2)
    for ours in _measured(result, lambda form: form.is_ours):
        peers = [form for form in plain if form.cluster == ours.cluster]
        if peers:
            best = _best(result, peers).name
            yield from _at_most(result, ours.name, NOISE, best, best)


def _is_plain_qcow2(form):
    return form.is_qcow2 and "extended_l2=on" not in form.options


def _clearly_ahead(result):
    if DEFAULT_QCOW2 in result.samples and result.ratio(DEFAULT_QCOW2) > NEEDS_MORE:
        yield from _at_most(result, DEFAULT, CLEARLY_LESS, DEFAULT_QCOW2, DEFAULT_QCOW2)


def _near_raw(result):
    if result.row.kind in ("read", "rewrite"):
        for form in _measured(result, lambda form: form.is_ours):
            yield from _at_most(result, form.name, 1.05, "raw")


def _is_small_first_write(row):
    return (
        row.kind == "first write" and row.load.access.request == 4 * KIB and not row.load.flushed
    )


def _first_write_of_chunk(result):
    if _is_small_first_write(result.row):
        yield from _at_most(result, "dmsnap-4K", 1.3, "raw")


def _first_write_of_part(result):
    reference = result.row.reference
    if reference in result.samples:
        yield from _at_most(result, "dmsnap-16K", 1.15, reference, reference)


LEVEL = f"at most {NOISE - 1:.0%} above it"

AIMS = (
    Aim(f"the best dmsnap of a row is level with the best qcow2 ({LEVEL})", _level_with_best),
    Aim(
        f"each chunk size is level with qcow2 of that cluster size, extended_l2 apart ({LEVEL})",
        _level_with_same_size,
    ),
    Aim(
        f"where qcow2 by default needs more than {NEEDS_MORE} times raw, dmsnap by default (16K) "
        f"needs at least {1 - CLEARLY_LESS:.0%} less",
        _clearly_ahead,
    ),
    Aim("reads and rewrites within 1.05 times raw", _near_raw),
    Aim("first writes of 4 KiB within 1.3 times raw at chunks of 4K", _first_write_of_chunk),
    Aim(
        "scattered ones at chunks of 16K within 1.15 times a raw read of 12 KiB and a raw write "
        "of 16 KiB",
        _first_write_of_part,
    ),
)


def misses(result):
    """All misses of a row, all comparisons being made round by round."""
    return [miss for aim in AIMS for miss in aim.misses(result)]
