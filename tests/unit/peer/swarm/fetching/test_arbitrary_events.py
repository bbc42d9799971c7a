"""Both machines under arbitrary events: invariants after every step, and completion at the end.

The driver here behaves well: it verifies each `Verify`, and reports each opening once. Sources and
requesters behave arbitrarily.
"""

from __future__ import annotations

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.ids import ContentId, DeviceKey, UserId
from peer.swarm.fetching import events as fetching
from peer.swarm.fetching.local_pieces import Alike
from peer.swarm.fetching.machine import Download
from peer.swarm.fetching.settings import DownloadSettings
from peer.swarm.pieces import Bitfield, PieceLayout
from peer.swarm.rate_limit import RateLimit, Rates
from peer.swarm.serving import events as serving
from peer.swarm.serving.machine import Serving
from peer.swarm.serving.settings import ServingSettings

COUNT, LENGTH, SIZE = 12, 10, 115
SOURCES = [DeviceKey(bytes([n]) * 32) for n in range(5)]
sources = st.sampled_from(SOURCES)
indexes = st.integers(-2, COUNT + 1) | st.just(2**63)
some = st.lists(indexes, max_size=6).map(tuple)
pauses = st.sampled_from([0.0, 0.001, 0.05, 0.3, 5.0, 40.0])


