"""Traps at the destination of a download: nothing is written outside of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.attackers import PIECE, AttackSwarm
from tests.support.faults import frozen
from tests.support.waiting import wait_for

VICTIM = b"what the user had before"


def _fifo(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def _link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def _dangling_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("not there yet"))


def _link_to_folder(path: Path, victim: Path) -> None:
    path.symlink_to(victim.parent)


def _hard_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


def _device(path: Path, victim: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to make a device")
    try:
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 250))
    except PermissionError:
        pytest.skip("needs the right to make a device")


def _socket(path: Path, victim: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


PLANTED = [_fifo, _link, _dangling_link, _hard_link, _device, _socket]


class Outside:
    """A folder with what must stay as it is, beside the one that is downloaded into."""

    def __init__(self, arena: AttackSwarm) -> None:
        root = arena.swarm.folder()
        self.folder = root / "outside"
        self.inside = root / "inside"
        self.folder.mkdir()
        self.inside.mkdir()
        self.victim = self.folder / "victim"
        self.victim.write_bytes(VICTIM)

    def is_untouched(self) -> bool:
        assert self.victim.read_bytes() == VICTIM
        assert os.listdir(self.folder) == ["victim"]
        return True


@pytest.fixture
def outside(arena: AttackSwarm) -> Outside:
    return Outside(arena)


@pytest.fixture
def group(arena: AttackSwarm) -> str:
    made = arena.group()
    arena.alice.let_in(made, arena.bob)
    return made


@pytest.mark.parametrize("plant", PLANTED)
@pytest.mark.parametrize("suffix", ["", ".part"])
def test_h30_a_destination_that_is_no_free_place_is_refused(
    arena: AttackSwarm,
    outside: Outside,
    group: str,
    plant: Callable[[Path, Path], None],
    suffix: str,
) -> None:
    shared = arena.shared(group)
    place = outside.inside / (shared.name + suffix)
    plant(place, outside.victim)
    before = os.lstat(place)
    arena.bob.refused("download-file", group, shared.name, outside.inside)
    assert outside.is_untouched()
    after = os.lstat(place)
    assert (before.st_ino, before.st_mode, before.st_size) == (
        after.st_ino,
        after.st_mode,
        after.st_size,
    )
    assert os.listdir(outside.inside) == [place.name]


def _wait_until_ended(arena: AttackSwarm, group: str, name: str) -> str:
    return wait_for(
        lambda: arena.bob.state_of(group, name),
        "the end",
        until=lambda state: state in ("complete", "failed", "paused"),
    )


@pytest.mark.parametrize("plant", [_link, _dangling_link, _link_to_folder, _hard_link, _fifo])
@pytest.mark.parametrize("suffix", ["", ".part"])
def test_h29_a_link_planted_during_a_download_leads_nowhere(
    arena: AttackSwarm,
    outside: Outside,
    group: str,
    plant: Callable[[Path, Path], None],
    suffix: str,
) -> None:
    shared = arena.shared(group, pieces=16)
    with frozen(arena.alice.pid):
        arena.bob.ok("download-file", group, shared.name, outside.inside, "--no-wait")
        part = outside.inside / f"{shared.name}.part"
        assert part.exists()
        place = outside.inside / (shared.name + suffix)
        if place == part:
            part.rename(outside.inside / "moved away")
        plant(place, outside.victim)
    state = _wait_until_ended(arena, group, shared.name)
    assert outside.is_untouched()
    if state == "complete":  # under another name than the one that was taken
        whole = Path(arena.bob.downloads()[group, shared.name]["path"])
        assert whole.is_file()
        assert not whole.is_symlink()
        assert whole.read_bytes() == shared.bytes


@pytest.mark.parametrize("at", ["a", "a/b"])
def test_h29_a_folder_that_becomes_a_link_while_it_is_filled(
    arena: AttackSwarm, outside: Outside, group: str, at: str
) -> None:
    tree = arena.swarm.folder() / arena.swarm.fresh("tree")
    for name in ("a/b/one", "a/b/two", "a/three", "four"):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(3 * PIECE))
    arena.alice.share(tree, group, "--piece-size", str(PIECE))
    with frozen(arena.alice.pid):
        arena.bob.ok("download-file", group, tree.name, outside.inside, "--no-wait")
        part = outside.inside / f"{tree.name}.part"
        assert part.is_dir()
        place = part / at
        if place.exists():
            place.rename(part / "moved away")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(outside.folder)
    _wait_until_ended(arena, group, tree.name)
    assert outside.is_untouched()
