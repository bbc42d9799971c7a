"""A client written from docs/protocol.md alone, run against a real tracker and a real peer.

It imports nothing of the product: frames, messages, sealing and digests are made by hand from what
the document says. When it fails, either the document or the product is wrong, and a stranger's
implementation would have broken.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import nacl.bindings
import nacl.signing
import pytest
import zmq
import zmq.utils.z85 as z85
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SIGNATURE = b"MT\x01"
PIECE_LENGTH = 16 * 1024
TOO_MANY = msgspec.msgpack.encode(1 << 53)
DEADLINE_S = 60.0
BIN = Path(sys.executable).parent
PEER = str(BIN / "mini-torrent")
TRACKER = str(BIN / "mini-torrent-tracker")
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("MINI_TORRENT_")}


class Stranger:
    """One device of another implementation."""

    def __init__(self, tracker_link: str) -> None:
        address, _, key = tracker_link.removeprefix("mini-torrent://").rpartition("/")
        self.host = address.rpartition(":")[0]
        self.context = zmq.Context()
        public, self.secret = zmq.curve_keypair()
        self.public = z85.decode(public)
        self.tracker_key = base64.urlsafe_b64decode(key + "=")
        self.commands = self.socket(zmq.DEALER, f"tcp://{address}", self.tracker_key)
        self.count = int.from_bytes(os.urandom(6), "big")

    def socket(self, kind: int, endpoint: str, server_key: bytes) -> zmq.Socket[Any]:
        """Section 2: CURVE with our one key pair, and a routing id that cannot be guessed."""
        socket = self.context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, int(DEADLINE_S * 1000))
        if kind == zmq.DEALER:
            socket.setsockopt(zmq.ROUTING_ID, b"\x01" + os.urandom(16))
        socket.setsockopt(zmq.CURVE_SERVERKEY, z85.encode(server_key))
        socket.setsockopt(zmq.CURVE_PUBLICKEY, z85.encode(self.public))
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.connect(endpoint)
        return socket

    def bulk(self, endpoint: str, word: bytes, key: bytes) -> zmq.Socket[Any]:
        """Section 11.4: let in by a word, and heard of by a proof."""
        socket, name = self.context.socket(zmq.DEALER), b"\x01" + os.urandom(16)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.ROUTING_ID, name)
        socket.setsockopt(zmq.PLAIN_USERNAME, b"word")
        socket.setsockopt(zmq.PLAIN_PASSWORD, word.hex().encode())
        socket.connect(endpoint)
        proof_key = blake3(key, derive_key_context="mini-torrent bulk v2 proof").digest()
        socket.send_multipart([SIGNATURE, blake3(name, key=proof_key).digest()])
        return socket

    def ask(self, *body: Any, data: bytes | None = None) -> tuple[list[Any], bytes]:
        """Section 3: one command and its one answer; the answer's body and data."""
        self.count += 1
        request_id = self.count.to_bytes(8, "big")
        frames = [SIGNATURE, request_id, msgspec.msgpack.encode(body)]
        self.commands.send_multipart(frames if data is None else [*frames, data])
        signature, answered, answer, *rest = self.commands.recv_multipart()
        assert signature == SIGNATURE
        assert answered == request_id
        return msgspec.msgpack.decode(answer), rest[0] if rest else b""

    def close(self) -> None:
        self.context.destroy(linger=0)


class Ours:
    """The product's own tracker and one peer, driven by their command lines."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.tracker = subprocess.Popen(
            [TRACKER, "run", "--home", str(home / "t"), "--bind", "127.0.0.1:0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=(home / "tracker.err").open("wb"),
            env=ENVIRONMENT,
            text=True,
        )
        assert self.tracker.stdout is not None
        ready = self.tracker.stdout.readline()
        assert ready.startswith("tracker ready: "), (home / "tracker.err").read_text()
        self.link = ready.split()[2]

    def run(self, *words: object) -> str:
        command = [PEER, "--home", str(self.home / "p"), "-q", *map(str, words)]
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, capture_output=True, text=True, env=ENVIRONMENT, timeout=DEADLINE_S
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def end(self) -> None:
        down = [PEER, "--home", str(self.home / "p"), "down"]
        subprocess.run(down, capture_output=True, env=ENVIRONMENT, timeout=DEADLINE_S)
        self.tracker.terminate()
        self.tracker.wait(DEADLINE_S)


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Ours]:
    processes = Ours(tmp_path)
    try:
        yield processes
    finally:
        processes.end()


@pytest.fixture
def stranger(ours: Ours) -> Iterator[Stranger]:
    client = Stranger(ours.link)
    try:
        yield client
    finally:
        client.close()


def unsealed(key: bytes, frames: list[bytes]) -> list[Any]:
    """Section 8.2."""
    topic, signature, sealed = frames
    assert signature == SIGNATURE
    epoch, nonce, ciphertext = sealed[:4], sealed[4:28], sealed[28:]
    plain = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
        ciphertext, SIGNATURE + epoch + topic, nonce, key
    )
    decoded: list[Any] = msgspec.msgpack.decode(plain)
    return decoded


def until(socket: zmq.Socket[Any], key: bytes, wanted: str) -> list[Any]:
    """The next published message of a kind; others on the way are passed over."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        message = unsealed(key, socket.recv_multipart())
        if message[0] == wanted:
            return message
    raise AssertionError(f"no {wanted} came")


