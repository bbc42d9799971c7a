"""The commands about groups, the owner's among them, by real processes."""

from __future__ import annotations

import json

import pytest

from tests.support.processes import Person, Swarm
from tests.support.waiting import wait_for


def groups(person: Person) -> dict[str, dict[str, object]]:
    return {row["group"]: row for row in person.json("list-groups")}


def users(person: Person, command: str, group: str) -> dict[str, str]:
    return {row["user"]: row["role"] for row in person.json(command, group)}


def test_the_creator_owns_a_group_and_everybody_sees_it(
    swarm: Swarm, alice: Person, bob: Person, carol: Person
) -> None:
    group = swarm.fresh("group")
    alice.ok("create-group", group)
    assert groups(alice)[group] == {
        "group": group,
        "owner": "alice",
        "members": 1,
        "role": "owner",
    }
    assert groups(bob)[group]["role"] == "none"
    bob.ok("join-group", group)
    assert groups(bob)[group]["role"] == "pending"
    carol.ok("join-group", group)
    alice.ok("accept-request", group, "bob")
    assert groups(bob)[group] == {
        "group": group,
        "owner": "alice",
        "members": 2,
        "role": "member",
    }
    assert groups(carol)[group]["role"] == "pending"


@pytest.mark.parametrize("change_case", [False, True])
def test_a_taken_group_is_refused(
    swarm: Swarm, alice: Person, bob: Person, change_case: bool
) -> None:
    group = alice.group_with()
    typed = group.upper() if change_case else group
    assert group in bob.refused("create-group", typed)
    assert groups(bob)[group]["owner"] == "alice"


