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
    shares: dict[str, set[str]] = field(default_factory=dict)  # name -> users who offer it


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
            case events.Shared(user, name):
                assert name not in replayed.shares
                replayed.shares[name] = {user}
            case events.Seeding(user, name):
                assert user not in replayed.shares[name]
                replayed.shares[name].add(user)
            case events.Stopped(user, name):
                replayed.shares[name].remove(user)
            case events.Unshared(user, name):
                assert replayed.shares.pop(name) == {user}
            case events.Device():
                pass
            case _:
                assert_never(event)
    return replayed
