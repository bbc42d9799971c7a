"""Monitoring script: print the events of a user's groups, one JSON object per line.

    python examples/watch_events.py LINK USER --key watcher.key < password

The script is a device with a key of its own. The first run logs in with the password; later runs
need none.

Invariant: each event is printed once and in order, whatever happens to the tracker or the network.
Each event has a number (``seq``) in its group's log: missed events are requested, duplicates are
dropped.
Limits: the tracker keeps the latest 1,000 to 2,000 events of a group. A device that was away for
longer gets a line with the event ``gap``, which names the missing numbers.

`peer.tracker_client.link` keeps the connection, `peer.tracker_client.group_replica` the numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

import msgspec
import zmq

from common.crypto.keys import load_or_make_pair
from common.errors import MiniTorrentError
from common.ids import UserId
from common.link import trackers_of
from common.messages import events, tracker
from peer.control.views import happened
from peer.tracker_client.group_replica import GroupReplica
from peer.tracker_client.group_view import Gap
from peer.tracker_client.link import TrackerLink


class Watcher:
    """Subscriber to the tracker: logs in if necessary, and prints events."""

    def __init__(self, link: str, user: str, key: Path) -> None:
        self._user = user
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._link = TrackerLink(
            self._context, load_or_make_pair(key), trackers_of(link), self, software="watch_events"
        )
        self._replica = GroupReplica(
            self._link,
            on_entry=show,
            on_gap=show_gap,
            on_peers=lambda update: None,
            on_groups=lambda: None,
            on_logged_out=self._on_logged_out,
        )
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._login: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Run until the process is ended or the tracker refuses the login."""
        self._link.start()
        try:
            await self._ended
        finally:
            self._replica.close()
            await self._link.close()
            self._context.destroy(linger=0)

    # -- callbacks of the link -----------------------------------------------------------------

    def link_up(self, welcome: tracker.Welcome) -> None:
        """Called after each new connection."""
        print(f"connected to {self._link.where.endpoint}", file=sys.stderr, flush=True)
        self._replica.link_up(welcome)
        if welcome.user is None:
            self._login = asyncio.create_task(self._log_in())

    def link_down(self) -> None:
        """Called when the connection is lost; the link reconnects by itself."""
        print("connection to the tracker lost", file=sys.stderr, flush=True)

    def published(self, topic: bytes, sealed: bytes) -> None:
        """Called with a sealed event; the replica has the keys of our groups."""
        self._replica.published(topic, sealed)

    def _on_logged_out(self, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_exception(MiniTorrentError(reason))

    async def _log_in(self) -> None:
        try:
            password = (await asyncio.to_thread(sys.stdin.readline)).rstrip("\n")
            answer = await self._link.request(tracker.Login(self._user, password), tracker.LoggedIn)
            self._replica.set_user(UserId(answer.user))
        except MiniTorrentError as error:
            self._ended.set_exception(error)


def show(entry: events.LogEntry) -> None:
    """Print one event. Replace this function to act on events."""
    row = msgspec.to_builtins(happened(entry))
    del row["type"]
    print(json.dumps({**row.pop("details"), **row}), flush=True)


def show_gap(gap: Gap) -> None:
    """Print the range of lost events. The listing of the group shows its present shares."""
    row = {"seq": gap.last, "group": gap.group, "event": "gap"}
    print(json.dumps({**row, "first": gap.first, "last": gap.last}), flush=True)


def main() -> None:
    """Parse the command line and watch."""
    parser = argparse.ArgumentParser(description="print the events of your groups")
    parser.add_argument("link", help="the tracker's link, or the path of a tracker_info.txt")
    parser.add_argument("user", help="user name; the password is read from standard input")
    parser.add_argument(
        "--key", type=Path, default=Path("watcher.key"), help="file of this device's key"
    )
    arguments = parser.parse_args()

    async def watch() -> None:
        await Watcher(arguments.link, arguments.user, arguments.key).run()

    try:
        asyncio.run(watch())
    except MiniTorrentError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
