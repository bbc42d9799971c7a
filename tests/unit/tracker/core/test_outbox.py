from __future__ import annotations

import pytest

from common import limits
from common.crypto.event_seal import inbox_of, share_topic
from common.ids import ContentId
from common.messages import events, tracker
from common.messages.base import Source
from common.net.codec import encode
from tests.support.tracker_harness import Device, TrackerHarness
from tracker.core.context import Nudge
from tracker.core.outbox import Outbox, nudge


@pytest.fixture
def lab(harness: TrackerHarness) -> tuple[TrackerHarness, Device, ContentId, Outbox]:
    alice = harness.user("alice")
    harness.group("lab", alice)
    data = harness.content("data")
    alice.offers("lab", "data", data)
    return harness, alice, data, Outbox()


def test_changes_of_a_swarm_are_gathered_into_one_update(lab) -> None:
    harness, alice, data, outbox = lab
    phone = harness.user("alice", "phone")
    phone.offers("lab", "data", data)
    for device in (alice, phone):
        device.comes()
    phone.does(tracker.Depart())
    outbox.gather(harness.swarm_changes, harness.context.presence, harness.now_s)
    assert outbox.flush_at == harness.now_s + limits.COALESCE_S
    [update] = outbox.flush(harness.state, harness.rng, harness.now_s + limits.COALESCE_S)
    group = harness.state.groups["lab"]
    assert (update.topic, update.key) == (share_topic(group.topic, data), group.key)
    assert isinstance(update.body, events.PeerUpdate)
    assert [source.device for source in update.body.up] == [alice.key]
    assert update.body.down == [phone.key]
    assert outbox.flush_at is None
    assert outbox.flush(harness.state, harness.rng, harness.now_s + limits.COALESCE_S) == []


def test_an_update_names_fifty_of_many_sources_seeders_first(lab) -> None:
    harness, alice, data, outbox = lab
    alice.comes()
    for number in range(80):
        other = harness.user("alice", f"other {number}")
        other.comes(leeching=[tracker.Leeching("lab", data, 0)])
    outbox.gather(harness.swarm_changes, harness.context.presence, harness.now_s)
    [update] = outbox.flush(harness.state, harness.rng, harness.now_s + limits.COALESCE_S)
    assert isinstance(update.body, events.PeerUpdate)
    assert len(update.body.up) == limits.SOURCES_MAX
    assert update.body.up[0].device == alice.key


def test_a_large_swarm_is_updated_less_often(lab, monkeypatch: pytest.MonkeyPatch) -> None:
    harness, alice, data, outbox = lab
    club = harness.content("of the club")
    harness.group("club", alice)
    alice.offers("club", "x", club)
    for number in range(3):
        bob = harness.user("bob", f"{number}")
        if number == 0:
            bob.does(tracker.JoinGroup("lab"))
            alice.does(tracker.AcceptRequest("lab", "bob"))
        bob.comes(leeching=[tracker.Leeching("lab", data, 0)])
    monkeypatch.setattr("tracker.core.outbox.LARGE_SWARM", 1)
    alice.comes()
    outbox.gather(harness.swarm_changes, harness.context.presence, harness.now_s)
    assert outbox.flush_at == harness.now_s + limits.COALESCE_S
    [update] = outbox.flush(harness.state, harness.rng, harness.now_s + limits.COALESCE_S)
    assert update.body.group == "club"
    assert outbox.flush_at == harness.now_s + 4 * limits.COALESCE_S
    [update] = outbox.flush(harness.state, harness.rng, harness.now_s + 1)
    assert update.body.group == "lab"


def test_updates_of_very_many_swarms_leave_in_slices(lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device with thousands of shares changes a swarm for each, all due at once."""
    harness, alice, _, outbox = lab
    for number in range(6):
        alice.offers("lab", f"{number}", harness.content(f"{number}"))
    alice.comes()
    outbox.gather(harness.swarm_changes, harness.context.presence, harness.now_s)
    monkeypatch.setattr("tracker.core.outbox.FLUSHED_AT_ONCE", 3)
    due_at = harness.now_s + limits.COALESCE_S
    told: list[bytes] = []
    for expected in (3, 3, 1):
        assert outbox.flush_at == due_at
        updates = outbox.flush(harness.state, harness.rng, due_at)
        assert len(updates) == expected
        told += [update.body.content for update in updates]
    assert sorted(told) == sorted(harness.state.groups["lab"].names_of)
    assert outbox.flush_at is None


def test_a_swarm_of_a_dissolved_group_has_no_update(lab) -> None:
    harness, alice, _, outbox = lab
    alice.comes()
    outbox.gather(harness.swarm_changes, harness.context.presence, harness.now_s)
    alice.does(tracker.LeaveGroup("lab"))
    assert outbox.flush(harness.state, harness.rng, harness.now_s + limits.COALESCE_S) == []


def test_entries_leave_in_order_each_with_its_own_key(lab) -> None:
    harness, _, _, outbox = lab
    told = outbox.log_entries(harness.changes, harness.now_s)
    assert [out.body for out in told] == harness.log
    assert {out.key for out in told} == {harness.state.groups["lab"].key}


def test_a_head_is_repeated_for_a_while_after_the_last_entry(lab) -> None:
    harness, alice, _, outbox = lab
    harness.group("quiet", alice)
    identity, group = harness.context.identity, harness.state.groups["lab"]
    lab_changes = [change for change in harness.changes if getattr(change, "group", "") == "lab"]
    outbox.log_entries(lab_changes, harness.now_s)
    harness.wait(limits.BEACON_TAIL_S)
    beat = outbox.beat(identity, harness.now, False)
    assert (beat.topic, beat.key) == (events.BEAT_TOPIC, None)
    [head] = outbox.heads(harness.state, harness.now_s)
    assert (head.topic, head.key) == (group.topic, group.key)
    assert head.body == events.GroupHead("lab", group.seq, group.epoch)
    harness.wait(0.5)
    assert outbox.heads(harness.state, harness.now_s) == []


def test_a_dissolved_group_has_no_head(lab) -> None:
    harness, alice, _, outbox = lab
    outbox.log_entries(harness.changes, harness.now_s)
    decision = alice.decision(tracker.LeaveGroup("lab"))
    outbox.log_entries(decision.changes, harness.now_s)
    assert outbox.heads(harness.state, harness.now_s) == []


def test_a_nudge_is_sent_to_the_inbox_of_the_device(lab) -> None:
    harness, alice, _, _ = lab
    welcome = alice.does(tracker.Hello())
    told = nudge(harness.context.identity, Nudge(alice.key))
    assert (told.topic, told.key) == (welcome.inbox, welcome.inbox_key)
    assert inbox_of(harness.context.identity.inbox_secret, alice.key)[0] == welcome.inbox


def test_the_largest_update_fits_an_event() -> None:
    source = Source(b"d" * 32, "u" * 64, "e" * 300, False, limits.CONTENT_BYTES_MAX)
    update = events.PeerUpdate("g" * 64, b"c" * 32, [source] * 50, [b"d" * 32] * 1000)
    assert len(encode(update)) < limits.EVENT_BYTES_MAX - 1024
