"""Link to the tracker, against a scripted tracker over real sockets."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from common import limits
from common.crypto.keys import KeyPair, new_pair
from common.errors import Refused, RemoteProtocolError, TransportError
from common.link import Tracker
from common.messages import events, tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.net import sockets, zap
from common.net.codec import SIGNATURE, Decoder, encode, pack
from common.net.pump import Frames, Pump
from common.net.sockets import Serve, make_socket
from peer.tracker_client import link as tracker_client_link
from peer.tracker_client.claims import tracker_addresses
from peer.tracker_client.link import TrackerLink, refused_with
from peer.tracker_client.selection import MOVE_AGAIN_S, TrackerSelector
from tests.support.peer_fakes import turns, until

TOPIC = b"a topic of 16 b."
_commands: Decoder[tracker.Command] = Decoder(tracker.Command)


class Scripted:
    """A tracker that answers as a test says; None is no answer."""

    def __init__(self, pair: KeyPair | None = None, host: str = "127.0.0.1") -> None:
        self.pair = pair or new_pair()
        self.context: zmq.Context[Any]
        self.where = Tracker(f"tcp://{host}:0", self.pair.public)
        self.trackers: list[str] = []
        self.heard: list[tuple[bytes, Any]] = []
        self.answer: Callable[[Any], Any] = lambda command: tracker.Done()
        self.told_events: str | None = None
        self.hellos = 0
        self.answers_hello = True
        self.start()

    def start(self) -> None:
        """Begin, at the same place as before."""
        self.context = zmq.Context()
        self.guard = zap.ZapHandler(self.context)
        self.guard.guard("d", lambda key, address: zap.Admission.ADMIT)
        role = Serve(self.pair, "d")
        router = make_socket(self.context, zmq.ROUTER, role, message_bytes_max=-1)
        publisher = make_socket(self.context, zmq.PUB, role, message_bytes_max=-1)
        endpoint = sockets.bind(router, self.where.endpoint)
        self.events = sockets.bind(publisher, "tcp://127.0.0.1:0")
        self.where = Tracker(endpoint, self.pair.public)
        self.pump = Pump(router, self._on_message)
        self.publisher = Pump(publisher, lambda frames: None)

    def _on_message(self, frames: Frames) -> None:
        envelope = _commands.unpack(frames[1:])
        command = envelope.body
        if isinstance(command, tracker.Hello):
            self.hellos += 1
            told = self.told_events or self.events
            welcome = tracker.Welcome(
                b"t" * 16,
                [b"k" * 32],
                told,
                1,
                None,
                b"i" * 16,
                b"n" * 32,
                trackers=self.trackers,
            )
            reply: Any = welcome if self.answers_hello else None
        else:
            self.heard.append((envelope.request_id, command))
            reply = self.answer(command)
        if reply is not None:
            self.pump.send([frames[0].bytes, *pack(envelope.request_id, reply)])

    def publish(self, topic: bytes, body: bytes) -> None:
        self.publisher.send([topic, SIGNATURE, body])

    def beat(self, *, cut_off: bool = False) -> None:
        self.publish(events.BEAT_TOPIC, encode(events.Beat(b"t" * 16, 1, cut_off)))

    def stop(self) -> None:
        """End without a word."""
        self.pump.close()
        self.publisher.close()
        self.guard.close()
        self.context.destroy(linger=0)


class RecordingListener:
    """A listener that records its events."""

    def __init__(self) -> None:
        self.ups = 0
        self.downs = 0
        self.messages: list[tuple[bytes, bytes]] = []
        self.defects = 0
        self.logged_in = False

    def link_up(self, welcome: tracker.Welcome) -> None:
        self.ups += 1
        if self.defects:
            self.defects -= 1
            raise ValueError("a defect")

    def link_down(self) -> None:
        self.downs += 1

    def published(self, topic: bytes, sealed: bytes) -> None:
        self.messages.append((topic, sealed))


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.stop()


@pytest.fixture
def heard() -> RecordingListener:
    return RecordingListener()


@asynccontextmanager
async def link_to(heard: RecordingListener, *where: Tracker) -> AsyncIterator[TrackerLink]:
    context: zmq.Context[Any] = zmq.Context()
    link = TrackerLink(context, new_pair(), where, heard, rng=random.Random(1))
    try:
        yield link
    finally:
        await link.close()
        context.destroy(linger=0)


async def connect(link: TrackerLink) -> None:
    link.start()
    await until(lambda: link.connected, "the link")


@pytest.fixture
async def idle_link(scripted: Scripted, heard: RecordingListener) -> AsyncIterator[TrackerLink]:
    async with link_to(heard, scripted.where) as link:
        yield link


@pytest.fixture
async def link(idle_link: TrackerLink) -> TrackerLink:
    await connect(idle_link)
    return idle_link


async def test_commands_are_answered(
    scripted: Scripted, link: TrackerLink, heard: RecordingListener
) -> None:
    assert heard.ups == 1
    assert await link.request(tracker.CreateGroup("films"), tracker.Done) == tracker.Done()
    scripted.answer = lambda command: Refusal(Code.TAKEN, "there is one", "another name")
    with pytest.raises(Refused) as caught:
        await link.request(tracker.CreateGroup("films"), tracker.Done)
    assert (caught.value.message, caught.value.hint) == ("there is one", "another name")
    assert refused_with(caught.value, Code.TAKEN)
    scripted.answer = lambda command: tracker.LoggedIn("bob")
    with pytest.raises(RemoteProtocolError):
        await link.request(tracker.CreateGroup("films"), tracker.Done)


async def test_many_at_once_get_their_own_answers(scripted: Scripted, link: TrackerLink) -> None:
    scripted.answer = lambda command: tracker.LoggedIn(command.user)
    users = [f"user{at}" for at in range(200)]
    answers = await asyncio.gather(
        *(link.request(tracker.Login(user, "password"), tracker.LoggedIn) for user in users)
    )
    assert [answer.user for answer in answers] == users


async def test_a_command_whose_answer_is_lost_is_asked_again_under_its_id(
    scripted: Scripted, link: TrackerLink
) -> None:
    scripted.answer = lambda command: None
    asked = asyncio.create_task(link.request(tracker.CreateGroup("films"), tracker.Done))
    await until(lambda: scripted.heard)
    scripted.stop()
    scripted.answer = lambda command: tracker.Done()
    scripted.start()
    assert await asked == tracker.Done()
    first, again = scripted.heard
    assert first == again


async def test_a_lost_tracker_fails_pending_and_new_requests(
    monkeypatch: pytest.MonkeyPatch, scripted: Scripted, link: TrackerLink, heard: RecordingListener
) -> None:
    monkeypatch.setattr(tracker_client_link, "LOST_GRACE_S", 0.05)
    scripted.answer = lambda command: None
    asked = asyncio.create_task(link.request(tracker.CreateGroup("films"), tracker.Done))
    await until(lambda: scripted.heard)
    scripted.stop()
    with pytest.raises(TransportError):
        await asked
    assert not link.connected
    assert heard.downs == 1
    with pytest.raises(TransportError, match="cannot be reached"):
        await link.request(tracker.Depart(), tracker.Done)
    scripted.start()
    await until(lambda: link.connected, "its return")
    assert (heard.ups, heard.downs) == (2, 1)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself the next attempt would be an hour away."""
    monkeypatch.setattr("common.limits.RECONNECT_IVL_MS", 3_600_000)
    monkeypatch.setattr("common.limits.RECONNECT_IVL_MAX_MS", 3_600_000)


