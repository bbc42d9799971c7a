"""Modules that a command line loads, since their number decides how fast it answers."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from common.host.release import RELEASE
from peer.cli.command_table import SECTIONS
from tests.support.fake_peer import FakePeer
from tests.support.paths import ROOT

START = "import sys; import mini_torrent_start as start; start.{}()"
SLOW = {
    *("asyncio", "hashlib", "importlib.metadata", "logging", "nacl", "platformdirs", "rich"),
    *("secrets", "shutil", "sqlalchemy"),
}
MESSAGES = {"msgspec", "zmq"}


def imported(program: str, *words: str) -> set[str]:
    """Names of the modules that ``program`` loads beyond those of an empty program."""
    loaded = []
    for code, arguments in ((START.format(program), words), ("pass", ())):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", code, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
        loaded.append({line.rpartition("|")[2].strip() for line in lines})
    return loaded[0] - loaded[1]


@pytest.mark.parametrize("program", ["peer", "tracker"])
def test_the_version_loads_next_to_nothing(program: str) -> None:
    found = imported(program, "--version")
    assert not found & (SLOW | MESSAGES | {"click", "typing_extensions"})
    assert len(found) <= 15, sorted(found)


def test_the_help_loads_no_library_of_the_messages() -> None:
    found = imported("peer", "--help")
    assert not found & (SLOW - {"shutil"} | MESSAGES)
    assert len(found) <= 130, sorted(found)


def test_the_help_of_the_tracker_loads_nothing_that_serves() -> None:
    found = imported("tracker", "--help")
    assert not found & (SLOW - {"shutil", "logging"} | {"msgspec"})
    assert len(found) <= 200, sorted(found)


def test_a_short_command_loads_no_library_that_it_does_not_need(tmp_path: Path) -> None:
    with FakePeer(tmp_path):
        found = imported("peer", "--home", str(tmp_path), "status")
    assert not found & (SLOW | {"peer.cli.file_commands", "peer.cli.upload_command"})
    assert len(found) <= 185, sorted(found)


def test_a_serving_process_loads_no_library_that_it_does_not_need(tmp_path: Path) -> None:
    code = "import sys, mini_torrent_start, {}; print(*sys.modules)"
    for module, most in (("peer.daemon", 560), ("tracker.service.main", 560)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(module)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        found = set(done.stdout.split())
        assert not found & {"alembic", "prometheus_client", "rich", "starlette", "uvicorn"}
        assert len(found) <= most, (module, len(found))


def test_the_table_names_the_commands_of_each_module() -> None:
    listed = {module: names for made in SECTIONS.values() for module, names in made.items()}
    modules = [path.stem for path in (ROOT / "peer" / "cli").glob("*_command*.py")]
    for module in modules:
        commands = getattr(importlib.import_module(f"peer.cli.{module}"), "COMMANDS", None)
        if commands is not None:
            assert listed.pop(module).split() == [command.name for command in commands]
    assert listed == {}


def test_the_release_is_that_of_the_installed_distribution() -> None:
    assert importlib.metadata.version("mini-torrent") == RELEASE
