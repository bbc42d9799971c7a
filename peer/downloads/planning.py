"""Plan of a new download: what it fetches, by its options and by what stands at its path.

Owns: the selection of files, and the decision to take what is in place, to add to it, to replace it
or to refuse. Not here: carrying it out (see peer.downloads.creation and peer.files.part_resources).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from common import names
from common.errors import Refused
from common.hints import hint
from common.host.home import default_home
from common.ids import UserId
from common.manifest import Manifest
from common.messages import control, tracker
from common.messages.refusals import Code
from common.names import quoted
from peer.downloads.earlier_versions import Version, earlier_versions, unchanged_version
from peer.downloads.in_place import content_at
from peer.downloads.job import DownloadServices
from peer.files import open_part, sharing
from peer.files.errors import AlreadyExists, ContentChanged
from peer.files.fingerprint import SharedLocation
from peer.files.selection import Selection, examples, select
from peer.records import DownloadRecord, EarlierVersion
from peer.shares.digesting import Report
from peer.swarm.fetching.picker import Order

EXAMPLES = 10  # paths of a folder in an error


class Plan(NamedTuple):
    """``place``: all that is wanted stands there already. The other fields are those of the record
    of the download."""

    size: int
    files: list[str]
    present: Sequence[str] = ()
    place: SharedLocation | None = None
    overwrite: bool = False
    replaces: EarlierVersion | None = None


async def plan(
    services: DownloadServices,
    command: control.DownloadFile,
    row: tracker.FileRow,
    user: UserId,
    decoded: Manifest,
    admitted: open_part.Admitted,
    finished: Sequence[DownloadRecord],
    report: Report,
    placed: Version | None = None,
) -> Plan:
    """The plan of a download of ``row``. ``finished`` are the records of complete downloads,
    ``placed`` is the version that a follow has put there.

    Raises `MiniTorrentError`.
    """
    run, path = services.workers.run, admitted.path
    wanted = await run(_selection, command, decoded)
    files = [] if wanted.is_whole else [*dict.fromkeys(command.files)]
    replaces = None
    if admitted.taken:
        former = _former(finished, user, row, path)
        if former is not None and former.files:
            found = await run(_addition, command, decoded, path, former, wanted)
            if found is not None:
                return found
        place = await content_at(decoded, path, report)
        if place is not None:
            return Plan(decoded.size, [], place=place)
        group, name = names.group_id(command.group), names.share_name(row.name)
        shared = services.shares.versions_of(user, group, name)
        versions = earlier_versions(row, user, group, path, shared, finished)
        versions = versions if placed is None else [placed, *versions]
        if wanted.is_whole:  # a part never takes the place of a whole unasked
            replaces = await unchanged_version(services, versions, path, report)
        if replaces is None and not command.overwrite:
            raise AlreadyExists(
                f"{quoted(path)} is already there, with another content",
                _overwriting("replace it, when the new content is verified", command),
            )
    if replaces is not None or (command.overwrite and not admitted.missing):
        homes = (str(services.home), str(default_home("peer")), str(default_home("tracker")))
        await run(open_part.require_replaceable, path, homes)
    return Plan(wanted.size, files, overwrite=command.overwrite, replaces=replaces)


def _former(
    finished: Sequence[DownloadRecord], user: UserId, row: tracker.FileRow, path: str
) -> DownloadRecord | None:
    """The record of the latest complete download of a content to a path."""
    found = [
        record
        for record in finished
        if (record.user, record.content, record.path) == (user, row.content, os.fsencode(path))
    ]
    return max(found, key=lambda record: record.started_ms, default=None)


def _selection(command: control.DownloadFile, decoded: Manifest) -> Selection:
    """The selected files. Raises `Refused` if there is none."""
    if command.files and not decoded.is_folder:
        raise Refused(
            Code.USAGE,
            f"{quoted(command.name)} is a single file, and --files selects files of a folder",
            hint("fetch it", "download-file", command.group, command.name, command.dest),
        )
    wanted = select(decoded, command.files)
    if not len(wanted):
        raise Refused(
            Code.UNKNOWN_SHARE,
            f"no file in {quoted(command.name)} matches {', '.join(map(quoted, command.files))}; "
            f"there are {examples(decoded, EXAMPLES)}",
        )
    return wanted


def _addition(
    command: control.DownloadFile,
    decoded: Manifest,
    path: str,
    former: DownloadRecord,
    wanted: Selection,
) -> Plan | None:
    """The plan to add files to those of ``former``; None if these are no longer as they were."""
    there = select(decoded, former.files)
    try:
        place = sharing.location_of(decoded, path, selected=there.entries)
    except ContentChanged:
        return None
    if not len(wanted - there):
        return Plan(there.size, former.files, place=place)
    if not command.overwrite:
        open_part.refuse_in_the_way(path, decoded, wanted - there)
    leaves = there | wanted
    files = [] if leaves.is_whole else [*dict.fromkeys([*former.files, *command.files])]
    return Plan(leaves.size, files, former.files, overwrite=command.overwrite)


def _overwriting(words: str, command: control.DownloadFile) -> str:
    """A hint: the command line that makes ``command``, and replaces what is in the way."""
    options = ["--overwrite"]
    options += [] if command.wait else ["--no-wait"]
    options += [] if command.pick == Order.RAREST.value else ["--pick", command.pick]
    options += [] if command.timeout_s is None else ["--timeout", f"{command.timeout_s:g}s"]
    options += [word for path in command.reuse for word in ("--reuse", path)]
    options += [word for pattern in command.files for word in ("--files", pattern)]
    options += [] if command.times is None else ["--times" if command.times else "--no-times"]
    return hint(words, "download-file", command.group, command.name, command.dest, options=options)
