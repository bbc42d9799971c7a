"""The prompt: the same commands, one a line, until `quit` or the end of input."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from common.errors import IntegrityError, Refused, TransportError
from common.host.home import lock_holder
from common.messages import control
from common.messages.refusals import Code
from peer.cli import prompt_exit, root, run, shell
from peer.cli.completer import Completer
from peer.cli.console import Console
from tests.support.fake_peer import FakePeer


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("MINI_TORRENT"):
            monkeypatch.delenv(name)
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    monkeypatch.chdir(tmp_path)
    return path


def at_prompt(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], text: str
) -> tuple[int, str, list[str]]:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    capfd.readouterr()
    code = run(["--home", str(home), "shell"])
    out, err = capfd.readouterr()
    return code, out, [line for line in err.splitlines() if "already running" not in line]


Prompted = Any


def row(state: str, name: str = "a") -> control.Downloads:
    reason = "the disk is full" if state == "paused" else None
    return control.Downloads(
        [control.DownloadRow(state, "films", name, f"/d/{name}", 9, 9, 0.0, None, [], reason)]
    )


def test_commands_errors_and_the_end(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    replies: dict[type, Any] = {
        control.ShowDownloads: control.Downloads([]),
        control.CreateGroup: control.Done("group made"),
        control.JoinGroup: Refused(Code.UNKNOWN_GROUP, "no such group", "look"),
        control.StopShare: control.Done("stopped"),
    }
    with FakePeer(home, replies) as peer:
        code, out, err = at_prompt(
            home,
            monkeypatch,
            capfd,
            "create_group films\n"
            "mini-torrent create-group films\n"
            "\n   # a comment\n"
            "join-group nope\n"
            "nonsense\n"
            "shell\n"
            "list_files\n"
            "'open\n"
            "stop_share films 'a b'\n",
        )
        assert lock_holder(home) is not None
    assert code == 1  # of the first line that failed
    assert out == "group made\ngroup made\nstopped\n"
    assert [line for line in err if line.startswith("error")] == [
        "error: no such group",
        'error: there is no command "nonsense"',
        'error: there is no command "shell"',
        "error: missing argument 'GROUP'",
        "error: cannot parse the line: no closing quotation",
    ]
    asked = [command for command in peer.asked if not isinstance(command, control.ShowDownloads)]
    assert control.StopShare("films", "a b") in asked
    assert control.Down() not in asked


@pytest.mark.parametrize("leave", ["quit", "exit"])
def test_leaving(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    leave: str,
) -> None:
    with FakePeer(home, {control.ShowDownloads: control.Downloads([])}) as peer:
        code, out, _ = at_prompt(home, monkeypatch, capfd, f"{leave}\nlogout\n")
    assert (code, out) == (0, "")
    assert control.Logout() not in peer.asked


def test_a_password_is_the_next_line_of_a_script(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    replies: dict[type, Any] = {
        control.ShowDownloads: control.Downloads([]),
        control.Login: control.Done("in"),
    }
    with FakePeer(home, replies) as peer:
        _, out, _ = at_prompt(home, monkeypatch, capfd, "login anna\nse cret\nlogin bert pw\n")
    assert out == "in\nin\n"
    logins = [command for command in peer.asked if isinstance(command, control.Login)]
    assert logins == [control.Login("anna", "se cret"), control.Login("bert", "pw")]


def test_the_history_keeps_no_line_with_a_password(tmp_path: Path) -> None:
    """In a process of its own: the history of readline is one for all of it."""
    lines = [
        "login anna", "login anna pw", "create_user anna pw", "change-password",
        "change_password old new", "change-password old", "list-devices",
        "mini-torrent login anna pw", "forget-device 3f", "logn anna pw", "Login anna pw",
        "lgoin anna pw", "log in anna pw", "create user anna pw", "create-usr anna pw",
        "change password old new", "chnage-password old new", "hunter2", "login anna 'pw",
        "--json login anna pw", "join-group lab; login anna pw", "sudo mini-torrent login a pw",
        "'login' anna pw", "help login", "quit",
    ]  # fmt: skip
    script = (
        "import readline, sys\nfrom peer.cli import root\n"
        "from peer.cli.shell import _write_history\n"
        "for line in sys.argv[2:]:\n    readline.add_history(line)\n"
        "_write_history(sys.argv[1], root.commands)\n"
    )
    path = tmp_path / "history"
    subprocess.run([sys.executable, "-c", script, str(path), *lines], check=True)
    kept = [line for line in path.read_text().splitlines() if line != "_HiStOrY_V2_"]
    assert kept == [
        "login anna", "change-password", "list-devices", "forget-device 3f", "help login", "quit",
    ]  # fmt: skip


def test_a_download_returns_at_once_and_its_end_is_announced(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    looks = iter(
        [
            control.Downloads([]),
            control.Downloads([]),
            row("downloading"),
            row("paused"),
            row("complete"),
        ]
    )
    replies: dict[type, Any] = {
        control.ShowDownloads: lambda command, tell: next(looks, row("complete")),
        control.DownloadFile: control.Begun("downloading a", "films", "/x/a"),
        control.StopShare: control.Done("stopped"),
    }
    stop = "stop_share films b\n"
    with FakePeer(home, replies) as peer:
        _, out, err = at_prompt(home, monkeypatch, capfd, "download_file films a ~/x\n" + 3 * stop)
    download = next(command for command in peer.asked if isinstance(command, control.DownloadFile))
    assert download == control.DownloadFile("films", "a", os.path.expanduser("~/x"), wait=False)
    assert out.startswith("downloading a")
    assert [line for line in err if line.startswith("[")] == [
        "[P] [films] a is paused: the disk is full",
        "[C] [films] a is complete: /d/a",
    ]


def test_an_earlier_end_is_not_reported(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    old, under_way = row("complete").rows[0], row("downloading").rows[0]
    looks = iter([[], [], [old], [old, under_way], [old], [old, old]])
    replies: dict[type, Any] = {
        control.ShowDownloads: lambda command, tell: control.Downloads(next(looks, [old, old])),
        control.Login: control.Done("in"),
        control.Cancel: control.Done("given up"),
        control.StopShare: control.Done("stopped"),
    }
    lines = ["login anna pw", "stop_share films b", "cancel films a", "stop_share films b"]
    with FakePeer(home, replies):
        _, _, err = at_prompt(home, monkeypatch, capfd, "\n".join(lines) + "\n")
    assert [line for line in err if line.startswith("[")] == ["[C] [films] a is complete: /d/a"]


def test_options_of_a_line_do_not_outlive_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    replies: dict[type, Any] = {
        control.ShowDownloads: control.Downloads([]),
        control.ListGroups: control.Groups([control.GroupRow("films", "anna", 1, "owner")]),
    }
    with FakePeer(home, replies):
        _, out, _ = at_prompt(home, monkeypatch, capfd, "list_groups --json\nlist_groups\n")
    assert out.splitlines()[0].startswith("[{")
    assert out.splitlines()[1].startswith("GROUP")


def test_help(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with FakePeer(home, {control.ShowDownloads: control.Downloads([])}):
        _, out, err = at_prompt(home, monkeypatch, capfd, "help\nhelp watch\nhelp nonsense\n")
    assert "list-groups" in out
    assert "mini-torrent watch films --json" in out
    assert err[0] == 'error: there is no command "nonsense"'


def test_a_prompt_whose_peer_ended_says_so_and_goes_on(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with FakePeer(home, {control.ShowDownloads: control.Downloads([])}):
        code, out, err = at_prompt(home, monkeypatch, capfd, "down\nlist_groups\nquit\n")
    assert (code, out) == (3, "peer stopped\n")
    assert err[0].startswith("error: no peer runs")


class TestCompletion:
    @pytest.fixture
    def complete(self, home: Path) -> Any:
        files = [control.FileRow(n, 1, 1, 1, 1, "blake3", "", 1, 0, []) for n in ("a b", "x\x1b")]
        replies: dict[type, Any] = {
            control.ListGroups: control.Groups([control.GroupRow("films", "anna", 1, "owner")]),
            control.ListFiles: control.Files(files),
        }
        console = Console(str(home), at_prompt=True)
        with FakePeer(home, replies), click.Context(root):
            yield Completer(console, root, lambda: "").completions

    def test_commands_in_the_spelling_that_was_begun(self, complete: Any) -> None:
        assert complete("list_g") == ["list_groups "]
        assert complete("list-g") == ["list-groups "]
        assert complete("qu") == ["quit "]
        assert "shell " not in complete("")

    def test_groups_and_names(self, complete: Any) -> None:
        assert complete("list_files f") == ["films "]
        assert complete("stop_share films a") == ["'a b' "]
        assert complete("stop_share films x") == []

    def test_paths(self, complete: Any, tmp_path: Path) -> None:
        (tmp_path / "my dir").mkdir()
        (tmp_path / "my dir" / "film").touch()
        assert complete("upload_file my") == ["'my dir'/"]
        assert complete("upload_file 'my dir'/f") == ["'my dir'/film "]
        assert complete("upload_file 'my dir/f") == ["'my dir'/film "]

    def test_readline_replaces_the_part_after_the_last_space(
        self, complete: Any, home: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "my dir").mkdir()
        (tmp_path / "my dir" / "film").touch()
        line = "upload_file 'my dir'/f"
        completer = Completer(Console(str(home), at_prompt=True), root, lambda: line)
        assert completer.complete("dir'/f", 0) == "dir'/film "
        assert completer.complete("dir'/f", 1) is None

    def test_completion_without_candidates_prints_nothing(self, home: Path) -> None:
        completer = Completer(Console(str(home)), root, lambda: "list_files f")
        assert completer.complete("f", 0) is None


# -- how a script and a terminal end ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("foo\n", 2),
        ("'open\n", 2),
        ("create-group films\n", 0),
        ("create-group films\njoin-group x\nfoo\n", 1),
        ("foo\njoin-group x\n", 2),
        ("list-members films\njoin-group x\n", 4),
        ("create-group --help\n", 0),
        ("join-group x\nquit\nfoo\n", 1),
        ("", 0),
    ],
)
def test_a_script_ends_with_the_code_of_its_first_failure(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    text: str,
    code: int,
) -> None:
    replies: dict[type, Any] = {
        control.ShowDownloads: control.Downloads([]),
        control.CreateGroup: control.Done("made"),
        control.JoinGroup: Refused(Code.UNKNOWN_GROUP, "no such group"),
        control.ListMembers: TransportError("the tracker cannot be reached"),
    }
    with FakePeer(home, replies):
        assert at_prompt(home, monkeypatch, capfd, text)[0] == code


def fetched(name: str) -> control.Downloaded:
    return control.Downloaded("films", name, f"/d/{name}", 9, "blake3", "00", 1.0, 9.0, 9, 0, [])


def listed(*rows: tuple[str, str, str | None]) -> control.Downloads:
    return control.Downloads(
        [
            control.DownloadRow(state, "films", name, f"/d/{name}", 9, 9, 0.0, None, [], reason)
            for name, state, reason in rows
        ]
    )


@pytest.mark.parametrize("end", ["", "quit\n"])
def test_a_script_waits_for_the_downloads_that_it_began(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], end: str
) -> None:
    """Not for those of others, nor for one that was paused or cancelled; the code is in order."""

    def begin(command: control.Command, tell: Any) -> control.Answer:
        assert isinstance(command, control.DownloadFile)
        assert not command.wait
        return control.Begun("downloading", command.group, f"/d/{command.name}")

    def wait(command: control.Command, tell: Any) -> control.Answer:
        assert isinstance(command, control.AwaitDownload)
        if command.path == "/d/bad":
            raise IntegrityError("what came does not verify")
        return fetched(command.path[3:])

    replies: dict[type, Any] = {
        control.ShowDownloads: listed(
            ("old", "downloading", None),
            ("good", "downloading", None),
            ("bad", "paused", "queued, number 1 in line"),
            ("paused", "paused", control.PAUSED_BY_USER),
        ),
        control.DownloadFile: begin,
        control.AwaitDownload: wait,
        control.JoinGroup: Refused(Code.UNKNOWN_GROUP, "no such group"),
    }
    lines = [f"download_file films {name} /d\n" for name in ("good", "bad", "paused", "cancelled")]
    with FakePeer(home, replies) as peer:
        text = "".join(lines) + "join-group x\n" + end
        code, out, err = at_prompt(home, monkeypatch, capfd, text)
    waited = [command.path for command in peer.asked if isinstance(command, control.AwaitDownload)]
    assert waited == ["/d/good", "/d/bad"]
    assert code == 5
    assert "/d/good: 9 B in 1.0 s" in out
    assert "error: what came does not verify" in err


@pytest.mark.parametrize(
    ("typed", "left"), [("n\n", False), ("y\n", True), ("\n", False), ("yes\n", True)]
)
def test_leaving_asks_when_downloads_would_stop(
    home: Path, monkeypatch: pytest.MonkeyPatch, typed: str, left: bool
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    rows = listed(
        ("a", "downloading", None), ("b", "paused", "the disk is full"), ("c", "complete", None)
    )
    with FakePeer(home, {control.ShowDownloads: rows}):
        assert prompt_exit.may_leave(Console(str(home)), ends_peer=True) is left


@pytest.mark.parametrize(
    "rows",
    [listed(("c", "complete", None)), listed(("p", "paused", control.PAUSED_BY_USER)), listed()],
)
def test_leaving_asks_nothing_when_nothing_stops(
    home: Path, monkeypatch: pytest.MonkeyPatch, rows: control.Downloads
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with FakePeer(home, {control.ShowDownloads: rows}):
        assert prompt_exit.may_leave(Console(str(home)), ends_peer=True)


def test_leaving_a_peer_that_goes_on_is_no_question(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with FakePeer(home, {control.ShowDownloads: listed(("a", "downloading", None))}):
        assert prompt_exit.may_leave(Console(str(home)), ends_peer=False)
    assert "1 download is not finished and will continue" in capfd.readouterr().err


def test_the_prompt_keeps_no_invitation_in_its_history() -> None:
    commands = ("join", "invite", "list-files")
    assert not shell._may_be_kept("join 'mini-torrent://h:1/KEY#SECRET'", commands)
    assert not shell._may_be_kept("join mini-torrent://h:1/KEY#SECRET bob password", commands)
    assert shell._may_be_kept("invite films --uses 3", commands)
