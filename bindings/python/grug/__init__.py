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

import codecs
import ctypes as c
import enum
import os
from array import array
from dataclasses import dataclass
from typing import Any, Dict, Iterator, Optional, Sequence, Tuple, Union

from . import _library as L
from ._errors import (
    CANCELED,
    NOT_FOUND,
    SPACE,
    BusyError,
    CanceledError,
    ContextFullError,
    DeadEndError,
    FileError,
    FormatError,
    GrugError,
    InvalidArgumentError,
    MismatchError,
    NotFoundError,
    RewindError,
    check,
)
from ._handle import Handle

__all__ = [
    "Model", "Session", "Sampler", "Cancel", "ModelInfo", "Stop", "version", "GrugError", "BusyError", "CanceledError",
    "ContextFullError", "DeadEndError", "FileError", "FormatError", "InvalidArgumentError", "MismatchError",
    "NotFoundError", "RewindError",
]

#: Anything with the buffer protocol: bytes, bytearray, memoryview, array.array, numpy arrays of bytes.
Buffer = Any
Text = Union[str, Buffer]

_lib = L.lib


def version() -> str:
    """The version of libgrug."""
    return _lib.grug_version().decode()


class Stop(enum.IntEnum):
    """Why generation paused."""

    CAPACITY = 0  #: as many bytes as were asked for
    END_BYTE = 1  #: the model ended the document
    SEQUENCE = 2  #: a stop sequence appeared
    GRAMMAR = 3  #: the grammar is complete


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


def _input(data: Text) -> Tuple[Any, int, Any]:
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


