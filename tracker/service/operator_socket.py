"""Operator's socket: a ROUTER on a private ipc path in the tracker's home.

Owns: passing the operator's commands to the command loop and back, and their lines in the log.
Not here: the decisions (see tracker.core.operator), the other end (see tracker.operator_client).

Limits: only the owner of the home can connect; it is 0700, the socket 0600.
Invariant: each change is in the log of the tracker before the operator gets the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import msgspec
import zmq

from common import limits
from common.errors import MiniTorrentError, Refused, RemoteProtocolError
from common.host.clock import monotonic
from common.host.control_socket import control_endpoint
from common.host.release import RELEASE
from common.ids import DeviceKey, GroupId
from common.link import Link, parse_link
from common.messages import operator as messages
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.net.codec import Decoder, pack
from common.net.pump import Frames, Pump
from common.net.sockets import Private, bind, make_socket
from common.shared_refusals import check_new_password
from tracker.core import operator as core
from tracker.core import overview
from tracker.core.context import Caller, Reply
from tracker.core.share_names import NameId, ShareId
from tracker.metrics.readings import TrackerMetrics
from tracker.service.batch import Job
from tracker.service.command_loop import CommandLoop
from tracker.service.history import History
from tracker.service.passwords import hash_password
from tracker.service.recent_log import RecentLog

log = logging.getLogger("tracker.operator")

COMMANDS_MAX = 32  # at once; a person types one, a script some

OTHER_RELEASE = messages.Failed(
    Code.VERSION,
    "the running tracker and this command are of different releases",
    "restart the tracker: stop, then start",
)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Facts of `messages.StatusIs` beside the counts. ``began_at``: monotonic seconds."""

    link: str
    home: Path
    began_at: float


@dataclass(frozen=True, slots=True)
class Views:
    """Parts that answer questions which need no decision."""

    metrics: TrackerMetrics
    load: Callable[[], messages.LoadIs]
    history: History
    log: RecentLog
    open_page: Callable[[], Awaitable[messages.PageOpened]]


