"""Output of `info`: the facts about one version of a share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.messages import control
from common.names import printable
from common.units import count_text, moment_text, number_text, size_text
from peer.cli.json_form import plain

_STATES = {"shared": "shared from", "away": "away:", "checking": "checking"}


def info_lines(info: control.ShareInfo) -> list[str]:
    """The facts for people, one a line, and the first entries of a folder."""
    kind = "current" if info.current else "an earlier version"
    others = [version for version in info.versions if version != info.version]
    shared = ", ".join(info.shared_by) or "-"
    devices = f"{count_text(info.seeders, 'seeder')}, {count_text(info.leechers, 'leecher')}"
    since = moment_text(info.since) if info.since else "unknown"
    first = f"{info.first_by or 'unknown'}, {since}"
    facts = [
        ("name", info.name),
        ("group", info.group),
        ("version", f"{info.version} ({kind})"),
        ("other versions", ", ".join(map(str, others)) or "none"),
        ("size", f"{size_text(info.size_bytes)} ({number_text(info.size_bytes)} bytes)"),
        ("files", number_text(info.files)),
        ("pieces", f"{number_text(info.pieces)} of {size_text(info.piece_bytes)}"),
        ("digest", f"{info.algorithm}:{info.digest}"),
        ("shared first by", first),
        ("shared by", shared),
        ("devices", devices),
        *(("here", _held_text(held, info.size_bytes)) for held in info.here),
    ]
    if not info.here:
        facts.append(("here", "nothing"))
    width = max(len(title) for title, _ in facts)
    lines = [f"{title:<{width}}  {printable(text)}" for title, text in facts]
    if [entry.path for entry in info.entries] == [info.name] and not info.more:
        return lines
    lines += ["", *_entry_lines(info.entries)]
    if info.more:
        left = info.files - len(info.entries)
        more = f"{number_text(left)} more" if left > 0 else "more"
        lines.append(f"  … and {more} (all of them: --json)")
    return lines


def _held_text(held: control.HeldRow, size_bytes: int) -> str:
    words = _STATES.get(held.state, f"{held.state} to")
    part = ""
    if held.state not in _STATES and held.state != "complete" and size_bytes:
        part = f" ({held.verified_bytes * 100 // size_bytes} %)"
    return f"{words} {held.path}{part}"


def _entry_lines(entries: Sequence[control.EntryRow]) -> list[str]:
    sizes = ["" if entry.kind == "folder" else size_text(entry.size_bytes) for entry in entries]
    width = max(map(len, sizes), default=0)
    return [
        f"  {size:>{width}}  {printable(entry.path)}{'/' if entry.kind == 'folder' else ''}"
        for size, entry in zip(sizes, entries, strict=True)
    ]


def document(info: control.ShareInfo, entries: Sequence[control.EntryRow]) -> dict[str, Any]:
    """The document of ``--json``, with all ``entries``."""
    found: dict[str, Any] = plain(info)
    found.pop("more")
    return {**found, "entries": plain(list(entries))}
