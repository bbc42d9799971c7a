"""The command `service` with a fake systemctl, which runs what the unit says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.host.home import lock_holder
from tests.support.fake_programs import SYSTEMCTL, write_program
from tests.support.processes import PEER, Person, Swarm

# The transport makes no difference here.
pytestmark = pytest.mark.parametrize("transport", ["tcp"], indirect=True)

UNIT = "mini-torrent.service"


class Manager:
    """The fake systemctl and what it was called with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unit = folder / "config" / "systemd" / "user" / UNIT
        write_program(folder / "systemctl", SYSTEMCTL)

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        calls = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return calls

    def fail(self, word: str) -> None:
        (self.folder / "fails").write_text(f"{word}\n" if word else "")

    def pid(self) -> int:
        return int((self.folder / "pid").read_text() or 0)


@pytest.fixture
def manager(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> Manager:
    made = Manager(swarm.folder("manager"))
    monkeypatch.setenv("PATH", f"{made.folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(made.folder / "config"))
    return made


@pytest.fixture
def person(swarm: Swarm) -> Person:
    """A device with a peer that `up` started."""
    made = Person(swarm, swarm.fresh("served"))
    made.up()
    return made


def test_the_peer_is_handed_over_and_back(manager: Manager, person: Person) -> None:
    before = person.pid
    done = person.json("service", "install")
    assert done == {
        "unit": str(manager.unit),
        "home": str(person.home),
        "program": PEER,
        "changed": True,
        "enabled": True,
        "running": True,
        "reason": None,
        "remaining": [],
    }
    assert person.pid == manager.pid() != before
    assert [call.partition(" ")[0] for call in manager.calls()] == [
        "daemon-reload",
        "show",
        "enable",
    ]
    # Repeated, it changes nothing, and the peer runs on.
    running = person.pid
    assert person.json("service", "install") == {**done, "changed": False}
    assert person.pid == running
    # A unit of ours with another text is written anew, and the peer runs with it.
    manager.unit.write_text(manager.unit.read_text().replace("RestartSec=5", "RestartSec=9"))
    assert f"{UNIT}: written, enabled and started" in person.ok("service", "install")
    assert "RestartSec=5" in manager.unit.read_text()
    assert person.pid == manager.pid() != running

    assert person.json("service", "uninstall") == {"unit": str(manager.unit), "removed": True}
    assert (lock_holder(person.home), manager.unit.exists()) == (None, False)
    assert manager.calls()[-3:] == ["daemon-reload", f"disable --now {UNIT}", "daemon-reload"]
    assert "nothing to do" in person.ok("service", "uninstall")
    assert manager.calls() == []


def test_a_prompt_leaves_the_peer_of_the_service_running(swarm: Swarm, manager: Manager) -> None:
    person = Person(swarm, swarm.fresh("prompt"))
    ran = person.run("shell", "0", swarm.tracker.link, stdin="service install\n")
    assert ran.code == 0, str(ran)
    assert "enabled and started" in ran.out
    assert person.pid == manager.pid()
    person.ok("service", "uninstall")


def test_a_unit_that_does_not_start_leaves_the_peer_running(
    manager: Manager, person: Person
) -> None:
    manager.fail("enable")
    said = person.refused("service", "install")
    assert said == f"systemctl --user enable --now {UNIT} failed: Failed to connect to bus"
    assert person.status()["connected"]


def test_without_systemd_the_unit_is_written_and_the_rest_is_printed(
    manager: Manager, person: Person
) -> None:
    manager.fail("daemon-reload")
    running = person.pid
    done = person.json("service", "install")
    assert (done["enabled"], done["running"]) == (False, False)
    assert done["reason"] == "Failed to connect to bus"
    assert done["remaining"] == [
        f"mini-torrent --home {person.home} down",
        "systemctl --user daemon-reload",
        f"systemctl --user enable --now {UNIT}",
    ]
    ran = person.run("service", "install")
    assert all(line in ran.err for line in done["remaining"])
    assert (ran.code, person.pid, manager.unit.exists()) == (0, running, True)
    enabled = manager.unit.parent / "default.target.wants" / UNIT
    enabled.parent.mkdir()
    enabled.symlink_to(manager.unit)
    ran = person.run("service", "uninstall")
    assert (ran.code, "systemd cannot be reached" in ran.err) == (0, True)
    assert not os.path.lexists(enabled)
    assert not manager.unit.exists()
    assert person.pid == running


def test_without_a_tracker_the_unit_is_enabled_and_not_started(
    swarm: Swarm, manager: Manager
) -> None:
    fresh = Person(swarm, swarm.fresh("fresh"))
    done = fresh.json("service", "install")
    assert (done["enabled"], done["running"]) == (True, False)
    assert done["remaining"][0] == f"mini-torrent --home {fresh.home} up LINK"
    assert manager.calls() == ["daemon-reload", f"enable {UNIT}"]


@pytest.mark.parametrize("action", ["install", "uninstall"])
def test_a_unit_of_another_origin_is_left_alone(
    swarm: Swarm, manager: Manager, person: Person, action: str
) -> None:
    manager.unit.parent.mkdir(parents=True)
    for text in ("[Service]\nExecStart=/bin/true\n", None):
        if text is None:
            Person(swarm, swarm.fresh("other")).ok("service", "install", "--yes")
            text = manager.unit.read_text()
        else:
            manager.unit.write_text(text)
        manager.calls()
        ran = person.run("service", action)
        assert (ran.code, ran.out) == (1, ""), str(ran)
        assert f"hint: re{'place' if action == 'install' else 'move'} it all the same: " in ran.err
        assert f"service --yes {action}" in ran.err
        assert (manager.unit.read_text(), manager.calls()) == (text, [])
    person.ok("service", action, "--yes")
    assert (str(person.home) in manager.unit.read_text()) if action == "install" else True
    assert manager.unit.exists() == (action == "install")
    if action == "install":
        person.ok("service", "uninstall")


def test_other_actions_are_wrong_usage(person: Person, manager: Manager) -> None:
    for words in ((), ("start",), ("install", "now")):
        person.refused("service", *words, code=2)
    assert manager.calls() == []
