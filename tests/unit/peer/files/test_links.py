"""Links in a shared folder: refused, left out, or followed to bounded targets; what is excluded."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.manifest import EntryKind
from peer.files import link_targets, scanning, sharing
from peer.files.errors import Away, ContentChanged, Unreadable
from peer.files.library import SharedContent
from peer.files.open_files import HandleCache
from peer.files.scan_problems import Typed
from peer.files.scanning import DevicePaths, Scan, scan
from peer.files.sharing_rule import SKIPPED_MAX, SharingRule, rule_of
from tests.support.data_paths import module_on_both_paths
from tests.unit.peer.files.test_scanning import make, peer_home

pytestmark = module_on_both_paths

FOLLOW = SharingRule("follow")


def following(*roots: Path, skip: bool = False) -> SharingRule:
    return rule_of("follow", [str(root) for root in roots], [], skip)


def paths_of(found: Scan) -> list[str]:
    return [entry.path for entry in found.entries]


def shared(root: Path, rule: SharingRule) -> SharedContent:
    digested = sharing.digest_scanned(scan(str(root), DevicePaths(), rule))
    return SharedContent(digested.manifest, digested.place, HandleCache())


def content_of(root: Path, rule: SharingRule) -> bytes:
    content = shared(root, rule)
    content.check()
    return bytes(content.read_run(0, content.manifest.piece_count))


def model_cache(tmp_path: Path) -> tuple[Path, Path]:
    """A cache of Hugging Face: blobs, and a snapshot of links to them."""
    model = tmp_path / "hub" / "models--org--tiny"
    snapshot = model / "snapshots" / ("0" * 40)
    make(model, "blobs/aa", "blobs/bb", "refs/main")
    (snapshot / "onnx").mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../blobs/aa")
    (snapshot / "onnx" / "model.onnx").symlink_to("../../../blobs/bb")
    return model, snapshot


# -- following ----------------------------------------------------------------------------------


def test_a_model_cache_is_shared_as_plain_files(tmp_path: Path) -> None:
    model, snapshot = model_cache(tmp_path)
    with pytest.raises(Unreadable, match="symbolic link") as refused:
        scan(str(snapshot), typed=Typed("lab"))
    assert f"upload-file --links follow {snapshot} lab" in str(refused.value.hint)
    with pytest.raises(Unreadable, match="out of the shared folder") as refused:
        scan(str(snapshot), DevicePaths(), FOLLOW, Typed("lab", ("--name", "tiny")))
    line = f"--name tiny --links follow --link-root {model / 'blobs'} {snapshot} lab"
    assert line in str(refused.value.hint)
    for root in (model, model / "blobs", tmp_path):
        found = scan(str(snapshot), DevicePaths(), following(root))
        assert paths_of(found) == ["model.safetensors", "onnx/model.onnx"]
        assert not found.delicate
        assert content_of(snapshot, following(root)) == b"blobs/aablobs/bb"


def test_links_to_links_and_to_folders_are_followed(tmp_path: Path) -> None:
    root = make(tmp_path / "in", "a/x", "a/deep/y")
    (root / "b").symlink_to("c")
    (root / "c").symlink_to("a/../a")
    (root / "d").symlink_to(root / "a" / "x")
    found = scan(str(root), DevicePaths(), FOLLOW)
    assert paths_of(found) == ["a/deep/y", "a/x", "b/deep/y", "b/x", "c/deep/y", "c/x", "d"]
    assert {entry.kind for entry in found.entries} == {EntryKind.FILE}
    assert len(found.times) == len(found.entries) + 7  # the folders among them
    assert content_of(root, FOLLOW) == b"a/deep/ya/x" * 3 + b"a/x"


def test_a_followed_link_may_lead_elsewhere_later(tmp_path: Path) -> None:
    root = make(tmp_path / "in", "blobs/one", "blobs/two")
    (root / "blobs" / "two").write_bytes((root / "blobs" / "one").read_bytes())
    link = root / "now"
    link.symlink_to("blobs/one")
    content = shared(root, FOLLOW)
    link.unlink()
    link.symlink_to("blobs/two")
    with pytest.raises(ContentChanged):
        content.check()
    content.recheck()  # the bytes are the same
    content.check()
    (root / "blobs" / "two").write_bytes(b"changed")
    with pytest.raises(ContentChanged):
        content.check()
    with pytest.raises(ContentChanged):
        content.recheck()


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "../in2/x", "a/../../outside"])
def test_h120_a_target_outside_is_refused(tmp_path: Path, target: str) -> None:
    make(tmp_path, "outside", "in2/x", "in/a/x")
    root = tmp_path / "in"
    (root / "link").symlink_to(target)
    with pytest.raises(Unreadable, match="leads out of the shared folder"):
        scan(str(root), DevicePaths(), FOLLOW)
    found = scan(str(root), DevicePaths(), following(skip=True))
    assert paths_of(found) == ["a/x"]
    assert [one.path for one in found.skipped] == ["link"]


def test_h120_a_folder_of_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "in", "a/x")
    make(tmp_path / "out", "x")
    (root / "b").symlink_to(tmp_path / "out")
    (root / "c").symlink_to("b/x")
    with pytest.raises(Unreadable, match="2 problems"):
        scan(str(root), DevicePaths(), FOLLOW)
    found = scan(str(root), DevicePaths(), following(tmp_path / "out"))
    assert paths_of(found) == ["a/x", "b/x", "c"]


@pytest.mark.parametrize("kind", ["file", "folder on the way"])
def test_h120_a_link_that_changes_after_the_check_gives_nothing_away(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst moment: between the lookup of a target and its opening."""
    secret = make(tmp_path / "out", "sub/blob") / "sub" / "blob"
    root = make(tmp_path / "in", "sub/blob")
    (root / "link").symlink_to("sub/blob")
    content = shared(root, FOLLOW)
    looked_up = link_targets.real_target

    def swapped(path: str, roots: object) -> str:
        real = looked_up(path, roots)  # type: ignore[arg-type]
        if kind == "file":
            (root / "sub" / "blob").unlink()
            (root / "sub" / "blob").symlink_to(secret)
        else:
            shutil.rmtree(root / "sub")
            (root / "sub").symlink_to(secret.parent)
        return real

    monkeypatch.setattr(link_targets, "real_target", swapped)
    for look in (lambda: content.read_run(0, 1), content.check, content.recheck):
        with pytest.raises(ContentChanged):
            look()
        monkeypatch.undo()  # it stays as it was swapped


