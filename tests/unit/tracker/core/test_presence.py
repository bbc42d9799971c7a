from __future__ import annotations

from random import Random

import pytest

from common import limits
from common.ids import ContentId, GroupId, UserId
from common.messages import tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from tests.support.tracker_harness import Device, TrackerHarness
from tracker.core.presence import SWEEP_S, SwarmChange
from tracker.core.spread import spread


@pytest.fixture
def lab(harness: TrackerHarness) -> tuple[TrackerHarness, Device, Device, ContentId]:
    """alice shares ``data`` in lab, and bob is a member; both are offline."""
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    data = harness.content("data")
    alice.offers("lab", "data", data)
    return harness, alice, bob, data


def news(harness: TrackerHarness) -> list[SwarmChange]:
    found, harness.swarm_changes = harness.swarm_changes, []
    return found


def seeds(harness: TrackerHarness, data: ContentId) -> tuple[int, int]:
    swarm = harness.context.presence.swarm((GroupId("lab"), data))
    return len(swarm.seeders), len(swarm.leechers)


def sweep(harness: TrackerHarness, seconds: float) -> None:
    """Let time pass for a tracker that is not stopped."""
    for _ in range(round(seconds / SWEEP_S)):
        harness.wait(SWEEP_S)
        harness.swarm_changes += harness.context.presence.sweep(harness.now_s)


def test_an_offer_of_an_online_device_is_a_seeder(lab) -> None:
    harness, alice, _, data = lab
    assert seeds(harness, data) == (0, 0)
    alice.comes("tcp://192.0.2.1:9")
    [change] = news(harness)
    assert change.source is not None
    assert (change.source.endpoint, change.source.complete) == ("tcp://192.0.2.1:9", True)
    alice.comes("tcp://192.0.2.1:9")
    assert news(harness) == []


def test_a_leecher_is_published_when_it_appears_and_with_its_first_piece(lab) -> None:
    harness, _, bob, data = lab
    told = []
    for held in (0, 0, 3, 5):
        bob.comes(leeching=[tracker.Leeching("lab", data, held)])
        told.append([change.source.held for change in news(harness) if change.source])
    assert told == [[0], [], [3], []]
    assert harness.context.presence.swarm((GroupId("lab"), data)).leechers[bob.key].held == 5
    bob.offers("lab", "data", data)
    assert [change.source.complete for change in news(harness) if change.source] == [True]
    assert seeds(harness, data) == (1, 0)


def test_a_leecher_that_no_longer_announces_a_content_is_removed(lab) -> None:
    harness, _, bob, data = lab
    bob.comes(leeching=[tracker.Leeching("lab", data, 1)])
    news(harness)
    bob.comes()
    assert news(harness) == [SwarmChange((GroupId("lab"), data), bob.key, None)]


def test_leeching_in_groups_of_others_is_ignored(lab) -> None:
    harness, _, bob, data = lab
    eve = harness.user("eve")
    harness.group("eves", eve)
    eve.comes(leeching=[tracker.Leeching("lab", data, 1), tracker.Leeching("eves", data, 1)])
    bob.comes(leeching=[tracker.Leeching("lab", b"u" * 32, 1)])
    assert news(harness) == []


def test_a_lease_ends_after_silence(lab) -> None:
    harness, alice, _, data = lab
    sweep(harness, 1)
    alice.comes()
    sweep(harness, limits.LEASE_S - 1)
    assert seeds(harness, data) == (1, 0)
    sweep(harness, 2)
    assert seeds(harness, data) == (0, 0)
    assert news(harness)[-1] == SwarmChange((GroupId("lab"), data), alice.key, None)


def test_f33_leases_are_extended_after_the_tracker_was_stopped(lab) -> None:
    harness, alice, _, data = lab
    sweep(harness, 1)
    alice.comes()
    harness.wait(60)  # stopped, together with everything that it would have heard meanwhile
    sweep(harness, limits.LEASE_S - 5)
    assert seeds(harness, data) == (1, 0)
    sweep(harness, 6)
    assert seeds(harness, data) == (0, 0)


@pytest.mark.parametrize("end", [tracker.Depart(), tracker.Logout(), tracker.LeaveGroup("lab")])
def test_depart_ends_the_lease_at_once(lab, end: object) -> None:
    harness, alice, _, data = lab
    alice.comes()
    news(harness)
    alice.does(end)
    assert news(harness) == [SwarmChange((GroupId("lab"), data), alice.key, None)]


