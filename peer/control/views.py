"""The tracker's rows as the command line shows them: digests and keys in hex, times in RFC 3339."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

from common.crypto.keys import SHORT_ID_CHARACTERS, key_text, short_id
from common.errors import Refused
from common.manifest import EntryKind, count_pieces
from common.messages import control, events, tracker
from common.names import printable
from common.units import rfc3339
from peer.files.scanning import Scan
from peer.shares.manager import Plan, Upload
from peer.tracker_client.group_view import Gap


def time_text(time_ms: int) -> str:
    """A time of the tracker's as ``--json`` prints it."""
    return rfc3339(time_ms)


def qr_rows(text: str) -> list[str]:
    """The modules of a QR code, a text of ``0`` and ``1`` a row, without a margin."""
    import segno  # only few commands need it

    code = segno.make(text, error="m", micro=False)
    return ["".join("1" if module else "0" for module in row) for row in code.matrix]


def group_row(row: tracker.GroupRow) -> control.GroupRow:
    """A row of ``list-groups``."""
    return control.GroupRow(row.group, row.owner, row.members, row.role)


def user_row(row: tracker.UserRow) -> control.UserRow:
    """A row of ``list-members`` and ``list-requests``."""
    return control.UserRow(row.user, row.role, time_text(row.since_ms), row.online, row.follows)


def device_rows(rows: Sequence[tracker.OwnDevice], own: bytes) -> list[control.DeviceRow]:
    """The rows of ``list-devices``, the newest login last; ``own`` is this device's key."""
    ids = short_ids([row.device for row in rows])
    return [
        control.DeviceRow(
            id=ids[row.device],
            device=key_text(row.device),
            bound=time_text(row.bound_ms),
            seen=time_text(row.seen_ms),
            online=row.online,
            address=row.endpoint,
            this=row.device == own,
        )
        for row in sorted(rows, key=lambda row: (row.bound_ms, row.device))
    ]


def short_ids(keys: Iterable[bytes]) -> dict[bytes, str]:
    """The beginning of each key in hexadecimal, as long as it takes to tell them apart."""
    whole, length = {key: key.hex() for key in keys}, SHORT_ID_CHARACTERS
    while len({text[:length] for text in whole.values()}) < len(whole):
        length += 1
    return {key: text[:length] for key, text in whole.items()}


def holder_row(row: tracker.HolderRow, share: tracker.FileRow) -> control.HolderRow:
    """A row of ``who-has`` and ``wait``."""
    held_bytes = share.size if row.copy else min(row.held * share.piece_length, share.size)
    return control.HolderRow(
        user=row.user,
        device=key_text(row.device),
        state=row.state.value,
        verified_bytes=held_bytes,
        since=time_text(row.since_ms),
        size_bytes=share.size,
        id=short_id(row.device),
    )


def file_row(row: tracker.FileRow) -> control.FileRow:
    """A row of ``list-files``."""
    return control.FileRow(
        name=row.name,
        size_bytes=row.size,
        files=row.files,
        pieces=row.pieces,
        piece_bytes=row.piece_length,
        algorithm=row.algorithm,
        digest=row.digest.hex(),
        seeders=row.seeders,
        leechers=row.leechers,
        shared_by=row.shared_by,
        version=row.version,
        current=row.current,
        folder=row.folder,
    )


def uploaded(upload: Upload) -> control.Uploaded:
    """The result of ``upload-file``."""
    return control.Uploaded(
        row=file_row(upload.row),
        elapsed_s=upload.elapsed_s,
        joined=upload.joined,
        again=upload.again,
        notes=upload.notes,
        skipped=_skipped(upload.scanned),
        skipped_unnamed=upload.scanned.unnamed,
        excluded=upload.scanned.excluded,
        expires=time_text(upload.expires_ms) if upload.expires_ms else None,
    )


def planned(plan: Plan) -> control.Planned:
    """The result of ``upload-file --dry-run``."""
    scanned, refusal = plan.scanned, plan.outcome if isinstance(plan.outcome, Refused) else None
    return control.Planned(
        group=plan.group,
        name=plan.name,
        size_bytes=scanned.size,
        files=sum(entry.kind is not EntryKind.FOLDER for entry in scanned.entries),
        pieces=count_pieces(scanned.size, plan.piece_length),
        piece_bytes=plan.piece_length,
        algorithm=plan.algorithm.value,
        outcome="refused" if isinstance(plan.outcome, Refused) else plan.outcome,
        reason=None if refusal is None else refusal.message,
        hint=None if refusal is None else refusal.hint,
        question=scanned.delicate.words() if scanned.delicate else None,
        skipped=_skipped(scanned),
        skipped_unnamed=scanned.unnamed,
        excluded=scanned.excluded,
    )


def _skipped(scanned: Scan) -> list[control.SkippedRow]:
    """The entries left out. A path need not be valid UTF-8, and is sent as it is shown."""
    return [
        control.SkippedRow(printable(path), printable(reason)) for path, reason in scanned.skipped
    ]


def happened(entry: events.LogEntry) -> control.Happened:
    """An entry of a group's log as ``watch`` shows it."""
    name, details = _event(entry.event)
    return control.Happened(entry.seq, time_text(entry.time_ms), entry.group, name, details)


def missed(gap: Gap, now_ms: int) -> control.Happened:
    """A stretch of a group's log that was missed for good, in the place of its entries."""
    details: dict[str, str | int | bool] = {"first": gap.first, "last": gap.last}
    return control.Happened(gap.last, time_text(now_ms), gap.group, "gap", details)


def _event(event: events.GroupEvent) -> tuple[str, dict[str, str | int | bool]]:
    match event:
        case events.Shared():
            return "share", {
                "user": event.user,
                "name": event.name,
                "size_bytes": event.size,
                "files": event.files,
                "algorithm": event.algorithm,
                "digest": event.digest.hex(),
                "version": event.version,
            }
        case events.Unshared(user, name, _, version):
            return "unshare", {"user": user, "name": name, "last": True, "version": version}
        case events.Seeding(user, name, _, version):
            return "seeding", {"user": user, "name": name, "version": version}
        case events.Stopped(user, name, _, version):
            return "unshare", {"user": user, "name": name, "last": False, "version": version}
        case events.Withdrawn(user, name, version, earlier):
            return "withdraw", {
                "user": user,
                "name": name,
                "version": version,
                "earlier": earlier,
            }
        case events.Device(user, device, bound):
            details = {"user": user, "id": short_id(device), "device": key_text(device)}
            return ("login" if bound else "logout"), {**details}
        case events.Created(user):
            return "created", {"user": user}
        case events.Requested(user):
            return "requested", {"user": user}
        case events.Rejected(user):
            return "rejected", {"user": user}
        case events.Joined(user, by):
            return "joined", {"user": user} if by is None else {"user": user, "by": by}
        case events.Left(user):
            return "left", {"user": user}
        case events.Removed(user):
            return "removed", {"user": user}
        case events.Owner(user):
            return "owner", {"user": user}
        case _:
            assert_never(event)
