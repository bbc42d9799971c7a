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

from benchmarks.contestants.base import Outcome, missing_program
from benchmarks.environment import RunEnvironment
from benchmarks.processes import BenchmarkError, wait_until
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

    def skip_reason(self, workload: Workload) -> str | None:
        if workload.is_folder:
            return "curl fetches files, not folders"
        if workload.seeders > 1:
            return "curl fetches from one server"
        if workload.shaped and self._digest != SHA256:
            return "only the link counts here: one digest program is enough"
        return missing_program("nginx", "curl", self._digest[0])

    def run(self, env: RunEnvironment) -> Outcome:
        node = env.seeders[0]
        port = node.free_port()
        configuration = env.root / "nginx.conf"
        # The workers of an nginx started by root run as another user, which must be able to read.
        env.source.parent.chmod(0o755)
        env.root.chmod(0o755)
        configuration.write_text(
            _user_line()
            + _CONFIGURATION.format(
                root=env.root, address=node.address, port=port, folder=env.source.parent
            )
        )
        env.processes.start("nginx", node.argv(["nginx", "-p", env.root, "-c", configuration]))
        url = f"http://{node.address}:{port}/{env.source.name}"
        known = _digest_of(self._digest, env)
        if not node.namespace:
            wait_until(lambda: answers(node.address, port), "nginx")
        else:
            ready = shlex.join(["curl", "-s", "--retry", "50", "--retry-connrefused", "-I", url])
            env.processes.start("curl", node.argv(["sh", "-c", ready])).check_exit()
        outputs = [env.root / f"leecher{index}.bin" for index in range(len(env.leechers))]
        clock = env.start_clock()
        clients = []
        for where, output in zip(env.leechers, outputs, strict=True):
            fetch = shlex.join(["curl", "-sSf", "-o", str(output), url])
            check = shlex.join([*self._digest, str(output)])
            clients.append(
                env.processes.start("curl", where.argv(["sh", "-c", f"{fetch} && {check}"]))
            )
        for client in clients:
            if client.read_all().split()[:1] != [known]:
                raise BenchmarkError(f"{self.name}: another digest: {client.stderr_tail()}")
            client.check_exit()
        span = clock.stop()
        return Outcome(span.wall_s, span, tuple(outputs))


def _digest_of(command: tuple[str, ...], env: RunEnvironment) -> str:
    made = subprocess.run([*command, env.source], capture_output=True, text=True, check=True)
    return made.stdout.split()[0]


def _user_line() -> str:
    return f"user {getpass.getuser()};" if os.geteuid() == 0 else ""


def answers(address: str, port: int) -> bool:
    """Return whether the port accepts connections."""
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0
