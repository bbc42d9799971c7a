"""Order of effects, and batches of announcements."""

from __future__ import annotations

from common.ids import DeviceKey
from common.limits import PIECES_PER_REQUEST_MAX
from peer.swarm.fetching.effects import Announcements, EffectBuffer
from peer.swarm.fetching.events import (
    CancelRequest,
    Close,
    Complete,
    Request,
    Verdict,
    Verify,
)

A, B = DeviceKey(b"a" * 32), DeviceKey(b"b" * 32)


def test_requests_of_a_source_travel_together_after_cancellations() -> None:
    out = EffectBuffer()
    out.put_last(Complete())
    out.request(A, 1)
    out.request(B, 2)
    out.request(A, 3)
    out.cancel(B, 9)
    out.put(Verify(A, 7))
    assert out.take() == [
        Verify(A, 7),
        CancelRequest(B, (9,)),
        Request(A, (1, 3)),
        Request(B, (2,)),
        Complete(),
    ]
    assert out.take() == []


def test_a_request_that_is_cancelled_before_it_left_is_not_sent() -> None:
    out = EffectBuffer()
    out.request(A, 1)
    out.cancel(A, 1)
    assert out.take() == []


def test_a_closed_source_gets_no_other_message() -> None:
    out = EffectBuffer()
    out.request(A, 1)
    out.cancel(A, 2)
    out.close(A, Verdict.SLOW)
    assert out.take() == [Close(A, Verdict.SLOW)]


def test_long_requests_are_cut_to_the_protocols_length() -> None:
    out = EffectBuffer()
    for index in range(PIECES_PER_REQUEST_MAX + 1):
        out.request(A, index)
    lengths = [len(effect.pieces) for effect in out.take() if isinstance(effect, Request)]
    assert lengths == [PIECES_PER_REQUEST_MAX, 1]


def test_the_first_announcement_after_a_pause_goes_at_once_and_others_are_gathered() -> None:
    batch = Announcements(0.05)
    assert batch.due_at() is None
    batch.add(1)
    assert batch.take(10.0) == (1,)
    batch.add(2)
    batch.add(3)
    assert batch.take(10.01) == ()
    assert batch.due_at() == 10.05
    batch.remove(2)
    assert batch.take(10.05) == (3,)
    batch.add(4)
    assert batch.take(10.06, at_once=True) == (4,)
