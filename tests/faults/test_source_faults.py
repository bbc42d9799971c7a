"""F2, F10, F12, F13: what happens to those from whom a download comes, and on the way from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.data_paths import each_path
from tests.support.faults import MIB, Fetch, Highest, behind, fetch, resident_bytes, settle
from tests.support.faulty_link import FaultyLink, SourceLine
from tests.support.processes import Person, Swarm
from tests.support.waiting import wait_for

SIZE = 12 * MIB


def shared_by_both(path: Path, group: str, *people: Person) -> None:
    for each in people:
        each.share(path, group, "--piece-size", "16K")


def sources(download: Fetch) -> dict[str, int]:
    """The pieces that came from each user."""
    rows = download.who.json("why-slow", download.group, download.name)
    return {row["user"]: row["pieces"] for row in rows}


@each_path
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
    alice.kill()  # no source is left
    alice.up()
    download.finishes()


def test_f10_a_download_goes_on_without_a_source_that_became_unreachable(
    own: Swarm, line: Callable[..., FaultyLink]
) -> None:
    link = SourceLine(line)
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
    link = SourceLine(line, seed=12)
    alice = behind(own, link, "alice")
    link.slow(delay_s=0.1, loss=0.05)
    bob = settle(own, "bob")
    group = alice.group_with(bob)
    path = own.file(2 * MIB)
    shared_by_both(path, group, alice)
    fetch(bob, group, path).finishes()
    assert link.bytes_down > 2 * MIB


@each_path
@pytest.mark.parametrize("what", ["reset", "hold"])
def test_a_bulk_connection_that_breaks_alone_loses_nothing(
    own: Swarm, line: Callable[..., FaultyLink], what: str
) -> None:
    """Pieces that were on their way there are asked for again, and come with all the rest."""
    link = SourceLine(line)
    alice = behind(own, link, "alice", "--upload-limit", "8M")
    bob = settle(own, "bob")
    group = alice.group_with(bob)
    path = own.file(SIZE)
    shared_by_both(path, group, alice)
    _, bulk = link.links
    download = fetch(bob, group, path)
    wait_for(lambda: bulk.down.bytes > MIB, "pieces on the bulk connection")
    getattr(bulk, what)()
    download.finishes(patience_s=60.0)
    assert bulk.connections == 1, "it is not tried again at once"
    assert link.links[0].down.bytes > MIB


def test_f13_a_slow_source_does_not_hold_up_fast_ones(own: Swarm) -> None:
    slow = settle(own, "slow", "--upload-limit", "125K")  # 1 Mbit/s: alone it would take minutes
    alice, carol = (settle(own, name, "--upload-limit", "10M") for name in ("alice", "carol"))
    bob = settle(own, "bob")
    group = alice.group_with(bob, carol, slow)
    path = own.file(SIZE)
    shared_by_both(path, group, alice, carol, slow)
    download = fetch(bob, group, path).finishes(patience_s=40.0)
    assert download.row["verified_bytes"] == SIZE


@each_path
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
        until=lambda states: states == ["complete", "complete"],
    )
    for each in (first, second):
        assert each.target.exists()
        each.never_lies()
