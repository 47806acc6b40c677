"""Handles of libgrug that can be closed at any time, from any thread."""

import threading
import weakref
from contextlib import contextmanager
from typing import Callable, Iterator, Optional, TypeVar

_Self = TypeVar("_Self", bound="Handle")


class _Owner:
    """Frees a handle once: when it is closed and no call is using it any more."""

    def __init__(self, pointer: int, free: Callable[[int], None], keep: object) -> None:
        self.pointer: Optional[int] = pointer
        self.free = free
        self.keep: object = keep
        self.lock = threading.Lock()
        self.users = 0
        self.closed = False

    def enter(self) -> int:
        with self.lock:
            if self.closed or self.pointer is None:
                raise ValueError("it is closed")
            self.users += 1
            return self.pointer

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
        self.release()

    def close(self) -> None:
        self.closed = True
        self.release()

    def release(self) -> None:
        with self.lock:
            if not self.closed or self.users > 0 or self.pointer is None:
                return
            pointer, self.pointer = self.pointer, None
        self.free(pointer)
        self.keep = None


class using:
    """The pointer of a handle for the time of a call, or NULL for None."""

    def __init__(self, handle: "Optional[Handle]") -> None:
        self.handle = handle

    def __enter__(self) -> Optional[int]:
        return None if self.handle is None else self.handle._owner.enter()

    def __exit__(self, *_: object) -> None:
        if self.handle is not None:
            self.handle._owner.leave()


class Handle:
    """A base for what owns a handle: ``close()``, ``with``, and freeing when it is collected. ``keep`` is what the
    library may use until then."""

    def __init__(self, pointer: int, free: Callable[[int], None], keep: object = None) -> None:
        self._owner = _Owner(pointer, free, keep)
        self._finalizer = weakref.finalize(self, self._owner.close)

    @contextmanager
    def _use(self) -> Iterator[int]:
        """The pointer, which is not freed while this lasts."""
        pointer = self._owner.enter()
        try:
            yield pointer
        finally:
            self._owner.leave()

    def close(self) -> None:
        """Frees it: now, or when the call that uses it ends. Closing twice is fine."""
        self._finalizer()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
