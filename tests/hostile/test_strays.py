"""A source that sends unrequested pieces: it is borne for a while, and then left alone."""

from __future__ import annotations

from typing import Any

import pytest

from common import limits
from common.messages import peer
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.net import codec
from tests.support.attacked_download import AttackedDownload
from tests.support.attackers import AttackSwarm, Send

JUNK = bytes(limits.PIECE_LENGTH_MAX)


@pytest.fixture
def scene(arena: AttackSwarm) -> AttackedDownload:
    return AttackedDownload(arena)


class Flood:
    """Opens the channel, and says the same so many times."""

    def __init__(
        self, scene: AttackedDownload, count: int, answer: Any, data: bytes | None = None
    ) -> None:
        self._scene = scene
        self._count = count
        self._frames = codec.pack(b"", answer, data)

    def __call__(self, command: Any, send: Send) -> None:
        if isinstance(command, peer.Open):
            send(peer.Opened(command.channel, True, 1 << 52))
            for _ in range(self._count):
                send.raw(self._frames)
            self._scene.lie()


@pytest.mark.parametrize(
    "answer",
    [peer.Piece(60_000, 0), peer.ManifestBytes(60_000, 1 << 40, 0)],
    ids=lambda answer: type(answer).__name__,
)
def test_h52_a_source_that_keeps_sending_on_closed_channels_is_cut_off(
    scene: AttackedDownload, answer: peer.Answer
) -> None:
    liar = scene.run(Flood(scene, 50, answer, JUNK))
    assert f"backoff of 15 s for {liar.device.key.hex()[:16]}" in scene.log
    assert sum(isinstance(command, peer.Open) for command in liar.asked) == 1


def test_h53_a_source_does_not_fill_the_log_with_its_refusals(scene: AttackedDownload) -> None:
    before = len(scene.log)
    scene.run(Flood(scene, 2_000, Refusal(Code.BUSY, "\x1b[2J" + "x" * 1_900)))
    said = scene.log[before:]
    assert said.count("refuses: ") == 1
    assert len(said) < 10_000