def test_h120_homes_keys_and_parts_are_not_shared_by_links(tmp_path: Path) -> None:
    home = peer_home(tmp_path / "home")
    root = make(tmp_path / "in", "good")
    make(tmp_path, "film.part", "album.part/x")
    here = DevicePaths((str(tmp_path / "film.part"), str(tmp_path / "album.part")), (str(home),))
    (tmp_path / "copy").write_bytes((home / "device.key").read_bytes())
    targets = {"key": home / "device.key", "all": home, "record": home / "shares" / "one.record"}
    for name, target in {**targets, "copy": tmp_path / "copy"}.items():
        (root / "link").symlink_to(target)
        with pytest.raises(Unreadable, match=r"secret key") as refused:
            scan(str(root), here, following(tmp_path))
        assert "link" in refused.value.message, name
        found = scan(str(root), here, following(tmp_path, skip=True))
        assert paths_of(found) == ["good"]
        (root / "link").unlink()
    for part in (tmp_path / "film.part", tmp_path / "album.part", tmp_path / "album.part" / "x"):
        (root / "link").symlink_to(part)
        found = scan(str(root), here, following(tmp_path))
        assert paths_of(found) == ["good"]
        assert [one.reason for one in found.skipped] == [scanning.PART_REASON]
        (root / "link").unlink()


def test_h120_hidden_and_private_targets_are_asked_about(tmp_path: Path) -> None:
    root = make(tmp_path / "in", "good")
    outside = make(tmp_path / "out", ".ssh/config", "key", ".env", "closed/x", "open/x")
    (outside / "key").chmod(0o600)
    (outside / "closed").chmod(0o700)
    for number, name in enumerate((".ssh/config", "key", ".env", "closed/x", "open/x")):
        (root / f"link{number}").symlink_to(outside / name)
    delicate = scan(str(root), DevicePaths(), following(outside)).delicate
    assert (delicate.hidden, delicate.private) == (2, 2)
    assert set(delicate.named) == {"link0", "link1", "link2", "link3"}


# -- loops --------------------------------------------------------------------------------------


