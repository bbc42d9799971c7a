"""Findings of `doctor`: the lines of its report."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """Result of one check."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: the subject, its health, the text and the advice."""

    subject: str
    health: Health
    text: str
    advice: str | None = None
