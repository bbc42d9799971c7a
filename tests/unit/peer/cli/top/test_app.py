"""The full-screen view on a fake peer: rows, keys, sizes, and names of others."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest

from common.errors import MiniTorrentError, NoPeerRunning, Refused
from common.messages import control
from common.messages.refusals import Code
from peer.cli.top import transfers as rows
from peer.control.client import Ended, Message, Stopped
from tests.support.fake_peer import STATUS
from tests.support.waiting import PATIENCE_S

pytest.importorskip("textual", reason="no textual: pip install 'mini-torrent[tui]', to test top")

from peer.cli.top.app import Top

HOSTILE = "[red]x[/red] [@click=app.quit]y[/] [/] \x1b[31mz\u202e\n"


def download(name: str, state: str = "downloading", **values: Any) -> control.DownloadRow:
    row = control.DownloadRow(state, "films", name, f"/d/{name}", 1000, 250, 2048.0, 60.0, [], None)
    return control.DownloadRow(
        **{**{field: getattr(row, field) for field in row.__struct_fields__}, **values}
    )


FETCHING = control.FetchingRow("bert", "B" * 43, 4096.0, "b1b2b3b4")
SHARE = control.ShareRow(
    "films", "shared.bin", 1, "/s/shared.bin", 5000, "shared", None, 3000, [FETCHING]
)
SOURCE = control.SourceRow("carl", "tcp://192.0.2.9:1", True, 2048.0, 7, 2, "good")


class FakeClient:
    """A peer with fixed rows; ``asked`` are the commands that change something."""

    def __init__(self, *downloads: control.DownloadRow) -> None:
        self.downloads = list(downloads)
        self.shares = [SHARE]
        self.status: control.StatusIs | Exception = STATUS
        self.cells = [(1.0, 0.0, 1)] * 5 + [(0.0, 0.5, 2)] * 2 + [(0.0, 0.0, 0)] * 3
        self.sources = [SOURCE]
        self.events: list[control.Happened] = []
        self.asked: list[control.Command] = []
        self.refusal: MiniTorrentError | None = None
        self._stopped = threading.Event()

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def stop(self) -> None:
        self._stopped.set()

    def request(self, command: control.Command) -> Generator[Message]:
        yield from self.events
        self._stopped.wait()
        raise Stopped

    def result(self, command: control.Command) -> Ended:
        match command:
            case control.Status():
                if isinstance(self.status, Exception):
                    raise self.status
                return self.status
            case control.ShowDownloads():
                return control.Downloads(list(self.downloads))
            case control.ListShares():
                return control.ShareRows(list(self.shares))
            case control.WhySlow():
                return control.SourceRows(self.sources)
            case control.PieceMap():
                return control.PieceMapIs(self.cells)
        self.asked.append(command)
        if self.refusal is not None:
            raise self.refusal
        return control.Done("it is done")


def text_of(app: Top) -> str:
    """All characters on the screen, line by line."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


@asynccontextmanager
async def playing(
    client: FakeClient, size: tuple[int, int] = (80, 24)
) -> AsyncIterator[tuple[Top, Any]]:
    """The view on ``client`` and its pilot."""
    app = Top(lambda: client, refresh_s=0.25)
    async with app.run_test(size=size, notifications=True) as pilot:
        await seen(app, pilot, lambda: app._snapshot is not None)
        yield app, pilot


async def seen(app: Top, pilot: Any, condition: Callable[[], Any]) -> None:
    """Wait until ``condition`` is true."""
    until = monotonic() + PATIENCE_S
    while not condition():
        assert monotonic() < until, text_of(app)
        await pilot.pause(0.01)


async def shows(app: Top, pilot: Any, *texts: str) -> None:
    await seen(app, pilot, lambda: all(text in text_of(app) for text in texts))


