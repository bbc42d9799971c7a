"""Help of every command: a valid example, and no slow import.

The commands of the original keep their names.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import click
import pytest

from common.cli.command_group import HelpContext
from peer.cli import root, run
from tests.support.paths import ROOT
from tracker.cli import tracker

ORIGINAL = [
    "create_user",
    "login",
    "logout",
    "create_group",
    "join_group",
    "leave_group",
    "list_requests",
    "accept_request",
    "list_groups",
    "list_files",
    "upload_file",
    "download_file",
    "show_downloads",
    "stop_share",
]
ADDED = [
    "up",
    "down",
    "status",
    "shell",
    "change-password",
    "list-devices",
    "forget-device",
    "list-members",
    "remove-member",
    "reject-request",
    "watch",
    "info",
    "withdraw",
    "demo",
    "pause",
    "resume",
    "cancel",
    "clear",
    "why-slow",
    "list-shares",
    "verify",
    "move",
    "whoami",
    "logs",
    "web",
    "top",
    "service",
    "metrics",
    "limit",
    "doctor",
    "completion",
    "invite",
    "list-invites",
    "revoke-invite",
    "join",
    "follow",
    "unfollow",
    "list-follows",
    "wait",
    "who-has",
    "cat",
]
COMMANDS = sorted(root.commands)


def test_the_commands_are_those_of_the_contract() -> None:
    context = click.Context(root)
    for name in ORIGINAL + ADDED:
        assert root.get_command(context, name) is not None, name
        assert root.get_command(context, name.replace("-", "_")) is not None, name
    assert len(COMMANDS) == len(ORIGINAL) + len(ADDED)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([name, "--help"]) == 0
    text = capsys.readouterr().out
    head, _, example = text.partition("Example:\n")
    assert f"mini-torrent {name}" in head
    assert len(head.split("\n\n")[1].strip()) > 10
    assert f"mini-torrent {name}" in example


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_can_be_typed(name: str) -> None:
    command = root.commands[name]
    line = (command.epilog or "").splitlines()[-1].replace('eval "$(', "").replace(')"', "")
    words = shlex.split(line)
    assert words[:2] == ["mini-torrent", name]
    words = [str(ROOT / "setup.cfg") if "~/film.mkv" in word else word for word in words[2:]]
    command.make_context(name, words)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_fits_a_line(name: str) -> None:
    summary = root.commands[name].get_short_help_str(62)
    assert summary
    assert not summary.endswith("...")


def test_the_help_warns_of_passwords_as_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("login", "create-user", "change-password"):
        run([name, "--help"])
        assert "can be seen by other users" in " ".join(capsys.readouterr().out.split())


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    shown = capsys.readouterr().out
    assert run(["--help"]) == 0
    assert shown == capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    assert "Exit codes:" in shown


@pytest.mark.parametrize("columns", [45, 60])
@pytest.mark.parametrize("group", [root, tracker], ids=["peer", "tracker"])
def test_help_on_a_narrow_terminal_breaks_no_word(
    group: click.Group, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def page(command: click.Command, width: int) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        with HelpContext(command, info_name=command.name, **command.context_settings) as context:
            return command.get_help(context)

    for command in (group, *group.commands.values()):
        narrow, wide = page(command, columns), page(command, 100)
        examples = narrow.partition("Example:")[2]  # kept as they are typed
        lines = [line for line in narrow.splitlines() if line not in examples]
        assert [line for line in lines if len(line) >= columns] == []
        wide = wide.partition("Example:")[0]
        words = {word for word in wide.split() if len(word) < columns - 6}
        if command is not group:  # which shortens the summaries of its commands
            assert words <= set(narrow.split()), command.name


@pytest.mark.parametrize("name", sorted(tracker.commands))
def test_the_tracker_help_names_variables_and_values(name: str) -> None:
    command = tracker.commands[name]
    for option in command.params:
        if isinstance(option, click.Option) and option.envvar:
            assert option.show_envvar
            values = ("DIR", "ENDPOINT", "HOST", "HOST:PORT", "ORIGIN", "URL")
            assert option.is_flag or option.metavar in values, option.name
    if any(option.name == "bind_at" for option in command.params):
        with HelpContext(command, info_name=name, max_content_width=100) as context:
            text = " ".join(command.get_help(context).split())
        assert "HOST:PORT, tcp://HOST:PORT or ipc:///PATH" in text


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys\nfrom peer.cli import run\nrun(['--help'])\n"
        "slow = {'zmq', 'rich', 'sqlalchemy', 'asyncio', 'nacl', 'blake3'} & set(sys.modules)\n"
        "sys.exit(', '.join(slow) if slow else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_talking_to_a_peer_imports_no_asyncio() -> None:
    code = (
        "import sys\nimport peer.control.client, peer.cli\n"
        "slow = {'rich', 'sqlalchemy', 'asyncio', 'blake3'} & set(sys.modules)\n"
        "sys.exit(', '.join(slow) if slow else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_MINI_TORRENT_COMPLETE" in capsys.readouterr().out


def test_a_shell_gets_its_completions() -> None:
    environment = {
        **os.environ,
        "_MINI_TORRENT_COMPLETE": "bash_complete",
    }
    done = subprocess.run(
        [sys.executable, "-m", "peer.cli", "mini-torrent list-", "list-"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    found = {line.partition("\t")[2] for line in done.stdout.splitlines()}
    listings = ("devices", "groups", "requests", "members", "invites", "files", "shares", "follows")
    assert found == {f"list-{what}" for what in listings}
