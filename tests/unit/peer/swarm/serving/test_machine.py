"""The serving machine: a list of events against a list of effects."""

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


class Story:
    """Tells the serving side events; a requester has a name, and its first letter is the user."""

    def __init__(
        self, count: int = 64, limit: RateLimit | None = None, warm: bool = True, **settings: object
    ) -> None:
        self.now = 0.0
        self.serving = Serving(ServingSettings(**settings), limit)  # type: ignore[arg-type]
        self.received: Counter[str] = Counter()
        self.on_way: list[str] = []
        """To whom pieces are on their way, in the order of sending."""
        if warm:
            self.warm_up()
        self.tell(ContentAdded(FILE, PIECE, count * PIECE))

    def warm_up(self) -> None:
        """Somebody took one piece at ten megabytes a second: the length of the way is known."""
        first = ContentId(b"1" * 32)
        self.tell(ContentAdded(first, PIECE, PIECE))
        self.tell(RequestReceived(requester("first"), UserId("first"), first, (0,), 0))
        self.now = 0.052
        self.tell(Acknowledged(requester("first"), PIECE), RequesterGone(requester("first")))
        self.on_way.clear()

    def tell(self, *events: ServingEvent) -> list[ServingEffect]:
        effects: list[ServingEffect] = []
        for event in events:
            effects += self.serving.handle(event, self.now)
            self.serving.check_invariants()
        self.on_way += [entry.split(":")[0] for entry in sent(effects)]
        return effects

    def ask(self, name: str, *pieces: int) -> list[str]:
        event = RequestReceived(requester(name), UserId(name[0]), FILE, pieces, self.received[name])
        return sent(self.tell(event))

    def receive(self, name: str, size: int = PIECE) -> list[str]:
        """The requester credits one more piece."""
        self.received[name] += size
        if name in self.on_way:
            self.on_way.remove(name)
        return sent(self.tell(Acknowledged(requester(name), self.received[name])))

    def receive_first(self) -> list[str]:
        """The piece that was sent before all others arrives, after as long as a piece takes."""
        self.now += 0.05
        return self.receive(self.on_way[0])

    def wait(self, seconds: float) -> list[ServingEffect]:
        effects: list[ServingEffect] = []
        end = self.now + seconds
        while (due := self.serving.next_wakeup(self.now)) is not None and due <= end:
            self.now = max(due, self.now + 1e-6)
            effects += self.tell(Tick())
        self.now = end
        return effects


def sent(effects: list[ServingEffect]) -> list[str]:
    """Sends as "name:piece"."""
    return [f"{e.requester.decode()}:{e.index}" for e in effects if isinstance(e, Send)]


def test_requests_are_answered_late_two_pieces_at_a_time() -> None:
    story = Story()
    assert story.ask("a", 5, 6, 7, 8) == ["a:5", "a:6"]
    story.now = 0.1
    assert story.receive("a") == ["a:7"]
    assert story.receive("a") == ["a:8"]
    assert story.receive("a") == []


def test_the_first_piece_travels_alone_to_measure_the_rtt() -> None:
    serving = Serving()
    serving.handle(ContentAdded(FILE, PIECE, 9 * PIECE), 0.0)
    ask = RequestReceived(requester("a"), UserId("a"), FILE, tuple(range(9)), 0)
    assert sent(serving.handle(ask, 0.0)) == ["a:0"]
    assert serving.handle(Tick(), 0.01) == []
    near = serving.handle(Acknowledged(requester("a"), PIECE), 0.053)
    assert sent(near) == ["a:1", "a:2"]


def test_frozen_requesters_delay_the_measurement_briefly() -> None:
    story = Story(warm=False)
    for name in ("x", "y", "z"):
        story.ask(name, *range(9))
    story.ask("a", *range(9))
    effects = story.wait(1.1)
    assert requester("a") in [e.requester for e in effects if isinstance(e, Send)]


