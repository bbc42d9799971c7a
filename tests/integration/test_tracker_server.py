"""A real tracker as a process, spoken to over real sockets, on tcp and on ipc."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nacl.signing
import pytest

from common import limits, manifest
from common.crypto import event_seal, keys, tickets
from common.errors import RemoteProtocolError
from common.ids import DeviceKey, GroupId, TrackerId
from common.link import Tracker
from common.messages import events, tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.net import codec
from tests.support.paths import ROOT
from tests.support.tracker_process import (
    PATIENCE_S,
    Device,
    Devices,
    TrackerProcess,
    manifest_of,
    running,
)
from tests.support.waiting import wait_for

Maker = Callable[..., Device]


@pytest.fixture(scope="module", params=["tcp", "ipc"])
def tracker_at(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TrackerProcess]:
    """One tracker for all tests of this module that do it no harm; each uses names of its own."""
    place = tmp_path_factory.mktemp("t")
    bind = "tcp://127.0.0.1:0" if request.param == "tcp" else f"ipc://{place}/commands"
    with running(place / "home", "--bind", bind) as process:
        yield process


@pytest.fixture
def device(tracker_at: TrackerProcess) -> Iterator[Callable[[], Device]]:
    devices = Devices()
    yield lambda: devices(tracker_at.at)
    devices.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Makes names that no other test uses: they share a tracker."""
    suffix = abs(hash(request.node.nodeid)) % 10**8
    return lambda text: f"{text}-{suffix}"


def test_a_group_shares_a_file_and_hears_of_it(device: Maker, name: Callable[[str], str]) -> None:
    alice, bob, lab = device().enter(name("alice")), device().enter(name("bob")), name("lab")
    alice.request(tracker.CreateGroup(lab))
    alice.let_in(lab, bob, name("bob"))
    bob.subscribe()
    bob.follow()
    alice.announce("tcp://127.0.0.1:9001")
    body = b"z" * 100_000
    content = alice.share(lab, "x.bin", body)
    assert bob.next_entry(events.Shared).event.content == content
    found = bob.follow_share(lab, "x.bin")
    assert found.row.digest == manifest.decode(manifest_of(body), content).digest
    assert [source.endpoint for source in found.sources] == ["tcp://127.0.0.1:9001"]
    part = bob.request(tracker.GetManifest(lab, content))
    assert bob.data == manifest_of(body)
    assert part.total_bytes == len(manifest_of(body))
    alice.request(tracker.Depart())
    # An earlier update may tell that she came.
    update = bob.next_event(lambda event: isinstance(event, events.PeerUpdate) and event.down)
    assert update.down == [alice.key]


def test_a_stranger_learns_nothing_from_any_command(
    device: Maker, name: Callable[[str], str]
) -> None:
    alice, eve, lab = device().enter(name("alice")), device().enter(name("eve")), name("lab")
    alice.request(tracker.CreateGroup(lab))
    eve.subscribe()
    alice.share(lab, "secret.txt")
    answers = {
        text: [
            eve.try_(command)
            for command in (
                tracker.ListFiles(text),
                tracker.FindShare(text, "secret.txt"),
                tracker.GetDevices(text),
                tracker.EventsSince(text, 0),
                tracker.ListMembers(text),
            )
        ]
        for text in (lab, lab[::-1])
    }
    there = [answer.message.replace(lab, "") for answer in answers[lab]]
    nowhere = [answer.message.replace(lab[::-1], "") for answer in answers[lab[::-1]]]
    assert there == nowhere
    assert {answer.code for answer in answers[lab]} == {Code.UNKNOWN_GROUP}
    # Everything is published to everybody, but sealed: something came, and none of it opens.
    assert eve.sub is not None
    assert eve.sub.poll(PATIENCE_S * 1000)
    seen = b"".join(eve.sub.recv_multipart())
    for told in (b"secret.txt", lab.encode(), name("alice").encode()):
        assert told not in seen


def test_tickets_are_good_for_their_device_and_group(
    device: Maker, name: Callable[[str], str]
) -> None:
    alice = device().enter(name("alice"))
    for group in (name("one"), name("two")):
        alice.request(tracker.CreateGroup(group))
    welcome = alice.request(tracker.Hello())
    issued = alice.request(tracker.GetTickets())
    assert [row.group for row in issued.rows] == [name("one"), name("two")]
    verify = [nacl.signing.VerifyKey(key) for key in welcome.verify_keys]
    ticket = tickets.check(
        issued.rows[0].token,
        verify,
        tracker_id=TrackerId(welcome.tracker_id),
        device=DeviceKey(alice.key),
        group=GroupId(name("one")),
        now_ms=issued.time_ms,
    )
    assert (ticket.user, ticket.epoch) == (name("alice"), 1)


