"""F3, F19, F21, F22, F23, F25: what happens to a download on its own device."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.data_paths import both_paths, each_path
from tests.support.faults import (
    MIB,
    PIECE,
    Fetch,
    Small,
    begin,
    faults,
    fetch,
    frozen,
    pieces_served,
    settle,
)
from tests.support.processes import Person, Swarm
from tests.support.tamper import plug
from tests.support.waiting import wait_for

SIZE = 12 * MIB
PIECES = SIZE // PIECE


def kill_and_look(download: Fetch) -> int:
    """Kill the downloader; returns how many pieces the journal names then."""
    download.who.kill()
    download.never_lies()
    return download.synced


def starts_with(download: Fetch, synced: int, owner: Person) -> None:
    """Start the downloader again while no source can give it anything: its pieces are kept ones."""
    with frozen(owner.pid):
        download.who.up()
        wait_for(lambda: download.verified >= synced * PIECE, "what was synced")


@both_paths
def test_f03_a_killed_downloader_fetches_again_only_what_was_not_synced(
    alice: Person, bob: Person, rng: random.Random
) -> None:
    before = pieces_served(alice)
    download = begin(alice, bob, SIZE)
    lost = 0
    for point in sorted(rng.randrange(SIZE * 9 // 10) for _ in range(4)):
        # The pieces on their way when it dies are lost as well: they were never verified.
        reached = download.until(point) // PIECE
        synced = kill_and_look(download)
        lost += max(0, reached - synced)
        starts_with(download, synced, alice)
    download.finishes()
    windows = 4 * 2 * 8 * MIB // PIECE  # four times what a window holds: 2 s at 8 MiB a second
    assert pieces_served(alice) - before <= PIECES + lost + windows


@each_path
def test_f03_a_pulled_plug_costs_what_was_not_synced_and_nothing_else(
    own: Swarm, rng: random.Random
) -> None:
    alice = settle(own, "alice", "--upload-limit", "8M")
    unsynced = own.root / "unsynced"
    with faults(plug=str(unsynced)):
        bob = settle(own, "bob")
        download = begin(alice, bob, SIZE)
        undone = 0
        for point in sorted(rng.randrange(SIZE * 9 // 10) for _ in range(3)):
            download.until(point)
            synced = kill_and_look(download)
            undone += plug.pull(unsynced, rng)
            starts_with(download, synced, alice)
    assert undone
    download.finishes()


@both_paths
@pytest.mark.root
def test_f19_a_full_disk_pauses_with_its_reason_and_goes_on_by_itself(
    alice: Person, bob: Person, carol: Person, disk: Small
) -> None:
    group = alice.group_with(bob, carol)
    own = bob.swarm.file(MIB)
    bob.share(own, group)
    download = begin(alice, bob, SIZE, group=group, folder=disk.path)
    download.until(MIB)
    disk.fill()
    wait_for(lambda: download.state, "the pause", until=lambda state: state == "paused")
    assert "No space left" in download.row["reason"]
    fetch(carol, group, own).finishes()
    assert download.state == "paused"
    download.never_lies()
    disk.empty()
    download.finishes()


@both_paths
@pytest.mark.root
@pytest.mark.parametrize("disk", ["thin"], indirect=True)
def test_f19_a_disk_that_turns_out_full_when_it_is_synced_loses_nothing(
    alice: Person, bob: Person, disk: Small
) -> None:
    download = begin(alice, bob, SIZE, folder=disk.path)
    download.until(MIB)
    disk.fill()
    wait_for(lambda: download.state, "the pause", until=lambda state: state == "paused")
    download.never_lies()
    disk.empty()
    download.finishes()


@each_path
@pytest.mark.root
def test_f19_a_full_disk_at_the_end_is_waited_for_too(
    alice: Person, bob: Person, disk: Small
) -> None:
    """The device's own home is full: the last words about the download find no room either."""
    other = Person(bob.swarm, bob.name, disk.path / "home")
    other.native = bob.native
    other.up()
    other.ok("login", bob.name, bob.password)
    group = alice.group_with(bob)
    download = begin(alice, other, 4 * MIB, group=group)
    disk.fill()
    wait_for(
        lambda: download.state,
        "an end or a pause",
        until=lambda state: state in ("complete", "paused"),
    )
    download.never_lies()
    disk.empty()
    download.finishes()
    wait_for(lambda: other.status()["shares"] == 1, "the share of what was fetched")
    other.restart()
    wait_for(lambda: download.state, "its state", until=lambda state: state == "complete")
    wait_for(lambda: other.status()["shares"] == 1, "the same after a restart")
    other.down()


@both_paths
@pytest.mark.root
@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
@pytest.mark.parametrize("size", [20 * MIB, 4 * MIB], ids=["underway", "at-the-end"])
def test_f21_a_disk_that_fails_ends_that_download_and_no_other(
    alice: Person, bob: Person, disk: Small, size: int
) -> None:
    group, path = alice.group_with(bob), alice.swarm.file(size)
    alice.share(path, group, "--piece-size", "16K")
    with frozen(alice.pid):  # so that the disk breaks before the last piece is there
        download = fetch(bob, group, path, folder=disk.path)
        wait_for(download.part.exists, "its part file")
        disk.break_()
    other = begin(alice, bob, MIB, group=group)
    wait_for(lambda: download.state, "the failure", until=lambda state: state == "failed")
    assert "Input/output error" in download.row["reason"]
    assert not download.target.exists()
    other.finishes()
    disk.mend()
    bob.ok("resume", group, download.name)
    wait_for(
        lambda: download.state, "another end", until=lambda state: state in ("complete", "failed")
    )
    download.never_lies()


