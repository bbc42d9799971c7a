"""F85, F86: disks of other kinds, and disks that come and go, at running peers."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from tests.support.faults import (
    MIB,
    PIECE,
    Small,
    begin,
    fetch,
    frozen,
    open_descriptors,
)
from tests.support.processes import Person
from tests.support.refusing_disk import refusing_disk
from tests.support.waiting import wait_for

SIZE = 40 * PIECE + 9


def test_f85_a_peer_fetches_to_a_disk_that_refuses_nearly_everything(
    alice: Person, bob: Person, tmp_path: Path
) -> None:
    group = alice.group_with(bob)
    path = bob.swarm.file(SIZE)
    path.chmod(0o755)
    alice.share(path, group, "--piece-size", "16K")
    before = open_descriptors(bob.pid)
    with refusing_disk(tmp_path) as disk:
        disk.refuse(
            chmod=errno.EPERM,
            utimens=errno.EPERM,
            fsync=errno.EINVAL,
            fsyncdir=errno.EINVAL,
            link=errno.EACCES,
            rename_noreplace=errno.EINVAL,
            open_nofollow=errno.EINVAL,
        )
        fetch(bob, group, path, folder=disk.path).finishes()
        assert not disk.still_open()
        bob.ok("stop-share", group, path.name)
        # What is read for others is open for a while.
        wait_for(lambda: open_descriptors(bob.pid) <= before + 5, "the end of what was open")
    log = (bob.home / "peer.log").read_text("utf-8")
    assert log.count("does not change permissions") == 1


@pytest.mark.root
@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
def test_f86_a_disk_that_is_unplugged_costs_no_share_and_no_download(
    alice: Person, bob: Person, carol: Person, disk: Small
) -> None:
    """Twice: under a running peer, and while it starts."""
    group = alice.group_with(bob, carol)
    own = bob.swarm.file(MIB)
    own = Path(shutil.move(own, disk.path))
    bob.share(own, group)
    download = begin(alice, bob, 12 * MIB, group=group, folder=disk.path)
    download.until(2 * MIB)
    with frozen(alice.pid):
        for starts in (False, True):
            if starts:
                bob.down()
            disk.unplug()
            if starts:
                bob.up()
            wait_for(lambda: bob.status()["away"], "the share that is away")
            wait_for(lambda: download.state, "the pause", until=lambda state: state == "paused")
            assert own.name in carol.files(group)
            assert not list(disk.path.iterdir())
            assert download.verified >= MIB
            disk.plug()
            wait_for(lambda: not bob.status()["away"], "the share that is back")
            wait_for(
                lambda: download.state, "the download", until=lambda state: state == "downloading"
            )
            wait_for(lambda: download.verified >= MIB, "what was fetched before")
    download.finishes()
    fetch(carol, group, own).finishes()
    bob.ok("stop-share", group, own.name)
    bob.ok("stop-share", group, download.name)


@pytest.mark.parametrize("algorithm", ["blake3", "sha256", "sha1"])
def test_zeros_and_equal_pieces_do_not_travel(alice: Person, bob: Person, algorithm: str) -> None:
    group = alice.group_with(bob)
    path = bob.swarm.file(4 * PIECE)
    with path.open("r+b") as file:
        noise = file.read()
        file.seek(8 * MIB)
        file.write(noise[: 3 * PIECE])
        file.truncate(16 * MIB + 77)
    alice.share(path, group, "--piece-size", "16K", "--digest", algorithm)
    got = fetch(bob, group, path).finishes()
    # Of this share alone: a test that failed before may have left a download of another one.
    (row,) = [row for row in alice.json("list-shares") if row["group"] == group]
    assert row["served_bytes"] == 4 * PIECE
    assert got.target.stat().st_blocks * 512 <= 10 * PIECE
