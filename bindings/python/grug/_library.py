"""libgrug through ctypes: the declarations of grug.h that this package uses. ctypes releases the GIL in every call."""

import ctypes as c
import os
import platform
from pathlib import Path

#: GRUG_ABI_VERSION of the header that this was written for.
ABI = 0x0000_0002


class Error(c.Structure):
    _fields_ = [("status", c.c_int32), ("message", c.c_char * 252)]


class Bytes(c.Structure):
    _fields_ = [("data", c.c_void_p), ("len", c.c_size_t)]


LogFunction = c.CFUNCTYPE(None, c.c_void_p, c.c_uint32, c.c_void_p, c.c_size_t)
ProgressFunction = c.CFUNCTYPE(c.c_int32, c.c_void_p, c.c_float)


class ModelOptions(c.Structure):
    _fields_ = [
        ("size", c.c_size_t),
        ("device", c.c_char_p),
        ("n_threads", c.c_uint32),
        ("flags", c.c_uint32),
        ("log", LogFunction),
        ("progress", ProgressFunction),
        ("user", c.c_void_p),
        ("cancel", c.c_void_p),
    ]


class Device(c.Structure):
    _fields_ = [
        ("size", c.c_size_t),
        ("memory_total", c.c_uint64),
        ("memory_free", c.c_uint64),
        ("kind", c.c_uint32),
        ("index", c.c_uint32),
        ("name", c.c_char * 112),
        ("features", c.c_char * 128),
        ("description", c.c_char * 128),
    ]


class ModelInfo(c.Structure):
    _fields_ = [
        ("size", c.c_size_t),
        ("n_params", c.c_uint64),
        ("weight_bytes", c.c_uint64),
        ("fingerprint", c.c_uint64),
        ("context_bytes", c.c_uint64),
        ("state_bytes", c.c_uint64),
        ("rewind_bytes", c.c_uint64),
        ("embedding_dim", c.c_uint32),
        ("end_byte", c.c_int32),
    ]


class SessionOptions(c.Structure):
    _fields_ = [
        ("size", c.c_size_t),
        ("max_context", c.c_uint64),
        ("overflow", c.c_uint32),
        ("flags", c.c_uint32),
        ("cancel", c.c_void_p),
    ]


class SamplerOptions(c.Structure):
    _fields_ = [
        ("size", c.c_size_t),
        ("seed", c.c_uint64),
        ("temperature", c.c_float),
        ("top_p", c.c_float),
        ("min_p", c.c_float),
        ("typical_p", c.c_float),
        ("top_k", c.c_uint32),
        ("penalty_window", c.c_uint32),
        ("repeat_penalty", c.c_float),
        ("frequency_penalty", c.c_float),
        ("presence_penalty", c.c_float),
        ("mirostat_tau", c.c_float),
        ("mirostat_eta", c.c_float),
        ("flags", c.c_uint32),
        ("bias", c.c_void_p),
        ("grammar", c.c_void_p),
    ]


_P = c.c_void_p
_ERR = c.POINTER(Error)
_OUT = c.POINTER(c.c_void_p)
_LEN = c.POINTER(c.c_size_t)

