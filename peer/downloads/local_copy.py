"""Pieces that this device has in another place: taken from there, not fetched.

A whole copy of the content is copied before anything is fetched, at the speed of the disk. In other
local files pieces are looked for while the rest is fetched (see peer.downloads.reuse). The part
verifies every piece, like one from a source. Owns: the steps before a transfer.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from common.errors import IntegrityError, StorageError
from common.manifest import Manifest
from peer.downloads.checkpoints import CHECKPOINT_BYTES
from peer.downloads.job import DownloadJob, DownloadServices
from peer.downloads.reuse import PlannedReuse, local_trees, plan_reuse
from peer.files.errors import ContentChanged
from peer.files.local_trees import LocalTree
from peer.files.partial_content import PartialContent
from peer.serving.inventory import Reader

log = logging.getLogger(__name__)


class LocalPieces(NamedTuple):
    """Pieces of one download that this device has.

    ``is_copied``: a whole copy gave them, as far as it could. ``planned_reuse``: others that local
    files may hold; None if there are no such files.
    """

    held: tuple[int, ...] = ()
    is_copied: bool = False
    planned_reuse: PlannedReuse | None = None


async def take_local(
    services: DownloadServices, job: DownloadJob, decoded: Manifest, part: PartialContent
) -> LocalPieces:
    """Copy a whole copy on this device, or learn which pieces its other files may hold."""
    served = services.inventory.get(job.content)
    if served is not None and served.have is None:
        await _copy(services, job, part, served.reader)
        return LocalPieces(tuple(part.held_indexes()), is_copied=True)
    if part.is_complete:
        return LocalPieces()
    trees = local_trees(job.record, decoded.size, services.shares.open_in(job.group))
    planned_reuse = await _plan_reuse(decoded, trees, job.record.name) if trees else None
    if planned_reuse is None:
        return LocalPieces()
    # Before a restart such pieces were taken from there as well.
    return LocalPieces(tuple(filter(part.has, planned_reuse.pieces)), planned_reuse=planned_reuse)


async def _copy(
    services: DownloadServices, job: DownloadJob, part: PartialContent, copy: Reader
) -> None:
    """Copy every piece from a whole copy. It waits while the user pauses the download."""
    ended = threading.Event()
    pieces = range(part.manifest.piece_count) if part.wanted is None else part.wanted

    def may_go_on() -> bool:
        return not job.by_user and not ended.is_set()

    try:
        while not await asyncio.to_thread(copy_missing, part, pieces, copy, may_go_on):
            await job.until_resumed()
    except ContentChanged as error:
        log.info("the copy on this device was changed: %s", error)
        services.inventory.changed(job.content)
    except (StorageError, IntegrityError) as error:
        log.info("the copy on this device could not be used: %s", error)
    finally:
        ended.set()


async def _plan_reuse(decoded: Manifest, trees: list[LocalTree], name: str) -> PlannedReuse | None:
    ended = threading.Event()
    looking = partial(plan_reuse, decoded, trees, name, ended.is_set)
    try:
        return await asyncio.to_thread(looking)
    except Exception:
        log.exception("no pieces are looked for on this device")
        return None
    finally:
        ended.set()


def copy_missing(
    part: PartialContent,
    pieces: Iterable[int],
    copy: Reader,
    may_go_on: Callable[[], bool],
) -> bool:
    """Copy those of ``pieces`` that ``part`` lacks; return False if ``may_go_on`` ended it early.

    Raises `StorageError`, or `IntegrityError` if the copy is damaged.
    """
    unsynced_bytes = 0
    for index in pieces:
        if not may_go_on():
            return False
        if not part.has(index):
            data = copy.read_run(index, 1)
            part.write_piece(index, data)
            unsynced_bytes += len(data)
        if unsynced_bytes >= CHECKPOINT_BYTES:
            part.checkpoint()
            unsynced_bytes = 0
    return True
