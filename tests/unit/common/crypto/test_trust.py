"""Tickets, sealed events and keys: accepted and refused ones."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import nacl.signing
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from common import limits
from common.crypto import event_seal, keys, signing_keys, tickets
from common.errors import ConfigError, Refused, RemoteProtocolError
from common.ids import ContentId, DeviceKey, GroupId, TrackerId, UserId
from common.messages.refusals import Code

SIGNING = nacl.signing.SigningKey(bytes(range(32)))
ID = TrackerId(b"t" * 16)
DEVICE = DeviceKey(b"d" * 32)
FILMS = GroupId("films")
NOW = 1_900_000_000_000
LIFE_MS = limits.TICKET_LIFE_S * 1000
SKEW_MS = limits.CLOCK_SKEW_S * 1000


def ticket(**changed: object) -> bytes:
    fields: dict[str, object] = {
        "key": SIGNING,
        "tracker_id": ID,
        "device": DEVICE,
        "user": UserId("alice"),
        "group": FILMS,
        "epoch": 3,
        "now_ms": NOW,
    }
    return tickets.issue(**(fields | changed))[0]  # type: ignore[arg-type]


def check(token: bytes, now_ms: int = NOW, **changed: object) -> tickets.Ticket:
    asked: dict[str, object] = {"tracker_id": ID, "device": DEVICE, "group": FILMS}
    return tickets.check(token, [SIGNING.verify_key], now_ms=now_ms, **(asked | changed))  # type: ignore[arg-type]


class TestTickets:
    def test_a_valid_ticket_passes(self) -> None:
        got = check(ticket())
        assert (got.user, got.epoch, got.expires_ms) == ("alice", 3, NOW + LIFE_MS)

    @pytest.mark.parametrize(
        "changed",
        [{"tracker_id": b"o" * 16}, {"device": b"o" * 32}, {"group": "other"}],
        ids=lambda changed: next(iter(changed)),
    )
    def test_a_ticket_for_another_group_device_or_tracker_is_refused(
        self, changed: dict[str, object]
    ) -> None:
        with pytest.raises(Refused) as caught:
            check(ticket(**changed))
        assert caught.value.code is Code.TICKET_INVALID

    def test_every_single_bit_counts(self) -> None:
        token = ticket()
        for bit in range(len(token) * 8):
            altered = bytearray(token)
            altered[bit // 8] ^= 1 << bit % 8
            with pytest.raises(Refused):
                check(bytes(altered))

    @given(st.binary(max_size=300))
    def test_noise(self, noise: bytes) -> None:
        for token in (noise, ticket() + noise[:10] if noise else b"", ticket()[: len(noise)]):
            with pytest.raises(Refused):
                check(token)

    @pytest.mark.parametrize(
        ("later_ms", "code"),
        [
            (0, None),
            (LIFE_MS + SKEW_MS - 1, None),
            (LIFE_MS + SKEW_MS, Code.TICKET_EXPIRED),
            (-SKEW_MS, None),
            (-SKEW_MS - 1, Code.TICKET_INVALID),
        ],
    )
    def test_time(self, later_ms: int, code: Code | None) -> None:
        if code is None:
            check(ticket(), NOW + later_ms)
            return
        with pytest.raises(Refused) as caught:
            check(ticket(), NOW + later_ms)
        assert caught.value.code is code

    def test_a_ticket_with_a_longer_life_is_refused(self) -> None:
        with pytest.raises(Refused):
            check(ticket(life_s=limits.TICKET_LIFE_S + 1))

    def test_a_ticket_that_expires_before_its_issue_is_refused(self) -> None:
        with pytest.raises(Refused, match="does not count"):
            check(ticket(life_s=-1))

    def test_another_signature_of_the_same_key_is_none(self) -> None:
        body = ticket()[64:]
        with pytest.raises(Refused):
            check(SIGNING.sign(body).signature + body)

    def test_any_of_several_keys_counts_while_one_is_rotated_out(self) -> None:
        fresh = nacl.signing.SigningKey.generate()
        for key in (SIGNING, fresh):
            tickets.check(
                ticket(key=key),
                [fresh.verify_key, SIGNING.verify_key],
                tracker_id=ID,
                device=DEVICE,
                group=FILMS,
                now_ms=NOW,
            )
        with pytest.raises(Refused):
            check(ticket(key=fresh))


class TestSeals:
    KEY, TOPIC = b"k" * 32, b"t" * 16

    def test_a_sealed_event_opens_with_key_and_topic(self) -> None:
        sealed = event_seal.seal(self.KEY, 7, self.TOPIC, b"plain")
        assert b"plain" not in sealed
        assert event_seal.epoch_of(sealed) == 7
        assert event_seal.unseal(self.KEY, self.TOPIC, sealed) == b"plain"

    def test_no_two_sealed_events_are_alike(self) -> None:
        assert event_seal.seal(self.KEY, 7, self.TOPIC, b"") != event_seal.seal(
            self.KEY, 7, self.TOPIC, b""
        )

    def test_another_key_or_topic_opens_no_event(self) -> None:
        sealed = event_seal.seal(self.KEY, 7, self.TOPIC, b"plain")
        with pytest.raises(RemoteProtocolError):
            event_seal.unseal(b"o" * 32, self.TOPIC, sealed)
        with pytest.raises(RemoteProtocolError):
            event_seal.unseal(self.KEY, b"o" * 16, sealed)
        for at in range(len(sealed)):
            altered = bytearray(sealed)
            altered[at] ^= 1
            with pytest.raises(RemoteProtocolError):
                event_seal.unseal(self.KEY, self.TOPIC, bytes(altered))

    @given(st.binary(max_size=100))
    def test_noise(self, noise: bytes) -> None:
        with pytest.raises(RemoteProtocolError):
            event_seal.unseal(self.KEY, self.TOPIC, noise)

    def test_topics_depend_on_everything(self) -> None:
        one, other = ContentId(b"1" * 32), ContentId(b"2" * 32)
        topics = {
            event_seal.share_topic(self.TOPIC, one),
            event_seal.share_topic(self.TOPIC, other),
            event_seal.share_topic(b"o" * 16, one),
        }
        assert len(topics) == 3
        inboxes = {event_seal.inbox_of(s, d) for s in (b"1" * 32, b"2" * 32) for d in (one, other)}
        assert len(inboxes) == 4
        assert all(len(topic) == 16 and len(key) == 32 for topic, key in inboxes)


class TestKeys:
    def test_a_pair_is_made_once_and_kept_privately(self, tmp_path: Path) -> None:
        path = tmp_path / "device.key"
        pair = keys.load_or_make_pair(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert keys.load_or_make_pair(path) == keys.load_pair(path) == pair
        assert pair.secret.hex() not in repr(pair)
        assert str(pair.secret) not in repr(pair)

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
    def test_a_key_that_others_can_read_is_refused(self, tmp_path: Path, mode: int) -> None:
        path = tmp_path / "device.key"
        keys.load_or_make_pair(path)
        path.chmod(mode)
        with pytest.raises(ConfigError, match="other users"):
            keys.load_or_make_pair(path)

    @pytest.mark.parametrize("content", [b"", b"x", b"x" * 64, b"x" * 65])
    def test_a_damaged_key_is_never_replaced(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "device.key"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(ConfigError):
            keys.load_or_make_pair(path)
        assert path.read_bytes() == content

    def test_the_text_of_a_key(self) -> None:
        for _ in range(50):
            key = keys.new_pair().public
            text = keys.key_text(key)
            assert len(text) == 43
            assert keys.parse_key(text) == key
            assert keys.to_z85(key) == zmq.utils.z85.encode(key)

    @pytest.mark.parametrize(
        "text",
        ["", "A", "A" * 42, "A" * 42 + "B", "A" * 44, "A" * 42 + "=", "é" * 43, "A" * 42 + "+"],
    )
    def test_invalid_key_texts_are_refused(self, text: str) -> None:
        with pytest.raises(ConfigError):
            keys.parse_key(text)

    def test_signing_keys_rotate_with_an_overlap(self, tmp_path: Path) -> None:
        path = tmp_path / "signing.key"
        (first,) = signing_keys.load_or_make_signing_keys(path)
        second, kept = signing_keys.rotate_signing_key(path)
        assert kept == first != second
        assert signing_keys.load_or_make_signing_keys(path) == [second, first]
        _, kept = signing_keys.rotate_signing_key(path)
        assert kept == second
        assert len(signing_keys.rotate_signing_key(path, keep=0)) == 1
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_a_secret_is_made_once(self, tmp_path: Path) -> None:
        path = tmp_path / "inbox.key"
        assert keys.load_or_make_secret(path) == keys.load_or_make_secret(path)
        path.write_bytes(b"short")
        with pytest.raises(ConfigError):
            keys.load_or_make_secret(path)

    def test_a_link_in_place_of_a_key_is_not_followed(self, tmp_path: Path) -> None:
        keys.load_or_make_pair(tmp_path / "real")
        os.symlink(tmp_path / "real", tmp_path / "planted")
        with pytest.raises(Exception, match="key file"):
            keys.load_pair(tmp_path / "planted")