def test_more_is_in_flight_with_a_long_rtt() -> None:
    story = Story(count=100, warm=False)
    delay_s, piece_s = 0.1, PIECE / 1e7
    on_way = [(story.now + delay_s, entry) for entry in story.ask("a", *range(100))]
    free_at, most = story.now, 0
    while on_way and story.now < 4.0:
        sent_at, _ = on_way.pop(0)
        free_at = max(free_at, sent_at - delay_s) + piece_s
        story.now = free_at + 2 * delay_s
        on_way += [(story.now, entry) for entry in story.receive("a")]
        most = max(most, len(on_way))
    assert most > 4


def test_more_is_in_flight_while_sent_pieces_wait_at_other_links() -> None:
    story = Story(count=200)
    on_way = len(story.ask("a", *range(100))) + len(story.ask("b", *range(100, 200)))
    seen = []
    for every_s in (0.052, 0.104, 0.052):  # as fast as our link, half as fast, as before
        for turn in range(40):
            story.now += every_s
            on_way += len(story.receive("ab"[turn % 2])) - 1
        seen.append(on_way)
    assert seen == [2, 4, 2]


def test_a_cancelled_piece_is_not_sent_unless_it_is_in_flight() -> None:
    story = Story()
    story.ask("a", 1, 2, 3, 4)
    assert story.tell(RequestCancelled(requester("a"), FILE, (1, 3))) == []
    assert story.receive("a") == ["a:4"]
    assert story.receive("a") == []


def test_the_piece_that_was_sent_least_often_goes_first() -> None:
    story = Story()
    story.ask("a", 1, 2)
    assert story.ask("b", 1, 2, 3, 4) == ["b:3"]
    story.now = 0.1
    assert story.receive("a") == []
    assert story.receive("a") == ["b:4"]
    assert story.receive("b") == ["b:1"]


def test_a_lone_seeder_sends_every_piece_once_before_any_twice() -> None:
    story = Story(count=32)
    names = "abcd"
    log = []
    for name in names:
        log += story.ask(name, *range(32))
    while len(log) < 48:
        log += story.receive_first()
    pieces = [int(entry.split(":")[1]) for entry in log]
    assert sorted(pieces[:32]) == list(range(32))
    by_user = Counter(entry.split(":")[0] for entry in log[:32])
    assert max(by_user.values()) - min(by_user.values()) <= 16


def test_users_take_turns_however_many_connections_they_have() -> None:
    story = Story(count=64, epoch_bytes=PIECE)
    log = story.ask("b", *range(64))
    for number in range(7):
        log += story.ask(f"a{number}", *range(64))
    while len(log) < 60:
        log += story.receive_first()
    users = Counter(entry[0] for entry in log)
    assert abs(users["a"] - users["b"]) <= 3


def test_h27_a_flood_of_rare_requests_does_not_take_more_than_a_share() -> None:
    story = Story(count=512)
    log = story.ask("x", 0, 1)
    for name in "abc":
        log += story.ask(name, *range(16))
    log += story.ask("x", *range(2, 512))
    waiting = dict.fromkeys("abc", 16)
    served = Counter(entry[0] for entry in log)
    while all(served[n] < waiting[n] for n in waiting):
        log += story.receive_first()
        served = Counter(entry[0] for entry in log)
    others = sum(served[n] for n in "abc") / 3
    assert others >= 0.8 * sum(served.values()) / 4 - 4


def test_idleness_saves_nothing() -> None:
    story = Story(count=512, epoch_bytes=PIECE)
    log = story.ask("a", *range(200))
    for _ in range(100):
        story.now += 0.05
        log += story.receive("a")
    log = story.ask("b", *range(200, 400))
    turns: list[str] = []
    while len(turns) < 40:
        turns += story.receive_first()
    assert 15 <= sum(turn.startswith("a") for turn in turns) <= 25


def test_a_requester_that_never_acknowledges_delays_no_other_and_is_dropped() -> None:
    story = Story(drop_after_s=5.0)
    assert story.ask("x", *range(10)) == ["x:0", "x:1"]
    assert story.ask("a", *range(20, 30)) == ["a:20"]
    story.now += 0.052
    assert story.receive("a") == ["a:21"]
    assert sent(story.wait(0.45)) == ["a:22"]
    story.receive("a")
    effects = story.wait(10.0)
    assert Drop(requester("x")) in effects
    assert not [e for e in effects if isinstance(e, Send) and e.requester == requester("x")]


