"""Statements of receipts, and of budgets, which have none."""

from __future__ import annotations

from sqlalchemy import delete

from tracker.core.budgets import BudgetSpent
from tracker.core.changes import receipts as c
from tracker.store import tables as t
from tracker.store.gathered import Gathered
from tracker.store.statements.base import write_change


@write_change.register
def _(change: c.ReceiptStored, rows: Gathered) -> None:
    row = {"device": change.device, "request_id": change.request_id}
    rows.receipt({**row, "fingerprint": change.fingerprint, "at_ms": change.at_ms})


@write_change.register
def _(change: c.ReceiptsExpired, rows: Gathered) -> None:
    db = rows.flushed()
    db.execute(delete(t.receipts).where(t.receipts.c.at_ms < change.before_ms))


@write_change.register
def _(change: BudgetSpent, rows: Gathered) -> None:
    pass  # in memory only
