"""Pace of manifests under many requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import closing

import pytest

from common.ids import UserId
from common.limits import MANIFEST_PART_BYTES, MIB
from peer.serving import manifest_pacer
from peer.serving.manifest_pacer import USER_RATE, ManifestPacer
from peer.swarm.rate_limit import RateLimit, Rates
from peer.swarm.serving.events import RequesterId
from tests.support.peer_fakes import turns, until

ALICE, MALLORY = UserId("alice"), UserId("mallory")
ONE, TWO = RequesterId(b"one"), RequesterId(b"two")


@pytest.fixture
async def pacer() -> AsyncIterator[ManifestPacer]:
    pacer = ManifestPacer(RateLimit())
    yield pacer
    pacer.close()
    assert len(pacer) == 0


def flood(pacer: ManifestPacer, given: list[int], channels: int, times: int) -> None:
    for _ in range(times):
        for channel in range(channels):
            pacer.add((ONE, channel), MALLORY, MANIFEST_PART_BYTES, lambda: given.append(1))


async def test_endless_requests_get_a_share_and_delay_no_other_user(pacer: ManifestPacer) -> None:
    given, others = list[int](), list[int]()
    flood(pacer, given, 64, 100)
    # The saved burst, one more on debt, and the tokens that arrive while this runs.
    assert len(given) < 2 * USER_RATE // MANIFEST_PART_BYTES
    assert len(pacer) == 64
    pacer.add((TWO, 0), ALICE, MANIFEST_PART_BYTES, lambda: others.append(1))
    assert others == [1]


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> RateLimit:
    monkeypatch.setattr(manifest_pacer, "monotonic", lambda: 1000.0)
    return RateLimit(Rates(everything=MIB))


async def test_the_upload_limit_holds_for_manifests(limited: RateLimit) -> None:
    given: list[int] = []
    with closing(ManifestPacer(limited)) as pacer:
        flood(pacer, given, 64, 1)
        assert len(given) <= 1 + MIB // 4 // MANIFEST_PART_BYTES
        await turns()
        assert len(pacer) == 64 - len(given)


async def test_waiting_requests_use_no_upload_rate(limited: RateLimit) -> None:
    given: list[int] = []
    with closing(ManifestPacer(limited)) as pacer:
        flood(pacer, given, 64, 10)
        # The debt is paid in the time of one part, not of all waiting parts.
        assert limited.ready_at(1000.0) - 1000.0 <= MANIFEST_PART_BYTES / MIB + 0.001


async def test_waiting_requests_are_answered_in_time(
    pacer: ManifestPacer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(manifest_pacer, "monotonic", lambda: now)
    given: list[int] = []
    pacer.add((ONE, 0), ALICE, USER_RATE // 4 + USER_RATE // 50, lambda: given.append(0))
    pacer.add((ONE, 1), ALICE, 1, lambda: given.append(1))
    pacer.add((ONE, 1), ALICE, 1, lambda: given.append(2))
    assert given == [0]
    now += 1.0
    await until(lambda: given == [0, 1] and len(pacer) == 0)
