"""Devices and password of a user: changes, losses and rekeys."""

from __future__ import annotations

import pytest

from common import limits
from common.messages import events, tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from tests.support.tracker_harness import Device, TrackerHarness
from tracker.core import commands
from tracker.core.changes.accounts import DeviceSeen, PasswordReplaced
from tracker.core.changes.groups import GroupRekeyed, Logged
from tracker.core.context import ReplacePassword
from tracker.core.presence import Presence


def order(device: Device, *, keep_devices: bool = False, new: str = "fresh one") -> ReplacePassword:
    """Return the deferred step of a password change."""
    made = device.does(tracker.ChangePassword("secret", new, keep_devices))
    assert isinstance(made, ReplacePassword)
    return made


def changed(device: Device, *, keep_devices: bool = False) -> tracker.PasswordChanged:
    made = order(device, keep_devices=keep_devices)
    reply = device.does(commands.PasswordChecked(made, f"hash of {made.new}"))
    assert isinstance(reply, tracker.PasswordChanged)
    return reply


def rows(device: Device) -> dict[bytes, tracker.OwnDevice]:
    reply = device.does(tracker.ListDevices())
    assert isinstance(reply, tracker.OwnDevices)
    return {row.device: row for row in reply.rows}


# -- the password -------------------------------------------------------------------------------


def test_the_old_password_is_checked_and_the_new_one_hashed_before_anything_changes(
    harness: TrackerHarness,
) -> None:
    alice = harness.user("alice")
    before = len(harness.changes)
    made = order(alice)
    assert (made.user, made.password_hash, made.new) == ("alice", "hash of secret", "fresh one")
    assert len(harness.changes) == before


def test_a_changed_password_logs_out_only_the_other_devices_of_that_user(
    harness: TrackerHarness,
) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    phone, laptop = harness.user("alice", "phone"), harness.user("alice", "laptop")
    harness.group("lab", alice, bob)
    phone.comes()
    harness.nudged.clear()
    assert changed(alice) == tracker.PasswordChanged(2)
    assert harness.state.accounts["alice"].password_hash == "hash of fresh one"
    assert [device.user for device in (alice, phone, laptop, bob)] == ["alice", None, None, "bob"]
    assert phone.key not in harness.context.presence.leases
    assert harness.nudged == [phone.key, laptop.key]
    assert harness.events_of("lab")[-2:] == [
        events.Device("alice", phone.key, False),
        events.Device("alice", laptop.key, False),
    ]


def test_a_changed_password_may_keep_the_other_devices(harness: TrackerHarness) -> None:
    alice, phone = harness.user("alice"), harness.user("alice", "phone")
    harness.group("lab", alice)
    count = len(harness.log)
    assert changed(alice, keep_devices=True) == tracker.PasswordChanged(0)
    assert phone.user == "alice"
    assert len(harness.log) == count
    assert harness.state.accounts["alice"].password_hash == "hash of fresh one"


def test_a_login_that_was_checked_against_the_old_password_comes_too_late(
    harness: TrackerHarness,
) -> None:
    alice = harness.user("alice")
    thief = harness.device("thief")
    thief.does(tracker.Login("alice", "secret"))
    changed(alice)
    late = commands.PasswordRight("alice", "hash of secret")
    assert thief.is_refused(late) is Code.WRONG_CREDENTIALS


def test_of_two_password_changes_at_once_the_first_counts(harness: TrackerHarness) -> None:
    alice, phone = harness.user("alice"), harness.user("alice", "phone")
    first, second = (
        order(alice, keep_devices=True),
        order(phone, keep_devices=True, new="other one"),
    )
    alice.does(commands.PasswordChecked(first, "hash of fresh one"))
    late = commands.PasswordChecked(second, "hash of other")
    assert phone.is_refused(late) is Code.WRONG_CREDENTIALS
    assert harness.state.accounts["alice"].password_hash == "hash of fresh one"


def test_a_device_that_was_logged_out_meanwhile_changes_nothing(harness: TrackerHarness) -> None:
    alice, phone = harness.user("alice"), harness.user("alice", "phone")
    made = order(phone)
    alice.does(tracker.ForgetDevice(phone.key))
    assert phone.is_refused(commands.PasswordChecked(made, "h")) is Code.NOT_LOGGED_IN
    bob = harness.user("bob", "phone")  # nor does the user who has logged in there since
    assert bob.is_refused(commands.PasswordChecked(made, "h")) is Code.WRONG_CREDENTIALS


@pytest.mark.parametrize(("old", "new"), [("secret", ""), ("same", "same")])
def test_an_empty_password_and_the_same_one_are_refused(
    harness: TrackerHarness, old: str, new: str
) -> None:
    alice = harness.user("alice")
    assert alice.is_refused(tracker.ChangePassword(old, new)) is Code.USAGE


