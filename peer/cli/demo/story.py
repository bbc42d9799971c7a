"""`mini-torrent demo`: a whole swarm on this machine, as real as anywhere.

Owns the story: accounts, a group, its requests, one who shares and all others who fetch at once,
and the comparison of every byte. The processes are those of `demo_stage`; what it looks like is
`demo_picture`'s business.
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
from peer.cli.demo.processes import Actor, Stage, temporary_directory
from peer.cli.demo.view import Fetch, Story
from peer.cli.signals import interruptible, unbroken
from peer.control.client import CommandFailed, ControlClient

NAMES = ("anna", "bert", "carla", "dora", "emil", "frida", "gustav", "hanna")
GROUP = "demo"
SLACK_BYTES = 64 << 20  # databases, logs and journals
BLOCK_BYTES = 4 << 20


def run(console: Console, path: str | None, peers: int, size: int) -> int:
    """Tell the whole story; returns 0 only if every byte arrived everywhere."""
    content = Path(path) if path is not None else None
    size = size if content is None else size_of(content)
    copies = peers if content is None else peers - 1
    story = Story(console)
    with interruptible(), temporary_directory(size * copies + SLACK_BYTES) as directory:
        stage = Stage(directory)
        try:
            _play(stage, story, content, peers, size)
        finally:
            with unbroken():
                stage.clear()
    story.end()
    return 0


def _play(stage: Stage, story: Story, content: Path | None, peers: int, size: int) -> None:
    if content is None:
        content = stage.directory / "film.bin"
        _make_file(content, size)
    story.tell(f"place     {stage.directory}")
    link = stage.start_tracker()
    story.tell(f"tracker   {link}, process {stage.tracker_pid}")
    for at in range(peers):
        actor = stage.start_peer(_name(at), link)
        story.tell(f"peer      {actor.status.listen}, process {actor.status.pid}")
    owner, *others = stage.actors
    for actor in stage.actors:
        password = secrets.token_urlsafe(12)
        actor.ask(control.CreateUser(actor.name, password))
        actor.ask(control.Login(actor.name, password))
    story.tell(f"accounts  {', '.join(actor.name for actor in stage.actors)}")
    _gather(owner, others, story)
    uploaded = owner.ask(control.UploadFile(str(content), GROUP, yes=True))
    assert isinstance(uploaded, control.Uploaded)
    story.shared(owner.name, uploaded)
    fetches = [Fetch(actor.name, uploaded.row.size) for actor in others]
    story.watch(fetches, lambda: _fetch_all(others, fetches, uploaded.row.name))
    _compare(content, others, fetches, story)
    story.table(fetches, uploaded)


def _name(at: int) -> str:
    return NAMES[at] if at < len(NAMES) else f"peer{at + 1}"


def _gather(owner: Actor, others: list[Actor], story: Story) -> None:
    owner.ask(control.CreateGroup(GROUP))
    for actor in others:
        actor.ask(control.JoinGroup(GROUP))
    requests = owner.ask(control.ListRequests(GROUP))
    asking = [row.user for row in requests.rows] if isinstance(requests, control.Users) else []
    for user in asking:
        owner.ask(control.AcceptRequest(GROUP, user))
    story.tell(f"group     {GROUP}, owned by {owner.name}, who let in {', '.join(asking)}")


# -- fetching -----------------------------------------------------------------------------------


def _fetch_all(actors: list[Actor], fetches: list[Fetch], name: str) -> list[threading.Thread]:
    """Start every download; each thread fills in its `Fetch`."""
    threads = [
        threading.Thread(target=_fetch, args=(actor, fetch, name), daemon=True)
        for actor, fetch in zip(actors, fetches, strict=True)
    ]
    for thread in threads:
        thread.start()
    return threads


def _fetch(actor: Actor, fetch: Fetch, name: str) -> None:
    try:
        with ControlClient(actor.home) as client:
            fetch.began_at = monotonic()
            ask = control.DownloadFile(GROUP, name, str(actor.folder))
            for said in client.ask(ask):
                match said:
                    case control.Progress():
                        fetch.progress = said
                    case control.Downloaded():
                        fetch.done = said
                    case control.Failed():
                        fetch.error = CommandFailed(said)
                    case _:
                        pass
    except Exception as error:
        fetch.error = error
    finally:
        fetch.ended_at = monotonic()


def _compare(content: Path, actors: list[Actor], fetches: list[Fetch], story: Story) -> None:
    for fetch in fetches:
        if fetch.error is not None:
            raise fetch.error
    original = digest_of(content)
    for actor, fetch in zip(actors, fetches, strict=True):
        if fetch.done is None or digest_of(Path(fetch.done.path)) != original:
            raise IntegrityError(f"what {actor.name} has is not what was shared")
    story.same(original)


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