def _place(buffer: Buffer, item: str) -> Any:
    """A writable buffer as a ctypes array."""
    view = memoryview(buffer)
    if view.readonly:
        raise TypeError("the buffer is read-only")
    kind = {"B": c.c_uint8, "f": c.c_float}[item]
    if item == "f" and view.format != "f":
        raise TypeError(f"the buffer has items of format {view.format!r}, not 'f'")
    return (kind * (view.nbytes // c.sizeof(kind))).from_buffer(view.cast("B")) if view.nbytes else None


def _sized(ask: Any) -> bytes:
    """Calls that fill a buffer and say its size: ``ask(buffer, len, error)``."""
    size, error = c.c_size_t(0), L.Error()
    status = ask(None, c.byref(size), c.byref(error))
    buffer = c.create_string_buffer(max(size.value, 1))
    if status == SPACE:
        status = ask(buffer, c.byref(size), c.byref(error))
    check(status, error)
    return buffer.raw[: size.value]


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


def _token(cancel: Optional[Cancel]) -> Optional[int]:
    return None if cancel is None else cancel._owner.pointer


class Model(Handle):
    """Immutable weights: load them once, share them between threads.

    ``source`` is a path, or the bytes of a model file, which are copied. ``threads``: 0 is one for each core, 1 the
    calling thread alone.
    """

    def __init__(
        self,
        source: Union[str, "os.PathLike[str]", bytes, bytearray, memoryview],
        *,
        threads: int = 0,
        mmap: bool = True,
        device: Optional[str] = None,
        cancel: Optional[Cancel] = None,
    ) -> None:
        options = L.ModelOptions(
            size=c.sizeof(L.ModelOptions),
            device=None if device is None else device.encode(),
            n_threads=threads,
            flags=0 if mmap else 1,
            cancel=_token(cancel),
        )
        out, error = c.c_void_p(), L.Error()
        if isinstance(source, (bytes, bytearray, memoryview)):
            data, size, keep = _input(source)
            status = _lib.grug_model_load_buffer(data, size, 0, c.byref(options), c.byref(out), c.byref(error))
            del keep
        else:
            path = os.fsencode(source)
            status = _lib.grug_model_load_file(path, c.byref(options), c.byref(out), c.byref(error))
        check(status, error)
        assert out.value
        super().__init__(out.value, _lib.grug_model_free)

    @property
    def info(self) -> ModelInfo:
        """What the model is."""
        info, error = L.ModelInfo(size=c.sizeof(L.ModelInfo)), L.Error()
        with self._use() as model:
            check(_lib.grug_model_get_info(model, c.byref(info), c.byref(error)), error)
        fields = {name: getattr(info, name) for name, _ in L.ModelInfo._fields_[1:]}
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
                    key = _sized(lambda *rest: _lib.grug_model_get_metadata_key(model, i, *rest))
                except NotFoundError:
                    return entries
                value = _sized(lambda *rest: _lib.grug_model_get_metadata(model, key, *rest))
                entries[key.decode()] = value.decode()


class Sampler(Handle):
    """How a byte is picked. Temperature 0 is greedy; 0 turns a filter off; the same seed gives the same bytes."""

    def __init__(
        self,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 0.0,
        min_p: float = 0.0,
        seed: int = 0,
    ) -> None:
        options = L.SamplerOptions(
            size=c.sizeof(L.SamplerOptions),
            seed=seed,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
        )
        out, error = c.c_void_p(), L.Error()
        check(_lib.grug_sampler_new(c.byref(options), c.byref(out), c.byref(error)), error)
        assert out.value
        super().__init__(out.value, _lib.grug_sampler_free)

    def reset(self, seed: int) -> None:
        """As new, with this seed."""
        error = L.Error()
        with self._use() as sampler:
            check(_lib.grug_sampler_reset(sampler, seed, c.byref(error)), error)

    def fork(self) -> "Sampler":
        """One that goes on as this one would."""
        out, error = c.c_void_p(), L.Error()
        with self._use() as sampler:
            check(_lib.grug_sampler_fork(sampler, c.byref(out), c.byref(error)), error)
        assert out.value
        fork = Sampler.__new__(Sampler)
        Handle.__init__(fork, out.value, _lib.grug_sampler_free)
        return fork

    def pick(self, logits: Buffer) -> int:
        """Picks a byte from 256 logits of type float, which the caller may have edited."""
        error = L.Error()
        view = memoryview(logits)
        if view.format != "f" or view.nbytes != 1024:
            raise TypeError("logits must be 256 numbers of type float")
        data, _, keep = _input(view)
        with self._use() as sampler:
            byte = check(_lib.grug_sampler_pick(sampler, data, c.byref(error)), error)
        del keep
        return byte


class Session(Handle):
    """One stream of bytes: feed it, let it write.

    An empty session that is asked for a prediction begins with a byte 0 of its own, which ``position`` does not count.
    ``slide=False`` makes a full context an error (ContextFullError) instead of forgetting the oldest bytes.
    """

    def __init__(
        self, model: Model, *, max_context: int = 0, slide: bool = True, cancel: Optional[Cancel] = None
    ) -> None:
        options = L.SessionOptions(
            size=c.sizeof(L.SessionOptions),
            max_context=max_context,
            overflow=0 if slide else 1,
            cancel=_token(cancel),
        )
        out, error = c.c_void_p(), L.Error()
        with model._use() as pointer:
            check(_lib.grug_session_new(pointer, c.byref(options), c.byref(out), c.byref(error)), error)
        assert out.value
        super().__init__(out.value, _lib.grug_session_free)

    @property
    def position(self) -> int:
        """Bytes consumed so far: fed and generated."""
        with self._use() as session:
            return _lib.grug_session_position(session)

    def reset(self) -> None:
        """Makes it empty again."""
        error = L.Error()
        with self._use() as session:
            check(_lib.grug_session_reset(session, c.byref(error)), error)

    def feed(self, data: Text) -> None:
        """Takes in bytes; text is fed as UTF-8."""
        address, size, keep = _input(data)
        error = L.Error()
        with self._use() as session:
            check(_lib.grug_session_feed(session, address, size, c.byref(error)), error)
        del keep

    def next(self, sampler: Optional[Sampler] = None) -> int:
        """Picks the next byte and takes it in. Without a sampler, the likeliest."""
        error = L.Error()
        with self._use() as session, _using(sampler) as picks:
            return check(_lib.grug_session_next(session, picks, c.byref(error)), error)

    def read_into(
        self, buffer: Buffer, sampler: Optional[Sampler] = None, *, stops: Sequence[Text] = ()
    ) -> Tuple[int, Stop]:
        """Generates into a writable buffer: how many bytes, and why it paused."""
        place = _place(buffer, "B")
        size = 0 if place is None else len(place)
        inputs = [_input(stop) for stop in stops]
        list_of_stops = (L.Bytes * len(inputs))()
        for item, (address, length, _) in zip(list_of_stops, inputs):
            item.data = address if isinstance(address, int) else address.value
            item.len = length
        n, error = c.c_size_t(0), L.Error()
        with self._use() as session, _using(sampler) as picks:
            status = _lib.grug_session_generate(
                session, picks, list_of_stops, len(inputs), place, size, c.byref(n), c.byref(error)
            )
        try:
            return n.value, Stop(check(status, error))
        except CanceledError as canceled:
            canceled.written = n.value
            raise

    def generate(
        self, sampler: Optional[Sampler] = None, *, max_bytes: int = 400, stops: Sequence[Text] = ()
    ) -> bytes:
        """Up to ``max_bytes`` bytes; less where a stop sequence (which is included) or the end byte comes first."""
        return b"".join(self.stream_bytes(sampler, max_bytes=max_bytes, stops=stops, chunk_bytes=64))

    def stream_bytes(
        self,
        sampler: Optional[Sampler] = None,
        *,
        max_bytes: Optional[int] = None,
        stops: Sequence[Text] = (),
        chunk_bytes: int = 1,
    ) -> Iterator[bytes]:
        """Generates piece by piece, until something ends the text; ``max_bytes=None`` sets no limit."""
        buffer = bytearray(chunk_bytes)
        left = max_bytes
        reason = Stop.CAPACITY
        while reason is Stop.CAPACITY and left != 0:
            room = chunk_bytes if left is None else min(chunk_bytes, left)
            n, reason = self.read_into(memoryview(buffer)[:room], sampler, stops=stops)
            if left is not None:
                left -= n
            if n:
                yield bytes(buffer[:n])

    def stream(
        self,
        sampler: Optional[Sampler] = None,
        *,
        max_bytes: Optional[int] = None,
        stops: Sequence[Text] = (),
        errors: str = "replace",
    ) -> Iterator[str]:
        """As ``stream_bytes``, in whole characters of UTF-8."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors)
        for piece in self.stream_bytes(sampler, max_bytes=max_bytes, stops=stops):
            text = decoder.decode(piece)
            if text:
                yield text
        text = decoder.decode(b"", final=True)
        if text:
            yield text

    def score(self, data: Text, nats: Optional[Buffer] = None) -> float:
        """Takes in bytes and says how surprising they are, in nats; divide by ln 2 for bits. ``nats`` is a writable
        buffer of as many floats, which receives each byte's."""
        address, size, keep = _input(data)
        place = None if nats is None else _place(nats, "f")
        if nats is not None and (0 if place is None else len(place)) != size:
            raise ValueError(f"nats must have {size} numbers")
        total, error = c.c_double(0), L.Error()
        with self._use() as session:
            check(_lib.grug_session_score(session, address, size, place, c.byref(total), c.byref(error)), error)
        del keep
        return total.value

    def logits(self) -> "array[float]":
        """256 logits of the next byte."""
        logits, error = array("f", bytes(1024)), L.Error()
        with self._use() as session:
            check(_lib.grug_session_get_logits(session, logits.buffer_info()[0], c.byref(error)), error)
        return logits

    def embedding(self, dim: int) -> "array[float]":
        """The vector that the logits are computed from; ``dim`` is the model's ``embedding_dim``."""
        vector, error = array("f", bytes(4 * dim)), L.Error()
        with self._use() as session:
            check(_lib.grug_session_get_embedding(session, vector.buffer_info()[0], dim, c.byref(error)), error)
        return vector

    def fork(self) -> "Session":
        """An independent session at this position."""
        out, error = c.c_void_p(), L.Error()
        with self._use() as session:
            check(_lib.grug_session_fork(session, c.byref(out), c.byref(error)), error)
        assert out.value
        fork = Session.__new__(Session)
        Handle.__init__(fork, out.value, _lib.grug_session_free)
        return fork

    def rewind(self, n: int) -> None:
        """Undoes the last ``n`` bytes, exactly; RewindError where that is too far."""
        error = L.Error()
        with self._use() as session:
            check(_lib.grug_session_rewind(session, n, c.byref(error)), error)

    def save(self) -> bytes:
        """The session as bytes, for ``restore``."""
        with self._use() as session:
            return _sized(lambda *rest: _lib.grug_session_save(session, *rest))

    def restore(self, state: Buffer) -> None:
        """Makes this session what a saved one was."""
        address, size, keep = _input(state)
        error = L.Error()
        with self._use() as session:
            check(_lib.grug_session_restore(session, address, size, c.byref(error)), error)
        del keep


class _using:
    """A sampler's pointer for the time of a call, or NULL."""

    def __init__(self, sampler: Optional[Sampler]) -> None:
        self.sampler = sampler

    def __enter__(self) -> Optional[int]:
        return None if self.sampler is None else self.sampler._owner.enter()

    def __exit__(self, *_: object) -> None:
        if self.sampler is not None:
            self.sampler._owner.leave()
