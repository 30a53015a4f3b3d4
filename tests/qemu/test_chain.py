"""A guest on a chain raw, dmsnap, dmsnap: a file system on one disk, stamps on another."""

import unittest

from harness import tools
from harness.case import MIB, Case
from harness.writer import Writer

SEED = 11


class Chain(Case):
    def layers(self, name, base):
        """Two empty layers over a raw file."""
        lower, upper = self.dir / f"{name}-1.dms", self.dir / f"{name}-2.dms"
        tools.create(lower, backing=base, backing_format="raw")
        tools.create(upper, chunk="4K", backing=lower)
        return lower, upper

    def test_guest_on_two_layers(self):
        system, stamps = self.dir / "system.raw", self.stamped("stamps.raw", 8 * MIB, SEED)
        with open(system, "wb") as file:
            file.truncate(24 * MIB)
        chains = {"system": (system, *self.layers("system", system))}
        chains["stamps"] = (stamps, *self.layers("stamps", stamps))
        with self.vm() as vm:
            for name, (base, lower, upper) in chains.items():
                nodes = vm.chain(name, (base, "raw"), (lower, "dmsnap"), (upper, "dmsnap"))
                vm.disk(nodes[-1], name)
            vm.launch()
            writer = Writer(vm, "stamps", SEED, cached=True)
            writer.start()
            vm.guest.use_file_system("$(disk system)")
            writer.await_batches(1)
            writer.stop()
            writer.verify()
            views = {name: vm.guest.run(f"hash $(disk {name})") for name in chains}
            for name in chains:
                vm.unplug(name)
            vm.remove_nodes()
            raw = {name: self.assert_view(vm, views[name], *chains[name]) for name in chains}
        writer.verify_file(raw["stamps"])


if __name__ == "__main__":
    unittest.main()
