"""What a group is, as its log tells it: members, owner and shares, from the entries alone."""

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
    shares: dict[str, set[str]] = field(default_factory=dict)  # name -> who offers it


def replay(log: Iterable[events.GroupEvent]) -> Replayed:
    """Raises KeyError when the log contradicts itself."""
    told = Replayed()
    for event in log:
        match event:
            case events.Created(user):
                told = Replayed(owner=user, members={user})
            case events.Requested(user):
                told.requests.add(user)
            case events.Rejected(user):
                told.requests.remove(user)
            case events.Joined(user):
                told.requests.remove(user)
                told.members.add(user)
            case events.Left(user) | events.Removed(user):
                told.members.remove(user)
            case events.Owner(user):
                told.owner = user
            case events.Shared(user, name):
                assert name not in told.shares
                told.shares[name] = {user}
            case events.Seeding(user, name):
                assert user not in told.shares[name]
                told.shares[name].add(user)
            case events.Stopped(user, name):
                told.shares[name].remove(user)
            case events.Unshared(user, name):
                assert told.shares.pop(name) == {user}
            case events.Device():
                pass
            case _:
                assert_never(event)
    return told