@pytest.mark.usefixtures("patient")
async def test_a_request_triggers_the_next_attempt(scripted: Scripted, link: TrackerLink) -> None:
    scripted.stop()
    await until(lambda: not link.connected, "the end of the link")
    for _ in range(2):
        with pytest.raises(TransportError, match="cannot be reached"):
            await link.request(tracker.Depart(), tracker.Done)
    scripted.start()
    assert await link.request(tracker.Depart(), tracker.Done) == tracker.Done()


async def test_a_missing_reply_is_a_timeout(scripted: Scripted, link: TrackerLink) -> None:
    scripted.answer = lambda command: None
    with pytest.raises(TransportError, match="did not answer"):
        await link.request(tracker.Depart(), tracker.Done, timeout_s=0.05)
    assert link.connected


@pytest.fixture
def brief_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_client_link, "SILENCE_S", 0.2)
    monkeypatch.setattr(limits, "BEACON_S", 0.05)


@pytest.mark.usefixtures("brief_silence")
async def test_a_tracker_without_a_beacon_is_left(
    scripted: Scripted, link: TrackerLink, heard: RecordingListener
) -> None:
    await until(lambda: heard.downs >= 1, "the end of patience")
    await until(lambda: heard.ups >= 2, "another attempt")

    async def live() -> None:
        while True:
            scripted.beat()
            await asyncio.sleep(0.01)

    alive = asyncio.create_task(live())
    await until(lambda: link.connected)
    ups = heard.ups
    for _ in range(10):
        await asyncio.sleep(0.05)
    assert heard.ups - ups <= 1
    assert heard.messages == []  # signs of life are not passed on
    alive.cancel()


