"""Reading by range against a scripted server: answers that end early, and refusals."""

from __future__ import annotations

import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from minitorrent import ranges
from minitorrent.errors import Error, NotRunning
from minitorrent.transport import Transport

PARTS = ("lab", "model.bin")
DATA = bytes(range(256)) * 8


def part(begin: int, end: int, sent: int, tag: str = "t") -> bytes:
    """An answer with the bytes from ``begin`` to ``end``, cut after ``sent`` of them."""
    return (
        f'HTTP/1.1 206 Partial Content\r\netag: "{tag}"\r\ncontent-length: {end - begin}\r\n'
        f"content-range: bytes {begin}-{end - 1}/{len(DATA)}\r\n\r\n"
    ).encode() + DATA[begin : begin + sent]


def refusal(status: int, code: str) -> bytes:
    body = json.dumps({"code": code, "detail": f"it is {code}", "status": status}).encode()
    return f"HTTP/1.1 {status} No\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def serving(*answers: bytes) -> Iterator[tuple[Transport, list[str]]]:
    """A server that gives ``answers`` in turn, and the ranges that were asked for."""
    asked: list[str] = []
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        path = Path(folder) / "api.sock"
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            for answer in answers:
                connection, _ = listening.accept()
                with connection, connection.makefile("rb") as lines:
                    head = b"".join(iter(lines.readline, b"\r\n")).decode().lower()
                    asked.append(head.partition("range: bytes=")[2].partition("\r\n")[0])
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Transport(path, 60.0), asked
        thread.join()


def test_f162_an_answer_that_ends_early_is_continued_behind_its_last_byte() -> None:
    answers = (
        part(100, 1000, 300),
        refusal(504, "timed-out"),
        refusal(503, "busy"),
        part(400, 1000, 0),
        part(400, 1000, 600),
    )
    with serving(*answers) as (transport, asked):
        found = ranges.read(transport, PARTS, 100, 1000, patience_s=60.0)
    assert found == DATA[100:1000]
    assert asked == ["100-999", "400-999", "400-999", "400-999", "400-999"]


def test_the_end_of_a_file_is_found_from_its_end() -> None:
    size = len(DATA)
    with serving(part(size - 50, size, 20), part(size - 30, size, 30)) as (transport, asked):
        assert ranges.read(transport, PARTS, -50, patience_s=60.0) == DATA[-50:]
    assert asked == ["-50", f"{size - 30}-{size - 1}"]


def test_f162_without_a_byte_for_too_long_it_gives_up() -> None:
    for answer in (part(0, 10, 0), refusal(504, "timed-out")):
        with serving(answer) as (transport, _):
            with pytest.raises(Error) as told:
                ranges.read(transport, PARTS, 0, 10, patience_s=-1.0)
            assert told.value.code == "timed-out"


def test_refusals_are_not_repeated() -> None:
    for status, code in ((404, "unknown-share"), (412, "changed"), (500, "internal")):
        with serving(refusal(status, code)) as (transport, _):
            with pytest.raises(Error) as told:
                ranges.read(transport, PARTS, patience_s=60.0)
            assert told.value.code == code


def test_a_part_of_another_version_is_not_joined_to_the_first() -> None:
    with serving(part(0, 10, 5), refusal(412, "")) as (transport, _):
        with pytest.raises(Error) as told:
            ranges.read(transport, PARTS, 0, 10, patience_s=60.0)
        assert told.value.code == "changed"


def test_size_and_tag_come_from_a_range_behind_the_end() -> None:
    answer = (
        b'HTTP/1.1 416 No\r\netag: "t"\r\ncontent-range: bytes */77\r\ncontent-length: 0\r\n\r\n'
    )
    with serving(answer) as (transport, _):
        assert ranges.stat(transport, PARTS) == ranges.Stat(77, "t")
    absent = serving(refusal(404, "unknown-share"))
    with absent as (transport, _), pytest.raises(Error, match="unknown-share"):
        ranges.stat(transport, PARTS)


def test_a_socket_that_is_not_there_is_no_running_peer(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        ranges.read(Transport(tmp_path / "none", 1.0), PARTS, patience_s=1.0)
