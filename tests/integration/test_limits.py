"""Limits at run time, and the upload side of a peer, with real processes."""

from __future__ import annotations

import pytest

from tests.support.processes import Person, Swarm
from tests.support.waiting import wait_for

TCP_ONLY = True

SIZE = 1 << 20


@pytest.fixture
def server(swarm: Swarm) -> Person:
    """A device of its own: a limit would slow the others down."""
    return swarm.person(swarm.fresh("fast"))


@pytest.mark.parametrize("option", ["--up", "--up-per-user"])
def test_h129_a_limit_holds_at_once_for_what_runs(
    swarm: Swarm, server: Person, bob: Person, option: str
) -> None:
    """At 1 KiB/s the file would take 17 minutes, and each of its pieces 16 s."""
    group = server.group_with(bob)
    path = swarm.file(SIZE)
    server.share(path, group, "--piece-size", "16K")
    server.ok("limit", option, "1K")
    bob.ok("download-file", group, path.name, swarm.folder(), "--no-wait")
    wait_for(lambda: bob.downloads()[group, path.name]["verified_bytes"] > 0)
    assert bob.state_of(group, path.name) == "downloading"
    assert server.status()["served_bytes"] < SIZE
    (row,) = [row for row in server.json("list-shares") if row["group"] == group]
    assert row["fetching"] == server.status()["fetching"]
    assert [fetching["user"] for fetching in row["fetching"]] == ["bob"]
    server.down()
    server.up()
    assert server.json("limit")[f"{option[2:].replace('-', '_')}_bytes_per_s"] == 1024
    server.ok("limit", option, "off")
    wait_for(lambda: bob.state_of(group, path.name) == "complete", "the end")
    (row,) = [row for row in server.json("list-shares") if row["group"] == group]
    assert 0 < row["served_bytes"] <= SIZE + (1 << 18)
    assert (row["state"], row["path"], row["size_bytes"]) == ("shared", str(path), SIZE)


def test_a_limit_of_this_device_s_downloads(swarm: Swarm, alice: Person, server: Person) -> None:
    group = alice.group_with(server)
    path = swarm.file(SIZE)
    alice.share(path, group, "--piece-size", "16K")
    server.ok("limit", "--schedule", "00:00,1M:1K")
    assert server.status()["limits"]["down_bytes_per_s"] == 1024
    server.ok("download-file", group, path.name, swarm.folder(), "--no-wait")
    wait_for(lambda: server.downloads()[group, path.name]["verified_bytes"] > 0)
    assert server.state_of(group, path.name) == "downloading"
    limits = server.json("limit", "--down", "0")
    assert (limits["up_bytes_per_s"], limits["by_hand"]) == (1 << 20, True)
    wait_for(lambda: server.state_of(group, path.name) == "complete", "the end")
