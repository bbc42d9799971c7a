"""Delay of the messages to a source."""

from __future__ import annotations

from peer.swarm.fetching.flush import FLUSH_BYTES, FLUSH_S, FlushDelay


def test_the_first_message_leaves_at_once() -> None:
    assert FlushDelay().delay_s(0, 0.0) == 0.0


def test_messages_on_a_fast_link_wait_for_the_next_pieces() -> None:
    flush = FlushDelay()
    flush.flushed(1.0)
    assert flush.delay_s(1, 1.0005) == FLUSH_S
    assert flush.delay_s(FLUSH_BYTES - 1, 1.0 + 3 * FLUSH_S) == FLUSH_S


def test_messages_on_a_slow_link_leave_at_once() -> None:
    flush = FlushDelay()
    flush.flushed(1.0)
    assert flush.delay_s(1, 1.0 + 4.1 * FLUSH_S) == 0.0


def test_many_unacknowledged_bytes_are_acknowledged_at_once() -> None:
    flush = FlushDelay()
    flush.flushed(1.0)
    assert flush.delay_s(FLUSH_BYTES, 1.0005) == 0.0
