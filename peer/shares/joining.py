"""Joining of a share with the same bytes, and notes on the differences.

Pieces, algorithm, times and permissions of a share are those of the member who shared it first.
Another member with the same files serves them under that manifest, after every byte was verified.
Not here: records of shares (see peer.shares.share_records).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from shlex import quote
from typing import Any

from msgspec.structs import replace

from common import manifest as manifests
from common.digests import Algorithm
from common.errors import Refused
from common.hints import hint
from common.ids import ContentId, GroupId
from common.manifest import Entry, Manifest
from common.messages import control, tracker
from common.messages.refusals import Code
from common.names import BadName, new_share_name, quoted
from common.units import size_text
from peer.files.errors import OtherContent
from peer.files.fingerprint import SharedLocation
from peer.files.scanning import Scan
from peer.records import Manifests
from peer.shares.digesting import Report, digest, verify
from peer.shares.offers import TrackerOffers
from peer.shares.upload_line import upload_options
from peer.tracker_client.claims import check_name, check_summary
from peer.workers import Workers

KEPT_RATIO_MAX = 8  # between the piece length of an earlier version and the usual one, …
KEPT_PIECES_MAX = 1 << 17  # … or so many pieces, if someone chose shorter ones: 4 MiB of digests


@dataclass(frozen=True, slots=True)
class Ready:
    """Content that can be offered. ``joining``: under a manifest that the group has already;
    ``notes``: sentences for its user; ``version``: the one that it joins or becomes, 0 if that is
    not known; ``replaces``: as in `OfferAgreement.offer_new`."""

    content: ContentId
    manifest: Manifest
    encoded: bytes
    place: SharedLocation
    joining: bool
    notes: list[str]
    version: int = 0
    replaces: int | None = None


class Joining:
    """Prepares scanned files for an offer, under their own manifest or that of the group."""

    def __init__(self, offers: TrackerOffers, workers: Workers, kept: Manifests) -> None:
        self._offers = offers
        self._workers = workers
        self._kept = kept

    async def ready(
        self,
        command: control.UploadFile,
        group: GroupId,
        name: str,
        scanned: Scan,
        may_replace: Callable[[tracker.ShareFound], bool],
        report: Report,
    ) -> Ready:
        """Prepare scanned files. ``may_replace``: whether the user may replace what is found.

        Raises `Refused` if the name stands for other bytes, and other `MiniTorrentError`s.
        """
        notes: list[str] = []
        found = await self._offers.find(group, name)
        if found is None:
            check_new(command, group, name)
            replaces = 0 if command.replace else None
            return await self._digested(
                command, scanned, command.piece_length, notes, replaces, report
            )
        content, (model, encoded) = await self._model(found, group, name)
        try:
            # With --replace the permission to execute is a reason for a new version.
            if not _same_files(model, scanned) or (
                command.replace and _other_kinds(model, scanned)
            ):
                raise OtherContent("other files")
            place = await verify(model, scanned, report)
        except OtherContent:
            if not command.replace or not may_replace(found):
                raise _taken(command, group, name, may_replace(found)) from None
        else:
            notes += _differences(model, scanned, command)
            return Ready(content, model, encoded, place, True, notes, found.row.version)
        # Why: pieces of the same length can be taken from the earlier version by other devices.
        length = command.piece_length or _kept_length(model, scanned)
        version = found.row.version
        return await self._digested(command, scanned, length, notes, version, report)

    async def _digested(
        self,
        command: control.UploadFile,
        scanned: Scan,
        piece_length: int | None,
        notes: list[str],
        replaces: int | None,
        report: Report,
    ) -> Ready:
        algorithm = Algorithm.named(command.digest)
        digested = await digest(scanned, algorithm, piece_length, command.times, report)
        encoded = await self._workers.run(manifests.encode, digested.manifest)
        content = manifests.manifest_id(encoded)
        version = replaces + 1 if replaces else 0
        return Ready(
            content, digested.manifest, encoded, digested.place, False, notes, version, replaces
        )

    async def _model(
        self, found: tracker.ShareFound, group: GroupId, name: str
    ) -> tuple[ContentId, tuple[Manifest, bytes]]:
        """The content that the group has under ``name``, its manifest, and that encoded."""
        content = ContentId(found.row.content)
        check_name(found.row, name)
        if found.row.name != name:
            raise _twin(found.row, name)
        encoded = await self._manifest(group, content)
        model = await self._workers.run(manifests.decode, encoded, content)
        check_summary(found.row, model, name)
        return content, (model, encoded)

    async def outcome(
        self,
        command: control.UploadFile,
        group: GroupId,
        name: str,
        scanned: Scan,
        own: ContentId | None,
        may_replace: Callable[[tracker.ShareFound], bool],
    ) -> str:
        """The result that `ready` would have if the bytes are equal: new, join, again or replace.

        Reads no file. Raises `Refused` if the name stands for other files."""
        found = await self._offers.find(group, name)
        if found is None:
            check_new(command, group, name)
            return "new"
        content, (model, _) = await self._model(found, group, name)
        if not _same_files(model, scanned) or (command.replace and _other_kinds(model, scanned)):
            if command.replace and may_replace(found):
                return "replace"
            raise _taken(command, group, name, may_replace(found))
        return "again" if own == content else "join"

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


def _other_kinds(model: Manifest, scanned: Scan) -> int:
    """Count the same files that are executable in one of the two only."""
    pairs = zip(model.entries, scanned.entries, strict=True)
    return sum(one.kind is not two.kind for one, two in pairs)


def _differences(model: Manifest, scanned: Scan, command: control.UploadFile) -> list[str]:
    notes = []
    length = command.piece_length
    if length is not None and length != model.piece_length:
        notes.append(
            f"it has pieces of {size_text(model.piece_length)}, not of {size_text(length)}"
        )
    if command.digest != model.algorithm.value:
        notes.append(f"it is verified by {model.algorithm.value}, not by {command.digest}")
    kinds = _other_kinds(model, scanned)
    if kinds:
        files = "1 file is" if kinds == 1 else f"{kinds} files are"
        notes.append(f"{files} marked executable in one of the two copies only")
    count = len(model.entries)
    if command.times and not model.times:
        notes.append("it was shared without times of modification")
    elif model.times and model.times[:count] != scanned.times[:count]:
        notes.append("the times of modification differ from those of the files here")
    return [f"joined as it was shared first: {note}" for note in notes]


def _kept_length(model: Manifest, scanned: Scan) -> int | None:
    """The piece length of the version before, unless that makes very many or few pieces."""
    usual = manifests.piece_length_for(scanned.size)
    length = model.piece_length
    few = manifests.count_pieces(scanned.size, length) <= KEPT_PIECES_MAX
    kept = length <= usual * KEPT_RATIO_MAX and (few or length >= usual // KEPT_RATIO_MAX)
    return length if kept else None


def check_new(command: control.UploadFile, group: GroupId, name: str) -> None:
    """Raise `BadName` for a name that no new share may bear."""
    try:
        new_share_name(name)
    except BadName as error:
        raise BadName(error.message, _other_name(command, group, name.replace("@", "-"))) from None


def _taken(command: control.UploadFile, group: GroupId, name: str, may_replace: bool) -> Refused:
    shown = quoted(name)
    if may_replace:
        words = _options(command, replace=True)
        return Refused(
            Code.TAKEN,
            f"this group has another content, or an earlier state of it, as {shown}",
            hint("make it the next version", "upload-file", command.path, group, options=words),
        )
    stem, dot, ending = name.rpartition(".")
    other = f"{stem}-2.{ending}" if stem and dot else f"{name}-2"
    message = (
        f"replace {shown}: only its sharer and the owner of the group may"
        if command.replace
        else f"another content is shared as {shown} in this group"
    )
    advice = "share it under another name"
    if not command.replace:
        advice = f"--replace is for its sharer and the owner of the group; {advice}"
    return Refused(Code.TAKEN, message, _other_name(command, group, other, advice))


def _other_name(
    command: control.UploadFile,
    group: GroupId,
    name: str,
    words: str = "share it under another name",
) -> str:
    options = _options(command, name=name, replace=False)
    return hint(words, "upload-file", command.path, group, options=options)


def _options(command: control.UploadFile, **fields: Any) -> list[str]:
    return [*(["--yes"] if command.yes else []), *upload_options(replace(command, **fields))]


def with_path(error: Refused, path: str) -> Refused:
    """Return ``error`` of the tracker, with the path in its hint, which the tracker cannot know."""
    hint_text = error.hint
    if hint_text is None or " PATH " not in hint_text:
        return error
    return Refused(error.code, error.message, hint_text.replace(" PATH ", f" {quote(path)} ", 1))


def _twin(row: tracker.FileRow, name: str) -> Refused:
    return Refused(
        Code.TAKEN,
        f"{quoted(row.name)} is shared in this group already, which differs from {quoted(name)}"
        " only in case, in spaces at its end or in how letters are composed",
        "use that very name, or one that is plainly different",
    )
