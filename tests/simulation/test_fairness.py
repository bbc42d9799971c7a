"""One uplink and the users who share it, in virtual time: the real serving side against greed.

An uplink sends at a rate, one piece after the other; every piece arrives after the way, and is
credited at once, or as late as its user likes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from common.ids import ContentId, UserId
from peer.swarm.serving import events as ev
from peer.swarm.serving.machine import Serving
from tests.simulation.network import Clock
from tests.simulation.swarm import KIB, MIB

CONTENT = ContentId(b"c" * 32)
PIECES = 4096
WANTED = 256
"""How many pieces each connection has asked for at any time."""


@dataclass(frozen=True)
class Guest:
    """A user who fetches all the time."""

    name: str
    connections: int = 1
    late_s: float = 0.0
    from_s: float = 0.0


class Uplink:
    """A serving peer behind a link of its own."""

    def __init__(self, rate: float, way_s: float = 0.002, piece: int = 512 * KIB) -> None:
        self.rate, self.way_s, self.piece = rate, way_s, piece
        self.clock = Clock()
        self.serving = Serving()
        self.free_at = 0.0
        self.received: Counter[ev.RequesterId] = Counter()
        self.got: Counter[str] = Counter()
        """Bytes that arrived at each user, since the last of them came."""
        self.guests: dict[ev.RequesterId, Guest] = {}
        self.crediting: set[ev.RequesterId] = set()
        self.timer = float("inf")
        self.tell(ev.ContentAdded(CONTENT, piece, PIECES * piece))

    def parts(self, *guests: Guest, until_s: float) -> dict[str, float]:
        """What each user gets, in parts of what the uplink can carry."""
        since_s = max(guest.from_s for guest in guests)
        for guest in guests:
            for number in range(guest.connections):
                requester = ev.RequesterId(f"{guest.name}{number}".encode())
                self.guests[requester] = guest
                self.clock.at(guest.from_s, self.ask, requester)
        self.clock.at(since_s, self.got.clear)
        self.clock.run(until_s, lambda: False)
        carried = (until_s - since_s) * self.rate
        return {guest.name: self.got[guest.name] / carried for guest in guests}

    def tell(self, event: ev.ServingEvent) -> None:
        now = self.clock.now
        for effect in self.serving.handle(event, now):
            if isinstance(effect, ev.Send):
                self.free_at = max(self.free_at, now) + self.piece / self.rate
                self.clock.at(self.free_at + self.way_s, self.arrive, effect.requester)
        due = self.serving.next_wakeup(now)
        if due is not None and due < self.timer:
            self.timer = due
            self.clock.at(due, self.tick, due)

    def tick(self, due: float) -> None:
        if due == self.timer:
            self.timer = float("inf")
            self.tell(ev.Tick())

    def ask(self, requester: ev.RequesterId) -> None:
        self.crediting.discard(requester)
        user, received = UserId(self.guests[requester].name), self.received[requester]
        self.tell(ev.RequestReceived(requester, user, CONTENT, tuple(range(WANTED)), received))
        if len(self.guests) <= 8:
            self.serving.check_invariants()

    def arrive(self, requester: ev.RequesterId) -> None:
        guest = self.guests[requester]
        self.received[requester] += self.piece
        self.got[guest.name] += self.piece
        if requester not in self.crediting:
            self.crediting.add(requester)
            self.clock.at(self.clock.now + guest.late_s, self.ask, requester)


@pytest.mark.parametrize(
    ("rate", "piece"),
    [
        (1 * MIB, 512 * KIB),
        (10 * MIB, 512 * KIB),
        (100 * MIB, 512 * KIB),
        (1000 * MIB, 512 * KIB),
        (1000 * MIB, 4 * MIB),
    ],
)
def test_h27_four_connections_of_one_user_get_what_the_only_one_of_another_gets(
    rate: int, piece: int
) -> None:
    until_s = max(2.0, 100 * MIB / rate)
    parts = Uplink(rate, piece=piece).parts(
        Guest("ann"), Guest("eve", connections=4), until_s=until_s
    )
    assert 0.45 <= parts["ann"] <= 0.55, parts
    assert 0.45 <= parts["eve"] <= 0.55, parts


@pytest.mark.parametrize("rate", [10 * MIB, 100 * MIB])
@pytest.mark.parametrize("late_s", [0.1, 0.2, 0.45, 0.49, 2.0])
@pytest.mark.parametrize("from_s", [0.0, 1.0])
def test_h27_a_requester_that_acknowledges_late_costs_others_no_more_than_its_share(
    rate: int, late_s: float, from_s: float
) -> None:
    late = Guest("eve", connections=4, late_s=late_s)
    parts = Uplink(rate).parts(Guest("ann", from_s=from_s), late, until_s=6.0)
    assert parts["ann"] >= 0.8 / 2, parts


def test_h27_late_acknowledgements_on_many_connections_cost_no_more_than_on_one() -> None:
    for connections in (1, 32, 400):
        late = Guest("eve", connections, late_s=0.45)
        parts = Uplink(100 * MIB).parts(Guest("ann"), late, until_s=2.0)
        assert parts["ann"] >= 0.8 / 2, (connections, parts)


def test_h27_users_share_evenly_beside_one_that_acknowledges_late() -> None:
    honest = [Guest(name) for name in ("ann", "bob", "cid")]
    late = Guest("eve", connections=4, late_s=0.45)
    parts = Uplink(100 * MIB).parts(*honest, late, until_s=4.0)
    assert min(parts[guest.name] for guest in honest) >= 0.8 / 4, parts


@pytest.mark.parametrize("first", ["near", "far"])
def test_a_distant_source_is_not_taken_for_slow(first: str) -> None:
    """Credit that needs a tenth of a second each way is not late: the uplink stays busy with it."""
    near, far = Guest("near"), Guest("far", late_s=0.2)
    guests = (near, far) if first == "near" else (far, near)
    parts = Uplink(10 * MIB).parts(*guests, until_s=10.0)
    assert sum(parts.values()) >= 0.9, parts
    assert parts["far"] >= 0.3, parts
