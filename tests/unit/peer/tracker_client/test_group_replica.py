"""Following the groups' logs: every entry once and in order, whatever is lost on the way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
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


class Town:
    """A tracker's logs and groups, and a `Following` that hears of them."""

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
            Follow=lambda ask: self._follow(),
            EventsSince=lambda ask: self._since(ask),
            GetDevices=lambda ask: tracker.DeviceRows(
                self.devices.get(ask.group, []), len(self.logs[ask.group])
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

    def _on_logged_out(self) -> None:
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

    def _since(self, ask: tracker.EventsSince) -> Any:
        if ask.group not in self.mine:
            return Refused(Code.UNKNOWN_GROUP, "no such group")
        log = self.logs[ask.group]
        page = [entry for entry in log if entry.seq > max(ask.seq, self.trimmed)][:3]
        if ask.seq >= self.trimmed:
            return tracker.Events(page, len(log))
        state = next(each for each in self._follow().groups if each.group == ask.group)
        return tracker.Events(page, len(log), state)

    def join(self, group: str, past: int = 0) -> None:
        self.mine.add(group)
        self.logs.setdefault(group, [])
        self.epochs.setdefault(group, 1)
        for _ in range(past):
            self.happen(group)

    def happen(self, group: str, event: Any = None) -> events.LogEntry:
        """Something is logged, and not yet published."""
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


def run(test: Callable[[Town], Awaitable[None]]) -> None:
    async def main() -> None:
        town = Town()
        await test(town)
        town.replica.close()

    asyncio.run(main())


def test_it_begins_with_the_state_and_goes_on_with_the_events() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS, past=5)
        await town.start()
        assert town.replica.user == ALICE
        assert town.link.topics == {topic_of(FILMS), WELCOME.inbox}
        assert town.regrouped == 1
        for _ in range(3):
            town.publish(town.happen(FILMS))
        assert town.seqs() == [6, 7, 8]

    run(test)


def test_a_loss_is_noticed_by_the_next_event_and_made_good() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        await town.start()
        town.publish(town.happen(FILMS))
        for _ in range(8):
            lost = town.happen(FILMS)
        town.publish(lost)
        await until(lambda: len(town.seen) == 9)
        assert town.seqs() == list(range(1, 10))

    run(test)


@pytest.mark.parametrize("how", ["head", "announced", "reconnected", "inbox"])
def test_a_silent_loss_is_noticed_all_the_same(how: str) -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        await town.start()
        for _ in range(4):
            town.happen(FILMS)
        match how:
            case "head":
                town.publish(events.GroupHead(FILMS, 4, 1))
            case "announced":
                town.replica.check_heads([tracker.Head(FILMS, 4, 1)])
            case "reconnected":
                town.replica.link_up(WELCOME)
            case _:
                topic, key = WELCOME.inbox, WELCOME.inbox_key
                town.replica.published(topic, seal(key, 0, topic, encode(events.Nudge())))
        await until(lambda: len(town.seen) == 4)
        assert town.seqs() == [1, 2, 3, 4]

    run(test)


def test_whatever_is_lost_doubled_or_out_of_order_every_entry_is_seen_once_and_in_order() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)

    async def test(town: Town) -> None:
        town.join(FILMS)
        town.join(OTHER, past=7)
        await town.start()
        late: list[events.LogEntry] = []
        for _ in range(300):
            group = rng.choice([FILMS, OTHER])
            late.append(town.happen(group))
            rng.shuffle(late)
            for entry in late[: rng.randrange(4)]:
                town.publish(entry, entry.group)
            if rng.random() < 0.3:
                late = [entry for entry in late if rng.random() < 0.7]
            if rng.random() < 0.2:
                await turns(rng.randrange(12))
        heads = [tracker.Head(group, len(town.logs[group]), 1) for group in (FILMS, OTHER)]
        town.replica.check_heads(heads)
        await until(lambda: len(town.seen) == 300)
        assert town.seqs(FILMS) == list(range(1, len(town.logs[FILMS]) + 1))
        assert town.seqs(OTHER) == list(range(8, len(town.logs[OTHER]) + 1))

    run(test)


def test_a_leaving_user_loses_devices_and_rights_and_a_new_key_is_requested() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        device, other = DeviceKey(b"1" * 32), DeviceKey(b"2" * 32)
        town.devices[FILMS] = [tracker.DeviceRow(device, "bob"), tracker.DeviceRow(other, "carol")]
        await town.start()
        assert town.replica.knows_device(device)
        left = town.happen(FILMS, events.Removed("Bob", 2))
        town.publish(left, epoch=1)
        view = town.replica.groups[FILMS]
        assert view.revoked == {BOB: 2}
        assert view.devices == {other: UserId("carol")}
        await until(lambda: 2 in view.keys)
        town.publish(town.happen(FILMS))
        assert town.seqs() == [1, 2]

    run(test)