class OperatorSocket:
    """Carries out the commands of the operator; ``stop`` ends the tracker.

    Thread safety: created and used in a running event loop. Raises `CannotListen`.
    """

    def __init__(
        self, facts: RunInfo, loop: CommandLoop, views: Views, stop: asyncio.Event
    ) -> None:
        self._facts = facts
        self._loop = loop
        self._views = views
        self._stop = stop
        self._decoder: Decoder[messages.Command] = Decoder(messages.Command, data_frames=0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._context: zmq.Context[Any] = zmq.Context(io_threads=1)
        self._endpoint = control_endpoint(facts.home)
        socket = make_socket(
            self._context, zmq.ROUTER, Private(), message_bytes_max=limits.COMMAND_BYTES_MAX
        )
        try:
            bind(socket, self._endpoint)
        except MiniTorrentError:
            socket.close(linger=0)
            self._context.term()
            raise
        self._pump = Pump(socket, self._on_message)

    def close(self) -> None:
        """Stop answering."""
        for task in self._tasks:
            task.cancel()
        self._pump.close()
        self._context.destroy(linger=0)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._endpoint.removeprefix("ipc://"))

    def _on_message(self, frames: Frames) -> None:
        routing_id = frames[0].bytes
        try:
            envelope = self._decoder.unpack(frames[1:])
        except RemoteProtocolError as error:
            log.warning("operator: malformed message: %s", error)
            if len(frames) > 2 and len(frames[2]) <= limits.REQUEST_ID_BYTES:
                self._send(routing_id, frames[2].bytes, OTHER_RELEASE)
            return
        if len(self._tasks) >= COMMANDS_MAX:
            busy = messages.Failed(Code.BUSY, "the tracker is busy", "try again in a moment")
            self._send(routing_id, envelope.request_id, busy)
            return
        task = asyncio.create_task(self._answer(routing_id, envelope.request_id, envelope.body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _send(self, routing_id: bytes, request_id: bytes, answer: messages.Answer) -> None:
        self._pump.send([routing_id, *pack(request_id, answer)])

    async def _answer(
        self, routing_id: bytes, request_id: bytes, command: messages.Command
    ) -> None:
        try:
            answer = await self._carry_out(command)
        except MiniTorrentError as error:
            answer = messages.Failed(error.code, error.message, error.hint)
        except Exception:
            log.exception("operator: failed at a %s", type(command).__name__)
            text = "the tracker failed at this command; its log says why"
            answer = messages.Failed(Code.INTERNAL, text)
        self._send(routing_id, request_id, answer)

    # -- commands -------------------------------------------------------------------------------

    async def _carry_out(self, command: messages.Command) -> messages.Answer:
        match command:
            case messages.Status(form):
                if form and form != messages.FORM:
                    return OTHER_RELEASE
                return self._completed(await self._decided(core.GetStatus()))
            case messages.Stop():
                log.info("operator: stop")
                # The answer leaves before the socket closes.
                asyncio.get_running_loop().call_later(0.05, self._stop.set)
                return messages.Changed("the tracker stops", str(self._facts.home))
            case messages.Metrics():
                return messages.MetricsAre(self._views.metrics.text())
            case messages.OpenPage():
                return await self._views.open_page()
            case messages.GetLoad():
                return self._views.load()
            case messages.GetHistory():
                return self._views.history.points()
            case messages.ListLog(after):
                return self._views.log.after(after)
            case messages.ListDevices(key, text, online):
                last = DeviceKey(bytes.fromhex(key)) if key else None
                return await self._decided(overview.ListDevices(last, text, online))
            case messages.ListMembers(group):
                return await self._decided(overview.ListMembers(group))
            case messages.ListSwarms(group, name, version):
                share = ShareId(NameId(name), version)
                return await self._decided(overview.ListSwarms(GroupId(group), share))
            case messages.ListUsers(after, text, online, rows):
                return await self._decided(core.ListUsers(after, text, online, rows))
            case messages.ListGroups(after, text, rows):
                return await self._decided(core.ListGroups(after, text, rows))
            case messages.SetDisabled(user, disabled):
                return await self._changed(core.SetDisabled(user, disabled))
            case messages.DeleteUser(user):
                return await self._changed(core.DeleteUser(user))
            case messages.ResetPassword(user, password):
                check_new_password(password)
                hashed = await asyncio.to_thread(hash_password, password)
                return await self._changed(core.ReplacePassword(user, hashed))
            case messages.DeleteGroup(group):
                return await self._changed(core.DeleteGroup(group))
            case messages.SetRegistration(mode):
                return await self._changed(core.SetRegistration(mode))
            case _:
                assert_never(command)

    async def _changed(self, command: core.Command) -> messages.Answer:
        answer = await self._decided(command)
        match answer:
            case messages.Changed(text):
                log.info("operator: %s", text)
            case messages.RegistrationIs(mode, True):
                log.info("operator: registration is %s", mode.value)
            case _:
                pass
        return answer

    async def _decided(self, command: core.Command | overview.Command) -> messages.Answer:
        """Carry out ``command`` in its turn among all others. Raise `Refused`."""
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def answer(reply: Reply, data: bytes | None) -> None:
            if not answered.done():
                answered.set_result(reply)

        self._loop.enqueue(Job(Caller(DeviceKey(b"")), command, answer))
        reply = await answered
        if isinstance(reply, Refusal):
            raise Refused(reply.code, reply.message, reply.hint)
        assert isinstance(reply, messages.Answer)
        return reply

    def _completed(self, counts: messages.Answer) -> messages.StatusIs:
        assert isinstance(counts, messages.StatusIs)
        facts, link = self._facts, self._facts.link
        if endpoints := self._loop.context.fellows.endpoints:
            link = Link(endpoints, parse_link(link).first.key).text
        return msgspec.structs.replace(
            counts,
            link=link,
            pid=os.getpid(),
            version=RELEASE,
            home=str(facts.home),
            uptime_s=round(monotonic() - facts.began_at, 3),
            database_bytes=self._views.metrics.database_bytes(),
        )
