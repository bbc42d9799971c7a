"""Monitoring: `mini-torrent watch`, and the example of a script that subscribes by itself."""

from __future__ import annotations

import contextlib
import json
import queue
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.processes import Person, Swarm, operate
from tests.support.waiting import PATIENCE_S, wait_for

EXAMPLE = ROOT / "examples" / "watch_events.py"


class Lines:
    """The lines that a process prints, as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._copy, daemon=True).start()

    def _copy(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def next(self) -> str:
        try:
            return self._lines.get(timeout=PATIENCE_S).rstrip("\n")
        except queue.Empty:
            raise AssertionError("nothing was printed") from None

    def json(self) -> Any:
        return json.loads(self.next())

    @property
    def waiting(self) -> bool:
        return not self._lines.empty()


def spin_up(lines: Lines, person: Person, group: str) -> None:
    """Make things happen until the watcher hears them; then all that it missed is past."""
    wait_for(lambda: (toggle(person, group), lines.waiting)[1], "the watcher's first line")
    last = person.swarm.fresh("last")
    person.ok("upload-file", "/etc/hostname", group, "--name", last)
    while last not in lines.next():
        pass


def toggle(person: Person, group: str) -> None:
    person.ok("upload-file", "/etc/hostname", group)
    person.ok("stop-share", group, "hostname")


def test_events_as_json(swarm: Swarm, alice: Person, bob: Person, carol: Person) -> None:
    group, other = alice.group_with(bob), alice.group_with()
    lines = Lines(alice.spawn("watch", group, "--json"))
    spin_up(lines, alice, group)
    path = swarm.file(1000)
    shared = alice.share(path, group)
    alice.share(path, other)  # in another group: not shown
    bob.fetch(group, path.name, swarm.folder())
    alice.ok("stop-share", group, path.name)
    bob.ok("stop-share", group, path.name)
    carol.ok("join-group", group)
    alice.ok("accept-request", group, "carol")
    carol.ok("leave-group", group)
    alice.ok("remove-member", group, "bob")
    seen = [lines.json() for _ in range(8)]
    assert [(row["event"], row["user"]) for row in seen] == [
        ("share", "alice"),
        ("seeding", "bob"),
        ("unshare", "alice"),
        ("unshare", "bob"),
        ("requested", "carol"),
        ("joined", "carol"),
        ("left", "carol"),
        ("removed", "bob"),
    ]
    assert {row["group"] for row in seen} == {group}
    assert [row["last"] for row in seen if row["event"] == "unshare"] == [False, True]
    first = seen[0]["seq"]
    assert [row["seq"] for row in seen] == list(range(first, first + 8))
    told = {key: seen[0][key] for key in ("name", "size_bytes", "files", "algorithm", "digest")}
    assert told == {key: shared[key] for key in told}
    assert seen[0]["time"].endswith("Z")
    lines.process.terminate()


def test_events_as_text_of_all_groups(swarm: Swarm, alice: Person, bob: Person) -> None:
    groups = [alice.group_with(bob) for _ in range(2)]
    lines = Lines(alice.spawn("watch"))
    spin_up(lines, alice, groups[0])
    for group in groups:
        path = swarm.file(10)
        bob.share(path, group)
        line = lines.next()
        assert f"[{group}]" in line
        assert "share" in line
        assert path.name in line
    lines.process.terminate()


def test_only_members_watch(alice: Person, bob: Person) -> None:
    group = alice.group_with()
    assert bob.refused("watch", group).replace(group, "G") == bob.refused(
        "watch", "nosuchgroup"
    ).replace("nosuchgroup", "G")


@pytest.fixture
def watched(own_swarm: Swarm) -> tuple[Swarm, Person, str]:
    """A person with a group, in a swarm whose tracker may be restarted."""
    person = own_swarm.person("alice")
    return own_swarm, person, person.group_with()


def test_watching_survives_a_restart_of_the_tracker(watched: tuple[Swarm, Person, str]) -> None:
    swarm, alice, group = watched
    lines = Lines(alice.spawn("watch", "--json"))
    spin_up(lines, alice, group)
    toggle(alice, group)
    swarm.tracker.kill()
    swarm.tracker.start()
    wait_for(lambda: alice.status()["connected"], "the tracker")
    toggle(alice, group)
    seen = [lines.json() for _ in range(4)]
    assert [row["event"] for row in seen] == ["share", "unshare"] * 2
    first = seen[0]["seq"]
    assert [row["seq"] for row in seen] == list(range(first, first + 4))
    lines.process.terminate()


def test_f50_a_watcher_that_was_away_for_too_long_is_told_what_it_missed(
    watched: tuple[Swarm, Person, str],
) -> None:
    """The peer and the example alike: entries that are no longer kept are a line of their own."""
    swarm, alice, group = watched
    key = swarm.root / "watcher.key"
    both = [Lines(alice.spawn("watch", "--json"))]
    both.append(Example(swarm, "alice", alice.password, key).lines)
    for lines in both:
        spin_up(lines, alice, group)
    toggle(alice, group)
    last = [both[1].json() for _ in range(2)][-1]["seq"]
    while both[0].json()["seq"] < last:
        pass
    swarm.tracker.end()
    # 5,000 more have happened, and only the next ones will be kept.
    with contextlib.closing(sqlite3.connect(swarm.tracker.home / "tracker.db")) as db, db:
        db.execute("DELETE FROM log WHERE group_id = ?", (group,))
        db.execute("UPDATE groups SET seq = seq + 5000 WHERE group_id = ?", (group,))
    swarm.tracker.start()
    wait_for(lambda: alice.status()["connected"], "the tracker")
    toggle(alice, group)
    for lines in both:
        gap, *events = [lines.json() for _ in range(3)]
        assert (gap["event"], gap["first"], gap["last"]) == ("gap", last + 1, last + 5000)
        assert [(row["seq"], row["event"]) for row in events] == [
            (last + 5001, "share"),
            (last + 5002, "unshare"),
        ]
        lines.process.terminate()


class Example:
    """The example script, run as it says."""

    def __init__(self, swarm: Swarm, user: str, password: str, key: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLE), swarm.tracker.link, user, "--key", str(key)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=EXAMPLE.parents[1],
        )
        swarm.spawned.append(self.process)
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        self.process.stdin.write(f"{password}\n")
        self.process.stdin.flush()
        self.lines = Lines(self.process)
        assert self.process.stderr.readline().startswith("connected to")


def test_the_example_misses_and_doubles_nothing(watched: tuple[Swarm, Person, str]) -> None:
    swarm, alice, group = watched
    key = swarm.root / "watcher.key"
    example = Example(swarm, "alice", alice.password, key)
    spin_up(example.lines, alice, group)
    for end in (swarm.tracker.end, swarm.tracker.kill):
        toggle(alice, group)
        end()
        swarm.tracker.start()
        # What happens before the script has found its way back is caught up by its place.
        wait_for(lambda: alice.status()["connected"], "the tracker")
        toggle(alice, group)
    seen = [example.lines.json() for _ in range(8)]
    assert [row["event"] for row in seen] == ["share", "unshare"] * 4
    first = seen[0]["seq"]
    assert [row["seq"] for row in seen] == list(range(first, first + 8))
    example.process.terminate()

    again = Example(swarm, "alice", "no password is needed", key)
    spin_up(again.lines, alice, group)
    again.process.terminate()


def test_the_example_says_why_it_ends(watched: tuple[Swarm, Person, str]) -> None:
    swarm, _, _ = watched
    example = Example(swarm, "alice", "a wrong password", swarm.root / "watcher.key")
    _, err = example.process.communicate(timeout=PATIENCE_S)
    assert example.process.returncode == 1
    assert "error: " in err
    assert "Traceback" not in err


def test_the_example_ends_when_it_is_logged_out(watched: tuple[Swarm, Person, str]) -> None:
    swarm, alice, group = watched
    example = Example(swarm, "alice", alice.password, swarm.root / "watcher.key")
    spin_up(example.lines, alice, group)
    operate(swarm.tracker.home, "disable-user", "alice")
    _, err = example.process.communicate(timeout=PATIENCE_S)
    assert example.process.returncode == 1
    assert "disabled" in err
    assert "Traceback" not in err
