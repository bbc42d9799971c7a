"""Messages between a device and the tracker's command socket.

The sender is no field of a message: it is the public key of the connection. Each command may be
repeated after a lost reply, and then succeeds again. Listings come in pages: ``after`` is the last
key of the page before; ``more`` says that another page follows.
"""

from __future__ import annotations

from enum import StrEnum
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
    Refusal,
    ShareName,
    Source,
    TimeMs,
    Token,
    Topic,
    Version,
    Wire,
)
from common.messages.events import LogEntry

Instance = Annotated[bytes, Meta(max_length=16)]
PageKey = Annotated[str, Meta(max_length=255)]
PAGE_ROWS = 500  # rows in one page: well below the message limit with the longest names


# -- accounts and devices -----------------------------------------------------------------------


class Hello(Wire, frozen=True):
    """First command on a connection.

    ``software`` is for the tracker's log. ``instance`` tells apart two machines with one key, as in
    `Announce`.
    """

    software: Annotated[str, Meta(max_length=64)] = ""
    instance: Instance = b""


class Welcome(Wire, frozen=True):
    """Reply to `Hello`.

    ``verify_keys``: Ed25519 keys; any of them may have signed a ticket (rotation overlaps).
    ``events``: endpoint of the PUB socket; a host of ``*`` stands for the host by which the device
    reached the tracker. ``inbox`` and ``inbox_key``: topic and key for this device only.
    ``seen_at``: address of the connection, empty on ipc. ``networked``: other machines than the
    tracker's can reach it. ``trackers``: endpoints of all trackers with this key; empty if there
    are no others.
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
    trackers: Annotated[list[Endpoint], Meta(max_length=limits.TRACKER_ADDRESSES_MAX)] = (
        msgspec.field(default_factory=list)
    )


class CreateUser(Wire, frozen=True):
    user: IdText
    password: Password


class Login(Wire, frozen=True):
    """Bind this connection's device to ``user`` until `Logout`."""

    user: IdText
    password: Password


class LoggedIn(Wire, frozen=True):
    user: IdText


class Logout(Wire, frozen=True):
    pass


class ChangePassword(Wire, frozen=True):
    """Replace the password of the caller's user, given the old one.

    All other devices of the user are logged out, unless ``keep_devices``.
    """

    old: Password
    new: Password
    keep_devices: bool = False


class PasswordChanged(Wire, frozen=True):
    """Answer to `ChangePassword`. ``logged_out``: number of other devices that were logged out."""

    logged_out: Count


class ListDevices(Wire, frozen=True):
    """List the devices on which the caller's user is logged in. ``after``: hex key."""

    after: PageKey = ""


class OwnDevice(msgspec.Struct, frozen=True, array_like=True):
    """Device on which a user is logged in.

    ``bound_ms``: time of its login. ``seen_ms``: time of its last announcement; for an offline
    device it may be up to an hour too early. ``endpoint``: where it serves, while it is online.
    """

    device: Key32
    bound_ms: TimeMs
    seen_ms: TimeMs
    online: bool = False
    endpoint: Endpoint | None = None


class OwnDevices(Wire, frozen=True):
    rows: Annotated[list[OwnDevice], Meta(max_length=PAGE_ROWS)]
    more: bool = False


class ForgetDevice(Wire, frozen=True):
    """Log out ``device`` of the caller's user, which may be the caller itself."""

    device: Key32


class Done(Wire, frozen=True):
    """The command is done, or had been done before."""


# -- groups -------------------------------------------------------------------------------------


class CreateGroup(Wire, frozen=True):
    group: IdText


class JoinGroup(Wire, frozen=True):
    group: IdText


class LeaveGroup(Wire, frozen=True):
    group: IdText


class ListGroups(Wire, frozen=True):
    after: PageKey = ""


class GroupRow(msgspec.Struct, frozen=True, array_like=True):
    """Group in a list. ``role``: owner, member, pending or none."""

    group: IdText
    owner: IdText
    members: Count
    role: str


class GroupRows(Wire, frozen=True):
    rows: Annotated[list[GroupRow], Meta(max_length=PAGE_ROWS)]
    more: bool = False


class ListRequests(Wire, frozen=True):
    group: IdText
    after: PageKey = ""


class ListMembers(Wire, frozen=True):
    group: IdText
    after: PageKey = ""


