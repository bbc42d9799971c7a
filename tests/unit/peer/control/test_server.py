"""Both ends of the control socket, over a real socket."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

import peer.control.client
import peer.control.server
from common import limits
from common.errors import ConfigError, NoPeerRunning, StorageError, exit_code_of
from common.host.control_socket import SOCKET_PATH_BYTES_MAX, control_endpoint, find_endpoint
from common.host.home import HomeLock, lock_holder
from common.messages import control
from common.messages.refusals import Code
from common.net.codec import SIGNATURE, pack
from peer.control import notices
from peer.control.client import CommandFailed, ControlClient
from peer.control.server import LONG_MAX, REQUESTS_MAX, Waiting
from tests.support.fake_peer import STATUS, FakePeer
from tests.support.paths import ROOT


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    return path


async def forever(command: control.Command, tell: Any) -> control.Answer:
    await asyncio.Event().wait()
    raise AssertionError


def test_an_answer_comes_back(home: Path) -> None:
    with FakePeer(home), ControlClient(home) as client:
        assert client.result(control.Status()) == STATUS
        assert client.result(control.Status()) == STATUS


def test_progress_comes_before_the_result(home: Path) -> None:
    def work(command: control.Command, tell: Any) -> control.Answer:
        for done in range(3):
            tell(control.Progress("digesting", done, 3))
        return control.Done("finished")

    with FakePeer(home, {control.ListGroups: work}), ControlClient(home) as client:
        said = list(client.request(control.ListGroups()))
    assert said == [
        *(control.Progress("digesting", done, 3) for done in range(3)),
        control.Done("finished"),
    ]


def test_an_error_keeps_its_words_and_exit_code(home: Path) -> None:
    replies = {control.Logout: StorageError("the disk is full", "make room")}
    with (
        FakePeer(home, replies),
        ControlClient(home) as client,
        pytest.raises(CommandFailed) as caught,
    ):
        client.result(control.Logout())
    error = caught.value
    assert (error.code, error.message, error.hint) == (
        Code.STORAGE,
        "the disk is full",
        "make room",
    )
    assert error.exit_status == 1


def test_a_defect_is_no_secret_and_no_traceback(home: Path) -> None:
    with FakePeer(home, {control.Logout: RuntimeError("a password")}) as peer:
        with ControlClient(home) as client, pytest.raises(CommandFailed) as caught:
            client.result(control.Logout())
        assert caught.value.code is Code.INTERNAL
        assert "a password" not in str(caught.value)
        with ControlClient(home) as client:
            assert client.result(control.Status()) == STATUS
        assert len(peer.asked) == 2


def test_no_peer_is_noticed_at_once(home: Path) -> None:
    with pytest.raises(NoPeerRunning):
        ControlClient(home)
    with pytest.raises(NoPeerRunning):
        ControlClient(home / "never made")


def test_a_stale_socket_is_no_peer(home: Path) -> None:
    with FakePeer(home):
        pass
    (home / "control.sock").touch()
    with pytest.raises(NoPeerRunning):
        ControlClient(home)
    with FakePeer(home), ControlClient(home) as client:
        assert client.result(control.Status()) == STATUS


def test_a_peer_that_ends_meanwhile_is_noticed(home: Path) -> None:
    with FakePeer(home, {control.Watch: forever}) as peer, ControlClient(home) as client:
        events = client.request(control.Watch())

        def tell_once(command: control.Command, tell: Any) -> Any:
            tell(control.Happened(1, "", "films", "share", {}))
            return forever(command, tell)

        peer.replies[control.Watch] = tell_once
        next(events)
        peer.end()
        with pytest.raises(NoPeerRunning, match="has ended"):
            next(events)


def test_leaving_an_answer_early_ends_the_command(home: Path) -> None:
    def tell_and_wait(command: control.Command, tell: Any) -> Any:
        tell(control.Progress("waiting", 0, 0))
        return forever(command, tell)

    with FakePeer(home, {control.DownloadFile: tell_and_wait}) as peer:
        with ControlClient(home) as client:
            messages = client.request(control.DownloadFile("films", "a", "/a"))
            next(messages)
            messages.close()
        assert peer.wait_for(lambda: len(peer.cancelled) == 1)
        assert not any(isinstance(command, control.Cancel) for command in peer.asked)


def test_hanging_up_with_stop_work_cancels_the_download_itself(home: Path) -> None:
    def tell_and_wait(command: control.Command, tell: Any) -> Any:
        tell(control.Progress("waiting", 0, 0))
        return forever(command, tell)

    replies = {control.DownloadFile: tell_and_wait, control.Cancel: control.Done()}
    with FakePeer(home, replies) as peer:
        with ControlClient(home) as client:
            messages = client.request(control.DownloadFile("films", "a", "/a"), stop_work=True)
            next(messages)
            messages.close()
        assert peer.wait_for(lambda: control.Cancel("films", "a") in peer.asked)


def test_a_command_line_that_dies_silently_is_forgotten(home: Path) -> None:
    with FakePeer(home, {control.Watch: forever}) as peer:
        code = (
            "import sys; from pathlib import Path\n"
            "from common.messages import control; from peer.control.client import ControlClient\n"
            "list(ControlClient(Path(sys.argv[1])).request(control.Watch()))"
        )
        watcher = subprocess.Popen([sys.executable, "-c", code, str(home)], cwd=_root())
        assert peer.wait_for(lambda: len(peer.asked) == 1, 20)
        watcher.kill()
        watcher.wait()
        assert peer.wait_for(lambda: len(peer.cancelled) == 1, 20)


def test_malformed_messages_are_counted_and_the_socket_lives_on(home: Path) -> None:
    junk: list[list[bytes]] = [
        [b"x"],
        [b"MT\x01", b"1"],
        [b"MT\x01", b"1" * 9, b"\x80"],
        [b"MT\x01", b"1", b"\xc1"],
        [b"MT\x01", b"1", b"\x81\xa4type\xa5Nasty"],
        [b"MT\x01", b"1", b"\x81\xa4type\xa6Status", b"more"],
        [b"\x00"] * 200,
    ]
    with FakePeer(home) as peer:
        context: zmq.Context[Any] = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.connect(control_endpoint(home))
        for frames in junk:
            socket.send_multipart(frames)
        socket.send_multipart(pack(b"good", control.Status()))
        answers: list[list[bytes]] = []
        while not answers or answers[-1][1] != b"good":
            assert socket.poll(10_000)
            answers.append(socket.recv_multipart())
        # Who gave a number that can be answered waits for an answer.
        assert [frames[1] for frames in answers[:-1]] == [b"1"] * 4
        assert all(b"malformed command" in frames[2] for frames in answers[:-1])
        socket.close(linger=0)
        context.term()
        assert peer.server is not None
        assert peer.server.counts["malformed"] == len(junk)


def test_an_argument_that_is_too_long_is_refused_at_once(home: Path) -> None:
    with FakePeer(home), ControlClient(home) as client, pytest.raises(CommandFailed) as failed:
        client.result(control.CreateUser("anna", "p" * 5000))
    assert "too long: at most 4,096 characters" in failed.value.message
    assert exit_code_of(failed.value) == 2


def test_another_version_is_refused_with_words(home: Path) -> None:
    with FakePeer(home):
        context: zmq.Context[Any] = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.connect(control_endpoint(home))
        socket.send_multipart([b"MT\x09", b"1", b"whatever"])
        assert socket.poll(10_000)
        answer = b"".join(socket.recv_multipart())
        socket.close(linger=0)
        context.term()
    assert SIGNATURE in answer
    assert b"version" in answer


def test_an_answer_that_is_too_long_is_refused_instead_of_lost(home: Path) -> None:
    row = control.GroupRow("g" * 1000, "o", 1, "member")
    groups = control.Groups([row] * (limits.CONTROL_BYTES_MAX // 1000))
    with (
        FakePeer(home, {control.ListGroups: groups}),
        ControlClient(home) as client,
        pytest.raises(CommandFailed, match="too long"),
    ):
        client.result(control.ListGroups())


def test_an_answer_that_is_no_text_is_an_error_instead_of_silence(home: Path) -> None:
    groups = control.Groups([control.GroupRow("caf\udce9", "o", 1, "member")])
    with (
        FakePeer(home, {control.ListGroups: groups}),
        ControlClient(home) as client,
        pytest.raises(CommandFailed, match="not valid UTF-8"),
    ):
        client.result(control.ListGroups())


def test_a_long_listing_arrives_whole(home: Path) -> None:
    groups = control.Groups([control.GroupRow("g" * 400, "o", 1, "member")] * 20_000)
    with FakePeer(home, {control.ListGroups: groups}), ControlClient(home) as client:
        assert client.result(control.ListGroups()) == groups


def test_the_socket_is_ours_alone(home: Path) -> None:
    with FakePeer(home):
        mode = (home / "control.sock").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert not mode & 0o077
    assert not (home / "control.sock").exists()
    assert lock_holder(home) is None


class TestLongPaths:
    @pytest.fixture
    def long_home(self, tmp_path: Path) -> Path:
        path = tmp_path / ("x" * SOCKET_PATH_BYTES_MAX)
        path.mkdir(mode=0o700)
        return path

    def test_a_home_too_long_for_a_socket_works(
        self, long_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        short = Path(os.path.realpath("/tmp")) / f"mt-test-{os.getpid()}"
        short.mkdir(mode=0o700)
        try:
            monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
            assert find_endpoint(long_home).startswith(f"ipc://{short}/")
            assert not list(short.iterdir())
            with FakePeer(long_home), ControlClient(long_home) as client:
                assert client.result(control.Status()) == STATUS
            place = Path(control_endpoint(long_home).removeprefix("ipc://")).parent
            assert stat.S_IMODE(place.stat().st_mode) == 0o700
        finally:
            subprocess.run(["rm", "-rf", str(short)], check=True)

    def test_a_place_that_others_can_write_to_is_refused(
        self, long_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        short = Path(os.path.realpath("/tmp")) / f"mt-test-{os.getpid()}"
        short.mkdir(mode=0o700)
        try:
            monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
            (short / "mini-torrent").mkdir(mode=0o777)
            (short / "mini-torrent").chmod(0o777)
            with pytest.raises(ConfigError, match="open to other users"):
                control_endpoint(long_home)
            (short / "mini-torrent").rmdir()
            (short / "elsewhere").mkdir(mode=0o700)
            (short / "mini-torrent").symlink_to(short / "elsewhere")
            with pytest.raises(ConfigError, match="open to other users"):
                control_endpoint(long_home)
        finally:
            subprocess.run(["rm", "-rf", str(short)], check=True)


def _root() -> Path:
    return ROOT


@pytest.mark.parametrize(
    "command",
    [control.DownloadFile("g", "n", "/d"), control.Watch(), control.UploadFile("/p", "g")],
    ids=lambda command: type(command).__name__,
)
def test_f75_commands_that_wait_block_no_others(home: Path, command: control.Command) -> None:
    count = 3 * REQUESTS_MAX

    async def wait() -> control.Answer:
        await asyncio.Event().wait()
        raise AssertionError

    async def begun(command: control.Command, tell: Any) -> Any:
        return await wait() if isinstance(command, control.UploadFile) else Waiting(wait())

    with FakePeer(home, {type(command): begun}) as peer, ControlClient(home) as client:
        for number in range(count):
            client._socket.send_multipart(pack(number.to_bytes(8, "little"), command))
        most = LONG_MAX if isinstance(command, control.UploadFile) else count
        assert peer.wait_for(lambda: len(peer.asked) == most)
        with ControlClient(home) as other:
            assert other.result(control.Status()) == STATUS


def test_long_commands_beyond_the_limit_wait_for_their_turn(home: Path) -> None:
    done = threading.Event()

    async def work(command: control.Command, tell: Any) -> control.Answer:
        await asyncio.to_thread(done.wait)
        return control.Done()

    with FakePeer(home, {control.UploadFile: work}) as peer, ControlClient(home) as client:
        ids = {number.to_bytes(8, "little") for number in range(2 * LONG_MAX)}
        for request_id in ids:
            command = control.UploadFile("/p", "g")
            client._socket.send_multipart(pack(request_id, command))
        assert peer.wait_for(lambda: len(peer.asked) == LONG_MAX)
        done.set()
        answered = set()
        while answered != ids:
            assert client._socket.poll(10_000)
            answered.add(client._socket.recv_multipart()[1])
        assert len(peer.asked) == len(ids)


def test_short_commands_are_bounded(home: Path) -> None:
    with FakePeer(home, {control.ListGroups: forever}) as peer, ControlClient(home) as client:
        for number in range(REQUESTS_MAX):
            client._socket.send_multipart(pack(number.to_bytes(8, "little"), control.ListGroups()))
        assert peer.wait_for(lambda: len(peer.asked) == REQUESTS_MAX)
        with pytest.raises(CommandFailed) as refused:
            client.result(control.ListGroups())
        assert refused.value.code is Code.BUSY


# -- a peer of another release ------------------------------------------------------------------


class OldPeer:
    """The control socket of release 0.1.0, which knows no greeting: ``says`` tells what it answers
    to what it does not know."""

    def __init__(self, home: Path, says: str) -> None:
        self._home, self._says = home, says
        self.downs = 0
        self._ready, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def _live(self) -> None:
        lock = HomeLock(self._home)
        context: zmq.Context[Any] = zmq.Context()
        socket = context.socket(zmq.ROUTER)
        socket.bind(control_endpoint(self._home))
        self._ready.set()
        while not self._end.is_set():
            if not socket.poll(20):
                continue
            routing_id, _, request_id, body = socket.recv_multipart()
            kind = msgspec.msgpack.decode(body)["type"]
            answer: Any = None
            match kind, self._says:
                case "Status", _:
                    answer = {**msgspec.to_builtins(STATUS), "type": "StatusIs"}
                case "Down", _:
                    self.downs += 1
                    answer = {"type": "Done", "text": "the peer ends"}
                    self._end.set()
                case _, "refusal":
                    message = "this cannot be asked: a malformed message: Invalid value 'Hello'"
                    answer = {"type": "Failed", "code": "usage", "message": message}
                    answer |= {"hint": None, "exit_code": 2}
                case _, "another signature":
                    socket.send_multipart([routing_id, b"MT\x00", request_id, b"\x80"])
            if answer is not None:
                frames = [SIGNATURE, request_id, msgspec.msgpack.encode(answer)]
                socket.send_multipart([routing_id, *frames])
        socket.close(linger=100)
        context.term()
        lock.release()

    def __enter__(self) -> OldPeer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(10)


@pytest.mark.parametrize("says", ["refusal", "nothing", "another signature"])
def test_a_peer_of_an_older_release_is_reported_at_once(home: Path, says: str) -> None:
    with (
        OldPeer(home, says),
        ControlClient(home) as client,
        pytest.raises(NoPeerRunning) as told,
    ):
        client.result(control.ListGroups())
    assert "runs version 0.1.0 or older" in told.value.message
    assert told.value.hint == "restart it: mini-torrent down && mini-torrent up"


def test_down_ends_a_peer_of_an_older_release(home: Path) -> None:
    with OldPeer(home, "refusal") as peer, ControlClient(home) as client:
        assert client.result(control.Down()) == control.Done("the peer ends")
        assert peer.downs == 1


def test_a_peer_with_other_messages_reports_its_release(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer.control.server, "RELEASE", "7.8.9")
    with FakePeer(home) as other, ControlClient(home) as client:
        assert not other.asked
        monkeypatch.setattr(peer.control.server, "FORM", "another form")
        with pytest.raises(NoPeerRunning) as told:
            client.result(control.Status())
    assert "runs version 7.8.9" in told.value.message


def test_the_form_of_the_conversation_follows_its_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = control.FORM
    assert control._form() == before
    changed = {**control.Login.__annotations__, "device": "Text"}
    monkeypatch.setattr(control.Login, "__annotations__", changed)
    assert control._form() != before


def test_a_client_greets_its_peer_once(home: Path) -> None:
    with FakePeer(home) as peer, ControlClient(home) as client:
        for _ in range(3):
            client.result(control.Status())
        assert peer.asked == [control.Status()] * 3


def test_a_silent_peer_is_reported_before_the_timeout(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer.control.client, "SILENCE_TOLD_S", 0.0)
    monkeypatch.setattr(peer.control.client, "SILENCE_S", 0.5)
    monkeypatch.setattr(peer.control.client, "HELLO_S", 0.1)
    told: list[str] = []
    lock = HomeLock(home)
    try:
        with (
            ControlClient(home, lambda: told.append("silence")) as client,
            pytest.raises(NoPeerRunning, match="does not answer"),
        ):
            client.result(control.Status())
    finally:
        lock.release()
    assert told == ["silence"]


def test_a_notice_is_news_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000
    monkeypatch.setattr(notices, "wall_ms", lambda: now)
    kept = notices.Notifications()
    kept.add("the disk was full")
    assert kept.latest == "the disk was full"
    assert [is_news for _text, is_news in kept.texts()] == [True]
    now += notices.NEWS_MS + 1
    assert kept.latest is None
    assert [is_news for _text, is_news in kept.texts()] == [False]
