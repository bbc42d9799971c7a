"""Serving machine: events in, expected effects out."""

from __future__ import annotations

from collections import Counter

import pytest

from common.ids import ContentId, UserId
from peer.swarm.pieces import Bitfield
from peer.swarm.rate_limit import RateLimit, Rates
from peer.swarm.serving.events import (
    Acknowledged,
    ContentAdded,
    ContentClosed,
    ContentRemoved,
    Decline,
    DeclineReason,
    Drop,
    HeldLess,
    HeldMore,
    RequestCancelled,
    RequesterGone,
    RequesterId,
    RequestReceived,
    Send,
    SendBlocked,
    SendDropped,
    ServingEffect,
    ServingEvent,
    Tick,
)
from peer.swarm.serving.machine import Serving
from peer.swarm.serving.settings import ServingSettings

MIB = 1024 * 1024
PIECE = MIB // 2
FILE = ContentId(b"f" * 32)
OTHER = ContentId(b"o" * 32)


def requester(name: str) -> RequesterId:
    return RequesterId(name.encode())


class ServingRig:
    """A serving machine with a clock that the test moves.

    A requester has a name, whose first letter is its user.
    """

    def __init__(
        self, count: int = 64, limit: RateLimit | None = None, warm: bool = True, **settings: object
    ) -> None:
        self.now = 0.0
        self.serving = Serving(ServingSettings(**settings), limit)  # type: ignore[arg-type]
        self.received: Counter[str] = Counter()
        self.in_flight: list[str] = []
        """Requesters of the pieces in flight, in the order of sending."""
        if warm:
            self.warm_up()
        self.handle(ContentAdded(FILE, PIECE, count * PIECE))

    def warm_up(self) -> None:
        """Measure the base RTT: one requester takes one piece at ten megabytes a second."""
        first = ContentId(b"1" * 32)
        self.handle(ContentAdded(first, PIECE, PIECE))
        self.handle(RequestReceived(requester("first"), UserId("first"), first, (0,), 0))
        self.now = 0.052
        self.handle(Acknowledged(requester("first"), PIECE), RequesterGone(requester("first")))
        self.in_flight.clear()

    def handle(self, *events: ServingEvent) -> list[ServingEffect]:
        effects: list[ServingEffect] = []
        for event in events:
            effects += self.serving.handle(event, self.now)
            self.serving.check_invariants()
        self.in_flight += [entry.split(":")[0] for entry in sent(effects)]
        return effects

    def ask(self, name: str, *pieces: int) -> list[str]:
        event = RequestReceived(requester(name), UserId(name[0]), FILE, pieces, self.received[name])
        return sent(self.handle(event))

    def receive(self, name: str, size: int = PIECE) -> list[str]:
        """The requester acknowledges one more piece."""
        self.received[name] += size
        if name in self.in_flight:
            self.in_flight.remove(name)
        return sent(self.handle(Acknowledged(requester(name), self.received[name])))

    def receive_first(self) -> list[str]:
        """The oldest piece in flight arrives, after the time that a piece takes."""
        self.now += 0.05
        return self.receive(self.in_flight[0])

    def wait(self, seconds: float) -> list[ServingEffect]:
        effects: list[ServingEffect] = []
        end = self.now + seconds
        while (due := self.serving.next_wakeup(self.now)) is not None and due <= end:
            self.now = max(due, self.now + 1e-6)
            effects += self.handle(Tick())
        self.now = end
        return effects


def sent(effects: list[ServingEffect]) -> list[str]:
    """Sends as "name:piece"."""
    return [f"{e.requester.decode()}:{e.index}" for e in effects if isinstance(e, Send)]


def test_requests_are_answered_late_two_pieces_at_a_time() -> None:
    rig = ServingRig()
    assert rig.ask("a", 5, 6, 7, 8) == ["a:5", "a:6"]
    rig.now = 0.1
    assert rig.receive("a") == ["a:7"]
    assert rig.receive("a") == ["a:8"]
    assert rig.receive("a") == []


