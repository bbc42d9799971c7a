"""Presence over several trackers: rows out, rows in, and their agreement in any order."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest

from common import limits
from common.ids import ContentId, DeviceKey, GroupId, UserId
from tests.support.tracker_harness import TrackerHarness
from tracker.core.presence import Presence, SwarmChange
from tracker.core.shared_presence import PresenceRow, SharedPresence
from tracker.core.state import State

LAB = GroupId("lab")


@dataclass
class Site:
    """One tracker: its presence, and the table row of each of its devices."""

    name: bytes
    presence: Presence = field(default_factory=Presence)
    table: dict[DeviceKey, PresenceRow] = field(default_factory=dict)
    generation: bytes = b"1"
    seen: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shared = SharedPresence(self.presence, self.name)

    def write(self) -> None:
        for row in self.shared.changed_rows(0):
            self.table[row.device] = row

    def write_all(self) -> None:
        self.generation += b"+"
        self.table = {row.device: row for row in self.shared.all_rows(0)}

    def read(self, state: State, other: Site) -> list[SwarmChange]:
        generation, seen = self.seen.get(other.name, (b"", 0))
        if generation != other.generation:
            seen = 0
        rows = sorted(other.table.values(), key=lambda row: row.version)
        new = [row for row in rows if row.version > seen]
        if new:
            seen = new[-1].version
        self.seen[other.name] = (other.generation, seen)
        return self.shared.take_in(state, other.name, other.generation, new, 0.0)

    def owner(self, device: DeviceKey) -> bytes | None:
        lease = self.presence.leases.get(device)
        return None if lease is None else lease.at or self.name


@pytest.fixture
def lab(harness: TrackerHarness) -> tuple[State, DeviceKey, DeviceKey, ContentId]:
    """alice shares ``data`` in lab, and bob is a member."""
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    data = harness.content("data")
    alice.offers("lab", "data", data)
    return harness.context.state, alice.key, bob.key, data


ALICE, BOB = UserId("alice"), UserId("bob")


def comes(
    site: Site,
    state: State,
    device: DeviceKey,
    user: UserId,
    now_ms: int,
    *leeching: tuple[GroupId, ContentId, int],
    endpoint: str = "tcp://192.0.2.1:9",
) -> list[SwarmChange]:
    return site.presence.announce(state, device, user, endpoint, leeching, 0.0, b"i", now_ms=now_ms)


def test_swarms_span_trackers(lab) -> None:
    state, alice, bob, data = lab
    one, two = Site(b"1"), Site(b"2")
    comes(one, state, alice, ALICE, 10)
    one.write()
    [up] = two.read(state, one)
    assert (up.device, up.source is not None and up.source.complete) == (alice, True)
    comes(two, state, bob, BOB, 11, (LAB, data, 0))
    two.write()
    [up] = one.read(state, two)
    assert up.source is not None
    assert (up.device, up.source.complete, up.source.held) == (bob, False, 0)
    assert one.presence.swarm((LAB, data)).size == two.presence.swarm((LAB, data)).size == 2
    one.presence.depart(alice)
    one.write()
    [down] = two.read(state, one)
    assert (down.device, down.source) == (alice, None)


def test_renewals_and_further_pieces_write_no_row(lab) -> None:
    state, _, bob, data = lab
    one = Site(b"1")
    for held, rows in ((0, 1), (0, 0), (3, 1), (7, 0), (8, 0)):
        comes(one, state, bob, BOB, 10, (LAB, data, held))
        assert len(one.shared.changed_rows(0)) == rows, held
    comes(one, state, bob, BOB, 10)
    assert len(one.shared.changed_rows(0)) == 1
    assert not one.shared.has_news


def test_f147_a_device_that_moves_is_at_its_new_tracker_everywhere(lab) -> None:
    state, alice, _, data = lab
    one, two, three = Site(b"1"), Site(b"2"), Site(b"3")
    comes(one, state, alice, ALICE, 10)
    one.write()
    two.read(state, one)
    # Neither an up nor a down for who was a source before.
    assert comes(two, state, alice, ALICE, 20) == []
    two.write()
    assert one.read(state, two) == []
    assert (one.owner(alice), two.owner(alice)) == (b"2", b"2")
    for order in ((one, two), (two, one)):
        three = Site(b"3")
        for site in order:
            three.read(state, site)
        assert three.owner(alice) == b"2"
    one.write()  # that it has gone from there
    assert (two.read(state, one), three.read(state, one)) == ([], [])
    assert two.presence.swarm((LAB, data)).size == three.presence.swarm((LAB, data)).size == 1
    # It leaves, and what one tracker kept of it does not outlive that.
    two.presence.depart(alice)
    two.write()
    for site in (one, three):
        site.read(state, two)
        assert site.owner(alice) is None


def test_a_device_that_came_and_went_elsewhere_is_gone_here_too(lab) -> None:
    state, alice, _, _ = lab
    one, two = Site(b"1"), Site(b"2")
    comes(one, state, alice, ALICE, 10)
    comes(two, state, alice, ALICE, 20)
    two.write()
    two.presence.depart(alice)
    two.write()  # one row took the place of the other before it was read
    one.read(state, two)
    assert one.owner(alice) is None


def test_f148_rows_written_anew_replace_all_before_them(lab) -> None:
    state, alice, bob, _ = lab
    one, two = Site(b"1"), Site(b"2")
    comes(one, state, alice, ALICE, 10)
    comes(one, state, bob, BOB, 10)
    one.write()
    two.read(state, one)
    one.presence.depart(bob)
    one.write()
    one.table.clear()  # the database crashed, and no tracker has read that bob has left
    assert two.read(state, one) == []
    one.write_all()
    two.read(state, one)
    assert (two.owner(alice), two.owner(bob)) == (b"1", None)


def test_f148_a_device_that_left_while_nothing_was_read_is_gone(lab) -> None:
    """Rows about devices that left are deleted after a minute, and a reader may be cut off."""
    state, alice, bob, _ = lab
    one, two = Site(b"1"), Site(b"2")
    comes(one, state, alice, ALICE, 10)
    comes(one, state, bob, BOB, 10)
    one.write()
    two.read(state, one)
    rows = [one.table[alice]]
    two.shared.take_in(state, one.name, one.generation, rows, 0.0, whole=True)
    assert (two.owner(alice), two.owner(bob)) == (b"1", None)


def test_a_tracker_that_ended_takes_its_devices_along(lab) -> None:
    state, alice, bob, _ = lab
    one, two = Site(b"1"), Site(b"2")
    comes(one, state, alice, ALICE, 10)
    comes(one, state, bob, BOB, 10)
    one.write()
    two.read(state, one)
    comes(two, state, bob, BOB, 20)
    [down] = two.shared.end_tracker(b"1")
    assert (down.device, down.source) == (alice, None)
    assert (two.owner(alice), two.owner(bob)) == (None, b"2")
    assert two.shared.trackers() == []


def test_a_device_that_was_unbound_is_not_taken_in(lab) -> None:
    state, alice, _, _ = lab
    one, two = Site(b"1"), Site(b"2")
    comes(one, state, alice, BOB, 10)
    one.write()
    two.read(state, one)
    assert two.owner(alice) is None


def test_foreign_leases_do_not_end_by_themselves(lab) -> None:
    state, alice, _, _ = lab
    one, two = Site(b"1"), Site(b"2")
    comes(one, state, alice, ALICE, 10)
    one.write()
    two.read(state, one)
    two.presence.sweep(0.0)
    assert two.presence.sweep(limits.LEASE_S * 100) == []
    assert two.owner(alice) == b"1"


@pytest.mark.parametrize("seed", range(30))
def test_all_trackers_agree_in_the_end(harness: TrackerHarness, seed: int) -> None:
    rng = Random(seed)
    state = State()
    devices = [DeviceKey(bytes([number]) * 32) for number in range(4)]
    for device in devices:
        state.devices[device] = ALICE
    sites = [Site(bytes([number]) * 16) for number in range(3)]
    where: dict[DeviceKey, bytes | None] = dict.fromkeys(devices)
    for now_ms in range(1, 120):
        device, site = rng.choice(devices), rng.choice(sites)
        match rng.randrange(6):
            case 0 | 1:
                comes(site, state, device, ALICE, now_ms, endpoint=f"tcp://192.0.2.1:{now_ms}")
                where[device] = site.name
            case 2 if site.name == where[device]:
                site.presence.depart(device)
                where[device] = None
            case 3:
                site.write()
            case 4:
                site.read(state, rng.choice([each for each in sites if each is not site]))
            case 5 if rng.random() < 0.2:
                site.table.clear()
                site.write_all()
            case _:
                pass
    for round_ in range(3):
        # A device renews its lease where it is. Leases without that end at their tracker.
        for site in sites:
            for device in devices:
                if where[device] == site.name:
                    comes(site, state, device, ALICE, 200 + round_)
                elif site.owner(device) == site.name and round_ == 1:
                    site.presence.depart(device)
            site.write()
        for site in sites:
            for other in sites:
                if other is not site:
                    site.read(state, other)
    for site in sites:
        assert {device: site.owner(device) for device in devices} == where, (seed, site.name)
