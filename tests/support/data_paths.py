"""Both data paths for one test: Python alone, and the compiled library where it is built.

`both_paths` runs a test over both, by the fixture ``data_path``; `module_on_both_paths` all of a
module. `each_path` is for tests that take seconds of real processes: where the library is built,
their half over Python runs with ``--every-path`` alone, which ``make chaos`` gives. ``make test``
builds the library (`native/`). Without it the half of a test that needs it is skipped, and the end
of the run says so.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from peer.native import library

PYTHON, COMPILED = "python", "compiled"
BUILT = importlib.util.find_spec("mini_torrent_native") is not None
INSTALLED = COMPILED if BUILT else PYTHON
WHY_NOT = "the compiled data path is not built: make test, or pip install ./native"
needs_library = pytest.mark.skipif(not BUILT, reason=WHY_NOT)


def _over(*python: pytest.MarkDecorator) -> pytest.MarkDecorator:
    halves = [
        pytest.param(PYTHON, id=PYTHON, marks=python),
        pytest.param(COMPILED, id=COMPILED, marks=needs_library),
    ]
    return pytest.mark.parametrize("data_path", halves, indirect=True)


both_paths = _over()
module_on_both_paths = [both_paths, pytest.mark.usefixtures("data_path")]
# The path that is installed here always runs.
each_path = _over(pytest.mark.every_path) if BUILT else both_paths


def using(path: str) -> Iterator[str]:
    """Let this process use that path until the end of a test."""
    library.use(path == COMPILED)
    if path == COMPILED:
        found = library.library()
        assert found is not None, library.state()
        assert found.moves_pieces, library.state()
    yield path
    library.use(True)
