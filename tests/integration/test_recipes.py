"""The recipes of docs/recipes, run as they stand on their pages, by one swarm.

The outside world is made here: a cache of Hugging Face, programs of Slurm and systemd. The machines
are folders.
"""

from __future__ import annotations

import filecmp
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_programs import NOTHING, SLURM, SYSTEMCTL, write_program
from tests.support.pages import Machine, scripts
from tests.support.paths import ROOT
from tests.support.processes import Swarm, content
from tests.support.waiting import wait_for

RECIPES = ROOT / "docs" / "recipes"
ROLE = ROOT / "examples" / "ansible" / "roles" / "mini_torrent"
PASSWORD = "password of anna"
SHOWN_LINK = "mini-torrent://192.0.2.7:5000/KEY#SECRET"
MODEL = ".cache/huggingface/hub/models--acme--tiny"
_ON = re.compile(r"sh on=([\w,]+)")
_INVITATION = re.compile(r"mini-torrent://[^\s'\"]+#[\w-]+")


class Room:
    """The machines of the recipes, by name, and the last invitation."""

    def __init__(self, swarm: Swarm) -> None:
        self.swarm = swarm
        self.machines: dict[str, Machine] = {}
        self.link = ""

    def machine(self, name: str) -> Machine:
        """The machine ``name``; a job runs in the home of ``head``, which its nodes share."""
        if name in self.machines:
            return self.machines[name]
        folder = self.swarm.root / ("head" if name in ("job", "submit") else name)
        programs = self.swarm.root / f"{name}-programs"
        fakes = {**SLURM, "systemctl": SYSTEMCTL, "loginctl": NOTHING, "journalctl": NOTHING}
        for program, text in {**fakes, "hostname": f"#!/bin/sh\necho {name}\n"}.items():
            write_program(programs / program, text)
        variables = {
            "FAKE_ROOT": str(self.swarm.root),
            "FAKE_PROLOG": str(ROOT / "examples/slurm/prolog"),
        }
        if name == "job":
            variables |= {
                "SLURM_JOB_ID": "7",
                "SLURM_JOB_NODELIST": "n[1-2]",
                "SLURMD_NODENAME": "n1",
                "MT_BCAST_HOME": str(self.swarm.root / "n1/peer"),
            }
        made = Machine(folder, variables)
        made.variables["PATH"] = os.pathsep.join(
            [str(programs), str(ROOT / "examples/slurm"), made.variables["PATH"]]
        )
        self.machines[name] = made
        return made

    def run(self, name: str, script: str, stdin: str = f"{PASSWORD}\n") -> str:
        """Run ``script`` on a machine; it must succeed. Returns its output."""
        machine = self.machine(name)
        script = script.replace(SHOWN_LINK, self.link)
        if name not in ("job", "submit"):  # whose programs know the nodes
            script = re.sub(r"(?<= )/(local|srv|var/lib)/", rf"{machine.folder}/\1/", script)
        ran = machine.run(script, stdin=stdin)
        assert ran.code == 0, str(ran)
        if found := _INVITATION.search(ran.out):
            self.link = found[0]
        return ran.out

    def play(self, page: str, before: Mapping[str, Callable[[], None]] | None = None) -> str:
        """Run the blocks of a recipe. ``before``: what happens before a block with that text."""
        printed = ""
        for kind, text in scripts((RECIPES / page).read_text("utf-8")):
            if on := _ON.fullmatch(kind):
                for part, event in (before or {}).items():
                    if part in text:
                        event()
                for name in on[1].split(","):
                    printed += self.run(name, text)
            else:
                assert kind in ("", "yaml"), f"{page}: a block that is not run: {kind}"
        return printed

    def file(self, machine: str, path: str, text: bytes) -> Path:
        """Write a file on a machine."""
        made = self.machine(machine).folder / path
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(text)
        return made

    def has(self, machine: str, path: str, *, like: Path) -> None:
        """Check that a machine has the same file or folder as ``like``."""
        found = self.machine(machine).folder / path
        names = sorted(str(p.relative_to(like)) for p in like.rglob("*") if p.is_file())
        for name in names or ["."]:
            assert filecmp.cmp(found / name, like / name, shallow=False), found / name


@pytest.fixture
def room() -> Iterator[Room]:
    """A tracker, and the machine ``head`` of a user who is logged in."""
    swarm = Swarm()
    try:
        made = Room(swarm)
        made.run("head", f"mini-torrent up '{swarm.tracker.link}'")
        made.run("head", f"mini-torrent create-user anna '{PASSWORD}'")
        made.run("head", f"mini-torrent login anna '{PASSWORD}'")
        yield made
    finally:
        swarm.close()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_recipes_do_what_they_say(room: Room) -> None:
    classroom(room)
    hugging_face(room)
    slurm(room)
    ansible(room)
    systemd(room)
    index = (RECIPES / "README.md").read_text("utf-8")
    pages = {page.name for page in RECIPES.glob("*.md")} - {"README.md"}
    assert pages == set(re.findall(r"\]\((\w+\.md)\)", index))


def classroom(room: Room) -> None:
    for name in ("sheet1.txt", "sheet2.txt"):
        room.file("head", f"exercises/{name}", name.encode())
    printed = room.play("classroom.md")
    assert re.search(r"^pc01 +holds|^pc01 +\w+ +holds", printed, re.MULTILINE), printed
    for name in ("pc01", "pc02"):
        room.has(name, "lessons/exercises", like=room.machine("head").folder / "exercises")


