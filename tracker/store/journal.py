"""Journal codec: the changes and refresh hints of one commit as bytes, for other trackers.

Owns: the format number, and the check of what is read. Not here: the tag of each kind of change
(see tracker.core.changes.base), the table ``changes`` (see tracker.store.tables), and its reader
(see tracker.service.follower).

Each change is an array: its tag, then its fields in order. Invariant: a tag is never used for
another kind, and fields are appended with defaults only, so that releases of one format understand
each other. A kind that a format lacks is in ``SINCE``. Each commit has the lowest format that has
all its kinds, and is written only if every tracker that serves reads that
(see tracker.store.postgres_store).

Left out: the bodies of manifests, which are in a table of their own, and `ManifestShown`, which
concerns the uploads to one process.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, get_type_hints

import msgspec

from common.errors import StorageError
from common.hints import tracker_hint
from common.ids import DeviceKey
from tracker.core.changes.base import UNTAGGED, Change
from tracker.core.changes.shares import ManifestStored
from tracker.store.statements.writing import KINDS

FORMAT = 1
SINCE: dict[int, int] = {}
"""Formats, by tag, of the kinds of changes that came after format 1. Raise ``FORMAT`` with it."""


class UnreadableJournal(StorageError):
    """A commit in the journal that this release cannot read."""


def _record(tag: int, kind: type[Any]) -> type[msgspec.Struct]:
    """Return the array of ``kind``: its tag and its fields."""
    hints = get_type_hints(kind)
    fields: list[Any] = []
    for each in dataclasses.fields(kind):
        default = each.default
        fields.append(
            (each.name, hints[each.name])
            if default is dataclasses.MISSING
            else (each.name, hints[each.name], default)
        )
    return msgspec.defstruct(kind.__name__, fields, tag=tag, array_like=True, frozen=True)


def _fields_of(kind: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    names = [each.name for each in dataclasses.fields(kind)]
    if len(names) == 1:
        return lambda change: (getattr(change, names[0]),)
    return attrgetter(*names)


_FIELDS = {kind: _fields_of(kind) for kind in KINDS.values()}
_TAG_OF = {kind: tag for tag, kind in KINDS.items()}
_RECORDS = {_record(tag, kind): kind for tag, kind in KINDS.items()}
_RECORD_FIELDS = {
    record: (kind, attrgetter(*record.__struct_fields__), len(record.__struct_fields__) == 1)
    for record, kind in _RECORDS.items()
}


class _Body(msgspec.Struct, array_like=True):
    changes: list[Any]
    nudged: list[DeviceKey]


_Union: Any = None
for _each in _RECORDS:
    _Union = _each if _Union is None else _Union | _each


class _ReadBody(msgspec.Struct, array_like=True):
    changes: list[_Union]
    nudged: list[DeviceKey]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_ReadBody)


def encode(changes: Iterable[Change], nudged: Sequence[DeviceKey]) -> bytes:
    """Return the body of a commit."""
    records = []
    for change in changes:
        if type(change) in UNTAGGED:
            continue
        if isinstance(change, ManifestStored):
            change = dataclasses.replace(change, body=b"")
        kind = type(change)
        records.append((_TAG_OF[kind], *_FIELDS[kind](change)))
    return _encoder.encode(_Body(records, list(nudged)))


def format_of(changes: Iterable[Change]) -> int:
    """Return the lowest format that has all kinds of ``changes``."""
    if not SINCE:
        return 1
    return max((SINCE.get(_TAG_OF.get(type(each), 0), 1) for each in changes), default=1)


def decode(format_: int, body: bytes) -> tuple[tuple[Change, ...], tuple[DeviceKey, ...]]:
    """Return the changes and the nudged devices of a commit. Raise `UnreadableJournal`."""
    if format_ > FORMAT:
        raise UnreadableJournal(
            f"read the journal: a tracker of a later release wrote it (format {format_},"
            f" this release reads up to {FORMAT})",
            tracker_hint("update this tracker, then start it", "run"),
        )
    try:
        read = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise UnreadableJournal(f"read the journal: a malformed commit: {error}") from error
    changes: list[Change] = []
    for record in read.changes:
        kind, fields, single = _RECORD_FIELDS[type(record)]
        changes.append(kind(fields(record)) if single else kind(*fields(record)))
    return tuple(changes), tuple(read.nudged)
