"""Joining by an invitation, as people do it: one pasted line on a fresh machine."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from common.host.home import lock_holder
from common.invitation import parse_invitation
from tests.support.processes import Person, RunningTracker, Swarm
from tests.support.waiting import wait_for

TCP_ONLY = True

# The transport makes no difference here, and each newcomer is a start of a peer.
pytestmark = pytest.mark.parametrize("transport", ["tcp"], indirect=True)


@pytest.fixture
def group(alice: Person) -> str:
    return alice.group_with()


def invitation(owner: Person, group: str, *options: str) -> str:
    link: str = owner.json("invite", group, *options)["link"]
    return link


@pytest.fixture
def newcomer(swarm: Swarm) -> Person:
    """A machine on which nothing has run yet."""
    return Person(swarm, swarm.fresh("newcomer"))


def test_one_pasted_line_makes_a_member_on_a_fresh_machine(
    alice: Person, newcomer: Person, group: str
) -> None:
    out = alice.ok("invite", group, "--uses", "1")
    program, *words = shlex.split(out)
    assert (program, words[0], out.count("\n")) == ("mini-torrent", "join", 1)
    said = newcomer.ok(*words, stdin=f"{newcomer.name}\n{newcomer.password}\n")
    assert f"{newcomer.name} is a member of {group}" in said
    status = newcomer.status()
    assert (status["user"], status["connected"]) == (newcomer.name, True)
    [alice_row, row] = alice.json("list-members", group)
    assert (alice_row["role"], row["user"], row["role"]) == ("owner", newcomer.name, "member")
    # The tracker is remembered, and so is the login.
    newcomer.restart()
    assert newcomer.status()["user"] == newcomer.name
    newcomer.ok("join", words[1])
    newcomer.ok("join", words[1], newcomer.name, newcomer.password)
    [row] = alice.json("list-invites", group)
    assert (row["used"], row["uses"]) == (1, 1)


def test_join_asks_nothing_when_all_is_given_and_logs_in_an_account(
    swarm: Swarm, alice: Person, newcomer: Person, group: str
) -> None:
    """The nodes of a cluster: one user, one use."""
    link = invitation(alice, group)
    words = ("join", link, newcomer.name, newcomer.password)
    first = newcomer.json(*words)
    assert first == {"group": group, "user": newcomer.name, "by": alice.name, "created": True}
    node = Person(swarm, newcomer.name)
    assert node.json(*words) == {**first, "created": False}
    assert (
        node.refused("join", link, "another-user") == f"{newcomer.name} is logged in on this device"
    )


def test_members_see_who_invited_whom(alice: Person, newcomer: Person, group: str) -> None:
    watching = alice.spawn("--json", "watch", group)
    assert watching.stdout is not None
    newcomer.ok("join", invitation(alice, group), newcomer.name, newcomer.password)
    for line in watching.stdout:
        event = json.loads(line)
        if event["event"] == "joined":
            assert (event["user"], event["by"]) == (newcomer.name, alice.name)
            break
    watching.terminate()


def test_a_request_is_closed_by_an_invitation(alice: Person, bob: Person, group: str) -> None:
    bob.ok("join-group", group)
    bob.ok("join", invitation(alice, group))
    assert alice.json("list-requests", group) == []
    assert bob.status()["user"] == bob.name


@pytest.mark.parametrize("fault", ["revoked", "wrong password"])
def test_a_join_that_fails_leaves_nothing_behind(
    swarm: Swarm, alice: Person, bob: Person, newcomer: Person, group: str, fault: str
) -> None:
    link = invitation(alice, group)
    name, password = newcomer.name, newcomer.password
    match fault:
        case "revoked":
            [row] = alice.json("list-invites", group)
            alice.ok("revoke-invite", group, row["id"])
        case "wrong password":
            name, password = bob.name, "not the right one"
    said = newcomer.refused("join", link, name, password)
    assert {
        "revoked": "no such invitation",
        "wrong password": "this is not its password",
    }[fault] in said
    assert lock_holder(newcomer.home) is None, "no peer was left running"
    assert not (newcomer.home / "peer.toml").exists(), "no tracker is remembered"


def test_h117_the_secret_is_in_no_log_of_either_side(
    swarm: Swarm, alice: Person, newcomer: Person, group: str
) -> None:
    link = invitation(alice, group)
    secret = link.partition("#")[2]
    lines = f"{link}\n{newcomer.name}\n{newcomer.password}\n"
    newcomer.ok("join", "-", stdin=lines)  # in no list of processes either
    for words in (["join", link[:-2]], ["join", link, "x" * 99], ["up", link], ["jion", link]):
        said = newcomer.run(*words)
        assert said.code == 2, str(said)
        assert secret[:-2] not in said.err, str(said)
    wrong = secret.encode(), parse_invitation(link).proof, parse_invitation(link).secret
    kept = [*swarm.root.glob("*.log"), *swarm.tracker.home.iterdir(), *newcomer.home.rglob("*")]
    for path in kept:
        if path.is_file():
            content = path.read_bytes()
            assert not [form for form in wrong if form in content], path


@contextmanager
def second_tracker(swarm: Swarm) -> Iterator[RunningTracker]:
    other = RunningTracker(swarm, swarm.fresh("t"), swarm.any_endpoint(swarm.fresh("t")))
    try:
        yield other
    finally:
        other.end()


def test_a_logged_in_device_refuses_an_invitation_of_another_tracker(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    with second_tracker(swarm) as other:
        owner = Person(swarm, swarm.fresh("owner"))
        owner.up(tracker=other.link)
        owner.ok("create-user", owner.name, owner.password)
        owner.ok("login", owner.name, owner.password)
        link = invitation(owner, owner.group_with())
        pid = bob.pid
        said = bob.refused("join", link, bob.name, bob.password)
        assert f"logged in as {bob.name} at {swarm.tracker.link}" in said
        assert (bob.pid, bob.status()["user"]) == (pid, bob.name)
        # A device without a user changes to the tracker of the invitation.
        idle = Person(swarm, swarm.fresh("idle"))
        idle.up()
        idle.ok("join", link, idle.name, idle.password)
        idle.restart()
        assert (idle.status()["tracker"], idle.status()["user"]) == (other.link, idle.name)
        # One that fails goes back.
        back = Person(swarm, swarm.fresh("back"))
        back.up()
        failed = back.run("join", link, back.name, back.password)
        assert (failed.code, "used up" in failed.err) == (1, True), str(failed)
        assert back.status()["tracker"] == swarm.tracker.link
        owner.down()
        idle.down()


def test_the_code_for_telephones_is_drawn_for_pipes_and_terminals(
    alice: Person, group: str
) -> None:
    pytest.importorskip("segno")
    from peer.cli.qr_code import drawn

    lines = alice.ok("invite", group, "--qr").splitlines()
    assert lines[0].startswith("mini-torrent join ")
    assert len({len(line) for line in lines[1:]}) == 1
    assert set("".join(lines[1:])) == set(" ▀▄█")
    for line in drawn("text", colours=True).splitlines():
        assert line.startswith("\x1b[38;5;16;48;5;231m")
        assert line.endswith("\x1b[0m")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--uses", "0"], 2),
        (["--uses", "1000000"], 2),
        (["--expires", "soon"], 2),
        (["--expires", "9999d"], 2),
    ],
)
def test_bounds_of_an_invitation_are_named(
    alice: Person, group: str, words: list[str], code: int
) -> None:
    alice.refused("invite", group, *words, code=code)
    assert alice.json("list-invites", group) == []


def test_an_invitation_ends_at_its_time(alice: Person, newcomer: Person, group: str) -> None:
    short = alice.json("invite", group, "--expires", "1s")
    wait_for(lambda: alice.json("list-invites", group), until=lambda found: found == [])
    assert "expired" in newcomer.refused("join", short["link"], "dora", "secret-pw")


def test_the_document_of_an_invitation(alice: Person, group: str) -> None:
    row: Any = alice.json("invite", group, "--uses", "3", "--expires", "12h")
    assert set(row) == {"group", "id", "link", "uses", "expires"}
    assert (row["group"], row["uses"]) == (group, 3)
    [listed] = alice.json("list-invites", group)
    assert listed["id"] == row["id"]
    assert listed["expires"] == row["expires"]
    wait_for(lambda: alice.json("list-invites", group) == [listed], "the list")
