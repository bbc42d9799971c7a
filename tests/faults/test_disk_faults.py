"""F85, F86: disks of other kinds, and disks that come and go, at running peers."""

from __future__ import annotations

import errno
from pathlib import Path

from faulty import PIECE, fetch, open_descriptors
from people import Person
from refusing_disk import refusing_disk
from waiting import wait_for

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
