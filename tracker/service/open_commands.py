"""Open commands: those off the wire that have no reply yet.

Owns: their bounds, one reply to each, and the refusals that the tracker itself causes. Not here:
their order (see tracker.core.fair_queue) and their progress (see tracker.service.command_loop).
"""

from __future__ import annotations

from collections import Counter

from common import limits
from common.errors import StorageError
from common.host.clock import monotonic
from common.ids import DeviceKey
from common.messages.base import Refusal
from common.messages.refusals import Code
from tracker.core import commands
from tracker.core.context import Reply
from tracker.service.batch import Job
from tracker.service.meter import CommandMeter

INTERNAL = Refusal(
    Code.INTERNAL,
    "the tracker failed at this command",
    "its log says why; other commands are not affected",
)
BUSY = Refusal(Code.BUSY, "the tracker is busy", "try again in a moment")


def read_only(error: StorageError) -> Refusal:
    """Return the refusal of commands that cannot be written."""
    return Refusal(
        Code.READ_ONLY,
        f"the tracker cannot save anything at the moment ({error.message})",
        "tell its operator: its disk is full or its database away; it resumes by itself after that",
    )


class OpenCommands:
    """Commands by device and request id."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.meter = CommandMeter()
        self._jobs: dict[tuple[DeviceKey, bytes], Job] = {}
        self._of: Counter[DeviceKey] = Counter()

    def __len__(self) -> int:
        return len(self._jobs)

    def admit(self, job: Job) -> bool:
        """Return whether ``job`` is to be queued; otherwise it is refused, or it repeats another.

        A repetition of an open command is not done twice: the later one gets the reply.
        """
        device = job.caller.device
        key = (device, job.caller.request_id)
        known = self._jobs.get(key)
        if known is not None and known.command == job.command:
            known.answer = job.answer
            return False
        if (
            len(self._jobs) >= limits.COMMAND_QUEUE_MAX
            or self._of[device] >= limits.COMMANDS_PER_DEVICE_MAX
            or known is not None
        ):
            if not self._of[device]:
                del self._of[device]
            self.counts["busy"] += 1
            job.answer(BUSY, None)
            return False
        self._jobs[key] = job
        self._of[device] += 1
        return True

    def reply(self, job: Job, reply: Reply, data: bytes | None = None) -> None:
        """Answer ``job``; an internal command hands the answer to the command that it resumes."""
        if isinstance(job.command, commands.InternalCommand):
            job.answer(reply, data)
        else:
            self.answer((job.caller.device, job.caller.request_id), reply, data)

    def answer(self, key: tuple[DeviceKey, bytes], reply: Reply, data: bytes | None) -> None:
        """Answer the command of this key, once."""
        job = self._jobs.pop(key, None)
        if job is None:
            return
        self._of[key[0]] -= 1
        if not self._of[key[0]]:
            del self._of[key[0]]
        if isinstance(reply, Refusal):
            self.counts[f"refused {reply.code}"] += 1
        self.meter.answered(job.command, reply, monotonic() - job.began)
        job.answer(reply, data)