def test_an_event_sealed_with_an_unknown_key_is_caught_up() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        await town.start()
        town.happen(FILMS, events.Left("bob", 2))  # lost
        town.publish(town.happen(FILMS), epoch=2)
        await until(lambda: len(town.seen) == 2)
        assert town.seqs() == [1, 2]
        assert town.replica.groups[FILMS].epoch == 2

    run(test)


def test_devices_come_and_go() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        await town.start()
        device = DeviceKey(b"1" * 32)
        town.publish(town.happen(FILMS, events.Device("bob", device, True)))
        assert town.replica.knows_device(device)
        town.publish(town.happen(FILMS, events.Device("bob", device, False)))
        assert device not in town.replica.groups[FILMS].devices

    run(test)


def test_a_stale_list_of_devices_readmits_no_device() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        device, other = DeviceKey(b"1" * 32), DeviceKey(b"2" * 32)
        town.devices[FILMS] = [tracker.DeviceRow(device, "bob")]
        await town.start()
        fetched, go_on = asyncio.Event(), asyncio.Event()

        async def slowly(ask: tracker.GetDevices) -> tracker.DeviceRows:
            rows = tracker.DeviceRows(town.devices[FILMS], len(town.logs[FILMS]))
            fetched.set()
            await go_on.wait()
            return rows

        town.link.answers["GetDevices"] = slowly
        assert not town.replica.knows_device(other)
        await fetched.wait()
        town.devices[FILMS] = [tracker.DeviceRow(other, "carol")]
        town.publish(town.happen(FILMS, events.Device("bob", device, False)))
        go_on.set()
        await turns()
        assert town.replica.groups[FILMS].devices == {other: UserId("carol")}

    run(test)


def test_an_entry_that_is_older_than_the_list_changes_nothing_in_it() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        await town.start()
        device = DeviceKey(b"1" * 32)
        entries = [
            town.happen(FILMS, events.Device("bob", device, False)),
            town.happen(FILMS, events.Device("bob", device, True)),
        ]
        town.devices[FILMS] = [tracker.DeviceRow(device, "bob")]
        town.link.answers["EventsSince"] = Refused(Code.BUSY, "later")  # by what is published alone
        assert not town.replica.knows_device(device)
        await until(lambda: town.replica.knows_device(device))
        for entry in entries:
            town.publish(entry)
            assert town.replica.knows_device(device)
        assert town.seqs() == [1, 2]

    run(test)


def test_a_list_that_no_tracker_should_give_is_not_asked_for_without_end() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        await town.start()
        town.publish(town.happen(FILMS, events.Device("bob", DeviceKey(b"1" * 32), False)))
        stale = tracker.DeviceRows([tracker.DeviceRow(b"1" * 32, "bob")], 0)
        town.link.answers["GetDevices"] = stale
        asked = len(town.link.asked_for(tracker.GetDevices))
        assert not town.replica.knows_device(DeviceKey(b"1" * 32))
        await turns(200)
        assert not town.replica.groups[FILMS].devices
        assert len(town.link.asked_for(tracker.GetDevices)) - asked == module.DEVICES_TRIES

    run(test)


def test_a_device_acts_for_its_logged_in_user_alone() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        device = DeviceKey(b"1" * 32)
        town.devices[FILMS] = [tracker.DeviceRow(device, "bob")]
        await town.start()
        assert town.replica.acts_for(FILMS, BOB, device)
        assert not town.replica.acts_for(OTHER, BOB, device)
        asked = len(town.link.asked_for(tracker.GetDevices))
        assert not town.replica.acts_for(FILMS, ALICE, device)
        await until(lambda: len(town.link.asked_for(tracker.GetDevices)) == asked + 1)
        town.publish(town.happen(FILMS, events.Device("bob", device, False)))
        assert not town.replica.acts_for(FILMS, BOB, device)

    run(test)


def test_an_epoch_may_begin_without_anybody_going() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        await town.start()
        device = DeviceKey(b"1" * 32)
        town.epochs[FILMS] = 2
        shut_out = town.happen(FILMS, events.Device("bob", device, False))
        town.publish(shut_out, epoch=1)
        assert shut_out.epoch == 2
        await until(lambda: 2 in town.replica.groups[FILMS].keys)
        town.publish(town.happen(FILMS))
        assert town.seqs() == [1, 2]

    run(test)


