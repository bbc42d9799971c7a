"""Download machine: events in, expected effects out."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from random import Random

import pytest

from common.errors import LocalProtocolError
from common.ids import DeviceKey, UserId
from common.limits import MIB
from peer.swarm.fetching.events import (
    Announce,
    CancelRequest,
    Close,
    Complete,
    Discard,
    DiscardReason,
    DownloadEffect,
    DownloadEvent,
    HaveMore,
    OnItsWay,
    Open,
    Opened,
    Paused,
    PieceCorrupt,
    PieceReceived,
    PiecesRefused,
    PieceUnwritten,
    PieceVerified,
    ReadHead,
    Request,
    Resumed,
    SourceBusy,
    SourceClosed,
    SourceGone,
    SourceKnown,
    SourceMoves,
    SourceRefused,
    SourceUnreachable,
    Tick,
    Verdict,
    Verify,
)
from peer.swarm.fetching.machine import Download
from peer.swarm.fetching.picker import Order
from peer.swarm.fetching.settings import DownloadSettings
from peer.swarm.fetching.sources import Phase
from peer.swarm.pieces import Bitfield, PieceLayout
from peer.swarm.rate_limit import RateLimit, Rates

A, B, C = (DeviceKey(name * 32) for name in (b"a", b"b", b"c"))
USER = UserId("ann")


class DownloadRig:
    """A download with a clock that the test moves."""

    def __init__(
        self, count: int = 4, size: int | None = None, piece: int = 10, **settings: object
    ) -> None:
        self.now = 0.0
        limit = settings.pop("limit", None)
        have = settings.pop("have", None)
        self.download = Download(
            PieceLayout(count * piece if size is None else size, piece),
            Random(1),
            have=have,  # type: ignore[arg-type]
            limit=limit,  # type: ignore[arg-type]
            settings=DownloadSettings(**settings),  # type: ignore[arg-type]
        )

    def handle(self, *events: DownloadEvent, after: float = 0.0) -> list[DownloadEffect]:
        effects: list[DownloadEffect] = []
        for event in events:
            self.now += after
            effects += self.download.handle(event, self.now)
            self.download.check_invariants()
        return effects

    def wait(self, seconds: float) -> list[DownloadEffect]:
        """Let time pass, with a `Tick` whenever one is due."""
        effects: list[DownloadEffect] = []
        end = self.now + seconds
        while (due := self.download.next_wakeup(self.now)) is not None and due <= end:
            self.now = max(due, self.now + 1e-6)
            effects += self.handle(Tick())
        self.now = end
        return effects

    def with_source(self, source: DeviceKey, have: Bitfield | None = None) -> list[DownloadEffect]:
        return self.handle(SourceKnown(source, USER, have is None), Opened(source, have))


def requested(effects: list[DownloadEffect], source: DeviceKey) -> list[int]:
    return [i for e in effects if isinstance(e, Request) and e.source == source for i in e.pieces]


def test_a_whole_download_from_one_seeder() -> None:
    rig = DownloadRig(size=35)
    assert rig.handle(SourceKnown(A, USER, True)) == [Open(A)]
    assert rig.handle(Opened(A, None)) == [Request(A, (0, 1))]
    assert rig.handle(PieceReceived(A, 0, 10), after=0.1) == [
        Verify(A, 0),
        Request(A, (2, 3)),
    ]
    assert rig.handle(PieceVerified(A, 0)) == [Announce((0,))]
    assert rig.handle(PieceReceived(A, 1, 10), after=0.01) == [Verify(A, 1)]
    assert rig.handle(PieceVerified(A, 1)) == []
    assert rig.wait(0.25)[0] == Announce((1,))
    assert rig.handle(PieceReceived(A, 2, 10), PieceVerified(A, 2))[0] == Verify(A, 2)
    assert rig.handle(PieceReceived(A, 3, 5)) == [Verify(A, 3)]
    assert rig.handle(PieceVerified(A, 3)) == [
        Close(A, Verdict.FINISHED),
        Announce((3,)),
        Complete(),
    ]
    assert rig.download.complete
    assert rig.download.next_wakeup(rig.now) is None


def test_an_empty_content_is_complete_at_once() -> None:
    assert DownloadRig(count=0).handle(Tick()) == [Complete()]


def test_held_pieces_are_not_requested() -> None:
    rig = DownloadRig(have=Bitfield(4, [0, 2]))
    assert rig.with_source(A) == [Open(A), Request(A, (1, 3))]
    assert DownloadRig(have=Bitfield.full(4)).handle(Tick()) == [Complete()]


def test_a_corrupt_piece_bans_its_source_at_once_and_is_fetched_elsewhere() -> None:
    rig = DownloadRig(count=4)
    rig.with_source(A)
    rig.with_source(B)
    rig.handle(PieceReceived(A, 0, 10))
    effects = rig.handle(PieceCorrupt(A, 0))
    assert Close(A, Verdict.WRONG) in effects
    came = rig.handle(PieceReceived(B, 2, 10), PieceReceived(B, 3, 10), after=0.1)
    assert set(requested(effects + came, B)) >= {0, 1}
    assert rig.handle(SourceKnown(A, USER, True), after=100.0) == []
    assert rig.handle(PieceReceived(A, 1, 10)) == [Discard(A, 1, DiscardReason.BANNED)]
    assert rig.download.progress(rig.now).corrupt_pieces == 1


def test_a_ban_outlives_the_tracker_forgetting_the_source() -> None:
    rig = DownloadRig()
    rig.with_source(A)
    rig.handle(PieceReceived(A, 0, 10), PieceCorrupt(A, 0), SourceGone(A))
    assert rig.handle(SourceKnown(A, USER, True)) == []
    assert rig.wait(200.0) == []


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (PieceReceived(A, 3, 10), DiscardReason.UNREQUESTED),
        (PieceReceived(A, 99, 10), DiscardReason.UNREQUESTED),
        (PieceReceived(A, -1, 10), DiscardReason.UNREQUESTED),
        (PieceReceived(A, 2**63, 10), DiscardReason.UNREQUESTED),
        (PieceReceived(B, 0, 10), DiscardReason.UNREQUESTED),
        (PieceReceived(A, 0, 9), DiscardReason.WRONG_SIZE),
        (PieceReceived(A, 0, 11), DiscardReason.WRONG_SIZE),
    ],
)
def test_h24_an_unrequested_piece_is_dropped(event: PieceReceived, why: DiscardReason) -> None:
    rig = DownloadRig()
    rig.with_source(A)
    effects = rig.handle(event)
    assert effects[0] == Discard(event.source, event.index, why)
    assert not [e for e in effects if isinstance(e, Verify)]


def test_h24_a_source_that_keeps_sending_them_is_banned() -> None:
    rig = DownloadRig()
    rig.with_source(A)
    effects = rig.handle(*[PieceReceived(A, 3, 10)] * 8)
    assert effects[-1] == Close(A, Verdict.WRONG)


def test_h26_announcements_out_of_range_are_dropped_and_counted() -> None:
    rig = DownloadRig()
    rig.with_source(A, Bitfield(4))
    assert rig.handle(HaveMore(A, (4, -1, 2**63))) == []
    assert rig.handle(HaveMore(A, (2,))) == [Request(A, (2,))]
    assert Close(A, Verdict.WRONG) in rig.handle(HaveMore(A, (9,) * 8))


def test_a_bitfield_of_another_length_is_refused() -> None:
    rig = DownloadRig()
    assert Close(A, Verdict.WRONG) in rig.with_source(A, Bitfield(5))


def test_pieces_of_a_lost_connection_are_requested_elsewhere_and_it_is_retried() -> None:
    rig = DownloadRig(count=3)
    rig.with_source(A)
    assert requested(rig.with_source(B), B) == [2]
    effects = rig.handle(SourceClosed(A))
    assert requested(effects, B) == [0]
    again = rig.wait(2.0)
    assert Open(A) in again


def test_unreachable_sources_are_tried_less_and_less_often() -> None:
    rig = DownloadRig()
    rig.handle(SourceKnown(A, USER, True))
    tries = []
    for _ in range(8):
        rig.handle(SourceUnreachable(A))
        start = rig.now
        while Open(A) not in rig.wait(0.1):
            assert rig.now - start < 100
        tries.append(rig.now - start)
    assert tries[0] < 2.0
    assert tries[-1] > 25.0


def test_an_open_that_is_never_answered_is_given_up() -> None:
    rig = DownloadRig()
    rig.handle(SourceKnown(A, USER, True))
    assert Close(A, Verdict.UNREACHABLE) in rig.wait(20.0)


def test_a_refusal_for_good_holds_until_the_source_is_listed_anew() -> None:
    rig = DownloadRig()
    rig.with_source(A)
    assert Close(A, Verdict.REFUSED) in rig.handle(SourceRefused(A, False, "not a member"))
    assert rig.wait(300.0) == []
    assert rig.download.progress(rig.now).sources[0].note == "not a member"
    rig.handle(SourceGone(A))
    assert Open(A) in rig.handle(SourceKnown(A, USER, True))


def test_a_busy_source_is_left_alone_for_as_long_as_it_says() -> None:
    rig = DownloadRig(count=2)
    rig.with_source(A)
    assert rig.handle(SourceBusy(A, 3.0)) == []
    assert requested(rig.wait(2.9), A) == []
    assert sorted(requested(rig.wait(0.5), A)) == [0, 1]


def test_busy_requests_go_to_another_source_at_once() -> None:
    rig = DownloadRig(count=2)
    rig.with_source(A)
    rig.with_source(B)
    assert sorted(requested(rig.handle(SourceBusy(A, 3.0, (0, 1))), B)) == [0, 1]


def test_h38_pieces_that_a_source_lacks_are_requested_elsewhere_and_false_offers_end() -> None:
    rig = DownloadRig(count=16)
    rig.with_source(A)
    rig.with_source(B)
    effects: list[DownloadEffect] = []
    for _ in range(8):
        asked = [s for s in rig.download.progress(rig.now).sources if s.source == A]
        if not asked[0].in_flight:
            break
        outstanding = tuple(rig.download._sources.used[A].in_flight)
        effects += rig.handle(PiecesRefused(A, outstanding), after=0.01)
    assert Close(A, Verdict.USELESS) in effects
    assert not set(requested(rig.handle(Tick()), A))


def test_pause_cancels_and_resume_requests_again() -> None:
    rig = DownloadRig(count=4)
    rig.with_source(A)
    assert rig.handle(Paused()) == [CancelRequest(A, (0, 1))]
    assert rig.handle(PieceReceived(A, 0, 10)) == [Discard(A, 0, DiscardReason.PAUSED)]
    assert rig.wait(5.0) == []
    assert rig.handle(Resumed()) == [Request(A, (0, 1, 2))]


def test_verification_that_ends_during_a_pause_counts() -> None:
    rig = DownloadRig(count=1)
    rig.with_source(A)
    rig.handle(PieceReceived(A, 0, 10), Paused())
    assert Complete() in rig.handle(PieceVerified(A, 0))


def test_a_piece_that_could_not_be_written_is_fetched_again_after_a_pause() -> None:
    rig = DownloadRig(count=1)
    rig.with_source(A)
    rig.handle(PieceReceived(A, 0, 10))
    assert requested(rig.handle(PieceUnwritten(A, 0, "disk full")), A) == []
    assert requested(rig.wait(1.5), A) == [0]


def test_a_cancelled_request_that_is_answered_is_not_wasted() -> None:
    rig = DownloadRig(count=4)
    rig.with_source(A)
    rig.handle(Paused(), Resumed())
    rig.handle(Paused())
    rig.handle(Resumed())
    assert Verify(A, 0) in rig.handle(PieceReceived(A, 0, 10))


def test_the_end_game_duplicates_the_slowest_request_and_cancels_the_loser() -> None:
    rig = DownloadRig(count=2)
    rig.with_source(A)
    rig.handle(after=1.0)
    effects = rig.with_source(B) + rig.wait(1.0)
    doubled = requested(effects, B)
    assert doubled == [1]
    effects = rig.handle(PieceReceived(B, 1, 10))
    assert effects[:2] == [Verify(B, 1), CancelRequest(A, (1,))]
    late = rig.handle(PieceReceived(A, 1, 10))
    assert Discard(A, 1, DiscardReason.DUPLICATE) in late
    assert rig.download.progress(rig.now).duplicate_bytes == 10


def test_a_source_steals_a_waiting_request_for_a_piece_that_it_announces() -> None:
    rig = DownloadRig(count=8)
    rig.with_source(A)
    asked = list(rig.download._sources.used[A].in_flight)
    rig.with_source(B, Bitfield(8))
    rig.now += 2.0
    effects = rig.handle(HaveMore(B, (asked[1],)))
    assert CancelRequest(A, (asked[1],)) in effects
    assert requested(effects, B) == [asked[1]]


def test_a_piece_that_is_on_its_way_is_requested_from_no_other_source() -> None:
    rig = DownloadRig(count=2)
    rig.with_source(A)
    rig.handle(OnItsWay(A, (0, 1)))
    assert requested(rig.with_source(B) + rig.wait(4.0), B) == []
    assert requested(rig.wait(20.0), B) == [0, 1]  # a first piece is waited for 15 s


def test_a_notice_cancels_the_request_at_other_sources() -> None:
    rig = DownloadRig(count=2)
    rig.with_source(A)
    rig.handle(after=1.0)
    assert requested(rig.with_source(B) + rig.wait(1.0), B) == [1]
    assert rig.handle(OnItsWay(B, (1,))) == [CancelRequest(A, (1,))]
    assert rig.handle(OnItsWay(A, (1,))) == []


def test_a_notice_that_crosses_a_cancellation_brings_the_request_back() -> None:
    rig = DownloadRig(count=8)
    rig.with_source(A)
    rig.with_source(B, Bitfield(8))
    rig.now += 2.0
    moved = list(rig.download._sources.used[A].in_flight)[1]
    assert CancelRequest(A, (moved,)) in rig.handle(HaveMore(B, (moved,)))
    assert CancelRequest(B, (moved,)) in rig.handle(OnItsWay(A, (moved,)))
    assert rig.download._requests.inflight.owners(moved) == [rig.download._sources.used[A]]


@pytest.mark.parametrize("repeats", [1, 20])
def test_h131_false_notices_delay_a_piece_no_longer_than_silence(repeats: int) -> None:
    """The liar has given a piece before, and repeats each notice every 0.2 s."""

    def moved_at(lie: bool) -> float:
        rig = DownloadRig(count=40)
        rig.with_source(A)
        rig.with_source(B)
        held = tuple(rig.download._sources.used[B].in_flight)
        rig.handle(PieceReceived(B, held[0], 10), PieceVerified(B, held[0]), after=0.1)
        for _ in range(200):
            waits = tuple(rig.download._sources.used[B].in_flight)
            for _ in range(repeats if lie else 0):
                rig.handle(OnItsWay(B, waits))
            first = next(iter(rig.download._sources.used[A].in_flight), None)
            if first is not None:
                rig.handle(PieceReceived(A, first, 10), PieceVerified(A, first))
            rig.wait(0.2)
            if rig.download._sources.used[B].stalled:
                break
        return rig.now

    assert moved_at(lie=True) <= moved_at(lie=False) + 0.5


def test_h131_a_notice_beyond_the_content_is_invalid_and_an_unasked_one_ignored() -> None:
    rig = DownloadRig(count=4)
    rig.with_source(A)
    assert rig.handle(OnItsWay(A, (3,))) == []
    effects = [e for _ in range(8) for e in rig.handle(OnItsWay(A, (4, -1)))]
    assert Close(A, Verdict.WRONG) in effects


def test_f5_the_requests_of_a_frozen_source_move_within_five_seconds() -> None:
    rig = DownloadRig(count=400)
    rig.with_source(A)
    rig.with_source(B)
    frozen = set(rig.download._sources.used[B].in_flight)
    effects: list[DownloadEffect] = []
    while rig.now < 5.0:
        index = next(iter(rig.download._sources.used[A].in_flight))
        effects += rig.handle(PieceReceived(A, index, 10), PieceVerified(A, index))
        effects += rig.wait(0.1)
    assert frozen
    assert frozen <= set(requested(effects, A))
    assert CancelRequest(B, tuple(sorted(frozen))) in effects


def test_a_new_source_is_opened_at_once_up_to_the_bound() -> None:
    rig = DownloadRig(used_max=2)
    keys = [DeviceKey(bytes([n]) * 32) for n in range(5)]
    effects = rig.handle(*[SourceKnown(key, USER, True) for key in keys])
    assert effects == [Open(keys[0]), Open(keys[1])]
    assert len([e for e in rig.handle(SourceUnreachable(keys[0])) if isinstance(e, Open)]) == 1


def test_known_sources_are_bounded_and_failed_ones_are_evicted() -> None:
    rig = DownloadRig(known_max=3, used_max=1)
    keys = [DeviceKey(bytes([n]) * 32) for n in range(5)]
    rig.handle(*[SourceKnown(key, USER, True) for key in keys])
    known = {s.source for s in rig.download.progress(0.0).sources}
    assert known == set(keys[:3])
    rig.handle(SourceUnreachable(keys[0]), SourceKnown(keys[4], USER, True))
    known = {s.source for s in rig.download.progress(0.0).sources}
    assert known == {keys[1], keys[2], keys[4]}


def test_the_worst_source_is_replaced_by_a_spare_one() -> None:
    rig = DownloadRig(count=400, used_max=2)
    rig.with_source(A)
    rig.with_source(B)
    rig.handle(SourceKnown(C, USER, True))
    effects: list[DownloadEffect] = []
    for _ in range(80):
        for index in list(rig.download._sources.used[A].in_flight):
            effects += rig.handle(PieceReceived(A, index, 10), PieceVerified(A, index), after=0.1)
        effects += rig.wait(0.05)
        if Open(C) in effects:
            break
    assert Close(B, Verdict.SLOW) in effects
    assert Open(C) in effects


def test_the_only_source_with_everything_is_kept_however_slow() -> None:
    rig = DownloadRig(count=400, used_max=2)
    rig.with_source(A, Bitfield(400, range(0, 400, 2)))
    rig.with_source(B)
    rig.handle(SourceKnown(C, USER, False))
    effects: list[DownloadEffect] = []
    for _ in range(150):
        for index in list(rig.download._sources.used[A].in_flight):
            effects += rig.handle(PieceReceived(A, index, 10), PieceVerified(A, index), after=0.1)
        effects += rig.wait(0.05)
        if rig.download._sources.used[B].phase is Phase.OPENING:
            effects += rig.handle(Opened(B, None))
    # It gives nothing at all here: its connection is made anew, and no other one takes its place.
    verdicts = [e.verdict for e in effects if isinstance(e, Close) and e.source == B]
    assert set(verdicts) <= {Verdict.SILENT}
    assert Open(C) not in effects


def test_a_source_that_the_tracker_lost_is_kept_while_it_gives() -> None:
    rig = DownloadRig(count=4)
    rig.with_source(A)
    assert rig.handle(SourceGone(A)) == []
    assert Verify(A, 0) in rig.handle(PieceReceived(A, 0, 10))
    rig.handle(SourceClosed(A))
    assert rig.wait(100.0) == [Announce((0,))] or rig.download.next_wakeup(rig.now) is None
    assert len(rig.download.progress(rig.now).sources) == 0


def test_buffers_are_bounded_and_every_source_gets_a_part_of_them() -> None:
    rig = DownloadRig(count=1000, buffer_bytes=100)
    rig.with_source(A)
    rig.with_source(B)
    for _ in range(20):
        for source in (A, B):
            for index in list(rig.download._sources.used[source].in_flight):
                rig.handle(PieceReceived(source, index, 10), after=0.001)
                rig.handle(PieceVerified(source, index), after=0.001)
                used = rig.download._sources.used
                assert used[A].in_flight_bytes + used[B].in_flight_bytes <= 100
    assert min(used[A].in_flight_bytes, used[B].in_flight_bytes) >= 20


def test_fast_sources_get_requests_for_several_adjacent_pieces() -> None:
    rig = DownloadRig(count=2000, buffer_bytes=640)
    waiting = {A: deque[int](), B: deque[int]()}
    rig.with_source(A)
    rig.with_source(B)
    for source in (A, B):
        waiting[source].extend(rig.download._sources.used[source].in_flight)
    asked_together: list[tuple[int, ...]] = []
    verifying: deque[PieceVerified] = deque()
    while not rig.download.complete:
        for source in (A, B):
            events: list[DownloadEvent] = []
            if waiting[source]:
                index = waiting[source].popleft()
                events.append(PieceReceived(source, index, 10))
                verifying.append(PieceVerified(source, index))
            # The disk takes its time, so that the buffers are full.
            if len(verifying) > 8 or (verifying and not events):
                events.append(verifying.popleft())
            for effect in rig.handle(*events, after=0.0001):
                if isinstance(effect, Request):
                    waiting[effect.source].extend(effect.pieces)
                    asked_together.append(effect.pieces)
    steady = asked_together[len(asked_together) // 4 : -10]
    assert len(steady) > 100
    for pieces in steady:
        assert len(pieces) >= 4
        assert pieces == tuple(range(pieces[0], pieces[0] + len(pieces)))


@pytest.mark.parametrize(
    ("rate", "order", "whole"),
    [
        (200 * MIB, Order.RAREST, True),
        (20 * MIB, Order.RAREST, False),
        (200 * MIB, Order.RANDOM, False),
    ],
)
def test_whole_runs_are_requested_where_pieces_arrive_fast(
    rate: int, order: Order, whole: bool
) -> None:
    piece = MIB // 2
    rig = DownloadRig(count=256, piece=piece, order=order)
    asked = deque(requested(rig.with_source(A), A))
    rig.with_source(B, Bitfield(256))  # another leecher: ties are broken at random
    found: list[int] = []
    for received in range(96):
        index = asked.popleft()
        effects = rig.handle(PieceReceived(A, index, piece), after=piece / rate)
        effects += rig.handle(PieceVerified(A, index))
        asked += requested(effects, A)
        found += [
            len([i for i in e.pieces if i // 4 == first // 4])
            for e in effects
            if isinstance(e, Request) and received >= 48
            for first in e.pieces
        ]
    assert set(found) == {4} if whole else 4 not in found


def test_no_part_of_a_run_is_requested_while_the_buffers_hold_only_that() -> None:
    piece = MIB // 2
    rig = DownloadRig(count=64, piece=piece, fast_rate=0, buffer_bytes=6 * piece)
    assert requested(rig.with_source(A), A) == [0, 1, 2, 3]
    assert requested(rig.with_source(B), B) == []
    came = rig.handle(PieceReceived(A, 0, piece), PieceVerified(A, 0), after=0.001)
    assert requested(came, B) == []
    came = rig.handle(PieceReceived(A, 1, piece), PieceVerified(A, 1), after=0.001)
    assert requested(came, B) == [4, 5, 6, 7]


def test_the_piece_that_a_reader_waits_for_comes_alone() -> None:
    rig = DownloadRig(count=64, piece=MIB // 2, fast_rate=0)
    rig.handle(ReadHead(1, 5, 1))
    assert requested(rig.with_source(A), A)[0] == 5


def test_unverified_pieces_count_against_the_buffers() -> None:
    rig = DownloadRig(count=1000, buffer_bytes=40)
    rig.with_source(A)
    while rig.download._sources.used[A].in_flight:
        index = next(iter(rig.download._sources.used[A].in_flight))
        rig.handle(PieceReceived(A, index, 10), after=0.01)
    assert rig.download.pieces.verifying_bytes == 40
    index = next(iter(rig.download._verifying))
    assert len(requested(rig.handle(PieceVerified(A, index)), A)) == 1


def test_a_rate_limit_is_kept_and_shared() -> None:
    limit = RateLimit(Rates(everything=100.0))
    rig = DownloadRig(count=1000, limit=limit)
    rig.with_source(A)
    got = 0
    while rig.now < 10.0:
        for index in list(rig.download._sources.used[A].in_flight):
            rig.handle(PieceReceived(A, index, 10), PieceVerified(A, index))
            got += 10
        rig.wait(0.02)
    assert 900 <= got <= 1100


def test_the_rate_of_a_source_is_shown_while_it_is_limited() -> None:
    rig = DownloadRig(count=1000, limit=RateLimit(Rates(everything=100.0)))
    rig.with_source(A)
    seen = []
    while rig.now < 10.0:
        for index in list(rig.download._sources.used[A].in_flight):
            rig.handle(PieceReceived(A, index, 10), PieceVerified(A, index))
        seen.append(rig.download.progress(rig.now).sources[0].rate)
        rig.wait(0.05)
    assert all(50 <= rate <= 200 for rate in seen[len(seen) // 2 :])


def test_throttling_is_shown_while_it_lasts() -> None:
    rig = DownloadRig(count=1000, limit=RateLimit(Rates(everything=100.0)))
    assert not rig.download.progress(rig.now).throttled
    rig.with_source(A)
    for index in list(rig.download._sources.used[A].in_flight):
        rig.handle(PieceReceived(A, index, 10), PieceVerified(A, index))
    assert rig.download.progress(rig.now).throttled
    unlimited = DownloadRig(count=1000)
    unlimited.with_source(A)
    assert not unlimited.download.progress(unlimited.now).throttled


def test_have_is_announced_at_once_when_idle_and_batched_when_not() -> None:
    rig = DownloadRig(count=100)
    rig.with_source(A)
    announced: list[int] = []
    batches = 0
    for _ in range(60):
        for index in list(rig.download._sources.used[A].in_flight)[:1]:
            effects = rig.handle(PieceReceived(A, index, 10), PieceVerified(A, index), after=0.01)
            if not batches:
                assert Announce((index,)) in effects
            for effect in effects:
                if isinstance(effect, Announce):
                    announced += effect.pieces
                    batches += 1
    assert batches <= 25  # 1.2 s in batches of 50 ms
    assert len(announced) >= 54


@pytest.mark.parametrize(("rate", "pause_s"), [(200 * MIB, 0.1), (20 * MIB, 0.05)])
def test_pieces_that_arrive_fast_are_announced_half_as_often(rate: int, pause_s: float) -> None:
    piece = MIB // 2
    rig = DownloadRig(count=1000, piece=piece)
    asked = deque(requested(rig.with_source(A), A))
    at: list[float] = []
    while rig.now < 2.0 and asked:
        index = asked.popleft()
        effects = rig.handle(PieceReceived(A, index, piece), after=piece / rate)
        effects += rig.handle(PieceVerified(A, index))
        asked += requested(effects, A)
        at += [rig.now for e in effects if isinstance(e, Announce)]
    pauses = [later - sooner for sooner, later in pairwise(at) if sooner > 0.5]
    assert min(pauses) >= pause_s
    assert max(pauses) < pause_s + 2 * piece / rate


def test_sequential_order_requests_pieces_in_order() -> None:
    rig = DownloadRig(count=6, order=Order.SEQUENTIAL)
    rig.handle(SourceKnown(C, USER, False))
    assert requested(rig.with_source(A), A) == [0, 1]


def test_forgotten_pieces_are_fetched_again_even_after_the_end() -> None:
    rig = DownloadRig(count=1)
    rig.with_source(A)
    rig.handle(PieceReceived(A, 0, 10), PieceVerified(A, 0))
    assert rig.download.complete
    effects = rig.download.mark_missing((0,), rig.now)
    assert effects == [Open(A)]
    assert rig.handle(Opened(A, None)) == [Request(A, (0,))]
    assert Complete() in rig.handle(PieceReceived(A, 0, 10), PieceVerified(A, 0))


def test_the_snapshot_for_display() -> None:
    rig = DownloadRig(count=4)
    rig.with_source(A)
    rig.handle(PieceReceived(A, 0, 10), PieceVerified(A, 0), after=1.0)
    progress = rig.download.progress(rig.now)
    assert (progress.held_pieces, progress.held_bytes, progress.size) == (1, 10, 40)
    assert progress.rate > 0.0
    assert progress.eta_s is not None
    assert progress.sources_used == 1
    (source,) = progress.sources
    assert (source.pieces, source.bytes, source.in_flight) == (1, 10, 3)


def test_a_verdict_on_a_piece_that_was_not_to_be_verified_is_our_own_error() -> None:
    rig = DownloadRig()
    rig.with_source(A)
    with pytest.raises(LocalProtocolError):
        rig.download.handle(PieceVerified(A, 0), 0.0)


def test_events_of_sources_that_are_not_used_change_nothing() -> None:
    rig = DownloadRig()
    assert (
        rig.handle(
            Opened(A, None),
            HaveMore(A, (1,)),
            SourceBusy(A, 1.0),
            SourceRefused(A, True, ""),
            PiecesRefused(A, (0,)),
            SourceClosed(A),
            SourceUnreachable(A),
            SourceGone(A),
        )
        == []
    )


def test_a_source_that_forgot_its_requests_is_reopened() -> None:
    """Its connection is up and there is no other source: without a reconnect it waits forever."""
    rig = DownloadRig()
    rig.with_source(A)
    effects = rig.wait(10.5)
    assert effects == [Close(A, Verdict.SILENT), Open(A)]
    assert requested(rig.handle(Opened(A, None)), A)


@pytest.mark.parametrize("lost", [0, 2, 5])
def test_h96_a_piece_that_never_comes_from_the_only_source_is_requested_again_after_ten_seconds(
    lost: int,
) -> None:
    rig = DownloadRig(count=6)
    rig.with_source(A)
    for _ in range(6):
        for index in [i for i in rig.download._sources.used[A].in_flight if i != lost]:
            rig.handle(PieceReceived(A, index, 10), PieceVerified(A, index), after=0.1)
    effects = [e for e in rig.wait(11.0) if not isinstance(e, Announce)]
    assert [e for e in effects if not isinstance(e, Request)] == [
        Close(A, Verdict.SILENT),
        Open(A),
    ]
    assert lost in requested(rig.handle(Opened(A, None)), A)


def test_h96_a_source_of_which_bytes_come_in_is_never_cut_however_long_a_piece_takes() -> None:
    rig = DownloadRig()
    rig.with_source(A)
    for _ in range(300):
        assert not [e for e in rig.wait(1.0) if isinstance(e, Close)]
        if rig.download.silent_sources(rig.now):
            assert rig.download.silent_sources(rig.now) == [A]
            rig.handle(SourceMoves(A, rig.now))
    assert Close(A, Verdict.SILENT) in rig.wait(10.5)
    assert rig.handle(SourceMoves(A, rig.now), SourceMoves(B, rig.now)) == []


def test_h96_the_silence_limit_doubles_and_a_piece_resets_it() -> None:
    rig = DownloadRig(count=40)
    rig.with_source(A)

    def waited() -> float:
        began = rig.now
        while Close(A, Verdict.SILENT) not in rig.wait(0.25):
            assert rig.now < began + 200.0
        took = rig.now - began
        rig.handle(Opened(A, None))
        return took

    assert [round(waited(), -1) for _ in range(4)] == [10, 20, 40, 40]
    (first, *_) = rig.download._sources.used[A].in_flight
    rig.handle(PieceReceived(A, first, 10), PieceVerified(A, first), after=0.1)
    assert round(waited(), -1) == 10


def test_h96_the_silence_limit_follows_slow_pieces() -> None:
    rig = DownloadRig(count=40)
    rig.with_source(A)
    for _ in range(5):
        (first, *_) = rig.download._sources.used[A].in_flight
        assert not [e for e in rig.wait(6.0) if isinstance(e, Close)]
        rig.handle(PieceReceived(A, first, 10), PieceVerified(A, first))
    assert not [e for e in rig.wait(20.0) if isinstance(e, Close)]
    assert Close(A, Verdict.SILENT) in rig.wait(80.0)


def test_h96_a_suspended_process_blames_no_source() -> None:
    """After a stop, or the sleep of the computer, messages of sources still wait to be read."""
    rig = DownloadRig()
    rig.with_source(A)
    rig.wait(1.0)
    rig.now += 500.0
    assert not [e for e in rig.handle(Tick()) if isinstance(e, Close)]
    assert Close(A, Verdict.SILENT) in rig.wait(10.5)


def test_h96_a_source_is_reopened_if_none_offers_the_missing_pieces() -> None:
    """A `Have` may be lost."""
    rig = DownloadRig(count=4)
    rig.with_source(A, Bitfield(4, [0, 1]))
    for index in (0, 1):
        rig.handle(PieceReceived(A, index, 10), PieceVerified(A, index), after=0.1)
    effects = rig.wait(60.0)
    assert Close(A, Verdict.SILENT) in effects
    assert Open(A) in effects
    assert requested(rig.handle(Opened(A, Bitfield(4, [0, 1, 2]))), A) == [2]
