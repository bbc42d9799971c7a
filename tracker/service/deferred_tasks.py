"""Tasks of deferred steps: start each, and carry its outcome to a reply or to the next command.

Owns: the tasks. Not here: the steps (see tracker.service.deferred).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import assert_never

from common.errors import MiniTorrentError
from common.messages.base import Refusal
from tracker.core.context import Deferred, Now
from tracker.service.batch import Job
from tracker.service.deferred import DeferredWork, Finished, ResumeWith
from tracker.service.open_commands import INTERNAL, OpenCommands

log = logging.getLogger(__name__)


class DeferredTasks:
    """Tasks of ``work``. ``enqueue`` gets the internal commands that steps resume with."""

    def __init__(
        self, work: DeferredWork, answers: OpenCommands, enqueue: Callable[[Job], None]
    ) -> None:
        self._work = work
        self._answers = answers
        self._enqueue = enqueue
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, job: Job, step: Deferred, now: Now) -> None:
        """Begin ``step``, which ``job`` waits for."""
        task = asyncio.get_running_loop().create_task(self._run(job, step, now))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, job: Job, step: Deferred, now: Now) -> None:
        try:
            outcome = await self._work.run(job.caller, step, job.data, now)
        except MiniTorrentError as error:
            self._answers.reply(job, Refusal(error.code, error.message, error.hint))
            return
        except Exception:
            log.exception("failed to finish a %s", type(job.command).__name__)
            self._answers.reply(job, INTERNAL)
            return
        match outcome:
            case Finished(reply, data):
                self._answers.reply(job, reply, data)
            case ResumeWith(command):
                key = (job.caller.device, job.caller.request_id)
                self._enqueue(
                    Job(
                        job.caller,
                        command,
                        lambda reply, data: self._answers.answer(key, reply, data),
                    )
                )
            case _:
                assert_never(outcome)

    def tidy(self, now: float) -> None:
        """Drop what deferred work keeps too long."""
        self._work.tidy(now)

    def close(self) -> None:
        """Cancel all tasks, and end the threads of deferred work."""
        for task in self._tasks:
            task.cancel()
        self._work.close()
