"""Sources that lie: each costs time and none costs correctness; the others give what they do not.

Alice's honest peer is held still until the liar has been asked and has lied, so that each lie is
truly told.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from common import limits
from common.messages import peer
from common.messages.base import Refusal
from common.messages.refusals import Code
from tests.support.attacked_download import PIECES, AttackedDownload
from tests.support.attackers import PIECE, AttackSwarm, Liar, Send, Shared, honest
from tests.support.data_paths import both_paths, each_path

ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\n2026-01-01 FATAL forged\u202e\x9b31m"


@pytest.fixture
def scene(arena_on_path: AttackSwarm) -> AttackedDownload:
    return AttackedDownload(arena_on_path)


def opens(liar: Liar) -> int:
    return sum(isinstance(command, peer.Open) for command in liar.asked)


@both_paths
def test_h22_wrong_bytes_are_never_held_and_who_sent_them_is_banned(
    scene: AttackedDownload,
) -> None:
    def behave(command: Any, send: Send) -> None:
        match command:
            case peer.Open(channel):
                send(peer.Opened(channel, True, 1 << 52))
            case peer.Request(channel, pieces):
                for index in pieces:
                    wrong = bytearray(scene.shared.piece(index))
                    wrong[-1] ^= 1
                    send(peer.Piece(channel, index), bytes(wrong))
                scene.lie()
            case _:
                pass

    liar = scene.run(behave)
    device = liar.device.key.hex()[:16]
    assert f"{device} sent a wrong piece" in scene.log
    assert opens(liar) == 1  # a ban is for good


def _one_more(channel: int, index: int, shared: Shared, send: Send) -> None:
    send(peer.Piece(channel, (index + 1) % PIECES), shared.piece(index))


def _short(channel: int, index: int, shared: Shared, send: Send) -> None:
    send(peer.Piece(channel, index), shared.piece(index)[:-1])


def _long(channel: int, index: int, shared: Shared, send: Send) -> None:
    send(peer.Piece(channel, index), shared.piece(index) + b"\0")


def _huge(channel: int, index: int, shared: Shared, send: Send) -> None:
    send(peer.Piece(channel, index), bytes(limits.PIECE_LENGTH_MAX))


def _empty(channel: int, index: int, shared: Shared, send: Send) -> None:
    send(peer.Piece(channel, index), b"")


def _no_data(channel: int, index: int, shared: Shared, send: Send) -> None:
    send(peer.Piece(channel, index))


def _out_of_range(channel: int, index: int, shared: Shared, send: Send) -> None:
    send(peer.Piece(channel, limits.PIECES_MAX - 1), shared.piece(index))
    send(peer.Piece(channel, PIECES), shared.piece(index))


def _other_channel(channel: int, index: int, shared: Shared, send: Send) -> None:
    send(peer.Piece((channel + 1) % 65_536, index), shared.piece(index))


def _not_asked_for(channel: int, index: int, shared: Shared, send: Send) -> None:
    for other in range(PIECES):
        send(peer.Piece(channel, other), bytes(PIECE))


def _noise(channel: int, index: int, shared: Shared, send: Send) -> None:
    rng = random.Random(index)
    send(peer.Have(channel, [limits.PIECES_MAX - 1] * 512))
    send(peer.Declined(channel, [limits.PIECES_MAX - 1] * 512, False, 60_000))
    send(peer.Opened(channel, False, 0), rng.randbytes(1))
    send(peer.ManifestBytes(channel, (1 << 53) - 1, (1 << 53) - 1), rng.randbytes(1000))
    send(peer.Closed((channel + 7) % 65_536, Refusal(Code.REVOKED, ESCAPES)))


LIES = [
    _one_more,
    _short,
    _long,
    _huge,
    _empty,
    _no_data,
    _out_of_range,
    _other_channel,
    _not_asked_for,
    _noise,
]


@each_path
@pytest.mark.parametrize("lie", LIES)
def test_h24_pieces_that_are_not_what_was_asked_for(
    scene: AttackedDownload, lie: Callable[[int, int, Shared, Send], None]
) -> None:
    def behave(command: Any, send: Send) -> None:
        match command:
            case peer.Open(channel):
                send(peer.Opened(channel, True, 1 << 52))
            case peer.Request(channel, pieces):
                for index in pieces:
                    lie(channel, index, scene.shared, send)
                scene.lie()
            case _:
                pass

    scene.run(behave)


@each_path
@pytest.mark.parametrize("bits", [b"", b"\xff" * 5, b"\xff" * 7, b"\xff" * 300_000])
def test_h24_a_bitfield_of_another_length(scene: AttackedDownload, bits: bytes) -> None:
    def behave(command: Any, send: Send) -> None:
        if isinstance(command, peer.Open):
            send(peer.Opened(command.channel, False, 1 << 52), bits)
            scene.lie()

    scene.run(behave)


def test_h25_a_source_that_stalls_at_the_end_is_rescued(scene: AttackedDownload) -> None:
    truthful = honest(scene.shared)

    def behave(command: Any, send: Send) -> None:
        if not isinstance(command, peer.Request):
            truthful(command, send)
            return
        *given, kept = command.pieces
        if given:
            truthful(peer.Request(command.channel, given, 0), send)
        assert kept >= 0  # of every request, the last piece never comes
        scene.lie()

    scene.run(behave)


def _declines(command: Any, send: Send) -> None:
    if isinstance(command, peer.Request):
        send(peer.Declined(command.channel, command.pieces))


def _is_busy_for_ever(command: Any, send: Send) -> None:
    if isinstance(command, peer.Request):
        send(peer.Declined(command.channel, command.pieces, True, 60_000))


def _says_nothing(command: Any, send: Send) -> None:
    pass


def _closes(command: Any, send: Send) -> None:
    if isinstance(command, peer.Request):
        send(peer.Closed(command.channel, Refusal(Code.GONE, ESCAPES, ESCAPES)))


@pytest.mark.parametrize("how", [_declines, _is_busy_for_ever, _says_nothing, _closes])
def test_h38_an_offer_with_no_data_behind_it(
    scene: AttackedDownload, how: Callable[[Any, Send], None]
) -> None:
    def behave(command: Any, send: Send) -> None:
        if isinstance(command, peer.Open):
            send(peer.Opened(command.channel, True, 1 << 52))
        how(command, send)
        if isinstance(command, peer.Request):
            scene.lie()

    scene.run(behave)


def test_h38_a_source_that_does_not_even_open(scene: AttackedDownload) -> None:
    def behave(command: Any, send: Send) -> None:
        scene.lie()

    scene.run(behave)


def test_h31_words_of_a_source_are_escaped_in_logs_and_terminals(
    scene: AttackedDownload,
) -> None:
    def behave(command: Any, send: Send) -> None:
        if isinstance(command, peer.Open):
            send(peer.Closed(command.channel, Refusal(Code.GONE, ESCAPES, ESCAPES)))
            send(Refusal(Code.INTERNAL, ESCAPES, ESCAPES))
            ran = scene.bob.command("why-slow", scene.shared.group, scene.shared.name)
            shown.append(ran.out + ran.err)
            scene.lie()

    shown: list[str] = []
    scene.run(behave)
    for text in [scene.log, *shown]:
        for harmful in ("\x1b", "\x07", "\x9b", "\u202e", "\n2026-01-01 FATAL"):
            assert harmful not in text


def test_h14_answers_that_are_no_messages(scene: AttackedDownload) -> None:
    rng = random.Random(14)

    def behave(command: Any, send: Send) -> None:
        for size in (0, 1, 2, 5, 50, 5_000):
            for frames in (1, 2, 3, 4, 5, 20):
                send.raw([rng.randbytes(size) for _ in range(frames)])
        for body in (b"\xc1", b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\x93\xa6Opened\x00"):
            send.raw([b"MT\x01", b"", body])
            send.raw([b"MT\x02", b"", body])
        scene.lie()

    scene.run(behave)
