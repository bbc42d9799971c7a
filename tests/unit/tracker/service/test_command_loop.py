"""Command loop: order of commit, reply and publication, over a store that can block and fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import nacl.signing
import pytest

from common.crypto import tickets
from common.errors import StorageError
from common.host.clock import monotonic, wall_ms
from common.ids import ContentId, DeviceKey, GroupId, TrackerId, UserId
from common.messages import events, tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from tests.support.memory_store import MemoryStore, MemoryTurn
from tests.support.tracker_harness import TrackerHarness, content_id
from tracker.core import commands
from tracker.core.changes.accounts import AccountCreated, DeviceBound
from tracker.core.changes.groups import Logged, MemberJoined, RequestMade
from tracker.core.changes.shares import ManifestShown, ManifestStored
from tracker.core.context import Caller, Now
from tracker.core.outbox import Outgoing
from tracker.core.records import ManifestSummary
from tracker.core.state import State
from tracker.service import (
    batch,
    command_loop,
    deferred,
    mirror,
    publisher,
    ticket_signer,
    writer,
)
from tracker.service.batch import Job
from tracker.service.command_loop import CommandLoop
from tracker.service.deferred import DeferredWork

ALICE = DeviceKey(b"a" * 32)


class LoopHarness:
    """A running command loop; alice is logged in."""

    def __init__(self, loop: CommandLoop, store: MemoryStore, published: list[Outgoing]) -> None:
        self.loop, self.store, self.published = loop, store, published
        self.replies: dict[bytes, Any] = {}
        self._count = 0
        self._news = asyncio.Event()

    def send(self, command: Any, request_id: bytes = b"", device: DeviceKey = ALICE) -> bytes:
        self._count += 1
        request_id = request_id or self._count.to_bytes(8, "big")

        def answer(reply: tracker.Reply, _: bytes | None) -> None:
            assert request_id not in self.replies, "answered twice"
            self.replies[request_id] = reply
            self._news.set()

        self.loop.submit(Job(Caller(device, "", request_id), command, answer))
        return request_id

    async def reply(self, request_id: bytes) -> Any:
        async with asyncio.timeout(20):
            while request_id not in self.replies:
                self._news.clear()
                await self._news.wait()
        return self.replies[request_id]

    async def request(self, command: Any) -> Any:
        return await self.reply(self.send(command))

    def content(self, text: str) -> ContentId:
        """A content whose manifest alice has sent."""
        content = content_id(text)
        summary = ManifestSummary(content, 9, 6, 1, 1, 16_384, "blake3", b"d" * 32, wall_ms())
        changes = (ManifestStored(summary, b"m" * 9), ManifestShown(UserId("alice"), content))
        self.store.commit(changes)
        for change in changes:
            change.apply(self.loop.context.state)
        return content

    def seeders(self, group: str, content: ContentId) -> int:
        """Return the number of seeders that the tracker knows."""
        return len(self.loop.context.presence.swarm((GroupId(group), content)).seeders)

    async def breathe(self) -> None:
        """Let all that needs no disk run."""
        for _ in range(50):
            await asyncio.sleep(0.001)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@asynccontextmanager
async def running_loop() -> AsyncIterator[LoopHarness]:
    store, published = MemoryStore(), list[Outgoing]()
    store.commit([AccountCreated("alice", "h", 1), DeviceBound(ALICE, "alice", 1)])
    core = TrackerHarness()
    core.context.state = store.load()
    key = nacl.signing.SigningKey.generate()
    deferred_work = DeferredWork(store, TrackerId(b"t" * 16), key)  # type: ignore[arg-type]
    loop = CommandLoop(core.context, store, deferred_work, published.append)  # type: ignore[arg-type]
    work = [asyncio.create_task(loop.run()), asyncio.create_task(loop.keep_time())]
    try:
        yield LoopHarness(loop, store, published)
    finally:
        store.open.set()
        loop.stop()
        work[1].cancel()
        await work[0]
        loop.close()


@pytest.fixture
async def harness() -> AsyncIterator[LoopHarness]:
    async with running_loop() as harness:
        yield harness


async def test_no_reply_or_event_leaves_before_it_is_durable(harness: LoopHarness) -> None:
    await harness.request(tracker.Hello())
    harness.store.open.clear()
    made = harness.send(tracker.CreateGroup("lab"))
    asked = harness.send(tracker.ListGroups())
    await harness.breathe()
    later = harness.send(tracker.Announce("tcp://192.0.2.7:9"))
    await harness.breathe()
    told = [out.body for out in harness.published if not isinstance(out.body, events.Beat)]
    assert (set(harness.replies) & {made, asked, later}, told) == (set(), [])
    harness.store.open.set()
    assert await harness.reply(made) == tracker.Done()
    assert [row.group for row in (await harness.reply(asked)).rows] == ["lab"]
    assert [head.seq for head in (await harness.reply(later)).heads] == [1]
    entries = [out.body for out in harness.published if isinstance(out.body, events.LogEntry)]
    assert [entry.event for entry in entries] == [events.Created("alice")]


async def test_f20_changes_that_cannot_be_written_are_refused_and_rolled_back(
    harness: LoopHarness,
) -> None:
    await harness.request(tracker.CreateGroup("before"))
    harness.store.fails_with = StorageError("cannot write to the database: disk is full")
    batch = [
        harness.send(tracker.CreateGroup("lab")),
        harness.send(tracker.ListGroups()),
        harness.send(tracker.CreateGroup("lab")),
        harness.send(tracker.LeaveGroup("before")),
    ]
    made, listed, again, left = [await harness.reply(each) for each in batch]
    for refusal in (made, again, left):
        assert isinstance(refusal, Refusal)
        assert refusal.code is Code.READ_ONLY
        assert "disk is full" in refusal.message
    assert [row.group for row in listed.rows] == ["before"]
    harness.store.fails_with = None
    assert await harness.request(tracker.CreateGroup("lab")) == tracker.Done()
    assert sorted(harness.store.load().groups) == ["before", "lab"]


async def test_f20_presence_follows_from_durable_state(harness: LoopHarness) -> None:
    """An announcement in a failed batch makes no seeder of a share that was rolled back."""
    await harness.request(tracker.CreateGroup("lab"))
    film = harness.content("film")
    await harness.request(tracker.Announce("tcp://192.0.2.7:9"))
    harness.store.fails_with = StorageError("disk is full")
    offered = harness.send(tracker.Offer("lab", "film", film))
    announced = harness.send(tracker.Announce("tcp://192.0.2.7:10"))
    assert (await harness.reply(offered)).code is Code.READ_ONLY
    assert isinstance(await harness.reply(announced), tracker.Announced)
    assert harness.loop.context.presence.leases[ALICE].endpoint == "tcp://192.0.2.7:10"
    assert (harness.seeders("lab", film), harness.loop._publisher.flush_at) == (0, None)
    harness.store.fails_with = None
    await harness.request(tracker.Announce("tcp://192.0.2.7:11"))
    assert harness.seeders("lab", film) == 0
    await harness.request(tracker.Offer("lab", "film", film))
    assert harness.seeders("lab", film) == 1


def counted_loads(
    harness: LoopHarness, monkeypatch: pytest.MonkeyPatch, load: Callable[[], State] | None = None
) -> list[None]:
    """List that grows with each load of the store, or each call of ``load`` in its place."""
    loads, load = list[None](), load or harness.store.load

    def counting() -> State:
        loads.append(None)
        return load()

    monkeypatch.setattr(harness.store, "load", counting)
    return loads


async def test_f20_a_full_disk_costs_no_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_loop() as harness:
        loads = counted_loads(harness, monkeypatch)
        for number in range(20):
            harness.store.fails_with = StorageError("disk is full")
            batch = [harness.send(tracker.CreateGroup(f"{number}{end}")) for end in "abc"]
            listed = harness.send(tracker.ListGroups())
            assert {(await harness.reply(each)).code for each in batch} == {Code.READ_ONLY}
            assert len((await harness.reply(listed)).rows) == number
            assert harness.loop.load()[1] is False
            harness.store.fails_with = None
            assert await harness.request(tracker.CreateGroup(f"{number}")) == tracker.Done()
            assert harness.loop.load()[1] is True
        assert loads == []
        assert mirror_is_right(harness)


def mirror_is_right(harness: LoopHarness) -> bool:
    """Whether the mirror has the groups, accounts and shares of the store."""
    mirror, stored = harness.loop.context.state, harness.store.load()
    names = ("groups", "accounts", "devices", "offers_of", "receipts", "position")
    return all(getattr(mirror, name) == getattr(stored, name) for name in names)


async def test_f20_a_defect_in_the_mirror_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that fails while it is applied changes neither the mirror nor the database."""
    faulty, apply = list[str](), MemberJoined.apply

    def failing(change: MemberJoined, state: State) -> None:
        apply(change, state)
        if change.group in faulty:
            raise ZeroDivisionError

    monkeypatch.setattr(MemberJoined, "apply", failing)

    async with running_loop() as harness:
        faulty.append("den")
        sent = [harness.send(tracker.CreateGroup(name)) for name in ("lab", "den", "pub")]
        codes = [(await harness.reply(each)) for each in sent]
        assert [getattr(reply, "code", None) for reply in codes] == [
            Code.INTERNAL,
            Code.INTERNAL,
            None,
        ]
        assert list(harness.loop.context.state.groups) == ["pub"]
        assert mirror_is_right(harness)


