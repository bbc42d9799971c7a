"""`mini-torrent demo`: a whole swarm on this machine, as real as anywhere.

Owns the steps: accounts, a group and its requests, one share, downloads of all others at once, and
the comparison of every byte. Not here: the processes (see peer.cli.demo.processes), the display
(see peer.cli.demo.view).
"""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path
from time import monotonic

from common.digests import Algorithm, Hasher
from common.errors import IntegrityError
from common.messages import control
from peer.cli.console import Console
from peer.cli.demo.processes import DemoPeer, DemoProcesses, temporary_directory
from peer.cli.demo.view import DemoView, Fetch
from peer.cli.signals import interruptible, unbroken
from peer.control.client import CommandFailed, ControlClient

NAMES = ("anna", "bert", "carla", "dora", "emil", "frida", "gustav", "hanna")
GROUP = "demo"
SLACK_BYTES = 64 << 20  # databases, logs and journals
BLOCK_BYTES = 4 << 20


def run(console: Console, path: str | None, count: int, size: int) -> int:
    """Run all steps; returns 0 only if every byte arrived everywhere."""
    content = Path(path) if path is not None else None
    size = size if content is None else size_of(content)
    copies = count if content is None else count - 1
    view = DemoView(console)
    with interruptible(), temporary_directory(size * copies + SLACK_BYTES) as directory:
        processes = DemoProcesses(directory)
        try:
            _play(processes, view, content, count, size)
        finally:
            with unbroken():
                processes.clear()
    view.end()
    return 0


def _play(
    processes: DemoProcesses, view: DemoView, content: Path | None, count: int, size: int
) -> None:
    if content is None:
        content = processes.directory / "film.bin"
        _make_file(content, size)
    view.report(f"place     {processes.directory}")
    link = processes.start_tracker()
    view.report(f"tracker   {link}, process {processes.tracker_pid}")
    for at in range(count):
        peer = processes.start_peer(_name(at), link)
        view.report(f"peer      {peer.status.listen}, process {peer.status.pid}")
    owner, *others = processes.peers
    for peer in processes.peers:
        password = secrets.token_urlsafe(12)
        peer.request(control.CreateUser(peer.name, password))
        peer.request(control.Login(peer.name, password))
    view.report(f"accounts  {', '.join(peer.name for peer in processes.peers)}")
    _gather(owner, others, view)
    uploaded = owner.request(control.UploadFile(str(content), GROUP, yes=True))
    assert isinstance(uploaded, control.Uploaded)
    view.shared(owner.name, uploaded)
    fetches = [Fetch(peer.name, uploaded.row.size_bytes) for peer in others]
    view.watch(fetches, lambda: _fetch_all(others, fetches, uploaded.row.name))
    _compare(content, others, fetches, view)
    view.table(fetches, uploaded)


def _name(at: int) -> str:
    return NAMES[at] if at < len(NAMES) else f"peer{at + 1}"


def _gather(owner: DemoPeer, others: list[DemoPeer], view: DemoView) -> None:
    owner.request(control.CreateGroup(GROUP))
    for peer in others:
        peer.request(control.JoinGroup(GROUP))
    requests = owner.request(control.ListRequests(GROUP))
    asking = [row.user for row in requests.rows] if isinstance(requests, control.Users) else []
    for user in asking:
        owner.request(control.AcceptRequest(GROUP, user))
    view.report(f"group     {GROUP}, owned by {owner.name}, who let in {', '.join(asking)}")


# -- fetching -----------------------------------------------------------------------------------


def _fetch_all(peers: list[DemoPeer], fetches: list[Fetch], name: str) -> list[threading.Thread]:
    """Start every download; each thread fills in its `Fetch`."""
    threads = [
        threading.Thread(target=_fetch, args=(peer, fetch, name), daemon=True)
        for peer, fetch in zip(peers, fetches, strict=True)
    ]
    for thread in threads:
        thread.start()
    return threads


def _fetch(peer: DemoPeer, fetch: Fetch, name: str) -> None:
    try:
        with ControlClient(peer.home) as client:
            fetch.began_at = monotonic()
            command = control.DownloadFile(GROUP, name, str(peer.folder))
            for message in client.request(command):
                match message:
                    case control.Progress():
                        fetch.progress = message
                    case control.Downloaded():
                        fetch.done = message
                    case control.Failed():
                        fetch.error = CommandFailed(message)
                    case _:
                        pass
    except Exception as error:
        fetch.error = error
    finally:
        fetch.ended_at = monotonic()


def _compare(content: Path, peers: list[DemoPeer], fetches: list[Fetch], view: DemoView) -> None:
    for fetch in fetches:
        if fetch.error is not None:
            raise fetch.error
    original = digest_of(content)
    for peer, fetch in zip(peers, fetches, strict=True):
        if fetch.done is None or digest_of(Path(fetch.done.path)) != original:
            raise IntegrityError(f"what {peer.name} has is not what was shared")
    view.same(original)


# -- files --------------------------------------------------------------------------------------


def _make_file(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        for at in range(0, size, BLOCK_BYTES):
            file.write(os.urandom(min(BLOCK_BYTES, size - at)))


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def digest_of(path: Path) -> str:
    """One BLAKE3 over a file, or over the paths and contents of a folder; read from the disk."""
    whole = Algorithm.BLAKE3.new(threads=os.cpu_count() or 1)
    if path.is_file():
        _digest_file(whole, path)
        return whole.digest().hex()
    for file in sorted(path.rglob("*")):
        kind = "folder" if file.is_dir() else f"file of {file.stat().st_size} bytes"
        whole.update(f"{file.relative_to(path)}\0{kind}\0".encode(errors="surrogateescape"))
        if file.is_file():
            _digest_file(whole, file)
    return whole.digest().hex()


def _digest_file(whole: Hasher, path: Path) -> None:
    with open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            whole.update(block)