#: name: (result, arguments)
_FUNCTIONS = {
    "grug_abi_version": (c.c_uint32, []),
    "grug_version": (c.c_char_p, []),
    "grug_status_name": (c.c_char_p, [c.c_int32]),
    "grug_device_count": (c.c_uint32, []),
    "grug_device_get": (c.c_int32, [c.c_uint32, c.POINTER(Device), _ERR]),
    "grug_cancel_new": (_P, []),
    "grug_cancel_trigger": (None, [_P]),
    "grug_cancel_reset": (None, [_P]),
    "grug_cancel_free": (None, [_P]),
    "grug_model_load_file": (c.c_int32, [c.c_char_p, c.POINTER(ModelOptions), _OUT, _ERR]),
    "grug_model_load_buffer": (
        c.c_int32,
        [_P, c.c_size_t, c.c_uint32, c.POINTER(ModelOptions), _OUT, _ERR],
    ),
    "grug_model_free": (None, [_P]),
    "grug_model_get_info": (c.c_int32, [_P, c.POINTER(ModelInfo), _ERR]),
    "grug_model_get_metadata": (c.c_int32, [_P, c.c_char_p, _P, _LEN, _ERR]),
    "grug_model_get_metadata_key": (c.c_int32, [_P, c.c_size_t, _P, _LEN, _ERR]),
    "grug_session_new": (c.c_int32, [_P, c.POINTER(SessionOptions), _OUT, _ERR]),
    "grug_session_fork": (c.c_int32, [_P, _OUT, _ERR]),
    "grug_session_set_cancel": (c.c_int32, [_P, _P, _ERR]),
    "grug_session_free": (None, [_P]),
    "grug_session_reset": (c.c_int32, [_P, _ERR]),
    "grug_session_position": (c.c_uint64, [_P]),
    "grug_session_feed": (c.c_int32, [_P, _P, c.c_size_t, _ERR]),
    "grug_session_next": (c.c_int32, [_P, _P, _ERR]),
    "grug_session_generate": (
        c.c_int32,
        [_P, _P, c.POINTER(Bytes), c.c_size_t, _P, c.c_size_t, _LEN, _ERR],
    ),
    "grug_session_score": (c.c_int32, [_P, _P, c.c_size_t, _P, c.POINTER(c.c_double), _ERR]),
    "grug_session_get_logits": (c.c_int32, [_P, _P, _ERR]),
    "grug_session_get_embedding": (c.c_int32, [_P, _P, c.c_size_t, _ERR]),
    "grug_session_rewind": (c.c_int32, [_P, c.c_uint64, _ERR]),
    "grug_session_save": (c.c_int32, [_P, _P, _LEN, _ERR]),
    "grug_session_restore": (c.c_int32, [_P, _P, c.c_size_t, _ERR]),
    "grug_sampler_new": (c.c_int32, [c.POINTER(SamplerOptions), _OUT, _ERR]),
    "grug_sampler_fork": (c.c_int32, [_P, _OUT, _ERR]),
    "grug_sampler_reset": (c.c_int32, [_P, c.c_uint64, _ERR]),
    "grug_sampler_pick": (c.c_int32, [_P, _P, _ERR]),
    "grug_sampler_accept": (c.c_int32, [_P, c.c_uint8, _ERR]),
    "grug_sampler_allowed": (c.c_int32, [_P, _P, _ERR]),
    "grug_sampler_free": (None, [_P]),
    "grug_grammar_new": (c.c_int32, [c.c_uint32, _P, c.c_size_t, _OUT, _ERR]),
    "grug_grammar_free": (None, [_P]),
    "grug_session_next_batch": (c.c_int32, [_P, _P, _P, c.c_size_t, _P, _ERR]),
    "grug_compress": (c.c_int32, [_P, c.POINTER(SessionOptions), _P, c.c_size_t, _P, _LEN, _ERR]),
    "grug_decompress": (c.c_int32, [_P, c.POINTER(SessionOptions), _P, c.c_size_t, _P, _LEN, _ERR]),
}


def _load() -> c.CDLL:
    name = {"Darwin": "libgrug.dylib", "Windows": "grug.dll"}.get(platform.system(), "libgrug.so")
    inside = Path(__file__).with_name(name)
    path = os.environ.get("GRUG_LIBRARY") or (str(inside) if inside.exists() else None)
    if path is None:
        raise ImportError(
            f"this installation of grug has no {name}: install a built wheel, or name the library in GRUG_LIBRARY"
        )
    library = c.CDLL(path)
    library.grug_abi_version.restype = c.c_uint32
    found = library.grug_abi_version()
    # A minor version only adds, but before 1.0 anything may change.
    if found >> 16 != ABI >> 16 or found < ABI or (ABI >> 16 == 0 and found != ABI):
        raise ImportError(f"{path} has ABI {found >> 16}.{found & 0xFFFF}; this package needs {ABI >> 16}.{ABI & 0xFFFF}")
    for function, (result, arguments) in _FUNCTIONS.items():
        declared = getattr(library, function)
        declared.restype = result
        declared.argtypes = arguments
    return library


lib = _load()