def truncate(download: Fetch) -> int:
    os.truncate(download.part, SIZE // 3 + 100)
    return download.synced


def flip_a_bit(download: Fetch) -> None:
    first = int.from_bytes(download.journal.read_bytes()[40:44], "big") * PIECE
    with download.part.open("r+b") as file:
        file.seek(first + 1000)
        byte = file.read(1)[0]
        file.seek(first + 1000)
        file.write(bytes([byte ^ 4]))


def write_noise(download: Fetch) -> int:
    download.journal.write_bytes(random.Random(1).randbytes(download.journal.stat().st_size))
    return 0


def damaged_between_two_starts(alice: Person, bob: Person, damage: Callable[[Fetch], int]) -> None:
    """Stop, damage and restart. ``damage`` returns how many pieces it destroyed; all others must
    still be held."""
    download = begin(alice, bob, SIZE)
    download.until(SIZE // 2)
    bob.down()  # in order: all that was verified is synced
    held = download.synced
    assert held >= SIZE // 2 // PIECE
    lost = damage(download)
    bob.up()
    wait_for(lambda: download.verified >= (held - lost) * PIECE, "what survived")
    download.finishes()


def test_f22_a_truncated_part_is_noticed_and_mended(alice: Person, bob: Person) -> None:
    damaged_between_two_starts(alice, bob, truncate)


def test_f25_a_journal_of_noise_is_rebuilt_from_the_part(alice: Person, bob: Person) -> None:
    damaged_between_two_starts(alice, bob, write_noise)


@both_paths
def test_f23_only_the_damaged_piece_is_fetched_again(alice: Person, bob: Person) -> None:
    download = begin(alice, bob, SIZE)
    download.until(SIZE // 2)
    bob.ok("pause", download.group, download.name)
    bob.down()
    flip_a_bit(download)
    held, before = download.synced, pieces_served(alice)
    bob.up()
    bob.ok("resume", download.group, download.name)
    download.finishes()
    assert pieces_served(alice) - before == PIECES - held + 1


@both_paths
@pytest.mark.parametrize("damage", [truncate, flip_a_bit], ids=["truncated", "flipped"])
def test_f22_f23_damage_while_the_peer_runs_is_noticed_too(
    alice: Person, bob: Person, damage: Callable[[Fetch], object]
) -> None:
    download = begin(alice, bob, SIZE)
    download.until(SIZE // 2)
    bob.ok("pause", download.group, download.name)
    wait_for(lambda: download.synced * PIECE >= download.verified, "all of it synced")
    damage(download)
    bob.ok("resume", download.group, download.name)
    download.finishes()


def test_f22_a_part_that_is_gone_is_begun_again(alice: Person, bob: Person) -> None:
    download = begin(alice, bob, 4 * MIB)
    download.until(MIB)
    bob.kill()
    Path(download.part).unlink()
    bob.up()
    download.finishes()


def test_a_withdrawn_share_is_told_and_its_download_resumes_when_shared_again(
    alice: Person, bob: Person
) -> None:
    group, path = alice.group_with(bob), alice.swarm.file(SIZE)
    alice.share(path, group, "--piece-size", "16K")
    download = fetch(bob, group, path)
    download.until(MIB)
    alice.ok("stop-share", download.group, download.name)
    wait_for(
        lambda: download.row["reason"] == "it is no longer shared", "the reason", patience_s=60.0
    )
    row = download.row
    assert (row["state"], row["rate_bytes_per_s"], row["eta_s"], row["sources"]) == (
        "downloading",
        0.0,
        None,
        [],
    )
    alice.share(path, group, "--piece-size", "16K")
    download.finishes()


def test_the_list_of_complete_downloads_does_not_grow_for_ever(own: Swarm) -> None:
    with faults(limits={"DOWNLOADS_LISTED_MAX": 3}):
        alice, bob = settle(own, "alice"), settle(own, "bob")
    group = alice.group_with(bob)
    paths = [own.file(1000 + number) for number in range(6)]
    folder = own.folder()
    for path in paths:
        alice.share(path, group)
        bob.fetch(group, path.name, folder)
    # The first two left when the fifth and the sixth began.
    assert [name for _, name in bob.downloads()] == [path.name for path in paths[2:]]
    assert len(list(bob.home.glob("downloads/*.record"))) == 4
    for path in paths:
        assert (folder / path.name).read_bytes() == path.read_bytes()
        assert bob.files(group)[path.name]["seeders"] == 2, "it is shared as before"


def test_f106_a_peer_killed_during_an_update_leaves_the_old_or_the_new_version(
    alice: Person, bob: Person, rng: random.Random
) -> None:
    group = alice.group_with(bob)
    path, folder = alice.swarm.file(SIZE), alice.swarm.folder()
    alice.share(path, group, "--piece-size", "16K")
    bob.fetch(group, path.name, folder)
    place, old = folder / path.name, path.read_bytes()
    changed = rng.sample(range(PIECES), PIECES // 16)
    with path.open("r+b") as file:
        for index in changed:
            file.seek(index * PIECE)
            file.write(rng.randbytes(100))
    new = path.read_bytes()
    alice.share(path, group, "--replace")
    before = pieces_served(alice)
    bob.ok("download-file", group, path.name, folder, "--no-wait")
    download = Fetch(bob, group, path.name, place, new)
    kills = 3
    for share in sorted(rng.uniform(0.1, 1.0) for _ in range(kills)):
        download.until(int(share * SIZE))
        bob.kill()
        assert place.read_bytes() in (old, new)
        bob.up()
    download.finishes()
    assert os.listdir(folder) == [path.name]
    # F105: pieces of the old version are never fetched; each kill costs unsynced ones at most.
    assert pieces_served(alice) - before <= (kills + 1) * len(changed)
    assert bob.files(group)[path.name]["seeders"] == 2
