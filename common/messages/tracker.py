"""The conversation between a device and the tracker's command socket.

Who asks is never a field: it is the public key of the connection. Every command may be repeated
after a lost reply and then succeeds again. Listings come in pages: ``after`` is the last key of the
page before, ``more`` says that there is a next one.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from common import limits
from common.messages.base import (
    Count,
    Digest,
    Endpoint,
    IdText,
    Key32,
    Password,
    ShareName,
    Source,
    TimeMs,
    Token,
    Topic,
)
from common.messages.events import LogEntry
from common.messages.refusals import Refusal

Instance = Annotated[bytes, Meta(max_length=16)]
PageKey = Annotated[str, Meta(max_length=255)]
PAGE_ROWS = 500  # rows in one page: well below the message limit with the longest names


class _Wire(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of what travels here: an array that begins with the name of its type."""


# -- who is there -------------------------------------------------------------------------------


class Hello(_Wire, frozen=True):
    """The first command on a connection. ``software`` is for the tracker's log; ``instance`` tells
    apart two machines with one key (`Announce`)."""

    software: Annotated[str, Meta(max_length=64)] = ""
    instance: Instance = b""


class Welcome(_Wire, frozen=True):
    """``verify_keys``: Ed25519 keys of which any may have signed a ticket (rotation overlaps).

    ``events``: where the PUB socket listens; a host of ``*`` stands for the host that the asker
    reached the tracker by. ``inbox`` and ``inbox_key``: a topic and a key for this device alone.
    ``seen_at``: the address that the connection comes from, empty on ipc. ``networked``: whether
    other machines than the tracker's own can reach it.
    """

    tracker_id: Annotated[bytes, Meta(min_length=16, max_length=16)]
    verify_keys: Annotated[list[Key32], Meta(min_length=1, max_length=8)]
    events: Endpoint
    time_ms: TimeMs
    user: IdText | None
    inbox: Topic
    inbox_key: Key32
    seen_at: Annotated[str, Meta(max_length=64)] = ""
    networked: bool = False


class CreateUser(_Wire, frozen=True):
    user: IdText
    password: Password


class Login(_Wire, frozen=True):
    """Bind this connection's device to ``user`` until `Logout`."""

    user: IdText
    password: Password


class LoggedIn(_Wire, frozen=True):
    user: IdText


class Logout(_Wire, frozen=True):
    pass


class ChangePassword(_Wire, frozen=True):
    """Another password for the asker's user, who must know the old one. Every other device of
    theirs is logged out, unless ``keep_devices``."""

    old: Password
    new: Password
    keep_devices: bool = False


class PasswordChanged(_Wire, frozen=True):
    """``logged_out``: how many other devices were."""

    logged_out: Count


class ListDevices(_Wire, frozen=True):
    """The devices on which the asker's user is logged in. ``after``: hex key."""

    after: PageKey = ""


class OwnDevice(msgspec.Struct, frozen=True, array_like=True):
    """``bound_ms``: when it logged in; ``seen_ms``: when the tracker last heard of it, which for a
    device that is offline may be up to an hour too early; ``endpoint``: where it serves, while it
    is online."""

    device: Key32
    bound_ms: TimeMs
    seen_ms: TimeMs
    online: bool = False
    endpoint: Endpoint | None = None


class OwnDevices(_Wire, frozen=True):
    rows: Annotated[list[OwnDevice], Meta(max_length=PAGE_ROWS)]
    more: bool = False


class ForgetDevice(_Wire, frozen=True):
    """Log ``device`` out, which is one of the asker's user; perhaps the asker itself."""

    device: Key32


class Done(_Wire, frozen=True):
    """It is done, or had been done before."""


# -- groups -------------------------------------------------------------------------------------


class CreateGroup(_Wire, frozen=True):
    group: IdText


class JoinGroup(_Wire, frozen=True):
    group: IdText


class LeaveGroup(_Wire, frozen=True):
    group: IdText


class ListGroups(_Wire, frozen=True):
    after: PageKey = ""


class GroupRow(msgspec.Struct, frozen=True, array_like=True):
    """``role``: owner, member, pending or none."""

    group: IdText
    owner: IdText
    members: Count
    role: str


class GroupRows(_Wire, frozen=True):
    rows: Annotated[list[GroupRow], Meta(max_length=PAGE_ROWS)]
    more: bool = False


