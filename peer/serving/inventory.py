"""Inventory of served contents: complete shares and active downloads alike.

Owns: the reader of each content, its held pieces, and the groups in which it is offered. When a
download is complete its reader is replaced, and clients do not notice. Not here: the right to fetch
(see ``peer.serving.access``); the order of serving (see ``peer.swarm.serving.machine``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from common.digests import Buffer
from common.ids import ContentId, GroupId
from common.manifest import Manifest
from common.messages.base import Refusal
from common.messages.refusals import Code
from peer.swarm.pieces import Bitfield

NOT_OFFERED = Refusal(Code.UNKNOWN_SHARE, "this device does not offer that content in that group")


class Reader(Protocol):
    """Source of pieces. Thread safety: called on worker threads."""

    def read_run(self, first: int, count: int) -> Buffer:
        """Return ``count`` held pieces from ``first`` on. Raises `StorageError`."""


@dataclass(slots=True)
class ServedContent:
    """One content of the inventory. ``have`` is None when it is complete."""

    content: ContentId
    manifest: Manifest
    encoded: bytes
    reader: Reader
    have: Bitfield | None
    groups: set[GroupId] = field(default_factory=set)
    on_damaged: Callable[[tuple[int, ...]], None] | None = None
    """Called with damaged pieces of an incomplete content, which must be fetched again."""


class InventoryListener(Protocol):
    """Callbacks for changes of the inventory."""

    def content_added(self, served: ServedContent) -> None:
        """Take note that ``served`` can be fetched from now on."""

    def content_removed(self, content: ContentId, refusal: Refusal) -> None:
        """Take note that ``content`` is no longer served; ``refusal`` is the reason for its
        clients."""

    def group_removed(self, content: ContentId, group: GroupId) -> None:
        """Take note that ``content`` is no longer served by the right of ``group``."""

    def held_more(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        """These pieces can be served."""

    def announce(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        """Report to clients that these pieces are held."""

    def held_less(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        """These pieces cannot be served."""


class Inventory:
    """The contents that can be served, by id."""

    def __init__(self) -> None:
        self._served: dict[ContentId, ServedContent] = {}
        self._listener: InventoryListener | None = None
        self.on_changed: Callable[[ContentId], None] | None = None
        """Called when the files of a content are not the shared ones any longer."""
        self.on_held: dict[ContentId, set[Callable[[], None]]] = {}
        """Calls when this device holds more of a content: one for each reader of it."""

    def attach(self, listener: InventoryListener) -> None:
        """Set the only listener. It is made after the inventory, from which it reads."""
        self._listener = listener

    def __len__(self) -> int:
        return len(self._served)

    def get(self, content: ContentId) -> ServedContent | None:
        """Return a content, in any group."""
        return self._served.get(content)

    def find(self, group: GroupId, content: ContentId) -> ServedContent | None:
        """Return a content, if it is offered in ``group``."""
        served = self._served.get(content)
        return served if served is not None and group in served.groups else None

    def put(
        self,
        group: GroupId,
        content: ContentId,
        manifest: Manifest,
        encoded: bytes,
        reader: Reader,
        have: Bitfield | None,
        on_damaged: Callable[[tuple[int, ...]], None] | None = None,
    ) -> None:
        """Offer ``content`` in ``group``. A complete reader replaces an incomplete one."""
        served = self._served.get(content)
        if served is None:
            served = ServedContent(content, manifest, encoded, reader, have, on_damaged=on_damaged)
            self._served[content] = served
            if self._listener is not None:
                self._listener.content_added(served)
        elif served.have is not None and have is None:
            held = served.have
            served.reader, served.have, served.on_damaged = reader, None, None
            rest = tuple(held.missing())
            if rest and self._listener is not None:
                self._listener.held_more(content, rest)
                self._listener.announce(content, rest)
        served.groups.add(group)
        self._notify(content)

    def _notify(self, content: ContentId) -> None:
        for notify in self.on_held.get(content, ()):
            notify()

    # A content may be fetched to two places at once; the part of one of them is served. So each
    # report about pieces names its reader.

    def _part(self, content: ContentId, reader: Reader) -> ServedContent | None:
        served = self._served.get(content)
        mine = served is not None and served.have is not None and served.reader is reader
        return served if mine else None

    def held_more(self, content: ContentId, pieces: tuple[int, ...], reader: Reader) -> None:
        """Serve verified pieces of an incomplete content from now on."""
        self._notify(content)
        served = self._part(content, reader)
        if served is not None and served.have is not None:
            for index in pieces:
                served.have.add(index)
            if self._listener is not None:
                self._listener.held_more(content, pieces)

    def announce(self, content: ContentId, pieces: tuple[int, ...], reader: Reader) -> None:
        """Report verified pieces to clients."""
        served = self._served.get(content)
        if served is not None and served.reader is reader and self._listener is not None:
            self._listener.announce(content, pieces)

    def held_less(self, content: ContentId, pieces: tuple[int, ...], reader: Reader) -> None:
        """Stop serving damaged pieces of an incomplete content."""
        served = self._part(content, reader)
        if served is not None and served.have is not None:
            for index in pieces:
                served.have.discard(index)
            if self._listener is not None:
                self._listener.held_less(content, pieces)

    def suspend(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        """Stop serving pieces that cannot be read, until `resume`. They still count as held."""
        if self._listener is not None:
            self._listener.held_less(content, pieces)

    def resume(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        """Serve suspended pieces again, and report them to clients."""
        if self._listener is not None:
            self._listener.held_more(content, pieces)
            self._listener.announce(content, pieces)

    def withdraw(self, group: GroupId, content: ContentId) -> None:
        """Stop offering ``content`` in ``group``."""
        served = self._served.get(content)
        if served is None or group not in served.groups:
            return
        served.groups.discard(group)
        if not served.groups:
            self.remove(content, NOT_OFFERED)
        elif self._listener is not None:
            self._listener.group_removed(content, group)

    def withdraw_part(self, content: ContentId, reader: Reader) -> None:
        """Stop offering ``content``, if ``reader`` is the part of it that is served."""
        if self._part(content, reader) is not None:
            self.remove(content, NOT_OFFERED)

    def damaged(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        """Report held pieces that a read found damaged."""
        served = self._served.get(content)
        if served is not None and served.on_damaged is not None:
            served.on_damaged(pieces)

    def remove(self, content: ContentId, refusal: Refusal = NOT_OFFERED) -> None:
        """Stop serving ``content``."""
        if self._served.pop(content, None) is not None and self._listener is not None:
            self._listener.content_removed(content, refusal)

    def clear(self) -> None:
        """Serve nothing."""
        for content in list(self._served):
            self.remove(content)

    def changed(self, content: ContentId) -> None:
        """Stop serving ``content``: a read found that its files are not the shared ones.

        Invariant: no byte of them is sent until they have been checked.
        """
        refusal = Refusal(Code.CHANGED, "the shared files changed on the device that offers them")
        self.remove(content, refusal)
        if self.on_changed is not None:
            self.on_changed(content)
