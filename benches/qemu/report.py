"""What is told of the results: lines while they come, a table at the end, Markdown and JSON."""

import json
import os
import platform
from dataclasses import asdict
from datetime import datetime, timezone
from statistics import median

import aims
from formats import RAW

NAME_WIDTH = 26
LEGEND = "Times as multiples of raw's in the same run. A star: misses an aim."
# If raw differs from itself by more than this in the median row, the figures are worth little.
QUIET = 1.05


def block(result, misses):
    """A row as it is done: a line for each format, with the spread of the rounds."""
    lines = [f"{result.row.name}   (raw's two turns differ by {result.raw_spread():.2f})"]
    for name in result.samples:
        ratios = result.ratios(name)
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}" if len(ratios) > 1 else "1 round"
        if name == RAW.name:
            spread = ""
        time = f"{result.seconds(name) * 1000:.0f} ms"
        texts = "; ".join(miss.message for miss in misses if miss.name == name)
        note = f"  missed: {texts}" if texts else ""
        lines.append(
            f"  {name:<{NAME_WIDTH}}{result.ratio(name):>7.2f}  {spread:>12}  {time:>9}{note}"
        )
    return "\n".join(lines)


def table(results, formats):
    """All rows in columns of a few characters; a star follows a figure that misses an aim."""
    forms = [form for form in formats if form is not RAW]
    first = max(len(result.row.name) for result, _ in results)
    heads = zip(*[form.heading for form in forms])
    lines = [
        f"{'':<{first}} {unit:>5} " + "".join(f"{word:>6} " for word in words)
        for unit, words in zip(("raw", "ms"), heads)
    ]
    for result, misses in results:
        cells = _cells(result, forms, misses)
        columns = [f"{cell:>7}" if cell.endswith("*") else f"{cell:>6} " for cell in cells]
        time = f"{result.seconds(RAW.name) * 1000:.0f}"
        lines.append(f"{result.row.name:<{first}} {time:>5} " + "".join(columns))
    return "\n".join(line.rstrip() for line in lines)


def _cells(result, forms, misses):
    missed = {miss.name for miss in misses}
    for form in forms:
        if form.name not in result.samples:
            yield ""
            continue
        text = f"{result.ratio(form.name):.2f}"
        yield f"{text}*" if form.name in missed else text


def unrest(results):
    """A warning if the machine was not quiet, else nothing."""
    spread = median(result.raw_spread() for result, _ in results)
    if spread <= QUIET:
        return []
    return [
        f"The machine was not quiet: raw's two turns differ by {spread:.2f} in the median row."
    ]


def reference_lines(results):
    """What was measured beside raw, and how chunks of that size compare with it."""
    for result, _ in results:
        name = result.row.reference
        if name:
            line = f"{result.row.name}: {name} take {result.ratio(name):.2f} times raw"
            if aims.DEFAULT in result.samples:
                line += f", {aims.DEFAULT} {result.ratio(aims.DEFAULT, name):.2f} times that"
            yield line + "."


def miss_lines(results):
    return [
        f"{result.row.name}: {miss.name} {miss.message}"
        for result, misses in results
        for miss in misses
    ]


def markdown(results, formats, description):
    """The table for the README, with the aims and the misses below it."""
    lines = [
        f"{description} {LEGEND}",
        "",
        "```text",
        table(results, formats),
        "```",
        "",
        *reference_lines(results),
        *unrest(results),
        "",
        "Aims:",
        "",
        *(f"- {aim.text}" for aim in aims.AIMS),
    ]
    lines += ["", "Missed:", "", *(f"- {line}" for line in miss_lines(results) or ["nothing"]), ""]
    return "\n".join(lines)


def as_json(results, formats, options, description):
    return json.dumps(
        {
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": description,
            "options": options,
            "formats": [asdict(form) for form in formats],
            "aims": [aim.text for aim in aims.AIMS],
            "rows": [_row(result, misses) for result, misses in results],
        },
        indent=1,
    )


def _row(result, misses):
    row = result.row
    return {
        "name": row.name,
        "kind": row.kind,
        "direct": row.direct,
        "access": asdict(row.load.access) if row.load else None,
        "raw_spread": result.raw_spread(),
        "results": {
            name: {
                "ratio": result.ratio(name),
                "ratios": result.ratios(name),
                "seconds": [sample.seconds for sample in samples],
                "process_seconds": [sample.wall for sample in samples],
            }
            for name, samples in result.samples.items()
        },
        "misses": [asdict(miss) for miss in misses],
    }


def machine(qemu_version, directory):
    """The machine in a sentence, without a path or a name of it."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    return (
        f"{qemu_version}; {os.cpu_count()} cores ({_cpu_model()}), {memory:.0f} GiB of memory, "
        f"{_file_system(directory)}, Linux {platform.release()}."
    )


def _cpu_model():
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(directory):
    """The type of the file system that a directory is on: of the longest mount point above it."""
    found = ("", "unknown")
    with open("/proc/mounts") as lines:
        for line in lines:
            _, mount_point, kind = line.split()[:3]
            if directory.is_relative_to(mount_point) and len(mount_point) >= len(found[0]):
                found = (mount_point, kind)
    return found[1]
