"""Sealer of the compiled data path: seals a message in its own memory, and sends that memory.

The same stream as that of `common.crypto.sealed_stream.Sealer` with AEGIS-128L. The caller has
checked the right to the pieces immediately before, in the same turn of the event loop.
"""

from __future__ import annotations

import errno
import weakref

from common import limits
from common.crypto.aegis import TAG_BYTES
from common.crypto.sealed_stream import aegis_key
from common.digests import Buffer
from common.net.codec import SIGNATURE, frame_size
from common.net.pump import Pump, Sent
from peer.native.blocks import block_of, new_block
from peer.native.library import Library, address_of


class CompiledSealer:
    """Sending end of a sealed stream, for one bulk connection."""

    by_aegis = True

    def __init__(self, found: Library, key: bytes) -> None:
        self._library = found
        self._bytes = 0
        with address_of(aegis_key(key)) as address:
            self._handle = found.call.mt_sealer_new(address)
        if not self._handle:
            raise MemoryError
        weakref.finalize(self, found.call.mt_sealer_free, self._handle)

    @property
    def spent(self) -> bool:
        """Whether the key has sealed its maximum of bytes, so that another key is needed."""
        return self._bytes >= limits.SEALED_BYTES_MAX

    def send(
        self, pump: Pump, routing_id: bytes, head: bytes, data: Buffer, frame_bytes: int
    ) -> Sent:
        """Send a message in frames of that size. ``data`` is not used afterwards if it was sent."""
        size = memoryview(data).nbytes
        handle, view = block_of(data), data
        if handle is None:
            handle, view = new_block(self._library, size)
            view[:] = memoryview(data)
        if pump.socket.closed:
            return Sent.GONE
        error = self._library.call.mt_send(
            self._handle,
            pump.socket.underlying,
            routing_id,
            len(routing_id),
            SIGNATURE,
            len(SIGNATURE),
            head,
            len(head),
            handle,
            size,
            frame_size(size + TAG_BYTES, frame_bytes),
        )
        del view
        pump.after_send()
        if error == errno.EAGAIN:
            return Sent.FULL
        if error:
            return Sent.GONE
        self._bytes += size
        return Sent.YES
