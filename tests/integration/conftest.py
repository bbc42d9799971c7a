"""Swarms of real processes for the tests, and their logs when one fails."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests.support.processes import Person, Swarm

TRANSPORTS = ("tcp", "ipc")


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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests over ipc of modules with ``TCP_ONLY = True``.

    Why: they concern what lies above the transport, and each takes seconds of real processes.
    """
    left_out = [
        item
        for item in items
        if isinstance(item, pytest.Function)
        and getattr(item.module, "TCP_ONLY", False)
        and hasattr(item, "callspec")
        and item.callspec.params.get("transport") == "ipc"
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture(scope="session", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """The transport between the processes."""
    return str(request.param)


@pytest.fixture(scope="session")
def swarm(transport: str) -> Iterator[Swarm]:
    """A tracker, and Alice, Bob and Carol, for all tests that leave them as they were: what a test
    makes bears a fresh name, and no one of them is logged out or ended."""
    made = Swarm(transport)
    try:
        for name in ("alice", "bob", "carol"):
            made.person(name)
        yield made
    finally:
        made.close()


@pytest.fixture
def alice(swarm: Swarm) -> Person:
    """A user of the shared swarm."""
    return swarm.named("alice")


@pytest.fixture
def bob(swarm: Swarm) -> Person:
    """Another."""
    return swarm.named("bob")


@pytest.fixture
def carol(swarm: Swarm) -> Person:
    """And a third."""
    return swarm.named("carol")


@pytest.fixture
def own_swarm(transport: str) -> Iterator[Swarm]:
    """A swarm for one test alone, which may do what it likes to it."""
    made = Swarm(transport)
    try:
        yield made
    finally:
        made.close()