def test_an_overdue_requester_is_sent_nothing_until_it_acknowledges() -> None:
    story = Story(count=16)
    assert story.ask("x", *range(3)) == ["x:0", "x:1"]
    story.receive("x")
    assert sent(story.wait(5.0)) == []
    assert story.ask("x", 3) == []
    assert story.receive("x") == ["x:3"]


def test_a_user_above_an_equal_share_delays_no_other_user() -> None:
    story = Story(count=512)
    assert story.ask("x", *range(9)) == ["x:0", "x:1"]
    log = story.ask("a", *range(100, 200))
    while story.now < 0.5:
        log += story.receive_first() if story.on_way[0] == "a" else story.receive("a")
        story.now += 0.05
    assert len(log) >= 5
    assert {entry[0] for entry in log} == {"a"}


def test_bytes_in_flight_are_bounded_for_a_user_not_for_a_connection() -> None:
    story = Story(count=2000)
    names = [f"x{number}" for number in range(20)]
    for number, name in enumerate(names):
        story.ask(name, *range(100 * number, 100 * number + 100))
    for _ in range(300):
        story.now += PIECE / 1e9
        story.receive(story.on_way[0])
    assert len(story.on_way) * PIECE == 8 * MIB


def test_users_that_do_not_acknowledge_leave_others_a_budget() -> None:
    story = Story(count=4000, unacked_max=8 * MIB)
    for number in range(12):
        story.ask(f"x{number}", *range(16))
        story.ask(f"y{number}", *range(16, 32))
        story.wait(1.0)
    assert len(story.on_way) * PIECE <= 6 * MIB
    story.ask("a", *range(40, 60))
    story.wait(16.0)  # that nobody credits might be for our own link
    assert "a" in story.on_way
    for _ in range(10):
        assert story.receive("a")


def test_users_that_never_acknowledge_do_not_starve_one_that_does() -> None:
    """Neither is anybody set aside ever later, nor are those first who were given least."""
    story = Story(count=4000, warm=False)
    story.ask("h", 0)
    story.now += 0.5
    story.receive("h")  # a megabyte a second is what our link has
    for number in range(24):
        story.ask(f"{'xyz'[number % 3]}{number}", *range(10 * number, 10 * number + 10))
    story.wait(60.0)
    story.ask("h", *range(3000, 3020))
    begun = story.now
    for _ in range(15):
        while "h" not in story.on_way:
            story.wait(0.25)
            assert story.now < begun + 30.0
        story.now += 0.5
        story.receive("h")


def test_a_piece_that_takes_longer_than_the_stall_timeout_is_awaited() -> None:
    story = Story(count=64, warm=False)
    assert story.ask("a", *range(16)) == ["a:0"]
    story.ask("b", *range(16, 32))
    story.wait(0.6)
    most = 0
    for _ in range(20):
        story.receive_first()
        story.wait(0.6)
        most = max(most, len(story.on_way))
    assert most <= 4


def test_without_any_acknowledgement_our_own_link_is_suspected() -> None:
    """Thirty that come to an uplink on which a piece takes seconds do not get one each at once."""
    story = Story(count=64, warm=False)
    for number in range(30):
        story.ask(f"{chr(97 + number)}", number)
    for _ in range(16):
        story.wait(0.5)
    assert len(story.on_way) <= 8
    for _ in range(5):
        story.receive_first()
    assert len(story.on_way) <= 5


def test_an_overdue_requester_is_dropped_later_if_no_other_acknowledges() -> None:
    story = Story(drop_after_s=5.0)
    story.ask("x", 0, 1)
    assert not [e for e in story.wait(24.0) if isinstance(e, Drop)]
    story.ask("y", 2)
    story.receive("y")
    assert [e for e in story.wait(0.1) if isinstance(e, Drop)] == [Drop(requester("x"))]


def test_a_slow_requester_that_acknowledges_is_not_dropped() -> None:
    story = Story(drop_after_s=5.0)
    story.ask("x", *range(10))
    for _ in range(4):
        assert not [e for e in story.wait(4.0) if isinstance(e, Drop)]
        assert len(story.receive("x")) == 1


