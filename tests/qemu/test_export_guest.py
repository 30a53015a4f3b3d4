"""Layers as disks of a QEMU that does not know the format, over NBD and over vhost-user-blk."""

import unittest

from harness import tools
from harness.case import MIB, Case
from harness.exports import CHUNKS, unpatched
from harness.servers import NbdDaemon, VhostUserDaemon, layer_node
from harness.writer import Writer

SEED = 31
STAMPED = 16 * MIB
# Every vhost-user disk of QEMU's has this serial number; the guest takes it for the first one's.
VHOST_USER = "vhost_user_blk"
SHARED_MEMORY = (
    "-object memory-backend-memfd,id=mem,size=384M,share=on -machine memory-backend=mem"
)


def await_device(guest, device):
    """Until a disk is there that has no serial number of its own."""
    guest.run(
        f"tries=0; until [ -b {device} ]; do tries=$((tries + 1)); usleep 20000;"
        f" [ $tries -lt 3000 ] || {{ echo no {device}; dmesg | tail -n 30; exit 1; }}; done"
    )


class ForeignGuest(Case):
    """The base of `system` is empty, that of the other layers is full of stamps."""

    def setUp(self):
        super().setUp()
        tools.prepare()
        self.empty = self.dir / "empty-base.raw"
        with open(self.empty, "wb") as file:
            file.truncate(24 * MIB)
        self.stamps = self.stamped("stamps-base.raw", STAMPED, SEED)
        self.sums = {base: tools.sha256(base) for base in (self.empty, self.stamps)}

    def foreign_vm(self, **options):
        """A machine of the QEMU that came with the guest's kernel."""
        return self.vm(binary=tools.KERNEL / "qemu", **options)

    def assert_foreign(self, vm):
        answer = vm.qmp("blockdev-add", driver="dmsnap", node_name="none", file="none")
        self.assertRegex(answer["error"]["desc"], "driver.*dmsnap")

    def layer(self, name, base, chunk):
        path = self.dir / f"{name}.dms"
        return tools.create(path, chunk, backing=base, backing_format="raw")

    def judge(self, layer, seen):
        """A layer shows what the guest saw, its base is as it was. Returns it as a raw file."""
        raw = self.assert_layers(layer)
        self.assertEqual(tools.sha256(raw), seen, f"{layer.name} is not what the guest saw")
        for base, digest in self.sums.items():
            self.assertEqual(tools.sha256(base), digest, f"{base.name} was written to")
        return raw

    def test_nbd(self):
        """Two disks of one export each; in the end the machine's own qemu-img reads them, too."""
        layers = {
            "system": self.layer("system", self.empty, "16K"),
            "stamps": self.layer("stamps", self.stamps, "4K"),
        }
        nodes = [layer_node(name, layer) for name, layer in layers.items()]
        with NbdDaemon(self.dir, nodes, list(layers)) as server:
            with self.foreign_vm() as vm:
                for name, uri in server.uris.items():
                    vm.add_args("-drive", f"file={uri},format=raw,if=none,id={name},discard=unmap")
                    vm.disk(name, name)
                vm.launch()
                self.assert_foreign(vm)
                writer = Writer(vm, "stamps", SEED)
                writer.start()
                vm.guest.use_file_system(vm.guest.run("disk system"))
                writer.await_batches(1)
                writer.stop()
                writer.verify()
                seen = {name: vm.guest.run(f"hash $(disk {name})") for name in layers}
            for name, uri in server.uris.items():
                copy = self.dir / f"{name}.copy"
                tools.run(unpatched("qemu-img"), "convert", "-f", "raw", "-O", "raw", uri, copy)
                self.assertEqual(
                    tools.sha256(copy), seen[name], f"{uri} is not what the guest saw"
                )
        self.judge(layers["system"], seen["system"])
        writer.verify_file(self.judge(layers["stamps"], seen["stamps"]))

    def add_vhost_user_disks(self, vm, sockets):
        for name, socket in sockets.items():
            vm.add_args("-chardev", f"socket,id={name},path={socket}")
            vm.device({"driver": "vhost-user-blk-pci", "chardev": name, "num-queues": 2})

    def test_vhost_user(self):
        """Three disks of one daemon: stamps, a file system, stamps of two processors at once."""
        bases = (self.stamps, self.empty, self.stamps)
        layers = {c: self.layer(f"chunk-{c}", base, c) for c, base in zip(CHUNKS, bases)}
        half = STAMPED // 512 // 2
        nodes = [layer_node(f"disk-{name}", layer) for name, layer in layers.items()]
        with VhostUserDaemon(self.dir, nodes) as server:
            with self.foreign_vm(cpus=2, args=SHARED_MEMORY.split()) as vm:
                self.add_vhost_user_disks(vm, server.sockets)
                vm.launch()
                self.assert_foreign(vm)
                await_device(vm.guest, "/dev/vdc")
                writer = Writer(vm, VHOST_USER, SEED)
                writer.start()
                for cpu in range(2):
                    region = f"-o {cpu * half} -n {half}"
                    vm.guest.start(
                        f"cpu{cpu}", f"stamp write -d -c {cpu} {region} -b 12 /dev/vdc {SEED}"
                    )
                vm.guest.use_file_system("/dev/vdb")
                for cpu in range(2):
                    vm.guest.finish(f"cpu{cpu}")
                writer.await_batches(1)
                writer.stop()
                writer.verify()
                disks = dict(zip(layers, ("/dev/vda", "/dev/vdb", "/dev/vdc")))
                seen = {name: vm.guest.run(f"hash {device}") for name, device in disks.items()}
        raws = {name: self.judge(layer, seen[name]) for name, layer in layers.items()}
        writer.verify_file(raws["4K"])
        for cpu in range(2):
            region = ["-o", cpu * half, "-n", half]
            tools.stamp("verify", *region, "-b", 12, raws["64K"], SEED)

    def test_vhost_user_killed(self):
        """The daemon dies while the guest writes: what was flushed is there, without repair."""
        for cache in ("write back", "write through"):
            with self.subTest(cache=cache):
                layer = self.layer(cache.replace(" ", "-"), self.stamps, "16K")
                batches = self.kill_daemon(layer, cache)
                raw = self.assert_layers(layer)
                tools.stamp("verify", "-b", batches, raw, SEED)

    def kill_daemon(self, layer, cache):
        """Returns how many batches the guest had flushed, or taken for durable without that."""
        node = layer_node("disk", layer)
        with VhostUserDaemon(self.dir, [node], writethrough=cache == "write through") as server:
            with self.foreign_vm(args=SHARED_MEMORY.split()) as vm:
                self.add_vhost_user_disks(vm, server.sockets)
                vm.launch()
                self.assertEqual(vm.guest.run("cat /sys/block/vda/queue/write_cache"), cache)
                writer = Writer(vm, VHOST_USER, SEED)
                writer.start()
                writer.await_batches(3)
                server.kill()
                batches = vm.guest.flushed()
                vm.kill()
        return batches


if __name__ == "__main__":
    unittest.main()
