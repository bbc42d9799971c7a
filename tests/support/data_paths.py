"""Both data paths for one test: Python alone, and the compiled library where it is built.

``make test`` builds it (`native/`). Without it the half of a test that needs it is skipped, with a
reason.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from peer.native import library

PYTHON, COMPILED = "python", "compiled"
BUILT = importlib.util.find_spec("mini_torrent_native") is not None
WHY_NOT = "the compiled data path is not built: make test, or pip install ./native"
needs_library = pytest.mark.skipif(not BUILT, reason=WHY_NOT)
paths = [
    pytest.param(PYTHON, id=PYTHON),
    pytest.param(COMPILED, id=COMPILED, marks=needs_library),
]


def using(path: str) -> Iterator[str]:
    """Let this process use that path until the end of a test."""
    library.use(path == COMPILED)
    if path == COMPILED:
        found = library.library()
        assert found is not None, library.state()
        assert found.moves_pieces, library.state()
    yield path
    library.use(True)