def test_h64_a_key_that_is_handed_on_is_not_asked_for() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        await town.start()
        asked = len(town.link.asked_for(tracker.Follow))
        for epoch in range(2, 9):
            town.publish(events.NewKey(FILMS, epoch, key_of(FILMS, epoch)), epoch=epoch - 1)
            town.epochs[FILMS] = epoch
            joined = town.happen(FILMS, events.Joined(f"user{epoch}"))
            town.publish(joined, epoch=epoch - 1)
            town.publish(town.happen(FILMS))
        await turns()
        assert town.seqs() == list(range(1, 15))
        assert len(town.link.asked_for(tracker.Follow)) == asked

    run(test)


def test_h64_a_key_that_was_missed_is_asked_for() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        await town.start()
        town.epochs[FILMS] = 2
        town.publish(town.happen(FILMS))
        await until(lambda: 2 in town.replica.groups[FILMS].keys)
        await until(lambda: town.seqs() == [1])

    run(test)


@pytest.mark.parametrize("how", ["nudge", "announcement", "reconnection"])
def test_a_logout_from_elsewhere_ends_the_replica(how: str) -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        await town.start()
        town.link.answers["Follow"] = Refused(Code.NOT_LOGGED_IN, "nobody is logged in")
        match how:
            case "nudge":
                sealed = seal(WELCOME.inbox_key, 0, WELCOME.inbox, encode(events.Nudge()))
                town.replica.published(WELCOME.inbox, sealed)
            case "announcement":
                town.replica.logged_out()
            case _:
                town.replica.link_up(msgspec.structs.replace(WELCOME, user=None))
        await until(lambda: town.logged_out)
        await turns()
        assert town.logged_out == [ALICE]
        assert town.replica.user is None
        assert town.replica.groups == {}
        asked = len(town.link.asked)
        town.replica.logged_out()
        await turns()
        assert (len(town.link.asked), town.logged_out) == (asked, [ALICE])

    run(test)


def test_an_unknown_device_makes_us_look_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        await town.start()
        asked = len(town.link.asked_for(tracker.GetDevices))
        device = DeviceKey(b"1" * 32)
        town.devices[FILMS] = [tracker.DeviceRow(device, "bob")]
        for _ in range(50):
            town.replica.knows_device(device)
            await turns(2)
        assert town.replica.knows_device(device)
        stranger = DeviceKey(b"9" * 32)
        for _ in range(50):
            assert not town.replica.knows_device(stranger)
            await turns(2)
        assert len(town.link.asked_for(tracker.GetDevices)) == asked + 1

    monkeypatch.setattr(module, "DEVICES_INTERVAL_S", 60.0)
    run(test)


def test_peer_sets_are_heard_for_as_long_as_they_are_followed() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        await town.start()
        topic = share_topic(topic_of(FILMS), CONTENT)
        update = events.PeerUpdate(FILMS, CONTENT)
        sealed = seal(key_of(FILMS, 1), 1, topic, encode(update))
        town.replica.published(topic, sealed)
        town.replica.follow_share(FILMS, CONTENT)
        assert topic in town.link.topics
        town.replica.published(topic, sealed)
        town.replica.unfollow_share(FILMS, CONTENT)
        town.replica.published(topic, sealed)
        assert topic not in town.link.topics
        assert town.peers == [update]

    run(test)


def test_groups_that_are_gone_are_forgotten() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        town.join(OTHER)
        await town.start()
        town.replica.follow_share(OTHER, CONTENT)
        town.mine.remove(OTHER)
        town.replica.check_heads([tracker.Head(FILMS, 0, 1)])
        await until(lambda: set(town.replica.groups) == {FILMS})
        assert town.link.topics == {topic_of(FILMS), WELCOME.inbox}
        assert town.regrouped == 2

    run(test)


def test_a_logged_out_user_has_left_no_group() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        replica = town.replica
        assert not replica.has_left(ALICE, FILMS, b"")
        await town.start()
        topic = replica.topic_of(FILMS)
        assert topic
        assert not replica.has_left(ALICE, FILMS, topic)
        assert replica.has_left(ALICE, OTHER, b"")
        assert not replica.has_left(BOB, OTHER, b"")
        replica.set_user(None)
        assert not replica.has_left(ALICE, FILMS, topic)
        replica.set_user(ALICE)
        assert not replica.has_left(ALICE, FILMS, topic), "nobody has told yet"

    run(test)


def test_a_group_that_ended_and_another_of_its_name_are_two() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        await town.start()
        topic, regrouped = town.replica.topic_of(FILMS), town.regrouped
        town.topics[FILMS] = b"another".ljust(len(topic))
        await town.replica.sync()
        assert town.replica.has_left(ALICE, FILMS, topic)
        assert town.regrouped == regrouped + 1

    run(test)


