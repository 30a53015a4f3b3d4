#!/usr/bin/env python3
"""Measures dmsnap in QEMU side by side with raw, qcow2 and qed, all with one patched build.

What is measured: `qemu-img bench` with reads, rewrites and first writes over a backing file;
`qemu-img convert` and `commit`; fio through an NBD export with 1 and 16 requests outstanding. Each
buffered, and again past the page cache (`-t none -n`).

How: a row of the table is one workload. In each round of a row every format has its turn between
two turns of raw, in another order each round, so that drift of the machine hits all alike. A
figure is the median over the rounds of a format's time as a multiple of raw's in the same round
(the mean of its two turns): 1 is as fast as raw, less is faster. A format that takes more than 6
times as long as raw in the first round is left out of the further ones.

- The time of a run is what qemu-img bench or fio tells. It leaves out what is flushed when the
  image is closed; the rows with flushes have it, and the JSON has the time of each qemu-img
  process as well. Convert and commit are timed from the start of the process to its exit.
- Scattered requests go around the image by a long step. No two scattered first writes touch the
  same 128 KiB, the largest cluster of any format: so each allocates in every format. That is
  computed and asserted before anything is measured.
- First writes go to new layers over one raw base of random bytes; raw's to a new sparse file.
  Beside the scattered ones of 4 KiB stands what chunks of 16K cannot avoid: raw's read of 12 KiB
  and write of 16 KiB.
- Reads and rewrites use layers that are filled wholly, in pieces of 64 KiB, in random order or in
  sequence.
- Buffered runs find what they read in the page cache. Before the others it is dropped.
- --check compares the guest's bytes of every image that a row wrote with those that plain writes
  give. --quick does so too.

The aims are in aims.py. A missed one does not change the exit status, which is 1 if something
went wrong and 130 if it was stopped.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import formats
import report
from aims import misses
from formats import KIB
from measure import Bench, measure
from rows import FioOverNbd, sections
from sizes import Sizes
from tools import BenchError, Tools, Workspace, require_fio

ROOT = Path(__file__).resolve().parents[2]
QUICK_DIVISOR = 16


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0],
        epilog="The head of run.py says what is measured and how. DMSNAP_QEMU_DIR names the "
        "directory of the patched build, by default target/qemu.",
    )
    add = parser.add_argument
    add("rows", nargs="*", help="rows whose name has this in it (a shell pattern); all by default")
    add(
        "--formats",
        action="append",
        metavar="PATTERN",
        help="formats by shell pattern; raw is always there",
    )
    add("--no-fio", action="store_true", help="leave out the rows that need fio")
    add("--rounds", type=_positive, help="rounds of each row (default: 5, with --quick 1)")
    add(
        "--quick",
        action="store_true",
        help=f"sizes divided by {QUICK_DIVISOR}, and --check: tries the method only",
    )
    add("--divide", type=int, choices=[2, 4, 8, 16, 32], help="divide all sizes by so much")
    add(
        "--check",
        action="store_true",
        help="compare the guest's bytes after the first run of each format",
    )
    add(
        "--directory",
        type=_path,
        default=Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve(),
        help="for the files, some GiB on a real file system (default: the target directory)",
    )
    add("--json", type=_path, metavar="FILE", help="write all figures")
    add("--markdown", type=_path, metavar="FILE", help="write the table for the README")
    add("--list", action="store_true", help="list rows and formats, and measure nothing")
    return parser.parse_args()


def _path(text):
    """Of the directory that we start in: the measurement goes to another."""
    return Path(text).resolve()


def _positive(text):
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def chosen_sections(options, sizes):
    for heading, rows in sections(sizes):
        kept = [
            row
            for row in rows
            if (not options.rows or any(fnmatch(row.name, f"*{part}*") for part in options.rows))
            and not (options.no_fio and isinstance(row.load, FioOverNbd))
        ]
        if kept:
            yield heading, kept


def progress(text):
    print(f"bench-qemu: {text}", file=sys.stderr, flush=True)


def check_space(directory, sizes, count):
    """Refuses what the disk has no room for, and warns of what the page cache may not hold."""
    needed = 3 * sizes.base + count * max(2 * sizes.committed, sizes.layer, sizes.converted)
    if shutil.disk_usage(directory).free < needed:
        raise BenchError(
            f"{directory} has less than {needed >> 20} MiB free: name another with --directory"
        )
    cached = sizes.base + count * max(sizes.layer, sizes.converted // 2)
    if available_memory() < cached:
        progress(f"less than {cached >> 20} MiB of memory free: buffered reads may go to the disk")


def available_memory():
    with open("/proc/meminfo") as lines:
        return next(
            int(line.split()[1]) * KIB for line in lines if line.startswith("MemAvailable")
        )


def run(options, sizes, chosen):
    """Measures in a directory of its own, and reports what was done also if it is stopped."""
    qemu = Path(os.environ.get("DMSNAP_QEMU_DIR", ROOT / "target/qemu")).resolve()
    tools = Tools(qemu / "build")
    if any(isinstance(row.load, FioOverNbd) for _, rows in chosen for row in rows):
        require_fio()
    forms = formats.chosen(options.formats)
    settings = {
        "rounds": options.rounds or (1 if options.quick else 5),
        "check": options.check or options.quick,
        "sizes": vars(sizes),
    }
    results = []
    with Workspace(options.directory) as workspace:
        check_space(workspace.directory, sizes, len(forms))
        description = report.machine(tools.version(), workspace.directory)
        print(description)
        bench = Bench(tools, workspace, forms, sizes, settings["check"], progress)
        try:
            measure_all(bench, chosen, settings["rounds"], results)
        finally:
            if results:
                write_reports(options, results, forms, description, settings)


def measure_all(bench, chosen, rounds, results):
    for heading, rows in chosen:
        print(f"\n== {heading}", flush=True)
        for row in rows:
            result = measure(bench, row, rounds)
            results.append((result, misses(result)))
            print(report.block(*results[-1]), flush=True)


def write_reports(options, results, forms, description, settings):
    print(f"\n{report.table(results, forms)}\n\n{report.LEGEND}")
    print(*report.reference_lines(results), "\nMissed aims:", sep="\n")
    print("\n".join((report.miss_lines(results) or ["none"]) + report.unrest(results)))
    if options.json:
        options.json.write_text(report.as_json(results, forms, settings, description))
    if options.markdown:
        options.markdown.write_text(report.markdown(results, forms, description))


def main():
    options = parse_arguments()
    sizes = Sizes().divided(options.divide or (QUICK_DIVISOR if options.quick else 1))
    chosen = list(chosen_sections(options, sizes))
    if not chosen:
        raise BenchError("no row has such a name; --list lists them")
    if options.list:
        print("\n".join(row.name for _, rows in chosen for row in rows))
        print("\nformats:", *(form.name for form in formats.ALL))
        return
    start = time.monotonic()
    run(options, sizes, chosen)
    progress(f"done in {time.monotonic() - start:.0f} s")


def _stop(number, _):
    raise KeyboardInterrupt(signal.Signals(number).name)


if __name__ == "__main__":
    for stopping in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(stopping, _stop)
    try:
        main()
    except BenchError as error:
        sys.exit(f"bench-qemu: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