def in_bulk(
    stranger: Stranger,
    peer: zmq.Socket[Any],
    got: dict[int, bytes],
    received: int,
    opening: tuple[Any, ...],
) -> None:
    """Fetch the pieces that were ``got`` again, until the last five came on a bulk connection."""

    def say(*body: Any) -> None:
        peer.send_multipart([SIGNATURE, b"", msgspec.msgpack.encode(body)])

    def hear() -> tuple[list[Any], bytes]:
        _, _, body, *data = peer.recv_multipart()
        return msgspec.msgpack.decode(body), data[0] if data else b""

    say(*opening)
    assert hear()[0][0] == "Opened"
    name, port, word, key, aegis = hear()[0]
    assert (name, aegis) == ("Bulk", False)
    cipher = AESGCM(blake3(key, derive_key_context="mini-torrent bulk v2 sealing").digest())
    text = peer.getsockopt_string(zmq.LAST_ENDPOINT)
    bulk = stranger.bulk(f"{text.rpartition(':')[0]}:{port}", word, key)
    last, times, before = -1, 0, b""
    while last < 5:
        index, times = times % 6, times + 1
        say("Request", 7, [index], received)
        poller = zmq.Poller()
        for socket in (peer, bulk):
            poller.register(socket, zmq.POLLIN)
        came = dict(poller.poll(DEADLINE_S * 1000))
        if bulk in came:
            signature, number, head, data = bulk.recv_multipart()
            assert signature == SIGNATURE
            answer = msgspec.msgpack.decode(cipher.decrypt(b"head" + number, head, before))
            data = cipher.decrypt(b"data" + number, data, None)
            assert int.from_bytes(number, "big") > last
            last, before = int.from_bytes(number, "big"), number
        else:
            answer, data = hear()
        assert answer == (["Pieces", 7, index, 1] if bulk in came else ["Piece", 7, index])
        assert data == got[index]
        received += len(data)


