"""Tickets of this device: fetched, renewed and dropped."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import pytest

from common import limits
from common.errors import Refused, TransportError
from common.host.clock import TrackerTime
from common.ids import GroupId
from common.messages import tracker
from common.messages.refusals import Code
from peer.tracker_client import tickets
from peer.tracker_client.tickets import TicketWallet
from tests.support.peer_fakes import FakeLink, turns, until

FILMS, MUSIC = GroupId("films"), GroupId("music")
T0 = 1_900_000_000_000


class Holder:
    """A wallet at a tracker that issues tickets for the groups in ``mine``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, mine: set[str], rng: Any = None) -> None:
        self.now_s = 0.0
        monkeypatch.setattr(tickets, "monotonic", lambda: self.now_s)
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

    def _issue(self, command: tracker.GetTickets) -> tracker.Tickets | Refused:
        self.count += 1
        if not self.mine & set(command.groups):
            return Refused(Code.UNKNOWN_GROUP, "there is no such group, or it is not yours")
        now = T0 + round(self.now_s * 1000)
        rows = [
            tracker.TicketRow(group, b"%d" % self.count, now + limits.TICKET_LIFE_S * 1000)
            for group in command.groups
            if group in self.mine
        ]
        return tracker.Tickets(rows, now)


async def test_a_ticket_is_fetched_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_a_foreign_group_gives_no_ticket(monkeypatch: pytest.MonkeyPatch) -> None:
    holder = Holder(monkeypatch, set())
    with pytest.raises(Refused) as caught:
        await holder.tickets.want(FILMS)
    assert caught.value.code is Code.UNKNOWN_GROUP
    holder.link.connected = False
    with pytest.raises(TransportError):
        await holder.tickets.want(FILMS)
    holder.tickets.clear()


def test_renewal_is_in_the_second_half_of_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for spare in (0.1, 0.5):
        holder = Holder(
            monkeypatch, {"films"}, SimpleNamespace(uniform=lambda low, high, at=spare: at)
        )
        holder.tickets._wanted.add(FILMS)
        holder.tickets._held[FILMS] = (b"x", T0 + limits.TICKET_LIFE_S * 1000)
        assert holder.tickets._due_in_s() == pytest.approx(limits.TICKET_LIFE_S * (1 - spare))


def let_time_fly(holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Advance the holder's clock by each long pause, without waiting."""
    sleep = asyncio.sleep

    async def fast(pause_s: float) -> None:
        if pause_s > 0.5:
            holder.now_s += pause_s
            pause_s = 0.0
        await sleep(pause_s)

    monkeypatch.setattr(asyncio, "sleep", fast)


def requested(holder: Holder) -> list[list[str]]:
    return [command.groups for command in holder.link.asked_for(tracker.GetTickets)]


async def test_a_lost_group_is_requested_once_more_and_then_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    holder = Holder(monkeypatch, {"films", "music"})
    await holder.tickets.want(FILMS)
    await holder.tickets.want(MUSIC)
    holder.mine.remove("music")
    let_time_fly(holder, monkeypatch)
    await until(lambda: requested(holder)[-3:] == [["films"]] * 3, "requests for films")
    assert 1 <= requested(holder).count(["films", "music"]) <= 5
    # A ticket lives 600 s and is renewed after 300 s at the earliest: requests are rare.
    assert len(requested(holder)) <= 2 + holder.now_s / 100
    assert holder.tickets.current(FILMS) is not None
    assert holder.tickets.current(MUSIC) is None
    holder.tickets.clear()


async def test_renewal_stops_when_every_group_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    holder = Holder(monkeypatch, {"films"})
    await holder.tickets.want(FILMS)
    holder.mine.clear()
    let_time_fly(holder, monkeypatch)
    renewal = holder.tickets._renewal
    assert renewal is not None
    await until(renewal.done, "the end of the renewal")
    assert len(requested(holder)) <= 4
    with pytest.raises(Refused) as caught:
        await holder.tickets.want(FILMS)
    assert caught.value.code is Code.UNKNOWN_GROUP
    holder.mine.add("films")  # admitted again
    await holder.tickets.want(FILMS)
    count = holder.count
    await until(lambda: holder.count > count + 2, "its renewal")


async def test_a_tracker_that_lags_behind_costs_no_ticket(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of several trackers may be behind the one that let us in."""
    holder = Holder(monkeypatch, {"films", "music"})
    await holder.tickets.want(FILMS)
    token = await holder.tickets.want(MUSIC)
    issue = holder.link.answers["GetTickets"]
    given: list[bytes | None] = []

    def behind(command: tracker.GetTickets) -> tracker.Tickets:
        given.append(holder.tickets.current(MUSIC))
        reply = issue(command)
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


async def test_a_ticket_that_arrives_after_its_group_was_dropped_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    holder = Holder(monkeypatch, {"films"})
    issue, answering = holder.link.answers["GetTickets"], asyncio.Event()

    async def late(command: tracker.GetTickets) -> tracker.Tickets:
        await answering.wait()
        return issue(command)

    holder.link.answers["GetTickets"] = late
    for remove in (lambda: holder.tickets.drop(FILMS), holder.tickets.clear):
        answering.clear()
        wanted = asyncio.create_task(holder.tickets.want(FILMS))
        await turns()
        remove()
        answering.set()
        with pytest.raises(Refused) as caught:
            await wanted
        assert caught.value.code is Code.UNKNOWN_GROUP
        assert holder.tickets.current(FILMS) is None
        assert holder.renewed == []


async def test_tickets_are_renewed_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
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
