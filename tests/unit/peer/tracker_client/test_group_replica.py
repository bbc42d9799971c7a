"""Replica of the groups: each entry once and in order, with any loss on the way."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from common.crypto.event_seal import seal, share_topic
from common.errors import Refused
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.messages import events, tracker
from common.messages.refusals import Code
from common.net.codec import encode
from peer.tracker_client import group_replica as module
from peer.tracker_client.group_replica import GroupReplica
from peer.tracker_client.group_view import Gap
from tests.support.peer_fakes import FakeLink, turns, until

FILMS, OTHER = GroupId("films"), GroupId("other")
ALICE, BOB = UserId("alice"), UserId("bob")
CONTENT = ContentId(b"c" * 32)
HERS, HIS = DeviceKey(b"\1" * 32), DeviceKey(b"\2" * 32)
WELCOME = tracker.Welcome(b"t" * 16, [b"k" * 32], "tcp://*:1", 1, "Alice", b"i" * 16, b"n" * 32)


def topic_of(group: str) -> bytes:
    return group.encode().ljust(16, b".")


def key_of(group: str, epoch: int) -> bytes:
    return f"{group} {epoch}".encode().ljust(32, b".")


class Harness:
    """A tracker's logs and groups, and a `GroupReplica` of them."""

    def __init__(self) -> None:
        self.logs: dict[str, list[events.LogEntry]] = {}
        self.epochs: dict[str, int] = {}
        self.mine: set[str] = set()
        self.topics: dict[str, bytes] = {}
        self.devices: dict[str, list[tracker.DeviceRow]] = {}
        self.revoked: dict[str, list[tuple[str, int]]] = {}
        self.trimmed = 0  # entries up to this one are no longer kept
        self.gaps: list[Gap] = []
        self.link = FakeLink(
            Follow=lambda command: self._follow(),
            EventsSince=lambda command: self._since(command),
            GetDevices=lambda command: tracker.DeviceRows(
                self.devices.get(command.group, []), len(self.logs[command.group])
            ),
        )
        self.seen: list[events.LogEntry] = []
        self.peers: list[events.PeerUpdate] = []
        self.regrouped = 0
        self.logged_out: list[UserId | None] = []
        self.replica = GroupReplica(
            self.link,  # type: ignore[arg-type]
            on_entry=self.seen.append,
            on_peers=self.peers.append,
            on_groups=self._on_groups,
            on_logged_out=self._on_logged_out,
            on_gap=self.gaps.append,
        )

    def _on_groups(self) -> None:
        self.regrouped += 1

    def _on_logged_out(self, reason: str) -> None:
        self.logged_out.append(self.replica.user)

    def _follow(self) -> tracker.Following:
        states = [
            tracker.GroupState(
                group,
                "alice",
                self.epochs[group],
                self.topics.get(group, topic_of(group)),
                key_of(group, self.epochs[group]),
                len(self.logs[group]),
                self.revoked.get(group, []),
            )
            for group in sorted(self.mine)
        ]
        return tracker.Following(states, 1)

    def _since(self, command: tracker.EventsSince) -> Any:
        if command.group not in self.mine:
            return Refused(Code.UNKNOWN_GROUP, "no such group")
        log = self.logs[command.group]
        page = [entry for entry in log if entry.seq > max(command.seq, self.trimmed)][:3]
        if command.seq >= self.trimmed:
            return tracker.Events(page, len(log))
        state = next(each for each in self._follow().groups if each.group == command.group)
        return tracker.Events(page, len(log), state)

    def join(self, group: str, past: int = 0) -> None:
        self.mine.add(group)
        self.logs.setdefault(group, [])
        self.epochs.setdefault(group, 1)
        for _ in range(past):
            self.happen(group)

    def happen(self, group: str, event: Any = None) -> events.LogEntry:
        """Log an event without publishing it."""
        log = self.logs[group]
        event = event or events.Requested(f"user{len(log) + 1}")
        epoch = self.epochs[group] = max(self.epochs[group], getattr(event, "epoch", 0))
        log.append(events.LogEntry(group, len(log) + 1, 1, epoch, event))
        return log[-1]

    def publish(self, message: Any, group: str = FILMS, epoch: int | None = None) -> None:
        epoch = epoch or self.epochs[group]
        topic = topic_of(group)
        self.replica.published(topic, seal(key_of(group, epoch), epoch, topic, encode(message)))

    async def start(self) -> None:
        self.replica.link_up(WELCOME)
        await until(lambda: set(self.replica.groups) == self.mine)
        await turns()

    def seqs(self, group: str = FILMS) -> list[int]:
        return [entry.seq for entry in self.seen if entry.group == group]


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    harness = Harness()
    yield harness
    harness.replica.close()


