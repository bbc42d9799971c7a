"""Commands about the account: creating it, logging in and out, the password, the devices.

Owns their translation to the tracker's commands and back. Not here: the effects of a login (see
peer.session).
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence
from typing import TypeAlias, TypeVar, assert_never

from common import limits, names
from common.crypto.keys import key_text, parse_key, short_id
from common.errors import ConfigError, Refused
from common.hints import hint
from common.host.clock import monotonic
from common.ids import KEY_BYTES, DeviceKey, UserId
from common.messages import control, tracker
from common.messages.refusals import Code
from common.shared_refusals import check_new_password
from peer.control.views import device_rows, short_ids
from peer.session import Session
from peer.tracker_client.claims import check_user
from peer.tracker_client.link import TrackerLink
from peer.tracker_client.listing import listing

Command: TypeAlias = (
    control.CreateUser
    | control.Login
    | control.Logout
    | control.ChangePassword
    | control.ListDevices
    | control.ForgetDevice
)

R = TypeVar("R")

PLACE_S = 30.0  # how long the devices of a fleet wait for a place in the tracker's queue
PLACE_AGAIN_S = 1.0  # retry at a random time up to this: not all devices at one moment
PREFIX_CHARACTERS_MIN = 4  # fewer could match a device by a mistyped key
_SEE_THEM = hint("see your devices", "list-devices")


class Account:
    """Carries out the commands about accounts, for the device with the key ``own``."""

    def __init__(self, own: DeviceKey, link: TrackerLink, session: Session) -> None:
        self._own = own
        self._link = link
        self._session = session

    async def handle(self, command: Command) -> control.Answer:
        """Carry ``command`` out. Raises `MiniTorrentError`."""
        match command:
            case control.CreateUser(user, password):
                return await self._create(user, password)
            case control.Login(user, password, yes):
                question = self._session.replaced_by(names.user_id(user))
                if question is not None and not yes:
                    return control.NeedsConsent(question)
                return await self._log_in(user, password)
            case control.Logout():
                leaver = self._session.user
                await self._link.request(tracker.Logout(), tracker.Done)
                return await self._logged_out(leaver)
            case control.ChangePassword():
                return await self._change_password(command)
            case control.ListDevices():
                return control.Devices(device_rows(await self._devices(), self._own))
            case control.ForgetDevice(typed):
                return await self._forget(typed)
            case _:
                assert_never(command)

    async def _create(self, typed: str, password: str) -> control.Done:
        user = names.new_user_id(typed)
        check_new_password(password)
        _check_length(password)
        self._link.allow_any()
        await self.request_with_retry(tracker.CreateUser(user, password), tracker.Done)
        return control.Done(hint(f"account {user} created; log in", "login", user), {"user": user})

    async def _log_in(self, user: str, password: str) -> control.Done:
        names.user_id(user)
        _check_length(password)
        self._link.allow_any()
        logged_in = await self.request_with_retry(tracker.Login(user, password), tracker.LoggedIn)
        check_user(logged_in.user, user)
        await self.entered(logged_in.user)
        changed = {"user": logged_in.user, **self._document(self._own)}
        return control.Done(f"logged in as {logged_in.user}", changed)

    async def entered(self, user: str) -> None:
        """Begin the session of ``user``, whom the tracker has logged in."""
        self._link.pin()
        await self._session.begin(UserId(names.fold_id(user)))

    async def request_with_retry(
        self, command: tracker.Command, answer: type[R] | tuple[type[R], ...]
    ) -> R:
        """Send a command that needs a password hash, and retry while that queue is full."""
        ends_at = monotonic() + PLACE_S
        while True:
            try:
                return await self._link.request(command, answer)
            except Refused as error:
                if error.code is not Code.BUSY or monotonic() >= ends_at:
                    raise
            await asyncio.sleep(random.uniform(0.1, 1.0) * PLACE_AGAIN_S)

    async def _logged_out(self, user: UserId | None) -> control.Done:
        await self._session.end()
        changed = {"user": user, **self._document(self._own)}
        return control.Done("logged out; this device no longer shares anything", changed)

    @staticmethod
    def _document(device: DeviceKey, id: str | None = None) -> dict[str, control.Value]:
        return {"id": id or short_id(device), "device": key_text(device)}

    async def _change_password(self, command: control.ChangePassword) -> control.Done:
        for password in (command.old, command.new):
            _check_length(password)
        check_new_password(command.new)
        change = tracker.ChangePassword(command.old, command.new, command.keep_devices)
        # `Done` is the answer to a retry after the first answer was lost.
        expected = (tracker.PasswordChanged, tracker.Done)
        reply = await self.request_with_retry(change, expected)
        count = reply.logged_out if isinstance(reply, tracker.PasswordChanged) else None
        changed: dict[str, control.Value] = {"user": self._session.user, "logged_out": count}
        return control.Done(changed_text(command.keep_devices, count), changed)

    async def _devices(self) -> list[tracker.OwnDevice]:
        async def page(last: tracker.OwnDevice | None) -> tracker.OwnDevices:
            command = tracker.ListDevices("" if last is None else last.device.hex())
            return await self._link.request(command, tracker.OwnDevices)

        rows = listing(page, lambda row: row.device, "devices", limits.DEVICES_PER_USER_MAX)
        return [row async for row in rows]

    async def _forget(self, typed: str) -> control.Done:
        known = [DeviceKey(row.device) for row in await self._devices()]
        device = find_device(typed, known)
        user = self._session.user
        await self._link.request(tracker.ForgetDevice(device), tracker.Done)
        if device == self._own:
            return await self._logged_out(user)
        id = short_ids(known)[device]
        changed = {"user": user, **self._document(device, id)}
        return control.Done(f"device {id} is logged out", changed)


def _check_length(password: str) -> None:
    if len(password) > limits.PASSWORD_BYTES_MAX:
        raise Refused(
            Code.USAGE, f"a password has at most {limits.PASSWORD_BYTES_MAX:,} characters"
        )


def changed_text(keep_devices: bool, logged_out: int | None) -> str:
    """The result text of a changed password; ``logged_out`` is None if it is not known."""
    if keep_devices:
        return "password changed; your other devices stay logged in"
    match logged_out:
        case None:
            return "password changed; your other devices were logged out"
        case 0:
            return "password changed; no other device was logged in"
        case 1:
            return "password changed; 1 other device was logged out"
        case _:
            return f"password changed; {logged_out:,} other devices were logged out"


def find_device(typed: str, known: Sequence[DeviceKey]) -> DeviceKey:
    """Return the known device whose key begins with ``typed`` in hexadecimal, or is ``typed`` as
    ``--json`` shows it. Raises `Refused`."""
    if re.fullmatch(f"[0-9A-Fa-f]{{1,{2 * KEY_BYTES}}}", typed):
        if len(typed) < PREFIX_CHARACTERS_MIN:
            raise Refused(
                Code.USAGE,
                f"{names.quoted(typed)} is too short for the id of a device",
                f"type at least {PREFIX_CHARACTERS_MIN} characters of it, or {_SEE_THEM}",
            )
        found = [device for device in known if device.hex().startswith(typed.lower())]
    else:
        found = [device for device in known if device == _whole_key(typed)]
    if not found:
        raise Refused(
            Code.UNKNOWN_DEVICE,
            f"you are not logged in on a device {names.quoted(typed)}",
            _SEE_THEM,
        )
    if len(found) > 1:
        raise Refused(
            Code.USAGE,
            f"{len(found)} of your devices begin with {names.quoted(typed)}",
            f"type more of it, or {_SEE_THEM}",
        )
    return found[0]


def _whole_key(typed: str) -> DeviceKey | None:
    try:
        return parse_key(typed)
    except ConfigError:
        return None
