"""Command `service`: a systemd user unit that keeps this device's peer running.

Owns: the calls of systemctl, and the change from a peer that `up` started to the one of the unit.
Not here: the unit (see peer.cli.service_unit).

Why one unit for each user and not one for each home: its name can be typed, and several homes of a
user are for trials. A unit of another home is only replaced with `--yes`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from common.hints import PROGRAM, hint, quoted_line
from peer.cli.command import command
from peer.cli.console import Console

if TYPE_CHECKING:
    from peer.cli.service_unit import Found

CALL_S = 90.0  # a peer of a large home needs a while to be ready
_LINGER = Path("/var/lib/systemd/linger")
_ACTIONS = click.Choice(["install", "uninstall"])


@command("service", example="mini-torrent service install")
@click.argument("action", type=_ACTIONS, metavar="install|uninstall")
@click.option("--yes", "-y", is_flag=True, help="Replace or remove a unit of another origin.")
def service(console: Console, action: str, yes: bool) -> None:
    """Keep this device's peer running by systemd.

    `install` writes a unit of the user for this program and this home, and enables
    and starts it. A peer that `up` started is handed over: it stops, and starts again under
    systemd. Where systemd cannot be reached, the unit is written, and the commands that remain are
    printed. Repeated, it changes nothing.

    `uninstall` stops and disables the unit, and removes it. The home stays as it is.

    A unit that this command did not write, or wrote for another home, is left alone without
    --yes.
    """
    if action == "install":
        _install(console, yes)
    else:
        _uninstall(console, yes)


# -- installing ---------------------------------------------------------------------------------


def _install(console: Console, yes: bool) -> None:
    from common.errors import StorageError
    from common.host.atomic_files import atomic_write
    from common.host.home import open_home
    from peer.cli import service_unit
    from peer.settings import load

    home, program, path = open_home(console.home), service_unit.program(), service_unit.unit_path()
    text = service_unit.unit_text(program, home)
    has_tracker = bool(load(home).tracker)
    found = _ours(path, home, yes, "install")
    changed = found is None or found.text != text
    if changed:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {path.parent}: {error.strerror}") from error
        atomic_write(path, text.encode())
    reached = _systemctl("daemon-reload")
    enabled = running = False
    if reached.ok:
        running = _enable(home, start=has_tracker, restart=changed and found is not None)
        enabled = True
    remaining = _remaining(console, enabled, has_tracker, home)
    if console.as_json:
        console.json(
            {
                "unit": str(path),
                "home": str(home),
                "program": str(program),
                "changed": changed,
                "enabled": enabled,
                "running": running,
                "reason": None if reached.ok else reason(reached),
                "remaining": remaining,
            }
        )
        return
    if not console.quiet:
        state = "written" if changed else "unchanged"
        suffix = ", enabled and started" if running else ", enabled" if enabled else ""
        console.print_line(f"{path}: {state}{suffix}")
    if not reached.ok:
        console.report(f"warning: systemd cannot be reached: {reason(reached)}")
    if not has_tracker:
        console.report("warning: no tracker is known for this home, so the peer cannot start yet")
    if remaining:
        console.report("to do by hand:")
        for each in remaining:
            console.report(f"  {each}")
    if not _lingers():
        console.report("to run it while you are logged out as well: loginctl enable-linger")


def _enable(home: Path, *, start: bool, restart: bool) -> bool:
    """Enable the unit, and start it in place of a peer that `up` started.

    If that fails, that peer runs again afterwards. Returns whether the peer of the unit runs.
    """
    from common.host.home import lock_holder
    from peer.cli import daemon_process
    from peer.cli.service_unit import NAME

    if not start:
        _must("enable", NAME)
        return False
    handed_over = False
    if (pid := lock_holder(home)) is not None and pid != _main_pid():
        daemon_process.stop(home)
        handed_over = True
    try:
        _must("enable", "--now", NAME)
        if restart and not handed_over:  # one that ran with the unit before
            _must("restart", NAME)
    except BaseException:
        if handed_over:
            _systemctl("stop", NAME)
            daemon_process.start(home, {}, remember=False)
        raise
    return lock_holder(home) is not None


def _remaining(console: Console, enabled: bool, has_tracker: bool, home: Path) -> list[str]:
    """Return the command lines that the user has to type, in order."""
    from common.host.home import lock_holder
    from peer.cli.service_unit import NAME

    ours = [PROGRAM, *(["--home", console.home_option] if console.home_option else [])]
    lines = []
    if not has_tracker:
        lines += [f"{quoted_line([*ours, 'up'])} LINK", quoted_line([*ours, "down"])]
    elif not enabled and lock_holder(home) is not None:
        lines.append(quoted_line([*ours, "down"]))
    if not enabled:
        lines += ["systemctl --user daemon-reload", f"systemctl --user enable --now {NAME}"]
    elif not has_tracker:
        lines.append(f"systemctl --user start {NAME}")
    return lines


def _lingers() -> bool:
    with contextlib.suppress(OSError, KeyError):
        import pwd

        return (_LINGER / pwd.getpwuid(os.getuid()).pw_name).exists()
    return False


# -- uninstalling -------------------------------------------------------------------------------


def _uninstall(console: Console, yes: bool) -> None:
    from common.errors import StorageError
    from peer.cli import service_unit

    path = service_unit.unit_path()
    found = _ours(path, Path(os.path.realpath(console.home)), yes, "uninstall")
    reached = None
    if found is not None:
        reached = _systemctl("daemon-reload")
        if reached.ok:
            _must("disable", "--now", service_unit.NAME)
        try:
            path.unlink(missing_ok=True)
            enabled = path.parent / service_unit.WANTS / service_unit.NAME
            if enabled.is_symlink():
                enabled.unlink()
        except OSError as error:
            raise StorageError(f"cannot remove {error.filename}: {error.strerror}") from error
        if reached.ok:
            _systemctl("daemon-reload")
    if console.as_json:
        console.json({"unit": str(path), "removed": found is not None})
    elif not console.quiet:
        text = "removed" if found is not None else "there is no such unit; nothing to do"
        console.print_line(f"{path}: {text}")
    if reached is not None and not reached.ok:
        console.report(f"warning: systemd cannot be reached: {reason(reached)}")
        console.report(console.hinted(hint("a peer that still runs is stopped by", "down")))


# -- the unit that is there, and systemctl ------------------------------------------------------


def _ours(path: Path, home: Path, yes: bool, action: str) -> Found | None:
    """Return the unit at ``path`` or None; raises `Refused` if it is of another origin."""
    from common.errors import Refused
    from common.messages.refusals import Code
    from common.names import quoted
    from peer.cli.service_unit import find_unit

    found = find_unit(path)
    if found is None or yes or found.home == str(home):
        return found
    foreign = "was not written by this command"
    origin = foreign if found.home is None else f"is for another home, {quoted(found.home)}"
    if action == "install":
        advice = hint("replace it all the same", "service", "install", options=("--yes",))
    else:
        advice = hint("remove it all the same", "service", "uninstall", options=("--yes",))
    raise Refused(Code.FAILED, f"the unit {path} {origin}", advice)


@dataclass(frozen=True, slots=True)
class Called:
    """The end of a call of systemctl."""

    ok: bool
    text: str


def reason(called: Called) -> str:
    """The last line that systemctl printed."""
    lines = [line.strip() for line in called.text.splitlines() if line.strip()]
    return lines[-1] if lines else "systemctl failed"


def _systemctl(*words: str) -> Called:
    try:
        done = subprocess.run(
            ["systemctl", "--user", "--no-ask-password", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CALL_S,
            check=False,
        )
    except FileNotFoundError:
        return Called(False, "there is no systemctl on this machine")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Called(False, f"systemctl {words[0]}: {error}")
    return Called(done.returncode == 0, done.stdout if done.returncode == 0 else done.stderr)


def _must(*words: str) -> None:
    """Call systemctl; raises `MiniTorrentError` if it fails."""
    from common.errors import MiniTorrentError
    from common.hints import shell_hint

    if not (called := _systemctl(*words)).ok:
        raise MiniTorrentError(
            f"systemctl --user {' '.join(words)} failed: {reason(called)}",
            shell_hint("its log may say why", "journalctl", "--user", "-n", "20", "-u", words[-1]),
        )


def _main_pid() -> int:
    """Return the PID of the peer that runs under the unit, 0 if none does."""
    from peer.cli.service_unit import NAME

    called = _systemctl("show", "--property", "MainPID", "--value", NAME)
    text = called.text.strip()
    return int(text) if called.ok and text.isdecimal() else 0


COMMANDS = (service,)
