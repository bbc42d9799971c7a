"""Queue of hooks and their variables: bounds, data from other users, and what a download owes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from common.messages import events
from common.names import BadName
from peer.hooks import runner, variables
from peer.hooks.commands import HookEvent, HookSettings, words_of
from peer.hooks.downloads import DownloadHooks
from peer.hooks.runner import HookRunner
from peer.records import DownloadRecord, DownloadState, Records
from tests.support.peer_fakes import until

RECORD = DownloadRecord(
    "anna", "films", "film.mkv", b"c" * 32, b"/d/film\xff", 3, "ab" * 32, "rarest", 1,
    DownloadState.COMPLETE, elapsed_s=1.5, algorithm="blake3",
)  # fmt: skip
SHARED = events.Shared("bob", "film.mkv", b"c" * 32, 3, 1, "blake3", b"\xab" * 32)


def entry(event: events.GroupEvent, group: str = "films") -> events.LogEntry:
    return events.LogEntry(group, 7, 1_000, 1, event)


class Desk:
    """A runner in a loop, whose hooks write into files."""

    def __init__(self, tmp_path: Path, **settings: Any) -> None:
        self.notices: list[str] = []
        self.out = tmp_path / "out"
        self.home = tmp_path / "home"
        script = (
            "import os, sys; open(sys.argv[1], 'a').write("
            "'|'.join(os.environ.get('MT_' + name, '-') for name in sys.argv[2:]) + '\\n')"
        )
        self.writes = [sys.executable, "-c", script, str(self.out)]
        self.settings = settings

    def hook(self, *names: str) -> list[str]:
        return [*self.writes, *names]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[HookRunner]:
        hooks = HookRunner(HookSettings(**self.settings), self.home, self.notices.append)
        try:
            async with asyncio.timeout(60):
                yield hooks
        finally:
            hooks.close()

    @property
    def lines(self) -> list[str]:
        return self.out.read_text().splitlines() if self.out.exists() else []


# -- variables ----------------------------------------------------------------------------------


def test_the_variables_of_a_download() -> None:
    assert variables.of_download(HookEvent.COMPLETE, RECORD) == {
        "EVENT": "complete",
        "USER": "anna",
        "GROUP": "films",
        "NAME": "film.mkv",
        "VERSION": "1",
        "PATH": os.fsdecode(b"/d/film\xff"),
        "SIZE_BYTES": "3",
        "DIGEST": "ab" * 32,
        "ALGORITHM": "blake3",
        "ELAPSED_S": "1.500",
    }
    failed = replace(RECORD, reason="the \x1b[2J disk")
    assert variables.of_download(HookEvent.FAILED, failed)["REASON"] == "the \\x1b[2J disk"


def test_the_variables_of_an_entry() -> None:
    found = variables.of_entry(entry(SHARED))
    assert found is not None
    kind, values = found
    assert kind is HookEvent.SHARE
    assert values == {
        "EVENT": "share",
        "USER": "bob",
        "GROUP": "films",
        "NAME": "film.mkv",
        "VERSION": "1",
        "SIZE_BYTES": "3",
        "FILES": "1",
        "ALGORITHM": "blake3",
        "DIGEST": "ab" * 32,
        "SEQ": "7",
    }
    found = variables.of_entry(entry(events.Unshared("bob", "film.mkv", b"c" * 32)))
    assert found is not None
    assert found[0] is HookEvent.UNSHARE
    found = variables.of_entry(entry(events.Withdrawn("eve", "film.mkv", 3, True)))
    assert found is not None
    assert (found[0], found[1]["USER"], found[1]["VERSION"]) == (HookEvent.UNSHARE, "eve", "3")
    found = variables.of_entry(entry(replace(SHARED, version=2)))
    assert found is not None
    assert (found[0], found[1]["VERSION"]) == (HookEvent.NEW_VERSION, "2")
    assert variables.of_entry(entry(events.Joined("bob"))) is None


@pytest.mark.parametrize("name", ["a\nMT_X=1", "\x1b[2J", "../x", "a/b", "", "a\0b", "\u202eb"])
async def test_h122_names_that_no_share_can_have_reach_no_hook(tmp_path: Path, name: str) -> None:
    """As a tracker's operator could send them."""
    for odd in (
        entry(replace(SHARED, name=name)),
        entry(replace(SHARED, user="b\nb")),
        entry(SHARED, group="../films"),
    ):
        with pytest.raises(BadName):
            variables.of_entry(odd)
    desk = Desk(tmp_path)
    desk.settings = {"share": desk.hook("NAME")}

    async with desk.running() as hooks:
        hooks.entry(entry(replace(SHARED, name=name)))
        hooks.entry(entry(SHARED))
        await until(lambda: bool(desk.lines))
        assert desk.lines == ["film.mkv"]


