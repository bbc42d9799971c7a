"""Base of all tests: an environment without our variables, and golden files.

``pytest --update-golden`` writes the files under ``tests/golden`` anew instead of comparing; the
difference is then seen in review.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from tests.support.tracker_process import Devices


# What runs in the background of a script ignores Ctrl-C, and so would all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What a private umask makes is shared after a question only: tests that mean that set the mode.
os.umask(0o022)

# No test asserts a time: on a busy machine any example may take long.
hypothesis.settings.register_profile("without a deadline", deadline=None)
hypothesis.settings.load_profile("without a deadline")

# PYTHONUNBUFFERED: a caller's own setting must not change which write it is that fails.
# PYTHONDONTWRITEBYTECODE: each of the many processes would compile all modules again.
_OTHERS = ("MINI_TORRENT", "_MINI_TORRENT", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")
for _name in [name for name in os.environ if name.startswith(_OTHERS)]:
    del os.environ[_name]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the files under tests/golden anew"
    )
    parser.addoption(
        "--every-path", action="store_true", help="run long tests over both data paths"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the second data path of long tests (see tests/support/data_paths.py)."""
    if config.getoption("--every-path"):
        return
    left_out = [item for item in items if item.get_closest_marker("every_path")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("every_path")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud that the compiled data path was not tested."""
    from tests.support.data_paths import WHY_NOT

    skipped = terminalreporter.getreports("skipped")
    count = sum(WHY_NOT in str(report.longrepr) for report in skipped)
    if count:
        terminalreporter.section("WARNING", red=True)
        terminalreporter.line(f"{count} tests skipped: {WHY_NOT}")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written rather than compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop that asynchronous tests and fixtures run in: the one of the product."""
    return "asyncio"


@pytest.fixture
def data_path(request: pytest.FixtureRequest) -> Iterator[str]:
    """The data path of a test: each in turn for `both_paths`, otherwise the one installed here.

    This process uses it; peers of `tests.support.processes` do if their swarm was told.
    """
    from tests.support.data_paths import INSTALLED, using

    if not hasattr(request, "param"):
        yield INSTALLED
        return
    yield from using(request.param)


@pytest.fixture
def devices() -> Iterator[Devices]:
    """Makes devices that speak to a tracker, and closes them all."""
    from tests.support.tracker_process import Devices

    made = Devices()
    yield made
    made.close()