def test_a_removed_leecher_is_out_of_the_swarm(lab) -> None:
    harness, alice, bob, data = lab
    bob.comes(leeching=[tracker.Leeching("lab", data, 1)])
    alice.does(tracker.RemoveMember("lab", "bob"))
    assert seeds(harness, data) == (0, 0)


def test_stopping_one_of_two_names_of_a_content_keeps_the_seeder(lab) -> None:
    harness, alice, _, data = lab
    alice.offers("lab", "the same", data)
    alice.comes()
    news(harness)
    alice.does(tracker.StopShare("lab", "data"))
    assert news(harness) == []
    alice.does(tracker.StopShare("lab", "the same"))
    assert [change.source for change in news(harness)] == [None]


def test_a_changed_endpoint_is_published(lab) -> None:
    harness, alice, _, _ = lab
    alice.comes("tcp://192.0.2.1:9")
    news(harness)
    alice.comes("tcp://192.0.2.1:10")
    assert [change.source.endpoint for change in news(harness) if change.source] == [
        "tcp://192.0.2.1:10"
    ]


def test_members_show_how_many_of_their_devices_are_online(lab) -> None:
    harness, alice, bob, _ = lab
    alice.comes()
    harness.user("alice", "phone").comes()
    rows = {row.user: row.online for row in bob.does(tracker.ListMembers("lab")).rows}
    assert rows == {"alice": 2, "bob": 0}


def test_the_owner_sees_whether_those_who_ask_to_join_are_online(lab) -> None:
    harness, alice, _, _ = lab
    harness.user("carol").comes()
    harness.user("carol").does(tracker.JoinGroup("lab"))
    harness.user("dave").does(tracker.JoinGroup("lab"))
    rows = {row.user: row.online for row in alice.does(tracker.ListRequests("lab")).rows}
    assert rows == {"carol": 1, "dave": 0}


def test_get_sources_names_fifty_seeders_first_and_never_the_caller(lab) -> None:
    harness, _, bob, data = lab
    for number in range(30):
        each = harness.user("alice", f"seeder {number}")
        each.offers("lab", "data", data)
        each.comes()
    for number in range(40):
        each = harness.user("bob", f"leecher {number}")
        each.comes(leeching=[tracker.Leeching("lab", data, 1)])
    bob.comes(leeching=[tracker.Leeching("lab", data, 1)])
    assert seeds(harness, data) == (30, 41)
    answers = [bob.does(tracker.GetSources("lab", data)).sources for _ in range(2)]
    for sources in answers:
        assert [source.complete for source in sources] == [True] * 30 + [False] * 20
        assert len({source.device for source in sources}) == 50
        assert bob.key not in {source.device for source in sources}
    assert answers[0] != answers[1]


@pytest.mark.parametrize(
    ("announced", "address", "told"),
    [
        ("tcp://10.1.2.3:9000", "192.0.2.7", "tcp://10.1.2.3:9000"),
        ("tcp://*:9000", "192.0.2.7", "tcp://192.0.2.7:9000"),
        ("tcp://*:9000", "::ffff:192.0.2.7", "tcp://192.0.2.7:9000"),
        ("tcp://*:9000", "2001:db8::5", "tcp://[2001:db8::5]:9000"),
        ("tcp://*:9000", "fe80::1%eth0", "tcp://[fe80::1]:9000"),
        ("tcp://*:9000", "", "tcp://127.0.0.1:9000"),
        ("tcp://[2001:db8::9]:9000", "192.0.2.7", "tcp://[2001:db8::9]:9000"),
    ],
)
def test_the_wildcard_host_becomes_the_address_that_the_tracker_sees(
    harness: TrackerHarness, announced: str, address: str, told: str
) -> None:
    alice = harness.user("alice")
    alice.address = address
    alice.comes(announced)
    assert harness.context.presence.leases[alice.key].endpoint == told


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://h:0", "tcp://h:70000", "tcp://:9", "tcp://h:*", "tcp://a b:9", "inproc://x",
        "ipc:///tmp/x", "tcp://1.2.3:9", "tcp://h:9;tcp://g:9", "tcp://eth0;h:9", "pgm://h:1",
        "tcp://0.0.0.0:9", "tcp://[::]:9", "tcp://[fe80::1%eth0]:9", "tcp://192.0.2.7:\uff15\uff10",
    ],
)  # fmt: skip
def test_invalid_endpoints_are_refused(harness: TrackerHarness, endpoint: str) -> None:
    alice = harness.user("alice")
    assert alice.is_refused(tracker.Announce(endpoint)) is Code.USAGE
    assert harness.context.presence.leases == {}


