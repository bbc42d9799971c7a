"""Who may fetch from us, and our own tickets."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import nacl.signing
import pytest

from common import limits
from common.crypto import tickets
from common.errors import Refused, TransportError
from common.host.clock import TrackerTime
from common.ids import DeviceKey, GroupId, TrackerId, UserId
from common.messages import tracker
from common.messages.refusals import Code
from peer.serving import access
from peer.serving.access import AccessControl, TicketWallet
from tests.support.peer_fakes import FakeLink, turns, until

SIGNING = nacl.signing.SigningKey(bytes(range(32)))
ID = TrackerId(b"t" * 16)
DEVICE = DeviceKey(b"d" * 32)
FILMS, MUSIC = GroupId("films"), GroupId("music")
BOB = UserId("bob")
T0 = 1_900_000_000_000


class World:
    """A following with one group, a clock that is set by hand, and the rights that follow."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.time = TrackerTime(lambda: self.now_s)
        self.time.learn(T0, 0.0, 0.0)
        self.view = SimpleNamespace(group=FILMS, revoked={}, devices={DEVICE: BOB})
        self.replica = SimpleNamespace(groups={FILMS: self.view}, acts_for=self.acts_for)
        self.rights = AccessControl(self.replica, self.time)  # type: ignore[arg-type]
        self.rights.learn(
            tracker.Welcome(
                ID, [bytes(SIGNING.verify_key)], "tcp://*:1", T0, "alice", b"i" * 16, b"n" * 32
            )
        )

    def acts_for(self, group: GroupId, user: UserId, device: DeviceKey) -> bool:
        return bool(self.replica.groups[group].devices.get(device) == user)

    def token(self, epoch: int = 1) -> bytes:
        return tickets.issue(SIGNING, ID, DEVICE, BOB, FILMS, epoch, self.time.now_ms())[0]

    def refusal(self, token: bytes) -> Code:
        with pytest.raises(Refused) as caught:
            self.rights.admit(DEVICE, FILMS, token)
        return caught.value.code


def test_a_good_ticket_admits_until_it_expires() -> None:
    world = World()
    ticket = world.rights.admit(DEVICE, FILMS, world.token())
    world.now_s = limits.TICKET_LIFE_S + limits.CLOCK_SKEW_S - 0.001
    world.rights.recheck(ticket)
    world.now_s += 0.001
    with pytest.raises(Refused) as caught:
        world.rights.recheck(ticket)
    assert caught.value.code is Code.TICKET_EXPIRED


def test_a_removal_ends_the_right_of_an_admitted_ticket() -> None:
    world = World()
    token = world.token(epoch=3)
    ticket = world.rights.admit(DEVICE, FILMS, token)
    world.view.revoked[BOB] = 4
    with pytest.raises(Refused) as caught:
        world.rights.recheck(ticket)
    assert caught.value.code is Code.REVOKED
    assert world.refusal(token) is Code.REVOKED
    world.rights.admit(DEVICE, FILMS, world.token(epoch=4))  # let in once more
    world.view.revoked[UserId("carol")] = 9
    world.rights.admit(DEVICE, FILMS, world.token(epoch=4))


def test_h43_a_ticket_counts_as_long_as_its_user_is_logged_in_on_that_device() -> None:
    world = World()
    token = world.token()
    ticket = world.rights.admit(DEVICE, FILMS, token)
    for devices in ({}, {DEVICE: UserId("carol")}):
        world.view.devices = devices
        with pytest.raises(Refused) as caught:
            world.rights.recheck(ticket)
        assert caught.value.code is Code.TICKET_INVALID
        assert world.refusal(token) is Code.TICKET_INVALID
    world.view.devices = {DEVICE: BOB}
    world.rights.recheck(ticket)


def test_nothing_is_served_of_a_group_that_we_are_not_in() -> None:
    world = World()
    token = world.token()
    world.replica.groups.clear()
    assert world.refusal(token) is Code.UNKNOWN_GROUP