def test_a_removed_member_hears_of_it_and_of_nothing_later(
    device: Maker, name: Callable[[str], str]
) -> None:
    alice, bob, lab = device().enter(name("alice")), device().enter(name("bob")), name("lab")
    alice.request(tracker.CreateGroup(lab))
    alice.let_in(lab, bob, name("bob"))
    for each in (alice, bob):
        each.subscribe()
        each.follow()
    alice.request(tracker.RemoveMember(lab, name("bob")))
    for each in (alice, bob):
        assert each.next_entry(events.Removed).event == events.Removed(name("bob"), 3)
    bob.next_event(lambda event: isinstance(event, events.Nudge))
    assert bob.follow() == {}
    state = alice.follow()[lab]
    assert state.revoked == [(name("bob"), 3)]
    alice.share(lab, "later.txt")
    assert alice.next_entry(events.Shared).event.name == "later.txt"
    with pytest.raises(AssertionError, match="no such event"):
        bob.next_entry(events.Shared, timeout_s=0.5)


def test_h64_a_later_member_cannot_open_events_recorded_before(
    device: Maker, name: Callable[[str], str]
) -> None:
    alice, bob, lab = device().enter(name("alice")), device().enter(name("bob")), name("lab")
    alice.request(tracker.CreateGroup(lab))
    for each in (alice, bob):
        each.subscribe()
    topic = alice.follow()[lab].topic
    bob.request(tracker.JoinGroup(lab))
    alice.share(lab, "before.txt")
    alice.next_entry(events.Shared)
    assert bob.sub is not None
    recorded = []
    while bob.sub.poll(500):
        recorded.append(bob.sub.recv_multipart())
    assert any(frames[0] == topic for frames in recorded)
    alice.request(tracker.AcceptRequest(lab, name("bob")))
    keys = {state.epoch: state.key for state in bob.follow().values()}
    for frames in recorded:
        if frames[0] == topic:
            assert event_seal.epoch_of(frames[2]) not in keys
            for key in keys.values():
                with pytest.raises(RemoteProtocolError):
                    event_seal.unseal(key, topic, frames[2])
    # From here on both read on, and Alice without asking for the key.
    alice.share(lab, "after.txt", b"other")
    for each in (alice, bob):
        each.next_event(
            lambda event: (
                isinstance(event, events.LogEntry)
                and isinstance(event.event, events.Shared)
                and event.event.name == "after.txt"
            )
        )


def test_f18_doubled_commands_are_done_once(device: Maker, name: Callable[[str], str]) -> None:
    alice, lab = device(), name("lab")
    create = tracker.CreateUser(name("alice"), "a password")
    first = alice.send(create)
    alice.send(create, request_id=first)  # while it is still being hashed
    assert alice.receive(first) == tracker.Done()
    assert alice.try_(create, request_id=first) == tracker.Done()
    assert alice.refused(create) is Code.TAKEN
    alice.request(tracker.Login(name("alice"), "a password"))
    group = tracker.CreateGroup(lab)
    once = alice.send(group)
    alice.send(group, request_id=once)
    assert alice.receive(once) == tracker.Done()
    assert alice.try_(group, request_id=once) == tracker.Done()
    assert len(alice.request(tracker.EventsSince(lab, 0)).entries) == 1