def test_the_first_piece_travels_alone_to_measure_the_rtt() -> None:
    serving = Serving()
    serving.handle(ContentAdded(FILE, PIECE, 9 * PIECE), 0.0)
    ask = RequestReceived(requester("a"), UserId("a"), FILE, tuple(range(9)), 0)
    assert sent(serving.handle(ask, 0.0)) == ["a:0"]
    assert serving.handle(Tick(), 0.01) == []
    near = serving.handle(Acknowledged(requester("a"), PIECE), 0.053)
    assert sent(near) == ["a:1", "a:2"]


def test_frozen_requesters_delay_the_measurement_briefly() -> None:
    rig = ServingRig(warm=False)
    for name in ("x", "y", "z"):
        rig.ask(name, *range(9))
    rig.ask("a", *range(9))
    effects = rig.wait(1.1)
    assert requester("a") in [e.requester for e in effects if isinstance(e, Send)]


def test_more_is_in_flight_with_a_long_rtt() -> None:
    rig = ServingRig(count=100, warm=False)
    delay_s, piece_s = 0.1, PIECE / 1e7
    in_flight = [(rig.now + delay_s, entry) for entry in rig.ask("a", *range(100))]
    free_at, most = rig.now, 0
    while in_flight and rig.now < 4.0:
        sent_at, _ = in_flight.pop(0)
        free_at = max(free_at, sent_at - delay_s) + piece_s
        rig.now = free_at + 2 * delay_s
        in_flight += [(rig.now, entry) for entry in rig.receive("a")]
        most = max(most, len(in_flight))
    assert most > 4


def test_more_is_in_flight_while_sent_pieces_wait_at_other_links() -> None:
    rig = ServingRig(count=200)
    in_flight = len(rig.ask("a", *range(100))) + len(rig.ask("b", *range(100, 200)))
    seen = []
    for every_s in (0.052, 0.104, 0.052):  # as fast as our link, half as fast, as before
        for turn in range(40):
            rig.now += every_s
            in_flight += len(rig.receive("ab"[turn % 2])) - 1
        seen.append(in_flight)
    assert seen == [2, 3, 2]


def test_a_cancelled_piece_is_not_sent_unless_it_is_in_flight() -> None:
    rig = ServingRig()
    rig.ask("a", 1, 2, 3, 4)
    assert rig.handle(RequestCancelled(requester("a"), FILE, (1, 3))) == []
    assert rig.receive("a") == ["a:4"]
    assert rig.receive("a") == []


def test_the_piece_that_was_sent_least_often_goes_first() -> None:
    rig = ServingRig()
    rig.ask("a", 1, 2)
    assert rig.ask("b", 1, 2, 3, 4) == ["b:3"]
    rig.now = 0.1
    assert rig.receive("a") == []
    assert rig.receive("a") == ["b:4"]
    assert rig.receive("b") == ["b:1"]


def test_a_lone_seeder_sends_every_piece_once_before_any_twice() -> None:
    rig = ServingRig(count=32)
    names = "abcd"
    log = []
    for name in names:
        log += rig.ask(name, *range(32))
    while len(log) < 48:
        log += rig.receive_first()
    pieces = [int(entry.split(":")[1]) for entry in log]
    assert sorted(pieces[:32]) == list(range(32))
    by_user = Counter(entry.split(":")[0] for entry in log[:32])
    assert max(by_user.values()) - min(by_user.values()) <= 16


def test_users_take_turns_however_many_connections_they_have() -> None:
    rig = ServingRig(count=64, epoch_bytes=PIECE)
    log = rig.ask("b", *range(64))
    for number in range(7):
        log += rig.ask(f"a{number}", *range(64))
    while len(log) < 60:
        log += rig.receive_first()
    users = Counter(entry[0] for entry in log)
    assert abs(users["a"] - users["b"]) <= 3