async def test_h122_names_with_the_signs_of_a_shell_are_data(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.settings = {"share": desk.hook("EVENT", "NAME", "HOME", "PATH")}
    names = ["$(touch x)", "`id`", "; rm -rf ~", "-n", "a b 'c' \"d\"", "%s", "=x"]

    async with desk.running() as hooks:
        for name in names:
            hooks.entry(entry(replace(SHARED, name=name)))
        await until(lambda: len(desk.lines) == len(names))
    assert sorted(desk.lines) == sorted(f"share|{name}|{desk.home}|-" for name in names)


def test_the_environment_has_only_variables_of_this_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MT_PATH", "of an outer hook")
    found = variables.environment({"NAME": "a\0b"}, "/home")
    assert "MT_PATH" not in found
    assert (found["MT_NAME"], found["MT_HOME"], found["MINI_TORRENT_HOME"]) == (
        "ab", "/home", "/home",
    )  # fmt: skip
    assert found["PATH"] == os.environ["PATH"]


# -- the queue ----------------------------------------------------------------------------------


async def test_h123_hooks_run_a_few_at_a_time_and_the_queue_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "QUEUED_MAX", 3)
    desk = Desk(tmp_path)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    waits = ["/bin/sh", "-c", f"read line < {gate}"]

    async with desk.running() as hooks:
        ended: list[int] = []
        taken = [
            hooks.run(HookEvent.SHARE, waits, {}, lambda n=number: ended.append(n))  # type: ignore[misc]
            for number in range(7)
        ]
        assert taken == [True] * 5 + [False] * 2
        assert ended == []
        writer = os.open(gate, os.O_RDWR)
        os.write(writer, b"go\n" * 1000)
        await until(lambda: len(ended) == 5)
        os.close(writer)
    assert any("further ones are dropped" in notice for notice in desk.notices)


async def test_f119_failures_are_told_and_the_next_hook_runs(tmp_path: Path) -> None:
    desk = Desk(tmp_path, failed="false", share="/nowhere/hook --x", time_limit_s=1)
    ended: list[str] = []

    async with desk.running() as hooks:
        assert desk.notices == ['hook share: program not found: "/nowhere/hook"']
        event = HookEvent.FAILED
        for words in (["false"], ["/nowhere/hook"], ["sleep", "100"], desk.hook("EVENT")):
            hooks.run(event, words, {"NAME": "x", "EVENT": "failed"}, lambda: ended.append("x"))
        await until(lambda: len(ended) == 4)
    text = "\n".join(desk.notices)
    for said in (
        'hook failed for x: "false": exit code 1',
        '"/nowhere/hook": No such file',
        '"sleep": ended after its time limit of 1 s',
    ):
        assert said in text
    assert desk.lines == ["failed"]


async def test_f117_an_end_with_the_peer_is_no_end_of_the_hook(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    ended: list[str] = []

    async with desk.running() as hooks:
        hooks.run(HookEvent.COMPLETE, ["sleep", "100"], {}, lambda: ended.append("x"))
        await asyncio.sleep(0)
        hooks.close()
        await asyncio.sleep(0)
    assert ended == []


# -- downloads ----------------------------------------------------------------------------------


async def test_f117_a_download_is_settled_after_all_its_hooks(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.settings = {"complete": desk.hook("NAME", "PATH"), "failed": desk.hook("REASON")}
    settled: list[int] = []

    async with desk.running() as hooks:
        download = DownloadHooks(hooks)
        own = replace(RECORD, path=b"/d/film", on_complete=[*desk.hook("EVENT"), "ELAPSED_S"])
        assert download.owes(RECORD)
        download.completed(own, lambda: settled.append(len(desk.lines)))
        await until(lambda: bool(settled))
        download.failed(replace(RECORD, reason="no space"))
        await until(lambda: len(desk.lines) == 3)
    assert settled == [2]
    assert sorted(desk.lines[:2]) == ["complete|1.500", "film.mkv|/d/film"]
    assert desk.lines[2] == "no space"


async def test_a_download_without_hooks_owes_none(tmp_path: Path) -> None:
    async with Desk(tmp_path).running() as hooks:
        assert not DownloadHooks(hooks).owes(RECORD)


def test_f117_a_removed_record_does_not_come_back_with_its_hook(tmp_path: Path) -> None:
    records = Records(tmp_path / "downloads", DownloadRecord)
    records.put_again("a", RECORD)
    assert not list((tmp_path / "downloads").iterdir())
    records.put("a", RECORD)
    records.put_again("a", DownloadRecord(*(*[""] * 3, b"", b"", 0, "", "", 0)))
    assert records.load()["a"].name == ""


@pytest.mark.parametrize("text", ["'a", 'a "b', "a\\"])
def test_commands_that_cannot_be_split_are_refused(text: str) -> None:
    from common.errors import ConfigError

    with pytest.raises(ConfigError, match="cannot be split"):
        words_of(text)
    assert words_of("a 'b c' \"$d\"") == ["a", "b c", "$d"]
