"""The line to the tracker: commands go out and are answered, published messages come in.

Owns reconnecting with jitter, the way back home from another tracker, and the retry of a command
whose answer was lost. Which tracker is home is ``peer.tracker_client.selection``'s; what the
answers and the published messages mean is for others: ``peer.tracker_client.group_replica`` and
whoever asked.

A connection that ends is made anew with fresh sockets, so that no half-dead one lingers under the
old name. A link counts as up from the tracker's `Welcome` until its socket closes or the tracker's
sign of life stays away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import zmq

from common import limits
from common.crypto.keys import KeyPair
from common.errors import (
    MiniTorrentError,
    Refused,
    RemoteProtocolError,
    TransportError,
)
from common.hints import CHECK_LINK
from common.host.clock import TrackerTime, monotonic
from common.link import Tracker
from common.messages import events, tracker
from common.messages.refusals import Code, Refusal
from common.net.codec import SIGNATURE, Decoder, VersionMismatch, pack
from common.net.pump import Frames, Sent
from common.net.resolving import endpoints_of
from peer.tracker_client.claims import check_welcome, events_endpoint
from peer.tracker_client.connection import TrackerConnection, connected
from peer.tracker_client.selection import TrackerSelector

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
SILENCE_S = limits.BEACON_S * 5  # without a sign of life for that long, the link is dead
LOST_GRACE_S = 2.0  # a command waits that long for a broken link to come back
ATTEMPT_S = 0.7  # who asks while the link is down waits that long for an attempt to connect
LEAST_PAUSE_S = 0.1  # between two attempts, however much is asked
LOOK_BACK_S = 5.0  # how often a guest at another tracker looks whether its own is back
ANSWER_TIMEOUT_S = 30.0  # logging in may wait its turn behind others' passwords

R = TypeVar("R")
_replies: Decoder[tracker.Reply] = Decoder(tracker.Reply, data_with=(tracker.ManifestPart,))


@dataclass(frozen=True, slots=True)
class Answer(Generic[R]):
    """A reply, and the bytes of its data frame."""

    reply: R
    data: bytes


class _WrongTracker(TransportError):
    """A tracker answers, but not the one that knows who is logged in here."""


class Listener(Protocol):
    """Who hears what the link hears."""

    def link_up(self, welcome: tracker.Welcome) -> None:
        """The link is up: commands may be asked. What takes long belongs into a task."""

    def link_down(self) -> None:
        """The link is down; it is being made anew."""

    def published(self, topic: bytes, sealed: bytes) -> None:
        """A sealed message came on a subscribed topic."""


@dataclass(slots=True)
class _Waiting:
    frames: list[Any]
    future: asyncio.Future[Answer[Any]]


class TrackerLink:
    """One device's line to the first of its trackers that answers. ``logged_in`` tells whether
    another one knew its user: ``memory`` is where that one is remembered."""

    def __init__(
        self,
        context: zmq.Context[Any],
        pair: KeyPair,
        trackers: Sequence[Tracker],
        listener: Listener,
        *,
        software: str = "mini-torrent",
        rng: random.Random | None = None,
        memory: Path | None = None,
        instance: bytes = b"",
        logged_in: Callable[[], bool] = lambda: False,
    ) -> None:
        self._context = context
        self._pair = pair
        self._choice = TrackerSelector(trackers, memory)
        self._listener = listener
        self._logged_in = logged_in
        self._software = software
        self._instance = instance
        self._refusal: Refused | None = None
        """With which a tracker that answers does not take us."""
        self._rng = rng or random.Random()
        self._connection: TrackerConnection | None = None
        self._waiting: dict[bytes, _Waiting] = {}
        self._topics: set[bytes] = set()
        self._next_id = self._rng.getrandbits(48)
        self._up = asyncio.Event()
        self._tried = asyncio.Event()
        self._attempted = asyncio.Event()
        self._asked_for = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._heard_at = 0.0
        self.time = TrackerTime()
        self.trouble: str | None = None
        self.where: Tracker = self._choice.in_order()[0]
        self.reached: str | None = None
        """The endpoint, with the address, at which the tracker was reached last."""

    @property
    def connected(self) -> bool:
        return self._up.is_set()

    @property
    def on_ipc(self) -> bool:
        """Whether the tracker is on this machine's ipc: only then are others' ipc paths followed.

        A member must not make everybody connect to whatever local socket it names.
        """
        return self.where.endpoint.startswith("ipc://")

    def pin(self) -> None:
        """The tracker that we are connected to knows our user."""
        self._choice.pin(self.where)

    def allow_any(self) -> None:
        """Whoever logs in or makes an account takes the tracker that answers, be it another one
        than that which knew the last user and is away."""
        if not self.connected:
            self._choice.allow_any(monotonic())

    def start(self) -> None:
        """Begin to connect, and keep on."""
        self._task = asyncio.create_task(self._keep_up(), name="tracker link")

    def begin_anew(self) -> None:
        """End the connection that there is, and greet the tracker again."""
        if self._connection is not None:
            self._connection.ended.set()

    async def close(self) -> None:
        """End the link; whoever still waits for an answer is told."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._drop()
        self._fail(self._waiting.values())

    def subscribe(self, topic: bytes) -> None:
        """Hear what is published on ``topic``, over reconnections too."""
        if topic not in self._topics:
            self._topics.add(topic)
            if self._connection is not None and self._connection.events is not None:
                self._connection.events.socket.setsockopt(zmq.SUBSCRIBE, topic)

    def unsubscribe(self, topic: bytes) -> None:
        """Hear no more of ``topic``."""
        if topic in self._topics:
            self._topics.discard(topic)
            if self._connection is not None and self._connection.events is not None:
                self._connection.events.socket.setsockopt(zmq.UNSUBSCRIBE, topic)

    # -- asking ---------------------------------------------------------------------------------

    async def ask(
        self,
        command: tracker.Command,
        answer: type[R] | tuple[type[R], ...],
        *,
        data: bytes | memoryview | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Answer[R]:
        """Ask the tracker; returns its ``answer``, or one of several that there may be.

        Raises `Refused` when it says no, `TransportError` when it cannot be reached or does not
        answer. A command whose answer is lost with the connection is asked again with the same
        id, by which the tracker knows that it has done it already.
        """
        await self.reachable()
        return await self._exchange(command, answer, data, timeout_s)

    async def reachable(self) -> None:
        """Raise `TransportError` unless the link is up, or comes up in a moment."""
        # At the start the first attempt is waited for; afterwards a link that is down fails at
        # once, so that nobody sits before a command that cannot be carried out.
        if not self._tried.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._tried.wait(), CONNECT_TIMEOUT_S)
        if not self.connected:
            # A tracker that came back is found by who asks, not only by the next attempt.
            self._attempted.clear()
            self._asked_for.set()
            await _first(self._up.wait(), self._attempted.wait(), ATTEMPT_S)
        if not self.connected:
            raise self._unreachable()

    def _unreachable(self) -> MiniTorrentError:
        if self._refusal is not None:
            return Refused(self._refusal.code, self._refusal.message, self._refusal.hint)
        return TransportError(
            f"the tracker at {self.where.endpoint} cannot be reached"
            + (f": {self.trouble}" if self.trouble else ""),
            CHECK_LINK,
        )

    async def _exchange(
        self,
        command: tracker.Command,
        answer: type[R] | tuple[type[R], ...],
        data: Any,
        timeout_s: float,
    ) -> Answer[R]:
        self._next_id = (self._next_id + 1) % (1 << 64)
        request_id = self._next_id.to_bytes(limits.REQUEST_ID_BYTES, "big")
        waiting = _Waiting(
            pack(request_id, command, data), asyncio.get_running_loop().create_future()
        )
        self._waiting[request_id] = waiting
        try:
            self._post(waiting)
            result = await asyncio.wait_for(waiting.future, timeout_s)
        except TimeoutError:
            raise TransportError(
                f"the tracker at {self.where.endpoint} did not answer in {timeout_s:.0f} s",
                "try again; what was asked may have been done",
            ) from None
        finally:
            self._waiting.pop(request_id, None)
        if isinstance(result.reply, Refusal):
            raise Refused(result.reply.code, result.reply.message, result.reply.hint)
        if not isinstance(result.reply, answer):
            raise RemoteProtocolError(
                f"the tracker answered {type(command).__name__} with {type(result.reply).__name__}"
            )
        return Answer(result.reply, result.data)

    def _post(self, waiting: _Waiting) -> None:
        if self._connection is None:
            return
        outcome = self._connection.commands.send(waiting.frames)
        if outcome is not Sent.YES and not waiting.future.done():
            waiting.future.set_exception(self._unreachable())

    def _on_reply(self, frames: Frames) -> None:
        try:
            envelope = _replies.unpack(frames)
        except RemoteProtocolError as error:
            log.warning("the tracker sent what cannot be read: %s", error)
            # Who waits for it is told now: nothing better will come under this number.
            asked = self._waiting.get(frames[1].bytes) if len(frames) > 1 else None
            if asked is not None and not asked.future.done():
                unreadable = RemoteProtocolError(
                    f"the tracker's answer cannot be read: {error.message}",
                    "what was asked may have been done",
                )
                legible = isinstance(error, VersionMismatch)
                asked.future.set_exception(error if legible else unreadable)
            return
        waiting = self._waiting.get(envelope.request_id)
        if waiting is not None and not waiting.future.done():
            data = bytes(envelope.data) if envelope.data is not None else b""
            waiting.future.set_result(Answer(envelope.body, data))

    def _fail(self, those: Iterable[_Waiting]) -> None:
        for waiting in those:
            if not waiting.future.done():
                waiting.future.set_exception(self._unreachable())

    # -- hearing --------------------------------------------------------------------------------

    def _on_published(self, frames: Frames) -> None:
        if len(frames) != 3 or frames[1].bytes != SIGNATURE:
            return
        topic, body = frames[0].bytes, frames[2].bytes
        self._heard_at = monotonic()
        if topic != events.BEAT_TOPIC:
            self._listener.published(topic, body)

    # -- staying connected ----------------------------------------------------------------------

    async def _keep_up(self) -> None:
        delay_s = limits.RECONNECT_IVL_MS / 1000
        while True:
            for where in self._choice.in_order():
                served = await self._attempt(where)
                self._tried.set()
                if served:
                    delay_s = limits.RECONNECT_IVL_MS / 1000
                    break
            self._attempted.set()
            await self._pause(delay_s)
            delay_s = min(delay_s * 2, limits.RECONNECT_IVL_MAX_MS / 1000)

    async def _pause(self, delay_s: float) -> None:
        """Wait before the next attempt; for the least time only when somebody asks for it."""
        # Jitter over the whole span: a restarted tracker is not met by everybody at once.
        part = self._rng.uniform(0.2, 1.0)
        least_s = part * min(delay_s, LEAST_PAUSE_S)
        await asyncio.sleep(least_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._asked_for.wait(), part * delay_s - least_s)
        self._asked_for.clear()

    async def _attempt(self, where: Tracker) -> bool:
        """Serve by ``where``, whatever happens there: nothing but `close` may end our attempts."""
        try:
            return await self._serve(where)
        except _WrongTracker as error:
            log.debug("%s", error)
            return False  # what the matter is with our own is what people want to know
        except Exception as error:
            text = str(error) or type(error).__name__
            self._refusal = None
            if isinstance(error, Refused):
                text += f"; {error.hint}" if error.hint else ""
                if error.code is Code.KEY_IN_USE:
                    self._refusal = error
            # A ZMQError when no file descriptor is left for a socket.
            foreseen = isinstance(error, MiniTorrentError | zmq.ZMQError)
            # Tried several times a second at first: said once, until something else is the matter.
            level = logging.INFO if foreseen else logging.ERROR
            log.log(
                logging.DEBUG if text == self.trouble else level,
                "no connection to the tracker at %s: %s",
                where.endpoint,
                text,
                exc_info=None if foreseen else error,
            )
            self.trouble = text
            return False

    async def _serve(self, where: Tracker) -> bool:
        """Connect to ``where`` and stay until the connection ends. Raises what hinders it."""
        try:
            connection = await self._connect(where, self._on_reply, self._on_published)
            self._connection = connection
            await self._establish(connection)
            await self._until_dead(connection)
            log.info("the connection to the tracker at %s ended", where.endpoint)
            return True
        finally:
            self._drop()

    async def _connect(
        self, where: Tracker, on_reply: Callable[[Frames], None], on_published: Callable[..., None]
    ) -> TrackerConnection:
        """A connection to any address of ``where``. Raises `TransportError`, `zmq.ZMQError`."""

        def make(endpoint: str) -> TrackerConnection:
            return TrackerConnection(
                self._context, self._pair, where, endpoint, on_reply, on_published
            )

        return await connected(make, where, CONNECT_TIMEOUT_S)

    async def _establish(self, connection: TrackerConnection) -> None:
        where = connection.where
        sent_at = monotonic()
        hello = tracker.Hello(self._software, self._instance)
        welcome = (await self._exchange(hello, tracker.Welcome, None, CONNECT_TIMEOUT_S)).reply
        check_welcome(welcome)
        known = bool(welcome.user)
        if not known and not self._choice.may_use(where, self._logged_in(), monotonic()):
            raise _WrongTracker(f"the tracker at {where.endpoint} does not know our user")
        self.time.learn(welcome.time_ms, sent_at, monotonic())
        published_at = events_endpoint(welcome.events, connection.endpoint)
        connection.subscribe_at((await endpoints_of(published_at))[0])
        assert connection.events is not None
        for topic in self._topics:
            connection.events.socket.setsockopt(zmq.SUBSCRIBE, topic)
        arrived = await _first(
            connection.events_up.wait(), connection.ended.wait(), CONNECT_TIMEOUT_S
        )
        if not arrived:
            raise TransportError("its events cannot be subscribed to")
        self.where, self.reached = where, connection.endpoint
        if welcome.user:
            self.pin()
        self._heard_at = monotonic()
        self._up.set()
        self._tried.set()
        log.info("connected to the tracker at %s", where.endpoint)
        for waiting in list(self._waiting.values()):
            self._post(waiting)
        self._listener.link_up(welcome)
        self.trouble = self._refusal = None

    async def _until_dead(self, connection: TrackerConnection) -> None:
        look_at = monotonic() + LOOK_BACK_S
        while not connection.ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(connection.ended.wait(), limits.BEACON_S)
            if monotonic() - self._heard_at > SILENCE_S:
                log.info("the tracker has been silent for %.0f s", SILENCE_S)
                return
            home = self._choice.preferred
            if home not in (None, connection.where) and monotonic() >= look_at:
                if await self._answers(home):
                    log.info("the tracker at %s, which knows our user, is back", home.endpoint)
                    return
                look_at = monotonic() + LOOK_BACK_S

    async def _answers(self, where: Tracker) -> bool:
        """Whether ``where`` can be connected to, beside the connection that there is."""
        try:
            connection = await self._connect(where, lambda _: None, lambda _: None)
        except (TransportError, zmq.ZMQError):
            return False
        connection.close()
        return True

    def _drop(self) -> None:
        if self._connection is None:
            return
        self._connection.close()
        self._connection = None
        if self._up.is_set():
            self._up.clear()
            self._listener.link_down()
            # Those that wait get their answer after a quick reconnection, or an end of waiting.
            # Only those: the next attempt waits for an answer too, and must not end with them.
            lost = list(self._waiting.values())
            asyncio.get_running_loop().call_later(LOST_GRACE_S, self._give_up_if_down, lost)

    def _give_up_if_down(self, lost: list[_Waiting]) -> None:
        if not self.connected:
            self._fail(lost)


async def _first(
    good: Coroutine[Any, Any, Any], bad: Coroutine[Any, Any, Any], timeout_s: float
) -> bool:
    """Whether ``good`` came before ``bad`` and before the time was over."""
    wanted = asyncio.ensure_future(good)
    unwanted = asyncio.ensure_future(bad)
    try:
        await asyncio.wait(
            (wanted, unwanted), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        return wanted.done()
    finally:
        wanted.cancel()
        unwanted.cancel()


def refused_with(error: Exception, code: Code) -> bool:
    """Whether ``error`` is the tracker's refusal for that reason."""
    return isinstance(error, Refused) and error.code is code