def test_f18_whatever_order_the_manifest_comes_in_it_is_whole_or_not_there(
    device: Maker, name: Callable[[str], str]
) -> None:
    alice, lab = device().enter(name("alice")), name("lab")
    alice.request(tracker.CreateGroup(lab))
    encoded = manifest_of(bytes(200_000_000 // 1000) + name("x").encode() * 1000)
    encoded_id = manifest.manifest_id(encoded)
    half = len(encoded) // 2
    parts = {0: encoded[:half], half: encoded[half:]}
    put = {at: tracker.PutManifest(encoded_id, len(encoded), at) for at in parts}
    assert alice.refused(put[half], parts[half]) is Code.USAGE
    alice.request(put[0], parts[0])
    assert alice.refused(tracker.Offer(lab, "x", encoded_id)) is Code.NEED_MANIFEST
    alice.request(put[half], parts[half])
    alice.request(put[half], parts[half])
    alice.request(tracker.Offer(lab, "x", encoded_id))


def test_h33_a_manifest_that_is_not_what_its_id_says_is_refused(
    device: Maker, name: Callable[[str], str]
) -> None:
    alice, lab = device().enter(name("alice")), name("lab")
    alice.request(tracker.CreateGroup(lab))
    encoded = manifest_of(b"content")
    wrong = bytes(32)
    assert alice.refused(tracker.PutManifest(wrong, len(encoded), 0), encoded) is Code.CORRUPT
    assert alice.refused(tracker.Offer(lab, "x", wrong)) is Code.NEED_MANIFEST
    noise = b"\xff" * 100
    noise_id = manifest.manifest_id(noise)
    assert alice.refused(tracker.PutManifest(noise_id, 100, 0), noise) is Code.MALFORMED


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",  # an array of four thousand million items
        b"\x92\xa5Hello",
        b"\x91\xa5Hello" + b"trailing",
        b"\x92\xa5Hello\xa2\xff\xfe",  # not UTF-8
        b"\x92\xa5Hello\x07",
        b"\x92\xa7Nothing\x07",
        b"\x91" * 100_000,
        b"\x92\xa5Login\xc0",
        codec.encode(tracker.Login("a" * 65, "x")),
    ],
)
def test_h14_malformed_commands_are_answered_and_harm_nothing(device: Maker, body: bytes) -> None:
    eve = device()
    eve.socket.send_multipart([codec.SIGNATURE, b"12345678", body])
    reply = eve.receive(b"12345678")
    assert isinstance(reply, Refusal)
    assert reply.code is Code.MALFORMED
    assert isinstance(eve.request(tracker.Hello()), tracker.Welcome)


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"GET / HTTP/1.1\r\n\r\n"],
        [b"MT", b"1"],
        [codec.SIGNATURE, b"x" * 9, b"\x91\xa5Hello"],
        [codec.SIGNATURE, b"1", b"\x91\xa5Hello", b"", b""],
        [b"", b"", b"", b""],
    ],
)
def test_h14_frames_that_are_no_message_harm_nothing(device: Maker, frames: list[bytes]) -> None:
    eve = device()
    eve.socket.send_multipart(frames)
    assert isinstance(eve.request(tracker.Hello()), tracker.Welcome)


def test_another_version_is_refused_with_words(device: Maker) -> None:
    old = device()
    old.socket.send_multipart([b"MT\x09", b"12345678", b"whatever it says"])
    reply = old.receive(b"12345678")
    assert isinstance(reply, Refusal)
    assert reply.code is Code.VERSION
    assert "version 9" in reply.message


def test_a_flood_of_one_device_is_slowed_and_others_are_served(device: Maker) -> None:
    flood, other = device(), device()
    for _ in range(round(limits.COMMAND_BURST) + 300):
        flood.send(tracker.Hello())
    assert isinstance(other.request(tracker.Hello()), tracker.Welcome)
    codes = set()
    while flood.socket.poll(1000):
        envelope = flood._decoder.unpack(flood.socket.recv_multipart())
        if isinstance(envelope.body, Refusal):
            codes.add(envelope.body.code)
    assert codes == {Code.BUSY}


def test_h34_guessing_is_slowed_and_a_bound_device_unaffected(
    device: Maker, name: Callable[[str], str]
) -> None:
    alice, eve = device().enter(name("alice")), device()
    codes = [eve.refused(tracker.Login(name("alice"), f"guess {n}")) for n in range(8)]
    assert codes == [Code.WRONG_CREDENTIALS] * 5 + [Code.SLOW_DOWN] * 3
    assert device().refused(tracker.Login(name("alice"), "a password")) is Code.SLOW_DOWN
    assert alice.request(tracker.Hello()).user == name("alice")
    assert alice.request(tracker.Login(name("alice"), "a password")) == tracker.LoggedIn(
        name("alice")
    )