class Fetching(RuleBasedStateMachine):
    """A download with arbitrary sources."""

    ALIKE = Alike()
    LOOKED_FOR: tuple[int, ...] = ()
    WANTED: tuple[int, ...] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.download = Download(
            PieceLayout(SIZE, LENGTH),
            Random(3),
            settings=DownloadSettings(known_max=4, used_max=3, buffer_bytes=60),
            limit=RateLimit(Rates(everything=500.0, each_user=300.0)),
            alike=self.ALIKE,
            planned_reuse=self.LOOKED_FOR,
            wanted=self.WANTED,
        )
        self.looking = self.download.planned_reuse()
        self.making: dict[int, None] = {}
        self.requested: dict[DeviceKey, dict[int, None]] = {}
        """Requests to each open source that are neither answered nor cancelled."""
        self.opening: dict[DeviceKey, None] = {}
        self.verifying: dict[tuple[DeviceKey, int], None] = {}
        self.completions = 0

    def handle(self, event: fetching.DownloadEvent) -> None:
        self.carry_out(self.download.handle(event, self.now))

    def carry_out(self, effects: list[fetching.DownloadEffect]) -> None:
        for effect in effects:
            match effect:
                case fetching.Open(source):
                    assert source not in self.opening
                    assert source not in self.requested
                    self.opening[source] = None
                case fetching.Request(source, pieces):
                    asked = self.requested[source]
                    assert pieces
                    for index in pieces:
                        assert index in (range(COUNT) if self.WANTED is None else self.WANTED)
                        assert index not in asked
                        asked[index] = None
                case fetching.CancelRequest(source, pieces):
                    for index in pieces:
                        del self.requested[source][index]
                case fetching.Verify(source, index):
                    self.requested[source].pop(index, None)
                    assert (source, index) not in self.verifying
                    self.verifying[source, index] = None
                case fetching.Discard(source, index):
                    self.requested.get(source, {}).pop(index, None)
                case fetching.Close(source):
                    self.opening.pop(source, None)
                    self.requested.pop(source, None)
                case fetching.Announce(pieces):
                    assert all(i in self.download.pieces.held for i in pieces)
                case fetching.Make(index, like):
                    assert self.WANTED is None or index in self.WANTED
                    assert index not in self.making
                    assert index not in self.download.pieces.held
                    assert like is None or like in self.download.pieces.held
                    self.making[index] = None
                case fetching.Complete():
                    self.completions += 1
        self.download.check_invariants()

    @rule(source=sources, complete=st.booleans())
    def known(self, source: DeviceKey, complete: bool) -> None:
        self.handle(fetching.SourceKnown(source, UserId("ann"), complete))

    @rule(source=sources)
    def gone(self, source: DeviceKey) -> None:
        self.handle(fetching.SourceGone(source))

    @precondition(lambda self: self.opening)
    @rule(data=st.data(), have=st.none() | st.sets(st.integers(0, COUNT - 1)))
    def opened(self, data: st.DataObject, have: set[int] | None) -> None:
        source = data.draw(st.sampled_from(list(self.opening)))
        del self.opening[source]
        self.requested[source] = {}
        self.handle(fetching.Opened(source, None if have is None else Bitfield(COUNT, have)))

    @rule(source=sources)
    def opened_unasked_or_wrong(self, source: DeviceKey) -> None:
        if source not in self.opening:
            self.handle(fetching.Opened(source, Bitfield(COUNT)))
        else:
            del self.opening[source]
            self.requested[source] = {}
            self.handle(fetching.Opened(source, Bitfield(COUNT + 1)))

    @rule(source=sources, pieces=some)
    def have_more(self, source: DeviceKey, pieces: tuple[int, ...]) -> None:
        self.handle(fetching.HaveMore(source, pieces))

    @rule(source=sources, pieces=some)
    def on_its_way(self, source: DeviceKey, pieces: tuple[int, ...]) -> None:
        known = self.download._sources.used.get(source)
        known_pieces = tuple(known.cancelled)[:2] if known is not None else ()
        self.handle(fetching.OnItsWay(source, pieces + known_pieces))
        if known is not None:  # a notice may bring a cancelled request back
            for index in known.in_flight:
                self.requested[source].setdefault(index)

    @rule(source=sources, index=indexes, size=st.sampled_from([LENGTH, 5, 0]))
    def anything_came(self, source: DeviceKey, index: int, size: int) -> None:
        self.handle(fetching.PieceReceived(source, index, size))

    @precondition(lambda self: any(self.requested.values()))
    @rule(data=st.data())
    def the_right_piece_came(self, data: st.DataObject) -> None:
        source = data.draw(st.sampled_from([s for s, asked in self.requested.items() if asked]))
        index = data.draw(st.sampled_from(list(self.requested[source])))
        self.handle(fetching.PieceReceived(source, index, self.download.layout.size_of(index)))

    @precondition(lambda self: self.verifying)
    @rule(data=st.data(), verdict=st.sampled_from(["good"] * 4 + ["corrupt", "unwritten"]))
    def verified(self, data: st.DataObject, verdict: str) -> None:
        source, index = data.draw(st.sampled_from(list(self.verifying)))
        del self.verifying[source, index]
        match verdict:
            case "good":
                self.handle(fetching.PieceVerified(source, index))
            case "corrupt":
                self.handle(fetching.PieceCorrupt(source, index))
            case _:
                self.handle(fetching.PieceUnwritten(source, index, "disk full"))

    @precondition(lambda self: self.making)
    @rule(data=st.data(), good=st.booleans())
    def made(self, data: st.DataObject, good: bool) -> None:
        index = data.draw(st.sampled_from(list(self.making)))
        del self.making[index]
        self.handle(fetching.PieceMade(index) if good else fetching.PieceNotMade(index))

    @precondition(lambda self: self.looking)
    @rule(data=st.data(), good=st.booleans())
    def looked(self, data: st.DataObject, good: bool) -> None:
        index = data.draw(st.sampled_from(self.looking))
        self.looking.remove(index)
        self.handle(fetching.PieceMade(index) if good else fetching.PieceNotFound(index))

    @rule(source=sources, pieces=some)
    def declined(self, source: DeviceKey, pieces: tuple[int, ...]) -> None:
        for index in pieces:
            self.requested.get(source, {}).pop(index, None)
        self.handle(fetching.PiecesRefused(source, pieces))

    @rule(source=sources, pieces=some)
    def busy(self, source: DeviceKey, pieces: tuple[int, ...]) -> None:
        asked = self.requested.get(source, {})
        for index in pieces or tuple(asked):
            asked.pop(index, None)
        self.handle(fetching.SourceBusy(source, 1.0, pieces))

    @rule(source=sources, transient=st.booleans())
    def refused(self, source: DeviceKey, transient: bool) -> None:
        self.handle(fetching.SourceRefused(source, transient, "no"))

    @rule(source=sources, opened=st.booleans())
    def lost(self, source: DeviceKey, opened: bool) -> None:
        self.opening.pop(source, None)
        self.requested.pop(source, None)
        self.handle(fetching.SourceClosed(source) if opened else fetching.SourceUnreachable(source))

    @rule()
    def pause(self) -> None:
        self.handle(fetching.Paused())

    @rule()
    def resume(self) -> None:
        self.handle(fetching.Resumed())

    @rule(reader=st.integers(0, 2), first=indexes, count=st.integers(0, COUNT + 1))
    def read(self, reader: int, first: int, count: int) -> None:
        self.handle(fetching.ReadHead(reader, first, count))

    @rule(reader=st.integers(0, 2))
    def stop_reading(self, reader: int) -> None:
        self.handle(fetching.ReadHeadGone(reader))

    @rule(found=st.sets(st.integers(0, COUNT - 1), max_size=3))
    def damage(self, found: set[int]) -> None:
        self.carry_out(self.download.mark_missing(sorted(found), self.now))

    @rule(pause=pauses)
    def time_passes(self, pause: float) -> None:
        self.now += pause
        self.handle(fetching.Tick())

    @invariant()
    def the_clock_is_not_set_back(self) -> None:
        due = self.download.next_wakeup(self.now)
        assert due is None or due >= self.now
        self.download.progress(self.now)

    def teardown(self) -> None:
        """With one honest seeder that was never banned, every download completes."""
        honest = DeviceKey(b"h" * 32)
        for source in SOURCES:
            self.lost(source, True)
            self.handle(fetching.SourceGone(source))
        self.resume()
        for index in self.looking:
            self.handle(fetching.PieceNotFound(index))
        for _ in range(400):
            if self.download.complete:
                break
            self.handle(fetching.SourceKnown(honest, UserId("ann"), True))
            if honest in self.opening:
                del self.opening[honest]
                self.requested[honest] = {}
                self.handle(fetching.Opened(honest, None))
            for index in list(self.requested.get(honest, {})):
                self.handle(
                    fetching.PieceReceived(honest, index, self.download.layout.size_of(index))
                )
            for source, index in list(self.verifying):
                del self.verifying[source, index]
                self.handle(fetching.PieceVerified(source, index))
            for index in list(self.making):
                del self.making[index]
                self.handle(fetching.PieceMade(index))
            self.now += 0.3
            self.handle(fetching.Tick())
        assert self.download.complete
        assert self.completions


