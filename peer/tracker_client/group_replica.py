"""Replica of the user's groups, kept current by the tracker's events.

Owns: a `GroupView` for each group, and the requests that keep them current. The pattern is
"snapshot, then updates" (ZeroMQ RFC 12): subscribe, take the state with its place in the log, apply
newer entries, and on a gap ask for the missing ones. Not here: the effect of an entry on a view
(see ``peer.tracker_client.group_view``), and on downloads and shares (see ``peer.daemon``).

Invariant: each log entry reaches ``on_entry`` once and in order.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeVar

from common import limits
from common.crypto.event_seal import epoch_of, share_topic, unseal
from common.errors import MiniTorrentError, Refused, RemoteProtocolError, TransportError
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.messages import events, tracker
from common.messages.refusals import Code
from common.names import fold_id
from common.net.codec import Decoder
from common.shared_refusals import not_logged_in
from peer.tracker_client.claims import check_group, states_of
from peer.tracker_client.group_view import Effect, Gap, GroupView
from peer.tracker_client.link import TrackerLink
from peer.tracker_client.listing import devices_of
from peer.tracker_client.single_flight import SingleFlight, Work

T = TypeVar("T")
log = logging.getLogger(__name__)

_published: Decoder[events.Published] = Decoder(events.Published)
DEVICES_INTERVAL_S = 2.0  # unknown devices cause at most one request for the list in that time
DEVICES_TRIES = 5  # for a list that is not stale on arrival; then an unknown device asks again


class GroupReplica:
    """Views of all groups of the logged-in user; empty without one."""

    def __init__(
        self,
        link: TrackerLink,
        *,
        on_entry: Callable[[events.LogEntry], None],
        on_peers: Callable[[events.PeerUpdate], None],
        on_groups: Callable[[], None],
        on_logged_out: Callable[[str], None],
        on_gap: Callable[[Gap], None] = lambda gap: None,
        on_answered: Callable[[GroupId, bool], None] = lambda group, accepted: None,
    ) -> None:
        self._link = link
        self._on_entry = on_entry
        self._on_peers = on_peers
        self._on_groups = on_groups
        self._on_logged_out = on_logged_out
        self._on_gap = on_gap
        self._on_answered = on_answered
        self._views: dict[GroupId, GroupView] = {}
        self._by_topic: dict[bytes, GroupId] = {}
        self._inbox: tuple[bytes, bytes] | None = None
        self._tasks = SingleFlight(lambda: link.connected)
        self._logins = 0
        self._changes = 0  # under way; a sync follows each
        self.user: UserId | None = None
        self.pending: set[GroupId] = set()
        """The groups that the user asked to join, unanswered so far."""
        self.requests: dict[GroupId, int] = {}
        """Numbers of join requests to the groups that the user owns."""
        self.followed: set[GroupId] = set()
        """The groups that this device follows, says the tracker."""
        self.known = False
        """Whether ``groups`` are those of ``user``: the tracker has sent them since the login."""
        self.unreadable = 0

    @property
    def groups(self) -> dict[GroupId, GroupView]:
        """The views by group. Read-only for callers."""
        return self._views

    def topic_of(self, group: GroupId) -> bytes:
        """Return the mark that tells a group from another one of its name; empty if unknown."""
        view = self._views.get(group)
        return b"" if view is None else view.topic

    def device_count(self, group: str) -> int:
        """Return the number of devices of a group's members, as far as known."""
        view = self._views.get(GroupId(group))
        return 0 if view is None else len(view.devices)

    def has_left(self, user: UserId, group: GroupId, topic: bytes) -> bool:
        """Whether ``user`` is no longer in that group.

        The group is then gone from the list, or another one of its name has begun since. False
        until the tracker has sent the groups: a logout leaves no group.
        """
        if not self.known or user != self.user:
            return False
        now = self.topic_of(group)
        return not now or (bool(topic) and topic != now)

    def knows_device(self, device: DeviceKey) -> bool:
        """Whether ``device`` belongs to a member of one of our groups.

        An unknown device causes a request for the lists, since it may have been bound just now.
        """
        if any(device in view.devices for view in self._views.values()):
            return True
        for group in self._views:
            self._recheck_devices(group)
        return False

    def acts_for(self, group: GroupId, user: UserId, device: DeviceKey) -> bool:
        """Whether ``user`` is logged in on ``device``, and a member of ``group``.

        If not, this causes a request for the list, as for an unknown device.
        """
        view = self._views.get(group)
        if view is None:
            return False
        if view.devices.get(device) == user:
            return True
        self._recheck_devices(group)
        return False

    def _recheck_devices(self, group: GroupId) -> None:
        # Why a name of its own: unknown devices must not delay requests that the log causes.
        self._start(f"recheck {group}", partial(self._fetch_devices, group), DEVICES_INTERVAL_S)

    # -- login ----------------------------------------------------------------------------------

    def link_up(self, welcome: tracker.Welcome) -> None:
        """Handle a new connection: subscribe to the inbox, and bring everything up to date."""
        self._set_inbox(welcome.inbox, welcome.inbox_key)
        user = UserId(fold_id(welcome.user)) if welcome.user else None
        if user is None and self.user is not None:
            self._on_logged_out(not_logged_in().message)
        self.set_user(user)

    def set_user(self, user: UserId | None) -> None:
        """Follow the groups of ``user``; None after a logout."""
        if user != self.user:
            self._drop_all()
            self.pending, self.requests = set(), {}
            self.user = user
        if user is not None:
            self.refresh()

    def logged_out(self, reason: str) -> None:
        """Handle a refusal for the lack of a login: the user was logged out elsewhere.

        ``reason``: its text, which differs for an account that is disabled.
        """
        if self.user is not None:
            self._on_logged_out(reason)
            self.set_user(None)

    def _set_inbox(self, topic: bytes, key: bytes) -> None:
        if self._inbox is not None and self._inbox[0] != topic:
            self._link.unsubscribe(self._inbox[0])
        self._inbox = (topic, key)
        self._link.subscribe(topic)

    # -- published messages ---------------------------------------------------------------------

    def published(self, topic: bytes, sealed: bytes) -> None:
        """Apply a sealed message; one that cannot be opened or read is counted and dropped."""
        try:
            self._on_sealed(topic, sealed)
        except RemoteProtocolError as error:
            self.unreadable += 1
            log.debug("an event could not be read: %s", error)

    def _on_sealed(self, topic: bytes, sealed: bytes) -> None:
        if self._inbox is not None and topic == self._inbox[0]:
            unseal(self._inbox[1], topic, sealed)
            if self.user is None:
                self._link.reconnect()  # an account that was disabled may be let in again
            if not self._changes:
                self.refresh()
            return
        view = self._views.get(self._by_topic.get(topic, GroupId("")))
        if view is None:
            return
        epoch = epoch_of(sealed)
        if epoch not in view.keys:
            self.refresh()
            return
        message = _published.decode(unseal(view.keys[epoch], topic, sealed))
        match message:
            case events.LogEntry():
                self._apply(view, message)
            case events.GroupHead():
                self._perform(view, view.check_head(message.seq, message.epoch))
            case events.NewKey(group, epoch, key):
                check_group(view.group, group)
                view.learn_key(epoch, key)
            case events.PeerUpdate(group):
                check_group(view.group, group)
                self._on_peers(message)
            case _:
                raise RemoteProtocolError("an event on the wrong topic")

    def follow_share(self, group: GroupId, content: ContentId) -> None:
        """Subscribe to the peer-set updates of one share."""
        view = self._views.get(group)
        if view is not None:
            topic = share_topic(view.topic, content)
            self._by_topic[topic] = group
            self._link.subscribe(topic)

    def unfollow_share(self, group: GroupId, content: ContentId) -> None:
        """End the subscription to that share's peer-set updates."""
        view = self._views.get(group)
        if view is not None:
            topic = share_topic(view.topic, content)
            self._by_topic.pop(topic, None)
            self._link.unsubscribe(topic)

    def check_heads(self, heads: list[tracker.Head]) -> None:
        """Compare the tracker's heads of all our groups with the views."""
        claimed = {GroupId(fold_id(head.group)): head for head in heads}
        if set(claimed) != set(self._views):
            self.refresh()
        for group, view in self._views.items():
            if (head := claimed.get(group)) is not None:
                self._perform(view, view.check_head(head.seq, head.epoch))

    # -- the log --------------------------------------------------------------------------------

    def _apply(self, view: GroupView, entry: events.LogEntry) -> None:
        check_group(view.group, entry.group)
        effects = view.apply(entry)
        self._perform(view, effects)
        if Effect.DELIVER in effects:
            self._on_entry(entry)

    def _perform(self, view: GroupView, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if effect is Effect.ASK_STATE:
                self.refresh()
            elif effect is Effect.ASK_EVENTS:
                self._start(f"events {view.group}", partial(self._fetch_events, view.group))
            elif effect is Effect.ASK_DEVICES:
                self._start(f"devices {view.group}", partial(self._fetch_devices, view.group))

    async def _fetch_events(self, group: GroupId) -> None:
        while (view := self._views.get(group)) is not None:
            command = tracker.EventsSince(group, view.seq)
            reply = await self._link.request(command, tracker.Events)
            if reply.snapshot is not None and reply.head > view.seq:
                await self._take_snapshot(view, reply, reply.snapshot)
            before = view.seq
            for entry in reply.entries:
                view.begin_at(entry)
                self._apply(view, entry)
            if view.seq >= reply.head or view.seq == before:
                return

    async def _take_snapshot(
        self, view: GroupView, reply: tracker.Events, snapshot: tracker.GroupState
    ) -> None:
        """Skip entries that the tracker no longer keeps, with its state in their place."""
        check_group(view.group, snapshot.group)
        if snapshot.topic != view.topic:
            self.refresh()  # another group of this name
            return
        first, last = view.seq + 1, reply.entries[0].seq - 1 if reply.entries else reply.head
        before = dict(view.devices)
        view.owner = UserId(fold_id(snapshot.owner))
        view.take(snapshot)
        await self._fetch_devices(view.group)
        if self._views.get(view.group) is not view or view.seq >= last:
            return
        view.seq = last
        gone = {user for device, user in before.items() if view.devices.get(device) != user}
        self._on_gap(Gap(view.group, first, last, frozenset(gone)))

    # -- the state ------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Request the state of all our groups in the background."""
        if self.user is not None:
            self._start("follow", self._fetch_state)

    async def sync(self) -> None:
        """Bring the state up to date now. Raises `TransportError`, `Refused`."""
        if self.user is not None:
            await self._fetch_state()

    async def sync_after(self, change: Awaitable[T]) -> T:
        """Await ``change``, then `sync`. Why: a nudge about the change comes before its reply."""
        self._changes += 1
        try:
            reply = await change
        except BaseException:
            self.refresh()
            raise
        finally:
            self._changes -= 1
        await self.sync()
        return reply

    async def _fetch_state(self) -> None:
        login = self._logins
        reply = await self._link.request(tracker.Follow(), tracker.Following)
        if login != self._logins:
            return  # the user has changed meanwhile
        before = set(self._views)
        states = states_of(reply.groups)
        for group in before - set(states):
            self._drop(group)
        exchanged = False
        for group, state in states.items():
            if group in before and self._views[group].topic != state.topic:
                # Dissolved, and another group of this name has begun.
                self._drop(group)
                exchanged = True
            view = self._views.get(group)
            if view is not None:
                view.take(state)
                self._perform(view, view.check_head(state.seq, state.epoch))
                continue
            self._begin(group, state)
            await self._fetch_devices(group)
            if login != self._logins:
                return
        self.known = True
        self._update_requests(reply)
        if exchanged or set(self._views) != before:
            self._on_groups()

    def _update_requests(self, reply: tracker.Following) -> None:
        """Report the requests of the user that were answered since the last reply."""
        pending = {GroupId(fold_id(group)) for group in reply.pending[: limits.LISTING_MAX]}
        answered, self.pending = self.pending - pending, pending
        self.requests = {GroupId(fold_id(group)): count for group, count in reply.requests if count}
        self.followed = {GroupId(fold_id(group)) for group in reply.followed} & set(self._views)
        for group in sorted(answered):
            self._on_answered(group, group in self._views)

    def _begin(self, group: GroupId, state: tracker.GroupState) -> None:
        view = self._views[group] = GroupView.begun(group, state)
        self._by_topic[view.topic] = group
        self._link.subscribe(view.topic)
        # Events between the reply and the subscription would be missed otherwise.
        self._perform(view, [Effect.ASK_EVENTS])

    async def _fetch_devices(self, group: GroupId) -> None:
        for _ in range(DEVICES_TRIES):
            seq, devices = await devices_of(self._link, group)
            view = self._views.get(group)
            if view is None:
                return
            effects = view.take_devices(seq, devices)
            if effects is not None:
                self._perform(view, effects)
                return

    def _drop(self, group: GroupId) -> None:
        view = self._views.pop(group)
        for topic in [topic for topic, of in self._by_topic.items() if of == group]:
            del self._by_topic[topic]
            self._link.unsubscribe(topic)
        self._link.unsubscribe(view.topic)

    def _drop_all(self) -> None:
        self._logins += 1
        self.known = False
        self._tasks.cancel()
        for group in list(self._views):
            self._drop(group)

    # -- tasks ----------------------------------------------------------------------------------

    def _start(self, name: str, work: Work, pause_s: float = 0.0) -> None:
        self._tasks.run(name, partial(self._attempt, work), pause_s)

    async def _attempt(self, work: Work) -> None:
        try:
            await work()
        except TransportError as error:
            log.debug("a request to the tracker failed: %s", error)
        except Refused as error:
            if error.code is Code.NOT_LOGGED_IN:
                self.logged_out(error.message)
            elif error.code is Code.UNKNOWN_GROUP:
                self.refresh()
            else:
                log.info("the tracker refused a request: %s", error)
        except MiniTorrentError as error:
            log.warning("a request to the tracker failed: %s", error)

    def close(self) -> None:
        """Cancel all requests."""
        self._tasks.cancel()
