"""F2, F10, F12, F13: what happens to those from whom a download comes, and on the way from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from faulty import MIB, Fetch, Highest, faults, fetch, resident_bytes, settle
from faulty_link import FaultyLink
from people import Person, Swarm
from waiting import wait_for

SIZE = 12 * MIB


def behind(own: Swarm, link: FaultyLink, name: str, *options: str) -> Person:
    """Somebody whom others reach through ``link`` only."""
    with faults(announce=link.endpoint):
        made = settle(own, name, "--listen", "tcp://127.0.0.1:0", *options)
    link.target = ("127.0.0.1", int(made.status()["listen"].rpartition(":")[2]))
    return made


def shared_by_both(path: Path, group: str, *people: Person) -> None:
    for each in people:
        each.share(path, group, "--piece-size", "16K")


def sources(download: Fetch) -> dict[str, int]:
    """The pieces that came from each user."""
    rows = download.who.json("why-slow", download.group, download.name)
    return {row["user"]: row["pieces"] for row in rows}


def test_f02_a_source_killed_in_mid_piece_is_replaced_and_one_alone_comes_back(own: Swarm) -> None:
    alice, carol = (settle(own, name, "--upload-limit", "4M") for name in ("alice", "carol"))
    bob = settle(own, "bob")
    group = alice.group_with(bob, carol)
    path = own.file(SIZE)
    shared_by_both(path, group, alice, carol)
    download = fetch(bob, group, path)
    wait_for(lambda: sources(download).get("carol"), "pieces from Carol")
    carol.kill()
    download.until(SIZE // 2)
    alice.kill()  # nobody is left
    alice.up()
    download.finishes()


def test_f10_a_source_that_cannot_be_reached_any_more_is_done_without(
    own: Swarm, line: Callable[..., FaultyLink]
) -> None:
    link = line()
    alice = behind(own, link, "alice", "--upload-limit", "8M")
    carol = settle(own, "carol", "--upload-limit", "8M")
    bob = settle(own, "bob")
    group = alice.group_with(bob, carol)
    path = own.file(SIZE)
    shared_by_both(path, group, alice, carol)
    before = resident_bytes(bob.pid)
    watched = Highest(bob.pid)
    download = fetch(bob, group, path)
    wait_for(lambda: sources(download).get("alice"), "pieces from Alice")
    link.hold()
    download.finishes()
    # A download may hold 64 MiB; this one of 12 has no reason to take much more than itself.
    assert watched.end() - before < 64 * MIB


def test_f12_loss_and_a_long_way_are_only_slow(own: Swarm, line: Callable[..., FaultyLink]) -> None:
    link = line(seed=12)
    link.slow(delay_s=0.1, loss=0.05)
    alice = behind(own, link, "alice")
    bob = settle(own, "bob")
    group = alice.group_with(bob)
    path = own.file(2 * MIB)
    shared_by_both(path, group, alice)
    fetch(bob, group, path).finishes()
    assert link.down.bytes > 2 * MIB


def test_f13_a_narrow_source_among_wide_ones_holds_up_nobody(own: Swarm) -> None:
    slow = settle(own, "slow", "--upload-limit", "125K")  # 1 Mbit/s: alone it would take minutes
    alice, carol = (settle(own, name, "--upload-limit", "10M") for name in ("alice", "carol"))
    bob = settle(own, "bob")
    group = alice.group_with(bob, carol, slow)
    path = own.file(SIZE)
    shared_by_both(path, group, alice, carol, slow)
    download = fetch(bob, group, path).finishes(patience_s=40.0)
    assert download.row["verified"] == SIZE


def test_two_downloads_of_one_content_at_once_do_not_take_each_others_pieces(
    alice: Person, bob: Person, carol: Person
) -> None:
    group = alice.group_with(bob, carol)
    path = alice.swarm.file(4 * MIB)
    shared_by_both(path, group, alice)
    first, second = (fetch(bob, group, path) for _ in range(2))
    wait_for(
        lambda: [row["state"] for row in bob.json("show-downloads") if row["group"] == group],
        "the end of both",
        until=lambda states: states == ["C", "C"],
    )
    for each in (first, second):
        assert each.target.exists()
        each.never_lies()
