"""Files of the page: what is vendored, and that nothing is loaded from elsewhere."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PAGE = ROOT / "peer" / "http" / "page"
OWN = [path for path in PAGE.iterdir() if path.suffix in (".js", ".css", ".html", ".svg")]


def test_vendored_files_are_those_that_are_named() -> None:
    rows = re.findall(
        r"^\| `([^`]+)` \|.*`([0-9a-f]{64})` \|$", (PAGE / "VENDORED.md").read_text(), re.M
    )
    assert [name for name, _ in rows] == ["preact.js"]
    for name, digest in rows:
        assert sha256((PAGE / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_nothing_is_loaded_from_elsewhere(path: Path) -> None:
    text = path.read_text()
    found = re.findall(r"https?://[a-z0-9./-]+", text)
    assert [url for url in found if not url.startswith("http://www.w3.org/")] == []
    if path.name != "preact.js":
        assert "innerHTML" not in text
