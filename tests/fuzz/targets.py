"""Targets of fuzzing: every reader of bytes or text that another party may have written.

A target takes bytes and must do one of two things: read them, or refuse them with an error of ours.
What it reads must come out the same when it is written and read again. Anything else is a find.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import nacl.signing

from common import invitation, limits, link, manifest, names
from common.crypto import event_seal, keys, signing_keys, tickets
from common.digests import Algorithm
from common.errors import MiniTorrentError
from common.ids import ContentId, DeviceKey, GroupId, TrackerId, UserId
from common.messages import control, events, operator, peer, tracker
from common.net import codec
from peer.files.journal import Journal
from peer.native.library import address_of, library
from peer.records import DownloadRecord, Records, ShareRecord
from peer.swarm.pieces import Bitfield

SIGNING = nacl.signing.SigningKey(bytes(range(32)))
PIECE_COUNT = 1_000
CONTENT = ContentId(b"c" * 32)
KEY, TOPIC = b"k" * 32, b"t" * 16


@dataclass(frozen=True, slots=True)
class Target:
    """Fuzz target: ``run`` raises if there is a finding; ``seeds`` are inputs that it reads."""

    name: str
    run: Callable[[bytes], None]
    seeds: Sequence[bytes]


def _decoder(name: str, union: Any, samples: Sequence[Any]) -> Target:
    decoder: codec.Decoder[Any] = codec.Decoder(union)

    def run(data: bytes) -> None:
        with contextlib.suppress(MiniTorrentError):
            body = decoder.decode(data)
            again = decoder.decode(codec.encode(body))
            assert again == body or _has_nan(codec.encode(body))

    return Target(name, run, [codec.encode(sample) for sample in samples])


def _compiled_heads(samples: Sequence[Any]) -> list[Target]:
    """The reader of heads of the compiled data path, beside that of Python."""
    found = library()
    if found is None:
        return []
    decoder: codec.Decoder[peer.Pieces] = codec.Decoder(peer.Pieces)

    def run(data: bytes) -> None:
        numbers = (ctypes.c_uint32 * 3)()
        with address_of(data) as address:
            read = found.call.mt_read_head(address, len(data), numbers)
        try:
            body = decoder.decode(data)
        except MiniTorrentError:
            # Python refuses numbers beyond its bounds, which the thread compares with the content.
            wide = numbers[1] >= limits.PIECES_MAX or numbers[0] >= 1 << 16
            many = not 1 <= numbers[2] <= limits.RUN_BYTES // limits.PIECE_LENGTH_MIN
            assert not read or wide or many
            return
        if read:
            assert peer.Pieces(*numbers) == body
        else:
            assert data != codec.encode(body), "the form that every peer sends"

    return [Target("compiled heads", run, [codec.encode(sample) for sample in samples])]


def _has_nan(encoded: bytes) -> bool:
    return b"\xcb\x7f\xf8" in encoded or b"\xcb\xff\xf8" in encoded or b"\xcb\x7f" in encoded


def _frames(data: bytes) -> None:
    decoder: codec.Decoder[tracker.Command] = codec.Decoder(tracker.Command)
    with contextlib.suppress(MiniTorrentError):
        decoder.unpack(data.split(b"|"))


def _ticket(data: bytes) -> None:
    with contextlib.suppress(MiniTorrentError):
        ticket = tickets.check(
            data,
            [SIGNING.verify_key],
            tracker_id=TrackerId(b"t" * 16),
            device=DeviceKey(b"d" * 32),
            group=GroupId("lab"),
            now_ms=0,
        )
        assert data == TICKET, f"a ticket that the tracker did not issue: {ticket}"


TICKET, _ = tickets.issue(
    SIGNING, TrackerId(b"t" * 16), DeviceKey(b"d" * 32), UserId("alice"), GroupId("lab"), 1, 0
)
# ``seal.seal(KEY, 7, TOPIC, b"a body")``, once: its nonce is another one each time.
SEALED = bytes.fromhex(
    "000000072f73928e76f7aff64ec247f0a8604e867d402b94"
    "796380141d3df4d44ab13f02a35efc5bf9b4a592ac2210f293b9"
)


def _sealed(data: bytes) -> None:
    with contextlib.suppress(MiniTorrentError):
        event_seal.epoch_of(data)
        assert event_seal.unseal(KEY, TOPIC, data) == b"a body"
        assert data == SEALED


def _manifest(data: bytes) -> None:
    with contextlib.suppress(MiniTorrentError):
        read = manifest.decode(data, manifest.manifest_id(data))
        assert manifest.encode(read) == data
        layout = manifest.StreamLayout(read.entries, read.piece_length)
        for index in {0, read.piece_count - 1} if read.piece_count else ():
            offset, length = layout.span(index)
            assert sum(part.length for part in layout.stretch(offset, length)) == length
        for entry in read.entries:
            if read.is_folder:
                assert ".." not in entry.path.split("/")


def _manifests() -> list[bytes]:
    whole = b"x" * 40_000
    made = []
    for algorithm in Algorithm:
        length = limits.PIECE_LENGTH_MIN
        pieces = b"".join(
            algorithm.digest_of(whole[a : a + length]) for a in range(0, 40_000, length)
        )
        for entries in (
            (manifest.Entry("", 40_000),),
            (
                manifest.Entry("a/b", 30_000),
                manifest.Entry("a/c", 0),
                manifest.Entry("empty", 0, manifest.EntryKind.FOLDER),
                manifest.Entry("z", 10_000, manifest.EntryKind.EXECUTABLE),
            ),
        ):
            digest = algorithm.digest_of(whole)
            plain = manifest.Manifest(1, algorithm, length, 40_000, digest, pieces, entries)
            folders = len(list(manifest.folders_of(entries))) if plain.is_folder else 0
            times = tuple(range(len(entries) + folders))
            timed = msgspec.structs.replace(plain, format=2, times=times)
            made += [manifest.encode(plain), manifest.encode(timed)]
    return made


def _name(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    shown = names.printable(text)
    assert names.printable(shown) == shown
    assert not any(
        ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0x202A <= ord(c) <= 0x202E for c in shown
    )
    shown.encode("utf-8")
    assert len(names.quoted(text)) < 12 * names.QUOTED_CHARACTERS_MAX
    folded = names.fold_name(text)
    assert names.fold_name(folded) == folded
    with contextlib.suppress(MiniTorrentError):
        assert names.share_name(text) == text == shown
        assert text not in ("", ".", "..")
        assert not {"/", "\0", "\n", "\x1b"} & set(text)
        assert len(text.encode()) <= names.NAME_BYTES_MAX
    with contextlib.suppress(MiniTorrentError):
        names.PathOrder().add(text)
        assert not {"", ".", ".."} & set(text.split("/"))
    with contextlib.suppress(MiniTorrentError):
        assert names.user_id(text).isascii()
    order = names.PathOrder()
    with contextlib.suppress(MiniTorrentError):
        for path in text.split("|"):
            order.add(path)


def _link(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(MiniTorrentError):
        read = link.parse_link(text)
        assert link.parse_link(read.text) == read
    with contextlib.suppress(MiniTorrentError):
        invited = invitation.parse_invitation(text)
        assert invitation.parse_invitation(invited.link) == invited
    for wildcard in (False, True):
        with contextlib.suppress(MiniTorrentError):
            assert names.printable(link.check_endpoint(text, wildcard=wildcard)).isprintable() or (
                text.startswith("ipc://")
            )
    with contextlib.suppress(MiniTorrentError):
        link.as_endpoint(text)
    with contextlib.suppress(MiniTorrentError):
        key = keys.parse_key(text)
        assert keys.parse_key(keys.key_text(key)) == key


class _InFile:
    """For readers of files: one file, written anew for each input."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="mt-fuzz-")
        self.path = Path(self.folder.name) / "input"


