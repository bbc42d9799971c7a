"""Sockets of the tracker: a ROUTER for commands, a PUB for events, from start to stop.

Owns: messages until they are a command of a known device, and the way of replies and events out.
Not here: the commands themselves (see tracker.service.command_loop).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections import Counter
from typing import Any

import zmq

from common import limits
from common.crypto.event_seal import seal
from common.errors import RemoteProtocolError
from common.host import process
from common.host.clock import monotonic
from common.ids import DeviceKey
from common.link import Link
from common.messages import tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.net.codec import SIGNATURE, Decoder, VersionMismatch, encode, pack
from common.net.connection_limits import MESSAGES, SUBSCRIPTIONS, ConnectionLimiter
from common.net.monitor import ConnectionEvent, SocketMonitor
from common.net.pump import Frames, Pump, Sent
from common.net.sockets import (
    AT_TRACKER,
    Serve,
    check_library,
    make_socket,
    peer_address,
    user_id,
)
from common.net.zap import Admission, ZapHandler, self_check
from common.token_bucket import KeyedTokenBuckets, Rate
from tracker.admin.home import Secrets
from tracker.core import commands
from tracker.core.context import Caller, Context, Reply, TrackerIdentity
from tracker.core.outbox import Outgoing
from tracker.core.presence import Presence
from tracker.service.addresses import (
    Addresses,
    advertised_endpoint,
    advice,
    bind_both,
    events_endpoint_for_welcome,
    is_networked,
)
from tracker.service.batch import Job
from tracker.service.cluster_member import Cluster, ClusterMember
from tracker.service.command_loop import CommandLoop
from tracker.service.deferred import DeferredWork
from tracker.service.probing import Prober
from tracker.store.turns import Store

log = logging.getLogger(__name__)

COMMANDS_DOMAIN = "commands"
EVENTS_DOMAIN = "events"
MARK_S = 0.5  # of the 5 s that service managers and users wait for the end
REPORT_S = 600.0
MEET_S = 3.0  # for the first news of other trackers, before devices are served
EVENTS_QUEUED_MAX = 1_000  # for a subscriber that does not read; it asks for missed events


class Server:
    """A running tracker. Create it within the event loop that it uses."""

    def __init__(
        self,
        secrets: Secrets,
        store: Store,
        addresses: Addresses,
        cluster: Cluster | None = None,
    ) -> None:
        check_library()
        self._cluster = cluster
        self._member: ClusterMember | None = None
        self.counts: Counter[str] = Counter()
        self.published = 0
        """Messages that were published."""
        self._deferred_work: DeferredWork | None = None
        self._secrets = secrets
        self._store = store
        self._addresses = addresses
        self._context: zmq.Context[Any] = zmq.Context(io_threads=2)
        self._zap = ZapHandler(self._context)
        self._decoder: Decoder[tracker.Command] = Decoder(
            tracker.Command, data_with=(tracker.PutManifest,)
        )
        self._rates = KeyedTokenBuckets(Rate(limits.COMMAND_BURST, limits.COMMAND_RATE))
        self._tasks: list[asyncio.Task[None]] = []
        self._commands: Pump | None = None
        self._events: zmq.Socket[Any] | None = None
        self._watches: list[SocketMonitor] = []
        self._at_commands = ConnectionLimiter(MESSAGES)
        self._at_events = ConnectionLimiter(SUBSCRIPTIONS)
        self.command_loop: CommandLoop | None = None
        self.bound = ""
        """Endpoint of commands, once the tracker serves."""

    async def start(self) -> Link:
        """Bind and serve. Return the link, with all trackers. Raise `MiniTorrentError`."""
        await self_check(self._context, self._zap)
        # Any key is admitted: creating an account needs no account. The core decides which commands
        # a stranger may send, and events are useless without their keys.
        self._zap.guard(COMMANDS_DOMAIN, lambda *_: Admission.ADMIT)
        self._zap.guard(EVENTS_DOMAIN, lambda *_: Admission.ADMIT)
        commands_socket = make_socket(
            self._context,
            zmq.ROUTER,
            Serve(self._secrets.pair, COMMANDS_DOMAIN),
            message_bytes_max=limits.COMMAND_BYTES_MAX,
            send_queue=limits.REPLIES_QUEUED_MAX,
            backlog=limits.TRACKER_BACKLOG,
            timing=AT_TRACKER,
        )
        self._events = make_socket(
            self._context,
            zmq.PUB,
            Serve(self._secrets.pair, EVENTS_DOMAIN),
            message_bytes_max=limits.SUBSCRIBER_BYTES_MAX,
            send_queue=EVENTS_QUEUED_MAX,
            backlog=limits.TRACKER_BACKLOG,
            timing=AT_TRACKER,
        )
        self._watches = [
            SocketMonitor(commands_socket, self._on_link, self._at_commands),
            SocketMonitor(self._events, self._on_link, self._at_events),
        ]
        endpoint, events = bind_both(commands_socket, self._events, self._addresses)
        self.command_loop = await self._make_command_loop(
            events_endpoint_for_welcome(events, endpoint), endpoint
        )
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self.command_loop.run())]
        if self._cluster is not None and self._deferred_work is not None:
            self._member = ClusterMember(
                self._cluster, self.command_loop, self._deferred_work.passwords, self._store
            )
            await self._member.start(MEET_S)
        self._commands = Pump(commands_socket, self._on_message)
        self._tasks += [
            loop.create_task(self.command_loop.keep_time()),
            loop.create_task(self._report()),
            loop.create_task(process.keep_memory_small()),
        ]
        if text := advice(endpoint, self._addresses.advertise):
            log.warning("%s", text)
        self.bound = endpoint
        endpoints = self.command_loop.context.fellows.endpoints
        own = self._endpoint_of_link(endpoint)
        return Link(endpoints or (own,), self._secrets.pair.public)

    def _endpoint_of_link(self, endpoint: str) -> str:
        return advertised_endpoint(endpoint, self._addresses.advertise, self._addresses.commands)

    async def _make_command_loop(self, events: str, endpoint: str) -> CommandLoop:
        loop = asyncio.get_running_loop()
        tracker_id = self._store.tracker_id(os.urandom(16))
        identity = TrackerIdentity(
            tracker_id=tracker_id,
            verify_keys=tuple(bytes(key.verify_key) for key in self._secrets.signing),
            inbox_secret=self._secrets.inbox,
            events=events,
            ipc=self._addresses.commands.startswith("ipc://"),
            networked=is_networked(endpoint, self._addresses.advertise),
            endpoint=self._endpoint_of_link(endpoint),
        )
        state = await loop.run_in_executor(None, self._store.load)
        context = Context(identity, state, Presence(), random.SystemRandom())
        prober = Prober(self._context, self._secrets.pair)
        self._deferred_work = DeferredWork(
            self._store, tracker_id, self._secrets.signing[0], prober
        )
        return CommandLoop(context, self._store, self._deferred_work, self._publish)

    @property
    def handshakes(self) -> Counter[str]:
        """Handshakes by result."""
        return self._zap.counts

    @property
    def tickets_signed(self) -> int:
        return 0 if self._deferred_work is None else self._deferred_work.tickets_signed

    @property
    def shared_database_bytes(self) -> int | None:
        """Size of a database for several trackers, as it was read last; None for a file."""
        return None if self._member is None else self._member.database_bytes

    async def stop(self) -> None:
        """Stop in order: read no more commands, then commit and answer the current batch."""
        if self.command_loop is not None:
            await self._mark_devices(self.command_loop)
            self.command_loop.stop()
            work, *others = self._tasks
            for task in others:
                task.cancel()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(work, timeout=4.0)
            if self._member is not None:
                await self._member.stop()
            # Replies are in ZeroMQ's queues, and closing does not wait for them.
            await asyncio.sleep(0.05)
            if counts := self.turned_away():
                log.info("turned away: %s", _listed(counts))
            self.command_loop.close()
        for watch in self._watches:
            watch.close()
        self._at_commands.close()
        self._at_events.close()
        if self._commands is not None:
            self._commands.close()
        if self._events is not None:
            self._events.close(linger=0)
        self._zap.close()
        self._context.destroy(linger=0)

    async def _mark_devices(self, loop: CommandLoop) -> None:
        """Record that the online devices were there until now, unless the database hangs."""
        marked = asyncio.Event()
        last = commands.Housekeep(ending=True)
        loop.enqueue(Job(Caller(DeviceKey(b"")), last, lambda *_: marked.set()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(marked.wait(), timeout=MARK_S)

    async def _report(self) -> None:
        """Log every ``REPORT_S`` what was turned away, if anything was."""
        counts = Counter[str]()
        while True:
            await asyncio.sleep(REPORT_S)
            if self.turned_away() != counts:
                counts = self.turned_away()
                log.info("turned away so far: %s", _listed(counts))

    def turned_away(self) -> Counter[str]:
        """Return the counts of what was refused, by reason."""
        zap = {f"handshake {what}": n for what, n in self._zap.counts.items() if what != "admit"}
        cut = {
            f"connection {what}": n
            for what, n in (self._at_commands.counts + self._at_events.counts).items()
        }
        command_loop = self.command_loop.counts if self.command_loop else Counter[str]()
        return self.counts + Counter(zap) + Counter(cut) + command_loop

    def _on_link(self, link: ConnectionEvent) -> None:
        if link in (ConnectionEvent.FAILED, ConnectionEvent.SILENT, ConnectionEvent.ACCEPT_FAILED):
            self.counts[f"link {link.value}"] += 1

    # -- in -------------------------------------------------------------------------------------

    def _on_message(self, frames: Frames) -> None:
        self._at_commands.on_message(frames[-1])
        routing_id, device = frames[0].bytes, user_id(frames[-1])
        if device is None or self.command_loop is None:
            self.counts["anonymous"] += 1
            return
        plausible = len(frames) > 2 and len(frames[2]) <= limits.REQUEST_ID_BYTES
        request_id = frames[2].bytes if plausible else b""
        if not self._rates.take(device, monotonic()):
            self.counts["too fast"] += 1
            text = "this device sends too many commands"
            self._send(routing_id, request_id, Refusal(Code.BUSY, text, "try again in a second"))
            return
        try:
            envelope = self._decoder.unpack(frames[1:])
        except VersionMismatch as error:
            self.counts["version"] += 1
            refusal = Refusal(Code.VERSION, error.message, error.hint)
            self._send(routing_id, error.request_id, refusal)
            return
        except RemoteProtocolError as error:
            self.counts["malformed"] += 1
            self._send(routing_id, request_id, Refusal(Code.MALFORMED, error.message[:500]))
            return
        data = bytes(envelope.data) if envelope.data is not None else None

        def answer(reply: Reply, data: bytes | None) -> None:
            self._send(routing_id, envelope.request_id, reply, data)

        caller = Caller(device, peer_address(frames[-1]), envelope.request_id)
        self.command_loop.submit(Job(caller, envelope.body, answer, data))

    # -- out ------------------------------------------------------------------------------------

    def _send(
        self, routing_id: bytes, request_id: bytes, reply: Reply, data: bytes | None = None
    ) -> None:
        if self._commands is None:
            return
        # A lost reply is asked for again; the tracker does not wait for a slow reader.
        sent = self._commands.send([routing_id, *pack(request_id, reply, data)])
        if sent is not Sent.YES:
            self.counts[f"reply {sent.value}"] += 1

    def _publish(self, outgoing: Outgoing) -> None:
        if self._events is None:
            return
        self.published += 1
        body = encode(outgoing.body)
        if outgoing.key is not None:
            body = seal(outgoing.key, outgoing.epoch, outgoing.topic, body)
        with contextlib.suppress(zmq.Again):
            self._events.send_multipart([outgoing.topic, SIGNATURE, body], zmq.DONTWAIT)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))
