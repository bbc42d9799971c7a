"""The command `top` where it cannot run: without a terminal, its library or a peer."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest

from peer.cli import run
from tests.support.fake_peer import FakePeer


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def terminal() -> Iterator[Terminal]:
    """Standard input and output are terminals."""
    with redirect_stdout(Terminal()) as made, mock.patch.object(sys, "stdin", Terminal()):
        yield made


def test_without_a_terminal_it_names_the_command_for_pipes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakePeer(tmp_path):
        assert run(["--home", str(tmp_path), "top"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: top needs a terminal\nhint: ")
    assert f"mini-torrent --home {tmp_path} show-downloads --watch" in told


def test_with_json_it_names_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with terminal():
        assert run(["--home", str(tmp_path), "--json", "top"]) == 2
    assert "show-downloads --watch" in capsys.readouterr().err


def test_without_its_library_it_says_what_to_install(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "textual"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "peer.cli.top.app", raising=False)
    monkeypatch.setitem(sys.modules, "textual", None)
    with terminal():
        assert run(["--home", str(tmp_path), "top"]) == 2
    told = capsys.readouterr().err
    assert "top needs textual, which is not installed" in told
    assert "-m pip install 'mini-torrent[tui]'" in told


def test_without_a_peer_it_says_so_before_it_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("textual", reason="no textual: pip install 'mini-torrent[tui]'")
    with terminal() as drawn:
        assert run(["--home", str(tmp_path), "top"]) == 3
    assert drawn.getvalue() == ""
    assert "mini-torrent --home" in capsys.readouterr().err
