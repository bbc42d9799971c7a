"""change_password, list_devices and forget_device, by real processes."""

from __future__ import annotations

from typing import Any

from common.crypto.keys import parse_key
from tests.support.processes import Person, Swarm
from tests.support.waiting import wait_for


def id_of(person: Person) -> str:
    """The whole key of a device in hexadecimal: ids are its beginning."""
    return parse_key(person.status()["device"]).hex()


def two_devices(swarm: Swarm) -> tuple[Person, Person]:
    """A new user at two devices, each with a peer that runs."""
    desk = swarm.person(swarm.fresh("dave"))
    lap = desk.copy()
    lap.ok("login", lap.name, lap.password)
    return desk, lap


def rows(person: Person) -> dict[str, Any]:
    return {row["device"]: row for row in person.json("list-devices")}


def is_out(person: Person) -> None:
    """The person at that device learns it from the next command."""
    wait_for(lambda: person.status()["user"] is None, "the end of the login")
    assert person.status()["shares"] == 0
    assert "logged out" in person.status()["trouble"]
    for words in (["list-groups"], ["list-devices"], ["create-group", "any"]):
        assert person.refused(*words) == "no user is logged in on this device"
    assert '"code": "not-logged-in"' in person.run("--json", "list-groups").err


def test_the_devices_of_a_user_are_listed_with_who_is_there(swarm: Swarm, alice: Person) -> None:
    desk, lap = two_devices(swarm)
    here, there = desk.status(), lap.status()
    wait_for(lambda: all(row["online"] for row in rows(desk).values()), "both")
    found = rows(desk)
    assert list(found) == [here["device"], there["device"]]  # the newest login last
    for status, row in zip((here, there), found.values(), strict=True):
        assert row["address"] == status["listen"]
        assert row["this"] == (status is here)
        assert parse_key(status["device"]).hex().startswith(row["id"])
        assert len(row["id"]) >= 8
        assert status["id"] == row["id"]
        assert row["bound"] <= row["seen"]
    assert "this one" in desk.ok("list_devices")
    [shown] = [line for line in lap.ok("status").splitlines() if line.startswith("device")]
    assert shown.split() == ["device", lap.status()["id"]]
    assert lap.status()["id"] in desk.ok("list-devices")
    assert there["device"] not in rows(alice)
    lap.down()
    row = wait_for(lambda: rows(desk)[there["device"]], until=lambda row: not row["online"])
    assert row["address"] is None
    desk.down()


def test_a_changed_password_logs_out_the_other_devices(swarm: Swarm, alice: Person) -> None:
    desk, lap = two_devices(swarm)
    group = desk.group_with(alice)
    path = swarm.file(100_000)
    lap.share(path, group)
    wait_for(lambda: alice.files(group)[path.name]["seeders"] == 1, "the share")
    assert desk.refused("change-password", "not it", "fresh one") == "the old password is wrong"
    assert desk.refused("change-password", desk.password, desk.password, code=2)
    assert desk.refused("change-password", desk.password, "", code=2)
    assert desk.refused("change-password", desk.password, "x" * 1025, code=2)
    assert lap.status()["user"] == lap.name
    said = desk.json("change_password", desk.password, "fresh one")
    assert said == {"user": desk.name, "logged_out": 1}
    is_out(lap)
    wait_for(lambda: alice.files(group)[path.name]["seeders"] == 0, "the end of the share")
    assert desk.status()["user"] == desk.name
    lap.refused("login", lap.name, lap.password)
    lap.ok("login", lap.name, "fresh one")
    assert lap.status()["trouble"] is None
    wait_for(lambda: alice.files(group)[path.name]["seeders"] == 1, "the share again")
    assert alice.fetch(group, path.name, swarm.folder())["sources"]
    for device in (desk, lap):
        device.down()


