"""Command `metrics`: the metrics of the running peer, for Prometheus."""

from __future__ import annotations

from peer.cli.command import command
from peer.cli.console import Console


@command("metrics", example="mini-torrent metrics")
def metrics(console: Console) -> None:
    """Print the metrics of this device's peer for Prometheus.

    Needs no port; docs/metrics.md lists them. The names of your groups are part of them, unless
    peer.toml has metrics_groups = false in [http].
    """
    from common.messages.control import Metrics, MetricsAre

    answer = console.request(Metrics())
    assert isinstance(answer, MetricsAre)
    if console.as_json:
        console.json({"text": answer.text})
    else:
        print(answer.text, end="", flush=True)


COMMANDS = (metrics,)
