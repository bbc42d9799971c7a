"""Faults of one process of a test, from before its first own line: read from ``FAULTS``.

Python imports this by its name from PYTHONPATH. ``FAULTS`` is a JSON object:

- ``limits``: other values in ``common.limits``, such as a ticket's life that a test can wait for.
- ``slow``: no instructions for AES in this processor, so that pieces go on the first connection.
- ``quiet``: for how many seconds nothing may come from a source that owes something.
- ``wall``: a file with the seconds by which this process' wall clock is off; read at every look at
  the clock, so that it can jump. The monotonic clock stays, as with a real clock that is set.
- ``announce``: the endpoint that a peer tells the tracker, as behind a router that forwards a port.
- ``usage``: a folder; every second its file ``PID`` has the bytes that the process uses of what its
  allocators hold: what is resident besides goes up and down with how it lies.
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

if "slow" in faults:
    from common.crypto import sealed_stream

    sealed_stream.aes_is_fast = lambda: False

if "quiet" in faults:
    from peer.fetching import bulk
    from peer.swarm.fetching import source_lifecycle

    source_lifecycle._QUIET_MAX_S = bulk.SILENT_S = faults["quiet"]
    source_lifecycle._QUIET_S = faults["quiet"] / 5

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

    addresses.announce_endpoint = lambda _: faults["announce"]

if "deaf" in faults:
    import random

    from peer.tracker_client import link

    heard = link.TrackerLink._on_published
    rng = random.Random(faults.get("seed", 0))

    def deaf(self, frames):  # type: ignore[no-untyped-def]
        if rng.random() >= faults["deaf"]:
            heard(self, frames)

    link.TrackerLink._on_published = deaf

if "plug" in faults:
    from tests.support.tamper import plug

    plug.install(faults["plug"])

if "usage" in faults:
    import ctypes
    import sys
    import threading

    SMALL_BYTES = 96  # a Python object of the kind that has an allocator of its own, on average

    class Mallinfo2(ctypes.Structure):
        _fields_ = [
            ("before", ctypes.c_size_t * 4),
            ("hblkhd", ctypes.c_size_t),
            ("between", ctypes.c_size_t * 2),
            ("uordblks", ctypes.c_size_t),
            ("after", ctypes.c_size_t * 2),
        ]

    def tell_usage() -> None:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
        mallinfo2.restype = Mallinfo2
        with open(os.path.join(faults["usage"], str(os.getpid())), "w", encoding="ascii") as file:
            pause = threading.Event()
            while not pause.wait(1.0):
                found = mallinfo2()
                used = found.uordblks + found.hblkhd + sys.getallocatedblocks() * SMALL_BYTES
                file.seek(0)
                file.write(f"{used:20}")
                file.flush()

    threading.Thread(target=tell_usage, daemon=True).start()
