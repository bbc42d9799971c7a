"""Blocks: memory in which a piece is read, sealed and sent by the compiled data path.

A block is a `memoryview` like any other, until `CompiledSealer` has sent it: then its bytes are
sealed. It goes back to a stock when Python and ZeroMQ have dropped it. Why: fresh memory costs a
page fault for each 4 KiB, and a message that is copied twice leaves the cache.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any, NamedTuple

from common.digests import Buffer
from peer.native.library import Library, mover

BLOCK_BYTES_MIN = 128 * 1024  # smaller reads are cheap, and keep no large block


class Block(NamedTuple):
    """Memory block of the library: its ``handle``, and a ``view`` of its ``size`` bytes."""

    handle: int
    view: memoryview


def new_block(found: Library, size: int) -> Block:
    """Return a block. Raises `MemoryError`."""
    handle = found.call.mt_block_new(size)
    if not handle:
        raise MemoryError
    memory = (ctypes.c_char * size).from_address(found.call.mt_block_data(handle))
    memory.block_handle = handle  # type: ignore[attr-defined]
    weakref.finalize(memory, found.call.mt_block_free, handle)
    return Block(handle, memoryview(memory).cast("B"))


def block_of(data: Buffer) -> int | None:
    """The handle of the block that ``data`` is, from its first byte to its last."""
    if not isinstance(data, memoryview):
        return None
    memory: Any = data.obj
    handle: int | None = getattr(memory, "block_handle", None)
    return handle if handle is not None and data.nbytes == len(memory) else None


def _block_for(length: int) -> memoryview | None:
    found = mover() if length >= BLOCK_BYTES_MIN else None
    return None if found is None else new_block(found, length).view


def new_memory(length: int) -> memoryview:
    """Memory to read ``length`` bytes into: a block, if the compiled data path can send it.

    All of it is to be filled: it may hold bytes of another piece.
    """
    return _block_for(length) or memoryview(bytearray(length))


def read_block(fd: int, length: int, offset: int) -> Buffer:
    """Read ``length`` bytes of a file from ``offset``, or fewer at its end.

    Into a block if the compiled data path can send it. Raises `OSError`.
    """
    view = _block_for(length)
    if view is None:
        return os.pread(fd, length, offset)
    count = os.preadv(fd, [view], offset)
    return view if count == length else view[:count]