def test_a_repeated_password_change_is_recognised_by_its_receipt(
    harness: TrackerHarness,
) -> None:
    alice = harness.user("alice")
    asked = tracker.ChangePassword("secret", "fresh one")
    made = alice.does(asked, b"once")
    alice.does(commands.PasswordChecked(made, "hash of fresh one"), b"once")
    count = len(harness.changes)
    assert alice.does(asked, b"once") == tracker.Done()
    assert len(harness.changes) == count


def test_neither_password_nor_hash_ever_shows(harness: TrackerHarness) -> None:
    alice = harness.user("alice")
    made = order(alice, new="hunter2")
    shown = f"{made!r} {commands.PasswordChecked(made, '$argon2id$')!r}"
    shown += repr(PasswordReplaced("alice", "$argon2id$"))  # type: ignore[arg-type]
    for secret in ("hunter2", "secret", "$argon2id$"):
        assert secret not in shown


# -- a lost device ------------------------------------------------------------------------------


def test_a_forgotten_device_is_logged_out_and_gets_a_nudge(harness: TrackerHarness) -> None:
    alice, phone = harness.user("alice"), harness.user("alice", "phone")
    group = harness.group("lab", alice)
    phone.comes()
    harness.nudged.clear()
    assert alice.does(tracker.ForgetDevice(phone.key)) == tracker.Done()
    assert phone.user is None
    assert harness.nudged == [phone.key]
    assert phone.key not in harness.context.presence.leases
    assert harness.events_of(group)[-1] == events.Device("alice", phone.key, False)
    for command in (tracker.GetTickets(), tracker.Follow(), tracker.Announce("tcp://192.0.2.7:1")):
        assert phone.is_refused(command) is Code.NOT_LOGGED_IN


def test_offers_of_a_logged_out_device_count_again_after_its_next_login(
    harness: TrackerHarness,
) -> None:
    alice, phone = harness.user("alice"), harness.user("alice", "phone")
    group = harness.group("lab", alice)
    content = harness.content("film")
    phone.offers(group, "film", content)
    phone.comes()
    phone.does(tracker.Logout())
    assert harness.swarm_changes[-1].source is None
    assert alice.does(tracker.GetSources(group, content)).sources == []
    phone.enters("alice").comes()
    assert alice.does(tracker.GetSources(group, content)).sources[0].device == phone.key