def test_before_the_tracker_has_said_who_it_is_nobody_is_admitted() -> None:
    world = World()
    fresh = AccessControl(world.replica, world.time)  # type: ignore[arg-type]
    with pytest.raises(Refused):
        fresh.admit(DEVICE, FILMS, world.token())


class Holder:
    """Our tickets, at a tracker that issues them for the groups in ``mine``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, mine: set[str], rng: Any = None) -> None:
        self.now_s = 0.0
        monkeypatch.setattr(access, "monotonic", lambda: self.now_s)
        self.time = TrackerTime(lambda: self.now_s)
        self.time.learn(T0, 0.0, 0.0)
        self.mine = mine
        self.renewed: list[tuple[str, bytes]] = []
        self.count = 0
        self.link = FakeLink(GetTickets=self._issue)
        self.tickets = TicketWallet(
            self.link,  # type: ignore[arg-type]
            self.time,
            lambda group, token: self.renewed.append((group, token)),
            rng or random.Random(1),
        )

    def _issue(self, ask: tracker.GetTickets) -> tracker.Tickets | Refused:
        self.count += 1
        if not self.mine & set(ask.groups):
            return Refused(Code.UNKNOWN_GROUP, "there is no such group, or it is not yours")
        now = T0 + round(self.now_s * 1000)
        rows = [
            tracker.TicketRow(group, b"%d" % self.count, now + limits.TICKET_LIFE_S * 1000)
            for group in ask.groups
            if group in self.mine
        ]
        return tracker.Tickets(rows, now)


def test_a_ticket_is_fetched_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        holder = Holder(monkeypatch, {"films"})
        assert holder.tickets.current(FILMS) is None
        assert await holder.tickets.want(FILMS) == b"1"
        assert await holder.tickets.want(FILMS) == holder.tickets.current(FILMS) == b"1"
        assert holder.renewed == [("films", b"1")]
        holder.now_s = limits.TICKET_LIFE_S
        assert holder.tickets.current(FILMS) is None
        assert await holder.tickets.want(FILMS) == b"2"
        holder.tickets.drop(FILMS)
        assert holder.tickets.current(FILMS) is None
        holder.tickets.clear()

    asyncio.run(main())


def test_a_group_that_is_not_ours_gives_no_ticket(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        holder = Holder(monkeypatch, set())
        with pytest.raises(Refused) as caught:
            await holder.tickets.want(FILMS)
        assert caught.value.code is Code.UNKNOWN_GROUP
        holder.link.connected = False
        with pytest.raises(TransportError):
            await holder.tickets.want(FILMS)
        holder.tickets.clear()

    asyncio.run(main())


def test_it_is_renewed_in_the_second_half_of_its_life(monkeypatch: pytest.MonkeyPatch) -> None:
    for spare in (0.1, 0.5):
        holder = Holder(
            monkeypatch, {"films"}, SimpleNamespace(uniform=lambda low, high, at=spare: at)
        )
        holder.tickets._wanted.add(FILMS)
        holder.tickets._held[FILMS] = (b"x", T0 + limits.TICKET_LIFE_S * 1000)
        assert holder.tickets._due_in_s() == pytest.approx(limits.TICKET_LIFE_S * (1 - spare))


def let_time_fly(holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses last as long as they should by the holder's clock, and no time by anybody's watch."""
    sleep = asyncio.sleep

    async def fast(pause_s: float) -> None:
        if pause_s > 0.5:
            holder.now_s += pause_s
            pause_s = 0.0
        await sleep(pause_s)

    monkeypatch.setattr(asyncio, "sleep", fast)


def asked_for(holder: Holder) -> list[list[str]]:
    return [ask.groups for ask in holder.link.asked_for(tracker.GetTickets)]


