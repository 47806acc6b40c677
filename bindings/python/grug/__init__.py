"""Byte-level language models in your program.

    import grug

    with grug.Model("model.safetensors") as model:
        session = grug.Session(model)
        session.feed("ROMEO:\\n")
        for piece in session.stream(grug.Sampler(temperature=0.8), max_bytes=400):
            print(piece, end="", flush=True)

A model may be shared by threads; a session or a sampler serves one thread at a time, and a second one gets BusyError.
Every call releases the GIL.
"""

from ._errors import (
    BusyError,
    CanceledError,
    ContextFullError,
    DeadEndError,
    DeviceError,
    FileError,
    ForkError,
    FormatError,
    GrugError,
    InvalidArgumentError,
    MismatchError,
    NotFoundError,
    RewindError,
    SpaceError,
    UnsupportedError,
    VersionError,
)
from ._library import lib as _lib
from ._model import Cancel, Device, Model, ModelInfo, devices
from ._sampler import Grammar, Sampler
from ._session import Session, Stop, next_batch

__all__ = [
    "Model", "Session", "Sampler", "Grammar", "Cancel", "ModelInfo", "Device", "Stop", "devices", "next_batch", "version",
    "GrugError", "BusyError", "CanceledError", "ContextFullError", "DeadEndError", "DeviceError", "FileError",
    "ForkError", "FormatError", "InvalidArgumentError", "MismatchError", "NotFoundError", "RewindError", "SpaceError",
    "UnsupportedError", "VersionError",
]


def version() -> str:
    """The version of libgrug."""
    return str(_lib.grug_version().decode())
