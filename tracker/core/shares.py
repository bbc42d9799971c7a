"""Shares of a group: their names, contents and offers, and the manifests of the contents.

Owns: the decisions on shares, manifests and sources. Not here: which of the offering devices are
online (see tracker.core.presence), and the bytes of manifests (see tracker.store.store).
"""

from __future__ import annotations

from typing import NoReturn

from common import limits
from common.crypto.event_seal import share_topic
from common.errors import Refused
from common.hints import hint
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.messages import events, tracker
from common.messages.refusals import Code
from common.names import fold_name, quoted, share_name
from tracker.core import changes as c
from tracker.core.budgets import Budget
from tracker.core.context import (
    Caller,
    Context,
    Decision,
    LogAppender,
    Now,
    ReadPart,
    TakePart,
    group_of,
    page,
)
from tracker.core.records import Group, Share
from tracker.core.state import State

SHARED_BY_MAX = 64  # users named in a row of a listing

# -- offers -------------------------------------------------------------------------------------


def offer(
    context: Context, user: UserId, caller: Caller, command: tracker.Offer, now: Now
) -> Decision:
    """Offer a content that this device holds: as a new share, or as a further seeder."""
    state, group = context.state, group_of(context.state, user, command.group)
    name = share_name(command.name)
    share_id, content = c.ShareId(fold_name(name)), ContentId(command.content)
    share = group.shares.get(share_id)
    if share is not None:
        _check_same(group, share, name, content, (user, caller.device) in share.offers)
        if (user, caller.device) in share.offers:
            return Decision(tracker.Offered(_row(context, group, share), _has_others(share, user)))
    # Invariant: an id alone tells neither whether others share the content nor the names in its
    # manifest. A caller who has not sent the manifest must send it.
    if not state.may_know(user, content):
        raise Refused(Code.NEED_MANIFEST, "the tracker does not have the manifest of this content")
    summary = state.manifests[content]
    _check_room(state, group, share, user, caller.device)
    _check_manifests(state, share, user, summary)
    first_offer = share is None or user not in share.users
    if first_offer:  # two entries: this one and that of its end
        spent = state.budgets.spend(Budget.ENTRIES, user, 2, now.wall_ms)
    else:
        spent = state.budgets.spend(Budget.OFFERS, user, 1, now.wall_ms, caller.device)
    added = c.OfferAdded(group.id, share_id, content, user, caller.device, now.wall_ms)
    entries = LogAppender(group, now)
    changes: tuple[c.Change, ...]
    if share is None:
        shared = events.Shared(
            user, name, content, summary.size, summary.files, summary.algorithm, summary.digest
        )
        created = c.ShareAdded(group.id, share_id, name, content, now.wall_ms)
        changes = (created, added, entries.add(shared))
        share = Share(name, content, now.wall_ms)
    elif not first_offer:
        changes = (added,)  # a further device of a user who seeds it: no entry
    else:
        changes = (added, entries.add(events.Seeding(user, name, content)))
    row = _row(context, group, share, besides=(user, caller.device))
    return Decision(tracker.Offered(row, _has_others(share, user)), (*changes, spent))


def _check_same(group: Group, share: Share, name: str, content: ContentId, own: bool) -> None:
    """Refuse another content or spelling under this name. ``own``: this device offers ``share``."""
    if share.content != content and own:
        raise Refused(
            Code.TAKEN,
            f"you already share a different version of {quoted(share.name)} in this group",
            hint("stop sharing that one first", "stop-share", group.id, share.name),
        )
    if share.content != content:
        raise Refused(
            Code.TAKEN,
            f"another content is shared as {quoted(share.name)} in this group",
            hint(
                "share it under another name",
                "upload-file",
                "PATH",
                group.id,
                options=("--name", "NAME"),
            ),
        )
    if share.name != name:
        raise Refused(
            Code.TAKEN,
            f"this content is shared as {quoted(share.name)} already, which differs from"
            f" {quoted(name)} only in case or in how letters are composed",
            "use that very name, or one that is plainly different",
        )