def test_h121_loops_and_dangling_links_are_named(tmp_path: Path) -> None:
    root = make(tmp_path / "in", "sub/x")
    (root / "self").symlink_to("self")
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    (root / "sub" / "up").symlink_to("..")
    (root / "sub" / "here").symlink_to(".")
    (root / "gone").symlink_to("nowhere")
    with pytest.raises(Unreadable) as refused:
        scan(str(root), DevicePaths(), FOLLOW)
    for said in ("6 problems", "form a loop", "a folder that holds it", "a link to nothing"):
        assert said in refused.value.message
    found = scan(str(root), DevicePaths(), following(skip=True))
    assert paths_of(found) == ["sub/x"]
    assert sorted(one.path for one in found.skipped) == [
        "gone", "one", "self", "sub/here", "sub/up", "two",
    ]  # fmt: skip


def test_h121_links_that_multiply_folders_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each folder twice in the one above: 2^40 files of forty links."""
    monkeypatch.setattr(scanning, "FOLLOWED_MAX", 300)
    root = make(tmp_path / "in", "40/x")
    for depth in range(40):
        for name in ("a", "b"):
            (root / f"{depth}").mkdir(exist_ok=True)
            (root / f"{depth}" / name).symlink_to(f"../{depth + 1}")
    for rule in (FOLLOW, SharingRule("follow", exclude=("x",))):
        with pytest.raises(ConfigError, match="more than"):
            scan(str(root), DevicePaths(), rule)


def test_h121_a_chain_of_thousands_of_links_is_an_error_like_others(tmp_path: Path) -> None:
    root = make(tmp_path / "in", "0")
    for number in range(1_000):
        (root / f"{number + 1}").symlink_to(f"{number}")
    found = scan(str(root), DevicePaths(), following(skip=True))
    assert len(found.entries) + len(found.skipped) + found.unnamed == 1_001
    assert {one.reason for one in found.skipped} <= {"one of the links that form a loop"}


# -- leaving out --------------------------------------------------------------------------------


def test_links_can_be_left_out(tmp_path: Path) -> None:
    root = make(tmp_path / "in", "a", "sub/b")
    (root / "sub" / "link").symlink_to("/etc/passwd")
    found = scan(str(root), DevicePaths(), SharingRule("skip"))
    assert paths_of(found) == ["a", "sub/b"]
    assert found.skipped == (("sub/link", "a symbolic link"),)


def test_everything_that_cannot_be_shared_can_be_left_out(tmp_path: Path) -> None:
    root = make(tmp_path / "in", "a", "bad\x1b[2J", "in\n/x", "only/link")
    (root / "only" / "link").unlink()
    (root / "only" / "link").symlink_to("../a")
    os.mkfifo(root / "fifo")
    peer_home(root / "home")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(root / "socket"))
    rule = SharingRule(skip=True)
    found = scan(str(root), DevicePaths(), rule)
    assert paths_of(found) == ["a"]
    reasons = dict(found.skipped)
    assert reasons["fifo"] == "a FIFO"
    assert reasons["socket"] == "a socket"
    assert reasons["only/link"] == "a symbolic link"
    assert "the home of a peer" in reasons["home/"]
    assert {"bad\x1b[2J/", "in\n/"} & set(reasons) or len(reasons) == 6
    (root / "a").unlink()
    with pytest.raises(Unreadable, match="nothing of it can be shared"):
        scan(str(root), DevicePaths(), rule)
    with pytest.raises(Unreadable):
        scan(str(root / "fifo"), DevicePaths(), rule)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files_can_be_left_out(tmp_path: Path) -> None:
    root = make(tmp_path / "in", "a", "b", "c/x")
    (root / "b").chmod(0)
    (root / "c").chmod(0)
    found = scan(str(root), DevicePaths(), SharingRule(skip=True))
    assert found.skipped == (("b", "Permission denied"), ("c/", "Permission denied"))


def test_the_list_of_what_is_left_out_is_bounded(tmp_path: Path) -> None:
    root = make(tmp_path / "in", "z")
    for number in range(SKIPPED_MAX + 7):
        (root / f"{number}").symlink_to("z")
    found = scan(str(root), DevicePaths(), SharingRule("skip"))
    assert (len(found.skipped), found.unnamed) == (SKIPPED_MAX, 7)


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["*.pyc"], ["README", "build/out/x", "src/a.py", "src/build/y"]),
        (["/build/"], ["README", "src/a.py", "src/a.pyc", "src/build/y"]),
        (["build/"], ["README", "src/a.py", "src/a.pyc"]),
        (["src/**", "!src/a.py"], ["README", "build/out/x", "src/a.py"]),
        (["*", "!README"], ["README"]),
        (["\\#x"], ["README", "build/out/x", "src/a.py", "src/a.pyc", "src/build/y"]),
    ],
)
def test_patterns_exclude_as_in_a_gitignore(
    tmp_path: Path, patterns: list[str], left: list[str]
) -> None:
    root = make(
        tmp_path / "in", "README", "build/out/x", "src/a.py", "src/a.pyc", "src/build/y", "#x"
    )
    if "\\#x" not in patterns:
        (root / "#x").unlink()
    found = scan(str(root), DevicePaths(), rule_of("refuse", [], patterns, False))
    assert paths_of(found) == left
    assert found.excluded > 0
    assert not found.skipped


@pytest.mark.skipif(shutil.which("git") is None, reason="git is needed")
def test_patterns_exclude_as_git_does(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    root = tmp_path / "in"
    subprocess.run(["git", "init", "-q", root], check=True)
    folders, names = ("a", "b", "src", "build"), ("a1", "b1", "src1", "build1", "x.py", "x.pyc")
    for _ in range(60):
        parts = [rng.choice(folders) for _ in range(rng.randrange(3))]
        make(root, "/".join([*parts, rng.choice(names)]))
    words = ("a", "b", "src", "build", "*", "**", "*.py", "*.pyc", "x*", "?", "[ab]", "x.py")
    for _ in range(60):
        patterns = [
            rng.choice(("", "", "!"))
            + rng.choice(("", "", "/"))
            + "/".join(rng.choice(words) for _ in range(rng.randrange(1, 4)))
            + rng.choice(("", "", "/"))
            for _ in range(rng.randrange(1, 5))
        ]
        (root / ".git" / "info" / "exclude").write_text("\n".join(patterns) + "\n")
        listing = ["git", "-C", root, "ls-files", "-z", "-o", "--exclude-standard"]
        kept = subprocess.run(listing, capture_output=True, check=True, text=True).stdout
        rule = rule_of("refuse", [], [*patterns, "/.git/"], False)
        try:
            found = set(paths_of(scan(str(root), DevicePaths(), rule)))
        except Unreadable:
            found = set()  # everything is excluded
        assert found == set(filter(None, kept.split("\0"))), patterns


def test_excluded_entries_are_no_problem(tmp_path: Path) -> None:
    root = make(tmp_path / "in", "a", ".git/config")
    os.mkfifo(root / ".git" / "fifo")
    (root / "link").symlink_to("nowhere")
    found = scan(str(root), DevicePaths(), SharingRule(exclude=(".git", "link")))
    assert paths_of(found) == ["a"]
    assert not found.delicate
    with pytest.raises(Unreadable, match="excluded"):
        scan(str(root), DevicePaths(), SharingRule(exclude=("*",)))


@pytest.mark.parametrize("pattern", ["", "  ", "#comment", "!"])
def test_patterns_that_match_nothing_are_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="exclude"):
        rule_of("refuse", [], [pattern], False)


def test_a_root_is_a_folder_and_needs_links_that_are_followed(tmp_path: Path) -> None:
    make(tmp_path, "file")
    for root in (tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(Unreadable, match="not a folder"):
            rule_of("follow", [str(root)], [], False)
    with pytest.raises(ConfigError, match="followed"):
        rule_of("skip", [str(tmp_path)], [], False)
    with pytest.raises(ConfigError, match="links cannot be"):
        rule_of("chase", [], [], False)


# -- disks that go and come back ----------------------------------------------------------------


def test_f118_a_root_of_targets_that_is_away_is_no_change(tmp_path: Path) -> None:
    model, snapshot = model_cache(tmp_path)
    content = shared(snapshot, following(model / "blobs"))
    (model / "blobs").rename(model / "detached")
    content.close()
    for look in (content.check, content.recheck):
        with pytest.raises(Away, match="cannot be reached"):
            look()
    (model / "blobs").mkdir()  # the empty mount point
    with pytest.raises(Away, match="another folder"):
        content.check()
    (model / "blobs").rmdir()
    (model / "detached").rename(model / "blobs")
    content.check()
    (model / "blobs" / "aa").unlink()
    with pytest.raises(ContentChanged):
        content.check()
