"""Server of the control socket: a ROUTER on a private ipc socket.

Owns the running requests, each a task, and their early end when a command line hangs up or dies.
Not here: the commands (see peer.control.handlers), the other end (see peer.control.client).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import zmq

from common import limits
from common.errors import MiniTorrentError, RemoteProtocolError, exit_code_of
from common.hints import shell_hint
from common.host.control_socket import control_endpoint
from common.host.release import RELEASE
from common.messages import control
from common.messages.control import FORM
from common.messages.refusals import Code
from common.net.codec import SIGNATURE, Decoder, VersionMismatch, pack
from common.net.pump import Frames, Pump, Sent
from common.net.sockets import Private, bind, make_socket
from peer.background_tasks import BackgroundTasks

log = logging.getLogger(__name__)

ALIVE_S = 2.0  # how often a waiting command line gets a keepalive
RETRY_S = 0.1  # how soon a full connection is retried
REQUESTS_MAX = 64  # short commands at once; users start a few, scripts some more
LONG_MAX = 64  # commands at once that digest or start a download; the others queue
WAITING_MAX = 4096  # queued commands and those that wait for a download or events; few KiB each
BACKLOG_MAX = 10_000  # messages kept for a command line that does not read, e.g. a stopped one

Notify: TypeAlias = Callable[[control.Progress | control.Happened], None]
_Key: TypeAlias = tuple[bytes, bytes]  # routing id, request id
_LONG = (
    control.UploadFile
    | control.DownloadFile
    | control.AwaitDownload
    | control.AwaitCopies
    | control.ReadFile
    | control.Watch
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The rest of a command that only waits from here on, and frees its place."""

    rest: Awaitable[control.Answer]


Handle: TypeAlias = Callable[[control.Command, Notify], Awaitable[control.Answer | Waiting]]


@dataclass(slots=True)
class _Request:
    command: control.Command
    task: asyncio.Task[control.Answer]
    hung_up: bool = False
    short: bool = True


