"""Refusals: reason codes and the message, shared by all conversations."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec


class Code(StrEnum):
    """Machine-readable reasons. The texts beside them may change, these do not."""

    FAILED = "failed"
    USAGE = "usage"
    INTERNAL = "internal"
    MALFORMED = "malformed"
    VERSION = "version"
    BUSY = "busy"
    UNREACHABLE = "unreachable"
    NO_PEER = "no-peer"
    STORAGE = "storage"
    CORRUPT = "corrupt"
    CANCELLED = "cancelled"
    NOT_LOGGED_IN = "not-logged-in"
    WRONG_CREDENTIALS = "wrong-credentials"
    SLOW_DOWN = "slow-down"
    TAKEN = "taken"
    UNKNOWN_GROUP = "unknown-group"
    UNKNOWN_SHARE = "unknown-share"
    UNKNOWN_USER = "unknown-user"
    UNKNOWN_DEVICE = "unknown-device"
    UNKNOWN_REQUEST = "unknown-request"
    NOT_OWNER = "not-owner"
    ALREADY_MEMBER = "already-member"
    NEED_MANIFEST = "need-manifest"
    TICKET_INVALID = "ticket-invalid"
    TICKET_EXPIRED = "ticket-expired"
    REVOKED = "revoked"
    CHANGED = "changed"
    GONE = "gone"
    LIMIT = "limit"
    READ_ONLY = "read-only"
    KEY_IN_USE = "key-in-use"
    UNCONFIRMED = "unconfirmed"
    TIMED_OUT = "timed-out"


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A refusal on the wire: ``code`` for programs, ``message`` and ``hint`` for people."""

    code: Code
    message: Annotated[str, msgspec.Meta(max_length=2000)]
    hint: Annotated[str, msgspec.Meta(max_length=2000)] | None = None