def hugging_face(room: Room) -> None:
    def snapshot(commit: str, files: Mapping[str, bytes]) -> None:
        folder = room.machine("head").folder / MODEL / "snapshots" / commit
        folder.mkdir(parents=True)
        for name, text in files.items():
            room.file("head", f"{MODEL}/blobs/{commit}{name}", text)
            (folder / name).symlink_to(f"../../blobs/{commit}{name}")
        room.file("head", f"{MODEL}/refs/main", commit.encode())

    files = {"config.json": b"{}", "model.safetensors": content(900_000, 1)}
    snapshot("c1", files)
    after = {**files, "config.json": b'{"layers": 2}'}
    printed = room.play("huggingface.md", {"--replace": lambda: snapshot("c2", after)})
    assert re.search(r"^tiny +2 ", printed, re.MULTILINE), printed
    for name in ("pc01", "pc02"):
        room.has(name, "models/tiny", like=room.machine("head").folder / MODEL / "snapshots/c2")
    assert os.listdir(room.machine("pc01").folder / "parts/tiny") == ["config.json"]


def slurm(room: Room) -> None:
    weights = room.file("head", "weights.bin", content(700_000, 2))
    room.file("head", "inputs/a.txt", b"a")
    (room.file("head", "inputs/run", b"#!/bin/sh\n")).chmod(0o755)
    tokens = room.file("head", "tokens.bin", content(300_000, 3))
    room.file("head", "vocabulary/words", b"words")
    os.utime(weights, (1, 1))
    left_out = [room.file("head", "inputs/b.tmp", b"b")]
    room.play(
        "slurm.md", {"mt-bcast": lambda: room.file("n1", "local/weights.bin", b"old") and None}
    )
    for node in ("n1", "n2"):
        folder = room.machine(node).folder / "local"
        room.has(node, "local/weights.bin", like=weights)
        assert (folder / "weights.bin").stat().st_mtime == 1
        assert sorted(os.listdir(folder / "inputs")) == ["a.txt", "run"], left_out
        assert os.access(folder / "inputs/run", os.X_OK)
        assert (folder / "inputs/a.txt").stat().st_mtime > 1
    assert "job7" not in room.run("head", "mini-torrent list-files anna-jobs")
    room.has("node1", "local/shared/tokens.bin", like=tokens)
    assert (room.machine("node1").folder / "local/shared/vocabulary/words").exists()
    refused(room, weights)
    credentials = room.machine("head").folder / ".config/mini-torrent/bcast"
    assert credentials.stat().st_mode & 0o777 == 0o600


def refused(room: Room, weights: Path) -> None:
    """Faults of `mt-bcast` and the prolog that they refuse."""
    job = room.machine("job")
    weights.write_bytes(b"other")
    for line, code, text in (
        ("mt-bcast weights.bin /local/weights.bin", 1, "mt-bcast: n2: error: "),
        ("mt-bcast nothing /local/", 1, "nothing: no such file"),
        ("mt-bcast --send-libs weights.bin /local/", 2, "usage: "),
        ("mt-bcast -t soon weights.bin /local/", 2, "whole seconds"),
        ("unset SLURM_JOB_NODELIST; mt-bcast weights.bin /local/", 1, "no job of Slurm"),
        ("MT_BCAST_CREDENTIALS=/none mt-bcast weights.bin /local/", 1, "/none cannot be read"),
    ):
        ran = job.run(line)
        assert (ran.code, text in ran.err) == (code, True), str(ran)
    assert (room.machine("n2").folder / "local/weights.bin").stat().st_size > 5
    prolog = room.machine("submit").run("sbatch --comment=mt:nothing job.sh")
    assert (prolog.code, "nothing was not fetched" in prolog.err) == (0, True), str(prolog)


def ansible(room: Room) -> None:
    yaml = pytest.importorskip("yaml")
    room.play("ansible.md", {"list-members": lambda: run_role(room, yaml)})
    room.has("web1", "srv/fleet/tokens.bin", like=room.machine("head").folder / "tokens.bin")


def run_role(room: Room, yaml: Any) -> None:
    """Run the commands of the role's tasks twice; other modules are for Ansible to run."""
    [play] = yaml.safe_load((ROLE.parents[1] / "site.yml").read_text())
    assert play["roles"] == [ROLE.name]
    values = {
        **yaml.safe_load((ROLE / "defaults/main.yml").read_text()),
        "mini_torrent_invite": room.link,
        "mini_torrent_program": "mini-torrent",
        "mini_torrent_account": "web1",
        "mini_torrent_password": "p" * 64,
    }
    page = (RECIPES / "ansible.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) <= {
        *values,
        "mini_torrent_secret",
    }

    def filled(text: str) -> str:
        return re.sub(r"\{\{ (\w+) \}\}", lambda found: str(values[found[1]]), text)

    def commands(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for task in tasks:
            assert task["name"]
            yield from commands(task.get("block", []))
            if command := task.get("ansible.builtin.command"):
                assert "changed_when" in task or "creates" in command
                yield {**command, "may_fail": task.get("failed_when") is False}

    tasks = yaml.safe_load((ROLE / "tasks/main.yml").read_text())
    for _ in range(2):
        for command in commands(tasks):
            words = " ".join(f"'{filled(word)}'" for word in command["argv"])
            words = words.replace("'/srv", f"'{room.machine('web1').folder}/srv")
            if command["may_fail"]:
                words += " || true"
            room.run("web1", words, stdin=filled(command.get("stdin", "")))


def systemd(room: Room) -> None:
    room.play("systemd.md")
    unit = room.machine("pc01").folder / ".config/systemd/user/mini-torrent.service"
    assert not unit.exists()
    machine = room.machine("pc01")
    wait_for(lambda: machine.run("mini-torrent status").code == 3, "the end of the peer")
