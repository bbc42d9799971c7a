"""Group view: the effect of each log entry, as plain values."""

from __future__ import annotations

from typing import Any

import pytest

from common.ids import DeviceKey, GroupId, UserId
from common.messages import events, tracker
from peer.tracker_client.group_view import KEYS_KEPT, Effect, GroupView

FILMS = GroupId("films")
ALICE, BOB = UserId("alice"), UserId("bob")
HERS, HIS = DeviceKey(b"\1" * 32), DeviceKey(b"\2" * 32)


def state(epoch: int = 1, seq: int = 0, revoked: Any = ()) -> tracker.GroupState:
    key = bytes([epoch]) * 32
    return tracker.GroupState("films", "Alice", epoch, b"t" * 16, key, seq, list(revoked))


def a_view(seq: int = 0) -> GroupView:
    view = GroupView.begun(FILMS, state(seq=seq))
    assert view.take_devices(seq, {HERS: ALICE, HIS: BOB}) == []
    return view


def entry(seq: int, event: Any, epoch: int = 1) -> events.LogEntry:
    return events.LogEntry("films", seq, 1, epoch, event)


def test_the_next_entry_is_delivered_and_an_old_one_ignored() -> None:
    view = a_view(seq=4)
    assert view.apply(entry(5, events.Requested("eve"))) == [Effect.DELIVER]
    assert view.apply(entry(5, events.Requested("eve"))) == []
    assert view.seq == 5


def test_a_gap_asks_for_entries_and_applies_none() -> None:
    view = a_view()
    assert view.apply(entry(2, events.Removed("bob", 2), 2)) == [Effect.ASK_EVENTS]
    assert (view.seq, view.devices[HIS], view.revoked) == (0, BOB, {})


@pytest.mark.parametrize("event", [events.Left, events.Removed])
def test_a_lost_member_loses_devices_and_tickets_and_the_new_key_is_asked_for(event: Any) -> None:
    view = a_view()
    assert view.apply(entry(1, event("Bob", 2), 2)) == [Effect.ASK_STATE, Effect.DELIVER]
    assert (view.devices, view.revoked, view.epoch) == ({HERS: ALICE}, {BOB: 2}, 2)


def test_a_new_member_asks_for_devices_and_makes_older_lists_stale() -> None:
    view = a_view()
    assert view.apply(entry(1, events.Joined("eve"))) == [Effect.ASK_DEVICES, Effect.DELIVER]
    assert view.take_devices(0, {}) is None
    assert view.take_devices(1, {HERS: ALICE}) == []
    assert view.take_devices(3, {}) == [Effect.ASK_EVENTS]


def test_devices_are_bound_and_released() -> None:
    view = a_view()
    view.apply(entry(1, events.Device("bob", HIS, False)))
    view.apply(entry(2, events.Device("Alice", HIS, True)))
    assert view.devices == {HERS: ALICE, HIS: ALICE}


def test_an_entry_of_an_epoch_with_a_known_key_asks_for_nothing() -> None:
    view = a_view()
    view.learn_key(2, b"k" * 32)
    view.epoch = 1
    assert view.apply(entry(1, events.Requested("eve"), 2)) == [Effect.DELIVER]
    assert view.apply(entry(2, events.Requested("eve"), 3)) == [Effect.ASK_STATE, Effect.DELIVER]


def test_the_owner_follows_the_log() -> None:
    view = a_view()
    view.apply(entry(1, events.Owner("Bob")))
    assert view.owner == BOB


@pytest.mark.parametrize(
    ("seq", "epoch", "effects"),
    [
        (4, 1, []),
        (5, 1, [Effect.ASK_EVENTS]),
        (4, 2, [Effect.ASK_STATE]),
        (5, 2, [Effect.ASK_EVENTS, Effect.ASK_STATE]),
        (3, 1, []),
    ],
)
def test_the_head_shows_missing_entries_and_keys(
    seq: int, epoch: int, effects: list[Effect]
) -> None:
    assert a_view(seq=4).check_head(seq, epoch) == effects


def test_a_log_that_begins_later_is_read_from_there() -> None:
    view = a_view()
    later = entry(8, events.Requested("eve"))
    view.begin_at(later)
    assert view.apply(later) == [Effect.DELIVER]
    view.begin_at(entry(2, events.Requested("eve")))
    assert view.seq == 8


def test_a_state_adds_keys_and_never_lowers_a_revocation() -> None:
    view = a_view()
    view.revoke(BOB, 5)
    view.take(state(epoch=3, revoked=[("bob", 2), ("Eve", 3)]))
    assert view.revoked == {BOB: 5, UserId("eve"): 3}
    for epoch in range(4, 10):
        view.learn_key(epoch, b"k" * 32)
    assert sorted(view.keys) == list(range(10 - KEYS_KEPT, 10))