class UserRow(msgspec.Struct, frozen=True, array_like=True):
    """User in a group.

    ``role``: owner, member or pending. ``since_ms``: time of joining or of the request.
    ``online``, ``follows``: numbers of the user's devices that are online, and that follow the
    group.
    """

    user: IdText
    role: str
    since_ms: TimeMs
    online: Count = 0
    follows: Count = 0


class UserRows(Wire, frozen=True):
    rows: Annotated[list[UserRow], Meta(max_length=PAGE_ROWS)]
    more: bool = False


class AcceptRequest(Wire, frozen=True):
    group: IdText
    user: IdText


class RejectRequest(Wire, frozen=True):
    group: IdText
    user: IdText


class RemoveMember(Wire, frozen=True):
    group: IdText
    user: IdText


# -- invitations --------------------------------------------------------------------------------


class Invite(Wire, frozen=True):
    """Make an invitation to ``group``; for its owner.

    ``key``: the hash under which the tracker keeps it (``common.invitation``). A repetition with
    the same key makes no second one.
    """

    group: IdText
    key: Key32
    uses: Annotated[int, Meta(ge=1, le=limits.INVITATION_USES_MAX)] = 1
    life_s: Annotated[int, Meta(ge=limits.INVITATION_S_MIN, le=limits.INVITATION_S_MAX)] = (
        limits.INVITATION_S
    )


class InvitationRow(msgspec.Struct, frozen=True, array_like=True):
    """Invitation in a list. ``user``: its maker. ``used``: how many of its ``uses`` are taken."""

    id: IdText
    user: IdText
    made_ms: TimeMs
    expires_ms: TimeMs
    uses: Count
    used: Count


class Invited(Wire, frozen=True):
    """Reply to `Invite`. ``endpoint``: where the tracker's own link says that it is."""

    row: InvitationRow
    endpoint: Endpoint


class ListInvitations(Wire, frozen=True):
    """List the invitations of a group; for its owner. ``after``: an id."""

    group: IdText
    after: PageKey = ""


class InvitationRows(Wire, frozen=True):
    rows: Annotated[list[InvitationRow], Meta(max_length=PAGE_ROWS)]
    more: bool = False


class RevokeInvitation(Wire, frozen=True):
    group: IdText
    id: IdText


class Redeem(Wire, frozen=True):
    """Make the caller's user a member by an invitation."""

    proof: Key32


class Enter(Wire, frozen=True):
    """Log in on a device without a user, and redeem an invitation, in one step.

    ``create``: make the account if there is none. Otherwise it is refused with ``unknown-user``.
    """

    proof: Key32
    user: IdText
    password: Password
    create: bool = True


class Redeemed(Wire, frozen=True):
    """Reply to `Redeem` and `Enter`. ``by``: maker of the invitation. ``created``: the account."""

    group: IdText
    user: IdText
    by: IdText
    created: bool = False


# -- shares -------------------------------------------------------------------------------------


class Offer(Wire, frozen=True):
    """Offer ``content`` in ``group`` as ``name``; this device holds all of it.

    ``version``: 0 for the current version, or the first one of a free name; K to offer again
    version K, which this device holds. ``replace``: make ``content`` the next version, if it is not
    the current one already; ``version`` is then the number that it must get, or 0 for any. Refused
    with ``need-manifest`` if the tracker lacks the manifest: send `PutManifest`, then offer again.
    Refused with ``taken`` if that version has another content, with ``changed`` if the next version
    has another number, and with ``withdrawn`` if version K may not be offered again.
    """

    group: IdText
    name: ShareName
    content: Key32
    replace: bool = False
    version: Version = 0


class PutManifest(Wire, frozen=True):
    """Send one part of an encoded manifest; the data frame holds its bytes. Parts come in order."""

    content: Key32
    total_bytes: Annotated[int, Meta(ge=1, le=limits.MANIFEST_BYTES_MAX)]
    offset: Count


class FileRow(msgspec.Struct, frozen=True, array_like=True):
    """One version of a name. ``current``: the name alone means this version.

    ``folder``: whether it is a folder, not a file; None: the tracker has no record of it.
    """

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
    version: Version = 1
    current: bool = True
    folder: bool | None = None


class Offered(Wire, frozen=True):
    """Reply to `Offer`. ``joined``: other users offered the same content before."""

    row: FileRow
    joined: bool


class StopShare(Wire, frozen=True):
    """End this device's offer of a version of ``name`` in ``group``; 0: of all versions."""

    group: IdText
    name: ShareName
    version: Version = 0