def test_h27_a_flood_of_rare_requests_does_not_take_more_than_a_share() -> None:
    rig = ServingRig(count=512)
    log = rig.ask("x", 0, 1)
    for name in "abc":
        log += rig.ask(name, *range(16))
    log += rig.ask("x", *range(2, 512))
    waiting = dict.fromkeys("abc", 16)
    served = Counter(entry[0] for entry in log)
    while all(served[n] < waiting[n] for n in waiting):
        log += rig.receive_first()
        served = Counter(entry[0] for entry in log)
    others = sum(served[n] for n in "abc") / 3
    assert others >= 0.8 * sum(served.values()) / 4 - 4


def test_idleness_saves_nothing() -> None:
    rig = ServingRig(count=512, epoch_bytes=PIECE)
    log = rig.ask("a", *range(200))
    for _ in range(100):
        rig.now += 0.05
        log += rig.receive("a")
    log = rig.ask("b", *range(200, 400))
    turns: list[str] = []
    while len(turns) < 40:
        turns += rig.receive_first()
    assert 15 <= sum(turn.startswith("a") for turn in turns) <= 25


def test_a_requester_that_never_acknowledges_delays_no_other_and_is_dropped() -> None:
    rig = ServingRig(drop_after_s=5.0)
    assert rig.ask("x", *range(10)) == ["x:0", "x:1"]
    assert rig.ask("a", *range(20, 30)) == ["a:20"]
    rig.now += 0.052
    assert rig.receive("a") == ["a:21"]
    assert sent(rig.wait(0.45)) == ["a:22"]
    rig.receive("a")
    effects = rig.wait(10.0)
    assert Drop(requester("x")) in effects
    assert not [e for e in effects if isinstance(e, Send) and e.requester == requester("x")]


def test_an_overdue_requester_is_sent_nothing_until_it_acknowledges() -> None:
    rig = ServingRig(count=16)
    assert rig.ask("x", *range(3)) == ["x:0", "x:1"]
    rig.now += 0.052
    rig.receive("x")
    assert sent(rig.wait(5.0)) == []
    assert rig.ask("x", 3) == []
    assert rig.receive("x") == ["x:3"]


def test_a_user_above_an_equal_share_delays_no_other_user() -> None:
    rig = ServingRig(count=512)
    assert rig.ask("x", *range(9)) == ["x:0", "x:1"]
    log = rig.ask("a", *range(100, 200))
    while rig.now < 0.5:
        log += rig.receive_first() if rig.in_flight[0] == "a" else rig.receive("a")
        rig.now += 0.05
    assert len(log) >= 5
    assert {entry[0] for entry in log} == {"a"}


def test_bytes_in_flight_are_bounded_for_a_user_not_for_a_connection() -> None:
    rig = ServingRig(count=2000)
    names = [f"x{number}" for number in range(20)]
    for number, name in enumerate(names):
        rig.ask(name, *range(100 * number, 100 * number + 100))
    for _ in range(300):
        rig.now += PIECE / 1e9
        rig.receive(rig.in_flight[0])
    assert len(rig.in_flight) * PIECE == 16 * MIB


def test_users_that_do_not_acknowledge_leave_others_a_budget() -> None:
    rig = ServingRig(count=4000, unacked_max=8 * MIB)
    for number in range(12):
        rig.ask(f"x{number}", *range(16))
        rig.ask(f"y{number}", *range(16, 32))
        rig.wait(1.0)
    assert len(rig.in_flight) * PIECE <= 6 * MIB
    rig.ask("a", *range(40, 60))
    rig.wait(16.0)  # without acknowledgements our own link is suspected
    assert "a" in rig.in_flight
    for _ in range(10):
        assert rig.receive("a")


def test_users_that_never_acknowledge_do_not_starve_one_that_does() -> None:
    """Stall timeouts do not grow without end, and least-served users do not come first forever."""
    rig = ServingRig(count=4000, warm=False)
    rig.ask("h", 0)
    rig.now += 0.5
    rig.receive("h")  # our link carries a megabyte a second
    for number in range(24):
        rig.ask(f"{'xyz'[number % 3]}{number}", *range(10 * number, 10 * number + 10))
    rig.wait(60.0)
    rig.ask("h", *range(3000, 3020))
    begun = rig.now
    for _ in range(15):
        while "h" not in rig.in_flight:
            rig.wait(0.25)
            assert rig.now < begun + 30.0
        rig.now += 0.5
        rig.receive("h")


