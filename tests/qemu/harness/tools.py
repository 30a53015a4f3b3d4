"""Paths of what the tests use, and its programs as functions that raise with all output."""

import functools
import hashlib
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent.parent
QEMU = Path(os.environ.get("DMSNAP_QEMU_DIR", ROOT / "target/qemu")).resolve()
KERNEL = Path(os.environ.get("DMSNAP_KERNEL_DIR", ROOT / "target/kernel")).resolve()
DMSNAP = Path(os.environ.get("DMSNAP", ROOT / "target/release/dmsnap")).resolve()
BUILD = QEMU / "build"
GUEST = ROOT / "target/qemu-guest"

# Bounds a hang and decides nothing else: an emulated machine on a busy host is slow. QMP waits for
# ever if it is no float.
TIMEOUT = 600.0

sys.path.insert(0, str(QEMU / "src/python"))


class ToolError(Exception):
    """A program ended with another status than it should; says what it printed."""


def run(*command, status=0):
    """Output of a program, standard error included, which must end with one of these statuses."""
    expected = status if isinstance(status, tuple) else (status,)
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode not in expected:
        raise ToolError(
            f"{' '.join(words)}: status {done.returncode}, expected {status}, output:\n"
            f"{done.stdout}"
        )
    return done.stdout


@functools.cache
def prepare():
    """Builds what guests need, once."""
    if not DMSNAP.exists():
        raise ToolError(f"{DMSNAP} is missing: run 'make build' first, or set DMSNAP")
    run(HERE / "prepare.sh")


def qemu_img(*arguments, status=0):
    return run(BUILD / "qemu-img", *arguments, status=status)


def qemu_io(image, *commands, options=("-f", "dmsnap")):
    words = [word for command in commands for word in ("-c", command)]
    return run(BUILD / "qemu-io", *options, *words, image)


def dmsnap(*arguments, status=0):
    return run(DMSNAP, *arguments, status=status)


def stamp(*arguments):
    """Runs guest/stamp.c on the host."""
    prepare()
    return run(GUEST / "stamp", *arguments)


def create(path, chunk="16K", backing=None, backing_format="dmsnap", size=None):
    """A new dmsnap image."""
    below = ["-b", backing, "-F", backing_format] if backing else []
    length = [size] if size else []
    qemu_img("create", "-q", "-f", "dmsnap", "-o", f"chunk_size={chunk}", *below, path, *length)
    return path


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
