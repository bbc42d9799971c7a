"""Updates of a content that the leecher has in an earlier version: ours, and rsync.

Mini-Torrent is timed as in `benchmarks.contestants.ours`, at a running prompt, until the verified
content has its name; rsync from its start to its exit, updating the earlier content in place.
Noted: bytes received and sent by the leecher, with all headers.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.contestants.base import Outcome, missing_program
from benchmarks.contestants.ours import GROUP, BenchmarkSwarm, not_installed
from benchmarks.contestants.rsync import serve
from benchmarks.environment import RunEnvironment
from benchmarks.network import bytes_of
from benchmarks.report import OURS
from benchmarks.updates import copy_earlier
from benchmarks.workloads import MIB, Workload


class NewVersion:
    """The next version of a name, fetched to the place of the one before."""

    def __init__(self, name: str = OURS, *, piece_size: str | None = None) -> None:
        self.name = name
        self._options = () if piece_size is None else ("--piece-size", piece_size)

    def skip_reason(self, workload: Workload) -> str | None:
        return not_installed()

    def run(self, env: RunEnvironment) -> Outcome:
        assert env.earlier is not None
        swarm = BenchmarkSwarm(env, share=False)
        folder = env.folder("d")
        swarm.share(swarm.seeders[0], env.earlier, *self._options)
        swarm.fetch(swarm.leechers[0], env.source.name, folder)
        swarm.share(swarm.seeders[0], env.source, "--replace")
        return _timed(env, swarm, folder)


class ReuseDownload:
    """A download beside the earlier content, which is named by ``--reuse``."""

    name = f"{OURS} --reuse"

    def skip_reason(self, workload: Workload) -> str | None:
        return not_installed()

    def run(self, env: RunEnvironment) -> Outcome:
        assert env.earlier is not None
        swarm = BenchmarkSwarm(env)
        earlier = copy_earlier(env.earlier, env.folder("e"))
        return _timed(env, swarm, env.folder("d"), f"--reuse {earlier}")


def _timed(env: RunEnvironment, swarm: BenchmarkSwarm, folder: Path, options: str = "") -> Outcome:
    prompt = swarm.prompt(swarm.leechers[0])
    before = bytes_of(env.leechers[0])
    clock = env.start_clock()
    line = f"download-file {GROUP} {env.source.name} {folder}/ {options}"
    prompt.write_line(f"{line} --wait --json")
    result = prompt.read_json()
    span = clock.stop()
    notes = {
        "network_MiB": (bytes_of(env.leechers[0]) - before) / MIB,
        "fetched_MiB": result["fetched_bytes"] / MIB,
    }
    return Outcome(span.wall_s, span, (folder / env.source.name,), notes)


class RsyncUpdate:
    """Delta transfer into the earlier content in place; equal sizes and times are skipped."""

    def __init__(self, name: str = "rsync --inplace", *options: str) -> None:
        self.name = name
        self._options = options

    def skip_reason(self, workload: Workload) -> str | None:
        return missing_program("rsync")

    def run(self, env: RunEnvironment) -> Outcome:
        assert env.earlier is not None
        url = serve(env)
        folder = env.folder("leecher")
        copy_earlier(env.earlier, folder)
        argv = ["rsync", "-rt", "--inplace", "--no-whole-file", *self._options, url, f"{folder}/"]
        before = bytes_of(env.leechers[0])
        clock = env.start_clock()
        env.processes.start("rsync", env.leechers[0].argv(argv)).check_exit()
        span = clock.stop()
        notes = {"network_MiB": (bytes_of(env.leechers[0]) - before) / MIB}
        return Outcome(span.wall_s, span, (folder / env.source.name,), notes)
