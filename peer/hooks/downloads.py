"""Hooks of downloads: `complete` and `failed`, and the own hook of one download.

A complete download owes its hooks, says its record, until they have ended once. So they run again
after a peer that ended while they ran or waited: at least once. A hook that fails has ended.
"""

from __future__ import annotations

from collections.abc import Callable

from peer.hooks.commands import HookEvent
from peer.hooks.runner import HookRunner
from peer.hooks.variables import of_download
from peer.records import DownloadRecord


class DownloadHooks:
    """Decides which hooks a download runs."""

    def __init__(self, runner: HookRunner) -> None:
        self._runner = runner

    def owes(self, record: DownloadRecord) -> bool:
        """Whether a hook runs when this download is complete."""
        return bool(record.on_complete or self._runner.settings.command(HookEvent.COMPLETE))

    def completed(self, record: DownloadRecord, settled: Callable[[], None]) -> None:
        """Run the hooks of a complete download; then call ``settled``."""
        event = HookEvent.COMPLETE
        values = of_download(event, record)
        commands = [self._runner.settings.command(event), list(record.on_complete)]
        left = len(commands)

        def ended() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                settled()

        for words in commands:
            self._runner.run(event, words, values, ended)

    def failed(self, record: DownloadRecord) -> None:
        """Run the hook of a failed download."""
        event = HookEvent.FAILED
        self._runner.run(event, self._runner.settings.command(event), of_download(event, record))
