"""Tickets: the device that one was made for gets pieces, no other, and only while it counts."""

from __future__ import annotations

import random

import nacl.signing
import pytest

from common import limits
from common.crypto import tickets
from common.errors import Refused
from common.ids import DeviceKey, GroupId, TrackerId
from common.messages import peer, tracker
from common.messages.refusals import Code
from tests.support.attackers import PIECE, AttackSwarm, Fetcher, Shared, user_of
from tests.support.data_paths import each_path
from tests.support.tracker_process import Device
from tests.support.waiting import wait_for


class Scene:
    """A group of Alice's with a file in it, a member with a ticket, and a connection."""

    def __init__(self, arena: AttackSwarm) -> None:
        self.arena = arena
        self.group = arena.group()
        self.shared: Shared = arena.shared(self.group)
        self.member: Device = arena.member(self.group, "mallory")
        self.content = self.shared.content(self.member)
        self.ticket = arena.ticket(self.member, self.group)

    def fetcher(self, device: Device | None = None) -> Fetcher:
        return self.arena.fetcher(device or self.member)

    def gets_a_piece(self, fetcher: Fetcher, ticket: bytes | None = None) -> None:
        """The control: by right, all of it works."""
        opened = fetcher.open(self.group, self.content, ticket or self.ticket)
        assert isinstance(opened, peer.Opened), opened
        fetcher.request(0)
        piece = fetcher.receive()
        assert isinstance(piece, peer.Piece), piece
        assert fetcher.data == self.shared.piece(0)


@pytest.fixture(scope="module")
def scene(arena: AttackSwarm) -> Scene:
    return Scene(arena)


def test_h02_an_unknown_key_gets_no_connection_to_a_serving_peer(scene: Scene) -> None:
    knocking = scene.fetcher(scene.arena.device("eve"))
    knocking.say(peer.Open(1, scene.group, scene.content, scene.ticket))
    scene.gets_a_piece(scene.fetcher())  # who came later was let in meanwhile
    assert knocking.hears_nothing()


def test_h16_a_stolen_ticket_on_the_connection_of_another_device(scene: Scene) -> None:
    thief = scene.arena.member(scene.group, "thief")
    fetcher = scene.fetcher(thief)
    assert fetcher.refused(scene.group, scene.content, scene.ticket) is Code.TICKET_INVALID
    fetcher.request(0)
    assert fetcher.hears_nothing()
    own = scene.arena.ticket(thief, scene.group)
    scene.gets_a_piece(fetcher, own)
    # The same once the thief has a right of their own: showing the stolen one changes nothing.
    fetcher.say(peer.Renew(scene.group, scene.ticket))
    fetcher.request(1)
    assert isinstance(fetcher.receive(), peer.Piece)


def _check(token: bytes, scene: Scene, welcome: tracker.Welcome) -> None:
    tickets.check(
        token,
        [nacl.signing.VerifyKey(key) for key in welcome.verify_keys],
        tracker_id=TrackerId(welcome.tracker_id),
        device=DeviceKey(scene.member.key),
        group=GroupId(scene.group),
        now_ms=welcome.time_ms,
    )


def test_h17_no_ticket_with_one_bit_turned_counts(scene: Scene) -> None:
    welcome = scene.member.request(tracker.Hello())
    _check(scene.ticket, scene, welcome)
    for bit in range(len(scene.ticket) * 8):
        token = bytearray(scene.ticket)
        token[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Refused) as refused:
            _check(bytes(token), scene, welcome)
        assert refused.value.code is Code.TICKET_INVALID, f"bit {bit}"


def test_h17_a_damaged_ticket_opens_nothing_over_the_wire(scene: Scene) -> None:
    rng = random.Random(17)
    ticket = scene.ticket
    turned = []
    for _ in range(40):
        token = bytearray(ticket)
        token[rng.randrange(len(token))] ^= 1 << rng.randrange(8)
        turned.append(bytes(token))
    others = [ticket[:-1], ticket[:64], ticket[:63], ticket[1:], ticket + b"\0", b"\0" * 1024]
    fetcher = scene.fetcher()
    for token in [*turned, *others]:
        assert fetcher.refused(scene.group, scene.content, token) is Code.TICKET_INVALID
    scene.gets_a_piece(fetcher)


def test_h18_a_ticket_for_one_group_gives_nothing_of_another(scene: Scene) -> None:
    arena, other = scene.arena, scene.arena.group()
    secret = arena.shared(other, pieces=3)
    insider = arena.member(other)
    content = secret.content(insider)
    fetcher = scene.fetcher()
    # Under the name of the group that the ticket is not for, and under that which it is for.
    assert fetcher.refused(other, content, scene.ticket) is Code.TICKET_INVALID
    absent = fetcher.open(scene.group, content, scene.ticket)
    assert absent.refusal.code is Code.UNKNOWN_SHARE
    # What is not there at all is refused in the same words.
    assert fetcher.open(scene.group, bytes(32), scene.ticket).refusal == absent.refusal
    opened = arena.fetcher(insider).open(other, content, arena.ticket(insider, other))
    assert isinstance(opened, peer.Opened)


