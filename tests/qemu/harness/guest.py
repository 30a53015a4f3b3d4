"""The other end of guest/init: runs commands in a guest."""

import base64
import re
import socket
import time

from .tools import TIMEOUT

# guest/init reads byte by byte from a line buffer of the kernel.
COMMAND_BYTES = 3000


class GuestError(Exception):
    """A command failed in the guest, or the guest does not answer."""


class Guest:
    """Commands run one at a time; start() leaves one in the background."""

    def __init__(self, port, reports):
        self._reports = reports
        self._number = 0
        self._received = b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(port))

    def close(self):
        self._socket.close()

    def wait_ready(self, timeout=TIMEOUT):
        """Until /init takes commands."""
        line = self._line("the boot of the guest", timeout)
        if line != "ready":
            raise GuestError(f"the guest said {line!r} instead of 'ready'")

    def run(self, command, timeout=TIMEOUT):
        """Output of a shell command with guest/lib.sh; raises unless all of it worked."""
        status, output = self.try_run(command, timeout)
        if status != 0:
            _, kernel = self.try_run("dmesg | tail -n 20", timeout)
            raise GuestError(
                f"in the guest: status {status} of\n{command}\noutput:\n{output}\n"
                f"the last words of its kernel:\n{kernel}"
            )
        return output

    def try_run(self, command, timeout=TIMEOUT):
        """Status and output of a shell command."""
        self._number += 1
        encoded = base64.b64encode(command.encode()).decode()
        if len(encoded) > COMMAND_BYTES:
            raise GuestError(f"a command of {len(command)} bytes is too long:\n{command}")
        self._socket.sendall(f"{self._number} {encoded}\n".encode())
        line = self._line(f"the end in the guest of\n{command}", timeout)
        words = line.split(" ")
        if len(words) != 4 or words[:2] != ["reply", str(self._number)]:
            raise GuestError(
                f"the guest said {line!r} instead of the reply {self._number} to\n{command}"
            )
        return int(words[2]), base64.b64decode(words[3]).decode(errors="replace").rstrip("\n")

    def start(self, name, command):
        """Starts a program with arguments in the background."""
        self.run(f"start_job {name} {command}")

    def finish(self, name, timeout=TIMEOUT):
        """Output of what start() started, when it has ended; raises unless it worked."""
        self.run(f"while [ ! -e /jobs/{name}.status ]; do usleep 50000; done", timeout)
        return self.run(f"cat /jobs/{name}.output; exit $(cat /jobs/{name}.status)")

    def use_file_system(self, device):
        """Makes an ext4, fills, trims, checks and mounts it again; its files are what they were."""
        self.run(f"/bin/mke2fs -q -t ext4 {device}; mount -t ext4 {device} /mnt")
        self.run("mkdir /mnt/a /mnt/b; cp -r /bin /modules /mnt/a")
        self.run("for n in 1 2 3 4; do dd if=/dev/urandom of=/mnt/b/$n bs=50001 count=9; done; sync")
        self.run("rm -r /mnt/a/modules; cd /mnt; find . -type f -exec sha256sum {} + > /tmp/sums")
        self.run(f"fstrim /mnt; umount /mnt; e2fsck -fn {device}")
        self.run(f"echo 3 > /proc/sys/vm/drop_caches; mount -t ext4 {device} /mnt")
        self.run(f"cd /mnt; sha256sum -c /tmp/sums; cd /; umount /mnt; e2fsck -fn {device}")

    def reports(self):
        """Lines that programs wrote to /dev/ttyS2, only complete ones; lasts if QEMU is killed."""
        text = self._reports.read_text() if self._reports.exists() else ""
        return text.split("\n")[:-1]

    def flushed(self):
        """Number of the last batch that `stamp write -r /dev/ttyS2` has reported as flushed."""
        batches = [re.fullmatch("flushed ([0-9]+)", line) for line in self.reports()]
        if None in batches:
            raise GuestError(f"strange lines among the reports: {self.reports()}")
        return int(batches[-1][1]) if batches else 0

    def _line(self, awaited, timeout):
        deadline = time.monotonic() + timeout
        while b"\n" not in self._received:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                raise GuestError(f"nothing came within {timeout} s; awaited: {awaited}") from None
            if not data:
                raise GuestError(f"the virtual machine ended; awaited: {awaited}")
            self._received += data
        line, self._received = self._received.split(b"\n", 1)
        return line.decode(errors="replace").rstrip("\r")
