"""Errands: the part of a command that takes a thread, a key or the disk.

Owns the passwords' queue, the manifests on their way in, and the readers of the database. Tickets
are signed by ``tracker.signing``. Each errand ends in an answer, or in what is to be decided next.
Which errand a command needs is decided in ``tracker.commands``.
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
from tracker import commands
from tracker.accounts import WRONG_CREDENTIALS, WRONG_OLD_PASSWORD
from tracker.changes import ManifestFacts
from tracker.decision import (
    Actor,
    CheckPassword,
    HashPassword,
    Now,
    ProbeDevice,
    ReadLog,
    ReadPart,
    ReplacePassword,
    SignTickets,
    TakePart,
    Work,
)
from tracker.passwords import Passwords
from tracker.probing import Prober
from tracker.signing import Signer
from tracker.store import Store
from tracker.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Answered:
    """The errand's end: what to reply, and the data that goes with it."""

    reply: tracker.Reply
    data: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Continued:
    """What has to be decided, now that the errand is done."""

    command: commands.Internal


Outcome: TypeAlias = Answered | Continued


class Errands:
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

    async def run(self, actor: Actor, work: Work, data: bytes | None, now: Now) -> Outcome:
        """Do ``work`` for ``actor``; ``data`` came with the command. Raises `MiniTorrentError`."""
        match work:
            case SignTickets():
                return await self._sign(actor, work, now)
            case ReadPart():
                return await self._read_part(work)
            case ReadLog():
                return await self._read_log(work)
            case HashPassword(user):
                password_hash = await self._passwords.hash(actor, work)
                return Continued(commands.PasswordHashed(user, password_hash))
            case CheckPassword(user, _, password_hash):
                if not await self._passwords.check(actor, work) or password_hash is None:
                    raise WRONG_CREDENTIALS
                return Continued(commands.PasswordRight(user, password_hash))
            case ReplacePassword():
                new_hash = await self._passwords.replace(actor, work)
                if new_hash is None:
                    raise WRONG_OLD_PASSWORD
                return Continued(commands.PasswordChecked(work, new_hash))
            case ProbeDevice():
                answered = self._prober is not None and await self._prober.probe(work)
                return Answered(tracker.Probed(work.endpoint, answered))
            case TakePart():
                return await self._take(actor, work, data, now)
            case _:
                assert_never(work)

    async def _sign(self, actor: Actor, work: SignTickets, now: Now) -> Outcome:
        rows = await self._signer.sign(actor.device, work.user, work.groups, now)
        return Answered(tracker.Tickets(rows, now.wall_ms))

    async def _read_part(self, work: ReadPart) -> Outcome:
        loop = asyncio.get_running_loop()
        body = await loop.run_in_executor(
            self._readers, self._store.manifest_part, work.content, work.offset
        )
        if not body:
            raise Refused(Code.UNKNOWN_SHARE, "this content is not shared any more")
        return Answered(tracker.ManifestPart(work.total_bytes, work.offset), body)

    async def _read_log(self, work: ReadLog) -> Outcome:
        loop = asyncio.get_running_loop()
        where = (work.group, work.after, work.head, tracker.PAGE_ROWS)
        entries = await loop.run_in_executor(self._readers, self._store.entries, *where)
        # Found here and not when it was decided: the log may have been trimmed since.
        behind = not entries or entries[0].seq > work.after + 1
        return Answered(tracker.Events(entries, work.head, work.snapshot if behind else None))

    async def _take(self, actor: Actor, work: TakePart, data: bytes | None, now: Now) -> Outcome:
        body = self._uploads.take(
            work.user,
            actor.device,
            work.content,
            work.total_bytes,
            work.offset,
            data,
            now.mono_s,
        )
        if body is None:
            return Answered(tracker.Done())
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._readers, manifest.decode, body, work.content)
        facts = ManifestFacts(
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
        return Continued(commands.ManifestGathered(work.user, facts, body))

    def tidy(self, now: float) -> None:
        """Drop uploads that were given up, and tickets that are not fresh any more."""
        self._uploads.sweep(now)
        self._signer.tidy(now)

    def close(self) -> None:
        """Drop what waits, and wait for what is at work."""
        self._passwords.close()
        self._readers.shutdown(wait=True, cancel_futures=True)
