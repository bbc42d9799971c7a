"""Deferred work: the step of a command that takes a thread, a key or the disk.

Owns: the password queue, the manifests on their way in, and the reader threads of the database. Not
here: which step a command needs (see tracker.core.commands) and the signing of tickets (see
tracker.service.ticket_signer). Each step ends in a reply, or in an internal command to be decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar, assert_never, cast

import msgspec
import nacl.signing

from common import manifest
from common.errors import Refused, StorageError
from common.ids import TrackerId
from common.messages import tracker
from common.messages.events import LogEntry
from common.messages.refusals import Code
from tracker.core import commands
from tracker.core.accounts import WRONG_CREDENTIALS, WRONG_OLD_PASSWORD, wrong_password
from tracker.core.context import (
    Caller,
    CheckPassword,
    Deferred,
    HashPassword,
    Now,
    ProbeDevice,
    ReadLog,
    ReadPart,
    ReplacePassword,
    SignTickets,
    TakePart,
)
from tracker.core.manifest_uploads import ManifestUploads
from tracker.core.records import ManifestSummary
from tracker.service.passwords import Passwords
from tracker.service.probing import Prober
from tracker.service.ticket_signer import TicketSigner
from tracker.store.turns import Store

READ_S = 8.0  # reads take milliseconds, a connection past a server that is frozen 3 s
PARTS_AHEAD_BYTES = 1 << 20  # a smaller manifest does not make a turn long
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finished:
    """End of a command: the reply, and the data that goes with it."""

    reply: tracker.Reply
    data: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ResumeWith:
    """An internal command to be decided next."""

    command: commands.InternalCommand


Outcome: TypeAlias = Finished | ResumeWith


class DeferredWork:
    """Runs deferred steps. The command loop closes it."""

    def __init__(
        self,
        store: Store,
        tracker_id: TrackerId,
        signing_key: nacl.signing.SigningKey,
        prober: Prober | None = None,
    ) -> None:
        self._store = store
        self._signer = TicketSigner(tracker_id, signing_key)
        self._prober = prober
        self._uploads = ManifestUploads()
        self.passwords = Passwords()
        self._readers = ThreadPoolExecutor(2, "reader")

    @property
    def tickets_signed(self) -> int:
        return self._signer.signed

    async def run(self, caller: Caller, step: Deferred, data: bytes | None, now: Now) -> Outcome:
        """Do ``step`` for ``caller``; ``data`` came with the command. Raises `MiniTorrentError`."""
        match step:
            case SignTickets():
                return await self._sign(caller, step, now)
            case ReadPart():
                return await self._read_part(step)
            case ReadLog():
                return await self._read_log(step)
            case HashPassword(user, _, invitation):
                password_hash = await self.passwords.hash(caller, step)
                return ResumeWith(commands.PasswordHashed(user, password_hash, invitation))
            case CheckPassword(user, _, password_hash):
                if not await self.passwords.check(caller, step) or password_hash is None:
                    raise WRONG_CREDENTIALS if step.invitation is None else wrong_password(user)
                return ResumeWith(commands.PasswordRight(user, password_hash, step.invitation))
            case ReplacePassword():
                new_hash = await self.passwords.replace(caller, step)
                if new_hash is None:
                    raise WRONG_OLD_PASSWORD
                return ResumeWith(commands.PasswordChecked(step, new_hash))
            case ProbeDevice():
                answered = self._prober is not None and await self._prober.probe(step)
                return Finished(tracker.Probed(step.endpoint, answered))
            case TakePart():
                return await self._take(caller, step, data, now)
            case _:
                assert_never(step)

    async def _sign(self, caller: Caller, step: SignTickets, now: Now) -> Outcome:
        rows = await self._signer.sign(caller.device, step.user, step.groups, now)
        return Finished(tracker.Tickets(rows, now.wall_ms))

    async def _read(self, read: Callable[..., T], *arguments: Any) -> T:
        """Call ``read`` on a reader thread. Raise `StorageError`, also after ``READ_S``."""
        reading = asyncio.get_running_loop().run_in_executor(self._readers, read, *arguments)
        try:
            return await asyncio.wait_for(reading, READ_S)
        except TimeoutError:
            raise StorageError("the database does not answer") from None

    async def _read_part(self, step: ReadPart) -> Outcome:
        body = await self._read(self._store.manifest_part, step.content, step.offset)
        if not body:
            raise Refused(Code.UNKNOWN_SHARE, "this content is no longer shared")
        return Finished(tracker.ManifestPart(step.total_bytes, step.offset), body)

    async def _read_log(self, step: ReadLog) -> Outcome:
        where = (step.group, step.after, step.head, tracker.PAGE_ROWS)
        entries = await self._read(self._store.entries, *where)
        # Checked here and not in the decision: the log may have been trimmed since.
        behind = not entries or entries[0].seq > step.after + 1
        # Why raw: to decode and encode a page again would take five times as long as all the rest.
        bodies = cast(list[LogEntry], [msgspec.Raw(entry.body) for entry in entries])
        return Finished(tracker.Events(bodies, step.head, step.snapshot if behind else None))

    async def _take(self, caller: Caller, step: TakePart, data: bytes | None, now: Now) -> Outcome:
        body = self._uploads.take(
            step.user,
            caller.device,
            step.content,
            step.total_bytes,
            step.offset,
            data,
            now.mono_s,
        )
        if body is None:
            return Finished(tracker.Done())
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._readers, manifest.decode, body, step.content)
        if self._store.shared and len(body) >= PARTS_AHEAD_BYTES:
            await loop.run_in_executor(self._readers, self._store.put_parts, step.content, body)
        summary = ManifestSummary(
            content=step.content,
            manifest_bytes=len(body),
            size=found.size,
            files=found.file_count,
            pieces=found.piece_count,
            piece_length=found.piece_length,
            algorithm=str(found.algorithm),
            digest=found.digest,
            stored_ms=now.wall_ms,
            folder=found.is_folder,
        )
        return ResumeWith(commands.ManifestGathered(step.user, summary, body))

    def tidy(self, now: float) -> None:
        """Drop abandoned uploads and tickets that are no longer fresh."""
        self._uploads.sweep(now)
        self._signer.tidy(now)

    def close(self) -> None:
        """Drop queued work and wait for running work."""
        self.passwords.close()
        self._readers.shutdown(wait=True, cancel_futures=True)