class FetchingAlike(Fetching):
    """The same with pieces that need not be fetched."""

    ALIKE = Alike(zeros=(1, 5, 11), groups=((0, 3, 4), (2, 7)))


class FetchingLooks(Fetching):
    """The same with pieces that are looked for in local files."""

    ALIKE = Alike(zeros=(1,), groups=((0, 3, 4), (2, 7)))
    LOOKED_FOR = (0, 1, 4, 5, 6, 7, 9)


class FetchingSelects(Fetching):
    """The same with a selection of pieces."""

    ALIKE = Alike(zeros=(1, 5), groups=((0, 3, 4), (2, 7), (8, 9, 10)))
    LOOKED_FOR = (0, 6, 7)
    WANTED = (1, 3, 4, 6, 7, 10, 11)


REQUESTERS = [serving.RequesterId(bytes([n])) for n in range(4)]
CONTENTS = [ContentId(bytes([n]) * 32) for n in range(2)]
requesters = st.sampled_from(REQUESTERS)
contents = st.sampled_from(CONTENTS)


class Serves(RuleBasedStateMachine):
    """A serving machine with arbitrary requesters."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.serving = Serving(
            ServingSettings(queue_max=8, queue_all_max=20, epoch_bytes=30, drop_after_s=30.0),
            RateLimit(Rates(everything=2000.0, each_user=1000.0)),
        )
        self.sent: list[serving.Send] = []
        self.held: dict[ContentId, set[int]] = {}
        self.gone: set[serving.RequesterId] = set()

    def handle(self, event: serving.ServingEvent) -> None:
        for effect in self.serving.handle(event, self.now):
            match effect:
                case serving.Send():
                    assert effect.index in self.held[effect.content]
                    self.sent.append(effect)
                case serving.Decline():
                    assert effect.pieces
                case serving.Drop():
                    self.sent = [s for s in self.sent if s.requester != effect.requester]
        self.serving.check_invariants()

    @rule(content=contents, have=st.none() | st.sets(st.integers(0, COUNT - 1)))
    def added(self, content: ContentId, have: set[int] | None) -> None:
        if content in self.held:
            return
        self.held[content] = set(range(COUNT)) if have is None else set(have)
        field = None if have is None else Bitfield(COUNT, have)
        self.handle(serving.ContentAdded(content, LENGTH, SIZE, field))

    @rule(content=contents)
    def removed(self, content: ContentId) -> None:
        self.held.pop(content, None)
        self.handle(serving.ContentRemoved(content))

    @rule(content=contents, pieces=st.sets(st.integers(0, COUNT - 1), max_size=4))
    def more(self, content: ContentId, pieces: set[int]) -> None:
        if content in self.held:
            self.held[content] |= pieces
        self.handle(serving.HeldMore(content, tuple(pieces)))

    @rule(content=contents, pieces=st.sets(st.integers(0, COUNT - 1), max_size=2))
    def less(self, content: ContentId, pieces: set[int]) -> None:
        if content in self.held:
            self.held[content] -= pieces
        self.handle(serving.HeldLess(content, tuple(pieces)))

    @rule(requester=requesters, content=contents, pieces=some, got=st.integers(-5, 400))
    def asked(
        self, requester: serving.RequesterId, content: ContentId, pieces: tuple[int, ...], got: int
    ) -> None:
        user = UserId("ann" if requester[0] < 2 else "bob")
        self.handle(serving.RequestReceived(requester, user, content, pieces, got))

    @rule(requester=requesters, content=contents, pieces=some)
    def withdrawn(
        self, requester: serving.RequesterId, content: ContentId, pieces: tuple[int, ...]
    ) -> None:
        self.handle(serving.RequestCancelled(requester, content, pieces))

    @rule(requester=requesters, content=contents)
    def abandoned(self, requester: serving.RequesterId, content: ContentId) -> None:
        self.handle(serving.ContentClosed(requester, content))

    @rule(requester=requesters, got=st.integers(-5, 1000) | st.just(2**63))
    def credited(self, requester: serving.RequesterId, got: int) -> None:
        self.handle(serving.Acknowledged(requester, got))

    @rule(requester=requesters)
    def left(self, requester: serving.RequesterId) -> None:
        self.sent = [s for s in self.sent if s.requester != requester]
        self.handle(serving.RequesterGone(requester))

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 1_000), again=st.booleans())
    def not_sent(self, which: int, again: bool) -> None:
        send = self.sent.pop(which % len(self.sent))
        why = serving.SendBlocked if again else serving.SendDropped
        self.handle(why(send.requester, send.content, send.index))

    @rule(pause=pauses)
    def time_passes(self, pause: float) -> None:
        self.now += pause
        self.handle(serving.Tick())

    @invariant()
    def it_wakes_up(self) -> None:
        due = self.serving.next_wakeup(self.now)
        assert due is None or due >= self.now


TestFetching = Fetching.TestCase
TestFetching.settings = settings(max_examples=60, stateful_step_count=60)
TestFetchingAlike = FetchingAlike.TestCase
TestFetchingAlike.settings = settings(max_examples=60, stateful_step_count=60)
TestFetchingLooks = FetchingLooks.TestCase
TestFetchingLooks.settings = settings(max_examples=60, stateful_step_count=60)
TestFetchingSelects = FetchingSelects.TestCase
TestFetchingSelects.settings = settings(max_examples=25, stateful_step_count=60)
TestServes = Serves.TestCase
TestServes.settings = settings(max_examples=60, stateful_step_count=60)
