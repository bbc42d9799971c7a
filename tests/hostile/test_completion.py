"""Shell completion of hostile names: real shells in a pseudo-terminal, beside a scripted peer."""

from __future__ import annotations

import os
import pty
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.cli.completion import script
from common.messages import control
from tests.support.descriptors import readable
from tests.support.fake_peer import FakePeer
from tests.support.paths import ROOT
from tests.support.waiting import wait_for

NAMES = [
    "results-2027.csv;touch EVIL;#",
    "$(touch EVIL)",
    "a`touch EVIL`",
    "*",
    "a b  c.txt",
    """it's "quoted" 'twice'""",
    "tür 日本語 👩‍👩‍👧.mkv",
    "x&touch EVIL&",
    "wow!!x!",
    'end"',
    "back\\slash\\",
    "~root",
    "{a,b}=c:d@e",
    "a|b>EVIL<d",
    "[x]?^%#$HOME",
]
STUB = """#!/bin/sh
if [ -n "$_MINI_TORRENT_COMPLETE" ]; then
    PYTHONPATH={root} exec {python} -P -m peer.cli "$@"
fi
if [ -n "$_MINI_TORRENT_TRACKER_COMPLETE" ]; then
    PYTHONPATH={root} exec {python} -P -m tracker.cli "$@"
fi
printf '%s\\0' "$@" > ran.new && mv ran.new ran
"""
STARTS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
SETUP = {
    "bash": ". ./{0}.bash\r",
    "zsh": "autoload -U compinit && compinit -u -D; . ./{0}.zsh\r",
    "fish": "source ./{0}.fish\r",
}


def row(name: str) -> control.FileRow:
    return control.FileRow(name, 1, 1, 1, 524288, "blake3", "ab" * 32, 1, 0, ["mallory"])


def user(name: str) -> control.UserRow:
    return control.UserRow(name, "member", "2026-01-01T00:00:00.000Z", 1)


def files(command: control.Command, tell: object) -> control.Files:
    assert isinstance(command, control.ListFiles)
    if command.group == "dash":
        return control.Files([row("-rf"), row("other")])
    if command.group == "many":
        return control.Files([row("n a"), row("n;touch EVIL"), row("n\x1b[31m\nevil")])
    return control.Files([row(NAMES[int(command.group.removeprefix("g"))])])


REPLIES = {
    control.ListFiles: files,
    control.ListMembers: control.Users([user("bert"), user("mallory")]),
    control.ListRequests: control.Users([user("carla")]),
    control.ListGroups: control.Groups([control.GroupRow("lab", "anna", 2, "owner")]),
    control.ListDevices: control.Devices(
        [control.DeviceRow("3f0c9a1b", "B" * 43, "", "", True, "", True)]
    ),
}


class Shell:
    """An interactive shell in a pseudo-terminal, with both programs' completion."""

    def __init__(self, kind: str, folder: Path, home: Path) -> None:
        self.kind, self._folder = kind, folder
        binaries = folder / "bin"
        binaries.mkdir()
        for program in ("mini-torrent", "mini-torrent-tracker"):
            (binaries / program).write_text(STUB.format(root=ROOT, python=sys.executable))
            (binaries / program).chmod(0o755)
            (folder / f"{program}.{kind}").write_text(script(kind, program))
        environment = {
            "PATH": f"{binaries}:/usr/bin:/bin",
            "HOME": str(folder),
            "TERM": "dumb",
            "LC_ALL": "C.UTF-8",
            "MINI_TORRENT_HOME": str(home),
        }
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            os.execvpe(STARTS[kind][0], STARTS[kind], environment)
        self.seen = b""
        for program in ("mini-torrent", "mini-torrent-tracker"):
            self._type(SETUP[kind].format(program))
        assert self.run("mini-torrent begins\r") == ["begins"]

    def _type(self, keys: str) -> None:
        data = keys.encode()
        while data:
            data = data[os.write(self._fd, data) :]
            self._look(0)

    def _look(self, timeout_s: float) -> None:
        while readable([self._fd], timeout_s):
            self.seen += os.read(self._fd, 65536)
            timeout_s = 0

    def run(self, keys: str) -> list[str]:
        """The arguments with which the program was called after ``keys``."""
        self._type(keys)
        ran = self._folder / "ran"

        def look() -> bool:
            self._look(0)
            assert ran.exists(), self.seen.decode("utf-8", "replace")[-2000:]
            return True

        wait_for(look, f"a call by {keys!r}")
        words = ran.read_text("utf-8").split("\0")[:-1]
        ran.unlink()
        return words

    def end(self) -> None:
        os.close(self._fd)
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)


@pytest.fixture(params=["bash", "zsh", "fish"])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    if shutil.which(request.param) is None:
        pytest.skip(f"NOT TESTED: {request.param} is not installed")
    home, folder = tmp_path / "home", tmp_path / "work"
    home.mkdir(mode=0o700)
    folder.mkdir()
    with FakePeer(home, dict(REPLIES)):
        found = Shell(request.param, folder, home)
        yield found
        found.end()


def test_h70_a_name_is_one_word_however_it_is_completed(shell: Shell, tmp_path: Path) -> None:
    for at, name in enumerate(NAMES):
        begun = ["", "'", '"'] if at % 6 == 0 or name[-1] in "'\"!\\" else [""]
        if at % 4 == 0 and name[0].isalnum():
            begun += [name[:1], f'"{name[:1]}']
        if shell.kind == "fish" and name.startswith("~"):
            begun = ["'", '"']  # unquoted, fish would expand it: it is not offered there
        for beginning in begun:
            words = shell.run(f"mini-torrent download-file g{at} {beginning}\tEND\r")
            assert words == ["download-file", f"g{at}", name, "END"], beginning
    assert not (tmp_path / "work" / "EVIL").exists()


def test_h70_a_name_with_a_dash_stands_behind_two(shell: Shell) -> None:
    words = shell.run("mini-torrent stop-share dash -- -\t\r")
    assert words == ["stop-share", "dash", "--", "-rf"]


def test_h70_a_common_prefix_never_ends_within_an_escape(shell: Shell, tmp_path: Path) -> None:
    words = shell.run("mini-torrent stop-share many n\t\x05;\r")
    assert words[:2] == ["stop-share", "many"]
    assert not (tmp_path / "work" / "EVIL").exists()


def test_commands_people_and_devices_are_completed(shell: Shell) -> None:
    run = shell.run
    assert run("mini-torrent upload_f\tx\r") == ["upload_file", "x"]
    assert run("mini-torrent upload-f\tx\r") == ["upload-file", "x"]
    assert run("mini-torrent remove-member l\tm\t\r") == ["remove-member", "lab", "mallory"]
    assert run("mini-torrent accept_request lab c\t\r") == ["accept_request", "lab", "carla"]
    assert run("mini-torrent reject-request 'lab' \t\r") == ["reject-request", "lab", "carla"]
    assert run("mini-torrent forget-device 3\t\r") == ["forget-device", "3f0c9a1b"]
    assert run("mini-torrent download-file --pick=seq\tx\r")[-2:] == ["--pick=sequential", "x"]
    assert run("mini-torrent-tracker rotate_\tx\r") == ["rotate_key", "x"]
    assert run("mini-torrent-tracker run --adv\tx\r") == ["run", "--advertise", "x"]