def test_the_other_devices_may_be_kept(swarm: Swarm) -> None:
    desk, lap = two_devices(swarm)
    text = desk.ok("change-password", "--keep-devices", stdin=f"{desk.password}\nfresh one\n")
    assert text == "password changed; your other devices stay logged in\n"
    assert lap.json("list-groups") is not None
    assert lap.status()["user"] == lap.name
    lap.ok("logout")
    lap.refused("login", lap.name, lap.password)
    lap.ok("login", lap.name, "fresh one")
    for device in (desk, lap):
        device.down()


def test_all_of_it_outlives_a_killed_tracker(own_swarm: Swarm) -> None:
    desk, lap = two_devices(own_swarm)
    lost = desk.copy()
    lost.ok("login", lost.name, lost.password)
    device = lost.status()["device"]
    wait_for(lambda: rows(desk)[device]["online"], "the device that will be lost")
    before = rows(desk)[device]
    lost.kill()
    desk.ok("change-password", "--keep-devices", desk.password, "fresh one")
    desk.ok("forget-device", id_of(lap))
    own_swarm.tracker.kill()
    own_swarm.tracker.start()
    for each in (desk, lap):
        wait_for(lambda each=each: each.status()["connected"], "the tracker")
    is_out(lap)
    lap.refused("login", lap.name, lap.password)
    lap.ok("login", lap.name, "fresh one")
    after = rows(desk)[device]
    assert not after["online"]
    assert after["bound"] == before["bound"] <= after["seen"] <= before["seen"]
    for each in (desk, lap):
        each.down()


def test_a_lost_device_is_forgotten_from_elsewhere(swarm: Swarm, alice: Person) -> None:
    desk, lap = two_devices(swarm)
    group = desk.group_with(alice)
    path = swarm.file(100_000)
    alice.share(path, group)
    lap.fetch(group, path.name, swarm.folder())
    wait_for(lambda: alice.files(group)[path.name]["seeders"] == 2, "both seeders")
    short = rows(desk)[lap.status()["device"]]["id"]
    assert desk.ok("forget_device", short) == f"device {short} is logged out\n"
    is_out(lap)
    wait_for(lambda: alice.files(group)[path.name]["seeders"] == 1, "one seeder fewer")
    assert lap.refused("download-file", group, path.name, swarm.folder())
    assert lap.refused("upload-file", path, group)
    assert list(rows(desk)) == [desk.status()["device"]]
    # It is the device that was logged out, for good, and no other one.
    lap.restart()
    assert lap.status()["user"] is None
    assert desk.json("list-groups")
    alice.fetch(group, path.name, swarm.folder())
    lap.ok("login", lap.name, lap.password)
    assert wait_for(lambda: alice.files(group)[path.name]["seeders"] == 2, "both again")
    for device in (desk, lap):
        device.down()


def test_a_device_that_was_away_when_it_was_forgotten_learns_of_it(swarm: Swarm) -> None:
    desk, lap = two_devices(swarm)
    lap_id = id_of(lap)
    lap.down()
    desk.ok("forget-device", lap_id)
    lap.up()
    assert lap.status()["user"] is None
    assert lap.refused("list-groups") == "no user is logged in on this device"
    for device in (desk, lap):
        device.down()


def test_which_device_is_meant_must_be_clear_and_all_of_it_works_at_the_prompt(
    swarm: Swarm, alice: Person
) -> None:
    desk, lap = two_devices(swarm)
    assert "not logged in on a device" in desk.refused("forget-device", id_of(alice))
    assert '"code": "unknown-device"' in desk.run("--json", "forget-device", "lost").err
    assert "too short" in desk.refused("forget-device", id_of(lap)[:3], code=2)
    assert len(rows(desk)) == 2
    script = (
        f"list_devices\nchange_password\n{desk.password}\nfresh one\nforget_device lost\nquit\n"
    )
    ran = desk.run("shell", stdin=script)
    assert ran.code == 1  # that of the first command that failed
    assert "this one" in ran.out
    assert "1 other device was logged out" in ran.out
    assert "not logged in on a device" in ran.err
    is_out(lap)
    assert desk.ok("forget-device", id_of(desk)).startswith("logged out; ")
    assert desk.status()["user"] is None
    for device in (desk, lap):
        device.down()
