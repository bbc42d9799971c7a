"""Link to the tracker: requests and replies, and published messages.

Owns: attempts and reconnection with jitter, the return to the preferred key, moves to another
tracker with the same key, and the failure of requests without a connection. Not here: the choice
among trackers (see ``peer.tracker_client.selection``), pending requests (see
``peer.tracker_client.request_table``), and the content of messages (see
``peer.tracker_client.group_replica`` and the callers).

States (`LinkState`): connecting, up, down. A round takes the keys in order, with one attempt for
each; the first tracker that serves ends the round. An attempt connects to all addresses of its key,
staggered, and keeps the connection that is up first. The link is up from that tracker's `Welcome`
until its socket closes, its beacon stays away for `SILENCE_S`, or it asks the peer to use another
tracker. Then it is down, and the next round begins after a pause, or as soon as a caller wants to
send a request.

Invariant: each connection has new sockets, so no half-dead one lingers under an old routing id; and
attempts end with `close` alone, whatever an attempt or a listener raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import zmq

from common import limits
from common.crypto.keys import KeyPair
from common.errors import MiniTorrentError, Refused, RemoteProtocolError, TransportError
from common.host.clock import TrackerTime, monotonic
from common.ids import ContentId, GroupId
from common.link import Link, Tracker
from common.messages import events, tracker
from common.messages.refusals import Code
from common.net.codec import SIGNATURE, Decoder
from common.net.pump import Frames, Sent
from common.net.resolving import endpoints_of
from peer.tracker_client.claims import check_welcome, events_endpoint, tracker_addresses
from peer.tracker_client.connection import TrackerConnection, connected_to_any
from peer.tracker_client.link_state import LinkState, LinkStatus, unreachable
from peer.tracker_client.request_table import Answer, PendingRequest, RequestTable
from peer.tracker_client.selection import TrackerSelector, WrongTracker

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
# For each step of an attempt, among thousands of others; libzmq gives a handshake up before.
QUEUE_S = limits.TRACKER_HANDSHAKE_IVL_MS / 1000 + 1.0
SILENCE_S = limits.BEACON_S * 5  # without a beacon for that long, the connection is closed
LOST_GRACE_S = 2.0  # a pending request waits that long for a lost connection to return
ATTEMPT_S = 0.7  # a new request on a link that is down waits that long for an attempt
PAUSE_MIN_S = 0.1  # between two rounds of attempts, however many requests come
REVIEW_S = 5.0  # between two probes of the preferred key while another one is used
ANSWER_TIMEOUT_S = 30.0  # a login may wait in the queue of the tracker's password hashing

R = TypeVar("R")
_beats: Decoder[events.Beat] = Decoder(events.Beat)


class Listener(Protocol):
    """Receiver of the link's events. Its methods must not block."""

    def link_up(self, welcome: tracker.Welcome) -> None:
        """Handle a new connection: requests can be sent."""

    def link_down(self) -> None:
        """Handle the loss of the connection; the link reconnects by itself."""

    def published(self, topic: bytes, sealed: bytes) -> None:
        """Handle a sealed message on a subscribed topic."""


