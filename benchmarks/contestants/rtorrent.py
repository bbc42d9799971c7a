"""rtorrent without its screen, unencrypted, with a tracker.

Timed: from telling all running leechers at once to load the torrent, until the last one has
finished with every piece verified. CPU: the seeders' processes, the tracker and the leechers within
the span.
"""

from __future__ import annotations

import os
import socket
import xmlrpc.client
from pathlib import Path

from benchmarks.contestants.base import Outcome, missing_program
from benchmarks.contestants.torrent_setup import Client, prepare
from benchmarks.environment import RunEnvironment
from benchmarks.processes import wait_until
from benchmarks.workloads import MIB, Workload

_CONFIGURATION = """
system.daemon.set = true
network.scgi.open_local = {control}
network.bind_address.set = {address}
network.port_range.set = {port}-{port}
network.port_random.set = no
directory.default.set = {folder}
protocol.encryption.set = none
protocol.pex.set = no
dht.mode.set = disable
trackers.use_udp.set = no
throttle.max_uploads.set = 100
throttle.max_uploads.global.set = 0
throttle.max_downloads.global.set = 0
throttle.max_peers.normal.set = 100
throttle.max_peers.seed.set = 100
network.send_buffer.size.set = 4M
network.receive_buffer.size.set = 4M
network.max_open_files.set = 600
pieces.memory.max.set = 4096M
pieces.hash.on_completion.set = no
method.set_key = event.download.finished, mark, "execute.nothrow=touch,{mark}"
"""


class Rtorrent:
    """rtorrent; all peers connect to all others."""

    name = "rtorrent"

    def skip_reason(self, workload: Workload) -> str | None:
        if workload.shaped:
            return "its leechers do not serve each other within a minute: a star, as slow as nginx"
        return missing_program("rtorrent")

    def run(self, env: RunEnvironment) -> Outcome:
        def start(client: Client) -> Path:
            control, mark = client.scratch / "c", client.scratch / "done"
            configuration = client.scratch / "rc"
            configuration.write_text(
                _CONFIGURATION.format(
                    control=control,
                    address=client.node.address,
                    port=client.port,
                    folder=client.folder,
                    mark=mark,
                )
            )
            argv = client.node.argv(["rtorrent", "-n", "-o", f"import={configuration}"])
            env.processes.start("rtorrent", argv, quiet=True)
            wait_until(lambda: _listens(control), "rtorrent")
            return control

        leechers = prepare(
            env,
            256 * 1024 if env.workload.shaped else MIB,
            lambda client: _load(start(client), client.torrent),
        )
        controls = [start(client) for client in leechers]
        marks = [client.scratch / "done" for client in leechers]
        clock = env.start_clock()
        for client, control in zip(leechers, controls, strict=True):
            _load(control, client.torrent)
        wait_until(lambda: all(map(os.path.exists, marks)), "rtorrent to finish", timeout_s=300)
        span = clock.stop()
        outputs = tuple(client.folder / env.source.name for client in leechers)
        return Outcome(span.wall_s, span, outputs)


def _listens(control: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(control)) == 0


def _load(control: Path, torrent: Path) -> None:
    """Load a torrent by XML-RPC over SCGI: one netstring of headers, then the body."""
    body = xmlrpc.client.dumps(("", str(torrent)), "load.start").encode()
    headers = b"CONTENT_LENGTH\0%d\0SCGI\x001\0" % len(body)
    with socket.socket(socket.AF_UNIX) as wire:
        wire.connect(str(control))
        wire.sendall(b"%d:%b,%b" % (len(headers), headers, body))
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    xmlrpc.client.loads(answer.partition(b"\r\n\r\n")[2])
