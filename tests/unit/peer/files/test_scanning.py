"""Walks over files to share: all problems in one answer; homes and parts are never shared."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from common.crypto import keys, signing_keys
from common.host.home import open_home
from common.manifest import TIME_MAX, folders_of
from common.names import BadName
from peer.files import scanning, sharing
from peer.files.errors import Unreadable
from peer.files.library import SharedContent
from peer.files.open_files import HandleCache
from peer.files.private_files import NAMED_MAX
from peer.files.scan_problems import PROBLEMS_NAMED_MAX
from peer.files.scanning import PART_REASON, DevicePaths, scan
from peer.files.sharing_rule import Skipped


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def peer_home(path: Path) -> Path:
    """A home as a peer makes one, with a share on record."""
    open_home(path)
    keys.load_or_make_pair(path / "device.key")
    for name in ("shares", "downloads", "manifests", "journals"):
        (path / name).mkdir(mode=0o700)
    (path / "shares" / "one.record").write_bytes(b"a record")
    (path / "lock").touch(0o600)
    return path


def tracker_home(path: Path) -> Path:
    open_home(path)
    keys.load_or_make_pair(path / "curve.key")
    signing_keys.load_or_make_signing_keys(path / "signing.key")
    keys.load_or_make_secret(path / "inbox.key")
    (path / "tracker.db").write_bytes(b"SQLite format 3\0")
    return path


HOMES = [peer_home, tracker_home]


# -- problems -----------------------------------------------------------------------------------


def test_all_problems_are_reported_in_one_answer(tmp_path: Path) -> None:
    make(tmp_path, "good", "in/a\x1b[2J", "in/b\u202e", "deep/er/good")
    (tmp_path / "in" / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "deep" / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "deep" / "socket"))
    with pytest.raises(Unreadable) as caught:
        scan(str(tmp_path))
    for said in (
        "5 problems",
        "in/link",
        "a symbolic link",
        "deep/fifo",
        "a socket",
        r"b\u202e",
        r"a\x1b[2J",
    ):
        assert said in caught.value.message
    assert "\x1b" not in caught.value.message
    assert "more" not in caught.value.message


def test_very_many_problems_are_counted(tmp_path: Path) -> None:
    for number in range(PROBLEMS_NAMED_MAX + 30):
        (tmp_path / f"{number:03}").symlink_to("nowhere")
    with pytest.raises(Unreadable) as caught:
        scan(str(tmp_path))
    assert f"{PROBLEMS_NAMED_MAX + 30} problems" in caught.value.message
    assert "and 30 more" in caught.value.message
    assert len(caught.value.message) < 300 * PROBLEMS_NAMED_MAX


def test_a_folder_with_a_bad_name_is_one_problem(tmp_path: Path) -> None:
    make(tmp_path, *(f"bad\n/{number}" for number in range(20)))
    with pytest.raises(BadName):
        scan(str(tmp_path))


@pytest.mark.parametrize(
    "names",
    [
        ("aux.c", "con.txt", "NUL", "com0", "lpt9.log", "CONIN$"),
        ("Foo", "foo", "FOO/x", "foo2"),
        ("caf\u00e9", "cafe\u0301"),
        ("a.", "a ", "a", "b /c. "),
        ("a:b", "a?b", "a*b", 'a"b', "a<b>|", "a\\b"),
        ("Stra\u00dfe", "strasse", "\u212a", "k"),
    ],
)
def test_names_that_linux_can_hold_are_shared(tmp_path: Path, names: tuple[str, ...]) -> None:
    make(tmp_path / "in", *names)
    assert {entry.path for entry in scan(str(tmp_path / "in")).entries} == set(names)


# -- homes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make_home", HOMES)
def test_h80_a_home_and_everything_in_it_is_refused(tmp_path: Path, make_home) -> None:  # type: ignore[no-untyped-def]
    home = make_home(tmp_path / "some" / "name")
    (tmp_path / "link").symlink_to(home)
    inside = [path for path in home.rglob("*") if path.is_file()]
    for path in (home, tmp_path / "link", home.parent, tmp_path, *inside):
        with pytest.raises(Unreadable, match=r"home of a (peer|tracker)|secret key"):
            scan(str(path))


@pytest.mark.parametrize("make_home", HOMES)
def test_h80_a_copy_a_hard_link_and_a_damaged_home_are_recognised(
    tmp_path: Path, make_home
) -> None:  # type: ignore[no-untyped-def]
    home = make_home(tmp_path / "home")
    key = next(home / name for name in ("device.key", "curve.key") if (home / name).exists())
    other = tmp_path / "other"
    other.mkdir()
    (other / "holiday.jpg").write_bytes(key.read_bytes())
    os.link(key, other / "linked")
    for path in (other / "holiday.jpg", other / "linked"):
        with pytest.raises(Unreadable, match="secret key"):
            scan(str(path))
    with pytest.raises(Unreadable, match="2 problems"):
        scan(str(other))
    for content in (b"", b"noise" * 20):
        key.write_bytes(content)
        with pytest.raises(Unreadable, match="home of a"):
            scan(str(home))


def test_h80_hard_links_into_a_known_home_are_recognised(tmp_path: Path) -> None:
    home = peer_home(tmp_path / "home")
    paths_here = DevicePaths(homes=(str(home),))
    other = make(tmp_path / "other", "good")
    os.link(home / "shares" / "one.record", other / "record")
    with pytest.raises(Unreadable, match="home of this peer"):
        scan(str(other), paths_here)
    (other / "record").unlink()
    assert len(scan(str(other), paths_here).entries) == 1


def test_h80_a_bind_mount_of_a_home_is_recognised(tmp_path: Path) -> None:
    home = peer_home(tmp_path / "home")
    mounted = tmp_path / "other" / "mounted"
    mounted.mkdir(parents=True)
    for source in (home, home / "shares"):
        done = subprocess.run(["mount", "--bind", source, mounted], capture_output=True)
        if done.returncode:
            pytest.skip("this user may not mount")
        try:
            for path in (mounted, mounted.parent):
                with pytest.raises(Unreadable, match="home of"):
                    scan(str(path), DevicePaths(homes=(str(home),)))
        finally:
            subprocess.run(["umount", mounted], check=True)


def test_a_file_that_only_looks_like_a_key_is_shared(tmp_path: Path) -> None:
    make(tmp_path / "in", "device.key", "lock", "shares/x", "64", "link")
    (tmp_path / "in" / "64").write_bytes(b"x" * 64)
    (tmp_path / "in" / "lock").unlink()
    assert len(scan(str(tmp_path / "in")).entries) == 4


# -- hidden and private -------------------------------------------------------------------------


def delicate(path: Path) -> scanning.Delicate:
    return scan(str(path)).delicate


def test_h81_hidden_and_private_files_are_counted_and_named(tmp_path: Path) -> None:
    root = make(
        tmp_path / "in",
        ".env",
        ".git/config",
        ".git/objects/a",
        "key.pem",
        "private/a",
        "sub/.x/y",
        "good",
        "sub/good",
    )
    (root / ".git" / "config").chmod(0o600)
    (root / "key.pem").chmod(0o600)
    (root / "private").chmod(0o700)
    found = delicate(root)
    assert (found.hidden, found.private) == (4, 2)
    assert found.named == (".env", ".git/", "key.pem", "private/", "sub/.x/")
    assert "4 hidden files and 2 files that only their owner may read" in found.words()
    assert '".git/"' in found.words()


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700, 0o611])
def test_h81_a_private_file_that_is_named_is_named_too(tmp_path: Path, mode: int) -> None:
    make(tmp_path, "key").joinpath("key").chmod(mode)
    assert delicate(tmp_path / "key").words() == '1 file that only its owner may read: "key"'


@pytest.mark.parametrize("name", [".bashrc", ".ssh/config"])
def test_h81_a_hidden_path_is_hidden_also_by_a_link(tmp_path: Path, name: str) -> None:
    root = make(tmp_path, name) / name.split("/")[0]
    (tmp_path / "link").symlink_to(root)
    for path in (root, tmp_path / "link"):
        assert delicate(path).hidden == 1


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o755])
def test_files_that_others_may_read_are_not_delicate(tmp_path: Path, mode: int) -> None:
    make(tmp_path / "in", "a", "b/c")
    (tmp_path / "in" / "a").chmod(mode)
    (tmp_path / "in").chmod(0o700)  # as many a home is: the user names it
    assert not delicate(tmp_path / "in")


def test_h81_the_names_are_bounded(tmp_path: Path) -> None:
    make(tmp_path / "in", *(f".{number:03}/x" for number in range(NAMED_MAX + 9)))
    found = delicate(tmp_path / "in")
    assert (len(found.named), found.unnamed) == (NAMED_MAX, 9)
    assert found.words().endswith("and 9 more")


# -- parts of downloads -------------------------------------------------------------------------


def test_parts_of_own_downloads_are_left_out(tmp_path: Path) -> None:
    root = make(tmp_path / "in", "a", "film.part", "sub/album.part/x", "not ours.part")
    parts = (str(root / "film.part"), str(root / "sub" / "album.part"), "/gone.part")
    found = scan(str(root), DevicePaths(parts))
    assert [entry.path for entry in found.entries] == ["a", "not ours.part"]
    assert found.skipped == (
        Skipped("film.part", PART_REASON),
        Skipped("sub/album.part/", PART_REASON),
    )
    for path in (parts[0], parts[1], f"{parts[1]}/x"):
        with pytest.raises(Unreadable, match="a download fills it"):
            scan(path, DevicePaths(parts))


# -- folders that may be passed -----------------------------------------------------------------


def as_another_user(work: Callable[[], str]) -> str:
    """The result of ``work`` in a process without rights; all modules that it needs are loaded."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(writer, work().encode())
        except BaseException as error:
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        said = told.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
@pytest.mark.parametrize("mode", [0o711, 0o511])
def test_a_file_in_a_folder_that_may_be_passed_but_not_listed_is_shared(mode: int) -> None:
    def work() -> str:
        with pytest.raises(PermissionError):
            os.listdir(root)
        found = sharing.digest(str(root / "sub" / "film"))
        content = SharedContent(found.manifest, found.place, HandleCache())
        content.check()
        content.recheck()
        return bytes(content.read_run(0, 1)).decode()

    root = Path(tempfile.mkdtemp())  # where others can come to, unlike to a folder of pytest's
    try:
        make(root, "sub/film")
        (root / "sub").chmod(mode)
        root.chmod(mode)
        assert as_another_user(work) == "sub/film"
    finally:
        shutil.rmtree(root)


