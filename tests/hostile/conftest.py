"""The swarm that the tests here attack: real processes, on tcp."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests.support.attackers import AttackSwarm
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
def arena() -> Iterator[AttackSwarm]:
    """A tracker and Alice's peer, for all attacks that they are expected to survive unchanged."""
    made = AttackSwarm()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def own_arena() -> Iterator[AttackSwarm]:
    """An arena for one test alone."""
    made = AttackSwarm()
    try:
        yield made
    finally:
        made.close()
