"""Suggestions for mistyped and swapped arguments: "did you mean", with the whole command line.

Owns which names are candidates: only those that this user may list, read from the running peer. The
words of the error stay; only its hint changes. Mistyped commands are not here: see
`common.cli.command_group`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import click

from common.errors import MiniTorrentError
from common.hints import PROGRAM, quoted_line
from common.messages import control
from common.messages.refusals import Code
from common.names import fold_id, fold_name, split_version
from peer.cli.console import Console
from peer.cli.errors import SENTENCE_MAX, TYPED, without_home

CLOSE = 0.7  # share of equal letters, as `difflib.SequenceMatcher.ratio` counts them
_ABOUT_NAMES = {
    Code.UNKNOWN_GROUP, Code.UNKNOWN_SHARE, Code.UNKNOWN_USER, Code.UNKNOWN_REQUEST,
    Code.UNKNOWN_DEVICE, Code.USAGE,
}  # fmt: skip
_OWNER_ONLY = {"list-requests", "accept-request", "reject-request", "remove-member"}
_OF_DOWNLOADS = {"pause", "resume", "cancel", "why-slow"}
_OF_REQUESTS = {"accept-request", "reject-request"}


def suggestion(error: MiniTorrentError, ctx: click.Context) -> str | None:
    """The hint for a command that ended with ``error``; None if no name is close."""
    console = ctx.find_object(Console)
    command = ctx.command.name
    codes = _ABOUT_NAMES | ({Code.STORAGE} if command == "upload-file" else set())
    if console is None or command is None or error.code not in codes:
        return None
    given = {name: value for name, value in ctx.params.items() if isinstance(value, str)}
    paths: tuple[str, ...] = ctx.params.get("paths") or ()
    if len(paths) == 1:
        given["path"] = paths[0]
    with contextlib.suppress(MiniTorrentError):
        instead = _instead(console, command, given)
        if instead is not None and (line := _line(console, ctx, given, instead)) is not None:
            return f"did you mean: {line}"
    return None


def _instead(console: Console, command: str, given: dict[str, str]) -> dict[str, str] | None:
    """The probable arguments, by parameter."""
    if command == "forget-device":
        ids = [row.id for row in _rows(console, control.ListDevices())]
        return _nearest("id", given["id"].lower(), ids)
    if "group" not in given or command == "create-group":
        return None
    group = fold_id(given["group"])
    rows = _rows(console, control.ListGroups())
    second = next((name for name in ("name", "user", "path") if given.get(name)), None)
    roles = {"owner"} if command in _OWNER_ONLY else {"owner", "member"}
    if command in ("leave-group", "watch"):
        roles |= {"pending"}
    usable = [row.group for row in rows if command == "join-group" or row.role in roles]
    folded = {fold_id(name): name for name in usable}
    if command == "upload-file":
        second = "path" if "path" in given else None
        path = _near_path(console, given["path"]) if "path" in given else None
        if path is not None and group in folded:
            return {"path": path}
    if group not in {fold_id(row.group) for row in rows}:
        if second is not None and fold_id(given[second]) in folded:
            swapped = {"group": given[second], second: given["group"]}
            if command != "upload-file" or os.path.lexists(console.path(given["group"])):
                return swapped
        return _nearest("group", group, usable)
    if second in ("name", "user"):
        typed = given[second]
        return _nearest(second, typed, _names(console, command, second, given["group"]))
    return None


def _names(console: Console, command: str, parameter: str, group: str) -> list[str]:
    """The names of which ``parameter`` has to be one, in a group of the user."""
    if command in _OF_DOWNLOADS:
        rows = _rows(console, control.ShowDownloads())
        return [row.name for row in rows if row.group == fold_id(group)]
    if parameter == "name":
        return [row.name for row in _rows(console, control.ListFiles(group))]
    users = control.ListRequests if command in _OF_REQUESTS else control.ListMembers
    return [row.user for row in _rows(console, users(group))]


def _rows(console: Console, command: control.Command) -> Sequence[Any]:
    rows: Sequence[Any] = getattr(console.request(command), "rows", [])
    return rows


def _near_path(console: Console, typed: str) -> str | None:
    """The path beside ``typed`` that has nearly its name; None if ``typed`` exists."""
    path = console.path(typed)
    if os.path.lexists(path):
        return None
    folder, name = os.path.split(path)
    with contextlib.suppress(OSError):
        if near := _nearest("path", name, os.listdir(folder)):
            return os.path.join(os.path.dirname(typed), near["path"])
    return None


def _nearest(parameter: str, typed: str, names: Iterable[str]) -> dict[str, str] | None:
    """Return the name that is spelled nearly as ``typed``; None if ``names`` has the same."""
    known = {fold_name(name): name for name in names}
    if {fold_name(typed), fold_name(split_version(typed)[0])} & set(known):
        return None
    near = get_close_matches(fold_name(typed), list(known), n=1, cutoff=CLOSE)
    return {parameter: known[near[0]]} if near else None


# -- the command line ---------------------------------------------------------------------------


def _line(
    console: Console, ctx: click.Context, given: dict[str, str], instead: dict[str, str]
) -> str | None:
    """The typed line with other arguments. None if their places cannot be found."""
    words = list(ctx.meta.get(TYPED, []))
    if not console.at_prompt:
        words = without_home(words)
    places = {parameter: _place(ctx, words, parameter, given[parameter]) for parameter in instead}
    for parameter, place in places.items():
        if place is None:
            return None
        words[place] = instead[parameter]
    first = min(place for place in places.values() if place is not None)
    if "--" not in words[:first] and any(word.startswith("-") for word in instead.values()):
        if any(word.startswith("-") for word in words[:first]) or any(
            word.startswith("-") and word not in instead.values() for word in words[first:]
        ):
            return None
        words.insert(first, "--")
    line = quoted_line([PROGRAM, ctx.command.name or "", *words])
    return line if len(line) <= SENTENCE_MAX else None


def _place(ctx: click.Context, words: list[str], parameter: str, value: str) -> int | None:
    """The place of the value of ``parameter``, found by putting another word there."""
    mark = "mini-torrent.place"
    for at, word in enumerate(words):
        if word == value:
            tried = [*words[:at], mark, *words[at + 1 :]]
            with contextlib.suppress(click.UsageError):
                found, _, _ = ctx.command.make_parser(ctx).parse_args(tried)
                if mark in (found.get(parameter), *(found.get(f"{parameter}s") or ())):
                    return at
    return None
