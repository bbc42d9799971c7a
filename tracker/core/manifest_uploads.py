"""Manifest uploads: parts of manifests on their way in.

Owns: the parts until a manifest is complete, in memory that is bounded in all and for each user, so
that no user prevents others from sharing. Not here: the check against the content's id (see
common.manifest), which a thread of the service does.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TypeAlias

from common import limits
from common.errors import Refused
from common.ids import ContentId, DeviceKey, UserId
from common.messages.refusals import Code

_Key: TypeAlias = tuple[DeviceKey, ContentId]


@dataclass(slots=True)
class _Upload:
    total_bytes: int
    began_at: float
    progress_at: (
        float  # when the last full part was received: single bytes do not count as progress
    )
    progress_bytes: int = 0
    body: bytearray = field(default_factory=bytearray)

    def add(self, part: bytes, now: float) -> None:
        self.body += part
        if len(self.body) - self.progress_bytes >= limits.MANIFEST_PART_BYTES:
            self.progress_at, self.progress_bytes = now, len(self.body)

    def is_over(self, now: float) -> bool:
        """Whether the upload was abandoned, or takes longer than an honest one could."""
        allowed_s = limits.UPLOAD_S + self.total_bytes / limits.UPLOAD_RATE_MIN
        return now - self.progress_at > limits.UPLOAD_IDLE_S or now - self.began_at > allowed_s


class ManifestUploads:
    """Incomplete manifests of all users and devices."""

    def __init__(self) -> None:
        self._of: dict[UserId, dict[_Key, _Upload]] = {}
        self._held: Counter[UserId] = Counter()  # bytes, of all uploads of a user together

    def take(
        self,
        user: UserId,
        device: DeviceKey,
        content: ContentId,
        total_bytes: int,
        offset: int,
        part: bytes | None,
        now: float,
    ) -> bytes | None:
        """Add ``part``. Return the whole manifest if it is complete. Raise `Refused`.

        A part that was received already is ignored; a part from 0 starts again.
        """
        if part is None or not 1 <= len(part) <= limits.MANIFEST_PART_BYTES:
            raise Refused(
                Code.MALFORMED,
                f"a part of a manifest has 1 to {limits.MANIFEST_PART_BYTES} bytes",
            )
        key = device, content
        upload = self._of.get(user, {}).get(key)
        if upload is not None and (upload.total_bytes != total_bytes or offset == 0):
            self._drop(user, key)
            upload = None
        if upload is None:
            upload = self._begin(user, key, total_bytes, offset, now)
        have = len(upload.body)
        if offset > have:
            raise Refused(Code.USAGE, f"the part at {have} is missing", "start again at 0")
        if offset < have:
            return None
        if have + len(part) > total_bytes:
            self._drop(user, key)
            raise Refused(Code.MALFORMED, "the manifest is longer than announced")
        self._make_room(user, have, len(part), now)
        upload.add(part, now)
        self._held[user] += len(part)
        if len(upload.body) < total_bytes:
            return None
        self._drop(user, key)
        return bytes(upload.body)

    def _begin(self, user: UserId, key: _Key, total_bytes: int, offset: int, now: float) -> _Upload:
        if offset != 0:
            raise Refused(Code.USAGE, "the part at 0 is missing", "start again at 0")
        mine = self._of.get(user, {})
        here = [other for other in mine if other[0] == key[0]]
        if len(here) >= limits.UPLOADS_PER_DEVICE_MAX:
            self._drop(user, min(here, key=lambda other: mine[other].progress_at))
        upload = self._of.setdefault(user, {})[key] = _Upload(total_bytes, now, now)
        return upload

    def _make_room(self, user: UserId, have: int, size: int, now: float) -> None:
        """Reserve ``size`` bytes more for an upload that has ``have``. Raise `Refused`.

        A user without other uploads may send a manifest of any allowed size. When the memory is
        full, the user with most of it loses an upload, unless that is the one who needs more.
        """
        mine = self._held[user] + size
        if mine > limits.UPLOAD_BYTES_PER_USER_MAX and self._held[user] > have:
            raise Refused(
                Code.BUSY,
                "you have too many unfinished manifest uploads",
                "try again when one of them is finished",
            )
        while self._held.total() + size > limits.UPLOAD_BYTES_MAX:
            most, held = self._held.most_common(1)[0]
            if mine >= held:
                raise Refused(
                    Code.BUSY, "too many unfinished manifest uploads", "try again in a moment"
                )
            theirs = self._of[most]
            filled = [key for key, upload in theirs.items() if upload.body]
            self._drop(most, min(filled, key=lambda key: theirs[key].progress_at))

    def _drop(self, user: UserId, key: _Key) -> None:
        mine = self._of[user]
        self._held[user] -= len(mine.pop(key).body)
        if not mine:
            del self._of[user], self._held[user]

    def sweep(self, now: float) -> None:
        """Drop uploads that were abandoned or take too long."""
        over = [
            (user, key)
            for user, uploads in self._of.items()
            for key, upload in uploads.items()
            if upload.is_over(now)
        ]
        for user, key in over:
            self._drop(user, key)