class Withdraw(Wire, frozen=True):
    """End all offers of a version of ``name`` in ``group``, for good; 0: of all versions.

    For the owner of the group, and the user who shared the current version first.
    """

    group: IdText
    name: ShareName
    version: Version = 0


class MyOffers(Wire, frozen=True):
    """List the offers of this device on record. ``after``: ``group/name@version``."""

    after: Annotated[str, Meta(max_length=400)] = ""


class OfferRow(msgspec.Struct, frozen=True, array_like=True):
    group: IdText
    name: ShareName
    content: Key32
    version: Version = 1


class OfferRows(Wire, frozen=True):
    rows: Annotated[list[OfferRow], Meta(max_length=PAGE_ROWS)]
    more: bool = False


class ListFiles(Wire, frozen=True):
    """List the current versions in ``group``, or with ``versions`` all that are offered.

    ``after``: name, with ``versions`` ``name@version``.
    """

    group: IdText
    after: Annotated[str, Meta(max_length=270)] = ""
    versions: bool = False


class FileRows(Wire, frozen=True):
    rows: Annotated[list[FileRow], Meta(max_length=PAGE_ROWS)]
    more: bool = False


class FindShare(Wire, frozen=True):
    """Find a version of ``name``; 0: the current one."""

    group: IdText
    name: ShareName
    version: Version = 0


class ShareFound(Wire, frozen=True):
    """Reply to `FindShare`. ``topic``: that of updates of this share's swarm.

    ``first_by`` shared this version first, at ``since_ms``.
    """

    row: FileRow
    topic: Topic
    manifest_bytes: Count
    sources: Annotated[list[Source], Meta(max_length=limits.SOURCES_MAX)]
    first_by: IdText | None = None
    since_ms: TimeMs = 0


class GetSources(Wire, frozen=True):
    group: IdText
    content: Key32


class Sources(Wire, frozen=True):
    sources: Annotated[list[Source], Meta(max_length=limits.SOURCES_MAX)]


class GetManifest(Wire, frozen=True):
    group: IdText
    content: Key32
    offset: Count = 0


class ManifestPart(Wire, frozen=True):
    """Part of a manifest from ``offset``; the data frame holds its bytes."""

    total_bytes: Count
    offset: Count


# -- followers and holders ----------------------------------------------------------------------

Globs = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=limits.GLOB_CHARACTERS_MAX)]],
    Meta(max_length=limits.GLOBS_MAX),
]


class SetFollow(Wire, frozen=True):
    """Record whether this device follows ``group``: it fetches every share of it by itself.

    ``globs``: if any, it fetches only shares with a name that matches one of them. The record ends
    with the login of the device and with the membership of its user.
    """

    group: IdText
    on: bool
    globs: Globs = msgspec.field(default_factory=list)


class WhoHas(Wire, frozen=True):
    """List the devices that hold, fetch or follow a version of a share.

    ``version``: 0 is the current one. ``after``: hex key of a device.
    """

    group: IdText
    name: ShareName
    version: Version = 0
    after: PageKey = ""


class HolderState(StrEnum):
    """State of a device with regard to one version of a share."""

    HOLDS = "holds"
    """It offers this version, of which it has a verified copy."""
    FETCHING = "fetching"
    FOLLOWS = "follows"
    """It follows the group, and neither holds nor fetches this version."""
    AWAY = "away"
    """It is offline; ``copy`` of its row tells whether it holds a copy all the same."""


class HolderRow(msgspec.Struct, frozen=True, array_like=True):
    """Device that holds, fetches or follows a version of a share.

    ``held``: number of verified pieces. ``since_ms``: time of the offer, of the first announcement
    that it fetches, of its `SetFollow`, or when it was last seen. ``copy``: it offers this version.
    ``follows``: it follows the group, with these ``globs``.
    """

    device: Key32
    user: IdText
    state: HolderState
    held: Count
    since_ms: TimeMs
    copy: bool = False
    follows: bool = False
    globs: Globs = msgspec.field(default_factory=list)


class Holders(Wire, frozen=True):
    """Reply to `WhoHas`. ``row``: the version that the rows are about."""

    row: FileRow
    rows: Annotated[list[HolderRow], Meta(max_length=PAGE_ROWS)]
    more: bool = False


# -- presence -----------------------------------------------------------------------------------


class Leeching(msgspec.Struct, frozen=True, array_like=True):
    """A content that this device fetches, and of which it serves ``held`` pieces."""

    group: IdText
    content: Key32
    held: Count


