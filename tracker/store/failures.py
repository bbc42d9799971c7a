"""Failures of a database in the words of this program.

Owns: the translation of the exceptions of SQLAlchemy and its drivers.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from sqlalchemy.exc import SQLAlchemyError

from common.errors import StorageError


class DamagedDatabase(StorageError):
    """The database is damaged: SQLite's own check fails."""


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise `StorageError` for the exceptions of a database and of its files."""
    try:
        yield
    except SQLAlchemyError as error:
        if is_damage(error):
            raise DamagedDatabase(f"cannot {what}: {text_of(error)}") from error
        raise StorageError(f"cannot {what}: {text_of(error)}") from error
    except OSError as error:
        raise StorageError(f"cannot {what}: {error.strerror}") from error


def is_damage(error: SQLAlchemyError) -> bool:
    """Whether SQLite finds its file damaged."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def text_of(error: BaseException) -> str:
    """Return the driver's text in one line, without values of rows.

    SQLAlchemy's would put the statement and its values into logs, PostgreSQL's details some values.
    """
    driver_error = getattr(error, "orig", None) or error
    primary = getattr(getattr(driver_error, "diag", None), "message_primary", None)
    text = primary or str(driver_error) or type(error).__name__
    return " ".join(text.split("\n")[0].split())
