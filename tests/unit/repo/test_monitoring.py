"""Dashboard and alerts in config/ use only families and labels that the programs emit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import yaml

from common.metrics.exposition import PREFIX
from common.metrics.families import Family, Kind
from peer.metrics import families as of_peer
from tests.support.paths import ROOT
from tests.support.promtool import promtool
from tracker.metrics import families as of_tracker

DASHBOARD = ROOT / "config" / "grafana-dashboard.json"
ALERTS = ROOT / "config" / "alerts.yml"
_NAME = re.compile(rf"{PREFIX}_\w+")
_SELECTOR = re.compile(rf'({PREFIX}_\w+)\{{(\w+)!?="(\w+)"\}}')


def emitted() -> dict[str, Family]:
    found = {}
    for module in (of_peer, of_tracker):
        for family in module.FAMILIES:
            name = f"{PREFIX}_{module.PROGRAM}_{family.name}"
            found |= {name + ("_bucket" if family.kind is Kind.HISTOGRAM else ""): family}
    return found


def expressions() -> Iterator[str]:
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


@pytest.mark.parametrize("expression", list(expressions()))
def test_an_expression_uses_what_is_emitted(expression: str) -> None:
    known = emitted()
    assert set(_NAME.findall(expression)) <= set(known)
    for name, label, value in _SELECTOR.findall(expression):
        assert value in (known[name].labels[label] or ())


def test_names_follow_the_habits_of_prometheus() -> None:
    for name, family in emitted().items():
        assert name.endswith("_total") == (family.kind is Kind.COUNTER)


def test_promtool_accepts_the_alerts() -> None:
    promtool("check", "rules", str(ALERTS))


def test_alerts_fire_when_they_should() -> None:
    promtool("test", "rules", str(ROOT / "tests" / "data" / "alerts_test.yml"))


def test_h138_the_tracker_names_nothing_of_its_users() -> None:
    for family in of_tracker.FAMILIES:
        assert None not in family.labels.values()
        assert not {"user", "device", "group", "share", "address"} & set(family.labels)
