"""rsync from a daemon, whole files, no compression, unencrypted.

Timed: from the start of all clients at once until the last one has exited. rsync verifies received
files by a digest of its own and renames them. CPU: the daemon and its children within the span, the
clients as a whole.
"""

from __future__ import annotations

import os
import subprocess

from benchmarks.contestants.base import Outcome, missing_program
from benchmarks.contestants.web import answers
from benchmarks.environment import RunEnvironment
from benchmarks.processes import wait_until
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

    def skip_reason(self, workload: Workload) -> str | None:
        if workload.seeders > 1:
            return "rsync fetches from one server"
        if workload.shaped:
            return "a star like nginx, which represents it here"
        return missing_program("rsync")

    def run(self, env: RunEnvironment) -> Outcome:
        url = serve(env)
        folders = [env.folder(f"leecher{index}") for index in range(len(env.leechers))]
        clock = env.start_clock()
        clients = [
            env.processes.start("rsync", ["rsync", "-r", "--whole-file", url, f"{folder}/"])
            for folder in folders
        ]
        for client in clients:
            client.check_exit()
        span = clock.stop()
        outputs = tuple(folder / env.source.name for folder in folders)
        return Outcome(span.wall_s, span, outputs)


def serve(env: RunEnvironment) -> str:
    """Start a daemon at the first seeder; return the URL of the content."""
    node = env.seeders[0]
    port = node.free_port()
    configuration = env.root / "rsyncd.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            uid=os.getuid(), gid=os.getgid(), root=env.root, folder=env.source.parent
        )
    )
    server: list[str] = ["rsync", "--daemon", "--no-detach", f"--config={configuration}"]
    server += [f"--address={node.address}", f"--port={port}"]
    env.processes.start("rsync-daemon", node.argv(server))
    if node.namespace is None:
        wait_until(lambda: answers(node.address, port), "rsync")
    else:
        listed = ["rsync", f"rsync://{node.address}:{port}/"]
        argv = env.leechers[0].argv(listed)
        wait_until(lambda: subprocess.run(argv, capture_output=True).returncode == 0, "rsync")
    return f"rsync://{node.address}:{port}/content/{env.source.name}"
