from __future__ import annotations

import pytest

from common import limits
from common.errors import Refused
from common.ids import ContentId, DeviceKey, UserId
from common.messages.refusals import Code
from tracker.core.manifest_uploads import ManifestUploads

Who = tuple[UserId, DeviceKey]


def someone(name: str, device: str = "") -> Who:
    return UserId(name), DeviceKey((device or name).encode().ljust(32))


ALICE, BOB = someone("alice"), someone("bob")
ONE, TWO, THREE = (ContentId(bytes([n]) * 32) for n in (1, 2, 3))


def take(uploads: ManifestUploads, who: Who, *part: object) -> bytes | None:
    return uploads.take(*who, *part)  # type: ignore[arg-type]


def refused(uploads: ManifestUploads, who: Who, *part: object) -> Code:
    with pytest.raises(Refused) as caught:
        take(uploads, who, *part)
    return caught.value.code


def test_parts_in_order_make_the_whole_manifest() -> None:
    uploads = ManifestUploads()
    assert take(uploads, ALICE, ONE, 6, 0, b"abc", 0.0) is None
    assert take(uploads, BOB, ONE, 6, 0, b"xyz", 0.0) is None
    assert take(uploads, ALICE, ONE, 6, 0 + 3, b"def", 0.0) == b"abcdef"


def test_a_repeated_part_is_ignored() -> None:
    uploads = ManifestUploads()
    take(uploads, ALICE, ONE, 9, 0, b"abc", 0.0)
    take(uploads, ALICE, ONE, 9, 3, b"def", 0.0)
    assert take(uploads, ALICE, ONE, 9, 3, b"def", 0.0) is None
    assert take(uploads, ALICE, ONE, 9, 6, b"ghi", 0.0) == b"abcdefghi"


def test_a_part_from_0_starts_again() -> None:
    uploads = ManifestUploads()
    take(uploads, ALICE, ONE, 6, 0, b"abc", 0.0)
    take(uploads, ALICE, ONE, 6, 0, b"ABC", 0.0)
    assert take(uploads, ALICE, ONE, 6, 3, b"def", 0.0) == b"ABCdef"


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
def test_impossible_parts_are_refused(part: tuple[object, ...], code: Code) -> None:
    assert refused(ManifestUploads(), ALICE, ONE, *part, 0.0) is code


def test_a_gap_is_refused() -> None:
    uploads = ManifestUploads()
    take(uploads, ALICE, ONE, 9, 0, b"abc", 0.0)
    assert refused(uploads, ALICE, ONE, 9, 6, b"ghi", 0.0) is Code.USAGE


def test_of_too_many_uploads_of_a_device_the_oldest_is_dropped() -> None:
    uploads = ManifestUploads()
    for at, content in enumerate((ONE, TWO, THREE)):
        take(uploads, ALICE, content, 6, 0, b"abc", float(at))
    assert refused(uploads, ALICE, ONE, 6, 3, b"def", 3.0) is Code.USAGE
    assert take(uploads, ALICE, THREE, 6, 3, b"def", 3.0) == b"abcdef"


def test_memory_follows_received_and_not_announced_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "UPLOAD_BYTES_MAX", 5)
    uploads = ManifestUploads()
    take(uploads, ALICE, ONE, limits.MANIFEST_BYTES_MAX, 0, b"abc", 0.0)
    take(uploads, BOB, TWO, limits.MANIFEST_BYTES_MAX, 0, b"ab", 0.0)
    assert refused(uploads, BOB, TWO, limits.MANIFEST_BYTES_MAX, 2, b"c", 0.0) is Code.BUSY
    uploads.sweep(limits.UPLOAD_IDLE_S + 1)
    take(uploads, BOB, TWO, limits.MANIFEST_BYTES_MAX, 0, b"abcde", 0.0)


# -- who wants all of the room ------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> ManifestUploads:
    """Memory of 16 bytes, of which a user with several uploads gets 4; a part has 2."""
    monkeypatch.setattr(limits, "UPLOAD_BYTES_MAX", 16)
    monkeypatch.setattr(limits, "UPLOAD_BYTES_PER_USER_MAX", 4)
    monkeypatch.setattr(limits, "MANIFEST_PART_BYTES", 2)
    return ManifestUploads()


def send(
    uploads: ManifestUploads, who: Who, content: ContentId, size: int, now: float = 0.0
) -> None:
    """Send the first ``size`` bytes of a longer manifest."""
    for offset in range(0, size, 2):
        take(uploads, who, content, 100, offset, b"xx", now)


