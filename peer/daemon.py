"""Peer process of one device, from start to orderly end.

Owns: construction and wiring of all parts, signals, and the order of the shutdown. Not here: any
work of the peer (see the parts).
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import zmq

from common.crypto.keys import DEVICE_KEY, load_or_make_pair
from common.errors import ConfigError
from common.hints import hint
from common.host import process
from common.host.home import HomeLock, open_home
from common.host.release import RELEASE
from common.host.service_manager import ServiceManager
from common.ids import DeviceKey, GroupId
from common.link import Tracker, links_of, trackers_of
from common.messages import events, tracker
from common.messages.control import NOT_LISTENING
from common.net import zap
from common.net.sockets import check_library
from peer.address_changes import AddressWatch
from peer.background_tasks import BackgroundTasks
from peer.bandwidth import Bandwidth
from peer.control.handlers import Commands, PeerServices
from peer.control.notices import Notifications
from peer.control.server import ControlServer
from peer.downloads.job import DownloadServices
from peer.downloads.manager import Downloads
from peer.downloads.views import shown_path
from peer.fetching.pool import ConnectionPool
from peer.files.open_files import HandleCache
from peer.follows.following import FollowServices
from peer.follows.manager import Follows
from peer.follows.records import FollowRecords
from peer.hooks.downloads import DownloadHooks
from peer.hooks.runner import HookRunner
from peer.metrics.readings import PeerMetrics, PeerParts
from peer.native import library as native
from peer.optional_http import OptionalHttp
from peer.reading.manager import Reading
from peer.records import Manifests
from peer.serving.access import AccessControl
from peer.serving.inventory import Inventory
from peer.serving.server import PieceServer
from peer.session import Session
from peer.settings import Settings
from peer.shares.manager import Shares
from peer.tracker_client.group_replica import GroupReplica
from peer.tracker_client.group_view import Gap
from peer.tracker_client.lease import LeaseKeeper
from peer.tracker_client.link import TrackerLink
from peer.tracker_client.tickets import TicketWallet
from peer.traffic import rates
from peer.workers import Workers

log = logging.getLogger(__name__)

WORKERS = max(2, min(4, os.cpu_count() or 2))  # they digest; more of them than cores thrash caches
SOCKETS_MAX = 16_384
HELPERS = 4  # additional threads while the workers wait for disks
TIDY_S = 3600.0  # how often unneeded manifests are removed
END_S = 4.0  # an orderly end takes at most that long; then the process exits


def run(home: Path, settings: Settings, *, foreground: bool = True, verbose: int = 0) -> int:
    """Run the peer of ``home`` in this process until it is stopped; returns the exit code.

    With ``foreground``, it prints a line when it is ready.
    Raises `MiniTorrentError` when it cannot start.
    """
    level = logging.DEBUG if verbose > 0 else logging.INFO
    process.start_up(level, log_json=settings.log_json)
    check_library()
    native.use(settings.native)
    home = open_home(home)
    if settings.tracker is None:
        raise ConfigError("no tracker is known", hint("name it", "up", "LINK"))
    trackers = trackers_of(settings.tracker)
    lock = HomeLock(home)
    try:
        asyncio.run(_run(home, settings, trackers, foreground))
    finally:
        lock.release()
    return 0


async def _run(home: Path, settings: Settings, trackers: list[Tracker], foreground: bool) -> None:
    peer, manager = Peer(), ServiceManager()
    await peer.start(home, settings, trackers)
    process.settle()
    manager.ready(peer.state())
    informing = asyncio.create_task(manager.keep_informed(peer.state))
    if foreground:
        where = peer.endpoint or NOT_LISTENING
        print(f"peer ready: {where} (tracker {links_of(trackers)[0].text})", flush=True)
    await peer.until_stopped()
    manager.stopping()
    informing.cancel()
    # Invariant: the process ends even if a part hangs, for instance a thread that waits for a disk,
    # which Python would join at its exit.
    closed = threading.Event()
    watchdog = threading.Timer(END_S, lambda: os._exit(0 if closed.is_set() else 1))
    watchdog.daemon = True
    watchdog.start()
    await peer.close()
    closed.set()


class Peer:
    """Parts of a running peer. Implements `peer.tracker_client.link.Listener`."""

    def __init__(self) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        # Each connection to a source takes six with its monitors; a thousand is ZeroMQ's own bound.
        self._context.set(zmq.MAX_SOCKETS, SOCKETS_MAX)
        self._ended = asyncio.Event()
        self._notices = Notifications()
        self._tasks = BackgroundTasks()

    async def start(self, home: Path, settings: Settings, trackers: list[Tracker]) -> None:
        """Construct all parts and start them. Raises `MiniTorrentError`."""
        context, rng = self._context, random.Random()
        self._zap = zap.ZapHandler(context)
        await zap.self_check(context, self._zap)
        pair = load_or_make_pair(home / DEVICE_KEY)
        instance = process.instance_mark(home)
        bandwidth = Bandwidth(home, settings)
        self._workers = Workers(WORKERS, "worker", helpers=HELPERS)
        handles = HandleCache()
        inventory = Inventory()
        self._link = TrackerLink(
            context,
            pair,
            trackers,
            self,
            rng=rng,
            memory=home / "tracker",
            instance=instance,
            logged_in=self._is_logged_in,
        )
        self._replica = GroupReplica(
            self._link,
            on_entry=self._on_entry,
            on_gap=self._on_gap,
            on_peers=self._on_peers,
            on_groups=self._on_groups,
            on_answered=self._on_answered,
            on_logged_out=self._on_logged_out,
        )
        self._access = AccessControl(self._replica, inventory, self._link.time)
        self._server = PieceServer(
            context,
            pair,
            None,
            guard=self._zap,
            replica=self._replica,
            access=self._access,
            inventory=inventory,
            workers=self._workers,
            limit=bandwidth.up,
            bulk_port=settings.bulk_port if settings.bulk else None,
            notify=self._notices.add,
            is_tracker=self._is_tracker,
        )
        self._addresses = AddressWatch(
            home,
            settings.listen,
            settings.advertise,
            trackers,
            self._server,
            lambda: self._link.reached,
        )
        await self._addresses.start()
        self._tickets = TicketWallet(self._link, self._link.time, self._on_ticket, rng)
        self._pool = ConnectionPool(context, pair, self._tickets.current, bulk=settings.bulk)
        manifests = Manifests(home / "manifests")
        self._shares = Shares(
            home,
            self._link,
            self._replica,
            inventory,
            self._workers,
            handles,
            manifests,
            self._notices.add,
        )
        hooks = HookRunner(settings.hooks, home, self._notices.add)
        services = DownloadServices(
            home=home,
            link=self._link,
            replica=self._replica,
            tickets=self._tickets,
            pool=self._pool,
            inventory=inventory,
            shares=self._shares,
            workers=self._workers,
            manifests=manifests,
            settings=settings,
            limit=bandwidth.down,
            time=self._link.time,
            notify=self._notices.add,
            presence_changed=self._on_presence_changed,
            hooks=DownloadHooks(hooks),
        )
        self._downloads = Downloads(services, rng)
        reading = Reading(services, self._downloads)
        self._shares.parts_under_way = self._downloads.parts
        manifests.keep_only(self._shares.contents() | self._downloads.contents())
        self._lease = LeaseKeeper(
            self._link,
            self._replica,
            self._addresses.refresh,
            self._downloads.leeching,
            instance,
            lambda: rates(self._downloads.progress(), self._server.meter),
        )
        follows = Follows(
            FollowServices(
                link=self._link,
                shares=self._shares,
                downloads=self._downloads.for_follows,
                workers=self._workers,
                records=FollowRecords(home, self._workers),
                manifests=manifests,
                notify=self._notices.add,
                followers=self._replica.device_count,
                rng=rng,
            ),
            self._replica,
        )
        await self._downloads.moved.moves.recover()
        parts = (self._tickets, self._shares, self._downloads, self._server)
        self._session = Session(self._replica, self._lease, *parts, follows)
        metrics = PeerMetrics(
            PeerParts(
                link=self._link,
                tickets=self._tickets,
                shares=self._shares,
                downloads=self._downloads,
                download_counts=services.counts,
                pool=self._pool,
                server=self._server,
                bandwidth=bandwidth,
            ),
            name_groups=settings.http.metrics_groups,
        )
        self._commands = Commands(
            PeerServices(
                pair=pair,
                link=self._link,
                replica=self._replica,
                session=self._session,
                shares=self._shares,
                downloads=self._downloads,
                follows=follows,
                piece_server=self._server,
                whereabouts=self._addresses,
                notices=self._notices,
                bandwidth=bandwidth,
                reading=reading,
                hooks=hooks,
                pid=os.getpid(),
                release=RELEASE,
                home=shown_path(str(home)),
                stop=self._stop_soon,
                open_page=lambda: self._http.open_page(),
                metrics=metrics.text,
            )
        )
        self._http = OptionalHttp(home, self._commands, metrics.text, reading)
        self._control = ControlServer(context, home, self._commands.handle)
        if settings.http.on:
            self._http.service().serve_socket()
        self._link.start()
        self._lease.start()
        self._tasks.start(self._shares.watch_files(), "shared files")
        self._tasks.start(bandwidth.follow_clock(), "limits")
        self._tasks.start(metrics.lag.measure(), "lag")
        self._tasks.start(reading.keep_tidy(), "readers")
        self._tasks.start(hooks.end_with_peer(), "hooks")
        self._tasks.start(self._tidy(manifests), "manifests")
        self._tasks.start(process.keep_memory_small(), "memory")
        log.info("peer ready at %s", self._server.endpoint or self._addresses.last_error)

    async def _tidy(self, manifests: Manifests) -> None:
        """Remove, periodically, the manifests of contents that are neither shared nor fetched."""
        while True:
            await asyncio.sleep(TIDY_S)
            wanted = self._shares.contents() | self._downloads.contents()
            try:
                await self._workers.run(manifests.keep_only, wanted, TIDY_S)
            except OSError as error:
                log.warning("unneeded manifests were not removed: %s", error)

    @property
    def endpoint(self) -> str:
        """Endpoint at which this peer listens; empty while it has no address."""
        return self._server.endpoint

    def state(self) -> str:
        """The state in a line for the service manager, without any name of a user or group."""
        reached = "connected to the tracker" if self._link.connected else "waiting for the tracker"
        return f"{self.endpoint or NOT_LISTENING}, {reached}"

    async def until_stopped(self) -> None:
        """Wait for SIGTERM, SIGINT or `Down`. A second signal ends the process at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended.set)
        await self._ended.wait()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            # No longer by way of the loop, which may be the part that hangs.
            signal.signal(number, lambda *_: os._exit(1))

    def _stop_soon(self) -> None:
        # The reply to the command leaves before the socket closes.
        asyncio.get_running_loop().call_later(0.05, self._ended.set)

    async def close(self) -> None:
        """End in order: sync verified pieces, release the lease, close all sockets."""
        await self._http.close()
        self._session.close()
        self._addresses.close()
        self._tasks.cancel()
        await self._downloads.close()
        await self._lease.close()
        if self._link.connected:
            await self._lease.depart()
        self._replica.close()
        self._tickets.clear()
        self._shares.close()
        self._server.close()
        self._pool.close()
        await self._link.close()
        self._control.close()
        self._zap.close()
        self._workers.close()
        self._context.destroy(linger=0)

    # -- from the link and what follows from it ---------------------------------------------------

    def link_up(self, welcome: tracker.Welcome) -> None:
        """Pass a new connection on to all parts, in order."""
        self._access.learn(welcome)
        self._replica.link_up(welcome)
        self._addresses.link_up(welcome)
        self._session.link_up()

    def link_down(self) -> None:
        """Do nothing: all parts go on without the link."""

    def published(self, topic: bytes, sealed: bytes) -> None:
        """Pass a published message on to the replica."""
        self._replica.published(topic, sealed)

    def _on_entry(self, entry: events.LogEntry) -> None:
        self._session.entry(entry)
        self._commands.entry(entry)

    def _on_gap(self, gap: Gap) -> None:
        self._session.gap(gap)
        self._commands.gap(gap)

    def _on_answered(self, group: GroupId, accepted: bool) -> None:
        self._commands.answered(group, accepted)

    def _on_presence_changed(self) -> None:
        self._lease.announce_soon()
        self._session.presence_changed()

    def _is_logged_in(self) -> bool:
        return self._replica.user is not None

    def _is_tracker(self, key: DeviceKey) -> bool:
        return key == self._link.where.key

    def _on_peers(self, update: events.PeerUpdate) -> None:
        self._downloads.peers_changed(update)

    def _on_groups(self) -> None:
        self._session.groups_changed()

    def _on_logged_out(self, reason: str) -> None:
        self._session.logged_out(reason)

    def _on_ticket(self, group: GroupId, ticket: bytes) -> None:
        self._pool.renewed(group, ticket)
