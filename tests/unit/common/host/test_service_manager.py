"""Messages to the service manager, received by a real datagram socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.host.service_manager import ServiceManager
from tests.support.waiting import PATIENCE_S


@pytest.fixture(params=["path", "abstract"])
def heard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        abstract = f"\0mini-torrent-test-{os.getpid()}-{id(request)}"
        made.bind(str(tmp_path / "notify") if request.param == "path" else abstract)
        made.settimeout(PATIENCE_S)
        yield made


def address(heard: socket.socket) -> str:
    name = heard.getsockname()
    return "@" + name[1:].decode() if isinstance(name, bytes) else str(name)


def lines(heard: socket.socket) -> list[str]:
    return heard.recv(4096).decode().split("\n")


def test_ready_and_stopping_are_told_once_each(heard: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": address(heard), "HOME": "/"}
    manager = ServiceManager(environment)
    assert environment == {"HOME": "/"}  # no child may speak for this process
    manager.ready("at tcp://192.0.2.1:5000")
    assert lines(heard) == ["READY=1", "STATUS=at tcp://192.0.2.1:5000"]
    manager.stopping()
    assert lines(heard) == ["STOPPING=1", "STATUS=stopping"]


def test_a_state_cannot_add_a_line(heard: socket.socket) -> None:
    ServiceManager({"NOTIFY_SOCKET": address(heard)}).ready("a\nMAINPID=1" + "x" * 9_000)
    first, status = lines(heard)
    assert first == "READY=1"
    assert len(status) < 300


def test_the_watchdog_is_fed_and_a_changed_state_told(heard: socket.socket) -> None:
    states = iter(["one", "one", "two"])

    async def informed() -> None:
        manager = ServiceManager({"NOTIFY_SOCKET": address(heard), "WATCHDOG_USEC": "30000"})
        assert manager.watchdog_s == 0.03
        manager.ready("one")
        task = asyncio.create_task(manager.keep_informed(lambda: next(states, "two")))
        assert (await asyncio.to_thread(lines, heard))[0] == "READY=1"
        assert await asyncio.to_thread(lines, heard) == ["WATCHDOG=1"]
        assert await asyncio.to_thread(lines, heard) == ["WATCHDOG=1"]
        assert await asyncio.to_thread(lines, heard) == ["WATCHDOG=1", "STATUS=two"]
        assert await asyncio.to_thread(lines, heard) == ["WATCHDOG=1"]
        task.cancel()

    asyncio.run(informed())


def test_a_state_that_fails_does_not_starve_the_watchdog(heard: socket.socket) -> None:
    async def informed() -> None:
        manager = ServiceManager({"NOTIFY_SOCKET": address(heard), "WATCHDOG_USEC": "30000"})

        def fails() -> str:
            raise RuntimeError("broken")

        task = asyncio.create_task(manager.keep_informed(fails))
        assert await asyncio.to_thread(lines, heard) == ["WATCHDOG=1"]
        assert await asyncio.to_thread(lines, heard) == ["WATCHDOG=1"]
        task.cancel()

    asyncio.run(informed())


@pytest.mark.parametrize(
    "more",
    [
        {"WATCHDOG_USEC": "30000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "-1"},
        {"WATCHDOG_USEC": "soon"},
        {},
    ],
)
def test_a_watchdog_of_another_process_or_none_is_not_fed(more: dict[str, str]) -> None:
    assert ServiceManager({"NOTIFY_SOCKET": "/nowhere", **more}).watchdog_s == 0.0


@pytest.mark.parametrize("where", ["", "@", "nonsense", "/nowhere/notify", "vsock:2:9999"])
def test_a_process_without_a_service_manager_works(where: str) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": where, "WATCHDOG_USEC": "30000"})
    manager.ready("at an address")
    manager.stopping()


def test_a_service_manager_that_does_not_read_holds_nothing_up(heard: socket.socket) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": address(heard), "WATCHDOG_USEC": "3000"})
    asked: list[int] = []

    async def informed() -> None:
        enough = asyncio.Event()

        def state() -> str:
            asked.append(0)
            if len(asked) == 300:  # its queue takes some ten datagrams
                enough.set()
            return str(len(asked))

        task = asyncio.create_task(manager.keep_informed(state))
        await asyncio.wait_for(enough.wait(), PATIENCE_S)
        assert not task.done()
        task.cancel()

    asyncio.run(informed())
