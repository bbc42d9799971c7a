"""F24: what is shared changes on the disk of the one who shares it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.data_paths import both_paths, each_path
from tests.support.faults import MIB, Fetch, begin, notices
from tests.support.processes import Person
from tests.support.waiting import wait_for

SIZE = 12 * MIB


def edit(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(SIZE - MIB)
        file.write(b"\0" * MIB)


def truncate(path: Path) -> None:
    os.truncate(path, SIZE // 2)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(bytes(SIZE))
    other.replace(path)


def source_of(download: Fetch) -> Path:
    """The file that is shared."""
    (found,) = download.who.swarm.root.glob(f"d*/{download.name}")
    return found


@both_paths
@pytest.mark.parametrize("change", [edit, truncate, replace, Path.unlink])
def test_f24_a_shared_file_that_changed_is_served_no_more_and_its_owner_is_told(
    alice: Person, bob: Person, change: Callable[[Path], None]
) -> None:
    wrong_before = wrong_pieces(bob)
    download = begin(alice, bob, SIZE)
    download.until(MIB)
    change(source_of(download))
    wait_for(lambda: download.name not in alice.files(download.group), "the end of the share")
    assert any(download.name in notice for notice in notices(alice))
    assert not download.target.exists()
    held = download.verified
    # Not one wrong piece was sent, and every byte that was served before was verified as well.
    assert wrong_pieces(bob) == wrong_before
    part = download.part.read_bytes()
    same = sum(
        part[at : at + 16384] == download.expected[at : at + 16384] for at in range(0, SIZE, 16384)
    )
    assert same * 16384 >= held
    bob.ok("cancel", download.group, download.name)


def wrong_pieces(who: Person) -> int:
    """Pieces that the peer has received so far: the first from a source is the last as well."""
    return (who.home / "peer.log").read_text("utf-8").count("sent a wrong piece")


@both_paths
def test_f24_a_file_that_was_only_touched_is_digested_again_and_shared_on(
    alice: Person, bob: Person
) -> None:
    download = begin(alice, bob, SIZE)
    download.until(MIB)
    os.utime(source_of(download))
    download.finishes()
    assert download.name in alice.files(download.group)


@each_path
def test_f24_a_file_touched_while_the_peer_was_down_is_shared_at_the_next_start(
    alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    kept, changed = (bob.swarm.file(MIB) for _ in range(2))
    for path in (kept, changed):
        bob.share(path, group)
    bob.down()
    os.utime(kept)
    with changed.open("ab") as file:
        file.write(b"more")
    bob.up()
    wait_for(lambda: set(alice.files(group)), "one share", until=lambda names: names == {kept.name})
    assert any(changed.name in notice for notice in notices(bob))
