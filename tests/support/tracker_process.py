"""Real trackers as processes, and devices that send them commands over real sockets.

`Device` is a minimal client: it sends one command at a time and waits for the reply. It opens
events of its subscriptions with the keys that it was given.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import zmq

from common import limits, manifest
from common.crypto import event_seal, keys
from common.digests import Algorithm
from common.ids import ContentId
from common.link import Tracker, parse_link
from common.messages import events, tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.net import codec, sockets

PATIENCE_S = 20.0


class TrackerProcess:
    """A `mini-torrent-tracker run` process that the test can stop, kill and restart."""

    def __init__(self, home: Path, *options: str, wait: bool = True) -> None:
        self.home = home
        self.options = options
        self.process: subprocess.Popen[str]
        self.lines: queue.Queue[str]
        self.errors: list[str] = []
        self.at: Tracker
        self.start(wait=wait)

    def start(self, *options: str, wait: bool = True) -> None:
        command = [sys.executable, "-m", "tracker.cli", "run", "--home", str(self.home)]
        self.process = subprocess.Popen(
            [*command, *self.options, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = queue.Queue()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        for stream, put in (
            (self.process.stdout, self.lines.put),
            (self.process.stderr, self.errors.append),
        ):
            threading.Thread(target=_copy, args=(stream, put), daemon=True).start()
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> Tracker:
        try:
            line = self.lines.get(timeout=PATIENCE_S)
        except queue.Empty:
            raise AssertionError(f"no tracker came up: {''.join(self.errors)}") from None
        assert line.startswith("tracker ready: "), line
        self.at = parse_link(line.removeprefix("tracker ready: ").strip()).first
        return self.at

    def logged(self, text: str) -> bool:
        """Whether its log contains ``text``."""
        return any(text in line for line in self.errors)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def restart(self) -> None:
        """Start again at the same address, so that the link stays the same."""
        self.start("--bind", self.at.endpoint)


def _copy(stream: Any, put: Callable[[str], None]) -> None:
    with contextlib.suppress(ValueError):
        for line in stream:
            put(line)


class Refused(AssertionError):
    """Unexpected refusal of a command."""


class Device:
    """A key pair with a DEALER for commands and a SUB for events."""

    def __init__(
        self,
        at: Tracker,
        pair: keys.KeyPair | None = None,
        context: zmq.Context[Any] | None = None,
    ) -> None:
        self.pair = pair or keys.new_pair()
        self.at = at
        self._context: zmq.Context[Any] = context or zmq.Context()
        self._decoder: codec.Decoder[tracker.Reply] = codec.Decoder(tracker.Reply)
        self._ids = itertools.count(int.from_bytes(os.urandom(4), "big"))
        self.socket = sockets.make_socket(
            self._context,
            zmq.DEALER,
            sockets.Connect(self.pair, at.key),
            message_bytes_max=limits.REPLY_BYTES_MAX,
        )
        self.socket.connect(at.endpoint)
        self.data: bytes | None = None
        self.topics: dict[bytes, tuple[dict[int, bytes], Any]] = {}
        self.sub: zmq.Socket[Any] | None = None

    @property
    def key(self) -> bytes:
        return self.pair.public

    def next_id(self) -> bytes:
        return next(self._ids).to_bytes(8, "big")

    def send(self, command: Any, data: bytes | None = None, request_id: bytes = b"") -> bytes:
        request_id = request_id or self.next_id()
        self.socket.send_multipart(codec.pack(request_id, command, data))
        return request_id

    def receive(self, request_id: bytes, timeout_s: float = PATIENCE_S) -> Any:
        deadline = time.monotonic() + timeout_s
        while True:
            left_ms = max(0, round((deadline - time.monotonic()) * 1000))
            assert self.socket.poll(left_ms), "the tracker did not answer"
            envelope = self._decoder.unpack(self.socket.recv_multipart())
            if envelope.request_id == request_id:
                self.data = bytes(envelope.data) if envelope.data is not None else None
                return envelope.body

    def arrived(self) -> Iterator[tuple[bytes, Any]]:
        """Return the replies received so far, each with its request id."""
        while self.socket.poll(0):
            envelope = self._decoder.unpack(self.socket.recv_multipart())
            yield envelope.request_id, envelope.body

    def try_(self, command: Any, data: bytes | None = None, request_id: bytes = b"") -> Any:
        """Return the reply, also a refusal."""
        return self.receive(self.send(command, data, request_id))

    def request(self, command: Any, data: bytes | None = None) -> Any:
        """Return the reply, which must not be a refusal."""
        reply = self.try_(command, data)
        if isinstance(reply, Refusal):
            raise Refused(f"{command!r:.200}: {reply.code}: {reply.message}")
        return reply

    def refused(self, command: Any, data: bytes | None = None) -> Code:
        """Return the code of the refusal; the reply must be one."""
        reply = self.try_(command, data)
        assert isinstance(reply, Refusal), reply
        return reply.code

    # -- what tests do all the time -------------------------------------------------------------

    def enter(self, user: str, password: str = "a password") -> Device:
        self.request(tracker.CreateUser(user, password))
        self.request(tracker.Login(user, password))
        return self

    def announce(self, endpoint: str = "tcp://127.0.0.1:19000", **options: Any) -> Any:
        return self.request(tracker.Announce(endpoint, **options))

    def let_in(self, group: str, other: Device, user: str) -> None:
        other.request(tracker.JoinGroup(group))
        self.request(tracker.AcceptRequest(group, user))

    def share(self, group: str, name: str, content: bytes = b"content") -> ContentId:
        encoded = manifest_of(content)
        content_id = manifest.manifest_id(encoded)
        offer = tracker.Offer(group, name, content_id)
        reply = self.try_(offer)
        if isinstance(reply, Refusal) and reply.code is Code.NEED_MANIFEST:
            self.put(encoded)
            reply = self.try_(offer)
        if isinstance(reply, Refusal):
            raise Refused(f"{reply.code}: {reply.message}")
        return content_id

    def put(self, encoded: bytes) -> None:
        content_id = manifest.manifest_id(encoded)
        for offset in range(0, len(encoded), limits.MANIFEST_PART_BYTES):
            part = encoded[offset : offset + limits.MANIFEST_PART_BYTES]
            self.request(tracker.PutManifest(content_id, len(encoded), offset), part)

    # -- events ---------------------------------------------------------------------------------

    def subscribe(self) -> None:
        """Subscribe to all events; those with a known key are opened."""
        welcome = self.request(tracker.Hello("test"))
        endpoint = welcome.events
        if endpoint.startswith("tcp://*"):
            host = self.at.endpoint.removeprefix("tcp://").rpartition(":")[0]
            endpoint = endpoint.replace("*", host)
        self.sub = sockets.make_socket(
            self._context,
            zmq.SUB,
            sockets.Connect(self.pair, self.at.key),
            message_bytes_max=limits.EVENT_BYTES_MAX,
        )
        self.sub.subscribe(b"")
        self.sub.connect(endpoint)
        self.topics[welcome.inbox] = ({0: welcome.inbox_key}, None)
        self.next_event(lambda event: isinstance(event, events.Beat))

    def follow(self) -> dict[str, tracker.GroupState]:
        """Load the keys of all groups."""
        states = {state.group: state for state in self.request(tracker.Follow()).groups}
        for state in states.values():
            self.topics.setdefault(state.topic, ({}, state.topic))[0][state.epoch] = state.key
        return states

    def follow_share(self, group: str, name: str) -> tracker.ShareFound:
        found: tracker.ShareFound = self.request(tracker.FindShare(group, name))
        state = self.follow()[group]
        self.topics[found.topic] = self.topics[state.topic]
        return found

    def next_event(self, wanted: Callable[[Any], bool], timeout_s: float = PATIENCE_S) -> Any:
        """Return the next event that is ``wanted``; sealed ones are opened if possible."""
        assert self.sub is not None
        deadline = time.monotonic() + timeout_s
        while True:
            left_ms = max(0, round((deadline - time.monotonic()) * 1000))
            assert self.sub.poll(left_ms), "no such event came"
            event = self._open(*self.sub.recv_multipart())
            if event is not None and wanted(event):
                return event

    def next_entry(self, kind: type[Any], timeout_s: float = PATIENCE_S) -> events.LogEntry:
        entry: events.LogEntry = self.next_event(
            lambda event: isinstance(event, events.LogEntry) and isinstance(event.event, kind),
            timeout_s,
        )
        return entry

    def _open(self, topic: bytes, signature: bytes, body: bytes) -> Any:
        assert signature == codec.SIGNATURE
        if topic == events.BEAT_TOPIC:
            return msgspec.msgpack.decode(body, type=events.Published)
        known = self.topics.get(topic)
        if known is None or event_seal.epoch_of(body) not in known[0]:
            return None
        plain = event_seal.unseal(known[0][event_seal.epoch_of(body)], topic, body)
        event = msgspec.msgpack.decode(plain, type=events.Published)
        if isinstance(event, events.NewKey):
            known[0][event.epoch] = event.key
        return event

    def close(self) -> None:
        self._context.destroy(linger=0)


def manifest_of(content: bytes, algorithm: Algorithm = Algorithm.BLAKE3) -> bytes:
    """Return the manifest of a small file."""
    length = limits.PIECE_LENGTH_MIN
    pieces = b"".join(
        algorithm.digest_of(content[at : at + length]) for at in range(0, len(content), length)
    )
    entry = manifest.Entry("", len(content))
    whole = algorithm.digest_of(content)
    return manifest.encode(
        manifest.Manifest(1, algorithm, length, len(content), whole, pieces, (entry,))
    )


@contextlib.contextmanager
def running(home: Path, *options: str) -> Iterator[TrackerProcess]:
    """A tracker process that is ended after the test, whatever happens."""
    process = TrackerProcess(home, *options)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.process.kill()
        process.process.wait(PATIENCE_S)


class Devices:
    """Creates devices and closes them after the test."""

    def __init__(self) -> None:
        self.made: list[Device] = []

    def __call__(self, at: Tracker, pair: keys.KeyPair | None = None) -> Device:
        device = Device(at, pair)
        self.made.append(device)
        return device

    def close(self) -> None:
        for device in self.made:
            device.close()
