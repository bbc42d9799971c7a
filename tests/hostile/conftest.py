"""The swarm that the tests here attack: real processes, on tcp."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator

import pytest

from tests.support.attackers import AttackSwarm
from tests.support.data_paths import COMPILED, INSTALLED
from tests.support.processes import Swarm


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows how the logs of the processes that were alive end."""
    report = yield
    if report.failed:
        for swarm in Swarm.alive:
            report.sections += [(f"log {path}", text) for path, text in swarm.logs()]
    return report


@pytest.fixture(scope="session")
def arenas() -> Iterator[Callable[[str], AttackSwarm]]:
    """A function that returns the arena of a data path."""
    with contextlib.ExitStack() as ends:

        @functools.cache
        def arena_of(path: str) -> AttackSwarm:
            made = AttackSwarm(native=path == COMPILED)
            ends.callback(made.close)
            return made

        yield arena_of


@pytest.fixture(scope="session")
def arena(arenas: Callable[[str], AttackSwarm]) -> AttackSwarm:
    """A tracker and Alice's peer, for all attacks that they are expected to survive unchanged."""
    return arenas(INSTALLED)


@pytest.fixture
def arena_on_path(arenas: Callable[[str], AttackSwarm], data_path: str) -> AttackSwarm:
    """The same, with peers that use the data path of the test."""
    return arenas(data_path)


@pytest.fixture
def own_arena() -> Iterator[AttackSwarm]:
    """An arena for one test alone."""
    made = AttackSwarm()
    try:
        yield made
    finally:
        made.close()
