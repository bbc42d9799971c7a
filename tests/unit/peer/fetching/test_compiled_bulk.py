"""Bulk receivers of the compiled data path whose connection cannot be made."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import zmq

from common.crypto.keys import new_pair
from common.messages import peer
from common.net.connection_limits import MESSAGES, ConnectionLimiter
from peer.fetching import bulk
from peer.fetching.bulk import BulkSource
from peer.fetching.compiled_bulk import CompiledBulkReceiver
from peer.fetching.connection_config import ConnectionConfig
from peer.native.fetcher import Fetcher


class Library:
    """A library with a thread that has lines, and does nothing."""

    def __init__(self) -> None:
        self.call = self
        self.lines: set[int] = set()

    def mt_fetcher_new(self, event_fd: int, pause_ms: int) -> int:
        return 1

    def mt_fetcher_end(self, fetcher: int, wait_ms: int) -> int:
        return 0

    def mt_line_new(self, fetcher: int) -> int:
        self.lines.add(1)
        return 1

    def mt_line_end(self, fetcher: int, line: int) -> None:
        self.lines.discard(line)


async def test_without_a_descriptor_for_its_socket_nothing_of_it_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise zmq.ZMQError(errno.EMFILE)

    library: Any = Library()
    fetcher = Fetcher(library)
    limiter = ConnectionLimiter(MESSAGES)
    context: zmq.Context[Any] = zmq.Context()
    config = ConnectionConfig(context, new_pair(), limiter, {})  # type: ignore[arg-type]
    offer = peer.Bulk(9, bytes(32), bytes(32), True)
    source = BulkSource("192.0.2.1", offer, lambda *_: None, lambda *_: None, lambda _: None)
    monkeypatch.setattr(bulk, "make_socket", refuse)
    with pytest.raises(zmq.ZMQError):
        CompiledBulkReceiver(config, source, fetcher)
    assert library.lines == set()
    fetcher.close()
    limiter.close()
    context.term()
