"""Commands about the devices that hold a share: `who-has`, and waits for copies on them.

Owns the requests and their rhythm, and the texts for users. Not here: which device counts (see
peer.follows.copies), and the tracker's record of who follows (see tracker.core.follows).

Each device brings patterns of its user, which take half a millisecond each when they are new. They
are matched in a thread, so that transfers go on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from common import limits, names
from common.crypto.keys import key_text, short_id
from common.errors import Refused, RemoteProtocolError, TransportError
from common.hints import hint
from common.host.clock import monotonic
from common.ids import DeviceKey, GroupId
from common.messages import control, tracker
from common.messages.refusals import Code
from common.messages.tracker import HolderRow, HolderState
from common.units import count_text
from peer.control.server import Notify
from peer.control.views import holder_row, time_text
from peer.follows.copies import Verdict, judge, shown
from peer.tracker_client.claims import check_name
from peer.tracker_client.link import TrackerLink
from peer.tracker_client.listing import listing

REVIEW_S = 1.0  # between two listings of a wait, …
REVIEW_PART = 10  # … and at least as many times the duration of the last one
REVIEW_MAX_S = 30.0
MISSING_NAMED_MAX = 20  # devices in a text; JSON has all of them


class HolderCommands:
    """Carries out `who-has` and `wait`. ``own`` is the key of this device."""

    def __init__(self, link: TrackerLink, own: DeviceKey) -> None:
        self._link = link
        self._own = own

    async def who_has(self, group_text: str, name_text: str) -> control.Holders:
        """List the devices that hold, fetch or follow a version. Raises `MiniTorrentError`."""
        name, version = names.split_version(name_text)
        row, found = await self._holders(names.group_id(group_text), name, version)
        concerned = await asyncio.to_thread(shown, found, row.name)
        return control.Holders([holder_row(each, row) for each in _in_order(concerned)])

    async def wait(self, command: control.AwaitCopies, notify: Notify) -> control.Copies:
        """Wait for copies of one version on other devices, and report each one as it comes.

        A tracker that is away delays the wait and does not end it, once it has begun. Raises
        `Refused` if no device could come, and if the version is replaced or withdrawn.
        """
        group = names.group_id(command.group)
        name, version = names.split_version(command.name)
        deadline = None if command.timeout_s is None else monotonic() + command.timeout_s
        wanted = command.copies or None
        row, found = await self._holders(group, name, version)
        was_current = row.current
        verdict = await asyncio.to_thread(judge, found, row.name, self._own, wanted)
        if wanted is None and not verdict.wanted:
            raise _no_follower(group, row.name)
        known: set[bytes] = set()
        took_s = 0.0
        while True:
            for came in verdict.came:
                if came.device not in known:
                    notify(_arrived(group, came))
                known.add(came.device)
            if verdict.done:
                return await self._answer(row, found, verdict, timed_out=False)
            notify(_progress(verdict, connected=self._link.connected))
            pause_s = min(REVIEW_MAX_S, max(REVIEW_S, REVIEW_PART * took_s))
            if deadline is not None:
                pause_s = min(pause_s, max(0.0, deadline - monotonic()))
            await asyncio.sleep(pause_s)
            try:
                began = monotonic()
                async with asyncio.timeout(_left(deadline)):
                    row, found = await self._holders(group, name, row.version)
                took_s = monotonic() - began
            except (TransportError, TimeoutError):
                pass  # the tracker restarts, or is away: ask again
            else:
                if was_current and not row.current:
                    raise _replaced(group, row.name)
                args = found, row.name, self._own, wanted, known
                verdict = await asyncio.to_thread(judge, *args)
                if verdict.came or verdict.done:
                    continue
            if deadline is not None and monotonic() >= deadline:
                return await self._answer(row, found, verdict, timed_out=True)

    async def _answer(
        self,
        row: tracker.FileRow,
        found: list[HolderRow],
        verdict: Verdict,
        *,
        timed_out: bool,
    ) -> control.Copies:
        concerned = await asyncio.to_thread(shown, found, row.name)
        return _copies(row, concerned, verdict, timed_out=timed_out)

    async def _holders(
        self, group: GroupId, name: str, version: int
    ) -> tuple[tracker.FileRow, list[HolderRow]]:
        """Return the row of a version, and all devices that have to do with it."""
        first: tracker.FileRow | None = None

        async def page(last: HolderRow | None) -> tracker.Holders:
            nonlocal first, version
            after = "" if last is None else last.device.hex()
            command = tracker.WhoHas(group, name, version, after)
            reply = await self._link.request(command, tracker.Holders)
            check_name(reply.row, name)
            if version and reply.row.version != version:
                raise RemoteProtocolError("list holders: the tracker answered another version")
            first = first or reply.row
            version = first.version  # the same one on all pages
            return reply

        rows = listing(page, lambda row: row.device, "holders", limits.DEVICES_PER_GROUP_MAX)
        found = [row async for row in rows]
        assert first is not None
        return first, found


def _left(deadline: float | None) -> float | None:
    """The seconds that one listing may take: a little more than none, to look at the end."""
    return None if deadline is None else max(REVIEW_S, deadline - monotonic())


def _in_order(rows: Sequence[HolderRow]) -> list[HolderRow]:
    """Holders first, then in the order in which a device gets its copy; by user within each."""
    order = {state: at for at, state in enumerate(HolderState)}
    return sorted(rows, key=lambda row: (order[row.state], names.fold_id(row.user), row.device))


def _arrived(group: GroupId, row: HolderRow) -> control.Happened:
    facts: dict[str, str | int | bool] = {
        "user": row.user,
        "device": key_text(row.device),
        "id": short_id(row.device),
    }
    return control.Happened(0, time_text(row.since_ms), group, row.state.value, facts)


def _progress(verdict: Verdict, *, connected: bool) -> control.Progress:
    note = f"{verdict.copies:,} of {count_text(verdict.wanted, 'copy', 'copies')}"
    if not connected:
        note += "; the tracker cannot be reached now"
    return control.Progress("waiting", 0, 0, note=note)


def _copies(
    row: tracker.FileRow, concerned: Sequence[HolderRow], verdict: Verdict, *, timed_out: bool
) -> control.Copies:
    rows = [holder_row(each, row) for each in _in_order(concerned)]
    text = f"{names.quoted(row.name)}: {count_text(verdict.copies, 'copy', 'copies')}"
    if not timed_out:
        return control.Copies(rows, f"{text} on other devices")
    text = f"{text} on other devices, {verdict.wanted:,} wanted"
    missing = [_missing_text(each, row) for each in _in_order(verdict.missing)]
    if missing:
        more = len(missing) - MISSING_NAMED_MAX
        text += f"; missing: {', '.join(missing[:MISSING_NAMED_MAX])}"
        text += f" and {more:,} more" * (more > 0)
    return control.Copies(rows, text, timed_out=True)


def _missing_text(each: HolderRow, row: tracker.FileRow) -> str:
    state = holder_row(each, row).state_text
    return f"{names.printable(each.user)} {short_id(each.device)} ({state})"


def _no_follower(group: GroupId, name: str) -> Refused:
    return Refused(
        Code.FAILED,
        f"wait for all: no other device that follows {names.quoted(group)} fetches"
        f" {names.quoted(name)}",
        hint("let a device follow it", "follow", group, "DIR"),
    )


def _replaced(group: GroupId, name: str) -> Refused:
    return Refused(
        Code.CHANGED,
        f"{names.quoted(name)} has a newer version: devices that follow {names.quoted(group)}"
        " fetch that one",
        hint("wait for the newer one", "wait", group, name),
    )
