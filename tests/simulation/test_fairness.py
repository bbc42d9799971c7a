"""Fairness of one uplink between users, in virtual time, with the real serving machine.

An uplink sends at a rate, one piece after the other. Every piece arrives after a delay, and is
acknowledged at once, or after the delay that its user chooses.
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
"""Requests of each connection at any time."""


@dataclass(frozen=True)
class Load:
    """A user that fetches all the time."""

    name: str
    connections: int = 1
    ack_delay_s: float = 0.0
    start_s: float = 0.0


class Uplink:
    """A serving peer with its own link."""

    def __init__(self, rate: float, delay_s: float = 0.002, piece: int = 512 * KIB) -> None:
        self.rate, self.delay_s, self.piece = rate, delay_s, piece
        self.clock = Clock()
        self.serving = Serving()
        self.free_at = 0.0
        self.received: Counter[ev.RequesterId] = Counter()
        self.got: Counter[str] = Counter()
        """Bytes that arrived at each user since the last user joined."""
        self.loads: dict[ev.RequesterId, Load] = {}
        self.acking: set[ev.RequesterId] = set()
        self.timer = float("inf")
        self.handle(ev.ContentAdded(CONTENT, piece, PIECES * piece))

    def shares(self, *loads: Load, until_s: float) -> dict[str, float]:
        """Return the share of the uplink's capacity that each user gets."""
        since_s = max(load.start_s for load in loads)
        for load in loads:
            for number in range(load.connections):
                requester = ev.RequesterId(f"{load.name}{number}".encode())
                self.loads[requester] = load
                self.clock.at(load.start_s, self.ask, requester)
        self.clock.at(since_s, self.got.clear)
        self.clock.run(until_s, lambda: False)
        carried = (until_s - since_s) * self.rate
        return {load.name: self.got[load.name] / carried for load in loads}

    def handle(self, event: ev.ServingEvent) -> None:
        now = self.clock.now
        for effect in self.serving.handle(event, now):
            if isinstance(effect, ev.Send):
                self.free_at = max(self.free_at, now) + self.piece / self.rate
                self.clock.at(self.free_at + self.delay_s, self.arrive, effect.requester)
        due = self.serving.next_wakeup(now)
        if due is not None and due < self.timer:
            self.timer = due
            self.clock.at(due, self.tick, due)

    def tick(self, due: float) -> None:
        if due == self.timer:
            self.timer = float("inf")
            self.handle(ev.Tick())

    def ask(self, requester: ev.RequesterId) -> None:
        self.acking.discard(requester)
        user, received = UserId(self.loads[requester].name), self.received[requester]
        self.handle(ev.RequestReceived(requester, user, CONTENT, tuple(range(WANTED)), received))
        if len(self.loads) <= 8:
            self.serving.check_invariants()

    def arrive(self, requester: ev.RequesterId) -> None:
        load = self.loads[requester]
        self.received[requester] += self.piece
        self.got[load.name] += self.piece
        if requester not in self.acking:
            self.acking.add(requester)
            self.clock.at(self.clock.now + load.ack_delay_s, self.ask, requester)


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
    shares = Uplink(rate, piece=piece).shares(
        Load("ann"), Load("eve", connections=4), until_s=until_s
    )
    assert 0.45 <= shares["ann"] <= 0.55, shares
    assert 0.45 <= shares["eve"] <= 0.55, shares


@pytest.mark.parametrize("rate", [10 * MIB, 100 * MIB])
@pytest.mark.parametrize("ack_delay_s", [0.1, 0.2, 0.45, 0.49, 2.0])
@pytest.mark.parametrize("start_s", [0.0, 1.0])
def test_h27_a_requester_that_acknowledges_late_costs_others_no_more_than_its_share(
    rate: int, ack_delay_s: float, start_s: float
) -> None:
    late = Load("eve", connections=4, ack_delay_s=ack_delay_s)
    shares = Uplink(rate).shares(Load("ann", start_s=start_s), late, until_s=6.0)
    assert shares["ann"] >= 0.8 / 2, shares


def test_h27_late_acknowledgements_on_many_connections_cost_no_more_than_on_one() -> None:
    for connections in (1, 32, 400):
        late = Load("eve", connections, ack_delay_s=0.45)
        shares = Uplink(100 * MIB).shares(Load("ann"), late, until_s=2.0)
        assert shares["ann"] >= 0.8 / 2, (connections, shares)


def test_h27_users_share_evenly_beside_one_that_acknowledges_late() -> None:
    honest = [Load(name) for name in ("ann", "bob", "cid")]
    late = Load("eve", connections=4, ack_delay_s=0.45)
    shares = Uplink(100 * MIB).shares(*honest, late, until_s=4.0)
    assert min(shares[load.name] for load in honest) >= 0.8 / 4, shares


@pytest.mark.parametrize("first", ["near", "far"])
def test_a_distant_source_is_not_taken_for_slow(first: str) -> None:
    """An acknowledgement after an RTT of 0.2 s is not late: the uplink stays busy with it."""
    near, far = Load("near"), Load("far", ack_delay_s=0.2)
    loads = (near, far) if first == "near" else (far, near)
    shares = Uplink(10 * MIB).shares(*loads, until_s=10.0)
    assert sum(shares.values()) >= 0.9, shares
    assert shares["far"] >= 0.3, shares
