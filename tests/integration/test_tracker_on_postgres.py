"""A tracker on PostgreSQL: a database that goes away and comes back, and the move there."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.messages import operator as messages
from common.messages import tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from tests.support.postgres import Server, own_server
from tests.support.tracker_process import Device, Devices, TrackerProcess, running
from tests.support.waiting import wait_for
from tracker.operator_client import request

TCP = ("--bind", "tcp://127.0.0.1:0")
TCP_ONLY = True


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with own_server() as server:
        yield server


def waits(device: Device, command: Any, code: Code | None) -> None:
    """Send ``command`` until it is refused with ``code``, or done."""

    def is_answered() -> bool:
        reply = device.receive(device.send(command))
        return (reply.code if isinstance(reply, Refusal) else None) is code

    wait_for(is_answered, f"the answer {code or 'done'}")


def test_f34_a_tracker_goes_on_when_its_database_is_back(
    tmp_path: Path, devices: Devices, server: Server
) -> None:
    """Ended in order and killed: questions are answered, and nothing acknowledged is lost."""
    with running(tmp_path / "home", *TCP, "--database", server.database()) as process:
        alice = devices(process.at).enter("alice")
        made = ["g0"]
        alice.request(tracker.CreateGroup("g0"))
        for number, how in enumerate((signal.SIGINT, signal.SIGKILL), 1):
            server.end(how)
            waits(alice, tracker.CreateGroup(f"never{number}"), Code.READ_ONLY)
            for _ in range(5):
                assert [row.group for row in alice.request(tracker.ListGroups()).rows] == made
            server.start()
            waits(alice, tracker.CreateGroup(f"g{number}"), None)
            made.append(f"g{number}")
            assert [row.group for row in alice.request(tracker.ListGroups()).rows] == made
        process.kill()
        process.restart()
        again = devices(process.at, alice.pair)
        assert [row.group for row in again.request(tracker.ListGroups()).rows] == made


def test_the_operator_sees_the_size_of_the_database(tmp_path: Path, server: Server) -> None:
    with running(tmp_path / "home", *TCP, "--database", server.database()):
        status = request(tmp_path / "home", messages.Status(messages.FORM), messages.StatusIs)
        load = request(tmp_path / "home", messages.GetLoad(), messages.LoadIs)
    assert status.database_bytes == load.database_bytes > 1_000_000


def test_a_tracker_waits_for_its_database_and_ends_when_asked(tmp_path: Path) -> None:
    url = f"postgresql://tracker@/none?host={tmp_path}"
    process = TrackerProcess(tmp_path / "home", *TCP, "--database", url, wait=False)
    wait_for(lambda: process.logged("waiting up to"), "the line in the log")
    assert process.end() == 1
    assert process.logged("cannot reach the database")
