"""Findings of a running peer for `doctor`: the tracker, the address, the clock, what was refused.

Owns the texts of each. Not here: checks without a running peer (see peer.cli.doctor).
"""

from __future__ import annotations

from common.errors import MiniTorrentError
from common.hints import CHECK_LINK, hint, shell_hint
from common.host.clock import wall_ms
from common.messages import control, tracker
from common.names import quoted
from common.net.sockets import LIBZMQ_MIN
from peer.address_changes import AddressWatch
from peer.control.notices import Notifications
from peer.hooks.commands import HookSettings
from peer.native import library as native
from peer.serving.server import PieceServer
from peer.tracker_client.group_replica import GroupReplica
from peer.tracker_client.link import TrackerLink

CLOCK_TOLERANCE_S = 5.0
_REFUSALS = ("refused", "malformed", "unnamed", "out of range")


async def findings(
    link: TrackerLink,
    replica: GroupReplica,
    whereabouts: AddressWatch,
    piece_server: PieceServer,
    notices: Notifications,
) -> list[control.CheckRow]:
    """Every check with its result, the tracker and the network first."""
    rows = [_tracker(link), _address(whereabouts)]
    if link.connected and replica.user is not None and whereabouts.announced is not None:
        rows.append(await _reachable(link))
    if link.time.known:
        rows.append(_clock(link))
    rows.append(control.CheckRow("pieces served", True, str(piece_server.counts["pieces"])))
    rows.append(control.CheckRow("bulk connections", True, piece_server.bulk_state))
    rows.append(native.finding())
    refused = sum(piece_server.counts[kind] for kind in _REFUSALS)
    rows.append(control.CheckRow("requests refused", True, str(refused)))
    needed = ".".join(str(part) for part in LIBZMQ_MIN)
    rows.append(control.CheckRow("libzmq needed", True, needed))
    advice = "it may be over; see the lines around it in peer.log"
    rows += [
        control.CheckRow("notice", False, text, advice)
        if is_news
        else control.CheckRow("earlier notice", True, text)
        for text, is_news in notices.texts()
    ]
    return rows


def hook_findings(hooks: HookSettings) -> list[control.CheckRow]:
    """A check of each hook whose program is not found; a running peer reads `peer.toml` once."""
    advice = hint("correct [hooks] in peer.toml, and start the peer again", "down", then=("up",))
    return [
        control.CheckRow(f"hook {event}", False, f"program not found: {quoted(program)}", advice)
        for event, program in hooks.missing()
    ]


def _tracker(link: TrackerLink) -> control.CheckRow:
    if link.connected:
        return control.CheckRow("tracker", True, f"connected to {link.where.endpoint}")
    return control.CheckRow("tracker", False, link.last_error or "away", CHECK_LINK)


def _address(whereabouts: AddressWatch) -> control.CheckRow:
    if whereabouts.last_error is not None:
        words = "the peer keeps trying; to give it another address"
        advice = hint(words, "down", then=("up", "--listen", "HOST:0"))
        return control.CheckRow("address", False, whereabouts.last_error, advice)
    if whereabouts.advice is not None:
        return control.CheckRow("address", False, *whereabouts.advice)
    found = f"announced as {whereabouts.announced}"
    if whereabouts.seen_at:
        found += f"; the tracker sees this machine at {whereabouts.seen_at}"
    return control.CheckRow("address", True, found)


async def _reachable(link: TrackerLink) -> control.CheckRow:
    try:
        probed = await link.request(tracker.ProbeMe(), tracker.Probed)
    except MiniTorrentError as error:
        return control.CheckRow("reachable", True, f"not tested: {error.message}")
    if probed.answered:
        return control.CheckRow("reachable", True, f"the tracker reached {probed.endpoint}")
    port = probed.endpoint.rpartition(":")[2]
    return control.CheckRow(
        "reachable",
        False,
        f"the tracker cannot connect to this peer at {probed.endpoint}",
        hint(
            f"allow connections to port {port} in the firewall of this machine, or announce the "
            "address that others can reach",
            "down",
            then=("up", "--advertise", "HOST"),
        ),
    )


def _clock(link: TrackerLink) -> control.CheckRow:
    offset_s = (wall_ms() - link.time.now_ms()) / 1000
    right = abs(offset_s) < CLOCK_TOLERANCE_S
    advice = None if right else shell_hint("set the clock", "timedatectl", "set-ntp", "true")
    return control.CheckRow("clock", right, f"{offset_s:+.1f} s from the tracker's", advice)
