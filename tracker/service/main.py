"""Process of a tracker, from its home to its end.

Owns: the first line of output, signals, the prompt's ``quit``, and the time limit of the end. Not
here: options (see tracker.cli) and sockets (see tracker.service.sockets).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from common.crypto.keys import key_text
from common.errors import ConfigError
from common.host import process
from common.host.clock import monotonic
from common.host.service_manager import ServiceManager
from common.link import InfoEntry, Link, add_key
from common.names import printable
from tracker.admin.database_choice import chosen, open_store
from tracker.admin.home import LAST_LINK, LAST_OPTIONS, Home, Secrets
from tracker.metrics.readings import TrackerMetrics
from tracker.service.addresses import Addresses, run_options
from tracker.service.cluster_member import Cluster
from tracker.service.history import History
from tracker.service.load import load_of
from tracker.service.operator_socket import OperatorSocket, RunInfo, Views
from tracker.service.recent_log import RecentLog
from tracker.service.sockets import Server
from tracker.service.web_process import WebProcess, WebSettings
from tracker.store.turns import Store

END_S = 4.8  # service managers and users wait 5 s

log = logging.getLogger("tracker")


async def serve(
    home: Home,
    addresses: Addresses,
    web_settings: WebSettings,
    ready: Callable[[str], None],
    info: Path | None = None,
    entry: InfoEntry | None = None,
    database: str | None = None,
) -> None:
    """Serve until asked to end. ``entry`` of the file ``info`` gets its key line if it has none.

    ``database``: a URL, or None for what the home remembers.

    ``ready`` is called with the link once the tracker serves.

    Raise `MiniTorrentError` if the tracker cannot start.
    """
    stop, manager = asyncio.Event(), ServiceManager()
    _stop_on_signals(stop)
    secrets = home.secrets()
    if entry is not None and entry.key not in (None, secrets.pair.public):
        raise ConfigError(
            f"{info}, line {entry.line}: this entry has the key of another tracker",
            f"its key line must be: {key_text(secrets.pair.public)}",
        )
    # On a thread: a database that does not answer must not hold up a signal.
    url = chosen(home.path, database)
    store = await asyncio.to_thread(open_store, home, url, secrets, stop.is_set)

    def keep_link(endpoints: tuple[str, ...]) -> None:
        text = Link(endpoints, secrets.pair.public).text
        (home.path / LAST_LINK).write_text(f"{text}\n", encoding="utf-8")

    cluster = _cluster_of(store, secrets, keep_link)
    server = Server(secrets, store, addresses, cluster)
    operator: OperatorSocket | None = None
    web = WebProcess(home.path, web_settings)
    recent, began_at = RecentLog(), monotonic()
    logging.getLogger().addHandler(recent)
    try:
        web.bind()
        found = await server.start()
        if info is not None and entry is not None and entry.key is None:
            add_key(info, entry, secrets.pair.public)
        for name, text in (
            (LAST_LINK, found.text),
            (LAST_OPTIONS, run_options(addresses, server.bound)),
        ):
            (home.path / name).write_text(f"{text}\n", encoding="utf-8")
        assert server.command_loop is not None
        facts = RunInfo(found.text, home.path, began_at)
        metrics = TrackerMetrics(server, server.command_loop, home.path, home.database)
        load = partial(load_of, server, facts, metrics)
        history = History()
        views = Views(metrics, load, history, recent, web.open_page)
        measuring = [
            asyncio.create_task(task) for task in (metrics.lag.measure(), history.record(load))
        ]
        operator = OperatorSocket(facts, server.command_loop, views, stop)
        await web.start()
        process.settle()
        ready(found.text)
        status = f"serving at {found.first.endpoint}"
        manager.ready(status)
        informing = asyncio.create_task(manager.keep_informed(lambda: status))
        log.info("serving at %s", printable(found.first.endpoint))
        if web.metrics_address:
            log.info("the metrics are at http://%s/metrics", web.metrics_address)
        _stop_on_quit(stop)
        await stop.wait()
        manager.stopping()
        informing.cancel()
        for task in measuring:
            task.cancel()
        log.info("ending")
        _end_within(END_S)
    finally:
        if operator is not None:
            operator.close()
        closing = asyncio.create_task(web.close())
        await server.stop()
        await closing
        store.close()
        logging.getLogger().removeHandler(recent)


def _cluster_of(
    store: Store, secrets: Secrets, on_trackers: Callable[[tuple[str, ...]], None]
) -> Cluster | None:
    """Return where this tracker meets others, if its database is for several."""
    if not store.shared:
        return None
    # Imported here: a tracker alone needs no driver of PostgreSQL.
    from common.crypto.signing_keys import marks
    from tracker.store.cluster_tables import ClusterTables
    from tracker.store.postgres_store import PostgresStore

    assert isinstance(store, PostgresStore)
    return Cluster(store.own, marks(secrets.signing), ClusterTables(store.url), on_trackers)


def _end_within(seconds: float) -> None:
    """End the process even if something hangs, such as a disk. Acknowledged changes are durable."""
    watchdog = threading.Timer(seconds, os._exit, (1,))
    watchdog.daemon = True
    watchdog.start()


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def end() -> None:
        stop.set()
        for number in numbers:
            loop.remove_signal_handler(number)
            # A second signal ends at once, without the event loop: it may be what hangs.
            signal.signal(number, lambda *_: os._exit(1))

    for number in numbers:
        loop.add_signal_handler(number, end)


def _in_background() -> bool:
    try:
        return os.tcgetpgrp(0) != os.getpgrp()
    except OSError:
        return False  # another session's terminal, from which any process may read


def _stop_on_quit(stop: asyncio.Event) -> None:
    """End at an input line ``quit``. The end of standard input, as in a service, is ignored."""
    loop = asyncio.get_running_loop()
    person = sys.stdin is not None and sys.stdin.isatty()
    if person:
        # Reading from a terminal in the background (`run &`) raises this signal, which would stop
        # the process. With the signal ignored the read fails, and signals remain to end it.
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)
        if not _in_background():
            print("type quit to end", flush=True)

    def read() -> None:
        # From the descriptor: this thread would hold the lock of Python's buffer at the exit.
        line = b""
        while True:
            try:
                more = os.read(0, 1024)
            except OSError:
                return
            if not more:
                return
            *lines, line = (line + more).split(b"\n")
            line = line[-64:]
            if any(text.strip().lower() in (b"quit", b"exit") for text in lines):
                loop.call_soon_threadsafe(stop.set)
                return
            if person and any(text.strip() for text in lines):
                print("unknown input; type quit to end", flush=True)

    threading.Thread(target=read, name="prompt", daemon=True).start()
