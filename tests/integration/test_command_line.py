"""The command line as scripts know it: exit codes, JSON, and what goes to which stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.processes import PEER, Person, Swarm, run_program
from tests.support.waiting import wait_for

NUMBER = (int, float)
STATUS = {
    "user": str,
    "connected": bool,
    "tracker": str,
    "listen": str,
    "device": str,
    "id": str,
    "shares": int,
    "downloads": int,
    "requests": int,
    "requests_by_group": dict,
    "pending": list,
    "away": list,
    "version": str,
    "home": str,
    "pid": int,
    "trouble": (str, type(None)),
    "advice": (str, type(None)),
    "announced": str,
    "advertise": str,
    "up_bytes_per_s": NUMBER,
    "down_bytes_per_s": NUMBER,
    "served_bytes": int,
    "fetching": list,
    "limits": dict,
}
GROUP = {"group": str, "owner": str, "members": int, "role": str}
USER = {"user": str, "role": str, "since": str, "online": int, "follows": int}
FILE = {
    "name": str,
    "size_bytes": int,
    "files": int,
    "pieces": int,
    "piece_bytes": int,
    "algorithm": str,
    "digest": str,
    "seeders": int,
    "leechers": int,
    "shared_by": list,
    "away": bool,
    "version": int,
    "current": bool,
}
DOWNLOAD = {
    "state": str,
    "group": str,
    "name": str,
    "path": str,
    "size_bytes": int,
    "verified_bytes": int,
    "rate_bytes_per_s": NUMBER,
    "eta_s": (*NUMBER, type(None)),
    "sources": list,
    "reason": (str, type(None)),
    "version": int,
}
DOWNLOADED = {
    "group": str,
    "name": str,
    "version": int,
    "path": str,
    "size_bytes": int,
    "algorithm": str,
    "digest": str,
    "elapsed_s": NUMBER,
    "rate_bytes_per_s": NUMBER,
    "fetched_bytes": int,
    "reused_bytes": int,
    "sources": list,
}
EVENT = {"seq": int, "time": str, "group": str, "event": str}


def holds(document: Any, shape: dict[str, Any]) -> None:
    """Whether ``document`` has all the keys of ``shape``, of the right kinds.

    That it has no others is held by ``test_the_document_names_every_key``."""
    for key, kind in shape.items():
        assert isinstance(document[key], kind), (key, document)


def test_every_document_has_its_shape(
    swarm: Swarm, alice: Person, bob: Person, carol: Person
) -> None:
    group = alice.group_with(bob)
    carol.ok("join-group", group)
    path = swarm.file(1000)

    def document(person: Person, *words: Any) -> Any:
        ran = person.run("--json", *words)
        assert (ran.code, ran.err) == (0, ""), str(ran)
        assert ran.out.count("\n") == 1, str(ran)
        # The same with the option behind the command.
        return json.loads(ran.out)

    holds(document(alice, "status"), STATUS)
    uploaded = document(alice, "upload-file", path, group)
    more = {"elapsed_s": NUMBER, "joined": bool, "again": bool, "notes": list, "skipped": list}
    more |= {"excluded": int, "skipped_unnamed": int}
    holds(uploaded, FILE | more)
    for rows, shape in (
        (document(alice, "list-groups"), GROUP),
        (document(alice, "list-members", group), USER),
        (document(alice, "list-requests", group), USER),
        (document(bob, "list-files", group), FILE),
    ):
        assert rows
        for row in rows:
            holds(row, shape)
            assert row.get("role", "none") in ("owner", "member", "pending", "none")
    downloaded = document(bob, "download-file", group, path.name, swarm.folder())
    holds(downloaded, DOWNLOADED)
    for source in downloaded["sources"]:
        holds(source, {"user": str, "endpoint": str, "pieces": int})
    for row in document(bob, "show-downloads"):
        holds(row, DOWNLOAD)
        assert row["state"] in ("downloading", "complete", "paused", "failed")
    assert bytes.fromhex(downloaded["digest"]) == bytes.fromhex(uploaded["digest"])
    assert alice.json("list-files", group) == json.loads(alice.ok("list-files", group, "--json"))
    # What changes something prints what it changed.
    other = swarm.fresh("group")
    cleared = [{"group": group, "name": path.name, "path": downloaded["path"]}]
    for person, words, changed in (
        (alice, ("accept-request", group, "carol"), {"user": "carol", "role": "member"}),
        (alice, ("remove-member", group, "carol"), {"user": "carol", "role": "none"}),
        (carol, ("join-group", group), {"user": "carol", "role": "pending"}),
        (alice, ("reject-request", group, "carol"), {"user": "carol", "role": "none"}),
        (alice, ("stop-share", group, path.name), {"name": path.name}),
        (alice, ("create-group", other), {"group": other, "user": "alice", "role": "owner"}),
    ):
        assert document(person, *words) == {"group": group, **changed}
    assert [row for row in document(bob, "clear") if row["group"] == group] == cleared
    left = {"user": "bob", "role": "none", "new_owner": None, "deleted": False}
    assert document(bob, "leave-group", group) == {"group": group, **left}
    assert document(alice, "list-files", group) == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("list-files", "nosuch"), 1),
        (("create-group", "a b"), 2),
        (("nosuch",), 2),
        (("list-files",), 2),
    ],
)
def test_an_error_is_one_document_on_standard_error(
    alice: Person, words: tuple[str, ...], code: int
) -> None:
    for ran in (alice.run("--json", *words), alice.run(*words, "--json")):
        assert (ran.code, ran.out) == (code, ""), str(ran)
        error = json.loads(ran.err)["error"]
        assert set(error) <= {"code", "message", "hint"}
        assert error["code"]
        assert error["message"]


def test_hyphens_and_underscores_are_the_same(alice: Person) -> None:
    assert alice.ok("list_groups") == alice.ok("list-groups")
    assert alice.ok("--json", "show_downloads") == alice.ok("--json", "show-downloads")


def test_quiet_says_nothing_but_what_was_asked_for(swarm: Swarm, alice: Person) -> None:
    group = swarm.fresh("group")
    path = swarm.file(1000)
    for words in (
        ("create-group", group),
        ("upload-file", path, group),
        ("stop-share", group, path.name),
    ):
        ran = alice.run("-q", *words)
        assert (ran.code, ran.out, ran.err) == (0, "", ""), str(ran)
    assert group in alice.ok("-q", "list-groups")
    ran = alice.run("-q", "list-files", "nosuch")
    assert ran.code == 1
    assert ran.err.startswith("error: ")


def test_shown_downloads_are_lines_of_one_form(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    names = ["plain.bin", "two words.bin", "Größe.bin"]
    for name in names:
        alice.share(swarm.file(1000, name), group)
        bob.fetch(group, name, swarm.folder())
    lines = bob.command("show-downloads").out.splitlines()
    assert [line for line in lines if f"[{group}]" in line] == [
        f"[C] [{group}] {name}" for name in names
    ]


def test_the_program_itself(swarm: Swarm, alice: Person, bob: Person) -> None:
    """Codes and streams as a shell sees them."""
    group = alice.group_with(bob)
    path = swarm.file(100_000)
    ran = alice.command("upload-file", path.name, group, cwd=path.parent)
    assert ran.code == 0, str(ran)
    assert path.name in ran.out
    assert all("\r" not in line and "\x1b" not in line for line in (ran.out, ran.err))
    dest = swarm.folder()
    ran = bob.command("--json", "download-file", group, path.name, ".", cwd=dest)
    assert (ran.code, ran.err) == (0, ""), str(ran)
    assert ran.json["path"] == str(dest / path.name)
    assert (dest / path.name).read_bytes() == path.read_bytes()
    ran = bob.command("download-file", group, path.name, ".", cwd=dest)
    assert ran.code == 0, str(ran)
    assert "already in place" in ran.out
    ran = bob.command("download-file", group, f"{path.name}.none", ".", cwd=dest)
    assert (ran.code, ran.out) == (1, ""), str(ran)
    assert run_program([PEER, "--home", str(swarm.root / "none"), "status"]).code == 3
    assert run_program([PEER, "--nosuch"]).code == 2
    ran = run_program([PEER, "--help"])
    assert (ran.code, ran.err) == (0, "")
    for command in ("create-user", "download-file", "watch", "demo"):
        assert command in ran.out


def test_no_wait_returns_at_once(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    path = swarm.file(100_000)
    alice.share(path, group)
    ran = bob.run("--json", "download-file", group, path.name, swarm.folder(), "--no-wait")
    assert ran.code == 0, str(ran)
    assert isinstance(ran.json, dict)
    wait_for(lambda: bob.state_of(group, path.name) == "complete")


def test_ids_may_have_all_that_they_may_have(swarm: Swarm, alice: Person, bob: Person) -> None:
    for group in ("0", "a" * 64, "Under_score.and-Dash.0", "Z"):
        alice.ok("create-group", group)
        alice.let_in(group, bob)
        bob.ok("list-files", group.lower())
        rows = {row["group"].lower() for row in bob.json("list-groups")}
        assert group.lower() in rows
        for person in (alice, bob):
            person.ok("leave-group", group.upper(), "--yes")


def test_status_names_what_it_should(swarm: Swarm, alice: Person) -> None:
    status = alice.status()
    assert status["user"] == "alice"
    assert status["connected"] is True
    assert status["tracker"] == swarm.tracker.link
    assert status["listen"].startswith(f"{swarm.transport}://")
    assert len(status["device"]) == 43
    assert status["pid"] == alice.pid
