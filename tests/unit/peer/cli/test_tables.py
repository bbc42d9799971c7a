"""Sizes, times and tables as people see them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
from rich.cells import cell_len

from common.messages import control
from common.units import count_text, moment_text, percent_text, size_text, time_text
from peer.cli.console import Console
from peer.cli.listings import (
    EventLines,
    devices_table,
    download_lines,
    files_table,
    groups_table,
    sources_table,
    status_lines,
    users_table,
)
from peer.cli.progress import PlainLines, Still, progress_text, why_slow_command
from peer.cli.tables import Column, Table, plain_lines, show, terminal_lines
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (300_000_000, "286 MiB"),
        (1 << 40, "1 TiB"),
        (5000 << 40, "5000 TiB"),
        (10.7, "10 B"),
    ],
)
def test_sizes(size: float, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (185, "3 min 5 s"),
        (7440, "2 h 4 min"),
    ],
)
def test_times(seconds: float | None, text: str) -> None:
    assert time_text(seconds) == text


def test_hundred_percent_means_all() -> None:
    assert percent_text(999, 1000) == "99 %"
    assert percent_text(1000, 1000) == "100 %"
    assert percent_text(0, 0) == "100 %"


def test_counts() -> None:
    assert count_text(1, "peer") == "1 peer"
    assert count_text(1024, "piece") == "1,024 pieces"


def test_an_invalid_time_stays_unchanged() -> None:
    assert moment_text("\x1b[2J") == "\x1b[2J"
    assert len(moment_text("2026-01-01T00:00:00.123Z", seconds=True)) == 19


def test_plain_columns_are_aligned_for_wide_and_combining_letters() -> None:
    table = Table(
        (Column("name"), Column("size", right=True), Column("by")),
        [("日本", "5", "anna"), ("e\u0301", "500", "bert"), ("plain", "50", "")],
        "",
    )
    assert plain_lines(table) == [
        "NAME   SIZE  BY",
        "日本      5  anna",
        "e\u0301       500  bert",
        "plain    50",
    ]


NARROW = Table(
    (
        Column("name"),
        Column("size", right=True),
        Column("files", right=True, spare=True),
        Column("digest", cut=True, spare=True),
    ),
    [("model.bin", "300 MiB", "1", "blake3:" + "ab" * 32), ("a", "1 B", "22", "sha1:" + "cd" * 20)],
    "",
)


def test_a_table_on_a_narrow_terminal_is_cut_then_loses_columns_then_shortens() -> None:
    wide = terminal_lines(NARROW, 200)
    assert wide[0].split() == ["NAME", "SIZE", "FILES", "DIGEST"]
    assert wide[2].endswith("ab" * 32)
    assert terminal_lines(NARROW, 50) == [
        "NAME          SIZE  FILES  DIGEST",
        "─" * 47,
        "model.bin  300 MiB      1  blake3:abababababab…",
        "a              1 B     22  sha1:cdcdcdcdcdcdcd…",
    ]
    assert terminal_lines(NARROW, 40)[2] == "model.bin  300 MiB      1  blake3:ababa…"
    assert terminal_lines(NARROW, 30) == [
        "NAME          SIZE  FILES",
        "─" * 25,
        "model.bin  300 MiB      1",
        "a              1 B     22",
    ]
    assert terminal_lines(NARROW, 20)[2] == "model.bin  300 MiB"
    assert terminal_lines(NARROW, 15)[2] == "model…  300 MiB"


LONG = "a-long-name-" * 21 + "日本.mkv"
LONG_ROWS = [
    files_table([control.FileRow(name, 1 << 30, 1, 9, 1, "blake3", "ab" * 32, 2, 1, ["a" * 64] * 3)
                 for name in (LONG, "b")]),
    groups_table([control.GroupRow("g" * 64, "o" * 64, 20, "member")]),
    users_table([control.UserRow("u" * 64, "pending", "2026-01-01T00:00:00Z", 1)], ""),
    devices_table([control.DeviceRow("3f0c9a1b", "B" * 43, "2026-01-01T00:00:00Z",
                                     "2026-01-01T00:00:00Z", True, "tcp://" + "1" * 60, True)]),
    sources_table([control.SourceRow("u" * 64, "tcp://" + "1" * 60, True, 1e6, 9, 9, "v" * 90)]),
]  # fmt: skip


@pytest.mark.parametrize("width", [40, 41, 45, 60, 80, 120, 200])
def test_a_row_is_a_line_however_long_its_names_are(width: int) -> None:
    for table in LONG_ROWS:
        lines = terminal_lines(table, width)
        assert len(lines) == 2 + len(table.rows)
        assert max(map(cell_len, lines)) <= width
        assert plain_lines(table)[1].startswith(table.rows[0][0])
    rows = [
        control.DownloadRow(
            state,
            "g" * 64,
            LONG,
            f"/d/{LONG}",
            200,
            50,
            1024.0,
            12.0,
            [control.SourceEnd("anna", "tcp://192.0.2.1:1")],
            LONG,
        )
        for state in "DPFC"
    ]
    lines = download_lines([*rows, rows[0]], terminal=True, width=width)
    assert len(lines) == 5
    assert max(map(cell_len, lines)) <= width
    assert lines[0].startswith("[D] [ggg")
    assert download_lines(rows, terminal=False)[0] == f"[D] [{'g' * 64}] {LONG}"


@pytest.mark.parametrize("width", range(18, 100))
def test_no_line_of_a_table_is_wider_than_the_terminal(width: int) -> None:
    assert all(len(line) <= width for line in terminal_lines(NARROW, width))


def test_a_name_cannot_break_its_row() -> None:
    lines = plain_lines(Table((Column("name"),), [("a\nb\x1b[31m",)], ""))
    assert lines == ["NAME", "a\\x0ab\\x1b[31m"]


def test_downloads_on_a_terminal_begin_as_in_a_pipe() -> None:
    rows = [
        control.DownloadRow(
            "downloading",
            "g",
            "n",
            "/d/n",
            200,
            50,
            1024.0,
            12.0,
            [control.SourceEnd("anna", "tcp://192.0.2.1:1")],
            None,
        ),
        control.DownloadRow(
            "paused", "g", "long", "/d/l", 200, 100, 0.0, None, [], "paused by you"
        ),
        control.DownloadRow("failed", "g", "y", "/d/y", 200, 0, 0.0, None, [], "not a member"),
        control.DownloadRow("complete", "g", "x", "/d/x", 0, 0, 0.0, None, [], None),
    ]
    plain = download_lines(rows, terminal=False)
    shown = download_lines(rows, terminal=True, width=80)
    assert plain == ["[D] [g] n", "[P] [g] long", "[F] [g] y", "[C] [g] x"]
    assert shown == [
        "[D] [g] n     25 % of 200 B  1 KiB/s  from 1 peer  12 s left",
        "[P] [g] long  50 % of 200 B  paused by you",
        "[F] [g] y     200 B  not a member",
        "[C] [g] x     0 B  /d/x",
    ]


def test_an_event_is_one_line() -> None:
    event = control.Happened(
        1, "now", "films", "share", {"name": "a\nb", "size_bytes": 3, "last": True}
    )
    for aligned in (True, False):
        line = EventLines(aligned=aligned).line(event)
        assert line == "now  [films]  share       name=a\\x0ab  size=3 B  last=true"


def test_events_of_several_groups_stand_below_each_other_on_a_terminal() -> None:
    groups = ("films", "a", "影", "g" * 64, "books")
    events = [control.Happened(1, "now", group, "left", {"user": "u"}) for group in groups]
    lines = EventLines(aligned=True)
    assert [lines.line(event) for event in events] == [
        "now  [films]  left        user=u",
        "now  [a]      left        user=u",
        "now  [影]     left        user=u",
        f"now  [{'g' * 64}]  left        user=u",
        "now  [books]  left        user=u",
    ]
    plain = EventLines(aligned=False)
    assert [plain.line(event) for event in events[:2]] == [
        "now  [films]  left        user=u",
        "now  [a]  left        user=u",
    ]


def test_counts_and_sizes_are_written_alike_in_every_listing() -> None:
    file = control.FileRow("n", 1 << 30, 3000, 20000, 1 << 19, "blake3", "ab", 1500, 1200, ["u"])
    texts = " ".join(plain_lines(files_table([file])))
    assert all(text in texts for text in ("1 GiB", "3,000", "20,000", "1,500", "1,200"))
    group = control.GroupRow("g", "o", 1234, "member")
    assert "1,234" in plain_lines(groups_table([group]))[1]
    assert plain_lines(groups_table([group]))[0] == "GROUP  OWNER  MEMBERS  YOUR ROLE"
    assert terminal_lines(groups_table([group]), 80)[0] == "GROUP  OWNER  MEMBERS  YOUR ROLE"


def test_plain_progress_is_a_line_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    lines = PlainLines("film")
    for progress in (
        control.Progress("digesting", 10, 100),
        control.Progress("digesting", 50, 100),
        control.Progress("downloading", 0, 100),
        control.Progress("downloading", 10, 100, note="the disk is full"),
    ):
        lines.show(progress)
    assert capsys.readouterr().err.splitlines() == [
        "film: digesting, 10 % of 100 B",
        "film: downloading, 0 % of 100 B",
        "film: downloading, 10 % of 100 B, the disk is full",
    ]


def test_a_line_that_says_nothing_new_comes_once_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("peer.cli.progress.monotonic", lambda: now)
    lines = PlainLines("film")
    for _ in range(300):
        lines.show(control.Progress("downloading", 0, 100, note="it is no longer shared"))
        now += 0.5
    assert (
        capsys.readouterr().err.splitlines()
        == ["film: downloading, 0 % of 100 B, it is no longer shared"] * 3
    )


def test_progress_beside_a_bar_leaves_out_what_does_not_fit() -> None:
    progress = control.Progress("downloading", 50, 100, 1024.0, 9.0, 2, "slow")
    texts = [progress_text(progress, room) for room in (80, 60, 40, 30, 5)]
    assert texts == [
        "downloading, 50 % of 100 B, 1 KiB/s, from 2 peers, 9.0 s left, slow",
        "50 % of 100 B, 1 KiB/s, from 2 peers, 9.0 s left, slow",
        "50 % of 100 B, 1 KiB/s, 9.0 s left, slow",
        "50 %, 1 KiB/s, 9.0 s left, slow",
        "50 %, 1 KiB/s, 9.0 s left, slow",
    ]


def test_progress_words_are_harmless() -> None:
    assert progress_text(control.Progress("x\x1b", 0, 0, note="y\n")) == "x\\x1b, y\\x0a"


def test_markup_in_names_is_shown_as_it_is_on_a_terminal() -> None:
    code = (
        "from common.messages import control\n"
        "from peer.cli.listings import groups_table; from peer.cli.tables import show\n"
        "from peer.cli.console import Console\n"
        "from peer.cli.progress import progress_display\n"
        "evil = '[bold]x[/bold] {task.x} \\x1b[2J'\n"
        "show(groups_table([control.GroupRow(evil, 'o', 1, 'member')]), Console())\n"
        "with progress_display(Console(), evil) as display:\n"
        "    display.show(control.Progress('digesting', 5, 10, note=evil))\n"
    )
    text = _on_a_terminal([sys.executable, "-c", code])
    assert text.count("[bold]x[/bold] {task.x} \\x1b[2J") >= 3
    assert "Traceback" not in text


def _on_a_terminal(words: list[str]) -> str:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "300", "TERM": "xterm"}
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    text = b""
    while True:
        try:
            more = os.read(ours, 65536)
        except OSError:  # Linux tells in this way that the other end was closed
            break
        if not more:
            break
        text += more
    os.close(ours)
    assert process.wait(20) == 0, text
    return text.decode()


def test_a_stalled_download_is_reported_once_a_minute_with_a_command() -> None:
    still, said = Still("mini-torrent why-slow films a"), []
    gone = control.Progress(
        "downloading", 50, 100, note="no device that has it is online", advice="it continues"
    )
    for second in range(200):
        if line := still.line(gone, float(second)):
            said.append((second, line))
    assert [second for second, _ in said] == [60, 120, 180]
    assert said[0][1] == (
        "nothing has come for 1 min 0 s; no device that has it is online; it continues; "
        "`mini-torrent why-slow films a` shows what each source does"
    )
    assert still.line(control.Progress("downloading", 51, 100), 200.0) is None
    assert still.line(control.Progress("downloading", 51, 100), 259.0) is None
    line = still.line(control.Progress("downloading", 51, 100, sources=1), 260.0)
    assert line == (
        "nothing has come for 1 min 0 s; "
        "`mini-torrent why-slow films a` shows what each source does"
    )
    full = control.Progress("waiting", 51, 100, note="the disk is full", advice="make room")
    assert still.line(full, 320.0) == "the disk is full; make room"


@pytest.mark.parametrize("stage", ["digesting", "checking"])
def test_work_on_this_device_is_no_standstill(stage: str) -> None:
    still = Still()
    assert not [at for at in range(500) if still.line(control.Progress(stage, 100, 100), at)]


def test_the_command_with_details_can_be_pasted() -> None:
    command = control.DownloadFile("films", "-r f", "/d")
    assert why_slow_command(Console(), command) == "mini-torrent why-slow -- films '-r f'"
    command = control.DownloadFile("films", "a", "/d")
    home = Console("/a home")
    assert why_slow_command(home, command) == "mini-torrent --home '/a home' why-slow films a"


def test_an_empty_listing_is_reported_in_a_pipe_too(capsys: pytest.CaptureFixture[str]) -> None:
    show(sources_table([]), Console())
    assert capsys.readouterr().out == "There are no sources: no device that has it is online.\n"


def test_a_small_manifest_is_no_line_of_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    PlainLines("a").show(control.Progress("sending the manifest", 0, 56))
    assert capsys.readouterr().err == ""
    PlainLines("a").show(control.Progress("sending the manifest", 0, 5 << 20))
    assert capsys.readouterr().err == "a: sending the manifest, 0 % of 5 MiB\n"


def test_f86_shares_that_are_away_are_shown() -> None:
    status = control.StatusIs("anna", True, "LINK", "L", "D", 2, away=["film in lab: gone"])
    lines = status_lines(status, "HOME")
    assert "shares    2, and 1 away" in lines
    assert "away      film in lab: gone" in lines
    row = control.FileRow("film", 1, 1, 1, 1, "blake3", "ab", 3, 0, ["anna"], away=True)
    assert "3 (yours is away)" in files_table([row]).rows[0]
