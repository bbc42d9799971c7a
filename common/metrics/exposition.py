"""Text of the metrics in the format of Prometheus, by prometheus-client (extra ``metrics``).

Owns: the registry, which holds one collector and nothing of the library's own, and the error of a
program that lacks the extra: the library is loaded at the first scrape. Not here: what is counted
(see `Read`).
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import zmq

from common.host.release import RELEASE
from common.metrics.families import Family, Kind, Labels, Readings, gauge
from common.metrics.histogram import Histogram
from common.net.codec import VERSION
from common.optional_library import library_missing

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

Read: TypeAlias = Callable[[Readings], None]
"""Reads the counts of a program into the readings of one scrape."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "minitorrent"
BUILD = {
    "version": RELEASE,
    "protocol": str(VERSION),
    "libzmq": zmq.zmq_version(),
    "python": platform.python_version(),
}
BUILD_INFO = gauge(
    "build_info",
    "Releases of the program and what it runs on; the value is 1",
    **{name: (value,) for name, value in BUILD.items()},
)


class Exposition:
    """Metrics of one program; ``program`` is part of all names but that of the build."""

    def __init__(self, program: str, families: Sequence[Family], read: Read) -> None:
        self._program = program
        self._families = families
        self._read = read
        self._registry: CollectorRegistry | None = None

    def text(self) -> str:
        """Return all metrics as they are now. Raises `ConfigError` if the library is missing."""
        try:
            from prometheus_client import CollectorRegistry
            from prometheus_client.exposition import generate_latest
        except ModuleNotFoundError as error:
            raise library_missing("the metrics need", error.name, "metrics") from error
        if self._registry is None:
            self._registry = CollectorRegistry(auto_describe=False)
            self._registry.register(self)
        return generate_latest(self._registry).decode()

    def collect(self) -> Iterator[Metric]:
        """Yield all families; the registry calls it at each scrape."""
        readings = Readings([BUILD_INFO, *self._families])
        readings.add(BUILD_INFO.name, 1.0, **BUILD)
        self._read(readings)
        yield _metric(f"{PREFIX}_{BUILD_INFO.name}", BUILD_INFO, readings)
        for family in self._families:
            yield _metric(f"{PREFIX}_{self._program}_{family.name}", family, readings)


def _metric(name: str, family: Family, readings: Readings) -> Metric:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    labels = list(family.labels)
    if family.kind is Kind.HISTOGRAM:
        made = HistogramMetricFamily(name, family.help, labels=labels)
        for key, histogram in _sorted(readings.histograms[family.name].items()):
            made.add_metric(key, _buckets(histogram), histogram.sum)
        return made
    kind = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    metric = kind(name, family.help, labels=labels)
    for key, value in sorted(readings.values[family.name].items()):
        metric.add_metric(key, value)
    return metric


def _sorted(series: Iterable[tuple[Labels, Histogram]]) -> list[tuple[Labels, Histogram]]:
    return sorted(series, key=lambda one: one[0])


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*(str(bound) for bound in histogram.bounds), "+Inf"]
    return list(zip(bounds, map(float, histogram.cumulated()), strict=True))
