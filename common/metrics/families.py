"""Families of metrics: their names, labels and bounds, and the readings of one scrape.

Owns: the rule that each label has a known set of values. Not here: the families of each program
(see peer.metrics, tracker.metrics), and the text that is scraped (see common.metrics.exposition).

Invariant: a scrape has at most one series for each known value. Why: values that others choose
would let them fill the memory of the monitoring. The one open label is the group of a peer, which
its reader bounds, and `OPEN_VALUES_MAX` bounds again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from common.metrics.histogram import Histogram

OTHER = "other"
"""The value in the place of one that a family does not know."""
OPEN_OTHER = "_other"
"""The same of an open label; no group can have this name."""
OPEN_VALUES_MAX = 50  # groups that have series of their own

Labels: TypeAlias = tuple[str, ...]
"""Values of the labels of one series, in the order of the family."""


class Kind(StrEnum):
    """Kind of a family: a gauge rises and falls, a counter only rises."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """Metric family. ``labels``: the values of each label, None if it is open. ``buckets``: of a
    histogram."""

    name: str
    kind: Kind
    help: str
    labels: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()


def gauge(name: str, text: str, **labels: Iterable[str] | None) -> Family:
    """A gauge. ``labels``: the values of each label, None if it is open."""
    return Family(name, Kind.GAUGE, text, _closed(labels))


def counter(name: str, text: str, **labels: Iterable[str] | None) -> Family:
    """A counter, whose name ends in ``_total``."""
    return Family(name, Kind.COUNTER, text, _closed(labels))


def histogram(
    name: str, text: str, buckets: tuple[float, ...], **labels: Iterable[str] | None
) -> Family:
    """A histogram with the upper bounds of its ``buckets``."""
    return Family(name, Kind.HISTOGRAM, text, _closed(labels), buckets)


def _closed(
    labels: Mapping[str, Iterable[str] | None],
) -> dict[str, tuple[str, ...] | None]:
    return {name: None if each is None else tuple(each) for name, each in labels.items()}


class Readings:
    """Values of all families at one time."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = {family.name: family for family in families}
        self.values: dict[str, dict[Labels, float]] = {name: {} for name in self._families}
        self.histograms: dict[str, dict[Labels, Histogram]] = {name: {} for name in self._families}

    def add(self, name: str, value: float, **labels: str) -> None:
        """Add to a series, which begins with 0. Values of unknown labels share a series."""
        key = self._key(name, labels)
        series = self.values[name]
        series[key] = series.get(key, 0.0) + value

    def add_each(self, name: str, label: str, counts: Mapping[str, float]) -> None:
        """Add to the series of all known values of one label: 0 for those without a count."""
        for value in self._families[name].labels[label] or ():
            self.add(name, 0.0, **{label: value})
        for value, count in counts.items():
            self.add(name, count, **{label: value})

    def put_histogram(self, name: str, histogram: Histogram, **labels: str) -> None:
        """Add a series of a histogram."""
        self.histograms[name][self._key(name, labels)] = histogram

    def _key(self, name: str, labels: Mapping[str, str]) -> Labels:
        family = self._families[name]
        assert labels.keys() == family.labels.keys(), f"{name}: the labels are {family.labels}"
        return tuple(
            self._known(name, label, known, labels[label]) for label, known in family.labels.items()
        )

    def _known(self, name: str, label: str, known: tuple[str, ...] | None, value: str) -> str:
        if known is not None:
            return value if value in known else OTHER
        place = list(self._families[name].labels).index(label)
        taken = {key[place] for key in self.values[name]} - {OPEN_OTHER}
        return value if value in taken or len(taken) < OPEN_VALUES_MAX else OPEN_OTHER
