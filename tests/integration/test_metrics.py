"""Metrics of real processes: by the command, and scraped."""

from __future__ import annotations

import re
import stat
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.integration.test_http import UnixConnection
from tests.support.processes import TRACKER, Person, Swarm, run_program
from tests.support.promtool import promtool

# The transport makes no difference here.
pytestmark = pytest.mark.parametrize("transport", ["tcp"], indirect=True)
SIZE = 3 << 20


def values(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}


def scraped(connection: HTTPConnection, path: str, **headers: str) -> tuple[int, str]:
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    return response.status, response.read().decode()


def serve_http(person: Person, *lines: str) -> None:
    person.down()
    with (person.home / "peer.toml").open("a") as file:
        file.write("\n".join(("", "[http]", "on = true", *lines, "")))
    person.up()


def test_a_transfer_is_in_the_metrics_of_both_ends(own_swarm: Swarm) -> None:
    alice, bob = own_swarm.person("alice"), own_swarm.person("bob")
    serve_http(alice)
    serve_http(bob, "metrics_groups = false")
    group = alice.group_with(bob)
    path = own_swarm.file(SIZE)
    alice.share(path, group)
    bob.ok("download-file", group, path.name, own_swarm.folder())

    text = bob.ok("metrics")
    promtool("check", "metrics", given=text)
    found = values(text)
    p = "minitorrent_peer_"
    assert found[f"{p}tracker_connected"] == 1
    assert found[f'{p}downloads{{state="complete"}}'] == 1
    assert found[f'{p}downloads_finished_total{{result="complete"}}'] == 1
    assert found[f"{p}download_duration_seconds_count"] == 1
    assert found[f'{p}disk_bytes_total{{operation="write"}}'] == SIZE
    assert found[f'{p}pieces_received_total{{result="verified"}}'] >= 1
    assert found[f'{p}received_bytes_total{{group="_other"}}'] == SIZE
    assert found[f'{p}connections_total{{result="up",transport="zmq"}}'] == 1
    assert found[f"{p}ticket_expiry_timestamp_seconds"] > found[f"{p}start_time_seconds"]
    # Names of groups are confidential there, and those of users everywhere.
    assert group not in text

    connection = UnixConnection(alice.home / "api.sock")
    status, text = scraped(connection, "/metrics")
    assert status == 200
    found = values(text)
    assert found[f'{p}sent_bytes_total{{group="{group}"}}'] == SIZE
    assert found[f'{p}disk_bytes_total{{operation="read"}}'] == SIZE
    assert found[f'{p}disk_bytes_total{{operation="digest"}}'] == SIZE
    assert found[f'{p}pieces_served_total{{outcome="sent"}}'] >= 1
    for name in ("alice", "bob", str(alice.home), own_swarm.tracker.link):
        assert name not in text
    steady = re.compile(r"lag|expiry|requesters")
    printed = values(alice.ok("metrics"))
    assert {k: v for k, v in printed.items() if not steady.search(k)} == {
        k: v for k, v in found.items() if not steady.search(k)
    }
    assert scraped(connection, "/healthz") == (200, "ok\n")
    assert scraped(connection, "/readyz") == (200, "ready\n")


def test_h138_the_metrics_of_a_peer_are_for_its_user_alone(own_swarm: Swarm) -> None:
    alice = own_swarm.person("alice")
    serve_http(alice)
    path = Path(alice.home / "api.sock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert scraped(UnixConnection(path), "/metrics", Host="evil.example")[0] == 421
    assert scraped(UnixConnection(path), "/metrics", Origin="http://evil.example")[0] == 403
    # The page's port, which other programs of this machine reach, has none.
    page = alice.json("web", "--no-browser")["url"]
    port = int(page.rstrip("/").rpartition(":")[2])
    assert scraped(HTTPConnection("127.0.0.1", port), "/metrics")[0] in (401, 404)


def test_a_tracker_counts_its_commands(own_swarm: Swarm, tmp_path: Path) -> None:
    alice = own_swarm.person("alice")
    alice.refused("login", "alice", "a wrong password")
    home = str(own_swarm.tracker.home)
    assert run_program([TRACKER, "backup", str(tmp_path / "b.db"), "--home", home]).code == 0
    ran = run_program([TRACKER, "metrics", "--home", home])
    assert ran.code == 0, str(ran)
    promtool("check", "metrics", given=ran.out)
    found, t = values(ran.out), "minitorrent_tracker_"
    assert found[f"{t}users"] == 1
    assert found[f'{t}devices{{state="online"}}'] == 1
    assert found[f"{t}writable"] == 1
    assert found[f'{t}logins_total{{result="wrong"}}'] == 1
    assert found[f'{t}commands_total{{command="Login",outcome="refused"}}'] == 1
    assert found[f'{t}command_duration_seconds_count{{class="login"}}'] >= 2
    assert found[f"{t}commit_duration_seconds_count"] >= 1
    assert found[f'{t}handshakes_total{{result="admit"}}'] >= 1
    assert found[f"{t}last_backup_timestamp_seconds"] >= found[f"{t}start_time_seconds"] - 60
    assert "alice" not in ran.out
