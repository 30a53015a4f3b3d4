"""A virtual machine of the patched QEMU, with a guest that takes commands."""

import asyncio
import itertools
import json
import sys

from . import tools
from .guest import Guest
from .tools import TIMEOUT

from qemu.machine import QEMUMachine  # pylint: disable=wrong-import-order

SYSTEM = tools.BUILD / "qemu-system-x86_64"
# Software emulation everywhere: the same result where KVM is missing, or hangs.
MACHINE = "-accel tcg -nodefaults -no-reboot -m 384".split()
# The last two only shorten the boot.
KERNEL_LINE = "console=ttyS0 quiet panic=-1 oops=panic mitigations=off cryptomgr.notests"


class VmError(Exception):
    """Something awaited from QEMU did not come."""


def image_nodes(name, path, fmt="dmsnap", backing=None, **options):
    """Options of the nodes of one image file: NAME-file, and NAME with the format above it.

    More options go to the format's node. `backing` is a node's name; None means none, also if the
    image names one.
    """
    protocol = {"driver": "file", "node-name": f"{name}-file", "filename": str(path)}
    image = {"driver": fmt, "node-name": name, "file": f"{name}-file", **options}
    if fmt != "raw":
        image["backing"] = backing
    return [protocol, image]


class Vm(QEMUMachine):
    """Used as a context: on failure its logs are shown; it never outlives the block.

    Disks are added with image(), blockdev() and disk(), before launch() or while it runs.
    """

    def __init__(self, directory, name="vm", cpus=1, args=(), binary=SYSTEM):
        tools.prepare()
        super().__init__(
            str(binary),
            # Whatever becomes of the tests.
            wrapper=("setpriv", "--pdeathsig", "KILL"),
            name=name,
            base_temp_dir=str(directory),
            log_dir=str(directory),
            qmp_timer=TIMEOUT,
        )
        self._console = directory / f"{name}.console"
        self._reports = directory / f"{name}.reports"
        self._port = directory / f"{name}.agent"
        self._numbers = itertools.count(1)
        self.guest = None
        self.set_machine("pc")
        self.add_args(*MACHINE, "-smp", str(cpus))
        self.add_args("-kernel", str(tools.KERNEL / "vmlinux"))
        self.add_args("-initrd", str(tools.GUEST / "initrd"), "-append", KERNEL_LINE)
        self.add_args("-serial", f"file:{self._console}")
        self.add_args("-serial", f"unix:{self._port},server=on,wait=off")
        self.add_args("-serial", f"file:{self._reports}")
        self.add_args(*args)

    def launch(self):
        """Starts QEMU and waits until the guest takes commands."""
        self.launch_only()
        self.guest.wait_ready()

    def launch_only(self):
        """Starts QEMU with a guest that does not run yet: for an incoming migration, or -S."""
        super().launch()
        self._qmp.settimeout(TIMEOUT)
        self.guest = Guest(self._port, self._reports)

    def __exit__(self, kind, error, trace):
        try:
            self.shutdown(hard=error is not None)
        except Exception:
            error = True
            raise
        finally:
            if error:
                self.show_logs()

    def shutdown(self, hard=False, timeout=TIMEOUT):
        """Ends QEMU, which must not complain."""
        ran = self.guest is not None and self.is_running()
        super().shutdown(hard, timeout)
        if ran and not hard and self.exitcode() != 0:
            raise VmError(f"{self._name}: QEMU ended with status {self.exitcode()}")

    def _post_shutdown(self):
        if self.guest:
            self.guest.close()
        super()._post_shutdown()

    def show_logs(self):
        """What QEMU and the guest's kernel said."""
        status = f"status {self.exitcode()}"
        print(f"\n-- {self._name}: QEMU, {status}:\n{self.get_log()}", file=sys.stderr)
        if self._console.exists():
            text = self._console.read_text(errors="replace")
            print(f"-- {self._name}: the guest's console:\n{text}", file=sys.stderr)

    def blockdev(self, options):
        """A block node."""
        if self.is_running():
            self.cmd("blockdev-add", options)
        else:
            self.add_args("-blockdev", json.dumps(options))

    def object(self, options):
        """An object such as an iothread."""
        if self.is_running():
            self.cmd("object-add", options)
        else:
            self.add_args("-object", json.dumps(options))

    def device(self, options):
        if self.is_running():
            self.cmd("device_add", options)
        else:
            self.add_args("-device", json.dumps(options))

    def image(self, name, path, fmt="dmsnap", backing=None, **options):
        """The nodes of an image file, see image_nodes(); returns the name of the upper one."""
        for node in image_nodes(name, path, fmt, backing, **options):
            self.blockdev(node)
        return name

    def chain(self, name, *images):
        """Nodes NAME0, NAME1... for image files as (path, format), each the backing of the next.

        Returns their names.
        """
        names = []
        for number, (path, fmt) in enumerate(images):
            backing = names[-1] if names else None
            names.append(self.image(f"{name}{number}", path, fmt, backing))
        return names

    def disk(self, node, serial, **options):
        """A virtio-blk disk over a node; the guest finds it by `disk SERIAL`."""
        device = {"driver": "virtio-blk-pci", "id": serial, "drive": node, "serial": serial}
        self.device({**device, **options})

    def unplug(self, serial):
        """Takes a disk away; the guest has to let it go."""
        self.cmd("device_del", id=serial)
        self.await_event("DEVICE_DELETED", device=serial)

    def node_names(self):
        """Names of the nodes that were added by name."""
        nodes = self.cmd("query-named-block-nodes", flat=True)
        return {node["node-name"] for node in nodes if not node["node-name"].startswith("#")}

    def remove_nodes(self, *names):
        """Closes nodes, users first; all by default."""
        left = list(names or self.node_names())
        while left:
            errors = {}
            for name in left:
                answer = self.qmp("blockdev-del", node_name=name)
                if "error" in answer:
                    errors[name] = answer["error"]["desc"]
            if len(errors) == len(left):
                raise VmError(f"nodes that cannot be closed: {errors}")
            left = list(errors)

    def qemu_io(self, disk, command):
        """A command of qemu-io on a disk of the running machine; it must print nothing."""
        # The device, not the node: that would be drained at the end of the command.
        line = f'qemu-io -d /machine/peripheral/{disk}/virtio-backend "{command}"'
        output = self.cmd("human-monitor-command", command_line=line)
        if output:
            raise VmError(f"{line}: {output}")

    def unique(self):
        """A number that this machine has not used yet, for names."""
        return next(self._numbers)

    def await_event(self, name, **match):
        """The next event of this name whose data has these members."""
        wanted = {"data": match} if match else None
        try:
            return self.event_wait(name, TIMEOUT, wanted)
        except asyncio.TimeoutError:
            raise VmError(
                f"no event {name} with {match} within {TIMEOUT} s; others came: {self._events}"
            ) from None

    def start_job(self, command, job, **arguments):
        """Starts a block job that stays until dismissed by end_job()."""
        self.cmd(command, **arguments, job_id=job, auto_dismiss=False)

    def await_job(self, job, *states):
        """Until a job has one of these states; returns it."""
        state = self.job_info(job)["status"]
        while state not in states:
            if state == "concluded":
                raise VmError(f"job {job} ended before it was {states}: {self.job_info(job)}")
            state = self.await_event("JOB_STATUS_CHANGE", id=job)["data"]["status"]
        return state

    def job_info(self, job):
        for info in self.cmd("query-jobs"):
            if info["id"] == job:
                return info
        raise VmError(f"there is no job {job}")

    def end_job(self, job):
        """Waits for the end of a job, which must have worked."""
        self.await_job(job, "concluded")
        error = self.job_info(job).get("error")
        if error is not None:
            raise VmError(f"job {job} failed: {error}")
        self.cmd("job-dismiss", id=job)

    def run_job(self, command, job, **arguments):
        """Runs a block job to its end. A mirror, or commit of the active layer, is completed."""
        self.start_job(command, job, **arguments)
        if self.await_job(job, "ready", "pending", "concluded") == "ready":
            self.cmd("job-complete", id=job)
        self.end_job(job)

    def create(self, options):
        """blockdev-create, to its end."""
        job = f"create{self.unique()}"
        self.cmd("blockdev-create", {"job-id": job, "options": options})
        self.end_job(job)

    def new_image(self, name, path, size, fmt="dmsnap", **options):
        """Creates an image file over QMP, and its nodes without a backing node."""
        self.create({"driver": "file", "filename": str(path), "size": 0})
        protocol, image = image_nodes(name, path, fmt)
        self.blockdev(protocol)
        self.create({"driver": fmt, "file": protocol["node-name"], "size": size, **options})
        self.blockdev(image)
        return name
