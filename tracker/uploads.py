"""Manifests on their way in, part by part.

Owns the parts until a manifest is whole, in bounded memory. Does not look into it: whether it is
what its id says is checked by ``common.manifest`` in a thread of the shell's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from common import limits
from common.errors import Refused
from common.ids import ContentId, DeviceKey
from common.messages.refusals import Code


@dataclass(slots=True)
class _Upload:
    total_bytes: int
    touched_at: float
    body: bytearray = field(default_factory=bytearray)


class Uploads:
    """What each device has sent of which manifest."""

    def __init__(self) -> None:
        self._of: dict[DeviceKey, dict[ContentId, _Upload]] = {}
        self._held = 0  # bytes, of all uploads together

    def take(
        self,
        device: DeviceKey,
        content: ContentId,
        total_bytes: int,
        offset: int,
        part: bytes | None,
        now: float,
    ) -> bytes | None:
        """Add ``part``; the whole manifest if that was the last one. Raises `Refused`.

        A part that came already is passed over; a part from 0 begins anew.
        """
        if part is None or not 1 <= len(part) <= limits.MANIFEST_PART_BYTES:
            raise Refused(
                Code.MALFORMED,
                f"a part of a manifest has 1 to {limits.MANIFEST_PART_BYTES} bytes",
            )
        upload = self._of.get(device, {}).get(content)
        if upload is not None and (upload.total_bytes != total_bytes or offset == 0):
            self._drop(device, content)
            upload = None
        if upload is None:
            upload = self._begin(device, content, total_bytes, offset, now)
        upload.touched_at = now
        have = len(upload.body)
        if offset > have:
            raise Refused(Code.USAGE, f"the part from {have} on is missing", "begin again from 0")
        if offset < have:
            return None
        if have + len(part) > total_bytes:
            self._drop(device, content)
            raise Refused(Code.MALFORMED, "a manifest longer than it was said to be")
        if self._held + len(part) > limits.UPLOAD_BYTES_MAX:
            raise Refused(
                Code.BUSY, "too many manifests are on their way in", "try again in a moment"
            )
        upload.body += part
        self._held += len(part)
        if len(upload.body) < total_bytes:
            return None
        self._drop(device, content)
        return bytes(upload.body)

    def _begin(
        self, device: DeviceKey, content: ContentId, total_bytes: int, offset: int, now: float
    ) -> _Upload:
        if offset != 0:
            raise Refused(Code.USAGE, "the part from 0 on is missing", "begin again from 0")
        mine = self._of.setdefault(device, {})
        if len(mine) >= limits.UPLOADS_PER_DEVICE_MAX:
            self._drop(device, min(mine, key=lambda content: mine[content].touched_at))
            mine = self._of.setdefault(device, {})
        upload = mine[content] = _Upload(total_bytes, now)
        return upload

    def _drop(self, device: DeviceKey, content: ContentId) -> None:
        mine = self._of[device]
        self._held -= len(mine.pop(content).body)
        if not mine:
            del self._of[device]

    def sweep(self, now: float) -> None:
        """Drop what was given up."""
        given_up = [
            (device, content)
            for device, uploads in self._of.items()
            for content, upload in uploads.items()
            if now - upload.touched_at > limits.UPLOAD_IDLE_S
        ]
        for device, content in given_up:
            self._drop(device, content)
