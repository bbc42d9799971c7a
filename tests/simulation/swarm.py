"""Swarm in virtual time, from a seed: set up, run, and compared with the fluid bound.

Owns: the scenario (`Scenario`), the tracker's part in it, and the result (`Result`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from statistics import median

from common.ids import UserId
from peer.swarm.fetching import events as ev
from peer.swarm.fetching.local_pieces import Alike
from peer.swarm.fetching.settings import DownloadSettings
from peer.swarm.pieces import PieceLayout
from peer.swarm.serving.settings import ServingSettings
from tests.simulation.network import Clock, Link, Network
from tests.simulation.peer import SimPeer
from tracker.core.spread import spread

KIB, MIB = 1024, 1024 * 1024
MBIT = 1e6 / 8


@dataclass(frozen=True)
class Scenario:
    """Peers, content and links. Rates in bytes a second, times in seconds."""

    leechers: int
    size: int
    seeders: int = 1
    piece_length: int = 512 * KIB
    up: float = 80 * MBIT
    down: float = 200 * MBIT
    delay_s: float = 0.00025
    loss: float = 0.0
    rto_s: float = 0.2
    chunk: int = 16 * KIB
    verify_s: float = 0.002
    listed_max: int = 50
    bulk: bool = True
    """Pieces travel on bulk connections, so that no other message waits behind them."""
    within_s: float = 0.05
    """The leechers start within this time."""
    up_of: dict[int, float] = field(default_factory=dict)
    """Different uplinks, by the number of the node; seeders come first."""
    down_of: dict[int, float] = field(default_factory=dict)
    """Different downlinks, by the number of the node."""
    alike: Alike = field(default_factory=Alike)
    """Pieces that need not be fetched."""
    download: DownloadSettings = field(default_factory=DownloadSettings)
    serving: ServingSettings = field(default_factory=ServingSettings)

    @property
    def nodes(self) -> int:
        return self.seeders + self.leechers

    def up_rate(self, number: int) -> float:
        return self.up_of.get(number, self.up)

    def down_rate(self, number: int) -> float:
        return self.down_of.get(number, self.down)

    def bound_s(self) -> float:
        """Return the fluid bound: no protocol can serve all leechers sooner.

        max(F/u_s, F/d_min, N·F/(u_s+Σu_i)); Kumar and Ross, "Peer-assisted file distribution: the
        minimum distribution time", 2006.
        """
        seeders = sum(self.up_rate(i) for i in range(self.seeders))
        everyone = sum(self.up_rate(i) for i in range(self.nodes))
        slowest = min(self.down_rate(i) for i in range(self.seeders, self.nodes))
        return max(self.size / seeders, self.size / slowest, self.leechers * self.size / everyone)


@dataclass(frozen=True)
class Result:
    """Result of a run. Times in seconds from the start of each leecher."""

    seed: int
    bound_s: float
    times_s: tuple[float, ...]
    unfinished: int
    duplicate_bytes: int
    pieces_delivered: int
    requests: int
    cancels: int
    acks: int
    haves: int
    notices: int
    events: int

    @property
    def median_s(self) -> float:
        return median(self.times_s) if self.times_s else float("inf")

    def quantile_s(self, part: float) -> float:
        if not self.times_s:
            return float("inf")
        ordered = sorted(self.times_s)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]

    @property
    def last_s(self) -> float:
        return max(self.times_s, default=float("inf"))

    @property
    def control_per_piece(self) -> float:
        sent = self.requests + self.cancels + self.acks + self.haves + self.notices
        return sent / max(1, self.pieces_delivered)


class Swarm:
    """One run. `checked` verifies the invariants of every machine after every event."""

    def __init__(self, scenario: Scenario, seed: int, *, checked: bool = False) -> None:
        self.scenario = scenario
        self.seed = seed
        self.checked = checked
        self.verify_s = scenario.verify_s
        self.clock = Clock()
        rng = Random(seed)
        self.rng = rng
        self.network = Network(
            self.clock,
            Random(rng.random()),
            chunk=scenario.chunk,
            loss=scenario.loss,
            rto_s=scenario.rto_s,
        )
        self.requests = self.cancels = self.acks = self.haves = self.sends = self.made = (
            self.notices
        ) = 0
        self.duplicate_bytes = 0
        self._unfinished = 0
        layout = PieceLayout(scenario.size, scenario.piece_length)
        self.layout = layout
        self.peers = [
            SimPeer(
                self,
                number,
                Link(
                    number,
                    scenario.up_rate(number),
                    scenario.down_rate(number),
                    scenario.delay_s,
                ),
                layout,
                Random(rng.random()),
                seeder=number < scenario.seeders,
                download_settings=scenario.download,
                serving_settings=scenario.serving,
            )
            for number in range(scenario.nodes)
        ]
        self._online = list(self.peers[: scenario.seeders])
        self.on_complete: Callable[[SimPeer], None] | None = None

    @property
    def seeders(self) -> list[SimPeer]:
        return self.peers[: self.scenario.seeders]

    @property
    def leechers(self) -> list[SimPeer]:
        return self.peers[self.scenario.seeders :]

    # -- the tracker's part -----------------------------------------------------------------------

    def start_all(self) -> None:
        """Start all leechers within `Scenario.within_s`, each with its own list of sources."""
        self._online = list(self.peers)
        for peer in self.leechers:
            self._unfinished += 1
            self.clock.at(self.rng.random() * self.scenario.within_s, self._begin, peer)

    def join(self, peer: SimPeer) -> None:
        """Start a late leecher, and list it for those online."""
        self._unfinished += 1
        listeners = [p for p in self._online if p.download is not None and p.alive]
        self._online.append(peer)
        self._begin(peer)
        for other in self.rng.sample(listeners, min(len(listeners), self.scenario.listed_max)):
            other.fetch(ev.SourceKnown(peer.key, peer.user, peer.completed_at is not None))

    def _begin(self, peer: SimPeer) -> None:
        peer.started_at = self.clock.now
        for other in self._list_for(peer):
            complete = other.seeder or other.completed_at is not None
            peer.fetch(ev.SourceKnown(other.key, other.user, complete))
        peer.fetch(ev.Tick())

    def _list_for(self, peer: SimPeer) -> list[SimPeer]:
        """Return the sources that the tracker lists: seeders first, then by user at random."""
        first = [p for p in self.seeders if p.alive]
        rest = [p for p in self._online if not p.seeder and p is not peer and p.alive]
        listed = _spread(first, self.scenario.listed_max, self.rng)
        return listed + _spread(rest, self.scenario.listed_max - len(listed), self.rng)

    def leave(self, peer: SimPeer, noticed_after_s: float = 0.0) -> None:
        """Stop a peer; the tracker unlists it when its lease is over."""
        if not peer.alive:
            return
        if peer.download is not None and peer.completed_at is None:
            self._unfinished -= 1
        if peer in self._online:
            self._online.remove(peer)
        peer.crash(noticed_after_s)
        for other in self._online:
            self.clock.at(self.clock.now + 30.0, other.fetch, ev.SourceGone(peer.key))

    def completed(self, peer: SimPeer) -> None:
        self._unfinished -= 1
        if self.on_complete is not None:
            self.on_complete(peer)

    # -- running ----------------------------------------------------------------------------------

    def run(self, until_s: float = 3600.0) -> Result:
        """Run until every leecher has completed, or the time is over."""
        self.clock.run(until_s, lambda: self._unfinished <= 0)
        times = [
            p.completed_at - p.started_at
            for p in self.leechers
            if p.completed_at is not None and p.started_at is not None
        ]
        held = sum(p.download.pieces.held.count for p in self.leechers if p.download is not None)
        return Result(
            seed=self.seed,
            bound_s=self.scenario.bound_s(),
            times_s=tuple(times),
            unfinished=self._unfinished,
            duplicate_bytes=self.duplicate_bytes,
            pieces_delivered=held,
            requests=self.requests,
            cancels=self.cancels,
            acks=self.acks,
            haves=self.haves,
            notices=self.notices,
            events=self.clock.events,
        )


def _spread(peers: list[SimPeer], count: int, rng: Random) -> list[SimPeer]:
    users: dict[UserId, list[SimPeer]] = {}
    for peer in peers:
        users.setdefault(peer.user, []).append(peer)
    return spread(users, count, rng)
