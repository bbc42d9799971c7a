"""ZMTP 3.x spoken by hand over a plain socket, for those whom a client library would be too polite.

Owns the greeting, the framing and the client's side of CURVE and PLAIN (ZeroMQ RFCs 23, 24 and 26),
with every part of it open to forgery: metadata, frame lengths, what comes in which order, and when
to stop.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from typing import Self

from nacl import bindings

from common.crypto.keys import KeyPair, new_pair

PATIENCE_S = 20.0
MORE, LARGE, COMMAND = 1, 2, 4


def greeting(mechanism: bytes, *, minor: int = 0, as_server: bool = False) -> bytes:
    """The 64 bytes with which both sides begin."""
    head = b"\xff" + bytes(8) + b"\x7f" + bytes([3, minor])
    return head + mechanism.ljust(20, b"\0") + bytes([as_server]) + bytes(31)


def frame(body: bytes, flags: int = 0, *, claimed: int | None = None) -> bytes:
    """A frame; ``claimed`` is the length that its head tells, whatever the body has."""
    length = len(body) if claimed is None else claimed
    if length < 256:
        return bytes([flags, length]) + body
    return bytes([flags | LARGE]) + struct.pack(">Q", length) + body


def metadata(properties: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Properties as they stand in INITIATE and READY."""
    return b"".join(
        bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
        for name, value in properties
    )


