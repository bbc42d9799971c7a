"""Versions of a name: which one an offer is of, the right to replace and withdraw, and the bounds.

Owns: these decisions. A name means one content at a time, its current version; having fetched a
content gives no right to its name. Not here: offers and their limits (see tracker.core.offers).

Invariant: a version that is on record has one content for good, and a version that was withdrawn is
offered again only under a higher number.
"""

from __future__ import annotations

from typing import NoReturn

from common import limits
from common.errors import Refused
from common.hints import hint
from common.ids import ContentId, GroupId, UserId
from common.messages import events, tracker
from common.messages.refusals import Code
from common.names import fold_name, new_share_name, quoted, share_name, versioned
from tracker.core.changes.base import Change
from tracker.core.changes.shares import NameForgotten, VersionsWithdrawn
from tracker.core.context import Context, Decision, LogAppender, Now, group_of
from tracker.core.records import Group, Share
from tracker.core.share_names import Name, NameId, ShareId, Version
from tracker.core.state import State

# -- the version that a command means -----------------------------------------------------------


def find_version(group: Group, text: str, version: int) -> tuple[ShareId, Share]:
    """Return a version that is offered, 0 for the current one. Raise `Refused` without one."""
    name_id = NameId(fold_name(text))
    name = group.names.by_id.get(name_id)
    share_id = ShareId(name_id, version or (name.current if name else 0))
    share = group.shares.get(share_id)
    if share is not None:
        return share_id, share
    if name is None or not name.offered:
        refuse_share(quoted(versioned(text, version)), group.id)
    latest = versioned(name.text, max(name.offered))
    if version:
        raise Refused(
            Code.UNKNOWN_SHARE,
            f"version {version} of {quoted(name.text)} is not shared in {quoted(group.id)}",
            hint("see what is shared", "list-files", group.id, options=("--versions",)),
        )
    raise Refused(
        Code.UNKNOWN_SHARE,
        f"version {name.current}, the current one of {quoted(name.text)}, is no longer shared"
        f" in {quoted(group.id)}",
        hint("fetch an earlier one", "download-file", group.id, latest),
    )


def refuse_share(what: str, group: GroupId) -> NoReturn:
    """Raise the `Refused` of a share that is not listed."""
    raise Refused(
        Code.UNKNOWN_SHARE,
        f"{what} is not shared in {quoted(group)}",
        hint("see what is shared", "list-files", group),
    )


def version_of_offer(
    state: State, group: Group, user: UserId, command: tracker.Offer
) -> tuple[ShareId, bool]:
    """Return the version that ``command`` offers, and whether it is not on record yet."""
    text, wanted = share_name(command.name), command.version
    name_id = NameId(fold_name(text))
    name = group.names.by_id.get(name_id)
    if name is not None and name.offered and name.text != text:
        raise Refused(
            Code.TAKEN,
            f"this content is shared as {quoted(name.text)} already, which differs from"
            f" {quoted(text)} only in case or in how letters are composed",
            "use that very name, or one that is plainly different",
        )
    if name is None or not name.offered:
        new_share_name(text)
    if name is None:
        return ShareId(name_id, _near(max(wanted, 1), 0)), True
    if not name.offered:
        free = command.replace or not wanted
        version = name.current + 1 if free else _not_withdrawn(name, wanted)
        return ShareId(name_id, _near(version, name.current)), True
    content = ContentId(command.content)
    if wanted and not command.replace:
        return _offered_again(state, group, user, name_id, name, wanted, content)
    known = name.version(name.current)
    if known is not None and not known.withdrawn and known.content == content:
        return ShareId(name_id, name.current), False
    _check_replaces(state, group, user, name, command)
    return ShareId(name_id, _near(name.current + 1, name.current)), True


def _offered_again(
    state: State,
    group: Group,
    user: UserId,
    name_id: NameId,
    name: Name,
    wanted: int,
    content: ContentId,
) -> tuple[ShareId, bool]:
    known = name.version(_not_withdrawn(name, wanted))
    if known is not None and known.content == content:
        return ShareId(name_id, wanted), False
    # A tracker restored from a backup knows less than the devices.
    if known is None and wanted > name.current and may_replace(state, group, name, user):
        return ShareId(name_id, _near(wanted, name.current)), True
    raise Refused(
        Code.TAKEN,
        f"group {quoted(group.id)} has another content as {quoted(versioned(name.text, wanted))}",
        hint("see what is shared", "list-files", group.id, options=("--versions",)),
    )


def _not_withdrawn(name: Name, version: int) -> int:
    if not name.may_be_offered(version):
        raise Refused(
            Code.WITHDRAWN, f"version {version} of {quoted(name.text)} was withdrawn in its group"
        )
    return version


