"""Recent log of a tracker, as its page asks for it."""

from __future__ import annotations

import logging

from tracker.service.recent_log import RecentLog


def log_of(*texts: str) -> RecentLog:
    found = RecentLog()
    for text in texts:
        found.handle(logging.LogRecord("t", logging.INFO, "", 1, text, None, None))
    return found


def test_a_page_gets_further_lines_alone() -> None:
    found = log_of("one", "two", "three\x1b")
    assert [row.text for row in found.after(1).rows] == ["two", "three\\x1b"]
    assert found.after(3).rows == []


def test_a_page_that_stayed_open_over_a_restart_gets_all_lines() -> None:
    assert [row.text for row in log_of("begun anew").after(500).rows] == ["begun anew"]
