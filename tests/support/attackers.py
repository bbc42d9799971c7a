"""Those who attack, and whom: a swarm with Alice's real peer, and members who keep no rules.

`Arena` is a running tracker and the peer of Alice, who owns what is attacked. `Device`
(``tracker_fixtures``) is a member without a peer. `Fetcher` speaks to a serving peer as it likes,
`Liar` is a source that serves as it likes; both have keys that were truly let in.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import nacl.signing
import zmq

from common import limits, manifest
from common.crypto import tickets
from common.crypto.keys import KeyPair, parse_key
from common.crypto.signing_keys import load_or_make_signing_keys
from common.ids import ContentId, DeviceKey, GroupId, TrackerId, UserId
from common.link import parse_link
from common.messages import peer, tracker
from common.messages.base import Refusal
from common.net import codec, sockets
from tests.support.processes import Person, Swarm
from tests.support.tracker_process import Device, Devices
from tests.support.waiting import PATIENCE_S

PIECE = limits.PIECE_LENGTH_MIN


class AttackSwarm:
    """A tracker and Alice's peer, and devices of others who have none."""

    def __init__(self, *, native: bool = True) -> None:
        self.swarm = Swarm("tcp", native=native)
        self.devices = Devices()
        self.fetchers: list[Fetcher] = []
        self.at = parse_link(self.swarm.tracker.link).first
        try:
            self.alice = self.swarm.person("alice")
        except BaseException:
            self.swarm.close()
            raise
        status = self.alice.status()
        self.endpoint: str = status["listen"]
        self.key: DeviceKey = parse_key(status["device"])

    # -- people ---------------------------------------------------------------------------------

    @cached_property
    def bob(self) -> Person:
        """The one who downloads, with a real peer as well."""
        return self.swarm.person("bob")

    def stranger(self) -> Device:
        """A device without a user."""
        return self.devices(self.at)

    def device(self, name: str = "") -> Device:
        """A device of a new user, who is in no group."""
        device = self.stranger()
        user = self.swarm.fresh(name or "user")
        device.enter(user)
        device.user = user  # type: ignore[attr-defined]
        return device

    def member(self, group: str, name: str = "") -> Device:
        """A device of a new user whom Alice has let into ``group``."""
        device = self.device(name)
        device.request(tracker.JoinGroup(group))
        self.alice.ok("accept-request", group, user_of(device))
        return device

    def group(self) -> str:
        """A new group of Alice's."""
        return self.alice.group_with()

    def shared(self, group: str, pieces: int = 8, *, size: int = 0) -> Shared:
        """A file of Alice's, shared in ``group`` in the smallest pieces there are."""
        path = self.swarm.folder() / f"{self.swarm.fresh('file')}.bin"
        path.write_bytes(random.Random(path.name).randbytes(size or pieces * PIECE))
        self.alice.share(path, group, "--piece-size", str(PIECE))
        return Shared(group, path)

    # -- what belongs to the tracker ------------------------------------------------------------

    @property
    def signing_key(self) -> nacl.signing.SigningKey:
        """The key of the tracker: with it one can make tickets that no tracker would."""
        return load_or_make_signing_keys(self.swarm.tracker.home / "signing.key")[0]

    def ticket(self, device: Device, group: str) -> bytes:
        """The ticket that the tracker gives."""
        token: bytes = device.request(tracker.GetTickets([group])).rows[0].token
        return token

    def forged(
        self,
        device: Device,
        group: str,
        *,
        issued_s: float = 0.0,
        life_s: int = limits.TICKET_LIFE_S,
        key: nacl.signing.SigningKey | None = None,
        tracker_id: bytes | None = None,
    ) -> bytes:
        """A ticket as the tracker never signed it; ``issued_s`` is relative to its clock."""
        welcome = device.request(tracker.Hello())
        return tickets.issue(
            key or self.signing_key,
            TrackerId(tracker_id or welcome.tracker_id),
            DeviceKey(device.key),
            UserId(user_of(device)),
            GroupId(group),
            device.follow()[group].epoch,
            welcome.time_ms + round(issued_s * 1000),
            life_s,
        )[0]

    def fetcher(self, device: Device, *, at: Person | None = None) -> Fetcher:
        """A connection of ``device`` to Alice's peer, or to that of ``at``."""
        endpoint, key = self.endpoint, self.key
        if at is not None:
            status = at.status()
            endpoint, key = status["listen"], parse_key(status["device"])
        fetcher = Fetcher(endpoint, key, device.pair)
        self.fetchers.append(fetcher)
        return fetcher

    def close(self) -> None:
        for fetcher in self.fetchers:
            fetcher.close()
        self.devices.close()
        self.swarm.close()


class Shared:
    """A file that Alice shares in a group."""

    def __init__(self, group: str, path: Path) -> None:
        self.group = group
        self.path = path
        self.name = path.name
        self.bytes = path.read_bytes()

    def piece(self, index: int) -> bytes:
        return self.bytes[index * PIECE : (index + 1) * PIECE]

    def content(self, device: Device) -> ContentId:
        """The content, as a member learns of it."""
        return ContentId(device.request(tracker.FindShare(self.group, self.name)).row.content)


def user_of(device: Device) -> str:
    """The user whom `Arena` made for a device."""
    return str(device.user)  # type: ignore[attr-defined]


