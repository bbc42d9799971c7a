"""Options of `up`: their meaning, and comparison with a running peer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import link_text, names
from common.errors import ConfigError, MiniTorrentError
from common.hints import hint, tracker_hint
from common.link import as_endpoint, check_host, parse_link, trackers_of
from common.messages import control
from common.messages.refusals import Code
from peer.addresses import resolve_host
from peer.settings import Settings, load

STOP_FIRST = hint(
    "use another --home for a second peer on this machine, or stop this one first", "down"
)


class AlreadyRuns(MiniTorrentError):
    """A peer of this home runs with settings other than the requested ones."""

    code = Code.BUSY


def checked(given: Mapping[str, Any], base: str) -> dict[str, Any]:
    """The options of ``up`` that were given, with paths made absolute from ``base``.

    Raises `ConfigError` for an endpoint or a tracker that cannot be used, naming the line of a
    tracker_info.txt.
    """
    options = {name: value for name, value in given.items() if value is not None}
    if "listen" in options:
        options["listen"] = as_endpoint(options["listen"])
    if "advertise" in options:
        options["advertise"] = check_host(options["advertise"])
    if "tracker" in options:
        options["tracker"] = _tracker(options["tracker"], base)
    return options


def _tracker(typed: str, base: str) -> str:
    """A link in its proper form, or the absolute path of a tracker_info.txt that is one."""
    path = os.path.join(base, typed.strip())
    if typed.strip() and os.path.lexists(path):
        trackers_of(path)
        return path
    text = link_text.cleaned(typed)
    if link_text.looks_like_link(text) or ":" in text or not text:
        return parse_link(typed).text
    raise ConfigError(
        f"{names.quoted(typed)} is neither a tracker's link nor a file",
        tracker_hint("print the link on the tracker's machine", "link"),
    )


def settings_for(home: Path, options: Mapping[str, Any]) -> Settings:
    """The settings saved in ``home``, overridden by ``options``.

    Raises `ConfigError` when no tracker is known.
    """
    settings = load(home).overridden(**options)
    if settings.tracker is None:
        raise ConfigError(
            "this peer knows no tracker yet",
            hint("give its link or its tracker_info.txt", "up", "LINK"),
        )
    trackers_of(settings.tracker)
    return settings


def check_same(running: control.StatusIs, options: Mapping[str, Any]) -> None:
    """Raise `AlreadyRuns` if ``options`` differ from the running peer."""
    tracker, listen = options.get("tracker"), options.get("listen")
    differs = None
    if tracker is not None and not _is_one_of(running.tracker, tracker):
        differs = f", with the tracker {running.tracker}"
    elif listen is not None and not _same_endpoint(listen, running.listen):
        differs = f", and listens at {running.listen or 'no address yet'}"
    elif options.get("advertise", running.advertise) != running.advertise:
        differs = f", and announces {running.announced or 'no address yet'}"
    elif set(options) - {"tracker", "listen", "advertise"}:
        differs = "; `limit` changes its limits, and the log format is set at startup"
    if differs is not None:
        raise AlreadyRuns(
            f"the peer is already running (PID {running.pid}){differs}",
            STOP_FIRST,
        )


def _is_one_of(running: str, wanted: str) -> bool:
    """Whether the link of a running peer shares a tracker with the link or file ``wanted``."""
    with contextlib.suppress(ConfigError):
        return not set(parse_link(running).trackers).isdisjoint(trackers_of(wanted))
    return False


def _same_endpoint(wanted: str, actual: str) -> bool:
    if wanted == actual or not wanted.startswith("tcp://"):
        return wanted == actual
    with contextlib.suppress(ConfigError):
        wanted = resolve_host(wanted)  # a running peer reports the resolved address
    wanted_host, _, wanted_port = wanted.rpartition(":")
    host, _, port = actual.rpartition(":")
    same_port = wanted_port in ("0", "*", port)
    return same_port and (wanted_host in ("tcp://*", "tcp://0.0.0.0", "tcp://[::]", host))