def test_h34_a_wrong_old_password_is_a_guess_like_any_other(
    device: Maker, name: Callable[[str], str]
) -> None:
    alice, phone = device().enter(name("alice")), device()
    phone.request(tracker.Login(name("alice"), "a password"))
    codes = [alice.refused(tracker.ChangePassword(f"guess {n}", "my own one")) for n in range(8)]
    assert codes == [Code.WRONG_CREDENTIALS] * 5 + [Code.SLOW_DOWN] * 3
    # Of all guesses of this device there are no more, whatever they are made with.
    assert alice.refused(tracker.ChangePassword("a password", "my own one")) is Code.SLOW_DOWN
    assert alice.refused(tracker.Login(name("alice"), "a password")) is Code.SLOW_DOWN
    # Guesses of others keep the user's own device from nothing, nor does a right password cost any.
    password = "a password"
    for number in range(7):
        asked = tracker.ChangePassword(password, password := f"another {number}", True)
        assert phone.request(asked) == tracker.PasswordChanged(0)
    assert alice.request(tracker.Hello()).user == name("alice")


def test_h43_a_forgotten_device_cannot_open_what_is_said_afterwards(
    device: Maker, name: Callable[[str], str]
) -> None:
    alice, thief = device().enter(name("alice")), device()
    thief.request(tracker.Login(name("alice"), "a password"))
    group = name("lab")
    alice.request(tracker.CreateGroup(group))
    for each in (alice, thief):
        each.subscribe()
        each.follow()
    alice.request(tracker.ForgetDevice(thief.key))
    # It hears of its own end, is nudged, and after that of nothing.
    assert thief.next_entry(events.Device).event == events.Device(name("alice"), thief.key, False)
    assert isinstance(thief.next_event(lambda event: isinstance(event, events.Nudge)), events.Nudge)
    assert alice.next_entry(events.Device).event.bound is False
    alice.follow()
    alice.share(group, "secret.bin")
    assert alice.next_entry(events.Shared).event.name == "secret.bin"
    assert thief.sub is not None
    sealed = alice.next_event(lambda event: isinstance(event, events.GroupHead))
    assert sealed.group == group
    told = []
    while thief.sub.poll(0):
        told.append(thief._open(*thief.sub.recv_multipart()))
    assert [event for event in told if not isinstance(event, events.Beat | None)] == []
    assert None in told  # something was said that it could not open
    for command in (tracker.Follow(), tracker.EventsSince(group, 0), tracker.ListDevices()):
        assert thief.refused(command) is Code.NOT_LOGGED_IN


def test_h44_devices_of_others_are_neither_seen_nor_logged_out(
    device: Maker, name: Callable[[str], str]
) -> None:
    alice, eve = device().enter(name("alice")), device().enter(name("eve"))
    alice.announce()
    foreign, absent = (eve.try_(tracker.ForgetDevice(key)) for key in (alice.key, bytes(32)))
    assert foreign == absent
    assert foreign.code is Code.UNKNOWN_DEVICE
    assert [row.device for row in eve.request(tracker.ListDevices()).rows] == [eve.key]
    assert [row.device for row in eve.request(tracker.ListDevices("00" * 40)).rows] == [eve.key]
    assert alice.request(tracker.Hello()).user == name("alice")


def test_a_doubled_change_of_a_password_is_done_once(
    device: Maker, name: Callable[[str], str]
) -> None:
    alice = device().enter(name("alice"))
    asked, request_id = tracker.ChangePassword("a password", "fresh one"), alice.next_id()
    assert alice.try_(asked, request_id=request_id) == tracker.PasswordChanged(0)
    assert alice.try_(asked, request_id=request_id) == tracker.Done()
    assert device().refused(tracker.Login(name("alice"), "a password")) is Code.WRONG_CREDENTIALS
    assert device().request(tracker.Login(name("alice"), "fresh one")) == tracker.LoggedIn(
        name("alice")
    )


def test_h35_an_unknown_user_and_a_wrong_password_get_the_same_answer(
    device: Maker, name: Callable[[str], str]
) -> None:
    device().enter(name("alice"))
    eve = device()
    wrong = eve.try_(tracker.Login(name("alice"), "wrong"))
    unknown = eve.try_(tracker.Login(name("nobody"), "wrong"))
    assert wrong == unknown
    assert wrong.code is Code.WRONG_CREDENTIALS


def test_h39_a_tracker_without_the_pinned_key_is_not_spoken_to(
    tracker_at: TrackerProcess,
) -> None:
    impostor = Tracker(tracker_at.at.endpoint, keys.new_pair().public)
    deceived = Device(impostor)
    deceived.send(tracker.Hello())
    assert not deceived.socket.poll(500)
    deceived.close()


# -- its life -----------------------------------------------------------------------------------


TCP = ("--bind", "tcp://127.0.0.1:0")


