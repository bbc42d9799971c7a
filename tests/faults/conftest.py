"""People at real processes, and the means to make their lives hard.

The swarm itself is that of ``tests/integration``.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from common.host.home import lock_holder
from tests.support.data_paths import COMPILED, INSTALLED
from tests.support.faults import Small, settle, small_disk
from tests.support.faulty_link import FaultyLink, links
from tests.support.processes import Person, Swarm


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows how the logs of the swarms that were alive end."""
    report = yield
    if report.failed:
        for swarm in Swarm.alive:
            report.sections += [(f"log {path}", text) for path, text in swarm.logs()]
    return report


@pytest.fixture
def rng() -> random.Random:
    """Seeded; the seed is printed, and taken from MINI_TORRENT_SEED where that is set."""
    seed = int(os.environ.get("MINI_TORRENT_SEED", random.randrange(1 << 32)))
    print(f"MINI_TORRENT_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def line() -> Iterator[Callable[..., FaultyLink]]:
    """Makes links between processes."""
    with links() as make:
        yield make


@pytest.fixture(scope="session")
def town() -> Iterator[Swarm]:
    """A swarm for the tests that harm no process of it for long."""
    made = Swarm("tcp")
    try:
        yield made
    finally:
        made.close()


def _resident(swarm: Swarm, name: str, data_path: str, limit: str = "0") -> Person:
    """The person of that name whose peer uses that data path."""
    if data_path != INSTALLED:
        name = f"{name}-{data_path}"
    found = [person for person in swarm.people.values() if person.name == name]
    if not found:
        native = data_path == COMPILED
        made = settle(swarm, name, "--upload-limit", limit, native=native)
        assert made.status()["data_path"].startswith("in use") == native
        return made
    if lock_holder(found[0].home) is None:  # a test that failed left it so
        found[0].up()
    return found[0]


@pytest.fixture
def alice(town: Swarm, data_path: str) -> Person:
    """Serves 8 MiB a second, so that there is time to do something to a download."""
    return _resident(town, "alice", data_path, "8M")


@pytest.fixture
def bob(town: Swarm, data_path: str) -> Person:
    return _resident(town, "bob", data_path)


@pytest.fixture
def carol(town: Swarm, data_path: str) -> Person:
    return _resident(town, "carol", data_path)


@pytest.fixture
def own(data_path: str) -> Iterator[Swarm]:
    """A swarm for one test alone."""
    made = Swarm("tcp", native=data_path == COMPILED)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Small]:
    """A small disk of its own; skips without the right to mount one."""
    with small_disk(tmp_path, getattr(request, "param", "tmpfs")) as made:
        yield made
