"""A guest that writes moves between QEMU processes, which both have its image open."""

import unittest

from harness import tools
from harness.case import MIB, Case
from harness.writer import Writer

SEED = 53
SIZE = 16 * MIB


class Migration(Case):
    def setUp(self):
        super().setUp()
        self.base = self.stamped("base.raw", SIZE, SEED)
        self.lower = tools.create(self.dir / "lower.dms", backing=self.base, backing_format="raw")
        self.upper = tools.create(self.dir / "upper.dms", backing=self.lower)

    def machine(self, name, *arguments):
        vm = self.vm(name, args=arguments)
        nodes = vm.chain(
            "layer", (self.base, "raw"), (self.lower, "dmsnap"), (self.upper, "dmsnap")
        )
        vm.disk(nodes[-1], "data")
        return vm

    def migrate(self, source, target):
        """Until the source has handed over everything."""
        address = f"unix:{self.dir}/migration"
        for vm in (source, target):
            events = [{"capability": "events", "state": True}]
            vm.cmd("migrate-set-capabilities", capabilities=events)
        target.cmd("migrate-incoming", uri=address)
        # However slow the host is, a guest that writes must not keep it from ending.
        source.cmd("migrate-set-parameters", downtime_limit=20000, max_bandwidth=1 << 30)
        source.cmd("migrate", uri=address)
        source.await_event("MIGRATION", status="completed")

    def test_there_and_back(self):
        with self.machine("here") as here, self.machine("there", "-incoming", "defer") as there:
            here.launch()
            writer = Writer(here, "data", SEED)
            writer.start()
            writer.await_batches(3)
            there.launch_only()
            self.migrate(here, there)
            there.await_event("RESUME")
            here.shutdown()
            writer.vm = there
            writer.await_batches(3)
            with self.machine("again", "-incoming", "defer") as again:
                again.launch_only()
                self.migrate(there, again)
                again.await_event("RESUME")
                there.shutdown()
                writer.vm = again
                self.finish(again, writer)

    def test_the_source_goes_on_if_the_target_is_given_up(self):
        with self.machine("here") as here:
            here.launch()
            writer = Writer(here, "data", SEED)
            writer.start()
            writer.await_batches(3)
            with self.machine("there", "-incoming", "defer", "-S") as there:
                there.launch_only()
                self.migrate(here, there)
                there.await_event("MIGRATION", status="completed")
            here.cmd("cont")
            self.finish(here, writer)

    def finish(self, vm, writer):
        """The guest has written on, and all agree about what."""
        writer.await_batches(3)
        writer.stop()
        writer.verify()
        writer.verify_file(self.assert_agreement(vm, "data", self.base, self.lower, self.upper))


if __name__ == "__main__":
    unittest.main()
