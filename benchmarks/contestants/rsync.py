"""rsync from a daemon, whole files, no compression, unencrypted.

Timed: from the start of all clients at once until the last one has exited. rsync verifies received
files by a digest of its own and renames them. CPU: the daemon and its children within the span, the
clients as a whole.
"""

from __future__ import annotations

import os

from benchmarks.arena import Arena
from benchmarks.contestants.base import Outcome, missing_program
from benchmarks.contestants.web import answers
from benchmarks.crew import wait_until
from benchmarks.workloads import Workload

_CONFIGURATION = """
use chroot = no
uid = {uid}
gid = {gid}
log file = {root}/rsyncd.log
[content]
path = {folder}
read only = yes
"""


class Rsync:
    """A star: each leecher fetches from the only seeder."""

    name = "rsync"

    def unfit(self, workload: Workload) -> str | None:
        if workload.seeders > 1:
            return "rsync fetches from one server"
        if workload.shaped:
            return "a star like nginx, which represents it here"
        return missing_program("rsync")

    def run(self, arena: Arena) -> Outcome:
        place = arena.seeders[0]
        port = place.free_port()
        configuration = arena.root / "rsyncd.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                uid=os.getuid(), gid=os.getgid(), root=arena.root, folder=arena.source.parent
            )
        )
        server: list[str] = ["rsync", "--daemon", "--no-detach", f"--config={configuration}"]
        server += [f"--address={place.address}", f"--port={port}"]
        arena.crew.start("rsync-daemon", server)
        wait_until(lambda: answers(place.address, port), "rsync")
        folders = [arena.folder(f"leecher{index}") for index in range(len(arena.leechers))]
        url = f"rsync://{place.address}:{port}/content/{arena.source.name}"
        clock = arena.start_clock()
        clients = [
            arena.crew.start("rsync", ["rsync", "-r", "--whole-file", url, f"{folder}/"])
            for folder in folders
        ]
        for client in clients:
            client.finish()
        span = clock.stop()
        outputs = tuple(folder / arena.source.name for folder in folders)
        return Outcome(span.wall_s, span, outputs)
