"""The tour of the README, typed by two people, and compared with the output that it prints."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.pages import Machine, Step, steps
from tests.support.paths import ROOT
from tests.support.processes import Swarm, content

README = (ROOT / "README.md").read_text("utf-8")
TOUR = README.partition("## A tour in five minutes")[2].partition("\n## ")[0]
PASSWORDS = {"anna": "password of anna", "bert": "password of bert"}
# A size of the test is another than that of the page; keys, times and digests always differ.
_LINK = re.compile(r"mini-torrent://\S+?/[\w-]{43}(?:#[\w-]+)?")
_VALUES = [
    (_LINK, "LINK"),
    (re.compile(r"tcp://[\d.]+:\d+"), "ENDPOINT"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "DIGEST"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d"), "TIME"),
    (re.compile(r"\b[\d.]+ (?:s|[KMG]?i?B(?:/s)?)\b"), "AMOUNT"),
    (re.compile(r"\b\d+ pieces\b"), "PIECES"),
    (re.compile(r"(?<=its id is )\w+"), "ID"),
    (re.compile(r"(?<=^bert )[0-9a-f]{8}(?= has )"), "DEVICE"),
    (re.compile(r"(?<=AMOUNT {6}1 )\s*\d+"), "PIECES"),
    (re.compile(r"\S*/(?=lab\b)"), "FOLDER/"),
    (re.compile(r"  +"), " "),
]
_ASKED = ("Password:", "Repeat the password:", "User name:", "bert is a new name here")
_PROGRESS = re.compile(
    r"^\S+: (digesting|downloading|checking|waiting)\b|warning: the link names this"
)


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    made = Swarm(tracker=False)
    try:
        yield made
    finally:
        made.close()


def compared(text: str) -> list[str]:
    """The lines of ``text`` without what differs from run to run, and without questions."""
    lines = []
    for line in text.splitlines():
        if line.startswith(_ASKED) or _PROGRESS.match(line) or not line.strip():
            continue
        for pattern, word in _VALUES:
            line = pattern.sub(word, line)
        lines.append(line.strip())
    return lines


def answers(step: Step) -> str:
    """Answers to the questions of the page; standard input here is no terminal."""
    name = step.prompt.partition("@")[0]
    asked = [line for line in step.output.splitlines() if line.startswith(_ASKED[:3:2])]
    return "".join(f"{PASSWORDS[name] if 'Password' in line else name}\n" for line in asked)


def test_the_tour_prints_what_the_readme_shows(swarm: Swarm) -> None:
    machines = {name: Machine(swarm.root / name) for name in ("anna@one", "bert@two")}
    (machines["anna@one"].folder / "model.bin").write_bytes(content(3_000_000, 1))
    (machines["anna@one"].folder / "new.bin").write_bytes(content(3_000_000, 2))
    ours: dict[str, str] = {}
    for step in steps(TOUR):
        line = step.command
        for shown in _LINK.findall(line):
            line = line.replace(shown, ours[shown])
        ran = machines[step.prompt].run(
            line.replace("192.0.2.7:5000", "127.0.0.1:0"), stdin=answers(step)
        )
        refused = step.output.startswith("error: ")
        assert ran.code == (1 if refused else 0), str(ran)
        assert compared(ran.out + ran.err) == compared(step.output), str(ran)
        ours |= dict(zip(_LINK.findall(step.output), _LINK.findall(ran.out), strict=True))
    assert (machines["bert@two"].folder / "lab/model.bin").read_bytes() == content(3_000_000, 2)
