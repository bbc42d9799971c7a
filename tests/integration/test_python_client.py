"""Python client against a real peer, and the example of its page."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import minitorrent
import minitorrent.aio
import pytest

from tests.support.paths import ROOT
from tests.support.processes import Person, Swarm

CLIENT = ROOT / "clients" / "python"


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    swarm = Swarm()
    yield swarm
    swarm.close()


@pytest.fixture(scope="module")
def anna(swarm: Swarm) -> Person:
    person = Person(swarm, "anna")
    person.home.mkdir(mode=0o700)
    (person.home / "peer.toml").write_text("[http]\non = true\n")
    person.up(tracker=swarm.tracker.link)
    person.ok("create-user", "anna", person.password)
    person.ok("login", "anna", person.password)
    person.ok("create-group", "lab")
    return person


def test_the_example_of_the_page_runs(swarm: Swarm, anna: Person) -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    folder = swarm.folder()
    (folder / "model.bin").write_bytes(os.urandom(200_000))
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "MINI_TORRENT_HOME": str(anna.home), "PYTHONPATH": str(CLIENT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("shared model.bin: 200000 bytes, blake3 ")
    assert lines[1] == f"{folder}/copies/model.bin is verified"
    assert "complete lab model.bin" in lines
    assert lines[-1].startswith("unknown-share: ")
    copy = folder / "copies" / "model.bin"
    assert copy.read_bytes() == (folder / "model.bin").read_bytes()


def test_progress_and_events_arrive(swarm: Swarm, anna: Person) -> None:
    with minitorrent.connect(anna.home) as peer:
        assert peer.status().user == "anna"
        events = peer.events("lab")
        path = swarm.file(100_000)
        told: list[minitorrent.Progress] = []
        first: list[minitorrent.Event] = []

        async def both() -> None:
            heard = asyncio.create_task(asyncio.to_thread(lambda: first.append(next(events))))
            # The stream begins at some moment: each share is another event.
            while not heard.done():
                again = swarm.file(1000)
                await asyncio.to_thread(peer.share, again, "lab", on_progress=told.append)
            await heard

        asyncio.run(both())
        assert first[0].event == "share"
        assert first[0].group == "lab"
        assert first[0].details["user"] == "anna"
        shared = peer.share(path, "lab", name="progress")
        assert shared.size_bytes == 100_000
        assert "progress" in {row.name for row in peer.files("lab")}


def test_errors_have_the_codes_of_the_command_line(swarm: Swarm, anna: Person) -> None:
    peer = minitorrent.connect(socket=anna.home / "api.sock")
    with pytest.raises(minitorrent.Error) as told:
        peer.files("nothing")
    assert told.value.code == "unknown-group"
    assert told.value.hint
    with pytest.raises(minitorrent.Error) as told:
        peer.download("lab", "x", "/", wrong_option=1)
    assert told.value.code == "usage"
    with pytest.raises(minitorrent.NotRunning):
        minitorrent.connect(swarm.folder())


def test_the_asynchronous_form_does_the_same(swarm: Swarm, anna: Person) -> None:
    path, copies = swarm.file(150_000), list[str]()

    async def story() -> None:
        async with await minitorrent.aio.connect(anna.home) as peer:
            loop_threads = []
            shared = await peer.share(
                path, "lab", on_progress=lambda _: loop_threads.append(asyncio.get_running_loop())
            )
            done = await peer.download("lab", shared.name, swarm.folder())
            copies.append(done.path)
            assert [row.state for row in await peer.downloads() if row.path == done.path] == [
                "complete"
            ]
            with pytest.raises(minitorrent.Error):
                await peer.pause("lab", "missing")

    asyncio.run(story())
    assert Path(copies[0]).read_bytes() == path.read_bytes()


def test_the_client_imports_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import minitorrent, minitorrent.aio;"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}"
        " - set(sys.stdlib_module_names)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=CLIENT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "['minitorrent']"
