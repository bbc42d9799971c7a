"""Reason codes of refusals, shared by all conversations.

Why apart from the message (see common.messages.base): errors need the codes, and a command line
that prints its help must not load the library of the messages.
"""

from __future__ import annotations

from enum import StrEnum


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
    WITHDRAWN = "withdrawn"
    NO_INVITATION = "no-invitation"
    REGISTRATION = "registration"
    NO_TRACKER = "no-tracker"
