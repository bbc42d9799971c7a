"""The command that fetches shares: `download-file`.

Owns: one share or all that match a pattern, and the report of each. Not here: the choice of the
final path and everything after it (see peer.downloads).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from common.errors import MiniTorrentError, Refused
from common.hints import hint
from common.limits import FILE_PATTERNS_MAX, REUSE_PATHS_MAX
from common.messages.refusals import Code
from common.names import fold_name, quoted
from peer.cli.arguments import duration, group_argument, share_argument
from peer.cli.command import command
from peer.cli.console import Console
from peer.cli.errors import INTERRUPTED, cli_error, refuse_usage
from peer.cli.json_form import plain
from peer.cli.name_patterns import is_pattern, matching

if TYPE_CHECKING:
    from common.messages.control import Downloaded, DownloadFile
    from peer.control.client import Ended


@command("download-file", example="mini-torrent download-file films film.mkv ~/Videos/")
@group_argument
@share_argument
@click.argument("dest", type=click.Path(readable=False), default=".")
@click.option("--wait/--no-wait", default=None, help="Wait until the download is complete.")
@click.option(
    "--timeout",
    metavar="DURATION",
    callback=duration,
    help="Wait at most this long (90s, 10m, 12h, 7d); then exit with 6. The download goes on.",
)
@click.option(
    "--pick",
    type=click.Choice(["rarest", "random", "sequential"]),
    default="rarest",
    show_default=True,
    help="The order of the pieces.",
)
@click.option(
    "--files",
    metavar="GLOB",
    multiple=True,
    help="Of a folder, fetch only the files that match, as in '*.txt' or 'docs/**'. Repeatable; a "
    "later command to the same place adds files.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace what is in place when the new content is verified. Other files in a folder that "
    "is replaced are kept beside it as NAME.old.",
)
@click.option(
    "--times/--no-times",
    default=None,
    help="Set the modification times. Default: as in peer.toml, else yes.",
)
@click.option(
    "--reuse",
    metavar="PATH",
    type=click.Path(readable=False),
    multiple=True,
    help="Look through this file or folder first, and fetch only what it lacks. Repeatable.",
)
@click.option(
    "--on-complete",
    metavar="CMD",
    help="Run this command when the download is complete, with its data in MT_* variables.",
)
def download_file(
    console: Console,
    group: str,
    name: str,
    dest: str,
    wait: bool | None,
    timeout: float | None,
    pick: str,
    files: tuple[str, ...],
    overwrite: bool,
    times: bool | None,
    reuse: tuple[str, ...],
    on_complete: str | None,
) -> int:
    """Fetch a file or folder from a group.

    DEST is a folder, or a new path; the current folder if it is left out. Missing folders are made;
    a DEST with / at its end is always a folder. NAME may be a pattern with *, ? and [...], in
    quotes: every share that matches is fetched into the folder DEST. If the same content is in
    place already, nothing is fetched.

    With --files only those files of a folder are fetched, as gitignore patterns select them.
    Without --files the next command to that place completes the folder. An incomplete folder is not
    shared.

    Pieces that this device has are not fetched: from an earlier version, from shares of the group,
    and from the files and folders of --reuse. They are verified like fetched ones. An unchanged
    earlier version at the destination is replaced in one step, when the new one is verified.

    The command ends when the verified file is in place. Ctrl-C ends the waiting, not the download,
    which `cancel` stops. Afterwards this device serves the file to the group.
    """
    from common.messages.control import DownloadFile

    if timeout is not None and wait is False:
        refuse_usage("--timeout bounds a wait, and with --no-wait there is none")
    waits = wait if wait is not None else timeout is not None or not console.at_prompt
    path = console.sent_path(dest)
    if dest.endswith("/") and not path.endswith("/"):
        path += "/"
    if len(reuse) > REUSE_PATHS_MAX:
        refuse_usage(f"--reuse can be given {REUSE_PATHS_MAX} times; name a folder above them")
    if len(files) > FILE_PATTERNS_MAX:
        refuse_usage(f"--files can be given {FILE_PATTERNS_MAX} times; write wider patterns")
    looked_through = [console.sent_path(each) for each in reuse]
    command = DownloadFile(
        group,
        name,
        path,
        waits,
        pick,
        times,
        timeout,
        looked_through,
        overwrite,
        [*files],
        [] if on_complete is None else _hook(on_complete),
    )
    if is_pattern(name):
        found = _names(console, group, name)
        if [fold_name(each) for each in found] != [fold_name(name)]:
            return _Several(console, command).fetch(found)
    return _fetch(console, command)


def _hook(typed: str) -> list[str]:
    """The words of a command, its program as an absolute path."""
    from peer.hooks.commands import words_of

    words = words_of(typed)
    program = shutil.which(os.path.expanduser(words[0])) if words else None
    if program is None:
        missing = f"program not found: {quoted(words[0])}" if words else "the command is empty"
        refuse_usage(f"--on-complete: {missing}")
    return [os.path.abspath(program), *words[1:]]


def _names(console: Console, group: str, pattern: str) -> list[str]:
    """The names of the shares that match. Raises `Refused` if there is none."""
    from common.messages.control import ListFiles

    rows: list[Any] = getattr(console.request(ListFiles(group)), "rows", [])
    try:
        found = matching(pattern, [row.name for row in rows])
    except ValueError as error:
        refuse_usage(str(error))
    if not found:
        raise Refused(
            Code.UNKNOWN_SHARE,
            f"no share of the group {quoted(group)} matches {quoted(pattern)}",
            hint("see all of them", "list-files", group),
        )
    return found


def _fetch(console: Console, command: DownloadFile) -> int:
    from common.messages.control import Begun, Downloaded
    from peer.cli.listings import downloaded_line
    from peer.cli.progress import run

    try:
        answer = run(console, command, command.name) if command.wait else console.request(command)
    except KeyboardInterrupt:
        words = "still downloading in the background; to stop it"
        return _interrupted(console, hint(words, "cancel", command.group, command.name))
    if isinstance(answer, Begun):
        console.begun.append(answer)
    if not isinstance(answer, Downloaded):
        console.done(answer)
    elif console.as_json:
        console.json(plain(answer))
    elif not console.quiet:
        console.print_line(downloaded_line(answer))
        _report_kept(console, answer)
    return 0


def _report_kept(console: Console, done: Downloaded) -> None:
    if done.kept is not None:
        console.report(f"what else was in the replaced folder is kept: {done.kept}")


def _interrupted(console: Console, text: str) -> int:
    if console.quiet or console.as_json:
        raise KeyboardInterrupt
    console.leave_line()
    console.report(console.hinted(text))
    return INTERRUPTED


class _Several:
    """Shares that are fetched by one command into one folder: all begin, then each is awaited."""

    def __init__(self, console: Console, command: DownloadFile) -> None:
        self._console = console
        self._command = command
        self._ends = None if command.timeout_s is None else monotonic() + command.timeout_s
        self._rows: list[Any] = []
        self._codes: set[int] = set()

    def fetch(self, found: list[str]) -> int:
        """Fetch the shares ``found``; return the exit code, which is 0 if all are there."""
        try:
            begun = [(name, path) for name in found if (path := self._begin(name)) is not None]
            if self._command.wait:
                for name, path in begun:
                    self._await(name, path)
        except KeyboardInterrupt:
            words = "still downloading in the background; see them"
            return _interrupted(self._console, hint(words, "show-downloads"))
        if self._console.as_json:
            self._console.json(self._rows)
        # One reason is told by its code; several by the one that stands for any.
        return 0 if not self._codes else self._codes.pop() if len(self._codes) == 1 else 1

    def _left_s(self) -> float | None:
        return None if self._ends is None else max(0.0, self._ends - monotonic())

    def _begin(self, name: str) -> str | None:
        """Begin one download; return its path, or None if it was refused."""
        from msgspec import structs

        from common.messages.control import Begun

        folder = self._command.dest.rstrip("/") + "/"
        left_s = self._left_s()
        command = structs.replace(
            self._command, name=name, dest=folder, wait=False, timeout_s=left_s
        )
        try:
            answer = self._console.request(command)
        except MiniTorrentError as error:
            self._failed(name, error)
            return None
        assert isinstance(answer, Begun)
        self._console.begun.append(answer)
        if not self._command.wait:
            self._done(name, answer)
        return answer.path

    def _await(self, name: str, path: str) -> None:
        from common.messages.control import AwaitDownload
        from peer.cli.progress import run

        try:
            command = AwaitDownload(self._command.group, path, self._left_s())
            self._done(name, run(self._console, command, name))
        except MiniTorrentError as error:
            self._failed(name, error)

    def _done(self, name: str, answer: Ended) -> None:
        from common.messages.control import Begun, Downloaded
        from common.messages.documents import document
        from peer.cli.listings import downloaded_line

        if isinstance(answer, Begun):
            self._rows.append(document(answer))
            text = answer.text
        elif isinstance(answer, Downloaded):
            self._rows.append(plain(answer))
            text = downloaded_line(answer)
        if not self._console.as_json and not self._console.quiet:
            self._console.print_line(text)
            if isinstance(answer, Downloaded):
                _report_kept(self._console, answer)

    def _failed(self, name: str, error: MiniTorrentError) -> None:
        found = cli_error(error, self._console.hinted)
        self._codes.add(found.exit_code)
        if not self._console.as_json:
            if name not in found.message:
                found = replace(found, message=f"{name}: {found.message}")
            found.show(as_json=False)
            return
        details = {"code": found.code, "message": found.message}
        if found.hint:
            details["hint"] = found.hint
        self._rows.append({"group": self._command.group, "name": name, "error": details})


COMMANDS = (download_file,)
