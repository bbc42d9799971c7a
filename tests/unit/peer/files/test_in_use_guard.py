"""The guard that lets closing wait for calls under way."""

from __future__ import annotations

import threading
import time

from peer.files.errors import (
    StorageClosed,
)
from peer.files.in_use_guard import InUseGuard


def test_closing_waits_for_calls_inside_and_refuses_later_ones() -> None:
    gate = InUseGuard()
    entered, leave = threading.Event(), threading.Event()
    closed: list[bool] = []

    def inside() -> None:
        with gate:
            entered.set()
            assert leave.wait(10)
            assert not closed

    worker = threading.Thread(target=inside)
    worker.start()
    assert entered.wait(10)
    closer = threading.Thread(target=lambda: closed.append(gate.close()))
    closer.start()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with gate:
                pass
        except StorageClosed:
            break
    leave.set()
    worker.join()
    closer.join()
    assert closed == [True]
    assert gate.close() is False
