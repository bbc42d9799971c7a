"""F127, H130: contents that are moved to another place on this device."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from common.errors import IntegrityError, StorageError
from common.ids import ContentId
from peer.background_tasks import BackgroundTasks
from peer.files import moving
from peer.files.errors import AlreadyExists, Cancelled, ContentChanged
from peer.files.source_files import SourceFiles
from peer.records import Manifests, Records
from peer.shares.moving import Movable, Moves
from tests.support.peer_fakes import until
from tests.support.waiting import PATIENCE_S
from tests.unit.peer.shares.test_manager import ALICE, Town

DONE, ENDED = 7, 9
DATA = b"reel" * 50_000


async def moves_of(town: Town) -> Moves:
    async def downloads_moved(path: str, target: str) -> None:
        town.notices.append(f"{path} -> {target}")

    return Moves(
        town.home,
        town.shares.moving,
        Manifests(town.home / "manifests"),
        town.workers,
        downloads_moved,
        town.notices.append,
        BackgroundTasks(),
    )


def movable(town: Town) -> Movable:
    (record,) = town.shares.records_in("films")
    return Movable(ContentId(record.content), record.place.path, record.place.fingerprints)


async def shared(town: Town, kind: str) -> Path:
    path = town.files / "film"
    if kind == "file":
        await town.share("film", data=DATA)
        return path
    (path / "sub" / "empty").mkdir(parents=True)
    (path / "sub" / "reel").write_bytes(DATA)
    os.link(path / "sub" / "reel", path / "again")
    (path / "zeros").write_bytes(bytes(3 << 20))
    await town.upload(path)
    return path


def contents(path: Path) -> Any:
    if path.is_file():
        return path.read_bytes()
    return {
        str(each.relative_to(path)): each.read_bytes() if each.is_file() else None
        for each in path.rglob("*")
    }


def piece_of(town: Town) -> bytes:
    """The first piece, as it is served."""
    (content,) = town.shares.contents()
    served = town.inventory.get(ContentId(content))
    assert served is not None
    return bytes(served.reader.read_run(0, 1))


@pytest.fixture(params=[False, True], ids=["rename", "copy"])
def across(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the target seems to be on another file system."""
    if request.param:
        monkeypatch.setattr(moving, "rename", lambda former, target: False)
    return bool(request.param)


@pytest.mark.parametrize("kind", ["file", "folder"])
async def test_a_share_is_served_from_its_new_place(kind: str, across: bool, town: Town) -> None:
    path = await shared(town, kind)
    before, piece = contents(path), piece_of(town)
    status = (path if kind == "file" else path / "zeros").stat()
    moves = await moves_of(town)
    target = town.files / "new" / "place"
    moved = await moves.move(movable(town), str(target), lambda progress: None)
    assert (moved.path, moved.left) == (str(target), False)
    assert contents(target) == before
    assert not path.exists()
    now = (target if kind == "file" else target / "zeros").stat()
    assert (now.st_mode, now.st_mtime_ns) == (status.st_mode, status.st_mtime_ns)
    assert now.st_blocks <= status.st_blocks
    assert piece_of(town) == piece
    assert movable(town).path == str(target)
    assert town.notices == [f"{path} -> {target}"]
    assert os.listdir(town.home / "moves") == []
    # Into a folder it keeps its last name, and to where it is it need not go.
    for _ in range(2):
        moved = await moves.move(movable(town), str(town.files), lambda progress: None)
        assert moved.path == str(town.files / "place")
    town.end()
    town.start()
    await town.shares.activate(ALICE)
    await until(town.served, "that it is served after a restart")
    assert piece_of(town) == piece


async def test_other_files_in_a_copied_folder_stay(
    monkeypatch: pytest.MonkeyPatch, town: Town
) -> None:
    monkeypatch.setattr(moving, "rename", lambda former, target: False)
    path = await shared(town, "folder")
    (path / "sub" / "mine").write_bytes(b"mine")
    moves = await moves_of(town)
    moved = await moves.move(movable(town), str(town.files / "new"), lambda progress: None)
    assert moved.left
    assert contents(path) == {"sub": None, "sub/mine": b"mine"}
    assert not (town.files / "new" / "sub" / "mine").exists()


