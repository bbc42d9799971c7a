"""Golden bytes of all messages, written anew by ``--update-golden``: the wire stays stable.

A difference in ``tests/golden`` is a change of the protocol. Peers of the last release read what
they know and skip what was appended; anything else needs another version.
"""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import msgspec
import nacl.signing
import pytest
from msgspec.structs import replace

from common import manifest
from common.crypto import event_seal, tickets
from common.crypto.keys import key_text
from common.crypto.sealed_stream import ScratchBuffer, Sealer, proof
from common.digests import Algorithm
from common.errors import RemoteProtocolError
from common.ids import DeviceKey, GroupId, TrackerId, UserId
from common.link import Tracker
from common.messages import tracker
from common.net.codec import Decoder, encode, pack
from tests.support.paths import GOLDEN
from tests.support.wire_samples import CONVERSATIONS, DEVICE, MS, TOPIC, TRACKER

PAIRS = [
    pytest.param(union, sample, id=f"{name}-{type(sample).__name__}")
    for name, (union, samples) in CONVERSATIONS.items()
    for sample in samples
]


def hold(path: Path, lines: list[str], update: bool) -> None:
    """Compare ``lines`` with the golden file, or write them there."""
    text = "".join(f"{line}\n" for line in lines)
    if update:
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, "see `pytest --update-golden`"


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_every_message_has_its_golden_bytes(name: str, update_golden: bool) -> None:
    _, samples = CONVERSATIONS[name]
    lines = [f"{type(sample).__name__} {encode(sample).hex()}" for sample in samples]
    hold(GOLDEN / f"{name}.txt", lines, update_golden)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_no_message_is_without_a_sample(name: str) -> None:
    union, samples = CONVERSATIONS[name]
    assert [type(sample) for sample in samples] == list(typing.get_args(union) or [union])


@pytest.mark.parametrize(("union", "sample"), PAIRS)
def test_the_bytes_are_read_back(union: Any, sample: Any) -> None:
    assert Decoder(union).decode(encode(sample)) == sample


def arrays() -> list[Any]:
    return [
        pytest.param(union, sample, id=type(sample).__name__)
        for name, (union, samples) in CONVERSATIONS.items()
        if not name.startswith("control")
        for sample in samples
    ]


@pytest.mark.parametrize(("union", "sample"), arrays())
def test_fields_appended_by_a_later_release_are_ignored(union: Any, sample: Any) -> None:
    longer = [*msgspec.msgpack.decode(encode(sample)), {"appended": [1, 2, 3]}, None]
    assert Decoder(union).decode(msgspec.msgpack.encode(longer)) == sample


@pytest.mark.parametrize(("union", "sample"), arrays())
def test_missing_fields_are_filled_in_or_refused(union: Any, sample: Any) -> None:
    fields = msgspec.structs.fields(type(sample))
    needed = sum(field.required for field in fields)
    whole = msgspec.msgpack.decode(encode(sample))
    for kept in range(len(fields)):
        shorter = msgspec.msgpack.encode(whole[: 1 + kept])
        if kept < needed:
            with pytest.raises(RemoteProtocolError):
                Decoder(union).decode(shorter)
        else:
            assert type(Decoder(union).decode(shorter)) is type(sample)


def test_the_other_forms_have_golden_bytes(update_golden: bool) -> None:
    """Frames, tickets, topics, inboxes, seals, links and manifests."""
    signing = nacl.signing.SigningKey(bytes(range(32)))
    ticket, _ = tickets.issue(
        signing,
        TrackerId(TRACKER),
        DeviceKey(DEVICE),
        UserId("alice"),
        GroupId("films"),
        2,
        MS,
    )
    content = manifest.Manifest(
        1,
        Algorithm.BLAKE3,
        16_384,
        20_000,
        Algorithm.BLAKE3.digest_of(b"x" * 20_000),
        b"".join(Algorithm.BLAKE3.digest_of(b"x" * n) for n in (16_384, 3_616)),
        (
            manifest.Entry("a.bin", 20_000),
            manifest.Entry("empty", 0, manifest.EntryKind.FOLDER),
            manifest.Entry("run.sh", 0, manifest.EntryKind.EXECUTABLE),
        ),
    )
    encoded = manifest.encode(content)
    times = (1_795_000_000_123_456_789, 0, manifest.TIME_MAX, 5)
    timed = manifest.encode(replace(content, format=2, times=times))
    inbox_topic, inbox_key = event_seal.inbox_of(DEVICE, TRACKER)
    forms = {
        "frames": [frame.hex() for frame in pack(b"\0\0\0\0\0\0\0\1", tracker.Hello("x"), b"data")],
        "ticket": ticket.hex(),
        "share topic": event_seal.share_topic(TOPIC, manifest.manifest_id(encoded)).hex(),
        "inbox topic": inbox_topic.hex(),
        "inbox key": inbox_key.hex(),
        "key text": key_text(DEVICE),
        "tcp link": Tracker("tcp://192.0.2.1:5000", DeviceKey(DEVICE)).link,
        "ipc link": Tracker("ipc:///run/t.sock", DeviceKey(DEVICE)).link,
        "manifest": encoded.hex(),
        "content id": manifest.manifest_id(encoded).hex(),
        "manifest with times": timed.hex(),
    }
    lines = [f"{name}: {json.dumps(form)}" for name, form in forms.items()]
    hold(GOLDEN / "forms.txt", lines, update_golden)


def test_a_sealed_message_is_opened_as_ever(update_golden: bool) -> None:
    """Sealing takes a random nonce, so what is golden is one that was sealed once."""
    path = GOLDEN / "sealed.txt"
    plain = encode(tracker.Done())
    if update_golden and not path.exists():
        path.write_text(event_seal.seal(DEVICE, 2, TOPIC, plain).hex() + "\n")
    sealed = bytes.fromhex(path.read_text())
    assert event_seal.epoch_of(sealed) == 2
    assert event_seal.unseal(DEVICE, TOPIC, sealed) == plain


def test_the_sealed_form_of_bulk_messages_is_unchanged(update_golden: bool) -> None:
    sealer = Sealer(DEVICE, ScratchBuffer())
    frames = [*map(bytes, sealer.seal(b"head", b"data"))]
    sealer.sent(frames[0])
    frames += map(bytes, sealer.seal(b"", b""))
    lines = [frame.hex() for frame in (proof(DEVICE, TOPIC), *frames)]
    hold(GOLDEN / "bulk.txt", lines, update_golden)
