"""Messages that are malformed, or that mean harm in a well-formed way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from common import limits
from common.host.control_socket import find_endpoint
from common.messages import control, events, peer, tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.names import printable
from common.net import codec, sockets
from tests.support.attackers import AttackSwarm, refusal_of, user_of
from tests.support.paths import CORPUS
from tests.support.tracker_process import Device, running

ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\n2026-01-01 FATAL forged\u202e\x9b31m"
BODIES = [json.loads(line) for line in (CORPUS / "bodies.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def insider(arena: AttackSwarm) -> tuple[str, Device, bytes, bytes]:
    """A group of Alice's, a member, the id of what is shared there, and the member's ticket."""
    group = arena.group()
    shared = arena.shared(group)
    member = arena.member(group)
    return group, member, shared.content(member), arena.ticket(member, group)


# -- H14: what cannot be read -------------------------------------------------------------------


def test_h14_no_malformed_body_gets_more_than_an_error_from_a_tracker(arena: AttackSwarm) -> None:
    eve = arena.stranger()
    for row in BODIES:
        eve.socket.send_multipart([codec.SIGNATURE, b"12345678", bytes.fromhex(row["hex"])])
        assert refusal_of(eve.receive(b"12345678")) is Code.MALFORMED, row["why"]
    assert isinstance(eve.request(tracker.Hello()), tracker.Welcome)


def test_h14_nor_from_a_serving_peer(
    arena: AttackSwarm, insider: tuple[str, Device, bytes, bytes]
) -> None:
    group, member, content, ticket = insider
    fetcher = arena.fetcher(member)
    assert isinstance(fetcher.open(group, content, ticket), peer.Opened)
    for row in BODIES:
        fetcher.socket.send_multipart([codec.SIGNATURE, b"", bytes.fromhex(row["hex"])])
        assert refusal_of(fetcher.receive()) is Code.MALFORMED, row["why"]
    for frames in ([b""], [b"MT\x01"], [b"MT\x01", b"", b"", b""], [b"", b"", b""], [b"x"] * 15):
        fetcher.socket.send_multipart(frames)
        assert refusal_of(fetcher.receive()) is Code.MALFORMED
    fetcher.socket.send_multipart([b"MT\x09", b"", b"whatever"])
    assert refusal_of(fetcher.receive()) is Code.VERSION
    fetcher.request(0)
    assert isinstance(fetcher.receive(), peer.Piece)


def test_h14_nor_at_the_control_socket(arena: AttackSwarm) -> None:
    context: zmq.Context[Any] = zmq.Context()
    socket = sockets.make_socket(
        context,
        zmq.DEALER,
        sockets.Private(),
        message_bytes_max=limits.CONTROL_BYTES_MAX,
    )
    socket.connect(find_endpoint(arena.alice.home))
    try:
        for row in BODIES:
            socket.send_multipart([codec.SIGNATURE, b"1", bytes.fromhex(row["hex"])])
        socket.send_multipart([b"x"] * 50)
        socket.send_multipart(codec.pack(b"2", control.Status()))
        assert socket.poll(20_000)
        # Of all that, what is a command has been answered.
        assert codec.Decoder[control.Answer](control.Answer).unpack(socket.recv_multipart())
    finally:
        context.destroy(linger=0)
    assert arena.alice.status()["connected"]


def test_h14_a_published_message_that_no_key_opens_is_ignored() -> None:
    decoder: codec.Decoder[events.Published] = codec.Decoder(events.Published)
    for row in BODIES:
        with pytest.raises(codec.RemoteProtocolError):
            decoder.decode(bytes.fromhex(row["hex"]))


# -- H12, H15: what those learn who are no members ----------------------------------------------


def asked_of(group: str, content: bytes) -> Iterator[tracker.Command]:
    """All requests about a group that a device outside it can make."""
    yield tracker.LeaveGroup(group)
    yield tracker.ListRequests(group)
    yield tracker.ListMembers(group)
    yield tracker.AcceptRequest(group, "alice")
    yield tracker.RejectRequest(group, "alice")
    yield tracker.RemoveMember(group, "alice")
    yield tracker.Offer(group, "x", content)
    yield tracker.StopShare(group, "x")
    yield tracker.ListFiles(group)
    yield tracker.FindShare(group, "x")
    yield tracker.GetSources(group, content)
    yield tracker.GetManifest(group, content, 0)
    yield tracker.GetTickets([group])
    yield tracker.GetDevices(group)
    yield tracker.EventsSince(group, 0)


def test_h15_a_group_that_is_not_ones_own_and_none_at_all_answer_alike(
    arena: AttackSwarm, insider: tuple[str, Device, bytes, bytes]
) -> None:
    group, _, content, _ = insider
    outsider, former = arena.device("out"), arena.member(group, "former")
    arena.alice.ok("remove-member", group, user_of(former))
    nowhere = "x" * len(group)
    for asker in (outsider, former):
        for here, there in zip(asked_of(group, content), asked_of(nowhere, content), strict=True):
            answer, same = asker.try_(here), asker.try_(there)
            assert isinstance(answer, Refusal), f"{here}: {answer}"
            told = codec.encode(answer).replace(group.encode(), nowhere.encode())
            assert told == codec.encode(same), here  # the hint bears the name as well


def test_h12_a_subscriber_to_everything_learns_sizes_and_times_alone(
    arena: AttackSwarm, insider: tuple[str, Device, bytes, bytes]
) -> None:
    group, member, *_ = insider
    eve = arena.device("eve")
    other = arena.group()
    eve.request(tracker.JoinGroup(other))
    arena.alice.ok("accept-request", other, user_of(eve))
    eve.subscribe()
    eve.follow()
    shared = arena.shared(group)
    arena.alice.ok("stop-share", group, shared.name)
    member.announce()
    arena.shared(other)
    seen: list[list[bytes]] = []
    assert eve.sub is not None
    while True:  # until what happened in eve's own group, which is the last of all
        assert eve.sub.poll(20_000)
        frames = eve.sub.recv_multipart()
        seen.append(frames)
        if eve._open(*frames) is not None and frames[0] != events.BEAT_TOPIC:
            break
    secrets = [shared.name, group, user_of(member), "alice", "127.0.0.1"]
    raw = b"|".join(frame for frames in seen for frame in frames)
    for secret in secrets:
        assert secret.encode() not in raw
    sealed = [frames for frames in seen if frames[0] != events.BEAT_TOPIC]
    assert len(sealed) > 1  # something of the other group was heard, and did not open


# -- H42, H31: text in every field --------------------------------------------------------------

STATEMENTS = [
    "'; DROP TABLE accounts; --",
    '" OR ""="',
    "%' OR '1'='1",
    "x'); DELETE FROM offers WHERE ('1'='1",
    "\\'; VACUUM; --",
    "%",
    "_",
    "$1 ? :name {0} %s",
    "NULL",
    "\x00'",
]


def commands_with(text: str) -> Iterator[tracker.Command]:
    """Every command that has text in it, with this one wherever there is room for it."""
    an_id, token = text[:64], b"c" * 32
    yield tracker.Hello(an_id)
    yield tracker.CreateUser(an_id, "a password")
    yield tracker.Login(an_id, text)
    for kind in (
        tracker.CreateGroup,
        tracker.JoinGroup,
        tracker.LeaveGroup,
        tracker.ListFiles,
        tracker.ListMembers,
        tracker.ListRequests,
    ):
        yield kind(an_id)
    for kind in (tracker.AcceptRequest, tracker.RejectRequest, tracker.RemoveMember):
        yield kind(an_id, an_id)
    yield tracker.ListGroups(text)
    yield tracker.Offer(an_id, text, token)
    yield tracker.StopShare(an_id, text)
    yield tracker.FindShare(an_id, text)
    yield tracker.MyOffers(text)
    yield tracker.GetSources(an_id, token)
    yield tracker.GetDevices(an_id, text)
    yield tracker.EventsSince(an_id, 0)
    yield tracker.GetTickets([an_id] * 3)
    yield tracker.Announce(f"tcp://{text}:1", [tracker.Leeching(an_id, token, 1)])


def state_of(group: str, member: Device) -> tuple[Any, Any]:
    """The shares and members of a group; the devices that are online change by themselves."""
    members = member.request(tracker.ListMembers(group)).rows
    return member.request(tracker.ListFiles(group)), [
        msgspec.structs.replace(row, online=0) for row in members
    ]


@pytest.mark.parametrize("text", STATEMENTS)
def test_h42_statements_in_every_field_are_text(
    arena: AttackSwarm, insider: tuple[str, Device, bytes, bytes], text: str
) -> None:
    group, member, content, _ = insider
    before = state_of(group, member)
    for command in commands_with(text):
        reply = member.try_(command)
        assert not (isinstance(reply, Refusal) and reply.code is Code.INTERNAL), command
        assert not isinstance(reply, Refusal) or "sql" not in reply.message.lower()
    assert before == state_of(group, member)
    if not set(text) & set("\x00"):
        member.request(tracker.Offer(group, text, content))
        assert member.request(tracker.FindShare(group, text)).row.name == text
        member.request(tracker.StopShare(group, text))


def test_h28_a_share_with_a_bad_name_is_refused_and_the_name_quoted(
    insider: tuple[str, Device, bytes, bytes],
) -> None:
    group, member, content, _ = insider
    for line in (CORPUS / "bad_names.jsonl").read_text().splitlines():
        name = json.loads(line)["name"]
        try:
            reply = member.try_(tracker.Offer(group, name, content))
        except UnicodeEncodeError:
            continue  # a lone surrogate has no form on the wire
        assert isinstance(reply, Refusal), name
        assert reply.code in (Code.USAGE, Code.MALFORMED), reply
        assert printable(reply.message) == reply.message


def test_h31_words_of_strangers_reach_no_log_of_the_tracker(tmp_path: Path) -> None:
    with running(tmp_path / "home", "--bind", "tcp://127.0.0.1:0", "-vv") as process:
        eve = Device(process.at)
        eve.enter("eve")
        for text in (ESCAPES, "<script>", "[red]x[/red]"):
            for command in commands_with(text):
                eve.try_(command)
        eve.socket.send_multipart(
            [codec.SIGNATURE, b"1", codec.encode(tracker.Login("x", "y")) * 2]
        )
        eve.close()
        process.end()
    log = "".join(process.errors)
    for harmful in ("\x1b", "\x07", "\x9b", "\u202e", "\n2026-01-01 FATAL"):
        assert harmful not in log


def test_no_password_and_no_ticket_is_in_any_log(arena: AttackSwarm) -> None:
    group = arena.group()
    shared = arena.shared(group)
    member = arena.member(group)
    ticket = arena.ticket(member, group)
    fetcher = arena.fetcher(member)
    fetcher.open(group, shared.content(member), ticket)
    fetcher.refused(group, bytes(32), ticket[:-1])
    arena.alice.run("login", "alice", "a wrong password")
    logs = "".join(path.read_text() for path in arena.swarm.root.rglob("*.log"))
    assert logs
    for secret in (arena.alice.password, "a wrong password", "a password", ticket.hex()):
        assert secret not in logs


# -- H40: the control socket --------------------------------------------------------------------


def test_h40_another_local_user_cannot_open_the_control_socket(arena: AttackSwarm) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    home = arena.alice.home
    path = find_endpoint(home).removeprefix("ipc://")
    assert os.stat(home).st_mode & 0o777 == 0o700
    assert os.stat(path).st_mode & 0o777 == 0o600
    script = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for attempt in (lambda: socket.socket(socket.AF_UNIX).connect(sys.argv[1]),\n"
        "                lambda: os.listdir(sys.argv[2]),\n"
        "                lambda: open(sys.argv[2] + '/device.key')):\n"
        "    try: attempt()\n"
        "    except PermissionError: print('EACCES')\n"
        "    else: print('open')\n"
    )
    arena.swarm.root.chmod(0o755)  # what is above the home is not what protects it
    try:
        said = subprocess.run(
            [sys.executable, "-c", script, path, str(home)],
            capture_output=True,
            text=True,
            check=True,
            cwd="/",
        )
        assert said.stdout.split() == ["EACCES"] * 3
    finally:
        arena.swarm.root.chmod(0o700)


def test_h40_nor_if_the_home_were_open_to_all(arena: AttackSwarm, tmp_path: Path) -> None:
    for program, words in (("tracker", ["run"]), ("peer", ["up", "--tracker", arena.at.link])):
        home = tmp_path / program
        home.mkdir()
        home.chmod(0o755)
        options = ["--home", str(home)]
        ended = subprocess.run(
            [sys.executable, "-m", f"{program}.cli"]
            + ([*words, *options] if program == "tracker" else [*options, *words]),
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert ended.returncode == 2, ended
        assert "chmod 700" in ended.stderr


def test_secrets_are_kept_from_others(arena: AttackSwarm) -> None:
    for home in (arena.alice.home, arena.swarm.tracker.home):
        assert home.stat().st_mode & 0o777 == 0o700
        for path in home.rglob("*"):
            if path.is_file():
                assert path.stat().st_mode & 0o077 == 0, path
