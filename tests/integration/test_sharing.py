"""Sharing by real processes: what is named or refused first, and what arrives."""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from common import limits
from tests.support.processes import PEER, Person, Swarm
from tests.support.waiting import wait_for

pytestmark = pytest.mark.parametrize("transport", ["tcp"], indirect=True)
PIECE = limits.PIECE_LENGTH_DEFAULT
YEAR_3000 = 32503680000


# -- homes, hidden and private files ------------------------------------------------------------


def test_h80_no_home_is_shared_by_any_path(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    link = swarm.folder() / "link"
    link.symlink_to(alice.home)
    linked = swarm.folder()
    os.link(alice.home / "device.key", linked / "notes.txt")
    stopped = swarm.folder() / "copy"
    shutil.copytree(alice.home, stopped, ignore=lambda *_: ["control.sock"])
    for path in (
        alice.home,
        alice.home / "peer.log",
        alice.home / "manifests",
        bob.home,
        swarm.tracker.home,
        link,
        linked,
        linked / "notes.txt",
        stopped.parent,
        stopped / "device.key",
        swarm.root,
    ):
        said = alice.refused("upload-file", "--yes", path, group)
        assert "home of" in said or "secret key" in said, said
    assert alice.files(group) == {}


def test_h81_hidden_and_private_files_are_shared_after_a_yes_only(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    folder = swarm.folder()
    (folder / ".ssh").mkdir()
    for name, mode in ((".ssh/id", 0o600), ("key.pem", 0o600), ("good", 0o644)):
        (folder / name).write_bytes(name.encode())
        (folder / name).chmod(mode)
    for words in ((folder, group), (folder / "key.pem", group), (folder / ".ssh", group)):
        ran = alice.run("upload-file", *words)
        assert (ran.code, ran.out) == (1, ""), str(ran)
        assert "hidden file" in ran.err or "only its owner may read" in ran.err
        hint = ran.err.splitlines()[-1].partition("all the same: ")[2]
        assert shlex.split(hint)[0] == "mini-torrent"
        assert "--yes" in hint
    assert alice.files(group) == {}
    ran = alice.run("upload-file", folder, group)
    assert "1 hidden file and 1 file that only its owner may read" in ran.err
    assert '".ssh/"' in ran.err
    assert '"key.pem"' in ran.err
    alice.ok("upload-file", "--yes", folder, group)
    dest = swarm.folder()
    bob.fetch(group, folder.name, dest)
    assert (dest / folder.name / ".ssh" / "id").read_bytes() == b".ssh/id"


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1), ("", 1)])
def test_h81_a_terminal_is_asked(swarm: Swarm, alice: Person, answer: str, code: int) -> None:
    group = alice.group_with()
    path = swarm.file(1000, ".hidden")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [PEER, *alice.words(["upload-file", path, group])],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    seen = b""
    while b"[y/N]" not in seen:
        seen += os.read(ours, 1000)
    assert b".hidden" in seen
    os.write(ours, f"{answer}\n".encode())
    out, _ = process.communicate()
    os.close(ours)
    assert (process.returncode, bool(out)) == (code, code == 0)
    assert (".hidden" in alice.files(group)) == (code == 0)


# -- names and things that stand in the way -----------------------------------------------------


