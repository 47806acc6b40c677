"""Samplers, and the grammars that guide them."""

import ctypes as c
import json
from array import array
from typing import Any, FrozenSet, Mapping, Optional, Sequence, Tuple, Union

from . import _library as L
from ._buffers import FLOAT_FORMATS, Buffer, Text, borrow, count
from ._errors import check
from ._handle import Handle, using

_lib = L.lib


class Grammar(Handle):
    """What a sampler may write: immutable, for any number of samplers and threads. Made by ``regex``, ``gbnf`` and
    ``json_schema``; the whole output is matched."""

    def __init__(self, kind: int, source: Text) -> None:
        address, size, keep = borrow(source)
        out, error = c.c_void_p(), L.Error()
        status = _lib.grug_grammar_new(kind, address, size, c.byref(out), c.byref(error))
        del keep
        check(status, error)
        assert out.value
        super().__init__(out.value, _lib.grug_grammar_free)

    @classmethod
    def regex(cls, source: Text) -> "Grammar":
        """A regular expression, in the syntax of Rust's regex crate."""
        return cls(1, source)

    @classmethod
    def gbnf(cls, source: Text) -> "Grammar":
        """GBNF, the notation of llama.cpp; the rule ``root`` is the text."""
        return cls(2, source)

    @classmethod
    def json_schema(cls, source: Union[Text, Mapping[str, Any]]) -> "Grammar":
        """A JSON Schema, as text or as a dictionary: the text is one JSON value that is valid under it."""
        return cls(3, json.dumps(source) if isinstance(source, Mapping) else source)


class Sampler(Handle):
    """How a byte is picked. Temperature 0 is greedy; 0 turns each part off; the same seed gives the same bytes.

    The order is: ``bias``, ``grammar`` and ``utf8``, penalties, ``temperature``, ``top_k``, ``typical_p``, ``top_p``,
    ``min_p``, draw; mirostat stands in place of the four before the draw. ``bias`` is what is added to the logits: 256
    numbers, or those of some bytes by their value; minus infinity bans a byte.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 0.0,
        min_p: float = 0.0,
        typical_p: float = 0.0,
        penalty_window: int = 0,
        repeat_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        mirostat_tau: float = 0.0,
        mirostat_eta: float = 0.0,
        utf8: bool = False,
        bias: Union[None, Sequence[float], Mapping[int, float]] = None,
        grammar: Optional[Grammar] = None,
        seed: int = 0,
    ) -> None:
        logits = None
        if bias is not None:
            logits = array("f", bytes(1024))
            if not isinstance(bias, Mapping) and len(bias) != 256:
                raise ValueError(f"bias has {len(bias)} numbers, not 256")
            for byte, value in bias.items() if isinstance(bias, Mapping) else enumerate(bias):
                if not 0 <= byte < 256:
                    raise ValueError(f"bias: {byte} is no byte")
                logits[byte] = value
        options = L.SamplerOptions(
            size=c.sizeof(L.SamplerOptions),
            seed=seed,
            temperature=temperature,
            top_k=count("top_k", top_k, 32),
            top_p=top_p,
            min_p=min_p,
            typical_p=typical_p,
            penalty_window=count("penalty_window", penalty_window, 32),
            repeat_penalty=repeat_penalty,
            frequency_penalty=frequency_penalty,
            presence_penalty=presence_penalty,
            mirostat_tau=mirostat_tau,
            mirostat_eta=mirostat_eta,
            flags=1 if utf8 else 0,
            bias=None if logits is None else logits.buffer_info()[0],
        )
        out, error = c.c_void_p(), L.Error()
        with using(grammar) as pointer:
            options.grammar = pointer
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
        if view.format not in FLOAT_FORMATS or view.nbytes != 1024:
            raise TypeError("logits must be 256 numbers of type float")
        data, _, keep = borrow(view)
        with self._use() as sampler:
            byte = check(_lib.grug_sampler_pick(sampler, data, c.byref(error)), error)
        del keep
        return byte

    def accept(self, byte: int) -> None:
        """Takes a byte that was chosen elsewhere as if it had been picked here; DeadEndError where grammar or UTF-8 do not
        allow it."""
        if not 0 <= byte < 256:
            raise ValueError(f"{byte} is no byte")
        error = L.Error()
        with self._use() as sampler:
            check(_lib.grug_sampler_accept(sampler, byte, c.byref(error)), error)

    def allowed(self) -> Tuple[FrozenSet[int], bool]:
        """The bytes that may come next by bias, grammar and UTF-8, and whether the text may end here."""
        mask, error = (c.c_uint8 * 32)(), L.Error()
        with self._use() as sampler:
            complete = check(_lib.grug_sampler_allowed(sampler, mask, c.byref(error)), error) == 1
        return frozenset(b for b in range(256) if mask[b >> 3] >> (b & 7) & 1), complete
