"""Sessions: one stream of bytes each."""

import codecs
import ctypes as c
import enum
from array import array
from contextlib import ExitStack
from typing import Iterator, List, Optional, Sequence, Tuple, Union

from . import _library as L
from ._buffers import Buffer, Text, borrow, count, sized, writable
from ._errors import GrugError, check, error_of
from ._handle import Handle, using
from ._model import Cancel, Model
from ._sampler import Sampler

_lib = L.lib


class Stop(enum.IntEnum):
    """Why generation paused."""

    CAPACITY = 0  #: as many bytes as were asked for
    END_BYTE = 1  #: the model ended the document
    SEQUENCE = 2  #: a stop sequence appeared
    GRAMMAR = 3  #: the grammar is complete


class Session(Handle):
    """One stream of bytes: feed it, let it write.

    An empty session that is asked for a prediction begins with a byte 0 of its own, which ``position`` does not count.
    ``slide=False`` makes a full context an error (ContextFullError) instead of forgetting the oldest bytes.
    ``drafts=False`` computes a byte at a time, without drafts of what may come; only time depends on it.
    """

    def __init__(
        self,
        model: Model,
        *,
        max_context: int = 0,
        slide: bool = True,
        drafts: bool = True,
        cancel: Optional[Cancel] = None,
    ) -> None:
        options = L.SessionOptions(
            size=c.sizeof(L.SessionOptions),
            max_context=count("max_context", max_context),
            overflow=0 if slide else 1,
            flags=0 if drafts else 1,
        )
        out, error = c.c_void_p(), L.Error()
        with model._use() as pointer, using(cancel) as options.cancel:
            keep = model._owner.keep  # of a model that is closed meanwhile it is gone after the call
            check(_lib.grug_session_new(pointer, c.byref(options), c.byref(out), c.byref(error)), error)
        assert out.value
        super().__init__(out.value, _lib.grug_session_free, keep)

    @property
    def position(self) -> int:
        """Bytes consumed so far: fed and generated."""
        with self._use() as session:
            return int(_lib.grug_session_position(session))

    def reset(self) -> None:
        """Makes it empty again."""
        error = L.Error()
        with self._use() as session:
            check(_lib.grug_session_reset(session, c.byref(error)), error)

    def feed(self, data: Text) -> None:
        """Takes in bytes; text is fed as UTF-8."""
        address, size, keep = borrow(data)
        error = L.Error()
        with self._use() as session:
            check(_lib.grug_session_feed(session, address, size, c.byref(error)), error)
        del keep

    def next(self, sampler: Optional[Sampler] = None) -> int:
        """Picks the next byte and takes it in. Without a sampler, the likeliest."""
        error = L.Error()
        with self._use() as session, using(sampler) as picks:
            return check(_lib.grug_session_next(session, picks, c.byref(error)), error)

    def read_into(
        self, buffer: Buffer, sampler: Optional[Sampler] = None, *, stops: Sequence[Text] = ()
    ) -> Tuple[int, Stop]:
        """Generates into a writable buffer: how many bytes, and why it paused."""
        place = writable(buffer, "B")
        size = 0 if place is None else len(place)
        inputs = [borrow(stop) for stop in stops]
        list_of_stops = (L.Bytes * len(inputs))()
        for item, (address, length, _) in zip(list_of_stops, inputs):
            item.data = address if isinstance(address, int) else address.value
            item.len = length
        n, error = c.c_size_t(0), L.Error()
        with self._use() as session, using(sampler) as picks:
            status = _lib.grug_session_generate(
                session, picks, list_of_stops, len(inputs), place, size, c.byref(n), c.byref(error)
            )
        try:
            return n.value, Stop(check(status, error))
        except GrugError as failure:
            failure.written = n.value
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
        if chunk_bytes < 1 or (max_bytes is not None and max_bytes < 0):
            raise ValueError(f"chunk_bytes = {chunk_bytes}, max_bytes = {max_bytes}: out of range")
        buffer = bytearray(chunk_bytes)
        left = max_bytes
        reason = Stop.CAPACITY
        while reason is Stop.CAPACITY and left != 0:
            room = chunk_bytes if left is None else min(chunk_bytes, left)
            try:
                n, reason = self.read_into(memoryview(buffer)[:room], sampler, stops=stops)
            except GrugError as failure:
                # What was written before is text of the session too: it comes first.
                if failure.written:
                    yield bytes(buffer[: failure.written])
                raise
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
        address, size, keep = borrow(data)
        place = None if nats is None else writable(nats, "f")
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

    def fork(self, cancel: Optional[Cancel] = None) -> "Session":
        """An independent session at this position. It shares this one's token, unless it gets another one."""
        out, error = c.c_void_p(), L.Error()
        with self._use() as session:
            keep = self._owner.keep
            check(_lib.grug_session_fork(session, c.byref(out), c.byref(error)), error)
        assert out.value
        fork = Session.__new__(Session)
        Handle.__init__(fork, out.value, _lib.grug_session_free, keep)
        if cancel is not None:
            fork.set_cancel(cancel)
        return fork

    def set_cancel(self, cancel: Optional[Cancel]) -> None:
        """From now on this token stops the session's work; None is no token."""
        error = L.Error()
        with self._use() as session, using(cancel) as token:
            check(_lib.grug_session_set_cancel(session, token, c.byref(error)), error)

    def rewind(self, n: int) -> None:
        """Undoes the last ``n`` bytes, exactly; RewindError where that is too far."""
        error = L.Error()
        with self._use() as session:
            check(_lib.grug_session_rewind(session, count("n", n), c.byref(error)), error)

    def save(self) -> bytes:
        """The session as bytes, for ``restore``."""
        with self._use() as session:
            return sized(lambda *rest: _lib.grug_session_save(session, *rest))

    def restore(self, state: Buffer) -> None:
        """Makes this session what a saved one was."""
        address, size, keep = borrow(state)
        error = L.Error()
        with self._use() as session:
            check(_lib.grug_session_restore(session, address, size, c.byref(error)), error)
        del keep


def next_batch(
    sessions: Sequence[Session],
    samplers: Optional[Sequence[Optional[Sampler]]] = None,
    input: Optional[Sequence[Optional[int]]] = None,
) -> List[Union[int, Exception]]:
    """One step for many distinct sessions of one model: the byte that each took in, or the exception of what went wrong
    there, which stops no other. Without a sampler, the likeliest byte; an ``input`` is fed instead of a picked byte."""
    n = len(sessions)
    if (samplers is not None and len(samplers) != n) or (input is not None and len(input) != n):
        raise ValueError("samplers and input must be as many as the sessions")
    pointers, picks = (c.c_void_p * n)(), (c.c_void_p * n)()
    fed, out, error = (c.c_int32 * n)(*[-1] * n), (c.c_int32 * n)(), L.Error()
    with ExitStack() as stack:
        for i, session in enumerate(sessions):
            pointers[i] = stack.enter_context(session._use())
            picks[i] = stack.enter_context(using(None if samplers is None else samplers[i]))
            if input is not None:
                byte = input[i]
                if byte is not None and not 0 <= byte < 256:
                    raise ValueError(f"input[{i}] is {byte}, which is no byte")
                fed[i] = -1 if byte is None else byte
        check(_lib.grug_session_next_batch(pointers, picks, fed, n, out, c.byref(error)), error)
    return [value if value >= 0 else error_of(value, _lib.grug_status_name(value).decode()) for value in out]
