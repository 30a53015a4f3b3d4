"""Which bytes a run touches, in which order."""

from dataclasses import dataclass
from functools import cache

from formats import CLUSTERS, KIB

GOLDEN = (5**0.5 - 1) / 2
STEPS_TO_TRY = 4000


@dataclass(frozen=True)
class Access:
    """Requests as `qemu-img bench` makes them: each a step further, modulo the image's size."""

    request: int
    step: int
    count: int
    size: int

    def offsets(self):
        return [index * self.step % self.size for index in range(self.count)]

    def is_small_scattered(self):
        return self.request == 4 * KIB and self.step != self.request

    def total(self):
        return self.request * self.count

    def aligned(self, unit):
        """As far apart as these, but each a whole unit."""
        return _verified(Access(unit, self.step // unit * unit, self.count, self.size), [unit])

    def shortened(self, request):
        return Access(request, self.step, self.count, self.size)

    def stays_inside(self):
        return all(offset + self.request <= self.size for offset in self.offsets())

    def touches_new(self, cluster):
        """Whether no cluster is touched by two requests."""
        touched = set()
        for offset in self.offsets():
            clusters = range(offset // cluster, (offset + self.request - 1) // cluster + 1)
            if not touched.isdisjoint(clusters):
                return False
            touched.update(clusters)
        return True


def sequential(request, count, size):
    return _verified(Access(request, request, count, size), [request])


def every_nth(request, nth, size):
    """One request of every `nth` piece of the image, in order."""
    return _verified(Access(request, request * nth, size // (request * nth), size), [request])


def scattered(request, count, size, unit=0):
    """Requests all over the image, none twice, each on a multiple of `unit` bytes."""
    return _scattered(request, count, size, unit or request, (request,))


def scattered_apart(request, count, size):
    """Requests all over the image, of which no two share a cluster of any format.

    So each first write allocates in every format. They begin anywhere in a cluster that their own
    size allows.
    """
    return _scattered(request, count, size, request, tuple(CLUSTERS))


@cache
def _scattered(request, count, size, unit, clusters):
    # Multiples of the golden ratio, modulo 1, keep furthest apart. An odd multiple of the unit
    # comes back to a place last, and begins at each place within a cluster in turn.
    middle = int(size * GOLDEN) // unit
    for distance in range(STEPS_TO_TRY):
        for multiple in (middle - distance, middle + distance):
            access = Access(request, multiple * unit, count, size)
            if multiple % 2 == 1 and all(access.touches_new(each) for each in clusters):
                return _verified(access, clusters)
    raise ValueError(
        f"no step scatters {count} requests of {request} bytes over an image of {size} so that "
        f"each touches new clusters of {clusters[-1]}: it is too small"
    )


def _verified(access, clusters):
    assert access.stays_inside(), f"a request reaches past the end of the image: {access}"
    for cluster in clusters:
        assert access.touches_new(cluster), f"a cluster of {cluster} is touched twice: {access}"
    return access
