"""Reuse of local files by one transfer: pieces are looked for on this device, beside the fetching.

Owns: the local files of a download, and the delivery of results from the threads. Not here: reading
and verifying (see peer.files.piece_reuse) and what becomes of a piece that was not found (see
peer.swarm.fetching.local_pieces).

Invariant: of the shares of this device only those of the download's own group are read. Why: a held
piece is announced and served to the group, whose members could find out by their own manifests what
this device has elsewhere.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from common.errors import StorageError
from common.limits import MIB
from common.manifest import Manifest
from common.names import fold_name, quoted
from peer.downloads.pause import UserPause
from peer.downloads.piece_writer import STORAGE_RETRY_S
from peer.files.errors import TransientStorageError, Unreadable
from peer.files.local_trees import LocalTree
from peer.files.partial_content import PartialContent
from peer.files.paths import kind_of
from peer.files.piece_reuse import PieceReuse
from peer.files.reuse_plan import ReusePlan, find
from peer.records import DownloadRecord, ShareRecord

log = logging.getLogger(__name__)

SHARES_MAX = 64  # other shares of the group whose pieces are compared by digest
OTHERS_FROM_BYTES = 4 * MIB  # smaller contents are compared with earlier versions alone


class PlannedReuse(NamedTuple):
    """Pieces to look for on this device, and where."""

    plan: ReusePlan
    pieces: list[int]


def real_paths(paths: Sequence[str]) -> list[bytes]:
    """The real paths of files and folders that the user named. Raises `Unreadable`; blocks."""
    return [os.fsencode(_real_path(path)) for path in paths]


def _real_path(path: str) -> str:
    real = os.path.realpath(path)
    try:
        status = os.stat(real)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
    else:
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            reason = f"it is {kind_of(status)}"
        elif not os.access(real, os.R_OK):
            reason = os.strerror(errno.EACCES)
        else:
            return real
    raise Unreadable(
        f"cannot reuse {quoted(path)}: {reason}", "name a file or folder that can be read"
    )


def local_trees(
    record: DownloadRecord, size: int, shares: Iterable[tuple[ShareRecord, Manifest]]
) -> list[LocalTree]:
    """The trees to look through for a download of ``size`` bytes, most likely first.

    ``shares`` are the open shares of the download's group.
    """
    versions: list[LocalTree] = []
    others: list[LocalTree] = []
    name = fold_name(record.name)
    for share, manifest in shares:
        is_version = fold_name(share.name) == name or share.place.root == record.path
        tree = LocalTree(share.place.path, manifest, by_path=is_version)
        (versions if is_version else others).append(tree)
    if size < OTHERS_FROM_BYTES:
        others = []
    replaced = os.fsdecode(record.path)
    if record.replaces is not None and all(tree.root != replaced for tree in versions):
        versions.append(LocalTree(replaced))
    named = [LocalTree(os.fsdecode(path)) for path in record.reuse]
    return [*versions, *named, *others[:SHARES_MAX]]


def plan_reuse(
    manifest: Manifest, trees: Sequence[LocalTree], name: str, cancelled: Callable[[], bool]
) -> PlannedReuse:
    """The pieces that ``trees`` may hold. Blocks; raises `Cancelled`."""
    plan = find(manifest, trees, name, cancelled)
    return PlannedReuse(plan, plan.pieces())


class ReuseCallbacks(Protocol):
    """The transfer, as the reuse of its pieces uses it. Called in the event loop."""

    def on_reused(self, found: tuple[int, ...], missing: tuple[int, ...]) -> None:
        """Take note that ``found`` are verified and written; no local file gave ``missing``."""

    def on_reuse_failed(self, error: StorageError) -> None:
        """The disk takes nothing, for now or for good."""


class ReuseRun:
    """Reuse of the pieces of ``wanted``, which a plan may give."""

    def __init__(
        self,
        part: PartialContent,
        plan: ReusePlan,
        wanted: Iterable[int],
        pause: UserPause,
        callbacks: ReuseCallbacks,
    ) -> None:
        self._part = part
        self._plan = plan
        self._left = dict.fromkeys(wanted)
        self._pause = pause
        self._callbacks = callbacks
        self._closed = False
        self._reports: deque[tuple[int, bool]] = deque()
        self._woken = False
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    @property
    def active(self) -> bool:
        """Whether pieces are still looked for."""
        return bool(self._left)

    def start(self) -> None:
        """Begin, on threads of its own."""
        if self._left:
            self._task = asyncio.create_task(self._run(), name="reuse")

    def close(self) -> None:
        """Report nothing more. The threads end with the pieces that they work on."""
        self._closed = True

    async def _run(self) -> None:
        reuse = PieceReuse(self._part, self._plan)
        try:
            while self._left and not self._closed:
                await self._pause.until_resumed()
                try:
                    await asyncio.to_thread(
                        reuse.run, tuple(self._left), self._may_go_on, self._report
                    )
                except StorageError as error:
                    if self._closed:
                        return
                    self._callbacks.on_reuse_failed(error)
                    if not isinstance(error, TransientStorageError):
                        return
                    await asyncio.sleep(STORAGE_RETRY_S)
        except Exception:
            log.exception("pieces on this device could not be looked for")
            self._reports.extend((index, False) for index in self._left)
            self._deliver()
        finally:
            reuse.close()

    def _may_go_on(self) -> bool:
        return not self._pause.by_user and not self._closed

    def _report(self, index: int, held: bool) -> None:
        self._reports.append((index, held))
        if not self._woken:  # one wake-up of the loop takes all that is there by then
            self._woken = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False
        found: list[int] = []
        missing: list[int] = []
        while self._reports:
            index, held = self._reports.popleft()
            (found if held else missing).append(index)
            self._left.pop(index, None)
        if not self._closed:
            self._callbacks.on_reused(tuple(found), tuple(missing))
