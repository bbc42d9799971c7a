"""Several paths, selections and dry runs of `upload-file`: what is asked, printed and returned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import Refused, TransportError
from common.messages import control
from common.messages.refusals import Code
from tests.support.fake_peer import FakePeer
from tests.unit.peer.cli import test_contract
from tests.unit.peer.cli.test_contract import FILE, Cli, one_request

home, cli = test_contract.home, test_contract.cli  # fixtures

PLAN = control.Planned("films", "a", 3, 1, 1, 524288, "blake3", "new")
ROWS = [control.SkippedRow(f"link{number}", "a symbolic link") for number in range(30)]


async def by_path(command: control.Command, tell: Any) -> control.Answer:
    assert isinstance(command, control.UploadFile)
    if command.path.endswith("bad"):
        raise Refused(Code.STORAGE, "it is a FIFO", "only plain files can be")
    if command.path.endswith("away"):
        raise TransportError("the tracker cannot be reached")
    if command.path.endswith("group"):
        raise Refused(Code.UNKNOWN_GROUP, "you are not a member")
    return control.Uploaded(FILE, 1.0, False)


def test_the_options_for_folders_reach_the_peer(home: Path, cli: Cli) -> None:
    words = ("upload-file", "/a", "films", "--links", "follow", "--link-root", "blobs")
    words += ("--exclude", "*.tmp", "--exclude", "!x.tmp", "--skip-unsharable")
    asked, _ = one_request(home, cli, control.Uploaded(FILE, 1.0, False), *words)
    assert asked == control.UploadFile(
        "/a",
        "films",
        links="follow",
        link_roots=[str(home.parent / "blobs")],
        exclude=["*.tmp", "!x.tmp"],
        skip=True,
    )


def test_each_path_is_a_share_and_each_failure_is_named(home: Path, cli: Cli) -> None:
    with FakePeer(home, {control.UploadFile: by_path}) as peer:
        ran = cli("upload-file", "a", "bad", "b", "films")
        assert ran.code == 1
        assert len(ran.out.splitlines()) == 2
        assert 'error: share "bad": it is a FIFO\nhint: only plain files can be' in ran.err
        asked = [command for command in peer.asked if isinstance(command, control.UploadFile)]
        assert [Path(command.path).name for command in asked] == ["a", "bad", "b"]
        ran = cli("upload-file", "a", "b", "films", "--json")
        assert (ran.code, len(ran.json)) == (0, 2)
        ran = cli("upload-file", "a", "bad", "films", "--json")
        assert (ran.code, len(json.loads(ran.out))) == (1, 1)
        assert json.loads(ran.err)["error"]["code"] == "storage"


@pytest.mark.parametrize(("path", "code"), [("away", 4), ("group", 1)])
def test_an_error_of_every_path_ends_the_command(
    home: Path, cli: Cli, path: str, code: int
) -> None:
    with FakePeer(home, {control.UploadFile: by_path}) as peer:
        ran = cli("upload-file", "a", path, "b", "films", "--json")
        assert ran.code == code
        assert len(json.loads(ran.out)) == 1  # the first is shared, and told
        asked = [command for command in peer.asked if isinstance(command, control.UploadFile)]
        assert [Path(command.path).name for command in asked] == ["a", path]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("x/a", "y/A", "films"), 'error: "x/a" and "y/A" would have the same name'),
        (("a", "b", "films", "--name", "n"), "error: --name is for one PATH"),
        (("a", "films", "--link-root", "x"), "error: --link-root needs --links follow"),
        (("a", "films", "--exclude", "#x"), 'error: exclude "#x": # begins a comment'),
        (("a", "films", "--exclude", ""), "error: exclude: the pattern is empty"),
        (("a", "films", "--links", "chase"), "error: invalid value for '--links'"),
        (("films",), "error: missing argument"),
    ],
)
def test_wrong_uses_are_refused_before_anything_is_shared(
    home: Path, cli: Cli, words: tuple[str, ...], said: str
) -> None:
    with FakePeer(home) as peer:
        ran = cli("upload-file", *words)
        assert ran.code == 2
        assert ran.err.startswith(said)
        assert not any(isinstance(command, control.UploadFile) for command in peer.asked)


def test_left_out_entries_are_listed(home: Path, cli: Cli) -> None:
    done = control.Uploaded(FILE, 1.0, False, skipped=ROWS, skipped_unnamed=5, excluded=1234)
    _, ran = one_request(home, cli, done, "upload-file", "/a", "films")
    assert ran.code == 0
    lines = ran.err.splitlines()
    assert lines[0] == "left out: link0: a symbolic link"
    assert lines[-2:] == [
        "left out: 15 more (--json lists them)",
        "excluded by --exclude: 1,234",
    ]
    _, ran = one_request(home, cli, done, "upload-file", "/a", "films", "--json")
    assert ran.json["skipped"][29] == {"path": "link29", "reason": "a symbolic link"}
    assert (ran.json["skipped_unnamed"], ran.json["excluded"]) == (5, 1234)
    _, ran = one_request(
        home, cli, control.Uploaded(FILE, 1.0, False), "upload-file", "/a", "f", "--json"
    )
    assert ran.json["skipped"] == []
    assert ran.json["excluded"] == 0


@pytest.mark.parametrize(
    ("plan", "code", "line"),
    [
        ({}, 0, "would share: a (3 B, 1 file, 1 piece of 512 KiB)"),
        ({"outcome": "join"}, 0, "would join the devices that share it"),
        ({"outcome": "again"}, 0, "shared already"),
        ({"outcome": "replace"}, 0, "would share as a new version"),
        ({"question": '1 hidden file: ".x"'}, 0, "would ask about 1 hidden file"),
        ({"outcome": "refused", "reason": "it is taken", "hint": "wait"}, 1, "would be refused"),
    ],
)
def test_a_dry_run_tells_the_outcome(
    home: Path, cli: Cli, plan: dict[str, Any], code: int, line: str
) -> None:
    from msgspec.structs import replace

    answer = replace(PLAN, **plan)
    asked, ran = one_request(home, cli, answer, "upload-file", "/a", "films", "--dry-run")
    assert isinstance(asked, control.UploadFile)
    assert asked.dry_run
    assert ran.code == code
    assert line in ran.out
    assert ("error: it is taken\nhint: wait" in ran.err) == (code == 1)
    _, ran = one_request(home, cli, answer, "upload-file", "/a", "films", "--dry-run", "--json")
    document = json.loads(ran.out)
    assert document["dry_run"] is True
    assert document["outcome"] == answer.outcome
    assert document["skipped"] == []
