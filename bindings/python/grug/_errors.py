"""Failures of libgrug as exceptions."""

from ._library import Error, lib


class GrugError(Exception):
    """A call failed: ``status`` is the number of grug.h, ``name`` its name, such as ``"GRUG_EIO"``."""

    status: int
    name: str

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.name = lib.grug_status_name(status).decode()


class InvalidArgumentError(GrugError, ValueError):
    """An argument is out of range or contradicts another one."""


class FileError(GrugError, OSError):
    """Reading a file failed."""

    def __str__(self) -> str:
        return str(self.args[0])


class FormatError(GrugError, ValueError):
    """The bytes are not a valid model or saved session."""


class CanceledError(GrugError):
    """A cancellation token was triggered. ``written`` is how many bytes ``read_into`` had written."""

    written: int = 0


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


class NotFoundError(GrugError, KeyError):
    """There is nothing of that name."""

    def __str__(self) -> str:
        return str(self.args[0])


_BY_STATUS = {
    -1: InvalidArgumentError,
    -3: FileError,
    -4: FormatError,
    -7: CanceledError,
    -8: BusyError,
    -9: ContextFullError,
    -10: RewindError,
    -12: MismatchError,
    -13: DeadEndError,
    -14: NotFoundError,
}
NO_MEMORY, CANCELED, SPACE, NOT_FOUND = -2, -7, -11, -14


def check(status: int, error: Error) -> int:
    """The status of a call that succeeded; an exception for one that did not."""
    if status >= 0:
        return status
    message = error.message.decode(errors="replace")
    if status == NO_MEMORY:
        raise MemoryError(message)
    raise _BY_STATUS.get(status, GrugError)(status, message)
