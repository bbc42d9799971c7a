"""Errands: the part of a command that takes a thread, a key or the disk.

Owns the passwords' queue, the manifests on their way in, and the readers of the database. Tickets
are signed by ``tracker.service.ticket_signer``. Each errand ends in an answer, or in what is to be
decided next. Which errand a command needs is decided in ``tracker.core.commands``.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

import nacl.signing

from common import manifest
from common.errors import Refused
from common.ids import TrackerId
from common.messages import tracker
from common.messages.refusals import Code
from tracker.core import commands
from tracker.core.accounts import WRONG_CREDENTIALS, WRONG_OLD_PASSWORD
from tracker.core.changes import ManifestSummary
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
from tracker.core.manifest_uploads import Uploads
from tracker.service.passwords import Passwords
from tracker.service.probing import Prober
from tracker.service.ticket_signer import Signer
from tracker.store.store import Store


@dataclass(frozen=True, slots=True)
class Finished:
    """The errand's end: what to reply, and the data that goes with it."""

    reply: tracker.Reply
    data: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ResumeWith:
    """What has to be decided, now that the errand is done."""

    command: commands.InternalCommand


Outcome: TypeAlias = Finished | ResumeWith


class DeferredWork:
    """Runs errands; closed with the desk."""

    def __init__(
        self,
        store: Store,
        tracker_id: TrackerId,
        signing_key: nacl.signing.SigningKey,
        prober: Prober | None = None,
    ) -> None:
        self._store = store
        self._signer = Signer(tracker_id, signing_key)
        self._prober = prober
        self._uploads = Uploads()
        self._passwords = Passwords()
        self._readers = ThreadPoolExecutor(2, "reader")

    async def run(self, caller: Caller, work: Deferred, data: bytes | None, now: Now) -> Outcome:
        """Do ``work`` for ``caller``; ``data`` came with the command. Raises `MiniTorrentError`."""
        match work:
            case SignTickets():
                return await self._sign(caller, work, now)
            case ReadPart():
                return await self._read_part(work)
            case ReadLog():
                return await self._read_log(work)
            case HashPassword(user):
                password_hash = await self._passwords.hash(caller, work)
                return ResumeWith(commands.PasswordHashed(user, password_hash))
            case CheckPassword(user, _, password_hash):
                if not await self._passwords.check(caller, work) or password_hash is None:
                    raise WRONG_CREDENTIALS
                return ResumeWith(commands.PasswordRight(user, password_hash))
            case ReplacePassword():
                new_hash = await self._passwords.replace(caller, work)
                if new_hash is None:
                    raise WRONG_OLD_PASSWORD
                return ResumeWith(commands.PasswordChecked(work, new_hash))
            case ProbeDevice():
                answered = self._prober is not None and await self._prober.probe(work)
                return Finished(tracker.Probed(work.endpoint, answered))
            case TakePart():
                return await self._take(caller, work, data, now)
            case _:
                assert_never(work)

    async def _sign(self, caller: Caller, work: SignTickets, now: Now) -> Outcome:
        rows = await self._signer.sign(caller.device, work.user, work.groups, now)
        return Finished(tracker.Tickets(rows, now.wall_ms))

    async def _read_part(self, work: ReadPart) -> Outcome:
        loop = asyncio.get_running_loop()
        body = await loop.run_in_executor(
            self._readers, self._store.manifest_part, work.content, work.offset
        )
        if not body:
            raise Refused(Code.UNKNOWN_SHARE, "this content is not shared any more")
        return Finished(tracker.ManifestPart(work.total_bytes, work.offset), body)

    async def _read_log(self, work: ReadLog) -> Outcome:
        loop = asyncio.get_running_loop()
        where = (work.group, work.after, work.head, tracker.PAGE_ROWS)
        entries = await loop.run_in_executor(self._readers, self._store.entries, *where)
        # Found here and not when it was decided: the log may have been trimmed since.
        behind = not entries or entries[0].seq > work.after + 1
        return Finished(tracker.Events(entries, work.head, work.snapshot if behind else None))

    async def _take(self, caller: Caller, work: TakePart, data: bytes | None, now: Now) -> Outcome:
        body = self._uploads.take(
            work.user,
            caller.device,
            work.content,
            work.total_bytes,
            work.offset,
            data,
            now.mono_s,
        )
        if body is None:
            return Finished(tracker.Done())
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._readers, manifest.decode, body, work.content)
        facts = ManifestSummary(
            content=work.content,
            manifest_bytes=len(body),
            size=found.size,
            files=found.file_count,
            pieces=found.piece_count,
            piece_length=found.piece_length,
            algorithm=str(found.algorithm),
            digest=found.digest,
            stored_ms=now.wall_ms,
        )
        return ResumeWith(commands.ManifestGathered(work.user, facts, body))

    def tidy(self, now: float) -> None:
        """Drop uploads that were given up, and tickets that are not fresh any more."""
        self._uploads.sweep(now)
        self._signer.tidy(now)

    def close(self) -> None:
        """Drop what waits, and wait for what is at work."""
        self._passwords.close()
        self._readers.shutdown(wait=True, cancel_futures=True)
