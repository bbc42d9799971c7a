"""Batch of commands: collection, bounds, and jobs that are left over."""

from __future__ import annotations

import pytest

from common import limits
from common.ids import DeviceKey
from common.messages import tracker
from tracker.core.changes.accounts import DeviceUnbound
from tracker.core.changes.base import Change
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
    assert one.collect(queue, 5.0 + batch.BATCH_S / 2) is jobs[1]
    assert one.collect(queue, 5.0 + batch.BATCH_S) is None
    one.begin()
    assert one.collect(queue, 9.0) is jobs[2]


def test_a_batch_has_a_bounded_number_of_jobs_though_some_are_left_over() -> None:
    queue, _ = queue_of(limits.COMMANDS_PER_BATCH_MAX + 3)
    one = Batch()
    for _ in range(2):
        one.begin()
        while one.collect(queue, 0.0) is not None:
            pass
        assert (len(one.jobs), len(queue)) == (limits.COMMANDS_PER_BATCH_MAX, 3)


def test_jobs_beyond_the_weight_of_a_batch_are_left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "BATCH_WEIGHT", 2)
    queue, jobs = queue_of(3)
    one = Batch()
    while one.collect(queue, 0.0) is not None:
        pass
    for weight, next_one in ((1, jobs[1]), (1, None)):
        assert one.undecided() is not None
        one.add(decision(CHANGE), weight)
        assert one.undecided() is next_one
    assert one.changes == [CHANGE, CHANGE]
    assert [job for job, _ in one.take_decided()] == jobs[:2]
    assert (list(one.jobs), one.changes, one.undecided()) == ([jobs[2]], [], jobs[2])
    one.put_back(jobs[:2])
    assert list(one.jobs) == jobs
