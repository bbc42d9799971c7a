"""Request table: requests to the tracker that wait for a reply, by request id.

Owns: request ids, matching of replies, and repetition after a reconnection. Not here: connections,
and the time at which requests fail without one (see ``peer.tracker_client.link``).

Invariant: a repeated request keeps its id, by which the tracker recognises a command that it has
carried out already.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from common import limits
from common.errors import MiniTorrentError, Refused, RemoteProtocolError
from common.messages import tracker
from common.messages.base import Refusal
from common.net.codec import Decoder, VersionMismatch, pack
from common.net.pump import Frames, Sent

log = logging.getLogger(__name__)

R = TypeVar("R")
_replies: Decoder[tracker.Reply] = Decoder(tracker.Reply, data_with=(tracker.ManifestPart,))


@dataclass(frozen=True, slots=True)
class Answer(Generic[R]):
    """Reply, with the bytes of its data frame."""

    reply: R
    data: bytes


@dataclass(slots=True, eq=False)
class PendingRequest:
    """Frames of a request, and the future of its reply."""

    frames: list[Any]
    future: asyncio.Future[Answer[Any]]

    def fail(self, error: MiniTorrentError) -> None:
        """Raise ``error`` in the caller, unless the request has ended."""
        if not self.future.done():
            self.future.set_exception(error)


class RequestTable:
    """Pending requests of one link.

    ``send`` sends frames on the current connection; it returns None while there is none, and the
    request then waits for `resend`. ``unreachable`` makes the error of requests that fail with the
    connection.
    """

    def __init__(
        self,
        send: Callable[[list[Any]], Sent | None],
        unreachable: Callable[[], MiniTorrentError],
        first_id: int,
    ) -> None:
        self._send = send
        self._unreachable = unreachable
        self._next_id = first_id
        self._pending: dict[bytes, PendingRequest] = {}

    def pending(self) -> list[PendingRequest]:
        """Return the requests that wait for a reply."""
        return list(self._pending.values())

    async def request(
        self,
        command: tracker.Command,
        answer: type[R] | tuple[type[R], ...],
        data: Any,
        timeout_s: float,
    ) -> Answer[R]:
        """Send ``command`` and return its reply, which must be of a type of ``answer``.

        Raises `Refused`, TimeoutError, `RemoteProtocolError` for an unexpected reply, and the error
        of ``unreachable``.
        """
        self._next_id = (self._next_id + 1) % (1 << 64)
        request_id = self._next_id.to_bytes(limits.REQUEST_ID_BYTES, "big")
        future: asyncio.Future[Answer[Any]] = asyncio.get_running_loop().create_future()
        request = PendingRequest(pack(request_id, command, data), future)
        self._pending[request_id] = request
        try:
            self._post(request)
            result = await asyncio.wait_for(future, timeout_s)
        finally:
            del self._pending[request_id]
        if isinstance(result.reply, Refusal):
            raise Refused(result.reply.code, result.reply.message, result.reply.hint)
        if not isinstance(result.reply, answer):
            raise RemoteProtocolError(
                f"the tracker answered {type(command).__name__} with {type(result.reply).__name__}"
            )
        return Answer(result.reply, result.data)

    def resend(self) -> None:
        """Send all pending requests again, on a new connection."""
        for request in self.pending():
            self._post(request)

    def _post(self, request: PendingRequest) -> None:
        if self._send(request.frames) not in (None, Sent.YES):
            request.fail(self._unreachable())

    def fail(self, requests: Iterable[PendingRequest]) -> None:
        """End ``requests`` without a reply."""
        for request in requests:
            request.fail(self._unreachable())

    def on_reply(self, frames: Frames) -> None:
        """Give a reply to its request; replies to unknown ids are ignored."""
        try:
            envelope = _replies.unpack(frames)
        except RemoteProtocolError as error:
            log.warning("a reply of the tracker is malformed: %s", error)
            # Why at once: no other reply will come under this id.
            request = self._pending.get(frames[1].bytes) if len(frames) > 1 else None
            if request is not None:
                request.fail(error if isinstance(error, VersionMismatch) else _unreadable(error))
            return
        request = self._pending.get(envelope.request_id)
        if request is not None and not request.future.done():
            data = bytes(envelope.data) if envelope.data is not None else b""
            request.future.set_result(Answer(envelope.body, data))


def _unreadable(error: RemoteProtocolError) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"the tracker's answer cannot be read: {error.message}",
        "what was asked may have been done",
    )
