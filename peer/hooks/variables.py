"""Variables of hooks: the data of an event in `MT_*`.

Owns: their names and form (docs/hooks.md has the table). Invariant: a value is data. Names from
other users are checked before, so that none holds a control character, and no shell reads any.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from common import names
from common.messages import events
from peer.hooks.commands import HookEvent
from peer.records import DownloadRecord

PREFIX = "MT_"


def of_download(event: HookEvent, record: DownloadRecord) -> dict[str, str]:
    """The variables of a download that is complete or failed."""
    values = {
        "EVENT": event.value,
        "USER": record.user,
        "GROUP": record.group,
        "NAME": record.name,
        "VERSION": str(record.version),
        "PATH": os.fsdecode(record.path),
        "SIZE_BYTES": str(record.size),
        "DIGEST": record.digest,
    }
    if event is HookEvent.COMPLETE:
        values["ALGORITHM"] = record.algorithm
        values["ELAPSED_S"] = f"{record.elapsed_s:.3f}"
    else:
        values["REASON"] = names.printable(record.reason or "")
    return values


def of_entry(entry: events.LogEntry) -> tuple[HookEvent, dict[str, str]] | None:
    """The event and variables of an entry of a group's log; None for entries without a hook.

    Raises `BadName` for a name that no share can have.
    """
    event = entry.event
    values = {"GROUP": names.group_id(entry.group), "SEQ": str(entry.seq)}
    if isinstance(event, events.Shared):
        kind = HookEvent.NEW_VERSION if event.version > 1 else HookEvent.SHARE
        values |= {
            "SIZE_BYTES": str(event.size),
            "FILES": str(event.files),
            "ALGORITHM": names.printable(event.algorithm),
            "DIGEST": event.digest.hex(),
        }
    elif isinstance(event, events.Unshared | events.Withdrawn):
        kind = HookEvent.UNSHARE
    else:
        return None
    values["USER"] = names.user_id(event.user)
    values["NAME"] = names.share_name(event.name)
    values["VERSION"] = str(event.version)
    return kind, {"EVENT": kind.value, **values}


def environment(values: Mapping[str, str], home: str) -> dict[str, str]:
    """The environment of a hook: that of the peer, with ``values``, and the peer's home.

    ``MINI_TORRENT_HOME`` is set, so that commands of `mini-torrent` in the hook reach this peer.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    given = {f"{PREFIX}{name}": value.replace("\0", "") for name, value in values.items()}
    return {**kept, **given, f"{PREFIX}HOME": home, "MINI_TORRENT_HOME": home}