# -- times --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time_s", "kept"),
    [
        (5, 5 * 10**9),
        (0, 0),
        (-1, 0),
        (-(1 << 33), 0),
        (32503680000, TIME_MAX),
        (1 << 40, TIME_MAX),
    ],
)
def test_any_time_is_shared_as_one_that_can_be_kept(tmp_path: Path, time_s: int, kept: int) -> None:
    root = make(tmp_path / "in", "a/b")
    for path in (root / "a" / "b", root / "a", root):
        os.utime(path, (time_s, time_s))
    if root.stat().st_mtime != time_s:
        pytest.skip("this file system does not hold such a time")
    found = scan(str(root))
    assert found.times == (kept,) * 3
    content = sharing.digest(str(root))
    handles = HandleCache()
    SharedContent(content.manifest, content.place, handles).check()
    handles.close()


def test_times_are_those_of_entries_and_then_of_folders(tmp_path: Path) -> None:
    root = make(tmp_path / "in", "a", "b/c/d", "e/f")
    (root / "empty").mkdir()
    order = ["a", "b/c/d", "e/f", "empty", "", "b", "b/c", "e"]
    for number, name in sorted(enumerate(order, 1), reverse=True):
        os.utime(root / name, ns=(number, number))
    found = scan(str(root))
    assert found.times == tuple(range(1, 9))
    assert [entry.path for entry in found.entries] == order[:4]
    assert list(folders_of(found.entries)) == order[4:]
