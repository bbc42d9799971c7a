"""Suggestions for mistyped and swapped names: whole command lines that keep what was typed."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError, Refused, StorageError
from common.messages import control
from common.messages.refusals import Code
from peer.cli import run
from tests.support.fake_peer import FakePeer

GROUPS = control.Groups(
    [
        control.GroupRow("films", "anna", 2, "owner"),
        control.GroupRow("books", "bert", 2, "member"),
        control.GroupRow("secret-lab", "bert", 2, "none"),
    ]
)
FILES = control.Files(
    [
        control.FileRow(name, 1, 1, 1, 1, "blake3", "ab", 1, 0, ["anna"])
        for name in ("film.mkv", "a b.iso", "-dash.bin")
    ]
)
DOWNLOADS = control.Downloads(
    [control.DownloadRow("downloading", "films", "song.ogg", "/d", 1, 0, 0.0, None, [], None)]
)
MEMBERS = control.Users([control.UserRow("carla", "member", "2026-01-01T00:00:00Z", 1)])
REQUESTS = control.Users([control.UserRow("mallory", "", "2026-01-01T00:00:00Z", 0)])
DEVICES = control.Devices([control.DeviceRow("3f0c9a1b", "B" * 43, "x", "x", False, None, False)])
NO_GROUP = Refused(Code.UNKNOWN_GROUP, "you are not a member", "as before")
NO_SHARE = Refused(Code.UNKNOWN_SHARE, "it is not shared", "as before")
NO_USER = Refused(Code.UNKNOWN_USER, "not a member", "as before")
NO_REQUEST = Refused(Code.UNKNOWN_REQUEST, "no request", "as before")
NO_FILE = StorageError("there is no such file", "as before")
NO_DEVICE = Refused(Code.UNKNOWN_DEVICE, "no device", "as before")

CASES: list[tuple[Exception, list[str], str | None]] = [
    (NO_GROUP, ["list-files", "flims"], "list-files films"),
    (NO_GROUP, ["list_files", "--json", "Fimls"], "list-files --json films"),
    (NO_GROUP, ["list-requests", "book"], None),  # only the owner may list requests
    (NO_GROUP, ["list-files", "secret-lib"], None),  # not a group of the user
    (NO_GROUP, ["join-group", "secret-lib"], "join-group secret-lab"),
    (NO_GROUP, ["list-files", "secret-lab"], None),  # it exists: asking to join is the way
    (NO_GROUP, ["list-files", "quux"], None),
    (NO_GROUP, ["leave-group", "bookz"], "leave-group books"),
    (NO_GROUP, ["watch", "filmz"], "watch films"),
    (
        NO_GROUP,
        ["download-file", "film", "film.mkv", "x y", "--no-wait"],
        "download-file films film.mkv 'x y' --no-wait",
    ),
    (NO_GROUP, ["download-file", "film.mkv", "films", "."], "download-file films film.mkv ."),
    (
        ConfigError('"a b" is not a valid group name'),
        ["stop-share", "a b", "books"],
        "stop-share books 'a b'",
    ),
    (NO_GROUP, ["accept-request", "mallory", "films"], "accept-request films mallory"),
    (NO_GROUP, ["accept-request", "mallory", "books"], None),
    (NO_SHARE, ["download-file", "films", "flim.mkv", "."], "download-file films film.mkv ."),
    (NO_SHARE, ["download-file", "films", "a-b.iso", "."], "download-file films 'a b.iso' ."),
    (NO_SHARE, ["stop-share", "films", "dash.bin"], "stop-share films -- -dash.bin"),
    (NO_SHARE, ["stop-share", "films", "film.mkv"], None),  # listed, but shared by another device
    (NO_SHARE, ["pause", "films", "sung.ogg"], "pause films song.ogg"),
    (NO_SHARE, ["why-slow", "films", "film.mkv"], None),  # shared, but not downloaded here
    (NO_USER, ["remove-member", "films", "karla"], "remove-member films carla"),
    (NO_USER, ["remove-member", "films", "zoe"], None),
    (NO_REQUEST, ["reject-request", "films", "malory"], "reject-request films mallory"),
    (NO_DEVICE, ["forget-device", "3f0c9a1c"], "forget-device 3f0c9a1b"),
    (NO_FILE, ["upload-file", "Flim.mkv", "films"], "upload-file Film.mkv films"),
    (NO_FILE, ["upload-file", "films", "Film.mkv"], "upload-file Film.mkv films"),
    (
        NO_GROUP,
        ["upload-file", "Film.mkv", "filmss", "--no-times"],
        "upload-file Film.mkv films --no-times",
    ),
    (NO_GROUP, ["create-group", "filmz"], None),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("MINI_TORRENT"):
            monkeypatch.delenv(name)
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    (tmp_path / "Film.mkv").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    return path


def replies(error: Exception, command: str) -> dict[type, Any]:
    listings: dict[type, Any] = {
        control.ListGroups: GROUPS,
        control.ListFiles: FILES,
        control.ShowDownloads: DOWNLOADS,
        control.ListMembers: MEMBERS,
        control.ListRequests: REQUESTS,
        control.ListDevices: DEVICES,
    }
    asks = {kind.__name__: kind for kind in control.Command.__args__}
    asked = asks["".join(part.title() for part in command.replace("_", "-").split("-"))]
    return {**listings, asked: error}


@pytest.mark.parametrize(("error", "words", "line"), CASES, ids=[" ".join(c[1]) for c in CASES])
def test_the_nearest_known_name_is_suggested_with_the_whole_command(
    error: Exception,
    words: list[str],
    line: str | None,
    home: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with FakePeer(home, replies(error, words[0])):
        code = run(["--home", str(home), *words])
        found = capfd.readouterr().err
        monkey = io.StringIO(" ".join(map(_quoted, words)) + "\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdin", monkey)
            run(["--home", str(home), "shell"])
        at_prompt = capfd.readouterr().err
    assert code in (1, 2)
    suggested = "did you mean: "
    if line is None:
        assert suggested not in found + at_prompt
    elif "--json" in words:
        assert f"{suggested}mini-torrent --home {home} {line}" in found
    else:
        assert f"\nhint: {suggested}mini-torrent --home {home} {line}\n" in found
        assert f"\nhint: {suggested}{line}\n" in at_prompt


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["lsit-files", "films"], "list-files films"),
        (["fetch", "films", "a b", "."], "download-file films 'a b' ."),
        (["logn", "anna", "s3cret-word"], "login anna"),
        (["register", "anna", "s3cret-word"], "create-user anna"),
        (["passwd", "s3cret-word", "s3cret-new"], "change-password"),
        (["help", "list_files"], "list_files --help"),
        (["lsit-files", "x" * 1000], "list-files"),
    ],
)
def test_a_mistyped_command_keeps_its_arguments_but_no_password(
    words: list[str], line: str, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["--home", str(home), *words]) == 2
    found = capfd.readouterr().err
    assert f"hint: did you mean: mini-torrent --home {home} {line}\n" in found
    assert "s3cret" not in found


def test_a_home_behind_the_command_is_named_once(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with FakePeer(home, replies(NO_GROUP, "list-files")):
        run(["list-files", "flims", "--home", str(home)])
    found = capfd.readouterr().err
    assert f"hint: did you mean: mini-torrent --home {home} list-files films\n" in found


def test_a_peer_that_is_not_there_is_no_reason_for_another_error(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def end(command: control.Command, tell: Any) -> Any:
        raise Refused(Code.NOT_LOGGED_IN, "no user is logged in on this device", "as before")

    with FakePeer(home, {control.ListFiles: NO_GROUP, control.ListGroups: end}):
        assert run(["--home", str(home), "list-files", "flims"]) == 1
    assert capfd.readouterr().err == "error: you are not a member\nhint: as before\n"