def test_offers_of_a_forgotten_device_end(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    phone = harness.user("alice", "phone")
    harness.group("lab", alice, bob)
    harness.group("home", alice)
    alone, both, of_others = (harness.content(name) for name in ("alone", "both", "of others"))
    phone.offers("lab", "alone", alone)
    phone.offers("home", "alone", alone)
    for device in (phone, alice):
        device.offers("lab", "both", both)
    for device in (phone, bob):
        device.offers("lab", "of others", of_others)
    phone.comes()
    before = len(harness.events_of("lab"))
    alice.does(tracker.ForgetDevice(phone.key))
    shared_by = {row.name: row.shared_by for row in bob.does(tracker.ListFiles("lab")).rows}
    assert shared_by == {"both": ["alice"], "of others": ["bob"]}
    assert alice.does(tracker.ListFiles("home")).rows == []
    # A name is free again, and of the files that others or other devices offer no end is told.
    assert sorted(harness.events_of("lab")[before:], key=repr) == [
        events.Device("alice", phone.key, False),
        events.Stopped("alice", "of others", of_others),
        events.Unshared("alice", "alone", alone),
    ]
    bob.offers("lab", "alone", both)
    phone.enters("alice")
    assert phone.does(tracker.MyOffers()).rows == []


def test_entries_about_a_forgotten_device_are_in_one_order(harness: TrackerHarness) -> None:
    """The key changes between the entries; numbers continue and each has the current key."""
    alice, phone = harness.user("alice"), harness.user("alice", "phone")
    harness.group("lab", alice)
    phone.offers("lab", "film", harness.content("film"))
    alice.does(tracker.ForgetDevice(phone.key))
    told = [c for c in harness.changes if isinstance(c, Logged)][-2:]
    assert [entry.entry.seq for entry in told] == [
        harness.state.groups["lab"].seq - 1 + n for n in (0, 1)
    ]
    assert isinstance(told[1].entry.event, events.Unshared)
    assert told[1].key == harness.state.groups["lab"].key != told[0].key


def test_a_forgotten_device_gets_no_key_of_later_events(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    phone = harness.user("alice", "phone")
    harness.group("lab", alice, bob)
    others = harness.group("club", bob)
    known = phone.does(tracker.Follow()).groups[0]
    untouched = harness.state.groups[others].epoch
    alice.does(tracker.ForgetDevice(phone.key))
    state = alice.does(tracker.Follow()).groups[0]
    assert state.epoch == known.epoch + 1
    assert state.key != known.key
    farewell = [change for change in harness.changes if isinstance(change, Logged)][-1]
    # The entry itself is still sealed with the old key: by it members learn to ask for the new one.
    assert (farewell.key, farewell.key_epoch) == (known.key, known.epoch)
    assert farewell.entry.epoch == state.epoch
    carol = harness.user("carol")
    carol.does(tracker.JoinGroup("lab"))
    later = [change for change in harness.changes if isinstance(change, Logged)][-1]
    assert (later.key, later.key_epoch) == (state.key, state.epoch)
    assert harness.state.groups[others].epoch == untouched
    # No ticket is revoked by it: the user has not gone.
    assert state.revoked == []


def keys_of(harness: TrackerHarness, group: str) -> tuple[int, bytes]:
    found = harness.state.groups[group]  # type: ignore[index]
    return found.epoch, found.key


def test_h43_a_logout_ends_what_a_copy_of_the_key_can_read(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    epoch, key = keys_of(harness, "lab")
    others = harness.group("club", bob)
    untouched = keys_of(harness, others)
    alice.does(tracker.Logout())
    farewell = [change for change in harness.changes if isinstance(change, Logged)][-1]
    assert farewell.entry.event == events.Device("alice", alice.key, False)
    assert (farewell.key, farewell.key_epoch, farewell.entry.epoch) == (key, epoch, epoch + 1)
    state = next(row for row in bob.does(tracker.Follow()).groups if row.group == "lab")
    assert (state.epoch, state.revoked) == (epoch + 1, [])
    assert state.key != key
    assert keys_of(harness, others) == untouched


def test_h43_so_does_a_login_of_another_user_on_that_device(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)  # which both are in: he may go on reading there
    harness.group("hers", alice)
    lab, hers = keys_of(harness, "lab"), keys_of(harness, "hers")
    alice.enters("bob")
    assert keys_of(harness, "hers")[0] == hers[0] + 1
    assert keys_of(harness, "hers")[1] != hers[1]
    left, came = [change for change in harness.changes if isinstance(change, Logged)][-2:]
    assert came.entry.event == events.Device("bob", alice.key, True)
    assert left.group == "hers" or left.key == lab[1]
    assert (came.key_epoch, came.key) == keys_of(harness, "lab")
    assert came.entry.epoch == came.key_epoch


def test_h43_so_does_forgetting_ones_own_device(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    epoch, key = keys_of(harness, "lab")
    assert alice.does(tracker.ForgetDevice(alice.key)) == tracker.Done()
    assert alice.user is None
    assert keys_of(harness, "lab")[0] == epoch + 1
    assert keys_of(harness, "lab")[1] != key


def test_h43_repeated_logins_and_logouts_cause_few_rekeys(
    harness: TrackerHarness,
) -> None:
    alice, eve = harness.user("alice"), harness.user("eve")
    harness.group("lab", alice, eve)

    def epochs_begun(attempts: int, every_s: float) -> int:
        before = keys_of(harness, "lab")[0]
        for _ in range(attempts):
            eve.does(tracker.Logout())
            eve.enters("eve")
            harness.wait(every_s)
        return keys_of(harness, "lab")[0] - before

    assert epochs_begun(50, 0.1) == limits.REKEYS_MAX
    # The key that the last of these devices knew is not forgotten to be changed.
    harness.wait(limits.REKEYS_S)
    known = keys_of(harness, "lab")
    alice.does(commands.Housekeep())
    fresh = keys_of(harness, "lab")
    assert fresh[0] == known[0] + 1
    assert fresh[1] != known[1]
    alice.does(commands.Housekeep())
    assert keys_of(harness, "lab") == fresh
    # In the long run the number is bounded.
    assert epochs_begun(600, 1.0) <= 600 / limits.REKEYS_S * limits.REKEYS_MAX + limits.REKEYS_MAX


def test_h43_a_pending_rekey_is_done_by_the_next_departure(
    harness: TrackerHarness,
) -> None:
    alice, eve = harness.user("alice"), harness.user("eve")
    harness.group("lab", alice, eve)
    for _ in range(limits.REKEYS_MAX + 1):
        eve.does(tracker.Logout())
        eve.enters("eve")
    epoch = keys_of(harness, "lab")[0]
    eve.does(tracker.LeaveGroup("lab"))
    harness.wait(limits.REKEYS_S)
    alice.does(commands.Housekeep())
    assert keys_of(harness, "lab")[0] == epoch + 1


def test_several_devices_unbound_at_once_begin_one_epoch(harness: TrackerHarness) -> None:
    alice = harness.user("alice")
    for name in ("phone", "laptop", "tablet"):
        harness.user("alice", name)
    harness.group("lab", alice)
    epoch = harness.state.groups["lab"].epoch  # type: ignore[index]
    changed(alice)
    rekeyed = [change for change in harness.changes if isinstance(change, GroupRekeyed)]
    assert [change.epoch for change in rekeyed] == [epoch + 1]
    told = [entry.epoch for entry in harness.log[-3:]]
    assert told == [epoch, epoch, epoch + 1]


def test_h44_devices_of_other_users_can_be_neither_listed_nor_forgotten(
    harness: TrackerHarness,
) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    assert list(rows(alice)) == [alice.key]
    foreign = alice.asks(tracker.ForgetDevice(bob.key))
    absent = alice.asks(tracker.ForgetDevice(b"x" * 32))
    assert isinstance(foreign, Refusal)
    assert foreign == absent
    assert foreign.code is Code.UNKNOWN_DEVICE
    assert bob.user == "bob"


def test_a_repeated_forget_device_succeeds(harness: TrackerHarness) -> None:
    alice, phone = harness.user("alice"), harness.user("alice", "phone")
    asked = tracker.ForgetDevice(phone.key)
    alice.does(asked, b"once")
    assert alice.does(asked, b"once") == tracker.Done()
    assert alice.is_refused(asked) is Code.UNKNOWN_DEVICE


@pytest.mark.parametrize(
    "command",
    [tracker.ChangePassword("secret", "x"), tracker.ListDevices(), tracker.ForgetDevice(b"")],
)
def test_commands_on_devices_need_a_login(harness: TrackerHarness, command: object) -> None:
    harness.user("alice")
    assert harness.device("stranger").is_refused(command) is Code.NOT_LOGGED_IN


# -- the list -----------------------------------------------------------------------------------


def test_the_list_tells_which_devices_are_online_and_when_others_were(
    harness: TrackerHarness,
) -> None:
    alice = harness.user("alice")
    harness.wait(60)
    bound_ms = harness.now.wall_ms
    phone = harness.user("alice", "phone")
    harness.wait(60)
    phone.comes("tcp://192.0.2.9:7000")
    row = rows(alice)[phone.key]
    assert (row.online, row.endpoint, row.bound_ms) == (True, "tcp://192.0.2.9:7000", bound_ms)
    seen_ms = harness.now.wall_ms
    harness.wait(limits.LEASE_S)
    harness.context.presence.sweep(harness.now_s)
    row = rows(alice)[phone.key]
    assert (row.online, row.endpoint, row.seen_ms) == (False, None, seen_ms)
    assert rows(alice)[alice.key].seen_ms == harness.now.wall_ms  # who asks is there


def test_the_time_at_which_a_device_was_last_seen_is_durable(harness: TrackerHarness) -> None:
    alice, phone = harness.user("alice"), harness.user("alice", "phone")

    def written(ending: bool = False) -> list[DeviceSeen]:
        count = len(harness.changes)
        alice.does(commands.Housekeep(ending))
        return [change for change in harness.changes[count:] if isinstance(change, DeviceSeen)]

    harness.wait(10)
    phone.comes()
    assert written() == []  # a moment ago: nothing worth a write
    seen_ms = harness.now.wall_ms
    phone.does(tracker.Depart())
    harness.wait(5)
    assert written() == [DeviceSeen(phone.key, seen_ms)]
    assert written() == []
    harness.context.presence = Presence()  # of another process
    harness.wait(1000)
    assert rows(alice)[phone.key].seen_ms == seen_ms
    # One that stays is marked once in a while.
    harness.wait(600)
    phone.comes()
    assert [change.at_ms for change in written()] == [harness.now.wall_ms]
    harness.wait(500)
    phone.comes()
    assert written() == []
    assert DeviceSeen(phone.key, harness.now.wall_ms) in written(ending=True)
    harness.wait(500)
    phone.comes()
    assert written() == []
    harness.wait(101)
    phone.comes()
    assert len(written()) == 1
    alice.does(tracker.ForgetDevice(phone.key))
    assert written() == []
    assert phone.key not in harness.context.presence.heard_at


def test_the_list_of_devices_comes_in_pages(
    harness: TrackerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = [harness.user("alice", f"device {number}") for number in range(5)]
    monkeypatch.setattr(tracker, "PAGE_ROWS", 2)
    found: list[bytes] = []
    after, more = "", True
    while more:
        page = devices[0].does(tracker.ListDevices(after))
        found += [row.device for row in page.rows]
        after, more = found[-1].hex(), page.more
    assert found == sorted(device.key for device in devices)
    assert devices[0].is_refused(tracker.ListDevices("no key")) is Code.USAGE
