"""The catalogue: what is shared in a group, under which name, and who offers it.

Decides the commands about shares, manifests and sources. Which devices of those that offer a share
are online is known to ``tracker.core.presence``; the bytes of manifests are kept by the store.
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

# -- offering -----------------------------------------------------------------------------------


def offer(
    context: Context, user: UserId, caller: Caller, command: tracker.Offer, now: Now
) -> Decision:
    """This device holds all of a content: share it, or join those who do."""
    state, group = context.state, group_of(context.state, user, command.group)
    name = share_name(command.name)
    share_id, content = c.ShareId(fold_name(name)), ContentId(command.content)
    share = group.shares.get(share_id)
    if share is not None:
        _check_same(group, share, name, content, (user, caller.device) in share.offers)
        if (user, caller.device) in share.offers:
            return Decision(tracker.Offered(_row(context, group, share), _has_others(share, user)))
    # Whether others share it elsewhere is nobody's business who does not hold it: an id alone
    # neither tells that nor gives the names in the manifest.
    if not state.may_know(user, content):
        raise Refused(Code.NEED_MANIFEST, "the tracker has not got the manifest of this content")
    summary = state.manifests[content]
    _check_room(state, group, share, user, caller.device)
    _check_manifests(state, share, user, summary)
    news = share is None or user not in share.users
    if news:  # two entries: of its beginning and of its end
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
    elif not news:
        changes = (added,)  # a further device of somebody who seeds it: no news for the log
    else:
        changes = (added, entries.add(events.Seeding(user, name, content)))
    row = _row(context, group, share, besides=(user, caller.device))
    return Decision(tracker.Offered(row, _has_others(share, user)), (*changes, spent))


def _check_same(group: Group, share: Share, name: str, content: ContentId, own: bool) -> None:
    """Refuse another content, or another spelling. ``own``: it is shared by this device so far."""
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
            f"you share {mine:,} of {quoted(group.id)}, which has room for {free:,} more:"
            " that is left to other members",
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
    """This device offers a share no more; the last one to do so withdraws it.

    Where this device does not, devices on which the user is not logged in any more cease to: nobody
    could say so on them.
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
    """What becomes of everything that ``user`` offers in ``group``, or one ``device`` of theirs,
    when they go: one change, and an entry for each share that they offer no more."""
    told: list[c.Change] = []
    offered = False
    for share in group.shares.values():
        theirs = [offering for other, offering in share.offers if other == user]
        leaving = [offering for offering in theirs if device in (None, offering)]
        offered |= bool(leaving)
        if leaving and len(leaving) == len(theirs):
            told.append(entries.add(_ending_event(share, user)))
    return [c.OffersEnded(group.id, user, now.wall_ms, device), *told] if offered else []


def _ending_event(share: Share, user: UserId) -> events.Unshared | events.Stopped:
    """What is told when ``user`` offers a share no more on any device."""
    last = all(other == user for other, _ in share.offers)
    return (events.Unshared if last else events.Stopped)(user, share.name, share.content)


def my_offers(
    context: Context, user: UserId, caller: Caller, command: tracker.MyOffers
) -> Decision:
    """What is on record as offered by this device, sorted by group, then as in `list_files`."""
    group, _, name = command.after.partition("/")
    after = (GroupId(group), c.ShareId(fold_name(name)))
    listed, more = page(context.state.offers_of.get((user, caller.device), ()), after)
    return Decision(tracker.OfferRows([_offer_row(context.state, *each) for each in listed], more))


def _offer_row(state: State, group: GroupId, share_id: c.ShareId) -> tracker.OfferRow:
    share = state.groups[group].shares[share_id]
    return tracker.OfferRow(group, share.name, share.content)


# -- finding ------------------------------------------------------------------------------------


def list_files(context: Context, user: UserId, command: tracker.ListFiles) -> Decision:
    """What is shared in a group, sorted by the names in the form in which they are compared."""
    group = group_of(context.state, user, command.group)
    keys, more = page(group.share_ids, c.ShareId(fold_name(command.after)))
    return Decision(tracker.FileRows([_row(context, group, group.shares[k]) for k in keys], more))


def find_share(
    context: Context, user: UserId, caller: Caller, command: tracker.FindShare
) -> Decision:
    """All that is needed to fetch a share."""
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
    """Others to fetch a content from."""
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
    """The row of a share, as it is or as it will be once ``besides`` offers it as well."""
    summary = context.state.manifests[share.content]
    swarm = context.presence.swarm((group.id, share.content))
    seeders, leechers = len(swarm.seeders), len(swarm.leechers)
    users: dict[str, None] = {}
    for user, _ in share.offers:
        users[user] = None
        if len(users) == SHARED_BY_MAX:  # who else offers it costs nothing
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
    """Take a part of a manifest, unless the user has shown already that they have it."""
    content = ContentId(command.content)
    if state.may_know(user, content):
        return Decision(tracker.Done())
    # Asked for whether the tracker has the content or not: a refusal must not tell that.
    state.unshared_manifests.evict_for(user, command.total_bytes)
    return Decision(deferred=TakePart(user, content, command.total_bytes, command.offset))


def manifest_gathered(
    state: State, user: UserId, summary: c.ManifestSummary, body: bytes
) -> Decision:
    """A manifest came whole from ``user`` and passed its check: keep it."""
    shown = c.ManifestShown(user, summary.content)
    gone = state.unshared_manifests.evict_for(user, summary.manifest_bytes)
    if summary.content in state.manifests:
        return Decision(tracker.Done(), (shown,))
    dropped = (c.ManifestDropped(other) for other in gone)
    return Decision(tracker.Done(), (*dropped, c.ManifestStored(summary, body, user), shown))


def get_manifest(context: Context, user: UserId, command: tracker.GetManifest) -> Decision:
    """A part of the manifest of a content that is shared in a group of the asker's."""
    _, content = _shared_content(context.state, user, command.group, command.content)
    total = context.state.manifests[content].manifest_bytes
    if command.offset >= total:
        raise Refused(Code.USAGE, f"the manifest has {total} bytes, none from {command.offset}")
    return Decision(deferred=ReadPart(content, command.offset, total))
