"""Changes of receipts, by which the repetition of a command is recognised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.ids import DeviceKey
from tracker.core.changes.base import Change, change

if TYPE_CHECKING:
    from tracker.core.state import State


@change(39)
class ReceiptStored(Change):
    """Idempotency receipt: a repetition of this command of this device changes nothing.

    ``fingerprint`` tells the same command from another one under the same id.
    """

    device: DeviceKey
    request_id: bytes
    fingerprint: bytes
    at_ms: int

    def apply(self, state: State) -> None:
        state.undo.item(state.receipts, (self.device, self.request_id))
        state.receipts[self.device, self.request_id] = (self.fingerprint, self.at_ms)


@change(40)
class ReceiptsExpired(Change):
    """Receipts from before ``before_ms`` are deleted."""

    before_ms: int

    def apply(self, state: State) -> None:
        state.undo.field(state, "receipts")
        state.receipts = {k: v for k, v in state.receipts.items() if v[1] >= self.before_ms}
