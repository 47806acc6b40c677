"""Models, and what stops them."""

import ctypes as c
import logging
import os
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Union

from . import _library as L
from ._buffers import Buffer, Text, borrow, count, name_of, sized
from ._errors import SPACE, NotFoundError, check
from ._handle import Handle, using

_lib = L.lib


class Cancel(Handle):
    """A cancellation token: give it to models and sessions, trigger it from any thread."""

    def __init__(self) -> None:
        pointer = _lib.grug_cancel_new()
        if not pointer:
            raise MemoryError
        super().__init__(pointer, _lib.grug_cancel_free)

    def trigger(self) -> None:
        """Stops what uses it, and what starts later, until it is reset."""
        with self._use() as token:
            _lib.grug_cancel_trigger(token)

    def reset(self) -> None:
        """Makes it as new."""
        with self._use() as token:
            _lib.grug_cancel_reset(token)


#: Levels of grug.h as levels of `logging`.
_LOG_LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO, 4: logging.DEBUG}


class _Hooks:
    """The functions that the library calls, and what they raised."""

    def __init__(self, log: Optional[logging.Logger], progress: Optional[Callable[[float], object]]) -> None:
        self.raised: Optional[BaseException] = None

        def on_log(_: int, level: int, text: int, size: int) -> None:
            if log is not None:
                log.log(_LOG_LEVELS.get(level, logging.DEBUG), "%s", c.string_at(text, size).decode(errors="replace"))

        def on_progress(_: int, fraction: float) -> int:
            try:
                return 0 if progress is None or progress(fraction) is not False else 1
            except BaseException as error:  # it is raised again outside of C
                self.raised = error
                return 1

        self.log = L.LogFunction(on_log) if log is not None else L.LogFunction()
        self.progress = L.ProgressFunction(on_progress) if progress is not None else L.ProgressFunction()


@dataclass(frozen=True)
class Device:
    """What a model can run on."""

    name: str  #: for ``Model(device=…)``: "cpu", "cuda:0", "wgpu:0"
    description: str  #: what its maker calls it
    features: str  #: what it can do, separated by commas
    memory_total: int  #: bytes; 0 where unknown
    memory_free: int  #: bytes; 0 where unknown


def devices() -> List[Device]:
    """The devices of this machine that this build of libgrug can use; the CPU is the first."""
    found = []
    for i in range(_lib.grug_device_count()):
        device, error = L.Device(size=c.sizeof(L.Device)), L.Error()
        check(_lib.grug_device_get(i, c.byref(device), c.byref(error)), error)
        found.append(
            Device(
                name=device.name.decode(),
                description=device.description.decode(),
                features=device.features.decode(),
                memory_total=device.memory_total,
                memory_free=device.memory_free,
            )
        )
    return found


@dataclass(frozen=True)
class ModelInfo:
    """What a model is."""

    n_params: int
    weight_bytes: int
    fingerprint: int  #: a hash of configuration and weights
    context_bytes: int  #: what a prediction can look back on
    state_bytes: int  #: the most bytes of a saved session
    rewind_bytes: int  #: how far ``rewind`` always works
    embedding_dim: int
    end_byte: Optional[int]  #: the byte that ends a document


