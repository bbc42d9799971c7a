"""Bulk receiver whose messages are received, opened and stored by the compiled data path.

Owns: the hand-over of the socket to the fetching thread, and its return. Invariant: from the
hand-over until `on_released` only that thread uses the socket.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import zmq

from common.crypto.sealed_stream import BROKEN, aegis_key
from peer.fetching.bulk import BulkReceiver, BulkSource
from peer.fetching.connection_config import ConnectionConfig
from peer.native.fetcher import Fetcher, StoredRun, Target

log = logging.getLogger(__name__)


class CompiledBulkReceiver(BulkReceiver):
    """A `BulkReceiver` on the thread of ``fetcher``. Implements `LineCallbacks`."""

    def __init__(self, config: ConnectionConfig, source: BulkSource, fetcher: Fetcher) -> None:
        """Start to connect. Raises `zmq.ZMQError` or `OSError`."""
        self._fetcher = fetcher
        self._thread_line = fetcher.line(self)
        self._handed_over = False
        self._closed = False
        try:
            super().__init__(config, source)
        except BaseException:
            self._thread_line.end()
            fetcher.forget(self._thread_line)
            raise

    def _listen(self, socket: zmq.Socket[Any]) -> None:
        pass  # nothing arrives before the proof

    def _on_up(self, proof: list[bytes]) -> None:
        self._socket.send_multipart(proof, zmq.DONTWAIT)
        # The address of the socket in libzmq. The main thread has used it until now: the call
        # below takes a lock, which orders the memory of both threads.
        self._handed_over = self._thread_line.start(
            self._socket.underlying, aegis_key(self._source.offer.key)
        )
        if not self._handed_over:
            self._source.on_lost("its thread did not take the connection")

    def expect(self, channel: int, target: Target | None, pieces: Sequence[int]) -> None:
        if target is not None and not self._closed:
            self._thread_line.expect(channel, target, pieces)

    def forget(self, channel: int, pieces: Sequence[int]) -> None:
        if not self._closed:
            self._thread_line.forget(channel, pieces)

    def close_channel(self, channel: int) -> None:
        if not self._closed:
            self._thread_line.close_channel(channel)

    def on_stored_runs(self, channel: int, runs: list[StoredRun], source_fd: int) -> None:
        """Requested pieces arrived and were stored."""
        if not self._closed:
            self._on_received(source_fd)
            self._source.on_stored(channel, runs)

    def on_opened_message(self, head: bytes, data: memoryview, source_fd: int) -> None:
        """Another message arrived, opened."""
        if not self._closed:
            self._on_received(source_fd)
            self._on_opened(head, data)

    def on_broken(self) -> None:
        """A message arrived that the source cannot have sent."""
        if not self._closed:
            self._source.on_lost(BROKEN)

    def on_released(self) -> None:
        """Close the socket, which the thread uses no longer."""
        self._fetcher.forget(self._thread_line)
        self._handed_over = False
        self._close_socket()

    def _close_socket(self) -> None:
        self._monitor.close()
        self._socket.close(linger=0)

    def close(self) -> None:
        """Close the socket as soon as the thread has given it back, without callbacks."""
        self._timer.cancel()
        if self._closed:
            return
        self._closed = True
        self._thread_line.end()
        if not self._handed_over:
            self.on_released()
