"""Single-flight tasks: one of a name at a time, and once more if requested meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from peer.tracker_client.single_flight import SingleFlight
from tests.support.peer_fakes import turns, until


class Work:
    """Work that counts its runs and ends when ``gate`` is set."""

    def __init__(self) -> None:
        self.begun = self.ended = 0
        self.gate = asyncio.Event()

    async def __call__(self) -> None:
        self.begun += 1
        await self.gate.wait()
        self.ended += 1


@pytest.fixture
def work() -> Work:
    return Work()


async def test_requests_during_a_run_cause_one_more_run(work: Work) -> None:
    tasks = SingleFlight(lambda: True)
    for _ in range(5):
        tasks.run("name", work)
    await turns()
    assert work.begun == 1
    work.gate.set()
    await until(lambda: work.ended == 2)
    await turns()
    assert work.begun == 2


async def test_names_run_beside_each_other(work: Work) -> None:
    tasks = SingleFlight(lambda: True)
    tasks.run("one", work)
    tasks.run("other", work)
    await turns()
    assert work.begun == 2
    tasks.cancel()


async def test_a_further_run_needs_permission(work: Work) -> None:
    tasks = SingleFlight(lambda: False)
    tasks.run("name", work)
    tasks.run("name", work)
    work.gate.set()
    await until(lambda: work.ended == 1)
    await turns()
    assert work.begun == 1
    tasks.run("name", work)
    await until(lambda: work.ended == 2)


async def test_during_the_pause_a_request_does_not_run(work: Work) -> None:
    tasks = SingleFlight(lambda: True)
    work.gate.set()
    tasks.run("name", work, 60.0)
    await until(lambda: work.ended == 1)
    tasks.run("name", work, 60.0)
    await turns()
    assert work.begun == 1
    tasks.cancel()


async def test_after_a_cancellation_a_request_runs_at_once(work: Work) -> None:
    tasks = SingleFlight(lambda: True)
    tasks.run("name", work)
    tasks.run("name", work)
    await turns()
    tasks.cancel()
    work.gate.set()
    tasks.run("name", work)
    await until(lambda: work.ended == 1)
    await turns()
    assert work.begun == 2
