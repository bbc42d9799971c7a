"""The systemd unit of a peer: its text, its words, and whose a unit is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import ConfigError
from peer.cli import service_unit
from peer.cli.service_unit import Found, find_unit, unit_text
from tests.support.paths import ROOT

ODD = "pea %n $HOME 'x' \"y\" \\z é"


def test_the_example_is_the_template() -> None:
    """`make docs` writes it."""
    path = ROOT / "config" / service_unit.NAME
    assert path.read_text("utf-8") == service_unit.example()
    ours = unit_text(Path("/opt/mini-torrent"), Path("/home/anna/.local"))
    rest = ours.partition("[Unit]")[2].replace("/opt/", "%h/.local/bin/")
    assert service_unit.example().endswith(rest.replace(" --home /home/anna/.local", ""))


def test_words_of_the_command_are_escaped() -> None:
    text = unit_text(Path("/a b$c/mini-torrent"), Path(f"/{ODD}"))
    [line] = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    home = '"/pea %%n $$HOME \'x\' \\"y\\" \\\\z é"'
    assert line == f'ExecStart="/a b$c/mini-torrent" --home {home} up --foreground'


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("home", ["plain", ODD])
def test_systemd_accepts_the_unit(tmp_path: Path, home: str) -> None:
    program = tmp_path / "a %n $b" / "mini-torrent"
    program.parent.mkdir()
    program.symlink_to(sys.executable)
    unit = tmp_path / service_unit.NAME
    unit.write_text(unit_text(program, tmp_path / home), "utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    about_ours = [line for line in done.stderr.splitlines() if service_unit.NAME in line]
    assert (done.returncode, about_ours) == (0, []), done.stderr


@pytest.mark.parametrize("path", ["/a\nExecStartPre=/bin/evil", "/a\tb", "/a\x7f", "/a\udcff"])
def test_a_path_that_would_break_the_unit_is_refused(path: str) -> None:
    for words in ((Path(path), Path("/h")), (Path("/p"), Path(path))):
        with pytest.raises(ConfigError, match="cannot stand in a unit"):
            unit_text(*words)
    with pytest.raises(ConfigError, match="cannot stand in a unit"):
        unit_text(Path("/it's/mini-torrent"), Path("/h"))


def test_a_unit_is_ours_by_its_first_lines(tmp_path: Path) -> None:
    path = tmp_path / service_unit.NAME
    assert find_unit(path) is None
    text = unit_text(Path("/p"), Path("/some home"))
    path.write_text(text)
    assert find_unit(path) == Found(text, "/some home")
    path.write_text(f"#\n{text}")
    assert find_unit(path) == Found(f"#\n{text}", None)
    path.unlink()
    path.symlink_to("/dev/null")
    assert find_unit(path) == Found("-> /dev/null", None)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        find_unit(path)


def test_the_place_follows_xdg_unless_it_is_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, base in ((str(tmp_path / "x"), tmp_path / "x"), ("x", tmp_path / ".config")):
        monkeypatch.setenv("XDG_CONFIG_HOME", value)
        assert service_unit.unit_path() == base / "systemd/user/mini-torrent.service"