async def test_reads_wait_for_a_rename(monkeypatch: pytest.MonkeyPatch, town: Town) -> None:
    await shared(town, "file")
    piece, rename, read = piece_of(town), moving.rename, SourceFiles.read
    found_changed, pool = threading.Event(), ThreadPoolExecutor(1)
    reading: list[Future[bytes]] = []

    def watched(files: SourceFiles, *span: int) -> Any:
        try:
            return read(files, *span)
        except ContentChanged:
            found_changed.set()
            raise

    def slow(former: str, target: str) -> bool:
        renamed = rename(former, target)
        reading.append(pool.submit(piece_of, town))
        assert found_changed.wait(PATIENCE_S)
        return renamed

    monkeypatch.setattr(SourceFiles, "read", watched)
    monkeypatch.setattr(moving, "rename", slow)
    moves = await moves_of(town)
    await moves.move(movable(town), str(town.files / "new"), lambda progress: None)
    assert await asyncio.wrap_future(reading[0]) == piece
    assert town.served()
    pool.shutdown()


# -- what is refused ----------------------------------------------------------------------------


async def refuses(town: Town, text: str, error: type[Exception], match: str) -> None:
    path = Path(movable(town).path)
    before = contents(path)
    moves = await moves_of(town)
    with pytest.raises(error, match=match):
        await moves.move(movable(town), text, lambda progress: None)
    assert contents(path) == before
    assert town.served()
    assert os.listdir(town.home / "moves") == []
    assert not list(town.files.rglob("*.part"))


async def test_nothing_is_overwritten_and_no_folder_moves_into_itself(
    across: bool, town: Town
) -> None:
    path = await shared(town, "folder")
    (town.files / "taken").write_bytes(b"mine")
    (town.files / "link").symlink_to(town.files / "nothing")
    (town.files / "full" / "film").mkdir(parents=True)
    for text in ("taken", "link", "full"):
        await refuses(town, str(town.files / text), StorageError, text)
    await refuses(town, f"{path}/sub/", StorageError, "lies within it")
    for name in ("downloads", "journals"):
        (town.home / name).mkdir()
    await refuses(town, str(town.home / "x"), StorageError, "home of this program")
    assert (town.files / "taken").read_bytes() == b"mine"


@pytest.mark.parametrize("step", ["rename", "publish_copy"])
async def test_h130_a_link_that_appears_at_the_target_stays(
    monkeypatch: pytest.MonkeyPatch, town: Town, step: str
) -> None:
    if step != "rename":
        monkeypatch.setattr(moving, "rename", lambda former, target: False)
    do = getattr(moving, step)

    await shared(town, "file")
    target = town.files / "target"

    def planted(*args: Any) -> Any:
        target.symlink_to(town.home / "device.key")
        return do(*args)

    monkeypatch.setattr(moving, step, planted)
    await refuses(town, str(target), AlreadyExists, "already there")
    assert target.is_symlink()
    assert not (town.home / "device.key").exists()


async def test_h130_a_link_in_the_place_of_a_folder_leads_nowhere(
    monkeypatch: pytest.MonkeyPatch, town: Town
) -> None:
    rename = moving.rename

    await shared(town, "file")
    (town.files / "folder").mkdir()
    (town.files / "elsewhere").mkdir()

    def redirected(former: str, target: str) -> bool:
        (town.files / "folder").rmdir()
        (town.files / "folder").symlink_to(town.files / "elsewhere")
        return rename(former, target)

    monkeypatch.setattr(moving, "rename", redirected)
    await refuses(town, str(town.files / "folder"), StorageError, "a link")
    assert os.listdir(town.files / "elsewhere") == []


async def test_h130_a_copy_that_was_tampered_with_is_no_copy(
    monkeypatch: pytest.MonkeyPatch, town: Town
) -> None:
    monkeypatch.setattr(moving, "rename", lambda former, target: False)
    copy = moving.copy

    await shared(town, "file")

    def tampered(manifest: Any, place: Any, target: str, *more: Any) -> None:
        copy(manifest, place, target, *more)
        part = Path(f"{target}.part")
        part.write_bytes(part.read_bytes()[:-1] + b"!")

    monkeypatch.setattr(moving, "copy", tampered)
    await refuses(town, str(town.files / "new"), IntegrityError, "does not verify")


async def test_a_changed_content_is_not_moved(town: Town) -> None:
    path = await shared(town, "file")
    os.utime(path)
    await refuses(town, str(town.files / "new"), ContentChanged, "changed since")


