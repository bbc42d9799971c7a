"""nginx and curl, followed by a digest, as in many scripts. Unencrypted.

Timed: from the start of all curls at once until the last digest program has exited with the known
digest. Each leecher digests as soon as its own curl is done. Folders are skipped: curl does not
fetch them. CPU: nginx within the span, curl and the digest program as a whole.
"""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import subprocess

from benchmarks.arena import Arena
from benchmarks.contestants.base import Outcome, missing_program
from benchmarks.crew import BenchmarkError, wait_until
from benchmarks.workloads import Workload

# OpenSSL uses the processor's SHA instructions; sha256sum of coreutils may not.
SHA256 = ("openssl", "dgst", "-sha256", "-r")
B3SUM = ("b3sum",)

_CONFIGURATION = """
daemon off;
pid {root}/nginx.pid;
error_log stderr error;
worker_processes auto;
events {{ worker_connections 512; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    sendfile_max_chunk 4m;
    client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
    uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
    server {{ listen {address}:{port}; root {folder}; }}
}}
"""


class NginxCurl:
    """A star: each leecher fetches from the only seeder. `digest` is the digest command."""

    def __init__(self, *digest: str) -> None:
        self._digest = digest
        self.name = f"nginx + curl + {'sha256' if digest == SHA256 else digest[0]}"

    def unfit(self, workload: Workload) -> str | None:
        if workload.is_folder:
            return "curl fetches files, not folders"
        if workload.seeders > 1:
            return "curl fetches from one server"
        if workload.shaped and self._digest != SHA256:
            return "only the link counts here: one digest program is enough"
        return missing_program("nginx", "curl", self._digest[0])

    def run(self, arena: Arena) -> Outcome:
        place = arena.seeders[0]
        port = place.free_port()
        configuration = arena.root / "nginx.conf"
        # The workers of an nginx started by root run as another user, which must be able to read.
        arena.source.parent.chmod(0o755)
        arena.root.chmod(0o755)
        configuration.write_text(
            _user_line()
            + _CONFIGURATION.format(
                root=arena.root, address=place.address, port=port, folder=arena.source.parent
            )
        )
        arena.crew.start("nginx", place.argv(["nginx", "-p", arena.root, "-c", configuration]))
        url = f"http://{place.address}:{port}/{arena.source.name}"
        known = _digest_of(self._digest, arena)
        if not place.namespace:
            wait_until(lambda: answers(place.address, port), "nginx")
        else:
            ready = shlex.join(["curl", "-s", "--retry", "50", "--retry-connrefused", "-I", url])
            arena.crew.start("curl", place.argv(["sh", "-c", ready])).finish()
        outputs = [arena.root / f"leecher{index}.bin" for index in range(len(arena.leechers))]
        clock = arena.start_clock()
        clients = []
        for where, output in zip(arena.leechers, outputs, strict=True):
            fetch = shlex.join(["curl", "-sSf", "-o", str(output), url])
            check = shlex.join([*self._digest, str(output)])
            clients.append(
                arena.crew.start("curl", where.argv(["sh", "-c", f"{fetch} && {check}"]))
            )
        for client in clients:
            if client.rest().split()[:1] != [known]:
                raise BenchmarkError(f"{self.name}: another digest: {client.last_words()}")
            client.finish()
        span = clock.stop()
        return Outcome(span.wall_s, span, tuple(outputs))


def _digest_of(command: tuple[str, ...], arena: Arena) -> str:
    made = subprocess.run([*command, arena.source], capture_output=True, text=True, check=True)
    return made.stdout.split()[0]


def _user_line() -> str:
    return f"user {getpass.getuser()};" if os.geteuid() == 0 else ""


def answers(address: str, port: int) -> bool:
    """Return whether the port accepts connections."""
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0
