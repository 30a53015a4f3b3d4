"""QEMU programs that serve layers: qemu-nbd and qemu-storage-daemon."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from .tools import BUILD, TIMEOUT, ToolError, run


class Server:
    """A program that serves inside a `with` block. Its log has nothing but complaints."""

    def __init__(self, directory, name, pid_option, command):
        self.name = name
        self._log = Path(directory, f"{name}.log")
        self._pid_file = Path(directory, f"{name}.pid")
        # Whatever becomes of the tests.
        mortal = ["setpriv", "--pdeathsig", "KILL"]
        self._command = [str(word) for word in (*mortal, *command, pid_option, self._pid_file)]
        self._process = None
        self._killed = False

    def __enter__(self):
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._wait_until_ready()
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            self.kill()
            print(f"\n-- {self.name}:\n{self.said()}", file=sys.stderr)
        elif not self._killed:
            self._stop()

    def _wait_until_ready(self):
        """Both programs write their process's number once everything is served."""
        deadline = time.monotonic() + TIMEOUT
        while not (self._pid_file.exists() and self._pid_file.read_text()):
            if self._process.poll() is not None:
                raise ToolError(f"{self.name} did not start:\n{self.said()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ToolError(f"{self.name} serves nothing after {TIMEOUT} s:\n{self.said()}")
            time.sleep(0.02)

    def said(self):
        return self._log.read_text(errors="replace")

    def _stop(self):
        """Ends it in good order, so that the image is closed; it must have lived until now."""
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            status = "none after SIGTERM"
        self.kill()
        if status != 0:
            raise ToolError(f"{self.name} ended with status {status}:\n{self.said()}")

    def kill(self):
        """Ends it on the spot: what was not flushed may be lost."""
        self._killed = True
        self._process.kill()
        self._process.wait()
        self._pid_file.unlink(missing_ok=True)


class QemuNbd(Server):
    """One layer over NBD."""

    def __init__(self, directory, layer, *options, name="qemu-nbd"):
        socket = Path(directory, f"{name}.socket")
        self.uri = nbd_uri(socket)
        command = [BUILD / "qemu-nbd", "--persistent", "--shared=8", "--format=dmsnap"]
        command += [f"--socket={socket}", *options, layer]
        super().__init__(directory, name, "--pid-file", command)


class StorageDaemon(Server):
    """Nodes and exports as QMP describes them, and objects such as iothreads."""

    def __init__(self, directory, nodes, exports, options=(), name="storage-daemon"):
        command = [BUILD / "storage-daemon/qemu-storage-daemon", *options]
        for node in nodes:
            command += ["--blockdev", json.dumps(node)]
        for export in exports:
            command += ["--export", json.dumps(export)]
        super().__init__(directory, name, "--pidfile", command)


class NbdDaemon(StorageDaemon):
    """The storage daemon with an NBD export of each of some nodes, of the same name."""

    def __init__(self, directory, nodes, names, writable=True, name="storage-daemon"):
        socket = Path(directory, f"{name}.socket")
        self.uris = {node: nbd_uri(socket, node) for node in names}
        listen = ["--nbd-server", f"addr.type=unix,addr.path={socket},max-connections=8"]
        exports = [
            {"type": "nbd", "id": node, "node-name": node, "name": node, "writable": writable}
            for node in names
        ]
        super().__init__(directory, nodes, exports, listen, name)


def nbd_uri(socket, export=""):
    return f"nbd+unix:///{export}?socket={socket}"


def layer_node(name, layer, **options):
    """The node of a layer, over the backing that the layer names."""
    file = {"driver": "file", "filename": str(layer), "discard": "unmap"}
    return {"driver": "dmsnap", "node-name": name, "file": file, "discard": "unmap", **options}


class VhostUserDaemon(StorageDaemon):
    """The storage daemon with vhost-user-blk exports of some nodes, in two iothreads by turns."""

    def __init__(self, directory, nodes, writethrough=False, name="storage-daemon"):
        names = [node["node-name"] for node in nodes]
        self.sockets = {node: Path(directory, f"{node}.socket") for node in names}
        threads = [f"thread{number}" for number in range(2)]
        exports = [
            {
                "type": "vhost-user-blk",
                "id": node,
                "node-name": node,
                "addr": {"type": "unix", "path": str(self.sockets[node])},
                "writable": True,
                "writethrough": writethrough,
                "num-queues": 2,
                "iothread": threads[number % len(threads)],
            }
            for number, node in enumerate(names)
        ]
        options = [word for thread in threads for word in ("--object", f"iothread,id={thread}")]
        super().__init__(directory, nodes, exports, options, name)


class FuseDaemon(StorageDaemon):
    """The storage daemon with a node as a raw file, `file`."""

    def __init__(self, directory, node, growable=False, name="storage-daemon"):
        self.file = Path(directory, f"{name}.img")
        self.file.touch()
        export = {
            "type": "fuse",
            "id": "fuse",
            "node-name": node["node-name"],
            "mountpoint": str(self.file),
            "writable": True,
            "growable": growable,
        }
        super().__init__(directory, [node], [export], name=name)

    def kill(self):
        super().kill()
        if str(self.file) in Path("/proc/self/mounts").read_text():
            root = os.geteuid() == 0
            run(*(["umount", "--lazy"] if root else ["fusermount3", "-uz"]), self.file)
