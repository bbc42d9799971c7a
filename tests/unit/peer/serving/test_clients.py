"""Table of clients: channels, eviction and bounds."""

from __future__ import annotations

import pytest

from common.crypto.tickets import Ticket
from common.ids import ContentId, DeviceKey, GroupId
from peer.serving import clients
from peer.serving.clients import ClientTable
from peer.swarm.serving.events import RequesterId

FILMS, MUSIC = GroupId("films"), GroupId("music")
ONE, TWO = ContentId(b"1" * 32), ContentId(b"2" * 32)


def name(number: int) -> RequesterId:
    return RequesterId(b"%017d" % number)


def test_channels_open_and_close() -> None:
    table = ClientTable()
    client, *evicted = table.add(name(1), DeviceKey(b"d" * 32))
    assert evicted == []
    first = table.open(client, 5, FILMS, ONE)
    assert first is not None
    assert table.open(client, 6, FILMS, TWO)
    assert table.of_content(ONE) == [first] == [table.channel(name(1), ONE)]
    # The same content under another number, and another content under the same one.
    assert table.open(client, 7, MUSIC, ONE)
    assert set(client.channels) == {6, 7}
    assert table.open(client, 6, FILMS, ONE)
    assert set(client.channels) == {6}
    assert table.of_content(TWO) == []
    assert not first.is_open
    assert table.remove(name(1)) is client
    assert table.of_content(ONE) == []
    assert table.remove(name(1)) is None
    assert len(table) == 0


def test_clients_and_channels_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "CLIENTS_MAX", 20)
    table = ClientTable()
    first, *_ = table.add(name(0), DeviceKey(b"d" * 32))
    for number in range(clients.CHANNELS_MAX):
        assert table.open(first, number, FILMS, ContentId(b"%032d" % number))
    assert not table.open(first, 5000, FILMS, TWO)
    for number in range(1, 100):
        device = DeviceKey(b"%032d" % number)
        table.add(name(number), device)
    assert len(table) == 20
    assert table.get(name(0)) is first  # it has open channels, the others had none


def test_one_device_does_not_evict_others() -> None:
    table = ClientTable()
    table.add(name(0), DeviceKey(b"o" * 32))
    for number in range(1, 50):
        table.add(name(number), DeviceKey(b"d" * 32))
    assert len(table) == 1 + clients.CLIENTS_PER_DEVICE_MAX
    assert table.get(name(0)) is not None
    assert table.get(name(49)) is not None
    assert table.get(name(1)) is None


def test_the_ticket_of_a_channel_is_the_newest_of_its_group() -> None:
    table, device = ClientTable(), DeviceKey(b"d" * 32)
    client, *_ = table.add(name(1), device)
    channel = table.open(client, 5, FILMS, ONE)
    assert channel is not None
    for epoch in (1, 2):
        client.tickets[FILMS] = Ticket(1, b"t" * 16, device, "bob", FILMS, epoch, 0, 99)
        assert channel.ticket.epoch == epoch
