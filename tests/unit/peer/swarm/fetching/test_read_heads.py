"""Read heads of a download, in strings in which a column is a piece."""

from __future__ import annotations

from random import Random

from common.ids import DeviceKey, UserId
from peer.swarm.fetching.events import (
    DownloadEffect,
    Opened,
    PieceReceived,
    PieceVerified,
    ReadHead,
    ReadHeadGone,
    Request,
    SourceKnown,
)
from peer.swarm.fetching.machine import Download
from peer.swarm.fetching.picker import Order, Picker
from peer.swarm.fetching.settings import DownloadSettings
from peer.swarm.pieces import Bitfield, PieceLayout, Pieces

SOURCE = DeviceKey(b"s" * 32)


def picker(count: int, have: str = "", order: Order = Order.RAREST) -> tuple[Pieces, Picker[str]]:
    held = Bitfield(count, [i for i, mark in enumerate(have) if mark == "x"])
    pieces = Pieces(PieceLayout(count, 1), held)
    made: Picker[str] = Picker(pieces.states, Random(1), order)
    made.add_source("all", None)
    return pieces, made


def drain(pieces: Pieces, made: Picker[str], source: str = "all") -> str:
    picked = ""
    while (index := made.pick(source)) is not None:
        pieces.reserve(index)
        picked += f"{index:x}"
    return picked


def test_pieces_under_a_head_come_first_in_their_order_and_the_rest_as_before() -> None:
    pieces, made = picker(10, have="      x")
    made.add_source("leecher", Bitfield(10, [0, 1, 2]))  # so that these are not the rarest
    made.heads.apply(ReadHead(1, 5, 3))
    assert drain(pieces, made) == "57" + "3489" + "012"


def test_two_heads_far_apart_take_turns() -> None:
    pieces, made = picker(16)
    made.heads.apply(ReadHead(1, 2, 3))
    made.heads.apply(ReadHead(2, 12, 3))
    assert drain(pieces, made).startswith("2c3d4e")


def test_a_head_moves_on_and_ends() -> None:
    pieces, made = picker(16, order=Order.READ)
    assert drain(pieces, made) == ""
    made.heads.apply(ReadHead(1, 2, 2))
    assert drain(pieces, made) == "23"
    made.heads.apply(ReadHead(1, 3, 3))
    made.heads.apply(ReadHead(2, 14, 9))
    assert drain(pieces, made) == "4e5f"
    made.heads.apply(ReadHead(1, 6, 2))
    made.heads.apply(ReadHeadGone(1))
    made.heads.apply(ReadHeadGone(1))
    assert drain(pieces, made) == ""
    assert made.heads
    made.heads.apply(ReadHeadGone(2))
    assert not made.heads


def test_a_source_is_asked_only_for_what_it_offers() -> None:
    pieces, made = picker(8, order=Order.READ)
    made.add_source("some", Bitfield(8, [1, 3, 6]))
    made.heads.apply(ReadHead(1, 0, 4))
    assert drain(pieces, made, "some") == "13"
    assert drain(pieces, made) == "02"


def test_heads_out_of_the_content_ask_for_nothing() -> None:
    pieces, made = picker(4, order=Order.READ)
    for first, count in ((4, 9), (-3, 2), (2**63, 1), (1, 0), (3, -2)):
        assert not made.heads.apply(ReadHead(1, first, count))
    assert drain(pieces, made) == ""
    assert made.heads.apply(ReadHead(1, -3, 4))
    assert drain(pieces, made) == "0"


def requested(effects: list[DownloadEffect]) -> list[int]:
    return [i for effect in effects if isinstance(effect, Request) for i in effect.pieces]


def opened(count: int, order: Order) -> Download:
    made = Download(PieceLayout(count, 1), Random(1), settings=DownloadSettings(order=order))
    made.handle(SourceKnown(SOURCE, UserId("ann"), True), 0.0)
    assert requested(made.handle(Opened(SOURCE, None), 0.0)) == (
        [] if order is Order.READ else [0, 1]
    )
    return made


def test_a_head_asks_at_once_while_sources_are_idle() -> None:
    made = opened(20, Order.READ)
    assert requested(made.handle(ReadHead(1, 7, 5), 0.0)) == [7, 8]
    effects = made.handle(PieceReceived(SOURCE, 7, 1), 0.1)
    assert requested(effects) == [9, 10]
    made.handle(PieceVerified(SOURCE, 7), 0.1)
    made.handle(ReadHeadGone(1), 0.1)
    assert requested(made.handle(PieceReceived(SOURCE, 8, 1), 0.2)) == []
    made.check_invariants()


def test_a_head_turns_a_running_download() -> None:
    made = opened(20, Order.RAREST)
    assert requested(made.handle(ReadHead(1, 15, 2), 0.0)) == []  # the window is full
    assert requested(made.handle(PieceReceived(SOURCE, 0, 1), 0.1)) == [15, 16]
    made.handle(ReadHeadGone(1), 0.1)
    assert requested(made.handle(PieceReceived(SOURCE, 1, 1), 0.2)) == [2, 3]
    made.check_invariants()