def test_a_client_written_from_the_document_fetches_a_file(
    ours: Ours, stranger: Stranger, tmp_path: Path
) -> None:
    ours.run("up", "--tracker", ours.link)
    ours.run("create-user", "alice", "a password of alice")
    ours.run("login", "alice", "a password of alice")
    ours.run("create-group", "lab")
    content = os.urandom(5 * PIECE_LENGTH + 77)
    (tmp_path / "file.bin").write_bytes(content)
    ours.run("upload-file", tmp_path / "file.bin", "lab", "--piece-size", "16K")

    # Section 7.1: an account, and this device bound to it.
    assert stranger.ask("ListGroups")[0][:2] == ["Refusal", "not-logged-in"]
    assert stranger.ask("CreateUser", "carol", "a password of carol")[0] == ["Done"]
    assert stranger.ask("Login", "Carol", "a password of carol")[0] == ["LoggedIn", "carol"]
    welcome = stranger.ask("Hello", "a stranger")[0]
    name, tracker_id, verify_keys, events, _, user, inbox, inbox_key = welcome[:8]
    assert (name, user) == ("Welcome", "carol")

    # Section 7.2: nothing of a group is told before its owner let us in.
    assert stranger.ask("ListGroups")[0] == ["GroupRows", [["lab", "alice", 1, "none"]], False]
    secret = stranger.ask("ListFiles", "lab")[0]
    nothing = stranger.ask("ListFiles", "nix")[0]
    assert secret[:2] == ["Refusal", "unknown-group"]
    assert json.dumps(secret).replace("lab", "nix") == json.dumps(nothing)
    endpoint = events.replace("*", stranger.host)
    news = stranger.socket(zmq.SUB, endpoint, stranger.tracker_key)
    news.setsockopt(zmq.SUBSCRIBE, b"MT-beat")
    assert msgspec.msgpack.decode(news.recv_multipart()[2])[:2] == ["Beat", tracker_id]
    news.setsockopt(zmq.UNSUBSCRIBE, b"MT-beat")
    news.setsockopt(zmq.SUBSCRIBE, inbox)
    request = ("JoinGroup", "lab")
    assert stranger.ask(*request)[0] == ["Done"]
    ours.run("accept-request", "lab", "carol")
    frames = news.recv_multipart()
    while frames[0] != inbox:
        frames = news.recv_multipart()
    assert unsealed(inbox_key, frames) == ["Nudge"]

    # Section 8.4: the state of the group, its log from where we joined, and what happens next.
    [[group, owner, epoch, topic, key, seq, revoked]] = stranger.ask("Follow")[0][1]
    assert (group, owner, epoch, revoked) == ("lab", "alice", 2, [])
    news.setsockopt(zmq.SUBSCRIBE, topic)
    _, entries, head, snapshot = stranger.ask("EventsSince", "lab", 0)[0]
    assert snapshot is None
    assert [entry[5] for entry in entries] == [["Joined", "carol", None]]
    assert entries[0][2] == seq == head

    # Section 7.4 and 10: find the share, and check its manifest against its id.
    found = stranger.ask("FindShare", "lab", "file.bin")[0]
    _, row, share_topic, manifest_bytes, sources, first_by, since = found
    assert (row[11:], first_by, since > 0) == ([1, True, False], "alice", True)
    content_id = row[1]
    assert share_topic == hashlib.blake2b(content_id, key=topic, digest_size=16).digest()
    (_, total, offset), encoded = stranger.ask("GetManifest", "lab", content_id)
    assert (total, offset) == (manifest_bytes, 0)
    assert blake3(encoded).digest() == content_id
    version, algorithm, piece_length, size, digest, digests, files, times = msgspec.msgpack.decode(
        encoded
    )
    assert (version, algorithm, piece_length, size) == (2, "blake3", PIECE_LENGTH, len(content))
    assert times == [(tmp_path / "file.bin").stat().st_mtime_ns]
    assert files == [["", len(content), 0]]

    # Section 9: a ticket, and what it says.
    _, [[_, token, expires]], _ = stranger.ask("GetTickets", ["lab"])[0]
    signature, body = token[:64], token[64:]
    # Raises when it is not the tracker's; with one key there is no other to try.
    nacl.signing.VerifyKey(verify_keys[0]).verify(b"mini-torrent ticket v1\x00" + body, signature)
    ticket = msgspec.msgpack.decode(body)
    assert ticket[:6] == [1, tracker_id, stranger.public, "carol", "lab", epoch]
    assert ticket[7] == expires == ticket[6] + 600_000

    # Section 11: pieces, verified one by one.
    [[device, source_user, source_endpoint, complete, _]] = sources
    assert (source_user, complete) == ("alice", True)
    peer = stranger.socket(zmq.DEALER, source_endpoint, device)

    def say(*body: Any) -> None:
        peer.send_multipart([SIGNATURE, b"", msgspec.msgpack.encode(body)])

    def hear() -> tuple[list[Any], bytes]:
        signature, request_id, body, *data = peer.recv_multipart()
        assert (signature, request_id) == (SIGNATURE, b"")
        return msgspec.msgpack.decode(body), data[0] if data else b""

    forged = bytes([token[0] ^ 1]) + token[1:]
    say("Open", 3, "lab", content_id, forged)
    assert hear()[0][:2] == ["Closed", 3]
    say("Open", 7, "lab", content_id, token)
    assert hear() == (["Opened", 7, True, expires], b"")
    say("AskManifest", 7, 0)
    assert hear() == (["ManifestBytes", 7, total, 0], encoded)
    say("Request", 7, [0, 1, 2, 3, 4, 5, 6], 0)
    got: dict[int, bytes] = {}
    received, declined = 0, []
    while len(got) < 6 or not declined:
        answer, data = hear()
        if answer[0] == "Declined":
            declined.append(answer)
            continue
        assert answer[:2] == ["Piece", 7]
        index = answer[2]
        assert blake3(data).digest() == digests[32 * index : 32 * index + 32]
        got[index], received = data, received + len(data)
        say("Credit", received)
    # The one index that the content has not got, and nothing else.
    assert declined == [["Declined", 7, [6], False, 0]]
    assert b"".join(got[index] for index in range(6)) == content

    assert blake3(content).digest() == digest

    # Section 11.4: the same once more, on a bulk connection.
    # It need not be offered, and is not where it would be slow.
    if " aes" in Path("/proc/cpuinfo").read_text():
        in_bulk(stranger, peer, got, received, opening=("Open", 7, "lab", content_id, token, True))

    # Section 8: what happens in the group reaches us sealed, and in sequence.
    ours.run("stop-share", "lab", "file.bin")
    entry = until(news, key, "LogEntry")
    while entry[5][0] != "Unshared":
        entry = until(news, key, "LogEntry")
    assert (entry[1], entry[4]) == ("lab", epoch)
    assert entry[5] == ["Unshared", "alice", "file.bin", content_id, 1]
    answer, _ = hear()
    assert answer[:2] == ["Closed", 7]
    assert answer[2][0] == "Refusal"


