"""Stamped writes in the background of a guest."""

import time

from . import tools
from .tools import TIMEOUT


class Writer:
    """`stamp write` on a disk full of stamps, from batch to batch until it is stopped.

    It goes past the guest's page cache unless `cached`. What a batch writes depends on the number
    of sectors: say it if the disk may change its size.
    """

    def __init__(self, vm, serial, seed, batches=0, first=0, sectors=0, cached=False, cpu=None):
        self.vm = vm
        self.batches = batches
        self._serial = serial
        self._seed = seed
        self._name = f"write-{serial}-{first}"
        self._region = ["-o", first, "-n", sectors]
        self._options = [] if cached else ["-d"]
        if cpu is not None:
            self._options += ["-c", cpu]

    def start(self):
        self.vm.guest.run(f"rm -f /tmp/stop-{self._name} /jobs/{self._name}.*")
        options = ["-a", self.batches, "-u", f"/tmp/stop-{self._name}", "-r", "/dev/ttyS2"]
        command = self._stamp("write", *options, *self._options, self._device())
        self.vm.guest.start(self._name, command)

    def await_batches(self, count):
        """Until this many more batches were written, read back and flushed."""
        start = len(self.vm.guest.reports())
        deadline = time.monotonic() + TIMEOUT
        while len(self.vm.guest.reports()) < start + count:
            status = self.vm.guest.run(f"cat /jobs/{self._name}.status 2> /dev/null || true")
            if status or time.monotonic() > deadline:
                output = self.vm.guest.run(f"cat /jobs/{self._name}.output")
                raise tools.ToolError(
                    f"{self._name}: {count} batches more than the {start} reported were awaited,"
                    f" reported: {self.vm.guest.reports()[-1:]}; status {status}, output:\n"
                    f"{output}"
                )
            time.sleep(0.1)

    def stop(self):
        """Ends it; everything it wrote was verified then."""
        self.vm.guest.run(f"touch /tmp/stop-{self._name}")
        words = self.vm.guest.finish(self._name).split()
        self.batches = int(words[words.index("batches") + 1])

    def verify(self):
        """Every sector, read from the disk."""
        self.vm.guest.run(self._stamp("verify", "-b", self.batches, self._device()))

    def verify_file(self, path):
        """The same of a raw file on the host."""
        tools.stamp("verify", "-b", self.batches, *self._region, path, self._seed)

    def _device(self):
        return self.vm.guest.run(f"disk {self._serial}")

    def _stamp(self, mode, *words):
        return " ".join(str(word) for word in ("stamp", mode, *self._region, *words, self._seed))
