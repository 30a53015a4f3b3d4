"""The programs that are run, and the directory that they work in."""

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from formats import MIB

PATIENCE = 600
COMPLETED = re.compile(r"^Run completed in ([0-9.]+) seconds", re.MULTILINE)
EXPORT_SOCKET = "nbd.sock"
# qemu-nbd wants an absolute path, and that of a socket must be short.
ABSOLUTE = "/proc/self/cwd/"


class BenchError(Exception):
    """Something that stops the measurement, worded for whoever runs it."""


@dataclass(frozen=True)
class Sample:
    """One run: the time that counts, and that of the process from start to exit."""

    seconds: float
    wall: float


class Workspace:
    """A directory of our own, below one on a real file system, that is removed with all its files.

    It is the current directory meanwhile, so that names of files are short.
    """

    def __init__(self, parent):
        parent.mkdir(parents=True, exist_ok=True)
        self.directory = Path(tempfile.mkdtemp(prefix="bench-qemu-", dir=parent)).resolve()

    def __enter__(self):
        os.chdir(self.directory)
        return self

    def __exit__(self, *_):
        os.chdir(self.directory.parent)
        shutil.rmtree(self.directory, ignore_errors=True)

    def remove(self, *names):
        """Removes files, and waits until that costs nobody anything any more."""
        for name in names:
            Path(name).unlink(missing_ok=True)
        with _opened(self.directory) as descriptor:
            os.fsync(descriptor)

    def copy(self, source, target):
        """A copy that is on the disk, so that no write-back of it falls into a measurement."""
        shutil.copyfile(source, target)
        self.settle(target)

    def settle(self, name):
        with _opened(name) as descriptor:
            os.fsync(descriptor)

    def evict(self, name):
        """Takes a file out of the page cache."""
        with _opened(name) as descriptor:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def warm(self, name):
        """Makes a file durable and reads what it has into the page cache."""
        piece = bytearray(MIB)
        with open(name, "rb", buffering=0) as file:
            os.fsync(file.fileno())
            for start, end in _data_ranges(file):
                file.seek(start)
                while start < end:
                    start += file.readinto(memoryview(piece)[: end - start])

    def make_ready(self, name, direct):
        """Into the page cache, or out of it where requests go past it."""
        if direct:
            self.evict(name)
        else:
            self.warm(name)


@contextmanager
def _opened(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _data_ranges(file):
    """The parts of a file that are not holes."""
    size = os.fstat(file.fileno()).st_size
    position = 0
    while position < size:
        try:
            start = os.lseek(file.fileno(), position, os.SEEK_DATA)
        except OSError:  # only a hole is left
            return
        position = os.lseek(file.fileno(), start, os.SEEK_HOLE)
        yield start, position


class Tools:
    """QEMU's programs and fio. They run in the current directory, the workspace."""

    def __init__(self, build):
        self.qemu_img = _existing(build / "qemu-img")
        self.qemu_nbd = _existing(build / "qemu-nbd")

    def version(self):
        return self.img("--version").splitlines()[0]

    def img(self, *arguments):
        return self._run([self.qemu_img, *arguments])

    def timed_img(self, *arguments):
        """For commands that tell no time: that of the process, with what it flushes at its end."""
        start = time.perf_counter()
        self.img(*arguments)
        wall = time.perf_counter() - start
        return Sample(wall, wall)

    def create(self, form, name, size, backing=None):
        """An image of `form`. Raw ones are sparse and have nothing below them."""
        arguments = ["create", "-q", "-f", form.driver]
        if form.options:
            arguments += ["-o", ",".join(form.options)]
        if backing and not form.is_raw:
            arguments += ["-b", backing, "-F", "raw"]
        self.img(*arguments, name, str(size))

    def bench(self, driver, name, access, *more, cache="writeback", offset=0):
        """Times requests by `qemu-img bench`, which tells how long they took by itself."""
        arguments = ["bench", "-f", driver, "-t", cache]
        if cache == "none":
            arguments.append("-n")
        arguments += [
            "-c",
            access.count,
            "-s",
            access.request,
            "-S",
            access.step,
            "-o",
            offset,
            *more,
            name,
        ]
        start = time.perf_counter()
        output = self.img(*map(str, arguments))
        wall = time.perf_counter() - start
        completed = COMPLETED.search(output)
        if not completed:
            raise BenchError(f"qemu-img bench told no time:\n{output}")
        return Sample(float(completed[1]), wall)

    def compare(self, first_driver, first, second):
        """Whether an image has the same bytes as a raw file."""
        result = self._start(
            [self.qemu_img, "compare", "-f", first_driver, "-F", "raw", first, second]
        )
        if result.returncode not in (0, 1):
            raise BenchError(f"cannot compare {first} with {second}: {result.stderr.strip()}")
        return result.returncode == 0, result.stdout.strip()

    def fio(self, arguments):
        """Runs fio's nbd engine on the export, and returns the report of its job."""
        command = [
            "fio",
            "--name=bench",
            "--ioengine=nbd",
            f"--uri=nbd+unix:///?socket={EXPORT_SOCKET}",
        ]
        command += ["--thread", "--output-format=json", *arguments]
        output = self._run(command)
        # The engine says that it is connected before the report begins.
        job = json.loads(output[output.index("{") :])["jobs"][0]
        if job["error"]:
            raise BenchError(f"fio failed with error {job['error']}:\n{output}")
        return job

    @contextmanager
    def export(self, driver, name, cache):
        """Serves an image over NBD. When it ends the image has been flushed and closed."""
        command = [self.qemu_nbd, "-f", driver, "--persistent", "--shared=4", f"--cache={cache}"]
        if cache == "none":
            command.append("--aio=native")
        command += ["-k", ABSOLUTE + EXPORT_SOCKET, name]
        with tempfile.TemporaryFile("w+") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                self._wait_for_export(server, log)
                yield
                server.terminate()
                server.wait(PATIENCE)
            finally:
                server.kill()
                server.wait()
                Path(EXPORT_SOCKET).unlink(missing_ok=True)

    def _wait_for_export(self, server, log):
        give_up = time.monotonic() + PATIENCE
        while server.poll() is None and time.monotonic() < give_up:
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(EXPORT_SOCKET)
                    return
                except OSError:
                    time.sleep(0.005)
        log.seek(0)
        raise BenchError(f"qemu-nbd does not serve the image:\n{log.read()}")

    def _run(self, command):
        result = self._start(command)
        if result.returncode:
            words = " ".join(map(str, command))
            raise BenchError(
                f"exit status {result.returncode} of: {words}\n{result.stdout}{result.stderr}"
            )
        return result.stdout

    def _start(self, command):
        try:
            return subprocess.run(
                command,
                env={**os.environ, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired as error:
            raise BenchError(
                f"no end after {PATIENCE} s: {' '.join(map(str, command))}"
            ) from error


def require_fio():
    if not shutil.which("fio"):
        raise BenchError(
            "fio is missing: `apt-get install fio`, or leave out its rows with --no-fio"
        )
    if (
        "nbd"
        not in subprocess.run(["fio", "--enghelp"], capture_output=True, text=True).stdout.split()
    ):
        raise BenchError("this fio was built without its nbd engine; --no-fio leaves its rows out")


def _existing(path):
    if not os.access(path, os.X_OK):
        raise BenchError(
            f"{path} is missing: `make qemu` builds it; DMSNAP_QEMU_DIR names another directory"
        )
    return path.resolve()
