"""Command that moves a copy on this device: a share, or a complete download.

Owns which copy is meant, and when it may not be moved. Not here: the move (see peer.shares.moving).
"""

from __future__ import annotations

from common import names
from common.errors import Refused
from common.hints import hint
from common.ids import ContentId, GroupId, UserId
from common.messages import control
from common.messages.refusals import Code
from common.shared_refusals import not_logged_in
from peer.downloads.job import DownloadJob
from peer.downloads.manager import Downloads
from peer.downloads.views import copy_of, shown_path
from peer.follows.manager import Follows
from peer.records import ShareRecord
from peer.shares.digesting import Report
from peer.shares.manager import Shares
from peer.shares.moving import Movable, is_near


class Relocation:
    """Moves copies for the user who is logged in."""

    def __init__(self, shares: Shares, downloads: Downloads, follows: Follows) -> None:
        self._shares = shares
        self._downloads = downloads
        self._follows = follows

    async def move(self, command: control.Move, report: Report) -> control.Done:
        """Move the newest copy of a name, or that of NAME@K. Raises `MiniTorrentError`."""
        user, group = self._shares.user, names.group_id(command.group)
        if user is None:
            raise not_logged_in()
        record, found = self._found(user, group, command.name)
        self._refuse_shared(found)
        self._refuse_fetched(group, command.name, found.path)
        self._refuse_followed(found.path)
        moved = await self._downloads.moved.moves.move(found, command.path, report)
        path, former = shown_path(moved.path), shown_path(found.path)
        text = f"{names.printable(record.name)} is now at {path}"
        if path == former:
            text = f"{names.printable(record.name)} is already at {path}"
        elif moved.left:
            text += f"; what is no part of it, or was changed, stays at {former}"
        changed: dict[str, control.Value] = {
            "group": record.group,
            "name": record.name,
            "version": record.version,
            "path": path,
            "former_path": former,
        }
        return control.Done(text, changed)

    def _found(self, user: UserId, group: GroupId, name: str) -> tuple[ShareRecord, Movable]:
        """The copy that is meant: the share of the version, or else the download of it."""
        for text, version in dict.fromkeys([(name, 0), names.split_version(name)]):
            shares = [
                record
                for record in self._shares.versions_of(user, group, text)
                if version in (0, record.version)
            ]
            jobs = [
                job
                for job in self._downloads.moved.all()
                if job.complete and job.record.user == user and _is(job, group, text, version)
            ]
            newest = max([0, *(r.version for r in shares), *(j.record.version for j in jobs)])
            for record in shares:
                if record.version == newest:
                    looks = record.place.fingerprints
                    return record, Movable(ContentId(record.content), record.place.path, looks)
            jobs = [job for job in jobs if job.record.version == newest]
            if len(jobs) > 1:
                places = ", ".join(names.quoted(job.path) for job in jobs)
                raise Refused(
                    Code.USAGE,
                    f"move {names.quoted(name)}: there are {len(jobs)} copies of it, none of them"
                    f" shared: {places}",
                    "move one with the tools of the system, or share it first",
                )
            for job in jobs:
                return _of(job)
        self._refuse_unfinished(group, name)
        raise Refused(
            Code.UNKNOWN_SHARE,
            f"this device has no copy of {names.quoted(name)} in group {names.quoted(group)}",
            hint("see what it shares", "list-shares"),
        )

    def _refuse_unfinished(self, group: GroupId, name: str) -> None:
        for text, version in dict.fromkeys([(name, 0), names.split_version(name)]):
            for job in self._downloads.moved.all():
                if not job.complete and _is(job, group, text, version):
                    raise _is_fetched(group, name)

    def _refuse_fetched(self, group: GroupId, name: str, path: str) -> None:
        for job in self._downloads.moved.all():
            if is_near(job.path, path) and not (job.complete and job.at_rest):
                raise _is_fetched(group, name)

    def _refuse_shared(self, found: Movable) -> None:
        path = names.quoted(found.path)
        for record in self._shares.moving.near(found.path):
            shown = names.quoted(record.name)
            if record.place.path != found.path:
                raise Refused(
                    Code.FAILED,
                    f"move {path}: {names.quoted(record.place.path)}, shared as {shown}, would"
                    " change",
                    hint("stop sharing it first", "stop-share", record.group, record.name),
                )
            if record.content != found.content:
                raise Refused(
                    Code.FAILED,
                    f"move {path}: it is shared as {shown} too, with other files",
                    hint("stop sharing that first", "stop-share", record.group, record.name),
                )
            if record.place.links:
                raise Refused(
                    Code.FAILED,
                    f"move {path}: it is shared with its links, which would lead elsewhere",
                    "move it with the tools of the system, and share it again with --links follow",
                )
        if any(share.checking for share in self._shares.moving.at(found.path)):
            raise Refused(Code.BUSY, f"move {path}: it is being verified", "try again in a while")

    def _refuse_followed(self, path: str) -> None:
        follow = self._follows.holder_of(path)
        if follow is not None:
            shown = names.quoted(follow.text)
            raise Refused(
                Code.FAILED,
                f"move {names.quoted(path)}: it is kept there by the follow of {follow.group} into"
                f" {shown}",
                hint("end the follow first", "unfollow", follow.group, follow.text),
            )


def _is(job: DownloadJob, group: GroupId, name: str, version: int) -> bool:
    is_name = names.fold_name(job.record.name) == names.fold_name(name)
    return is_name and job.group == group and version in (0, job.record.version)


def _of(job: DownloadJob) -> tuple[ShareRecord, Movable]:
    return copy_of(job), Movable(job.content, job.path, files=tuple(job.record.files))


def _is_fetched(group: GroupId, name: str) -> Refused:
    return Refused(
        Code.BUSY,
        f"move {names.quoted(name)}: it is still being downloaded",
        hint("wait for its end, or cancel it", "cancel", group, name),
    )
