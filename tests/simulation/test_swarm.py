"""Whole swarms in virtual time, with faults. A run is determined by its seed.

A failing case prints its seed: `Swarm(scenario, seed)` replays it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.ids import UserId
from peer.swarm.fetching.local_pieces import Alike
from peer.swarm.fetching.sources import Phase
from tests.simulation.peer import Fault, SimPeer
from tests.simulation.swarm import MBIT, MIB, Result, Scenario, Swarm

SMALL = Scenario(leechers=4, seeders=1, size=16 * MIB)
SEEDS = range(3)


def started(scenario: Scenario, seed: int, *, checked: bool = True) -> Swarm:
    print(f"seed {seed}")
    swarm = Swarm(scenario, seed, checked=checked)
    swarm.start_all()
    return swarm


def all_complete(result: Result, count: int) -> Result:
    assert result.unfinished == 0
    assert len(result.times_s) == count
    return result


def pieces_from(peer: SimPeer, source: SimPeer) -> int:
    assert peer.download is not None
    progress = peer.download.progress(0.0)
    return sum(s.pieces for s in progress.sources if s.source == source.key)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_crowd_comes_near_the_fluid_bound(seed: int) -> None:
    """One seeder, eight leechers, uplinks as the bottleneck. Virtual time makes the bound exact."""
    scenario = Scenario(leechers=8, size=64 * MIB)
    result = all_complete(started(scenario, seed, checked=False).run(), 8)
    assert result.last_s <= 7.4
    assert result.duplicate_bytes <= 0.05 * 8 * scenario.size
    assert result.requests <= 2 * result.pieces_delivered


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("leechers", "size_mib", "up_mbit", "over", "twice"),
    [(8, 64, 1, 1.25, 0.1), (8, 64, 5, 1.25, 0.1), (30, 16, 2, 2.5, 0.6)],
)
def test_a_crowd_on_slow_links_comes_near_the_fluid_bound(
    leechers: int, size_mib: int, up_mbit: float, over: float, twice: float, seed: int
) -> None:
    """A piece takes seconds there, and a working source is silent for a minute.

    That must not count as a fault, and pieces in flight must not be given up.
    """
    scenario = Scenario(leechers=leechers, size=size_mib * MIB, up=up_mbit * MBIT)
    result = all_complete(started(scenario, seed, checked=False).run(), leechers)
    assert result.last_s <= over * result.bound_s
    assert result.duplicate_bytes <= twice * leechers * scenario.size


def test_a_run_is_its_seed() -> None:
    first, second = (started(SMALL, 5, checked=False).run() for _ in range(2))
    assert first == second
    assert started(SMALL, 6, checked=False).run() != first


def test_one_to_one_needs_one_request_a_piece_and_no_piece_twice() -> None:
    scenario = Scenario(leechers=1, size=64 * MIB, up=1e9, down=1e9, verify_s=0.0002)
    result = all_complete(started(scenario, 1).run(), 1)
    assert result.duplicate_bytes == 0
    assert result.requests + result.acks <= result.pieces_delivered + 4
    assert result.last_s <= 1.3 * result.bound_s


@pytest.mark.parametrize("seed", SEEDS)
def test_f2_a_source_that_crashes_is_replaced(seed: int) -> None:
    swarm = started(replace(SMALL, seeders=2), seed)
    swarm.clock.at(0.3, swarm.leave, swarm.seeders[0])
    swarm.clock.at(0.9, swarm.leave, swarm.leechers[0])
    all_complete(swarm.run(), 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_f5_one_of_five_seeders_frozen_costs_no_more_than_its_part(seed: int) -> None:
    scenario = Scenario(leechers=1, seeders=5, size=64 * MIB, up=20 * MBIT, down=1000 * MBIT)
    swarm = started(scenario, seed)
    frozen = swarm.seeders[2]
    swarm.clock.at(1.0, frozen.freeze)
    result = all_complete(swarm.run(), 1)
    four = 64 * MIB / (4 * 20 * MBIT)
    assert result.last_s <= four / 0.7


@pytest.mark.parametrize("seed", SEEDS)
def test_f10_a_partition_between_two_peers_is_worked_around(seed: int) -> None:
    swarm = started(SMALL, seed)
    one, two = swarm.leechers[:2]
    for a, b in ((one, two), (two, one)):
        swarm.clock.at(0.2, swarm.network.cut, a.number, b.number)
    all_complete(swarm.run(), 4)


@pytest.mark.parametrize("seed", SEEDS)
def test_f11_one_way_loss_from_the_seeder_to_one_peer_is_worked_around(seed: int) -> None:
    swarm = started(SMALL, seed)
    (seeder,) = swarm.seeders
    unlucky = swarm.leechers[0]
    swarm.clock.at(0.2, swarm.network.cut, seeder.number, unlucky.number)
    all_complete(swarm.run(), 4)
    assert pieces_from(unlucky, seeder) < 8


@pytest.mark.parametrize("seed", SEEDS)
def test_a_partition_that_heals_lets_all_downloads_finish(seed: int) -> None:
    swarm = started(SMALL, seed)
    (seeder,) = swarm.seeders
    for peer in swarm.leechers:
        swarm.clock.at(0.3, swarm.network.cut, seeder.number, peer.number)
        swarm.clock.at(8.0, swarm.network.heal, seeder.number, peer.number)
    all_complete(swarm.run(60.0), 4)


@pytest.mark.parametrize("seed", SEEDS)
def test_f12_loss_and_long_rtts_are_survived(seed: int) -> None:
    all_complete(started(replace(SMALL, loss=0.05, delay_s=0.05, rto_s=0.4), seed).run(60.0), 4)


@pytest.mark.parametrize("seed", SEEDS)
def test_f13_a_slow_source_among_fast_ones_does_not_hold_up_the_end(seed: int) -> None:
    scenario = Scenario(leechers=1, seeders=4, size=32 * MIB, down=1000 * MBIT, up_of={1: 1 * MBIT})
    result = all_complete(started(scenario, seed).run(), 1)
    assert result.last_s <= 1.25 * 32 * MIB / (3 * 80 * MBIT)


@pytest.mark.parametrize("seed", SEEDS)
def test_h22_a_liar_is_banned_by_all_after_one_piece_each(seed: int) -> None:
    swarm = started(replace(SMALL, seeders=2), seed)
    liar = swarm.seeders[0]
    liar.fault = Fault.LIAR
    all_complete(swarm.run(), 4)
    for peer in swarm.leechers:
        assert peer.download is not None
        progress = peer.download.progress(0.0)
        assert 1 <= progress.corrupt_pieces <= 4
        assert [s.phase for s in progress.sources if s.source == liar.key] == [Phase.BANNED]


@pytest.mark.parametrize("lost", [{0}, {7}, {3, 4, 20}])
def test_h96_a_piece_that_is_lost_on_its_way_from_the_only_source_costs_seconds(
    lost: set[int],
) -> None:
    swarm = started(replace(SMALL, leechers=1), 1)
    swarm.seeders[0].lost_sends = lost
    result = all_complete(swarm.run(60.0), 1)
    assert result.last_s <= result.bound_s + 12.0 * len(lost)


@pytest.mark.parametrize("seed", SEEDS)
def test_h25_pieces_that_never_come_to_their_end_are_fetched_elsewhere(seed: int) -> None:
    swarm = started(replace(SMALL, seeders=2), seed)
    swarm.seeders[0].fault = Fault.TARPIT
    result = all_complete(swarm.run(), 4)
    assert result.last_s <= result.bound_s * 2 + 6.0


@pytest.mark.parametrize("seed", SEEDS)
def test_h38_false_offers_do_not_delay_a_download(seed: int) -> None:
    swarm = started(replace(SMALL, seeders=3), seed)
    swarm.seeders[0].fault = Fault.EMPTY
    swarm.seeders[1].fault = Fault.EMPTY
    honest = 16 * MIB / (80 * MBIT)
    assert all_complete(swarm.run(), 4).last_s <= 2 * honest


SILENT = 100


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("way", ["says nothing", "opens and says nothing", "trickles"])
def test_h62_many_silent_devices_of_one_member_do_not_eclipse_an_honest_one(
    way: str, seed: int
) -> None:
    """The honest seeder is one of 101, and the list has 50."""
    scenario = Scenario(leechers=1, seeders=SILENT + 1, size=32 * MIB, down=200 * MBIT)
    alone = all_complete(started(replace(scenario, seeders=1), seed, checked=False).run(), 1).last_s
    print(f"seed {seed}")
    swarm = Swarm(scenario, seed)
    for silent in swarm.seeders[:SILENT]:
        silent.user = UserId("eve")
        if way == "says nothing":
            silent.freeze()
        else:
            silent.fault = Fault.TARPIT
    if way == "trickles":
        for one in swarm.seeders[:2]:
            one.fault, one.link.up = Fault.NONE, 1 * MBIT
    swarm.start_all()
    assert all_complete(swarm.run(), 1).last_s <= 3 * alone + 5.0


@pytest.mark.parametrize("seed", SEEDS)
def test_late_comers_and_early_leavers(seed: int) -> None:
    """Peers join one after the other, and each leaves when it is complete."""
    scenario = replace(SMALL, leechers=8)
    print(f"seed {seed}")
    swarm = Swarm(scenario, seed, checked=True)
    for number, peer in enumerate(swarm.leechers):
        swarm.clock.at(0.4 * number, swarm.join, peer)
    swarm.on_complete = swarm.leave
    swarm.clock.run(60.0, lambda: all(p.completed_at is not None for p in swarm.leechers))
    assert all(p.completed_at is not None for p in swarm.leechers)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_seeder_may_leave_once_every_piece_was_sent(seed: int) -> None:
    swarm = started(SMALL, seed)
    (seeder,) = swarm.seeders
    count = swarm.layout.count

    def spread() -> bool:
        held = [p.download.pieces.held for p in swarm.leechers if p.download is not None]
        return all(any(i in field for field in held) for i in range(count))

    swarm.clock.run(60.0, spread)
    swarm.leave(seeder)
    all_complete(swarm.run(60.0), 4)


def test_a_frozen_swarm_goes_on_when_it_thaws() -> None:
    swarm = started(SMALL, 1)
    for peer in swarm.peers:
        swarm.clock.at(0.4, peer.freeze)
        swarm.clock.at(15.0, peer.thaw)
    all_complete(swarm.run(60.0), 4)


@pytest.mark.parametrize("seed", SEEDS)
def test_equal_pieces_travel_once_to_each_peer(seed: int) -> None:
    """Half of the content is zeros, a quarter equal in pairs: the wire carries the rest."""
    count = SMALL.size // SMALL.piece_length
    zeros = tuple(range(0, count, 2))
    odd = range(1, count, 2)
    groups = tuple((first, first + 2) for first in odd[::4])
    scenario = replace(SMALL, alike=Alike(zeros, groups))
    swarm = started(scenario, seed)
    all_complete(swarm.run(), scenario.leechers)
    copied = len(zeros) + len(groups)
    assert swarm.made == copied * scenario.leechers
    fetched = (count - copied) * scenario.leechers
    assert fetched <= swarm.sends <= fetched * 1.1