_IN_FILE = _InFile()


def _info(data: bytes) -> None:
    _IN_FILE.path.write_bytes(data)
    with contextlib.suppress(MiniTorrentError):
        for entry in link.read_info(_IN_FILE.path):
            link.check_endpoint(entry.endpoint)


def _journal(data: bytes) -> None:
    _IN_FILE.path.write_bytes(data)
    journal, found = Journal.resume(str(_IN_FILE.path), CONTENT, PIECE_COUNT)
    try:
        assert all(0 <= piece < PIECE_COUNT for piece in found.pieces)
        assert len(set(found.pieces)) == len(found.pieces)
        if not found.intact:
            journal.begin()
        journal.append([1, 2])
    finally:
        journal.close()
    again, then = Journal.resume(str(_IN_FILE.path), CONTENT, PIECE_COUNT)
    again.close()
    assert then.intact
    assert set(then.pieces) == {*found.pieces, 1, 2}


def _a_journal() -> bytes:
    journal = Journal.create(str(_IN_FILE.path), CONTENT)
    journal.append([0, 7, 999, 7])
    journal.close()
    return _IN_FILE.path.read_bytes()


def _records(data: bytes) -> None:
    folder = Path(_IN_FILE.folder.name) / "records"
    logging.disable()  # each damaged one is named there
    for kind in (ShareRecord, DownloadRecord):
        records: Records[Any] = Records(folder, kind)
        (folder / f"x{Records.SUFFIX}").write_bytes(data)
        read = records.load()
        assert set(read) <= {"x"}
        for path in folder.iterdir():
            path.unlink()
    logging.disable(logging.NOTSET)


