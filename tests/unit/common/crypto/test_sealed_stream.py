"""Sealed streams: each message opens once, in order and with its key; no other bytes do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import limits
from common.crypto import sealed_stream
from common.crypto.sealed_stream import Opener, ScratchBuffer, Sealer, aes_is_fast, new_key, proof
from common.errors import RemoteProtocolError

KEY = bytes(range(32))


def sealed(sealer: Sealer, head: bytes, data: bytes) -> tuple[bytes, bytes, bytes]:
    """The next message of a sealer, to keep."""
    number, sealed_head, sealed_data = sealer.seal(head, data)
    sealer.sent(number)
    return number, sealed_head, bytes(sealed_data)


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=600)), max_size=6))
def test_opens_each_sealed_message(messages: list[tuple[bytes, bytes]]) -> None:
    sealer, opener = Sealer(KEY, ScratchBuffer()), Opener(KEY)
    for head, data in messages:
        number, sealed_head, sealed_data = sealer.seal(head, memoryview(data))
        sealer.sent(number)
        assert len(sealed_data) == len(data) + sealed_stream.TAG_BYTES
        assert opener.open(number, memoryview(sealed_head), sealed_data) == (head, data)


def test_data_is_opened_in_place_if_it_can_be() -> None:
    message = sealed(Sealer(KEY, ScratchBuffer()), b"head", b"a piece")
    received = bytearray(message[2])
    head, data = Opener(KEY).open(*message[:2], memoryview(received))
    assert (head, data) == (b"head", b"a piece")
    assert memoryview(data).obj is received, "no copy is made"
    assert received.startswith(b"a piece")
    assert Opener(KEY).open(*message)[1] == b"a piece", "memory that is read-only stays as it is"


def test_several_sealers_share_a_scratch_buffer() -> None:
    room, other_key = ScratchBuffer(), new_key()
    sealers = {KEY: Sealer(KEY, room), other_key: Sealer(other_key, room)}
    openers = {key: Opener(key) for key in sealers}
    for size in (3, 40, 7, 0, 41):
        for key, sealer in sealers.items():
            data = os.urandom(size)
            assert openers[key].open(*sealed(sealer, b"", data)) == (b"", data)


@given(st.integers(0, 2), st.integers(0, 10_000))
def test_a_bit_that_changed_is_noticed(which: int, at: int) -> None:
    frames = [
        bytearray(frame)
        for frame in Sealer(KEY, ScratchBuffer()).seal(b"head", b"a piece of it" * 9)
    ]
    frame = frames[which]
    frame[at // 8 % len(frame)] ^= 1 << at % 8
    number, head, data = map(bytes, frames)
    for received in (data, bytearray(data)):
        with pytest.raises(RemoteProtocolError):
            Opener(KEY).open(number, head, received)


@pytest.mark.parametrize("length", [0, 1, 7])
def test_a_frame_that_was_cut_is_noticed(length: int) -> None:
    number, head, data = Sealer(KEY, ScratchBuffer()).seal(b"head", b"data")
    for cut in ((number[:length], head, data), (number, head[:length], data)):
        with pytest.raises(RemoteProtocolError):
            Opener(KEY).open(*cut)
    for received in (data[:length], bytearray(data[:length])):
        with pytest.raises(RemoteProtocolError):
            Opener(KEY).open(number, head, received)


def test_no_message_counts_twice_or_late() -> None:
    sealer, opener = Sealer(KEY, ScratchBuffer()), Opener(KEY)
    first, second, third = (sealed(sealer, b"", bytes([at])) for at in range(3))
    assert opener.open(*first)[1] == b"\x00"
    assert opener.open(*second)[1] == b"\x01"
    for again in (second, first):
        with pytest.raises(RemoteProtocolError):
            opener.open(*again)
    assert opener.open(*third)[1] == b"\x02"


@pytest.mark.parametrize("missing", [0, 1, 3])
def test_h96_nothing_counts_when_one_before_it_is_missing(missing: int) -> None:
    sealer, opener = Sealer(KEY, ScratchBuffer()), Opener(KEY)
    messages = [sealed(sealer, b"head", bytes([at])) for at in range(5)]
    for message in messages[:missing]:
        opener.open(*message)
    for later in messages[missing + 1 :]:
        with pytest.raises(RemoteProtocolError, match="missing"):
            opener.open(*later)


def test_an_unsent_message_is_not_missed() -> None:
    sealer, opener = Sealer(KEY, ScratchBuffer()), Opener(KEY)
    for at in range(4):
        sealer.seal(b"turned away", b"by a full queue")
        assert opener.open(*sealed(sealer, b"", bytes([at])))[1] == bytes([at])


def test_frames_cannot_change_places() -> None:
    sealer, opener = Sealer(KEY, ScratchBuffer()), Opener(KEY)
    number, head, data = sealed(sealer, b"same", b"same")
    later, other_head, other = sealed(sealer, b"same", b"same")
    assert len({head, data, other_head, other}) == 4, "no nonce was used twice"
    for mixed in ((number, data, head), (number, head, other), (later, head, data)):
        with pytest.raises(RemoteProtocolError):
            opener.open(*mixed)
    assert opener.open(number, head, data) == (b"same", b"same"), "what failed took no number"


def test_another_key_opens_nothing() -> None:
    with pytest.raises(RemoteProtocolError):
        Opener(new_key()).open(*Sealer(KEY, ScratchBuffer()).seal(b"head", b"data"))
    assert new_key() != new_key()


def test_a_proof_is_of_a_key_and_a_name() -> None:
    assert proof(KEY, b"a") == proof(KEY, b"a")
    assert len({proof(KEY, b"a"), proof(KEY, b"b"), proof(bytes(32), b"a")}) == 3


def test_a_key_is_not_used_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEALED_BYTES_MAX", 20)
    sealer = Sealer(KEY, ScratchBuffer())
    sealer.seal(b"", bytes(19))
    assert not sealer.spent
    sealer.seal(b"", bytes(1))
    assert sealer.spent


@pytest.mark.parametrize(
    ("machine", "flags", "fast"),
    [
        ("x86_64", "fpu aes pclmulqdq", True),
        ("x86_64", "fpu pclmulqdq", False),
        ("aarch64", "fp asimd aes pmull", True),
        ("aarch64", "fp asimd", False),
        ("riscv64", "aes pclmulqdq", False),
    ],
)
def test_the_processor_tells_whether_aes_is_fast(
    monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, fast: bool
) -> None:
    monkeypatch.setattr(sealed_stream.platform, "machine", lambda: machine)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"processor : 0\nflags\t: {flags}\n")
    aes_is_fast.cache_clear()
    try:
        assert aes_is_fast() is fast
    finally:
        aes_is_fast.cache_clear()


def test_aegis_seals_the_messages_of_the_protocol_page() -> None:
    page = (Path(__file__).parents[4] / "docs" / "protocol.md").read_text("utf-8")
    sealer, opener = (
        Sealer(KEY, ScratchBuffer(), by_aegis=True),
        Opener(KEY, by_aegis=True),
    )
    assert f"`{sealed_stream.aegis_key(KEY).hex()}`" in page
    for head, data in ((b"head", b"a piece"), (b"more", b"")):
        message = sealed(sealer, head, data)
        assert f"\n{message[1].hex()}\n{message[2].hex()}\n" in page
        assert opener.open(*message) == (head, data)


@pytest.mark.parametrize("frame", [1, 2])
def test_a_changed_bit_under_aegis_is_noticed(frame: int) -> None:
    message = [
        bytearray(one) for one in sealed(Sealer(KEY, ScratchBuffer(), by_aegis=True), b"h", b"d")
    ]
    message[frame][0] ^= 1
    with pytest.raises(RemoteProtocolError):
        Opener(KEY, by_aegis=True).open(*map(bytes, message))


def test_the_ciphers_have_different_keys() -> None:
    message = sealed(Sealer(KEY, ScratchBuffer(), by_aegis=True), b"head", b"data")
    with pytest.raises(RemoteProtocolError):
        Opener(KEY).open(*message)
    assert sealed_stream.aegis_key(KEY) != sealed_stream.aes_key(KEY)[:16]