def test_quit_ends_it_and_the_end_of_its_input_does_not(tmp_path: Path) -> None:
    with running(tmp_path / "home", *TCP) as process:
        assert process.process.stdin is not None
        process.process.stdin.write("help\nquit\n")
        process.process.stdin.flush()
        assert process.process.wait(PATIENCE_S) == 0
    with running(tmp_path / "home", *TCP) as process:
        assert process.process.stdin is not None
        process.process.stdin.close()
        device = Device(process.at)
        assert isinstance(device.request(tracker.Hello()), tracker.Welcome)
        device.close()
        assert process.end() == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, "quit\n"])
def test_f38_it_ends_under_load_and_what_it_answered_is_there_afterwards(
    tmp_path: Path, how: int | str
) -> None:
    with running(tmp_path / "home", *TCP) as process:
        device = Device(process.at).enter("alice")
        names = {device.send(tracker.CreateGroup(f"g{number}")): number for number in range(200)}
        first = next(iter(names))
        assert device.receive(first) == tracker.Done()
        if isinstance(how, int):
            process.process.send_signal(how)
        else:
            assert process.process.stdin is not None
            process.process.stdin.write(how)
            process.process.stdin.flush()
        assert process.process.wait(5.0) == 0
        acknowledged = [0, *(names[request_id] for request_id, _ in device.arrived())]
        process.start()
        again = Device(process.at, device.pair)
        listed = [row.group for row in all_groups(again)]
        assert {f"g{number}" for number in acknowledged} <= set(listed)
        assert len(listed) == len(set(listed))
        for each in (device, again):
            each.close()


def all_groups(device: Device) -> list[tracker.GroupRow]:
    rows: list[tracker.GroupRow] = []
    more = True
    while more:
        page = device.request(tracker.ListGroups(rows[-1].group if rows else ""))
        rows += page.rows
        more = page.more
    return rows


