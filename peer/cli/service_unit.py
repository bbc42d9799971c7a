"""Systemd user unit of a peer: its text, its place, and whose it is.

Owns: the one template, from which config/mini-torrent.service is written as well (`make docs`), and
the comments by which a unit is known as ours. Not here: the calls of systemctl (see
peer.cli.service_command).
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigError
from common.hints import PROGRAM
from common.names import quoted

NAME = "mini-torrent.service"
WANTS = "default.target.wants"
UNIT_BYTES_MAX = 64 * 1024  # a unit is 1 KB; more is no unit of ours
_MARK = f"# Written by `{PROGRAM} service install`."
_HOME = "# Home: "
_PLAIN = re.compile(r"[\w@+=:,./-]+", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NO_PROGRAM = re.compile(r"[\x00-\x1f\x7f'\"\\]")  # systemd refuses these, escaped or not

_TEMPLATE = """\
[Unit]
Description=Mini-Torrent peer
After=network-online.target
Wants=network-online.target

[Service]
# The peer tells when it serves. One whose event loop hangs for 30 s is restarted.
Type=notify
NotifyAccess=main
WatchdogSec=30
ExecStart={command}
# A peer stops in order within 5 s of SIGTERM, with all verified data synced.
TimeoutStopSec=15
Restart=on-failure
RestartSec=5
# Exit code 2 means wrong settings: a restart would fail again.
RestartPreventExitStatus=2
UMask=0077
LimitNOFILE=65536
LimitCORE=0
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native

[Install]
WantedBy=default.target
"""

_EXAMPLE = f"""\
# systemd user unit of a peer that starts with your session.
#
#   {PROGRAM} service install
#
# writes this unit, with your paths, to ~/.config/systemd/user/{NAME},
# and enables it. By hand: copy this file to that place, then:
#
#   {PROGRAM} up LINK && {PROGRAM} down      # remembers the tracker
#   systemctl --user enable --now mini-torrent
#   loginctl enable-linger "$USER"                 # also run while you are logged out
#
# Log: journalctl --user -u mini-torrent

"""


@dataclass(frozen=True, slots=True)
class Found:
    """The unit that stands at the place of ours. ``home`` is None if it is not ours."""

    text: str
    home: str | None


def unit_path() -> Path:
    """Return the place of the unit of this user."""
    config = os.environ.get("XDG_CONFIG_HOME", "")
    # An XDG directory that is not absolute is passed over, as the specification says.
    base = Path(config) if os.path.isabs(config) else Path.home() / ".config"
    return base / "systemd" / "user" / NAME


def unit_text(program: Path, home: Path) -> str:
    """Return the unit that runs ``program`` for ``home``. Raises `ConfigError`."""
    for path, wrong in ((program, _NO_PROGRAM), (home, _CONTROL)):
        if wrong.search(str(path)) or not _is_text(str(path)):
            raise ConfigError(f"the path {quoted(str(path))} cannot stand in a unit of systemd")
    words = [_word(str(program)), "--home", _word(str(home), argument=True), "up", "--foreground"]
    head = f"{_MARK} Changes are lost at the next one.\n{_HOME}{home}\n\n"
    return head + _TEMPLATE.format(command=" ".join(words))


def example() -> str:
    """Return the text of config/mini-torrent.service."""
    return _EXAMPLE + _TEMPLATE.format(command=f"%h/.local/bin/{PROGRAM} up --foreground")


def find_unit(path: Path) -> Found | None:
    """Return the unit at ``path``, None if there is none. Raises `ConfigError`."""
    try:
        if path.is_symlink():  # such as a masked unit; not ours
            return Found(f"-> {os.readlink(path)}", None)
        with path.open("rb") as file:
            text = file.read(UNIT_BYTES_MAX).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    first, _, rest = text.partition("\n")
    second = rest.partition("\n")[0]
    ours = first.startswith(_MARK) and second.startswith(_HOME)
    return Found(text, second.removeprefix(_HOME) if ours else None)


def program() -> Path:
    """Return the absolute path of `mini-torrent`. Raises `ConfigError`.

    Links are kept, such as the one in ~/.local/bin: it outlives the folder that it leads to.
    """
    typed = Path(os.path.abspath(sys.argv[0]))
    for path in (typed, Path(sys.executable).with_name(PROGRAM)):
        if path.name == PROGRAM and os.access(path, os.X_OK) and path.is_file():
            return path
    if found := shutil.which(PROGRAM):
        return Path(os.path.abspath(found))
    raise ConfigError(
        f"the program {PROGRAM} is not installed as a file", "install it: pip install ."
    )


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _word(text: str, *, argument: bool = False) -> str:
    """Return ``text`` as one word of ExecStart. Variables are replaced in arguments only."""
    if _PLAIN.fullmatch(text):
        return text
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text.replace("$", "$$") if argument else text}"'