def test_a_fast_requester_may_have_more_in_flight() -> None:
    story = Story(count=2000)
    on_way = len(story.ask("a", *range(1000)))
    for _ in range(200):
        story.now += PIECE / 1e9
        on_way += len(story.receive("a")) - 1
    assert on_way * PIECE == 8 * MIB


def test_a_false_acknowledgement_gains_nothing() -> None:
    story = Story()
    story.ask("a", *range(20))
    story.now = 0.157
    assert story.receive("a", 10**12) == ["a:2", "a:3"]
    story.now = 0.262
    assert story.receive("a", 10**12) == ["a:4", "a:5"]
    assert story.tell(Acknowledged(requester("a"), -5)) == []


def test_pieces_not_held_or_out_of_range_are_declined() -> None:
    story = Story(count=4)
    story.tell(ContentAdded(OTHER, PIECE, 4 * PIECE, Bitfield(4, [1])))
    asked = RequestReceived(requester("a"), UserId("a"), OTHER, (0, 1, 4, -1, 2**63), 0)
    assert story.tell(asked) == [
        Decline(requester("a"), OTHER, (0,), DeclineReason.NOT_HELD),
        Decline(requester("a"), OTHER, (4, -1, 2**63), DeclineReason.OUT_OF_RANGE),
        Send(requester("a"), OTHER, 1),
    ]
    nowhere = ContentId(b"?" * 32)
    assert story.tell(RequestReceived(requester("a"), UserId("a"), nowhere, (0,), 0)) == [
        Decline(requester("a"), nowhere, (0,), DeclineReason.UNKNOWN_CONTENT)
    ]


def test_a_leechers_piece_is_served_from_the_moment_it_is_held() -> None:
    story = Story()
    story.tell(ContentAdded(OTHER, PIECE, 2 * PIECE, Bitfield(2)))
    story.tell(HeldMore(OTHER, (1,)))
    assert sent(story.tell(RequestReceived(requester("a"), UserId("a"), OTHER, (1,), 0))) == ["a:1"]
    story.tell(HeldMore(OTHER, (0,)))
    assert story.serving._contents[OTHER].have is None, "it is complete"


def test_a_full_queue_declines_with_a_time() -> None:
    story = Story(queue_max=4)
    effects = story.tell(RequestReceived(requester("a"), UserId("a"), FILE, tuple(range(7)), 0))
    assert effects[0] == Decline(requester("a"), FILE, (4, 5, 6), DeclineReason.BUSY, 1.0)
    crowded = Story(queue_all_max=4)
    crowded.ask("a", 0, 1, 2, 3, 4, 5)
    effects = crowded.tell(RequestReceived(requester("b"), UserId("b"), FILE, (6, 7, 8), 0))
    assert [e.why for e in effects if isinstance(e, Decline)] == [DeclineReason.BUSY]


def test_a_piece_requested_twice_waits_once() -> None:
    story = Story()
    story.ask("a", 0, 1, 2, 3)
    story.ask("a", 2, 3)
    assert story.receive("a") + story.receive("a") + story.receive("a") == ["a:2", "a:3"]


def test_a_full_socket_is_retried_later() -> None:
    story = Story()
    assert story.ask("a", 0, 1) == ["a:0", "a:1"]
    assert story.tell(SendBlocked(requester("a"), FILE, 1)) == []
    assert story.serving.sent_bytes == 2 * PIECE  # the first of all, and piece 0
    assert sent(story.wait(0.2)) == ["a:1"]


@pytest.mark.parametrize("why", [SendBlocked, SendDropped])
def test_an_unsent_piece_leaves_no_unacknowledged_bytes(
    why: type[SendBlocked] | type[SendDropped],
) -> None:
    small = PIECE // 32
    story = Story(count=4)
    story.tell(ContentAdded(OTHER, small, 100 * small))
    assert story.ask("a", 0) == ["a:0"]
    given = sent(story.tell(RequestReceived(requester("a"), UserId("a"), OTHER, (0, 1), 0)))
    assert given == ["a:0", "a:1"]
    again = story.tell(why(requester("a"), FILE, 0))
    asked_again = sent([*again, *story.wait(0.2)])
    assert asked_again == (["a:0"] if why is SendBlocked else [])
    unacked_bytes = 2 * small + len(asked_again) * PIECE
    assert story.serving._requesters[requester("a")].unacked_bytes == unacked_bytes
    story.tell(Acknowledged(requester("a"), 2 * small))
    assert story.serving._requesters[requester("a")].unacked_bytes == unacked_bytes - 2 * small


