"""Failures of libgrug as exceptions."""

from typing import Any, Tuple

from ._library import Error, lib


class GrugError(Exception):
    """A call failed: ``status`` is the number of grug.h, ``name`` its name, such as ``"GRUG_EIO"``, and ``written`` how many
    bytes ``read_into`` had written."""

    status: int
    name: str
    written: int = 0

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.name = lib.grug_status_name(status).decode()

    def __reduce__(self) -> Tuple[Any, ...]:
        # For pickle and copy, which would call the class with the message alone.
        return type(self), (self.status, str(self.args[0])), self.__dict__


class InvalidArgumentError(GrugError, ValueError):
    """An argument is out of range or contradicts another one."""


class FileError(GrugError, OSError):
    """Reading a file failed."""

    def __str__(self) -> str:
        return str(self.args[0])


class FormatError(GrugError, ValueError):
    """The bytes are not a valid model or saved session."""


class CanceledError(GrugError):
    """A cancellation token was triggered."""


class BusyError(GrugError, RuntimeError):
    """Another thread is using this session or sampler."""


class ContextFullError(GrugError):
    """The context is full and the session was told not to slide."""


class RewindError(GrugError):
    """The session cannot go back that far; it has not changed."""


class MismatchError(GrugError, ValueError):
    """The saved session belongs to another model or context."""


class DeadEndError(GrugError):
    """No byte may come next."""


class VersionError(GrugError):
    """The data or the options need a newer library."""


class DeviceError(GrugError):
    """The device is missing or failed."""


class SpaceError(GrugError):
    """The output is longer than the caller wants it to be."""


class UnsupportedError(GrugError, NotImplementedError):
    """This model, device or build cannot do that."""


class ForkError(GrugError, RuntimeError):
    """The model was loaded before a fork, and its threads stayed in the parent."""


class NotFoundError(GrugError, KeyError):
    """There is nothing of that name."""

    def __str__(self) -> str:
        return str(self.args[0])


_BY_STATUS = {
    -1: InvalidArgumentError,
    -3: FileError,
    -4: FormatError,
    -5: VersionError,
    -6: DeviceError,
    -7: CanceledError,
    -8: BusyError,
    -9: ContextFullError,
    -10: RewindError,
    -11: SpaceError,
    -12: MismatchError,
    -13: DeadEndError,
    -14: NotFoundError,
    -15: UnsupportedError,
    -16: ForkError,
}
NO_MEMORY, SPACE = -2, -11


def error_of(status: int, message: str) -> Exception:
    """The exception for a status that is a failure."""
    if status == NO_MEMORY:
        return MemoryError(message)
    return _BY_STATUS.get(status, GrugError)(status, message)


def check(status: int, error: Error) -> int:
    """The status of a call that succeeded; an exception for one that did not."""
    if status >= 0:
        return status
    raise error_of(status, error.message.decode(errors="replace"))