async def test_transfers_both_ways_sources_pieces_and_events_are_shown() -> None:
    client = FakeClient(
        download("a.mkv"), download("p.mkv", "paused", reason="paused by the user", eta_s=None)
    )
    client.events = [
        control.Happened(1, "2026-01-01T00:00:00Z", "films", "seeding", {"user": "dora"})
    ]

    async with playing(client) as (app, pilot):
        await shows(app, pilot, "a.mkv", "25 %", "2 KiB/s", "1 min 0 s", "paused", "carl", "good")
        await shows(app, pilot, "shared.bin", "uploading", "4 KiB/s", "1 peer")
        assert "█" in text_of(app)
        assert "dora" not in text_of(app)  # 80 columns have no room for both
        await pilot.press("e")
        await shows(app, pilot, "seeding", "dora")
        await pilot.press("e", "down")
        await shows(app, pilot, "bert", "b1b2b3b4", "2.9 KiB sent")
        await pilot.press("j")
        await shows(app, pilot, "paused by the user")


async def test_the_mark_follows_the_cursor_and_the_transfer() -> None:
    client = FakeClient(download("a"), download("b"), download("c"))

    def marked(app: Top) -> str:
        [line] = [line for line in text_of(app).splitlines() if line.lstrip().startswith(">")]
        return line.split()[3]

    async with playing(client) as (app, pilot):
        await shows(app, pilot, "shared.bin")
        assert marked(app) == "a"
        await pilot.press("down")
        await seen(app, pilot, lambda: marked(app) == "b")
        client.downloads[0] = download("a", "complete")  # it moves to the end of the list
        await shows(app, pilot, "complete")
        assert marked(app) == "b"
        client.downloads = [download("c")]
        await seen(app, pilot, lambda: marked(app) == "c")
        client.downloads, client.shares = [], []
        await shows(app, pilot, "Nothing is transferred now")


async def test_keys_pause_resume_cancel_and_limit() -> None:
    client = FakeClient(download("a"))

    async def did(app: Top, pilot: Any, *asked: control.Command) -> None:
        await seen(app, pilot, lambda: client.asked == list(asked))
        client.asked.clear()

    async with playing(client) as (app, pilot):
        await shows(app, pilot, "shared.bin")
        await pilot.press("p")
        await did(app, pilot, control.Pause("films", "/d/a"))
        await pilot.press("r")
        await did(app, pilot, control.Resume("films", "/d/a"))
        await pilot.press("c")
        await shows(app, pilot, 'Cancel "a"?')
        await pilot.press("enter", "c", "n", "c", "y")
        await did(app, pilot, control.Cancel("films", "/d/a"))
        await pilot.press("l")
        await shows(app, pilot, "Limits")
        await pilot.press("ctrl+u", *"5m", "enter")
        await did(app, pilot, control.Limit(5 << 20, None))
        await pilot.press("l", *"x", "enter")
        await shows(app, pilot, "is not a rate")
        await pilot.press("escape", "l", "escape", "down", "p", "c")
        await shows(app, pilot, "this is an upload")
        assert client.asked == []
        client.refusal = Refused(Code.FAILED, "the disk [b]is[/b] full")
        await pilot.press("up", "p")
        await shows(app, pilot, "the disk [b]is[/b] full")


async def test_h170_names_of_others_are_no_markup_and_no_control_characters() -> None:
    rows_ = [download(HOSTILE, user_reason) for user_reason in ("downloading", "failed")]
    client = FakeClient(*(download(HOSTILE, row.state, reason=HOSTILE) for row in rows_))
    client.sources = [control.SourceRow(HOSTILE, HOSTILE, True, 1.0, 1, 1, HOSTILE)]
    client.shares = [
        control.ShareRow(
            HOSTILE, HOSTILE, 1, HOSTILE, 1, "shared", None, 1,
            [control.FetchingRow(HOSTILE, "B" * 43, 1.0, HOSTILE)],
        )
    ]  # fmt: skip
    client.events = [control.Happened(1, HOSTILE, HOSTILE, HOSTILE, {"user": HOSTILE})]
    client.refusal = Refused(Code.FAILED, HOSTILE)
    client.status = control.StatusIs(
        HOSTILE, False, HOSTILE, HOSTILE, "B" * 43, 1, trouble=HOSTILE, away=[HOSTILE]
    )

    async with playing(client, (150, 40)) as (app, pilot):
        await shows(app, pilot, "[red]x[/red]", "\\x1b[31mz")
        for keys in ("e", "down", "p", "down", "c", "y", "question_mark", "escape"):
            await pilot.press(keys)
            await pilot.pause()
            shown = text_of(app)
            assert not {"\x1b", "\u202e"} & set(shown)
        assert app.is_running


