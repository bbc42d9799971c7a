"""Before any message: handshakes that are refused, and connections that take too much."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from common import limits
from common.ids import DeviceKey
from common.messages import peer, tracker
from common.net import codec
from peer.serving.clients import CLIENTS_MAX, CLIENTS_PER_DEVICE_MAX, ClientTable
from peer.swarm.serving.events import RequesterId
from tests.support import zmtp
from tests.support.attackers import AttackSwarm
from tests.support.tracker_process import Device, running
from tests.support.waiting import wait_for

HELLO = [codec.SIGNATURE, b"1", codec.encode(tracker.Hello())]
HALF_OPEN = 1_000
MIB = 1 << 20


class Door:
    """A port that is attacked: where, by which key it proves itself, and whose process it is."""

    def __init__(self, endpoint: str, key: bytes, pid: int) -> None:
        self.endpoint, self.key, self.pid = endpoint, key, pid

    def curve(self, **options: object) -> zmtp.Curve:
        return zmtp.Curve(self.endpoint, self.key, **options)  # type: ignore[arg-type]

    def knock(self) -> zmtp.Curve | zmtp.Plain:
        """A connection of an unknown device, which shakes hands by hand."""
        return self.curve()

    def memory(self) -> int:
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def commands_of(arena: AttackSwarm) -> Door:
    return Door(arena.at.endpoint, arena.at.key, arena.swarm.tracker.process.pid)


def events_of(arena: AttackSwarm) -> Door:
    port = arena.stranger().request(tracker.Hello()).events.rpartition(":")[2]
    commands = commands_of(arena)
    return Door(f"tcp://127.0.0.1:{port}", commands.key, commands.pid)


def pieces_of(arena: AttackSwarm) -> Door:
    return Door(arena.endpoint, arena.key, arena.alice.pid)


class BulkDoor(Door):
    """Endpoint that admits by a one-time token; a peer names it to its requesters."""

    def __init__(self, arena: AttackSwarm) -> None:
        host = arena.endpoint.rpartition(":")[0]
        port = arena.alice.bulk_port()
        if port is None:
            pytest.skip("this processor has no instructions for AES")
        super().__init__(f"{host}:{port}", arena.key, arena.alice.pid)

    def knock(self) -> zmtp.Plain:
        return zmtp.Plain(self.endpoint, os.urandom(32).hex().encode())

    def let_in(self, arena: AttackSwarm) -> tuple[zmtp.Plain, peer.Bulk]:
        """A connection that a member was told the word of, before its proof."""
        group = arena.group()
        shared = arena.shared(group)
        member = arena.member(group)
        fetcher, content = arena.fetcher(member), shared.content(member)
        fetcher.say(peer.Open(1, group, content, arena.ticket(member, group), True))
        assert isinstance(fetcher.receive(), peer.Opened)
        offer = fetcher.receive()
        assert isinstance(offer, peer.Bulk)
        return zmtp.Plain(self.endpoint, offer.word.hex().encode()).shake(), offer


@pytest.fixture(
    params=[commands_of, events_of, pieces_of, BulkDoor],
    ids=["commands", "events", "pieces", "bulk"],
)
def door(request: pytest.FixtureRequest, arena: AttackSwarm) -> Door:
    """Each port that there is."""
    made: Door = request.param(arena)
    return made


def still_serves(arena: AttackSwarm) -> None:
    """Everybody is served: commands by the tracker, and whatever Alice asks of her peer."""
    assert isinstance(arena.stranger().request(tracker.Hello()), tracker.Welcome)
    assert arena.alice.status()["connected"]


# -- handshakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", [b"NULL", b"PLAIN", b"GSSAPI", b"\xff" * 20])
def test_h01_no_other_mechanism_than_curve(door: Door, mechanism: bytes) -> None:
    with zmtp.connect(door.endpoint) as knocking:
        knocking.sendall(zmtp.greeting(mechanism))
        knocking.sendall(zmtp.frame(b"\x05READY" + zmtp.metadata([(b"Socket-Type", b"DEALER")]), 4))
        assert zmtp.closed_by_other(knocking)


def test_h01_where_a_word_lets_one_in_there_is_no_other_way(arena: AttackSwarm) -> None:
    door = BulkDoor(arena)
    for word in (b"", b"x", b"\0" * 64, b"f" * 64, b"f" * 255):
        with zmtp.Plain(door.endpoint, word) as knocking, pytest.raises(ConnectionError):
            knocking.shake()
    with door.curve() as curve, pytest.raises(ConnectionError):
        curve.shake()
    used, offer = door.let_in(arena)
    with used, pytest.raises(ConnectionError):
        zmtp.Plain(door.endpoint, offer.word.hex().encode()).shake()


def test_h01_refused_handshakes_are_counted(tmp_path: Path) -> None:
    with running(tmp_path / "home", "--bind", "tcp://127.0.0.1:0") as process:
        for _ in range(7):
            with zmtp.connect(process.at.endpoint) as knocking:
                knocking.sendall(zmtp.greeting(b"NULL"))
                assert zmtp.closed_by_other(knocking)
        device = Device(process.at)
        device.request(tracker.Hello())
        device.close()
        assert process.end() == 0
        wait_for(lambda: "link failed 7" in "".join(process.errors), "the count in the log")


def test_h02_a_serving_peer_answers_no_unknown_key(arena: AttackSwarm) -> None:
    with pytest.raises(ConnectionError):
        pieces_of(arena).curve().shake()


@pytest.mark.parametrize("stage", ["greeting", "hello", "initiate"])
def test_h03_a_frame_of_a_gibibyte_in_the_handshake(door: Door, stage: str) -> None:
    def attack() -> None:
        with door.knock() as knocking:
            if stage != "greeting":
                knocking.greet()
            if stage == "initiate":
                knocking.hello()
            head = zmtp.greeting(b"CURVE") if stage == "greeting" else b""
            knocking.socket.sendall(head + zmtp.frame(b"", zmtp.COMMAND, claimed=1 << 30))
            with pytest.raises(OSError, match=r"reset|Broken pipe"):
                for _ in range(1024):
                    knocking.socket.sendall(bytes(MIB))

    attack()  # what is loaded by the first of all is no growth
    before = door.memory()
    attack()
    assert door.memory() - before < MIB


def test_h04_half_open_connections_are_closed_and_members_served(
    arena: AttackSwarm, door: Door
) -> None:
    assert limits.HANDSHAKE_IVL_MS < 5_000
    still_serves(arena)  # the connections of members are open before the count, as they are behind
    before = door.descriptors()
    half_open: list[socket.socket] = []
    try:
        for number in range(HALF_OPEN):
            knocking = door.knock()
            half_open.append(knocking.socket)
            if number % 3 == 1:
                knocking.greet()
            if number % 30 == 2:
                knocking.greet()
                knocking.hello()
            if number % 200 == 0:
                still_serves(arena)
        assert all(zmtp.closed_by_other(each) for each in half_open)
        wait_for(door.descriptors, "fewer descriptors", until=lambda now: now <= before + 10)
    finally:
        for each in half_open:
            each.close()
    still_serves(arena)


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: tracker\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2,
        b"\x01\x00" + b"\x05\x00hello",  # ZMTP 1: an anonymous peer and a message
        b"\xff" + bytes(8) + b"\x7f\x01\x05",  # ZMTP 2
        b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"\0" * 20 + b"\x07" * 32,
        bytes(1000),
        b"\xff" * 1000,
        os.urandom(1000),
    ],
    ids=["http", "tls", "zmtp1", "zmtp2", "bad greeting", "zeros", "ones", "random"],
)
def test_h05_bytes_that_are_not_zmtp_are_dropped(
    arena: AttackSwarm, door: Door, said: bytes
) -> None:
    with zmtp.connect(door.endpoint) as knocking:
        knocking.sendall(said)
        assert zmtp.closed_by_other(knocking)
    still_serves(arena)


def test_h05_a_handshake_out_of_order(arena: AttackSwarm, door: Door) -> None:
    for said in (
        zmtp.frame(b"\x07MESSAGE" + bytes(64)),
        zmtp.frame(b"\x08INITIATE" + bytes(300), zmtp.COMMAND),
        zmtp.frame(b"\x05HELLO" + bytes(194), zmtp.COMMAND),
        zmtp.frame(b"\x05HELLO", zmtp.COMMAND),
        zmtp.frame(b"\x05ERROR\xff", zmtp.COMMAND),
        zmtp.frame(b"\xffHELLO", zmtp.COMMAND),
        zmtp.frame(b"", zmtp.COMMAND),
    ):
        with door.knock() as knocking:
            knocking.greet()
            knocking.socket.sendall(said)
            assert knocking.is_closed(), said[:20]
    still_serves(arena)


_HEAD = """
import sys
from common.net import zap
zap.self_check.__defaults__ = (0.5,)
"""
BROKEN = {
    "no handler": "zap.ENDPOINT = 'inproc://not-the-handler'",
    "a handler that admits every connection": (
        "zap.ZapHandler._decide = lambda self, *a: (zap.Admission.ADMIT, bytes(a[3][0]))"
    ),
    "a handler that admits no connection": (
        "zap.ZapHandler._decide = lambda self, *a: (zap.Admission.RETRY, b'')"
    ),
    "a handler that is dumb": "zap.ZapHandler._on_request = lambda self, frames: None",
    "a domain that is not enforced": (
        "from common.net import sockets; import zmq; made = zap.make_socket\n"
        "def careless(context, kind, role, **options):\n"
        "    if not isinstance(role, sockets.Serve): return made(context, kind, role, **options)\n"
        "    socket = context.socket(kind); socket.curve_server = True\n"
        "    socket.curve_secretkey = role.pair.secret_z85\n"
        "    return socket\n"
        "zap.make_socket = careless"
    ),
}
STARTS = {
    "tracker": "from tracker import cli; sys.argv[1:] = ['run', '--home', HOME, '--bind', "
    "'tcp://127.0.0.1:0']; cli.main()",
    "peer": "from peer import cli; sys.argv[1:] = ['--home', HOME, 'up', '--foreground', "
    "'--tracker', LINK]; cli.main()",
}


UNFIT = {
    "an old libzmq": ("import zmq; zmq.zmq_version_info = lambda: (4, 3, 4)", "4.3.4 is too old"),
    "a libzmq without CURVE": (
        "import zmq; has = zmq.has; zmq.has = lambda what: what != 'curve' and has(what)",
        "cannot encrypt",
    ),
}


def test_h06_nothing_starts_without_a_zap_handler_that_works(
    arena: AttackSwarm, tmp_path: Path
) -> None:
    refused_at_start(arena, tmp_path, {name: (how, "self-check") for name, how in BROKEN.items()})


def test_nothing_starts_on_a_library_that_is_not_fit(arena: AttackSwarm, tmp_path: Path) -> None:
    refused_at_start(arena, tmp_path, UNFIT)


def refused_at_start(arena: AttackSwarm, tmp_path: Path, cases: dict[str, tuple[str, str]]) -> None:
    """Start both processes in each of the cases: what is done to them, and their complaint."""
    started = {}
    for process, start in STARTS.items():
        for name, (broken, complaint) in cases.items():
            home = tmp_path / f"h{len(started)}"
            facts = f"HOME = {str(home)!r}; LINK = {arena.at.link!r}"
            script = "\n".join([_HEAD, broken, facts, start])
            started[process, name, complaint] = subprocess.Popen(
                [sys.executable, "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
    try:
        for case, one in started.items():
            said, complained = one.communicate(timeout=60)
            assert one.returncode not in (0, None), case
            assert case[-1] in complained, case
            assert "ready" not in said, case
    finally:
        for one in started.values():
            one.kill()
            one.communicate()


# -- who one is ---------------------------------------------------------------------------------


def test_h07_a_user_id_of_ones_own_writing_is_ignored(arena: AttackSwarm) -> None:
    victim = arena.device("victim")
    claims = [
        (name, value)
        for name in (b"User-Id", b"user-id", b"Peer-Address")
        for value in (victim.key.hex().encode(), victim.key, b"127.0.0.9")
    ]
    with commands_of(arena).curve(properties=claims) as eve:
        eve.shake().send(HELLO)
        welcome = codec.Decoder(tracker.Reply).unpack(eve.receive()).body
        assert isinstance(welcome, tracker.Welcome)
        assert welcome.user is None
        assert welcome.inbox != victim.request(tracker.Hello()).inbox


def test_h07_nor_at_a_serving_peer(arena: AttackSwarm) -> None:
    group = arena.group()
    shared = arena.shared(group)
    victim, mallory = arena.member(group), arena.member(group, "mallory")
    content, stolen = shared.content(victim), arena.ticket(victim, group)
    claims = [(b"User-Id", victim.key.hex().encode())]
    arena.fetcher(mallory).open(group, content, arena.ticket(mallory, group))  # let in
    with pieces_of(arena).curve(pair=mallory.pair, properties=claims) as curve:
        curve.shake().send(
            [codec.SIGNATURE, b"", codec.encode(peer.Open(1, group, content, stolen))]
        )
        answer = codec.Decoder(peer.Answer).unpack(curve.receive()).body
        assert isinstance(answer, peer.Closed)
    with pytest.raises(ConnectionError):
        pieces_of(arena).curve(properties=claims).shake()


def test_h08_a_second_connection_under_a_name_in_use_hijacks_nothing(arena: AttackSwarm) -> None:
    group = arena.group()
    shared = arena.shared(group)
    victim, mallory = arena.member(group), arena.member(group, "mallory")
    content = shared.content(victim)
    tickets = {device: arena.ticket(device, group) for device in (victim, mallory)}
    for device in (victim, mallory):
        arena.fetcher(device).open(group, content, tickets[device])  # both are let in by now
    decoder: codec.Decoder[peer.Answer] = codec.Decoder(peer.Answer, data_frames=8)
    door, name = pieces_of(arena), b"\x01" + os.urandom(16)

    def say(curve: zmtp.Curve, command: peer.ClientMessage) -> None:
        curve.send([codec.SIGNATURE, b"", codec.encode(command)])

    with door.curve(pair=victim.pair, identity=name) as first:
        say(first.shake(), peer.Open(1, group, content, tickets[victim]))
        assert isinstance(decoder.unpack(first.receive()).body, peer.Opened)
        with door.curve(pair=mallory.pair, identity=name) as second:
            second.shake()
            say(second, peer.Close(1))
            say(second, peer.Open(1, group, content, tickets[mallory]))
            say(second, peer.Request(1, [0], 0))
            received = 0
            for index in range(8):
                say(first, peer.Request(1, [index], received))
                answer = decoder.unpack(first.receive())
                assert answer.body == peer.Piece(1, index)
                received += len(answer.data or b"")
            second.socket.settimeout(0.5)
            with pytest.raises((TimeoutError, ConnectionError)):
                second.receive()
    # The name is free, and another user's now: the channels of the first one are not theirs.
    with door.curve(pair=mallory.pair, identity=name) as third:
        say(third.shake(), peer.Request(1, [0], 0))
        third.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            third.receive()


def test_h08_a_name_that_can_be_guessed_is_not_listened_to(arena: AttackSwarm) -> None:
    group = arena.group()
    mallory = arena.member(group)
    arena.shared(group)
    arena.fetcher(mallory).open(group, bytes(32), arena.ticket(mallory, group))
    for name in (b"", b"\x01" * 16, b"\x01" * 18, b"x" * 255):
        with pieces_of(arena).curve(pair=mallory.pair, identity=name) as curve:
            curve.shake().send([codec.SIGNATURE, b"", codec.encode(peer.Credit(0))])
            curve.send([codec.SIGNATURE, b"", b"nonsense"])
            curve.socket.settimeout(0.3)
            with pytest.raises((TimeoutError, ConnectionError)):
                curve.receive()


# -- what a connection may take -----------------------------------------------------------------


def insider(arena: AttackSwarm, door: Door) -> zmtp.Curve:
    """A connection that is let in: at a serving peer that needs a member."""
    if door.endpoint != arena.endpoint:
        kind = b"DEALER" if door.endpoint == arena.at.endpoint else b"SUB"
        return door.curve(kind=kind).shake()
    group = arena.group()
    arena.shared(group)
    member = arena.member(group)
    arena.fetcher(member).open(group, bytes(32), arena.ticket(member, group))
    return door.curve(pair=member.pair).shake()


@pytest.mark.parametrize("which", [commands_of, pieces_of], ids=["commands", "pieces"])
def test_h09_a_message_of_a_hundred_thousand_frames(arena: AttackSwarm, which: object) -> None:
    door: Door = which(arena)  # type: ignore[operator]
    with insider(arena, door) as curve:
        curve.send([b"x"] * 100_000)
        before = door.memory()
        for _ in range(3):
            curve.send([b"x"] * 100_000)
        curve.send(HELLO)
        for _ in range(4):
            assert b"malformed" in curve.receive()[-1]
        curve.receive()
        assert door.memory() - before < 32 * MIB
    still_serves(arena)


@pytest.mark.parametrize("which", [commands_of, pieces_of], ids=["commands", "pieces"])
def test_h09_a_message_without_end_is_cut(arena: AttackSwarm, which: object) -> None:
    door: Door = which(arena)  # type: ignore[operator]
    before, sent = door.memory(), 0
    with insider(arena, door) as curve:
        body = bytes(limits.COMMAND_BYTES_MAX - 1024)
        # Who is cut while the other side's window is full hears of it by silence alone.
        with pytest.raises(OSError, match=r"reset|Broken pipe|timed out"):
            while sent < 4096 * MIB:
                curve.socket.sendall(curve.sealed(body, more=True))
                sent += len(body)
    assert door.memory() - before < sent + 32 * MIB < 1024 * MIB
    still_serves(arena)


def test_h09_a_client_of_a_bulk_port_sends_no_more_than_its_bound(arena: AttackSwarm) -> None:
    """Neither frames without end nor long ones; and what is no proof is none."""
    door = BulkDoor(arena)
    before, sent = door.memory(), 0
    plain, _ = door.let_in(arena)
    with plain, pytest.raises(OSError, match=r"reset|Broken pipe|timed out"):
        body = zmtp.frame(bytes(limits.TOKEN_BYTES_MAX - 64), zmtp.MORE) * 64
        while sent < 1024 * MIB:
            plain.socket.sendall(body)
            sent += len(body)
    # Small frames take more memory than they have bytes.
    assert door.memory() - before < 2 * sent + 32 * MIB < 1024 * MIB
    plain, _ = door.let_in(arena)
    with plain:
        plain.send([b"x"] * 10_000)
        plain.send([codec.SIGNATURE, bytes(16)])
        plain.send([b"x" * (limits.TOKEN_BYTES_MAX + 1)])
        assert plain.is_closed()
    still_serves(arena)


def test_h09_a_frame_beyond_the_limit_ends_the_connection(arena: AttackSwarm) -> None:
    for which in (commands_of, pieces_of):
        with insider(arena, which(arena)) as curve:
            curve.send([codec.SIGNATURE, b"1", bytes(limits.COMMAND_BYTES_MAX)])
            assert curve.is_closed()


def test_h13_subscriptions_without_end_are_cut(own_arena: AttackSwarm) -> None:
    door = events_of(own_arena)
    listener = own_arena.device()
    listener.subscribe()
    before, sent = door.memory(), 0
    for _ in range(4):
        with insider(own_arena, door) as curve, pytest.raises(OSError, match=r"reset|Broken pipe"):
            while sent < 1024 * MIB:
                topic = os.urandom(16) + bytes(limits.SUBSCRIBER_BYTES_MAX - 128)
                curve.socket.sendall(curve.sealed(b"\x01" + topic))
                sent += len(topic)
    assert door.memory() - before < 512 * MIB
    listener.next_event(lambda _: True)
    still_serves(own_arena)


def test_h13_a_million_short_subscriptions(own_arena: AttackSwarm) -> None:
    door = events_of(own_arena)
    before, said = door.memory(), 0
    with insider(own_arena, door) as curve, pytest.raises(OSError, match=r"reset|Broken pipe"):
        for said in range(1_000_000):  # noqa: B007 - told below
            curve.socket.sendall(curve.sealed(b"\x01" + os.urandom(16)))
    assert said < 200_000
    assert door.memory() - before < 128 * MIB
    still_serves(own_arena)


def test_h13_a_long_topic_ends_the_connection(arena: AttackSwarm) -> None:
    with insider(arena, events_of(arena)) as curve:
        curve.send([b"\x01" + bytes(limits.SUBSCRIBER_BYTES_MAX)])
        assert curve.is_closed()


# -- who is remembered --------------------------------------------------------------------------


def test_h27_one_device_does_not_take_the_places_of_others(arena: AttackSwarm) -> None:
    group = arena.group()
    shared = arena.shared(group)
    mallory, bob = arena.member(group, "mallory"), arena.member(group)
    content, ticket = shared.content(mallory), arena.ticket(mallory, group)
    flood = [arena.fetcher(mallory) for _ in range(CLIENTS_PER_DEVICE_MAX + 1)]
    for fetcher in flood:
        assert isinstance(fetcher.open(group, content, ticket), peer.Opened)
    assert flood[0].receive().code == "busy"  # the oldest made room for the newest
    honest = arena.fetcher(bob)
    assert isinstance(honest.open(group, content, arena.ticket(bob, group)), peer.Opened)
    for fetcher in flood:
        fetcher.socket.close(linger=0)


def test_h27_connections_that_ended_make_room() -> None:
    attackers = ClientTable()
    for number in range(3 * CLIENTS_MAX):
        device = DeviceKey((number // 4).to_bytes(32, "big"))
        client, *_ = attackers.add(RequesterId(number.to_bytes(17, "big")), device)
        assert attackers.get(client.id) is client
        assert len(attackers) <= CLIENTS_MAX
