"""Signals that come while a message is sealed and sent: the other frames must follow the first."""

from __future__ import annotations

import subprocess
import sys

from tests.support.data_paths import needs_library

pytestmark = needs_library

# In a process of its own: a message that is torn apart ends the process.
SENDER = """
import os, signal, zmq
from peer.native.blocks import new_block
from peer.native.library import address_of, library

found = library()
context = zmq.Context()
router, dealer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
router.setsockopt(zmq.ROUTER_MANDATORY, 1)
dealer.setsockopt(zmq.ROUTING_ID, b"x")
for end in (router, dealer):
    end.set_hwm(0)
    end.linger = 0
dealer.connect(f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}")
dealer.send(b"")
router.recv_multipart()
with address_of(bytes(16)) as key:
    sealer = found.call.mt_sealer_new(key)
size, signals = 1 << 18, []
signal.signal(signal.SIGALRM, lambda *_: signals.append(1))
signal.setitimer(signal.ITIMER_REAL, 3e-5, 3e-5)
for _ in range(200):
    block = new_block(found, size)
    where = router.underlying, b"x", 1, b"MT1", 3, b"head", 4
    assert found.call.mt_send(sealer, *where, block.handle, size, 1 << 16) == 0
signal.setitimer(signal.ITIMER_REAL, 0)
assert signals
for _ in range(200):
    assert len(dealer.recv_multipart(copy=False)) == 8
os._exit(0)
"""


def test_signals_do_not_tear_a_message_apart() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SENDER], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
