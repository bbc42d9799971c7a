"""Files of the pages: what is vendored, and that nothing is loaded from elsewhere."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SHARED = ROOT / "common" / "http" / "page"
PAGES = (SHARED, ROOT / "peer" / "http" / "page", ROOT / "tracker" / "http" / "page")
VENDORED = ["preact.js", "uplot.js", "uplot.css"]
FILES = [
    path
    for page in PAGES
    for path in sorted(page.iterdir())
    if path.suffix in (".js", ".css", ".html", ".svg")
]


def test_vendored_files_are_those_that_are_named() -> None:
    rows = re.findall(
        r"^\| `([^`]+)` \|.*`([0-9a-f]{64})` \|$", (SHARED / "VENDORED.md").read_text(), re.M
    )
    assert [name for name, _ in rows] == VENDORED
    for name, digest in rows:
        assert sha256((SHARED / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_loaded_from_elsewhere(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\b(fetch|import|importScripts|url)\(\s*[\"'`]?https?:", text)
    if path.name in VENDORED:
        assert not re.search(r"XMLHttpRequest|\bfetch\(|\bimport\b", text)
        return
    found = re.findall(r"https?://[a-z0-9./-]+", text)
    assert [url for url in found if not url.startswith("http://www.w3.org/")] == []
    assert "innerHTML" not in text
