"""The simulated network shares its links as TCP does: max-min fair, at both ends.

Each case gives the links, the flows between them and the rate that each flow must get.
"""

from __future__ import annotations

from random import Random

import pytest

from tests.simulation.network import Clock, Flow, Link, Network

KIB = 1024
RATE = 10e6
SECONDS = 4.0


def rates(
    links: dict[str, tuple[float, float]], flows: list[str], delay_s: float = 0.0005
) -> dict[str, float]:
    """Return the rate of each busy flow ("ab": from a to b), in parts of `RATE`."""
    clock = Clock()
    network = Network(clock, Random(0), chunk=16 * KIB, loss=0.0, rto_s=0.2)
    nodes = {
        name: Link(number, up * RATE, down * RATE, delay_s)
        for number, (name, (up, down)) in enumerate(links.items())
    }
    arrived = dict.fromkeys(flows, 0)

    def more(name: str, flow: Flow) -> None:
        arrived[name] += 512 * KIB
        network.send(flow, 512 * KIB, more, name, flow)

    for name in flows:
        flow = Flow(nodes[name[0]], nodes[name[1]])
        for _ in range(4):
            network.send(flow, 512 * KIB, more, name, flow)
    clock.run(SECONDS, lambda: False)
    return {name: size / SECONDS / RATE for name, size in arrived.items()}


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ({"a": (1, 1), "b": (1, 1)}, {"ab": 1.0}),
        ({"a": (1, 1), "b": (1, 1), "c": (1, 1)}, {"ac": 0.5, "bc": 0.5}),
        ({"a": (1, 1), "b": (1, 1), "c": (1, 1)}, {"ab": 0.5, "ac": 0.5}),
        # What a shared downlink does not take of one flow is left to the sender's other flow.
        (
            {"a": (1, 1), "b": (1, 1), "c": (1, 1), "d": (1, 1), "e": (1, 1)},
            {"ad": 1 / 3, "bd": 1 / 3, "cd": 1 / 3, "ae": 2 / 3},
        ),
        ({"a": (1, 1), "b": (0.2, 1), "c": (1, 1)}, {"ac": 0.8, "bc": 0.2}),
    ],
)
def test_flows_share_links_evenly(
    links: dict[str, tuple[float, float]], expected: dict[str, float]
) -> None:
    assert rates(links, list(expected)) == pytest.approx(expected, abs=0.06)


def test_a_long_path_is_filled() -> None:
    assert rates({"a": (1, 1), "b": (1, 1)}, ["ab"], delay_s=0.025)["ab"] > 0.9
