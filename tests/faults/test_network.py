"""Networks that come late, and addresses that change, with processes in network namespaces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.namespaces import Lan, Machine, lans
from tests.support.processes import Person, RunningTracker, Swarm
from tests.support.waiting import wait_for

SIZE = 300_000


@pytest.fixture
def lan() -> Iterator[Lan]:
    with lans() as made:
        yield made


@pytest.fixture
def swarm(lan: Lan) -> Iterator[Swarm]:
    """People on machines of a network; the tracker is at 10.78.0.1."""
    made = Swarm("tcp", tracker=False)
    try:
        with lan.machine("10.78.0.1").inside():
            made.tracker = RunningTracker(made, "t", "tcp://10.78.0.1:0")
        yield made
    finally:
        made.close()


def settle(swarm: Swarm, machine: Machine, name: str, *options: str) -> Person:
    """A person on ``machine`` with an account that is logged in."""
    person = Person(swarm, name)
    with machine.inside():
        person.up(*options)
    person.ok("create-user", name, person.password)
    person.ok("login", name, person.password)
    return person


def check(person: Person, name: str) -> tuple[bool, str]:
    """The finding of `doctor` about one thing."""
    ran = person.run("--json", "doctor")
    [row] = [row for row in ran.json if row["check"] == name]
    return row["ok"], row["found"]


def listed(person: Person) -> str:
    """The address of the only device of ``person``, as the tracker says."""
    [row] = person.json("list-devices")
    return str(row["address"])


def fetched(swarm: Swarm, source: Person, other: Person, group: str) -> None:
    """Let ``other`` fetch a new file of ``source``."""
    path = swarm.file(SIZE)
    source.share(path, group)
    dest = swarm.folder()
    other.fetch(group, path.name, dest)
    assert Path(dest, path.name).read_bytes() == path.read_bytes()


def test_f91_another_address_is_noticed_bound_and_announced(lan: Lan, swarm: Swarm) -> None:
    there, here = lan.machine("10.78.0.2"), lan.machine("10.78.0.3")
    anna, bert = settle(swarm, there, "anna"), settle(swarm, here, "bert")
    group = anna.group_with(bert)
    fetched(swarm, anna, bert, group)
    port = anna.status()["listen"].rpartition(":")[2]
    there.unplug()
    there.plug("10.78.0.77")
    told = wait_for(lambda: listed(anna), "the address", until=lambda at: ".77" in at)
    assert told == f"tcp://10.78.0.77:{port}", "at the port that it had"
    assert anna.status()["listen"] == told
    assert check(anna, "reachable") == (True, f"the tracker reached {told}")
    fetched(swarm, anna, bert, group)


@pytest.mark.parametrize("options", [(), ("--listen", "10.78.0.2:0")], ids=["left out", "given"])
def test_f92_a_peer_starts_before_its_network(
    lan: Lan, swarm: Swarm, options: tuple[str, ...]
) -> None:
    machine = lan.machine()
    early = Person(swarm, "early")
    with machine.inside():
        ran = early.run("up", "--tracker", swarm.tracker.link, *options)
    assert ran.code == 0, str(ran)
    assert "warning: the tracker cannot be reached" in ran.err
    if not options:  # a kernel without any address lets every address be bound
        assert ran.out == f"peer ready: not listening yet (tracker {swarm.tracker.link})\n"
        assert early.status()["listen"] == ""
        assert not check(early, "address")[0]
        assert "not listening yet" in early.ok("status")
    machine.plug("10.78.0.2")
    wait_for(lambda: early.status()["connected"], "the tracker")
    listen = wait_for(lambda: early.status()["listen"], "an address to listen at")
    assert listen.startswith("tcp://10.78.0.2:")
    early.ok("create-user", "early", early.password)
    early.ok("login", "early", early.password)
    late = settle(swarm, lan.machine("10.78.0.3"), "late")
    fetched(swarm, early, late, early.group_with(late))


@pytest.fixture
def beside(lan: Lan) -> Iterator[tuple[Swarm, Machine, str]]:
    """A tracker at all addresses of its machine, 10.78.0.1; the machine, and the tracker's link by
    127.0.0.1, as a user of that machine may have it."""
    made, machine = Swarm("tcp", tracker=False), lan.machine("10.78.0.1")
    try:
        with machine.inside():
            made.tracker = RunningTracker(made, "t", "tcp://0.0.0.0:0")
        yield made, machine, made.tracker.link.replace("10.78.0.1", "127.0.0.1")
    finally:
        made.close()


def test_a_peer_beside_the_tracker_is_told_that_others_cannot_reach_it(
    lan: Lan, beside: tuple[Swarm, Machine, str]
) -> None:
    swarm, machine, link = beside
    assert swarm.tracker.link.startswith("mini-torrent://10.78.0.1:"), "without a default route"
    near = Person(swarm, "near")
    with machine.inside():
        ran = near.run("up", "--tracker", link)
    assert ran.code == 0
    assert (
        "warning: other machines cannot reach this peer: they are told tcp://127.0.0.1:" in ran.err
    )
    named = f"mini-torrent --home {near.home}"
    assert ran.err.rstrip().endswith(f"{named} down && {named} up --advertise 10.78.0.1")
    ok, found = check(near, "address")
    assert not ok
    assert "127.0.0.1" in found
    near.down()
    with machine.inside():
        ran = near.run("up", "--advertise", "10.78.0.1")
    assert (ran.code, ran.err) == (0, "")
    near.ok("create-user", "near", near.password)
    near.ok("login", "near", near.password)
    ok, found = check(near, "address")
    assert ok, found
    assert "announced as tcp://10.78.0.1:" in found
    assert check(near, "reachable")[0]
    far = settle(swarm, lan.machine("10.78.0.2"), "far")
    fetched(swarm, near, far, near.group_with(far))
    near.down()
    with machine.inside():
        assert near.run("up").code == 0
    assert near.status()["advertise"] == "10.78.0.1", "it is remembered"


def test_doctor_reports_an_address_that_does_not_answer(lan: Lan, swarm: Swarm) -> None:
    anna = settle(swarm, lan.machine("10.78.0.2"), "anna", "--advertise", "10.78.0.99")
    wait_for(lambda: listed(anna), "the lease")
    ok, found = check(anna, "reachable")
    assert not ok
    assert "the tracker cannot connect to this peer at tcp://10.78.0.99:" in found
