"""The tracker's command line where its arguments are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.host.home import HomeLock, open_home
from common.names import quoted
from tracker.cli import main


def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> list[str]:
    monkeypatch.setattr("sys.argv", ["mini-torrent-tracker", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("number", ["1", "12"])
def test_a_number_before_the_file_is_swapped_by_the_hint(
    number: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tracker info.txt").touch()
    assert refused(monkeypatch, capsys, "run", number, "tracker info.txt") == [
        'error: "tracker info.txt" is a file; it stands before the number',
        f"hint: swap them: mini-torrent-tracker run 'tracker info.txt' {number}",
    ]


@pytest.mark.parametrize("number", ["one", "0", "1.5", "\u0661"])
def test_an_entry_number_is_a_whole_number_from_1(
    number: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error, hint = refused(monkeypatch, capsys, "run", "tracker_info.txt", number)
    assert error == f'error: "{number}" is not the number of an entry, from 1'
    assert hint == "hint: see how it is used: mini-torrent-tracker run --help"


@pytest.mark.parametrize("home", [["--home", "a b"], ["--home=a b"]], ids=["two", "one"])
@pytest.mark.parametrize(
    ("words", "behind"),
    [
        (["disable-user", "bob"], "disable-user --home 'a b' bob"),
        (["status", "--json"], "status --home 'a b' --json"),
    ],
    ids=["argument", "option"],
)
def test_a_home_before_the_command_is_put_behind_it_by_the_hint(
    home: list[str],
    words: list[str],
    behind: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = refused(monkeypatch, capsys, *home, *words)
    error, hint = (
        "--home belongs behind the command",
        f"put it behind: mini-torrent-tracker {behind}",
    )
    if "--json" in words:
        assert json.loads("".join(text))["error"] == {
            "code": "usage",
            "message": error,
            "hint": hint,
        }
    else:
        assert text == [f"error: {error}", f"hint: {hint}"]


def test_a_home_in_use_names_the_command_that_ends_its_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = HomeLock(open_home(tmp_path / "home"))
    monkeypatch.setattr(
        "sys.argv", ["mini-torrent-tracker", "rotate-key", "--home", str(tmp_path / "home")]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    lock.release()
    assert ended.value.code == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: another process uses the home ")
    assert hint == f"hint: stop its tracker: mini-torrent-tracker stop --home {tmp_path / 'home'}"


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("sttaus", "did you mean: mini-torrent-tracker status"),
        ("list_usres", "did you mean: mini-torrent-tracker list-users"),
        ("\x1b[31m", "see the commands: mini-torrent-tracker --help"),
    ],
)
def test_an_unknown_command_is_answered_with_the_nearest_one(
    typed: str, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error, advice = refused(monkeypatch, capsys, typed)
    assert error == f"error: there is no command {quoted(typed)}"
    assert advice == f"hint: {hint}"