async def test_a_cancelled_copy_leaves_nothing(monkeypatch: pytest.MonkeyPatch, town: Town) -> None:
    monkeypatch.setattr(moving, "rename", lambda former, target: False)
    copy = moving.copy

    path = await shared(town, "file")
    moves, begun = await moves_of(town), asyncio.Event()
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def slow(*args: Any) -> None:
        loop.call_soon_threadsafe(begun.set)
        *most, cancelled = args
        while not cancelled():
            pass
        try:
            copy(*most, cancelled)
        except Cancelled:
            loop.call_soon_threadsafe(ended.set)
            raise

    monkeypatch.setattr(moving, "copy", slow)
    work = moves.move(movable(town), str(town.files / "a" / "new"), lambda progress: None)
    task = asyncio.create_task(work)
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ended.wait()
    await until(lambda: not (town.files / "a").exists(), "that the folder is removed")
    assert contents(path) == DATA
    assert os.listdir(town.home / "moves") == []


# -- processes that end -------------------------------------------------------------------------


def steps() -> Iterator[tuple[Any, str]]:
    for name in ("rename", "sync_names", "copy", "verify_copy", "publish_copy", "remove_former"):
        yield moving, name
    yield Records, "put"
    yield Records, "remove"


def end_at(tick: int) -> None:
    """End this process before or after one of the steps."""
    left = [tick]

    def stepped(do: Callable[..., Any], *args: Any) -> Any:
        for part in (lambda: None, lambda: do(*args)):
            found = part()
            left[0] -= 1
            if left[0] < 0:
                os._exit(ENDED)
        return found

    for owner, name in steps():
        do = getattr(owner, name)
        step: Any = partial(stepped, do)
        setattr(owner, name, step if owner is moving else lambda *args, s=step: s(*args))


def in_child(town: Town, tick: int, target: str) -> int:
    """Move the share in a process that ends at a step; return its exit code."""

    async def main() -> None:
        town.start()
        await town.shares.activate(ALICE)
        await until(town.served)
        moves = await moves_of(town)
        end_at(tick)
        await moves.move(movable(town), target, lambda progress: None)

    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(main())
            os._exit(DONE)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_f127_a_process_that_ends_at_any_step_leaves_the_old_or_the_new_place(
    tmp_path: Path, across: bool
) -> None:
    kind = "folder" if across else "file"
    towns: list[Town] = []

    async def share() -> None:
        town = Town(tmp_path)
        await town.shares.activate(ALICE)
        await shared(town, kind)
        town.end()
        towns.append(town)

    asyncio.run(share())
    (town,) = towns
    old, new = town.files / "film", town.files / "new"
    before, outcomes = contents(old), set()

    async def look() -> None:
        town.start()
        town.notices.clear()
        try:
            moves = await moves_of(town)
            await moves.recover()
            await town.shares.activate(ALICE)
            await until(town.served, "that it is served")
            place = Path(movable(town).path)
            assert place in (old, new)
            assert contents(place) == before
            assert {"film", "new"} & set(os.listdir(town.files)) == {place.name}
            assert not list(town.files.glob("*.part"))
            assert os.listdir(town.home / "moves") == []
            outcomes.add(place)
            if place == new:
                await moves.move(movable(town), str(old), lambda progress: None)
        finally:
            town.end()

    for tick in range(100):
        code = in_child(town, tick, str(new))
        assert code in (ENDED, DONE)
        asyncio.run(look())
        if code == DONE:
            break
    assert outcomes == {old, new}
    assert tick >= 10


async def test_f127_a_disk_that_is_away_after_a_restart_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, town: Town
) -> None:
    monkeypatch.setattr(moving, "rename", lambda former, target: False)
    path = await shared(town, "file")
    (town.files / "disk").mkdir()

    async def away(*_: Any) -> None:
        raise StorageError("the home is full")

    moves = await moves_of(town)
    monkeypatch.setattr(town.shares.moving, "relocate", away)
    with pytest.raises(StorageError):
        await moves.move(movable(town), str(town.files / "disk"), lambda progress: None)
    town.end()
    (town.files / "disk").rename(town.files / "unplugged")
    for plugged in (False, True):
        if plugged:
            (town.files / "unplugged").rename(town.files / "disk")
        town.start()
        await (await moves_of(town)).recover()
        await town.shares.activate(ALICE)
        await until(town.served, "that it is served")
        place = town.files / "disk" / "film" if plugged else path
        assert movable(town).path == str(place)
        assert path.exists() is not plugged
        town.end()
    town.start()