async def test_subscriptions_outlive_reconnections(
    scripted: Scripted, link: TrackerLink, heard: RecordingListener
) -> None:
    async def hears(body: bytes) -> None:
        async def shout() -> None:
            while True:
                scripted.publish(TOPIC, body)
                await asyncio.sleep(0.01)

        shouting = asyncio.create_task(shout())
        await until(lambda: (TOPIC, body) in heard.messages)
        shouting.cancel()

    def told() -> bool:
        # A tracker that receives the later subscription has lost the one given up before it.
        scripted.publish(b"another", b"x")
        if heard.messages:
            scripted.publish(TOPIC, b"x")
        return len(heard.messages) > 3

    link.subscribe(TOPIC)
    await hears(b"first")
    scripted.stop()
    await until(lambda: not link.connected)
    scripted.start()
    await until(lambda: link.connected)
    await hears(b"second")
    link.unsubscribe(TOPIC)
    link.subscribe(b"another")
    heard.messages.clear()
    await until(told)
    assert {topic for topic, _ in heard.messages} == {b"another"}


async def test_malformed_messages_are_ignored(
    scripted: Scripted, link: TrackerLink, heard: RecordingListener
) -> None:
    link.subscribe(TOPIC)
    for frames in ([TOPIC], [TOPIC, b"MT\x09", b"x"], [TOPIC, SIGNATURE, b"x", b"y"]):
        scripted.publisher.send(frames)
    scripted.answer = lambda command: None
    asked = asyncio.create_task(link.request(tracker.Depart(), tracker.Done))
    await until(lambda: scripted.heard)
    await turns()
    assert heard.messages == []
    assert not asked.done()
    asked.cancel()


async def test_the_trackers_are_tried_in_turn(scripted: Scripted, heard: RecordingListener) -> None:
    away = Tracker("tcp://127.0.0.1:9", new_pair().public)
    async with link_to(heard, away, scripted.where) as link:
        await connect(link)
        assert link.where == scripted.where


async def test_a_server_with_another_key_is_not_used(
    scripted: Scripted, idle_link: TrackerLink, heard: RecordingListener
) -> None:
    idle_link._selector = TrackerSelector([Tracker(scripted.where.endpoint, new_pair().public)])
    idle_link.start()
    with pytest.raises(TransportError, match="key"):
        await idle_link.request(tracker.Depart(), tracker.Done)
    assert scripted.heard == []
    assert heard.ups == 0


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.limits.RECONNECT_IVL_MS", 20)
    monkeypatch.setattr("common.limits.RECONNECT_IVL_MAX_MS", 20)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("told", ["nonsense", "tcp://*:0", "tcp://[::::]:1"])
async def test_a_tracker_that_publishes_nowhere_is_tried_again(
    scripted: Scripted, idle_link: TrackerLink, told: str
) -> None:
    scripted.told_events = told
    idle_link.start()
    await until(lambda: scripted.hellos > 2, "another attempt")
    assert not idle_link.connected
    with pytest.raises(TransportError, match="where it publishes"):
        await idle_link.request(tracker.Depart(), tracker.Done)
    scripted.told_events = None
    await until(lambda: idle_link.connected, "the link")


@pytest.mark.usefixtures("impatient")
async def test_beside_a_tracker_that_publishes_nowhere_the_others_are_tried() -> None:
    bad, good, heard = Scripted(), Scripted(), RecordingListener()
    bad.told_events = "nonsense"
    context: zmq.Context[Any] = zmq.Context()
    link = TrackerLink(context, new_pair(), [bad.where, good.where], heard)
    try:
        link.start()
        await until(lambda: link.connected, "the link")
        assert (bad.hellos, link.where) == (1, good.where)
    finally:
        await link.close()
        context.destroy(linger=0)
        bad.stop()
        good.stop()


