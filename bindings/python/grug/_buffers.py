"""Bytes of the caller, as addresses and lengths."""

import ctypes as c
import sys
from typing import Any, Callable, Tuple, Union

from . import _library as L
from ._errors import SPACE, check

#: Anything with the buffer protocol: bytes, bytearray, memoryview, array.array, numpy arrays of bytes.
Buffer = Any
Text = Union[str, Buffer]


def count(name: str, n: int, bits: int = 64) -> int:
    """A number that C takes as one of so many bits without a sign, of which ctypes would drop the rest."""
    if not 0 <= n < 1 << bits:
        raise ValueError(f"{name} = {n}: out of range")
    return n


def name_of(what: str, text: bytes) -> bytes:
    """A text that C ends at the first NUL."""
    if 0 in text:
        raise ValueError(f"{what} has a NUL")
    return text


#: What `memoryview.format` says of floats: as a machine has them, and as ctypes writes that.
FLOAT_FORMATS = ("f", "<f" if sys.byteorder == "little" else ">f")


def borrow(data: Text) -> Tuple[Any, int, Any]:
    """Address and length of bytes, and what must stay alive meanwhile. Nothing is copied but text and read-only views."""
    if isinstance(data, str):
        data = data.encode()
    if not isinstance(data, bytes):
        view = memoryview(data)
        if not view.readonly and view.c_contiguous and view.nbytes > 0:
            place = (c.c_uint8 * view.nbytes).from_buffer(view.cast("B"))
            return c.addressof(place), view.nbytes, place
        data = view.tobytes()
    return c.cast(c.c_char_p(data), c.c_void_p), len(data), data


def writable(buffer: Buffer, item: str) -> Any:
    """A writable buffer as a ctypes array."""
    view = memoryview(buffer)
    if view.readonly:
        raise TypeError("the buffer is read-only")
    kind: Any = {"B": c.c_uint8, "f": c.c_float}[item]
    if item == "f" and view.format not in FLOAT_FORMATS:
        raise TypeError(f"the buffer has items of format {view.format!r}, not 'f'")
    return (kind * (view.nbytes // c.sizeof(kind))).from_buffer(view.cast("B")) if view.nbytes else None


def sized(ask: Callable[..., int]) -> bytes:
    """Calls that fill a buffer and say its size: ``ask(buffer, len, error)``."""
    size, error = c.c_size_t(0), L.Error()
    status = ask(None, c.byref(size), c.byref(error))
    buffer = c.create_string_buffer(max(size.value, 1))
    if status == SPACE:
        status = ask(buffer, c.byref(size), c.byref(error))
    check(status, error)
    return buffer.raw[: size.value]
