"""The long row of a fleet: hundreds of MiB through a network of namespaces."""

from __future__ import annotations

import pytest

from tests.chaos.stage import Skipped, Stage
from tests.support import fleet_story
from tests.support.namespaces import lans
from tests.support.processes import Swarm

MIB_FULL = 256


def f130_a_fleet_has_every_version_through_kills_and_absence(stage: Stage) -> str:
    """Followers on machines of their own; only what changed travels."""
    try:
        with lans() as lan:
            swarm = Swarm("tcp", tracker=False)
            try:
                return fleet_story.told(swarm, lan, stage.rng, stage.count(MIB_FULL) << 20)
            finally:
                swarm.close()
    except pytest.skip.Exception as error:
        raise Skipped(str(error)) from error