def test_a_reply_for_a_former_user_is_ignored() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        answer, told = town.link.answers["Follow"], asyncio.Event()

        async def late(ask: Any) -> Any:
            await told.wait()
            return answer(ask)

        town.link.answers["Follow"] = late
        town.replica.set_user(ALICE)
        syncing = asyncio.create_task(town.replica.sync())
        await turns()
        town.replica.set_user(None)
        told.set()
        await syncing
        assert not town.replica.groups
        assert not town.replica.known

    run(test)


def test_another_user_begins_with_nothing_of_the_former_one() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        await town.start()
        town.replica.set_user(None)
        assert town.replica.groups == {}
        assert town.link.topics == {WELCOME.inbox}
        await town.replica.sync()
        assert town.replica.groups == {}
        town.publish(town.happen(FILMS))
        assert town.seen == []

    run(test)


def test_noise_on_any_topic_is_counted_and_dropped() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS)
        await town.start()
        topic = topic_of(FILMS)
        key = key_of(FILMS, 1)
        before = len(town.link.asked)
        town.replica.published(topic, b"noise")
        town.replica.published(topic, seal(b"o" * 32, 1, topic, encode(events.Nudge())))
        town.replica.published(topic, seal(key, 1, topic, b"\xc1"))
        town.replica.published(topic, seal(key, 1, topic, encode(events.Beat(b"t" * 16, 1))))
        assert town.replica.unreadable == 4
        town.replica.published(b"unknown", b"noise")
        assert town.replica.unreadable == 4
        assert (town.seen, len(town.link.asked)) == ([], before)

    run(test)


def test_two_answers_at_once_begin_a_group_once() -> None:
    """A command that makes a group asks for the state, and so does the notice of it."""

    async def test(town: Town) -> None:
        await town.start()
        town.join(FILMS, past=2)
        gate = asyncio.Event()
        devices = town.link.answers["GetDevices"]

        async def slowly(ask: tracker.GetDevices) -> Any:
            await gate.wait()
            return devices(ask)

        town.link.answers["GetDevices"] = slowly
        both = asyncio.gather(town.replica.sync(), town.replica.sync())
        await until(lambda: FILMS in town.replica.groups)
        for _ in range(3):
            town.publish(town.happen(FILMS))
        gate.set()
        await both
        town.publish(town.happen(FILMS))
        await turns()
        assert town.seqs() == [3, 4, 5, 6]

    run(test)


def test_f50_a_replica_behind_the_kept_entries_goes_on_from_a_snapshot() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS, past=4)
        town.devices[FILMS] = [
            tracker.DeviceRow(HERS, "carol"),
            tracker.DeviceRow(HIS, "bob"),
        ]
        await town.start()
        assert town.replica.acts_for(FILMS, "bob", HIS)
        # Meanwhile, unheard: bob was removed, and so much happened that nobody can tell any more.
        town.happen(FILMS, events.Removed("bob", 2))
        town.happen(FILMS, events.Owner("carol"))
        for _ in range(6):
            town.happen(FILMS)
        town.devices[FILMS] = [tracker.DeviceRow(HERS, "carol")]
        town.revoked[FILMS] = [("bob", 2)]
        town.trimmed = 8
        town.publish(town.logs[FILMS][-1], epoch=1)
        await until(lambda: town.seqs()[-1:] == [12])
        assert town.seqs() == [9, 10, 11, 12]
        assert town.gaps == [Gap(FILMS, 5, 8, frozenset({"bob"}))]
        view = town.replica.groups[FILMS]
        assert view.epoch == 2
        assert view.keys[2] == key_of(FILMS, 2)
        assert view.revoked == {"bob": 2}
        assert set(view.devices) == {HERS}
        town.publish(town.happen(FILMS))
        assert town.seqs()[-1] == 13

    run(test)


def test_f50_a_snapshot_may_be_all_that_there_is() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS, past=2)
        await town.start()
        for _ in range(5):
            town.happen(FILMS)
        town.trimmed = 7
        town.replica.check_head(FILMS, 7, 1)
        await until(lambda: town.gaps)
        assert town.gaps == [Gap(FILMS, 3, 7, frozenset())]
        assert not town.seen
        town.publish(town.happen(FILMS))
        assert town.seqs() == [8]

    run(test)


def test_f50_a_snapshot_of_another_group_is_not_taken() -> None:
    async def test(town: Town) -> None:
        town.join(FILMS, past=2)
        await town.start()
        town.happen(FILMS)
        state = tracker.GroupState("music", "eve", 9, topic_of(FILMS), key_of(FILMS, 9), 3)
        town.link.answers["EventsSince"] = tracker.Events([], 3, state)
        town.replica.check_head(FILMS, 3, 1)
        await turns()
        assert town.replica.groups[FILMS].owner == "alice"
        assert not town.gaps

    run(test)