# -- pending commits ------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
async def test_f141_questions_are_answered_while_a_commit_hangs(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """They tell what is durable; what writes waits for the outcome."""
    monkeypatch.setattr(writer, "HANG_S", 0.01)

    async with running_loop() as harness:
        enters(harness, "bob", BOB)
        harness.store.open.clear()
        made = harness.send(tracker.CreateGroup("lab"))
        await until(lambda: harness.loop._writer.pending)
        mine = harness.send(tracker.ListGroups())  # in the order of its user
        for _ in range(3):
            asked = harness.send(tracker.ListGroups(), device=BOB)
            assert (await harness.reply(asked)).rows == []
        later = harness.send(tracker.CreateGroup("lab"), device=BOB)
        follows = harness.send(tracker.ListGroups(), device=BOB)
        await harness.breathe()
        assert not {made, mine, later, follows} & set(harness.replies)
        told = [out.body for out in harness.published if not isinstance(out.body, events.Beat)]
        assert told == []
        if fails:
            harness.store.fails_with = StorageError("disk is full")
        harness.store.open.set()
        if fails:
            assert (await harness.reply(made)).code is Code.READ_ONLY
            assert (await harness.reply(later)).code is Code.READ_ONLY
        else:
            assert await harness.reply(made) == tracker.Done()
            assert (await harness.reply(later)).code is Code.TAKEN
        for each in (mine, follows):
            rows = (await harness.reply(each)).rows
            assert [row.group for row in rows] == ([] if fails else ["lab"])
        assert mirror_is_right(harness)


@pytest.mark.parametrize("happened", [True, False])
async def test_f142_a_commit_in_doubt_is_looked_up(happened: bool) -> None:
    """Its answer was lost. Its command is done once, and told and answered once."""

    async with running_loop() as harness:
        harness.store.shared = True
        harness.store.lost = happened
        made = harness.send(tracker.CreateGroup("lab"))
        assert await harness.reply(made) == tracker.Done()
        entries = [out.body for out in harness.published if isinstance(out.body, events.LogEntry)]
        assert [entry.event for entry in entries] == [events.Created("alice")]
        assert harness.loop.context.state.position == 1
        assert mirror_is_right(harness)


# -- several trackers -----------------------------------------------------------------------------


async def test_commands_are_decided_on_what_other_trackers_wrote(harness: LoopHarness) -> None:
    """bob's request was taken at another tracker; alice accepts it here, and may ask for him."""
    harness.store.shared = True
    await harness.request(tracker.CreateGroup("lab"))
    harness.published.clear()
    joined = events.LogEntry("lab", 2, 1, 1, events.Requested("bob"))
    harness.store.others(
        [
            AccountCreated(UserId("bob"), "h", 1),
            RequestMade(GroupId("lab"), UserId("bob"), 1),
            Logged(joined, b"t" * 16, b"k" * 32, 1),
        ],
        [ALICE],
    )
    assert await harness.request(tracker.AcceptRequest("lab", "bob")) == tracker.Done()
    told = [out.body for out in harness.published if not isinstance(out.body, events.Beat)]
    numbers = [body.seq for body in told if isinstance(body, events.LogEntry)]
    assert numbers == [2, 3]
    assert any(isinstance(body, events.Nudge) for body in told)
    assert mirror_is_right(harness)


async def test_the_news_of_a_turn_are_published_also_if_its_own_commit_fails(
    harness: LoopHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.store.shared = True
    await harness.request(tracker.CreateGroup("lab"))
    entry = events.LogEntry("lab", 2, 1, 1, events.Requested("bob"))
    harness.store.others([Logged(entry, b"t" * 16, b"k" * 32, 1)])

    def fails(*_: Any) -> int:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryTurn, "commit", fails)
        assert (await harness.request(tracker.CreateGroup("den"))).code is Code.READ_ONLY
    assert entry in [out.body for out in harness.published]
    assert mirror_is_right(harness)


async def test_commits_received_are_applied_during_the_turn_of_another(
    harness: LoopHarness,
) -> None:
    harness.store.shared = True
    harness.store.turn_is_free.clear()
    made = harness.send(tracker.CreateGroup("lab"))
    await harness.breathe()
    harness.store.others([AccountCreated(UserId("bob"), "h", 1)])
    harness.loop.receive(harness.store.news(0))
    await until(lambda: "bob" in harness.loop.context.state.accounts)
    assert made not in harness.replies
    harness.store.turn_is_free.set()
    assert await harness.reply(made) == tracker.Done()
    assert mirror_is_right(harness)


async def test_a_refused_question_is_asked_again_after_the_news(harness: LoopHarness) -> None:
    harness.store.shared = True
    harness.store.others([AccountCreated(UserId("bob"), "h", 1), DeviceBound(BOB, "bob", 1)])
    harness.store.turn_is_free.clear()  # no question waits for a turn
    asked = harness.send(tracker.ListGroups(), device=BOB)
    assert (await harness.reply(asked)).rows == []
    harness.store.turn_is_free.set()


async def test_questions_do_not_wait_for_the_turn_of_another_tracker(harness: LoopHarness) -> None:
    enters(harness, "bob", BOB)
    harness.store.shared = True
    harness.store.turn_is_free.clear()
    made = harness.send(tracker.CreateGroup("lab"))
    for _ in range(3):
        asked = harness.send(tracker.ListGroups(), device=BOB)
        assert (await harness.reply(asked)).rows == []
    follows = harness.send(tracker.ListGroups())
    await harness.breathe()
    assert not {made, follows} & set(harness.replies)
    harness.store.turn_is_free.set()
    assert await harness.reply(made) == tracker.Done()
    assert [row.group for row in (await harness.reply(follows)).rows] == ["lab"]


async def test_f143_a_database_that_is_away_lets_questions_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A command that writes is refused at once, and works again by itself."""
    monkeypatch.setattr(writer, "RETRY_MIN_S", 0.001)

    async with running_loop() as harness:
        harness.store.shared = True
        await harness.request(tracker.CreateGroup("lab"))
        harness.store.gone = StorageError("the database cannot be reached")
        for _ in range(3):
            refused = await harness.request(tracker.CreateGroup("den"))
            assert (refused.code, "cannot be reached" in refused.message) == (Code.READ_ONLY, True)
            assert [row.group for row in (await harness.request(tracker.ListGroups())).rows] == [
                "lab"
            ]
            unknown = harness.send(tracker.ListGroups(), device=CAROL)
            assert (await harness.reply(unknown)).code is Code.NOT_LOGGED_IN
        harness.store.gone = None
        await until(lambda: harness.loop.load()[1])
        assert await harness.request(tracker.CreateGroup("den")) == tracker.Done()
        assert mirror_is_right(harness)


async def test_f152_a_frozen_database_holds_up_no_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for once; then the mirror answers until the database does."""
    monkeypatch.setattr(writer, "NEWS_S", 0.02)
    monkeypatch.setattr(writer, "RETRY_MIN_S", 0.001)

    async with running_loop() as harness:
        thaws, calls, news = threading.Event(), 0, harness.store.news

        def frozen(position: int) -> Any:
            nonlocal calls
            calls += 1
            assert thaws.wait(20.0)
            return news(position)

        harness.store.shared = True
        monkeypatch.setattr(harness.store, "news", frozen)
        for _ in range(3):
            assert (await harness.request(tracker.Hello())).user == "alice"
        assert calls == 1
        thaws.set()
        await until(lambda: harness.loop.load()[1])
        harness.store.others([AccountCreated(UserId("bob"), "h", 1)])
        await harness.request(tracker.Hello())
        assert "bob" in harness.loop.context.state.accounts


async def test_a_tracker_that_fell_behind_loads_the_mirror_anew(harness: LoopHarness) -> None:
    harness.store.shared = True
    harness.store.others([AccountCreated(UserId("bob"), "h", 1), DeviceBound(BOB, "bob", 1)])
    harness.store.forget_journal()
    assert await harness.request(tracker.CreateGroup("lab")) == tracker.Done()
    assert "bob" in harness.loop.context.state.accounts
    assert mirror_is_right(harness)


async def test_f170_questions_are_answered_while_the_mirror_is_loaded_anew(
    harness: LoopHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes wait for the load; commits of others that come meanwhile are not lost."""
    store, goes_on, load = harness.store, threading.Event(), harness.store.load
    store.shared = True

    def slow() -> State:
        loaded = load()
        assert goes_on.wait(20.0)
        return loaded

    loads = counted_loads(harness, monkeypatch, slow)
    store.others([AccountCreated(UserId("bob"), "h", 1), DeviceBound(BOB, "bob", 1)])
    harness.loop.receive(store.news(0))
    await harness.reply(harness.send(tracker.Hello(), device=BOB))
    store.others([AccountCreated(UserId("carol"), "h", 1)])
    store.forget_journal()
    written = harness.send(tracker.CreateGroup("lab"))
    await until(lambda: bool(loads))
    asked = harness.send(tracker.ListGroups(), device=BOB)
    assert (await harness.reply(asked)).rows == []
    store.others([AccountCreated(UserId("dan"), "h", 1)])
    harness.loop.receive(store.news(2))
    await harness.breathe()
    assert written not in harness.replies
    goes_on.set()
    assert await harness.reply(written) == tracker.Done()
    assert {"carol", "dan"} <= harness.loop.context.state.accounts.keys()
    assert len(loads) == 1
    assert mirror_is_right(harness)


async def test_f170_changes_are_refused_when_a_load_takes_long(
    harness: LoopHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, load = threading.Event(), harness.store.load
    monkeypatch.setattr(mirror, "PATIENCE_S", 0.05)
    monkeypatch.setattr(writer, "PATIENCE_S", 0.05)
    monkeypatch.setattr(harness.store, "load", lambda: goes_on.wait(20.0) and load())
    harness.store.shared = True
    harness.store.others([AccountCreated(UserId("bob"), "h", 1)])
    harness.store.forget_journal()
    assert (await harness.request(tracker.CreateGroup("lab"))).code is Code.READ_ONLY
    assert (await harness.request(tracker.ListGroups())).rows == []
    goes_on.set()
    await until(lambda: harness.loop.load()[1])
    assert await harness.request(tracker.CreateGroup("lab")) == tracker.Done()


async def test_f171_a_read_that_hangs_is_refused(
    harness: LoopHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that wait behind it as well; reads go on when the database does."""
    assert await harness.request(tracker.CreateGroup("lab")) == tracker.Done()
    thaws, entries = threading.Event(), harness.store.entries
    monkeypatch.setattr(deferred, "READ_S", 0.05)
    monkeypatch.setattr(
        harness.store, "entries", lambda *where: thaws.wait(20.0) and entries(*where)
    )
    asked = [harness.send(tracker.EventsSince("lab", 0)) for _ in range(5)]
    assert {(await harness.reply(each)).code for each in asked} == {Code.STORAGE}
    assert await harness.request(tracker.CreateGroup("den")) == tracker.Done()
    thaws.set()
    monkeypatch.setattr(deferred, "READ_S", 20.0)
    assert (await harness.request(tracker.EventsSince("lab", 0))).head == 1


async def test_commits_that_were_heard_of_are_applied_in_order_and_once(
    harness: LoopHarness,
) -> None:
    harness.store.shared = True
    for user in ("bob", "carol"):
        harness.store.others([AccountCreated(UserId(user), "h", 1)])
    news = harness.store.news(0)
    harness.loop.receive([news[0], news[0]])
    harness.loop.receive(news)
    await harness.request(tracker.Hello())
    assert harness.loop.context.state.position == 2
    assert mirror_is_right(harness)
    harness.store.others([AccountCreated(UserId("dan"), "h", 1)])
    harness.store.others([AccountCreated(UserId("eve"), "h", 1)])
    harness.loop.receive(harness.store.news(3))  # one is missing
    await harness.request(tracker.Hello())
    assert mirror_is_right(harness)


async def test_a_logout_right_after_an_announcement_ends_the_lease(harness: LoopHarness) -> None:
    presence = harness.loop.context.presence
    harness.send(tracker.Announce("tcp://192.0.2.7:9"))
    assert await harness.request(tracker.Logout()) == tracker.Done()
    assert (presence.leases, presence.heard_at) == ({}, {})


async def test_a_command_that_comes_twice_while_it_is_open_is_done_once(
    harness: LoopHarness,
) -> None:
    harness.store.open.clear()
    first = harness.send(tracker.CreateGroup("lab"), b"same")
    await harness.breathe()
    harness.send(tracker.CreateGroup("lab"), b"same")
    other = tracker.CreateGroup("other")
    refused: list[Any] = []
    harness.loop.submit(Job(Caller(ALICE, "", b"same"), other, lambda r, _: refused.append(r)))
    harness.store.open.set()
    assert await harness.reply(first) == tracker.Done()
    assert refused[0].code is Code.BUSY
    assert list(harness.store.load().groups) == ["lab"]


async def test_a_defect_in_one_command_leaves_the_others_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decide = commands.decide

    def faulty(context: Any, caller: Any, command: Any, now: Any) -> Any:
        if isinstance(command, tracker.Follow):
            raise ZeroDivisionError
        return decide(context, caller, command, now)

    monkeypatch.setattr(commands, "decide", faulty)

    async with running_loop() as harness:
        made, broken = harness.send(tracker.CreateGroup("lab")), harness.send(tracker.Follow())
        assert await harness.reply(made) == tracker.Done()
        assert (await harness.reply(broken)).code is Code.INTERNAL
        assert await harness.request(tracker.CreateGroup("next")) == tracker.Done()


def others_go_on(harness: LoopHarness, bob: DeviceKey) -> None:
    """Another writer of the database creates bob and continues the log of lab."""
    entry = events.LogEntry("lab", 2, 1, 1, events.Device("alice", bob, True))
    harness.store.commit(
        [
            Logged(entry, b"t" * 16, b"k" * 32, 1),
            AccountCreated("bob", "h", 1),
            DeviceBound(bob, "bob", 1),
        ]
    )


async def test_a_strange_writer_of_the_database_is_noticed(harness: LoopHarness) -> None:
    """The guard: the command is refused, and the mirror is loaded anew."""
    await harness.request(tracker.CreateGroup("lab"))
    bob = DeviceKey(b"b" * 32)
    others_go_on(harness, bob)
    harness.loop.context.state.devices[bob] = UserId("bob")
    asked = harness.send(tracker.JoinGroup("lab"), device=bob)
    assert (await harness.reply(asked)).code is Code.READ_ONLY
    asked = harness.send(tracker.JoinGroup("lab"), device=bob)
    assert await harness.reply(asked) == tracker.Done()
    assert harness.loop.context.state.groups["lab"].seq == 3
    assert mirror_is_right(harness)


async def test_jobs_left_over_by_a_full_batch_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "BATCH_WEIGHT", 4)

    async with running_loop() as harness:
        enters(harness, "bob", BOB)
        sent = [
            harness.send(tracker.CreateGroup(f"{device[:1].decode()}{n}"), device=device)
            for n in range(9)
            for device in (ALICE, BOB)
        ]
        assert [await harness.reply(each) for each in sent] == [tracker.Done()] * len(sent)
        assert not len(harness.loop._open)


async def test_one_device_cannot_fill_the_queue(harness: LoopHarness) -> None:
    harness.store.open.clear()
    harness.send(tracker.CreateGroup("lab"))
    await harness.breathe()
    sent = [harness.send(tracker.ListGroups()) for _ in range(300)]
    busy = [each for each in sent if each in harness.replies]
    assert len(busy) == 300 - 255
    assert {harness.replies[each].code for each in busy} == {Code.BUSY}
    harness.store.open.set()
    for each in sent:
        await harness.reply(each)
    assert not len(harness.loop._open)
    assert not harness.loop._open._of


# -- fairness -----------------------------------------------------------------------------------

BOB, CAROL = DeviceKey(b"b" * 32), DeviceKey(b"c" * 32)


def enters(harness: LoopHarness, user: str, device: DeviceKey) -> None:
    """Log ``user`` in on ``device`` as well."""
    changes: list[Any] = [DeviceBound(device, user, 1)]
    if user not in harness.loop.context.state.accounts:
        changes.insert(0, AccountCreated(user, "h", 1))
    harness.store.commit(changes)
    for change in changes:
        change.apply(harness.loop.context.state)


async def test_h54_users_with_many_and_with_few_commands_take_turns(
    harness: LoopHarness,
) -> None:
    """Two devices of one account share a turn."""
    enters(harness, "alice", CAROL)
    enters(harness, "bob", BOB)
    flood = [harness.send(tracker.ListGroups(), device=d) for d in (ALICE, CAROL) for _ in range(9)]
    hello = harness.send(tracker.Hello(), device=BOB)
    await harness.reply(flood[-1])
    assert list(harness.replies).index(hello) == 1


def slow_decisions(monkeypatch: pytest.MonkeyPatch, decided: list[Any]) -> None:
    """Each decision takes ``BATCH_S``."""
    decide, clock = commands.decide, [0.0]

    def slow(context: Any, caller: Any, command: Any, now: Any) -> Any:
        clock[0] += batch.BATCH_S
        decided.append(command)
        return decide(context, caller, command, now)

    monkeypatch.setattr(commands, "decide", slow)
    monkeypatch.setattr(command_loop, "monotonic", lambda: clock[0])


@pytest.mark.parametrize("command", [tracker.Follow(), tracker.Announce("tcp://192.0.2.7:9")])
async def test_h54_costly_queries_do_not_keep_the_sockets_waiting(
    monkeypatch: pytest.MonkeyPatch, command: object
) -> None:
    decided: list[Any] = []
    slow_decisions(monkeypatch, decided)

    async with running_loop() as harness:
        last = [harness.send(command) for _ in range(20)][-1]
        seen = []
        while last not in harness.replies:
            seen.append(len(decided))
            await asyncio.sleep(0)
        assert max(later - sooner for sooner, later in pairwise(seen)) <= 2


async def test_a_query_does_not_wait_for_what_others_write(harness: LoopHarness) -> None:
    enters(harness, "bob", BOB)
    harness.store.open.clear()
    first = harness.send(tracker.CreateGroup("bar"), device=BOB)
    asked = harness.send(tracker.ListGroups())
    made = harness.send(tracker.CreateGroup("lab"))
    assert (await harness.reply(asked)).rows == []
    assert not {first, made} & set(harness.replies)
    harness.store.open.set()
    await harness.reply(made)


async def test_h54_the_work_after_one_commit_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each announcement and departure of a device with many shares is work after the commit.

    Other commands must not wait for a hundred of them.
    """
    monkeypatch.setattr(batch, "BATCH_WEIGHT", 60)
    commits: list[int] = []
    here = tracker.Announce("tcp://192.0.2.7:9")

    async with running_loop() as harness:
        await harness.request(tracker.CreateGroup("lab"))
        for number in range(20):
            await harness.request(tracker.Offer("lab", f"{number}", harness.content(f"{number}")))
        await harness.request(tracker.Announce("tcp://192.0.2.7:9"))
        sent = []
        for number in range(8):
            sent.append(harness.send(tracker.CreateGroup(f"{number}")))
            sent += [harness.send(each) for each in (tracker.Depart(), here)]
        publish = harness.loop._publisher.publish

        def counting(decision: Any, now: Any) -> None:
            publish(decision, now)
            commits[-1] += 1

        commit = harness.store.commit

        def committing(changes: Any) -> None:
            commits.append(0)
            commit(changes)

        monkeypatch.setattr(harness.loop._publisher, "publish", counting)
        monkeypatch.setattr(harness.store, "commit", committing)
        for each in sent:
            await harness.reply(each)
        assert max(commits) <= 12


# -- large publications -----------------------------------------------------------------------


async def test_h55_the_beat_goes_on_while_the_disk_is_slow(harness: LoopHarness) -> None:
    await harness.request(tracker.CreateGroup("lab"))
    harness.store.open.clear()
    made = harness.send(tracker.CreateGroup("den"))
    await harness.breathe()
    harness.published.clear()
    harness.loop._publisher.beat(Now(wall_ms(), monotonic()))
    assert [type(out.body) for out in harness.published] == [events.Beat]
    harness.store.open.set()
    await harness.reply(made)
    heads = [out.body for out in harness.published if isinstance(out.body, events.GroupHead)]
    assert {head.group: head.seq for head in heads} == {"lab": 1, "den": 1}


async def test_h55_many_entries_of_one_departure_leave_in_slices_and_in_order(
    harness: LoopHarness,
) -> None:
    enters(harness, "bob", BOB)
    await harness.request(tracker.CreateGroup("lab"))
    await harness.reply(harness.send(tracker.JoinGroup("lab"), device=BOB))
    await harness.request(tracker.AcceptRequest("lab", "bob"))
    data, shares = harness.content("data"), 4 * publisher.SLICE_MESSAGES
    for number in range(shares):
        last = harness.send(tracker.Offer("lab", f"{number}", data))
        if number % 200 == 199:
            await harness.reply(last)
    await harness.reply(last)
    await harness.breathe()
    harness.published.clear()
    left = harness.send(tracker.LeaveGroup("lab"))
    await harness.reply(left)
    beats = sum(isinstance(out.body, events.Beat) for out in harness.published)  # at any moment
    assert 0 < len(harness.published) - beats <= 2 * publisher.SLICE_MESSAGES
    asked = harness.send(tracker.Hello(), device=BOB)
    await harness.reply(asked)
    assert len(harness.published) < shares
    await harness.breathe()
    told = [out.body.seq for out in harness.published if isinstance(out.body, events.LogEntry)]
    assert told == list(range(4 + shares, 6 + 2 * shares))


async def test_h54_tickets_are_signed_a_few_at_once_and_reused_while_fresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signed: list[tuple[DeviceKey, str]] = []
    issue, clock = tickets.issue, [0.0]

    def counting(key: Any, tracker_id: Any, device: Any, user: Any, group: Any, *more: Any) -> Any:
        signed.append((device, group))
        return issue(key, tracker_id, device, user, group, *more)

    monkeypatch.setattr(tickets, "issue", counting)
    monkeypatch.setattr(command_loop, "monotonic", lambda: clock[0])

    async with running_loop() as harness:
        enters(harness, "alice", CAROL)
        groups = [f"g{number}" for number in range(3 * ticket_signer.SIGNED_AT_ONCE)]
        for name in groups:
            await harness.request(tracker.CreateGroup(name))
        sent, seen = [harness.send(tracker.GetTickets()) for _ in range(9)], list[int]()
        while not harness.replies.keys() >= set(sent):
            seen.append(len(signed))
            await asyncio.sleep(0)
        assert (
            max(later - sooner for sooner, later in pairwise(seen))
            <= 2 * ticket_signer.SIGNED_AT_ONCE
        )
        assert signed == [(ALICE, name) for name in groups]
        [rows] = {tuple(row.token for row in harness.replies[each].rows) for each in sent}
        assert len(set(rows)) == len(groups)
        await harness.reply(harness.send(tracker.GetTickets(["g1"]), device=CAROL))
        assert signed[len(groups) :] == [(CAROL, "g1")]
        clock[0] += ticket_signer.FRESH_S
        await harness.request(tracker.GetTickets(["g1"]))
        assert signed[len(groups) + 1 :] == [(ALICE, "g1")]
