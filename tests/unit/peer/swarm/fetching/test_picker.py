"""Piece picker, with strings in which a column is a piece.

`avail` counts the other leechers that offer each piece; `have` marks the held ones (x).
"""

from __future__ import annotations

from random import Random

import pytest

from peer.swarm.fetching.events import ReadHead
from peer.swarm.fetching.picker import RANDOM_FIRST_PIECES, Order, Picker
from peer.swarm.pieces import Bitfield, PieceLayout, Pieces


def swarm(
    avail: str, have: str = "", order: Order = Order.RAREST, seed: int = 7
) -> tuple[Pieces, Picker[str]]:
    """A picker with a seeder, "all", and leechers that add up to `avail`."""
    count = len(avail)
    held = Bitfield(count, [i for i, mark in enumerate(have) if mark == "x"])
    pieces = Pieces(PieceLayout(count, 1), held)
    picker: Picker[str] = Picker(pieces.states, Random(seed), order)
    picker.add_source("all", None)
    for level in range(1, 10):
        field = Bitfield(count, [i for i, n in enumerate(avail) if int(n) >= level])
        if field.count:
            picker.add_source(f"leecher{level}", field)
    return pieces, picker


def drain(pieces: Pieces, picker: Picker[str], source: str = "all") -> str:
    """All pieces that would be requested from the source, in order."""
    picked = []
    while (index := picker.pick(source)) is not None:
        pieces.reserve(index)
        picked.append(str(index))
    return "".join(picked)


def test_the_rarest_comes_first_and_equals_in_order_without_other_leechers() -> None:
    assert drain(*swarm(avail="1321", have="x   ")) == "321"
    assert drain(*swarm(avail="2222", have="    ")) == "0123"
    assert drain(*swarm(avail="0000", have=" x  ")) == "023"


def test_with_other_leechers_a_few_random_ones_come_first_then_the_rarest() -> None:
    avail = "9" * 20 + "1"
    firsts = []
    for seed in range(40):
        pieces, picker = swarm(avail, seed=seed)
        picker.enable_random_ties()
        order = []
        for _ in range(RANDOM_FIRST_PIECES + 1):
            index = picker.pick("all")
            assert index is not None
            pieces.reserve(index)
            order.append(index)
        assert 20 in order
        firsts.append(order[0])
    assert len(set(firsts)) > 5


def test_ties_are_broken_at_random_with_other_leechers() -> None:
    orders = set()
    for seed in range(10):
        pieces, picker = swarm("1" * 8, seed=seed)
        picker.enable_random_ties()
        orders.add(drain(pieces, picker))
    assert len(orders) > 5
    assert all(sorted(order) == list("01234567") for order in orders)


def test_only_offered_pieces_are_picked() -> None:
    pieces, picker = swarm(avail="1301")
    assert drain(pieces, picker, "leecher2") == "1"
    assert drain(pieces, picker, "leecher1") == "03"
    assert drain(pieces, picker, "leecher1") == ""
    assert drain(pieces, picker, "all") == "2"


def test_a_piece_becomes_less_urgent_when_more_offer_it() -> None:
    pieces, picker = swarm(avail="0111")
    for source in ("leecher1",):
        assert picker.have_more(source, 0)
        assert not picker.have_more(source, 0)
    picker.add_source("more", Bitfield(4, [0]))
    assert drain(pieces, picker) == "1230"


def test_a_piece_becomes_urgent_when_a_source_leaves() -> None:
    pieces, picker = swarm(avail="1121")
    picker.add_source("leaver", Bitfield(4, [0, 1, 3]))
    picker.remove_source("leaver")
    picker.remove_source("leecher2")
    assert drain(pieces, picker) == "0123"


def test_a_requeued_piece_goes_first() -> None:
    pieces, picker = swarm(avail="1119")
    assert picker.pick("leecher9") == 3
    pieces.reserve(3)
    pieces.release(3)
    picker.requeue((3,))
    assert drain(pieces, picker) == "3012"


def test_a_requeued_piece_that_was_fetched_loses_its_precedence() -> None:
    pieces, picker = swarm(avail="1119")
    pieces.reserve(3)
    pieces.release(3)
    picker.requeue((3,))
    pieces.arrived(3)
    pieces.mark_verified(3)
    picker.fetched(3)
    assert drain(pieces, picker) == "012"


def test_a_piece_that_a_source_lacks_is_not_picked_for_it() -> None:
    pieces, picker = swarm(avail="1111")
    picker.has_not("leecher1", 2)
    assert picker._availability[2] == 0
    assert drain(pieces, picker, "leecher1") == "013"


def test_sequential_is_in_order_whatever_is_rare() -> None:
    pieces, picker = swarm(avail="9871", have=" x  ", order=Order.SEQUENTIAL)
    picker.enable_random_ties()
    assert drain(pieces, picker) == "023"


def test_random_is_in_no_order_and_leaves_nothing_out() -> None:
    orders = {drain(*swarm("12345678", order=Order.RANDOM, seed=s)) for s in range(10)}
    assert len(orders) > 5
    assert all(sorted(order) == list("01234567") for order in orders)


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("seed", range(5))
def test_every_order_gives_every_piece_once_whatever_happens(order: Order, seed: int) -> None:
    rng = Random(seed)
    count = 40
    pieces = Pieces(PieceLayout(count, 1))
    picker: Picker[int] = Picker(pieces.states, rng, order)
    fields: dict[int, Bitfield | None] = {0: None}
    picker.add_source(0, None)
    if order is Order.READ:
        picker.heads.apply(ReadHead(1, 0, count))
    for step in range(400):
        source = rng.randrange(6)
        match rng.randrange(6):
            case 0 if source and source not in fields:
                field = Bitfield(count, rng.sample(range(count), rng.randrange(count)))
                fields[source] = field
                picker.add_source(source, field)
            case 1 if source and source in fields:
                del fields[source]
                picker.remove_source(source)
            case 2 if fields.get(source) is not None:
                picker.have_more(source, rng.randrange(count))
            case 3 if step == 200:
                picker.enable_random_ties()
            case 4:
                flying = [i for i in range(count) if pieces.states[i] == 1]
                if flying and rng.random() < 0.5:
                    index = rng.choice(flying)
                    pieces.release(index)
                    picker.requeue((index,))
            case _ if source in fields:
                index = picker.pick(source)
                field = fields[source]
                wanted = (
                    {i for i in range(count) if pieces.states[i] == 0 and (not field or i in field)}
                    if field is None or field.count
                    else set()
                )
                assert (index is None) == (not wanted)
                if index is not None:
                    assert index in wanted
                    pieces.reserve(index)
        held = [f for f in fields.values() if f is not None]
        for index in range(count):
            assert picker._availability[index] == sum(index in f for f in held)
