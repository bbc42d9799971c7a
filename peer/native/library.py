"""Loader of the compiled data path, and the types of its functions.

Owns: where the library is found, whether it fits, and whether it is used. Not here: what it does
(see native/src).
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

from common.digests import Buffer
from common.hints import shell_hint
from common.messages.control import CheckRow
from common.optional_library import pip_words

log = logging.getLogger(__name__)

# That of native/src/native.h, raised with it. Why: each function is looked up at the start, so that
# an older library must be told apart by its number. 3 has mt_folder.
ABI = 3
_HAS_ZMQ, _HAS_AEGIS = 1, 2


class Event(ctypes.Structure):
    """Struct ``mt_event`` of native/src/native.h."""

    _fields_ = (
        ("kind", c_uint32),
        ("line", c_uint32),
        ("channel", c_uint32),
        ("first", c_uint32),
        ("count", c_uint32),
        ("error", ctypes.c_int32),
        ("source_fd", ctypes.c_int32),
        ("flags", c_uint32),
        ("size", c_uint64),
        ("wrong", c_uint64),
        ("data", c_void_p),
    )


_BYTES = c_void_p  # an address: Python objects are passed by `address_of`
TYPES: dict[str, tuple[object, tuple[object, ...]]] = {
    "mt_load": (c_int, (c_char_p, c_char_p)),
    "mt_digest": (None, (_BYTES, c_size_t, c_uint64, _BYTES, _BYTES)),
    "mt_digest_file": (c_int, (c_int, c_uint64, c_size_t, c_uint64, _BYTES, _BYTES)),
    "mt_whole": (None, (_BYTES, c_size_t, _BYTES)),
    "mt_folder_new": (
        c_void_p,
        (c_char_p, c_size_t, c_uint32, c_char_p, c_char_p, c_char_p, c_uint64),
    ),
    "mt_folder_free": (None, (c_void_p,)),
    "mt_folder_read": (c_size_t, (c_void_p, c_int, c_uint64, _BYTES, c_size_t)),
    "mt_folder_write": (
        c_size_t,
        (c_void_p, c_int, c_uint64, _BYTES, c_size_t, POINTER(c_bool)),
    ),
    "mt_folder_look": (None, (c_void_p, c_int, c_void_p)),
    "mt_fetcher_new": (c_void_p, (c_int, c_int)),
    "mt_fetcher_end": (c_int, (c_void_p, c_int)),
    "mt_fetcher_busy_ms": (c_int, (c_void_p,)),
    "mt_fetcher_events": (c_size_t, (c_void_p, POINTER(Event), c_size_t)),
    "mt_free": (None, (c_void_p,)),
    "mt_target_new": (c_void_p, (c_int, c_uint64, c_uint32, c_uint32, _BYTES, _BYTES)),
    "mt_target_close": (None, (c_void_p,)),
    "mt_target_free": (None, (c_void_p,)),
    "mt_line_new": (c_uint32, (c_void_p,)),
    "mt_line_start": (c_int, (c_void_p, c_uint32, c_void_p, _BYTES)),
    "mt_line_end": (None, (c_void_p, c_uint32)),
    "mt_line_expect": (
        c_int,
        (c_void_p, c_uint32, c_uint32, c_void_p, POINTER(c_uint32), c_size_t),
    ),
    "mt_line_forget": (None, (c_void_p, c_uint32, c_uint32, POINTER(c_uint32), c_size_t)),
    "mt_line_close_channel": (None, (c_void_p, c_uint32, c_uint32)),
    "mt_read_head": (c_int, (_BYTES, c_size_t, POINTER(c_uint32))),
    "mt_block_new": (c_void_p, (c_size_t,)),
    "mt_block_data": (c_void_p, (c_void_p,)),
    "mt_block_free": (None, (c_void_p,)),
    "mt_sealer_new": (c_void_p, (_BYTES,)),
    "mt_sealer_free": (None, (c_void_p,)),
    "mt_send": (
        c_int,
        (
            c_void_p,
            c_void_p,
            c_char_p,
            c_size_t,
            c_char_p,
            c_size_t,
            c_char_p,
            c_size_t,
            c_void_p,
            c_size_t,
            c_size_t,
        ),
    ),
}


class Library:
    """The loaded library. ``call`` has its functions, which run without the interpreter's lock."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError` or `AttributeError` if it is no such library."""
        self.path = path
        self.call = ctypes.CDLL(str(path))
        abi = int(self.call.mt_abi())
        if abi != ABI:
            raise OSError(f"{path} has interface {abi}; this release needs {ABI}")
        for name, (result, arguments) in TYPES.items():
            function = getattr(self.call, name)
            function.restype, function.argtypes = result, arguments
        found = self.call.mt_load(_path_of("libzmq"), _path_of("libsodium", "_sodium"))
        self.moves_pieces = found == _HAS_ZMQ | _HAS_AEGIS
        """Whether it can receive and send pieces, beside digesting them."""
        needed = (("libzmq", _HAS_ZMQ), ("AEGIS-128L in libsodium", _HAS_AEGIS))
        self.missing = [name for name, bit in needed if not found & bit]