async def test_it_begins_with_the_state_and_goes_on_with_the_events(harness: Harness) -> None:
    harness.join(FILMS, past=5)
    await harness.start()
    assert harness.replica.user == ALICE
    assert harness.link.topics == {topic_of(FILMS), WELCOME.inbox}
    assert harness.regrouped == 1
    for _ in range(3):
        harness.publish(harness.happen(FILMS))
    assert harness.seqs() == [6, 7, 8]


async def test_a_loss_is_noticed_by_the_next_event_and_made_good(harness: Harness) -> None:
    harness.join(FILMS)
    await harness.start()
    harness.publish(harness.happen(FILMS))
    for _ in range(8):
        lost = harness.happen(FILMS)
    harness.publish(lost)
    await until(lambda: len(harness.seen) == 9)
    assert harness.seqs() == list(range(1, 10))


@pytest.mark.parametrize("how", ["head", "announced", "reconnected", "inbox"])
async def test_a_silent_loss_is_noticed_all_the_same(harness: Harness, how: str) -> None:
    harness.join(FILMS)
    await harness.start()
    for _ in range(4):
        harness.happen(FILMS)
    match how:
        case "head":
            harness.publish(events.GroupHead(FILMS, 4, 1))
        case "announced":
            harness.replica.check_heads([tracker.Head(FILMS, 4, 1)])
        case "reconnected":
            harness.replica.link_up(WELCOME)
        case _:
            topic, key = WELCOME.inbox, WELCOME.inbox_key
            harness.replica.published(topic, seal(key, 0, topic, encode(events.Nudge())))
    await until(lambda: len(harness.seen) == 4)
    assert harness.seqs() == [1, 2, 3, 4]