def _check_room(
    state: State, group: Group, share: Share | None, user: UserId, device: DeviceKey
) -> None:
    if share is None and len(group.shares) >= limits.SHARES_PER_GROUP_MAX:
        raise Refused(
            Code.LIMIT,
            f"{quoted(group.id)} lists {limits.SHARES_PER_GROUP_MAX} shares, the most allowed",
            "share a folder instead of many files, or stop sharing what is not needed",
        )
    free = limits.SHARES_PER_GROUP_MAX - len(group.shares)
    mine = state.holdings.shares[group.id, user]
    if share is None and mine >= limits.SHARES_OF_ONE_TIMES_FREE * free:
        raise Refused(
            Code.LIMIT,
            f"you share {mine:,} of {quoted(group.id)}, which has {free:,} free places:"
            " these are left to other members",
            "share a folder instead of many files, or stop sharing what is not needed",
        )
    if state.holdings.offers[user] >= limits.OFFERS_PER_USER_MAX:
        raise Refused(
            Code.LIMIT,
            f"your devices offer {limits.OFFERS_PER_USER_MAX:,} shares, the most allowed",
            "stop sharing what is not needed",
        )
    if len(state.offers_of.get((user, device), ())) >= limits.OFFERS_PER_DEVICE_MAX:
        raise Refused(
            Code.LIMIT,
            f"this device offers {limits.OFFERS_PER_DEVICE_MAX} shares, the most allowed",
            "stop sharing what is not needed",
        )


def _check_manifests(
    state: State, share: Share | None, user: UserId, summary: c.ManifestSummary
) -> None:
    if share is not None and user in share.users:
        return
    if (
        state.holdings.manifest_bytes[user] + summary.manifest_bytes
        > limits.MANIFEST_BYTES_PER_USER_MAX
    ):
        raise Refused(
            Code.LIMIT,
            "the manifests of all that you share take"
            f" {limits.MANIFEST_BYTES_PER_USER_MAX >> 30} GiB at the tracker, the most allowed",
            "stop sharing what is not needed, or share with larger pieces: --piece-size",
        )


def _has_others(share: Share, user: UserId) -> bool:
    return any(other != user for other in share.users)


def stop_share(
    context: Context, user: UserId, caller: Caller, command: tracker.StopShare, now: Now
) -> Decision:
    """End this device's offer of a share; the last offer ends the share.

    If this device does not offer it, end the offers of those devices of the user that are logged
    out: they could not be ended there.
    """
    group = group_of(context.state, user, command.group)
    share_id, share = _share_named(group, command.name)
    ending = [(user, caller.device)]
    if ending[0] not in share.offers:
        devices = context.state.devices
        ending = [o for o in share.offers if o[0] == user and devices.get(o[1]) != user]
    if not ending:
        raise Refused(
            Code.UNKNOWN_SHARE,
            f"this device does not share {quoted(share.name)} in that group",
            hint("see what is shared", "list-files", group.id),
        )
    changes: list[c.Change] = [
        c.OfferDropped(group.id, share_id, share.content, *offer) for offer in ending
    ]
    if len(share.offers) == len(ending):
        changes.append(c.ShareDropped(group.id, share_id, share.content, now.wall_ms))
    if not any(offer[0] == user and offer not in ending for offer in share.offers):
        changes.append(LogAppender(group, now).add(_ending_event(share, user)))
    return Decision(tracker.Done(), tuple(changes))


def end_offers(
    group: Group, user: UserId, entries: LogAppender, now: Now, device: DeviceKey | None = None
) -> list[c.Change]:
    """End all offers in ``group`` of ``user``, or of one ``device`` of that user, who leaves.

    Return one change, and an entry for each share that the user no longer offers.
    """
    ended: list[c.Change] = []
    offered = False
    for share in group.shares.values():
        theirs = [offering for other, offering in share.offers if other == user]
        leaving = [offering for offering in theirs if device in (None, offering)]
        offered |= bool(leaving)
        if leaving and len(leaving) == len(theirs):
            ended.append(entries.add(_ending_event(share, user)))
    return [c.OffersEnded(group.id, user, now.wall_ms, device), *ended] if offered else []


