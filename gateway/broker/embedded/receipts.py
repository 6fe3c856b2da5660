"""The answers that a connection still owes: PUBACK and PUBREC, sent when the gateway has committed the message.

They go out in the order in which the messages came [MQTT-4.6.0-2], [MQTT-4.6.0-3].
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

PUBACK: Final = 0x40
PUBREC: Final = 0x50
_ID_BYTES: Final = 2


class Receipt:
    """The answer to one message. It is due when every gateway session that the message went to has taken it."""

    __slots__ = ("_awaited", "_debts", "kind", "packet_id")

    def __init__(self, debts: "Debts", kind: int, packet_id: int) -> None:
        self.kind = kind
        self.packet_id = packet_id
        self._debts = debts
        self._awaited = 0

    @property
    def is_due(self) -> bool:
        """Whether nobody has to take the message any more."""
        return not self._awaited

    def awaits(self) -> None:
        """One more has to take the message."""
        self._awaited += 1

    def taken(self) -> None:
        """One of them has."""
        self._awaited -= 1
        if not self._awaited:
            self._debts.pay()

    def dropped(self) -> None:
        """The message is lost: its sender has to say it again, over another connection."""
        self._debts.default()

    def encode(self) -> bytes:
        """The packet."""
        return bytes((self.kind, _ID_BYTES)) + self.packet_id.to_bytes(_ID_BYTES)


class Debts:
    """What one connection is owed. ``send`` takes bytes; ``default`` is called when an answer cannot be given."""

    def __init__(self, send: Callable[[bytes], None], default: Callable[[], None]) -> None:
        self._receipts: deque[Receipt] = deque()
        self._send = send
        self.default = default
        self.on_paid: Callable[[], None] | None = None
        """Called once, when nothing is owed any more."""

    def __bool__(self) -> bool:
        return bool(self._receipts)

    def owe(self, kind: int, packet_id: int) -> Receipt:
        """A message came; its answer is sent by :meth:`pay`, not before those to earlier ones."""
        receipt = Receipt(self, kind, packet_id)
        self._receipts.append(receipt)
        return receipt

    def pay(self) -> None:
        """Send what is due, as far as nothing before it is still awaited."""
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
        """The ids of messages at QoS 2 that were not answered: they may come again, and are new then."""
        return (each.packet_id for each in self._receipts if each.kind == PUBREC)
