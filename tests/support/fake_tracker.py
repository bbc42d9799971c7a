"""A tracker that lies: it has a key of its own, and who was told to trust it must survive it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import nacl.signing
import zmq

from common import limits, manifest
from common.crypto.keys import KeyPair, new_pair
from common.link import Tracker
from common.messages import events, tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.net import codec
from tests.support.waiting import PATIENCE_S

Answer = Callable[[Any], Any]
TRACKER_ID, TOPIC, KEY = b"T" * 16, b"t" * 16, b"k" * 32


class FakeTracker(threading.Thread):
    """Answers by ``answers``, and as a dull but honest tracker where they say nothing.

    An answer is a reply, a pair of a reply and its data, or a list of frames.
    """

    def __init__(
        self,
        answers: dict[type, Answer] | None = None,
        *,
        endpoint: str = "tcp://127.0.0.1:0",
        pair: KeyPair | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self.answers = answers or {}
        self.asked: list[Any] = []
        self.pair = pair or new_pair()
        self._verify = bytes(nacl.signing.SigningKey.generate().verify_key)
        self._context: zmq.Context[Any] = zmq.Context()
        self._router = self._bound(zmq.ROUTER, endpoint)
        self._pub = self._bound(zmq.PUB, "tcp://127.0.0.1:0")
        self.at = Tracker(self._router.last_endpoint.decode(), self.pair.public)
        self._decoder: codec.Decoder[tracker.Command] = codec.Decoder(tracker.Command)
        self._ending = threading.Event()
        self.start()

    def _bound(self, kind: int, endpoint: str) -> zmq.Socket[Any]:
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.curve_server = True
        socket.curve_publickey = self.pair.public_z85
        socket.curve_secretkey = self.pair.secret_z85
        socket.bind(endpoint)
        return socket

    def run(self) -> None:
        beat_at = 0.0
        while not self._ending.is_set():
            if time.monotonic() - beat_at > 1.0:
                beat = codec.encode(events.Beat(TRACKER_ID, _now()))
                self._pub.send_multipart([events.BEAT_TOPIC, codec.SIGNATURE, beat])
                beat_at = time.monotonic()
            if self._router.poll(50):
                routing_id, *frames = self._router.recv_multipart()
                self._router.send_multipart([routing_id, *self._answer(frames)])
        self._context.destroy(linger=0)

    def _answer(self, frames: list[bytes]) -> list[Any]:
        envelope = self._decoder.unpack(frames)
        self.asked.append(envelope.body)
        answer = self.answers.get(type(envelope.body), self._honest)(envelope.body)
        if isinstance(answer, list):
            return [*answer[:1], envelope.request_id, *answer[1:]]
        reply, data = answer if isinstance(answer, tuple) else (answer, None)
        return codec.pack(envelope.request_id, reply, data)

    def _honest(self, command: Any) -> Any:
        match command:
            case tracker.Hello():
                events_at = self._pub.last_endpoint.decode()
                return tracker.Welcome(
                    TRACKER_ID, [self._verify], events_at, _now(), "bob", TOPIC, KEY
                )
            case tracker.Follow():
                state = tracker.GroupState("lab", "bob", 1, b"g" * 16, KEY, 0)
                return tracker.Following([state], _now())
            case tracker.Announce():
                return tracker.Announced(limits.LEASE_S, _now(), [tracker.Head("lab", 0, 1)])
            case tracker.GetTickets():
                row = tracker.TicketRow("lab", b"a ticket", _now() + 600_000)
                return tracker.Tickets([row], _now())
            case tracker.GetDevices():
                return tracker.DeviceRows([], 0)
            case tracker.EventsSince():
                return tracker.Events([], 0)
            case tracker.MyOffers():
                return tracker.OfferRows([])
            case _:
                return tracker.Done()

    def end(self) -> None:
        self._ending.set()
        self.join(PATIENCE_S)


def row_of(name: str, encoded: bytes) -> tracker.FileRow:
    """The true row of a content."""
    content = manifest.manifest_id(encoded)
    made = manifest.decode(encoded, content)
    return tracker.FileRow(
        name,
        content,
        made.size,
        made.file_count,
        made.piece_count,
        made.piece_length,
        made.algorithm.value,
        made.digest,
        1,
        0,
        ["eve"],
        folder=made.is_folder,
    )


def found(name: str, encoded: bytes, *, content: bytes = b"", total: int | None = None) -> Answer:
    """The answer to `FindShare`: a share called ``name``."""
    content = content or manifest.manifest_id(encoded)
    row = tracker.FileRow(name, content, 5, 1, 1, 1 << 14, "blake3", b"d" * 32, 1, 0, ["eve"])
    size = len(encoded) if total is None else total
    return lambda _: tracker.ShareFound(row, TOPIC, size, [])


def parts(encoded: bytes, total: int | None = None) -> Answer:
    """The answer to `GetManifest`."""

    def answer(command: tracker.GetManifest) -> Any:
        part = encoded[command.offset : command.offset + limits.MANIFEST_PART_BYTES]
        size = len(encoded) if total is None else total
        if not part:
            return Refusal(Code.UNKNOWN_SHARE, "there is no more")
        return tracker.ManifestPart(size, command.offset), part

    return answer


def _now() -> int:
    return time.time_ns() // 1_000_000