def _ending_event(share: Share, user: UserId) -> events.Unshared | events.Stopped:
    """Return the event of the last offer of ``user`` for a share ending."""
    last = all(other == user for other, _ in share.offers)
    return (events.Unshared if last else events.Stopped)(user, share.name, share.content)


def my_offers(
    context: Context, user: UserId, caller: Caller, command: tracker.MyOffers
) -> Decision:
    """List the offers of this device, sorted by group, then as in `list_files`."""
    group, _, name = command.after.partition("/")
    after = (GroupId(group), c.ShareId(fold_name(name)))
    listed, more = page(context.state.offers_of.get((user, caller.device), ()), after)
    return Decision(tracker.OfferRows([_offer_row(context.state, *each) for each in listed], more))


def _offer_row(state: State, group: GroupId, share_id: c.ShareId) -> tracker.OfferRow:
    share = state.groups[group].shares[share_id]
    return tracker.OfferRow(group, share.name, share.content)


# -- queries ------------------------------------------------------------------------------------


def list_files(context: Context, user: UserId, command: tracker.ListFiles) -> Decision:
    """List the shares of a group, sorted by folded name."""
    group = group_of(context.state, user, command.group)
    keys, more = page(group.share_ids, c.ShareId(fold_name(command.after)))
    return Decision(tracker.FileRows([_row(context, group, group.shares[k]) for k in keys], more))


def find_share(
    context: Context, user: UserId, caller: Caller, command: tracker.FindShare
) -> Decision:
    """Return all that a peer needs to fetch a share."""
    group = group_of(context.state, user, command.group)
    _, share = _share_named(group, command.name)
    return Decision(
        tracker.ShareFound(
            row=_row(context, group, share),
            topic=share_topic(group.topic, share.content),
            manifest_bytes=context.state.manifests[share.content].manifest_bytes,
            sources=context.presence.sources((group.id, share.content), caller.device, context.rng),
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


def _share_named(group: Group, text: str) -> tuple[c.ShareId, Share]:
    share_id = c.ShareId(fold_name(text))
    share = group.shares.get(share_id)
    if share is None:
        _refuse_share(quoted(text), group.id)
    return share_id, share


def _shared_content(
    state: State, user: UserId, text: str, content: bytes
) -> tuple[Group, ContentId]:
    group = group_of(state, user, text)
    if content not in group.names_of:
        _refuse_share("this content", group.id)
    return group, ContentId(content)


def _refuse_share(what: str, group: GroupId) -> NoReturn:
    raise Refused(
        Code.UNKNOWN_SHARE,
        f"{what} is not shared in {quoted(group)}",
        hint("see what is shared", "list-files", group),
    )


def _row(
    context: Context, group: Group, share: Share, besides: tuple[UserId, DeviceKey] | None = None
) -> tracker.FileRow:
    """Return the row of a share; ``besides``: an offer that is about to be added."""
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
    state: State, user: UserId, summary: c.ManifestSummary, body: bytes
) -> Decision:
    """Keep a manifest that ``user`` sent whole and that is valid."""
    shown = c.ManifestShown(user, summary.content)
    evicted = state.unshared_manifests.evict_for(user, summary.manifest_bytes)
    if summary.content in state.manifests:
        return Decision(tracker.Done(), (shown,))
    dropped = (c.ManifestDropped(other) for other in evicted)
    return Decision(tracker.Done(), (*dropped, c.ManifestStored(summary, body, user), shown))


def get_manifest(context: Context, user: UserId, command: tracker.GetManifest) -> Decision:
    """Return a part of the manifest of a content shared in a group of the caller."""
    _, content = _shared_content(context.state, user, command.group, command.content)
    total = context.state.manifests[content].manifest_bytes
    if command.offset >= total:
        raise Refused(Code.USAGE, f"the manifest has {total} bytes, none from {command.offset}")
    return Decision(deferred=ReadPart(content, command.offset, total))
