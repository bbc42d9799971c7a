"""The serving side: one ROUTER that answers those who fetch from this peer.

Owns the socket and what is said on it. By what right somebody is answered is checked by
``peer.serving.access``, on every request again; in what order, and how much is on its way at a
time, is decided by ``peer.swarm.serving.machine``; the pieces come from
``peer.serving.piece_reader``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, assert_never

import zmq

from common import limits
from common.crypto.keys import KeyPair
from common.crypto.tickets import Ticket
from common.digests import Buffer
from common.errors import CannotListen, Refused, RemoteProtocolError
from common.host.clock import monotonic
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.messages import peer
from common.messages.refusals import Code, Refusal
from common.names import fold_id
from common.net import zap
from common.net.codec import SIGNATURE, Decoder, Envelope, VersionMismatch, cut, encode, pack
from common.net.connection_limits import MESSAGES, ConnectionLimiter
from common.net.sockets import (
    ConnectionEvent,
    Frames,
    Pump,
    Sent,
    Serve,
    SocketMonitor,
    bind,
    make_socket,
    sender,
)
from peer.serving.access import AccessControl
from peer.serving.bulk import BulkSender
from peer.serving.clients import Client, ClientChannel, ClientTable
from peer.serving.inventory import NOT_OFFERED, Inventory, ServedContent
from peer.serving.manifest_pacer import ManifestServing
from peer.serving.piece_reader import PieceReader, Run
from peer.swarm.pieces import PieceLayout
from peer.swarm.rate_limit import RateLimit
from peer.swarm.serving import events as swarm
from peer.swarm.serving.events import DeclineReason, RequesterId
from peer.swarm.serving.machine import Serving
from peer.tracker_client.group_replica import GroupReplica
from peer.workers import Workers

log = logging.getLogger(__name__)

DOMAIN = "pieces"
# Pieces wait in our own queue, where they can still be withdrawn, and not in the socket's.
SEND_QUEUE = 64
TOO_MANY = Refusal(Code.BUSY, "too many are connected here")
SILENT = Refusal(Code.BUSY, "what was sent was never credited", "open again")
HAVES_PER_MESSAGE = limits.PIECES_PER_REQUEST_MAX
_asks: Decoder[peer.Ask] = Decoder(peer.Ask, data_frames=0, request_ids=False)


class PieceServer:
    """Serves what is on the shelf to those who have the right."""

    def __init__(
        self,
        context: zmq.Context[Any],
        pair: KeyPair,
        listen: str | None,
        *,
        guard: zap.ZapHandler,
        replica: GroupReplica,
        access: AccessControl,
        inventory: Inventory,
        workers: Workers,
        limit: RateLimit,
        bulk_port: int | None = None,
        notify: Callable[[str], None] = log.warning,
        is_tracker: Callable[[DeviceKey], bool] = lambda _: False,
    ) -> None:
        """Listen at ``listen``, or nowhere before `move`, and for bulk connections at ``bulk_port``
        (see `BulkSender`). Only members' devices come in, and the tracker: what it asks for needs a
        ticket, as everybody's requests do. Raises `CannotListen`."""
        self._access = access
        self._inventory = inventory
        self._serving = Serving(limit=limit)
        self._reader = PieceReader(
            inventory,
            workers,
            run_bytes=self._serving.run_bytes,
            channel_of=self._channel_of,
            send=self._send_run,
            decide=self._decide,
            notify=notify,
        )
        self._manifests = ManifestServing(limit)
        self._clients = ClientTable()
        self._loop = asyncio.get_running_loop()
        self._wakeup: asyncio.TimerHandle | None = None
        self._closed = False
        self.counts: Counter[str] = Counter()
        guard.guard(
            DOMAIN,
            lambda key, _: (
                zap.Admission.ADMIT
                if is_tracker(key) or replica.knows_device(key)
                else zap.Admission.RETRY
            ),
        )
        socket = make_socket(
            context,
            zmq.ROUTER,
            Serve(pair, DOMAIN),
            message_bytes_max=limits.COMMAND_BYTES_MAX,
            send_queue=SEND_QUEUE,
        )
        self._connections = ConnectionLimiter(MESSAGES)
        self._watch = SocketMonitor(socket, self._on_link, self._connections)
        self.endpoint = ""
        self._bulk = BulkSender(
            context,
            bulk_port,
            guard=guard,
            connections=self._connections,
            on_link=self._on_link,
            send_queue=SEND_QUEUE,
        )
        self._pump = Pump(socket, self._on_message)
        try:
            if listen is not None:
                self.move(listen)
        except Exception:
            self._watch.close()
            self._pump.close()
            self._bulk.close()
            raise
        inventory.attach(self)

    def move(self, listen: str) -> None:
        """Listen at ``listen`` from now on. Connections that were made at another address before
        stay. Raises `CannotListen`, and then listens where it did."""
        bound = bind(self._pump.socket, listen)
        try:
            self._bulk.move(bound)
        except CannotListen:
            self._pump.socket.unbind(bound)
            raise
        if self.endpoint:
            self._pump.socket.unbind(self.endpoint)
        self.endpoint = bound

    def close(self) -> None:
        """Serve nobody any more."""
        self._closed = True
        self._reader.close()
        self._manifests.close()
        if self._wakeup is not None:
            self._wakeup.cancel()
        self._watch.close()
        self._connections.close()
        self._pump.close()
        self._bulk.close()

    def _on_link(self, link: ConnectionEvent) -> None:
        self.counts[f"link {link.value}"] += 1

    # -- what comes in --------------------------------------------------------------------------

    def _on_message(self, frames: Frames) -> None:
        self._connections.heard(frames[-1])
        who = sender(frames)
        if who is None:
            self.counts["unnamed"] += 1
            return
        requester = RequesterId(who.routing_id)
        client = self._clients.get(requester)
        if client is not None and client.device != who.device:
            # The name passed to another device: nothing that was for the former may go there.
            self._leave(requester)
            client = None
        try:
            envelope = _asks.unpack(frames[1:])
        except VersionMismatch as error:
            refusal = Refusal(Code.VERSION, error.message, error.hint)
            self._pump.send([requester, *pack(error.request_id, refusal)])
            return
        except RemoteProtocolError as error:
            self.counts["malformed"] += 1
            log.debug("a malformed message from %s: %s", who.device.hex()[:16], error)
            refusal = Refusal(Code.MALFORMED, "this message cannot be read")
            self._pump.send([requester, *pack(b"", refusal)])
            return
        if client is None:
            client, *gone = self._clients.enter(requester, who.device)
            for former in gone:
                self._turn_out(former)
        self._take(client, envelope)

    def _take(self, client: Client, envelope: Envelope[peer.Ask]) -> None:
        match envelope.body:
            case peer.Request() as ask:
                self._request(client, ask)
            case peer.Credit(said_bytes):
                self._decide(swarm.Acknowledged(client.id, client.received(said_bytes)))
            case peer.Open() as ask:
                self._open(client, ask)
            case peer.Renew(group, token):
                self._renew(client, GroupId(fold_id(group)), token)
            case peer.Withdraw(number, pieces):
                channel = client.channels.get(number)
                if channel is not None:
                    self._decide(swarm.RequestCancelled(client.id, channel.content, tuple(pieces)))
            case peer.Close(number):
                self._close_channel(client, number)
            case peer.AskManifest() as ask:
                self._send_manifest(client, ask)
            case _:
                assert_never(envelope.body)

    def _open(self, client: Client, ask: peer.Open) -> None:
        group, content = GroupId(fold_id(ask.group)), ContentId(ask.content)
        self._close_channel(client, ask.channel)  # to the other side it is another from here on
        try:
            ticket = self._access.authorize(client.device, group, ask.ticket)
        except Refused as error:
            self.counts["refused"] += 1
            self._refuse(client, ask.channel, Refusal(error.code, error.message, error.hint))
            return
        served = self._inventory.find(group, content)
        if served is None:
            self._refuse(client, ask.channel, NOT_OFFERED)
            return
        # What waits for a channel that is no more must not come on the new one, where nobody asked.
        for stale in self._clients.conflicting(client, ask.channel, content):
            self._close_channel(client, stale.number)
        client.tickets[group] = ticket
        if not self._clients.open(client, ask.channel, group, content):
            self._refuse(client, ask.channel, Refusal(Code.LIMIT, "too many open channels"))
            return
        complete = served.have is None
        bits = None if served.have is None else served.have.to_bytes()
        answer = peer.Opened(ask.channel, complete, ticket.expires_ms)
        self._send(client, pack(b"", answer, bits))
        still_here = self._clients.get(client.id) is client
        if ask.bulk and still_here and (offer := self._bulk.offer(client.id)) is not None:
            self._send(client, pack(b"", offer))

    def _renew(self, client: Client, group: GroupId, token: bytes) -> None:
        if group not in client.tickets:
            return
        try:
            client.tickets[group] = self._access.authorize(client.device, group, token)
        except Refused as error:
            self.counts["refused"] += 1
            log.info("a renewed ticket was refused: %s", error)

    def _permitted(
        self, client: Client, number: int
    ) -> tuple[ClientChannel, ServedContent, Ticket] | None:
        """The channel, if the right by which it was opened still holds; else it is closed."""
        channel = client.channels.get(number)
        if channel is None:
            return None
        ticket = client.tickets[channel.group]
        try:
            self._access.reauthorize(ticket)
        except Refused as error:
            self.counts["refused"] += 1
            self._close_channel(client, number)
            self._refuse(client, number, Refusal(error.code, error.message, error.hint))
            return None
        served = self._inventory.find(channel.group, channel.content)
        if served is None:
            self._close_channel(client, number)
            self._refuse(client, number, NOT_OFFERED)
            return None
        return channel, served, ticket

    def _request(self, client: Client, ask: peer.Request) -> None:
        permitted = self._permitted(client, ask.channel)
        received = client.received(ask.received_bytes)
        if permitted is None:
            self._decide(swarm.Acknowledged(client.id, received))
            return
        channel, served, ticket = permitted
        pieces = tuple(ask.pieces)
        if pieces and max(pieces) >= served.manifest.piece_count:
            self.counts["out of range"] += 1  # and these are declined, like those not held
        user = UserId(ticket.user)
        self._decide(swarm.RequestReceived(client.id, user, channel.content, pieces, received))

    def _send_manifest(self, client: Client, ask: peer.AskManifest) -> None:
        permitted = self._permitted(client, ask.channel)
        if permitted is None:
            return
        _, served, ticket = permitted
        size = min(limits.MANIFEST_PART_BYTES, max(0, len(served.encoded) - ask.offset))
        self._manifests.asked(
            (client.id, ask.channel),
            UserId(ticket.user),
            size,
            lambda: self._give_manifest(client.id, ask),
        )

    def _give_manifest(self, requester: RequesterId, ask: peer.AskManifest) -> None:
        client = self._clients.get(requester)
        permitted = None if client is None else self._permitted(client, ask.channel)
        if client is None or permitted is None:
            return
        encoded = permitted[1].encoded
        part = encoded[ask.offset : ask.offset + limits.MANIFEST_PART_BYTES]
        answer = peer.ManifestBytes(ask.channel, len(encoded), ask.offset)
        self._send(client, pack(b"", answer, part))

    # -- deciding and sending -------------------------------------------------------------------

    def _decide(self, event: swarm.ServingEvent) -> None:
        """Tell the core, and do what it says."""
        now = monotonic()
        given_out: list[swarm.Send] = []
        for effect in self._serving.handle(event, now):
            match effect:
                case swarm.Send():
                    given_out.append(effect)
                case swarm.Decline(requester, content, pieces, why, retry_after_s):
                    self._on_decline(requester, content, pieces, why, retry_after_s)
                case swarm.Drop(requester):
                    self._drop(requester)
                case _:
                    assert_never(effect)
        if given_out:
            self._reader.read(given_out)
        self._set_wakeup(now)

    def _set_wakeup(self, now: float) -> None:
        # A timer that rings too early costs a tick; making it anew with each of thousands of
        # messages a second would cost more.
        at = self._serving.next_wakeup(now)
        if at is None or self._closed:
            return
        due = self._loop.time() + max(0.001, at - now)
        if self._wakeup is not None:
            if self._wakeup.when() <= due:
                return
            self._wakeup.cancel()
        self._wakeup = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._wakeup = None
        self._decide(swarm.Tick())

    def _channel_of(self, send: swarm.Send) -> ClientChannel | None:
        client = self._clients.get(send.requester)
        return None if client is None else client.channel_of(send.content)

    def _send_run(self, run: Run, data: Buffer) -> None:
        client = self._clients.get(run[0].requester)
        channel = None if client is None else client.channel_of(run[0].content)
        # Time has passed since the request was permitted: the right is looked at once more.
        permitted = None
        if client is not None and channel is not None:
            permitted = self._permitted(client, channel.number)
        if client is None or permitted is None:
            for send in run:
                self._reader.take_back(send)
            return
        number = permitted[0].number
        pieces = peer.Pieces(number, run[0].index, len(run))
        frame_bytes = self._serving.frame_bytes(client.id)
        sent = self._bulk.send(client.id, pieces, data, frame_bytes)
        if sent is not None:
            self._was_sent(run, sent)
            return
        for send, piece in zip(run, permitted[1].manifest.cut(data, len(run)), strict=True):
            head = encode(peer.Piece(number, send.index))
            frames = [client.id, SIGNATURE, b"", head, *cut(piece, frame_bytes)]
            sent = self._pump.send(frames, copy=False)
            self._was_sent([send], sent)

    def _was_sent(self, run: Run, sent: Sent) -> None:
        match sent:
            case Sent.YES:
                self.counts["pieces"] += len(run)
            case Sent.FULL:
                for send in run:
                    self._decide(swarm.SendBlocked(send.requester, send.content, send.index))
            case Sent.GONE:
                self._leave(run[0].requester)

    def _on_decline(
        self,
        requester: RequesterId,
        content: ContentId,
        pieces: tuple[int, ...],
        why: DeclineReason,
        retry_after_s: float,
    ) -> None:
        client = self._clients.get(requester)
        channel = None if client is None else client.channel_of(content)
        if client is not None and channel is not None:
            busy = why is DeclineReason.BUSY
            self._decline(client, channel, pieces, busy, retry_after_s)

    def _decline(
        self,
        client: Client,
        channel: ClientChannel,
        pieces: tuple[int, ...],
        busy: bool,
        retry_after_s: float = 0.0,
    ) -> None:
        retry_ms = min(60_000, round(retry_after_s * 1000))
        for at in range(0, len(pieces), limits.PIECES_PER_REQUEST_MAX):
            some = list(pieces[at : at + limits.PIECES_PER_REQUEST_MAX])
            self._send(client, pack(b"", peer.Declined(channel.number, some, busy, retry_ms)))

    def _refuse(self, client: Client, number: int, refusal: Refusal) -> None:
        self._send(client, pack(b"", peer.Closed(number, refusal)))

    def _send(self, client: Client, frames: list[Any]) -> None:
        if self._pump.send([client.id, *frames]) is Sent.GONE:
            self._leave(client.id)

    # -- what goes ------------------------------------------------------------------------------

    def _close_channel(self, client: Client, number: int) -> None:
        channel = self._clients.close(client, number)
        if channel is not None:
            self._decide(swarm.ContentClosed(client.id, channel.content))

    def _leave(self, requester: RequesterId) -> None:
        self._bulk.forget(requester)
        if self._clients.leave(requester) is not None:
            self._decide(swarm.RequesterGone(requester))

    def _drop(self, requester: RequesterId) -> None:
        """A requester took pieces and never said so. Should it live still, it may open again."""
        client = self._clients.leave(requester)
        if client is not None:
            self.counts["dropped"] += 1
            self._bulk.forget(requester)
            self._decide(swarm.RequesterGone(requester))
            self._pump.send([requester, *pack(b"", SILENT)])

    def _turn_out(self, former: Client) -> None:
        """``former`` was forgotten to make room. Most often its connection is gone; if it is not,
        it is told, and may open again."""
        self.counts["turned out"] += 1
        self._bulk.forget(former.id)
        self._decide(swarm.RequesterGone(former.id))
        self._pump.send([former.id, *pack(b"", TOO_MANY)])

    def drop_user(self, group: GroupId, user: UserId) -> None:
        """``user`` lost the right to ``group``: nothing more of it goes there."""
        for client in self._clients:
            ticket = client.tickets.get(group)
            if ticket is not None and ticket.user == user:
                for channel in list(client.channels.values()):
                    if channel.group == group:
                        self._permitted(client, channel.number)

    # -- from the shelf -------------------------------------------------------------------------

    def content_added(self, served: ServedContent) -> None:
        """Part of `ShelfListener`."""
        manifest = served.manifest
        layout = PieceLayout(manifest.size, manifest.piece_length)
        self._decide(
            swarm.ContentAdded(served.content, layout.piece_length, layout.size, served.have)
        )

    def content_removed(self, content: ContentId, refusal: Refusal) -> None:
        """Part of `ShelfListener`."""
        for client, channel in self._clients.of_content(content):
            self._close_channel(client, channel.number)
            self._refuse(client, channel.number, refusal)
        self._decide(swarm.ContentRemoved(content))

    def group_removed(self, content: ContentId, group: GroupId) -> None:
        """Part of `ShelfListener`."""
        for client, channel in self._clients.of_content(content):
            if channel.group == group:
                self._close_channel(client, channel.number)
                self._refuse(client, channel.number, NOT_OFFERED)

    def held_more(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        """Part of `ShelfListener`."""
        self._decide(swarm.HeldMore(content, pieces))

    def held_less(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        """Part of `ShelfListener`."""
        self._decide(swarm.HeldLess(content, pieces))

    def announce(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        """Part of `ShelfListener`."""
        for client, channel in self._clients.of_content(content):
            for at in range(0, len(pieces), HAVES_PER_MESSAGE):
                some = list(pieces[at : at + HAVES_PER_MESSAGE])
                self._send(client, pack(b"", peer.Have(channel.number, some)))

    @property
    def clients(self) -> int:
        """How many connections have something open or had."""
        return len(self._clients)

    @property
    def bulk_state(self) -> str:
        """Where bulk connections are taken, in words."""
        return self._bulk.state
