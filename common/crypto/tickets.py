"""Tickets: signed by the tracker, they let a device fetch from a group until a given time.

Owns: their form, their issue and their check. Not here: whether the requested content is shared in
that group, and whether the user was removed meanwhile (see ``peer.serving.access``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import nacl.exceptions
import nacl.signing
from msgspec import Meta

from common import limits
from common.errors import Refused
from common.ids import DeviceKey, GroupId, TrackerId, UserId
from common.messages.base import Count, IdText, Key32, TimeMs
from common.messages.refusals import Code

# What is signed begins with this, so that no other signature of the same key passes for a ticket.
DOMAIN = b"mini-torrent ticket v1\x00"
_SIGNATURE_BYTES = 64


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """Permission of ``device`` (of ``user``) to fetch the shares of ``group`` until ``expires_ms``.

    Times are the tracker's, in milliseconds since 1970. ``epoch`` is the group's when it was
    issued: a later removal of the user makes tickets of earlier epochs void.
    """

    version: Annotated[int, Meta(ge=1, le=1)]
    tracker_id: Annotated[bytes, Meta(min_length=16, max_length=16)]
    device: Key32
    user: IdText
    group: IdText
    epoch: Count
    issued_ms: TimeMs
    expires_ms: TimeMs


_decoder = msgspec.msgpack.Decoder(Ticket)


def issue(
    key: nacl.signing.SigningKey,
    tracker_id: TrackerId,
    device: DeviceKey,
    user: UserId,
    group: GroupId,
    epoch: int,
    now_ms: int,
    life_s: int = limits.TICKET_LIFE_S,
) -> tuple[bytes, int]:
    """A ticket as bytes (signature, then body), and when it expires in ms."""
    expires = now_ms + life_s * 1000
    body = msgspec.msgpack.encode(
        Ticket(1, tracker_id, device, user, group, epoch, now_ms, expires)
    )
    return key.sign(DOMAIN + body).signature + body, expires


def check(
    token: bytes,
    verify_keys: Sequence[nacl.signing.VerifyKey],
    *,
    tracker_id: TrackerId,
    device: DeviceKey,
    group: GroupId,
    now_ms: int,
) -> Ticket:
    """The ticket in ``token``, if it gives ``device`` the right to fetch from ``group`` now.

    Raises `Refused` with ``ticket-invalid`` or ``ticket-expired``. Everything is signed, so a
    ticket altered in any bit fails before any of it is looked at.
    """
    invalid = Refused(Code.TICKET_INVALID, "this ticket does not count here")
    if len(token) <= _SIGNATURE_BYTES:
        raise invalid
    signature, body = token[:_SIGNATURE_BYTES], token[_SIGNATURE_BYTES:]
    if not any(_signed(key, signature, body) for key in verify_keys):
        raise invalid
    try:
        ticket = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise invalid from error
    if (ticket.tracker_id, ticket.device, ticket.group) != (tracker_id, device, group):
        raise invalid
    skew_ms = limits.CLOCK_SKEW_S * 1000
    if not 0 <= ticket.expires_ms - ticket.issued_ms <= limits.TICKET_LIFE_S * 1000:
        raise invalid
    if ticket.issued_ms > now_ms + skew_ms:
        raise invalid
    if now_ms >= ticket.expires_ms + skew_ms:
        raise Refused(Code.TICKET_EXPIRED, "the ticket has expired", "it is renewed by itself")
    return ticket


def _signed(key: nacl.signing.VerifyKey, signature: bytes, body: bytes) -> bool:
    try:
        key.verify(DOMAIN + body, signature)
    except nacl.exceptions.BadSignatureError:
        return False
    return True
