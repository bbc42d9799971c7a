"""The compiled data path is found, or its absence is reported; nothing depends on it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from peer.native import library
from tests.support.data_paths import needs_library
from tests.support.paths import TESTS


@pytest.fixture(autouse=True)
def _as_before() -> object:
    yield
    library.use(True)


def test_f155_without_the_library_python_does_the_work_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "mini_torrent_native", None)
    library.use(True)
    assert library.library() is None
    assert "not installed" in library.state()
    assert library.finding().ok


@needs_library
def test_a_setting_turns_it_off() -> None:
    library.use(False)
    assert library.library() is None
    assert "turned off by the settings" in library.state()
    library.use(True)
    assert library.library() is not None
    assert "in use" in library.state()


@needs_library
@pytest.mark.parametrize("fault", ["text", "other interface", "missing"])
def test_h160_a_file_that_is_not_the_library_of_this_release_is_not_used(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mini_torrent_native

    other = tmp_path / "lib.so"
    if fault == "text":
        other.write_text("no library")
    elif fault == "other interface":
        cc = shutil.which("cc")
        if cc is None:
            pytest.skip("no C compiler")
        source = tmp_path / "other.c"
        source.write_text("int mt_abi(void) { return 99; }")
        subprocess.run([cc, "-shared", "-fPIC", "-o", other, source], check=True)
    monkeypatch.setattr(mini_torrent_native, "LIBRARY", other)
    library.use(True)
    assert library.library() is None
    finding = library.finding()
    assert not finding.ok
    assert "cannot be loaded" in finding.found
    assert finding.hint is not None
    # A command for a clone: the folder is there, and the pip is that of this environment.
    *pip, _, folder = shlex.split(finding.hint.partition(": ")[2])
    assert pip == [sys.executable, "-m", "pip"]
    assert (TESTS.parent / folder / "pyproject.toml").is_file()