def test_f38_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """A step that hangs, here the disk, delays the first command alone."""
    with running(tmp_path / "home", *TCP) as process:
        device = Device(process.at).enter("alice")
        with contextlib.closing(sqlite3.connect(process.home / "tracker.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            device.send(tracker.CreateGroup("g"))
            process.process.send_signal(signal.SIGTERM)
            wait_for(lambda: process.logged("ending"), "the first signal")
            process.process.send_signal(signal.SIGTERM)
            assert process.process.wait(2.0) == 1
        device.close()


def test_everything_is_there_after_a_restart(tmp_path: Path, devices: Devices) -> None:
    with running(tmp_path / "home", *TCP) as process:
        alice, bob = devices(process.at).enter("alice"), devices(process.at).enter("bob")
        carol = devices(process.at).enter("carol")
        alice.request(tracker.CreateGroup("lab"))
        alice.let_in("lab", bob, "bob")
        carol.request(tracker.JoinGroup("lab"))
        content = alice.share("lab", "x.bin")
        before = [
            alice.request(question)
            for question in (
                tracker.ListGroups(),
                tracker.ListFiles("lab"),
                tracker.ListRequests("lab"),
                tracker.EventsSince("lab", 0),
                tracker.GetManifest("lab", content),
                tracker.GetDevices("lab"),
                tracker.MyOffers(),
            )
        ]
        state, welcome = alice.follow(), alice.request(tracker.Hello())
        assert process.end() == 0
        process.restart()
        again = devices(process.at, alice.pair)
        assert (
            again.request(tracker.Hello()).user == "alice"
        )  # by its key: no password was asked for
        assert before == [
            again.request(question)
            for question in (
                tracker.ListGroups(),
                tracker.ListFiles("lab"),
                tracker.ListRequests("lab"),
                tracker.EventsSince("lab", 0),
                tracker.GetManifest("lab", content),
                tracker.GetDevices("lab"),
                tracker.MyOffers(),
            )
        ]
        assert again.follow() == state
        assert again.request(tracker.Hello()).tracker_id == welcome.tracker_id
        assert again.request(tracker.Hello()).inbox == welcome.inbox


def test_a_home_serves_one_tracker_and_a_port_too(tmp_path: Path) -> None:
    with running(tmp_path / "home", *TCP) as process:
        for home, words in (
            (tmp_path / "home", "uses the home"),
            (tmp_path / "b", "cannot listen"),
        ):
            second = run_cli("run", "--home", str(home), "--bind", process.at.endpoint)
            assert second.returncode == 1
            assert words in second.stderr
            assert second.stderr.count("error: ") == 1
            assert "Traceback" not in second.stderr
        path = f"ipc://{tmp_path}/socket"
        with running(tmp_path / "c", "--bind", path):
            second = run_cli("run", "--home", str(tmp_path / "d"), "--bind", path)
            assert second.returncode == 1
            assert "another process" in second.stderr


@pytest.mark.parametrize(
    ("options", "host"),
    [
        (("--bind", "tcp://localhost:0"), "localhost"),
        (("--bind", "tcp://127.0.0.1:0", "--advertise", "tracker.example"), "tracker.example"),
    ],
)
def test_the_link_is_as_typed_and_after_a_restore_as_it_was(
    tmp_path: Path, options: tuple[str, ...], host: str
) -> None:
    file, fresh = tmp_path / "backup", tmp_path / "fresh one"
    with running(tmp_path / "home", *options) as process:
        link = process.at.link
        assert link.startswith(f"mini-torrent://{host}:")
        assert run_cli("backup", str(file), "--home", str(tmp_path / "home")).returncode == 0
    restored = run_cli("restore", str(file), "--home", str(fresh))
    assert f"its link is {link}\n" in restored.stdout
    assert run_cli("link", "--home", str(fresh)).stdout == f"{link}\n"
    command = restored.stdout.rpartition("to run it there: ")[2].split()
    assert command[:2] == ["mini-torrent-tracker", "run"]
    with running(fresh, *command[command.index("--bind") :]) as process:
        assert process.at.link == link


def run_cli(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tracker.cli", *words],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_the_originals_way_of_starting_it(tmp_path: Path) -> None:
    info = tmp_path / "tracker_info.txt"
    with running(tmp_path / "find a port", *TCP) as process:
        host, _, port = process.at.endpoint.removeprefix("tcp://").rpartition(":")
        process.end()
    info.write_text(f"# ours\n127.0.0.9\n6000\n\n{host}\n{port}\n")
    with running(tmp_path / "home", str(info), "2", "--events", "tcp://127.0.0.1:0") as process:
        assert process.at.endpoint == f"tcp://{host}:{port}"
        assert info.read_text().splitlines()[-1] == keys.key_text(process.at.key)
    wrong = run_cli("run", str(info), "2", "--home", str(tmp_path / "other"))
    assert wrong.returncode == 2
    assert "line 5" in wrong.stderr
    assert run_cli("run", str(info), "3", "--home", str(tmp_path / "other")).returncode == 2
    assert run_cli("run", str(info), "--home", str(tmp_path / "other")).returncode == 2


def test_the_link_is_what_it_last_was(tmp_path: Path) -> None:
    assert run_cli("link", "--home", str(tmp_path / "home")).returncode == 2
    with running(tmp_path / "home", *TCP) as process:
        told = run_cli("link", "--home", str(tmp_path / "home"))
    assert told.stdout.strip() == process.at.link


def test_events_are_caught_up_without_gap_after_a_restart(tmp_path: Path, devices: Devices) -> None:
    with running(tmp_path / "home", *TCP) as process:
        alice, bob = devices(process.at).enter("alice"), devices(process.at).enter("bob")
        alice.request(tracker.CreateGroup("lab"))
        alice.let_in("lab", bob, "bob")
        bob.subscribe()
        seen = bob.follow()["lab"].seq
        heard = []
        for name in ("one", "two", "three"):
            alice.share("lab", name, name.encode())
            heard.append(bob.next_entry(events.Shared))
        assert [entry.seq for entry in heard] == [seen + 1, seen + 2, seen + 3]
        process.kill()
        process.restart()
        late = devices(process.at, bob.pair)
        again = devices(process.at, alice.pair)
        again.share("lab", "four", b"four")
        missed = late.request(tracker.EventsSince("lab", seen + 1))
        assert [entry.seq for entry in missed.entries] == [seen + 2, seen + 3, seen + 4]
        assert missed.entries[:2] == heard[1:]
        late.subscribe()
        late.follow()
        # A head is repeated for a while, so that who missed the entry itself learns of it.
        head = late.next_event(lambda event: isinstance(event, events.GroupHead))
        assert head.seq == seen + 4


def test_a_backup_of_a_running_tracker_moves_it_to_another_machine(
    tmp_path: Path, devices: Devices
) -> None:
    home, copy = tmp_path / "home", tmp_path / "backup.db"
    with running(home, *TCP) as process:
        alice = devices(process.at).enter("alice")
        alice.request(tracker.CreateGroup("lab"))
        assert run_cli("doctor", "--home", str(home)).returncode == 0
        assert run_cli("backup", str(copy), "--home", str(home)).returncode == 0
        assert copy.stat().st_mode & 0o777 == 0o600
        assert run_cli("backup", str(copy), "--home", str(home)).returncode == 1
        alice.request(tracker.CreateGroup("after"))
        assert "uses the home" in run_cli("restore", str(copy), "--home", str(home)).stderr
        before = alice.follow()["lab"]
        process.end()
        # Onto a machine that has nothing: the same tracker, under the same link.
        moved = tmp_path / "moved"
        assert run_cli("restore", str(copy), "--home", str(moved)).returncode == 0
        with running(moved, "--bind", process.at.endpoint) as restored:
            assert restored.at == process.at
            again = devices(restored.at, alice.pair)
            assert again.request(tracker.Hello()).user == "alice"
            states = again.follow()
            assert list(states) == ["lab"]
            assert states["lab"].seq > before.seq
            assert states["lab"].epoch > before.epoch
            assert states["lab"].key != before.key


def test_f26_a_damaged_database_says_how_to_restore(tmp_path: Path) -> None:
    home, copy = tmp_path / "home", tmp_path / "backup.db"
    with running(home, *TCP) as process:
        device = Device(process.at).enter("alice")
        device.close()
        assert run_cli("backup", str(copy), "--home", str(home)).returncode == 0
        process.end()
    database = home / "tracker.db"
    database.write_bytes(b"\0" * 2048 + database.read_bytes()[2048:])
    refused = run_cli("run", "--home", str(home), *TCP)
    assert refused.returncode == 1
    assert "damaged" in refused.stderr
    assert "restore" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert run_cli("doctor", "--home", str(home)).returncode == 1
    assert run_cli("restore", str(database), "--home", str(tmp_path / "x")).returncode == 2
    assert run_cli("restore", str(copy), "--home", str(home)).returncode == 0
    assert list(home.glob("tracker.db.before-*"))
    with running(home, *TCP) as process:
        device = Device(process.at)
        device.request(tracker.Login("alice", "a password"))
        device.close()


def test_a_home_that_others_can_look_into_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    (tmp_path / "home").chmod(0o755)
    refused = run_cli("run", "--home", str(tmp_path / "home"), *TCP)
    assert refused.returncode == 2
    assert "chmod 700" in refused.stderr


def test_options_come_from_a_file_and_commands_by_either_name(tmp_path: Path) -> None:
    config = tmp_path / "tracker.toml"
    config.write_text(f'[link]\nhome = "{tmp_path}/nowhere"\n[rotate-key]\nnow = true\n')
    told = run_cli("--config", str(config), "link")
    assert "nowhere" in told.stderr
    assert run_cli("--config", str(config), "rotate_key", "--home", str(tmp_path / "h")).stdout
    config.write_text("[link]\nhme = 1\n")
    assert "hme" in run_cli("--config", str(config), "link").stderr
    example = ROOT / "config" / "tracker.toml"
    assert run_cli("--config", str(example), "run", "--help").returncode == 0


def test_logs_for_machines_are_json_and_hold_no_password(tmp_path: Path, devices: Devices) -> None:
    with running(tmp_path / "home", *TCP, "--log-json", "-v") as process:
        alice = devices(process.at).enter("alice", "correct horse battery staple")
        alice.try_(tracker.Login("alice", "wrong horse"))
        process.end()
        wait_for(lambda: "ending" in "".join(process.errors))
    rows = [json.loads(line) for line in process.errors]
    assert {"time", "level", "logger", "message"} <= set(rows[0])
    assert "horse" not in "".join(process.errors)


def test_a_taken_port_for_events_is_no_reason_not_to_serve(
    tmp_path: Path, devices: Devices
) -> None:
    with running(tmp_path / "home", *TCP) as process:
        host, _, port = process.at.endpoint.removeprefix("tcp://").rpartition(":")
        process.end()
        with socket.create_server((host, int(port) + 1)):
            process.restart()
            alice = devices(process.at).enter("alice")
            alice.subscribe()
            assert process.end() == 0
    assert "is not free" in "".join(process.errors)


def test_without_a_command_it_shows_what_there_is() -> None:
    ran = run_cli()
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "\n  run " in ran.stdout
