"""F21 at the tracker: the disk under its database fails."""

from __future__ import annotations

import pytest

from common.messages import tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from tests.support.faults import MIB, Small
from tests.support.tracker_process import Devices, running

TCP = ("--bind", "tcp://127.0.0.1:0")


@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
def test_f21_a_tracker_whose_disk_fails_refuses_changes_and_nothing_else(
    disk: Small, devices: Devices
) -> None:
    (disk.path / "first").write_bytes(bytes(2 * MIB))  # what comes later lies where it breaks
    with running(disk.path / "home", *TCP) as process:
        alice = devices(process.at).enter("alice")
        for number in range(10):
            alice.request(tracker.CreateGroup(f"g{number}"))
        disk.break_()
        for _ in range(3):
            reply = alice.try_(tracker.CreateGroup("lost"))
            assert isinstance(reply, Refusal)
            assert reply.code is Code.READ_ONLY
            assert len(alice.request(tracker.ListGroups()).rows) == 10
            assert alice.announce().lease_s > 0
        assert process.process.poll() is None
