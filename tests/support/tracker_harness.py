"""Tracker without sockets, clock or disk: devices send commands to the core."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Any

import msgspec

from common.ids import ContentId, DeviceKey, GroupId, TrackerId, UserId
from common.messages import events, tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.net.codec import encode
from tracker.core import commands
from tracker.core.changes.base import Change
from tracker.core.changes.groups import Logged
from tracker.core.context import (
    Caller,
    CheckPassword,
    Context,
    Decision,
    HashPassword,
    Now,
    Nudge,
    ReleaseLease,
    RenewLease,
    TrackerIdentity,
)
from tracker.core.presence import Presence, SwarmChange
from tracker.core.records import ManifestSummary
from tracker.core.state import State

_replies: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(tracker.Reply)


class TrackerHarness:
    """Core of a tracker, with a clock that only moves by `wait`."""

    def __init__(self, seed: int = 1, *, ipc: bool = False) -> None:
        self.rng = random.Random(seed)
        identity = TrackerIdentity(
            TrackerId(b"t" * 16), (b"v" * 32,), b"s" * 32, "tcp://*:5001", ipc
        )
        self.context = Context(identity, State(), Presence(), self.rng)
        self.now_s = 1_000.0
        self.serial = 0  # of commands: no id is used twice
        self.changes: list[Change] = []
        self.swarm_changes: list[SwarmChange] = []
        self.nudged: list[DeviceKey] = []
        self._summaries: dict[ContentId, ManifestSummary] = {}

    @property
    def state(self) -> State:
        return self.context.state

    @property
    def now(self) -> Now:
        return Now(1_700_000_000_000 + round(self.now_s * 1000), self.now_s)

    @property
    def log(self) -> list[events.LogEntry]:
        return [change.entry for change in self.changes if isinstance(change, Logged)]

    def events_of(self, group: str) -> list[events.GroupEvent]:
        """Return the events of a group, oldest first."""
        return [entry.event for entry in self.log if entry.group == group]

    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    def decide(self, caller: Caller, command: Any) -> Decision:
        """Decide a command and apply the outcome, as the command loop does."""
        decision = commands.decide(self.context, caller, command, self.now)
        for change in decision.changes:
            change.apply(self.state)
        self.changes += decision.changes
        presence = self.context.presence
        self.swarm_changes += presence.follow(self.state, decision.changes)
        for effect in decision.effects:
            match effect:
                case Nudge(device):
                    self.nudged.append(device)
                case RenewLease(device, user, endpoint, leeching, instance, rates):
                    self.swarm_changes += presence.announce(
                        self.state, device, user, endpoint, leeching, self.now_s, instance, rates
                    )
                case ReleaseLease(device):
                    self.swarm_changes += presence.depart(device)
        return decision

    def device(self, name: str) -> Device:
        return Device(self, DeviceKey(hashlib.sha256(name.encode()).digest()))

    def user(self, name: str, device: str = "") -> Device:
        """Return a device on which user ``name`` is logged in."""
        return self.device(device or name).enters(name)

    def group(self, name: str, owner: Device, *members: Device) -> GroupId:
        owner.does(tracker.CreateGroup(name))
        for member in members:
            member.does(tracker.JoinGroup(name))
            assert member.user is not None
            owner.does(tracker.AcceptRequest(name, member.user))
        return GroupId(name.lower())

    def content(self, text: str, size: int = 1_000, shown_to: Device | None = None) -> ContentId:
        """Return a content whose manifest all present users have sent, or one of them."""
        content = content_id(text)
        self._summaries[content] = ManifestSummary(
            content, 200, size, 1, 1, 16_384, "blake3", b"d" * 32, self.now.wall_ms
        )
        everybody = list(self.state.accounts or [UserId("nobody")])
        one = None if shown_to is None else shown_to.user
        for user in everybody if one is None else [one]:
            self.shows(user, content)
        return content

    def shows(self, user: UserId, content: ContentId) -> None:
        """Send the whole manifest as ``user``."""
        summary = self._summaries.get(content)
        if summary is not None and not self.state.may_know(user, content):
            gathered = commands.ManifestGathered(user, summary, b"m" * 200)
            self.decide(Caller(DeviceKey(b"")), gathered)


def content_id(text: str) -> ContentId:
    return ContentId(hashlib.sha256(text.encode()).digest())


@dataclass
class Device:
    """A device. ``does`` expects success of a command, ``is_refused`` a refusal."""

    harness: TrackerHarness
    key: DeviceKey
    address: str = "192.0.2.7"

    @property
    def user(self) -> UserId | None:
        return self.harness.state.devices.get(self.key)

    def decision(self, command: Any, request_id: bytes = b"") -> Decision:
        self.harness.serial += 1
        request_id = request_id or self.harness.serial.to_bytes(8, "big")
        return self.harness.decide(Caller(self.key, self.address, request_id), command)

    def asks(self, command: Any, request_id: bytes = b"") -> Any:
        """Return the reply, or the deferred step before it."""
        decision = self.decision(command, request_id)
        assert (decision.reply is None) != (decision.deferred is None)
        if isinstance(decision.reply, tracker.FileRows | tracker.ShareFound):
            encoded = encode(decision.reply)  # its rows are already
            if isinstance(decision.reply, tracker.FileRows):
                assert encode(self._without_kept_rows(command)) == encoded, "a row is out of date"
            return _replies.decode(encoded)
        return decision.deferred if decision.reply is None else decision.reply

    def _without_kept_rows(self, command: Any) -> Any:
        groups = self.harness.state.groups.values()
        kept = [(share, share.listed) for group in groups for share in group.shares.values()]
        for share, _ in kept:
            share.listed = None
        caller = Caller(self.key, self.address)
        decision = commands.decide(self.harness.context, caller, command, self.harness.now)
        for share, listed in kept:
            share.listed = listed
        return decision.reply

    def does(self, command: Any, request_id: bytes = b"") -> Any:
        reply = self.asks(command, request_id)
        assert not isinstance(reply, Refusal), reply
        return reply

    def is_refused(self, command: Any) -> Code:
        decision = self.decision(command)
        assert isinstance(decision.reply, Refusal), decision.reply
        assert not decision.changes, "a refusal changes nothing"
        return decision.reply.code

    def enters(self, name: str) -> Device:
        """Create the account unless it exists, and log in."""
        if UserId(name.lower()) not in self.harness.state.accounts:
            order = self.does(tracker.CreateUser(name, "secret"))
            assert isinstance(order, HashPassword)
            self.does(commands.PasswordHashed(order.user, f"hash of {order.password}"))
        order = self.does(tracker.Login(name, "secret"))
        assert isinstance(order, CheckPassword)
        assert order.password_hash == "hash of secret"
        self.does(commands.PasswordRight(order.user, order.password_hash))
        return self

    def offers(self, group: str, name: str, content: ContentId) -> tracker.Offered:
        assert self.user is not None
        self.harness.shows(self.user, content)
        reply = self.does(tracker.Offer(group, name, content))
        assert isinstance(reply, tracker.Offered)
        return reply

    def comes(self, endpoint: str = "tcp://192.0.2.7:9000", **options: Any) -> tracker.Announced:
        reply = self.does(tracker.Announce(endpoint, **options))
        assert isinstance(reply, tracker.Announced)
        return reply
