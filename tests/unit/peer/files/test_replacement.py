"""Replacement of what stands under the final name of a download."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import StorageError
from peer.files import open_part, replacement, sharing, syscalls
from peer.files.errors import AlreadyExists, ContentChanged, UnsafeDestination
from peer.files.part_resources import Fit
from peer.files.replacement import Replaces
from tests.support.partial_downloads import Sample, listing, snapshot

pytestmark = pytest.mark.usefixtures("no_leaks")


class Ended(BaseException):
    """The end of the process."""


def old_file(place: Path) -> None:
    place.write_bytes(b"old")


def old_folder(place: Path) -> None:
    """An earlier state of the folder sample, and two files of its user in it."""
    (place / "sub" / "sub").mkdir(parents=True)
    (place / "a").write_bytes(b"old")
    (place / "sub" / "sub" / "00").write_bytes(b"old")
    (place / "sub" / "notes").write_bytes(b"mine")
    (place / "void").symlink_to("/nonexistent")


def replaced(sample: Sample, place: Path) -> str | None:
    """Download to ``place``, replacing what is there; return what is kept."""
    part = sample.begin(place, fit=Fit(Replaces()))
    sample.fill(part)
    before = snapshot(place)
    part.checkpoint()
    assert snapshot(place) == before  # usable until the end
    part.finalize()
    part.close()
    assert snapshot(place) == snapshot(sample.source)
    return part.kept


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("old", [old_file, old_folder])
def test_the_new_content_takes_the_place_of_the_old(
    old: Callable[[Path], None],
    exchanges: bool,
    sample: Sample,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not exchanges:
        monkeypatch.setattr(syscalls, "exchange", unsupported)
    old(place)
    kept = replaced(sample, place)
    aside = place.with_name("name.old")
    if old is old_file:
        assert (kept, listing(place)) == (None, {"name"})
        return
    assert kept == str(aside)
    assert listing(place) == {"name", "name.old"}
    left = {path for path in snapshot(aside) if (aside / path).is_symlink() or "." not in path}
    if sample.manifest.is_folder:
        assert left == {"sub", "sub/notes", "void"}
    else:
        assert left == {"a", "sub", "sub/sub", "sub/sub/00", "sub/notes", "void"}
    assert (aside / "sub" / "notes").read_bytes() == b"mine"


def unsupported(*_: Any) -> None:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def test_nothing_is_kept_of_a_folder_with_the_same_files(
    folder_sample: Sample, place: Path
) -> None:
    for entry in folder_sample.manifest.entries:
        path = place / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.kind.name != "FOLDER":
            path.write_bytes(b"old")
    assert replaced(folder_sample, place) is None
    assert listing(place) == {"name"}


def test_a_kept_folder_takes_no_name_in_use(folder_sample: Sample, place: Path) -> None:
    old_folder(place)
    place.with_name("name.old").write_bytes(b"mine")
    assert replaced(folder_sample, place) == str(place.with_name("name.old-2"))
    assert place.with_name("name.old").read_bytes() == b"mine"


def test_files_of_an_earlier_content_are_not_kept(
    folder_sample: Sample, place: Path, tmp_path: Path
) -> None:
    earlier = tmp_path / "earlier"
    (earlier / "gone").mkdir(parents=True)
    (earlier / "gone" / "file").write_bytes(b"old")
    manifest = sharing.digest(str(earlier)).manifest
    (place / "gone").mkdir(parents=True)
    (place / "gone" / "file").write_bytes(b"old")
    part = folder_sample.begin(place, fit=Fit(Replaces((manifest,))))
    folder_sample.fill(part)
    part.finalize()
    part.close()
    assert part.kept is None
    assert listing(place) == {"name"}


STEPS = ("rename_no_replace", "exchange")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", range(4))
@pytest.mark.parametrize("exchanges", [True, False])
def test_f121_a_process_that_ends_during_a_replacement_leaves_old_or_new(
    exchanges: bool,
    call: int,
    after: bool,
    folder_sample: Sample,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process ends before or after each system call that renames."""
    old_folder(place)
    old = snapshot(place)
    new = snapshot(folder_sample.source)
    part = folder_sample.begin(place, fit=Fit(Replaces()))
    folder_sample.fill(part)
    left = [call]
    with monkeypatch.context() as patched:
        for step in STEPS:
            real = getattr(syscalls, step)
            if step == "exchange" and not exchanges:
                real = unsupported
            patched.setattr(syscalls, step, ending(real, left, after))
        ended = False
        try:
            part.finalize()
        except Ended:
            ended = True
        part.close()
    assert ended == (left[0] < 0)
    if exchanges:
        assert snapshot(place) in (old, new)
    else:
        assert place.exists() or snapshot(place.with_name("name.replaced")) == old
    # The next process does what the lifecycle of a download does.
    finish(folder_sample, place)
    assert snapshot(place) == new
    aside = place.with_name("name.old")
    assert listing(place) - {"journal"} == {"name", "name.old"}
    assert (aside / "sub" / "notes").read_bytes() == b"mine"


def ending(real: Callable[..., Any], left: list[int], after: bool) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0 and not after:
            raise Ended
        result = real(*arguments)
        if left[0] < 0:
            raise Ended
        return result

    return call


def finish(sample: Sample, place: Path, replaces: Replaces = Replaces()) -> None:  # noqa: B008
    try:
        part = open_resumed(sample, place, replaces, anew=False)
    except AlreadyExists:
        try:
            sharing.recheck(sample.manifest, str(place))
        except ContentChanged:
            part = open_resumed(sample, place, replaces, anew=True)
        else:
            open_part.remove_replaced(str(place), (sample.manifest, *replaces.known))
            return
    sample.fill(part, sample.missing(part))
    part.finalize()
    part.close()


