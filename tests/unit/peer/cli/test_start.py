"""Entry points where another package has the name of one of ours, and on other systems."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mini_torrent_start
from tests.support.paths import ROOT

CODE = "import sys, mini_torrent_start as start; sys.argv = ['x', '--help']; start.{}()"


def start(
    *words: str, path: list[Path], cwd: Path, **extra: str
) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if "MINI_TORRENT" not in name}
    environment = {**kept, "PYTHONPATH": os.pathsep.join(map(str, path)), **extra}
    command = [sys.executable, *words]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)


def stranger(folder: Path, package: str, how: str) -> Path:
    made = folder / (package if how == "folder" else f"{package}.py")
    if how == "folder":
        made.mkdir()
        (made / "__init__.py").touch()
    else:
        made.touch()
    return made


@pytest.mark.parametrize("program", ["peer", "tracker"])
@pytest.mark.parametrize("package", ["common", "peer", "tracker"])
@pytest.mark.parametrize("how", ["folder", "module"])
def test_a_package_that_shadows_one_of_ours_is_named(
    program: str, package: str, how: str, tmp_path: Path
) -> None:
    shadow = stranger(tmp_path, package, how)
    done = start("-P", "-c", CODE.format(program), path=[tmp_path, ROOT], cwd=ROOT)
    assert (done.returncode, done.stdout) == (1, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith(f"error: '{shadow}' shadows the package '{package}' of Mini-Torrent")
    assert hint == f"hint: put ours first: export PYTHONSAFEPATH=1 PYTHONPATH={ROOT}"


@pytest.mark.parametrize("module", ["peer.cli", "tracker.cli"])
@pytest.mark.parametrize("package", ["common", "peer", "tracker"])
@pytest.mark.parametrize("how", ["folder", "module"])
def test_a_module_run_in_a_folder_that_shadows_a_package(
    module: str, package: str, how: str, tmp_path: Path
) -> None:
    if module.startswith(package):
        pytest.skip("then nothing of ours is imported at all")
    shadow = stranger(tmp_path, package, how)
    done = start("-m", module, "--help", path=[ROOT], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith(f"error: '{shadow}' shadows the package '{package}'")
    variables = dict(word.split("=") for word in hint.split("export ")[1].split())
    mended = start("-m", module, "--help", path=[ROOT], cwd=tmp_path, **variables)
    assert mended.returncode == 0, mended.stderr


@pytest.mark.parametrize(
    ("words", "extra", "as_json"),
    [
        (["--json", "status"], {}, True),
        (["status"], {"MINI_TORRENT_JSON": "1"}, True),
        (["status"], {"MINI_TORRENT_JSON": "0"}, False),
        (["status", "--", "--json"], {}, False),
    ],
)
def test_the_error_is_json_if_asked_for(
    words: list[str], extra: dict[str, str], as_json: bool, tmp_path: Path
) -> None:
    stranger(tmp_path, "common", "folder")
    done = start("-m", "peer.cli", *words, path=[ROOT], cwd=tmp_path, **extra)
    assert done.returncode == 1
    if as_json:
        error = json.loads(done.stderr)["error"]
        assert (error["code"], "shadows" in error["message"]) == ("failed", True)
    else:
        assert done.stderr.startswith("error: ")


def test_a_folder_that_is_no_package_shadows_nothing(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    done = start("-P", "-c", CODE.format("peer"), path=[tmp_path, ROOT], cwd=ROOT)
    assert done.returncode == 0, done
    assert start("-m", "peer.cli", "--help", path=[ROOT], cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_get_a_line_and_no_traceback(
    platform: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    with pytest.raises(SystemExit) as ended:
        mini_torrent_start.peer()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(
        f"error: Mini-Torrent runs on Linux, and this system is '{platform}'\nhint: "
    )