def test_an_invitation_is_redeemed_as_the_document_says(ours: Ours, stranger: Stranger) -> None:
    """Section 7.3: the proof of the secret, an account by it, and a repetition."""
    ours.run("up", "--tracker", ours.link)
    ours.run("create-user", "alice", "password of alice")
    ours.run("login", "alice", "password of alice")
    ours.run("create-group", "lab")
    made = json.loads(ours.run("--json", "invite", "lab"))
    secret = base64.urlsafe_b64decode(made["link"].partition("#")[2])
    assert len(secret) == 18
    proof = hashlib.blake2b(
        secret, digest_size=32, key=stranger.tracker_key, person=b"mt invitation"
    ).digest()
    kept = hashlib.blake2b(proof, digest_size=32, person=b"mt invite key").digest()
    assert made["id"] == base64.b32encode(kept).decode().lower()[:8]
    refused = stranger.ask("Enter", proof, "carol", "password of carol", False)[0]
    assert refused[:2] == ["Refusal", "unknown-user"]
    for created in (True, False):
        said = stranger.ask("Enter", proof, "carol", "password of carol")[0]
        assert said == ["Redeemed", "lab", "carol", "alice", created]
    assert stranger.ask("Redeem", proof)[0] == ["Redeemed", "lab", "carol", "alice", False]
    assert stranger.ask("Redeem", kept)[0][:2] == ["Refusal", "no-invitation"]


def test_the_form_of_messages_is_enforced_as_the_document_says(stranger: Stranger) -> None:
    def raw(*frames: bytes) -> tuple[bytes, list[Any]]:
        stranger.commands.send_multipart(frames)
        signature, request_id, body = stranger.commands.recv_multipart()
        assert signature == SIGNATURE
        return request_id, msgspec.msgpack.decode(body)

    hello = msgspec.msgpack.encode(["Hello", "x"])
    # Section 3.2: a default is filled in, and a field of the future is passed over.
    assert raw(SIGNATURE, b"1", msgspec.msgpack.encode(["Hello"]))[1][0] == "Welcome"
    assert raw(SIGNATURE, b"2", msgspec.msgpack.encode(["Hello", "x", b"", 1]))[1][0] == "Welcome"
    # Section 3.1: whatever is no message is answered with its request id, if that can be read.
    for name, frames in {
        "unknown name": (SIGNATURE, b"3", msgspec.msgpack.encode(["Nonsense"])),
        "not msgpack": (SIGNATURE, b"3", b"\xc1"),
        "something behind": (SIGNATURE, b"3", hello + b"\x00"),
        "wrong type": (SIGNATURE, b"3", msgspec.msgpack.encode(["Hello", 5])),
        "too long": (SIGNATURE, b"3", msgspec.msgpack.encode(["Hello", "x" * 65])),
        "no signature": (b"HTTP", b"3", hello),
        "five frames": (SIGNATURE, b"3", hello, b"", b""),
        "data where there is none": (SIGNATURE, b"3", hello, b"data"),
        "a count beyond": (SIGNATURE, b"3", b"\x93\xabEventsSince\xa1a" + TOO_MANY),
    }.items():
        request_id, answer = raw(*frames)
        assert (request_id, answer[:2]) == (b"3", ["Refusal", "malformed"]), name
    assert raw(SIGNATURE, b"123456789", hello)[0] == b""
    # Section 14: another version is told so in words.
    request_id, answer = raw(b"MT\x02", b"4", hello)
    assert (request_id, answer[:2]) == (b"4", ["Refusal", "version"])
    assert "version 2" in answer[2]