def test_a_piece_that_takes_longer_than_the_stall_timeout_is_awaited() -> None:
    rig = ServingRig(count=64, warm=False)
    assert rig.ask("a", *range(16)) == ["a:0"]
    rig.ask("b", *range(16, 32))
    rig.wait(0.6)
    most = 0
    for _ in range(20):
        rig.receive_first()
        rig.wait(0.6)
        most = max(most, len(rig.in_flight))
    assert most <= 4


def test_without_any_acknowledgement_our_own_link_is_suspected() -> None:
    """Thirty requesters of an uplink on which a piece takes seconds do not get one each at once."""
    rig = ServingRig(count=64, warm=False)
    for number in range(30):
        rig.ask(f"{chr(97 + number)}", number)
    for _ in range(16):
        rig.wait(0.5)
    assert len(rig.in_flight) <= 8
    for _ in range(5):
        rig.receive_first()
    assert len(rig.in_flight) <= 5


def test_an_overdue_requester_is_dropped_later_if_no_other_acknowledges() -> None:
    rig = ServingRig(drop_after_s=5.0)
    rig.ask("x", 0, 1)
    assert not [e for e in rig.wait(24.0) if isinstance(e, Drop)]
    rig.ask("y", 2)
    rig.receive("y")
    assert [e for e in rig.wait(0.1) if isinstance(e, Drop)] == [Drop(requester("x"))]


def test_a_slow_requester_that_acknowledges_is_not_dropped() -> None:
    rig = ServingRig(drop_after_s=5.0)
    rig.ask("x", *range(10))
    for _ in range(4):
        assert not [e for e in rig.wait(4.0) if isinstance(e, Drop)]
        assert len(rig.receive("x")) == 1


def test_a_fast_requester_may_have_more_in_flight() -> None:
    rig = ServingRig(count=2000)
    in_flight = len(rig.ask("a", *range(1000)))
    for _ in range(200):
        rig.now += PIECE / 1e9
        in_flight += len(rig.receive("a")) - 1
    assert in_flight * PIECE == 16 * MIB


def test_a_false_acknowledgement_gains_nothing() -> None:
    rig = ServingRig()
    rig.ask("a", *range(20))
    rig.now = 0.157
    assert rig.receive("a", 10**12) == ["a:2", "a:3"]
    rig.now = 0.262
    assert rig.receive("a", 10**12) == ["a:4", "a:5"]
    assert rig.handle(Acknowledged(requester("a"), -5)) == []


def test_pieces_not_held_or_out_of_range_are_declined() -> None:
    rig = ServingRig(count=4)
    rig.handle(ContentAdded(OTHER, PIECE, 4 * PIECE, Bitfield(4, [1])))
    asked = RequestReceived(requester("a"), UserId("a"), OTHER, (0, 1, 4, -1, 2**63), 0)
    assert rig.handle(asked) == [
        Decline(requester("a"), OTHER, (0,), DeclineReason.NOT_HELD),
        Decline(requester("a"), OTHER, (4, -1, 2**63), DeclineReason.OUT_OF_RANGE),
        Send(requester("a"), OTHER, 1, notify=True),
    ]
    nowhere = ContentId(b"?" * 32)
    assert rig.handle(RequestReceived(requester("a"), UserId("a"), nowhere, (0,), 0)) == [
        Decline(requester("a"), nowhere, (0,), DeclineReason.UNKNOWN_CONTENT)
    ]


def test_a_leechers_piece_is_served_from_the_moment_it_is_held() -> None:
    rig = ServingRig()
    rig.handle(ContentAdded(OTHER, PIECE, 2 * PIECE, Bitfield(2)))
    rig.handle(HeldMore(OTHER, (1,)))
    assert sent(rig.handle(RequestReceived(requester("a"), UserId("a"), OTHER, (1,), 0))) == ["a:1"]
    rig.handle(HeldMore(OTHER, (0,)))
    assert rig.serving._contents[OTHER].have is None, "it is complete"