@pytest.mark.parametrize("size", [(80, 24), (30, 6), (150, 40)])
async def test_it_fits_each_size_of_a_terminal(size: tuple[int, int]) -> None:
    client = FakeClient(*(download(f"film-{at:04}") for at in range(100)))
    client.events = [control.Happened(1, "2026-01-01T00:00:00Z", "films", "share", {})]

    async with playing(client, size) as (app, pilot):
        await shows(app, pilot, "film-0000" if size[0] > 40 else "f")
        lines = text_of(app).splitlines()
        assert len(lines) <= size[1]
        assert all(len(line) <= size[0] for line in lines)
        assert ("share" in "".join(lines[5:])) == (size[0] >= 110)
        await pilot.press("end")
        await pilot.resize_terminal(100, 30)
        await seen(app, pilot, lambda: app._widths == rows.columns_of(99))


async def test_the_help_lists_the_keys_and_q_ends_it() -> None:
    async with playing(FakeClient(download("a"))) as (app, pilot):
        await pilot.press("question_mark")
        await shows(app, pilot, "pause the chosen download", "no source has it")
        await pilot.press("x", "q")

    assert app.return_value is None


async def test_the_end_of_the_peer_ends_it_with_the_error() -> None:
    client = FakeClient(download("a"))
    error = NoPeerRunning("the peer has ended")

    async with playing(client) as (app, pilot):
        client.status = error
        await seen(app, pilot, lambda: app.return_value is not None)

    assert app.return_value is error


async def test_a_peer_without_a_user_or_a_tracker_is_shown_as_that() -> None:
    client = FakeClient()
    client.status = control.StatusIs(None, False, "", "", "B" * 43, 0, trouble="no route to host")

    async with playing(client) as (app, pilot):
        await shows(app, pilot, "no user is logged in", "no route to host")
        await pilot.press("p", "c", "l", "escape")


def _all_strips() -> Iterable[list[tuple[float, float, int]]]:
    yield []
    yield [(1.0, 0.0, 1)]
    yield [(0.0, 0.0, 0), (0.0, 0.0, 1), (0.5, 0.0, 1), (0.0, 0.1, 0), (1.0, 0.0, 0)]
    yield [(at / 999, 0.0, at % 2) for at in range(1000)]


def test_a_strip_has_its_width_and_one_kind_for_each_character() -> None:
    for cells in _all_strips():
        for width in (1, 7, 80, 300):
            runs = rows.strip_text(cells, rows.ASCII, width)
            assert sum(len(text) for _, text in runs) == (width if cells else 0)
    cells = [(1.0, 0.0, 0), (0.0, 0.0, 0), (0.0, 0.0, 3), (0.0, 1.0, 3), (0.9, 0.0, 3)]
    found = rows.strip_text(cells, rows.ASCII, 5)
    assert found == [("held", "#"), ("absent", "!"), ("missing", "."), ("flight", "++")]


def test_rates_are_shown_as_they_are_typed() -> None:
    shown = {None: "off", 5 << 20: "5M", 800 << 10: "800K", 1 << 30: "1G", 1500: "1500"}
    assert {rate: rows.rate_typed(rate) for rate in shown} == shown
