"""Changes of accounts, of the devices that are logged in, and of who may register."""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from common.errors import LocalProtocolError
from common.ids import DeviceKey, UserId
from common.messages.operator import Registration
from tracker.core.changes.base import Change, change
from tracker.core.records import Account, Binding

if TYPE_CHECKING:
    from tracker.core.state import State


@change(1)
class AccountCreated(Change):
    user: UserId
    password_hash: str = field(repr=False)
    at_ms: int

    def apply(self, state: State) -> None:
        state.undo.item(state.accounts, self.user)
        state.accounts[self.user] = Account(self.user, self.password_hash, self.at_ms)


@change(2)
class PasswordReplaced(Change):
    user: UserId
    password_hash: str = field(repr=False)

    def apply(self, state: State) -> None:
        state.undo.item(state.accounts, self.user)
        known = state.accounts[self.user]
        state.accounts[self.user] = replace(known, password_hash=self.password_hash)


@change(3)
class AccountDisabled(Change):
    """Disabled account: ``user`` can do nothing until ``disabled`` is withdrawn; nothing of theirs
    is deleted."""

    user: UserId
    disabled: bool

    def apply(self, state: State) -> None:
        state.undo.item(state.accounts, self.user)
        state.accounts[self.user] = replace(state.accounts[self.user], disabled=self.disabled)
        state.forget_rows(*state.groups_of.get(self.user, ()))


@change(4)
class AccountDeleted(Change):
    """The account, without devices, memberships and requests left, is gone; its name is free."""

    user: UserId

    def apply(self, state: State) -> None:
        state.undo.removal(state.accounts, self.user)
        del state.accounts[self.user]
        of_user: tuple[Any, ...] = (state.devices_of, state.groups_of, state.requests_of)
        for left in of_user:
            state.undo.removal(left, self.user, ordered=False)
            if left.pop(self.user, None):
                raise LocalProtocolError(f"an account that is deleted has {left} left")


@change(5)
class RegistrationSet(Change):
    """From now on ``mode`` decides who may make an account."""

    mode: Registration

    def apply(self, state: State) -> None:
        state.undo.field(state, "registration")
        state.registration = self.mode


@change(6)
class DeviceBound(Change):
    """Login: ``device`` acts for ``user`` until it is unbound."""

    device: DeviceKey
    user: UserId
    at_ms: int

    def apply(self, state: State) -> None:
        state.undo.item(state.devices, self.device)
        state.devices[self.device] = self.user
        state.undo.item(state.bindings, self.device)
        state.bindings[self.device] = Binding(self.at_ms, self.at_ms)
        state.add_of(state.devices_of, self.user, self.device)
        state.forget_rows(*state.groups_of.get(self.user, ()))


@change(7)
class DeviceUnbound(Change):
    device: DeviceKey

    def apply(self, state: State) -> None:
        state.undo.removal(state.devices, self.device, ordered=False)
        user = state.devices.pop(self.device)
        state.undo.removal(state.bindings, self.device, ordered=False)
        del state.bindings[self.device]
        state.drop_of(state.devices_of, user, self.device)
        state.forget_rows(*state.groups_of.get(user, ()))
        state.drop_follows(state.groups_with(user), [self.device])


@change(8)
class DeviceSeen(Change):
    """Last contact of ``device``, which is bound, at ``at_ms``."""

    device: DeviceKey
    at_ms: int

    def apply(self, state: State) -> None:
        state.undo.item(state.bindings, self.device)
        known = state.bindings[self.device]
        state.bindings[self.device] = Binding(known.at_ms, self.at_ms)
