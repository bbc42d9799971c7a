"""Commands about follows: begin, end and list them.

Owns the rows and texts for users. Not here: the follows (see peer.follows).
"""

from __future__ import annotations

from common import names
from common.ids import GroupId
from common.messages import control
from common.shared_refusals import no_group, not_logged_in, still_pending
from common.units import count_text
from peer.control.views import time_text
from peer.downloads.views import shown_path
from peer.follows.following import Following
from peer.follows.manager import Follows
from peer.follows.plan import Standing, State
from peer.follows.records import FollowRecord
from peer.tracker_client.group_replica import GroupReplica

_COMING = (State.FETCHING, State.QUEUED)
_STUCK = (State.WAITING, State.FAILED)
# The states in the order of a listing: first what a user may have to act on.
_ORDER = {
    state: at
    for at, state in enumerate(
        (
            State.FAILED, State.WAITING, State.FETCHING, State.QUEUED,
            State.LEFT_OUT, State.DISMISSED, State.ELSEWHERE,
        )
    )
}  # fmt: skip


class FollowCommands:
    """Carries out `follow`, `unfollow` and `list-follows`."""

    def __init__(self, follows: Follows, replica: GroupReplica) -> None:
        self._follows = follows
        self._replica = replica

    async def handle(
        self, command: control.Follow | control.Unfollow | control.ListFollows
    ) -> control.Follows:
        """Carry ``command`` out. Raises `MiniTorrentError`."""
        match command:
            case control.Follow(group_text, path, globs, keep_versions):
                group = await self._group(group_text)
                following = await self._follows.follow(group, path, globs, keep_versions)
                row = follow_row(following)
                text = f"following {group} into {names.printable(row.path)}"
                return control.Follows([row], text)
            case control.Unfollow(group_text, path):
                ended = await self._follows.unfollow(names.group_id(group_text), path)
                where = ", ".join(names.printable(shown_path(record.text)) for record in ended)
                text = f"no longer following {names.printable(group_text)} into {where}; the files"
                return control.Follows([_ended_row(each) for each in ended], f"{text} stay")
            case control.ListFollows():
                if self._replica.user is None:
                    raise not_logged_in()
                return control.Follows([follow_row(each) for each in self._follows.active()])

    async def _group(self, text: str) -> GroupId:
        group = names.group_id(text)
        if self._replica.user is None:
            raise not_logged_in()
        if group not in self._replica.groups:
            await self._replica.sync()
        if group not in self._replica.groups:
            raise still_pending(group) if group in self._replica.pending else no_group(group)
        return group


def follow_row(following: Following) -> control.FollowRow:
    """A row of ``list-follows``."""
    record, standings = following.record, following.plan.standings
    unsettled = [each for each in standings if each.state is not State.HELD]
    unsettled.sort(key=lambda each: _ORDER[each.state])
    stuck = [each for each in unsettled if each.state in _STUCK]
    reason = following.away
    if reason is None and stuck:
        reason = f"{count_text(len(stuck), 'share')}: {stuck[0].reason or stuck[0].state}"
    return control.FollowRow(
        group=record.group,
        path=shown_path(record.text),
        match=record.globs,
        keep_versions=record.keep_versions,
        since=time_text(record.since_ms),
        state="following" if reason is None else "waiting",
        reason=reason,
        matching=sum(each.state is not State.LEFT_OUT for each in standings),
        held=sum(each.state in (State.HELD, State.ELSEWHERE) for each in standings),
        fetching=sum(each.state in _COMING for each in standings),
        waiting=len(stuck),
        unsettled=[_share(each) for each in unsettled[: control.FOLLOWED_SHARES_MAX]],
    )


def _ended_row(record: FollowRecord) -> control.FollowRow:
    return control.FollowRow(
        group=record.group,
        path=shown_path(record.text),
        match=record.globs,
        keep_versions=record.keep_versions,
        since=time_text(record.since_ms),
        state="ended",
        reason=None,
        matching=0,
        held=0,
        fetching=0,
        waiting=0,
    )


def _share(standing: Standing) -> control.FollowedShare:
    share = standing.share
    return control.FollowedShare(
        name=share.name,
        version=share.version,
        state=standing.state.value,
        path=shown_path(standing.path),
        size_bytes=share.size,
        verified_bytes=standing.verified_bytes,
        reason=standing.reason,
    )