class ControlServer:
    """Answers the command lines of ``home`` by ``handle(command, notify)``.

    Thread safety: created and used in a running event loop. ``counts``: ``malformed`` messages and
    ``lost`` command lines, both dropped. Raises `CannotListen` when the socket cannot be bound.
    """

    def __init__(self, context: zmq.Context[Any], home: Path, handle: Handle) -> None:
        self.counts: Counter[str] = Counter()
        self.endpoint = control_endpoint(home)
        self._release = RELEASE
        self._log = str(home / "peer.log")
        self._handle = handle
        self._decoder: Decoder[control.Command] = Decoder(control.Command, data_frames=0)
        self._requests: dict[_Key, _Request] = {}
        self._unasked = BackgroundTasks()  # commands without an answer
        self._long = asyncio.Semaphore(LONG_MAX)  # in order of arrival
        self._backlogs: dict[bytes, deque[list[Any]]] = {}  # unsent messages by connection
        socket = make_socket(
            context, zmq.ROUTER, Private(), message_bytes_max=limits.CONTROL_BYTES_MAX
        )
        try:
            bind(socket, self.endpoint)
        except MiniTorrentError:
            socket.close(linger=0)
            raise
        self._pump = Pump(socket, self._on_message)
        self._keeper = asyncio.create_task(self._keep_in_touch())

    def close(self) -> None:
        """Stop answering and cancel the running requests. May be called twice."""
        self._keeper.cancel()
        for request in list(self._requests.values()):
            request.task.cancel()
        self._requests.clear()
        self._unasked.cancel()
        self._pump.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.endpoint.removeprefix("ipc://"))

    # -- requests -------------------------------------------------------------------------------

    def _on_message(self, frames: Frames) -> None:
        routing_id = frames[0].bytes
        try:
            envelope = self._decoder.unpack(frames[1:])
        except VersionMismatch as error:
            self.counts["malformed"] += 1
            self._send(routing_id, error.request_id, _failure(error))
            return
        except RemoteProtocolError as error:
            self.counts["malformed"] += 1
            log.warning("control: malformed message: %s", error)
            ours = len(frames) > 2 and frames[1].bytes == SIGNATURE
            if ours and len(frames[2]) <= limits.REQUEST_ID_BYTES:
                # A command line may wait, most often with a text that is far too long.
                refused = control.Failed(Code.USAGE, _why_not_asked(error), None, 2)
                self._send(routing_id, frames[2].bytes, refused)
            return
        key = (routing_id, envelope.request_id)
        match envelope.body:
            case control.Hello():
                self._send(*key, control.Welcome(self._release, FORM))
            case control.HangUp(stop_work):
                self._on_hang_up(key, stop_work)
            case command:
                self._on_command(key, command)

    def _on_command(self, key: _Key, command: control.Command) -> None:
        if key in self._requests:
            self.counts["malformed"] += 1
            return
        short = not isinstance(command, _LONG)
        taken = sum(1 for request in self._requests.values() if request.short is short)
        most = REQUESTS_MAX if short else WAITING_MAX
        if taken >= most:
            busy = control.Failed(Code.BUSY, f"the peer is busy: {most:,} commands are running")
            self._send(*key, busy)
            return
        task = asyncio.create_task(self._answer(key, command))
        self._requests[key] = _Request(command, task, short=short)
        task.add_done_callback(lambda task: self._on_done(key, task))

    def _on_hang_up(self, key: _Key, stop_work: bool) -> None:
        request = self._requests.get(key)
        if request is None:
            return
        request.hung_up = True
        request.task.cancel()
        if stop_work and isinstance(request.command, control.DownloadFile):
            # Why: the download outlives the command that waits for it.
            cancel = control.Cancel(request.command.group, request.command.name)
            self._unasked.start(self._answer(key, cancel))

    async def _answer(self, key: _Key, command: control.Command) -> control.Answer:
        def notify(message: control.Progress | control.Happened) -> None:
            if key in self._requests:
                self._send(*key, message)

        try:
            if not isinstance(command, _LONG):
                return await self._ended(self._handle(command, notify))
            async with self._long:
                answer = await self._handle(command, notify)
            return await answer.rest if isinstance(answer, Waiting) else answer
        except MiniTorrentError as error:
            return _failure(error)
        except Exception:
            log.exception("command %s: internal error", type(command).__name__)
            return control.Failed(
                Code.INTERNAL,
                "internal error of the peer",
                shell_hint("report it with the last lines of the log", "tail", self._log),
            )

    @staticmethod
    async def _ended(handled: Awaitable[control.Answer | Waiting]) -> control.Answer:
        answer = await handled
        return await answer.rest if isinstance(answer, Waiting) else answer

    def _on_done(self, key: _Key, task: asyncio.Task[control.Answer]) -> None:
        request = self._requests.get(key)
        if request is None or request.task is not task:
            return
        del self._requests[key]
        if not task.cancelled():
            self._send(*key, task.result())
        elif request.hung_up:
            self._send(*key, control.Failed(Code.CANCELLED, "interrupted", None, 130))

    # -- sending --------------------------------------------------------------------------------

    def _send(self, routing_id: bytes, request_id: bytes, message: control.Answer) -> None:
        frames = [routing_id, *_packed(request_id, message)]
        backlog = self._backlogs.get(routing_id)
        sent = Sent.FULL if backlog is not None else self._pump.send(frames)
        match sent:
            case Sent.YES:
                pass
            case Sent.GONE:
                self._lose(routing_id)
            case Sent.FULL:
                self._keep_for_later(routing_id, frames, message)

    def _keep_for_later(
        self, routing_id: bytes, frames: list[Any], message: control.Answer
    ) -> None:
        if isinstance(message, control.Progress | control.Alive):
            return  # the next one is newer
        backlog = self._backlogs.setdefault(routing_id, deque())
        if len(backlog) >= BACKLOG_MAX:
            self._lose(routing_id)
        else:
            backlog.append(frames)

    def _flush(self) -> None:
        for routing_id, backlog in list(self._backlogs.items()):
            while backlog:
                match self._pump.send(backlog[0]):
                    case Sent.YES:
                        backlog.popleft()
                    case Sent.FULL:
                        break
                    case Sent.GONE:
                        self._lose(routing_id)
                        break
            if not backlog:
                self._backlogs.pop(routing_id, None)

    def _lose(self, routing_id: bytes) -> None:
        """Cancel the requests of a command line that died or does not read."""
        self.counts["lost"] += 1
        self._backlogs.pop(routing_id, None)
        for key in [key for key in self._requests if key[0] == routing_id]:
            self._requests.pop(key).task.cancel()

    async def _keep_in_touch(self) -> None:
        """Send keepalives, which also find dead command lines, and retry full connections."""
        turns_per_sign = round(ALIVE_S / RETRY_S)
        turn = 0
        while True:
            await asyncio.sleep(RETRY_S if self._backlogs else ALIVE_S)
            turn += 1 if self._backlogs else turns_per_sign
            self._flush()
            if turn >= turns_per_sign:
                turn = 0
                for key in list(self._requests):
                    self._send(*key, control.Alive())


def _why_not_asked(error: RemoteProtocolError) -> str:
    """The reason why a malformed message is refused, in words for the user."""
    too_long = re.search(r"of length <= (\d+)", error.message)
    if too_long is not None:
        return f"an argument is too long: at most {int(too_long[1]):,} characters"
    return f"malformed command: {error.message}"


def _failure(error: MiniTorrentError) -> control.Failed:
    return control.Failed(error.code, error.message, error.hint, exit_code_of(error))


def _packed(request_id: bytes, message: control.Answer) -> list[Any]:
    """The frames of an answer, or of an error if it cannot be sent: the client waits for one."""
    try:
        frames = pack(request_id, message)
    except UnicodeEncodeError:
        log.exception("control: cannot encode an answer")
        return pack(request_id, control.Failed(Code.INTERNAL, "the answer is not valid UTF-8"))
    if len(frames[-1]) > limits.CONTROL_BYTES_MAX:
        failed = control.Failed(Code.LIMIT, "the answer is too long for one message")
        return pack(request_id, failed)
    return frames