@pytest.mark.usefixtures("impatient")
async def test_the_tracker_that_knows_our_user_is_tried_first(tmp_path: Path) -> None:
    async def met(*where: Tracker) -> Tracker:
        context: zmq.Context[Any] = zmq.Context()
        rng = random.Random(1)
        link = TrackerLink(
            context, new_pair(), where, RecordingListener(), rng=rng, memory=tmp_path / "tracker"
        )
        try:
            link.start()
            await until(lambda: link.connected, "the link")
            link.pin()
            return link.where
        finally:
            await link.close()
            context.destroy(linger=0)

    one, other = Scripted(), Scripted()
    assert await met(other.where) == other.where
    assert await met(one.where, other.where) == other.where
    other.stop()
    assert await met(other.where, one.where) == one.where
    one.stop()


@pytest.mark.usefixtures("impatient")
async def test_another_tracker_does_not_log_our_user_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.limits.BEACON_S", 0.05)
    monkeypatch.setattr("peer.tracker_client.link.REVIEW_S", 0.05)
    home, other, heard = Scripted(), Scripted(), RecordingListener()
    context: zmq.Context[Any] = zmq.Context()
    link = TrackerLink(
        context,
        new_pair(),
        [other.where, home.where],
        heard,
        logged_in=lambda: heard.logged_in,
    )
    other.stop()
    try:
        link.start()
        await until(lambda: link.connected, "the link")
        link.pin()
        heard.logged_in = True
        other.start()
        home.stop()
        await until(lambda: other.hellos, "a look at the other")
        assert (link.connected, link.where) == (False, home.where)
        assert heard.ups == 1
        # A user who wants to log in takes any.
        link.allow_any()
        await until(lambda: link.connected, "the link to the other")
        assert link.where == other.where
        # No login came there, so we use the preferred one again as soon as it is back.
        heard.logged_in = False
        home.start()
        await until(lambda: link.connected and link.where == home.where, "the way home")
    finally:
        await link.close()
        context.destroy(linger=0)
        home.stop()
        other.stop()


@pytest.mark.usefixtures("impatient")
async def test_an_exception_in_a_listener_does_not_end_the_link(
    idle_link: TrackerLink, heard: RecordingListener, caplog: pytest.LogCaptureFixture
) -> None:
    heard.defects = 3
    idle_link.start()
    await until(lambda: heard.ups == 4, "the fourth attempt")
    await until(lambda: idle_link.connected)
    assert heard.downs == 3
    assert await idle_link.request(tracker.Depart(), tracker.Done) == tracker.Done()

    # Said once, with what a mend needs.
    ours = [record for record in caplog.records if record.name == "peer.tracker_client.link"]
    (error,) = [record for record in ours if record.levelname == "ERROR"]
    assert error.exc_info is not None


@pytest.mark.usefixtures("impatient")
async def test_requests_that_gave_up_do_not_end_the_current_attempt(
    monkeypatch: pytest.MonkeyPatch, scripted: Scripted, link: TrackerLink
) -> None:
    monkeypatch.setattr(tracker_client_link, "LOST_GRACE_S", 3_600.0)
    scripted.answer = lambda command: None
    asked = asyncio.create_task(link.request(tracker.CreateGroup("films"), tracker.Done))
    await until(lambda: scripted.heard)
    loop = asyncio.get_running_loop()
    grace: list[Callable[[], None]] = []
    later = loop.call_later

    def call_later(delay_s: float, what: Callable[..., Any], *args: Any, **more: Any) -> Any:
        if delay_s == tracker_client_link.LOST_GRACE_S:
            grace.append(lambda: what(*args))
        return later(delay_s, what, *args, **more)

    monkeypatch.setattr(loop, "call_later", call_later)
    scripted.stop()
    scripted.answers_hello = False
    hellos = scripted.hellos
    scripted.start()
    await until(lambda: scripted.hellos > hellos, "the next attempt")
    assert len(link._requests.pending()) == 2  # who asked, and the attempt
    (give_up,) = grace
    give_up()
    with pytest.raises(TransportError):
        await asked
    (hello,) = link._requests.pending()
    assert not hello.future.done()


