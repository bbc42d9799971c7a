"""Sizes, passwords and the options of ``up``."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import zmq
from msgspec.structs import fields

from common.errors import CannotListen, ConfigError, StorageError, exit_code_of
from common.host.home import open_home
from common.messages import control
from common.net.sockets import Private, bind, make_socket
from peer.cli import daemon_process
from peer.cli.arguments import parse_size
from peer.cli.daemon_process import startup_error
from peer.cli.up_options import AlreadyRuns, check_same, checked, settings_for
from peer.settings import Settings, load, save
from tests.support.paths import ROOT

LINK = "mini-torrent://127.0.0.1:5000/" + "A" * 43


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("512K", 512 << 10),
        ("512k", 512 << 10),
        ("1M", 1 << 20),
        ("1MiB", 1 << 20),
        ("1 MB", 1 << 20),
        ("1.5GiB", 3 << 29),
        ("2T", 2 << 40),
        ("7b", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "-1", "1.5", "1e3", "1X", "one", "1 2", "0x10", "٣K"])
def test_a_text_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


def test_options_that_were_not_given_are_left_out(tmp_path: Path) -> None:
    assert checked({"listen": None, "tracker": None}, str(tmp_path)) == {}


def test_a_tracker_info_is_remembered_by_its_absolute_path(tmp_path: Path) -> None:
    (tmp_path / "tracker_info.txt").write_text(f"127.0.0.1\n5000\n{'A' * 43}\n")
    found = checked({"tracker": "tracker_info.txt", "listen": "18000"}, str(tmp_path))
    assert found == {
        "tracker": str(tmp_path / "tracker_info.txt"),
        "listen": "tcp://127.0.0.1:18000",
    }


def test_given_options_win_over_saved_ones(tmp_path: Path) -> None:
    save(tmp_path, Settings(tracker=LINK, listen="tcp://127.0.0.1:1"))
    other = LINK.replace("5000", "6000")
    settings = settings_for(tmp_path, {"tracker": other})
    assert (settings.tracker, settings.listen) == (other, "tcp://127.0.0.1:1")


def test_unchanged_saved_options_need_no_disk_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise StorageError("no room")

    home = open_home(tmp_path / "home")
    save(home, Settings(tracker=LINK))
    monkeypatch.setattr("peer.settings.atomic_write", fail)
    daemon_process._remember(home, Settings(tracker=LINK))
    assert capsys.readouterr().err == ""
    daemon_process._remember(home, Settings(tracker=LINK, upload_limit=1))
    assert "cannot save the options for the next start: no room" in capsys.readouterr().err


def test_a_first_start_needs_a_tracker(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this peer knows no tracker"):
        settings_for(tmp_path, {})


@pytest.mark.parametrize(
    ("wanted", "actual", "same"),
    [
        ("tcp://127.0.0.1:0", "tcp://127.0.0.1:4000", True),
        ("tcp://*:4000", "tcp://192.0.2.1:4000", True),
        ("tcp://0.0.0.0:0", "tcp://192.0.2.1:4000", True),
        ("tcp://127.0.0.1:4001", "tcp://127.0.0.1:4000", False),
        ("tcp://127.0.0.2:4000", "tcp://127.0.0.1:4000", False),
        ("ipc:///a", "ipc:///a", True),
        ("ipc:///a", "tcp://127.0.0.1:4000", False),
    ],
)
def test_whether_a_running_peer_is_the_one_that_is_wanted(
    wanted: str, actual: str, same: bool
) -> None:
    status = control.StatusIs(None, True, LINK, actual, "", 0)
    if same:
        check_same(status, {"listen": wanted})
    else:
        with pytest.raises(AlreadyRuns):
            check_same(status, {"listen": wanted})


def test_the_last_words_of_a_peer_that_did_not_start(tmp_path: Path) -> None:
    log = tmp_path / "peer.log"
    log.write_text("error: of yesterday\nINFO more\nerror: the port is taken\nhint: another one\n")
    began = len("error: of yesterday\n")
    failed = startup_error(log, began, 4)
    assert (failed.message, failed.hint, failed.exit_code) == (
        "the port is taken",
        "another one",
        4,
    )
    assert failed.code == "unreachable"
    log.write_text("Traceback\nValueError: oh\n\n")
    failed = startup_error(log, 0, -9)
    assert failed.message.endswith("ValueError: oh")
    assert failed.exit_code == 1


@pytest.mark.parametrize(
    ("free", "reason"), [(9, "no space left in"), (9 << 20, "its log is empty")]
)
def test_a_peer_that_could_not_write_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, reason: str
) -> None:
    (tmp_path / "peer.log").touch()
    found = SimpleNamespace(f_blocks=9, f_bavail=free, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda path: found)
    failed = startup_error(tmp_path / "peer.log", 0, 1)
    assert failed.message.startswith(f"start failed: {reason}")


def test_the_example_of_a_configuration_is_as_it_is_by_default(tmp_path: Path) -> None:
    example = ROOT / "config" / "peer.toml"
    text = example.read_text()
    (tmp_path / "peer.toml").write_text(text)
    assert load(tmp_path) == Settings()
    shown = text.replace("\n# ", "\n")
    for field in fields(Settings):
        assert f"\n{field.name} = " in shown or f"\n[{field.name}]" in shown


def test_an_address_in_use_is_no_unreachable_tracker() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    first = make_socket(context, zmq.ROUTER, Private(), message_bytes_max=64)
    second = make_socket(context, zmq.ROUTER, Private(), message_bytes_max=64)
    endpoint = bind(first, "tcp://127.0.0.1:*")
    with pytest.raises(CannotListen, match=r"Address already in use$") as caught:
        bind(second, endpoint)
    assert exit_code_of(caught.value) == 1
    first.close()
    second.close()
    context.term()