async def test_with_any_loss_or_disorder_each_entry_is_seen_once_and_in_order(
    harness: Harness,
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    harness.join(FILMS)
    harness.join(OTHER, past=7)
    await harness.start()
    late: list[events.LogEntry] = []
    for _ in range(300):
        group = rng.choice([FILMS, OTHER])
        late.append(harness.happen(group))
        rng.shuffle(late)
        for entry in late[: rng.randrange(4)]:
            harness.publish(entry, entry.group)
        if rng.random() < 0.3:
            late = [entry for entry in late if rng.random() < 0.7]
        if rng.random() < 0.2:
            await turns(rng.randrange(12))
    heads = [tracker.Head(group, len(harness.logs[group]), 1) for group in (FILMS, OTHER)]
    harness.replica.check_heads(heads)
    await until(lambda: len(harness.seen) == 300)
    assert harness.seqs(FILMS) == list(range(1, len(harness.logs[FILMS]) + 1))
    assert harness.seqs(OTHER) == list(range(8, len(harness.logs[OTHER]) + 1))


async def test_a_leaving_user_loses_devices_and_rights_and_a_new_key_is_requested(
    harness: Harness,
) -> None:
    harness.join(FILMS)
    device, other = DeviceKey(b"1" * 32), DeviceKey(b"2" * 32)
    harness.devices[FILMS] = [
        tracker.DeviceRow(device, "bob"),
        tracker.DeviceRow(other, "carol"),
    ]
    await harness.start()
    assert harness.replica.knows_device(device)
    left = harness.happen(FILMS, events.Removed("Bob", 2))
    harness.publish(left, epoch=1)
    view = harness.replica.groups[FILMS]
    assert view.revoked == {BOB: 2}
    assert view.devices == {other: UserId("carol")}
    await until(lambda: 2 in view.keys)
    harness.publish(harness.happen(FILMS))
    assert harness.seqs() == [1, 2]


async def test_an_event_sealed_with_an_unknown_key_is_caught_up(harness: Harness) -> None:
    harness.join(FILMS)
    await harness.start()
    harness.happen(FILMS, events.Left("bob", 2))  # lost
    harness.publish(harness.happen(FILMS), epoch=2)
    await until(lambda: len(harness.seen) == 2)
    assert harness.seqs() == [1, 2]
    assert harness.replica.groups[FILMS].epoch == 2


async def test_devices_come_and_go(harness: Harness) -> None:
    harness.join(FILMS)
    await harness.start()
    device = DeviceKey(b"1" * 32)
    harness.publish(harness.happen(FILMS, events.Device("bob", device, True)))
    assert harness.replica.knows_device(device)
    harness.publish(harness.happen(FILMS, events.Device("bob", device, False)))
    assert device not in harness.replica.groups[FILMS].devices


async def test_a_stale_list_of_devices_readmits_no_device(harness: Harness) -> None:
    harness.join(FILMS)
    device, other = DeviceKey(b"1" * 32), DeviceKey(b"2" * 32)
    harness.devices[FILMS] = [tracker.DeviceRow(device, "bob")]
    await harness.start()
    fetched, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(command: tracker.GetDevices) -> tracker.DeviceRows:
        rows = tracker.DeviceRows(harness.devices[FILMS], len(harness.logs[FILMS]))
        fetched.set()
        await go_on.wait()
        return rows

    harness.link.answers["GetDevices"] = slowly
    assert not harness.replica.knows_device(other)
    await fetched.wait()
    harness.devices[FILMS] = [tracker.DeviceRow(other, "carol")]
    harness.publish(harness.happen(FILMS, events.Device("bob", device, False)))
    go_on.set()
    await turns()
    assert harness.replica.groups[FILMS].devices == {other: UserId("carol")}


async def test_an_entry_that_is_older_than_the_list_changes_nothing_in_it(harness: Harness) -> None:
    harness.join(FILMS)
    await harness.start()
    device = DeviceKey(b"1" * 32)
    entries = [
        harness.happen(FILMS, events.Device("bob", device, False)),
        harness.happen(FILMS, events.Device("bob", device, True)),
    ]
    harness.devices[FILMS] = [tracker.DeviceRow(device, "bob")]
    harness.link.answers["EventsSince"] = Refused(Code.BUSY, "later")  # by what is published alone
    assert not harness.replica.knows_device(device)
    await until(lambda: harness.replica.knows_device(device))
    for entry in entries:
        harness.publish(entry)
        assert harness.replica.knows_device(device)
    assert harness.seqs() == [1, 2]


async def test_a_list_that_no_tracker_should_give_is_not_asked_for_without_end(
    harness: Harness,
) -> None:
    harness.join(FILMS)
    await harness.start()
    harness.publish(harness.happen(FILMS, events.Device("bob", DeviceKey(b"1" * 32), False)))
    stale = tracker.DeviceRows([tracker.DeviceRow(b"1" * 32, "bob")], 0)
    harness.link.answers["GetDevices"] = stale
    asked = len(harness.link.asked_for(tracker.GetDevices))
    assert not harness.replica.knows_device(DeviceKey(b"1" * 32))
    await turns(200)
    assert not harness.replica.groups[FILMS].devices
    assert len(harness.link.asked_for(tracker.GetDevices)) - asked == module.DEVICES_TRIES


async def test_a_device_acts_for_its_logged_in_user_alone(harness: Harness) -> None:
    harness.join(FILMS)
    device = DeviceKey(b"1" * 32)
    harness.devices[FILMS] = [tracker.DeviceRow(device, "bob")]
    await harness.start()
    assert harness.replica.acts_for(FILMS, BOB, device)
    assert not harness.replica.acts_for(OTHER, BOB, device)
    asked = len(harness.link.asked_for(tracker.GetDevices))
    assert not harness.replica.acts_for(FILMS, ALICE, device)
    await until(lambda: len(harness.link.asked_for(tracker.GetDevices)) == asked + 1)
    harness.publish(harness.happen(FILMS, events.Device("bob", device, False)))
    assert not harness.replica.acts_for(FILMS, BOB, device)


async def test_an_epoch_may_begin_without_a_leaving_member(harness: Harness) -> None:
    harness.join(FILMS)
    await harness.start()
    device = DeviceKey(b"1" * 32)
    harness.epochs[FILMS] = 2
    shut_out = harness.happen(FILMS, events.Device("bob", device, False))
    harness.publish(shut_out, epoch=1)
    assert shut_out.epoch == 2
    await until(lambda: 2 in harness.replica.groups[FILMS].keys)
    harness.publish(harness.happen(FILMS))
    assert harness.seqs() == [1, 2]


async def test_h64_a_key_that_is_handed_on_is_not_asked_for(harness: Harness) -> None:
    harness.join(FILMS)
    await harness.start()
    asked = len(harness.link.asked_for(tracker.Follow))
    for epoch in range(2, 9):
        harness.publish(events.NewKey(FILMS, epoch, key_of(FILMS, epoch)), epoch=epoch - 1)
        harness.epochs[FILMS] = epoch
        joined = harness.happen(FILMS, events.Joined(f"user{epoch}"))
        harness.publish(joined, epoch=epoch - 1)
        harness.publish(harness.happen(FILMS))
    await turns()
    assert harness.seqs() == list(range(1, 15))
    assert len(harness.link.asked_for(tracker.Follow)) == asked


async def test_h64_a_key_that_was_missed_is_asked_for(harness: Harness) -> None:
    harness.join(FILMS)
    await harness.start()
    harness.epochs[FILMS] = 2
    harness.publish(harness.happen(FILMS))
    await until(lambda: 2 in harness.replica.groups[FILMS].keys)
    await until(lambda: harness.seqs() == [1])


@pytest.mark.parametrize("how", ["nudge", "announcement", "reconnection"])
async def test_a_logout_from_elsewhere_ends_the_replica(harness: Harness, how: str) -> None:
    harness.join(FILMS)
    await harness.start()
    harness.link.answers["Follow"] = Refused(Code.NOT_LOGGED_IN, "no user is logged in")
    match how:
        case "nudge":
            sealed = seal(WELCOME.inbox_key, 0, WELCOME.inbox, encode(events.Nudge()))
            harness.replica.published(WELCOME.inbox, sealed)
        case "announcement":
            harness.replica.logged_out("no user is logged in on this device")
        case _:
            harness.replica.link_up(msgspec.structs.replace(WELCOME, user=None))
    await until(lambda: harness.logged_out)
    await turns()
    assert harness.logged_out == [ALICE]
    assert harness.replica.user is None
    assert harness.replica.groups == {}
    asked = len(harness.link.asked)
    harness.replica.logged_out("no user is logged in on this device")
    await turns()
    assert (len(harness.link.asked), harness.logged_out) == (asked, [ALICE])


async def test_unknown_devices_cause_few_requests(
    monkeypatch: pytest.MonkeyPatch, harness: Harness
) -> None:
    monkeypatch.setattr(module, "DEVICES_INTERVAL_S", 60.0)
    harness.join(FILMS)
    await harness.start()
    asked = len(harness.link.asked_for(tracker.GetDevices))
    device = DeviceKey(b"1" * 32)
    harness.devices[FILMS] = [tracker.DeviceRow(device, "bob")]
    for _ in range(50):
        harness.replica.knows_device(device)
        await turns(2)
    assert harness.replica.knows_device(device)
    stranger = DeviceKey(b"9" * 32)
    for _ in range(50):
        assert not harness.replica.knows_device(stranger)
        await turns(2)
    assert len(harness.link.asked_for(tracker.GetDevices)) == asked + 1


async def test_peer_set_updates_arrive_while_they_are_followed(harness: Harness) -> None:
    harness.join(FILMS)
    await harness.start()
    topic = share_topic(topic_of(FILMS), CONTENT)
    update = events.PeerUpdate(FILMS, CONTENT)
    sealed = seal(key_of(FILMS, 1), 1, topic, encode(update))
    harness.replica.published(topic, sealed)
    harness.replica.follow_share(FILMS, CONTENT)
    assert topic in harness.link.topics
    harness.replica.published(topic, sealed)
    harness.replica.unfollow_share(FILMS, CONTENT)
    harness.replica.published(topic, sealed)
    assert topic not in harness.link.topics
    assert harness.peers == [update]


async def test_groups_that_are_gone_are_forgotten(harness: Harness) -> None:
    harness.join(FILMS)
    harness.join(OTHER)
    await harness.start()
    harness.replica.follow_share(OTHER, CONTENT)
    harness.mine.remove(OTHER)
    harness.replica.check_heads([tracker.Head(FILMS, 0, 1)])
    await until(lambda: set(harness.replica.groups) == {FILMS})
    assert harness.link.topics == {topic_of(FILMS), WELCOME.inbox}
    assert harness.regrouped == 2


async def test_a_logged_out_user_has_left_no_group(harness: Harness) -> None:
    harness.join(FILMS)
    replica = harness.replica
    assert not replica.has_left(ALICE, FILMS, b"")
    await harness.start()
    topic = replica.topic_of(FILMS)
    assert topic
    assert not replica.has_left(ALICE, FILMS, topic)
    assert replica.has_left(ALICE, OTHER, b"")
    assert not replica.has_left(BOB, OTHER, b"")
    replica.set_user(None)
    assert not replica.has_left(ALICE, FILMS, topic)
    replica.set_user(ALICE)
    assert not replica.has_left(ALICE, FILMS, topic), "the tracker has not listed the groups yet"


async def test_a_group_that_ended_and_another_of_its_name_are_two(harness: Harness) -> None:
    harness.join(FILMS)
    await harness.start()
    topic, regrouped = harness.replica.topic_of(FILMS), harness.regrouped
    harness.topics[FILMS] = b"another".ljust(len(topic))
    await harness.replica.sync()
    assert harness.replica.has_left(ALICE, FILMS, topic)
    assert harness.regrouped == regrouped + 1


async def test_a_reply_for_a_former_user_is_ignored(harness: Harness) -> None:
    harness.join(FILMS)
    answer, told = harness.link.answers["Follow"], asyncio.Event()

    async def late(command: Any) -> Any:
        await told.wait()
        return answer(command)

    harness.link.answers["Follow"] = late
    harness.replica.set_user(ALICE)
    syncing = asyncio.create_task(harness.replica.sync())
    await turns()
    harness.replica.set_user(None)
    told.set()
    await syncing
    assert not harness.replica.groups
    assert not harness.replica.known


async def test_another_user_begins_with_nothing_of_the_former_one(harness: Harness) -> None:
    harness.join(FILMS)
    await harness.start()
    harness.replica.set_user(None)
    assert harness.replica.groups == {}
    assert harness.link.topics == {WELCOME.inbox}
    await harness.replica.sync()
    assert harness.replica.groups == {}
    harness.publish(harness.happen(FILMS))
    assert harness.seen == []


async def test_noise_on_any_topic_is_counted_and_dropped(harness: Harness) -> None:
    harness.join(FILMS)
    await harness.start()
    topic = topic_of(FILMS)
    key = key_of(FILMS, 1)
    before = len(harness.link.asked)
    harness.replica.published(topic, b"noise")
    harness.replica.published(topic, seal(b"o" * 32, 1, topic, encode(events.Nudge())))
    harness.replica.published(topic, seal(key, 1, topic, b"\xc1"))
    harness.replica.published(topic, seal(key, 1, topic, encode(events.Beat(b"t" * 16, 1))))
    assert harness.replica.unreadable == 4
    harness.replica.published(b"unknown", b"noise")
    assert harness.replica.unreadable == 4
    assert (harness.seen, len(harness.link.asked)) == ([], before)


async def test_two_answers_at_once_begin_a_group_once(harness: Harness) -> None:
    """A command that makes a group asks for the state, and so does the notice of it."""
    await harness.start()
    harness.join(FILMS, past=2)
    gate = asyncio.Event()
    devices = harness.link.answers["GetDevices"]

    async def slowly(command: tracker.GetDevices) -> Any:
        await gate.wait()
        return devices(command)

    harness.link.answers["GetDevices"] = slowly
    both = asyncio.gather(harness.replica.sync(), harness.replica.sync())
    await until(lambda: FILMS in harness.replica.groups)
    for _ in range(3):
        harness.publish(harness.happen(FILMS))
    gate.set()
    await both
    harness.publish(harness.happen(FILMS))
    await turns()
    assert harness.seqs() == [3, 4, 5, 6]


@pytest.mark.parametrize("refused", [False, True])
async def test_a_command_and_the_nudge_about_it_cause_one_request(
    harness: Harness, refused: bool
) -> None:
    """The tracker publishes the nudge before it sends the reply."""
    await harness.start()
    await turns()
    before = len(harness.link.asked_for(tracker.Follow))
    nudge = seal(WELCOME.inbox_key, 0, WELCOME.inbox, encode(events.Nudge()))

    def make(command: tracker.CreateGroup) -> tracker.Done:
        harness.join(FILMS)
        harness.replica.published(WELCOME.inbox, nudge)
        if refused:
            raise Refused(Code.TAKEN, "taken")
        return tracker.Done()

    harness.link.answers["CreateGroup"] = make
    change = harness.link.request(tracker.CreateGroup(FILMS), tracker.Done)
    with pytest.raises(Refused) if refused else contextlib.nullcontext():
        assert await harness.replica.sync_after(change) == tracker.Done()
    await until(lambda: FILMS in harness.replica.groups)
    await turns()
    assert len(harness.link.asked_for(tracker.Follow)) == before + 1


async def test_f50_a_replica_behind_the_kept_entries_goes_on_from_a_snapshot(
    harness: Harness,
) -> None:
    harness.join(FILMS, past=4)
    harness.devices[FILMS] = [
        tracker.DeviceRow(HERS, "carol"),
        tracker.DeviceRow(HIS, "bob"),
    ]
    await harness.start()
    assert harness.replica.acts_for(FILMS, "bob", HIS)
    # Meanwhile, unheard: bob was removed, and so much happened that the log no longer tells.
    harness.happen(FILMS, events.Removed("bob", 2))
    harness.happen(FILMS, events.Owner("carol"))
    for _ in range(6):
        harness.happen(FILMS)
    harness.devices[FILMS] = [tracker.DeviceRow(HERS, "carol")]
    harness.revoked[FILMS] = [("bob", 2)]
    harness.trimmed = 8
    harness.publish(harness.logs[FILMS][-1], epoch=1)
    await until(lambda: harness.seqs()[-1:] == [12])
    assert harness.seqs() == [9, 10, 11, 12]
    assert harness.gaps == [Gap(FILMS, 5, 8, frozenset({"bob"}))]
    view = harness.replica.groups[FILMS]
    assert view.epoch == 2
    assert view.keys[2] == key_of(FILMS, 2)
    assert view.revoked == {"bob": 2}
    assert set(view.devices) == {HERS}
    harness.publish(harness.happen(FILMS))
    assert harness.seqs()[-1] == 13


async def test_f50_a_snapshot_may_be_all_that_there_is(harness: Harness) -> None:
    harness.join(FILMS, past=2)
    await harness.start()
    for _ in range(5):
        harness.happen(FILMS)
    harness.trimmed = 7
    harness.replica.check_heads([tracker.Head(FILMS, 7, 1)])
    await until(lambda: harness.gaps)
    assert harness.gaps == [Gap(FILMS, 3, 7, frozenset())]
    assert not harness.seen
    harness.publish(harness.happen(FILMS))
    assert harness.seqs() == [8]


async def test_f50_a_snapshot_of_another_group_is_not_taken(harness: Harness) -> None:
    harness.join(FILMS, past=2)
    await harness.start()
    harness.happen(FILMS)
    state = tracker.GroupState("music", "eve", 9, topic_of(FILMS), key_of(FILMS, 9), 3)
    harness.link.answers["EventsSince"] = tracker.Events([], 3, state)
    harness.replica.check_heads([tracker.Head(FILMS, 3, 1)])
    await turns()
    assert harness.replica.groups[FILMS].owner == "alice"
    assert not harness.gaps
