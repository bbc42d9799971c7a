"""What this device knows of its user's groups, kept current by the tracker's events.

Owns a `GroupView` for each group: who may fetch (devices, revocations), the keys of its epochs, and
how far its log has been read. The pattern is "snapshot, then updates" (ZeroMQ RFC 12): subscribe,
take the state with its place in the log, apply what is newer, and on a gap ask for what is missing.
Every log entry reaches ``on_entry`` once and in order.

What the entries mean for downloads and shares is decided by ``peer.daemon``.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from common import limits
from common.crypto.event_seal import epoch_of, share_topic, unseal
from common.errors import MiniTorrentError, Refused, RemoteProtocolError, TransportError
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.messages import events, tracker
from common.messages.refusals import Code
from common.names import fold_id
from common.net.codec import Decoder
from peer.tracker_client.claims import check_group, states_of
from peer.tracker_client.group_view import Gap, GroupView
from peer.tracker_client.link import TrackerLink
from peer.tracker_client.listing import listing

log = logging.getLogger(__name__)

_published: Decoder[events.Published] = Decoder(events.Published)
DEVICES_INTERVAL_S = 2.0  # an unknown device makes us ask for the list at most that often
DEVICES_TRIES = 5  # for a list that nothing overtakes; after that, whoever knocks makes us ask
_Errand = Callable[[], Coroutine[Any, Any, None]]


class GroupReplica:
    """The views of all groups of the logged-in user; empty when nobody is logged in."""

    def __init__(
        self,
        link: TrackerLink,
        *,
        on_entry: Callable[[events.LogEntry], None],
        on_peers: Callable[[events.PeerUpdate], None],
        on_groups: Callable[[], None],
        on_logged_out: Callable[[], None],
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
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._logins = 0
        self.user: UserId | None = None
        self.pending: set[GroupId] = set()
        """The groups that the user asked to join, unanswered so far."""
        self.requests: dict[GroupId, int] = {}
        """How many ask to join the groups that the user owns."""
        self.known = False
        """Whether ``groups`` are those of ``user``: the tracker has told since they logged in."""
        self.unreadable = 0

    @property
    def groups(self) -> dict[GroupId, GroupView]:
        """The views by group. Not to be changed by others."""
        return self._views

    def topic_of(self, group: GroupId) -> bytes:
        """What tells a group from another one of its name; empty when we are in none."""
        view = self._views.get(group)
        return b"" if view is None else view.topic

    def has_left(self, user: UserId, group: GroupId, topic: bytes) -> bool:
        """Whether ``user`` is not in that group any more: in none of the name, or in another one
        that began when it had ended. No while the tracker has not told: who is logged out has
        left nothing by that."""
        if not self.known or user != self.user:
            return False
        now = self.topic_of(group)
        return not now or (bool(topic) and topic != now)

    def knows_device(self, device: DeviceKey) -> bool:
        """Whether ``device`` belongs to a member of one of our groups. An unknown one makes us
        look again, since it may have been bound a moment ago."""
        if any(device in view.devices for view in self._views.values()):
            return True
        for group in self._views:
            self._look_again(group)
        return False

    def acts_for(self, group: GroupId, user: UserId, device: DeviceKey) -> bool:
        """Whether ``user`` is logged in on ``device``, and a member of ``group``. If that is not
        known we look again, as for an unknown device."""
        view = self._views.get(group)
        if view is None:
            return False
        if view.devices.get(device) == user:
            return True
        self._look_again(group)
        return False

    def _look_again(self, group: GroupId) -> None:
        # Under a name of its own: who knocks must not delay what the log makes us ask.
        self._run(f"knock {group}", partial(self._learn_devices, group), DEVICES_INTERVAL_S)

    # -- from the link --------------------------------------------------------------------------

    def link_up(self, welcome: tracker.Welcome) -> None:
        """A connection was made: hear our inbox, and bring everything up to date."""
        self._set_inbox(welcome.inbox, welcome.inbox_key)
        user = UserId(fold_id(welcome.user)) if welcome.user else None
        if user is None and self.user is not None:
            self._on_logged_out()
        self.set_user(user)

    def set_user(self, user: UserId | None) -> None:
        """Follow the groups of ``user``; of nobody after a logout."""
        if user != self.user:
            self._forget_all()
            self.pending, self.requests = set(), {}
            self.user = user
        if user is not None:
            self.refresh()

    def logged_out(self) -> None:
        """Nobody is logged in here, says the tracker: if somebody was, it was ended elsewhere."""
        if self.user is not None:
            self._on_logged_out()
            self.set_user(None)

    def _set_inbox(self, topic: bytes, key: bytes) -> None:
        if self._inbox is not None and self._inbox[0] != topic:
            self._link.unsubscribe(self._inbox[0])
        self._inbox = (topic, key)
        self._link.subscribe(topic)

    def published(self, topic: bytes, sealed: bytes) -> None:
        """A sealed message came. What cannot be opened or read is counted and dropped."""
        try:
            self._take(topic, sealed)
        except RemoteProtocolError as error:
            self.unreadable += 1
            log.debug("an event could not be read: %s", error)

    def _take(self, topic: bytes, sealed: bytes) -> None:
        if self._inbox is not None and topic == self._inbox[0]:
            unseal(self._inbox[1], topic, sealed)
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
                self._entry(view, message)
            case events.GroupHead():
                self.check_head(view.group, message.seq, message.epoch)
            case events.NewKey(group, epoch, key):
                check_group(view.group, group)
                view.learn_key(epoch, key)
            case events.PeerUpdate(group):
                check_group(view.group, group)
                self._on_peers(message)
            case _:
                raise RemoteProtocolError("an event on the wrong topic")

    def follow_share(self, group: GroupId, content: ContentId) -> None:
        """Hear the peer-set updates of one share."""
        view = self._views.get(group)
        if view is not None:
            topic = share_topic(view.topic, content)
            self._by_topic[topic] = group
            self._link.subscribe(topic)

    def unfollow_share(self, group: GroupId, content: ContentId) -> None:
        """Hear no more of that share's peer set."""
        view = self._views.get(group)
        if view is not None:
            topic = share_topic(view.topic, content)
            self._by_topic.pop(topic, None)
            self._link.unsubscribe(topic)

    def check_heads(self, heads: list[tracker.Head]) -> None:
        """Compare what the tracker says of all our groups with what we have read."""
        told = {GroupId(fold_id(head.group)): head for head in heads}
        if set(told) != set(self._views):
            self.refresh()
        for group in set(told) & set(self._views):
            self.check_head(group, told[group].seq, told[group].epoch)

    def check_head(self, group: GroupId, seq: int, epoch: int) -> None:
        """The group's log has come to ``seq``: fetch what we have missed."""
        view = self._views.get(group)
        if view is None or seq > view.seq:
            self._run(f"events {group}", partial(self._catch_up, group))
        if view is not None and epoch > view.epoch and epoch not in view.keys:
            self.refresh()

    # -- the log --------------------------------------------------------------------------------

    def _entry(self, view: GroupView, entry: events.LogEntry) -> None:
        check_group(view.group, entry.group)
        if entry.seq <= view.seq:
            return
        if entry.seq > view.seq + 1:
            self._run(f"events {view.group}", partial(self._catch_up, view.group))
            return
        view.seq = entry.seq
        self._apply(view, entry)
        if entry.epoch > view.epoch:
            view.epoch = entry.epoch
            if entry.epoch not in view.keys:
                self.refresh()
        self._on_entry(entry)

    def _apply(self, view: GroupView, entry: events.LogEntry) -> None:
        match entry.event:
            case events.Left(user, epoch) | events.Removed(user, epoch):
                gone = UserId(fold_id(user))
                view.revoke(gone, epoch)
                if entry.seq > view.devices_seq:
                    view.devices = {key: who for key, who in view.devices.items() if who != gone}
                    view.devices_seq = entry.seq
                view.epoch = max(view.epoch, epoch)
                self.refresh()
            case events.Joined():
                view.devices_seq = max(view.devices_seq, entry.seq)
                self._run(f"devices {view.group}", partial(self._learn_devices, view.group))
            case events.Owner(user):
                view.owner = UserId(fold_id(user))
            case events.Device(user, device, bound) if entry.seq > view.devices_seq:
                view.devices_seq = entry.seq
                if bound and len(view.devices) < limits.DEVICES_PER_GROUP_MAX:
                    view.devices[DeviceKey(device)] = UserId(fold_id(user))
                elif not bound:
                    view.devices.pop(DeviceKey(device), None)
            case _:
                pass

    async def _catch_up(self, group: GroupId) -> None:
        while (view := self._views.get(group)) is not None:
            ask = tracker.EventsSince(group, view.seq)
            reply = (await self._link.ask(ask, tracker.Events)).reply
            if reply.snapshot is not None and reply.head > view.seq:
                await self._skip(view, reply, reply.snapshot)
            before = view.seq
            for entry in reply.entries:
                if entry.seq > view.seq + 1:
                    # The log begins later for us: what was before we joined is not ours to read.
                    view.seq = entry.seq - 1
                self._entry(view, entry)
            if view.seq >= reply.head or view.seq == before:
                return

    async def _skip(
        self, view: GroupView, reply: tracker.Events, snapshot: tracker.GroupState
    ) -> None:
        """Go on behind entries that the tracker no longer keeps, from the state that it tells."""
        check_group(view.group, snapshot.group)
        if snapshot.topic != view.topic:
            self.refresh()  # another group of this name
            return
        first, last = view.seq + 1, reply.entries[0].seq - 1 if reply.entries else reply.head
        before = dict(view.devices)
        view.owner = UserId(fold_id(snapshot.owner))
        view.take(snapshot)
        await self._learn_devices(view.group)
        if self._views.get(view.group) is not view or view.seq >= last:
            return
        view.seq = last
        gone = {user for device, user in before.items() if view.devices.get(device) != user}
        self._on_gap(Gap(view.group, first, last, frozenset(gone)))

    # -- the state ------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Ask for the state of all our groups again, soon."""
        if self.user is not None:
            self._run("follow", self._follow)

    async def sync(self) -> None:
        """Bring the state up to date now. Raises `TransportError`, `Refused`."""
        if self.user is not None:
            await self._follow()

    async def _follow(self) -> None:
        login = self._logins
        reply = (await self._link.ask(tracker.Follow(), tracker.Following)).reply
        if login != self._logins:
            return  # what it tells is not of the user that there is by now
        before = set(self._views)
        told = states_of(reply.groups)
        for group in before - set(told):
            self._forget(group)
        exchanged = False
        for group, state in told.items():
            if group in before and self._views[group].topic != state.topic:
                # Dissolved, and begun again under the same name by somebody.
                self._forget(group)
                exchanged = True
            if group in self._views:
                self._update(self._views[group], state)
            else:
                self._begin(group, state)
                await self._learn_devices(group)
                if login != self._logins:
                    return
        self.known = True
        self._answered(reply)
        if exchanged or set(self._views) != before:
            self._on_groups()

    def _answered(self, reply: tracker.Following) -> None:
        """Tell which requests of the user were answered since the last time."""
        pending = {GroupId(fold_id(group)) for group in reply.pending[: limits.LISTING_MAX]}
        answered, self.pending = self.pending - pending, pending
        self.requests = {GroupId(fold_id(group)): count for group, count in reply.requests if count}
        for group in sorted(answered):
            self._on_answered(group, group in self._views)

    def _begin(self, group: GroupId, state: tracker.GroupState) -> None:
        view = GroupView(group, UserId(fold_id(state.owner)), state.epoch, state.topic, state.seq)
        self._views[group] = view
        self._by_topic[view.topic] = group
        self._link.subscribe(view.topic)
        self._update(view, state)
        # What was published between the answer and the subscription would be missed otherwise.
        self._run(f"events {group}", partial(self._catch_up, group))

    def _update(self, view: GroupView, state: tracker.GroupState) -> None:
        view.take(state)
        if state.seq > view.seq:
            self._run(f"events {view.group}", partial(self._catch_up, view.group))

    async def _learn_devices(self, group: GroupId) -> None:
        for _ in range(DEVICES_TRIES):
            seq, devices = await self._list_devices(group)
            view = self._views.get(group)
            if view is None:
                return
            # An entry, or another list, may have told of devices meanwhile that this one is too
            # old for: whoever was logged out by it must not come back in.
            if view.devices_seq <= seq:
                view.devices, view.devices_seq = devices, seq
                # Devices bound while the pages were fetched are in entries that are applied again.
                if seq > view.seq:
                    self._run(f"events {group}", partial(self._catch_up, group))
                return

    async def _list_devices(self, group: GroupId) -> tuple[int, dict[DeviceKey, UserId]]:
        """The members' devices, and the head of the log when the first of them were told."""
        seq = 0

        async def page(last: tracker.DeviceRow | None) -> tracker.DeviceRows:
            nonlocal seq
            ask = tracker.GetDevices(group, "" if last is None else last.device.hex())
            reply = (await self._link.ask(ask, tracker.DeviceRows)).reply
            seq = seq or reply.seq
            return reply

        rows = listing(page, lambda row: row.device, "devices", limits.DEVICES_PER_GROUP_MAX)
        devices = {
            DeviceKey(row.device): UserId(sys.intern(fold_id(row.user))) async for row in rows
        }
        return seq, devices

    def _forget(self, group: GroupId) -> None:
        view = self._views.pop(group)
        for topic in [topic for topic, of in self._by_topic.items() if of == group]:
            del self._by_topic[topic]
            self._link.unsubscribe(topic)
        self._link.unsubscribe(view.topic)

    def _forget_all(self) -> None:
        self._logins += 1
        self.known = False
        for task in self._tasks.values():
            task.cancel()
        for group in list(self._views):
            self._forget(group)

    # -- errands --------------------------------------------------------------------------------

    def _run(self, name: str, errand: _Errand, pause_s: float = 0.0) -> None:
        """Run an errand to the tracker, one of a name at a time; asked for again meanwhile, it
        runs once more. In the pause after it nobody can make us ask again."""
        if name in self._tasks:
            self._again.add(name)
            return
        self._again.discard(name)
        task = asyncio.create_task(self._errand(errand, pause_s), name=name)
        self._tasks[name] = task

        def ended(_: asyncio.Task[None]) -> None:
            self._tasks.pop(name, None)
            if name in self._again and self._link.connected and not task.cancelled():
                self._run(name, errand, pause_s)

        task.add_done_callback(ended)

    async def _errand(self, errand: _Errand, pause_s: float) -> None:
        try:
            await errand()
        except TransportError as error:
            log.debug("an errand to the tracker failed: %s", error)
        except Refused as error:
            if error.code is Code.NOT_LOGGED_IN:
                self.logged_out()
            elif error.code is Code.UNKNOWN_GROUP:
                self.refresh()
            else:
                log.info("the tracker refused an errand: %s", error)
        except MiniTorrentError as error:
            log.warning("an errand to the tracker failed: %s", error)
        if pause_s:
            await asyncio.sleep(pause_s)

    def close(self) -> None:
        """End all errands."""
        for task in list(self._tasks.values()):
            task.cancel()
