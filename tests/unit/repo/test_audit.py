"""Dependencies: in ranges, each with its reason, and audited or not called clean."""

from __future__ import annotations

import configparser
import re
from typing import Any

import pytest

from tests.support.paths import ROOT
from tools.audit import OURSELVES, verdict

CLEAN = {"name": "click", "version": "8.1", "vulns": []}
WEAK = {"name": "old", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]}
SKIPPED = {"name": "rich", "skip_reason": "Dependency not found on PyPI"}
WE = {"name": "mini-torrent", "skip_reason": OURSELVES}


@pytest.mark.parametrize(
    ("packages", "code", "last"),
    [
        ([CLEAN, WE], 0, "1 packages audited, 0 not, 0 weaknesses"),
        ([CLEAN, WEAK, SKIPPED], 1, "2 packages audited, 1 not, 1 weaknesses"),
        ([CLEAN, SKIPPED], 2, "1 packages audited, 1 not, 0 weaknesses"),
        ([SKIPPED, WE], 2, "NOTHING WAS AUDITED: is pypi.org reachable from here?"),
        ([WE], 2, "NOTHING WAS AUDITED: is pypi.org reachable from here?"),
    ],
)
def test_only_what_was_looked_up_is_clean(
    packages: list[dict[str, Any]], code: int, last: str
) -> None:
    ended, said = verdict({"dependencies": packages})
    assert ended == code
    assert said[-1] == last


def test_each_weakness_and_each_gap_is_named() -> None:
    _, said = verdict({"dependencies": [WEAK, SKIPPED]})
    assert said[:-1] == [
        "weakness: old 1: X-1, fixed in 2",
        "not audited: rich: Dependency not found on PyPI",
    ]


def _dependencies() -> list[str]:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    lists = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    lines = [line for text in lists for line in text.split("\n") if line]
    return [line for line in lines if not line.startswith("mini-torrent[")]  # an extra of ours


@pytest.mark.parametrize("dependency", _dependencies())
def test_every_dependency_has_a_range_and_a_reason(dependency: str) -> None:
    name, _, rest = dependency.partition(" ")
    assert re.match(r">=\d[\d.]*,<\d[\d.]*(;|$)", rest), dependency
    name = name.partition("[")[0]  # without its extras
    reasons = (ROOT / "docs" / "decisions" / "dependencies.md").read_text("utf-8").lower()
    assert re.search(rf"\b{re.escape(name.removeprefix('types-').lower())}\b", reasons), name