def _near(version: int, current: int) -> int:
    """Return ``version``, unless the counter could be used up by it."""
    if version > min(current + limits.VERSIONS_AHEAD_MAX, limits.VERSION_MAX):
        raise Refused(Code.LIMIT, f"version {version:,} is too high; the last was {current:,}")
    return version


# -- rights -------------------------------------------------------------------------------------


def may_replace(state: State, group: Group, name: Name, user: UserId) -> bool:
    """Whether ``user`` may make the next version, and withdraw the name."""
    latest = name.versions[-1] if name.versions else None
    return user == group.owner or _shared_first(state, latest, user)


def _shared_first(state: State, version: Version | None, user: UserId) -> bool:
    """Whether ``user`` shared a version first. A later account of the same name did not."""
    account = state.accounts.get(user)
    if version is None or account is None:
        return False
    return version.user == user and account.at_ms <= version.at_ms


def _check_replaces(
    state: State, group: Group, user: UserId, name: Name, command: tracker.Offer
) -> None:
    allowed = may_replace(state, group, name, user)
    if command.replace and allowed:
        if command.version in (0, name.current + 1):
            return
        raise Refused(
            Code.CHANGED,
            f"{quoted(name.text)} was replaced meanwhile: its version is {name.current} now",
            hint("see its versions", "list-files", group.id, options=("--versions",)),
        )
    if command.replace:
        message = (
            f"replace {quoted(name.text)}: only its sharer and the owner of {quoted(group.id)} may"
        )
    else:
        message = f"another content is shared as {quoted(name.text)} in {quoted(group.id)}"
    words, options = (
        ("make it the next version", ("--replace", "--name", name.text))
        if allowed
        else ("share it under another name", ("--name", "NAME"))
    )
    raise Refused(
        Code.TAKEN, message, hint(words, "upload-file", "PATH", group.id, options=options)
    )


# -- ends ---------------------------------------------------------------------------------------


def withdraw(context: Context, user: UserId, command: tracker.Withdraw, now: Now) -> Decision:
    """End all offers of a name or of one version, which may then not be offered again."""
    state, version = context.state, command.version
    group = group_of(state, user, command.group)
    name_id = NameId(fold_name(command.name))
    name = group.names.by_id.get(name_id)
    on_record = name is not None and (name.version(version) if version else name.offered)
    if name is None or not on_record or not name.may_be_offered(version or name.current + 1):
        refuse_share(quoted(versioned(command.name, version)), group.id)
    if not may_replace(state, group, name, user) and not (
        version and _shared_first(state, name.version(version), user)
    ):
        raise Refused(
            Code.NOT_OWNER,
            f"withdraw {quoted(name.text)}: only its sharer and the owner of"
            f" {quoted(group.id)} may",
            hint("end your own offer", "stop-share", group.id, name.text),
        )
    change = _withdrawal(group, name_id, name, version or name.current, not version, now)
    event = events.Withdrawn(user, name.text, change.version, change.earlier)
    room = len(group.names.ended) >= limits.NAMES_WITHDRAWN_MAX
    forgotten = [NameForgotten(group.id, next(iter(group.names.ended)))] if room else []
    return Decision(tracker.Done(), (*forgotten, change, LogAppender(group, now).add(event)))


def make_space(
    group: Group, share: ShareId, user: UserId, entries: LogAppender, now: Now
) -> list[Change]:
    """Withdraw the earliest versions of a name that gets the version ``share``, if it is full."""
    name = group.names.by_id.get(share.name)
    if name is None or not name.versions:
        return []
    numbers = [known.number for known in name.versions]
    oldest = numbers[: len(numbers) + 1 - limits.VERSIONS_PER_NAME_MAX]
    # A full group takes a new version for an old one.
    if len(group.shares) >= limits.SHARES_PER_GROUP_MAX and name.offered:
        oldest = [*oldest, min(name.offered)]
    if not oldest:
        return []
    change = _withdrawal(group, share.name, name, max(oldest), earlier=True, now=now)
    if not change.contents:
        return [change]
    return [change, entries.add(events.Withdrawn(user, name.text, change.version, True))]


def names_to_forget(group: Group) -> list[Change]:
    """Forget the names that ended longest ago, beyond the bound."""
    ended = group.names.ended
    return [
        NameForgotten(group.id, name_id)
        for name_id, _ in zip(ended, range(len(ended) - limits.NAMES_WITHDRAWN_MAX), strict=False)
    ]


def _withdrawal(
    group: Group, name_id: NameId, name: Name, version: int, earlier: bool, now: Now
) -> VersionsWithdrawn:
    ending = [k for k in name.offered if k == version or (earlier and k < version)]
    contents = tuple(group.shares[ShareId(name_id, k)].content for k in ending)
    return VersionsWithdrawn(group.id, name_id, version, earlier, contents, now.wall_ms)
