"""Free space at paths that exist, and at those that do not yet."""

from __future__ import annotations

import os
from pathlib import Path

from peer.files.free_space import free_space


def test_the_deepest_existing_folder_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path, tmp_path / "new" / "deeper", tmp_path / "file", tmp_path / "file" / "x"):
        folder, free = free_space(str(path))
        assert folder == str(tmp_path)
        assert free is not None
        assert 0 < free <= os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
    assert free_space("/none/at/all")[0] == "/"


def test_a_file_system_that_tells_nothing_has_no_number() -> None:
    assert free_space("/proc/self")[1] is None