def test_a_group_that_was_lost_unheard_is_asked_for_once_more_and_then_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        holder = Holder(monkeypatch, {"films", "music"})
        await holder.tickets.want(FILMS)
        await holder.tickets.want(MUSIC)
        holder.mine.remove("music")
        let_time_fly(holder, monkeypatch)
        await until(lambda: asked_for(holder)[-3:] == [["films"]] * 3, "asking for the other alone")
        assert 1 <= asked_for(holder).count(["films", "music"]) <= 5
        # A ticket lives 600 s and is renewed after 300 s at the earliest: nobody asks all the time.
        assert len(asked_for(holder)) <= 2 + holder.now_s / 100
        assert holder.tickets.current(FILMS) is not None
        assert holder.tickets.current(MUSIC) is None
        holder.tickets.clear()

    asyncio.run(main())


def test_who_has_lost_every_group_stops_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        holder = Holder(monkeypatch, {"films"})
        await holder.tickets.want(FILMS)
        holder.mine.clear()
        let_time_fly(holder, monkeypatch)
        renewal = holder.tickets._renewal
        assert renewal is not None
        await until(renewal.done, "the end of asking")
        assert len(asked_for(holder)) <= 4
        with pytest.raises(Refused) as caught:
            await holder.tickets.want(FILMS)
        assert caught.value.code is Code.UNKNOWN_GROUP
        holder.mine.add("films")  # let in once more
        await holder.tickets.want(FILMS)
        count = holder.count
        await until(lambda: holder.count > count + 2, "its renewal")

    asyncio.run(main())


def test_a_tracker_that_does_not_know_of_us_yet_costs_nobody_a_ticket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of several trackers may be behind the one that let us in."""

    async def main() -> None:
        holder = Holder(monkeypatch, {"films", "music"})
        await holder.tickets.want(FILMS)
        token = await holder.tickets.want(MUSIC)
        issue = holder.link.answers["GetTickets"]
        given: list[bytes | None] = []

        def behind(ask: tracker.GetTickets) -> tracker.Tickets:
            given.append(holder.tickets.current(MUSIC))
            reply = issue(ask)
            if len(given) > 1:
                return reply
            return tracker.Tickets([row for row in reply.rows if row.group != MUSIC], reply.time_ms)

        holder.link.answers["GetTickets"] = behind
        let_time_fly(holder, monkeypatch)
        await until(lambda: len(given) > 4, "its renewal")
        assert given[0] == token
        assert len(set(given[2:])) == len(given[2:])
        assert None not in given[2:]
        holder.tickets.clear()

    asyncio.run(main())


def test_a_ticket_that_comes_after_the_group_was_dropped_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        holder = Holder(monkeypatch, {"films"})
        issue, answering = holder.link.answers["GetTickets"], asyncio.Event()

        async def late(ask: tracker.GetTickets) -> tracker.Tickets:
            await answering.wait()
            return issue(ask)

        holder.link.answers["GetTickets"] = late
        for forget in (lambda: holder.tickets.drop(FILMS), holder.tickets.clear):
            answering.clear()
            wanted = asyncio.create_task(holder.tickets.want(FILMS))
            await turns()
            forget()
            answering.set()
            with pytest.raises(Refused) as caught:
                await wanted
            assert caught.value.code is Code.UNKNOWN_GROUP
            assert holder.tickets.current(FILMS) is None
            assert holder.renewed == []

    asyncio.run(main())


def test_it_is_renewed_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        holder = Holder(monkeypatch, {"films"})
        pauses: list[float] = []
        sleep = asyncio.sleep

        async def fast(pause_s: float) -> None:
            if pause_s > 0.5:
                pauses.append(pause_s)
                holder.now_s += pause_s
                pause_s = 0.0
            await sleep(pause_s)

        monkeypatch.setattr(asyncio, "sleep", fast)
        await holder.tickets.want(FILMS)
        await until(lambda: holder.count >= 4)
        assert holder.tickets.current(FILMS) is not None
        holder.link.connected = False
        missed = len(holder.link.asked)
        await until(lambda: len(holder.link.asked) > missed + 2)
        holder.link.connected = True
        await until(lambda: holder.tickets.current(FILMS) is not None)
        holder.tickets.clear()
        await turns()
        assert holder.tickets.current(FILMS) is None

    asyncio.run(main())
