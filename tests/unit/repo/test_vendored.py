"""Vendored sources are those of their release, to the byte."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

NATIVE = Path(__file__).parents[3] / "native"


def test_the_files_of_blake3_have_the_hashes_of_their_release() -> None:
    folder = NATIVE / "blake3"
    rows = [row.split() for row in (folder / "SHA256SUMS").read_text("utf-8").splitlines()]
    expected = {name: digest for digest, name in rows}
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "SHA256SUMS"
    }
    assert found == expected
    version = re.search(r'BLAKE3_VERSION_STRING "([0-9.]+)"', (folder / "blake3.h").read_text())
    assert version is not None
    assert f"BLAKE3 {version[1]}" in (NATIVE / "README.md").read_text("utf-8")
    assert "CC0" in (folder / "LICENSE").read_text("utf-8")