def test_a_full_queue_declines_with_a_time() -> None:
    rig = ServingRig(queue_max=4)
    effects = rig.handle(RequestReceived(requester("a"), UserId("a"), FILE, tuple(range(7)), 0))
    assert effects[0] == Decline(requester("a"), FILE, (4, 5, 6), DeclineReason.BUSY, 1.0)
    crowded = ServingRig(queue_all_max=4)
    crowded.ask("a", 0, 1, 2, 3, 4, 5)
    effects = crowded.handle(RequestReceived(requester("b"), UserId("b"), FILE, (6, 7, 8), 0))
    assert [e.why for e in effects if isinstance(e, Decline)] == [DeclineReason.BUSY]


def test_a_piece_requested_twice_waits_once() -> None:
    rig = ServingRig()
    rig.ask("a", 0, 1, 2, 3)
    rig.ask("a", 2, 3)
    assert rig.receive("a") + rig.receive("a") + rig.receive("a") == ["a:2", "a:3"]


def test_a_full_socket_is_retried_later() -> None:
    rig = ServingRig()
    assert rig.ask("a", 0, 1) == ["a:0", "a:1"]
    assert rig.handle(SendBlocked(requester("a"), FILE, 1)) == []
    assert rig.serving.sent_bytes == 2 * PIECE  # the first of all, and piece 0
    assert sent(rig.wait(0.2)) == ["a:1"]


@pytest.mark.parametrize("why", [SendBlocked, SendDropped])
def test_an_unsent_piece_leaves_no_unacknowledged_bytes(
    why: type[SendBlocked] | type[SendDropped],
) -> None:
    small = PIECE // 32
    rig = ServingRig(count=4)
    rig.handle(ContentAdded(OTHER, small, 100 * small))
    assert rig.ask("a", 0) == ["a:0"]
    given = sent(rig.handle(RequestReceived(requester("a"), UserId("a"), OTHER, (0, 1), 0)))
    assert given == ["a:0", "a:1"]
    again = rig.handle(why(requester("a"), FILE, 0))
    asked_again = sent([*again, *rig.wait(0.2)])
    assert asked_again == (["a:0"] if why is SendBlocked else [])
    unacked_bytes = 2 * small + len(asked_again) * PIECE
    assert rig.serving._requesters[requester("a")].unacked_bytes == unacked_bytes
    rig.handle(Acknowledged(requester("a"), 2 * small))
    assert rig.serving._requesters[requester("a")].unacked_bytes == unacked_bytes - 2 * small


def test_a_dropped_send_is_not_retried() -> None:
    rig = ServingRig()
    assert rig.ask("a", 0, 1) == ["a:0", "a:1"]
    rig.handle(ContentClosed(requester("a"), FILE))
    assert rig.ask("a", 1, 2) == []  # opened again: the pieces in flight leave no headroom
    effects = rig.handle(SendDropped(requester("a"), FILE, 0), SendDropped(requester("a"), FILE, 1))
    assert sorted(sent([*effects, *rig.wait(1.0)])) == ["a:1", "a:2"]


def test_a_piece_that_can_no_longer_be_read_is_declined() -> None:
    rig = ServingRig()
    rig.ask("a", 0, 1, 2)
    effects = rig.handle(HeldLess(FILE, (1, 2)), SendBlocked(requester("a"), FILE, 1))
    assert effects == [
        Decline(requester("a"), FILE, (2,), DeclineReason.NOT_HELD),
        Decline(requester("a"), FILE, (1,), DeclineReason.NOT_HELD),
    ]


def test_a_content_that_is_withdrawn_is_declined() -> None:
    rig = ServingRig()
    rig.ask("a", 0, 1, 2)
    assert rig.handle(ContentRemoved(FILE)) == [
        Decline(requester("a"), FILE, (2,), DeclineReason.UNKNOWN_CONTENT)
    ]
    assert rig.receive("a") == []


