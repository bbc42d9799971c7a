"""Both programs in locales that cannot show every character: at worst a `?` is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import StorageError
from common.messages import control
from tests.support.fake_peer import STATUS, FakePeer
from tests.support.paths import ROOT

NAME = "Größe – 日本語.mkv"
FILE = control.FileRow(NAME, 1 << 30, 1, 2048, 524288, "blake3", "ab" * 32, 2, 1, ["anna"])
DOWNLOAD = control.DownloadRow(
    "downloading",
    "films",
    NAME,
    f"/d/{NAME}",
    100,
    50,
    5.0,
    10.0,
    [control.SourceEnd("anna", "tcp://192.0.2.1:1")],
    None,
)
LOCALES = {
    "C": {"LC_ALL": "C"},
    "POSIX": {"LC_ALL": "POSIX"},
    "C without UTF-8": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ascii": {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"},
    "latin-1": {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "iso-8859-1"},
    "de_DE": {"LC_ALL": "de_DE"},
}


@pytest.fixture(scope="module")
def locales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the locale de_DE, as glibc makes it."""
    folder = tmp_path_factory.mktemp("locales")
    words = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / "de_DE")]
    try:
        made = subprocess.run(words, capture_output=True).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("NOT TESTED: localedef cannot make the locale de_DE")
    return folder


@pytest.fixture(params=LOCALES)
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    found = {**os.environ, **LOCALES[request.param], "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
    if request.param == "de_DE":
        found["LOCPATH"] = str(request.getfixturevalue("locales"))
    return found


def ran(
    environment: dict[str, str], *words: str, module: str = "peer.cli"
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", module, *words], env=environment, capture_output=True, timeout=60
    )


def test_help_errors_tables_and_json(environment: dict[str, str], tmp_path: Path) -> None:
    home = tmp_path / "h"
    home.mkdir(mode=0o700)

    def work(command: control.Command, tell: object) -> control.Answer:
        tell(control.Progress("downloading", 1, 100, note=NAME))  # type: ignore[operator]
        return control.Downloaded(
            "films", NAME, f"/d/{NAME}", 1 << 20, "blake3", "ab" * 32, 2.0, 1.0, 1 << 20, 0, []
        )

    replies = {
        control.ListFiles: control.Files([FILE]),
        control.ShowDownloads: control.Downloads([DOWNLOAD]),
        control.StopShare: StorageError(f"{NAME} cannot be read", NAME),
        control.DownloadFile: work,
        control.Status: STATUS,
    }
    with FakePeer(home, replies):
        for code, *words in (
            (0, "--help"),
            (0, "upload-file", "--help"),
            (0, "list-files", "films"),
            (0, "show-downloads"),
            (1, "stop-share", "films", "x"),
            (0, "download-file", "films", NAME, "/d"),
            (0, "status"),
        ):
            done = ran(environment, "--home", str(home), *words)
            assert done.returncode == code, done
            assert b"defect" not in done.stderr
            assert b"Traceback" not in done.stderr
        done = ran(environment, "--home", str(home), "list-files", "films", "--json")
        assert json.loads(done.stdout)[0]["name"] == NAME
        assert done.stdout.isascii()
    done = ran(environment, "--home", str(home), "list-files", "Größe…")
    assert done.returncode == 3, done


def test_the_tracker_as_well(environment: dict[str, str], tmp_path: Path) -> None:
    for code, *words in (
        (0, "--help"),
        (0, "run", "--help"),
        (2, "link", "--home", str(tmp_path / NAME)),
        (2, "lnk…"),
    ):
        done = ran(environment, *words, module="tracker.cli")
        assert done.returncode == code, done
        assert b"Traceback" not in done.stderr


def test_the_nearest_character_is_shown(tmp_path: Path) -> None:
    code = (
        "from common.host.streams import speak_any_locale; speak_any_locale(); "
        "print('a…─b日', end='')"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout == b"a...-b?"
