"""Receipts for publishers: PUBACK and PUBREC, sent after the gateway has committed the message.

They go out in the order in which the messages came [MQTT-4.6.0-2], [MQTT-4.6.0-3].
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

PUBACK: Final = 0x40
PUBREC: Final = 0x50
_ID_BYTES: Final = 2


class Receipt:
    """The answer to one message. It is due when every gateway session that got the message has handled it."""

    __slots__ = ("_awaited", "_debts", "kind", "packet_id")

    def __init__(self, debts: "Debts", kind: int, packet_id: int) -> None:
        self.kind = kind
        self.packet_id = packet_id
        self._debts = debts
        self._awaited = 0

    @property
    def is_due(self) -> bool:
        """Return whether every session has handled the message."""
        return not self._awaited

    def awaits(self) -> None:
        """Wait for one more session."""
        self._awaited += 1

    def taken(self) -> None:
        """Note that one session has handled it."""
        self._awaited -= 1
        if not self._awaited:
            self._debts.pay()

    def dropped(self) -> None:
        """Note that the message is lost: its sender must send it again, over another connection."""
        self._debts.default()

    def encode(self) -> bytes:
        """Return the packet."""
        return bytes((self.kind, _ID_BYTES)) + self.packet_id.to_bytes(_ID_BYTES)


class Debts:
    """The answers that one connection awaits. ``send`` takes bytes; ``default`` is called when one cannot be given."""

    def __init__(self, send: Callable[[bytes], None], default: Callable[[], None]) -> None:
        self._receipts: deque[Receipt] = deque()
        self._send = send
        self.default = default
        self.on_paid: Callable[[], None] | None = None
        """Called once, when no answer is awaited any more."""

    def __bool__(self) -> bool:
        return bool(self._receipts)

    def owe(self, kind: int, packet_id: int) -> Receipt:
        """Note that a message came. Its answer is sent by :meth:`pay`, not before those to earlier ones."""
        receipt = Receipt(self, kind, packet_id)
        self._receipts.append(receipt)
        return receipt

    def pay(self) -> None:
        """Send what is due, up to the first answer that is not."""
        receipts = self._receipts
        if not receipts or not receipts[0].is_due:
            return
        due = []
        while receipts and receipts[0].is_due:
            due.append(receipts.popleft().encode())
        self._send(b"".join(due))
        if not receipts and self.on_paid is not None:
            on_paid, self.on_paid = self.on_paid, None
            on_paid()

    def unconfirmed(self) -> Iterator[int]:
        """Return the ids of QoS 2 messages that were not answered: they may come again, and count as new then."""
        return (each.packet_id for each in self._receipts if each.kind == PUBREC)
