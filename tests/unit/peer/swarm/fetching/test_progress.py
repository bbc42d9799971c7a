"""Verdicts on the sources of a download, in one word each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from peer.swarm.fetching.events import Verdict
from peer.swarm.fetching.progress import VERDICTS, Progress
from peer.swarm.fetching.sources import Phase
from tests.unit.peer.swarm.fetching.test_machine import DownloadRig
from tests.unit.peer.swarm.fetching.test_piece_map import source


def progress(**changes: Any) -> Progress:
    return replace(DownloadRig(count=1).download.progress(0.0), **changes)


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        ({"rate": 5.0, "in_flight": 2}, "good"),
        ({"rate": 5.0}, "good"),  # between two requests
        ({"in_flight": 2}, "waiting"),
        ({}, "idle"),
        ({"verdict": Verdict.SLOW}, "idle"),  # it is open again
        ({"stalled": True}, "idle"),
        ({"stalled": True, "in_flight": 1, "rate": 5.0}, "silent"),
        ({"phase": Phase.OPENING}, "unused"),
        ({"phase": Phase.IDLE}, "unused"),
        ({"phase": Phase.IDLE, "verdict": Verdict.SLOW}, "slow"),
        ({"phase": Phase.BANNED, "verdict": Verdict.WRONG}, "wrong"),
    ],
)
def test_a_source_is_good_only_while_it_sends(facts: dict[str, Any], verdict: str) -> None:
    one = replace(source(None), **facts)
    assert progress().verdict_on(one) == verdict
    assert verdict in VERDICTS
    assert progress(paused=True).verdict_on(one) == "paused"


def test_a_source_that_is_not_asked_because_of_the_limit_is_not_idle() -> None:
    limited = progress(throttled=True)
    assert limited.verdict_on(source(None)) == "throttled"
    assert limited.verdict_on(replace(source(None), in_flight=1)) == "waiting"
    assert limited.verdict_on(source(None, Phase.IDLE)) == "unused"
