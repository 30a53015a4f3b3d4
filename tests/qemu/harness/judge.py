"""The guest kernel's own dm-snapshot over image files: the second opinion on a layer."""

from . import tools


class Judge:
    """Attaches image files in a guest. No other node may have them open for writing.

    Used as a context: what was attached is detached at its end.
    """

    def __init__(self, vm):
        self.vm = vm
        self._plugged = []
        self._mapped = []

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is None:
            self.detach()

    def plug(self, path, read_only=False):
        """A file as a disk of the guest, byte by byte; returns its device there."""
        serial = f"judge{self.vm.unique()}"
        self.vm.image(serial, path, "raw", **{"read-only": read_only})
        self.vm.disk(serial, serial)
        self._plugged.append(serial)
        return self.vm.guest.run(f"disk {serial}")

    def attach(self, origin, *layers, options=()):
        """Layers over a device of the guest, or over zeros if that is None; returns the device.

        The lines are those of `dmsnap table`, which takes the options.
        """
        # Before any file is a disk: the command may lengthen it, and reads what lies below.
        attached = [(layer, f"layer{self.vm.unique()}") for layer in layers]
        scripts = []
        for layer, name in attached:
            place = ["--origin-dev", origin] if origin else ["--no-origin"]
            words = [
                "table",
                *options,
                "--cover",
                "--name",
                name,
                *place,
                "--cow-dev",
                "COW",
                layer,
            ]
            scripts.append(tools.dmsnap(*words))
            origin = f"/dev/mapper/{name}"
        for (layer, name), script in zip(attached, scripts):
            self.vm.guest.run(script.replace("COW", self.plug(layer)))
            self._mapped.append(name)
        return origin

    def snapshot(self, origin, cow, chunk):
        """The kernel's own snapshot, new if the COW device is blank; returns the device."""
        name = f"snapshot{self.vm.unique()}"
        table = f"0 $(blockdev --getsz {origin}) snapshot {origin} {cow} P {chunk // 512}"
        self.vm.guest.run(f'dmsetup create {name} --table "{table}"')
        self._mapped.append(name)
        return f"/dev/mapper/{name}"

    def detach(self):
        """Gives the files back."""
        for name in reversed(self._mapped):
            self.vm.guest.run(f"forget {name}")
        for serial in reversed(self._plugged):
            self.vm.unplug(serial)
        self.vm.remove_nodes(
            *[f"{serial}{part}" for serial in self._plugged for part in ("", "-file")]
        )
        self._mapped, self._plugged = [], []


def kernel_view(vm, base, *layers):
    """SHA-256 of what the guest's kernel shows of layers over a raw file, or over zeros."""
    with Judge(vm) as judge:
        origin = judge.plug(base, read_only=True) if base else None
        return vm.guest.run(f"hash {judge.attach(origin, *layers)}")