def is_on_the_way(uploads: ManifestUploads, who: Who, content: ContentId, now: float = 0.0) -> bool:
    """Whether the upload is kept: its first part need not be sent again."""
    try:
        return take(uploads, who, content, 100, 1, b"x", now) is None
    except Refused:
        return False


def test_h45_a_user_with_many_devices_has_one_large_upload(
    small: ManifestUploads,
) -> None:
    send(small, someone("eve", "1"), ONE, 12)
    for device in ("1", "2", "3"):
        assert refused(small, someone("eve", device), TWO, 100, 0, b"xx", 0.0) is Code.BUSY
    send(small, ALICE, ONE, 4)
    assert is_on_the_way(small, someone("eve", "1"), ONE)


def test_h45_a_user_with_several_uploads_has_a_share_of_the_memory(small: ManifestUploads) -> None:
    for device in ("1", "2"):
        send(small, someone("eve", device), ONE, 2)
    assert refused(small, someone("eve", "1"), ONE, 100, 2, b"xx", 0.0) is Code.BUSY
    # Once one of them is done there is room for the other.
    assert take(small, someone("eve", "2"), ONE, 4, 0, b"xx", 0.0) is None
    assert refused(small, someone("eve", "2"), ONE, 4, 2, b"xx", 0.0) is Code.BUSY
    small.sweep(limits.UPLOAD_IDLE_S + 1)
    send(small, someone("eve", "1"), ONE, 12)


def test_h45_when_the_memory_is_full_the_user_with_most_loses_an_upload(
    small: ManifestUploads,
) -> None:
    eve = someone("eve")
    send(small, someone("mallory"), ONE, 4)
    send(small, eve, ONE, 12)
    for at in range(3):
        send(small, someone(f"user {at}"), ONE, 2, float(at))
        assert is_on_the_way(small, someone(f"user {at}"), ONE, float(at))
    assert not is_on_the_way(small, eve, ONE)
    assert is_on_the_way(small, someone("mallory"), ONE)
    # The user with most gets no memory of others.
    send(small, eve, TWO, 6, 3.0)
    assert refused(small, eve, TWO, 100, 6, b"xx", 3.0) is Code.BUSY
    assert is_on_the_way(small, someone("mallory"), ONE)


def test_h45_of_several_uploads_the_one_stalled_longest_is_dropped(
    small: ManifestUploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UPLOAD_BYTES_PER_USER_MAX", 12)
    eve = someone("eve")
    send(small, eve, ONE, 4, 0.0)
    send(small, eve, TWO, 4, 1.0)
    take(small, eve, ONE, 100, 4, b"xx", 2.0)
    send(small, someone("mallory"), ONE, 6)
    send(small, ALICE, THREE, 2, 3.0)
    assert is_on_the_way(small, eve, ONE)
    assert not is_on_the_way(small, eve, TWO)


def test_h45_a_repeated_part_does_not_keep_an_upload_alive(small: ManifestUploads) -> None:
    send(small, ALICE, ONE, 4)
    for now in (20.0, 40.0, 60.0, 80.0):
        take(small, ALICE, ONE, 100, 2, b"xx", now)
    small.sweep(80.0)
    assert not is_on_the_way(small, ALICE, ONE)


def test_h45_single_bytes_do_not_keep_an_upload_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MANIFEST_PART_BYTES", 6)
    uploads = ManifestUploads()
    for who, size in ((ALICE, 3), (BOB, 1)):  # within a minute she has sent a part, he has not
        for number in range(4):
            take(uploads, who, ONE, 100, size * number, b"x" * size, 20.0 * number)
    uploads.sweep(80.0)
    assert is_on_the_way(uploads, ALICE, ONE)
    assert not is_on_the_way(uploads, BOB, ONE)


def test_h45_an_upload_ends_within_the_time_for_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MANIFEST_PART_BYTES", 2)
    monkeypatch.setattr(limits, "UPLOAD_RATE_MIN", 1)  # so that 100 bytes may take 100 s more
    uploads, end = ManifestUploads(), limits.UPLOAD_S + 100
    for number in range(49):
        take(uploads, ALICE, ONE, 100, 2 * number, b"xx", number * end / 49)
    uploads.sweep(end - 1)
    assert is_on_the_way(uploads, ALICE, ONE)
    uploads.sweep(end + 1)
    assert not is_on_the_way(uploads, ALICE, ONE)
