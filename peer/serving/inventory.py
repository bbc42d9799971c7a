"""What this peer can serve right now, and in which groups.

Owns, for each content, the reader of its pieces, which of them it holds, and the groups in which it
is offered. Complete shares and running downloads stand here side by side; when a download is done
its reader is exchanged and nobody who fetches notices. Who may fetch is ``peer.serving.access``',
in which order is ``peer.swarm.serving.machine``'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from common.digests import Buffer
from common.ids import ContentId, GroupId
from common.manifest import Manifest
from common.messages.refusals import Code, Refusal
from peer.swarm.pieces import Bitfield

NOT_OFFERED = Refusal(Code.UNKNOWN_SHARE, "nothing of that kind is shared here in that group")


class Reader(Protocol):
    """Where pieces are read from; called on worker threads."""

    def read_run(self, first: int, count: int) -> Buffer:
        """The bytes of ``count`` held pieces from ``first`` on. Raises `StorageError`."""


@dataclass(slots=True)
class ServedContent:
    """One content on the shelf. ``have`` is None when it is complete."""

    content: ContentId
    manifest: Manifest
    encoded: bytes
    reader: Reader
    have: Bitfield | None
    groups: set[GroupId] = field(default_factory=set)
    on_damaged: Callable[[tuple[int, ...]], None] | None = None
    """Who fetches pieces of an incomplete content again when they turn out damaged."""


class ShelfListener(Protocol):
    """Who is told of what comes and goes: the serving side."""

    def content_added(self, served: ServedContent) -> None:
        """``served`` may be fetched from here on."""

    def content_removed(self, content: ContentId, refusal: Refusal) -> None:
        """``content`` is served no more; ``refusal`` is what its requesters are told."""

    def group_removed(self, content: ContentId, group: GroupId) -> None:
        """``content`` is served no more by right of ``group``."""

    def held_more(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        """These pieces were verified."""

    def announce(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        """Tell those who fetch that these pieces are held."""

    def held_less(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        """These pieces were found damaged."""


class Inventory:
    """The contents that can be served, by id."""

    def __init__(self) -> None:
        self._served: dict[ContentId, ServedContent] = {}
        self._listener: ShelfListener | None = None
        self.on_changed: Callable[[ContentId], None] | None = None
        """Called when a file turned out to be something else than what was shared."""

    def attach(self, listener: ShelfListener) -> None:
        """The one listener; made after the shelf, since it reads from it."""
        self._listener = listener

    def __len__(self) -> int:
        return len(self._served)

    def get(self, content: ContentId) -> ServedContent | None:
        """The content, in whatever group it is offered."""
        return self._served.get(content)

    def find(self, group: GroupId, content: ContentId) -> ServedContent | None:
        """The content, if it is offered in ``group``."""
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

    # A content may be fetched to two places at once; the part of one of them is served. Whoever
    # tells of pieces says of which reader.

    def _part(self, content: ContentId, reader: Reader) -> ServedContent | None:
        served = self._served.get(content)
        mine = served is not None and served.have is not None and served.reader is reader
        return served if mine else None

    def held_more(self, content: ContentId, pieces: tuple[int, ...], reader: Reader) -> None:
        """Pieces of an incomplete content were verified: they are served from this moment."""
        served = self._part(content, reader)
        if served is not None and served.have is not None:
            for index in pieces:
                served.have.add(index)
            if self._listener is not None:
                self._listener.held_more(content, pieces)

    def announce(self, content: ContentId, pieces: tuple[int, ...], reader: Reader) -> None:
        """Let those who fetch know of pieces that were verified."""
        served = self._served.get(content)
        if served is not None and served.reader is reader and self._listener is not None:
            self._listener.announce(content, pieces)

    def held_less(self, content: ContentId, pieces: tuple[int, ...], reader: Reader) -> None:
        """Pieces of an incomplete content were found damaged."""
        served = self._part(content, reader)
        if served is not None and served.have is not None:
            for index in pieces:
                served.have.discard(index)
            if self._listener is not None:
                self._listener.held_less(content, pieces)

    def withdraw(self, group: GroupId, content: ContentId) -> None:
        """Offer ``content`` in ``group`` no more."""
        served = self._served.get(content)
        if served is None or group not in served.groups:
            return
        served.groups.discard(group)
        if not served.groups:
            self.remove(content, NOT_OFFERED)
        elif self._listener is not None:
            self._listener.group_removed(content, group)

    def withdraw_part(self, content: ContentId, reader: Reader) -> None:
        """Offer ``content`` no more, if it is this part of it that is offered."""
        if self._part(content, reader) is not None:
            self.remove(content, NOT_OFFERED)

    def damaged(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        """A read found pieces damaged that were held."""
        served = self._served.get(content)
        if served is not None and served.on_damaged is not None:
            served.on_damaged(pieces)

    def remove(self, content: ContentId, refusal: Refusal = NOT_OFFERED) -> None:
        """Serve ``content`` to nobody any more."""
        if self._served.pop(content, None) is not None and self._listener is not None:
            self._listener.content_removed(content, refusal)

    def clear(self) -> None:
        """Serve nothing."""
        for content in list(self._served):
            self.remove(content)

    def changed(self, content: ContentId) -> None:
        """A read found that the files are not what was shared: not one byte more of them leaves
        until somebody has looked."""
        refusal = Refusal(Code.CHANGED, "the shared files were changed on the device that has them")
        self.remove(content, refusal)
        if self.on_changed is not None:
            self.on_changed(content)
