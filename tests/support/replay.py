"""Members, owner and shares of a group, replayed from its log alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import assert_never

from common.messages import events


@dataclass
class Replayed:
    owner: str = ""
    members: set[str] = field(default_factory=set)
    requests: set[str] = field(default_factory=set)
    versions: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    """Users who offer each version of a name."""


def replay(log: Iterable[events.GroupEvent]) -> Replayed:
    """Replay ``log``. Raise KeyError if it contradicts itself."""
    replayed = Replayed()
    for event in log:
        match event:
            case events.Created(user):
                replayed = Replayed(owner=user, members={user})
            case events.Requested(user):
                replayed.requests.add(user)
            case events.Rejected(user):
                replayed.requests.remove(user)
            case events.Joined(user):
                replayed.requests.remove(user)
                replayed.members.add(user)
            case events.Left(user) | events.Removed(user):
                replayed.members.remove(user)
            case events.Owner(user):
                replayed.owner = user
            case events.Shared(user, name, version=version):
                assert (name, version) not in replayed.versions
                replayed.versions[name, version] = {user}
            case events.Seeding(user, name, version=version):
                assert user not in replayed.versions[name, version]
                replayed.versions[name, version].add(user)
            case events.Stopped(user, name, version=version):
                replayed.versions[name, version].remove(user)
            case events.Unshared(user, name, version=version):
                assert replayed.versions.pop((name, version)) == {user}
            case events.Withdrawn(_, name, version, earlier):
                replayed.versions = {
                    (other, k): users
                    for (other, k), users in replayed.versions.items()
                    if other != name or k > version or (k < version and not earlier)
                }
            case events.Device():
                pass
            case _:
                assert_never(event)
    return replayed
