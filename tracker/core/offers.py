"""Offers of devices: made, ended, and listed to their device.

Owns: these decisions, and the limits of what is offered. Not here: which version of a name an offer
is of (see tracker.core.versions), and which of the offering devices are online (see
tracker.core.presence).
"""

from __future__ import annotations

from bisect import bisect_right

from common import limits
from common.errors import Refused
from common.hints import hint
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.messages import events, tracker
from common.messages.refusals import Code
from common.names import fold_name, quoted, versioned
from tracker.core.budgets import Budget
from tracker.core.changes.base import Change
from tracker.core.changes.shares import (
    OfferAdded,
    OfferDropped,
    OffersEnded,
    ShareAdded,
    ShareDropped,
    VersionAdded,
    VersionsWithdrawn,
)
from tracker.core.context import Caller, Context, Decision, LogAppender, Now, group_of
from tracker.core.records import Group, ManifestSummary, Share
from tracker.core.share_names import NameId, ShareId
from tracker.core.shares import row_of, share_after
from tracker.core.state import State
from tracker.core.versions import make_space, refuse_share, version_of_offer


def offer(
    context: Context, user: UserId, caller: Caller, command: tracker.Offer, now: Now
) -> Decision:
    """Offer a content that this device holds: as a new share, or as a further seeder."""
    state, group = context.state, group_of(context.state, user, command.group)
    share_id, is_new = version_of_offer(state, group, user, command)
    name, content = command.name, ContentId(command.content)
    share, ours = group.shares.get(share_id), (user, caller.device)
    if share is not None and ours in share.offers:
        row = row_of(context, group, share_id, share)
        return Decision(tracker.Offered(row, _has_others(share, user)))
    # Invariant: an id alone tells neither whether others share the content nor the names in its
    # manifest. A caller who has not sent the manifest must send it.
    if not state.may_know(user, content):
        raise Refused(Code.NEED_MANIFEST, "the tracker does not have the manifest of this content")
    summary = state.manifests[content]
    entries = LogAppender(group, now)
    evicted = make_space(group, share_id, user, entries, now) if is_new else []
    if not any(isinstance(change, VersionsWithdrawn) and change.contents for change in evicted):
        _check_room(state, group, share, user)
    _check_offers(state, user, caller.device)
    _check_manifests(state, share, user, summary)
    first_offer = share is None or not share.is_of(user)
    if first_offer:  # two entries: this one and that of its end
        spent = state.budgets.spend(Budget.ENTRIES, user, 2 + len(evicted), now.wall_ms)
    else:
        spent = state.budgets.spend(Budget.OFFERS, user, 1, now.wall_ms, caller.device)
    changes: list[Change] = [*evicted]
    if is_new:
        changes.append(VersionAdded(group.id, share_id, name, content, user, now.wall_ms))
    if share is None:
        share = Share(group.id, share_id, name, content, now.wall_ms)
        changes.append(ShareAdded(group.id, share_id, content, now.wall_ms))
        event: events.GroupEvent = events.Shared(
            user,
            name,
            content,
            summary.size,
            summary.files,
            summary.algorithm,
            summary.digest,
            share_id.version,
        )
    else:
        event = events.Seeding(user, name, content, share_id.version)
    changes.append(OfferAdded(group.id, share_id, content, user, caller.device, now.wall_ms))
    if first_offer:  # a further device of a user who seeds it makes no entry
        changes.append(entries.add(event))
    row = row_of(context, group, share_id, share, besides=ours)
    return Decision(tracker.Offered(row, _has_others(share, user)), (*changes, spent))


def _check_room(state: State, group: Group, share: Share | None, user: UserId) -> None:
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


def _check_offers(state: State, user: UserId, device: DeviceKey) -> None:
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
    state: State, share: Share | None, user: UserId, summary: ManifestSummary
) -> None:
    if share is not None and share.is_of(user):
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
    return any(other != user for other, _ in share.offers)


