"""Pieces that need not be fetched: zeros, and copies of held pieces."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import pytest

from common.errors import LocalProtocolError
from common.ids import DeviceKey, UserId
from peer.swarm.fetching.effects import EffectBuffer
from peer.swarm.fetching.events import (
    Complete,
    DownloadEffect,
    DownloadEvent,
    HaveMore,
    Make,
    Opened,
    Paused,
    PieceMade,
    PieceNotFound,
    PieceNotMade,
    PieceReceived,
    PieceVerified,
    Request,
    Resumed,
    SourceKnown,
    Tick,
    Verify,
)
from peer.swarm.fetching.local_pieces import Alike, LocalPieces
from peer.swarm.fetching.machine import Download
from peer.swarm.fetching.picker import Picker
from peer.swarm.fetching.settings import DownloadSettings
from peer.swarm.pieces import Bitfield, PieceLayout, Pieces, PieceState

A, B = (DeviceKey(name * 32) for name in (b"a", b"b"))
USER = UserId("ann")


class DownloadRig:
    def __init__(
        self,
        count: int,
        alike: Alike,
        have: Bitfield | None = None,
        planned_reuse: Iterable[int] = (),
        **settings: int,
    ):
        self.now = 0.0
        self.asked: list[int] = []
        self.download = Download(
            PieceLayout(count * 10 - 3, 10),
            Random(1),
            have=have,
            alike=alike,
            planned_reuse=planned_reuse,
            settings=DownloadSettings(**settings),  # type: ignore[arg-type]
        )

    def handle(self, *events: DownloadEvent) -> list[DownloadEffect]:
        effects: list[DownloadEffect] = []
        for event in events:
            effects += self.download.handle(event, self.now)
            self.download.check_invariants()
        self.asked += [i for e in effects if isinstance(e, Request) for i in e.pieces]
        return effects

    def makes(self, *events: DownloadEvent) -> list[Make]:
        return [effect for effect in self.handle(*events) if isinstance(effect, Make)]

    def open(self, source: DeviceKey, have: set[int] | None = None) -> list[DownloadEffect]:
        self.handle(SourceKnown(source, USER, have is None))
        field = None if have is None else Bitfield(self.download.layout.count, have)
        return self.handle(Opened(source, field))

    def fetch(self, source: DeviceKey, index: int) -> list[DownloadEffect]:
        came = self.handle(PieceReceived(source, index, self.download.layout.size_of(index)))
        assert Verify(source, index) in came
        return self.handle(PieceVerified(source, index))


def test_zeros_are_made_without_any_source_and_the_short_last_piece_too() -> None:
    rig = DownloadRig(5, Alike(zeros=(1, 2, 4)))
    assert rig.makes(Tick()) == [Make(1, None), Make(2, None), Make(4, None)]
    rig.handle(*map(PieceMade, (1, 2, 4)))
    assert list(rig.download.pieces.held) == [1, 2, 4]
    assert rig.download.pieces.held_bytes == 27
    rig.open(A)
    assert sorted(rig.asked) == [0, 3]
    rig.fetch(A, 0)
    assert Complete() in rig.fetch(A, 3)


def test_a_content_of_zeros_needs_no_source() -> None:
    rig = DownloadRig(3, Alike(zeros=(0, 1, 2)))
    rig.handle(Tick())
    assert Complete() in rig.handle(*map(PieceMade, range(3)))


def test_of_equal_pieces_one_is_fetched_and_the_others_are_copied() -> None:
    rig = DownloadRig(6, Alike(groups=((0, 2, 3),)))
    rig.open(A)
    effects = rig.fetch(A, 0)
    assert [e for e in effects if isinstance(e, Make)] == [Make(2, 0), Make(3, 0)]
    rig.handle(PieceMade(2), PieceMade(3))
    for index in (1, 4, 5):
        effects = rig.fetch(A, index)
    assert Complete() in effects
    assert sorted(rig.asked) == [0, 1, 4, 5]


def test_a_piece_that_equals_a_held_one_is_copied_from_it() -> None:
    rig = DownloadRig(4, Alike(groups=((0, 1, 3),)), have=Bitfield(4, [1]))
    assert rig.makes(Tick()) == [Make(0, 1), Make(3, 1)]


def test_pieces_made_at_the_same_time_are_bounded() -> None:
    rig = DownloadRig(9, Alike(zeros=tuple(range(8))), make_bytes=25)
    assert len(rig.makes(Tick())) == 2
    assert len(rig.makes(PieceMade(0))) == 1
    small = DownloadRig(9, Alike(zeros=tuple(range(8))), make_bytes=1)
    assert len(small.makes(Tick())) == 1


def test_nothing_is_made_while_it_is_paused() -> None:
    rig = DownloadRig(4, Alike(zeros=(0,)))
    assert rig.makes(Paused(), Tick()) == []
    assert rig.download.next_wakeup(0.0) is None
    assert rig.makes(Resumed()) == [Make(0, None)]


def test_a_piece_that_could_not_be_made_is_retried_later() -> None:
    rig = DownloadRig(4, Alike(zeros=(0,)))
    rig.handle(Tick())
    assert rig.makes(PieceNotMade(0)) == []
    due = rig.download.next_wakeup(rig.now)
    assert due == rig.now + DownloadSettings().storage_pause_s
    rig.now = due
    assert rig.makes(Tick()) == [Make(0, None)]


def test_a_damaged_copy_is_made_again_and_a_damaged_original_is_copied_back() -> None:
    rig = DownloadRig(4, Alike(zeros=(3,), groups=((0, 1),)), have=Bitfield(4, [0, 1, 2, 3]))
    effects = rig.download.mark_missing((0, 3), 0.0)
    assert [e for e in effects if isinstance(e, Make)] == [Make(0, 1), Make(3, None)]
    rig.download.check_invariants()


def test_if_all_equal_pieces_are_lost_one_is_fetched() -> None:
    rig = DownloadRig(3, Alike(groups=((0, 1),)), have=Bitfield(3, [0, 1, 2]))
    rig.download.mark_missing((0, 1), 0.0)
    rig.download.check_invariants()
    rig.open(A)
    assert rig.asked == [1]
    assert [e for e in rig.fetch(A, 1) if isinstance(e, Make)] == [Make(0, 1)]


def test_if_no_source_offers_the_first_equal_piece_another_one_is_fetched() -> None:
    """A source of another implementation may hold any of them, unaware that they are equal."""
    rig = DownloadRig(4, Alike(groups=((0, 2),)), have=Bitfield(4, [1, 3]))
    rig.handle(Tick())
    rig.open(A, {1})
    assert rig.asked == []
    rig.handle(HaveMore(A, (2,)))
    rig.now += 10
    rig.handle(Tick())
    assert rig.asked == [2]
    assert [e for e in rig.fetch(A, 2) if isinstance(e, Make)] == [Make(0, 2)]
    assert Complete() in rig.handle(PieceMade(0))


class CountedStates(bytearray):
    """States of pieces that count how often one of them is read."""

    reads = 0

    def __getitem__(self, index: Any) -> Any:
        self.reads += 1
        return super().__getitem__(index)


class EqualPieces:
    """Local pieces of a content of equal pieces, with counted reads."""

    def __init__(self, count: int, have: Iterable[int] = ()) -> None:
        self.pieces = Pieces(PieceLayout(count * 10, 10), Bitfield(count, have))
        self.states = self.pieces.states = CountedStates(self.pieces.states)
        self.picker: Picker[DeviceKey] = Picker(self.states, Random(1))
        self.out = EffectBuffer()
        alike = Alike(groups=(tuple(range(count)),))
        self.local = LocalPieces(self.pieces, self.picker, self.out, alike, 100, 1.0)

    def make_all(self, now: float) -> None:
        self.local.step(now)
        while makes := [effect for effect in self.out.take() if isinstance(effect, Make)]:
            for make in makes:
                assert self.local.made(make.index)
            self.local.step(now)
        self.local.check_invariants(self.states)


def test_each_copy_of_many_equal_pieces_is_found_in_a_few_steps() -> None:
    count = 2_000
    rig = EqualPieces(count, [count // 2])
    rig.make_all(0.0)
    assert rig.pieces.complete()
    assert rig.states.reads < 20 * count


def test_the_loss_of_many_equal_pieces_costs_a_few_steps_each() -> None:
    count = 2_000
    rig = EqualPieces(count, range(count))
    rig.states.reads = 0
    for index in range(count):
        rig.pieces.forget(index)
        assert rig.local.lost(index) is (index < count - 1)
    rig.make_all(0.0)
    assert rig.states.reads < 20 * count
    last = count - 1
    rig.pieces.reserve(last)
    rig.pieces.arrived(last)
    rig.pieces.mark_verified(last)
    rig.local.held(last)
    rig.make_all(0.0)
    assert rig.pieces.complete()
    assert rig.states.reads < 40 * count


def test_the_search_for_an_offered_equal_piece_is_done_in_parts() -> None:
    count = 30_000
    rig = EqualPieces(count)
    rig.picker.add_source(A, Bitfield(count, [count - 1]))
    steps = 0
    while rig.states[count - 1] == PieceState.LOCAL:
        rig.states.reads = 0
        due = rig.local.due_at()
        assert due is not None
        rig.local.step(due)
        assert rig.states.reads < 12_000
        steps += 1
    assert steps < 20
    assert rig.states[0] == PieceState.LOCAL
    rig.local.check_invariants(rig.states)


def test_an_unrequested_make_is_refused() -> None:
    rig = DownloadRig(3, Alike(zeros=(0,)))
    for event in (PieceMade(1), PieceNotMade(1)):
        with pytest.raises(LocalProtocolError):
            rig.download.handle(event, 0.0)


def test_a_piece_is_looked_for_on_this_device_before_it_is_requested() -> None:
    rig = DownloadRig(4, Alike(), planned_reuse=(0, 1, 2))
    rig.open(A)
    assert rig.asked == [3]
    rig.handle(PieceMade(1))
    assert rig.asked == [3]
    rig.handle(PieceNotFound(2), PieceMade(0))
    assert rig.asked == [3, 2]
    rig.fetch(A, 3)
    assert Complete() in rig.fetch(A, 2)


def test_copies_of_a_looked_for_piece_wait_for_it() -> None:
    rig = DownloadRig(5, Alike(zeros=(4,), groups=((0, 1, 2),)), planned_reuse=range(5))
    assert rig.download.planned_reuse() == [0, 3]
    assert rig.makes(PieceMade(0)) == [Make(4, None), Make(1, 0), Make(2, 0)]


def test_of_equal_pieces_that_no_local_file_gave_one_is_fetched() -> None:
    rig = DownloadRig(3, Alike(groups=((0, 1, 2),)), planned_reuse=(0,))
    rig.open(A)
    assert rig.asked == []
    rig.handle(PieceNotFound(0))
    assert rig.asked == [0]
    assert [e for e in rig.fetch(A, 0) if isinstance(e, Make)] == [Make(1, 0), Make(2, 0)]


def test_a_held_piece_is_not_looked_for() -> None:
    rig = DownloadRig(3, Alike(), have=Bitfield(3, [1]), planned_reuse=range(3))
    assert rig.download.planned_reuse() == [0, 2]
    with pytest.raises(LocalProtocolError):
        rig.handle(PieceMade(1))
    rig.handle(PieceNotFound(1))
    assert rig.download.planned_reuse() == [0, 2]
