"""Long random sessions of several people, compared with a model of what they should see.

A step is a command, an end or a restart; after each of them everybody's listings are compared with
the model. ``MODEL_SEED`` replays a session, ``MODEL_STEPS`` makes it
longer.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.processes import Swarm, content
from tests.support.waiting import wait_for

STEPS = int(os.environ.get("MODEL_STEPS", "60"))
NAMES = ("film", "song", "two words")
GROUPS = ("red", "green", "blue")
SIZES = (0, 1, 20_000, 600_000)


@dataclass
class Group:
    """Group of the model. ``members``: in the order of joining; ``shares``: for each name its
    content, and the users who offer it."""

    owner: str
    members: list[str]
    requests: set[str] = field(default_factory=set)
    shares: dict[str, tuple[bytes, set[str]]] = field(default_factory=dict)

    def offering(self, data: bytes) -> set[str]:
        """The sources of this content under any name: one content is one swarm in a group."""
        return {
            who for other, offering in self.shares.values() if other == data for who in offering
        }


class Session:
    """The people, and what the model says of them."""

    def __init__(self, swarm: Swarm, rng: random.Random) -> None:
        self.swarm = swarm
        self.rng = rng
        self.people = {name: swarm.person(name) for name in ("alice", "bob", "carol")}
        self.groups: dict[str, Group] = {}
        self.logged_in = set(self.people)
        self.away: set[str] = set()
        self.history: list[str] = []

    # -- choosing -------------------------------------------------------------------------------

    def step(self) -> None:
        """An act of one person."""
        who = self.rng.choice(sorted(self.people))
        doings: list[tuple[int, Callable[[str], None]]] = [
            (3, self.create),
            (5, self.join),
            (5, self.answer),
            (1, self.leave),
            (1, self.remove),
            (8, self.upload),
            (8, self.download),
            (3, self.stop),
            (2, self.log_out_or_in),
            (2, self.restart),
            (2, self.go_or_come),
            (1, self.restart_tracker),
        ]
        weights = [weight for weight, _ in doings]
        (doing,) = self.rng.choices([doing for _, doing in doings], weights)
        at_once = who in self.logged_in and who not in self.away
        if (
            at_once
            or (doing == self.log_out_or_in and who not in self.away)
            or doing
            in (
                self.restart,
                self.go_or_come,
            )
        ):
            self.history.append(f"{who}: {doing.__name__}")
            doing(who)

    def run(self, who: str, wanted: bool, *words: str | Path) -> None:
        """A command that must be done, or refused."""
        ran = self.people[who].run(*words)
        self.history[-1] += f" {' '.join(map(str, words))} -> {ran.code}"
        assert (ran.code == 0) is wanted, f"{ran}\n{self.story}"

    @property
    def there(self) -> set[str]:
        """Those whose peer runs with them logged in."""
        return self.logged_in - self.away

    @property
    def story(self) -> str:
        return "\n".join(self.history)

    def any_group(self) -> str:
        return self.rng.choice(GROUPS)

    # -- doing ----------------------------------------------------------------------------------

    def create(self, who: str) -> None:
        name = self.any_group()
        self.run(who, name not in self.groups, "create-group", name)
        self.groups.setdefault(name, Group(who, [who]))

    def join(self, who: str) -> None:
        name = self.any_group()
        group = self.groups.get(name)
        may = group is not None and who not in group.members
        self.run(who, may, "join-group", name)
        if group is not None and may:
            group.requests.add(who)

    def answer(self, who: str) -> None:
        name, other = self.any_group(), self.rng.choice(sorted(self.people))
        group = self.groups.get(name)
        owns = group is not None and group.owner == who
        accepted = self.rng.random() < 0.8
        asked = group is not None and other in group.requests
        # Accepting a member is one of those commands that may be repeated.
        may = owns and (asked or (accepted and group is not None and other in group.members))
        self.run(who, may, "accept-request" if accepted else "reject-request", name, other)
        if group is not None and owns and asked:
            group.requests.discard(other)
            if accepted:
                group.members.append(other)

    def leave(self, who: str) -> None:
        name = self.any_group()
        group = self.groups.get(name)
        asked = group is not None and who in group.requests
        inside = group is not None and who in group.members
        self.run(who, asked or inside, "leave-group", name, "--yes")
        if group is not None and asked:
            group.requests.discard(who)
        elif inside:
            self.part(name, who)

    def remove(self, who: str) -> None:
        name, other = self.any_group(), self.rng.choice(sorted(self.people))
        group = self.groups.get(name)
        may = group is not None and group.owner == who != other and other in group.members
        self.run(who, may, "remove-member", name, other)
        if may:
            self.part(name, other)

    def part(self, name: str, who: str) -> None:
        group = self.groups[name]
        group.members.remove(who)
        for share in list(group.shares):
            self.withdraw(name, share, who)
        if not group.members:
            del self.groups[name]
        elif group.owner == who:
            group.owner = group.members[0]

    def withdraw(self, group: str, share: str, who: str) -> None:
        _, offering = self.groups[group].shares[share]
        offering.discard(who)
        if not offering:
            del self.groups[group].shares[share]

    def upload(self, who: str) -> None:
        name, share = self.any_group(), self.rng.choice(NAMES)
        group = self.groups.get(name)
        data = content(self.rng.choice(SIZES), self.rng.randrange(2))
        path = self.swarm.folder() / share
        path.write_bytes(data)
        shared = group.shares.get(share) if group is not None else None
        inside = group is not None and who in group.members
        may = inside and (shared is None or shared[0] == data)
        self.run(who, may, "upload-file", path, name, "--piece-size", "16K")
        if group is not None and may:
            offering = shared[1] if shared is not None else set()
            group.shares[share] = (data, offering | {who})

    def download(self, who: str) -> None:
        name, share = self.any_group(), self.rng.choice(NAMES)
        group = self.groups.get(name)
        dest = self.swarm.folder()
        shared = group.shares.get(share) if group is not None and who in group.members else None
        if shared is None:
            self.run(who, False, "download-file", name, share, dest)
            return
        data, offering = shared
        if not (group.offering(data) & self.there) and data:
            return  # it would wait for a source
        self.run(who, True, "download-file", name, share, dest)
        assert (dest / share).read_bytes() == data, self.story
        offering.add(who)

    def stop(self, who: str) -> None:
        name, share = self.any_group(), self.rng.choice(NAMES)
        group = self.groups.get(name)
        shared = group.shares.get(share) if group is not None and who in group.members else None
        may = shared is not None and who in shared[1]
        self.run(who, may, "stop-share", name, share)
        if may:
            self.withdraw(name, share, who)

    def log_out_or_in(self, who: str) -> None:
        person = self.people[who]
        if who in self.logged_in:
            self.run(who, True, "logout")
            self.logged_in.discard(who)
        else:
            self.run(who, True, "login", who, person.password)
            self.logged_in.add(who)

    def restart(self, who: str) -> None:
        if who not in self.away:
            self.go_or_come(who)
        self.go_or_come(who)

    def go_or_come(self, who: str) -> None:
        """End the peer one way or another, or start it; what happens meanwhile happens."""
        person = self.people[who]
        if who in self.away:
            person.up()
            self.away.discard(who)
            return
        if self.rng.random() < 0.5:
            person.kill()
        else:
            person.down()
        self.away.add(who)

    def restart_tracker(self, who: str) -> None:
        if self.rng.random() < 0.5:
            self.swarm.tracker.kill()
            self.swarm.tracker.start()
        else:
            self.swarm.tracker.restart()
        for name in set(self.people) - self.away:
            wait_for(lambda one=self.people[name]: one.status()["connected"], "the tracker")

    # -- comparing ------------------------------------------------------------------------------

    def compare(self) -> None:
        """Everybody sees what the model says, at once; only who is online may take a moment."""
        for who in sorted(self.there):
            person = self.people[who]
            roles = {row["group"]: row["role"] for row in person.json("list-groups")}
            assert roles == {name: self.role(name, who) for name in self.groups}, self.story
            for name, group in self.groups.items():
                if who not in group.members:
                    assert person.run("list-files", name).code == 1, self.story
                    continue
                members = {row["user"] for row in person.json("list-members", name)}
                assert members == set(group.members), self.story
                rows = person.files(name)
                seen = {share: set(row["shared_by"]) for share, row in rows.items()}
                wanted = {share: offering for share, (_, offering) in group.shares.items()}
                assert seen == wanted, f"{who} {name}\n{self.story}"
                assert {share: rows[share]["size_bytes"] for share in rows} == {
                    share: len(data) for share, (data, _) in group.shares.items()
                }

    def role(self, name: str, who: str) -> str:
        group = self.groups[name]
        if who in group.requests:
            return "pending"
        if who not in group.members:
            return "none"
        return "owner" if group.owner == who else "member"

    def settle(self) -> None:
        """In the end the seeders are those who offer and are there."""
        for who in sorted(self.there):
            for name, group in self.groups.items():
                if who in group.members:
                    wanted = {
                        share: len(group.offering(data) & self.there)
                        for share, (data, _) in group.shares.items()
                    }
                    wait_for(
                        lambda one=self.people[who], name=name: {
                            share: row["seeders"] for share, row in one.files(name).items()
                        },
                        until=lambda seen, wanted=wanted: seen == wanted,
                    )


@pytest.fixture
def session(own_swarm: Swarm) -> Iterator[Session]:
    seed = int(os.environ.get("MODEL_SEED") or random.randrange(1 << 32))
    print(f"MODEL_SEED={seed}")
    yield Session(own_swarm, random.Random(seed))
    for path in own_swarm.root.glob("d*"):
        shutil.rmtree(path, ignore_errors=True)


def test_a_long_session(session: Session) -> None:
    for _ in range(STEPS):
        session.step()
        session.compare()
    session.settle()
