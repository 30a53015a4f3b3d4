"""libdmsnap by its C ABI: opening thousands of states takes no thousands of processes."""

import contextlib
import ctypes
import functools
import os

from .tools import DMSNAP

ORIGIN_FROM_IMAGE = 1


class LibraryError(Exception):
    """A call failed; says what the library says."""


@functools.cache
def library():
    path = DMSNAP.parent / "libdmsnap.so"
    loaded = ctypes.CDLL(os.fspath(path))
    loaded.dmsnap_last_error_message.restype = ctypes.c_char_p
    loaded.dmsnap_open_options_new.restype = ctypes.c_void_p
    loaded.dmsnap_check_options_new.restype = ctypes.c_void_p
    return loaded


def call(name, *arguments):
    result = getattr(library(), f"dmsnap_{name}")(*arguments)
    if result < 0:
        message = library().dmsnap_last_error_message().decode()
        raise LibraryError(f"dmsnap_{name}: {message}")


class Image:
    """An open layer over the file that it names."""

    def __init__(self, handle):
        self._handle = handle

    def read(self):
        """All bytes of the disk."""
        size = ctypes.c_uint64()
        call("image_size", self._handle, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        call("image_read", self._handle, buffer, ctypes.c_size_t(size.value), ctypes.c_uint64(0))
        return buffer.raw

    def write(self, data, offset):
        call(
            "image_write", self._handle, data, ctypes.c_size_t(len(data)), ctypes.c_uint64(offset)
        )

    def flush(self):
        call("image_flush", self._handle)


@contextlib.contextmanager
def opened(path, writable=False):
    options = ctypes.c_void_p(library().dmsnap_open_options_new())
    handle = ctypes.c_void_p()
    try:
        call("open_options_set_writable", options, ctypes.c_bool(writable))
        call("open_options_set_origin", options, ctypes.c_uint32(ORIGIN_FROM_IMAGE))
        call("image_open", os.fsencode(path), options, ctypes.byref(handle))
    finally:
        library().dmsnap_open_options_free(options)
    try:
        yield Image(handle)
    finally:
        call("image_close", handle)
