"""Contract of the command line: its messages to the peer, its output, its exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common.errors import IntegrityError, Refused, TransportError
from common.messages import control
from common.messages.refusals import Code
from common.units import moment_text
from peer.cli import run
from tests.support.fake_peer import LINK, STATUS, FakePeer, Reply
from tests.support.paths import ROOT

EVIL = "\x1b[31mred\x1b[0m\n[bold]\u202egnp.exe"
FILE = control.FileRow("film.mkv", 1 << 30, 1, 2048, 524288, "blake3", "ab" * 32, 2, 1, ["anna"])
DOWNLOADS = [
    control.DownloadRow(
        "downloading",
        "films",
        "a b.mkv",
        "/d/a b.mkv",
        100,
        50,
        5.0,
        10.0,
        [control.SourceEnd("anna", "tcp://192.0.2.1:1")],
        None,
    ),
    control.DownloadRow("complete", "films", "b", "/d/b", 100, 100, 0.0, None, [], None),
    control.DownloadRow("paused", "books", "c", "/d/c", 100, 0, 0.0, None, [], "the disk is full"),
    control.DownloadRow("failed", "books", "d", "/d/d", 100, 0, 0.0, None, [], "gone"),
]
DEVICE = control.DeviceRow(
    "3f0c9a1b",
    "B" * 43,
    "2026-01-01T00:00:00.000Z",
    "2026-01-02T00:00:00.000Z",
    True,
    "tcp://192.0.2.1:1",
    True,
)
DOWNLOADED = control.Downloaded(
    "films",
    "film.mkv",
    "/d/film.mkv",
    1 << 30,
    "blake3",
    "ab" * 32,
    2.0,
    float(1 << 29),
    1 << 29,
    1 << 29,
    [control.SourceUse("anna", "tcp://192.0.2.1:1", 2000)],
)


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.err)["error"]
        return found


Cli = Callable[..., Ran]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("MINI_TORRENT"):
            monkeypatch.delenv(name)
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    return path


@pytest.fixture
def cli(home: Path, capfd: pytest.CaptureFixture[str]) -> Cli:
    def call(*words: str) -> Ran:
        capfd.readouterr()
        code = run(["--home", str(home), *words])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return call


def one_request(home: Path, cli: Cli, reply: Reply, *words: str) -> tuple[control.Command, Ran]:
    """The request of a command to a peer that answers with ``reply``, and its result."""
    replies = dict.fromkeys(control.Command.__args__, reply)
    with FakePeer(home, replies) as peer:
        ran = cli(*words)
    assert len(peer.asked) == 1
    return peer.asked[0], ran


# -- what is asked ------------------------------------------------------------------------------

ASKS: list[tuple[list[str], control.Command]] = [
    (["create-user", "anna", "pw"], control.CreateUser("anna", "pw")),
    (["login", "anna", "pw"], control.Login("anna", "pw")),
    (["logout"], control.Logout()),
    (["change-password", "old", "new"], control.ChangePassword("old", "new")),
    (
        ["change-password", "old", "new", "--keep-devices"],
        control.ChangePassword("old", "new", True),
    ),
    (["forget-device", "3f0c9a1b"], control.ForgetDevice("3f0c9a1b")),
    (["create-group", "films"], control.CreateGroup("films")),
    (["join-group", "films"], control.JoinGroup("films")),
    (["leave-group", "films"], control.LeaveGroup("films")),
    (["accept-request", "films", "bert"], control.AcceptRequest("films", "bert")),
    (["reject-request", "films", "bert"], control.RejectRequest("films", "bert")),
    (["remove-member", "films", "bert"], control.RemoveMember("films", "bert")),
    (["stop-share", "films", "a b"], control.StopShare("films", "a b")),
    (["move", "films", "a", "/b/"], control.Move("films", "a", "/b/")),
    (["pause", "films", "a"], control.Pause("films", "a")),
    (["resume", "films", "a"], control.Resume("films", "a")),
    (["cancel", "films", "a"], control.Cancel("films", "a")),
]


@pytest.mark.parametrize(("words", "command"), ASKS, ids=[words[0] for words, _ in ASKS])
@pytest.mark.parametrize("spelling", ["-", "_"])
def test_a_command_without_a_result(
    home: Path, cli: Cli, words: list[str], command: control.Command, spelling: str
) -> None:
    name = words[0].replace("-", spelling)
    asked, ran = one_request(home, cli, control.Done("as the peer says"), name, *words[1:])
    assert asked == command
    assert (ran.code, ran.out, ran.err) == (0, "as the peer says\n", "")


def test_quiet_says_nothing_of_success(home: Path, cli: Cli) -> None:
    _, ran = one_request(home, cli, control.Done("said"), "-q", "logout")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_global_options_may_stand_behind_the_command(home: Path, cli: Cli) -> None:
    with FakePeer(home, {control.ListGroups: control.Groups([])}):
        assert cli("list-groups", "--json").json == []
        assert cli("list-groups", "--home", str(home), "--json").json == []
        assert cli("list-groups", "--home", str(home / "elsewhere")).code == 3


def test_relative_paths_are_taken_from_where_they_were_typed(home: Path, cli: Cli) -> None:
    uploaded = control.Uploaded(FILE, 1.0, False)
    asked, _ = one_request(home, cli, uploaded, "upload-file", "x/../film.mkv", "films")
    assert asked == control.UploadFile(str(home.parent / "film.mkv"), "films")
    words = ("download-file", "films", "film.mkv", "d")
    asked, _ = one_request(home, cli, DOWNLOADED, *words)
    assert asked == control.DownloadFile("films", "film.mkv", str(home.parent / "d"), True)
    asked, _ = one_request(home, cli, control.Done(), *words, "--no-wait", "--pick", "sequential")
    assert asked == control.DownloadFile(
        "films", "film.mkv", str(home.parent / "d"), False, "sequential"
    )


def test_upload_options(home: Path, cli: Cli) -> None:
    words = ("upload-file", "/a", "films", "--name", "n", "--digest", "sha1", "--piece-size", "1M")
    asked, _ = one_request(home, cli, control.Uploaded(FILE, 1.0, False), *words)
    assert asked == control.UploadFile("/a", "films", "n", "sha1", 1 << 20)


class TestPasswords:
    def test_one_line_of_standard_input(
        self, home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for command, kind in (("login", control.Login), ("create_user", control.CreateUser)):
            monkeypatch.setattr("sys.stdin", io.StringIO(" p w \r\nmore\n"))
            asked, ran = one_request(home, cli, control.Done(), command, "anna")
            assert asked == kind("anna", " p w ")
            assert ran.code == 0

    def test_the_old_one_and_the_new_one_are_a_line_each(
        self, home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for words, lines in (([], " o ld\nn ew\n"), ([" o ld"], "n ew\n")):
            monkeypatch.setattr("sys.stdin", io.StringIO(lines))
            asked, ran = one_request(home, cli, control.Done(), "change_password", *words)
            assert asked == control.ChangePassword(" o ld", "n ew")
            assert ran.code == 0
        monkeypatch.setattr("sys.stdin", io.StringIO("old\n"))
        with FakePeer(home) as peer:
            ran = cli("change-password")
        assert (ran.code, peer.asked) == (2, [])
        assert ran.err.startswith("error: no password was given\nhint: ")

    def test_at_a_terminal_they_are_asked_for_without_echo_and_the_new_one_twice(
        self, home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        typed = {"Old password: ": "old", "New password: ": "new", "Repeat the password: ": "new"}
        prompts: list[str] = []

        def type_in(prompt: str) -> str:
            prompts.append(prompt)
            return typed[prompt]

        monkeypatch.setattr("sys.stdin", Terminal())
        monkeypatch.setattr("getpass.getpass", type_in)
        asked, _ = one_request(home, cli, control.Done(), "change-password")
        assert asked == control.ChangePassword("old", "new")
        assert prompts == list(typed)
        typed["Repeat the password: "] = "mistyped"
        with FakePeer(home) as peer:
            ran = cli("change-password")
        assert (ran.code, peer.asked) == (2, [])
        assert ran.err.startswith("error: the two passwords differ\n")

    def test_ctrl_c_at_the_question_leaves_its_line(
        self, home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        def type_in(prompt: str) -> str:
            raise KeyboardInterrupt

        monkeypatch.setattr("sys.stdin", Terminal())
        monkeypatch.setattr("getpass.getpass", type_in)
        with FakePeer(home):
            ran = cli("login", "anna")
        assert (ran.code, ran.err) == (130, "\nerror: interrupted\n")

    def test_no_name_no_question(self, home: Path, cli: Cli) -> None:
        with FakePeer(home) as peer:
            ran = cli("create-user", "an na")  # standard input would have no password either
        assert (ran.code, peer.asked) == (2, [])
        assert ran.err.startswith('error: "an na" is not a valid user name\n')

    def test_a_missing_password_is_wrong_usage(self, home: Path, cli: Cli) -> None:
        with FakePeer(home) as peer:
            ran = cli("login", "anna")
        assert (ran.code, peer.asked) == (2, [])
        assert ran.err.startswith("error: no password was given\nhint: ")

    def test_without_a_peer_no_password_is_asked_for(self, home: Path, cli: Cli) -> None:
        assert cli("login", "anna").code == 3

    def test_it_never_appears_in_an_error(self, home: Path, cli: Cli) -> None:
        error = Refused(Code.WRONG_CREDENTIALS, "no such user, or a wrong password")
        _, ran = one_request(home, cli, error, "-v", "login", "anna", "s3cret")
        assert ran.code == 1
        assert "s3cret" not in ran.out + ran.err


# -- what is printed ----------------------------------------------------------------------------


def test_status(home: Path, cli: Cli) -> None:
    with FakePeer(home):
        found = cli("--json", "status").json
        text = cli("status").out
    assert {
        "user": "anna",
        "connected": True,
        "tracker": LINK,
        "listen": "tcp://127.0.0.1:40123",
        "device": "B" * 43,
        "shares": 3,
    }.items() <= found.items()
    assert "type" not in found
    assert all(part in text for part in ("anna", LINK, "tcp://127.0.0.1:40123", "B" * 43))


def test_show_downloads_in_a_pipe_is_exactly_this(home: Path, cli: Cli) -> None:
    _, ran = one_request(home, cli, control.Downloads(DOWNLOADS), "show_downloads")
    lines = "[D] [films] a b.mkv\n[C] [films] b\n[P] [books] c\n[F] [books] d\n"
    assert ran == Ran(0, lines, "")
    _, ran = one_request(home, cli, control.Downloads([]), "show-downloads")
    assert ran == Ran(0, "", "There are no downloads.\n")


FILE_DOCUMENT = {
    "name": "film.mkv",
    "size_bytes": 1 << 30,
    "files": 1,
    "pieces": 2048,
    "piece_bytes": 524288,
    "algorithm": "blake3",
    "digest": "ab" * 32,
    "seeders": 2,
    "leechers": 1,
    "shared_by": ["anna"],
    "away": False,
    "version": 1,
    "current": True,
    "folder": None,
}
JSON: list[tuple[list[str], control.Answer, Any]] = [
    (
        ["list-groups"],
        control.Groups([control.GroupRow("films", "anna", 2, "owner")]),
        [{"group": "films", "owner": "anna", "members": 2, "role": "owner"}],
    ),
    (
        ["list-members", "films"],
        control.Users([control.UserRow("anna", "owner", "2026-01-01T00:00:00Z", 1)]),
        [
            {
                "user": "anna",
                "role": "owner",
                "since": "2026-01-01T00:00:00Z",
                "online": 1,
                "follows": 0,
            }
        ],
    ),
    (["list-requests", "films"], control.Users([]), []),
    (
        ["list-devices"],
        control.Devices([DEVICE]),
        [
            {
                "id": "3f0c9a1b",
                "device": "B" * 43,
                "bound": "2026-01-01T00:00:00.000Z",
                "seen": "2026-01-02T00:00:00.000Z",
                "online": True,
                "address": "tcp://192.0.2.1:1",
                "this": True,
            }
        ],
    ),
    (
        ["change-password", "old", "new"],
        control.Done("password changed", {"user": "anna", "logged_out": 2}),
        {"user": "anna", "logged_out": 2},
    ),
    (
        ["remove-member", "films", "bert"],
        control.Done("removed", {"group": "films", "user": "bert", "role": "none"}),
        {"group": "films", "user": "bert", "role": "none"},
    ),
    (["clear"], control.DoneAll("cleared", [{"group": "films"}]), [{"group": "films"}]),
    (["clear"], control.DoneAll("cleared", []), []),
    (
        ["list-files", "films"],
        control.Files([FILE]),
        [FILE_DOCUMENT],
    ),
    (
        ["show-downloads"],
        control.Downloads(DOWNLOADS[:1]),
        [
            {
                "state": "downloading",
                "group": "films",
                "name": "a b.mkv",
                "path": "/d/a b.mkv",
                "size_bytes": 100,
                "verified_bytes": 50,
                "rate_bytes_per_s": 5.0,
                "eta_s": 10.0,
                "sources": [{"user": "anna", "endpoint": "tcp://192.0.2.1:1"}],
                "reason": None,
                "version": 1,
                "files": [],
            }
        ],
    ),
    (
        ["why-slow", "films", "film.mkv"],
        control.SourceRows(
            [
                control.SourceRow(
                    "anna", "tcp://192.0.2.1:1", True, 5.0, 3, 2, "good", "KEY", "20212223"
                )
            ]
        ),
        [
            {
                "user": "anna",
                "endpoint": "tcp://192.0.2.1:1",
                "complete": True,
                "rate_bytes_per_s": 5.0,
                "pieces": 3,
                "in_flight": 2,
                "verdict": "good",
                "device": "KEY",
                "id": "20212223",
            }
        ],
    ),
    (
        ["upload-file", "/a", "films"],
        control.Uploaded(FILE, 1.5, True, False, ["a note"], [control.SkippedRow("a/l", "a link")]),
        {
            **FILE_DOCUMENT,
            "elapsed_s": 1.5,
            "joined": True,
            "again": False,
            "notes": ["a note"],
            "skipped": [{"path": "a/l", "reason": "a link"}],
            "skipped_unnamed": 0,
            "excluded": 0,
            "expires": None,
        },
    ),
    (
        ["download-file", "films", "film.mkv", "/d"],
        DOWNLOADED,
        {
            "group": "films",
            "name": "film.mkv",
            "version": 1,
            "path": "/d/film.mkv",
            "size_bytes": 1 << 30,
            "algorithm": "blake3",
            "digest": "ab" * 32,
            "elapsed_s": 2.0,
            "rate_bytes_per_s": float(1 << 29),
            "fetched_bytes": 1 << 29,
            "reused_bytes": 1 << 29,
            "sources": [{"user": "anna", "endpoint": "tcp://192.0.2.1:1", "pieces": 2000}],
            "in_place": False,
            "kept": None,
            "files": [],
        },
    ),
    (
        ["download-file", "films", "film.mkv", "/d", "--no-wait"],
        control.Begun("downloading film.mkv", "films", "/d/film.mkv", "film.mkv"),
        {
            "group": "films",
            "name": "film.mkv",
            "version": 1,
            "path": "/d/film.mkv",
            "state": "downloading",
        },
    ),
]


@pytest.mark.parametrize(("words", "answer", "document"), JSON, ids=[w[0] for w, _, _ in JSON])
def test_json_shapes(
    home: Path, cli: Cli, words: list[str], answer: control.Answer, document: Any
) -> None:
    _, ran = one_request(home, cli, answer, "--json", *words)
    assert (ran.code, ran.json, ran.err) == (0, document, "")


def test_a_list_of_devices_says_which_is_this_one(home: Path, cli: Cli) -> None:
    away = msgspec.structs.replace(
        DEVICE, id="aa00bb11", online=False, address=None, this=False, seen="not known"
    )
    _, ran = one_request(home, cli, control.Devices([DEVICE, away]), "list_devices")
    titles, *lines = [line.split() for line in ran.out.splitlines()]
    assert titles == ["ID", "LOGGED", "IN", "LAST", "SEEN", "ADDRESS"]
    assert (lines[0][0], lines[0][3:]) == (
        "3f0c9a1b",
        ["online", "tcp://192.0.2.1:1", "this", "one"],
    )
    assert (lines[1][0], lines[1][3:]) == ("aa00bb11", ["not", "known"])


KEYS: dict[str, type[msgspec.Struct]] = {
    "list-groups": control.GroupRow,
    "list-members": control.UserRow,
    "list-devices": control.DeviceRow,
    "list-files": control.FileRow,
    "show-downloads": control.DownloadRow,
    "why-slow": control.SourceRow,
    "download-file": control.Downloaded,
    "status": control.StatusIs,
    "doctor": control.CheckRow,
    "list-shares": control.ShareRow,
    "verify": control.Verified,
    "limit": control.LimitsRow,
}


def test_the_document_names_every_key() -> None:
    """docs/json.md, in the order of the documents."""
    text = (ROOT / "docs" / "json.md").read_text("utf-8").partition("## What a command changed")[0]
    rows = {}
    for line in text.splitlines():
        if found := re.fullmatch(r"\| `([a-z-]+)` \| (?:list|document) \| (.+) \|", line):
            rows[found[1]] = re.findall(r"`([a-z_]+)`", re.sub(r"\([^()]*\)", "", found[2]))
    for command, kind in KEYS.items():
        assert sorted(rows[command]) == sorted(kind.__struct_fields__), command


def test_json_progress_is_an_object_a_line_on_standard_error(
    home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peer.cli.progress.LINE_S", 0.0)

    def work(command: control.Command, tell: Any) -> control.Answer:
        tell(control.Progress("downloading", 50, 100, 10.0, 5.0, 3, EVIL))
        return DOWNLOADED

    words = ("--json", "download-file", "films", "film.mkv", "/d")
    _, ran = one_request(home, cli, work, *words)
    assert ran.json["name"] == "film.mkv"
    assert json.loads(ran.err) == {
        "progress": {
            "stage": "downloading",
            "done_bytes": 50,
            "total_bytes": 100,
            "rate_bytes_per_s": 10.0,
            "eta_s": 5.0,
            "sources": 3,
            "note": EVIL,
            "advice": None,
        }
    }
    assert "\x1b" not in ran.err
    _, ran = one_request(home, cli, work, "-q", *words)
    assert ran.err == ""
    monkeypatch.setattr("peer.cli.progress.LINE_S", 60.0)
    _, ran = one_request(home, cli, work, *words)
    assert ran.err == "", "what ends soon has one document at most on standard error"


def test_a_download_reports_its_path_on_one_line(home: Path, cli: Cli) -> None:
    def work(command: control.Command, tell: Any) -> control.Answer:
        tell(control.Progress("downloading", 50, 100, 10.0, 5.0, 3))
        return DOWNLOADED

    words = ("download-file", "films", "film.mkv", "/d")
    _, ran = one_request(home, cli, work, *words)
    fetched = "512 MiB fetched, 512 MiB from this device"
    assert ran.out == f"/d/film.mkv: 1 GiB in 2.0 s, 512 MiB/s, from 1 peer: {fetched}\n"
    assert ran.err == "film.mkv: downloading, 50 % of 100 B, 10 B/s, from 3 peers, 5.0 s left\n"
    _, ran = one_request(home, cli, work, "-q", *words)
    assert (ran.out, ran.err) == ("", "")


def test_watch_prints_an_object_a_line(home: Path, cli: Cli) -> None:
    def work(command: control.Command, tell: Any) -> control.Answer:
        for seq in (7, 8):
            details: dict[str, str | int | bool] = {"name": EVIL, "size_bytes": 3, "seq": 99}
            tell(control.Happened(seq, "2026-01-01T00:00:00Z", "films", "share", details))
        return control.Done()

    asked, ran = one_request(home, cli, work, "watch", "films", "--json")
    assert asked == control.Watch("films")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert rows == [
        {
            "seq": seq,
            "time": "2026-01-01T00:00:00Z",
            "group": "films",
            "event": "share",
            "name": EVIL,
            "size_bytes": 3,
        }
        for seq in (7, 8)
    ]
    _, ran = one_request(home, cli, work, "watch")
    assert len(ran.out.splitlines()) == 2
    assert "\x1b" not in ran.out


LIMITS = control.LimitsRow(
    5 << 20, None, None, 1 << 20, "08:00,5M 18:00,off", True, "2026-01-01T18:00:00Z"
)


def test_limits_are_shown_changed_and_refused(home: Path, cli: Cli) -> None:
    answer = control.LimitsAre(LIMITS)
    asked, ran = one_request(home, cli, answer, "limit")
    assert asked == control.Limit()
    assert ran.out.splitlines() == [
        "limits    up 5 MiB/s, down unlimited, set by hand until "
        + moment_text("2026-01-01T18:00:00Z"),
        "each user up unlimited, down 1 MiB/s",
        "timetable 08:00,5M 18:00,off",
    ]
    words = ("limit", "--up", "5M", "--down", "off", "--up-per-user", "800K", "--schedule")
    asked, ran = one_request(home, cli, answer, "--json", *words, "08:00,5M")
    assert asked == control.Limit(5 << 20, 0, 800 << 10, None, "08:00,5M")
    assert ran.json == msgspec.to_builtins(LIMITS)
    asked, _ = one_request(home, cli, answer, "limit", "--schedule", "off")
    assert asked == control.Limit(schedule="")
    with FakePeer(home) as peer:
        for bad in (
            ("--up", "5"),
            ("--up", "fast"),
            ("--schedule", ""),
            ("--schedule", "25:00,5M"),
            ("--schedule", "08:00,512"),
        ):
            ran = cli("limit", *bad)
            assert (ran.code, ran.out) == (2, ""), bad
    assert peer.asked == []


def test_a_check_of_the_status_exits_with_the_code_that_fits(home: Path, cli: Cli) -> None:
    out = msgspec.structs.replace(STATUS, user=None)
    away = msgspec.structs.replace(out, connected=False, trouble="no route")
    for status, code in ((STATUS, 0), (out, 1), (away, 4)):
        _, ran = one_request(home, cli, status, "status", "--check")
        assert ran.code == code
        assert (ran.out == "") == (code != 0)
        assert ran.err.startswith("error: ") == (code != 0)
        _, ran = one_request(home, cli, status, "--json", "status", "--check")
        assert ran.json if code == 0 else ran.error
    assert cli("status", "--check").code == 3


def test_commands_about_all_downloads(home: Path, cli: Cli) -> None:
    """One that ended meanwhile is passed over; one that fails does not keep the others back."""

    def work(command: Any, tell: Any) -> control.Answer:
        if command.name == "/d/c":
            raise Refused(Code.UNKNOWN_SHARE, "gone")
        if command.name == "/d/d":
            raise Refused(Code.STORAGE, "read-only")
        return control.Done("done")

    kinds = (control.Pause, control.Resume, control.Cancel)
    replies: dict[type, Any] = {
        control.ShowDownloads: control.Downloads(DOWNLOADS),
        **dict.fromkeys(kinds, work),
    }
    for command, kind, paths, count, code in (
        ("pause", control.Pause, ["/d/a b.mkv", "/d/c"], 1, 0),
        ("resume", control.Resume, ["/d/c", "/d/d"], 0, 1),
        ("cancel", control.Cancel, ["/d/a b.mkv", "/d/c", "/d/d"], 1, 1),
    ):
        with FakePeer(home, replies) as peer:
            ran = cli("--json", command, "--all")
        asked = [
            command for command in peer.asked if not isinstance(command, control.ShowDownloads)
        ]
        assert [type(command) for command in asked] == [kind] * len(paths)
        assert [command.name for command in asked] == paths  # type: ignore[union-attr]
        assert (ran.code, len(ran.json)) == (code, count)
        for row in ran.json:
            assert (row["group"], row["name"], row["path"]) == ("films", "a b.mkv", "/d/a b.mkv")
        with FakePeer(home, replies) as peer:
            for words in ((), ("films",), ("films", "a", "--all"), ("films", "--all")):
                assert cli(command, *words).code == 2
        assert peer.asked == []


def test_downloads_in_a_state(home: Path, cli: Cli) -> None:
    answer = control.Downloads(DOWNLOADS)
    _, ran = one_request(home, cli, answer, "show-downloads", "--state", "Paused")
    assert ran.out == "[P] [books] c\n"
    words = ("--json", "show-downloads", "--state", "failed", "--state", "complete")
    _, ran = one_request(home, cli, answer, *words)
    assert [row["state"] for row in ran.json] == ["complete", "failed"]
    assert cli("show-downloads", "--state", "gone").code == 2


@pytest.mark.parametrize("as_json", [False, True])
def test_watched_downloads_are_printed_as_they_change(
    home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    monkeypatch.setattr("peer.cli.download_list.REFRESH_S", 0.0)
    first, second = DOWNLOADS[0], DOWNLOADS[1]
    ended = msgspec.structs.replace(first, state="complete")
    looks = iter([[first, second], [first, second], [ended, second], KeyboardInterrupt])

    def rows(*_: Any) -> Any:
        found = next(looks)
        if found is KeyboardInterrupt:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr("peer.cli.download_list.rows_of", rows)
    ran = cli(*(["--json"] if as_json else []), "show-downloads", "--watch")
    assert ran.code == 130
    if as_json:
        lists = [json.loads(line) for line in ran.out.splitlines()]
        states = [[row["state"] for row in rows] for rows in lists]
        assert states == [["downloading", "complete"], ["complete", "complete"]]
    else:
        assert ran.out == "[D] [films] a b.mkv\n[C] [films] b\n[C] [films] a b.mkv\n"


def test_damage_is_an_error_and_json_has_all_of_it(home: Path, cli: Cli) -> None:
    found = control.Verified("films", "n", 1, EVIL, 1, 99, [*range(12)], [EVIL], 1.0)
    _, ran = one_request(home, cli, found, "verify", "films", "n")
    assert (ran.code, ran.out) == (5, "")
    assert "12 of 99 pieces damaged: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more in " in ran.err
    assert "\x1b" not in ran.err
    assert "--overwrite" in ran.err
    _, ran = one_request(home, cli, found, "--json", "verify", "films", "n")
    assert (ran.json["damaged"], ran.json["files"]) == ([*range(12)], [EVIL])
    assert ran.error["code"] == "corrupt"


def test_whoami(home: Path, cli: Cli) -> None:
    status = msgspec.structs.replace(STATUS, id="3f0c9a1b")
    _, ran = one_request(home, cli, status, "whoami")
    assert ran.out.splitlines() == ["user      anna", "device    3f0c9a1b", f"tracker   {LINK}"]
    _, ran = one_request(home, cli, status, "--json", "whoami")
    assert ran.json == {
        "user": "anna",
        "id": "3f0c9a1b",
        "device": "B" * 43,
        "tracker": LINK,
        "connected": True,
    }
    _, ran = one_request(home, cli, msgspec.structs.replace(status, user=None), "whoami")
    assert (ran.code, ran.out) == (1, "")


def test_h128_the_log_is_printed_as_text(home: Path, cli: Cli) -> None:
    """A log may contain names of others; it is read without a peer, and by its end."""
    ran = cli("logs")
    assert (ran.code, ran.out) == (1, "")
    assert "no log" in ran.err
    log = home / "peer.log"
    log.write_bytes(b"".join(b"line %d\n" % at for at in range(99)) + f"{EVIL}\xff".encode())
    ran = cli("logs", "-n", "2")
    assert (ran.code, ran.out) == (0, "line 98\n\\x1b[31mred\\x1b[0m\n")
    assert ran.err == f"{log}:\n"
    found = cli("--json", "logs", "-n", "1").json
    assert found == {"path": str(log), "lines": ["\x1b[31mred\x1b[0m"]}
    assert len(cli("logs", "-q").out.splitlines()) == 20


FETCHING = control.FetchingRow(EVIL, EVIL, 1.0, EVIL)
SHARE = control.ShareRow(EVIL, EVIL, 2, EVIL, 1, EVIL, EVIL, 1, [FETCHING])
EVERYWHERE: list[tuple[list[str], control.Answer]] = [
    (["list-groups"], control.Groups([control.GroupRow(EVIL, EVIL, 2, EVIL)])),
    (["list-members", "g"], control.Users([control.UserRow(EVIL, EVIL, EVIL, 1)])),
    (
        ["list-devices"],
        control.Devices([control.DeviceRow(EVIL, EVIL, EVIL, EVIL, False, EVIL, True)]),
    ),
    (
        ["list-files", "g"],
        control.Files([control.FileRow(EVIL, 1, 1, 1, 1, EVIL, EVIL, 1, 1, [EVIL])]),
    ),
    (
        ["show-downloads"],
        control.Downloads(
            [
                control.DownloadRow(
                    "downloading",
                    EVIL,
                    EVIL,
                    EVIL,
                    1,
                    1,
                    1.0,
                    1.0,
                    [control.SourceEnd("anna", "tcp://192.0.2.1:1")],
                    EVIL,
                )
            ],
        ),
    ),
    (
        ["why-slow", "g", "n"],
        control.SourceRows([control.SourceRow(EVIL, EVIL, True, 1.0, 1, 1, EVIL)]),
    ),
    (
        ["upload-file", "/a", "g"],
        control.Uploaded(msgspec.structs.replace(FILE, name=EVIL), 1.0, False),
    ),
    (
        ["download-file", "g", EVIL.replace("[", "("), "/d"],  # with [ it would be a pattern
        control.Downloaded(EVIL, EVIL, EVIL, 1, EVIL, EVIL, 1.0, 1.0, 1, 0, []),
    ),
    (["create-group", EVIL], control.Done(EVIL)),
    (["logout"], control.Done(EVIL)),
    (["logout"], control.Failed(Code.FAILED, EVIL, EVIL)),
    (["list-shares"], control.ShareRows([SHARE])),
    (["verify", "g", "n"], control.Verified(EVIL, EVIL, 1, EVIL, 1, 1, [], [], 1.0)),
    (["move", "g", "n", "p"], control.Done(EVIL)),
    (["limit"], control.LimitsAre(control.LimitsRow(schedule=EVIL, until=EVIL))),
    (["whoami"], control.StatusIs(EVIL, True, EVIL, EVIL, EVIL, 1, id=EVIL)),
    (["status"], control.StatusIs(EVIL, False, EVIL, EVIL, EVIL, 1, 1, 1, EVIL, away=[EVIL])),
]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("words", "answer"), EVERYWHERE)
def test_h31_nothing_a_stranger_typed_reaches_the_terminal_raw(
    home: Path, cli: Cli, words: list[str], answer: control.Answer, as_json: bool
) -> None:
    _, ran = one_request(home, cli, answer, *words, *(["--json"] if as_json else []))
    text = ran.out + ran.err
    assert text
    assert not set(text) & {"\x1b", "\u202e", "\x7f", "\r"}
    if as_json:
        json.loads(text)


# -- what goes wrong ----------------------------------------------------------------------------

CODES = [
    (Refused(Code.NOT_OWNER, "no", "do"), 1, "not-owner"),
    (TransportError("no", "do"), 4, "unreachable"),
    (IntegrityError("no", "do"), 5, "corrupt"),
    (Refused(Code.UNREACHABLE, "no", "do"), 4, "unreachable"),
]


@pytest.mark.parametrize(("error", "exit_code", "code"), CODES)
def test_errors_and_their_exit_codes(
    home: Path, cli: Cli, error: Exception, exit_code: int, code: str
) -> None:
    _, ran = one_request(home, cli, error, "logout")
    assert ran == Ran(exit_code, "", "error: no\nhint: do\n")
    _, ran = one_request(home, cli, error, "--json", "logout")
    assert (ran.code, ran.out) == (exit_code, "")
    assert ran.error == {"code": code, "message": "no", "hint": "do"}


def test_no_peer_is_3_for_every_command_that_needs_one(home: Path, cli: Cli) -> None:
    commands = [words for words, _ in ASKS] + [words for words, _, _ in JSON]
    for words in [*commands, ["status"], ["down"], ["watch"], ["why-slow", "g", "n"]]:
        ran = cli(*words)
        assert (ran.code, ran.out) == (3, "")
        assert ran.err.startswith(f"error: no peer runs for {home}\nhint: "), words


WRONG: list[list[str]] = [
    ["frobnicate"],
    ["login"],
    ["list-files"],
    ["list-files", "a", "b", "c"],
    ["list-groups", "--bar"],
    ["upload-file", "a", "g", "--digest", "md5"],
    ["upload-file", "a", "g", "--piece-size", "100K"],
    ["upload-file", "a", "g", "--piece-size", "8M"],
    ["upload-file", "a", "g", "--piece-size", "many"],
    ["download-file", "g", "n", "d", "--pick", "best"],
    ["up"],
    ["up", "--tracker", "nowhere.txt"],
    ["up", "--tracker", "mini-torrent://h:1/short"],
    ["up", "--tracker", LINK, "--listen", "somewhere"],
    ["demo", "--peers", "1"],
    ["demo", "no such file"],
    ["completion", "tcsh"],
]


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_wrong_usage_is_2_and_one_clear_line(home: Path, cli: Cli, words: list[str]) -> None:
    ran = cli(*words)
    assert (ran.code, ran.out) == (2, "")
    lines = ran.err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint"]
    ran = cli("--json", *words)
    assert ran.code == 2
    assert ran.error["code"] == "usage"


def test_a_mistyped_command_is_answered_with_the_nearest(cli: Cli) -> None:
    for typed, found in {
        "list_group": "list-groups", "share": "upload-file", "help": "--help",
        "LS": "list-files", "get": "download-file", "upload": "upload-file",
        "logn": "login", "start": "up", "stop": "down", "kick": "remove-member",
        "version": "--version", "unshare": "stop-share", "downlod": "download-file",
    }.items():  # fmt: skip
        line = cli(typed).err.splitlines()[1]
        assert line.startswith("hint: did you mean: mini-torrent "), typed
        assert line.endswith(f" {found}"), typed
    assert cli("qqqqq").err.endswith(" --help\n")


def test_a_malformed_tracker_info_is_named_by_line(home: Path, cli: Cli) -> None:
    info = home.parent / "tracker_info.txt"
    info.write_text("# ours\n127.0.0.1\nport\n")
    ran = cli("up", "--tracker", "tracker_info.txt")
    assert ran.code == 2
    assert ran.err.startswith(f"error: {info}, line 3: not a port: 'port'\n")
    info.write_text("127.0.0.1\n5000\n")
    ran = cli("shell", "127.0.0.1:0", "tracker_info.txt")
    assert ran.code == 2
    assert "no key line" in ran.err


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("pause", control.Pause),
        ("resume", control.Resume),
        ("cancel", control.Cancel),
        ("why-slow", control.WhySlow),
    ],
)
def test_a_download_is_found_by_the_path_as_it_was_typed(
    home: Path, cli: Cli, word: str, kind: type[control.Pause]
) -> None:
    path = str(home.parent / "copy.bin")
    unknown = Refused(Code.UNKNOWN_SHARE, "no download of that name is under way")

    def answer(command: control.Pause, tell: Any) -> control.Answer:
        if command.name != path:
            raise unknown
        return control.SourceRows([]) if word == "why-slow" else control.Done()

    with FakePeer(home, {kind: answer}) as peer:
        assert cli(word, "g", "copy.bin").code == 0
        assert cli(word, "g", "./copy.bin").code == 0
        wrong = cli(word, "g", "other.bin")
    assert (wrong.code, unknown.message in wrong.err) == (1, True)
    assert [command.name for command in peer.asked[:2]] == ["copy.bin", path]  # type: ignore[union-attr]


def test_a_local_copy_names_no_peer(home: Path, cli: Cli) -> None:
    _, ran = one_request(
        home, cli, msgspec.structs.replace(DOWNLOADED, sources=[]), "download-file", "g", "n", "x"
    )
    assert ran.out.endswith(", copied from this device\n")


@pytest.mark.parametrize(
    ("typed", "sent"), [([], ""), (["new/"], "/new/"), (["new"], "/new"), (["a//"], "/a/")]
)
def test_a_destination_keeps_the_mark_of_a_folder(
    typed: list[str], sent: str, home: Path, cli: Cli
) -> None:
    command, _ = one_request(home, cli, DOWNLOADED, "download-file", "g", "n", *typed)
    assert isinstance(command, control.DownloadFile)
    assert command.dest == os.getcwd() + sent


def download_of(name: str) -> control.Downloaded:
    return msgspec.structs.replace(DOWNLOADED, name=name, path=f"/d/{name}")


class TestPatterns:
    """`download-file` with a pattern: what is listed, begun and awaited."""

    NAMES = ("a.iso", "b.ISO", ".c.iso", "d.img", "[e].iso")

    def answer(self, command: control.Command, _: object) -> control.Answer:
        match command:
            case control.ListFiles():
                return control.Files([msgspec.structs.replace(FILE, name=n) for n in self.NAMES])
            case control.DownloadFile(group, name, dest, wait=False):
                return control.Begun(f"downloading {name}", group, dest + name)
            case control.DownloadFile(group, name):
                return download_of(name)
            case control.AwaitDownload(group, path):
                if path.endswith("b.ISO"):
                    return control.Failed(Code.TIMED_OUT, "timed out", "wait", 6)
                return download_of(os.path.basename(path))
        raise AssertionError(command)

    @property
    def answers(self) -> dict[type, Reply]:
        kinds = (control.ListFiles, control.DownloadFile, control.AwaitDownload)
        return dict.fromkeys(kinds, self.answer)

    def test_every_match_is_fetched_and_reported(self, home: Path, cli: Cli) -> None:
        with FakePeer(home, self.answers) as peer:
            ran = cli("--json", "download-file", "g", "*.iso", "/d")
        kinds = [type(command).__name__ for command in peer.asked]
        assert kinds == ["ListFiles", *["DownloadFile"] * 3, *["AwaitDownload"] * 3]
        assert {
            command.dest for command in peer.asked if isinstance(command, control.DownloadFile)
        } == {"/d/"}
        assert [row["name"] for row in ran.json] == ["a.iso", "b.ISO", "[e].iso"]
        assert ran.json[1]["error"] == {"code": "timed-out", "message": "timed out", "hint": "wait"}
        assert ran.code == 6

    def test_a_name_with_such_letters_wins(self, home: Path, cli: Cli) -> None:
        with FakePeer(home, self.answers):
            ran = cli("--json", "download-file", "g", "[E].iso", "/d")
        assert (ran.code, ran.json["name"]) == (0, "[E].iso")

    def test_no_match_is_refused(self, home: Path, cli: Cli) -> None:
        with FakePeer(home, self.answers) as peer:
            ran = cli("download-file", "g", "*.mkv")
        assert ran.code == 1
        assert not any(isinstance(command, control.DownloadFile) for command in peer.asked)
        assert 'no share of the group "g" matches "*.mkv"' in ran.err
        assert "list-files g" in ran.err

    def test_without_a_wait_each_is_begun(self, home: Path, cli: Cli) -> None:
        with FakePeer(home, self.answers):
            ran = cli("download-file", "g", "?.i[ms][og]", "--no-wait")
        assert (ran.code, ran.out) == (
            0,
            "downloading a.iso\ndownloading b.ISO\ndownloading d.img\n",
        )


def test_a_bounded_wait_needs_a_wait(home: Path, cli: Cli) -> None:
    with FakePeer(home) as peer:
        ran = cli("download-file", "g", "n", "--no-wait", "--timeout", "1s")
        wrong = cli("download-file", "g", "n", "--timeout", "1")
    assert (ran.code, wrong.code, peer.asked) == (2, 2, [])
    assert "write it like 90s" in wrong.err


def test_tracebacks_are_for_those_who_ask(home: Path, cli: Cli) -> None:
    broken = control.Groups([control.GroupRow("g", "o", "two", "member")])  # type: ignore[arg-type]
    _, ran = one_request(home, cli, broken, "list-groups")
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 2
    _, ran = one_request(home, cli, broken, "list-groups", "-v")
    assert "Traceback" in ran.err


def test_up_when_one_runs_already(home: Path, cli: Cli) -> None:
    with FakePeer(home) as peer:
        for words in (
            [],
            ["--tracker", LINK],
            [LINK],
            [f" '{LINK}' "],
            [LINK, "--tracker", LINK],
            ["--listen", "127.0.0.1:40123"],
            ["--listen", "0"],
        ):
            ran = cli("up", *words)
            assert ran.code == 0, ran
            assert ran.out.startswith("peer is already running (PID 1234): tcp://127.0.0.1:40123")
        for words in (
            ["--tracker", LINK.replace("5000", "6000")],
            [LINK.replace("5000", "6000")],
            ["--advertise", "192.0.2.9"],
            ["--listen", "127.0.0.1:1"],
            ["--upload-limit", "1M"],
        ):
            ran = cli("up", *words)
            assert ran.code == 1
            assert f"mini-torrent --home {home} down" in ran.err
        two = cli("up", LINK, "--tracker", LINK.replace("5000", "6000"))
        assert (two.code, two.err.count("two trackers are given")) == (2, 1)
        assert cli("--json", "up").json["listen"] == STATUS.listen
        assert not any(isinstance(command, control.Down) for command in peer.asked)


def test_down_waits_until_the_peer_is_gone(home: Path, cli: Cli) -> None:
    with FakePeer(home):
        assert cli("down") == Ran(0, "peer stopped\n", "")
        assert cli("status").code == 3


def test_an_immediate_refusal_is_one_line(home: Path, cli: Cli) -> None:
    async def refuse(command: control.Command, tell: Any) -> control.Answer:
        tell(control.Progress("finding sources", 0, 0))
        raise Refused(Code.UNKNOWN_SHARE, "there is no such share")

    with FakePeer(home, {control.DownloadFile: refuse}):
        refused = cli("download-file", "films", "a", "/d")
        assert refused == Ran(1, "", "error: there is no such share\n")


def test_too_many_arguments_are_answered_with_those_that_there_are(cli: Cli) -> None:
    for words, takes in {
        ("download-file", "a", "b", "c", "d"): "download-file takes GROUP, NAME and DEST",
        ("list-groups", "a"): "list-groups takes none",
        ("logout", "a", "b"): "logout takes none",
        ("up", "a", "b"): "up takes LINK|TRACKER_INFO",
    }.items():
        assert cli(*words).err.splitlines()[0] == f"error: too many arguments: {takes}"


def test_no_message_repeats_what_is_very_long(home: Path, cli: Cli) -> None:
    with FakePeer(home):
        for words in (("x" * 100_000,), ("status", "x" * 100_000)):
            refused = cli(*words)
            assert refused.code == 2
            assert len(refused.err) < 1_000


def test_a_path_behind_the_group_is_seen_for_what_it_is(
    home: Path, cli: Cli, tmp_path: Path
) -> None:
    film = tmp_path / "film.mkv"
    film.touch()
    with FakePeer(home) as peer:
        refused = cli("upload-file", "films", str(film))
        assert refused.code == 2
        assert f"upload-file {film} films" in refused.err
        assert not peer.asked


# -- as a process -------------------------------------------------------------------------------


def process(home: Path, *words: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "peer.cli", "--home", str(home), *words],
        cwd=ROOT,
        text=True,
        stderr=subprocess.PIPE,
        **{"stdout": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options},
    )


def test_ctrl_c_is_130_and_the_download_goes_on(home: Path) -> None:
    import asyncio

    async def work(command: control.Command, tell: Any) -> control.Answer:
        tell(control.Progress("downloading", 1, 100))
        await asyncio.Event().wait()
        raise AssertionError

    with FakePeer(home, {control.DownloadFile: work}) as peer:
        command = process(home, "download-file", "films", "a", "/d")
        assert command.stderr is not None
        assert "downloading" in command.stderr.readline()
        command.send_signal(signal.SIGINT)
        _, err = command.communicate(timeout=20)
        assert command.returncode == 130
        assert "still downloading in the background" in err
        assert "error" not in err
        assert peer.wait_for(lambda: len(peer.cancelled) == 1)
        assert not any(isinstance(command, control.Cancel) for command in peer.asked)


def test_a_closed_pipe_is_no_error(home: Path) -> None:
    rows = [control.GroupRow(f"g{at}", "o", 1, "member") for at in range(20_000)]
    with FakePeer(home, {control.ListGroups: control.Groups(rows)}):
        command = process(home, "list-groups")
        assert command.stdout is not None
        command.stdout.readline()
        command.stdout.close()
        assert command.stderr is not None
        assert command.stderr.read() == ""
        assert command.wait(20) == 0


@pytest.mark.parametrize("words", [("status",), ("--version",), ("--help",)])
def test_a_full_disk_behind_standard_output_is_an_error(home: Path, words: tuple[str]) -> None:
    with FakePeer(home), open("/dev/full", "w") as full:
        command = process(home, *words, stdout=full)
        _, err = command.communicate(timeout=20)
    assert (command.returncode, err) == (1, "error: No space left on device\n")


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_closed_stream_is_no_error(home: Path, closed: int) -> None:
    with FakePeer(home):
        command = process(home, "status", preexec_fn=lambda: os.close(closed))
        out, err = command.communicate(timeout=20)
    assert (command.returncode, err) == (0, "")
    assert (out == "") == (closed == 1)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ("invite", "lab", "--uses", "two"),
            "invalid value for '--uses': 'two' is not a whole number",
        ),
        (
            ("invite", "lab", "--uses", "0"),
            "invalid value for '--uses': 0 is not between 1 and 10000",
        ),
        (("upload-file", "model.bin"), "missing argument: upload-file takes PATH… and GROUP"),
        (("list-members",), "missing argument 'GROUP'"),
    ],
    ids=["word", "range", "group", "one"],
)
def test_wrong_usage_is_told_in_plain_words(
    words: tuple[str, ...], error: str, home: Path, cli: Cli
) -> None:
    ran = cli(*words)
    assert (ran.code, ran.err.splitlines()[0]) == (2, f"error: {error}")
