"""Framing of messages: ``[signature, request id, body, data …]``.

Owns: the outer form of all messages except the published ones (see ``common.crypto.event_seal``),
and the one place where malformed input becomes `RemoteProtocolError`. Not here: the bodies (see
``common.messages``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec
import zmq

from common import limits
from common.errors import RemoteProtocolError

MAGIC = b"MT"
VERSION = 1
SIGNATURE = MAGIC + bytes([VERSION])

Buffer = bytes | memoryview
T = TypeVar("T")
_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
"""Encode one body; the inverse is a `Decoder` for the union that it belongs to."""


class VersionMismatch(RemoteProtocolError):
    """Message in another protocol version; ``request_id`` is that of the request to refuse."""

    def __init__(self, theirs: int, request_id: bytes) -> None:
        super().__init__(
            f"the other side speaks version {theirs} of the protocol, this one {VERSION}",
            "use the same release of Mini-Torrent on both sides",
        )
        self.request_id = request_id


class Envelope(msgspec.Struct, Generic[T], frozen=True):
    """One decoded message. ``data`` is a view of the frame's own memory, never a copy."""

    request_id: bytes
    body: T
    data: memoryview | None = None


def pack(request_id: bytes, body: msgspec.Struct, data: Any = None) -> list[Any]:
    """The frames of a message; ``data`` (bytes, a view or a `zmq.Frame`) is passed on uncopied."""
    frames: list[Any] = [SIGNATURE, request_id, encode(body)]
    if data is not None:
        frames.append(data)
    return frames


def _bytes(frame: zmq.Frame | bytes) -> bytes:
    return frame if isinstance(frame, bytes) else frame.bytes


def _view(frame: zmq.Frame | bytes) -> memoryview:
    return memoryview(frame) if isinstance(frame, bytes) else frame.buffer


def cut(data: Buffer, frame_bytes: int) -> list[memoryview]:
    """Cut ``data`` into frames of that size, or of a larger one if there would be too many."""
    view = memoryview(data)
    step = frame_size(len(view), frame_bytes)
    return [view[at : at + step] for at in range(0, len(view), step)] or [view]


def frame_size(size: int, frame_bytes: int) -> int:
    """The size of the frames that `cut` makes of ``size`` bytes."""
    return max(frame_bytes, -(-size // limits.DATA_FRAMES_MAX), 1)


def joined(frames: Sequence[zmq.Frame | bytes]) -> memoryview:
    """Return the data of several frames: a view of a single frame, or a copy of several.

    Raises `RemoteProtocolError` when frames are more, or larger, than `cut` makes them.
    """
    if len(frames) == 1:
        return _view(frames[0])
    if len(frames) > limits.DATA_FRAMES_MAX or sum(map(len, frames)) > limits.REPLY_BYTES_MAX:
        raise RemoteProtocolError("data in too many frames")
    return memoryview(b"".join(map(_view, frames)))


class Decoder(Generic[T]):
    """Decoder of messages whose body is one of ``union``.

    ``data_frames`` tells how many frames of data there may be, and ``data_with`` the messages that
    may have any (None: all). Without ``request_ids`` the frame of the request id is empty.
    """

    def __init__(
        self,
        union: Any,
        *,
        data_frames: int = 1,
        data_with: tuple[type[Any], ...] | None = None,
        request_ids: bool = True,
    ) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(union)
        self._frames_max = limits.HEAD_FRAMES + data_frames
        self._data_with = data_with
        self._request_ids = request_ids

    def unpack(self, frames: Sequence[zmq.Frame | bytes]) -> Envelope[T]:
        """Decode ``frames``.

        Raises `VersionMismatch` for another version, `RemoteProtocolError` for everything else
        that is not a message of this conversation.
        """
        if not limits.HEAD_FRAMES <= len(frames) <= self._frames_max:
            raise RemoteProtocolError(f"a message of {len(frames)} frames")
        if len(frames[0]) != len(SIGNATURE):
            raise RemoteProtocolError("no signature of this protocol")
        signature = _bytes(frames[0])
        if signature[:2] != MAGIC:
            raise RemoteProtocolError("no signature of this protocol")
        if len(frames[1]) > limits.REQUEST_ID_BYTES:
            raise RemoteProtocolError("a request id that is too long")
        request_id = _bytes(frames[1])
        if signature[2] != VERSION:
            raise VersionMismatch(signature[2], request_id)
        if request_id and not self._request_ids:
            raise RemoteProtocolError("a request id where there is none")
        if len(frames[2]) > limits.BODY_BYTES_MAX:
            raise RemoteProtocolError("a body that is too long")
        body = self.decode(_bytes(frames[2]))
        data = frames[limits.HEAD_FRAMES :]
        if data and self._data_with is not None and not isinstance(body, self._data_with):
            raise RemoteProtocolError(f"data with a {type(body).__name__}")
        return Envelope(request_id, body, joined(data) if data else None)

    def decode(self, body: bytes) -> T:
        """Decode a body alone; raises `RemoteProtocolError`."""
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
            raise RemoteProtocolError(f"a malformed message: {error}") from error
