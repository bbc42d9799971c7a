"""Families, readings and histograms, and the text that is made of them."""

from __future__ import annotations

import sys

import pytest

from common.errors import ConfigError
from common.metrics.exposition import Exposition
from common.metrics.families import OPEN_VALUES_MAX, Readings, counter, gauge, histogram
from common.metrics.histogram import Histogram
from tests.support.promtool import promtool

FAMILIES = (
    gauge("things", "Things, by colour", colour=("red", "blue")),
    counter("bytes_total", "Bytes, by group", group=None),
    histogram("wait_seconds", "Waits", (0.1, 1.0)),
)


def fill(readings: Readings) -> None:
    readings.add_each("things", "colour", {"red": 2})
    readings.add("bytes_total", 7, group='a"b\\c\nd')
    waits = Histogram((0.1, 1.0))
    for value in (0.1, 0.5, 5.0):
        waits.observe(value)
    readings.put_histogram("wait_seconds", waits)


def test_the_text_has_all_known_values_and_escapes_the_others() -> None:
    text = Exposition("peer", FAMILIES, fill).text()
    lines = text.splitlines()
    assert 'minitorrent_peer_things{colour="red"} 2.0' in lines
    assert 'minitorrent_peer_things{colour="blue"} 0.0' in lines
    assert r'minitorrent_peer_bytes_total{group="a\"b\\c\nd"} 7.0' in lines
    assert 'minitorrent_peer_wait_seconds_bucket{le="0.1"} 1.0' in lines
    assert 'minitorrent_peer_wait_seconds_bucket{le="+Inf"} 3.0' in lines
    assert "minitorrent_peer_wait_seconds_sum 5.6" in lines
    assert any(line.startswith("minitorrent_build_info{") for line in lines)
    assert "python_gc" not in text  # a registry of our own


def test_promtool_accepts_the_text() -> None:
    promtool("check", "metrics", given=Exposition("peer", FAMILIES, fill).text())


def test_two_scrapes_read_twice_and_keep_nothing() -> None:
    counts = iter((1, 2))
    exposition = Exposition(
        "peer", FAMILIES, lambda readings: readings.add("things", next(counts), colour="red")
    )
    assert 'things{colour="red"} 1.0' in exposition.text()
    assert 'things{colour="red"} 2.0' in exposition.text()


def test_h137_a_value_that_is_not_known_becomes_other() -> None:
    readings = Readings(FAMILIES)
    for number in range(10_000):
        readings.add("things", 1, colour=f"evil-{number}")
    assert readings.values["things"] == {("other",): 10_000}


def test_h137_an_open_label_has_a_bounded_number_of_values() -> None:
    readings = Readings(FAMILIES)
    for number in range(1_000):
        readings.add("bytes_total", 1, group=f"g{number}")
    series = readings.values["bytes_total"]
    assert len(series) == OPEN_VALUES_MAX + 1
    assert series["_other",] == 1_000 - OPEN_VALUES_MAX


def test_a_label_cannot_be_left_out_or_made_up() -> None:
    readings = Readings(FAMILIES)
    with pytest.raises(AssertionError):
        readings.add("things", 1)
    with pytest.raises(AssertionError):
        readings.add("things", 1, colour="red", user="anna")


def test_without_the_library_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match="prometheus_client") as caught:
        Exposition("peer", FAMILIES, fill).text()
    assert "mini-torrent[metrics]" in (caught.value.hint or "")
