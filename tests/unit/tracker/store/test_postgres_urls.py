"""URLs of PostgreSQL databases: which of them show a secret to all users of a machine."""

from __future__ import annotations

import pytest

from tracker.store import postgres_connections as pg

pytest.importorskip("psycopg")


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("postgresql://eve@db/mini", False),
        ("postgresql://eve@db/mini?sslmode=verify-full&passfile=/etc/pgpass", False),
        ("postgresql://eve:hunter2@db/mini", True),
        ("postgresql://eve@db/mini?password=hunter2", True),
        ("postgresql://eve@db/mini?sslkey=/etc/key&sslpassword=hunter2", True),
    ],
)
def test_a_url_with_a_secret_is_recognised(url: str, secret: bool) -> None:
    assert pg.has_password(url) is secret
    assert "hunter2" not in pg.shown(url)


def test_an_address_of_ipv6_is_shown_in_brackets() -> None:
    assert (
        pg.shown("postgresql://[2001:db8::1]:5433/mini") == "postgresql://[2001:db8::1]:5433/mini"
    )
    assert pg.shown("postgresql://[::1],db/mini") == "postgresql://[::1],db/mini"
