"""What test cases share: a directory, stamped images, and how they are judged afterwards."""

import shutil
import tempfile
import unittest
from pathlib import Path

from . import tools
from .judge import kernel_view
from .vm import Vm

MIB = 1 << 20
SECTOR = 512


class Case(unittest.TestCase):
    """A test with a directory of its own."""

    def setUp(self):
        # A short path: it holds sockets.
        self.dir = Path(tempfile.mkdtemp(prefix="dmsnap-"))
        self.addCleanup(shutil.rmtree, self.dir)

    def vm(self, name="vm", **options):
        return Vm(self.dir, name, **options)

    def stamped(self, name, size, seed):
        """A raw file full of stamps of generation 0."""
        path = self.dir / name
        tools.stamp("fill", path, seed, size // SECTOR)
        return path

    def assert_agreement(self, vm, serial, base, *layers):
        """All show what the guest sees on a disk, which it loses; returns a raw file of that.

        The layers lie over a raw file, or over zeros if that is None.
        """
        view = vm.guest.run(f"hash $(disk {serial})")
        vm.unplug(serial)
        vm.remove_nodes()
        return self.assert_view(vm, view, base, *layers)

    def assert_view(self, vm, view, base, *layers):
        """The kernel of the guest, dmsnap and QEMU show this view; returns a raw file of it."""
        kernel = kernel_view(vm, base, *layers)
        self.assertEqual(kernel, view, f"{layers[-1]}: the kernel shows something else")
        raw = self.assert_layers(*reversed(layers))
        self.assertEqual(tools.sha256(raw), view, f"{layers[-1]}: the file holds something else")
        return raw

    def assert_layers(self, top, *layers):
        """dmsnap finds nothing wrong in the layers; it and QEMU show the same disk from the top.

        Returns a raw file of what the top shows.
        """
        for layer in {top, *layers}:
            tools.dmsnap("check", layer)
        ours, theirs = top.with_suffix(".ours"), top.with_suffix(".raw")
        tools.dmsnap("convert", "-q", "-f", "dmsnap", "-O", "raw", top, ours)
        tools.qemu_img("convert", "-f", "dmsnap", "-O", "raw", top, theirs)
        tools.qemu_img("compare", "-f", "dmsnap", "-F", "raw", top, ours)
        self.assertEqual(
            tools.sha256(ours), tools.sha256(theirs), f"{top}: dmsnap and QEMU differ"
        )
        ours.unlink()
        return theirs