def stop_share(
    context: Context, user: UserId, caller: Caller, command: tracker.StopShare, now: Now
) -> Decision:
    """End this device's offers of a name, or of one version; the last offer ends the share.

    If this device offers none of them, end the offers of those devices of the user that are logged
    out: they could not be ended there.
    """
    group = group_of(context.state, user, command.group)
    shares = _shares_named(group, command)
    ours = (user, caller.device)
    devices = context.state.devices
    ending = {share_id: [ours] for share_id, share in shares if ours in share.offers} or {
        share_id: [o for o in share.offers if o[0] == user and devices.get(o[1]) != user]
        for share_id, share in shares
    }
    if not any(ending.values()):
        raise Refused(
            Code.UNKNOWN_SHARE,
            f"this device does not share {quoted(versioned(command.name, command.version))}"
            " in that group",
            hint("see what is shared", "list-files", group.id),
        )
    changes: list[Change] = []
    entries = LogAppender(group, now)
    for share_id, share in shares:
        offers = ending.get(share_id)
        if not offers:
            continue
        changes += [OfferDropped(group.id, share_id, share.content, *offer) for offer in offers]
        if len(share.offers) == len(offers):
            changes.append(ShareDropped(group.id, share_id, share.content, now.wall_ms))
        if not any(offer[0] == user and offer not in offers for offer in share.offers):
            changes.append(entries.add(_ending_event(share_id, share, user)))
    return Decision(tracker.Done(), tuple(changes))


def _shares_named(group: Group, command: tracker.StopShare) -> list[tuple[ShareId, Share]]:
    """Return the offered versions that ``command`` means. Raise `Refused` if there are none."""
    name_id = NameId(fold_name(command.name))
    name = group.names.by_id.get(name_id)
    versions = name.offered if name is not None else []
    ids = [ShareId(name_id, k) for k in versions if command.version in (0, k)]
    if not ids:
        refuse_share(quoted(versioned(command.name, command.version)), group.id)
    return [(share_id, group.shares[share_id]) for share_id in ids]


def end_offers(
    group: Group, user: UserId, entries: LogAppender, now: Now, device: DeviceKey | None = None
) -> list[Change]:
    """End all offers in ``group`` of ``user``, or of one ``device`` of that user, who leaves.

    Return one change, and an entry for each share that the user no longer offers.
    """
    ended: list[Change] = []
    offered = False
    for share_id, share in group.shares.items():
        theirs = [offering for other, offering in share.offers if other == user]
        leaving = [offering for offering in theirs if device in (None, offering)]
        offered |= bool(leaving)
        if leaving and len(leaving) == len(theirs):
            ended.append(entries.add(_ending_event(share_id, share, user)))
    return [OffersEnded(group.id, user, now.wall_ms, device), *ended] if offered else []


def _ending_event(
    share_id: ShareId, share: Share, user: UserId
) -> events.Unshared | events.Stopped:
    """Return the event of the last offer of ``user`` for a share ending."""
    last = all(other == user for other, _ in share.offers)
    ended = events.Unshared if last else events.Stopped
    return ended(user, share.name, share.content, share_id.version)


def my_offers(
    context: Context, user: UserId, caller: Caller, command: tracker.MyOffers
) -> Decision:
    """List the offers of this device, sorted by group, then as in `list_files`."""
    group, _, text = command.after.partition("/")
    after = (GroupId(group), share_after(text))
    offered = context.state.offers_of.get((user, caller.device), [])
    start = bisect_right(offered, after, key=_place)
    listed = offered[start : start + tracker.PAGE_ROWS]
    rows = [tracker.OfferRow(s.group, s.name, s.content, s.id.version) for s in listed]
    return Decision(tracker.OfferRows(rows, start + len(rows) < len(offered)))


def _place(share: Share) -> tuple[GroupId, ShareId]:
    return share.group, share.id
