"""create_user, login and logout, by real processes."""

from __future__ import annotations

import sqlite3

import pytest

from tests.support.processes import Person, Swarm
from tests.support.waiting import wait_for


def seeders(person: Person, group: str, name: str) -> int:
    return int(person.files(group)[name]["seeders"])


@pytest.mark.parametrize("taken", ["alice", "ALICE"])
def test_a_taken_name_is_refused(bob: Person, taken: str) -> None:
    before = bob.status()
    assert "taken" in bob.refused("create-user", taken, "some password")
    ran = bob.run("--json", "create-user", taken, "some password")
    assert '"code": "taken"' in ran.err
    assert bob.status() == before


def test_a_wrong_password_and_an_unknown_user_are_refused_in_the_same_words(
    swarm: Swarm, bob: Person
) -> None:
    name = swarm.fresh("user")
    bob.ok("create-user", name, "the right one")
    wrong = bob.refused("login", name, "the wrong one", "--yes")
    unknown = bob.refused("login", swarm.fresh("nobody"), "the wrong one", "--yes")
    assert wrong == unknown
    assert bob.status()["user"] == "bob"


def test_a_password_left_out_is_a_line_of_standard_input(swarm: Swarm) -> None:
    person = Person(swarm, swarm.fresh("user"))
    person.up()
    person.ok("create-user", person.name, stdin="pass word\n")
    person.refused("login", person.name, "pass", code=1)
    person.ok("login", person.name, stdin="pass word\n")
    assert person.status()["user"] == person.name
    person.down()


def test_passwords_are_kept_as_argon2id_alone(swarm: Swarm, alice: Person) -> None:
    database = swarm.tracker.home / "tracker.db"
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        rows = connection.execute("select password_hash from accounts").fetchall()
    assert rows
    assert all(hashed.startswith("$argon2id$v=19$m=65536,t=3,p=1$") for (hashed,) in rows)
    kept = [path for path in swarm.tracker.home.iterdir() if path.is_file()]
    for path in [*kept, swarm.tracker.log, alice.home / "peer.log"]:
        assert alice.password.encode() not in path.read_bytes(), path


def test_logout_stops_all_sharing_and_login_brings_it_back(swarm: Swarm, alice: Person) -> None:
    dave = swarm.person(swarm.fresh("dave"))
    groups = [dave.group_with(alice), alice.group_with(dave)]
    path = swarm.file(100_000)
    for group in groups:
        dave.share(path, group)
        assert seeders(alice, group, path.name) == 1
    dave.ok("logout")
    assert dave.status()["user"] is None
    assert dave.status()["shares"] == 0
    for group in groups:
        wait_for(lambda g=group: seeders(alice, g, path.name) == 0, "the end of sharing")
    # Nothing is left that needs a login, and nothing of it comes back by a restart alone.
    dave.refused("list-files", groups[0])
    dave.restart()
    assert dave.status()["user"] is None
    dave.ok("login", dave.name, dave.password)
    for group in groups:
        wait_for(lambda g=group: seeders(alice, g, path.name) == 1, "the earlier shares")
    assert dave.status()["shares"] == 2
    assert alice.fetch(groups[0], path.name, swarm.folder())["sources"][0]["user"] == dave.name
    dave.down()


def test_a_restarted_peer_is_logged_in_by_its_key(swarm: Swarm, alice: Person) -> None:
    dave = swarm.person(swarm.fresh("dave"))
    group = dave.group_with(alice)
    path = swarm.file(1000)
    dave.share(path, group)
    device = dave.status()["device"]
    dave.restart()
    assert dave.status()["user"] == dave.name
    assert dave.status()["device"] == device
    wait_for(lambda: seeders(alice, group, path.name) == 1, "the share")
    alice.fetch(group, path.name, swarm.folder())
    dave.down()


def test_a_user_may_come_from_another_address(swarm: Swarm, alice: Person) -> None:
    dave = swarm.person(swarm.fresh("dave"))
    group = dave.group_with(alice)
    path = swarm.file(1000)
    dave.share(path, group)
    before = dave.status()["listen"]
    dave.down()
    dave.up("--listen", swarm.any_endpoint(swarm.fresh("listen")))
    assert dave.status()["listen"] != before
    got = wait_for(lambda: alice.fetch(group, path.name, swarm.folder()))
    assert got["sources"] == [{"user": dave.name, "endpoint": dave.status()["listen"], "pieces": 1}]
    dave.down()


def test_a_user_may_have_several_devices(swarm: Swarm, alice: Person) -> None:
    desk = swarm.person(swarm.fresh("dave"))
    group = desk.group_with(alice)
    lap = desk.copy()
    lap.ok("login", lap.name, lap.password)
    assert lap.status()["device"] != desk.status()["device"]
    assert desk.status()["user"] == lap.status()["user"] == desk.name
    path = swarm.file(200_000)
    desk.share(path, group)
    lap.fetch(group, path.name, swarm.folder())
    row = wait_for(lambda: alice.files(group)[path.name], until=lambda row: row["seeders"] == 2)
    assert row["shared_by"] == [desk.name]
    online = {row["user"]: row["online"] for row in alice.json("list-members", group)}
    assert online[desk.name] == 2
    desk.ok("logout")
    wait_for(lambda: seeders(alice, group, path.name) == 1, "one device fewer")
    assert lap.status()["user"] == desk.name
    got = alice.fetch(group, path.name, swarm.folder())
    assert [source["endpoint"] for source in got["sources"]] == [lap.status()["listen"]]
    for device in (desk, lap):
        device.down()


def test_another_user_of_the_device_does_not_share_what_the_first_one_did(
    swarm: Swarm, alice: Person
) -> None:
    dave = swarm.person(swarm.fresh("dave"))
    group = dave.group_with(alice)
    path = swarm.file(1000)
    dave.share(path, group)
    dave.ok("logout")
    erin = swarm.fresh("erin")
    dave.ok("create-user", erin, "another password")
    dave.ok("login", erin, "another password")
    dave.ok("join-group", group)
    alice.refused("accept-request", group, erin)  # only the owner may, who is away
    assert seeders(alice, group, path.name) == 0
    assert dave.status() | {"shares": 0} == dave.status()
    dave.ok("logout")
    dave.ok("login", dave.name, dave.password)
    dave.ok("accept-request", group, erin)
    dave.ok("logout")
    dave.ok("login", erin, "another password")
    assert dave.files(group)[path.name]["shared_by"] == [dave.name]
    assert seeders(dave, group, path.name) == 0
    assert dave.status()["shares"] == 0
    dave.down()


def test_a_login_over_another_one_is_refused_or_replaces_it(swarm: Swarm) -> None:
    dave = swarm.person(swarm.fresh("dave"))
    erin = swarm.fresh("erin")
    dave.ok("create-user", erin, "another password")
    group = dave.group_with()
    dave.share(swarm.file(10), group)
    # No question can be asked here: a running peer is not ended without a word.
    assert "1 share and" in dave.refused("login", erin, "another password")
    assert dave.status()["user"] == dave.name
    dave.ok("login", erin, "another password", "--yes")
    assert dave.status()["user"] == erin
    dave.ok("login", dave.name, dave.password)  # nothing runs: nothing to ask
    dave.down()
