"""Piece server: answers the devices that fetch from this peer.

Drives the serving machine: turns messages, read results and inventory changes into its events, and
carries out its effects. Owns: the answers to clients. Not here: the right to fetch, checked at
every request and again before the piece is sent (see ``peer.serving.access``); the order and number
of pieces in flight (see ``peer.swarm.serving.machine``); disk reads (see
``peer.serving.piece_reader``); the socket (see ``peer.serving.server_socket``).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import groupby
from typing import Any, assert_never

import zmq

from common import limits
from common.crypto.keys import KeyPair
from common.digests import Buffer
from common.errors import Refused
from common.host.clock import monotonic
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.messages import peer
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.names import fold_id
from common.net import zap
from common.net.pump import Sent
from peer.serving.access import AccessControl
from peer.serving.clients import Client, ClientChannel, ClientTable, refusal_of
from peer.serving.inventory import NOT_OFFERED, Inventory, ServedContent
from peer.serving.manifest_pacer import ManifestPacer
from peer.serving.meter import ServingMeter
from peer.serving.piece_reader import Outcome, PieceReader, ReadResult, Run
from peer.serving.server_socket import ServerSocket
from peer.swarm.rate_limit import RateLimit
from peer.swarm.serving import events as swarm
from peer.swarm.serving.events import DeclineReason, RequesterId
from peer.swarm.serving.machine import Serving
from peer.tracker_client.group_replica import GroupReplica
from peer.wakeup_timer import WakeupTimer
from peer.workers import Workers

log = logging.getLogger(__name__)

EVICTED = Refusal(Code.BUSY, "too many connections")
NOT_ACKNOWLEDGED = Refusal(Code.BUSY, "sent pieces were never acknowledged", "open again")


class PieceServer:
    """Serves the contents of the inventory to authorised clients."""

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
        """Listen at ``listen``, or nowhere before `move` (see `ServerSocket`).

        Devices of members are admitted, and the tracker, whose requests need a ticket like all
        others. Raises `CannotListen`.
        """
        self.counts: Counter[str] = Counter()
        self._access = access
        self._inventory = inventory
        self._core = Serving(limit=limit)
        self._core.counts = self.counts
        self._reader = PieceReader(inventory, workers, notify, self.counts)
        self._manifests = ManifestPacer(limit)
        self._clients = ClientTable()
        self.meter = ServingMeter()
        self._wakeup = WakeupTimer(lambda: self._decide(swarm.Tick()))
        self._socket = ServerSocket(
            context,
            pair,
            listen,
            guard=guard,
            is_known=lambda key: is_tracker(key) or replica.knows_device(key),
            on_message=self._on_message,
            counts=self.counts,
            bulk_port=bulk_port,
        )
        self.endpoint = self._socket.endpoint
        inventory.attach(self)

    @property
    def bulk_state(self) -> str:
        """State of bulk connections, as text."""
        return self._socket.bulk.state

    def move(self, listen: str) -> None:
        """Listen at ``listen`` instead (see `ServerSocket.move`). Raises `CannotListen`."""
        self._socket.move(listen)
        self.endpoint = self._socket.endpoint

    def close(self) -> None:
        """Stop serving."""
        self._reader.close()
        self._manifests.close()
        self._wakeup.close()
        self._socket.close()

    # -- messages of clients --------------------------------------------------------------------

    def _on_message(
        self, requester: RequesterId, device: DeviceKey, message: peer.ClientMessage | None
    ) -> None:
        client = self._clients.get(requester)
        if client is not None and client.device != device:
            # The routing id passed to another device: it must get nothing that was for the former.
            self._remove(requester)
            client = None
        if message is None:
            return
        if client is None:
            client, *evicted = self._clients.add(requester, device)
            for former in evicted:
                self._on_evicted(former)
        match message:
            case peer.Request():
                self._on_request(client, message)
            case peer.Credit(received_bytes):
                self._decide(swarm.Acknowledged(client.id, client.received(received_bytes)))
            case peer.Open():
                self._on_open(client, message)
            case peer.Renew(group, token):
                self._on_renew(client, GroupId(fold_id(group)), token)
            case peer.Withdraw(number, pieces):
                if (channel := client.channels.get(number)) is not None:
                    self._decide(swarm.RequestCancelled(client.id, channel.content, tuple(pieces)))
            case peer.Close(number):
                if (channel := client.channels.get(number)) is not None:
                    self._close_channel(channel)
            case peer.AskManifest():
                self._on_manifest_request(client, message)
            case _:
                assert_never(message)

    def _on_open(self, client: Client, message: peer.Open) -> None:
        group, content = GroupId(fold_id(message.group)), ContentId(message.content)
        if (former := client.channels.get(message.channel)) is not None:
            self._close_channel(former)  # to the client the number means the new one from now on
        try:
            ticket = self._access.authorize(client.device, group, message.ticket)
        except Refused as error:
            self.counts["refused"] += 1
            self._send_closed(client, message.channel, refusal_of(error))
            return
        served = self._inventory.find(group, content)
        if served is None:
            self._send_closed(client, message.channel, NOT_OFFERED)
            return
        # Requests on a closed channel must not be answered on the new one.
        for former in self._clients.conflicting(client, message.channel, content):
            self._close_channel(former)
        client.tickets[group] = ticket
        if self._clients.open(client, message.channel, group, content, message.notices) is None:
            refusal = Refusal(Code.LIMIT, "too many open channels")
            self._send_closed(client, message.channel, refusal)
            return
        bits = None if served.have is None else served.have.to_bytes()
        answer = peer.Opened(message.channel, served.have is None, ticket.expires_ms)
        self._send(client, answer, bits)
        still_here, bulk = self._clients.get(client.id) is client, self._socket.bulk
        if message.bulk and still_here and (offer := bulk.offer(client.id, aegis=message.aegis)):
            self._send(client, offer)

    def _on_renew(self, client: Client, group: GroupId, token: bytes) -> None:
        if group not in client.tickets:
            return
        try:
            client.tickets[group] = self._access.authorize(client.device, group, token)
        except Refused as error:
            self.counts["refused"] += 1
            log.info("a renewed ticket was refused: %s", error)

    def _authorize(self, channel: ClientChannel) -> ServedContent | None:
        """Return the content of a channel; close the channel if its right no longer holds."""
        try:
            return self._access.served(channel)
        except Refused as error:
            self.counts["refused"] += 1
            self._refuse(channel, refusal_of(error))
            return None

    def _on_request(self, client: Client, message: peer.Request) -> None:
        channel = client.channels.get(message.channel)
        served = None if channel is None else self._authorize(channel)
        received = client.received(message.received_bytes)
        if channel is None or served is None:
            self._decide(swarm.Acknowledged(client.id, received))
            return
        pieces = tuple(message.pieces)
        if pieces and max(pieces) >= served.manifest.piece_count:
            self.counts["out of range"] += 1  # these are declined, like those not held
        user = UserId(channel.ticket.user)
        self._decide(swarm.RequestReceived(client.id, user, channel.content, pieces, received))

    def _on_manifest_request(self, client: Client, message: peer.AskManifest) -> None:
        channel = client.channels.get(message.channel)
        served = None if channel is None else self._authorize(channel)
        if channel is None or served is None:
            return
        size = min(limits.MANIFEST_PART_BYTES, max(0, len(served.encoded) - message.offset))
        answer = partial(self._send_manifest_part, client.id, message)
        self._manifests.add((client.id, message.channel), UserId(channel.ticket.user), size, answer)

    def _send_manifest_part(self, requester: RequesterId, message: peer.AskManifest) -> None:
        client = self._clients.get(requester)
        channel = None if client is None else client.channels.get(message.channel)
        served = None if channel is None else self._authorize(channel)
        if client is not None and served is not None:
            part = served.encoded[message.offset : message.offset + limits.MANIFEST_PART_BYTES]
            answer = peer.ManifestBytes(message.channel, len(served.encoded), message.offset)
            self._send(client, answer, part)

    # -- the machine ----------------------------------------------------------------------------

    def _decide(self, event: swarm.ServingEvent) -> None:
        """Pass an event to the serving machine and carry out its effects."""
        now = monotonic()
        sends: list[swarm.Send] = []
        for effect in self._core.handle(event, now):
            match effect:
                case swarm.Send():
                    sends.append(effect)
                case swarm.Decline(requester, content, pieces, why, retry_after_s):
                    if (channel := self._clients.channel(requester, content)) is not None:
                        busy = why is DeclineReason.BUSY
                        self._send_declined(channel, pieces, busy, retry_after_s)
                case swarm.Drop(requester):
                    self._drop(requester)
                case _:
                    assert_never(effect)
        self._read(sends)
        self._wakeup.set(self._core.next_wakeup(now), now)

    # -- pieces ---------------------------------------------------------------------------------

    def _read(self, sends: Iterable[swarm.Send]) -> None:
        for (requester, content), sends_of in groupby(sends, lambda s: (s.requester, s.content)):
            run, channel = list(sends_of), self._clients.channel(requester, content)
            if channel is None:
                self._drop_sends(run)
            else:
                slow = [s.index for s in run if s.notify and channel.notices]
                for some in peer.piece_lists(slow):
                    self._send(channel.client, peer.OnItsWay(channel.number, some))
                run_bytes = self._core.run_bytes(requester)
                self._reader.read(run, run_bytes, partial(self._on_read, channel))

    def _on_read(self, channel: ClientChannel, result: ReadResult) -> None:
        # If the channel was closed meanwhile, there may be a new one, which requests for itself.
        if result.outcome is Outcome.DROP or not channel.is_open:
            self._drop_sends(result.run)
        elif result.outcome is Outcome.RETRY:
            self._block_sends(result.run)
        else:
            self._send_run(channel, result.run, result.data)

    def _send_run(self, channel: ClientChannel, run: Run, data: Buffer) -> None:
        # Time has passed since the request: the right is checked again.
        served = self._authorize(channel)
        if served is None:
            self._drop_sends(run)
            return
        requester, number = channel.client.id, channel.number
        frame_bytes = self._core.frame_bytes(requester)
        pieces = peer.Pieces(number, run[0].index, len(run))
        sent = self._socket.bulk.send(requester, pieces, data, frame_bytes)
        if sent is not None:
            self._on_sent(channel, run, sent, memoryview(data).nbytes)
            return
        for send, piece in zip(run, served.manifest.cut(data, len(run)), strict=True):
            sent = self._socket.send_piece(requester, number, send.index, piece, frame_bytes)
            self._on_sent(channel, [send], sent, memoryview(piece).nbytes)

    def _on_sent(self, channel: ClientChannel, run: Run, sent: Sent, size: int) -> None:
        match sent:
            case Sent.YES:
                self.counts["pieces"] += len(run)
                self.meter.sent(channel, size, monotonic())
            case Sent.FULL:
                self._block_sends(run)
            case Sent.GONE:
                self._remove(run[0].requester)

    def _block_sends(self, run: Run) -> None:
        for send in run:
            self._decide(swarm.SendBlocked(send.requester, send.content, send.index))

    def _drop_sends(self, run: Run) -> None:
        for send in run:
            self._decide(swarm.SendDropped(send.requester, send.content, send.index))

    # -- answers --------------------------------------------------------------------------------

    def _send(self, client: Client, answer: peer.Answer, data: Buffer | None = None) -> None:
        if self._socket.send(client.id, answer, data) is Sent.GONE:
            self._remove(client.id)

    def _send_declined(
        self, channel: ClientChannel, pieces: tuple[int, ...], busy: bool, retry_after_s: float
    ) -> None:
        retry_ms = min(60_000, round(retry_after_s * 1000))
        for some in peer.piece_lists(pieces):
            self._send(channel.client, peer.Declined(channel.number, some, busy, retry_ms))

    def _send_closed(self, client: Client, number: int, refusal: Refusal) -> None:
        self.counts[f"refusal {refusal.code.value}"] += 1
        self._send(client, peer.Closed(number, refusal))

    def _refuse(self, channel: ClientChannel, refusal: Refusal) -> None:
        """Close a channel, if it is open, and report the reason to its client."""
        if channel.is_open:
            self._close_channel(channel)
            self._send_closed(channel.client, channel.number, refusal)

    # -- clients that leave ---------------------------------------------------------------------

    def _close_channel(self, channel: ClientChannel) -> None:
        if channel.is_open:
            self._clients.close(channel)
            self._decide(swarm.ContentClosed(channel.client.id, channel.content))

    def _remove(self, requester: RequesterId) -> bool:
        """Remove a client, if it is there; return whether it was."""
        self._socket.bulk.forget(requester)
        if self._clients.remove(requester) is None:
            return False
        self._decide(swarm.RequesterGone(requester))
        return True

    def _drop(self, requester: RequesterId) -> None:
        """Drop a client that took pieces and never acknowledged them. It may open again."""
        if self._remove(requester):
            self.counts["dropped"] += 1
            self._socket.send(requester, NOT_ACKNOWLEDGED)

    def _on_evicted(self, former: Client) -> None:
        """Clean up after an evicted client. If its connection still exists, it may open again."""
        self.counts["evicted"] += 1
        self._socket.bulk.forget(former.id)
        self._decide(swarm.RequesterGone(former.id))
        self._socket.send(former.id, EVICTED)

    def drop_user(self, group: GroupId, user: UserId) -> None:
        """Close the channels of ``group`` that ``user`` opened, if the right no longer holds."""
        for channel in self._clients.of_user(group, user):
            if channel.is_open:
                self._authorize(channel)

    # -- the inventory (see `InventoryListener`) ------------------------------------------------

    def content_added(self, served: ServedContent) -> None:
        """Add a content to the serving machine."""
        content, manifest = served.content, served.manifest
        self._decide(swarm.ContentAdded(content, manifest.piece_length, manifest.size, served.have))

    def content_removed(self, content: ContentId, refusal: Refusal) -> None:
        """Close all channels of a content and remove it from the serving machine."""
        for channel in self._clients.of_content(content):
            self._refuse(channel, refusal)
        self._decide(swarm.ContentRemoved(content))
        self.meter.forget(content)

    def group_removed(self, content: ContentId, group: GroupId) -> None:
        """Close the channels of a content that were opened by the right of ``group``."""
        for channel in self._clients.of_content(content):
            if channel.group == group:
                self._refuse(channel, NOT_OFFERED)

    def held_more(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        """Serve these pieces from now on."""
        self._core.handle(swarm.HeldMore(content, pieces), monotonic())  # it has no effects

    def held_less(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        """Stop serving these pieces."""
        self._decide(swarm.HeldLess(content, pieces))

    def announce(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        """Send `Have` to all clients of a content."""
        for channel in self._clients.of_content(content):
            for some in peer.piece_lists(pieces):
                self._send(channel.client, peer.Have(channel.number, some))
