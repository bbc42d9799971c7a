"""Running the tracker and the client as the original did, and by its trackers in turn."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.crypto.keys import key_text, new_pair
from common.link import parse_link, read_info
from tests.support import reaper
from tests.support.processes import PEER, TRACKER, Person, Swarm, run_program
from tests.support.waiting import PATIENCE_S, wait_for


def free_ports(count: int) -> list[int]:
    """Ports of which the next one is free too; no other process is likely to take them at once."""
    taken, ports = [], []
    while len(ports) < count:
        near, far = socket.socket(), socket.socket()
        taken += [near, far]
        near.bind(("127.0.0.1", 0))
        port = near.getsockname()[1]
        try:
            far.bind(("127.0.0.1", port + 1))
        except (OSError, OverflowError):
            continue
        ports.append(port)
    for one in taken:
        one.close()
    return ports


@pytest.fixture
def bare() -> Iterator[Swarm]:
    """A directory, and nothing that runs in it."""
    made = Swarm(tracker=False)
    try:
        yield made
    finally:
        made.close()


def test_the_originals_way(bare: Swarm) -> None:
    first, second, listen = free_ports(3)
    info = bare.root / "tracker_info.txt"
    info.write_text(f"127.0.0.1\n{first}\n127.0.0.1\n{second}\n")
    tracker = subprocess.Popen(
        [TRACKER, "run", str(info), "2", "--home", str(bare.root / "t")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    bare.spawned.append(tracker)
    assert tracker.stdout is not None
    line = tracker.stdout.readline()
    assert line.startswith("tracker ready: ")
    link = line.removeprefix("tracker ready: ").strip()
    assert parse_link(link).first.endpoint == f"tcp://127.0.0.1:{second}"
    entries = read_info(info)
    assert [entry.key is not None for entry in entries] == [False, True]
    printed = run_program([TRACKER, "link", "--home", str(bare.root / "t")])
    assert printed.out.strip() == link

    path = bare.file(100_000, "song.mp3")
    script = f"""
        create_user anna secret
        login anna secret
        create_group music
        list_groups
        list_requests music
        accept_request music nobody
        upload_file {path} music
        list_files music
        download_file music song.mp3 {bare.root}/copy.mp3
        show_downloads
        stop_share music song.mp3
        join_group elsewhere
        leave_group music --yes
        logout
        quit
    """
    ran = run_program(
        [PEER, "--home", str(bare.root / "p"), "shell", f"127.0.0.1:{listen}", str(info)],
        stdin="\n".join(line.strip() for line in script.strip().splitlines()) + "\n",
    )
    assert ran.code == 1, str(ran)  # that of the first command that failed
    for said in ("anna", "music", "song.mp3", "] [music] song.mp3"):
        assert said in ran.out, str(ran)
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2, str(ran)  # there is no request, and no such group
    assert (bare.root / "copy.mp3").read_bytes() == path.read_bytes()
    # The peer was started by the prompt, and ended with it.
    assert run_program([PEER, "--home", str(bare.root / "p"), "status"]).code == 3

    assert tracker.stdin is not None
    tracker.stdin.write("quit\n")
    tracker.stdin.flush()
    assert tracker.wait(PATIENCE_S) == 0


def test_the_trackers_of_a_file_are_tried_in_turn(own_swarm: Swarm) -> None:
    alive = own_swarm.tracker.link
    if own_swarm.transport == "ipc":
        pytest.skip("a tracker_info.txt has IPs and ports")
    (dead,) = free_ports(1)
    host, port = parse_link(alive).first.endpoint.removeprefix("tcp://").split(":")
    info = own_swarm.root / "tracker_info.txt"
    info.write_text(
        f"# gone\n127.0.0.1\n{dead}\n{key_text(new_pair().public)}\n"
        f"# has no key yet\n127.0.0.1\n{dead}\n"
        f"# serves\n{host}\n{port}\n{key_text(parse_link(alive).key)}\n"
    )
    person = Person(own_swarm, "anna")
    person.up(tracker=str(info))
    status = wait_for(person.status, until=lambda status: status["connected"])
    assert status["tracker"] == alive
    person.ok("create-user", "anna", "a password")
    person.ok("login", "anna", "a password")
    # The path is remembered, wherever the next command is typed.
    person.down()
    person.ok("up", cwd=Path("/"))
    wait_for(lambda: person.status()["user"] == "anna")


def test_the_environment_stands_for_options(
    own_swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = Person(own_swarm, "anna")
    monkeypatch.setenv("MINI_TORRENT_HOME", str(person.home))
    monkeypatch.setenv("MINI_TORRENT_TRACKER", own_swarm.tracker.link)
    assert run_program([PEER, "up"]).code == 0
    ran = run_program([PEER, "--json", "status"])
    assert ran.json["tracker"] == own_swarm.tracker.link
    assert person.status()["pid"] == ran.json["pid"]
    assert run_program([PEER, "down"]).code == 0
    assert run_program([PEER, "status"]).code == 3


def test_in_the_foreground(own_swarm: Swarm) -> None:
    person = Person(own_swarm, "anna")
    running = person.spawn("up", "--foreground", "--tracker", own_swarm.tracker.link)
    wait_for(lambda: person.run("status").code == 0, "the peer")
    assert person.pid == running.pid
    person.ok("create-user", "anna", "a password")
    running.terminate()
    assert running.wait(PATIENCE_S) == 0
    person.refused("status", code=3)


def test_a_process_that_bears_a_directory_in_its_environment_alone_ends_with_it(
    tmp_path: Path,
) -> None:
    """As a peer that `up` started as a copy of itself, with its home by HOME."""
    root = tmp_path / "root"
    root.mkdir()
    command = ["sleep", "1000"]
    theirs = subprocess.Popen(command, env={"HOME": str(root / "anna")})
    others = subprocess.Popen(command, env={"HOME": str(tmp_path)})
    try:
        # The kernel shows the environment a moment after the start.
        wait_for(lambda: reaper.processes_of(root) == [theirs.pid])
        assert reaper.sweep(root) == [theirs.pid]
        assert others.poll() is None
        assert not root.exists()
    finally:
        for process in (theirs, others):
            process.kill()
            process.wait()