class TrackerLink:
    """Link of one device to the first of its trackers that serves.

    ``memory`` is the file with the preferred tracker. ``logged_in`` tells whether a tracker has
    logged in a user on this device.
    """

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
        self._make = partial(TrackerConnection, context, pair)
        self._rng = rng or random.Random()
        self._selector = TrackerSelector(trackers, memory, logged_in, self._rng)
        self._listener = listener
        self._hello = tracker.Hello(software, instance)
        self._status = LinkStatus()
        self._requests = RequestTable(self._send, self._unreachable, self._rng.getrandbits(48))
        self._connection: TrackerConnection | None = None
        self._topics: set[bytes] = set()
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._heard_at = 0.0
        self.time = TrackerTime()
        self.where: Tracker = self._selector.in_order()[0][0]
        self.reached: str | None = None
        """The endpoint, with the address, at which the tracker was reached last."""

    @property
    def connected(self) -> bool:
        """Whether the link is up."""
        return self._status.state is LinkState.UP

    @property
    def last_error(self) -> str | None:
        """Reason of the last failed attempt; None while the link is up."""
        return self._status.last_error

    @property
    def known(self) -> Link:
        """The link of the current tracker with all known addresses of its key, its own first."""
        return self._selector.known(self.where)

    @property
    def on_ipc(self) -> bool:
        """Whether the tracker is on this machine's ipc: only then ipc paths of others are used.

        Why: a member must not make other peers connect to any local socket that it names.
        """
        return self.where.endpoint.startswith("ipc://")

    def pin(self) -> None:
        """Prefer the connected tracker from now on: it knows our user."""
        self._selector.pin(self.where)

    def allow_any(self) -> None:
        """Allow any tracker that serves, for a login or a new account while the link is down."""
        if not self.connected:
            self._selector.allow_any(monotonic())

    def start(self) -> None:
        """Begin to connect, and reconnect until `close`."""
        self._task = asyncio.create_task(self._keep_up(), name="tracker link")

    def reconnect(self) -> None:
        """End the current connection and make another one."""
        if self._connection is not None:
            self._connection.ended.set()

    def move(self, reason: str) -> None:
        """Use another tracker with the current key, if one is known and the last move is old."""
        if self.connected and self._selector.may_move(self.where, monotonic()):
            log.info("leaving the tracker at %s: %s", self.where.endpoint, reason)
            self.reconnect()

    async def close(self) -> None:
        """End the link and fail all pending requests."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._drop()
        self._requests.fail(self._requests.pending())

    def subscribe(self, topic: bytes) -> None:
        """Receive messages on ``topic``, also after reconnections."""
        if topic not in self._topics:
            self._topics.add(topic)
            self._set_topic(zmq.SUBSCRIBE, topic)

    def unsubscribe(self, topic: bytes) -> None:
        """End a subscription."""
        if topic in self._topics:
            self._topics.discard(topic)
            self._set_topic(zmq.UNSUBSCRIBE, topic)

    def _set_topic(self, option: int, topic: bytes) -> None:
        if self._connection is not None and self._connection.events is not None:
            self._connection.events.socket.setsockopt(option, topic)

    # -- requests -------------------------------------------------------------------------------

    async def request(
        self,
        command: tracker.Command,
        answer: type[R] | tuple[type[R], ...],
        *,
        data: bytes | memoryview | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> R:
        """Send a request to the tracker; return its reply, of one of the types of ``answer``.

        Raises `Refused`, and `TransportError` when the tracker cannot be reached or does not
        answer. A request that loses its connection is sent again with the same id, by which the
        tracker recognises a command that it has carried out already.
        """
        await self.reachable()
        return (await self._answer_to(command, answer, data, timeout_s)).reply

    async def manifest_part(
        self, group: GroupId, content: ContentId, offset: int = 0
    ) -> Answer[tracker.ManifestPart]:
        """Request a part of a manifest, as `request` does."""
        await self.reachable()
        command = tracker.GetManifest(group, content, offset)
        return await self._answer_to(command, tracker.ManifestPart)

    async def reachable(self) -> None:
        """Raise `TransportError` unless the link is up, or comes up in a moment."""
        # After the start the first attempt is awaited. Later a request on a link that is down fails
        # soon, so that a user does not wait for a command that cannot be carried out.
        status = self._status
        await status.wait(lambda: status.state is not LinkState.CONNECTING, CONNECT_TIMEOUT_S)
        if not self.connected:
            # Why: a request must find a tracker that has returned, before the pause is over.
            before = status.rounds
            self._wanted.set()
            patience_s = CONNECT_TIMEOUT_S if len(self.known.endpoints) > 1 else ATTEMPT_S
            await status.wait(lambda: self.connected or status.rounds > before, patience_s)
        if not self.connected:
            raise self._unreachable()

    def _unreachable(self) -> MiniTorrentError:
        return unreachable(self.known, self._status)

    async def _answer_to(
        self,
        command: tracker.Command,
        answer: type[R] | tuple[type[R], ...],
        data: Any = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Answer[R]:
        try:
            return await self._requests.request(command, answer, data, timeout_s)
        except TimeoutError:
            raise TransportError(
                f"the tracker at {self.where.endpoint} did not answer in {timeout_s:.0f} s",
                "try again; what was asked may have been done",
            ) from None

    def _send(self, frames: list[Any]) -> Sent | None:
        return None if self._connection is None else self._connection.commands.send(frames)

    # -- published messages ---------------------------------------------------------------------

    def _on_published(self, frames: Frames) -> None:
        if len(frames) != 3 or frames[1].bytes != SIGNATURE:
            return
        topic, body = frames[0].bytes, frames[2].bytes
        self._heard_at = monotonic()
        if topic != events.BEAT_TOPIC:
            self._listener.published(topic, body)
            return
        with contextlib.suppress(RemoteProtocolError):
            if _beats.decode(body).cut_off:
                self.move("it has lost its database")

    # -- attempts -------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        delay_s = limits.RECONNECT_IVL_MS / 1000
        while True:
            for trackers in self._selector.in_order():
                served = await self._attempt(trackers)
                self._status.set(LinkState.DOWN)
                if served:
                    delay_s = limits.RECONNECT_IVL_MS / 1000
                    break
            self._status.round_ended()
            await self._pause(delay_s)
            delay_s = min(delay_s * 2, limits.RECONNECT_IVL_MAX_MS / 1000)

    async def _pause(self, delay_s: float) -> None:
        """Wait before the next round; only for the minimum when a request wants the link."""
        # Jitter over the whole span: a restarted tracker must not meet all peers at once.
        part = self._rng.uniform(0.2, 1.0)
        pause_s = part * min(delay_s, PAUSE_MIN_S)
        await asyncio.sleep(pause_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wanted.wait(), part * delay_s - pause_s)
        self._wanted.clear()

    async def _attempt(self, trackers: Sequence[Tracker]) -> bool:
        """Connect to one of ``trackers`` and serve; return whether that worked. Raises nothing."""
        try:
            await self._serve(trackers)
            return True
        except WrongTracker as error:
            log.debug("%s", error)
            return False  # the error of the preferred tracker is the one to show
        except Exception as error:
            text, refusal = str(error) or type(error).__name__, None
            if isinstance(error, Refused):
                text += f"; {error.hint}" if error.hint else ""
                refusal = error if error.code is Code.KEY_IN_USE else None
            # A ZMQError when no file descriptor is left for a socket.
            foreseen = isinstance(error, MiniTorrentError | zmq.ZMQError)
            # Why: attempts are frequent at first; an unchanged reason is logged once.
            level = logging.INFO if foreseen else logging.ERROR
            log.log(
                logging.DEBUG if text == self.last_error else level,
                "no connection to the tracker at %s: %s",
                ", ".join(where.endpoint for where in trackers),
                text,
                exc_info=None if foreseen else error,
            )
            self._status.fail(text, refusal)
            return False

    async def _serve(self, trackers: Sequence[Tracker]) -> None:
        """Connect to one of ``trackers``; stay until the connection ends. Raises if that fails."""
        try:
            make = partial(self._make, self._requests.on_reply, self._on_published)
            self._connection = await connected_to_any(make, trackers, QUEUE_S)
            self._selector.use(self._connection.where)
            await self._establish(self._connection)
            await self._until_dead(self._connection)
            log.info("the connection to the tracker at %s ended", self.where.endpoint)
        finally:
            self._drop()

    async def _establish(self, connection: TrackerConnection) -> None:
        where, sent_at = connection.where, monotonic()
        welcome = (await self._answer_to(self._hello, tracker.Welcome, None, QUEUE_S)).reply
        check_welcome(welcome)
        self._selector.check(where, bool(welcome.user), monotonic())
        self.time.learn(welcome.time_ms, sent_at, monotonic())
        published_at = events_endpoint(welcome.events, connection.endpoint)
        connection.subscribe_at((await endpoints_of(published_at))[0], self._topics)
        await connection.wait_subscribed(QUEUE_S)
        self.where, self.reached = where, connection.endpoint
        self._selector.learn(where, tracker_addresses(welcome, connection.endpoint))
        if welcome.user:
            self.pin()
        self._heard_at = monotonic()
        self._status.set(LinkState.UP)
        log.info("connected to the tracker at %s", where.endpoint)
        self._requests.resend()
        self._listener.link_up(welcome)
        self._status.fail(None, None)

    async def _until_dead(self, connection: TrackerConnection) -> None:
        review_at = monotonic() + REVIEW_S
        while not connection.ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(connection.ended.wait(), limits.BEACON_S)
            if monotonic() - self._heard_at > SILENCE_S:
                log.info("the tracker has been silent for %.0f s", SILENCE_S)
                return
            if self._selector.is_foreign(connection.where) and monotonic() >= review_at:
                if await self._answers(preferred := self._selector.in_order()[0]):
                    endpoint = preferred[0].endpoint
                    log.info("the tracker at %s, which knows our user, is back", endpoint)
                    return
                review_at = monotonic() + REVIEW_S

    async def _answers(self, trackers: Sequence[Tracker]) -> bool:
        """Whether one of ``trackers`` accepts a connection, beside the current one."""
        make = partial(self._make, lambda _: None, lambda _: None)
        try:
            connection = await connected_to_any(make, trackers, CONNECT_TIMEOUT_S)
        except (TransportError, zmq.ZMQError):
            return False
        connection.close()
        return True

    def _drop(self) -> None:
        if self._connection is None:
            return
        self._connection.close()
        self._connection = None
        if self.connected:
            self._status.set(LinkState.DOWN)
            self._listener.link_down()
            # Pending requests get their reply after a quick reconnection, or fail. Only these: the
            # next attempt has a pending request of its own, which must not fail with them.
            lost, rounds = self._requests.pending(), self._status.rounds
            if len(self.known.endpoints) > 1:  # another one may be up by the end of the next round
                rounds += 2
            asyncio.get_running_loop().call_later(LOST_GRACE_S, self._fail_if_down, lost, rounds)

    def _fail_if_down(self, lost: list[PendingRequest], rounds: int) -> None:
        if self.connected:
            return
        if self._status.rounds >= rounds or self._task is None or self._task.done():
            self._requests.fail(lost)
        else:
            asyncio.get_running_loop().call_later(LOST_GRACE_S, self._fail_if_down, lost, rounds)


def refused_with(error: Exception, code: Code) -> bool:
    """Whether ``error`` is the tracker's refusal for that reason."""
    return isinstance(error, Refused) and error.code is code
