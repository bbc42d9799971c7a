"""Settings of a peer, kept for its next start.

Owns ``peer.toml`` in the home. Values given on the command line win over the environment, that over
the file; what ``up`` was given is remembered there.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from common import limits
from common.errors import ConfigError
from common.host.atomic_files import atomic_write

FILE = "peer.toml"


@dataclass(frozen=True, slots=True)
class Settings:
    """Rates are bytes a second, 0 for unlimited. ``tracker`` is a link or the absolute path of a
    tracker_info.txt; ``listen`` an endpoint to bind, None for one on the way to the tracker;
    ``advertise`` the host that others are told, None for the one that is bound.
    ``bulk`` tells whether pieces may go on bulk connections, and ``bulk_port`` where others make
    those, 0 for any port that is free. ``keep_times``: whether downloads get their times."""

    tracker: str | None = None
    listen: str | None = None
    advertise: str | None = None
    upload_limit: int = 0
    download_limit: int = 0
    upload_limit_per_user: int = 0
    download_limit_per_user: int = 0
    buffer_bytes: int = limits.BUFFER_BYTES
    sources_used: int = limits.SOURCES_USED
    bulk: bool = True
    bulk_port: int = 0
    keep_times: bool = True
    log_json: bool = False

    def overridden(self, **given: Any) -> Settings:
        """These settings with those of ``given`` that are not None in their place."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})


_TYPES: dict[str, type] = {
    field.name: str if field.name in ("tracker", "listen", "advertise") else type(field.default)
    for field in fields(Settings)
}


def load(home: Path) -> Settings:
    """The settings remembered in ``home``. Raises `ConfigError` naming what is wrong."""
    path = home / FILE
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Settings()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    for name, value in table.items():
        if name not in _TYPES:
            raise ConfigError(f"{path}: there is no setting {name!r}")
        if type(value) is not _TYPES[name] or (isinstance(value, int) and value < 0):
            raise ConfigError(f"{path}: {name} cannot be {value!r}")
    if table.get("bulk_port", 0) >= 1 << 16:
        raise ConfigError(f"{path}: there is no port {table['bulk_port']}")
    return Settings(**table)


def save(home: Path, settings: Settings) -> None:
    """Remember ``settings``, leaving out what is as it is by default; what is remembered already
    needs no room on the disk. Raises `MiniTorrentError`."""
    if load(home) == settings:
        return
    plain = asdict(Settings())
    lines = [
        f"{name} = {_toml(value)}\n"
        for name, value in asdict(settings).items()
        if value != plain[name]
    ]
    atomic_write(home / FILE, "".join(lines).encode())


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    escaped = "".join(
        f"\\u{ord(c):04x}" if ord(c) < 32 or c in '"\\\x7f' else c for c in str(value)
    )
    return f'"{escaped}"'