def test_h19_expired_future_and_too_long_lived_tickets(scene: Scene) -> None:
    fetcher = scene.fetcher()
    life, skew = limits.TICKET_LIFE_S, limits.CLOCK_SKEW_S

    def code(issued_s: float, life_s: int = life) -> Code:
        forged = scene.arena.forged(scene.member, scene.group, issued_s=issued_s, life_s=life_s)
        refused: Code = fetcher.refused(scene.group, scene.content, forged)
        return refused

    assert code(-life - skew - 20) is Code.TICKET_EXPIRED
    assert code(-3600 * 24 * 365) is Code.TICKET_EXPIRED
    assert code(skew + 60) is Code.TICKET_INVALID
    assert code(0, life + 1) is Code.TICKET_INVALID
    assert code(0, 1 << 30) is Code.TICKET_INVALID
    scene.gets_a_piece(fetcher, scene.arena.forged(scene.member, scene.group))


def test_h20_a_ticket_of_another_tracker(scene: Scene) -> None:
    fetcher, arena = scene.fetcher(), scene.arena
    foreign = nacl.signing.SigningKey.generate()
    for forged in (
        arena.forged(scene.member, scene.group, key=foreign),
        arena.forged(scene.member, scene.group, tracker_id=bytes(16)),
    ):
        assert fetcher.refused(scene.group, scene.content, forged) is Code.TICKET_INVALID


@each_path
def test_h21_a_removed_member_is_refused_on_a_warm_connection(arena_on_path: AttackSwarm) -> None:
    arena = arena_on_path
    scene = Scene(arena)
    fetcher = scene.fetcher()
    scene.gets_a_piece(fetcher)
    arena.alice.ok("remove-member", scene.group, user_of(scene.member))

    def closed() -> object:
        fetcher.request(2)
        return fetcher.receive()

    # The serving peer hears of it from the tracker, and closes the channel without being asked.
    answer = wait_for(closed, "the end", until=lambda heard: isinstance(heard, peer.Closed))
    assert isinstance(answer, peer.Closed)
    assert answer.refusal.code is Code.REVOKED
    assert fetcher.refused(scene.group, scene.content, scene.ticket) is Code.REVOKED
    # A ticket that the tracker never gave, for the epoch before the removal, changes nothing.
    fresh = scene.fetcher()
    fresh.say(peer.Open(1, scene.group, scene.content, scene.ticket))
    other = scene.arena.member(scene.group)
    scene.member, scene.ticket = other, scene.arena.ticket(other, scene.group)
    scene.gets_a_piece(scene.fetcher())
    assert fresh.hears_nothing()  # the device is not even let in


def test_h43_a_forgotten_device_is_refused_on_a_warm_connection(arena: AttackSwarm) -> None:
    scene = Scene(arena)
    thief = scene.member
    owner = arena.stranger()
    owner.request(tracker.Login(user_of(thief), "a password"))
    other = arena.device()
    fetcher = scene.fetcher()
    scene.gets_a_piece(fetcher)
    # What another device of theirs may fetch is not touched by it.
    kept = scene.fetcher(owner)
    scene.gets_a_piece(kept, arena.ticket(owner, scene.group))
    assert other.refused(tracker.ForgetDevice(thief.key)) is Code.UNKNOWN_DEVICE
    owner.request(tracker.ForgetDevice(thief.key))

    def closed() -> object:
        fetcher.request(2)
        return fetcher.receive()

    answer = wait_for(closed, "the end", until=lambda heard: isinstance(heard, peer.Closed))
    assert isinstance(answer, peer.Closed)
    assert answer.refusal.code is Code.TICKET_INVALID
    assert fetcher.refused(scene.group, scene.content, scene.ticket) is Code.TICKET_INVALID
    for command in (tracker.GetTickets(), tracker.GetSources(scene.group, scene.content)):
        assert thief.refused(command) is Code.NOT_LOGGED_IN
    # A new connection of it is not even let in, while the other device goes on as before.
    fresh = scene.fetcher()
    fresh.say(peer.Open(1, scene.group, scene.content, scene.ticket))
    kept.request(1)
    assert isinstance(kept.receive(), peer.Piece)
    assert fresh.hears_nothing()


def test_h43_a_forgotten_device_that_logs_in_as_another_user(arena: AttackSwarm) -> None:
    """The ticket of before is not expired, and the device is a member's again."""
    scene = Scene(arena)
    thief, former = scene.member, user_of(scene.member)
    owner = arena.stranger()
    owner.request(tracker.Login(former, "a password"))
    owner.request(tracker.ForgetDevice(thief.key))
    thief.enter(arena.swarm.fresh("user"))
    club = arena.group()
    thief.request(tracker.JoinGroup(club))
    arena.alice.ok("accept-request", club, thief.request(tracker.Hello()).user)
    fetcher = scene.fetcher()
    assert fetcher.refused(scene.group, scene.content, scene.ticket) is Code.TICKET_INVALID


@pytest.mark.parametrize("index", [8, 1 << 20, (1 << 21) - 1])
def test_h26_an_index_that_there_is_not(scene: Scene, index: int) -> None:
    fetcher = scene.fetcher()
    scene.gets_a_piece(fetcher)
    fetcher.request(index)
    assert fetcher.receive() == peer.Declined(1, [index])
    fetcher.request(7)
    assert fetcher.receive() == peer.Piece(1, 7)
    assert len(fetcher.data) == PIECE


@pytest.mark.parametrize("index", [-1, 1 << 21, 1 << 53, (1 << 63) - 1, -(1 << 63)])
def test_h26_an_index_that_cannot_be(scene: Scene, index: int) -> None:
    fetcher = scene.fetcher()
    scene.gets_a_piece(fetcher)
    fetcher.request(index)
    assert fetcher.receive().code is Code.MALFORMED