def test_pieces_of_a_closed_content_are_not_sent_and_others_are() -> None:
    rig = ServingRig()
    rig.handle(ContentAdded(OTHER, PIECE, 4 * PIECE))
    rig.ask("a", 0, 1, 2, 3)
    rig.handle(RequestReceived(requester("a"), UserId("a"), OTHER, (2,), 0))
    assert rig.handle(ContentClosed(requester("a"), FILE)) == []
    assert rig.receive("a") == ["a:2"]
    assert rig.receive("a") == []


def test_a_requester_that_left_delays_nothing() -> None:
    rig = ServingRig()
    rig.ask("a", 0, 1, 2)
    assert rig.ask("b", 3, 4, 5) == ["b:3"]
    assert sent(rig.handle(RequesterGone(requester("a")))) == ["b:4"]
    assert rig.receive("a") == []


def test_limits_hold_for_all_and_for_each_user() -> None:
    for rates, users, total in (
        (Rates(everything=2 * MIB), "ab", 20 * MIB),
        (Rates(each_user=MIB), "ab", 20 * MIB),
    ):
        rig = ServingRig(count=100, limit=RateLimit(rates))
        in_flight = [*rig.ask("a", *range(100)), *rig.ask("b", *range(100))]
        delivered = 0
        while rig.now < 10.0:
            rig.now += 0.01
            new = sent(rig.wait(0.01))
            while in_flight:
                new += rig.receive(in_flight.pop(0)[0])
                delivered += PIECE
            in_flight = new
        assert 0.8 * total <= delivered <= 1.2 * total, (rates, users)


def test_one_message_holds_the_bytes_of_twenty_milliseconds() -> None:
    rig = ServingRig()
    bob = requester("bob")
    assert rig.serving.run_bytes(bob) == 0
    rig.handle(RequestReceived(bob, UserId("b"), FILE, (0, 1), 0))
    for rate, together in ((0.0, 0), (10e6, 200_000), (50e6, 1_000_000), (1e9, 2 * MIB)):
        rig.serving._requesters[bob].throughput.rate = rate
        assert rig.serving.run_bytes(bob) == together


def on_an_uplink_of(rate: float, **settings: object) -> ServingRig:
    rig = ServingRig(**settings)  # type: ignore[arg-type]
    rig.serving._uplink._throughput.rate = rate
    return rig


def test_a_fast_uplink_sends_the_requested_pieces_of_a_run_together() -> None:
    pieces = (5, 21, 7, 9, 4)
    assert on_an_uplink_of(20.0 * MIB).ask("b", *pieces) == ["b:4", "b:5", "b:7"]
    assert on_an_uplink_of(10.0 * MIB).ask("b", *pieces) == ["b:5", "b:21"]


def test_a_run_is_as_long_as_its_receiver_takes_a_quarter_of_a_second_for() -> None:
    rig = on_an_uplink_of(20.0 * MIB)
    rig.ask("b", 40)
    rig.serving._requesters[requester("b")].throughput.rate = 4.0 * MIB
    assert rig.ask("b", 4, 5, 6, 7)[:2] == ["b:4", "b:5"]
    assert rig.serving.run_bytes(requester("b")) == MIB


def test_a_run_leaves_others_their_part_of_the_budget() -> None:
    rig = on_an_uplink_of(20.0 * MIB, unacked_max=4 * PIECE)
    assert rig.ask("b", 4, 5, 6, 7) == ["b:4", "b:5"]
    assert rig.ask("c", 4, 5, 6, 7) == ["c:6"]


def test_a_frame_takes_at_most_a_second_and_has_a_minimum() -> None:
    rig = ServingRig()
    bob = requester("bob")
    assert rig.serving.frame_bytes(bob) == 64 * 1024
    rig.handle(RequestReceived(bob, UserId("b"), FILE, (0, 1), 0))
    for rate, size in ((0.0, 64 * 1024), (10e3, 64 * 1024), (1e6, 1_000_000)):
        rig.serving._requesters[bob].throughput.rate = rate
        assert rig.serving.frame_bytes(bob) == size