def test_h50_the_refusal_of_a_host_name_says_what_to_announce(harness: TrackerHarness) -> None:
    """Resolving it would wait for a name server that the announcing user chose."""
    alice = harness.user("alice")
    refusal = alice.asks(tracker.Announce("tcp://slow.example.org:9000"))
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.USAGE
    assert "slow.example.org" in refusal.message
    assert refusal.message.endswith("is a name and not an IP address")
    assert refusal.hint is not None
    assert "tcp://IP:PORT" in refusal.hint
    assert harness.context.presence.leases == {}


def test_a_path_is_an_endpoint_where_the_tracker_is_on_one_too() -> None:
    harness = TrackerHarness(ipc=True)
    alice = harness.user("alice")
    alice.comes("ipc:///run/user/1/peer")
    assert alice.is_refused(tracker.Announce("ipc://@abstract")) is Code.USAGE


def test_heads_give_the_sequence_number_of_each_group(harness: TrackerHarness) -> None:
    alice = harness.user("alice")
    harness.group("lab", alice)
    harness.group("club", alice, harness.user("bob"))
    heads = alice.comes().heads
    assert heads == [tracker.Head("lab", 1, 1), tracker.Head("club", 3, 2)]


@pytest.mark.parametrize("seed", range(5))
def test_h62_sources_are_handed_out_by_user_first(seed: int) -> None:
    """A member with 100 devices beside three with one each: all three are in every list."""
    print(f"seed {seed}")
    offers = {UserId("eve"): list(range(100))}
    offers |= {UserId(f"user{n}"): [1000 + n] for n in range(3)}
    chosen = spread(offers, limits.SOURCES_MAX, Random(seed))
    assert len(set(chosen)) == len(chosen) == limits.SOURCES_MAX
    assert {1000, 1001, 1002} <= set(chosen[:4])
    many = {UserId(f"user{n}"): [n, 1000 + n] for n in range(80)}
    chosen = spread(many, limits.SOURCES_MAX, Random(seed))
    assert len({n % 1000 for n in chosen}) == limits.SOURCES_MAX
    assert spread(many, 0, Random(seed)) == spread({}, 5, Random(seed)) == []


def test_h63_a_second_machine_with_the_key_of_one_that_is_online_is_refused(lab) -> None:
    harness, alice, _, _ = lab
    one, other = b"1" * 16, b"2" * 16
    alice.does(tracker.Hello("", one))
    alice.comes("tcp://192.0.2.1:9", instance=one)
    for command in (tracker.Hello("", other), tracker.Announce("tcp://192.0.2.2:9", [], other)):
        refusal = alice.asks(command)
        assert isinstance(refusal, Refusal)
        assert refusal.code is Code.KEY_IN_USE
        assert refusal.message == "a peer with this device key is online at tcp://192.0.2.1:9"
        assert "mini-torrent up --new-device-key" in (refusal.hint or "")
    alice.does(tracker.Hello("", one))  # a restart
    alice.comes("tcp://192.0.2.1:10", instance=one)
    alice.does(tracker.Depart())
    alice.comes("tcp://192.0.2.2:9", instance=other)
    harness.wait(limits.LEASE_S + 1)
    alice.does(tracker.Hello("", one))


def test_h63_peers_without_an_instance_are_admitted(lab) -> None:
    _, alice, _, _ = lab
    alice.comes("tcp://192.0.2.1:9")
    alice.does(tracker.Hello("", b"2" * 16))
    alice.comes("tcp://192.0.2.2:9", instance=b"2" * 16)
    alice.does(tracker.Hello())


def test_swarms_follow_a_state_that_was_loaded_anew(lab) -> None:
    harness, alice, bob, data = lab
    alice.comes()
    bob.comes(leeching=[tracker.Leeching("lab", data, 3)])
    news(harness)
    presence, before = harness.context.presence, harness.state
    assert presence.rebuild(before) == []
    other = TrackerHarness()
    carol = other.user("carol")
    other.group("lab", carol)
    # There bob is no member and has no offer, and alice's device has no user.
    other.state.devices[bob.key] = UserId("bob")
    downs = presence.rebuild(other.state)
    assert {change.device for change in downs} == {alice.key, bob.key}
    assert all(change.source is None for change in downs)
    assert set(presence.leases) == {bob.key}
    ups = presence.rebuild(before)
    assert [change.device for change in ups] == [bob.key]
