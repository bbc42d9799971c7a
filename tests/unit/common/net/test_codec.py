"""Codec: one form, and one error for any other input."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import example, given
from hypothesis import strategies as st

from common import limits
from common.errors import RemoteProtocolError
from common.messages import peer, tracker
from common.net.codec import SIGNATURE, VERSION, Decoder, VersionMismatch, cut, encode, joined, pack
from tests.support.wire_samples import CONVERSATIONS, PEER_ANSWERS

COMMANDS: Decoder[tracker.Command] = Decoder(tracker.Command)
ANSWERS: Decoder[peer.Answer] = Decoder(peer.Answer)
HELLO = encode(tracker.Hello("x"))


def test_packed_messages_are_unpacked() -> None:
    envelope = COMMANDS.unpack(pack(b"12345678", tracker.Hello("x"), b"data"))
    assert (envelope.request_id, envelope.body) == (b"12345678", tracker.Hello("x"))
    assert envelope.data is not None
    assert bytes(envelope.data) == b"data"
    assert COMMANDS.unpack(pack(b"", tracker.Depart())).data is None


def test_data_is_a_view_of_the_frame_and_no_copy() -> None:
    frame = zmq.Frame(b"a piece")
    envelope = ANSWERS.unpack(pack(b"", peer.Piece(0, 1), frame))
    assert envelope.data is not None
    assert envelope.data.obj is frame.buffer.obj


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [SIGNATURE],
        [SIGNATURE, b"1"],
        [SIGNATURE, b"1", HELLO, b"data", b"more"],
        [b"", b"1", HELLO],
        [b"MT", b"1", HELLO],
        [b"XX" + bytes([VERSION]), b"1", HELLO],
        [SIGNATURE + b"\0", b"1", HELLO],
        [SIGNATURE, b"1" * (limits.REQUEST_ID_BYTES + 1), HELLO],
        [SIGNATURE, b"1", b""],
        [SIGNATURE, b"1", HELLO[:-1]],
        [SIGNATURE, b"1", HELLO + b"\0"],
        [SIGNATURE, b"1", b"\x00" * (limits.BODY_BYTES_MAX + 1)],
        [SIGNATURE, b"1", b"\xc1"],
        [SIGNATURE, b"1", b"\x91" * 5000],
        [SIGNATURE, b"1", b"\x92\xa5Hello\xa1\xff"],
        [SIGNATURE, b"1", b"\x91\xa5Nasty"],
        [SIGNATURE, b"1", b"\xdd\xff\xff\xff\xff"],
        [SIGNATURE, b"1", b"\xc6\xff\xff\xff\xff"],
    ],
)
def test_everything_else_is_a_protocol_error(frames: list[bytes]) -> None:
    with pytest.raises(RemoteProtocolError):
        COMMANDS.unpack(frames)


def test_data_where_none_belongs_is_a_protocol_error() -> None:
    asks: Decoder[peer.ClientMessage] = Decoder(peer.ClientMessage, data_frames=0)
    frames = pack(b"", peer.Close(1))
    assert asks.unpack(frames).body == peer.Close(1)
    with pytest.raises(RemoteProtocolError):
        asks.unpack([*frames, b"data"])


def test_data_with_a_message_that_has_none_is_a_protocol_error() -> None:
    commands: Decoder[tracker.Command] = Decoder(tracker.Command, data_with=(tracker.PutManifest,))
    part = tracker.PutManifest(b"c" * 32, 9, 0)
    assert commands.unpack(pack(b"1", part, b"data")).data == b"data"
    for command in (tracker.Hello("x"), tracker.CreateGroup("lab"), tracker.Follow()):
        assert commands.unpack(pack(b"1", command)).body == command
        for data in (b"", b"data"):
            with pytest.raises(RemoteProtocolError, match="data with a"):
                commands.unpack(pack(b"1", command, data))


def test_a_request_id_where_there_is_none_is_a_protocol_error() -> None:
    asks: Decoder[peer.ClientMessage] = Decoder(
        peer.ClientMessage, data_frames=0, request_ids=False
    )
    assert asks.unpack(pack(b"", peer.Close(1))).body == peer.Close(1)
    for request_id in (b"\0", b"1", b"12345678"):
        with pytest.raises(RemoteProtocolError, match="request id"):
            asks.unpack(pack(request_id, peer.Close(1)))


@pytest.mark.parametrize(("count", "good"), [((1 << 53) - 1, True), (1 << 53, False)])
def test_a_count_is_what_every_language_has_exactly(count: int, good: bool) -> None:
    body = encode(["Credit", count])
    asks: Decoder[peer.ClientMessage] = Decoder(peer.ClientMessage)
    if good:
        assert asks.decode(body) == peer.Credit(count)
    else:
        with pytest.raises(RemoteProtocolError):
            asks.decode(body)


@given(st.binary(max_size=300), st.integers(1, 400))
def test_data_cut_into_frames_is_joined_again(data: bytes, frame_bytes: int) -> None:
    frames = [bytes(frame) for frame in cut(data, frame_bytes)]
    assert 1 <= len(frames) <= limits.DATA_FRAMES_MAX
    least = -(-len(data) // limits.DATA_FRAMES_MAX)
    assert all(len(frame) <= max(frame_bytes, least) for frame in frames)
    assert joined(frames) == data


def test_a_piece_may_come_in_several_frames_and_nothing_else_may() -> None:
    pieces: Decoder[peer.Answer] = Decoder(peer.Answer, data_frames=limits.DATA_FRAMES_MAX)
    head = pack(b"", peer.Piece(0, 1))
    envelope = pieces.unpack([*head, b"in ", zmq.Frame(b"three "), b"frames"])
    assert envelope.data == b"in three frames"
    with pytest.raises(RemoteProtocolError):
        pieces.unpack([*head, *[b"x"] * (limits.DATA_FRAMES_MAX + 1)])
    with pytest.raises(RemoteProtocolError):
        COMMANDS.unpack([SIGNATURE, b"1", HELLO, b"two", b"frames"])


def test_frames_that_make_more_than_a_message_holds_are_not_joined() -> None:
    half = bytes(limits.REPLY_BYTES_MAX // 2)
    assert len(joined([half, half])) == 2 * len(half)
    with pytest.raises(RemoteProtocolError):
        joined([half, half, b"x"])
    with pytest.raises(RemoteProtocolError):
        joined([b""] * (limits.DATA_FRAMES_MAX + 1))


def test_another_version_is_recognised_and_can_be_refused() -> None:
    with pytest.raises(VersionMismatch) as caught:
        COMMANDS.unpack([b"MT" + bytes([VERSION + 1]), b"7", b"who knows"])
    assert caught.value.request_id == b"7"
    assert str(VERSION + 1) in str(caught.value)


@given(st.lists(st.binary(max_size=64), max_size=6))
@example([SIGNATURE, b"", b"\x92\xa5Hello\xa0"])
def test_no_frames_do_anything_but_decode_or_fail(frames: list[bytes]) -> None:
    for union, _ in CONVERSATIONS.values():
        try:
            Decoder(union).unpack(frames)
        except RemoteProtocolError:
            pass


samples = st.sampled_from([(u, s) for u, many in CONVERSATIONS.values() for s in many])


@given(samples, st.data())
def test_no_altered_body_does_anything_but_decode_or_fail(
    pair: tuple[Any, Any], data: st.DataObject
) -> None:
    union, sample = pair
    body = bytearray(encode(sample))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    try:
        read = Decoder(union).decode(bytes(body))
    except RemoteProtocolError:
        return
    assert encode(read)


@pytest.mark.parametrize(
    "body",
    [
        ["Request", 1, [-1], 0],
        ["Request", 1, [1 << 63], 0],
        ["Request", 1, [limits.PIECES_MAX], 0],
        ["Request", 1, [0] * (limits.PIECES_PER_REQUEST_MAX + 1), 0],
        ["Request", -1, [0], 0],
        ["Request", 1 << 16, [0], 0],
        ["Request", 1, ["0"], 0],
        ["Request", 1, 0, 0],
        ["Open", 1, "g" * 65, bytes(32), b"t"],
        ["Open", 1, "", bytes(32), b"t"],
        ["Open", 1, "g", bytes(31), b"t"],
        ["Open", 1, "g", bytes(32), bytes(1025)],
    ],
)
def test_fields_have_bounds(body: list[Any]) -> None:
    asks: Decoder[peer.ClientMessage] = Decoder(peer.ClientMessage)
    with pytest.raises(RemoteProtocolError):
        asks.decode(msgspec.msgpack.encode(body))


def test_samples_are_of_the_right_conversation_only() -> None:
    with pytest.raises(RemoteProtocolError):
        COMMANDS.decode(encode(PEER_ANSWERS[0]))
