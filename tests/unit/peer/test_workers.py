"""Worker threads: results in the loop, and helpers while all workers wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from peer.workers import Workers
from tests.support.peer_fakes import until
from tests.support.waiting import PATIENCE_S


@contextmanager
def working(count: int = 2, helpers: int = 2) -> Iterator[Workers]:
    workers = Workers(count, "test", helpers=helpers)
    try:
        yield workers
    finally:
        workers.close()
    assert not any(thread.is_alive() for thread in (*workers._threads, *workers._helpers))


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    with working() as workers:
        yield workers


async def test_results_and_exceptions_of_jobs_come_back(workers: Workers) -> None:
    assert await asyncio.gather(*(workers.run(pow, 2, n) for n in range(50))) == [
        2**n for n in range(50)
    ]
    with pytest.raises(ZeroDivisionError):
        await workers.run(divmod, 1, 0)


async def test_a_result_that_cannot_be_handled_harms_no_other(
    caplog: pytest.LogCaptureFixture, workers: Workers
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("a defect")

    workers.submit(refuse, int)
    assert await workers.run(int, "7") == 7
    await until(lambda: "could not be handled" in caplog.text)


async def test_helpers_go_on_while_all_workers_wait_for_a_disk(workers: Workers) -> None:
    disk = threading.Event()
    stuck = [asyncio.ensure_future(workers.run(disk.wait, PATIENCE_S)) for _ in range(3)]
    # Two are at the workers and one at a helper; the other helper does all that comes.
    assert await asyncio.gather(*(workers.run(int, n) for n in range(20))) == list(range(20))
    assert not any(one.done() for one in stuck)
    disk.set()
    assert await asyncio.gather(*stuck) == [True] * 3
    assert await workers.run(int, "7") == 7


async def test_without_helpers_new_jobs_wait() -> None:
    with working(count=1, helpers=0) as workers:
        disk = threading.Event()
        stuck = asyncio.ensure_future(workers.run(disk.wait, PATIENCE_S))
        waiting = asyncio.ensure_future(workers.run(int, "7"))
        disk.set()
        assert await stuck
        assert await waiting == 7


async def test_closing_while_jobs_are_taken_ends() -> None:
    """The taker of the last job must not leave `close` waiting for it."""
    for _ in range(200):
        with working() as workers:
            for _ in range(30):
                workers.submit(lambda *_: None, int)


async def test_a_hanging_disk_causes_few_calls_of_helpers(
    monkeypatch: pytest.MonkeyPatch, workers: Workers
) -> None:
    monkeypatch.setattr("peer.workers.SLOW_S", 0.0)
    disk = threading.Event()
    stuck = [asyncio.ensure_future(workers.run(disk.wait, PATIENCE_S)) for _ in range(9)]
    await until(lambda: workers._jobs.qsize() == 5 and workers._calls.qsize() == 1)
    for _ in range(50):
        await asyncio.sleep(0)
    assert workers._calls.qsize() == 1
    disk.set()
    await asyncio.gather(*stuck)


async def test_closing_drops_jobs_not_begun_and_ends_helpers(workers: Workers) -> None:
    disk, begun = threading.Event(), threading.Semaphore(0)

    def wait() -> None:
        begun.release()
        disk.wait(PATIENCE_S)

    for _ in range(9):
        workers.submit(lambda *_: None, wait)
    for _ in range(4):
        assert await asyncio.to_thread(begun.acquire, timeout=PATIENCE_S)
    disk.set()
