"""Settings of a peer, kept for its next start.

Owns: ``peer.toml`` in the home. Precedence: command line, then environment, then this file; ``up``
stores its options there. Not here: the options of ``up`` (see ``peer.cli.up_options``).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, MutableMapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from common import limits
from common.errors import ConfigError
from common.host.atomic_files import atomic_write
from peer.hooks.commands import HookSettings
from peer.swarm.timetable import Slot, parse_timetable

FILE = "peer.toml"
_Count = Annotated[int, Meta(ge=0)]
_Moment = Annotated[datetime, Meta(tz=True)]
_Port = Annotated[int, Meta(ge=0, lt=1 << 16)]


class HttpSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Settings of the HTTP API. ``on``: serve the HTTP API at ``api.sock`` in the home.
    ``metrics_groups``: metrics contain the names of groups."""

    on: bool = False
    metrics_groups: bool = True


class Settings(msgspec.Struct, frozen=True, omit_defaults=True):
    """Rates are bytes a second, 0 for unlimited.

    ``tracker``: a link, or the absolute path of a tracker_info.txt. ``listen``: an endpoint to
    bind, None for the address on the route to the tracker. ``advertise``: the host that others are
    told, None for the bound one. ``bulk``: whether pieces may use bulk connections. ``bulk_port``:
    their port, 0 for any free one. ``native``: whether the compiled data path is used, if it is
    installed. ``keep_times``: whether downloads get their times.
    ``schedule``: a timetable of limits, empty for none. ``by_hand_until``: until then
    ``upload_limit`` and ``download_limit`` hold in its place.
    ``hooks``: commands that run at events.
    """

    tracker: str | None = None
    listen: str | None = None
    advertise: str | None = None
    upload_limit: _Count = 0
    download_limit: _Count = 0
    upload_limit_per_user: _Count = 0
    download_limit_per_user: _Count = 0
    schedule: str = ""
    by_hand_until: _Moment | None = None
    buffer_bytes: _Count = limits.BUFFER_BYTES
    sources_used: _Count = limits.SOURCES_USED
    bulk: bool = True
    bulk_port: _Port = 0
    native: bool = True
    keep_times: bool = True
    log_json: bool = False
    http: HttpSettings = HttpSettings()
    hooks: HookSettings = HookSettings()

    def slots(self) -> tuple[Slot, ...]:
        """The slots of the timetable; none without one. Raises ValueError."""
        return parse_timetable(self.schedule) if self.schedule.strip() else ()

    def overridden(self, **given: Any) -> Settings:
        """Return these settings with those of ``given`` that are not None in their place."""
        changes = {name: value for name, value in given.items() if value is not None}
        return msgspec.structs.replace(self, **changes)


_TYPES = {field.name: field.type for field in msgspec.structs.fields(Settings)}


def load(home: Path) -> Settings:
    """Return the settings stored in ``home``. Raises `ConfigError` that names the fault."""
    path = home / FILE
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Settings()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name not in _TYPES:
            raise ConfigError(f"{path}: there is no setting {name!r}")
        try:
            values[name] = msgspec.convert(value, _TYPES[name])
        except msgspec.ValidationError as error:
            raise ConfigError(f"{path}: {name} cannot be {value!r}: {error}") from error
    settings = Settings(**values)
    try:
        settings.slots()
    except ValueError as error:
        raise ConfigError(f"{path}: schedule: {error}") from None
    try:
        settings.hooks.check()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", error.hint) from error
    return settings


def save(home: Path, settings: Settings) -> None:
    """Store ``settings`` without those that have their default. Raises `MiniTorrentError`.

    Settings that are stored already are not written again: that needs no space on the disk.
    Comments and order of the file stay as their author left them.
    """
    stored = load(home)
    if stored == settings:
        return
    import tomlkit  # Why here: most processes store nothing, and the import takes milliseconds.

    path = home / FILE
    try:
        document = tomlkit.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        document = tomlkit.document()
    except ValueError as error:  # TOML that the reader of the standard library takes
        raise ConfigError(f"change {path}: {error}") from error
    _merge(document, _plain(stored), _plain(settings))
    atomic_write(path, document.as_string().encode())


def _plain(settings: Settings) -> dict[str, Any]:
    """The settings that have not their default, as values of TOML."""
    plain: dict[str, Any] = msgspec.to_builtins(settings, builtin_types=(datetime,))
    return plain


def _merge(table: MutableMapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Change in ``table`` only what differs between ``old`` and ``new``."""
    for name in old.keys() - new.keys():
        table.pop(name, None)
    for name, value in new.items():
        before = old.get(name)
        if value == before:
            continue
        if isinstance(value, dict) and isinstance(table.get(name), MutableMapping):
            _merge(table[name], before or {}, value)
        else:
            table[name] = value
