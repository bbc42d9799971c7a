from __future__ import annotations

import pytest

from common import limits
from common.errors import Refused
from common.ids import ContentId, DeviceKey
from common.messages.refusals import Code
from tracker.uploads import Uploads

ALICE, BOB = DeviceKey(b"a" * 32), DeviceKey(b"b" * 32)
ONE, TWO, THREE = (ContentId(bytes([n]) * 32) for n in (1, 2, 3))


def refused(uploads: Uploads, *part: object) -> Code:
    with pytest.raises(Refused) as caught:
        uploads.take(*part)  # type: ignore[arg-type]
    return caught.value.code


def test_parts_in_order_make_the_whole() -> None:
    uploads = Uploads()
    assert uploads.take(ALICE, ONE, 6, 0, b"abc", 0.0) is None
    assert uploads.take(BOB, ONE, 6, 0, b"xyz", 0.0) is None
    assert uploads.take(ALICE, ONE, 6, 0 + 3, b"def", 0.0) == b"abcdef"


def test_a_part_that_came_twice_does_no_harm() -> None:
    uploads = Uploads()
    uploads.take(ALICE, ONE, 9, 0, b"abc", 0.0)
    uploads.take(ALICE, ONE, 9, 3, b"def", 0.0)
    assert uploads.take(ALICE, ONE, 9, 3, b"def", 0.0) is None
    assert uploads.take(ALICE, ONE, 9, 6, b"ghi", 0.0) == b"abcdefghi"


def test_beginning_anew_forgets_what_came() -> None:
    uploads = Uploads()
    uploads.take(ALICE, ONE, 6, 0, b"abc", 0.0)
    uploads.take(ALICE, ONE, 6, 0, b"ABC", 0.0)
    assert uploads.take(ALICE, ONE, 6, 3, b"def", 0.0) == b"ABCdef"


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ((6, 3, b"def"), Code.USAGE),  # the first part is missing
        ((6, 0, b""), Code.MALFORMED),
        ((6, 0, None), Code.MALFORMED),
        ((6, 0, b"abcdefg"), Code.MALFORMED),  # longer than it was said to be
        ((10**6, 0, b"x" * (limits.MANIFEST_PART_BYTES + 1)), Code.MALFORMED),
    ],
)
def test_parts_that_cannot_be(part: tuple[object, ...], code: Code) -> None:
    assert refused(Uploads(), ALICE, ONE, *part, 0.0) is code


def test_a_gap_is_refused() -> None:
    uploads = Uploads()
    uploads.take(ALICE, ONE, 9, 0, b"abc", 0.0)
    assert refused(uploads, ALICE, ONE, 9, 6, b"ghi", 0.0) is Code.USAGE


def test_of_too_many_uploads_of_a_device_the_oldest_makes_room() -> None:
    uploads = Uploads()
    for at, content in enumerate((ONE, TWO, THREE)):
        uploads.take(ALICE, content, 6, 0, b"abc", float(at))
    assert refused(uploads, ALICE, ONE, 6, 3, b"def", 3.0) is Code.USAGE
    assert uploads.take(ALICE, THREE, 6, 3, b"def", 3.0) == b"abcdef"


def test_memory_is_bounded_by_what_came_not_by_what_was_announced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "UPLOAD_BYTES_MAX", 5)
    uploads = Uploads()
    uploads.take(ALICE, ONE, limits.MANIFEST_BYTES_MAX, 0, b"abc", 0.0)
    uploads.take(BOB, TWO, limits.MANIFEST_BYTES_MAX, 0, b"ab", 0.0)
    assert refused(uploads, BOB, TWO, limits.MANIFEST_BYTES_MAX, 2, b"c", 0.0) is Code.BUSY
    uploads.sweep(limits.UPLOAD_IDLE_S + 1)
    uploads.take(BOB, TWO, limits.MANIFEST_BYTES_MAX, 0, b"abcde", 0.0)
