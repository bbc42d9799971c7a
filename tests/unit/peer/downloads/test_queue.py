"""The queue of downloads: how many run at once, in which order, and what gives way."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from common import limits
from common.messages import control
from peer.downloads import creation
from peer.downloads.queue import ActiveDownload, next_starts
from peer.records import DownloadRecord
from tests.support.peer_fakes import until
from tests.unit.peer.downloads.test_lifecycle import Stage

STILL = limits.DOWNLOAD_STILL_S


def places(moving: int, still: int = 0, *, busy: bool = False) -> list[ActiveDownload]:
    """Downloads that take places: first those with progress, then the others, stillest last."""
    return [
        *(ActiveDownload(f"m{n}", 0.0, True) for n in range(moving)),
        *(ActiveDownload(f"s{n}", STILL + n, not busy) for n in range(still)),
    ]


@pytest.mark.parametrize(
    ("queue", "taken", "at_once", "open_max", "expected"),
    [
        ("abc", places(0), 2, 9, (["a", "b"], [])),
        ("abc", places(2), 2, 9, ([], [])),
        ("abc", places(1), 2, 9, (["a"], [])),
        ("", places(2, 5), 2, 9, ([], [])),
        ("abc", places(0, 2), 2, 9, (["a", "b"], [])),
        ("abc", places(1, 7), 2, 8, ([], ["s6"])),
        ("abc", places(0, 7), 2, 8, (["a"], ["s6"])),
        ("abc", places(0, 8), 2, 8, ([], ["s7", "s6"])),
        ("abc", places(0, 8, busy=True), 2, 8, ([], [])),
    ],
)
def test_starts_and_rests(
    queue: str,
    taken: list[ActiveDownload],
    at_once: int,
    open_max: int,
    expected: tuple[list[str], list[str]],
) -> None:
    assert next_starts(list(queue), taken, at_once, open_max) == expected


def test_the_queue_always_moves_on_and_keeps_its_order() -> None:
    """In any course: never too many are open, none starts out of order, and all get their turn."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    queue, open_now, started = [str(n) for n in range(60)], dict[str, float](), list[str]()
    for _ in range(2_000):
        taken = [ActiveDownload(key, still, True) for key, still in open_now.items()]
        start, rest = next_starts(queue, taken, 3, 8)
        assert start == queue[: len(start)]
        del queue[: len(start)]
        started += start
        open_now |= dict.fromkeys(start, 0.0)
        assert len(open_now) <= 8
        for key in rest:
            assert open_now.pop(key) >= STILL
            queue.append(key)
        for key in list(open_now):
            if rng.random() < 0.05:
                del open_now[key]
            else:
                open_now[key] = rng.choice((0.0, open_now[key] + STILL))
        if not queue and not open_now:
            break
    assert not queue
    assert list(dict.fromkeys(started)) == [str(n) for n in range(60)]


# -- with real parts ----------------------------------------------------------------------------


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> Stage:
    """The stage, started, with two downloads at once and four open ones at most."""
    monkeypatch.setattr(limits, "DOWNLOADS_AT_ONCE", 2)
    monkeypatch.setattr(limits, "DOWNLOADS_OPEN_MAX", 4)

    async def fetch(*_: Any) -> bytes:
        return stage.encoded

    monkeypatch.setattr(creation, "fetch_manifest", fetch)
    await stage.start()
    return stage


def begin(stage: Stage, name: str) -> Any:
    command = control.DownloadFile("films", "film", str(stage.place / name))
    return stage.downloads.begin(command, lambda _: None)


def rows(stage: Stage) -> dict[str, control.DownloadRow]:
    return {Path(row.path).name: row for row in stage.downloads.rows()}


def queued(stage: Stage) -> list[str]:
    return [name for name, row in rows(stage).items() if "queued" in (row.reason or "")]


async def test_f75_downloads_beyond_those_at_once_queue_in_order(stage: Stage) -> None:
    for name in "abcde":
        await begin(stage, name)
    assert queued(stage) == ["c", "d", "e"]
    assert [rows(stage)[name].state for name in "abc"] == [
        *["downloading"] * 2,
        "paused",
    ]
    assert "number 1 in line" in str(rows(stage)["c"].reason)
    assert "number 3 in line" in str(rows(stage)["e"].reason)
    assert not (stage.place / "c.part").exists()
    await stage.downloads.cancel("films", str(stage.place / "a"))
    await until(lambda: rows(stage)["c"].state == "downloading")
    assert queued(stage) == ["d", "e"]
    await stage.downloads.pause("films", str(stage.place / "b"))
    assert rows(stage)["b"].reason == "paused by the user"
    await stage.downloads.pause("films", str(stage.place / "d"))
    assert rows(stage)["d"].reason == "paused by the user"
    await stage.downloads.resume("films", str(stage.place / "d"))
    await stage.downloads.cancel("films", str(stage.place / "e"))
    assert set(rows(stage)) == {"b", "c", "d"}


async def test_f75_the_end_of_a_download_starts_the_next(stage: Stage) -> None:
    for name in "abcd":
        await begin(stage, name)
    for job in list(stage.downloads._jobs.values())[:2]:
        await until(lambda job=job: job.transfer is not None)
        assert job.transfer is not None
        for index in range(4):
            job.transfer.part.write_piece(index, stage.piece(index))
        job.transfer._ended.set()
    await until(lambda: [rows(stage)[name].state[0] for name in "abcd"] == list("ccdd"))


async def test_f75_the_queue_survives_a_restart(stage: Stage) -> None:
    for name in "abcde":
        await begin(stage, name)
    await stage.downloads.close()
    await stage.start()
    assert list(rows(stage)) == list("abcde")
    assert queued(stage) == ["c", "d", "e"]
    await until(lambda: all(job.transfer for job in first(stage, 2)))


def first(stage: Stage, count: int) -> list[Any]:
    jobs = sorted(stage.downloads._jobs.values(), key=lambda job: job.record.started_ms)
    return jobs[:count]


async def test_f75_a_download_without_progress_gives_way(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOWNLOAD_STILL_S", 0.0)
    for name in "abcdef":
        await begin(stage, name)
    parts = {f"{name}.part" for name in "abcdef"}
    # No source gives anything: each download is open once in a while.
    await until(lambda: parts == {path.name for path in stage.place.iterdir()})
    assert {job.record.state for job in stage.downloads._jobs.values()} == {"D"}
    assert stage.open_files() <= 3 * 5


async def test_the_destination_of_a_queued_download_is_taken(stage: Stage) -> None:
    for name in "abc":
        await begin(stage, name)
    assert await begin(stage, "c") in stage.downloads._jobs
    assert len(rows(stage)) == 3


async def test_the_record_of_a_queued_download_is_an_ordinary_one(stage: Stage) -> None:
    for name in "abc":
        await begin(stage, name)
    kept: dict[str, DownloadRecord] = stage.records.load()
    paths = sorted(record.path for record in kept.values())
    assert paths == [bytes(stage.place / name) for name in "abc"]
    assert {record.state for record in kept.values()} == {"D"}


async def test_a_waiting_command_shows_the_position_in_the_queue(stage: Stage) -> None:
    keys = [await begin(stage, name) for name in "abc"]
    told: list[control.Progress] = []
    waiting = asyncio.create_task(stage.downloads.wait(keys[2], told.append))
    await until(lambda: told)
    assert told[0].stage == "queued"
    assert "number 1 in line" in str(told[0].note)
    await stage.downloads.cancel("films", str(stage.place / "a"))
    await until(lambda: told[-1].stage == "downloading")
    waiting.cancel()