def test_a_dropped_send_is_not_retried() -> None:
    story = Story()
    assert story.ask("a", 0, 1) == ["a:0", "a:1"]
    story.tell(ContentClosed(requester("a"), FILE))
    assert story.ask("a", 1, 2) == []  # opened anew: what is on its way leaves no room
    effects = story.tell(SendDropped(requester("a"), FILE, 0), SendDropped(requester("a"), FILE, 1))
    assert sorted(sent([*effects, *story.wait(1.0)])) == ["a:1", "a:2"]


def test_a_piece_that_can_no_longer_be_read_is_declined() -> None:
    story = Story()
    story.ask("a", 0, 1, 2)
    effects = story.tell(HeldLess(FILE, (1, 2)), SendBlocked(requester("a"), FILE, 1))
    assert effects == [
        Decline(requester("a"), FILE, (2,), DeclineReason.NOT_HELD),
        Decline(requester("a"), FILE, (1,), DeclineReason.NOT_HELD),
    ]


def test_a_content_that_is_withdrawn_is_declined() -> None:
    story = Story()
    story.ask("a", 0, 1, 2)
    assert story.tell(ContentRemoved(FILE)) == [
        Decline(requester("a"), FILE, (2,), DeclineReason.UNKNOWN_CONTENT)
    ]
    assert story.receive("a") == []


def test_pieces_of_a_closed_content_are_not_sent_and_others_are() -> None:
    story = Story()
    story.tell(ContentAdded(OTHER, PIECE, 4 * PIECE))
    story.ask("a", 0, 1, 2, 3)
    story.tell(RequestReceived(requester("a"), UserId("a"), OTHER, (2,), 0))
    assert story.tell(ContentClosed(requester("a"), FILE)) == []
    assert story.receive("a") == ["a:2"]
    assert story.receive("a") == []


def test_a_requester_that_left_delays_nothing() -> None:
    story = Story()
    story.ask("a", 0, 1, 2)
    assert story.ask("b", 3, 4, 5) == ["b:3"]
    assert sent(story.tell(RequesterGone(requester("a")))) == ["b:4"]
    assert story.receive("a") == []


def test_limits_hold_for_all_and_for_each_user() -> None:
    for rates, users, total in (
        (Rates(everything=2 * MIB), "ab", 20 * MIB),
        (Rates(each_user=MIB), "ab", 20 * MIB),
    ):
        story = Story(count=100, limit=RateLimit(rates))
        on_way = [*story.ask("a", *range(100)), *story.ask("b", *range(100))]
        delivered = 0
        while story.now < 10.0:
            story.now += 0.01
            new = sent(story.wait(0.01))
            while on_way:
                new += story.receive(on_way.pop(0)[0])
                delivered += PIECE
            on_way = new
        assert 0.8 * total <= delivered <= 1.2 * total, (rates, users)


def test_one_message_holds_the_bytes_of_twenty_milliseconds() -> None:
    story = Story()
    bob = requester("bob")
    assert story.serving.run_bytes(bob) == 0
    story.tell(RequestReceived(bob, UserId("b"), FILE, (0, 1), 0))
    for rate, together in ((0.0, 0), (10e6, 200_000), (50e6, 1_000_000), (1e9, 2 * MIB)):
        story.serving._requesters[bob].throughput.rate = rate
        assert story.serving.run_bytes(bob) == together


def test_a_frame_takes_at_most_a_second_and_has_a_minimum() -> None:
    story = Story()
    bob = requester("bob")
    assert story.serving.frame_bytes(bob) == 64 * 1024
    story.tell(RequestReceived(bob, UserId("b"), FILE, (0, 1), 0))
    for rate, size in ((0.0, 64 * 1024), (10e3, 64 * 1024), (1e6, 1_000_000)):
        story.serving._requesters[bob].throughput.rate = rate
        assert story.serving.frame_bytes(bob) == size
