"""Verification of the tracker's claims, against the request, the manifest and the limits.

Owns the comparisons. Invariant: a claim of the tracker about a share has no effect on written
bytes, names or texts for users unless it agrees with the request and with the manifest, which the
content id verifies.
"""

from __future__ import annotations

import contextlib

from common import limits
from common.errors import ConfigError, IntegrityError, RemoteProtocolError
from common.ids import ContentId, GroupId, UserId
from common.link import check_endpoint, check_source, host_of, is_loopback
from common.manifest import Manifest
from common.messages import tracker
from common.names import BadName, fold_id, fold_name, group_id, quoted, user_id, versioned


def check_name(row: tracker.FileRow, asked: str) -> None:
    """Raise `IntegrityError` unless ``row`` is that of the name that was asked for.

    Names that are twins are one name (`fold_name`), as they are to the tracker.
    """
    if fold_name(row.name) != fold_name(asked):
        raise IntegrityError(
            f"find {quoted(asked)}: the tracker answered with another name, {quoted(row.name)}"
        )


def check_version(row: tracker.FileRow, asked: int) -> None:
    """Raise `IntegrityError` unless ``row`` is that of the version that was asked for.

    Version 0 is the current one.
    """
    if row.version != asked if asked else not row.current:
        raise IntegrityError(
            f"find {quoted(versioned(row.name, asked))}: the tracker answered with another"
            f" version, {row.version}"
        )


def check_summary(row: tracker.FileRow, decoded: Manifest, name: str) -> None:
    """Raise `IntegrityError` unless ``row`` says of the content what its manifest says."""
    claims: dict[str, tuple[object, object]] = {
        "size": (row.size, decoded.size),
        "number of files": (row.files, decoded.file_count),
        "number of pieces": (row.pieces, decoded.piece_count),
        "piece length": (row.piece_length, decoded.piece_length),
        "algorithm": (row.algorithm, decoded.algorithm.value),
        "digest": (row.digest, decoded.digest),
    }
    if row.folder is not None:
        claims["kind"] = (row.folder, decoded.is_folder)
    wrong = [what for what, (claimed, true) in claims.items() if claimed != true]
    if wrong:
        raise IntegrityError(
            f"check {quoted(name)}: the tracker's row contradicts the manifest: {', '.join(wrong)}"
        )


def check_offered(row: tracker.FileRow, name: str, content: ContentId) -> None:
    """Raise `IntegrityError` unless ``row`` is that of what was offered."""
    check_name(row, name)
    if row.content != content:
        raise IntegrityError(f"offer {quoted(name)}: the tracker lists another content")


def check_user(claimed: str, asked: str) -> None:
    """Raise `IntegrityError` unless the tracker logged in the user who was named."""
    if fold_id(claimed) != fold_id(asked):
        raise IntegrityError(
            f"log in {quoted(asked)}: the tracker answered for another user, {quoted(claimed)}"
        )


def check_invited(row: tracker.InvitationRow, expected_id: str, uses: int) -> None:
    """Raise `IntegrityError` unless the tracker made the invitation that was asked for."""
    if row.id != expected_id or row.uses != uses:
        raise IntegrityError("invite: the tracker made another invitation than the one asked for")


def check_redeemed(reply: tracker.Redeemed, user: str) -> tuple[GroupId, UserId]:
    """Return the group that ``user`` has joined, and who made the invitation.

    Raise `IntegrityError` for another user, `RemoteProtocolError` for invalid names.
    """
    check_user(reply.user, user)
    try:
        return group_id(reply.group), user_id(reply.by)
    except BadName as error:
        raise RemoteProtocolError(f"join by an invitation: {error.message}") from error


def check_welcome(welcome: tracker.Welcome) -> None:
    """Raise `RemoteProtocolError` if it names a user with an invalid name."""
    try:
        if welcome.user:
            user_id(welcome.user)
    except BadName as error:
        raise RemoteProtocolError(f"welcome: {error.message}") from error


def events_endpoint(endpoint: str, commands: str) -> str:
    """Return the endpoint of events; a host of ``*`` stands for the host of our commands.

    Invariant: a tracker elsewhere leads to no socket of this machine, and a host name is resolved
    only if the user named it, since libzmq resolves on the thread that all connections share.
    """
    anywhere = endpoint.startswith("tcp://*:")
    try:
        if endpoint.startswith("ipc://") and not commands.startswith("ipc://"):
            raise ConfigError("a socket of this machine")
        if not anywhere and host_of(endpoint) != host_of(commands):
            return check_source(endpoint)
        check_endpoint(endpoint.replace("*", "127.0.0.1", 1) if anywhere else endpoint)
    except ConfigError as error:
        raise RemoteProtocolError(f"it does not say where it publishes: {error.message}") from error
    return f"tcp://{host_of(commands)}:{endpoint.rpartition(':')[2]}" if anywhere else endpoint


def tracker_addresses(welcome: tracker.Welcome, reached: str) -> list[str]:
    """Return the usable addresses among those that ``welcome`` names of its fellow trackers.

    Invariant: as for `events_endpoint`, a tracker elsewhere leads to no socket of this machine, and
    no name is looked up that the user did not give. Other addresses are left out.
    """
    found: dict[str, None] = {}
    for endpoint in welcome.trackers:
        with contextlib.suppress(ConfigError):
            if not endpoint.startswith("tcp://") or check_source(endpoint) in found:
                continue
            if not is_loopback(endpoint) or is_loopback(reached):
                found[endpoint] = None
    return list(found)


def states_of(states: list[tracker.GroupState]) -> dict[GroupId, tracker.GroupState]:
    """Return the states by group. Raises `RemoteProtocolError` for invalid ones."""
    if len(states) > limits.GROUPS_PER_USER_MAX:
        raise RemoteProtocolError(f"follow {len(states)} groups: more than a user may be in")
    try:
        return {group_id(state.group): state for state in states}
    except BadName as error:
        raise RemoteProtocolError(f"follow a group: {error.message}") from error


def check_group(group: GroupId, claimed: str) -> None:
    """Raise `RemoteProtocolError` if an event of ``group`` claims another group."""
    if fold_id(claimed) != group:
        raise RemoteProtocolError("an event of another group")