def test_h28_all_that_stands_in_the_way_is_told_at_once(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    folder = swarm.folder()
    (folder / "link").symlink_to("/etc")
    os.mkfifo(folder / "fifo")
    (folder / "a\x1bb").touch()
    names = ["aux.c", "con.txt", "Foo", "foo", "a.", "a ", "lpt0", "caf\u00e9", "cafe\u0301"]
    for name in names:
        (folder / name).write_bytes(name.encode())
    said = alice.refused("upload-file", folder, group)
    for word in ("3 problems", "link", "fifo", r"a\x1bb"):
        assert word in said
    assert "aux.c" not in said
    for name in ("link", "fifo", "a\x1bb"):
        (folder / name).unlink()
    alice.share(folder, group)
    dest = swarm.folder()
    bob.fetch(group, folder.name, dest)
    assert sorted(os.listdir(dest / folder.name)) == sorted(names)
    for name in ("aux.c", "nul", "x."):
        alice.share(swarm.file(10, name), group)
        bob.fetch(group, name, dest)


# -- times --------------------------------------------------------------------------------------


def test_times_arrive_unless_they_are_not_wanted(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    folder = swarm.folder()
    (folder / "sub").mkdir()
    (folder / "sub" / "film").write_bytes(b"film")
    (folder / "empty").mkdir()
    paths = ["sub/film", "sub", "empty", "."]
    for at, name in enumerate(paths, 1):
        os.utime(folder / name, ns=(1, at * 10**17 + 1))
    alice.share(folder, group)
    kept, fresh = swarm.folder(), swarm.folder()
    bob.fetch(group, folder.name, kept)
    bob.fetch(group, folder.name, fresh, "--no-times")
    for name in paths:
        before = (folder / name).stat().st_mtime_ns
        assert (kept / folder.name / name).stat().st_mtime_ns == before
        assert (fresh / folder.name / name).stat().st_mtime_ns > before


@pytest.mark.parametrize("time_s", [YEAR_3000, -86400, 1 << 40])
def test_any_time_is_shared_with_one_that_can_be_kept(
    swarm: Swarm, alice: Person, bob: Person, time_s: int
) -> None:
    group = alice.group_with(bob)
    path = swarm.file(1000)
    os.utime(path, (time_s, time_s))
    alice.share(path, group)
    got = Path(bob.fetch(group, path.name, swarm.folder())["path"])
    assert got.read_bytes() == path.read_bytes()
    assert 0 <= got.stat().st_mtime < 1 << 34


# -- the same bytes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first", [("--piece-size", "16K"), ("--digest", "sha256"), ("--no-times",)]
)
def test_the_same_bytes_are_joined_whatever_was_chosen(
    swarm: Swarm, alice: Person, bob: Person, carol: Person, first: tuple[str, ...]
) -> None:
    group = alice.group_with(bob, carol)
    path = swarm.file(3 * PIECE + 5)
    twin = swarm.folder() / path.name
    shutil.copyfile(path, twin)
    twin.chmod(0o755)
    os.utime(twin, (9, 9))
    alice.share(path, group, *first)
    ran = bob.run("upload-file", twin, group)
    assert ran.code == 0, str(ran)
    assert "joined the devices that share it" in ran.out
    assert "executable" in ran.err
    assert alice.share(twin, group, "--piece-size", "32K")["again"] is True
    alice.ok("stop-share", group, path.name)
    got = carol.fetch(group, path.name, swarm.folder())
    assert [source["user"] for source in got["sources"]] == ["bob"]
    assert Path(got["path"]).read_bytes() == path.read_bytes()


# -- downloads under way ------------------------------------------------------------------------


def test_a_download_under_way_is_left_out_of_what_is_shared(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    missing = swarm.file(3 * PIECE)
    alice.share(missing, group)
    folder = swarm.folder()
    (folder / "good").write_bytes(b"good")
    alice.down()  # so that it stays under way
    try:
        bob.ok("download-file", group, missing.name, folder, "--no-wait")
        wait_for(lambda: (folder / f"{missing.name}.part").exists(), "the part")
        done = bob.share(folder, group)
        assert done["files"] == 1
        assert done["skipped"] == [
            {"path": f"{missing.name}.part", "reason": "a download fills it"}
        ]
        refused = bob.refused("upload-file", folder / f"{missing.name}.part", group)
        assert "a download fills it" in refused
    finally:
        alice.up()
    wait_for(lambda: (folder / missing.name).exists(), "the end of the download")
    got = alice.fetch(group, folder.name, swarm.folder())
    assert os.listdir(got["path"]) == ["good"]


# -- selections of a folder ---------------------------------------------------------------------


def test_a_model_cache_of_links_is_shared_with_a_named_root(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    model = swarm.folder() / "models--org--tiny"
    snapshot = model / "snapshots" / "abc"
    for folder in (model / "blobs", snapshot):
        folder.mkdir(parents=True)
    for number, size in enumerate((3 * PIECE, 5)):
        (model / "blobs" / f"{number}").write_bytes(os.urandom(size))
        (snapshot / f"part{number}").symlink_to(f"../../blobs/{number}")
    (snapshot / "notes.tmp").write_bytes(b"not for others")
    os.mkfifo(snapshot / "fifo")
    options = ("--links", "follow", "--link-root", str(model / "blobs"), "--exclude", "*.tmp")
    refused = alice.refused("upload-file", snapshot, group, *options)
    assert "fifo" in refused
    options = (*options, "--skip-unsharable", "--name", "tiny")
    plan = alice.share(snapshot, group, *options, "--dry-run")
    assert (plan["outcome"], plan["files"], plan["excluded"]) == ("new", 2, 1)
    assert alice.files(group) == {}
    done = alice.share(snapshot, group, *options)
    assert done["skipped"] == [{"path": "fifo", "reason": "a FIFO"}]
    assert alice.share(snapshot, group, *options, "--dry-run")["outcome"] == "again"
    alice.down()
    alice.up()  # the record follows the same rule
    dest = swarm.folder()
    bob.fetch(group, "tiny", dest)
    for number in range(2):
        got = dest / "tiny" / f"part{number}"
        assert not got.is_symlink()
        assert got.read_bytes() == (model / "blobs" / f"{number}").read_bytes()
    (snapshot / "part1").unlink()
    ran = alice.run("upload-file", snapshot, group, *options, "--dry-run", "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["outcome"] == "refused"


# -- shares with an end -------------------------------------------------------------------------


def test_f116_a_share_ends_in_time_also_while_its_device_is_off(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    soon, later, kept = swarm.file(PIECE), swarm.file(PIECE), swarm.file(PIECE)
    done = alice.share(soon, group, "--expires", "1.5s")
    assert done["expires"]
    alice.share(kept, group, "--expires", "2s")
    alice.share(kept, group)  # without an end
    wait_for(lambda: soon.name not in alice.files(group), "the end")
    alice.share(later, group, "--expires", "2s")
    got = bob.fetch(group, later.name, swarm.folder())
    alice.down()
    try:
        rest = time.monotonic() + 2.5
        wait_for(lambda: time.monotonic() > rest, "the end while it is off")
    finally:
        alice.up()
    wait_for(lambda: later.name not in bob.files(group), "the end for the whole group")
    assert set(alice.files(group)) == {kept.name}
    assert os.path.exists(got["path"])
    assert later.exists()
    rows = {row["name"] for row in alice.json("list-shares") if row["group"] == group}
    assert rows == {kept.name}


# -- what a disk loses --------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["manifests", "shares"])
def test_f80_a_share_comes_back_after_the_disk_lost_some_of_the_home(
    swarm: Swarm, alice: Person, where: str
) -> None:
    dave = swarm.person(swarm.fresh("dave"))
    group = dave.group_with(alice)
    path = swarm.file(PIECE)
    dave.share(path, group, "--piece-size", "16K")
    dave.down()
    for lost in (dave.home / where).glob("*[!y]"):  # but the copies
        lost.write_bytes(b"")
    dave.up()
    wait_for(lambda: alice.files(group)[path.name]["seeders"] == 1, "the share")
    got = alice.fetch(group, path.name, swarm.folder())
    assert Path(got["path"]).read_bytes() == path.read_bytes()
    assert dave.status()["trouble"] is None
    dave.down()
