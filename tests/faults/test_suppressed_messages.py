"""H96: messages that do not arrive, on a connection that lives: what waits for them begins anew.

Heartbeats pass, so the connection itself never shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.data_paths import COMPILED, each_path
from tests.support.faults import MIB, Fetch, behind, faults, fetch, settle
from tests.support.faulty_link import FaultyLink, SourceLine
from tests.support.processes import Person, Swarm
from tests.support.suppressed_messages import CURVE_BYTES, SIGNATURE_BYTES, Swallow

PIECE = 16 * 1024
QUIET_S = 2.0  # instead of 10: the patience of these tests, not what they show
IN_CURVE = SIGNATURE_BYTES + CURVE_BYTES  # the first frame of a message, encrypted


Begin = Callable[[], Fetch]


@pytest.fixture
def only_source(town: Swarm, data_path: str) -> Iterator[Callable[..., Begin]]:
    """Share a file from a peer that is reached by ``link`` alone; return a function to fetch it."""
    people: list[Person] = []
    native = data_path == COMPILED

    def share(
        link: SourceLine, size: int, *, piece: str = "16K", quiet_s: float, **more: Any
    ) -> Begin:
        source = behind(
            town, link, town.fresh("source"), "--upload-limit", "4M", native=native, **more
        )
        with faults(quiet=quiet_s):
            fetcher = settle(town, town.fresh("fetcher"), native=native)
        people.extend((source, fetcher))
        group = source.group_with(fetcher)
        path = town.file(size)
        source.share(path, group, "--piece-size", piece)
        return lambda: fetch(fetcher, group, path)

    yield share
    for person in people:
        person.ok("down")


@each_path
@pytest.mark.parametrize(
    "swallow",
    [
        Swallow(SIGNATURE_BYTES, count=4, skip=3),
        Swallow(longer_than=PIECE, skip=5),
    ],
    ids=["a message", "its data"],
)
def test_h96_a_gap_on_a_bulk_connection_ends_it_at_once(
    only_source: Callable[..., Begin], line: Callable[..., FaultyLink], swallow: Swallow
) -> None:
    link = SourceLine(line)
    begin = only_source(link, MIB, quiet_s=1000.0)
    link.slow(rate=MIB)  # a fast source may send all that is left in one message: none follows it
    _, bulk = link.links
    bulk.down.swallow = swallow
    begin().finishes(patience_s=30.0)
    assert swallow.done.is_set()
    assert bulk.connections == 1, "it is not tried again at once"


@each_path
def test_h96_nothing_more_comes_on_a_bulk_connection(
    only_source: Callable[..., Begin], line: Callable[..., FaultyLink]
) -> None:
    """Nothing follows that could show the gap."""
    link = SourceLine(line)
    begin = only_source(link, MIB, quiet_s=QUIET_S)
    _, bulk = link.links
    bulk.down.swallow = swallow = Swallow(SIGNATURE_BYTES, count=1 << 30, skip=3)
    begin().finishes(patience_s=30.0)
    assert swallow.done.is_set()
    assert bulk.connections == 1


@pytest.mark.parametrize(
    ("up", "swallow"),
    [
        (False, Swallow(IN_CURVE, count=4, skip=20)),
        (False, Swallow(longer_than=PIECE)),
        (True, Swallow(IN_CURVE, skip=5)),
    ],
    ids=["a message", "the first data", "a part of a wish"],
)
def test_h96_a_message_on_the_first_connection_is_missing(
    only_source: Callable[..., Begin],
    line: Callable[..., FaultyLink],
    up: bool,
    swallow: Swallow,
) -> None:
    link = SourceLine(line)
    begin = only_source(link, MIB, quiet_s=QUIET_S, slow=True)
    way = link.links[0].up if up else link.links[0].down
    way.swallow = swallow
    begin().finishes(patience_s=30.0)
    assert swallow.done.is_set()


@each_path
@pytest.mark.parametrize("slow", [False, True], ids=["bulk", "first"])
def test_h96_a_piece_that_takes_longer_than_patience_is_not_cut_off(
    only_source: Callable[..., Begin], line: Callable[..., FaultyLink], slow: bool
) -> None:
    """Its bytes come in all the time, and nothing was cut."""
    link = SourceLine(line)
    more = {"slow": True} if slow else {}
    begin = only_source(link, 256 * 1024, piece="256K", quiet_s=QUIET_S, **more)
    link.slow(rate=48 * 1024)
    before = link.links[0].connections
    begin().finishes(patience_s=40.0)
    assert link.links[0].connections == before + 1
