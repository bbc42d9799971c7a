"""The entry points where another package bears the name of one of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


@pytest.mark.parametrize("program", ["peer", "tracker"])
@pytest.mark.parametrize("package", ["common", "peer", "tracker"])
@pytest.mark.parametrize("how", ["folder", "module"])
def test_what_shadows_a_package_of_ours_is_named(
    program: str, package: str, how: str, tmp_path: Path
) -> None:
    stranger = tmp_path / (package if how == "folder" else f"{package}.py")
    if how == "folder":
        stranger.mkdir()
        (stranger / "__init__.py").touch()
    else:
        stranger.touch()
    code = f"import sys, mini_torrent_start as start; sys.argv = ['x', '--help']; start.{program}()"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    first, *_ = done.stderr.splitlines()
    assert first.startswith(f"error: '{stranger}' shadows the package '{package}' of Mini-Torrent")
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_no_package_shadows_nothing(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    code = "import sys, mini_torrent_start as start; sys.argv = ['x', '--help']; start.peer()"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done