class ListRequests(_Wire, frozen=True):
    group: IdText
    after: PageKey = ""


class ListMembers(_Wire, frozen=True):
    group: IdText
    after: PageKey = ""


class UserRow(msgspec.Struct, frozen=True, array_like=True):
    """``role``: owner, member or pending; ``since_ms``: when they joined or asked;
    ``online``: devices of theirs that the tracker believes online."""

    user: IdText
    role: str
    since_ms: TimeMs
    online: Count = 0


class UserRows(_Wire, frozen=True):
    rows: Annotated[list[UserRow], Meta(max_length=PAGE_ROWS)]
    more: bool = False


class AcceptRequest(_Wire, frozen=True):
    group: IdText
    user: IdText


class RejectRequest(_Wire, frozen=True):
    group: IdText
    user: IdText


class RemoveMember(_Wire, frozen=True):
    group: IdText
    user: IdText


# -- shares -------------------------------------------------------------------------------------


class Offer(_Wire, frozen=True):
    """This device holds all of ``content`` and offers it in ``group`` as ``name``.

    Refused with ``need-manifest`` when the tracker has not got the manifest; `PutManifest` it and
    offer again. Refused with ``taken`` when another content bears that name.
    """

    group: IdText
    name: ShareName
    content: Key32


class PutManifest(_Wire, frozen=True):
    """One part of an encoded manifest; its bytes are the data frame. Parts come in order."""

    content: Key32
    total_bytes: Annotated[int, Meta(ge=1, le=limits.MANIFEST_BYTES_MAX)]
    offset: Count


class FileRow(msgspec.Struct, frozen=True, array_like=True):
    name: ShareName
    content: Key32
    size: Count
    files: Count
    pieces: Count
    piece_length: Count
    algorithm: Annotated[str, Meta(max_length=16)]
    digest: Digest
    seeders: Count
    leechers: Count
    shared_by: Annotated[list[IdText], Meta(max_length=64)]


class Offered(_Wire, frozen=True):
    """``joined``: others offered the same content before."""

    row: FileRow
    joined: bool


class StopShare(_Wire, frozen=True):
    """This device offers ``name`` in ``group`` no more."""

    group: IdText
    name: ShareName


class MyOffers(_Wire, frozen=True):
    """What does the tracker believe that this device offers? ``after``: ``group/name``."""

    after: Annotated[str, Meta(max_length=400)] = ""


class OfferRow(msgspec.Struct, frozen=True, array_like=True):
    group: IdText
    name: ShareName
    content: Key32


class OfferRows(_Wire, frozen=True):
    rows: Annotated[list[OfferRow], Meta(max_length=PAGE_ROWS)]
    more: bool = False


class ListFiles(_Wire, frozen=True):
    group: IdText
    after: PageKey = ""


class FileRows(_Wire, frozen=True):
    rows: Annotated[list[FileRow], Meta(max_length=PAGE_ROWS)]
    more: bool = False


class FindShare(_Wire, frozen=True):
    group: IdText
    name: ShareName


class ShareFound(_Wire, frozen=True):
    """``topic``: where changes of this share's peer set are published."""

    row: FileRow
    topic: Topic
    manifest_bytes: Count
    sources: Annotated[list[Source], Meta(max_length=limits.SOURCES_MAX)]


class GetSources(_Wire, frozen=True):
    group: IdText
    content: Key32


class Sources(_Wire, frozen=True):
    sources: Annotated[list[Source], Meta(max_length=limits.SOURCES_MAX)]


class GetManifest(_Wire, frozen=True):
    group: IdText
    content: Key32
    offset: Count = 0


class ManifestPart(_Wire, frozen=True):
    """Up to ``limits.MANIFEST_PART_BYTES`` from ``offset``, as the data frame."""

    total_bytes: Count
    offset: Count


# -- presence -----------------------------------------------------------------------------------


class Leeching(msgspec.Struct, frozen=True, array_like=True):
    """This device fetches ``content`` and serves the ``held`` pieces of it that it has."""

    group: IdText
    content: Key32
    held: Count


class Announce(_Wire, frozen=True):
    """This device is online for another lease and answers at ``endpoint``.

    A host of ``*`` in the endpoint stands for the address that the tracker sees the device at.
    ``leeching`` replaces what was announced before. Offered contents need no mention: being online
    is what makes an offer a seeder. ``instance`` stays the same over restarts of a peer on one
    machine, and differs on a copy of that machine.
    """

    endpoint: Endpoint
    leeching: Annotated[list[Leeching], Meta(max_length=1000)] = []
    instance: Instance = b""


