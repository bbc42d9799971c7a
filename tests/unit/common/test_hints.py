"""Hints: every one that names a command is a whole command line, which can be pasted as it is."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import hints
from common.errors import Refused
from common.hints import (
    hint,
    quoted_line,
    quoted_word,
    shell_hint,
    shown,
    shown_by_tracker,
    tracker_hint,
)
from common.messages import control
from common.messages.refusals import Code
from common.shared_refusals import no_group
from peer.cli import root, run
from tests.support.fake_peer import FakePeer
from tests.support.paths import ROOT
from tracker.cli import tracker

SOURCES = [path for part in ("common", "peer", "tracker") for path in (ROOT / part).rglob("*.py")]
MAKERS = {"hint": root, "tracker_hint": tracker}
NASTY = [
    "-rf", "--", "a b", "it's", '"', "$(touch EVIL)", "`touch EVIL`", ";touch EVIL", "*", "~root",
    "!!", "\\", "tür 日本語", "", "#", "a\nb", "\x1b[31m", "\u202egnp.exe", "x'\ny\\", "\udcff",
]  # fmt: skip
COMMANDS = sorted({*root.commands, *tracker.commands})
# What tells of a command by hand: its name with a dash, or the program's or a backtick before it.
_BY_HAND = re.compile(
    rf"(?<![\w./-])(?:(?:{'|'.join(name for name in COMMANDS if '-' in name)})(?![\w.-])"
    rf"|mini-torrent(?:-tracker)? (?:{'|'.join(COMMANDS)})\b)"
)


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield node, getattr(node.func, "id", "")


def text_of(node: ast.expr) -> str:
    """The words there, or a name that is hard to quote where it is not known before."""
    return str(node.value) if isinstance(node, ast.Constant) else "1"


HINTS = [
    (f"{path.relative_to(ROOT)}:{node.lineno}", name, node)
    for path in SOURCES
    if path.name != "hints.py"
    for node, name in calls(path)
    if name in MAKERS and isinstance(node.func, ast.Name)
]


@pytest.mark.parametrize(("maker", "node"), [h[1:] for h in HINTS], ids=[h[0] for h in HINTS])
def test_the_command_of_every_hint_is_one_that_there_is(maker: str, node: ast.Call) -> None:
    name, arguments = text_of(node.args[1]), node.args[2:]
    group = MAKERS[maker]
    command = group.commands[name]
    words = [text_of(one) for one in arguments if not isinstance(one, ast.Starred)]
    for keyword in node.keywords:
        if keyword.arg == "then":
            assert isinstance(keyword.value, ast.Tuple)
            elements = [one for one in keyword.value.elts if not isinstance(one, ast.Starred)]
            second, *rest = map(text_of, elements)
            with group.make_context("x", [second]) as context:
                group.commands[second].make_context(second, rest, parent=context)
            continue
        assert keyword.arg == "options"
        if not isinstance(keyword.value, ast.Tuple):
            continue  # made elsewhere
        words = [*map(text_of, keyword.value.elts), *words]
    if not any(isinstance(one, ast.Starred) for one in arguments):
        with group.make_context("x", [name]) as context:
            command.make_context(name, words, parent=context)


def test_there_are_many_hints() -> None:
    assert len(HINTS) > 30


def test_no_text_names_a_command_by_hand() -> None:
    by_hand = []
    for path in SOURCES:
        if path.name in ("hints.py", "completion.py", "command_table.py"):
            continue
        tree = ast.parse(path.read_text("utf-8"))
        allowed: set[int] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                allowed.add(id(node.value))  # documentation
            elif isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in MAKERS or name in ("command", "option", "argument", "Option"):
                    allowed |= {id(one) for one in ast.walk(node)}
        by_hand += [
            f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            if id(node) not in allowed and " " in node.value and _BY_HAND.search(node.value)
            if "Example:" not in node.value
        ]
    assert by_hand == []


@pytest.mark.parametrize("name", NASTY, ids=ascii)
def test_an_argument_of_a_hint_is_one_word_for_the_shell(name: str, tmp_path: Path) -> None:
    text = shown(hint("stop it", "stop-share", "lab", name), "a home; touch EVIL")
    assert "\n" not in text
    assert "\x1b" not in text
    line = text.removeprefix("stop it: mini-torrent ")
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"],
        cwd=tmp_path, capture_output=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    words = done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]
    dashes = ["--"] if name.startswith("-") else []
    assert words == ["--home", "a home; touch EVIL", "stop-share", *dashes, "lab", name]
    assert list(tmp_path.iterdir()) == []


def test_where_the_home_goes() -> None:
    text = hint("log in", "login", "USER")
    assert shown(text, None) == text
    assert shown(text, "h 1") == "log in: mini-torrent --home 'h 1' login USER"
    assert shown(text, "h", at_prompt=True) == "log in: login USER"
    text = hint("restart it", "down", then=("up",))
    assert shown(text, "h") == "restart it: mini-torrent --home h down && mini-torrent --home h up"
    for other in ("do nothing", shell_hint("end it", "kill", "1")):
        assert shown(other, "h") == other
    text = tracker_hint("start it", "run", "info", "1")
    assert shown(text, "h") == text
    assert shown(text, "h", at_prompt=True) == text
    assert shown_by_tracker(text, "h") == "start it: mini-torrent-tracker run --home h info 1"
    assert shown_by_tracker(text, None) == text
    text = tracker_hint("see how it is used", "list_users", options=["--help"])
    assert shown_by_tracker(text, "h").endswith("mini-torrent-tracker list_users --home h --help")
    for home in ("other", "/h"):  # named by the hint, or by the process in the background before
        text = tracker_hint("join", "join", "FILE", options=["--home", home])
        assert shown_by_tracker(text, "h") == text


@pytest.mark.parametrize("program", ["mini-torrent", "mini-torrent-tracker"])
@pytest.mark.parametrize(
    "before", ["x: ", "a && ", "it's: ", "it's && ", '": ', "\\': ", "\x1b': "]
)
def test_a_command_in_an_argument_is_left_as_it_is(before: str, program: str) -> None:
    name = f"{before}{program} down"
    text = hint("tell the tracker's owner", "stop-share", "lab", name, then=("up", name))
    lines = [quoted_line(["stop-share", "lab", name]), quoted_line(["up", name])]
    commands = [f"mini-torrent --home h {line}" for line in lines]
    assert shown(text, "h") == f"tell the tracker's owner: {' && '.join(commands)}"
    assert shown(text, None, at_prompt=True) == f"tell the tracker's owner: {' && '.join(lines)}"
    assert shown_by_tracker(tracker_hint("show it", "info", name), "h") == (
        f"show it: mini-torrent-tracker info --home h {quoted_word(name)}"
    )


@pytest.mark.parametrize("name", ["x: mini-torrent down", "it's: mini-torrent down"])
def test_an_argument_of_another_program_is_left_as_it_is(name: str) -> None:
    for text in (shell_hint("show its file", "ls", name), tracker_hint("show it", "info", name)):
        assert shown(text, "h") == text
        assert shown(text, None, at_prompt=True) == text
    text = shell_hint("show its file", "ls", name.replace("torrent", "torrent-tracker"))
    assert shown_by_tracker(text, "h") == text


def test_words_that_need_no_quotation_are_no_command_either() -> None:
    text = hint("get it", "download-file", "lab", "x:", "mini-torrent", "y")
    expected = "get it: mini-torrent --home h download-file lab x: mini-torrent y"
    assert shown(text, "h") == expected


def test_safe_words_are_not_quoted() -> None:
    assert quoted_word("film.mkv") == "film.mkv"
    assert hints.line("mini-torrent", "login", "anna") == "mini-torrent login anna"


@pytest.mark.parametrize("how", ["option", "behind", "environment"])
def test_a_hint_reaches_the_same_peer(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "my home"
    home.mkdir(mode=0o700)
    words = ["list-files", "lba"]
    if how == "environment":
        monkeypatch.setenv("MINI_TORRENT_HOME", str(home))
    else:
        option = ["--home", str(home)]
        words = [*option, *words] if how == "option" else [*words, *option]
    assert run(words) == 3
    assert f"hint: start it: mini-torrent --home '{home}' up\n" in capsys.readouterr().err
    with FakePeer(home, {control.ListFiles: no_group("lba"), control.ListGroups: no_group("x")}):
        assert run(words) == 1
        seen = capsys.readouterr().err
        assert f"hint: ask to join: mini-torrent --home '{home}' join-group lba\n" in seen
        assert run([*words, "--json"]) == 1
        told = json.loads(capsys.readouterr().err)["error"]["hint"]
        assert told == f"ask to join: mini-torrent --home '{home}' join-group lba"


def test_usage_errors_have_commands_as_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["--home", str(tmp_path), "stop-share", "lab", "-rf"])
    seen = capsys.readouterr().err
    assert f": mini-torrent --home {tmp_path} stop-share lab -- -rf\n" in seen
    run(["stop-share", "lab"])
    seen = capsys.readouterr().err
    assert "hint: see how it is used: mini-torrent stop-share --help\n" in seen


def test_one_word_of_a_refusal_is_no_command_of_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "h"
    home.mkdir(mode=0o700)
    refused = Refused(Code.FAILED, "no", "call it: \x1b[31mmini-torrent\nx")
    with FakePeer(home, {control.ListGroups: refused}):
        run(["--home", str(home), "list-groups"])
    hint_line = "hint: call it: \\x1b[31mmini-torrent\\x0ax"
    assert capsys.readouterr().err.splitlines()[1:] == [hint_line]


def test_a_tracker_option_is_no_command_that_takes_a_home() -> None:
    text = "see how it is used: mini-torrent-tracker --help"
    assert hints.shown_by_tracker(text, "/srv/t") == text
