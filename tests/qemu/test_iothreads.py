"""One dmsnap node under two iothreads: for each a queue of the disk and a CPU of the guest."""

import re
import unittest
from pathlib import Path

from harness import tools
from harness.case import MIB, SECTOR, Case
from harness.writer import Writer

SEED = 41
SIZE = 16 * MIB
# Where one writer's half ends and the other's begins: inside a chunk.
MIDDLE = SIZE // SECTOR // 2 + 5
# So many requests at least go through each queue. A thread waits after most of them.
REQUESTS = 20


class Iothreads(Case):
    def test_writes_on_both_queues(self):
        base = self.stamped("base.raw", SIZE, SEED)
        lower = tools.create(self.dir / "lower.dms", backing=base, backing_format="raw")
        upper = tools.create(self.dir / "upper.dms", backing=lower)
        with self.vm(cpus=2) as vm:
            for name in ("thread0", "thread1"):
                vm.object({"qom-type": "iothread", "id": name})
            mapping = [{"iothread": "thread0"}, {"iothread": "thread1"}]
            nodes = vm.chain("layer", (base, "raw"), (lower, "dmsnap"), (upper, "dmsnap"))
            vm.disk(nodes[-1], "data", **{"iothread-vq-mapping": mapping, "num-queues": 2})
            vm.launch()
            writers = [
                Writer(vm, "data", SEED, sectors=MIDDLE, cpu=0),
                Writer(vm, "data", SEED, first=MIDDLE, cpu=1),
            ]
            before = self.requests_served(vm)
            for writer in writers:
                writer.start()
            self.snapshot_and_commit(vm, upper, writers[0])
            for writer in writers:
                writer.stop()
            served = {
                name: count - before[name] for name, count in self.requests_served(vm).items()
            }
            self.assertTrue(
                all(count > REQUESTS for count in served.values()), f"not all served: {served}"
            )
            for writer in writers:
                writer.verify()
            raw = self.assert_agreement(vm, "data", base, lower, upper)
        for writer in writers:
            writer.verify_file(raw)

    def requests_served(self, vm):
        """How often each queue of the disk has answered, and each iothread has waited for work."""
        lines = vm.guest.run("grep 'virtio.-req' /proc/interrupts").splitlines()
        self.assertEqual(len(lines), 2, "queues of the disk")
        served = {line.split()[-1]: sum(int(word) for word in line.split()[1:3]) for line in lines}
        for thread in vm.cmd("query-iothreads"):
            status = Path(f"/proc/{vm.get_pid()}/task/{thread['thread-id']}/status").read_text()
            served[thread["id"]] = int(
                re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.M)[1]
            )
        return served

    def snapshot_and_commit(self, vm, upper, writer):
        """A layer on top while both queues write, and its commit into the one below."""
        below = {"backing-file": str(upper), "backing-fmt": "dmsnap"}
        top = vm.new_image("snapshot", self.dir / "snapshot.dms", SIZE, **below)
        writer.await_batches(5)
        vm.cmd("blockdev-snapshot", node="layer2", overlay=top)
        writer.await_batches(5)
        vm.start_job("block-commit", "job", device=top, base_node="layer2", speed=1)
        writer.await_batches(5)
        vm.cmd("block-job-set-speed", device="job", speed=0)
        vm.await_job("job", "ready")
        vm.cmd("block-job-complete", device="job")
        vm.end_job("job")


if __name__ == "__main__":
    unittest.main()