class Fetcher:
    """A DEALER to a serving peer, that says what it is told to."""

    def __init__(self, endpoint: str, server: DeviceKey, pair: KeyPair) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._answers: codec.Decoder[peer.Answer] = codec.Decoder(
            peer.Answer, data_frames=limits.DATA_FRAMES_MAX
        )
        self.socket = sockets.make_socket(
            self._context,
            zmq.DEALER,
            sockets.Connect(pair, server),
            message_bytes_max=limits.REPLY_BYTES_MAX,
        )
        self.socket.connect(endpoint)
        self.received = 0
        self.data: bytes = b""

    def say(self, message: peer.ClientMessage) -> None:
        self.socket.send_multipart(codec.pack(b"", message))

    def receive(self, patience_s: float = PATIENCE_S) -> Any:
        """The next answer; its data is in ``data``."""
        assert self.socket.poll(round(patience_s * 1000)), "the serving peer did not answer"
        envelope = self._answers.unpack(self.socket.recv_multipart())
        self.data = b"" if envelope.data is None else bytes(envelope.data)
        if isinstance(envelope.body, peer.Piece):
            self.received += len(self.data)
        return envelope.body

    def hears_nothing(self, patience_ms: int = 500) -> bool:
        return not self.socket.poll(patience_ms)

    def open(self, group: str, content: bytes, ticket: bytes, channel: int = 1) -> Any:
        """The answer to an `Open`: `Opened` or `Closed`."""
        self.say(peer.Open(channel, group, content, ticket))
        return self.receive()

    def refused(self, group: str, content: bytes, ticket: bytes, channel: int = 1) -> Any:
        """The code with which an `Open` must be refused."""
        answer = self.open(group, content, ticket, channel)
        assert isinstance(answer, peer.Closed), answer
        return answer.refusal.code

    def request(self, *pieces: int, channel: int = 1) -> None:
        self.say(peer.Request(channel, list(pieces), self.received))

    def close(self) -> None:
        self._context.destroy(linger=0)


class Send:
    """Answers the one who asked."""

    def __init__(self, socket: zmq.Socket[Any], to: bytes) -> None:
        self._socket, self._to = socket, to

    def __call__(self, answer: Any, data: bytes | None = None) -> None:
        self.raw(codec.pack(b"", answer, data))

    def raw(self, frames: list[bytes]) -> None:
        """Frames that need not be a message."""
        self._socket.send_multipart([self._to, *frames])


class Liar(threading.Thread):
    """A source with a ROUTER of its own. ``behave(message, send)`` answers each message."""

    def __init__(self, device: Device, behave: Callable[[Any, Send], None]) -> None:
        super().__init__(daemon=True)
        self.device = device
        self.behave = behave
        self.asked: list[Any] = []
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.curve_server = True
        self._socket.curve_publickey = device.pair.public_z85
        self._socket.curve_secretkey = device.pair.secret_z85
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.endpoint = f"tcp://127.0.0.1:{port}"
        self._asks: codec.Decoder[peer.ClientMessage] = codec.Decoder(peer.ClientMessage)
        self._ending = threading.Event()

    def run(self) -> None:
        announced_at = 0.0
        while not self._ending.is_set():
            if time.monotonic() - announced_at > limits.RENEW_S / 2:
                self.device.announce(self.endpoint)
                announced_at = time.monotonic()
            if not self._socket.poll(50):
                continue
            routing_id, *frames = self._socket.recv_multipart()
            message = self._asks.unpack(frames).body
            self.asked.append(message)
            self.behave(message, Send(self._socket, routing_id))
        self._context.destroy(linger=0)

    def seed(self, shared: Shared) -> None:
        """Offer what Alice shares, and be there for those who ask for it."""
        content = shared.content(self.device)
        self.device.announce(self.endpoint)
        self.device.request(tracker.Offer(shared.group, shared.name, content))
        self.start()

    def end(self) -> None:
        self._ending.set()
        if self.is_alive():
            self.join(PATIENCE_S)


@contextlib.contextmanager
def lying(
    arena: AttackSwarm, shared: Shared, behave: Callable[[Any, Send], None]
) -> Iterator[Liar]:
    """A liar among the sources of ``shared``."""
    liar = Liar(arena.member(shared.group, "liar"), behave)
    try:
        liar.seed(shared)
        yield liar
    finally:
        liar.end()


def honest(shared: Shared, encoded: bytes = b"") -> Callable[[Any, Send], None]:
    """Behaviour of a source that is none."""

    def behave(message: Any, send: Send) -> None:
        match message:
            case peer.Open(channel):
                send(peer.Opened(channel, True, 1 << 52))
            case peer.Request(channel, pieces):
                for index in pieces:
                    send(peer.Piece(channel, index), shared.piece(index))
            case peer.AskManifest(channel, offset):
                send(peer.ManifestBytes(channel, len(encoded), offset), encoded[offset:])
            case _:
                pass

    return behave


def encoded_manifest(device: Device, group: str, content: bytes) -> bytes:
    """The manifest as the tracker has it."""
    device.request(tracker.GetManifest(group, content))
    assert device.data is not None
    assert manifest.manifest_id(device.data) == content
    return device.data


def refusal_of(answer: Any) -> Any:
    """The code of a refusal that must be the answer."""
    assert isinstance(answer, Refusal), answer
    return answer.code