def _path_of(*names: str) -> bytes | None:
    """The path of a shared object that this process has loaded, by the beginning of its name."""
    import nacl.bindings  # it loads libsodium  # noqa: F401
    import zmq  # noqa: F401

    beginnings = tuple(name.encode() for name in names)
    try:
        with open("/proc/self/maps", "rb") as maps:
            for row in maps:
                path = row.split(maxsplit=5)[-1].strip()
                if os.path.basename(path).startswith(beginnings) and b".so" in path:
                    return path
    except OSError:
        pass
    return None


class _State:
    """The library of this process, and the words for it."""

    library: Library | None = None
    words = "not looked for yet"
    looked = False
    failed = False


_state = _State()


def use(wanted: bool) -> None:
    """Find and load the library, or use none. Called once at the start, and by tests."""
    _state.looked = True
    _state.failed = False
    _state.library = None
    if not wanted:
        _state.words = "turned off by the settings; Python handles pieces"
        return
    try:
        import mini_torrent_native
    except ImportError:
        _state.words = "not installed; Python handles pieces"
        return
    try:
        found = Library(Path(mini_torrent_native.LIBRARY))
    except (OSError, AttributeError) as error:
        log.warning("the compiled data path cannot be used: %s", error)
        _state.words = f"cannot be loaded; Python handles pieces ({error})"
        _state.failed = True
        return
    _state.library = found
    _state.words = f"in use: {found.path.name} for {platform.machine()}"
    if not found.moves_pieces:
        _state.words += f", for digests alone: {' and '.join(found.missing)} not found"


def library() -> Library | None:
    """The library, if it is used."""
    if not _state.looked:
        use(True)
    return _state.library


def mover() -> Library | None:
    """The library, if it is used and can receive and send pieces."""
    found = library()
    return found if found is not None and found.moves_pieces else None


def state() -> str:
    """Whether the library is used, and why not."""
    library()
    return _state.words


def finding() -> CheckRow:
    """The row of `doctor`."""
    words = state()
    text = "install the one of this release, in a clone of its repository"
    advice = shell_hint(text, *pip_words(), "install", "./native")
    return CheckRow("compiled data path", not _state.failed, words, advice)


# -- memory of Python's objects -----------------------------------------------------------------


class _PyBuffer(ctypes.Structure):
    _fields_ = (
        ("buf", c_void_p),
        ("obj", c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", c_int),
        ("ndim", c_int),
        ("format", c_void_p),
        ("shape", c_void_p),
        ("strides", c_void_p),
        ("suboffsets", c_void_p),
        ("internal", c_void_p),
    )


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, POINTER(_PyBuffer), c_int)
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (POINTER(_PyBuffer),)


@contextmanager
def address_of(data: Buffer) -> Iterator[int]:
    """The address of the bytes of an object, which stay there inside the block.

    Why not `from_buffer` of ctypes: it refuses memory that is only read.
    """
    view = _PyBuffer()
    _get_buffer(data, view, 0)  # raises BufferError unless it is contiguous
    try:
        yield view.buf or 0
    finally:
        _release_buffer(view)
