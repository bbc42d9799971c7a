"""Watch the events of your groups from Python: one JSON object a line.

    python examples/watch_events.py LINK USER --key watcher.key < password

The script is a device of its own, with a key of its own: the first run logs it in with the
password, later ones need none. Whatever happens to the tracker or the network, every event is
printed once and in order, since each bears its place (``seq``) in its group's log: what was missed
is asked for, and what came twice is passed over. Of a log the tracker keeps the last 1,000 to 2,000
events: who was away for longer gets a line with the event ``gap``, which says which are missing.
`peer.tracker_client.link` keeps the connection and `peer.tracker_client.group_replica` the places;
what is left to do is to be told.
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
    """Hears the tracker, logs in when nobody is, and prints what happens."""

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
        """Until the process is ended, or the tracker does not let us in."""
        self._link.start()
        try:
            await self._ended
        finally:
            self._replica.close()
            await self._link.close()
            self._context.destroy(linger=0)

    # -- what the link tells --------------------------------------------------------------------

    def link_up(self, welcome: tracker.Welcome) -> None:
        """A connection was made, for the first time or again."""
        print(f"connected to {self._link.where.endpoint}", file=sys.stderr, flush=True)
        self._replica.link_up(welcome)
        if welcome.user is None:
            self._login = asyncio.create_task(self._log_in())

    def link_down(self) -> None:
        """The link makes itself anew; there is nothing to do."""
        print("the tracker is away", file=sys.stderr, flush=True)

    def published(self, topic: bytes, sealed: bytes) -> None:
        """Events come sealed; `Following` has the keys of our groups."""
        self._replica.published(topic, sealed)

    def _on_logged_out(self) -> None:
        if not self._ended.done():
            self._ended.set_exception(MiniTorrentError("this device was logged out from elsewhere"))

    async def _log_in(self) -> None:
        try:
            password = (await asyncio.to_thread(sys.stdin.readline)).rstrip("\n")
            answer = await self._link.ask(tracker.Login(self._user, password), tracker.LoggedIn)
            self._replica.set_user(UserId(answer.reply.user))
        except MiniTorrentError as error:
            self._ended.set_exception(error)


def show(entry: events.LogEntry) -> None:
    """Print one event. Here is the place to do something about it instead."""
    row = msgspec.to_builtins(happened(entry))
    del row["type"]
    print(json.dumps({**row.pop("details"), **row}), flush=True)


def show_gap(gap: Gap) -> None:
    """Say which events were missed for good. What the group shares now is in its listing."""
    row = {"seq": gap.last, "group": gap.group, "event": "gap"}
    print(json.dumps({**row, "first": gap.first, "last": gap.last}), flush=True)


def main() -> None:
    """Read the command line and watch."""
    parser = argparse.ArgumentParser(description="print the events of your groups")
    parser.add_argument("link", help="the tracker's link, or the path of a tracker_info.txt")
    parser.add_argument("user", help="whose groups; the password is read from standard input")
    parser.add_argument("--key", type=Path, default=Path("watcher.key"), help="our device's key")
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