class ProbeMe(_Wire, frozen=True):
    """Try whether this device answers where it is announced, from where the tracker is."""


class Probed(_Wire, frozen=True):
    """``endpoint``: what was tried; ``answered``: whether the device with the asker's key did."""

    endpoint: Endpoint
    answered: bool


class Head(msgspec.Struct, frozen=True, array_like=True):
    """How far a group's log has come, so that a subscriber notices what it missed."""

    group: IdText
    seq: Count
    epoch: Count


class Announced(_Wire, frozen=True):
    lease_s: float
    time_ms: TimeMs
    heads: list[Head]


class Depart(_Wire, frozen=True):
    """This device goes offline in order."""


# -- rights and events --------------------------------------------------------------------------


class GetTickets(_Wire, frozen=True):
    """Tickets for these groups of the asker's user; for all of them when the list is empty."""

    groups: Annotated[list[IdText], Meta(max_length=1000)] = []


class TicketRow(msgspec.Struct, frozen=True, array_like=True):
    group: IdText
    token: Token
    expires_ms: TimeMs


class Tickets(_Wire, frozen=True):
    rows: list[TicketRow]
    time_ms: TimeMs


class Follow(_Wire, frozen=True):
    """All that a member needs to follow its groups' events."""


class GroupState(msgspec.Struct, frozen=True, array_like=True):
    """``topic``: where the events are published; ``key``: opens them while ``epoch`` lasts;
    ``seq``: the head of the log that this state includes. ``revoked``: who lost the right to
    fetch within the last ticket's life, with the epoch from which on their tickets count
    again (had they been let in once more)."""

    group: IdText
    owner: IdText
    epoch: Count
    topic: Topic
    key: Key32
    seq: Count
    revoked: list[tuple[IdText, Count]] = []


class Following(_Wire, frozen=True):
    """``pending``: the groups that the user asked to join, unanswered so far;
    ``requests``: how many ask to join each group that the user owns."""

    groups: list[GroupState]
    time_ms: TimeMs
    pending: list[IdText] = []
    requests: list[tuple[IdText, Count]] = []


class GetDevices(_Wire, frozen=True):
    """The devices of the members of a group: whom a serving peer lets in. ``after``: hex key."""

    group: IdText
    after: PageKey = ""


class DeviceRow(msgspec.Struct, frozen=True, array_like=True):
    device: Key32
    user: IdText


class DeviceRows(_Wire, frozen=True):
    """``seq``: the head of the group's log when this page was made."""

    rows: Annotated[list[DeviceRow], Meta(max_length=PAGE_ROWS)]
    seq: Count
    more: bool = False


class EventsSince(_Wire, frozen=True):
    """The group's events after ``seq``, oldest first, at most ``PAGE_ROWS``.

    The log of a group keeps its latest entries alone: who is further behind gets a snapshot.
    """

    group: IdText
    seq: Count


class Events(_Wire, frozen=True):
    """``snapshot``: the group as of ``head``, if ``entries`` do not begin with the next one that
    was asked for, since those between are no longer kept."""

    entries: Annotated[list[LogEntry], Meta(max_length=PAGE_ROWS)]
    head: Count
    snapshot: GroupState | None = None


Command: TypeAlias = (
    Hello
    | CreateUser
    | Login
    | Logout
    | ChangePassword
    | ListDevices
    | ForgetDevice
    | CreateGroup
    | JoinGroup
    | LeaveGroup
    | ListGroups
    | ListRequests
    | ListMembers
    | AcceptRequest
    | RejectRequest
    | RemoveMember
    | Offer
    | PutManifest
    | StopShare
    | MyOffers
    | ListFiles
    | FindShare
    | GetSources
    | GetManifest
    | Announce
    | Depart
    | GetTickets
    | Follow
    | GetDevices
    | EventsSince
    | ProbeMe
)

Reply: TypeAlias = (
    Refusal
    | Done
    | Welcome
    | LoggedIn
    | PasswordChanged
    | OwnDevices
    | GroupRows
    | UserRows
    | Offered
    | OfferRows
    | FileRows
    | ShareFound
    | Sources
    | ManifestPart
    | Announced
    | Tickets
    | Following
    | DeviceRows
    | Events
    | Probed
)