class Announce(Wire, frozen=True):
    """Renew the lease of this device, which serves at ``endpoint``.

    A host of ``*`` in the endpoint stands for the address at which the tracker sees the device.
    ``leeching`` replaces that of the last announcement. Offers need no mention: a device online is
    a seeder of what it offers. ``instance`` stays the same over restarts of a peer on one machine,
    and differs on a copy of that machine. Both rates are of pieces, for the tracker's operator.
    """

    endpoint: Endpoint
    leeching: Annotated[list[Leeching], Meta(max_length=1000)] = msgspec.field(default_factory=list)
    instance: Instance = b""
    received_bytes_per_s: Count = 0
    sent_bytes_per_s: Count = 0


class ProbeMe(Wire, frozen=True):
    """Test from the tracker whether this device answers at its announced endpoint."""


class Probed(Wire, frozen=True):
    """Reply to `ProbeMe`. ``answered``: a device with the caller's key answered at ``endpoint``."""

    endpoint: Endpoint
    answered: bool


class Head(msgspec.Struct, frozen=True, array_like=True):
    """Head of a group's log, by which a subscriber notices missed entries."""

    group: IdText
    seq: Count
    epoch: Count


class Announced(Wire, frozen=True):
    """Renewed lease. ``elsewhere``: the device should use another tracker with this key, which has
    fewer."""

    lease_s: float
    time_ms: TimeMs
    heads: list[Head]
    elsewhere: bool = False


class Depart(Wire, frozen=True):
    """Release the lease of this device."""


# -- tickets and events -------------------------------------------------------------------------


class GetTickets(Wire, frozen=True):
    """Get tickets for these groups of the caller's user; an empty list stands for all."""

    groups: Annotated[list[IdText], Meta(max_length=1000)] = msgspec.field(default_factory=list)


class TicketRow(msgspec.Struct, frozen=True, array_like=True):
    group: IdText
    token: Token
    expires_ms: TimeMs


class Tickets(Wire, frozen=True):
    rows: list[TicketRow]
    time_ms: TimeMs


class Follow(Wire, frozen=True):
    """Get all that a member needs to follow its groups' events."""


class GroupState(msgspec.Struct, frozen=True, array_like=True):
    """State of a group, as a member sees it.

    ``topic`` and ``key``: of its events during ``epoch``. ``seq``: head of the log that this state
    includes. ``revoked``: users who lost the right to fetch within the life of a ticket, with the
    epoch from which on their tickets are valid again, if they were accepted once more.
    """

    group: IdText
    owner: IdText
    epoch: Count
    topic: Topic
    key: Key32
    seq: Count
    revoked: list[tuple[IdText, Count]] = []


class Following(Wire, frozen=True):
    """Reply to `Follow`.

    ``pending``: groups with an open join request of the user. ``requests``: number of open join
    requests to each group that the user owns. ``followed``: groups that this device follows.
    """

    groups: list[GroupState]
    time_ms: TimeMs
    pending: list[IdText] = msgspec.field(default_factory=list)
    requests: list[tuple[IdText, Count]] = msgspec.field(default_factory=list)
    followed: list[IdText] = msgspec.field(default_factory=list)


class GetDevices(Wire, frozen=True):
    """List the devices of a group's members, which a serving peer lets in. ``after``: hex key."""

    group: IdText
    after: PageKey = ""


class DeviceRow(msgspec.Struct, frozen=True, array_like=True):
    device: Key32
    user: IdText


class DeviceRows(Wire, frozen=True):
    """Page of devices. ``seq``: head of the group's log at the time of this page."""

    rows: Annotated[list[DeviceRow], Meta(max_length=PAGE_ROWS)]
    seq: Count
    more: bool = False


class EventsSince(Wire, frozen=True):
    """Get the group's events after ``seq``, oldest first, at most ``PAGE_ROWS``.

    Limits: a log keeps only its latest entries; a device further behind gets a snapshot.
    """

    group: IdText
    seq: Count


class Events(Wire, frozen=True):
    """Reply to `EventsSince`.

    ``snapshot``: the group as of ``head``, if the log no longer keeps the entry after ``seq``.
    """

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
    | Withdraw
    | Invite
    | ListInvitations
    | RevokeInvitation
    | Redeem
    | Enter
    | SetFollow
    | WhoHas
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
    | Invited
    | InvitationRows
    | Redeemed
    | Holders
)
