"""What is wrong with one process of a test, from before its first own line: read from ``FAULTS``.

Python imports this by its name from PYTHONPATH. ``FAULTS`` is a JSON object:

- ``limits``: other values in ``common.limits``, such as a ticket's life that a test can wait for.
- ``wall``: a file with the seconds by which this process' wall clock is off; read at every look at
  the clock, so that it can jump. The monotonic clock stays, as with a real clock that is set.
- ``announce``: the endpoint that a peer tells the tracker, as behind a router that forwards a port.
- ``deaf``: which part of the published messages never arrives.
- ``plug``: a file in which all is kept that is needed to undo the writes that were not synced
  (`plug.pull` does that after a kill, as a lost supply would have).
"""

import json
import os

faults = json.loads(os.environ.get("FAULTS", "{}"))

if "limits" in faults:
    from common import limits

    for name, value in faults["limits"].items():
        assert hasattr(limits, name), name
        setattr(limits, name, value)

if "wall" in faults:
    import time

    real_s, real_ns = time.time, time.time_ns

    def off_s() -> float:
        with open(faults["wall"], encoding="ascii") as file:
            return float(file.read() or 0)

    time.time = lambda: real_s() + off_s()
    time.time_ns = lambda: real_ns() + int(off_s() * 1e9)

if "announce" in faults:
    from peer import addresses

    addresses.announced = lambda _: faults["announce"]

if "deaf" in faults:
    import random

    from peer import tracker_link

    heard = tracker_link.TrackerLink._on_published
    rng = random.Random(faults.get("seed", 0))

    def deaf(self, frames):  # type: ignore[no-untyped-def]
        if rng.random() >= faults["deaf"]:
            heard(self, frames)

    tracker_link.TrackerLink._on_published = deaf

if "plug" in faults:
    import plug

    plug.install(faults["plug"])
