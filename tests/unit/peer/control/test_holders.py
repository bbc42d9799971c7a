"""Commands about holders, with a tracker that answers what it likes."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest

from common.ids import DeviceKey
from common.messages import control, tracker
from common.messages.tracker import HolderRow, HolderState
from peer.control.holders import HolderCommands
from peer.follows import copies

ROW = tracker.FileRow(
    "film", b"c" * 32, 1, 1, 1, 16_384, "blake3", b"d" * 32, 1, 0, ["alice"], 1, True
)
HOLDER = HolderRow(b"d" * 32, "alice", HolderState.HOLDS, 1, 0, True, True, ["*a*"])
FOLLOWER = HolderRow(b"e" * 32, "bob", HolderState.FOLLOWS, 0, 0, False, True, ["*m"])


class _Link:
    connected = True

    def __init__(self, row: HolderRow) -> None:
        self._row = row

    async def request(self, command: Any, kind: Any) -> Any:
        return tracker.Holders(ROW, [self._row], False)


@pytest.mark.parametrize("timed_out", [False, True])
def test_h146_patterns_of_others_are_matched_beside_the_event_loop(
    timed_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each device has 16 of them, which are compiled first: half a millisecond each."""
    at_work: list[threading.Thread] = []
    due = copies._due

    def seen(row: HolderRow, name: str) -> bool:
        at_work.append(threading.current_thread())
        return due(row, name)

    monkeypatch.setattr(copies, "_due", seen)
    row = HOLDER if not timed_out else FOLLOWER
    commands = HolderCommands(cast(Any, _Link(row)), DeviceKey(b"o" * 32))

    async def scenario() -> None:
        await commands.who_has("lab", "film")
        command = control.AwaitCopies("lab", "film", copies=1, timeout_s=0.0)
        found = await commands.wait(command, lambda told: None)
        assert found.timed_out is timed_out

    asyncio.run(scenario())
    assert at_work
    assert threading.main_thread() not in at_work
