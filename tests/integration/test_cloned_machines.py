"""A copy of a machine, with the same device key, beside the machine itself."""

from __future__ import annotations

import shutil

from tests.support.processes import Person, Swarm

SOCKETS = shutil.ignore_patterns("*.sock")


def test_h63_a_copy_of_a_machine_is_refused_and_harms_nothing(swarm: Swarm) -> None:
    alice = swarm.person(swarm.fresh("alice"))
    group = alice.group_with()
    alice.share(swarm.file(1000, "before.bin"), group)
    alice.down()
    copy = Person(swarm, alice.name, swarm.root / swarm.fresh("copy"))
    copy.password = alice.password
    shutil.copytree(alice.home, copy.home, ignore=SOCKETS)
    alice.up()
    alice.share(swarm.file(1000, "since.bin"), group)

    copy.ok("up")
    status = copy.status()
    assert not status["connected"]
    online = f"a peer with this device key is online at {alice.status()['listen']}"
    assert online in status["trouble"]
    assert online in copy.refused("list-groups")
    hint = copy.run("list-groups").err.splitlines()[-1]
    assert hint.endswith(f": mini-torrent --home {copy.home} up --new-device-key")
    assert set(alice.files(group)) == {"before.bin", "since.bin"}

    said = copy.ok("up", "--new-device-key")
    assert "login" in said
    assert copy.status()["device"] != alice.status()["device"]
    copy.ok("login", alice.name, copy.password)
    files = alice.files(group)
    assert set(files) == {"before.bin", "since.bin"}
    assert files["since.bin"]["seeders"] == 1
    assert alice.status()["connected"]
    # A peer that was killed comes back at once: it is the same machine.
    alice.kill()
    alice.up()
    assert alice.status()["connected"]
    for person in (alice, copy):
        person.down()


def test_h63_a_copy_that_comes_first_is_the_peer_until_it_goes(swarm: Swarm) -> None:
    bert = swarm.person(swarm.fresh("bert"))
    bert.down()
    copy = Person(swarm, bert.name, swarm.root / swarm.fresh("copy"))
    shutil.copytree(bert.home, copy.home, ignore=SOCKETS)
    copy.up()
    bert.up()
    assert not bert.status()["connected"]
    copy.down()
    bert.ok("list-groups")
    bert.down()
