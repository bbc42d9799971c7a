"""Batch of commands: collection, bounds, and deciding it again."""

from __future__ import annotations

import pytest

from common import limits
from common.ids import DeviceKey
from common.messages import tracker
from tracker.core.changes import Change, DeviceUnbound
from tracker.core.context import Caller, Decision
from tracker.core.fair_queue import FairQueue
from tracker.service import batch
from tracker.service.batch import Batch, Job


def queue_of(count: int) -> tuple[FairQueue[Job], list[Job]]:
    queue: FairQueue[Job] = FairQueue()
    caller = Caller(DeviceKey(b""))
    jobs = [Job(caller, tracker.Hello(), lambda *_: None) for _ in range(count)]
    for job in jobs:
        queue.add("user", job)
    return queue, jobs


def decision(*changes: Change) -> Decision:
    return Decision(tracker.Done(), changes)


CHANGE = DeviceUnbound(DeviceKey(b"d" * 32))


def test_the_first_job_is_collected_however_late_and_others_until_the_time_is_over() -> None:
    queue, jobs = queue_of(3)
    one = Batch()
    assert one.collect(queue, 5.0) is jobs[0]
    one.add(decision(), 0)
    assert one.collect(queue, 5.0 + batch.BATCH_S / 2) is jobs[1]
    one.add(decision(), 0)
    assert one.collect(queue, 5.0 + batch.BATCH_S) is None
    one.take_decided()
    one.begin()
    assert one.collect(queue, 9.0) is jobs[2]


def test_an_undecided_job_is_returned_again() -> None:
    queue, jobs = queue_of(2)
    one = Batch()
    assert one.collect(queue, 0.0) is one.collect(queue, 0.0) is jobs[0]


def test_a_batch_has_a_bounded_number_of_jobs() -> None:
    queue, _ = queue_of(limits.COMMANDS_PER_BATCH_MAX + 1)
    one = Batch()
    while one.collect(queue, 0.0) is not None:
        one.add(decision(), 0)
    assert (len(one.jobs), len(queue)) == (limits.COMMANDS_PER_BATCH_MAX, 1)


def test_jobs_are_decided_again_from_the_first_and_the_rest_is_left_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch, "BATCH_WEIGHT", 2)
    queue, jobs = queue_of(2)
    one = Batch()
    for _ in range(2):
        one.collect(queue, 0.0)
        one.add(decision(CHANGE), 1)
    assert (one.full(), one.changes) == (True, [CHANGE, CHANGE])
    one.begin()
    assert (one.full(), one.changes) == (False, [])
    assert one.collect(queue, 0.0) is jobs[0]
    one.add(decision(CHANGE), 2)
    assert one.full()
    assert [job for job, _ in one.take_decided()] == [jobs[0]]
    assert (list(one.jobs), one.changes, one.full()) == ([jobs[1]], [], False)
