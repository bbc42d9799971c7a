"""End of a prompt: waiting for the downloads that it began, and the question before it leaves.

Owns which downloads keep a prompt from ending. The prompt itself is `peer.cli.shell`'s.
"""

from __future__ import annotations

from collections.abc import Iterable

from common.errors import MiniTorrentError
from common.messages import control
from common.units import count_text
from peer.cli.console import Console
from peer.cli.errors import cli_error
from peer.cli.json_form import plain


def unfinished(console: Console) -> list[control.DownloadRow]:
    """The downloads that stop when the peer ends. Raises `MiniTorrentError`."""
    answer = console.request(control.ShowDownloads())
    rows = answer.rows if isinstance(answer, control.Downloads) else []
    return [
        row
        for row in rows
        if row.state in (control.DOWNLOADING, control.PAUSED) and not by_user(row)
    ]


def by_user(row: control.DownloadRow) -> bool:
    """Whether a download rests because its user wants it to."""
    return row.state == control.PAUSED and row.reason == control.PAUSED_BY_USER


def may_leave(console: Console, ends_peer: bool) -> bool:
    """Ask at a terminal whether to leave, when that stops downloads."""
    try:
        rows = unfinished(console)
    except MiniTorrentError:
        return True
    if not rows:
        return True
    count = count_text(len(rows), "download")
    verb = "is" if len(rows) == 1 else "are"
    if not ends_peer:
        console.report(f"{count} {verb} not finished and will continue in the background")
        return True
    question = (
        f"{count} {verb} not finished and will stop now, and continue when the peer is started "
        "again. Quit? [y/N] "
    )
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D once more
        print()
        return True
    except KeyboardInterrupt:
        print()
        return False


def wait_for_all(console: Console, begun: Iterable[control.Begun]) -> list[int]:
    """Wait until each of these downloads has ended; returns the exit code of each.

    A download that was cancelled or paused since is not waited for.
    """
    return [_wait_for(console, one) for one in begun]


def _wait_for(console: Console, begun: control.Begun) -> int:
    from peer.cli.listings import downloaded_line
    from peer.cli.progress import run

    try:
        answer = console.request(control.ShowDownloads())
        rows = answer.rows if isinstance(answer, control.Downloads) else []
        row = next((row for row in reversed(rows) if row.path == begun.path), None)
        if row is None:
            return 0
        if by_user(row):
            console.report(f"{begun.path}: paused, and not waited for")
            return 0
        ended = run(console, control.AwaitDownload(begun.group, begun.path), row.name)
    except MiniTorrentError as error:
        shown = cli_error(error, console.hinted)
        shown.show(as_json=console.as_json)
        return shown.exit_code
    if not isinstance(ended, control.Downloaded):
        return 0
    if console.as_json:
        console.json(plain(ended))
    elif not console.quiet:
        console.print_line(downloaded_line(ended))
    return 0
