"""Joining of a share with the same bytes, and notes on the differences.

Pieces, algorithm, times and permissions of a share are those of the member who shared it first.
Another member with the same files serves them under that manifest, after every byte was verified.
Not here: records of shares (see peer.shares.share_records).
"""

from __future__ import annotations

from dataclasses import dataclass

from common import manifest as manifests
from common.digests import Algorithm
from common.errors import Refused
from common.hints import hint
from common.ids import ContentId, GroupId
from common.manifest import Entry, Manifest
from common.messages import control, tracker
from common.messages.refusals import Code
from common.names import quoted
from common.units import size_text
from peer.files.errors import OtherContent
from peer.files.fingerprint import SharedLocation
from peer.files.scanning import Scan
from peer.records import Manifests
from peer.shares.digesting import Report, digest, verify
from peer.shares.offers import TrackerOffers
from peer.tracker_client.claims import check_name, check_summary
from peer.workers import Workers

LEFT_OUT_NAMED_MAX = 5  # parts of downloads in a note; the rest is counted


@dataclass(frozen=True, slots=True)
class Ready:
    """Content that can be offered. ``joining``: under a manifest that the group has already;
    ``notes``: sentences for its user."""

    content: ContentId
    manifest: Manifest
    encoded: bytes
    place: SharedLocation
    joining: bool
    notes: list[str]


class Joining:
    """Prepares scanned files for an offer, under their own manifest or that of the group."""

    def __init__(self, offers: TrackerOffers, workers: Workers, kept: Manifests) -> None:
        self._offers = offers
        self._workers = workers
        self._kept = kept

    async def ready(
        self,
        ask: control.UploadFile,
        group: GroupId,
        name: str,
        scanned: Scan,
        own: ContentId | None,
        report: Report,
    ) -> Ready:
        """Prepare scanned files. ``own``: the content that this device shares under that name now.

        Raises `Refused` if the name stands for other bytes, and other `MiniTorrentError`s.
        """
        algorithm = Algorithm.named(ask.digest)
        notes = _notes_on_parts(scanned)
        found = await self._offers.find(group, name)
        if found is None:
            digested = await digest(scanned, algorithm, ask.piece_length, ask.times, report)
            encoded = await self._workers.run(manifests.encode, digested.manifest)
            content = manifests.manifest_id(encoded)
            return Ready(content, digested.manifest, encoded, digested.place, False, notes)
        content = ContentId(found.row.content)
        check_name(found.row, name)
        if found.row.name != name:
            raise _twin(found.row, name)
        encoded = await self._manifest(group, content)
        model = await self._workers.run(manifests.decode, encoded, content)
        check_summary(found.row, model, name)
        if not _same_files(model, scanned):
            raise _taken(ask, group, name, own == content)
        try:
            place = await verify(model, scanned, report)
        except OtherContent:
            raise _taken(ask, group, name, own == content) from None
        notes += _differences(model, scanned, ask)
        return Ready(content, model, encoded, place, True, notes)

    async def _manifest(self, group: GroupId, content: ContentId) -> bytes:
        kept = self._kept.get(content)
        if kept is not None and manifests.manifest_id(kept) == content:
            return kept
        return await self._offers.manifest(group, content)


def _same_files(model: Manifest, scanned: Scan) -> bool:
    """Whether both have the same paths and sizes. Permission to execute may differ."""
    return [*map(_form, model.entries)] == [*map(_form, scanned.entries)]


def _form(entry: Entry) -> tuple[str, int, bool]:
    return entry.path, entry.size, entry.kind is manifests.EntryKind.FOLDER


def _differences(model: Manifest, scanned: Scan, ask: control.UploadFile) -> list[str]:
    notes = []
    length = ask.piece_length
    if length is not None and length != model.piece_length:
        notes.append(
            f"it has pieces of {size_text(model.piece_length)}, not of {size_text(length)}"
        )
    if ask.digest != model.algorithm.value:
        notes.append(f"it is verified by {model.algorithm.value}, not by {ask.digest}")
    kinds = sum(
        one.kind is not two.kind for one, two in zip(model.entries, scanned.entries, strict=True)
    )
    if kinds:
        files = "1 file is" if kinds == 1 else f"{kinds} files are"
        notes.append(f"{files} marked executable in one of the two copies only")
    count = len(model.entries)
    if ask.times and not model.times:
        notes.append("it was shared without times of modification")
    elif model.times and model.times[:count] != scanned.times[:count]:
        notes.append("the times of modification differ from those of the files here")
    return [f"joined as it was shared first: {note}" for note in notes]


def _notes_on_parts(scanned: Scan) -> list[str]:
    left_out = scanned.left_out
    if not left_out:
        return []
    named = ", ".join(map(quoted, left_out[:LEFT_OUT_NAMED_MAX]))
    more = len(left_out) - LEFT_OUT_NAMED_MAX
    return [f"left out, for downloads fill them: {named}" + (f" and {more} more" * (more > 0))]


def _taken(ask: control.UploadFile, group: GroupId, name: str, own: bool) -> Refused:
    shown = quoted(name)
    if own:
        return Refused(
            Code.TAKEN,
            f"you share another content as {shown} in this group, or its former state",
            hint("end that first", "stop-share", group, name),
        )
    stem, dot, ending = name.rpartition(".")
    other = f"{stem}-2.{ending}" if stem and dot else f"{name}-2"
    options = [*(["--yes"] if ask.yes else []), "--name", other]
    return Refused(
        Code.TAKEN,
        f"another content is shared as {shown} in this group",
        hint("share it under another name", "upload-file", ask.path, group, options=options),
    )


def _twin(row: tracker.FileRow, name: str) -> Refused:
    return Refused(
        Code.TAKEN,
        f"{quoted(row.name)} is shared in this group already, which differs from {quoted(name)}"
        " only in case, in spaces at its end or in how letters are composed",
        "use that very name, or one that is plainly different",
    )
