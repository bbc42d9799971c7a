"""Random sequences of commands, compared with a small model."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from common import limits
from common.messages import tracker
from common.messages.base import Refusal
from tests.support.replay import replay
from tests.support.tracker_harness import Device, TrackerHarness, content_id

USERS = ["alice", "bob", "carol"]
DEVICES = [*USERS, "alice's phone"]
GROUPS = ["lab", "club"]
NAMES = ["a.bin", "b.bin"]
CONTENTS = ["one", "two"]


@dataclass
class Name:
    """A name in the model. ``contents``: of the versions on record, None for a withdrawn one."""

    current: int = 0
    floor: int = 0
    contents: dict[int, str | None] = field(default_factory=dict)
    sharers: dict[int, str] = field(default_factory=dict)
    offers: dict[int, set[tuple[str, str]]] = field(default_factory=dict)

    def may_not_be_offered(self, version: int) -> bool:
        return version <= self.floor or self.contents.get(version, "") is None

    def end_if_not_offered(self) -> None:
        self.offers = {version: offers for version, offers in self.offers.items() if offers}
        if not self.offers:
            self.contents = {k: None for k, content in self.contents.items() if content is None}
            if not self.contents and not self.floor:
                self.current = 0  # the name is forgotten


@dataclass
class Circle:
    """A group in the model; ``members`` are in the order of joining."""

    owner: str
    members: list[str]
    asking: set[str] = field(default_factory=set)
    names: dict[str, Name] = field(default_factory=dict)

    def withdraw(self, name: str, ended: set[tuple[str, str]], version: int = 0) -> None:
        known = self.names[name]
        for each in known.offers:
            if version in (0, each):
                known.offers[each] -= ended
        known.end_if_not_offered()

    def part(self, user: str) -> None:
        self.members.remove(user)
        for name, known in self.names.items():
            offers = set().union(*known.offers.values())
            self.withdraw(name, {offer for offer in offers if offer[0] == user})
        if self.owner == user and self.members:
            self.owner = self.members[0]

    def offered(self) -> dict[tuple[str, int], set[tuple[str, str]]]:
        return {
            (name, version): offers
            for name, known in self.names.items()
            for version, offers in known.offers.items()
        }


class Model(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.harness = TrackerHarness()
        self.on: dict[str, str | None] = {}  # device -> who is logged in
        for device in DEVICES:
            self.harness.user(device.split("'")[0], device)
            self.on[device] = device.split("'")[0]
        for content in CONTENTS:
            self.harness.content(content)
        self.circles: dict[str, Circle] = {}

    def who(self, device: str) -> tuple[Device, str | None]:
        return self.harness.device(device), self.on[device]

    def same(self, device: str, command: object, allowed: bool) -> bool:
        reply = self.harness.device(device).asks(command)
        assert isinstance(reply, Refusal) != allowed, reply
        return allowed

    @rule(device=st.sampled_from(DEVICES), user=st.sampled_from(USERS))
    def log_in(self, device: str, user: str) -> None:
        self.harness.device(device).enters(user)
        self.on[device] = user

    @rule(device=st.sampled_from(DEVICES))
    def log_out(self, device: str) -> None:
        self.same(device, tracker.Logout(), self.on[device] is not None)
        self.on[device] = None

    @rule(device=st.sampled_from(DEVICES), other=st.sampled_from(DEVICES))
    def forget(self, device: str, other: str) -> None:
        user = self.on[device]
        command = tracker.ForgetDevice(self.harness.device(other).key)
        if self.same(device, command, user is not None and self.on[other] == user):
            assert user is not None
            self.on[other] = None
            for circle in self.circles.values() if other != device else ():
                for name in circle.names:  # it is lost, and what it offered with it
                    circle.withdraw(name, {(user, other)})

    @rule(device=st.sampled_from(DEVICES), online=st.booleans())
    def come_or_go(self, device: str, online: bool) -> None:
        if online:
            self.same(device, tracker.Announce("tcp://192.0.2.7:9"), self.on[device] is not None)
        else:
            self.harness.device(device).does(tracker.Depart())

    @rule(device=st.sampled_from(DEVICES), group=st.sampled_from(GROUPS))
    def create(self, device: str, group: str) -> None:
        user = self.on[device]
        if self.same(
            device,
            tracker.CreateGroup(group),
            user is not None and group not in self.circles,
        ):
            assert user is not None
            self.circles[group] = Circle(user, [user])

    @rule(device=st.sampled_from(DEVICES), group=st.sampled_from(GROUPS))
    def ask(self, device: str, group: str) -> None:
        user, circle = self.on[device], self.circles.get(group)
        allowed = user is not None and circle is not None and user not in circle.members
        self.harness.wait(limits.REQUEST_S)  # slow enough for the budget of join requests
        if self.same(device, tracker.JoinGroup(group), allowed):
            assert circle is not None
            assert user is not None
            circle.asking.add(user)

    @rule(
        device=st.sampled_from(DEVICES),
        group=st.sampled_from(GROUPS),
        other=st.sampled_from(USERS),
        let_in=st.booleans(),
    )
    def answer(self, device: str, group: str, other: str, let_in: bool) -> None:
        circle = self.circles.get(group)
        rules = circle is not None and circle.owner == self.on[device]
        command = (tracker.AcceptRequest if let_in else tracker.RejectRequest)(group, other)
        known = circle is not None and (
            other in circle.asking or (let_in and other in circle.members)
        )
        if self.same(device, command, rules and known):
            assert circle is not None
            circle.asking.discard(other)
            if let_in and other not in circle.members:
                circle.members.append(other)

    @rule(device=st.sampled_from(DEVICES), group=st.sampled_from(GROUPS))
    def leave(self, device: str, group: str) -> None:
        user, circle = self.on[device], self.circles.get(group)
        inside = circle is not None and user in circle.members
        asking = circle is not None and user in circle.asking
        if not self.same(device, tracker.LeaveGroup(group), inside or asking):
            return
        assert circle is not None
        assert user is not None
        if asking:
            circle.asking.remove(user)
            return
        circle.part(user)
        if not circle.members:
            del self.circles[group]

    @rule(
        device=st.sampled_from(DEVICES),
        group=st.sampled_from(GROUPS),
        other=st.sampled_from(USERS),
    )
    def remove(self, device: str, group: str, other: str) -> None:
        circle, user = self.circles.get(group), self.on[device]
        allowed = (
            circle is not None
            and circle.owner == user
            and other != user
            and other in circle.members
        )
        if self.same(device, tracker.RemoveMember(group, other), allowed):
            assert circle is not None
            circle.part(other)

    @rule(
        device=st.sampled_from(DEVICES),
        group=st.sampled_from(GROUPS),
        name=st.sampled_from(NAMES),
        content=st.sampled_from(CONTENTS),
        version=st.integers(0, 4),
        replace=st.booleans(),
    )
    def offer(
        self, device: str, group: str, name: str, content: str, version: int, replace: bool
    ) -> None:
        user, circle = self.on[device], self.circles.get(group)
        inside = circle is not None and user in circle.members
        known = circle.names.setdefault(name, Name()) if circle is not None else Name()
        owner = circle is not None and circle.owner == user
        meant = _meant(known, content, version, replace, owner, user) if inside else None
        command = tracker.Offer(group, name, content_id(content), replace, version)
        if self.same(device, command, meant is not None):
            assert user is not None
            assert meant is not None
            known.current = max(known.current, meant)
            known.contents[meant] = content
            known.sharers.setdefault(meant, user)
            if meant not in known.offers and len(known.offers) == 0:
                known.sharers[meant] = user
            known.offers.setdefault(meant, set()).add((user, device))

    @rule(
        device=st.sampled_from(DEVICES),
        group=st.sampled_from(GROUPS),
        name=st.sampled_from(NAMES),
        version=st.integers(0, 3),
    )
    def stop(self, device: str, group: str, name: str, version: int) -> None:
        user, circle = self.on[device], self.circles.get(group)
        ending: set[tuple[str, str]] = set()
        if circle is not None and user in circle.members and name in circle.names:
            offers = circle.names[name].offers
            of_these = [offers[k] for k in offers if version in (0, k)]
            theirs = {offer for offer in set().union(*of_these) if offer[0] == user}
            left = {offer for offer in theirs if self.on[offer[1]] != user}
            ending = {offer for offer in theirs if offer[1] == device} or left
        if self.same(device, tracker.StopShare(group, name, version), bool(ending)):
            assert circle is not None
            circle.withdraw(name, ending, version)

    @rule(
        device=st.sampled_from(DEVICES),
        group=st.sampled_from(GROUPS),
        name=st.sampled_from(NAMES),
        version=st.integers(0, 3),
    )
    def withdraw(self, device: str, group: str, name: str, version: int) -> None:
        user, circle = self.on[device], self.circles.get(group)
        known = circle.names.get(name, Name()) if circle is not None else Name()
        inside = circle is not None and user in circle.members
        there = known.contents.get(version) is not None if version else bool(known.offers)
        first = {
            known.sharers[k]
            for k in (max(known.contents, default=0), version)
            if k in known.contents
        }
        rights = circle is not None and (circle.owner == user or user in first)
        if self.same(device, tracker.Withdraw(group, name, version), inside and there and rights):
            if version:
                known.contents[version] = None
                known.offers.pop(version, None)
            else:
                known.floor, known.contents, known.offers = known.current, {}, {}
            known.end_if_not_offered()

    @invariant()
    def groups_agree(self) -> None:
        state = self.harness.state
        assert set(state.groups) == set(self.circles)
        keys = {self.harness.device(device).key: device for device in DEVICES}
        for name, circle in self.circles.items():
            group = state.groups[name]
            assert (group.owner, list(group.members)) == (circle.owner, circle.members)
            assert set(group.requests) == circle.asking
            assert {
                (share.name, share_id.version): {(user, keys[key]) for user, key in share.offers}
                for share_id, share in group.shares.items()
            } == circle.offered()
            assert group.names.listed == sorted(
                known for known, each in circle.names.items() if each.current in each.offers
            )

    @invariant()
    def the_log_tells_the_same(self) -> None:
        for name, circle in self.circles.items():
            told = replay(self.harness.events_of(name))
            assert (told.owner, told.members) == (circle.owner, set(circle.members))
            assert told.requests == circle.asking
            assert told.versions == {
                share: {user for user, _ in offers} for share, offers in circle.offered().items()
            }

    @invariant()
    def sequences_have_no_gaps(self) -> None:
        for name in GROUPS:
            numbers = [entry.seq for entry in self.harness.log if entry.group == name]
            assert numbers == list(range(1, len(numbers) + 1))

    @invariant()
    def swarms_follow_from_leases_and_offers(self) -> None:
        presence = self.harness.context.presence
        for name, circle in self.circles.items():
            for content in CONTENTS:
                wanted = {
                    self.harness.device(device).key
                    for (share, version), offers in circle.offered().items()
                    for user, device in offers
                    if circle.names[share].contents[version] == content
                    and self.on[device] == user
                    and self.harness.device(device).key in presence.leases
                }
                found = presence.swarm((self.harness.state.groups[name].id, content_id(content)))
                assert set(found.seeders) == wanted


def _meant(
    known: Name, content: str, version: int, replace: bool, owner: bool, user: str | None
) -> int | None:
    """Return the version that an offer of a member is of; None if it is refused."""
    if not known.offers:
        if replace or not version:
            return known.current + 1 if known.contents or known.floor else max(version, 1)
        return None if known.may_not_be_offered(version) else version
    right = owner or known.sharers[max(known.contents)] == user
    if replace or not version:
        if known.contents.get(known.current) == content:
            return known.current
        return (
            known.current + 1 if replace and right and version in (0, known.current + 1) else None
        )
    if known.may_not_be_offered(version):
        return None
    if version in known.contents:
        return version if known.contents[version] == content else None
    return version if right and version > known.current else None


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40)