def connect(endpoint: str) -> socket.socket:
    """A plain connection to a ``tcp://`` endpoint."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def closed_by_other(sock: socket.socket) -> bool:
    """Read whatever comes until the other side ends it; False when it does not within patience."""
    try:
        while sock.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


class Wire:
    """One connection, before anything was said on it."""

    def __init__(self, endpoint: str) -> None:
        self.socket = connect(endpoint)
        self._buffer = b""

    def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            got = self.socket.recv(65536)
            if not got:
                raise ConnectionResetError("the other side closed the connection")
            self._buffer += got
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def read_frame(self) -> tuple[int, bytes]:
        """Flags and body of the next frame."""
        flags, length = self._read(2)
        if flags & LARGE:
            length = struct.unpack(">Q", bytes([length]) + self._read(7))[0]
        return flags, self._read(length)

    def is_closed(self) -> bool:
        """Whether the other side ends it, within patience."""
        return closed_by_other(self.socket)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Curve(Wire):
    """One connection that went through the handshake of CURVE, as a client.

    ``properties`` are sent as they are; by default those of a DEALER with ``identity``.
    """

    def __init__(
        self,
        endpoint: str,
        server_key: bytes,
        pair: KeyPair | None = None,
        *,
        identity: bytes | None = None,
        kind: bytes = b"DEALER",
        properties: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(endpoint)
        self.pair = pair or new_pair()
        self.identity = b"\x01" + os.urandom(16) if identity is None else identity
        self._server = server_key
        self._nonce = 1
        self._own = [(b"Socket-Type", kind), (b"Identity", self.identity), *properties]
        self._shaken = False

    # -- the handshake --------------------------------------------------------------------------

    def shake(self) -> Curve:
        """The whole handshake; raises `ConnectionError` when the other side ends it."""
        self.greet()
        self.hello()
        self.initiate()
        body = self.read_frame()[1]
        if not body.startswith(b"\x05READY"):
            raise ConnectionRefusedError(body[:40])
        self._open(b"CurveZMQREADY---", body[6:14], body[14:])
        self._shaken = True
        return self

    def greet(self) -> None:
        self.socket.sendall(greeting(b"CURVE"))
        self._read(64)

    def hello(self) -> None:
        public, self._secret = bindings.crypto_box_keypair()
        shared = bindings.crypto_box_beforenm(self._server, self._secret)
        nonce = self._next_nonce()
        box = bindings.crypto_box_afternm(bytes(64), b"CurveZMQHELLO---" + nonce, shared)
        self._public = public
        hello = b"\x05HELLO\x01\x00" + bytes(72) + public + nonce + box
        self.socket.sendall(frame(hello, COMMAND))
        body = self.read_frame()[1]
        if not body.startswith(b"\x07WELCOME"):
            raise ConnectionRefusedError(body[:40])
        plain = bindings.crypto_box_open_afternm(body[24:], b"WELCOME-" + body[8:24], shared)
        self._server_short, self._cookie = plain[:32], plain[32:]
        self._session = bindings.crypto_box_beforenm(self._server_short, self._secret)

    def initiate(self) -> None:
        vouch_nonce = os.urandom(16)
        vouch = bindings.crypto_box(
            self._public + self._server,
            b"VOUCH---" + vouch_nonce,
            self._server_short,
            self.pair.secret,
        )
        plain = self.pair.public + vouch_nonce + vouch + metadata(self._own)
        nonce = self._next_nonce()
        box = bindings.crypto_box_afternm(plain, b"CurveZMQINITIATE" + nonce, self._session)
        self.socket.sendall(frame(b"\x08INITIATE" + self._cookie + nonce + box, COMMAND))

    # -- messages -------------------------------------------------------------------------------

    def sealed(self, body: bytes, *, more: bool = False, command: bool = False) -> bytes:
        """One frame of a message as it goes over the wire."""
        nonce = self._next_nonce()
        plain = bytes([more * 1 | command * 2]) + body
        box = bindings.crypto_box_afternm(plain, b"CurveZMQMESSAGEC" + nonce, self._session)
        return frame(b"\x07MESSAGE" + nonce + box)

    def send(self, frames: Sequence[bytes]) -> None:
        """A whole message."""
        last = len(frames) - 1
        parts = [self.sealed(body, more=at < last) for at, body in enumerate(frames)]
        self.socket.sendall(b"".join(parts))

    def receive(self) -> list[bytes]:
        """The next message; what is a command (a heartbeat) is answered and passed over."""
        frames: list[bytes] = []
        while True:
            plain = self._read_part()
            if plain[0] & 2:
                continue
            frames.append(plain[1:])
            if not plain[0] & 1:
                return frames

    def _read_part(self) -> bytes:
        """Flags and body of one frame of a message, or of a command; a sign of life is given when
        one is asked for."""
        body = self.read_frame()[1]
        if not body.startswith(b"\x07MESSAGE"):
            raise ConnectionRefusedError(body[:40])
        plain = self._open(b"CurveZMQMESSAGES", body[8:16], body[16:])
        if plain[0] & 2 and plain[1:].startswith(b"\x04PING"):
            self.socket.sendall(self.sealed(b"\x04PONG" + plain[8:], command=True))
        return plain

    # -- the wire -------------------------------------------------------------------------------

    def _next_nonce(self) -> bytes:
        self._nonce += 1
        return struct.pack(">Q", self._nonce)

    def _open(self, prefix: bytes, nonce: bytes, box: bytes) -> bytes:
        return bindings.crypto_box_open_afternm(box, prefix + nonce, self._session)

    def is_closed(self) -> bool:
        """Whether the other side ends it, within patience.

        After the handshake it is given every sign of life, or it would end any connection.
        """
        if not self._shaken:
            return super().is_closed()
        deadline = time.monotonic() + PATIENCE_S
        try:
            while time.monotonic() < deadline:
                self._read_part()
        except TimeoutError:
            return False
        except (ConnectionResetError, BrokenPipeError):
            return True
        return False


class Plain(Wire):
    """One connection to a port where one comes in by a word (RFC 24), as a client."""

    def __init__(self, endpoint: str, word: bytes) -> None:
        super().__init__(endpoint)
        self._word = word

    def greet(self) -> None:
        self.socket.sendall(greeting(b"PLAIN"))
        self._read(64)

    def hello(self) -> None:
        name = b"word"
        hello = b"\x05HELLO" + bytes([len(name)]) + name + bytes([len(self._word)]) + self._word
        self.socket.sendall(frame(hello, COMMAND))

    def initiate(self) -> None:
        own = [(b"Socket-Type", b"DEALER"), (b"Identity", b"\x01" + os.urandom(16))]
        self.socket.sendall(frame(b"\x08INITIATE" + metadata(own), COMMAND))

    def shake(self) -> Plain:
        """The whole handshake; raises `ConnectionError` when the other side ends it."""
        self.greet()
        self.hello()
        body = self.read_frame()[1]
        if not body.startswith(b"\x07WELCOME"):
            raise ConnectionRefusedError(body[:40])
        self.initiate()
        body = self.read_frame()[1]
        if not body.startswith(b"\x05READY"):
            raise ConnectionRefusedError(body[:40])
        return self

    def send(self, frames: Sequence[bytes]) -> None:
        """A whole message."""
        last = len(frames) - 1
        parts = [frame(body, MORE * (at < last)) for at, body in enumerate(frames)]
        self.socket.sendall(b"".join(parts))