class Model(Handle):
    """Immutable weights: load them once, share them between threads.

    ``source`` is a path, or the bytes of a model file, which are copied. ``threads``: 0 is one for each core, 1 the
    calling thread alone. ``device`` is the name of one of ``devices()``, or "auto"; ``self_check`` compares a GPU with
    the CPU while loading. ``mlock`` keeps the weights in memory. ``portable`` makes logits the same bit by bit on every
    machine, more slowly; compression needs it. ``progress`` hears how far loading is, from 0 to 1, and stops it by
    returning False or raising. ``log`` receives what the library has to say, as long as the model or a session lives.
    """

    def __init__(
        self,
        source: Union[str, "os.PathLike[str]", bytes, bytearray, memoryview],
        *,
        threads: int = 0,
        mmap: bool = True,
        mlock: bool = False,
        portable: bool = False,
        self_check: bool = True,
        device: Optional[str] = None,
        cancel: Optional[Cancel] = None,
        progress: Optional[Callable[[float], object]] = None,
        log: Optional[logging.Logger] = None,
    ) -> None:
        hooks = _Hooks(log, progress)
        options = L.ModelOptions(
            size=c.sizeof(L.ModelOptions),
            device=None if device is None else name_of("device", device.encode()),
            n_threads=count("threads", threads, 32),
            flags=(0 if mmap else 1) | (2 if mlock else 0) | (4 if portable else 0) | (0 if self_check else 8),
            log=hooks.log,
            progress=hooks.progress,
        )
        out, error = c.c_void_p(), L.Error()
        with using(cancel) as options.cancel:
            if isinstance(source, (bytes, bytearray, memoryview)):
                data, size, keep = borrow(source)
                status = _lib.grug_model_load_buffer(data, size, 0, c.byref(options), c.byref(out), c.byref(error))
                del keep
            else:
                path = name_of("path", os.fsencode(source))
                status = _lib.grug_model_load_file(path, c.byref(options), c.byref(out), c.byref(error))
        if hooks.raised is not None:
            raise hooks.raised
        check(status, error)
        assert out.value
        super().__init__(out.value, _lib.grug_model_free, hooks)

    @property
    def info(self) -> ModelInfo:
        """What the model is."""
        info, error = L.ModelInfo(size=c.sizeof(L.ModelInfo)), L.Error()
        with self._use() as model:
            check(_lib.grug_model_get_info(model, c.byref(info), c.byref(error)), error)
        fields = {field[0]: getattr(info, field[0]) for field in L.ModelInfo._fields_[1:]}
        fields["end_byte"] = None if info.end_byte < 0 else info.end_byte
        return ModelInfo(**fields)

    @property
    def metadata(self) -> Dict[str, str]:
        """The metadata of the model file."""
        entries: Dict[str, str] = {}
        with self._use() as model:
            while True:
                i = len(entries)
                try:
                    key = sized(lambda *rest: _lib.grug_model_get_metadata_key(model, i, *rest))
                except NotFoundError:
                    return entries
                value = sized(lambda *rest: _lib.grug_model_get_metadata(model, key, *rest))
                entries[key.decode()] = value.decode()

    def compress(self, data: Text, *, max_context: int = 0, cancel: Optional[Cancel] = None) -> bytes:
        """Compresses bytes losslessly by what the model predicts, which must be loaded as portable. A shorter context is
        faster and compresses less."""
        address, size, keep = borrow(data)
        options = L.SessionOptions(size=c.sizeof(L.SessionOptions), max_context=count("max_context", max_context))
        room, error = c.c_size_t(size + size // 64 + 64), L.Error()
        archive = c.create_string_buffer(room.value)
        with self._use() as model, using(cancel) as options.cancel:
            status = _lib.grug_compress(
                model, c.byref(options), address, size, archive, c.byref(room), c.byref(error)
            )
        del keep
        check(status, error)
        return archive.raw[: room.value]

    def decompress(self, archive: Buffer, *, max_bytes: int = 1 << 30, cancel: Optional[Cancel] = None) -> bytes:
        """The original of an archive, made with the same model on any machine; SpaceError where the archive says that it
        is longer than ``max_bytes``."""
        address, size, keep = borrow(archive)
        options = L.SessionOptions(size=c.sizeof(L.SessionOptions))
        room, error = c.c_size_t(0), L.Error()
        with self._use() as model, using(cancel) as options.cancel:
            arguments = (model, c.byref(options), address, size)
            status = _lib.grug_decompress(*arguments, None, c.byref(room), c.byref(error))
            data = c.create_string_buffer(room.value if status == SPACE and room.value <= max_bytes else 0)
            if status == SPACE and room.value <= max_bytes:
                status = _lib.grug_decompress(*arguments, data, c.byref(room), c.byref(error))
        del keep
        check(status, error)
        return data.raw[: room.value]
