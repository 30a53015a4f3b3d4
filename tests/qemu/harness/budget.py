"""How long a test at random goes on, as in tests/common/budget.rs: some cases, or for `make torture` some seconds."""

import os
import sys
import time


def seeds(cases):
    """Seeds of as many cases, unless DMSNAP_TORTURE gives seconds. DMSNAP_SEED is the first."""
    seed = int(os.environ.get("DMSNAP_SEED") or time.time())
    print(f"DMSNAP_SEED={seed}", file=sys.stderr)
    seconds = os.environ.get("DMSNAP_TORTURE")
    end = time.monotonic() + int(seconds) if seconds else None
    number = 0
    while number == 0 or (number < cases if end is None else time.monotonic() < end):
        yield seed + number
        number += 1


def count(part, counter, number):
    """Adds to what `make torture` tells of a part."""
    path = os.environ.get("DMSNAP_COUNTS")
    if path:
        with open(path, "a", encoding="ascii") as file:
            file.write(f"{part} {counter} {number}\n")
