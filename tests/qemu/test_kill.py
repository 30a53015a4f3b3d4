"""QEMU is killed while the guest writes: all that was flushed is there, without a repair."""

import random
import sys
import time
import unittest

from harness import tools
from harness.case import MIB, Case
from harness.judge import kernel_view
from harness.writer import Writer

STAMPS = 61
SIZE = 16 * MIB
ROUNDS = 6


class Kill(Case):
    def test_everything_flushed_survives(self):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}", file=sys.stderr)
        chance = random.Random(seed)
        base = self.stamped("base.raw", SIZE, STAMPS)
        lower = tools.create(self.dir / "lower.dms", backing=base, backing_format="raw")
        upper = tools.create(self.dir / "upper.dms", chunk="4K", backing=lower)
        flushed = 0
        for number in range(ROUNDS):
            # Half of the rounds with many requests at a time, from the guest's page cache.
            flushed = self.write_until_killed(
                (base, lower, upper),
                flushed,
                cached=number % 2 == 1,
                commit=number % 3 == 2,
                delay=chance.random() * 2,
            )
            raw = self.assert_layers(upper, lower)
            tools.stamp("verify", "-b", flushed, raw, STAMPS)
        with self.vm() as vm:
            vm.launch()
            view = kernel_view(vm, base, lower, upper)
        self.assertEqual(tools.sha256(raw), view, "kernel and QEMU differ")

    def write_until_killed(self, chain, flushed, cached, commit, delay):
        """The number of the last batch that was flushed, in this run of QEMU or before."""
        base, *layers = chain
        with self.vm() as vm:
            nodes = vm.chain("layer", (base, "raw"), *[(layer, "dmsnap") for layer in layers])
            vm.disk(nodes[-1], "data")
            vm.launch()
            writer = Writer(vm, "data", STAMPS, flushed, cached=cached)
            writer.start()
            writer.await_batches(2)
            if commit:
                # Not to its end: the upper layer keeps what has gone into the lower one.
                vm.start_job("block-commit", "job", device=nodes[2], base_node=nodes[1], speed=MIB)
            time.sleep(delay)
            vm.kill()
            return vm.guest.flushed()


if __name__ == "__main__":
    unittest.main()