def _a_record() -> bytes:
    return msgspec.msgpack.encode(
        DownloadRecord("alice", "lab", "x", b"c" * 32, b"/tmp/x", 5, "d" * 64, "rarest", 7)
    )


def _bitfield(data: bytes) -> None:
    for length in (0, 1, 7, 8, 9, 1000):
        with contextlib.suppress(ValueError):
            field = Bitfield.from_bytes(data, length)
            assert field.to_bytes() == data


def _key_file(data: bytes) -> None:
    _IN_FILE.path.write_bytes(data)
    _IN_FILE.path.chmod(0o600)
    for read in (keys.load_pair, signing_keys.load_or_make_signing_keys, keys.load_or_make_secret):
        with contextlib.suppress(MiniTorrentError):
            read(_IN_FILE.path)


def targets(samples: Any) -> list[Target]:
    """All of them; ``samples`` is the module with one message of every kind."""
    return [
        _decoder("tracker commands", tracker.Command, samples.COMMANDS),
        _decoder("tracker replies", tracker.Reply, samples.REPLIES),
        _decoder("peer asks", peer.ClientMessage, samples.PEER_ASKS),
        _decoder("peer answers", peer.Answer, samples.PEER_ANSWERS),
        _decoder("peer bulk", peer.Pieces, samples.IN_BULK),
        *_compiled_heads(samples.IN_BULK),
        _decoder("published", events.Published, samples.PUBLISHED),
        _decoder("control asks", control.Command, samples.ASKS),
        _decoder("control answers", control.Answer, samples.ANSWERS),
        _decoder("operator asks", operator.Command, samples.OPERATOR_ASKS),
        _decoder("operator answers", operator.Answer, samples.OPERATOR_ANSWERS),
        Target(
            "frames", _frames, [b"MT\x01|12345678|" + codec.encode(tracker.Hello()), b"MT\x02|"]
        ),
        Target("tickets", _ticket, [TICKET]),
        Target("sealed", _sealed, [SEALED]),
        Target("manifests", _manifest, _manifests()),
        Target(
            "names", _name, [b"a/b|a/c|d", "Zoë.txt".encode(), b"con.txt", b"\xff\xfe", b"../x"]
        ),
        Target(
            "links",
            _link,
            [
                b"mini-torrent://127.0.0.1:5000/" + b"A" * 43,
                b"mini-torrent+ipc:///tmp/x/" + b"A" * 43,
                b"mini-torrent://127.0.0.1:5000/" + b"A" * 43 + b"#" + b"A" * 24,
                b"tcp://[::1]:80",
                b"ipc:///tmp/x",
                b"*:0",
            ],
        ),
        Target("tracker_info.txt", _info, [b"127.0.0.1\n5000\n" + b"A" * 43 + b"\n# x\n::1\n1\n"]),
        Target("journals", _journal, [_a_journal()]),
        Target("records", _records, [_a_record()]),
        Target("bitfields", _bitfield, [b"", b"\xff", b"\x80" + bytes(124)]),
        Target("key files", _key_file, [keys.new_pair().public * 2, bytes(64), bytes(96)]),
    ]