def test_groups_and_users_are_compared_without_case(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with()
    bob.ok("join-group", group.upper())
    alice.ok("accept-request", group.capitalize(), "BOB")
    assert users(bob, "list-members", group.upper()) == {"alice": "owner", "bob": "member"}


def test_a_user_may_be_in_many_groups(swarm: Swarm, alice: Person, bob: Person) -> None:
    mine = [alice.group_with(bob) for _ in range(3)]
    for group in mine:
        path = swarm.file(1000)
        alice.share(path, group)
        bob.fetch(group, path.name, swarm.folder())
    assert {groups(bob)[group]["role"] for group in mine} == {"member"}


def test_requests_are_listed_accepted_and_rejected(
    swarm: Swarm, alice: Person, bob: Person, carol: Person
) -> None:
    group = alice.group_with()
    for person in (bob, carol):
        person.ok("join-group", group)
    assert users(alice, "list-requests", group) == {"bob": "pending", "carol": "pending"}
    alice.ok("accept-request", group, "bob")
    alice.ok("reject-request", group, "carol")
    assert alice.json("list-requests", group) == []
    assert users(alice, "list-members", group) == {"alice": "owner", "bob": "member"}
    assert groups(carol)[group]["role"] == "none"
    carol.refused("list-files", group)
    carol.ok("join-group", group)
    assert users(alice, "list-requests", group) == {"carol": "pending"}


def test_join_group_waits_for_the_answer(
    swarm: Swarm, alice: Person, bob: Person, carol: Person
) -> None:
    group = alice.group_with()
    assert "not answered" in bob.refused("join-group", group, "--wait", "--timeout", "1s", code=6)
    yes = bob.spawn("--json", "join-group", group.upper(), "--wait")
    no = carol.spawn("join-group", group, "--wait")
    wait_for(lambda: len(alice.json("list-requests", group)) == 2)
    alice.ok("accept-request", group, "bob")
    alice.ok("reject-request", group, "carol")
    assert json.loads(yes.communicate()[0]) == {"group": group, "user": "bob", "role": "member"}
    assert "did not accept" in no.communicate()[1]
    assert (yes.returncode, no.returncode) == (0, 1)
    assert "is a member" in bob.ok("join-group", group, "--wait")
    bob.refused("join-group", group, "--timeout", "1s", code=2)


def test_a_user_may_withdraw_a_request(alice: Person, bob: Person) -> None:
    group = alice.group_with()
    bob.ok("join-group", group)
    bob.ok("leave-group", group)
    assert alice.json("list-requests", group) == []
    alice.refused("accept-request", group, "bob")


@pytest.mark.parametrize(
    "words",
    [
        ("list-requests",),
        ("accept-request", "carol"),
        ("reject-request", "carol"),
        ("remove-member", "alice"),
    ],
    ids=lambda words: words[0],
)
def test_the_owners_commands_are_for_the_owner_alone(
    alice: Person, bob: Person, carol: Person, words: tuple[str, ...]
) -> None:
    group = alice.group_with(bob)
    command, *rest = words
    assert "owner" in bob.refused(command, group, *rest)
    # To a stranger the group might as well not be there.
    stranger = carol.refused(command, group, *rest)
    assert stranger.replace(group, "G") == carol.refused(command, "nosuchgroup", *rest).replace(
        "nosuchgroup", "G"
    )
    carol.ok("join-group", group)
    assert "has not answered yet" in carol.refused(command, group, *rest)
    assert users(alice, "list-requests", group) == {"carol": "pending"}
    assert users(alice, "list-members", group) == {"alice": "owner", "bob": "member"}


def test_leaving_stops_ones_sharing_there_and_nowhere_else(
    swarm: Swarm, alice: Person, bob: Person, carol: Person
) -> None:
    left, kept = alice.group_with(bob, carol), alice.group_with(bob, carol)
    path = swarm.file(100_000)
    for group in (left, kept):
        bob.share(path, group)
    bob.ok("leave-group", left)
    assert path.name not in carol.files(left)
    assert carol.files(kept)[path.name]["seeders"] == 1
    bob.refused("list-files", left)
    bob.refused("upload-file", path, left)
    carol.fetch(kept, path.name, swarm.folder())
    assert users(alice, "list-members", left) == {"alice": "owner", "carol": "member"}
    # A member who comes back begins anew: former shares are not shared again by themselves.
    alice.let_in(left, bob)
    assert bob.files(left) == {}


def test_ownership_passes_to_the_longest_standing_member(
    alice: Person, bob: Person, carol: Person
) -> None:
    group = carol.group_with(bob, alice)
    told = carol.refused("leave-group", group)
    assert "you own" in told
    assert group in groups(carol)
    left = carol.json("leave-group", group, "--yes")
    assert left == {
        "group": group,
        "user": "carol",
        "role": "none",
        "new_owner": "bob",
        "deleted": False,
    }
    assert users(alice, "list-members", group) == {"alice": "member", "bob": "owner"}
    assert groups(carol)[group] == {
        "group": group,
        "owner": "bob",
        "members": 2,
        "role": "none",
    }
    carol.ok("join-group", group)
    assert "owner" in alice.refused("accept-request", group, "carol")
    bob.ok("accept-request", group, "carol")
    assert users(alice, "list-members", group)["carol"] == "member"


def test_the_last_member_dissolves_the_group(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    path = swarm.file(1000)
    alice.share(path, group)
    alice.ok("leave-group", group, "--yes")
    wait_for(lambda: "only member" in bob.run("leave-group", group).err)
    assert bob.ok("leave-group", group, "--yes") == f"left {group}; the group no longer exists\n"
    assert group not in groups(alice)
    bob.ok("create-group", group)
    assert groups(bob)[group]["members"] == 1
    assert bob.files(group) == {}


def test_a_removed_member_is_out_at_once(
    swarm: Swarm, alice: Person, bob: Person, carol: Person
) -> None:
    group = alice.group_with(bob, carol)
    path, other = swarm.file(100_000), swarm.file(100_000)
    alice.share(path, group)
    bob.share(other, group)
    alice.ok("remove-member", group, "bob")
    bob.refused("list-files", group)
    bob.refused("download-file", group, path.name, swarm.folder())
    assert list(carol.files(group)) == [path.name]
    wait_for(lambda: bob.run("stop-share", group, other.name).code == 1)
    assert "owner" in alice.refused("remove-member", group, "alice", code=2)
    assert "bob" in alice.refused("remove-member", group, "bob")


@pytest.mark.parametrize("way", ["left", "removed"])
def test_a_member_that_comes_back_may_fetch_and_serve_again(
    swarm: Swarm, alice: Person, bob: Person, carol: Person, way: str
) -> None:
    group = alice.group_with(bob, carol)
    first, second, own = (swarm.file(100_000) for _ in range(3))
    alice.share(first, group)
    bob.fetch(group, first.name, swarm.folder())
    carol.fetch(group, first.name, swarm.folder())
    for _ in range(2):
        if way == "left":
            bob.ok("leave-group", group)
        else:
            alice.ok("remove-member", group, "bob")
        alice.let_in(group, bob)
    alice.share(second, group)
    bob.fetch(group, second.name, swarm.folder())
    bob.share(own, group)
    got = carol.fetch(group, own.name, swarm.folder())
    assert [source["user"] for source in got["sources"]] == ["bob"]


def test_leaving_twice_or_a_group_of_others_is_refused(alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    bob.ok("leave-group", group)
    assert bob.refused("leave-group", group).replace(group, "G") == bob.refused(
        "leave-group", "nosuchgroup"
    ).replace("nosuchgroup", "G")


def test_a_member_does_not_ask_again(alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    assert "member" in bob.refused("join-group", group)
    assert alice.json("list-requests", group) == []


def test_requests_are_told_on_both_sides(swarm: Swarm, alice: Person, bob: Person) -> None:
    group, other = alice.group_with(), alice.group_with()
    watching = bob.spawn("watch")
    assert watching.stderr is not None
    assert watching.stderr.readline() == "watching all your groups; Ctrl-C ends it\n"
    for one in (group, other):
        bob.ok("join-group", one)
    for command in ("list-files", "list-members"):
        assert "has not answered yet" in bob.refused(command, group)
    assert "has not answered yet" in bob.refused("upload-file", swarm.file(10), group)
    assert "has not answered yet" in bob.refused("download-file", group, "x", swarm.folder())
    assert set(bob.status()["pending"]) >= {group, other}
    told = wait_for(alice.status, until=lambda status: other in status["requests_by_group"])
    assert told["requests_by_group"][group] == 1
    assert told["requests"] >= 2
    assert "requests" in alice.ok("status")
    alice.ok("accept-request", group, "bob")
    wait_for(lambda: group not in alice.status()["requests_by_group"])
    alice.ok("reject-request", other, "bob")
    assert watching.stdout is not None
    seen = set()
    while not {("accepted", group), ("rejected", other)} <= seen:
        words = watching.stdout.readline().replace("[", "").replace("]", "").split()
        seen |= {(event, name) for event in words for name in (group, other) if name in words}
    wait_for(lambda: other not in alice.status()["requests_by_group"])
    wait_for(lambda: not {group, other} & set(bob.status()["pending"]))
    watching.terminate()