# -- several trackers with one key ---------------------------------------------------------------


@asynccontextmanager
async def with_two(
    heard: RecordingListener, *silent: str
) -> AsyncIterator[tuple[TrackerLink, Scripted, Scripted]]:
    """The link, the tracker that it uses, and another one with its key."""
    one = Scripted()
    two = Scripted(one.pair)
    where = [*(Tracker(endpoint, one.pair.public) for endpoint in silent), one.where, two.where]
    try:
        async with link_to(heard, *where) as link:
            await connect(link)
            used, other = (one, two) if link.where == one.where else (two, one)
            yield link, used, other
    finally:
        one.stop()
        two.stop()


async def test_f145_a_command_of_a_tracker_that_dies_is_asked_of_another_under_its_id(
    heard: RecordingListener,
) -> None:
    async with with_two(heard) as (link, used, other):
        used.answer = lambda command: None
        asked = asyncio.create_task(link.request(tracker.CreateGroup("films"), tracker.Done))
        await until(lambda: used.heard)
        used.stop()
        assert await asked == tracker.Done()
        assert used.heard == other.heard
        assert (link.where, heard.ups, heard.downs) == (other.where, 2, 1)
        # It is not left for the first one, which is back.
        hellos = used.hellos
        used.start()
        other.beat()
        await turns()
        assert (link.where, link.connected, used.hellos) == (other.where, True, hellos)


async def test_f145_a_silent_address_among_several_delays_the_others_only_briefly(
    monkeypatch: pytest.MonkeyPatch, heard: RecordingListener
) -> None:
    # A round that waited for the silent ones would take longer than the test.
    monkeypatch.setattr(tracker_client_link, "CONNECT_TIMEOUT_S", 60.0)
    silent = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    where = [f"tcp://127.0.0.1:{each.getsockname()[1]}" for each in silent]
    async with with_two(heard, *where) as (link, used, other):
        assert len(link.known.endpoints) == 6
        used.stop()
        await until(lambda: link.connected and link.where == other.where, "the other one")

    for each in silent:
        each.close()


@pytest.mark.usefixtures("impatient")
async def test_f146_a_tracker_without_its_database_is_left_for_another_once(
    heard: RecordingListener,
) -> None:
    async with with_two(heard) as (link, used, other):

        def both_cut_off() -> bool:
            used.beat(cut_off=True)
            other.beat(cut_off=True)
            return link.connected and link.where == other.where

        await until(both_cut_off, "the other one")
        for _ in range(5):  # where it is no better, the peer stays
            both_cut_off()
            await turns()
        assert (heard.ups, link.where) == (2, other.where)
        link._selector._moved_at -= MOVE_AGAIN_S
        await until(lambda: both_cut_off() or link.where == used.where)


async def test_h155_addresses_that_a_tracker_names_are_checked(
    scripted: Scripted, link: TrackerLink, heard: RecordingListener
) -> None:
    port = scripted.where.endpoint.rpartition(":")[2]
    good = [f"tcp://127.0.0.7:{port}", "tcp://192.0.2.9:5000"]
    scripted.trackers = [
        *good,
        "ipc:///run/other.sock",
        "tcp://name.example:5000",
        "tcp://0.0.0.0:5000",
        "tcp://192.0.2.9:0",
        "nonsense",
        scripted.where.endpoint,
    ]
    link.reconnect()
    await until(lambda: heard.ups == 2, "the link again")
    assert set(link.known.endpoints) == {scripted.where.endpoint, *good}


def test_h155_a_tracker_elsewhere_leads_to_no_socket_of_this_machine() -> None:
    named = ["tcp://127.0.0.1:5000", "tcp://[::1]:5000", "tcp://192.0.2.9:5000"]
    welcome = tracker.Welcome(
        b"t" * 16, [b"k" * 32], "tcp://*:1", 1, None, b"i" * 16, b"n" * 32, trackers=named
    )
    assert tracker_addresses(welcome, "tcp://192.0.2.1:5000") == named[2:]
    assert tracker_addresses(welcome, "tcp://127.0.0.1:5000") == named
