"""Files that are read while they are fetched, with real processes."""

from __future__ import annotations

import os
import subprocess

from tests.support.processes import PEER, Person, Swarm
from tests.support.waiting import PATIENCE_S, wait_for


def cat(person: Person, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [PEER, *person.words(["cat", *words])], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_cat_writes_a_file_and_keeps_it(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    path = swarm.file(3_000_000)
    alice.share(path, group)
    for person in (bob, bob, alice):  # fetched, held, shared
        out, err = cat(person, group, path.name).communicate(timeout=PATIENCE_S)
        assert (out == path.read_bytes(), err) == (True, b"")
    [row] = [row for row in bob.json("show-downloads") if row["group"] == group]
    assert row["path"].startswith(str(bob.home / "reads"))


def test_a_file_of_a_folder_is_read_and_the_rest_is_not_fetched(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    folder = swarm.folder("pictures")
    (folder / "sub dir").mkdir()
    for name, size in (("a.bin", 3_000_000), ("sub dir/b c.bin", 500_001), ("z.bin", 2_000_000)):
        (folder / name).write_bytes(os.urandom(size))
    alice.share(folder, group)
    name = folder.name
    found = bob.refused("cat", group, name, code=2)
    assert "it is a folder" in found
    assert '"sub dir/"' in found
    for bad in ("../a.bin", "/a.bin", "none"):
        assert "no such file" in bob.refused("cat", group, name, bad)
    out, err = cat(bob, group, name, "sub dir/b c.bin").communicate(timeout=PATIENCE_S)
    assert (out == (folder / "sub dir/b c.bin").read_bytes(), err) == (True, b"")
    [row] = [row for row in bob.json("show-downloads") if row["group"] == group]
    assert 500_001 <= row["verified_bytes"] < row["size_bytes"] - 2_000_000


def test_a_closed_pipe_ends_it_quietly(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    path = swarm.file(9_000_000)
    alice.share(path, group)
    process = cat(bob, group, path.name)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(5) == path.read_bytes()[:5]
    process.stdout.close()
    assert (process.wait(PATIENCE_S), process.stderr.read()) == (0, b"")
    process.stderr.close()


def test_f129_a_reader_waits_for_a_source_that_is_away() -> None:
    own_swarm = Swarm()
    try:
        wait_and_go_on(own_swarm)
    finally:
        own_swarm.close()


def wait_and_go_on(own_swarm: Swarm) -> None:
    alice, bob = own_swarm.person("alice"), own_swarm.person("bob")
    group = alice.group_with(bob)
    path = own_swarm.file(2_000_000)
    alice.share(path, group)
    alice.kill()
    process = cat(bob, group, path.name)
    wait_for(lambda: bob.downloads().get((group, path.name)), "the download")
    assert process.poll() is None
    bob.kill()
    assert process.wait(PATIENCE_S) == 3
    process.communicate()
    bob.up()
    process = cat(bob, group, path.name)
    alice.up()
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (out == path.read_bytes(), err) == (True, b"")
