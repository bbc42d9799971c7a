from __future__ import annotations

from common.ids import DeviceKey
from peer.fetching.backoff import DEVICES_MAX, FIRST_S, FORGOTTEN_S, LONGEST_S, PeerBackoff

A = DeviceKey(b"a" * 32)


def device(number: int) -> DeviceKey:
    return DeviceKey(number.to_bytes(32, "big"))


def test_backoff_doubles_up_to_a_bound() -> None:
    backoff, now, waits = PeerBackoff(), 100.0, []
    for _ in range(9):
        wait_s = backoff.add(A, now)
        assert backoff.holds(A, now + wait_s - 1)
        assert not backoff.holds(A, now + wait_s)
        now += wait_s
        waits.append(wait_s)
    assert waits[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert waits[-1] == LONGEST_S
    assert not backoff.holds(device(1), 100.0)


def test_backoff_is_reset_after_a_quiet_hour() -> None:
    backoff = PeerBackoff()
    backoff.add(A, 0.0)
    assert backoff.add(A, FIRST_S + FORGOTTEN_S) == 2 * FIRST_S
    assert backoff.add(A, 3 * FIRST_S + 2 * FORGOTTEN_S + 1) == FIRST_S


def test_records_that_end_first_are_evicted() -> None:
    backoff = PeerBackoff()
    for number in range(DEVICES_MAX + 5):
        backoff.add(device(number), float(number) / 1000)
    held = [n for n in range(DEVICES_MAX + 5) if backoff.holds(device(n), 5.0)]
    assert held == list(range(5, DEVICES_MAX + 5))
