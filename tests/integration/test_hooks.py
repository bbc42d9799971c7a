"""Hooks of real peers: of one download, of `peer.toml`, over a kill, and of missing programs."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from common import limits
from tests.support.processes import Person, Swarm
from tests.support.waiting import wait_for

PIECE = limits.PIECE_LENGTH_DEFAULT
WRITE = (
    "import os, sys; open(sys.argv[1], 'a').write('|'.join(os.environ.get('MT_' + name, '-')"
    " for name in sys.argv[2:]) + '\\n')"
)

TCP_ONLY = True


def command(out: Path, *names: str) -> str:
    """A command line that writes variables into a file."""
    return shlex.join([sys.executable, "-c", WRITE, str(out), *names])


def lines(out: Path) -> list[str]:
    return out.read_text().splitlines() if out.exists() else []


def test_a_download_runs_its_own_hook(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    path = swarm.file(PIECE + 1, "film $(x) 'y'.bin")
    alice.share(path, group)
    out = swarm.folder() / "out"
    hook = command(out, "EVENT", "GROUP", "NAME", "PATH", "SIZE_BYTES", "DIGEST")
    dest = swarm.folder()
    done = bob.fetch(group, path.name, dest, "--on-complete", hook)
    wait_for(lambda: len(lines(out)) == 1, "the hook")
    digest = done["digest"]
    line = f"complete|{group}|{path.name}|{dest / path.name}|{PIECE + 1}|{digest}"
    assert lines(out) == [line]
    bob.fetch(group, path.name, dest, "--on-complete", hook)  # the same content is in place
    wait_for(lambda: lines(out) == [line] * 2, "the hook of a content in place")
    for words in ("/nowhere/hook --x", "'", "", "nosuchprogram"):
        ran = bob.run("download-file", group, path.name, dest / "new", "--on-complete", words)
        assert ran.code == 2, words
        assert not (dest / "new").exists()


@contextmanager
def hooks_of(person: Person, table: str) -> Iterator[None]:
    """The peer of ``person`` with these hooks in its settings."""
    settings = person.home / "peer.toml"
    before = settings.read_text()
    person.down()
    settings.write_text(f"{before}\n[hooks]\n{table}\n")
    person.up()
    try:
        yield
    finally:
        person.down()
        settings.write_text(before)
        person.up()


def test_f119_hooks_of_the_settings_run_and_a_missing_program_is_told(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    out = swarm.folder() / "out"
    words = json.dumps([sys.executable, "-c", WRITE, str(out), "EVENT", "USER", "NAME"])
    table = f"complete = {words}\nshare = {words}\nunshare = {words}\nfailed = '/nowhere/hook'"
    with hooks_of(bob, table):
        rows = json.loads(bob.run("--json", "doctor").out)
        checks = {row["check"]: row for row in rows}
        assert checks["hook failed"]["found"] == 'program not found: "/nowhere/hook"'
        path = swarm.file(PIECE)

        def told() -> list[str]:
            # Shares of other tests in this swarm have hooks too.
            return [line for line in lines(out) if line.endswith(f"|{path.name}")]

        alice.share(path, group)
        wait_for(lambda: told() == [f"share|{alice.name}|{path.name}"], "the share's hook")
        bob.fetch(group, path.name, swarm.folder())
        wait_for(lambda: len(told()) == 2, "the hook of the download")
        assert told()[1] == f"complete|{bob.name}|{path.name}"
        bob.ok("stop-share", group, path.name)
        alice.ok("stop-share", group, path.name)
        wait_for(lambda: len(told()) == 3, "the hook of the end")
        assert told()[2] == f"unshare|{alice.name}|{path.name}"


def test_f117_a_hook_that_was_killed_with_its_peer_runs_again(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    path = swarm.file(PIECE)
    alice.share(path, group)
    folder = swarm.folder()
    script = folder / "hook"
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$MT_NAME" >> {folder}/began\n'
        f"[ -e {folder}/may-end ] || exec sleep 1000\n"
        f"echo done >> {folder}/ended\n"
    )
    script.chmod(0o755)
    bob.ok("download-file", group, path.name, swarm.folder(), "--on-complete", script)
    wait_for(lambda: len(lines(folder / "began")) == 1, "the hook")
    sleeping = [
        one for one in psutil.process_iter(["environ"])
        if (one.info["environ"] or {}).get("MT_HOME") == str(bob.home)
    ]  # fmt: skip
    assert sleeping
    bob.down()
    wait_for(lambda: not any(one.is_running() for one in sleeping), "the end with the peer")
    (folder / "may-end").touch()
    bob.up()
    wait_for(lambda: len(lines(folder / "ended")) == 1, "the second run")
    assert lines(folder / "began") == [path.name] * 2
    bob.restart()
    assert lines(folder / "ended") == ["done"]
