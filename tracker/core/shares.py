"""Shares of a group, as its members see them, and the manifests of their contents.

Owns: the listings, and the decisions on manifests and sources. Not here: offers (see
tracker.core.offers), versions (see tracker.core.versions), which of the offering devices are online
(see tracker.core.presence), and the bytes of manifests (see tracker.store.table_store).
"""

from __future__ import annotations

from typing import cast

import msgspec
from msgspec import Raw

from common.crypto.event_seal import share_topic
from common.errors import Refused
from common.ids import ContentId, DeviceKey, UserId
from common.messages import tracker
from common.messages.refusals import Code
from common.names import fold_name, split_version
from tracker.core.changes.shares import ManifestDropped, ManifestShown, ManifestStored
from tracker.core.context import (
    Caller,
    Context,
    Decision,
    ReadPart,
    TakePart,
    group_of,
    page,
)
from tracker.core.records import Group, ListedRow, ManifestSummary, Share
from tracker.core.share_names import NameId, ShareId
from tracker.core.state import State
from tracker.core.versions import find_version, refuse_share

SHARED_BY_MAX = 64  # users named in a row of a listing
_encode = msgspec.msgpack.Encoder().encode

# -- queries ------------------------------------------------------------------------------------


def list_files(context: Context, user: UserId, command: tracker.ListFiles) -> Decision:
    """List the shares of a group, sorted by folded name and version."""
    group = group_of(context.state, user, command.group)
    if command.versions:
        ids, more = page(group.share_ids, share_after(command.after))
    else:
        keys, more = page(group.names.listed, NameId(fold_name(command.after)))
        by_id = group.names.by_id
        # Why plain tuples: they equal share ids, and are made in an eighth of the time.
        ids = cast(list[ShareId], [(key, by_id[key].current) for key in keys])
    return Decision(tracker.FileRows(listed_rows(context, group, ids), more))


def listed_rows(context: Context, group: Group, ids: list[ShareId]) -> list[tracker.FileRow]:
    """Return the rows of shares, each encoded until something of it changes.

    Why: the rows of a page are hundreds, are asked for often and change seldom.
    """
    rows: list[Raw] = []
    group_id, shares, by_id = group.id, group.shares, group.names.by_id
    swarm_of = context.presence.swarm
    for share_id in ids:
        share = shares[share_id]
        swarm = swarm_of((group_id, share.content))
        seeders, leechers = len(swarm.seeders), len(swarm.leechers)
        current = share_id[1] >= by_id[share_id[0]].current
        if (
            (kept := share.listed) is not None
            and kept[0] == seeders
            and kept[1] == leechers
            and kept[2] is current
        ):
            rows.append(kept[3])
            continue
        encoded = Raw(_encode(row_of(context, group, ShareId(*share_id), share)))
        share.listed = ListedRow(seeders, leechers, current, encoded)
        rows.append(encoded)
    return cast(list[tracker.FileRow], rows)


def share_after(text: str) -> ShareId:
    """Return the key of the last row of a page from its text, ``name@version``."""
    name, version = split_version(text)
    return ShareId(NameId(fold_name(name)), version)


def find_share(
    context: Context, user: UserId, caller: Caller, command: tracker.FindShare
) -> Decision:
    """Return all that a peer needs to fetch a share."""
    group = group_of(context.state, user, command.group)
    share_id, share = find_version(group, command.name, command.version)
    version = group.names.by_id[share_id.name].version(share_id.version)
    assert version is not None  # it has an offer
    return Decision(
        tracker.ShareFound(
            row=listed_rows(context, group, [share_id])[0],
            topic=share_topic(group.topic, share.content),
            manifest_bytes=context.state.manifests[share.content].manifest_bytes,
            sources=context.presence.sources((group.id, share.content), caller.device, context.rng),
            first_by=version.user or None,
            since_ms=version.at_ms,
        )
    )


def get_sources(
    context: Context, user: UserId, caller: Caller, command: tracker.GetSources
) -> Decision:
    """Return sources of a content."""
    group, content = _shared_content(context.state, user, command.group, command.content)
    return Decision(
        tracker.Sources(context.presence.sources((group.id, content), caller.device, context.rng))
    )


def _shared_content(
    state: State, user: UserId, text: str, content: bytes
) -> tuple[Group, ContentId]:
    group = group_of(state, user, text)
    if content not in group.names_of:
        refuse_share("this content", group.id)
    return group, ContentId(content)


def row_of(
    context: Context,
    group: Group,
    share_id: ShareId,
    share: Share,
    besides: tuple[UserId, DeviceKey] | None = None,
) -> tracker.FileRow:
    """Return the row of a share; ``besides``: an offer that is about to be added."""
    name = group.names.by_id.get(share_id.name)
    summary = context.state.manifests[share.content]
    swarm = context.presence.swarm((group.id, share.content))
    seeders, leechers = len(swarm.seeders), len(swarm.leechers)
    users: dict[str, None] = {}
    for user, _ in share.offers:
        users[user] = None
        if len(users) == SHARED_BY_MAX:  # further offers cost nothing
            break
    if besides is not None:
        user, device = besides
        users[user] = None
        if device in context.presence.leases:
            seeders += device not in swarm.seeders
            leechers -= device in swarm.leechers
    return tracker.FileRow(
        name=share.name,
        content=share.content,
        size=summary.size,
        files=summary.files,
        pieces=summary.pieces,
        piece_length=summary.piece_length,
        algorithm=summary.algorithm,
        digest=summary.digest,
        seeders=seeders,
        leechers=leechers,
        shared_by=[*users][:SHARED_BY_MAX],
        version=share_id.version,
        current=name is None or share_id.version >= name.current,
        folder=summary.folder,
    )


# -- manifests ----------------------------------------------------------------------------------


def put_manifest(state: State, user: UserId, command: tracker.PutManifest) -> Decision:
    """Take a part of a manifest, unless the user has already sent the whole."""
    content = ContentId(command.content)
    if state.may_know(user, content):
        return Decision(tracker.Done())
    # Checked whether or not the tracker has the content: a refusal must not tell that.
    state.unshared_manifests.evict_for(user, command.total_bytes)
    return Decision(deferred=TakePart(user, content, command.total_bytes, command.offset))


def manifest_gathered(
    state: State, user: UserId, summary: ManifestSummary, body: bytes
) -> Decision:
    """Keep a manifest that ``user`` sent whole and that is valid."""
    shown = ManifestShown(user, summary.content)
    evicted = state.unshared_manifests.evict_for(user, summary.manifest_bytes)
    if summary.content in state.manifests:
        return Decision(tracker.Done(), (shown,))
    dropped = (ManifestDropped(other) for other in evicted)
    return Decision(tracker.Done(), (*dropped, ManifestStored(summary, body, user), shown))


def get_manifest(context: Context, user: UserId, command: tracker.GetManifest) -> Decision:
    """Return a part of the manifest of a content shared in a group of the caller."""
    _, content = _shared_content(context.state, user, command.group, command.content)
    total = context.state.manifests[content].manifest_bytes
    if command.offset >= total:
        raise Refused(
            Code.USAGE, f"get a manifest: it ends at {total:,} bytes, before {command.offset:,}"
        )
    return Decision(deferred=ReadPart(content, command.offset, total))
