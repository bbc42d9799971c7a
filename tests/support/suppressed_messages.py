"""Loss of single messages on a line that otherwise works, as an attacker on the way causes it.

`Swallow` reads the frames of ZMTP out of what passes in one direction of one connection, and leaves
out some that follow each other, once. With CURVE each frame is a message of its own to ZMTP and
nothing of it can be read, but its size tells what it is.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

GREETING_BYTES = 64
LONG, COMMAND = 0x02, 0x04
CURVE_BYTES = 33  # what a frame has more than its content: a name, a nonce, flags and a tag
SIGNATURE_BYTES = 3  # the first frame of every message of ours


@dataclass
class Swallow:
    """Rule of what is left out: ``count`` frames, the first of which is one of ``first_sizes``, or
    longer than ``longer_than``, after ``skip`` such frames have passed."""

    first_size: int = -1
    longer_than: int = 1 << 62
    count: int = 1
    skip: int = 0
    done: threading.Event = field(default_factory=threading.Event)
    _left: int = 0

    def takes(self, size: int) -> bool:
        """Whether the frame that comes is left out."""
        if self._left:
            self._left -= 1
            return True
        if self.done.is_set() or not (size == self.first_size or size > self.longer_than):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self._left = self.count - 1
        self.done.set()
        return True


class Frames:
    """One direction of one connection of ZMTP, frame by frame."""

    def __init__(self, swallow: Swallow) -> None:
        self._swallow = swallow
        self._greeting = GREETING_BYTES
        self._kept = b""
        self._body = 0
        self._taken = False

    def passing(self, data: bytes) -> bytes:
        """The bytes to forward of ``data``, and of those that were kept back before it."""
        out = bytearray()
        data = self._kept + data
        at = 0
        while at < len(data):
            if self._greeting or self._body:
                step = min(self._greeting or self._body, len(data) - at)
                if self._greeting or not self._taken:
                    out += data[at : at + step]
                if self._greeting:
                    self._greeting -= step
                else:
                    self._body -= step
                at += step
                continue
            head = 9 if data[at] & LONG else 2
            if len(data) - at < head:
                break
            self._body = int.from_bytes(data[at + 1 : at + head], "big")
            self._taken = not data[at] & COMMAND and self._swallow.takes(self._body)
            if not self._taken:
                out += data[at : at + head]
            at += head
        self._kept = data[at:]
        return bytes(out)