def open_resumed(sample: Sample, place: Path, replaces: Replaces, *, anew: bool) -> Any:
    journal = str(place.parent / "journal")
    part = open_part.resume(
        str(place), sample.manifest, sample.id, journal, fit=Fit(replaces), anew=anew
    )
    return part.recover()


@pytest.mark.parametrize("kind", ["link", "fifo", "home", "home inside", "own home", "meanwhile"])
def test_h127_links_special_files_and_homes_are_never_replaced(
    kind: str, place: Path, tmp_path: Path
) -> None:
    own: list[str] = []
    match kind:
        case "link":
            place.symlink_to(tmp_path)
        case "fifo":
            os.mkfifo(place)
        case "home" | "home inside":
            home = place if kind == "home" else place.parent
            for name in ("shares", "downloads", "manifests", "journals"):
                (home / name).mkdir(parents=True)
            place.mkdir(exist_ok=True)
        case "own home":
            (place / "deep" / "home").mkdir(parents=True)
            own.append(str(place / "deep" / "home"))
        case "meanwhile":
            place.write_bytes(b"old")
            place.with_name("name.replaced").write_bytes(b"mine")
    before = snapshot(place.parent)
    with pytest.raises((UnsafeDestination, AlreadyExists)):
        open_part.require_replaceable(str(place), own)
    assert snapshot(place.parent) == before


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_h127_a_link_that_appears_during_the_download_is_not_followed(
    kind: str, sample: Sample, place: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "a").write_bytes(b"precious")
    part = sample.begin(place, fit=Fit(Replaces()))
    sample.fill(part)
    if kind == "link":
        place.symlink_to(victim)
    else:
        os.mkfifo(place)
    with pytest.raises(StorageError):
        part.finalize()
    part.close()
    assert (victim / "a").read_bytes() == b"precious"
    assert listing(place) >= {"name", "name.part"}


def test_h127_links_in_a_replaced_folder_lead_nowhere(
    folder_sample: Sample, place: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    (victim / "sub").mkdir(parents=True)
    (victim / "sub" / "00").write_bytes(b"precious")
    place.mkdir()
    (place / "sub").symlink_to(victim)
    (place / "a").symlink_to(victim / "sub" / "00")
    assert replaced(folder_sample, place) == str(place.with_name("name.old"))
    assert (victim / "sub" / "00").read_bytes() == b"precious"
    assert set(os.listdir(place.with_name("name.old"))) == {"a", "sub"}


def test_an_old_folder_that_cannot_be_removed_is_kept(
    file_sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise StorageError("no")

    old_folder(place)
    monkeypatch.setattr(replacement, "_keep", fail)
    assert replaced(file_sample, place) == str(place.with_name("name.replaced"))


# -- an earlier version -------------------------------------------------------------------------


def earlier(sample: Sample, place: Path) -> Replaces:
    """An earlier version of the sample at ``place``, and the permission to replace it."""
    shutil.copytree(sample.source, place)
    (place / "big").write_bytes(b"another size")
    (place / "gone").write_bytes(b"only in the earlier version")
    found = sharing.digest(str(place))
    return Replaces((found.manifest,), replacement.looks_of(found.place))


def test_an_earlier_version_is_replaced_as_a_whole(folder_sample: Sample, place: Path) -> None:
    part = folder_sample.begin(place, fit=Fit(earlier(folder_sample, place)))
    folder_sample.fill(part)
    part.finalize()
    part.close()
    assert part.kept is None
    assert snapshot(place) == snapshot(folder_sample.source)
    assert listing(place) == {"name"}


@pytest.mark.parametrize("change", ["edit", "touch", "remove"])
def test_an_earlier_version_that_was_changed_meanwhile_stays(
    folder_sample: Sample, place: Path, change: str
) -> None:
    part = folder_sample.begin(place, fit=Fit(earlier(folder_sample, place)))
    folder_sample.fill(part)
    if change == "edit":
        (place / "big").write_bytes(b"another word")
    elif change == "touch":
        os.utime(place / "big")
    else:
        (place / "gone").unlink()
    before = snapshot(place)
    with pytest.raises(AlreadyExists, match="was changed while its new version was fetched"):
        part.finalize()
    assert snapshot(place) == before
    assert listing(place) == {"name", "name.part", "journal"}
    # Once it is out of the way, the download ends.
    place.rename(place.parent / "mine")
    part.finalize()
    part.close()
    assert snapshot(place) == snapshot(folder_sample.source)


def test_a_file_of_the_user_in_an_earlier_version_is_kept(
    folder_sample: Sample, place: Path
) -> None:
    replaces = earlier(folder_sample, place)
    (place / "notes").write_bytes(b"mine")
    part = folder_sample.begin(place, fit=Fit(replaces))
    folder_sample.fill(part)
    part.finalize()
    part.close()
    assert part.kept is not None
    assert (Path(part.kept) / "notes").read_bytes() == b"mine"
    assert os.listdir(part.kept) == ["notes"]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", range(3))
def test_f106_a_process_that_ends_while_an_earlier_version_is_replaced_leaves_old_or_new(
    call: int,
    after: bool,
    folder_sample: Sample,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replaces = earlier(folder_sample, place)
    old, new = snapshot(place), snapshot(folder_sample.source)
    part = folder_sample.begin(place, fit=Fit(replaces))
    folder_sample.fill(part)
    left = [call]
    with monkeypatch.context() as patched, contextlib.suppress(Ended):
        for step in STEPS:
            patched.setattr(syscalls, step, ending(getattr(syscalls, step), left, after))
        part.finalize()
    part.close()
    assert snapshot(place) in (old, new)
    finish(folder_sample, place, replaces)
    assert snapshot(place) == new
    assert listing(place) - {"journal"} == {"name"}
